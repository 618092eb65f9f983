"""One run from its configuration to its record: directory, lock, journal, session, and an honest end."""

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suite.config.resolve import Run
from suite.errors import Interrupted, RunError, SuiteError
from suite.registry import describe
from suite.runtime.device import peak_memory, reset_peak_memory
from suite.runtime.environment import environment
from suite.runtime.record import dumps, invalid, label
from suite.runtime.record import record as record_of
from suite.runtime.record_schema import upgraded
from suite.runtime.run_directory import (
    FINISHED,
    LOCK,
    about,
    differences,
    refuse_another,
    same_work_beside,
    say_finished,
    write_about,
)
from suite.runtime.selection import chosen
from suite.runtime.session import RunSession, Stop
from suite.storage.files import disk_errors, json_sha256, make_directory, sweep, write_atomic
from suite.storage.journal import Journal
from suite.storage.locks import locked
from suite.tracking.sender import Sender
from suite.tracking.store import flat


@dataclass(frozen=True, eq=False)
class Place:
    """Where runs are performed, and who is told."""

    out: Path
    data_dir: Path
    device: torch.device
    sender: Sender
    stop: Stop
    fresh: bool
    """Start anew, and keep what an earlier run left under another name."""
    checkpoint_seconds: float
    plugins: tuple[str, ...] = ()


def perform_all(runs: list[Run], place: Place) -> list[dict[str, Any]]:
    """The records of all runs, in order; several are one table in the tracker."""
    if len(runs) == 1 and runs[0].then is None:
        return [perform(runs[0], place)]
    with _table(runs, place) as table:
        records = [perform(run, place, table) for run in runs]
        return records + [perform(run, place, table) for run in chosen(runs, records, place.out)]


def perform(run: Run, place: Place, table: Path | None = None) -> dict[str, Any]:
    """Do one run, or go on with it, or read what it found before; returns its record."""
    if place.stop.signal is not None:
        name = place.stop.signal.name
        raise Interrupted(f"stopped by {name} before '{run.label}'; the same command goes on from there")
    directory = directory_of(run, place.out)
    lock, refusal = directory / LOCK, f"another process is at work on {directory}; wait for it"
    if place.fresh and directory.exists():
        with locked(lock, wait=False, refusal=refusal):
            _set_aside(directory)
    make_directory(directory)
    with locked(lock, wait=False, refusal=refusal):
        config = describe(run.experiment)
        refuse_another(directory, run.key, flat(config))
        journal = Journal(directory)
        if (directory / FINISHED).is_file():
            record = _earlier_record(directory / FINISHED)
            print(f"[{run.label}] was done before; --fresh does it anew", file=sys.stderr)
            _begin(run, journal, config, table)
            say_finished(directory, journal)
        else:
            record = _perform(run, directory, place, journal, config, table)
    place.sender.tell(directory)
    return record


def directory_of(run: Run, out: Path) -> Path:
    return out / run.name / run.folder


def _perform(
    run: Run, directory: Path, place: Place, journal: Journal, config: dict[str, Any], table: Path | None
) -> dict[str, Any]:
    started = time.monotonic()
    sweep(directory)
    mixed = _write_about(run, directory, place, config)
    write_atomic(directory / "config.gin", run.config_text.encode())
    write_atomic(directory / "operative.gin", run.operative_text.encode())
    (directory / "failure.txt").unlink(missing_ok=True)
    _begin(run, journal, config, table)
    journal.mark("RUNNING")
    reset_peak_memory(place.device)
    session = RunSession(
        seed=run.seed,
        device=place.device,
        directory=directory,
        data_dir=place.data_dir,
        cache_dir=place.out / "cache",
        journal=journal,
        tell=lambda: place.sender.tell(directory),
        stop=place.stop,
        label=run.label,
        checkpoint_seconds=place.checkpoint_seconds,
    )
    try:
        place.sender.tell(directory)
        with session.telling():
            outcome = run.experiment.run(session)
        record = record_of(
            outcome,
            experiment=config["is"],
            name=run.name,
            cell=run.cell,
            seed=run.seed,
            run_key=run.key,
            config=config,
            config_text=run.config_text,
            scale_label=run.scale,
            device=place.device,
            mixed=mixed,
            cost={
                "last_attempt_seconds": time.monotonic() - started,
                "upkeep_seconds_of_it": session.upkeep_seconds,
                "attempts": journal.sittings,
            }
            | peak_memory(place.device),
        )
        session.log(outcome.scale.get("iterations", 0), {_metric(m): m["mean"] for m in record["measurements"]})
        session.publish()
        session.write_metrics()
        write_atomic(directory / FINISHED, dumps(record).encode())
        say_finished(directory, journal)
    except Interrupted:
        with suppress(RunError):  # a full disk: the next command that sees the run marks it
            journal.mark("KILLED")
        place.sender.tell(directory)
        raise
    except BaseException as error:  # nothing is swallowed: it is marked, and raised again
        _fail(run, directory, journal)
        place.sender.tell(directory)
        if isinstance(error, SuiteError) or not isinstance(error, Exception):
            raise
        first = str(error).strip().split("\n")[0]
        raise RunError(
            f"'{run.label}' failed ({type(error).__name__}: {first}); the traceback is in {directory / 'failure.txt'}"
        ) from error
    return record


