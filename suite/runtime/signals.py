"""Signals that stop a run at its next checkpoint."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""The signals that ask a run to stop; the last comes when a terminal hangs up."""


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
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGHUP:
            return  # a shell and the system each send one when a terminal hangs up
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        # os.write, since print() may be at work in what was interrupted
        with suppress(OSError):  # nobody reads any more
            os.write(2, b"stopping at the next checkpoint; a second signal ends at once\n")
