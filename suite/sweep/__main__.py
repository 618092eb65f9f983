"""Do a whole table: `python -m suite.sweep --gin FILE …`, every cell and seed as a process of its own.

What is done, and what is left, is read from the runs' directories, so that the pool, Slurm, a machine or this command
may die, and the same command goes on. Exit status as of `suite.run`: 0 done, 1 something failed, 2 usage error, 75
stopped.
"""

import argparse
import io
import json
import os
import shlex
import socket
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from suite import terminal
from suite.errors import RunError, UsageError, first_line, report
from suite.run import add_only, add_options, status_of
from suite.runtime.signals import end
from suite.validation import AtLeast, number_option

if TYPE_CHECKING:
    import torch

    from suite.config.resolve import Run
    from suite.sweep.attended import Errand
    from suite.sweep.local import Processes
    from suite.sweep.pool import Engine
    from suite.sweep.units import Unit

ENGINES = ("local", "slurm", "ray", "submitit")


def parser() -> argparse.ArgumentParser:
    """The command's options: those of suite.run, and how its runs are dealt out."""
    command = argparse.ArgumentParser(
        prog="python -m suite.sweep",
        description="Do every cell and seed of a table as a process of its own; the same command goes on with it.",
        allow_abbrev=False,
    )
    add_options(command)
    add_only(command)
    add = command.add_argument
    where = "processes here, a job array that is written, tasks of Ray, or jobs of submitit (%(default)s)"
    add("--on", choices=ENGINES, default="local", help=where)
    whole = number_option(int, AtLeast(1))
    add("--workers", type=whole, metavar="N", help="runs at a time (default: as many as there is room for)")
    add("--slurm", action="append", default=[], metavar="OPTION", help="of sbatch, such as --slurm=--time=02:00:00")
    add("--address", metavar="A", help="of a Ray cluster (default: $RAY_ADDRESS, or Ray is started here)")
    share = number_option(float, AtLeast(0))
    add("--gpus", type=share, metavar="G", help="of each run on Ray, such as 0.25 (default: 1 where there are GPUs)")
    add("--status", action="store_true", help="print what is done, running and left; starts nothing")
    add("--cancel", action="store_true", help="ask what is at work to stop at checkpoints; the same command goes on")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments ask for (default: those of the process); returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    return status_of("suite.sweep", lambda: _main(options))


def _refuse_to_be_a_rank() -> None:
    """Raise UsageError in one of several processes of a launcher: each run would take itself for a rank, too."""
    if "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError(
            "$RANK and $WORLD_SIZE say that this is one of several processes of a command; start one sweep alone, "
            "without torchrun or with both unset"
        )


def _main(options: argparse.Namespace) -> int:
    from suite.config.resolve import resolve
    from suite.registry import load_components, load_plugin
    from suite.run import perform
    from suite.storage.files import make_directory, user_path

    _refuse_to_be_a_rank()
    if options.fresh:
        raise UsageError("--fresh: a sweep goes on with what there is; give it to suite.run")
    _refuse_options_of_another_engine(options)
    load_components()
    options.plugin = [load_plugin(plugin) for plugin in options.plugin]
    if options.data_dir is not None:
        options.data_dir = str(user_path(options.data_dir, "--data-dir").absolute())
    runs = resolve(options.gin, options.set, options.seed, options.only)
    out = make_directory(user_path(options.out, "--out"))
    if options.status or options.dry_run:
        return _show(runs, options, out)
    if options.cancel:
        return _cancel(runs, options, out)
    if options.on == "slurm":
        return _slurm(runs, options, out)
    _pooled(runs, options, out)
    if options.on != "local":
        options.device = None  # the machines of the runs had it, and this one may not
    perform(runs, options)  # reads the records back: the choice, the means, the parent in the tracker
    return 0


def _refuse_options_of_another_engine(options: argparse.Namespace) -> None:
    if options.slurm and options.on not in ("slurm", "submitit"):
        raise UsageError("--slurm: options of sbatch are for --on slurm and --on submitit")
    if options.together != 1 and options.on != "slurm":
        how = {"local": "--workers says how many are at work, on all GPUs", "ray": "--gpus 0.5 has two on each GPU"}
        raise UsageError(f"--together: it is for --on slurm; {how.get(options.on, 'a job of submitit has one run')}")
    for name, given in (("--address", options.address), ("--gpus", options.gpus)):
        if given is not None and options.on != "ray":
            raise UsageError(f"{name}: it is for --on ray")
    if options.on == "ray" and (options.device or "").startswith("cuda:"):
        raise UsageError(f"--device {options.device}: Ray picks a GPU for each run; leave the number out")


