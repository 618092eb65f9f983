"""Do a whole table: `python -m suite.sweep --gin FILE …`, every cell and seed as a process of its own.

What is done, and what is left, is read from the runs' directories, so that the pool, Slurm, a machine or this command
may die, and the same command goes on. Exit status as of `suite.run`: 0 done, 1 something failed, 2 usage error, 75
stopped.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from suite import terminal
from suite.errors import RunError, UsageError, report
from suite.run import add_options, status_of
from suite.runtime.signals import end
from suite.validation import AtLeast, number_option

if TYPE_CHECKING:
    import torch

    from suite.config.resolve import Run
    from suite.sweep.units import Unit

ENGINES = ("local", "slurm")


def parser() -> argparse.ArgumentParser:
    """The command's options: those of suite.run, and how its runs are dealt out."""
    command = argparse.ArgumentParser(
        prog="python -m suite.sweep",
        description="Do every cell and seed of a table as a process of its own; the same command goes on with it.",
        allow_abbrev=False,
    )
    add_options(command)
    add = command.add_argument
    add("--only", action="append", default=[], metavar="CELL", help="only these cells of a table: LABEL or AXIS=LABEL")
    add("--on", choices=ENGINES, default="local", help="processes here, or a job array that is written (%(default)s)")
    whole = number_option(int, AtLeast(1))
    add("--workers", type=whole, metavar="N", help="runs at a time (default: one for each GPU, or one for two cores)")
    add("--slurm", action="append", default=[], metavar="OPTION", help="of sbatch, such as --slurm=--time=02:00:00")
    add("--status", action="store_true", help="print what is done, running and left; starts nothing")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments ask for (default: those of the process); returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    return status_of("suite.sweep", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    from suite.config.resolve import resolve
    from suite.core.device import prepare_device
    from suite.registry import load_components, load_plugin
    from suite.runtime.estimate import plans
    from suite.storage.files import make_directory, user_path
    from suite.sweep.units import LEFT, longest_first, table, units_of

    for name, given in (("--fresh", options.fresh), ("--together", options.together != 1)):
        if given:
            raise UsageError(f"{name}: a sweep goes on with what there is, one run a process; give it to suite.run")
    if options.slurm and options.on != "slurm":
        raise UsageError("--slurm: options of sbatch are for --on slurm")
    load_components()
    options.plugin = [load_plugin(plugin) for plugin in options.plugin]
    runs = resolve(options.gin, options.set, options.seed, options.only)
    device = prepare_device(options.device)
    plans(runs, device)  # refuses what has no room, before anything is begun
    out = make_directory(user_path(options.out, "--out"))
    units = units_of(runs, _seconds(runs, device), options, out)
    if options.json:
        print(
            json.dumps([{"run": u.name, "key": u.key, "state": u.state, "seconds": u.seconds} for u in units], indent=1)
        )
        return 0
    if options.status or options.dry_run:
        print(table(units))
        return 0
    if options.on == "slurm":
        return _slurm(runs, longest_first(units, LEFT), options, out)
    _local(runs, longest_first(units, (*LEFT, "running")), options, out, device)
    return _whole_table(options)


def _seconds(runs: "list[Run]", device: "torch.device") -> list[float | None]:
    """What each run is expected to take; Nones where a method from outside can't be counted."""
    from suite.runtime.estimate import costs

    try:
        found = costs(runs, device)
    except (Exception, SystemExit):  # the method's own run will meet the error, and report it better
        return [None] * len(runs)
    return [None if cost is None else cost.own + sum(cost.shared.values()) for cost in found]


# ---------------------------------------------------------------- engines


def _local(
    runs: "list[Run]", left: "list[Unit]", options: argparse.Namespace, out: Path, device: "torch.device"
) -> None:
    """Do what is left in a pool. Raises RunError where something failed, and Interrupted after a signal."""
    import torch

    from suite.runtime.signals import Stop
    from suite.storage.locks import locked
    from suite.sweep.pool import Pool
    from suite.sweep.units import folder_of

    folder = folder_of(runs, out)
    spread = device.type == "cuda" and options.device is None
    gpus = torch.cuda.device_count() if spread else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = options.workers or gpus or max(1, cores // 2)
    threads = str(max(1, cores // workers))
    pool = Pool(
        workers,
        folder / "logs",
        (lambda worker: (f"--device=cuda:{worker % gpus}",)) if gpus else (lambda worker: (f"--device={device}",)),
        {name: os.environ.get(name, threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
    )
    refusal = f"another sweep is at work on these runs ({folder}); --status shows how far it is"
    stop = Stop()
    with locked(folder / "lock", wait=False, refusal=refusal), stop.listening():
        report(f"[sweep] {len(left)} of {len(runs)} runs are left, {workers} at a time; {folder / 'logs'}")
        pool.run(left, lambda: stop.signal)
    if pool.failed:
        raise RunError(
            f"{len(pool.failed)} of {len(runs)} runs failed; the others are done, and their records are kept"
        )


def _slurm(runs: "list[Run]", left: "list[Unit]", options: argparse.Namespace, out: Path) -> int:
    """Write the job array of what is left, and say how it is submitted."""
    from suite.sweep.slurm import write_array
    from suite.sweep.units import folder_of

    if not left:
        return _whole_table(options)
    script = write_array(folder_of(runs, out).absolute(), runs[0].name, left, options.workers, options.slurm)
    print(f"{len(left)} of {len(runs)} runs are left; submit them with\n  sbatch {shlex.quote(str(script))}")
    return 0


def _whole_table(options: argparse.Namespace) -> int:
    """The table's own command, now that all runs are done: the chosen cells, the means, the parent in the tracker."""
    from suite.config.resolve import resolve
    from suite.run import perform

    perform(resolve(options.gin, options.set, options.seed, options.only), options)
    return 0


if __name__ == "__main__":
    end(main())
