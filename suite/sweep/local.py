"""Units as processes on this machine."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from suite.sweep.attended import begun
from suite.sweep.pool import Ended, Task
from suite.sweep.units import Unit


@dataclass
class Process:
    """A unit's process."""

    process: "Popen[bytes]"
    """The leader of its own session."""
    started: float
    """Seconds of the monotonic clock."""

    def ended(self) -> Ended | None:
        """How it ended; None: it is at work."""
        status = self.process.poll()
        return None if status is None else Ended(status, time.monotonic() - self.started)


@dataclass
class Processes:
    """An engine: as many processes at a time as there are workers."""

    workers: int
    """Processes at a time."""
    words_of_worker: Callable[[int], tuple[str, ...]] = lambda worker: ()
    """Words that a worker, by its number, adds to a command: its device."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What processes have beside this one's environment."""
    queues: bool = field(default=False, init=False)
    """More processes than workers are not taken."""

    def __post_init__(self) -> None:
        self._of_worker: dict[int, Process] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing of it outlives its processes."""

    def begin(self, unit: Unit, log: Path) -> Task:
        """Start the unit's command as the first worker that is free. Raises OSError."""
        busy = {worker for worker, process in self._of_worker.items() if process.ended() is None}
        worker = min(set(range(self.workers)) - busy)
        command = (*unit.command, *self.words_of_worker(worker))
        self._of_worker[worker] = Process(begun(command, self.environment, log), time.monotonic())
        return self._of_worker[worker]

    def end(self, working: Sequence[tuple[Unit, Task]]) -> None:
        """Stop what is at work at its next checkpoint, and wait for it."""
        processes = [one.process for one in self._of_worker.values()]
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
