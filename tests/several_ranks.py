"""Ranks for tests: one process imports the suite and forks the ranks of one command after another, which saves seconds.

Each rank is what torchrun would start: a process with $RANK, $WORLD_SIZE and the address of the first. It may be told
to send itself a signal before an outer step's results are gathered, or when no outer step is left.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import REPOSITORY

MOST_SECONDS = 300
"""That ranks may take, however busy the machine; then they are killed, and their test fails."""

AT_END = -1
"""In place of a step: when no outer step is left, and the first rank evaluates."""


@dataclass(frozen=True)
class Blow:
    """A signal that a rank sends itself."""

    rank: int
    """Which."""
    step: int
    """Before the results of this outer step (from 0) are gathered, or AT_END."""
    signal: int = signal.SIGKILL
    """What is sent."""


@dataclass(frozen=True)
class Ended:
    """How the ranks of a command ended."""

    statuses: list[int]
    """By rank; that of a signal is negative."""
    said: list[str]
    """By rank, all that it printed."""


class Ranks:
    """Starts commands as several ranks."""

    def __init__(self, process: "subprocess.Popen[str]", place: Path) -> None:
        """`process` runs this file; `place` is for what ranks print."""
        self._process, self._place = process, place

    def __call__(self, count: int, line: Sequence[str | Path], blow: Blow | None = None) -> Ended:
        """`python -m suite.run` with these words, as so many ranks."""
        assert self._process.stdin is not None and self._process.stdout is not None
        job = {"count": count, "line": list(map(str, line)), "blow": vars(blow) if blow else None}
        self._process.stdin.write(json.dumps(job | {"place": str(self._place), "port": _free_port()}) + "\n")
        self._process.stdin.flush()
        statuses = json.loads(self._process.stdout.readline())
        return Ended(statuses, [(self._place / f"{rank}.txt").read_text() for rank in range(count)])


@contextmanager
def several_ranks(place: Path) -> Iterator[Ranks]:
    """A process that starts ranks, for the block."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, __file__], cwd=REPOSITORY, env=environment, **pipes)
    try:
        yield Ranks(process, place)
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# ---------------------------------------------------------------- in the process that forks


def _fork(job: dict[str, Any], rank: int) -> int:
    """Start one rank; returns its process's number."""
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(job["count"]), "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(job["port"])
        with open(Path(job["place"]) / f"{rank}.txt", "w") as text:
            os.dup2(text.fileno(), 1)
            os.dup2(text.fileno(), 2)
        from suite.run import main

        if job["blow"] and (blow := Blow(**job["blow"])).rank in (rank, *[blow.rank] * (blow.step == AT_END)):
            _arm(blow, rank)
        status = main(job["line"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return 0


def _arm(blow: Blow, rank: int) -> None:
    """Have this rank send itself the signal at its step."""
    from suite.core import ranks
    from suite.runtime import follow, session

    gathered, wait = ranks.Ranks.gathered, session.time.sleep

    def struck(self: Any, own: Any, step: int) -> Any:
        if step == blow.step:
            os.kill(os.getpid(), blow.signal)
        return gathered(self, own, step)

    learned, leads = session.RunSession.learned, follow._FollowersSession.learned

    def first_waits(self: Any) -> None:
        learned(self)
        for _ in range(2000):
            if self._stop.signal is None:
                wait(0.01)

    def other_is_struck(self: Any) -> None:
        os.kill(os.getpid(), blow.signal)
        leads(self)

    if blow.step != AT_END:
        ranks.Ranks.gathered = struck  # type: ignore[method-assign]
    elif rank == 0:
        session.RunSession.learned = first_waits  # type: ignore[method-assign]
    elif rank == blow.rank:
        follow._FollowersSession.learned = other_is_struck  # type: ignore[method-assign]


def _kill(numbers: list[int]) -> None:
    for number in numbers:
        os.kill(number, signal.SIGKILL)


def _serve() -> None:
    import matplotlib.pyplot  # noqa: F401  # which the first rank draws with
    import torch

    from suite import run
    from suite.registry import load_components

    torch.set_num_threads(1)
    load_components()
    run._announce = lambda *_: None  # its estimate takes a second to measure
    for name in ("suite.runtime.execute", "suite.runtime.estimate", "suite.runtime.follow", "suite.config.resolve"):
        __import__(name)
    for line in sys.stdin:
        job = json.loads(line)
        numbers = [_fork(job, rank) for rank in range(job["count"])]
        watch = threading.Timer(MOST_SECONDS, _kill, [numbers])
        watch.daemon = True
        watch.start()  # ranks that wait for each other for ever would hold up all tests
        statuses = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers]
        watch.cancel()
        print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    _serve()
