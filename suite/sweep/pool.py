"""A pool of processes on this machine, each of which does one unit at a time."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from suite.errors import Interrupted, RunError, first_line
from suite.runtime.durations import duration
from suite.storage.files import make_directory
from suite.sweep.units import Unit

MOST_DEATHS = 3
"""Times that a unit may be killed before the sweep gives it up: what kills it each time, such as a lack of memory, will
do so again."""

MOST_STALLS, STALL_SECONDS = 10, 10.0
"""Times in a row that a unit may end with status 75 within so many seconds: it gets nowhere."""

LAST_BYTES = 2**16
"""Of a log that are read for its last line."""

POLL = 0.1
"""Seconds between looks at the processes."""

REPORTED_EVERY = 60.0
"""Seconds between lines of progress where nothing ends."""


@dataclass
class Working:
    """A process that is at work on a unit."""

    unit: Unit
    """What it does."""
    process: "subprocess.Popen[bytes]"
    """The leader of its own session."""
    worker: int
    """Its number."""
    started: float
    """Seconds of the monotonic clock."""


@dataclass
class Pool:
    """Does units side by side; what it finds out is in its fields.

    A unit that fails does not stop the others. One that ends with status 75, or is killed, is begun again and goes on
    from its checkpoint.
    """

    workers: int
    """Processes at a time."""
    logs: Path
    """A folder with a file for each unit."""
    words_of_worker: Callable[[int], tuple[str, ...]] = lambda worker: ()
    """Words that a worker, by its number, adds to a command: its device."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What processes have beside this one's environment."""
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
        self._deaths, self._stalls = Counter[str](), Counter[str]()
        self._total, self._spent, self._foretold = len(units), 0.0, 0.0
        told = time.monotonic()
        try:
            while waiting or working:
                if stopped():
                    raise Interrupted("the sweep was stopped; the same command goes on with it")
                free = sorted(set(range(self.workers)) - {one.worker for one in working})
                while free and (unit := self._next(waiting)) is not None:
                    try:
                        working.append(self._start(unit, free[0]))
                        free.pop(0)
                    except (OSError, RunError) as error:  # a full or read-only disk, no more processes
                        self._give_up(unit, first_line(error))
                ended = [one for one in working if one.process.poll() is not None]
                for one in ended:
                    working.remove(one)
                    if self._again(one):
                        waiting.append(one.unit)
                if ended or time.monotonic() - told > REPORTED_EVERY:
                    told = time.monotonic()
                    self.say(self._progress(waiting, working))
                time.sleep(POLL)
        finally:
            self._end(working)

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

    def _start(self, unit: Unit, worker: int) -> Working:
        unit.write()
        with (self.logs / f"{unit.directory.name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*unit.command, *self.words_of_worker(worker)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self.environment,
                start_new_session=True,  # a terminal's Ctrl-C comes to this process alone, which passes it on
            )  # fmt: skip
        return Working(unit, process, worker, time.monotonic())

    def _again(self, one: Working) -> bool:
        """Note how a unit ended; whether it is to be begun again."""
        status, unit, state = one.process.returncode, one.unit, one.unit.state
        seconds = time.monotonic() - one.started
        if state == "finished":
            self.done.append(unit)
            self._spent += seconds
            self._foretold += unit.seconds or 0.0
            return False
        if state == "running":  # another process took it between two looks, and this one found its lock held
            return True
        if status == Interrupted.status:
            self._stalls[unit.key] = self._stalls[unit.key] + 1 if seconds < STALL_SECONDS else 0
            if self._stalls[unit.key] < MOST_STALLS:
                return True
            self._give_up(unit, f"stopped within {STALL_SECONDS:g} seconds, {MOST_STALLS} times")
        elif status < 0:
            self._deaths[unit.key] += 1
            if self._deaths[unit.key] < MOST_DEATHS:
                return True
            self._give_up(unit, f"killed by {_signal_name(-status)}, {MOST_DEATHS} times")
        else:
            self._give_up(unit, _last_words(self.logs / f"{unit.directory.name}.log", status))
        return False

    def _give_up(self, unit: Unit, why: str) -> None:
        self.failed[unit.name] = why
        self.say(f"[sweep] {unit.name} failed: {why}")

    def _progress(self, waiting: Sequence[Unit], working: Sequence[Working]) -> str:
        parts = [f"{len(self.done)} of {self._total} done", f"{len(working)} running", f"{len(waiting)} waiting"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        return f"[sweep] {', '.join(parts)}{self._time_left(waiting, working)}"

    def _time_left(self, waiting: Sequence[Unit], working: Sequence[Working]) -> str:
        """By what was foretold, times what the finished units took of it; '' before one has finished."""
        if not (self._foretold and (waiting or working)):
            return ""
        pace, now = self._spent / self._foretold, time.monotonic()
        seconds = sum(unit.seconds or 0.0 for unit in waiting) * pace
        seconds += sum(max(0.0, (one.unit.seconds or 0.0) * pace - (now - one.started)) for one in working)
        return f"; {duration(seconds / self.workers)} left"

    @staticmethod
    def _end(working: Sequence[Working]) -> None:
        """Stop what is at work at its next checkpoint, and wait for it."""
        for one in working:
            with suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGTERM)
        for one in working:
            one.process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real time have no names
        return f"signal {number}"


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
    return f"{said} ({log})"
