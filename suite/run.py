"""The command line: `python -m suite.run --gin FILE …`.

Exit status: 0 done, 1 failed, 2 usage error, 75 stopped by a signal at a checkpoint (the same command goes on).
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite import terminal
from suite.core.launched import is_beside_the_first, is_follower, launched
from suite.errors import Interrupted, Left, SuiteError, UsageError, first_line, report
from suite.runtime.signals import as_interrupts, end
from suite.validation import AtLeast, number_option

if TYPE_CHECKING:
    import torch

    from suite.config.resolve import Run
    from suite.runtime.estimate import Estimate, Plans


TRACKER_FLUSH_SECONDS, TRACKER_FLUSH_SECONDS_STOPPED = 60.0, 10.0
"""Seconds that a tracker may take for the rest at the end, and after a signal; what it lacks then is sent later."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m suite.run",
        description="Distil data sets into memories, as gin files describe.",
        allow_abbrev=False,
    )
    add_options(command)
    add_only(command)
    add = command.add_argument
    add("--list", nargs="?", const="all", metavar="KIND", help="print what is registered, all or of one kind")
    return command


def add_only(command: argparse.ArgumentParser) -> None:
    """The option that picks cells of a table."""
    what = "only these cells of a table: LABEL or AXIS=LABEL"
    command.add_argument("--only", action="append", default=[], metavar="CELL", help=what)


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of every command that does runs."""
    add = command.add_argument
    add("--gin", action="append", default=[], metavar="FILE", help="configuration; later files win")
    add("--set", action="append", default=[], metavar="BINDING", help="one gin binding, as in 'ITERATIONS = 100'")
    add("--seed", type=number_option(int), metavar="N", help="this seed instead of the configuration's")
    add("--device", metavar="D", help="cpu, cuda or cuda:1 (default: a GPU if there is one)")
    add("--out", default="runs", metavar="DIR", help="where runs are kept (default: %(default)s)")
    add("--data-dir", metavar="D", help="where data sets are kept (default: $SUITE_DATA_DIR, or the user's cache)")
    add("--tracking-uri", metavar="U", help="MLflow store or server, or 'none' (default: a database in --out)")
    add("--plugin", action="append", default=[], metavar="F", help="a Python file or module that registers methods")
    seconds = number_option(float, AtLeast(0))
    add("--checkpoint-seconds", type=seconds, default=60.0, metavar="S", help="between checkpoints (%(default)g)")
    add(
        "--together", type=number_option(int, AtLeast(1)), default=1, metavar="N", help="runs at once on one device (1)"
    )
    add("--fresh", action="store_true", help="start anew; what an earlier run left is kept under another name")
    add("--dry-run", action="store_true", help="print what would be done; needs no data")
    add("--json", action="store_true", help="print the result records as JSON on stdout")
    add("--verbose", action="store_true", help="print every seed's figures, too")


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for (default: those of the process); returns the exit status."""
    options = parser().parse_args(arguments)
    return status_of("suite.run", lambda: _main(options))


def status_of(command: str, do: Callable[[], int]) -> int:
    """The exit status of a command that does runs; what ends it early is one sentence on stderr."""
    try:
        with as_interrupts():
            return do()
    except SuiteError as error:
        if not _said_by_another(error):
            report(f"{_rank_words()}{command}: {error}")
        return error.status
    except KeyboardInterrupt:
        report(f"{command}: stopped outside a run; nothing was lost")
        return Interrupted.status


def _said_by_another(error: SuiteError) -> bool:
    """Whether another process of the command says the same: the first speaks for all, on its machine."""
    if not is_follower():
        return False
    return isinstance(error, (Interrupted, Left)) or (isinstance(error, UsageError) and is_beside_the_first())


def _rank_words() -> str:
    """Who speaks, where it is not the first process of the command."""
    return f"[rank {os.environ['RANK']}] " if is_follower() else ""


def _main(options: argparse.Namespace) -> int:
    """List, plan or run."""
    if is_follower() and (options.list or options.dry_run):
        return 0
    from suite.registry import load_components, load_plugin

    load_components()
    options.plugin = [load_plugin(plugin) for plugin in options.plugin]
    if options.list:
        return _list(options.list, options.json)

    from suite.config.resolve import resolve

    runs = resolve(options.gin, options.set, options.seed, options.only)
    if options.dry_run:
        return look_ahead(runs, options)
    perform(runs, options)
    return 0


