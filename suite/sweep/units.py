"""The units of a sweep: its runs, each with the command that does it alone and the state that its directory is in."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from suite.config.resolve import Run
from suite.errors import RunError
from suite.runtime import run_directory
from suite.runtime.durations import short_duration
from suite.runtime.execute import directories_of, name_of_run
from suite.storage.files import json_sha256, make_directory, write_atomic
from suite.storage.plain_files import read_plain
from suite.tracking.uri import plain_uri, whole_uri

State = Literal["finished", "running", "stopped", "killed", "failed", "not begun"]
"""Of a unit, as its run's directory says."""

LEFT: tuple[State, ...] = ("not begun", "stopped", "killed", "failed")
"""States of units at which no process is at work, and which are not finished."""


@dataclass(frozen=True)
class Unit:
    """One run of a sweep."""

    name: str
    """For people."""
    key: str
    """Of the run."""
    directory: Path
    """Of the run, as far as the sweep can tell its name before it begins."""
    command: tuple[str, ...]
    """Does the run, or goes on with it; `--device` is among its words only where the sweep's command names one."""
    seconds: float | None
    """What the run is expected to take on this machine, with what runs have in common; None: unknown."""
    config: Path | None = None
    """The configuration that the command names."""
    text: str = ""
    """What is in it."""

    @property
    def place(self) -> Path:
        """The run's directory as it is there: the run's own name may order its words otherwise."""
        named = sorted(self.directory.parent.glob(f"*-{self.key}"))
        return named[0] if named else self.directory

    @property
    def state(self) -> State:
        """From the run's directory alone, never from an engine; 'failed' for one that can't be read."""
        directory = self.place
        try:
            return run_directory.state(directory) if directory.is_dir() else "not begun"
        except RunError:
            return "failed"

    def write(self) -> None:
        """Write the configuration, unless it is there as it is now: labels are no part of a key. Raises RunError."""
        if self.config is None:
            return
        text = self.text.encode()
        try:
            there = read_plain(self.config, len(text))
        except (FileNotFoundError, RunError):  # it is longer, or no file
            there = None
        if there != text:
            write_atomic(make_directory(self.config.parent) / self.config.name, text)


def units_of(
    runs: Sequence[Run], seconds: Sequence[float | None], options: argparse.Namespace, out: Path
) -> list[Unit]:
    """A unit for each run, in order. Their configurations have their places below `folder_of`."""
    folder = folder_of(runs, out).absolute()
    directories = directories_of(list(runs), out)
    shared = shared_words(options, out)
    units = []
    for run, directory, expected in zip(runs, directories, seconds, strict=True):
        config = folder / f"{directory.name}.gin"  # the name ends in the run's key, so one name has one run
        command = (sys.executable, "-m", "suite.run", f"--gin={config}", *shared)
        units.append(Unit(name_of_run(run), run.key, directory, command, expected, config, run.config_text))
    return units


def folder_of(runs: Sequence[Run], out: Path) -> Path:
    """Where a sweep keeps its files: one place for the same runs."""
    return out / runs[0].name / f".sweep-{json_sha256([run.key for run in runs])[:16]}"


def shared_words(options: argparse.Namespace, out: Path) -> tuple[str, ...]:
    """The words of a command line that all units share, with whole paths, so that any folder and node will do.

    A tracker's address has no password in them: `credentials` gives it to the processes of this machine. Where runs are
    on several machines, they do not write to the database in `out`, which one machine at a time may have open: the
    sweep's own command sends their journals.
    """
    words: dict[str, Any] = {"out": out.absolute(), "checkpoint-seconds": options.checkpoint_seconds}
    words |= {} if options.device is None else {"device": options.device}
    if options.data_dir is not None:
        words["data-dir"] = Path(options.data_dir).absolute()
    given = "none" if options.tracking_uri is None and options.on != "local" else options.tracking_uri
    if given is not None:
        words["tracking-uri"] = given if given == "none" else plain_uri(whole_uri(given))
    plugins = (str(Path(p).absolute()) if Path(p).is_file() else p for p in options.plugin)
    return (*(f"--{name}={value}" for name, value in words.items()), *(f"--plugin={plugin}" for plugin in plugins))


def longest_first(units: Sequence[Unit], states: Sequence[State]) -> list[Unit]:
    """Those in these states, the longest first, so that none begins late and ends last; unknown ones before all."""
    left = [unit for unit in units if unit.state in states]
    return sorted(left, key=lambda unit: -float("inf") if unit.seconds is None else -unit.seconds)


def table(units: Sequence[Unit]) -> str:
    """A line for each unit: its state, what it is expected to take, and its name; and the sum."""
    states = [unit.state for unit in units]
    lines = [
        f"{state:10}{short_duration(unit.seconds) if unit.seconds else '':>8}  {unit.name}"
        for unit, state in zip(units, states, strict=True)
    ]
    return "\n".join([*lines, ", ".join(f"{n} {state}" for state, n in Counter(states).items())])
