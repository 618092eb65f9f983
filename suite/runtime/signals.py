"""Signals that stop a run at its next checkpoint."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGXCPU)
"""The signals that ask a run to stop; the last two come when a terminal hangs up and when the time on a CPU is up."""


class Stop:
    """Whether a signal asked the process to stop. The first is noted; a second ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The signal that came; None: none."""

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
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        # os.write, since print() may be at work in what was interrupted
        with suppress(OSError):  # nobody reads any more
            os.write(2, b"stopping at the next checkpoint; a second signal ends at once\n")