def perform(runs: "list[Run]", options: argparse.Namespace) -> list[dict[str, Any]]:
    """Do the runs, have their journals sent to the tracker, and print what they measured; returns their records.

    `options` are those of `add_options`, the plugins loaded. Raises SuiteError.
    """
    from suite.core.device import prepare_device
    from suite.core.ranks import joined
    from suite.datasets.sources import default_data_dir
    from suite.runtime.estimate import plans
    from suite.runtime.execute import RunContext, directories_of, execute_all
    from suite.runtime.follow import follow, refuse_to_deal
    from suite.runtime.run_directory import FINISHED
    from suite.runtime.signals import Stop
    from suite.storage.files import make_directory, user_path
    from suite.tracking.sender import Sender

    place = launched()
    if place is not None:
        refuse_to_deal(runs, place.count, options.together)
    device = prepare_device(options.device, place)
    out = make_directory(user_path(options.out, "--out"))
    data_dir = default_data_dir() if options.data_dir is None else user_path(options.data_dir, "--data-dir")
    uri = _tracking_uri(options.tracking_uri, out)
    there = [(directory / FINISHED).is_file() for directory in directories_of(runs, out)]
    unfinished = [run for run, done in zip(runs, there, strict=True) if options.fresh or not done]
    planned = plans([*unfinished, *(run.then for run in unfinished if run.then is not None)], device)
    stop = Stop(once=place is None)
    if place is not None and place.rank > 0:
        with stop.listening(), joined(place, device, stop):
            follow(runs, data_dir, out / "cache")
        return []
    _announce(unfinished, planned, options, device)
    sender = Sender(uri, out)
    try:
        with stop.listening(), joined(place, device, stop) as team:
            plugins, seconds = tuple(options.plugin), options.checkpoint_seconds
            at_once = max(1, min(options.together, len(unfinished)))
            context = RunContext(out, data_dir, device, sender, team or stop, options.fresh, seconds, at_once, plugins)
            records = execute_all(runs, context)
    finally:
        if not sender.close(TRACKER_FLUSH_SECONDS if stop.signal is None else TRACKER_FLUSH_SECONDS_STOPPED):
            where = shlex.quote(str(sender.uri))
            later = f"{sys.executable} -m suite.sync {shlex.quote(str(out))} --tracking-uri {where}"
            print(f"[tracking] not everything could be sent; nothing is lost, send it later: {later}", file=sys.stderr)
    _print_records(runs, records, out, sender.uri, options.json, options.verbose)
    return records


def _tracking_uri(given: str | None, out: Path) -> str | None:
    """The address of the tracker in full; None for 'none', a database in `out` where none was given."""
    from suite.tracking.uri import check_uri, default_uri, whole_uri

    if given == "none":
        return None
    uri = default_uri(out) if given is None else given
    check_uri(uri)
    return whole_uri(uri)


def _print_records(
    runs: "list[Run]", records: list[dict[str, Any]], out: Path, uri: str | None, as_json: bool, verbose: bool
) -> None:
    """The records as JSON, or a summary of them, with where the pictures are and how runs are compared."""
    from suite.runtime.execute import directories_of
    from suite.runtime.record import dumps, table
    from suite.runtime.summary import summary
    from suite.tracking.store import page

    if as_json:
        print(dumps(records[0]) if len(records) == 1 else "[" + ",\n".join(map(dumps, records)) + "]")
        return
    if verbose:
        print(table(records) + "\n")
    print(summary(records))
    done = {(record["name"], record["run_key"]) for record in records}
    every = [*runs, *(run.then for run in runs if run.then is not None)]
    ran = [run for run in every if (run.name, run.key) in done]
    directories = directories_of(ran, out)
    places = directories if len(directories) == 1 else dict.fromkeys(place.parent / "*" for place in directories)
    for place in places:
        print(f"pictures: {place / 'figures'}")
    print(f"look at runs: {sys.executable} -m leaderboard.serve {shlex.quote(str(out))}")
    if uri is not None:
        where = next(filter(None, (page(directory, uri) for directory in directories)), "")
        if uri.startswith("http"):
            print(f"compare runs: {uri}/{where}")
            return
        print(f"compare runs: {sys.executable} -m mlflow ui --backend-store-uri {shlex.quote(uri)}")
        if where:
            print(f"then open:    http://127.0.0.1:5000/{where}")


