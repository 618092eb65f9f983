"""What runs there are and how they stand: `python -m suite.runs [list | resume | reap | clean]`.

list [RUN …]     state, progress, last validation accuracy and age of the runs below --out (default: all)
resume [RUN …]   go on with these runs (default: all that were stopped or killed), to the bits of uninterrupted ones
reap             mark runs that were killed hard as KILLED, here and in the tracker they told
clean [--yes]    say what could be deleted without losing a result: set-aside runs, damaged and finished runs'
                 checkpoints, half-written files; with --yes, delete it
"""

import argparse
import json
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from suite import rundir
from suite.errors import RunError, SuiteError, UsageError
from suite.files import disk_errors
from suite.journal import read
from suite.tracking import Store

LEFTOVER_SECONDS = 3600.0
"""A half-written file of this age is nobody's any more."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m suite.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", default="list", choices=("list", "resume", "reap", "clean"))
    parser.add_argument("run", nargs="*", metavar="RUN", help="directories of runs, or parts of their names")
    parser.add_argument("--out", default="runs", metavar="DIR", help="where runs are kept (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="list: as JSON")
    parser.add_argument("--yes", action="store_true", help="clean: delete what is listed")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    try:
        if not out.is_dir():
            raise UsageError(f"--out: there is no folder {out}; name the one that suite.run was given")
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
    return 0


def _chosen(out: Path, words: list[str]) -> list[Path]:
    every = rundir.run_directories(out)
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
    state: rundir.State
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
        state=rundir.state(directory),
        done=progress[-1]["done"] if progress else None,
        total=progress[-1]["total"] if progress else None,
        validation=watched[-1] if watched else None,
        age=max(0.0, time.time() - last),
    )


def _list(out: Path, directories: list[Path], as_json: bool) -> None:
    for directory in directories:
        with suppress(RunError):  # where nothing can be written, it can still be looked at
            rundir.mark_dead(directory)
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
    todo = [d for d in directories if rundir.state(d) in wanted]
    if not todo:
        print("nothing to go on with")
        return 0
    for directory in todo:
        said = rundir.about(directory)
        if said is None:
            raise RunError(f"{directory / rundir.ABOUT} can't be read; give the command that started the run again")
        options = said["options"]
        words = ["--gin", str(directory / "config.gin"), "--out", str(out), "--device", options["device"]]
        words += ["--data-dir", options["data_dir"], "--tracking-uri", options["tracking_uri"]]
        words += ["--checkpoint-seconds", str(options["checkpoint_seconds"])]
        words += [word for plugin in options["plugins"] for word in ("--plugin", plugin)]
        status = run.main(words)
        if status != 0:
            return status
    return 0


def _reap(out: Path) -> int:
    found = [directory for directory in rundir.journal_directories(out) if rundir.mark_dead(directory)]
    status = 0
    for directory in found:
        print(f"{directory.relative_to(out)} was killed hard; marked as KILLED, and resumable")
        uri = (rundir.about(directory) or {}).get("options", {}).get("tracking_uri", "none")
        if uri != "none":
            try:
                Store(uri, out).send(directory)
            except RunError as error:
                status = 1
                print(f"suite.runs: {error}; python -m suite.sync tells it later", file=sys.stderr)
    if not found:
        print("no run was killed hard")
    return status


# ---------------------------------------------------------------- clean


def _clean(out: Path, really: bool) -> None:
    total = 0
    for path, why in leftovers(out):
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
        total += size
        print(f"{path.relative_to(out)}  ({why}, {size / 2**20:.1f} MiB)")
        if really:
            with disk_errors(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    print(f"{total / 2**20:.1f} MiB {'deleted' if really else 'could be deleted; --yes does it'}")


def leftovers(out: Path) -> list[tuple[Path, str]]:
    """What no result depends on, and why; nothing of a run at work."""
    found: list[tuple[Path, str]] = [(path, "set aside by --fresh") for path in sorted(out.glob("*/*.old*"))]
    for directory in rundir.run_directories(out):
        state = rundir.state(directory)
        if state == "running":
            continue
        if state == "finished" and (directory / "checkpoints").is_dir():
            found.append((directory / "checkpoints", "checkpoints of a finished run"))
        else:
            damaged = sorted(directory.glob("checkpoints/damaged-*"))
            found += [(path, "a damaged checkpoint") for path in damaged]
    old = time.time() - LEFTOVER_SECONDS
    half = [p for pattern in ("**/.*.tmp", "**/*.part") for p in out.glob(pattern) if p.stat().st_mtime < old]
    covered = [path for path, _ in found]
    found += [(p, "half-written") for p in sorted(half) if not any(c in p.parents or c == p for c in covered)]
    return found


if __name__ == "__main__":
    sys.exit(main())
