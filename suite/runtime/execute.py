"""Execute runs, each from its configuration to its record, and record how each ended."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from suite.config.resolve import Run
from suite.core.ranks import Heard, LostRank, here
from suite.core.turns import by_turns
from suite.errors import Interrupted, RunError, SuiteError, first_line, report
from suite.objectives.programs import forget_programs
from suite.registry import describe, parts
from suite.runtime import pictures
from suite.runtime.device import peak_mib, reset_peak
from suite.runtime.environment import environment
from suite.runtime.follow import followed, tell_followers
from suite.runtime.record import altered, dumps, invalid
from suite.runtime.record import record as record_of
from suite.runtime.record_schema import upgraded
from suite.runtime.run_directory import (
    FINISHED,
    LOCK,
    OWN,
    About,
    about,
    differences,
    mark_finished,
    read_about,
    refuse_another,
    set_aside,
    unfinished_siblings,
    write_about,
)
from suite.runtime.selection import chosen
from suite.runtime.session import RunSession
from suite.runtime.title import called, folder
from suite.runtime.tracked import begin_run, begin_table, end_run, end_table, metric
from suite.storage.files import json_sha256, make_directory, remove_leftovers, sha256, write_atomic
from suite.storage.journal import Journal
from suite.storage.locks import Lost, locked
from suite.storage.plain_files import MOST_BYTES_OF_JSON, Damaged, parse_json, read_plain, refuse_links
from suite.tracking.sender import Sender
from suite.tracking.store import flat
from suite.types import Capturing, Outcome, rollouts_of

CHECKPOINT_SECONDS = 60.0
"""Between checkpoints, unless a command says otherwise."""

Record = dict[str, Any]
"""A result record (`suite.runtime.record`)."""


@dataclass(frozen=True, eq=False)
class RunContext:
    """What all runs of a command share."""

    out: Path
    """Output directory: run directories, and the cache that runs share."""
    data_dir: Path
    """Directory of the data sets."""
    device: torch.device
    """Where networks are trained."""
    sender: Sender
    """Sends journals to the tracker."""
    stop: Heard
    """Whether a signal asked to stop."""
    fresh: bool = False
    """Start again, and keep an earlier run's directory under another name."""
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    """Time between checkpoints."""
    at_once: int = 1
    """Runs that take turns in this process (`suite.core.turns`)."""
    plugins: tuple[str, ...] = ()
    """Outside methods: whole paths of files, names of modules. `run.json` names them, so that a command that resumes
    the run can ask for them."""


def execute_all(runs: list[Run], context: RunContext) -> list[Record]:
    """The records of all runs, in order, and those of the cells that a table chooses. Raises as `execute`."""
    if len(runs) == 1 and runs[0].then is None:
        return [execute(runs[0], context)]
    with _table(runs, context) as table:
        records = _execute_each(runs, context, table)
        further = chosen(runs, records, context.out)
        tell_followers([run.key for run in further])
        records += _execute_each(further, context, table)
        pictures.of_table(records, context.out / runs[0].name)
        end_table(records, Journal(table))
        return records


def _execute_each(runs: list[Run], context: RunContext, table: Path) -> list[Record]:
    """The runs' records, in order. Of runs at once all end before the first failure among them is raised."""
    if context.at_once == 1:
        return [execute(run, context, table) for run in runs]
    ended = by_turns([partial(execute, run, context, table) for run in runs], context.at_once, context.device)
    errors = [error for end in ended if (error := end.exception()) is not None]
    failures = [error for error in errors if not isinstance(error, Interrupted)]
    for error in failures[1:]:
        report(f"suite.run: {error}")
    for error in [*failures, *errors][:1]:
        raise error
    return [end.result() for end in ended]


