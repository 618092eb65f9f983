"""List, resume, delete and clean up runs: `python -m suite.runs [list | resume | delete | reap | clean]`.

list [RUN …]     data set, budget, method, seed, state, progress, accuracies, age of runs below --out (default: all);
                 a method is the run's cell of a table, and the settings in which runs of one name and cell differ
resume [RUN …]   resume these runs (default: all that were stopped or killed); the results are those of unstopped runs;
                 plugins, and a tracker that is neither the database in --out nor $MLFLOW_TRACKING_URI, are named again
                 with --plugin, --tracking-uri
delete RUN …     delete these runs, after a question, or with --yes; what a tracker heard of them stays there
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
from suite.runtime.signals import end
from suite.runtime.told_apart import told_apart
from suite.storage.files import delete, user_path
from suite.storage.journal import read
from suite.storage.locks import Held, locked
from suite.storage.plain_files import plain_below
from suite.tracking.store import NoAnswer, Store, stores
from suite.tracking.uri import MADE, WHOLE, default_uri, plain_uri

FILTERS = ("data_set", "method", "state")
"""Columns of the list that it can be cut down by."""

LEFTOVER_SECONDS = 3600.0
"""Age from which on a partial file belongs to no process any more."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m suite.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("action", nargs="?", default="list", choices=("list", "resume", "delete", "reap", "clean"))
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
    for column in FILTERS:
        words = f"list: only runs whose {column.replace('_', ' ')} has this in it"
        command.add_argument(f"--{column.replace('_', '-')}", metavar="TEXT", help=words)
    command.add_argument("--json", action="store_true", help="list: as JSON")
    command.add_argument("--yes", action="store_true", help="clean: delete what is listed; delete: without a question")
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
        for column in FILTERS if options.action != "list" else ():
            if getattr(options, column) is not None:
                raise UsageError(f"--{column.replace('_', '-')} cuts a list down, and {options.action} takes none")
        selected = _selected(out, options.run)
        if options.action == "list":
            left_out = None if options.run else run_directory.links_left_out(out)
            if left_out:
                report(f"suite.runs: {left_out}")
            wanted = {column: text for column in FILTERS if (text := getattr(options, column)) is not None}
            return _list(out, selected, wanted, options.json)
        elif options.action == "resume":
            return _resume(selected, bool(options.run), options.plugin, options.tracking_uri)
        elif options.action == "delete":
            if not options.run or not all(options.run):
                raise UsageError("delete: name the runs, by their directories or parts of their names")
            return _delete(out, selected, options.yes)
        elif options.action == "reap":
            return _reap(out, options.tracking_uri)
        return _clean(out, options.yes)
    except SuiteError as error:
        report(f"suite.runs: {error}")
        return error.status
    except OSError as error:
        report(f"suite.runs: {out} can't be used: {error.strerror or error}")
        return RunError.status
    except KeyboardInterrupt:
        report("suite.runs: stopped; give the command again")
        return Interrupted.status


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
    data_set: str
    """Of the run, or its stream; '' where that is not known."""
    images_per_class: float | None
    """Its budget; None where that is not known."""
    method: str
    """Its cell of a table, and the settings in which runs of one name and cell differ."""
    seed: int | None
    """Its seed; None where that is not known."""
    state: run_directory.State
    """How it stands."""
    done: int | None
    """Iterations done; None before the first."""
    total: int | None
    """Iterations in all."""
    validation: float | None
    """On validation images, in percent: of a finished run that of its record, before that the last along the way."""
    test: float | None
    """What the finished run is judged by, in percent on test images; None before."""
    age: float
    """Seconds since its journal last grew."""