def _list(kind: str, as_json: bool) -> int:
    """Print what is registered, of one kind or of all."""
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


def _estimated(runs: "list[Run]", options: argparse.Namespace, device: "torch.device") -> "Estimate":
    """What the runs will take; of nothing if a method from outside can't be counted or tried."""
    from suite.runtime.estimate import Estimate, estimate

    try:
        return estimate(runs, options.gin, options.set, options.seed, options.only, device)
    except (Exception, SystemExit) as error:  # the method's own run will meet the error, and report it better
        report(f"[cost] no estimate ({type(error).__name__}: {first_line(error)})")
        return Estimate([None] * len(runs), None, None)


def _announce(runs: "list[Run]", planned: "Plans", options: argparse.Namespace, device: "torch.device") -> None:
    """Say before the start how long it will take, by counting alone, and how much memory."""
    from suite.runtime.durations import duration
    from suite.runtime.estimate import size_words
    from suite.types import EXPECTED_MIB

    estimate = _estimated(runs, options, device)
    if estimate.seconds is None:
        return
    most = sorted((plan.get(EXPECTED_MIB, 0) for plan in planned), reverse=True)
    mib = sum(most[: options.together])
    number = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    needs = f", about {size_words(mib)} of memory" if mib else ""
    time = duration(estimate.seconds)
    print(f"[cost] {number}, {time} if nothing else is at work here{needs}", file=sys.stderr)
    if estimate.advice:
        print(f"[cost] {estimate.advice}", file=sys.stderr)


def look_ahead(runs: "list[Run]", options: argparse.Namespace) -> int:
    """Print the plan of every run; returns the exit status."""
    from suite.core.device import prepare_device
    from suite.runtime.durations import duration
    from suite.runtime.estimate import plans, where
    from suite.runtime.execute import name_of_run

    device = prepare_device(options.device)
    planned = plans(runs, device)
    estimate = _estimated(runs, options, device)
    whole = [
        {"run": name_of_run(run), "key": run.key, "scale": run.scale}
        | plan
        | ({"expected seconds": round(c.own + sum(c.shared.values()), 1), "of an outer step": c.step} if c else {})
        for run, plan, c in zip(runs, planned, estimate.costs, strict=True)
    ]
    if options.json:
        print(json.dumps(whole, indent=1))
        return 0
    for plan in whole:
        _print_plan(plan)
    print(f"{len(whole)} run{'s' if len(whole) > 1 else ''}; nothing was started")
    if runs[0].then is not None:
        print(f"then the best {runs[0].choose} on validation is run once more, for every combination of the other axes")
    if estimate.seconds is not None:
        time = duration(estimate.seconds)
        print(f"together {time} on this machine ({where(device)}), controls that runs share counted once")
    if estimate.advice:
        print(estimate.advice)
    return 0


def _print_plan(plan: dict[str, Any]) -> None:
    """One run of a dry run, in units that people read."""
    from suite.runtime.durations import duration
    from suite.runtime.estimate import readable, size_words
    from suite.types import EXPECTED_MIB

    lines = {name: readable(value) for name, value in plan.items() if name not in ("run", "key")}
    if EXPECTED_MIB in plan:
        lines = {name: size_words(plan[name]) if name == EXPECTED_MIB else line for name, line in lines.items()}
    if "expected seconds" in plan:
        del lines["expected seconds"], lines["of an outer step"]
        lines["expected time here"] = duration(plan["expected seconds"])
        if plan["of an outer step"]:  # 0 where none is taken
            lines["expected time here"] += (
                f", {duration(plan['of an outer step']).removeprefix('about ')} an outer step"
            )
    print(plan["run"])
    for name, line in {"key": plan["key"], **lines}.items():
        print(f"  {name.removesuffix(' (MiB)'):36}{line}")


if __name__ == "__main__":
    end(main())