def execute(run: Run, context: RunContext, table: Path | None = None) -> Record:
    """Start a run, resume it, or read the record of a finished one; returns its record.

    `table`: directory of the table's journal. Raises Interrupted after a signal, and RunError for a run that failed.
    """
    if context.stop.signal is not None:
        name = context.stop.signal.name
        raise Interrupted(f"stopped by {name} before '{name_of_run(run)}'; the same command resumes there")
    directory = directory_of(run, context.out)
    refusal = "another process is at work on {}; wait for it"
    _refuse_linked(directory)
    if context.fresh and directory.exists():
        with locked(directory / LOCK, wait=False, refusal=refusal.format(directory)):
            set_aside(directory)
        directory = directory_of(run, context.out)
    make_directory(directory)
    with locked(directory / LOCK, wait=False, refusal=refusal.format(directory)) as still_held:
        refuse_links(directory, OWN)
        config = describe(run.experiment)
        refuse_another(directory, run.key, flat(config))
        journal = Journal(directory)
        if (directory / FINISHED).is_file():
            record = read_record(run, directory) | {"cell": run.cell}  # JSON is written with sorted keys
            report(f"[{name_of_run(run)}] was done before; --fresh runs it again")
            tell_followers(None)
            _begin_journal(run, journal, config, table, record["environment"])
            mark_finished(directory, journal)
        else:
            record = _attempt(run, directory, context, journal, config, table, still_held)
    context.sender.notify(directory)
    return record


def name_of_run(run: Run) -> str:
    """What the run is called on the terminal and in the tracker: 'digits 1 I/C full, seed 0'."""
    return called(describe(run.experiment), run.cell, run.seed)


def directory_of(run: Run, out: Path) -> Path:
    """The run's directory below an output directory: the one whose name ends in its key, else a new one."""
    return directories_of([run], out)[0]


def directories_of(runs: list[Run], out: Path) -> list[Path]:
    """The directories of runs, as `directory_of`: what is below the output directory is looked at once."""
    below = [path for name in {run.name for run in runs} for path in sorted((out / name).glob("*-*"))]
    known = {(path.parent.name, path.name.rpartition("-")[2]): path for path in reversed(below)}
    new = [out / run.name / folder(describe(run.experiment), run.cell, run.seed, run.key) for run in runs]
    return [known.get((run.name, run.key), path) for run, path in zip(runs, new, strict=True)]


# ---------------------------------------------------------------- one attempt


def _attempt(
    run: Run,
    directory: Path,
    context: RunContext,
    journal: Journal,
    config: dict[str, Any],
    table: Path | None,
    still_held: Callable[[], None],
) -> Record:
    """Run the experiment from its newest checkpoint to its end, and write the record."""
    started = time.monotonic()
    captured = _unrolls_captured(run, context)
    mixed = _prepare_directory(run, directory, context, config, captured)
    _begin_journal(run, journal, config, table, read_about(directory)["environment"])
    with _end_recorded(run, directory, context, journal, still_held):
        context.sender.notify(directory)
        if context.at_once == 1:
            reset_peak(context.device)
        session = _session(run, directory, context, journal, still_held)
        try:
            with session.closing_bar(), followed(run):
                outcome = run.experiment.run(session)
        finally:
            forget_programs()
        still_held()
        cost = {
            "finished_at": time.time(),
            "last_attempt_seconds": time.monotonic() - started,
            "upkeep_seconds_of_it": session.upkeep_seconds,
            "attempts": journal.attempts,
            **_shared_by(run, context),
        }
        record = _record(run, outcome, config, context, captured, mixed, cost | peak_mib(context.device))
        pictures.of_run(record, directory)
        iterations = outcome.scale.get("iterations", 0)
        session.log(iterations, {metric(m): m["mean"] for m in record["measurements"]})
        session.publish()
        session.write_metrics()
        end_run(record, journal)
        text, said = dumps(record).encode(), about(directory)
        if said is not None:
            write_about(directory, {**said, "record_sha256": sha256(text)})
        write_atomic(directory / FINISHED, text)
        mark_finished(directory, journal)
    return record


def _shared_by(run: Run, context: RunContext) -> dict[str, int]:
    """What a cost says of runs that share a process, and of rollouts and processes that share them, where several."""
    team = here()
    many = {
        "runs_at_once": context.at_once,
        "rollouts": rollouts_of(run.experiment),
        "ranks": team.count if team else 1,
    }
    return {name: number for name, number in many.items() if number > 1}


