"""A command's terminal: nothing that is said there can end what the command does.

A pipe whose reader is gone (`| head`, Ctrl-C with `| tee log`), a terminal that hangs up, a stream that was closed from
the start (`2>&-`) and an encoding that lacks a letter are met where words are written, by one wrapper for all commands.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec

P = ParamSpec("P")

LOST = (OSError, ValueError, AttributeError)
"""What writing raises where nobody reads any more, where a stream is closed, and where there is none."""


def command(main: Callable[P, int]) -> Callable[P, int]:
    """A command's `main` with streams that do not break."""

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        with unbreakable_streams():
            return main(*args, **kwargs)

    return guarded


@contextmanager
def unbreakable_streams() -> Iterator[None]:
    """Within the block, stdout and stderr take every text and raise nothing; what nobody can read is lost.

    A letter that the stream's encoding lacks is written as an escape, such as \\u00b1.
    """
    _open_standard_files()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Unbreakable(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
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
        with suppress(*LOST):  # not each stream has a setting for it
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or lose, the text."""
        try:
            self._stream.write(text)
        except LOST:
            self._let_go()
        return len(text)

    def flush(self) -> None:
        """Flush what can be."""
        try:
            self._stream.flush()
        except LOST:
            self._let_go()

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        try:
            return bool(self._stream.isatty())
        except LOST:
            return False

    def _let_go(self) -> None:
        """Lead the rest, and what is still buffered, to the null device: the interpreter flushes at its end."""
        with suppress(*LOST):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
