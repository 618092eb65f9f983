"""Runs that take turns in one process, so that a device has the work of several while it is waited for.

One thread for each run, and one of them at work: it hands its turn over where an outer step would wait for the device,
which then has that step's work and the next run's. Nothing else in the suite has to know of threads.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Turns:
    """Threads of which one is at work; the others wait in a row."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Work when it is this thread's turn, and let the next one work at the end of the block."""
        with self._mutex:
            turn = None if not self._taken else self._in_the_row()
            self._taken = True
        if turn is not None:
            turn.wait()
        _of_this_thread.turns = self
        try:
            yield
        finally:
            _of_this_thread.turns = None
            with self._mutex:
                self._taken = self._next()

    def hand_over(self) -> None:
        """Let every other thread have its turn; without one, go on."""
        with self._mutex:
            if not self._waiting:
                return
            turn = self._in_the_row()
            self._next()
        turn.wait()

    def _in_the_row(self) -> threading.Event:
        turn = threading.Event()
        self._waiting.append(turn)
        return turn

    def _next(self) -> bool:
        """Let the first of the row work; whether there is one."""
        if not self._waiting:
            return False
        self._waiting.popleft().set()
        return True


class _OfThisThread(threading.local):
    turns: Turns | None = None


_of_this_thread = _OfThisThread()


def hand_over() -> None:
    """Let the other runs of the process work, if there are any; called before a wait for the device."""
    if _of_this_thread.turns is not None:
        _of_this_thread.turns.hand_over()


def by_turns(works: Sequence[Callable[[], Result]], at_once: int, device: torch.device) -> "list[Future[Result]]":
    """Do all of these, at most so many at once, each on a stream of its own where the device has streams.

    Returns when all have ended; a result is in its future, or the exception that ended it.
    """
    turns = Turns()

    def work(do: Callable[[], Result]) -> Result:
        with turns.taken(), _own_stream(device):
            return do()

    with ThreadPoolExecutor(at_once, thread_name_prefix="run") as pool:
        return [pool.submit(work, do) for do in works]


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """A stream of this thread's own, which has no device of its own at first."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
        yield