def _record(
    run: Run,
    outcome: Outcome,
    config: dict[str, Any],
    context: RunContext,
    captured: bool | None,
    mixed: list[str],
    cost: dict[str, float],
) -> Record:
    return record_of(
        outcome,
        experiment=config["is"],
        name=run.name,
        cell=run.cell,
        seed=run.seed,
        run_key=run.key,
        config=config,
        config_text=run.config_text,
        scale_label=run.scale,
        device=context.device,
        captured=captured,
        mixed=mixed,
        cost=cost,
    )


def _session(
    run: Run, directory: Path, context: RunContext, journal: Journal, still_held: Callable[[], None]
) -> RunSession:
    return RunSession(
        seed=run.seed,
        device=context.device,
        directory=directory,
        data_dir=context.data_dir,
        cache_dir=context.out / "cache",
        journal=journal,
        notify=lambda: context.sender.notify(directory),
        stop=context.stop,
        still_held=still_held,
        label=name_of_run(run),
        checkpoint_seconds=context.checkpoint_seconds,
        bars=context.at_once == 1,
    )


def _begin_journal(
    run: Run, journal: Journal, config: Mapping[str, Any], table: Path | None, where: Mapping[str, Any]
) -> None:
    """Write what the run is, and what table it is part of, unless an earlier attempt did."""
    begin_run(run, journal, config, where)
    if table is not None:
        journal.belongs_to(table)


@contextmanager
def _end_recorded(
    run: Run, directory: Path, context: RunContext, journal: Journal, still_held: Callable[[], None]
) -> Iterator[None]:
    """Mark the run as RUNNING, and as KILLED or FAILED if the block raises; the exception is raised again.

    Nothing is marked where the directory is not this process's any more. Exceptions that are not the suite's own, and a
    method that ends the process, become a RunError that names `failure.txt`, which holds the traceback.
    """
    journal.mark("RUNNING")
    try:
        yield
    except Interrupted:
        with suppress(RunError):  # a full disk: the next command that sees the run marks it
            journal.mark("KILLED")
        context.sender.notify(directory)
        raise
    except Lost:
        raise
    except LostRank:
        with suppress(RunError):
            journal.mark("KILLED", hard=True)
        context.sender.notify(directory)
        raise
    except BaseException as error:
        still_held()  # else what went wrong is that the directory is gone
        _mark_failed(run, directory, journal)
        context.sender.notify(directory)
        if isinstance(error, SuiteError) or not isinstance(error, (Exception, SystemExit)):
            raise
        cause = f"{type(error).__name__}: {first_line(error)}"
        raise RunError(
            f"'{name_of_run(run)}' failed ({cause}); the traceback is in {directory / 'failure.txt'}"
        ) from error


def _mark_failed(run: Run, directory: Path, journal: Journal) -> None:
    """Write the traceback of the exception at hand, and mark the run."""
    try:
        write_atomic(directory / "failure.txt", traceback.format_exc().encode())
        journal.artifacts([directory / "failure.txt"])
        journal.mark("FAILED")
    except RunError as disk_error:  # a full disk: the exception at hand is the one to raise
        report(f"[{name_of_run(run)}] {disk_error}")


def read_record(run: Run, directory: Path) -> Record:
    """The record of a finished run. Raises RunError where it is not what the run wrote, as far as can be told.

    Runs of before `run.json` held the record's hash are judged by what follows from the rest of the record alone.
    """
    file = directory / FINISHED
    data = read_plain(file, MOST_BYTES_OF_JSON)
    try:
        record: Record = parse_json(data, dict[str, Any], str(file))
    except Damaged as error:
        raise RunError(f"{error}; it is no record of a finished run, so run it again with --fresh") from error
    problem = invalid(record)
    if problem:
        raise RunError(f"{file} is not a valid record: {problem}; run it again with --fresh")
    record = upgraded(record)
    said = about(directory)
    written = said.get("record_sha256") if said is not None else None
    problem = "it is not what the run wrote" if written not in (None, sha256(data)) else altered(record)
    if problem is None and (record["run_key"], record["seed"]) != (run.key, run.seed):
        problem = "it is another run's"
    if problem:
        raise RunError(f"{file} was altered: {problem}; put the run's own back, or run it again with --fresh")
    return record


