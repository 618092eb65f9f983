"""Units as jobs of submitit: of Slurm where it is, else processes of this machine."""

import logging
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from suite.errors import RunError, UsageError, first_line
from suite.sweep.attended import Errand, attend
from suite.sweep.pool import Ended, Task
from suite.sweep.slurm import WARNING_SECONDS, check_options
from suite.sweep.units import Unit

LOCAL: bool | None = None
"""Whether jobs are processes here; None: where there is no srun of Slurm."""

MINUTES = 60.0
"""Of a job where no --time is given; then it stops at a checkpoint and is submitted again."""

LOOKED_EVERY = 30.0
"""Seconds between looks at Slurm's queue for a job that is not at work."""

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""What a job may hear before its end: submitit's own, and Slurm's. Its process is told in their stead."""


@dataclass
class Job:
    """A job that submitit was given."""

    job: Any
    """Submitit's own."""
    unit: Unit
    """What it does."""
    begun: float
    """Seconds of the monotonic clock."""
    local: bool
    """Whether it is a process here."""

    def __post_init__(self) -> None:
        self._looked = self.begun

    def ended(self) -> Ended | None:
        """How it ended; None: it waits or is at work."""
        if not self.job.done():
            return Ended(None, monotonic() - self.begun, "Slurm does not know it any more") if self._gone() else None
        try:
            return Ended(*self.job.result())
        except Exception as error:  # of the job, and what submitit says where there is no result
            raised = re.search(r"^suite\.errors\.\w*: (.*)$", str(error), re.MULTILINE)
            if raised:
                return Ended(1, 0.0, raised[1])
            killed = (
                -signal.SIGKILL if self.job.state == "OUT_OF_MEMORY" else None
            )  # by its own doing, not the machine's
            return Ended(killed, monotonic() - self.begun, f"{self.job.state}: {first_line(error)}")

    def _gone(self) -> bool:
        """Whether Slurm's queue has it no more: without accounting, submitit never hears that a job was killed."""
        if self.local or monotonic() - self._looked < LOOKED_EVERY or self.unit.state == "running":
            return False
        self._looked = monotonic()
        words = ["squeue", "--noheader", "--jobs", self.job.job_id]
        try:
            queue = subprocess.run(words, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return False  # nobody can say
        return "Invalid job id" in queue.stderr or not (queue.returncode or queue.stdout.strip() or self.job.done())


@dataclass
class Jobs:
    """An engine: a job for each unit. Submitit's own checkpoints are not used: a unit that stops is a job anew."""

    errand: Errand
    """What all units have in common."""
    folder: Path
    """For submitit's files."""
    options: tuple[str, ...] = ()
    """Of sbatch, such as '--gres=gpu:1'."""
    at_once: int | None = None
    """Jobs at a time; None: all."""
    warning_seconds: int = WARNING_SECONDS
    """Between the signal and the end of a job's time."""

    @property
    def queues(self) -> bool:
        """Whether all jobs are submitted at once."""
        return self.at_once is None

    @property
    def workers(self) -> int | None:
        """Jobs at a time; None: as Slurm likes."""
        return self.at_once

    def __enter__(self) -> "Jobs":
        """Set submitit up. Raises UsageError where it is not installed, or an option is none."""
        try:
            import submitit
        except ImportError as error:
            how = "pip install 'addressable-memory-suite[submitit]'"
            raise UsageError(f"--on submitit: submitit is not installed; {how}") from error
        check_options(self.options)
        given = dict(_name_and_value(option) for option in self.options)
        minutes = _minutes(str(given.pop("time"))) if "time" in given else MINUTES
        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns of each look where there is no accounting
        self._local = shutil.which("srun") is None if LOCAL is None else LOCAL
        executor = (submitit.LocalExecutor if self._local else submitit.SlurmExecutor)(self.folder)
        if self._local:
            executor.update_parameters(timeout_min=minutes, signal_delay_s=self.warning_seconds)
        else:
            about = {"job_name": "sweep", "time": max(1, round(minutes)), "additional_parameters": given}
            executor.update_parameters(signal_delay_s=self.warning_seconds, **about)
        self._executor = executor
        return self

    def __exit__(self, *error: object) -> None:
        """Jobs outlive the sweep."""

    def begin(self, unit: Unit, log: Path) -> Task:
        """Submit a job that does the unit. Raises RunError."""
        try:
            job = self._executor.submit(attend, replace(self.errand, command=unit.command, log=log), SIGNALS)
        except Exception as error:  # submitit's own kinds for what sbatch said
            raise RunError(f"submitit can't submit it: {first_line(error)}") from error
        return Job(job, unit, monotonic(), self._local)

    def end(self, working: Sequence[tuple[Unit, Task]]) -> None:
        """Stop what is at work at its next checkpoint, and wait for it; what waits does not begin."""
        if not working:
            return
        self.errand.call_off()
        for unit, task in working:
            if isinstance(task, Job) and unit.state != "running":
                with suppress(OSError, subprocess.SubprocessError):  # it ended at this moment
                    task.job.cancel()
        while any(unit.state == "running" for unit, _ in working):
            sleep(1.0)


def _name_and_value(option: str) -> tuple[str, str | bool]:
    name, equals, value = option.removeprefix("--").partition("=")
    return name, value if equals else True


def _minutes(time: str) -> float:
    """Of a time as sbatch takes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S. Raises UsageError."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if match is None:
        raise UsageError(f"--slurm=--time={time}: it must be a time such as 90 (minutes), 02:00:00 or 1-12")
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] is None and match[4] is None:
        return first + second / 60
    return days * 1440 + first * 60 + second + third / 60