def _units(runs: "list[Run]", options: argparse.Namespace, out: Path, device: "torch.device") -> "list[Unit]":
    """The runs' units, with what each is expected to take; unknown where a method from outside can't be counted."""
    from suite.runtime.estimate import costs
    from suite.sweep.units import units_of

    try:
        seconds = [None if cost is None else cost.own + sum(cost.shared.values()) for cost in costs(runs, device)]
    except (Exception, SystemExit) as error:  # the method's own run will meet the error, and report it better
        report(f"[sweep] no estimate ({type(error).__name__}: {first_line(error)})")
        seconds = [None] * len(runs)
    return units_of(runs, seconds, options, out)


def _chosen(runs: "list[Run]", out: Path) -> "list[Run]":
    """The runs of the cells that a search chooses, once all of its own are finished; else none."""
    from suite.runtime.execute import directories_of, read_record
    from suite.runtime.run_directory import FINISHED
    from suite.runtime.selection import chosen

    directories = directories_of(runs, out)
    if runs[0].choose is None or not all((directory / FINISHED).is_file() for directory in directories):
        return []
    records = [read_record(run, place) | {"cell": run.cell} for run, place in zip(runs, directories, strict=True)]
    with redirect_stderr(io.StringIO()):  # the table's own command says at the end what was chosen
        return chosen(runs, records, out)


def _show(runs: "list[Run]", options: argparse.Namespace, out: Path) -> int:
    """Print the state of every run; nothing is written."""
    import torch

    from suite.sweep.units import table

    units = _units([*runs, *_chosen(runs, out)], options, out, torch.device("cpu"))
    if options.json:
        shown = [{"run": unit.name, "key": unit.key, "state": unit.state, "seconds": unit.seconds} for unit in units]
        print(json.dumps(shown, indent=1))
    else:
        print(table(units))
    return 0


def _cancel(runs: "list[Run]", options: argparse.Namespace, out: Path) -> int:
    """Ask whatever is at work on the runs to stop, and say what was asked."""
    from suite.sweep.cancelling import cancel
    from suite.sweep.units import folder_of, units_of

    these = [*runs, *_chosen(runs, out)]
    units = units_of(these, [None] * len(these), options, out)
    asked = cancel(folder_of(runs, out).absolute(), units)
    print("\n".join(asked) if asked else f"nothing is at work on the table in {out / runs[0].name}; --status shows it")
    return 0


# ---------------------------------------------------------------- engines


def _pooled(runs: "list[Run]", options: argparse.Namespace, out: Path) -> None:
    """Do what is left in a pool, and then the cells that a search chooses.

    Raises RunError where something failed, and Interrupted after a signal.
    """
    from suite.runtime.signals import Stop
    from suite.storage.files import make_directory
    from suite.storage.locks import locked
    from suite.sweep.cancelling import LOCK, note
    from suite.sweep.pool import Pool
    from suite.sweep.units import LEFT, folder_of, longest_first

    place, folder = make_directory(out / runs[0].name), folder_of(runs, out).absolute()
    lock, logs = place.absolute() / LOCK, folder / "logs"
    called_off = folder / f"stopped-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    refusal = f"another sweep is at work in {place}; --status shows how far it is"
    stop = Stop()
    with (
        locked(lock, wait=False, refusal=refusal),
        note(folder, options.on, called_off),
        _engine(runs, options, lock, called_off) as engine,  # Ray hears signals itself, until the next one does
        stop.listening(),
    ):
        for choose in (lambda: runs, lambda: _chosen(runs, out)):
            these = choose()
            units = longest_first(_units(these, options, out, _device(options)), (*LEFT, "running")) if these else []
            pool = Pool(engine, logs)
            if units or these is runs:
                at_once = "" if engine.workers is None else f", {engine.workers} at a time"
                report(f"[sweep] {len(units)} of {len(these)} runs are left{at_once}; {pool.logs}")
            pool.run(units, lambda: stop.signal)
            if pool.failed:
                rest = "all that they wrote is kept, and the same command goes on with them"
                rest = "the others are done, and their records are kept" if len(pool.failed) < len(these) else rest
                raise RunError(f"{len(pool.failed)} of {len(these)} runs failed; {rest}")