# ---------------------------------------------------------------- its directory


def _unrolls_captured(run: Run, context: RunContext) -> bool | None:
    """Whether the run's unrolls are captured as CUDA graphs; None where it has none."""
    asked = [part.unrolls_captured(context.device) for part in parts(run.experiment) if isinstance(part, Capturing)]
    return any(asked) if asked else None


def _prepare_directory(
    run: Run, directory: Path, context: RunContext, config: dict[str, Any], captured: bool | None
) -> list[str]:
    """Remove what a crash left, and write what the run is; returns how its environment changed between attempts."""
    remove_leftovers(directory)
    before = about(directory)
    now = environment(context.device) | ({"unrolls": "captured"} if captured else {})  # eager: as before there was this
    resumes = before is not None and any((directory / "checkpoints").glob("step-*"))
    first, mixed = now, before["mixed"] if before is not None else []
    if before is not None and resumes:
        first = before["environment"]
        changed = differences(flat(first), flat(now))
        if changed and changed not in mixed:
            mixed = [*mixed, changed]
            report(f"[{name_of_run(run)}] resumes in another environment ({changed}); last bits may differ")
    if before is None:
        for other, content in unfinished_siblings(directory, run.cell, run.seed, flat(config)):
            difference = differences(content["config"], flat(config))
            report(f"[{name_of_run(run)}] starts from the beginning; {other} stays as it is ({difference})")
    write_about(directory, _about(run, context, config, first, mixed))
    write_atomic(directory / "config.gin", run.config_text.encode())
    write_atomic(directory / "operative.gin", run.operative_text.encode())
    (directory / "failure.txt").unlink(missing_ok=True)
    return mixed


def _refuse_linked(directory: Path) -> None:
    """Raise RunError if a run's folder, or the one that holds it, is a link."""
    for path in (directory.parent, directory):
        if path.is_symlink():
            raise RunError(f"{path} is a link, which is not followed; name where it leads with --out, or move it away")


def _about(run: Run, context: RunContext, config: dict[str, Any], first: dict[str, Any], mixed: list[str]) -> About:
    """What `run.json` says of a run and of the command that resumes it."""
    return {
        "name": run.name,
        "label": name_of_run(run),
        "cell": run.cell,
        "seed": run.seed,
        "scale": run.scale,
        "key": run.key,
        "config": flat(config),
        "options": {
            "data_dir": str(context.data_dir.resolve()),
            "device": str(context.device),
            "tracking_uri": context.sender.uri or "none",
            "checkpoint_seconds": context.checkpoint_seconds,
            "plugins": list(context.plugins),
        },
        "environment": first,
        "mixed": mixed,
    }


@contextmanager
def _table(runs: list[Run], context: RunContext) -> Iterator[Path]:
    """The directory of a table's journal, which records how the table ended. The same runs have the same directory."""
    key = json_sha256([run.key for run in runs])[:16]
    directory = context.out / runs[0].name / f".table-{key}"
    _refuse_linked(directory)
    make_directory(directory)
    with locked(directory / LOCK, wait=False, refusal=f"another process is at work on {directory}; wait for it"):
        refuse_links(directory, OWN)
        journal = Journal(directory)
        begin_table(runs, key, journal, environment(context.device))
        journal.mark("RUNNING")
        context.sender.notify(directory)
        try:
            yield directory
            journal.mark("FINISHED")
        except BaseException as error:
            with suppress(RunError):  # a full disk: the exception at hand is the one to raise
                journal.mark("KILLED" if isinstance(error, Interrupted) else "FAILED")
            raise
        finally:
            context.sender.notify(directory)
