"""How long a tracking store is waited for, and that it is said meanwhile.

MLflow bounds the wait for one piece of an answer. A server that sends a byte a second, asks to come back in a day or
repeats itself without end is met here: a request has so many seconds in all.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from suite.errors import RunError, report

REQUEST_SECONDS = 60.0
"""For one request, with its repetitions."""

SILENT_SECONDS = 10.0
"""Between two lines about a wait."""


class NoAnswer(RunError):
    """A store gave no whole answer in time; the next one is not worth waiting for."""


class _TooLate(BaseException):
    """Raised in the middle of a wait. It is no `Exception`, which libraries catch to try again."""


@contextmanager
def within(seconds: float, uri: str) -> Iterator[None]:
    """Raise NoAnswer if the block takes longer; a line says now and then that the store `uri` is waited for.

    Outside the main thread, where Python hears no signals, there is no limit. Blocks do not nest.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    began = time.monotonic()

    def ring(number: int, frame: FrameType | None) -> None:
        waited = time.monotonic() - began
        if waited >= seconds:
            raise _TooLate
        with suppress(RuntimeError):  # in the middle of another line
            report(f"[tracking] {uri} has not answered for {waited:.0f} s")

    tick = min(SILENT_SECONDS, seconds)
    handler, timer = signal.signal(signal.SIGALRM, ring), signal.setitimer(signal.ITIMER_REAL, tick, tick)
    try:
        yield
    except _TooLate:
        raise NoAnswer(f"the tracking store {uri} gave no whole answer within {seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


class Patient:
    """An object of MLflow whose every method has `REQUEST_SECONDS`, and `more_seconds` where they are named."""

    def __init__(self, of: Any, uri: str) -> None:
        """`of`: the object; `uri`: of its store."""
        self._of, self._uri = of, uri

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._of, name)

        def bounded(*args: Any, more_seconds: float = 0.0, **kwargs: Any) -> Any:
            with within(REQUEST_SECONDS + more_seconds, self._uri):
                return method(*args, **kwargs)

        return bounded
