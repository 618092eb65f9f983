"""Measurements of the engine: time per outer iteration and peak memory, side by side with what else one could use.

    python -m tools.bench hypergradient [--reference CHECKOUT] [--dataset NAME] [--steps N] ...
    python -m tools.bench memory [--steps N ...]
    python -m tools.bench cost [--dataset NAME] ...
    python -m tools.bench upkeep [--iterations N] [--repeats N]
    python -m tools.bench accuracy ...   (`tools.accuracy`: whole recipes, by the accuracy they reach)

An outer iteration is the whole of it: recall, a fresh network, the inner steps, the outer loss on real images, and the
gradient in the memory. All contenders (`tools.contenders`) get the same network, memory and images. They are timed in
turn in one process and compared pair by pair; each one's peak memory comes from a process of its own. With --exact,
each gradient is compared with the engine's in float64, since two float32 paths differ from each other for no fault of
either.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from suite.contracts.problem import relative_error
from suite.core.device import prepare_device
from suite.core.networks import fresh_network
from suite.errors import SuiteError
from suite.keys import Key
from suite.objectives.footprint import state_bytes, step_bytes
from suite.runtime.environment import environment
from suite.types import EXPECTED_MIB, Params
from suite.validation import Above, AtLeast, number_option
from tools import accuracy
from tools.contenders import (
    CLASSES,
    ENGINE,
    EXECUTIONS,
    FIRST_LAYERS,
    FULL_GRAPH,
    PRECISIONS,
    SHAPES,
    Case,
    Contender,
    contenders,
    objective,
    outer_step,
    setting,
)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    commands = {
        "hypergradient": hypergradient_command,
        "memory": memory_command,
        "cost": cost_command,
        "upkeep": upkeep_command,
        "accuracy": accuracy.accuracy_command,
        "peak": peak_command,
    }
    try:
        commands[options.command](options)
    except SuiteError as error:
        print(f"tools.bench: {error}", file=sys.stderr)
        return error.status
    return 0


COUNT, SIZE = number_option(int, AtLeast(1)), number_option(float, Above(0))
"""Of steps, images or repeats; of GiB and minutes."""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("hypergradient", help="time per outer iteration and peak memory, side by side")
    _add_case(compare)
    compare.add_argument("--memory", type=SIZE, nargs="+", default=[8.0], help="GiB for an unroll (%(default)s)")
    compare.add_argument("--execution", nargs="+", default=["eager"], choices=EXECUTIONS, help="of the engine")
    compare.add_argument("--precision", nargs="+", default=["float32"], choices=PRECISIONS, help="of the engine")
    compare.add_argument(
        "--first-layer", nargs="+", default=["pixels"], choices=FIRST_LAYERS, help="of an MLP's engine"
    )
    compare.add_argument("--repeats", type=COUNT, default=5)
    compare.add_argument("--without", nargs="+", default=[], help="contenders to leave out")
    compare.add_argument("--exact", action="store_true", help="compare the gradients with float64")
    compare.add_argument("--any-algorithm", action="store_true", help="allow algorithms that do not repeat their bits")
    compare.add_argument("--no-peak", action="store_true", help="leave out the peak memory")
    compare.add_argument("--json", action="store_true")
    memory = commands.add_parser("memory", help="promised and measured peak memory at several numbers of steps")
    memory.add_argument("--steps", type=COUNT, nargs="+", default=[20, 50, 100, 200])
    memory.add_argument("--memory", type=SIZE, nargs="+", default=[8.0, 1.0, 0.2])
    memory.add_argument("--json", action="store_true")
    cost = commands.add_parser("cost", help="operations of an inner step, bytes it keeps, and the share of the peak")
    _add_case(cost)
    cost.add_argument("--memory", type=SIZE, default=8.0)
    cost.add_argument("--json", action="store_true")
    upkeep = commands.add_parser("upkeep", help="whole runs with and without checkpoints, journal and tracking")
    upkeep.add_argument("--iterations", type=COUNT, default=80, help="of the quickstart (%(default)s)")
    upkeep.add_argument("--repeats", type=COUNT, default=3)
    upkeep.add_argument("--gin", action="append", default=[], metavar="FILE", help="changes of the run: a scale")
    upkeep.add_argument("--json", action="store_true")
    accuracy.add_options(commands.add_parser("accuracy", help="recipes side by side: accuracy against steps and time"))
    peak = commands.add_parser("peak", help="the peak memory of one contender in this process (used by the others)")
    peak.add_argument("case", type=json.loads)
    peak.add_argument("contender", type=json.loads)
    return parser


def _add_case(parser: argparse.ArgumentParser) -> None:
    default = Case()
    parser.add_argument("--dataset", choices=SHAPES, default=default.dataset, help="whose shape (%(default)s)")
    parser.add_argument("--architecture", choices=("convnet", "resnet12", "mlp"), default=default.architecture)
    parser.add_argument("--depth", type=COUNT, default=default.depth, help="hidden layers of an MLP (%(default)s)")
    parser.add_argument("--parameterization", choices=("standard", "addressing"), default=default.parameterization)
    parser.add_argument("--images-per-class", type=COUNT, default=default.images_per_class)
    parser.add_argument("--bases", type=COUNT, default=default.bases, help="of addressing (%(default)s)")
    parser.add_argument("--steps", type=COUNT, default=default.steps)
    parser.add_argument("--real-per-class", type=COUNT, default=default.real_per_class)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--reference", default="", metavar="CHECKOUT", help="a checkout of the paper's released code")


def _case(options: argparse.Namespace) -> Case:
    return Case(**{name: getattr(options, name) for name in asdict(Case())})


def _described(case: Case) -> dict[str, Any]:
    """The case as JSON, without the path of a checkout."""
    return asdict(case) | {"reference": bool(case.reference)}


def _seconds(step: Callable[[], Any], device: str) -> float:
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    started = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - started


# ---------------------------------------------------------------- hypergradient: time, side by side


def hypergradient_command(options: argparse.Namespace) -> None:
    """Time every contender in turn; print a table or JSON."""
    prepare_device(options.device)
    if options.any_algorithm:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = True
    case = _case(options)
    modes = options.memory, options.execution, options.precision, options.first_layer
    engines = [Contender("engine", *mode) for mode in product(*modes)]
    chosen = [contender for contender in contenders(case, engines) if contender.name not in options.without]
    fitting = [tried for contender in chosen if (tried := _tried(case, contender)) is not None]
    chosen, steps = [contender for contender, _, _ in fitting], [step for _, step, _ in fitting]
    gradients = [gradient for _, _, gradient in fitting]
    rounds = [[_seconds(step, case.device) for step in steps] for _ in range(options.repeats)]
    exact = outer_step(case, ENGINE, double=True)() if options.exact else None
    rows: list[dict[str, Any]] = []
    for i, contender in enumerate(chosen):
        seconds = [times[i] for times in rounds]
        rows.append(
            {
                "contender": contender.name,
                "seconds": seconds,
                "median": statistics.median(seconds),
                "ratio": statistics.median(times[i] / times[-1] for times in rounds),
                "peak_mib": None if options.no_peak else _peak_in_own_process(case, contender)["peak_mib"],
                "error": None if exact is None else relative_error(gradients[i], exact),
            }
        )
    if options.json:
        report = {"setting": _described(case), "rows": rows, "environment": environment(torch.device(case.device))}
        print(json.dumps(report, indent=1))
    else:
        print(_hypergradient_table(case, rows, options.repeats))


def _tried(case: Case, contender: Contender) -> tuple[Contender, Callable[[], Params], Params] | None:
    """A contender, its outer iteration and the gradient of a first one, which allocates and tunes, and is not timed.

    None where the device's memory is too small.
    """
    step = outer_step(case, contender)
    try:
        return contender, step, step()
    except torch.OutOfMemoryError:
        print(f"left out: {contender.name} does not fit into the device's memory", file=sys.stderr)
        return None


def _hypergradient_table(case: Case, rows: list[dict[str, Any]], repeats: int) -> str:
    last = rows[-1]["contender"]
    lines = [
        f"{case.dataset} shape, {case.architecture}, {case.parameterization}, {case.images_per_class} I/C, "
        f"{case.steps} inner steps, {CLASSES * case.real_per_class} real images, {repeats} repeats, "
        f"{case.device}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "",
        f"| contender | s per outer iteration, median (range) | ratio to {last} | peak MiB | error against float64 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = f"{row['median']:.3f} ({min(row['seconds']):.3f} to {max(row['seconds']):.3f})"
        peak = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        error = "-" if row["error"] is None else f"{row['error']:.1e}"
        lines.append(f"| {row['contender']} | {spread} | {row['ratio']:.2f} | {peak} | {error} |")
    return "\n".join(lines)


# ---------------------------------------------------------------- memory: promised and measured peak


def memory_command(options: argparse.Namespace) -> None:
    """Print the promised and the measured peak of engines and of the full graph, at several numbers of steps."""
    engines = [Contender("engine", gib=gib) for gib in options.memory]
    rows = {
        contender.name: [_peak_in_own_process(Case(steps=steps), contender) for steps in options.steps]
        for contender in [*engines, FULL_GRAPH]
    }
    print(json.dumps(rows, indent=1) if options.json else _memory_table(options.steps, rows))


def _memory_table(steps: list[int], rows: dict[str, list[dict[str, float]]]) -> str:
    lines = ["| contender | " + " | ".join(f"{t} steps" for t in steps) + " |", "| --- " * (len(steps) + 1) + "|"]
    for name, peaks in rows.items():
        cells = []
        for peak in peaks:
            promise = f"{peak['promised_mib']:.0f} promised, " if "promised_mib" in peak else ""
            cells.append(f"{promise}{peak['peak_mib']:.0f} MiB, {peak['seconds']:.1f} s")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _peak_in_own_process(case: Case, contender: Contender) -> dict[str, float]:
    """What `peak` prints of a contender."""
    command = [sys.executable, "-m", "tools.bench", "peak", json.dumps(asdict(case)), json.dumps(asdict(contender))]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    peak: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return peak


def peak_command(options: argparse.Namespace) -> None:
    """Print peak memory and seconds of one outer iteration of a contender in this process, as JSON."""
    case, contender = Case(**options.case), Contender(**options.contender)
    prepare_device(case.device)
    print(json.dumps(peak_of(case, contender)))


def peak_of(case: Case, contender: Contender) -> dict[str, float]:
    """MiB that one outer iteration adds at its peak and its seconds; of an engine, the MiB that its plan promises."""
    outer_step(replace(case, steps=1, real_per_class=1), contender)()  # the first use of every operation
    step = outer_step(case, contender)
    cuda = case.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _resident_peak()
    seconds = _seconds(step, case.device)
    after = torch.cuda.max_memory_allocated() if cuda else _resident_peak()
    peak = {"peak_mib": (after - before) / 2**20, "seconds": seconds}
    if contender.kind == "engine":
        what = setting(case)
        per_class = what.parameterization.per_class(what.shape, CLASSES, case.images_per_class)
        peak["promised_mib"] = float(objective(case, contender).plan(what, per_class)[EXPECTED_MIB])
    return peak


def _resident_peak() -> int:
    """Most bytes this process ever had in memory. (Linux's getrusage counts the parent's before exec, too.)"""
    (line,) = [line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


# ---------------------------------------------------------------- cost: operations, and the share of the peak


def cost_command(options: argparse.Namespace) -> None:
    """Print the operations and bytes of an inner step, and the share of the machine's peak that the engine reaches."""
    prepare_device(options.device)
    case, engine = _case(options), Contender("engine", gib=options.memory)
    what = setting(case)
    per_class = what.parameterization.per_class(what.shape, CLASSES, case.images_per_class)
    batch = CLASSES * per_class
    images = torch.zeros(batch, what.shape.channels, what.shape.height, what.shape.width, device=what.device)
    network = fresh_network(what, Key(0))
    forward = _flops(lambda: network(images))
    inner = _outer_flops(replace(case, steps=3), engine) - _outer_flops(replace(case, steps=2), engine)
    step = outer_step(case, engine)
    step()
    seconds = statistics.median(_seconds(step, case.device) for _ in range(3))
    rate = _outer_flops(case, engine) / seconds
    peak = max(_flops_per_second(work, flops, case.device) for work, flops in _large_products(case.device))
    report: dict[str, Any] = {
        "MFLOP of a forward pass": forward / 1e6,
        "forward passes' worth an inner step": inner / forward,
        "MiB of a kept state": state_bytes(network, objective(case, engine).inner_optimizer) / 2**20,
        "MiB of a kept graph": step_bytes(what, batch) / 2**20,
        "ms an inner step, outer loss included": 1e3 * seconds / case.steps,
        "GFLOP/s of an outer iteration": rate / 1e9,
        "GFLOP/s of a large product": peak / 1e9,
        "share of that": rate / peak,
    }
    if options.json:
        print(json.dumps({"setting": _described(case), **report}, indent=1))
    else:
        print("\n".join(f"{key:<40} {value:.3g}" for key, value in report.items()))


