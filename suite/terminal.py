"""A command's terminal: nothing that is said there can end what the command does.

Nor does what is printed command the terminal: names, labels and messages may be of strangers.
A pipe whose reader is gone (`| head`, Ctrl-C with `| tee log`), a terminal that hangs up, a stream that was closed from
the start (`2>&-`) and an encoding that lacks a letter are met where words are written, by one wrapper for all commands.
"""

import errno
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec

from suite.errors import RunError, harmless, one_line, report

P = ParamSpec("P")

UNREAD = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ESTALE, errno.ENXIO)
"""Numbers of the errors of a stream that nobody reads any more."""


def command(main: Callable[P, int]) -> Callable[P, int]:
    """A command's `main` with streams that do not break."""

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        with unbreakable_streams() as streams:
            try:
                status = main(*args, **kwargs)
            except (OSError, MemoryError, ImportError) as error:  # what no command can foresee
                report(_unforeseen(error))
                status = RunError.status
            for stream in streams:
                stream.flush()
            failed = [stream.failure for stream in streams if stream.failure is not None]
            if failed:  # not a reader that left: a disk that is full, for one
                report(f"what was printed is not whole ({failed[0].strerror or failed[0]}); print it elsewhere")
            return RunError.status if failed and status == 0 else status

    return guarded


LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a machine that has no more of something."""


def _unforeseen(error: OSError | MemoryError | ImportError) -> str:
    """A sentence about a limit of the machine or a package that is not there; any other error is raised again."""
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the package {error.name} is not installed in this Python ({sys.executable}); activate the environment "
            f"that has it, or install it: pip install -e . in the suite's folder, or pip install {error.name}"
        )
    if isinstance(error, OSError) and error.errno not in LIMITS:
        raise error
    return f"this machine does not let the command go on ({one_line(error)}); look at `ulimit -a` and disks"


@contextmanager
def unbreakable_streams() -> "Iterator[tuple[_Unbreakable, _Unbreakable]]":
    """Within the block, stdout and stderr take every text and raise nothing; what nobody can read is lost.

    A letter that the stream's encoding lacks is written as an escape, such as \\u00b1.
    """
    _open_standard_files()
    before = sys.stdout, sys.stderr
    streams = _Unbreakable(sys.stdout), _Unbreakable(sys.stderr)
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_standard_files() -> None:
    """Open the null device in the place of standard files that are closed: else the next file opened gets their number,
    and whatever is written to number 2 goes there."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one


class _Unbreakable:
    """A text stream whose writing can't fail; everything else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        """`stream`: None for a stream that was closed before Python started."""
        self._stream = stream
        self.failure: OSError | None = None
        """The first error that was not of a reader that left."""
        with suppress(AttributeError, OSError, ValueError):  # not each stream has a setting for it
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or lose, the text, without letters that a terminal obeys, but for the return before a bar."""
        bar = text.startswith("\r")
        shown = "\r" * bar + harmless(text[bar:])
        self._attempt(lambda: self._stream.write(shown))
        return len(text)

    def flush(self) -> None:
        """Flush what can be."""
        self._attempt(lambda: self._stream.flush())

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        try:
            return self._stream is not None and bool(self._stream.isatty())
        except (OSError, ValueError):
            return False

    def _attempt(self, do: Callable[[], object]) -> None:
        if self._stream is None:
            return
        try:
            do()
        except OSError as error:
            if error.errno not in UNREAD and not isinstance(error, io.UnsupportedOperation) and self.failure is None:
                self.failure = error
            self._let_go()
        except ValueError:  # the stream is closed
            self._let_go()

    def _let_go(self) -> None:
        """Lead the rest, and what is still buffered, to the null device: the interpreter flushes at its end."""
        with suppress(OSError, ValueError, AttributeError):
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, number)
            finally:
                os.close(nowhere)
