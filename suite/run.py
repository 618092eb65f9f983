"""The command line: `python -m suite.run --gin FILE …`.

Exit status: 0 done, 1 failed, 2 asked for wrongly, 75 stopped by a signal at a checkpoint (the same command goes on).
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.errors import Interrupted, RunError, SuiteError, UsageError

if TYPE_CHECKING:
    import torch

    from suite.config import Run
    from suite.session import Stop
    from suite.tracking import Tracker


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m suite.run",
        description="Distil data sets into memories, as gin files describe.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--gin", action="append", default=[], metavar="FILE", help="configuration; later files win")
    add("--set", action="append", default=[], metavar="BINDING", help="one gin binding, as in 'ITERATIONS = 100'")
    add("--seed", type=int, metavar="N", help="this seed instead of the configuration's")
    add("--device", metavar="D", help="cpu, cuda or cuda:1 (default: a GPU if there is one)")
    add("--out", default="runs", metavar="DIR", help="where runs are kept (default: %(default)s)")
    add("--data-dir", metavar="D", help="where data sets are kept (default: $SUITE_DATA_DIR, or the user's cache)")
    add("--tracking-uri", metavar="U", help="MLflow store or server, or 'none' (default: a database in --out)")
    add("--plugin", action="append", default=[], metavar="F", help="a Python file that registers methods")
    add("--only", action="append", default=[], metavar="CELL", help="only these cells of a table: LABEL or AXIS=LABEL")
    add("--fresh", action="store_true", help="start anew; what an earlier run left is kept under another name")
    add("--dry-run", action="store_true", help="print what would be done; needs no data")
    add("--list", nargs="?", const="all", metavar="KIND", help="print what is registered, all or of one kind")
    add("--json", action="store_true", help="print the result records as JSON on stdout")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return _main(options)
    except SuiteError as error:
        print(f"suite.run: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("suite.run: stopped before the first run began; nothing was lost", file=sys.stderr)
        return Interrupted.status


def _main(options: argparse.Namespace) -> int:
    from suite.registry import load_components, load_plugin

    load_components()
    for plugin in options.plugin:
        load_plugin(plugin)
    if options.list:
        return _list(options.list, options.json)

    from suite.config import resolve

    runs = resolve(options.gin, options.set, options.seed, options.only)
    if options.dry_run:
        return _dry_run(runs, options.json)

    from suite.datasets.cache import default_data_dir
    from suite.files import make_directory
    from suite.results import dumps, table
    from suite.session import Stop
    from suite.tracking import open_tracker

    device = prepare_device(options.device)
    out = make_directory(Path(options.out))
    data_dir = Path(options.data_dir) if options.data_dir else default_data_dir()
    tracker = open_tracker(options.tracking_uri, out)
    stop = Stop()
    with stop.listening():
        parent = _parent(runs, tracker, out)
        records = []
        try:
            for run in runs:
                records.append(perform(run, out, data_dir, device, tracker, parent, stop, options.fresh))
        except SuiteError:
            if parent:
                tracker.finish(parent, "KILLED" if stop.signal else "FAILED")
            raise
        if parent:
            tracker.finish(parent, "FINISHED")
    if options.json:
        print(dumps(records[0]) if len(records) == 1 else "[" + ",\n".join(map(dumps, records)) + "]")
    else:
        print(table(records))
        for run in runs:
            print(f"pictures: {out / run.name / run.folder / 'figures'}")
        if tracker.uri != "none":
            print(f"compare runs: mlflow ui --backend-store-uri {tracker.uri}")
    return 0


def perform(
    run: "Run",
    out: Path,
    data_dir: Path,
    device: "torch.device",
    tracker: "Tracker",
    parent: str,
    stop: "Stop",
    fresh: bool,
) -> dict[str, Any]:
    """Do one run, or go on with it, or read what it found before; returns its record."""
    from suite.files import make_directory
    from suite.locks import locked

    if stop.signal is not None:
        raise Interrupted(f"stopped by {stop.signal.name} before '{run.label}'; the same command goes on from there")
    directory = out / run.name / run.folder
    if fresh and directory.exists():
        _set_aside(directory)
    make_directory(directory)
    with locked(directory / ".lock", wait=False, refusal=f"another process is at work on {directory}; wait for it"):
        finished = directory / "result.json"
        if finished.is_file():
            record = _earlier_record(finished)
            print(f"[{run.label}] was done before; --fresh does it anew", file=sys.stderr)
            return record
        return _perform(run, directory, out, data_dir, device, tracker, parent, stop)


def _perform(
    run: "Run", directory: Path, out: Path, data_dir: Path, device: "torch.device",
    tracker: "Tracker", parent: str, stop: "Stop",
) -> dict[str, Any]:  # fmt: skip
    import traceback

    from suite import results
    from suite.files import write_whole
    from suite.registry import describe
    from suite.session import RunSession
    from suite.tracking import flat

    started = time.monotonic()
    write_whole(directory / "config.gin", run.config_text.encode())
    write_whole(directory / "operative.gin", run.operative_text.encode())
    description = describe(run.experiment)
    tags = {"suite.run_key": run.key, "suite.scale": run.scale, "suite.experiment": description["is"]}
    if parent:
        tags["mlflow.parentRunId"] = parent
    run_id = tracker.start(run.name, run.label, tags, directory / ".tracking.json")
    session = RunSession(
        seed=run.seed, device=device, directory=directory, data_dir=data_dir, cache_dir=out / "cache",
        tracker=tracker, run_id=run_id, stop=stop, label=run.label,
    )  # fmt: skip
    try:
        tracker.parameters(run_id, flat(description) | {"seed": str(run.seed)} | run.cell)
        with session.telling():
            outcome = run.experiment.run(session)
        record = results.record(
            outcome,
            experiment=description["is"],
            name=run.name,
            cell=run.cell,
            seed=run.seed,
            run_key=run.key,
            config=description,
            config_text=run.config_text,
            scale_label=run.scale,
            device=device,
            cost={"seconds": time.monotonic() - started, "peak_memory_mib": _peak_memory(device)},
        )
        last = outcome.scale.get("iterations", 0)
        session.log(last, {_metric(f): f["mean"] for f in record["figures"]})
        session.send()
        session.write_metrics()
        write_whole(directory / ".result.json", results.dumps(record).encode())
        for file in sorted(p for p in directory.iterdir() if p.is_file() and not p.name.startswith(".")):
            tracker.artifact(run_id, file)
        for file in sorted((directory / "figures").glob("*.png")):
            tracker.artifact(run_id, file, "figures")
        tracker.artifact(run_id, directory / ".result.json")
        tracker.finish(run_id, "FINISHED")
        (directory / ".result.json").rename(directory / "result.json")  # last: from here on the run is done
    except Interrupted:
        tracker.finish(run_id, "KILLED")
        raise
    except BaseException as error:
        write_whole(directory / "failure.txt", traceback.format_exc().encode())
        try:
            tracker.artifact(run_id, directory / "failure.txt")
            tracker.finish(run_id, "FAILED")
        except RunError as trouble:  # the first failure is the one to report
            print(f"[{run.label}] {trouble}", file=sys.stderr)
        if isinstance(error, (SuiteError, KeyboardInterrupt)):
            raise
        if isinstance(error, Exception):
            first = str(error).strip().split("\n")[0]
            file = directory / "failure.txt"
            raise RunError(
                f"'{run.label}' failed ({type(error).__name__}: {first}); the traceback is in {file}"
            ) from error
        raise
    return record


def prepare_device(name: str | None) -> "torch.device":
    """The device, with everything set that makes its figures repeatable; threads as many as this process may use."""
    import torch

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
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type != "cpu":
        raise UsageError(f"--device: '{name}' is not supported; use cpu, cuda or cuda:1")
    return device


def _list(kind: str, as_json: bool) -> int:
    from suite.registry import REGISTRIES, suggestion

    if kind != "all" and kind not in REGISTRIES:
        raise UsageError(f"--list: there is no kind '{kind}'; {suggestion(kind, list(REGISTRIES))}")
    shown = {name: r for name, r in REGISTRIES.items() if kind in ("all", name)}
    if as_json:
        rows = {name: [[e.name, e.summary, e.origin] for e in r] for name, r in shown.items()}
        print(json.dumps(rows, indent=1))
        return 0
    for name, registry in shown.items():
        print(name)
        for entry in registry:
            print(f"  {entry.name:24}{entry.summary}  ({entry.origin})")
    return 0


def _dry_run(runs: "list[Run]", as_json: bool) -> int:
    plans = [{"run": run.label, "key": run.key, "scale": run.scale} | run.experiment.plan() for run in runs]
    if as_json:
        print(json.dumps(plans, indent=1))
        return 0
    for plan in plans:
        print(plan.pop("run"))
        for name, value in plan.items():
            print(f"  {name:36}{value}")
    print(f"{len(plans)} run{'s' if len(plans) > 1 else ''}; nothing was started")
    return 0


def _parent(runs: "list[Run]", tracker: "Tracker", out: Path) -> str:
    """The MLflow run of a table, found again by the runs it holds; '' for a single run."""
    from suite.files import json_sha256, make_directory

    if len(runs) == 1:
        return ""
    key = json_sha256([run.key for run in runs])[:16]
    known = make_directory(out / runs[0].name) / f".table-{key}.json"
    return tracker.start(runs[0].name, f"{runs[0].name} (table)", {"suite.run_key": key}, known)


def _set_aside(directory: Path) -> None:
    from suite.files import disk_errors

    n = 1
    while (aside := directory.with_name(f"{directory.name}.old{n}")).exists():
        n += 1
    with disk_errors(aside):
        directory.rename(aside)


def _earlier_record(file: Path) -> dict[str, Any]:
    from suite.results import invalid

    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise RunError(f"{file} is not the record of a finished run ({error}); do it anew with --fresh") from error
    problem = invalid(record)
    if problem:
        raise RunError(f"{file} is not a valid record: {problem}; do the run anew with --fresh")
    return record


def _metric(figure: dict[str, Any]) -> str:
    return f"{figure['split']}_accuracy/{figure['name'].replace(' ', '_')}"


def _peak_memory(device: "torch.device") -> float:
    """MiB at the most: of the GPU for a GPU run, of the process otherwise."""
    import resource

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
