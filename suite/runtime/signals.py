"""Signals that stop a run at its next checkpoint, and a command before its runs and after them."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGXCPU)
"""The signals that ask a run to stop; the last two come when a terminal hangs up and when the time on a CPU is up."""


class Stop:
    """Whether a signal asked the process to stop. The first is noted; a second ends the process at once."""

    def __init__(self, once: bool = True) -> None:
        """`once`: False where a launcher passes on what a terminal has sent already: then all but the first is nothing.

        A launcher ends a process itself that does not stop in time.
        """
        self.signal: signal.Signals | None = None
        """The signal that came; None: none."""
        self._once = once

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle `SIGNALS` within the block; the handlers of before come back after it."""
        # After `nohup`, a terminal's end is ignored, and stays so.
        heard = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._handle) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                over = number == self.signal == signal.SIGXCPU  # it comes again while the process ends in order
                signal.signal(number, signal.SIG_IGN if over else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number in (signal.SIGHUP, signal.SIGXCPU):
            return  # a shell and the system each send one when a terminal hangs up; the other comes every second
        if self.signal is not None and not self._once:
            return
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        words = b"; a second signal ends at once" if self._once else b""
        # os.write, since print() may be at work in what was interrupted
        with suppress(OSError):  # nobody reads any more
            os.write(2, b"stopping at the next checkpoint" + words + b"\n")


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Within the block, `SIGNALS` raise KeyboardInterrupt as Ctrl-C does, where they would end the process unheard.

    Only in the main thread, the one that hears signals.
    """
    here = threading.current_thread() is threading.main_thread()
    unheard = [number for number in SIGNALS if here and signal.getsignal(number) == signal.SIG_DFL]
    for number in unheard:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in unheard:
            if signal.getsignal(number) == signal.default_int_handler:  # and was not ignored meanwhile
                signal.signal(number, signal.SIG_DFL)


def end(status: int) -> NoReturn:
    """End the process with a status that a signal, which comes too late to stop anything, does not change."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)