def row(out: Path, directory: Path, method: str) -> Row:
    """What the list shows of a run, from its journal and its record. Raises RunError."""
    entries, _ = read(directory)
    progress = [entry for entry in entries if entry["is"] == "progress"]
    points = [point for entry in entries if entry["is"] == "metrics" for point in entry["points"]]
    accuracies = [value for name, value, _, _ in points if name == "validation_accuracy"]
    last = max((entry["time"] / 1000 for entry in entries), default=directory.stat().st_mtime)
    about, judged = run_directory.about(directory), run_directory.judged(directory)
    config = about["config"] if about is not None else {}
    return Row(
        run=str(directory.relative_to(out)),
        data_set=config.get("dataset") or config.get("stream", ""),
        images_per_class=_number(config.get("images_per_class")),
        method=method,
        seed=about["seed"] if about is not None else None,
        state=run_directory.state(directory),
        done=progress[-1]["done"] if progress else None,
        total=progress[-1]["total"] if progress else None,
        validation=judged.get("validation", accuracies[-1] if accuracies else None),
        test=judged.get("test"),
        age=max(0.0, time.time() - last),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def methods(directories: list[Path]) -> dict[Path, str]:
    """What tells each run from the others of its name: its cell, and the settings in which those of one cell differ."""
    alike: dict[tuple[str, ...], list[tuple[Path, dict[str, str]]]] = {}
    for directory in directories:
        about = run_directory.about(directory)
        if about is not None:
            group = alike.setdefault((directory.parent.name, *about["cell"].values()), [])
            group.append((directory, about["config"]))
    found = dict.fromkeys(directories, "")
    for key, group in alike.items():
        apart = told_apart([config for _, config in group], but=("dataset", "stream", "images_per_class"))
        for (where, _), words in zip(group, apart, strict=True):
            found[where] = ", ".join(filter(None, [*key[1:], words]))
    return found


def _list(out: Path, directories: list[Path], wanted: dict[str, str], as_json: bool) -> int:
    """Print a row for each run; returns 1 where one can't be read, whose row is a sentence on stderr."""
    rows, status = [], 0
    told = methods(directories)
    for directory in directories:
        with suppress(RunError):  # where nothing can be written, the runs are listed as they are
            run_directory.mark_dead(directory)
        try:
            rows.append(row(out, directory, told[directory]))
        except RunError as error:
            status = RunError.status
            report(f"suite.runs: {error}")
    readable = len(rows)
    rows = [r for r in rows if all(text.casefold() in getattr(r, column).casefold() for column, text in wanted.items())]
    if as_json:
        print(json.dumps([asdict(r) for r in rows], indent=1))
        return status
    if not rows:
        none = f"no runs in {out}" if not directories else f"no run in {out} can be read"
        print(f"no run in {out} has all of that" if readable else none)
        return status
    head = ("data set", "I/C", "method", "seed", "state", "progress", "validation", "test", "age", "run")
    lines: list[tuple[str, ...]] = [head]
    for r in rows:
        progress = f"{r.done}/{r.total}" if r.total else "-"
        budget = "-" if r.images_per_class is None else f"{r.images_per_class:g}"
        seed = "-" if r.seed is None else str(r.seed)
        accuracies = ["-" if value is None else f"{value:.1f}" for value in (r.validation, r.test)]
        what = (printable(r.data_set), budget, printable(r.method) or "-", seed, r.state, progress)
        # The folder last: it is long, and in a narrow window what is read stays above each other.
        lines.append((*what, *accuracies, short_duration(r.age), printable(r.run)))
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
            if run_directory.state(directory) == "killed" and not run_directory.ended(directory):
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


# ---------------------------------------------------------------- delete


def _delete(out: Path, directories: list[Path], really: bool) -> int:
    """Delete runs that no process works on; returns 1 where one could not be, or where nobody said yes.

    A run is renamed first, as --fresh does, so that one that is deleted in part is no run any more.
    """
    for directory in directories:
        _require_run(directory)
    for directory in directories:
        print(printable(f"{directory.relative_to(out)}  ({_size(directory) / 2**20:.1f} MiB)"))
    number = f"{len(directories)} run{'' if len(directories) == 1 else 's'}"
    if not really and not _agreed(f"delete {number}, with their records and memories? [y/N] "):
        report(f"suite.runs: nothing was deleted; --yes deletes {number} without a question")
        return RunError.status
    status = 0
    for directory in directories:
        try:
            with locked(directory / run_directory.LOCK, wait=False, refusal="a process is at work on it"):
                aside = run_directory.set_aside(directory)
            delete(aside)
        except RunError as error:
            status = RunError.status
            report(f"suite.runs: {directory} stays: {error}")
    return status


def _require_run(directory: Path) -> None:
    """Raise UsageError for a folder that is not as the suite makes a run's."""
    about = run_directory.about(directory)
    if about is None or directory.is_symlink() or not directory.name.endswith(about["key"]):
        raise UsageError(f"{directory} is no run's folder, or a damaged one, and is not deleted; delete it by hand")


def _agreed(question: str) -> bool:
    """Whether somebody at a terminal says yes."""
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        return False


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
    end(main())