def _device(options: argparse.Namespace) -> "torch.device":
    """By which runs are foretold: that of other machines is not known here."""
    import torch

    from suite.core.device import prepare_device

    return prepare_device(options.device) if options.on == "local" else torch.device("cpu")


def _engine(runs: "list[Run]", options: argparse.Namespace, lock: Path, called_off: Path) -> "Engine":
    """What `--on` asks for. `called_off`: a file by which the workers of other machines are told to stop."""
    if options.on == "local":
        from suite.runtime.estimate import plans

        device = _device(options)
        plans(runs, device)  # refuses what has no room, before anything is begun
        return _processes(options, device)
    _refuse_a_password(options)
    logs = called_off.parent / "logs"
    _refuse_locks_of_one_machine(logs)
    if options.on == "submitit":
        from suite.sweep.submitit_jobs import Jobs

        return Jobs(_errand(logs, called_off, None), logs / "submitit", tuple(options.slurm), options.workers)
    from suite.sweep.ray_tasks import RayTasks, Share

    address = options.address or os.environ.get("RAY_ADDRESS") or None
    gpus = 0.0 if options.device == "cpu" and options.gpus is None else options.gpus
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    share = Share(max(1, int(threads)) if threads.isdecimal() else 1, gpus)
    return RayTasks(_errand(logs, called_off, lock), share, address, options.workers)


def _errand(logs: Path, called_off: Path, lock: Path | None) -> "Errand":
    """What the units of an engine with machines of its own have in common."""
    from suite.sweep.attended import Errand

    return Errand((), _one_thread(), logs, called_off, lock)


def _one_thread() -> dict[str, str]:
    """The environment with one thread, so that the number of workers changes no bits, unless it says otherwise."""
    return {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def _processes(options: argparse.Namespace, device: "torch.device") -> "Processes":
    """A worker for each GPU, for the one that the command names, or for each core."""
    import torch

    from suite.sweep.local import Processes
    from suite.tracking.uri import credentials, whole_uri

    on_gpus = device.type == "cuda"
    gpus = torch.cuda.device_count() if on_gpus and device.index is None else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    uri = options.tracking_uri
    secret = {} if uri in (None, "none") else credentials(whole_uri(uri))
    return Processes(
        options.workers or gpus or (1 if on_gpus else cores),
        lambda worker: (f"--device=cuda:{worker % gpus}",) if gpus else (),
        ({} if on_gpus else _one_thread()) | secret,
    )


def _refuse_locks_of_one_machine(out: Path) -> None:
    """Raise RunError where a lock in `out` is held on one machine alone, so that two could do one run."""
    from suite.storage.locks import locks_of_one_machine

    try:
        why = locks_of_one_machine(out.resolve(), Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    except OSError:  # no Linux
        return
    if why is not None:
        raise RunError(f"--out: locks in {out} do not hold between machines ({why}); docs/scale-out.md says what does")


def _refuse_a_password(options: argparse.Namespace) -> None:
    """Raise UsageError for a tracker's password, which would lie in a script or go over a network."""
    from suite.tracking.uri import credentials, whole_uri

    uri = options.tracking_uri
    if uri not in (None, "none") and credentials(whole_uri(uri)):
        raise UsageError(
            "--tracking-uri: a job's script would hold the password; leave it out of the address, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the jobs run"
        )


def _slurm(runs: "list[Run]", options: argparse.Namespace, out: Path) -> int:
    """Write the job array of what is left, and say how it is submitted; nothing is run here."""
    import torch

    from suite.sweep.slurm import write_array
    from suite.sweep.units import LEFT, folder_of, longest_first

    _refuse_a_password(options)
    _refuse_locks_of_one_machine(out)
    for these in (runs, _chosen(runs, out)):
        units = _units(these, options, out, torch.device("cpu")) if these else []
        left = longest_first(units, LEFT)
        if left:
            folder = folder_of(runs, out).absolute()
            script = write_array(folder, runs[0].name, left, options.workers, options.slurm, options.together, units)
            print(f"{len(left)} of {len(these)} runs are left; submit them with\n  sbatch {shlex.quote(str(script))}")
            return 0
        at_work = sum(unit.state == "running" for unit in units)
        if at_work:
            print(f"{at_work} of {len(these)} runs are at work, and none is left")
            return 0
    print("all runs are done; the same command without --on slurm shows the table")
    return 0


if __name__ == "__main__":
    end(main())
