"""Deals units out to an engine, until each is done or given up: whatever the engine is, its rules are the same."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Protocol, runtime_checkable

from suite.errors import Interrupted, RunError, first_line
from suite.runtime.durations import duration
from suite.storage.files import delete, make_directory, write_atomic
from suite.sweep.units import Unit

MOST_DEATHS = 3
"""Times that a unit may be killed before the sweep gives it up: what kills it each time, such as a lack of memory, will
do so again."""

MOST_LOSSES = 20
"""Times that a unit may be lost with its machine: machines are taken away for reasons of their own."""

MOST_STALLS, STALL_SECONDS = 10, 10.0
"""Times in a row that a unit may end with status 75, or without a record, within so many seconds: it gets nowhere."""

LAST_BYTES = 2**16
"""Of a log that are read for its last line."""

COMMAND = "suite.run: "
"""How the line begins in which a run says why it failed."""

SMALL = 2**12
"""Bytes of a file that is written to see whether there is room."""

POLL = 0.1
"""Seconds between looks at what is at work."""

REPORTED_EVERY = 60.0
"""Seconds between lines of progress where nothing ends."""

# ---------------------------------------------------------------- engines


@dataclass(frozen=True)
class Ended:
    """How a unit's process ended, as its engine tells; whether the unit is done, its run's directory tells."""

    status: int | None
    """Its exit status, below 0 for a signal; None: it was lost with its machine."""
    seconds: float
    """At work."""
    why: str = ""
    """In the engine's words, where it has some."""


@runtime_checkable
class Task(Protocol):
    """A unit that an engine has taken."""

    def ended(self) -> Ended | None:
        """How it ended; None: it waits or is at work."""


@runtime_checkable
class Engine(Protocol):
    """Where the processes of units are: entered before the first begins, and left after the last ended."""

    @property
    def queues(self) -> bool:
        """Whether it takes more units than it has room for."""

    @property
    def workers(self) -> int | None:
        """Units for which it has room at present; None: unknown, where it queues."""

    def begin(self, unit: Unit, log: Path) -> Task:
        """Have the unit's command run, with what it says going to `log`. Raises OSError and RunError."""

    def end(self, working: Sequence[tuple[Unit, Task]]) -> None:
        """Stop what is at work at its next checkpoint, and wait for it; what waits does not begin."""

    def __enter__(self) -> "Engine": ...

    def __exit__(self, *error: object) -> None: ...


# ---------------------------------------------------------------- the pool


@dataclass(frozen=True)
class Working:
    """A unit in an engine's hands."""

    unit: Unit
    """What is to be done."""
    task: Task
    """Who does it."""
    started: float
    """Seconds of the monotonic clock."""


