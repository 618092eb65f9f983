"""List, resume and clean up runs: `python -m suite.runs [list | resume | reap | clean]`.

list [RUN …]     state, progress, last validation accuracy and age of the runs below --out (default: all)
resume [RUN …]   resume these runs (default: all that were stopped or killed); the results are those of unstopped runs;
                 plugins, and a tracker that is neither the database in --out nor $MLFLOW_TRACKING_URI, are named again
                 with --plugin, --tracking-uri
reap             mark runs whose process died as KILLED, here and in the tracker that they use
clean [--yes]    list what can be deleted: runs that --fresh set aside, checkpoints of finished runs, damaged ones,
                 partial files; with --yes, delete it
"""

import argparse
import json
import os
import shlex
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from suite import terminal
from suite.errors import Interrupted, RunError, SuiteError, UsageError, printable, report
from suite.runtime import run_directory
from suite.runtime.durations import short_duration
from suite.storage.files import delete, user_path
from suite.storage.journal import read
from suite.storage.locks import Held, locked
from suite.storage.plain_files import plain_below
from suite.tracking.store import NoAnswer, Store, stores
from suite.tracking.uri import MADE, WHOLE, default_uri, plain_uri

LEFTOVER_SECONDS = 3600.0
"""Age from which on a partial file belongs to no process any more."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m suite.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("action", nargs="?", default="list", choices=("list", "resume", "reap", "clean"))
    command.add_argument("run", nargs="*", metavar="RUN", help="directories of runs, or parts of their names")
    command.add_argument("--out", default="runs", metavar="DIR", help="where runs are kept (default: %(default)s)")
    plugin = "resume: a Python file or module that registers methods"
    command.add_argument("--plugin", action="append", default=[], metavar="F", help=plugin)
    command.add_argument(
        "--tracking-uri",
        metavar="U",
        help="resume, reap: the MLflow store or server of these runs, or 'none' (default: that which each run had, if "
        "it is the database in --out, also where --out was moved, or $MLFLOW_TRACKING_URI)",
    )
    command.add_argument("--json", action="store_true", help="list: as JSON")
    command.add_argument("--yes", action="store_true", help="clean: delete what is listed")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    out = Path(options.out)
    try:
        out = user_path(options.out, "--out")
        if not out.is_dir():
            raise UsageError(f"--out: there is no folder {out}; name the one that suite.run was given")
        if options.run and options.action in ("reap", "clean"):
            raise UsageError(f"{options.action} is for all runs below --out; name none")
        selected = _selected(out, options.run)
        if options.action == "list":
            left_out = None if options.run else run_directory.links_left_out(out)
            if left_out:
                report(f"suite.runs: {left_out}")
            return _list(out, selected, options.json)
        elif options.action == "resume":
            return _resume(selected, bool(options.run), options.plugin, options.tracking_uri)
        elif options.action == "reap":
            return _reap(out, options.tracking_uri)
        else:
            return _clean(out, options.yes)
    except SuiteError as error:
        report(f"suite.runs: {error}")
        return error.status
    except OSError as error:
        report(f"suite.runs: {out} can't be used: {error.strerror or error}")
        return RunError.status
    return 0


def _selected(out: Path, words: list[str]) -> list[Path]:
    """The runs that the words name, by their directory or a part of their name; all runs without words."""
    directories = run_directory.run_directories(out)
    if not words:
        return directories
    selected: list[Path] = []
    for word in words:
        matches = [d for d in directories if Path(word).resolve() == d.resolve() or word in str(d.relative_to(out))]
        if not matches:
            raise UsageError(f"no run in {out} is called '{word}'; python -m suite.runs lists them")
        selected += [d for d in matches if d not in selected]
    return selected


# ---------------------------------------------------------------- list


@dataclass(frozen=True)
class Row:
    """One run in the list."""

    run: str
    """Its directory below the output directory."""
    state: run_directory.State
    """How it stands."""
    done: int | None
    """Iterations done; None before the first."""
    total: int | None
    """Iterations in all."""
    validation: float | None
    """Last accuracy on validation, in percent; None where none was measured."""
    age: float
    """Seconds since its journal last grew."""


def row(out: Path, directory: Path) -> Row:
    """What the list shows of a run, from its journal. Raises RunError."""
    entries, _ = read(directory)
    progress = [entry for entry in entries if entry["is"] == "progress"]
    points = [point for entry in entries if entry["is"] == "metrics" for point in entry["points"]]
    accuracies = [value for name, value, _, _ in points if name == "validation_accuracy"]
    last = max((entry["time"] / 1000 for entry in entries), default=directory.stat().st_mtime)
    return Row(
        run=str(directory.relative_to(out)),
        state=run_directory.state(directory),
        done=progress[-1]["done"] if progress else None,
        total=progress[-1]["total"] if progress else None,
        validation=accuracies[-1] if accuracies else None,
        age=max(0.0, time.time() - last),
    )


def _list(out: Path, directories: list[Path], as_json: bool) -> int:
    """Print a row for each run; returns 1 where one can't be read, whose row is a sentence on stderr."""
    rows, status = [], 0
    for directory in directories:
        with suppress(RunError):  # where nothing can be written, the runs are listed as they are
            run_directory.mark_dead(directory)
        try:
            rows.append(row(out, directory))
        except RunError as error:
            status = RunError.status
            report(f"suite.runs: {error}")
    if as_json:
        print(json.dumps([asdict(r) for r in rows], indent=1))
        return status
    if not rows:
        print(f"no runs in {out}" if not directories else f"no run in {out} can be read")
        return status
    lines = [("run", "state", "progress", "validation", "age")]
    for r in rows:
        progress = f"{r.done}/{r.total}" if r.total else "-"
        validation = "-" if r.validation is None else f"{r.validation:.1f}"
        lines.append((printable(r.run), r.state, progress, validation, short_duration(r.age)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return status


# ---------------------------------------------------------------- resume, reap


def _resume(directories: list[Path], named: bool, plugins: list[str], tracker: str | None) -> int:
    """Resume each run as its own command would; failed ones only if they were named. Returns the worst status."""
    from suite import run

    resumable = ("stopped", "killed", "failed") if named else ("stopped", "killed")
    found, worst = False, 0
    for directory in directories:
        try:
            if run_directory.state(directory) not in resumable:
                continue
            found = True
            command = _command(directory, run_directory.read_about(directory)["options"], plugins, tracker)
        except UsageError as error:
            report(f"suite.runs: {error}")
            worst = max(worst, error.status)
            continue
        except (RunError, FileNotFoundError) as error:
            report(f"suite.runs: {error}; give the run's own command again")
            worst = max(worst, RunError.status)
            continue
        try:
            status = run.main(command)
        except SystemExit:  # an option that is none, of which argparse has said so
            status = UsageError.status
        if status == Interrupted.status:
            return status
        worst = max(worst, status)
    if not found and not worst:
        print("no runs to resume")
    return worst


def _command(directory: Path, options: run_directory.Options, plugins: list[str], tracker: str | None) -> list[str]:
    """The arguments of `suite.run` that resume a run.

    A run's folder may be somebody else's. So no code and no address outside the folder is taken from it: this command
    names them again. Raises UsageError where it does not, RunError and FileNotFoundError for a damaged folder.
    """
    config, out = plain_below(directory, "config.gin"), directory.resolve().parent.parent
    again = f"if you trust {'them' if len(options['plugins']) > 1 else 'it'}, give the command with"
    if options["plugins"] and not plugins:
        words = shlex.join(word for plugin in options["plugins"] for word in ("--plugin", plugin))
        raise UsageError(
            f"{directory} was run with code of its own, which runs only if this command names it; {again} {words}"
        )
    uri = _where_it_is_now(options["tracking_uri"], directory, out) if tracker is None else tracker
    if not _may_hear(uri, out, tracker):
        where = shlex.quote(plain_uri(uri))
        raise UsageError(
            f"{directory} was told to {where}, a tracker that hears of it only if this command names it; give the "
            f"command with --tracking-uri {where}, or none"
        )
    said: dict[str, object] = {"gin": config, "out": out, "device": options["device"], "data-dir": options["data_dir"]}
    said |= {"tracking-uri": uri, "checkpoint-seconds": options["checkpoint_seconds"]}
    return [f"--{name}={value}" for name, value in said.items()] + [f"--plugin={plugin}" for plugin in plugins]


def _where_it_is_now(uri: str, directory: Path, out: Path) -> str:
    """The address of a run's tracker: the database in `out` if the run's own was in the folder that `out` was before.

    That folder is not there any more, or it has this run as well: `out` is then a copy, or another way to it.
    """
    database = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:////") or database.name != MADE:
        return uri
    before, own = database.parent, Path(*directory.resolve().parts[-2:])
    moved = not os.path.isdir(before) or os.path.isdir(before / own)
    return default_uri(out) if moved else uri


def _may_hear(uri: str, out: Path, named: str | None) -> bool:
    """Whether a tracker is one that this command, its environment or its output directory names."""
    told = {plain_uri(given) for given in (named, os.environ.get(WHOLE)) if given}
    return uri == "none" or plain_uri(uri) in told or uri == default_uri(out)


def _reap(out: Path, tracker: str | None) -> int:
    """Mark runs that died, and send their journals; also of those that were marked before."""
    dead, status = 0, 0
    reached: dict[str, Store | NoAnswer] = {}
    for directory in run_directory.journal_directories(out):
        try:
            if run_directory.mark_dead(directory):
                print(printable(f"{directory.relative_to(out)} was killed; marked as KILLED, and resumable"))
                dead += 1
            if run_directory.state(directory) == "killed":
                about = run_directory.about(directory)
                uris = {*stores(directory), about["options"]["tracking_uri"] if about else "none"} - {"none"}
                if tracker is None:
                    uris = {_where_it_is_now(uri, directory, out) for uri in uris}
                for uri in sorted(uris):
                    if _may_hear(uri, out, tracker):
                        _send(directory, uri, out, reached)
                    else:
                        where = shlex.quote(plain_uri(uri))
                        report(
                            f"suite.runs: {directory.name}: {where} was not told; name it with --tracking-uri {where}"
                        )
        except RunError as error:
            status = RunError.status
            report(f"suite.runs: {directory.name}: {error}; python -m suite.sync sends it later")
    if not dead:
        print("no killed run was left unmarked")
    return status


def _send(directory: Path, uri: str, out: Path, reached: dict[str, Store | NoAnswer]) -> None:
    """Send a journal; a store that once gave no answer in time is not waited for again. Raises RunError."""
    store = reached.setdefault(uri, Store(uri, out))
    if isinstance(store, NoAnswer):
        raise store
    try:
        store.send(directory)
    except NoAnswer as error:
        reached[uri] = error
        raise


# ---------------------------------------------------------------- clean


def _clean(out: Path, really: bool) -> int:
    """List what can be deleted with its size, and delete it if asked to; returns 1 where something could not be."""
    total, status = 0, 0
    for path, reason, owner in leftovers(out):
        try:
            with locked(owner / run_directory.LOCK, wait=False) if owner is not None else nullcontext():
                if not os.path.lexists(path) or (owner is not None and (path, reason) not in _leftovers_of_run(owner)):
                    continue  # the run was resumed meanwhile
                size = _size(path)
                if really:
                    delete(path)
        except (Held, FileNotFoundError):
            continue
        except RunError as error:
            status = RunError.status
            report(f"suite.runs: {error}")
            continue
        total += size
        print(printable(f"{path.relative_to(out)}  ({reason}, {size / 2**20:.1f} MiB)"))
    print(f"{total / 2**20:.1f} MiB {'deleted' if really else 'can be deleted with --yes'}")
    return status


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory; a link is as large as its name."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else []
    return sum(file.lstat().st_size for file in [path, *inside] if not file.is_dir() or file.is_symlink())


def leftovers(out: Path) -> list[tuple[Path, str, Path | None]]:
    """What can be deleted, why, and the run whose lock must be held meanwhile."""
    found: list[tuple[Path, str, Path | None]] = []
    for directory in run_directory.run_directories(out):
        with suppress(RunError):  # nothing is deleted of what can't be read
            if run_directory.state(directory) != "running":
                found += [(path, reason, directory) for path, reason in _leftovers_of_run(directory)]
    aside = [path for path in run_directory.folders(out) if run_directory.is_set_aside(path)]
    found += [(path, "set aside by --fresh", None) for path in aside]
    before, covered = time.time() - LEFTOVER_SECONDS, [path for path, _, _ in found]
    for path in sorted(p for pattern in ("**/.*.tmp", "**/*.part") for p in out.glob(pattern)):
        with suppress(FileNotFoundError):
            if path.lstat().st_mtime < before and not any(c in path.parents for c in covered):
                found.append((path, "partial file", None))
    return found


def _leftovers_of_run(directory: Path) -> list[tuple[Path, str]]:
    """What can be deleted of a run that no process works on."""
    checkpoints = directory / "checkpoints"
    if (directory / run_directory.FINISHED).is_file():
        return [(checkpoints, "checkpoints of a finished run")] if checkpoints.is_dir() else []
    if not any(checkpoints.glob("step-*")):
        return []  # without the damaged ones, the run would start from zero in silence
    return [(path, "a damaged checkpoint") for path in sorted(checkpoints.glob("damaged-*"))]


if __name__ == "__main__":
    sys.exit(main())
