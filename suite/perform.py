"""One run from its configuration to its record: directory, lock, tracker, session, and an honest end."""

import json
import os
import resource
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suite import results
from suite.config import Run
from suite.errors import Interrupted, RunError, SuiteError, UsageError
from suite.files import disk_errors, json_sha256, make_directory, write_whole
from suite.locks import locked
from suite.registry import describe
from suite.session import RunSession, Stop
from suite.tracking import Status, Tracker, flat

KNOWN = ".tracking.json"
"""The tracker's id of the run."""

FINISHED = "result.json"
"""Written last: a run directory that holds it is done."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where runs are performed, and who is told."""

    out: Path
    data_dir: Path
    device: torch.device
    tracker: Tracker
    stop: Stop
    fresh: bool
    """Start anew, and keep what an earlier run left under another name."""


def perform_all(runs: list[Run], place: Place) -> list[dict[str, Any]]:
    """The records of all runs, in order; several are one table in the tracker."""
    tracker = place.tracker
    parent = _table(runs, place) if len(runs) > 1 else ""
    try:
        records = [perform(run, place, parent) for run in runs]
    except SuiteError:
        if parent:
            _end(tracker, parent, "KILLED" if place.stop.signal else "FAILED")
        raise
    if parent:
        tracker.finish(parent, "FINISHED")
    return records


def perform(run: Run, place: Place, parent: str = "") -> dict[str, Any]:
    """Do one run, or go on with it, or read what it found before; returns its record."""
    if place.stop.signal is not None:
        name = place.stop.signal.name
        raise Interrupted(f"stopped by {name} before '{run.label}'; the same command goes on from there")
    directory = directory_of(run, place.out)
    lock, refusal = directory / ".lock", f"another process is at work on {directory}; wait for it"
    if place.fresh and directory.exists():
        with locked(lock, wait=False, refusal=refusal):
            _set_aside(directory)
    make_directory(directory)
    with locked(lock, wait=False, refusal=refusal):
        if (directory / FINISHED).is_file():
            record = _earlier_record(directory / FINISHED)
            print(f"[{run.label}] was done before; --fresh does it anew", file=sys.stderr)
            if parent:
                place.tracker.tag(directory / KNOWN, {"mlflow.parentRunId": parent})
            return record
        return _perform(run, directory, place, parent)


def directory_of(run: Run, out: Path) -> Path:
    return out / run.name / run.folder


def _perform(run: Run, directory: Path, place: Place, parent: str) -> dict[str, Any]:
    started = time.monotonic()
    tracker = place.tracker
    write_whole(directory / "config.gin", run.config_text.encode())
    write_whole(directory / "operative.gin", run.operative_text.encode())
    config = describe(run.experiment)
    tags = {"suite.run_key": run.key, "suite.scale": run.scale, "suite.experiment": config["is"]}
    if parent:
        tags["mlflow.parentRunId"] = parent
    run_id = tracker.start(run.name, run.label, tags, directory / KNOWN)
    staged = directory / ".done" / FINISHED
    if staged.is_file():  # measured to the end, but the tracker did not take it
        record = _earlier_record(staged)
        _leave(record, directory, tracker, run_id)
        return record
    (directory / "failure.txt").unlink(missing_ok=True)
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place.device)
    session = RunSession(
        seed=run.seed,
        device=place.device,
        directory=directory,
        data_dir=place.data_dir,
        cache_dir=place.out / "cache",
        tracker=tracker,
        run_id=run_id,
        stop=place.stop,
        label=run.label,
    )
    try:
        tracker.parameters(run_id, flat(config) | {"seed": str(run.seed)} | run.cell)
        with session.telling():
            outcome = run.experiment.run(session)
        record = results.record(
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
            cost={"last_sitting_seconds": time.monotonic() - started} | _peak_memory(place.device),
        )
        session.log(outcome.scale.get("iterations", 0), {_metric(f): f["mean"] for f in record["figures"]})
        session.send()
        session.write_metrics()
        _leave(record, directory, tracker, run_id)
    except Interrupted:
        _end(tracker, run_id, "KILLED")
        raise
    except BaseException as error:  # nothing is swallowed: it is marked, and raised again
        _fail(run, directory, tracker, run_id)
        if isinstance(error, SuiteError) or not isinstance(error, Exception):
            raise
        first = str(error).strip().split("\n")[0]
        raise RunError(
            f"'{run.label}' failed ({type(error).__name__}: {first}); the traceback is in {directory / 'failure.txt'}"
        ) from error
    return record


def _leave(record: dict[str, Any], directory: Path, tracker: Tracker, run_id: str) -> None:
    """Artifacts to the tracker, and then the record under the name that says that the run is done."""
    staged = make_directory(directory / ".done") / FINISHED
    write_whole(staged, results.dumps(record).encode())
    for file in [*sorted(p for p in directory.iterdir() if p.is_file() and not p.name.startswith(".")), staged]:
        tracker.artifact(run_id, file)
    for file in sorted((directory / "figures").glob("*.png")):
        tracker.artifact(run_id, file, "figures")
    tracker.finish(run_id, "FINISHED")
    with disk_errors(directory):
        staged.rename(directory / FINISHED)
        staged.parent.rmdir()


def _end(tracker: Tracker, run_id: str, status: Status) -> None:
    """Mark a run that did not finish; a silent tracker must not hide why."""
    try:
        tracker.finish(run_id, status)
    except RunError as trouble:
        print(f"suite.run: {trouble}", file=sys.stderr)


def _fail(run: Run, directory: Path, tracker: Tracker, run_id: str) -> None:
    """Keep the traceback of what is being handled, and mark the run."""
    try:
        write_whole(directory / "failure.txt", traceback.format_exc().encode())
        tracker.artifact(run_id, directory / "failure.txt")
        tracker.finish(run_id, "FAILED")
    except RunError as trouble:  # a full disk, a silent server: the first failure is the one to report
        print(f"[{run.label}] {trouble}", file=sys.stderr)


def prepare_device(name: str | None) -> torch.device:
    """The device, with everything set that makes its figures repeatable; threads as many as this process may use."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"--device: '{name}' is not a device; use cpu, cuda or cuda:1") from error
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"--device: there is no {device} on this machine; use cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    elif device.type != "cpu":
        raise UsageError(f"--device: '{name}' is not supported; use cpu, cuda or cuda:1")
    return device


def _table(runs: list[Run], place: Place) -> str:
    """The tracker's run of a table; the same runs find the same one again."""
    key = json_sha256([run.key for run in runs])[:16]
    known = make_directory(place.out / runs[0].name) / f".table-{key}.json"
    return place.tracker.start(runs[0].name, f"{runs[0].name} (table)", {"suite.run_key": key}, known)


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
    problem = results.invalid(record)
    if problem:
        raise RunError(f"{file} is not a valid record: {problem}; do the run anew with --fresh")
    return record


def _metric(figure: dict[str, Any]) -> str:
    return f"{figure['split']}_accuracy/{figure['name'].replace(' ', '_')}"


def _peak_memory(device: torch.device) -> dict[str, float]:
    """MiB at the most: of this run on a GPU; on a CPU of the whole process, earlier runs of a table included."""
    if device.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    return {"process_peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