def _begin(run: Run, journal: Journal, config: dict[str, Any], table: Path | None) -> None:
    """Tell what the run is, unless that was told before."""
    tags = {"suite.run_key": run.key, "suite.scale": run.scale, "suite.experiment": config["is"]}
    journal.begin(run.name, run.label, tags, flat(config) | {"seed": str(run.seed)} | run.cell)
    if table is not None:
        journal.belongs_to(table)


def _write_about(run: Run, directory: Path, place: Place, config: dict[str, Any]) -> list[str]:
    """Note what the run is and how to go on with it; returns what of the surroundings changed since it began."""
    before = about(directory) or {}
    now = environment(place.device)
    mixed: list[str] = before.get("mixed", [])
    goes_on = bool(before) and any((directory / "checkpoints").glob("step-*"))
    if goes_on:
        changed = differences(flat(before["environment"]), flat(now))
        if changed and changed not in mixed:
            mixed = [*mixed, changed]
            print(f"[{run.label}] goes on elsewhere than it began ({changed}); last bits may differ", file=sys.stderr)
    what = {
        "name": run.name,
        "label": run.label,
        "cell": run.cell,
        "seed": run.seed,
        "scale": run.scale,
        "key": run.key,
        "config": flat(config),
        "environment": before["environment"] if goes_on else now,
        "mixed": mixed,
        "options": {
            "data_dir": str(place.data_dir.resolve()),
            "device": str(place.device),
            "tracking_uri": place.sender.uri or "none",
            "checkpoint_seconds": place.checkpoint_seconds,
            "plugins": [str(Path(plugin).resolve()) for plugin in place.plugins],
        },
    }
    if not before:
        for other, said in same_work_beside(directory, what):
            parted = differences(said.get("config", {}), flat(config))
            print(f"[{run.label}] starts anew; {other} stays as it is ({parted})", file=sys.stderr)
    write_about(directory, what)
    return mixed


def _fail(run: Run, directory: Path, journal: Journal) -> None:
    """Keep the traceback of what is being handled, and mark the run."""
    try:
        write_atomic(directory / "failure.txt", traceback.format_exc().encode())
        journal.artifacts([directory / "failure.txt"])
        journal.mark("FAILED")
    except RunError as trouble:  # a full disk: the first failure is the one to report
        print(f"[{run.label}] {trouble}", file=sys.stderr)


@contextmanager
def _table(runs: list[Run], place: Place) -> Iterator[Path]:
    """The directory of a table's journal, which says how the whole of it ended; the same runs find the same again."""
    key = json_sha256([run.key for run in runs])[:16]
    directory = make_directory(place.out / runs[0].name / f".table-{key}")
    with locked(directory / LOCK, wait=False, refusal=f"another process is at work on {directory}; wait for it"):
        journal = Journal(directory)
        journal.begin(runs[0].name, f"{runs[0].name} (table)", {"suite.run_key": key}, {})
        journal.mark("RUNNING")
        place.sender.tell(directory)
        try:
            yield directory
            journal.mark("FINISHED")
        except BaseException as error:
            with suppress(RunError):  # a full disk: the first failure is the one to report
                journal.mark("KILLED" if isinstance(error, Interrupted) else "FAILED")
            raise
        finally:
            place.sender.tell(directory)


def _set_aside(directory: Path) -> None:
    n = 1
    while (aside := directory.with_name(f"{directory.name}.old{n}")).exists():
        n += 1
    with disk_errors(aside):
        directory.rename(aside)


def _earlier_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise RunError(f"{file} is not the record of a finished run ({error}); do it anew with --fresh") from error
    problem = invalid(record)
    if problem:
        raise RunError(f"{file} is not a valid record: {problem}; do the run anew with --fresh")
    return upgraded(record)


def _metric(measurement: dict[str, Any]) -> str:
    """The metric's name in a tracker: 'test_accuracy/random_real_images'."""
    return f"{measurement['split']}_accuracy/{label(measurement).replace(' ', '_')}"
