"""What runs there are and how they stand: `python -m suite.runs [list | resume | reap | clean]`.

list [RUN …]     state, progress, last validation accuracy and age of the runs below --out (default: all)
resume [RUN …]   go on with these runs (default: all that were stopped or killed), to the bits of uninterrupted ones
reap             mark runs that were killed hard as KILLED, here and in the tracker they told
clean [--yes]    say what could be deleted: runs that --fresh set aside, checkpoints of finished runs, damaged ones,
                 half-written files; with --yes, delete it
"""

import argparse
import json
import shutil
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from suite.errors import Interrupted, RunError, SuiteError, UsageError
from suite.runtime import run_directory
from suite.storage.files import disk_errors
from suite.storage.journal import read
from suite.storage.locks import Held, locked
from suite.tracking.store import Store, stores

LEFTOVER_SECONDS = 3600.0
"""A half-written file of this age is nobody's any more."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m suite.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("action", nargs="?", default="list", choices=("list", "resume", "reap", "clean"))
    command.add_argument("run", nargs="*", metavar="RUN", help="directories of runs, or parts of their names")
    command.add_argument("--out", default="runs", metavar="DIR", help="where runs are kept (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="list: as JSON")
    command.add_argument("--yes", action="store_true", help="clean: delete what is listed")
    return command


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    out = Path(options.out)
    try:
        if not out.is_dir():
            raise UsageError(f"--out: there is no folder {out}; name the one that suite.run was given")
        if options.run and options.action in ("reap", "clean"):
            raise UsageError(f"{options.action} is for all runs below --out; name none")
        chosen = _chosen(out, options.run)
        if options.action == "list":
            _list(out, chosen, options.json)
        elif options.action == "resume":
            return _resume(out, chosen, named=bool(options.run))
        elif options.action == "reap":
            return _reap(out)
        else:
            _clean(out, options.yes)
    except SuiteError as error:
        print(f"suite.runs: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"suite.runs: {out} can't be used: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _chosen(out: Path, words: list[str]) -> list[Path]:
    every = run_directory.run_directories(out)
    if not words:
        return every
    chosen: list[Path] = []
    for word in words:
        found = [d for d in every if Path(word).resolve() == d.resolve() or word in str(d.relative_to(out))]
        if not found:
            raise UsageError(f"no run in {out} is called '{word}'; python -m suite.runs lists them")
        chosen += [d for d in found if d not in chosen]
    return chosen


# ---------------------------------------------------------------- list


@dataclass(frozen=True)
class Row:
    """What the list says of a run; `age` in seconds since it last said something."""

    run: str
    state: run_directory.State
    done: int | None
    total: int | None
    validation: float | None
    age: float


def row(out: Path, directory: Path) -> Row:
    entries, _ = read(directory)
    progress = [entry for entry in entries if entry["is"] == "progress"]
    points = [p for entry in entries if entry["is"] == "metrics" for p in entry["points"]]
    watched = [value for name, value, _, _ in points if name == "validation_accuracy"]
    last = max((entry["time"] / 1000 for entry in entries), default=directory.stat().st_mtime)
    return Row(
        run=str(directory.relative_to(out)),
        state=run_directory.state(directory),
        done=progress[-1]["done"] if progress else None,
        total=progress[-1]["total"] if progress else None,
        validation=watched[-1] if watched else None,
        age=max(0.0, time.time() - last),
    )


def _list(out: Path, directories: list[Path], as_json: bool) -> None:
    for directory in directories:
        with suppress(RunError):  # where nothing can be written, it can still be looked at
            run_directory.mark_dead(directory)
    rows = [row(out, directory) for directory in directories]
    if as_json:
        print(json.dumps([asdict(r) for r in rows], indent=1))
        return
    if not rows:
        print(f"no runs in {out}")
        return
    cells = [("run", "state", "progress", "validation", "age")]
    for r in rows:
        done = f"{r.done}/{r.total}" if r.total else "-"
        cells.append((r.run, r.state, done, "-" if r.validation is None else f"{r.validation:.1f}", _duration(r.age)))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip())


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# ---------------------------------------------------------------- resume, reap


def _resume(out: Path, directories: list[Path], named: bool) -> int:
    """Go on with each as its own command did; a failed one only if it was named."""
    from suite import run

    wanted = ("stopped", "killed", "failed") if named else ("stopped", "killed")
    todo = [d for d in directories if run_directory.state(d) in wanted]
    if not todo:
        print("nothing to go on with")
        return 0
    worst = 0
    for directory in todo:
        said = run_directory.about(directory)
        if said is None:
            print(
                f"suite.runs: {directory / run_directory.ABOUT} is damaged; give the run's own command again",
                file=sys.stderr,
            )
            worst = max(worst, RunError.status)
            continue
        options = said["options"]
        words = ["--gin", str(directory / "config.gin"), "--out", str(directory.resolve().parent.parent)]
        words += ["--device", options["device"], "--data-dir", options["data_dir"]]
        words += ["--tracking-uri", options["tracking_uri"], "--checkpoint-seconds", str(options["checkpoint_seconds"])]
        words += [word for plugin in options["plugins"] for word in ("--plugin", plugin)]
        status = run.main(words)
        if status == Interrupted.status:
            return status
        worst = max(worst, status)
    return worst


def _reap(out: Path) -> int:
    """Mark the dead, and tell their stores; also of those that were marked before."""
    dead, status = 0, 0
    for directory in run_directory.journal_directories(out):
        try:
            if run_directory.mark_dead(directory):
                print(f"{directory.relative_to(out)} was killed hard; marked as KILLED, and resumable")
                dead += 1
            if run_directory.state(directory) == "killed":
                said = run_directory.about(directory)
                uris = {*stores(directory), said["options"]["tracking_uri"] if said else "none"} - {"none"}
                for uri in sorted(uris):
                    Store(uri, out).send(directory)
        except RunError as error:
            status = 1
            print(f"suite.runs: {directory.name}: {error}; python -m suite.sync tells it later", file=sys.stderr)
    if not dead:
        print("no run was killed hard")
    return status


# ---------------------------------------------------------------- clean


def _clean(out: Path, really: bool) -> None:
    total = 0
    for path, why, owner in leftovers(out):
        try:
            with locked(owner / run_directory.LOCK, wait=False) if owner is not None else nullcontext():
                if not path.exists() or (owner is not None and (path, why) not in _of_run(owner)):
                    continue  # a run went on there meanwhile
                inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
                size = sum(p.stat().st_size for p in inside)
                if really:
                    with disk_errors(path):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
        except (Held, FileNotFoundError):
            continue
        total += size
        print(f"{path.relative_to(out)}  ({why}, {size / 2**20:.1f} MiB)")
    print(f"{total / 2**20:.1f} MiB {'deleted' if really else 'could be deleted; --yes does it'}")


def leftovers(out: Path) -> list[tuple[Path, str, Path | None]]:
    """What may go, why, and the run whose lock guards it."""
    found: list[tuple[Path, str, Path | None]] = []
    for directory in run_directory.run_directories(out):
        if run_directory.state(directory) != "running":
            found += [(path, why, directory) for path, why in _of_run(directory)]
    found += [
        (path, "set aside by --fresh", None) for path in sorted(out.glob("*/*")) if run_directory.is_set_aside(path)
    ]
    old, covered = time.time() - LEFTOVER_SECONDS, [path for path, _, _ in found]
    for path in sorted(p for pattern in ("**/.*.tmp", "**/*.part") for p in out.glob(pattern)):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < old and not any(c in path.parents for c in covered):
                found.append((path, "half-written", None))
    return found


def _of_run(directory: Path) -> list[tuple[Path, str]]:
    """What may go of a run that nobody works on."""
    checkpoints = directory / "checkpoints"
    if (directory / run_directory.FINISHED).is_file():
        return [(checkpoints, "checkpoints of a finished run")] if checkpoints.is_dir() else []
    if not any(checkpoints.glob("step-*")):
        return []  # what is damaged keeps the run from starting at zero untold
    return [(path, "a damaged checkpoint") for path in sorted(checkpoints.glob("damaged-*"))]


if __name__ == "__main__":
    sys.exit(main())