@dataclass
class Pool:
    """Has an engine do units; what it finds out is in its fields.

    A unit that fails does not stop the others. One that ends with status 75, is killed or is lost is begun again and
    goes on from its checkpoint.
    """

    engine: Engine
    """Where the units are done."""
    logs: Path
    """A folder with a file for each unit."""
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
    """Called with each line of progress."""
    done: list[Unit] = field(default_factory=list)
    """In the order of their end."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by a unit's name."""

    def run(self, units: Sequence[Unit], stopped: Callable[[], object]) -> None:
        """Do the units, in this order; once `stopped` says so, stop them at a checkpoint and raise Interrupted."""
        make_directory(self.logs)
        waiting, working = list(units), list[Working]()
        self._deaths, self._losses, self._stalls = Counter[str](), Counter[str](), Counter[str]()
        self._total, self._spent, self._foretold = len(units), 0.0, 0.0
        told = time.monotonic()
        try:
            while waiting or working:
                if stopped():
                    raise Interrupted("the sweep was stopped; the same command goes on with it")
                room = len(units) if self.engine.queues else self.engine.workers or 1
                while len(working) < room and (unit := self._next(waiting)) is not None:
                    try:
                        unit.write()
                        task = self.engine.begin(unit, self._log(unit))
                        working.append(Working(unit, task, time.monotonic()))
                    except (OSError, RunError) as error:  # a full or read-only disk, no more processes
                        self._give_up(unit, first_line(error))
                found = [(one, one.task.ended()) for one in working]
                ends = [(one, end) for one, end in found if end is not None]
                for one, end in ends:
                    working.remove(one)
                    if self._again(one.unit, end):
                        waiting.append(one.unit)
                if ends or time.monotonic() - told > REPORTED_EVERY:
                    told = time.monotonic()
                    self.say(self._progress(waiting, working))
                time.sleep(POLL)
        finally:
            self.engine.end([(one.unit, one.task) for one in working])

    def _log(self, unit: Unit) -> Path:
        return self.logs / f"{unit.directory.name}.log"

    def _next(self, waiting: list[Unit]) -> Unit | None:
        """Take out the first unit at which nobody is at work; what others finished meanwhile is done."""
        for unit in list(waiting):
            state = unit.state
            if state == "running":  # by a process of a sweep that was killed, or of another command
                continue
            waiting.remove(unit)
            if state != "finished":
                return unit
            self.done.append(unit)
        return None

    def _again(self, unit: Unit, end: Ended) -> bool:
        """Note how a unit ended; whether it is to be begun again."""
        state = unit.state
        if state == "finished":
            self.done.append(unit)
            self._spent += end.seconds
            self._foretold += unit.seconds or 0.0
            return False
        if state == "running":  # another process took it between two looks, and this one found its lock held
            return True
        if end.status is None:
            return self._once_more(unit, self._losses, MOST_LOSSES, f"lost with its machine ({end.why})")
        if end.status < 0:
            return self._once_more(unit, self._deaths, MOST_DEATHS, f"killed by {_signal_name(-end.status)}")
        if end.status in (0, Interrupted.status):
            if end.status and end.seconds >= STALL_SECONDS:
                del self._stalls[unit.key]
            # a network file system may show a record of another machine some seconds late
            why = f"stopped within {STALL_SECONDS:g} seconds" if end.status else _unseen(unit)
            return self._once_more(unit, self._stalls, MOST_STALLS, why)
        self._give_up(unit, end.why or _last_words(self._log(unit), end.status))
        return False

    def _once_more(self, unit: Unit, times: Counter[str], most: int, why: str) -> bool:
        """Count an end; give the unit up where there were too many."""
        times[unit.key] += 1
        if times[unit.key] < most:
            return True
        self._give_up(unit, f"{why}, {most} times")
        return False

    def _give_up(self, unit: Unit, why: str) -> None:
        self.failed[unit.name] = why
        self.say(f"[sweep] {unit.name} failed: {why}")

    def _progress(self, waiting: Sequence[Unit], working: Sequence[Working]) -> str:
        queued = [one for one in working if self.engine.queues and one.unit.state != "running"]
        begun = [one for one in working if one not in queued]
        waits = [*waiting, *(one.unit for one in queued)]
        parts = [f"{len(self.done)} of {self._total} done", f"{len(begun)} running", f"{len(waits)} waiting"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        return f"[sweep] {', '.join(parts)}{self._time_left(waits, begun)}"

    def _time_left(self, waiting: Sequence[Unit], begun: Sequence[Working]) -> str:
        """By what was foretold, times what the finished units took of it; '' before one has finished."""
        workers = self.engine.workers
        if not (self._foretold and (waiting or begun) and workers):
            return ""
        pace, now = self._spent / self._foretold, time.monotonic()
        seconds = sum(unit.seconds or 0.0 for unit in waiting) * pace
        for one in begun:
            passed = 0.0 if self.engine.queues else now - one.started  # nobody says when a queue let it through
            seconds += max(0.0, (one.unit.seconds or 0.0) * pace - passed)
        return f"; {duration(seconds / workers)} left"


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:  # those for real time have no names
        return f"signal {number}"


def _unseen(unit: Unit) -> str:
    return f"ended as if done, but left no record in {unit.directory}, which all machines must share"


def _last_words(log: Path, status: int) -> str:
    """The last line that a process said, and where the rest is."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    lines = [line for line in text.splitlines() if line.strip()]
    said = lines[-1][:300] if lines else f"exit status {status}"
    if not said.startswith(COMMAND):  # what it had to say at its end may not have been written for want of room
        said = _no_room(log.parent) or said
    return f"{said} ({log})"


def _no_room(folder: Path) -> str | None:
    """Why a small file can't be written in a folder; None where it can."""
    probe = folder / f".room-{os.getpid()}"
    try:
        write_atomic(probe, bytes(SMALL))
        delete(probe)
    except RunError as error:
        return first_line(error)
    return None