def _flops(work: Callable[[], Any]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _outer_flops(case: Case, engine: Contender) -> int:
    step = outer_step(case, engine)
    step()  # the first call measures what a step's graph saves
    return _flops(step)


def _large_products(device: str) -> list[tuple[Callable[[], Any], int]]:
    """What a machine is fastest at, a large matrix product and a large convolution, with their operations."""
    n = 8192 if device.startswith("cuda") else 2048

    def noise(*shape: int) -> torch.Tensor:  # a processor is faster with equal numbers than with real ones
        return torch.randn(shape, generator=Key(0)("peak").generator()).to(device)

    a = noise(n, n)
    x = noise(64, 256, 32, 32).to(memory_format=torch.channels_last)
    w = noise(256, 256, 3, 3).to(memory_format=torch.channels_last)
    convolution = 2 * 64 * 256 * 256 * 9 * 32 * 32
    return [(lambda: a @ a, 2 * n**3), (lambda: torch.conv2d(x, w, padding=1), convolution)]


def _flops_per_second(work: Callable[[], Any], flops: int, device: str) -> float:
    work()
    return flops / statistics.median(_seconds(work, device) for _ in range(5))


# ---------------------------------------------------------------- upkeep: whole runs, and with nothing saved

BARE = """
import sys
from suite.storage import checkpoint, journal
from suite import run
checkpoint.write = lambda *_: None
journal.Journal._add = lambda *_: None
sys.exit(run.main())
"""
"""A run without checkpoints and without a journal."""


def upkeep_command(options: argparse.Namespace) -> None:
    """Print the seconds of whole runs of the quickstart, as users run it and with nothing saved of it."""
    ways = {"as it is": ["-m", "suite.run"], "bare": ["-c", BARE, "--tracking-uri", "none"]}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor_seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        files = [word for file in ("gin/quickstart.gin", *options.gin) for word in ("--gin", file)]
        changes = ["--set", f"ITERATIONS = {options.iterations}", "--data-dir", f"{folder}/data"]
        for i in range(-1, options.repeats):
            scale = ["--gin", "gin/scale/smoke.gin"] if i < 0 else []  # the first prepares the data and is not counted
            for name, start in ways.items():
                command = [sys.executable, *start, *files, *scale, *changes, "--out", f"{folder}/{name}{i}"]
                clock, processors = _run_seconds(command)
                if i >= 0:
                    seconds[name].append(clock)
                    processor_seconds[name].append(processors)
    if options.json:
        report = {"iterations": options.iterations, "seconds": seconds, "processor_seconds": processor_seconds}
        print(json.dumps(report, indent=1))
    else:
        print(_upkeep_table([seconds, processor_seconds]))


def _run_seconds(command: list[str]) -> tuple[float, float]:
    """Seconds of a command on the clock, and of all processors."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _upkeep_table(columns: list[dict[str, list[float]]]) -> str:
    ratios = "ratio, pair by pair | ratio of the least"
    lines = [f"| | s, median (range) | {ratios} | s of processors | {ratios} |", "| --- " * 7 + "|"]
    for name in columns[0]:
        row = [f"| {name}"]
        for seconds in columns:
            ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["bare"], strict=True))
            low, high = min(seconds[name]), max(seconds[name])
            least = low / min(seconds["bare"])
            row.append(f"{statistics.median(seconds[name]):.1f} ({low:.1f} to {high:.1f}) | {ratio:.3f} | {least:.3f}")
        lines.append(" | ".join(row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
