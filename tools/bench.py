"""Measurements of the engine: time per outer iteration and peak memory, side by side with what else one could use.

    python -m tools.bench hypergradient [--reference CHECKOUT] [--dataset NAME] [--steps N] ...
    python -m tools.bench memory [--steps N ...]
    python -m tools.bench cost [--dataset NAME] ...
    python -m tools.bench upkeep [--iterations N] [--repeats N]
    python -m tools.bench gpu --out DIR [--reference CHECKOUT]

An outer iteration is the whole of it: recall, a fresh network, the inner steps, the outer loss on real images, and the
way back to the memory. All contenders get the same network, memory and images, in turn in one process, and are
compared pair by pair. Each one's peak memory comes from a process of its own. With --exact, each gradient is compared
with the engine's in float64, since two float32 paths differ from each other for no fault of either. The contenders:

    engine M GiB …   this suite with so much memory for an unroll (--memory), by --execution and --precision
    full graph       plain autograd through one graph of all steps, torch's own layers
    torchopt         the same graph by TorchOpt's differentiable optimizer, where it is installed
    released code    the paper's, where --reference names a checkout of it
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

SHAPES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
EXECUTIONS, PRECISIONS = ("eager", "captured", "compiled"), ("float32", "tf32", "bfloat16")
FULL_GRAPH, TORCHOPT, RELEASED = "full graph", "torchopt", "released code"


@dataclass(frozen=True)
class Case:
    """What is measured: momentum 0.9 at rate 0.01, no augmentation, ten classes, keyed random images."""

    dataset: str = "fashion_mnist"
    architecture: str = "convnet"
    parameterization: str = "standard"
    images_per_class: int = 1
    bases: int = 8
    steps: int = 150
    real_per_class: int = 64
    device: str = "cpu"
    reference: str = ""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tools.bench", description=(__doc__ or "").split("\n")[0])
    commands = made.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("hypergradient", help="time per outer iteration and peak memory, side by side")
    _add_setting(compare)
    compare.add_argument("--memory", type=float, nargs="+", default=[8.0], help="GiB for an unroll (%(default)s)")
    compare.add_argument("--execution", nargs="+", default=["eager"], choices=EXECUTIONS, help="of the engine")
    compare.add_argument("--precision", nargs="+", default=["float32"], choices=PRECISIONS, help="of the engine")
    compare.add_argument("--repeats", type=int, default=5)
    compare.add_argument("--without", nargs="+", default=[], help="contenders to leave out")
    compare.add_argument("--exact", action="store_true", help="compare the gradients with float64")
    compare.add_argument("--any-algorithm", action="store_true", help="allow algorithms that do not repeat their bits")
    compare.add_argument("--no-peak", action="store_true", help="leave out the peak memory")
    compare.add_argument("--json", action="store_true")
    memory = commands.add_parser("memory", help="promised and measured peak memory at several numbers of steps")
    memory.add_argument("--steps", type=int, nargs="+", default=[20, 50, 100, 200])
    memory.add_argument("--memory", type=float, nargs="+", default=[8.0, 1.0, 0.2])
    memory.add_argument("--json", action="store_true")
    cost = commands.add_parser("cost", help="operations of an inner step, bytes it keeps, and the share of the peak")
    _add_setting(cost)
    cost.add_argument("--memory", type=float, default=8.0)
    cost.add_argument("--json", action="store_true")
    upkeep = commands.add_parser("upkeep", help="whole runs with and without checkpoints, journal and tracking")
    upkeep.add_argument("--iterations", type=int, default=80, help="of the quickstart (%(default)s)")
    upkeep.add_argument("--repeats", type=int, default=3)
    upkeep.add_argument("--gin", action="append", default=[], metavar="FILE", help="changes of the run: a scale")
    upkeep.add_argument("--json", action="store_true")
    gpu = commands.add_parser("gpu", help="all that is to be measured on a GPU, into a folder")
    gpu.add_argument("--out", type=Path, required=True)
    gpu.add_argument("--reference", default="", metavar="CHECKOUT")
    gpu.add_argument("--device", default="cuda")
    gpu.add_argument("--steps", type=int, default=150)
    gpu.add_argument("--repeats", type=int, default=5)
    gpu.add_argument("--minutes", type=float, default=10_000.0, help="to stop after, the runs at a checkpoint")
    gpu.add_argument("--gin", action="append", default=[], metavar="FILE", help="changes of the paper's runs: a scale")
    kernel = commands.add_parser("kernels", help="of one outer iteration on a GPU: time in kernels and on the clock")
    _add_setting(kernel)
    kernel.add_argument("--execution", default="captured", choices=EXECUTIONS)
    peak = commands.add_parser("peak", help="the peak memory of one contender in this process (used by the others)")
    peak.add_argument("setting", type=json.loads)
    peak.add_argument("contender")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    from suite.errors import SuiteError
    from suite.runtime.device import prepare_device

    try:
        if options.command in ("hypergradient", "cost", "kernels"):
            prepare_device(options.device)
        elif options.command == "peak":
            prepare_device(options.setting.get("device", "cpu"))
        if options.command == "peak":
            print(json.dumps(peak_of(Case(**options.setting), options.contender)))
        elif options.command == "cost":
            print(cost_table(options))
        elif options.command == "kernels":
            print(json.dumps(kernels(_case(options), options.execution)))
        elif options.command == "gpu":
            measure_gpu(options)
        elif options.command == "upkeep":
            print(upkeep_table(options.iterations, options.repeats, options.gin, options.json))
        elif options.command == "memory":
            print(memory_table(options.steps, options.memory, options.json))
        else:
            print(hypergradient_table(options))
    except SuiteError as error:
        print(f"tools.bench: {error}", file=sys.stderr)
        return error.status
    return 0


def _add_setting(parser: argparse.ArgumentParser) -> None:
    default = Case()
    parser.add_argument("--dataset", choices=SHAPES, default=default.dataset, help="whose shape (%(default)s)")
    parser.add_argument("--architecture", choices=("convnet", "resnet12"), default=default.architecture)
    parser.add_argument("--parameterization", choices=("standard", "addressing"), default=default.parameterization)
    parser.add_argument("--images-per-class", type=int, default=default.images_per_class)
    parser.add_argument("--bases", type=int, default=default.bases, help="of addressing (%(default)s)")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--real-per-class", type=int, default=default.real_per_class)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--reference", default="", metavar="CHECKOUT", help="a checkout of the paper's released code")


def _case(options: argparse.Namespace) -> Case:
    return Case(**{name: getattr(options, name) for name in asdict(Case())})


# ---------------------------------------------------------------- tables


def hypergradient_table(options: argparse.Namespace) -> str:
    """Every contender timed in turn, as a table or as JSON."""
    import torch

    from suite.contracts.problem import relative_error
    from suite.runtime.environment import environment

    if options.any_algorithm:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = True
    case = _case(options)
    engines = [
        engine(gib, execution, precision)
        for gib in options.memory
        for execution in options.execution
        for precision in options.precision
    ]
    names = [n for n in contenders(case, engines) if n not in options.without]
    steps = {name: outer_step(case, name) for name in names}
    gradients = {name: step() for name, step in steps.items()}  # what a first call allocates and tunes is not timed
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name, step in steps.items():
            seconds[name].append(_seconds(step, case.device))
    exact = outer_step(case, "engine 8 GiB", double=True)() if options.exact else None
    last = names[-1]
    rows: list[dict[str, Any]] = []
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[last], strict=True))
        row: dict[str, Any] = {
            "contender": name,
            "seconds": seconds[name],
            "median": statistics.median(seconds[name]),
            "ratio": ratio,
        }
        row["peak_mib"] = None if options.no_peak else _peak_in_own_process(case, name)["peak_mib"]
        row["error"] = None if exact is None else relative_error(gradients[name], exact)
        rows.append(row)
    made = {"setting": asdict(case) | {"reference": bool(case.reference)}, "rows": rows}
    made["environment"] = environment(torch.device(case.device))
    if options.json:
        return json.dumps(made, indent=1)
    lines = [
        f"{case.dataset} shape, {case.architecture}, {case.parameterization}, {case.images_per_class} I/C, "
        f"{case.steps} inner steps, {10 * case.real_per_class} real images, {options.repeats} repeats, "
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


def memory_table(steps: list[int], memory: list[float], as_json: bool) -> str:
    """Promised and measured peak memory of the engine, and of the full graph, at several numbers of steps."""
    rows: dict[str, list[dict[str, float]]] = {}
    for name in [*(engine(gib) for gib in memory), FULL_GRAPH]:
        rows[name] = [_peak_in_own_process(Case(steps=t), name) for t in steps]
    if as_json:
        return json.dumps(rows, indent=1)
    lines = ["| contender | " + " | ".join(f"{t} steps" for t in steps) + " |", "| --- " * (len(steps) + 1) + "|"]
    for name, figures in rows.items():
        cells = []
        for f in figures:
            promise = f"{f['promised_mib']:.0f} promised, " if "promised_mib" in f else ""
            cells.append(f"{promise}{f['peak_mib']:.0f} MiB, {f['seconds']:.1f} s")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost_table(options: argparse.Namespace) -> str:
    """What an inner step costs in multiplications and bytes, and how much of the machine's peak the engine reaches."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from suite.core.networks import fresh_network
    from suite.keys import Key
    from suite.objectives.footprint import state_bytes, step_bytes

    case = _case(options)
    name = engine(options.memory, "eager")

    def counted(work: Callable[[], Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    def outer_flops(steps: int) -> int:
        step = outer_step(replace(case, steps=steps), name)
        step()  # what a step's graph keeps is measured once
        return counted(step)

    setting = _setting(case)
    per_class = setting.parameterization.per_class(setting.shape, setting.classes, case.images_per_class)
    images = torch.zeros(setting.classes * per_class, setting.shape.channels, setting.shape.height, setting.shape.width)
    network = fresh_network(setting, Key(0))
    one_pass = counted(lambda: network(images.to(setting.device)))
    inner = outer_flops(3) - outer_flops(2)
    step = outer_step(case, name)
    step()
    seconds = statistics.median(_seconds(step, case.device) for _ in range(3))
    rate = outer_flops(case.steps) / seconds
    peak = max(_rate(work, case.device) for work in _large_products(case.device))
    state = state_bytes(network, _objective(case, name).inner_optimizer)
    graph = step_bytes(setting, len(images))
    made: dict[str, Any] = {
        "MFLOP of a forward pass": one_pass / 1e6,
        "forward passes' worth an inner step": inner / one_pass,
        "MiB of a kept state": state / 2**20,
        "MiB of a kept graph": graph / 2**20,
        "ms an inner step, outer loss included": 1e3 * seconds / case.steps,
        "GFLOP/s of an outer iteration": rate / 1e9,
        "GFLOP/s of a large product": peak / 1e9,
        "share of that": rate / peak,
    }
    if options.json:
        return json.dumps({"setting": asdict(case) | {"reference": False}, **made}, indent=1)
    return "\n".join(f"{key:<40} {value:.3g}" for key, value in made.items())


BARE = """
import sys
from suite.storage import checkpoint, journal
from suite import run
checkpoint.write = lambda *_: None
journal.Journal._add = lambda *_: None
sys.exit(run.main())
"""


def upkeep_table(iterations: int, repeats: int, more: list[str], as_json: bool) -> str:
    """Seconds of whole runs of the quickstart, and of all processors, as users run it and with nothing kept of it."""
    import resource
    import tempfile

    ways = {"as it is": ["-m", "suite.run"], "bare": ["-c", BARE, "--tracking-uri", "none"]}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as place:
        words = [word for file in ("gin/quickstart.gin", *more) for word in ("--gin", file)]
        own = ["--set", f"ITERATIONS = {iterations}", "--data-dir", f"{place}/data"]
        for i in range(-1, repeats):
            size = ["--gin", "gin/scale/smoke.gin"] if i < 0 else []  # the first prepares the data, and is not counted
            for name, command in ways.items():
                before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                whole = [sys.executable, *command, *words, *size, *own, "--out", f"{place}/{name}{i}"]
                subprocess.run(whole, capture_output=True, check=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                if i >= 0:
                    seconds[name].append(time.perf_counter() - began)
                    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    processor[name].append(used)
    made = {"iterations": iterations, "seconds": seconds, "processor_seconds": processor}
    if as_json:
        return json.dumps(made, indent=1)
    ratios = "ratio, pair by pair | ratio of the least"
    lines = [f"| | s, median (range) | {ratios} | s of processors | {ratios} |", "| --- " * 7 + "|"]
    for name in ways:
        row = [f"| {name}"]
        for figures in (seconds, processor):
            ratio = statistics.median(a / b for a, b in zip(figures[name], figures["bare"], strict=True))
            low, high = min(figures[name]), max(figures[name])
            least = low / min(figures["bare"])
            row.append(f"{statistics.median(figures[name]):.1f} ({low:.1f} to {high:.1f}) | {ratio:.3f} | {least:.3f}")
        lines.append(" | ".join(row) + " |")
    return "\n".join(lines)


def _large_products(device: str) -> list[tuple[Callable[[], Any], int]]:
    """A matrix product and a convolution that a machine does best at, and their operations."""
    import torch

    n = 8192 if device.startswith("cuda") else 2048
    a = torch.ones(n, n, device=device)
    x = torch.ones(64, 256, 32, 32, device=device).to(memory_format=torch.channels_last)
    w = torch.ones(256, 256, 3, 3, device=device).to(memory_format=torch.channels_last)
    convolution = 2 * 64 * 256 * 256 * 9 * 32 * 32
    return [(lambda: a @ a, 2 * n**3), (lambda: torch.conv2d(x, w, padding=1), convolution)]


def _rate(work: tuple[Callable[[], Any], int], device: str) -> float:
    product, operations = work
    product()
    return operations / statistics.median(_seconds(product, device) for _ in range(5))


PAPER_RUNS = {
    "bptt": "PARAMETERIZATION = @parameterizations.standard()",
    "bptt-downsampled": "parameterizations.downsampled.of = @parameterizations.standard()",
    "full": "parameterizations.downsampled.of = @parameterizations.addressing()",
}
"""Three rows of Table 3 on Fashion-MNIST at 1 image per class, as changes of gin/fashion_mnist.gin."""


def measure_gpu(options: argparse.Namespace) -> None:
    """Each table as JSON in a file of its own, then the paper's runs; what an earlier call did is not done again."""
    options.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * options.minutes
    cuda = options.device.startswith("cuda")
    shared = ["--device", options.device, "--steps", str(options.steps), "--repeats", str(options.repeats), "--json"]
    reference = ["--reference", options.reference] if options.reference else []
    modes = ["--execution", *EXECUTIONS]
    cifar = ["hypergradient", "--dataset", "cifar10", *modes]
    precise = ["--exact", "--precision", *(p for p in PRECISIONS if cuda or p != "tf32")]
    commands = {
        "cifar10-1": [*cifar, *precise, *shared, *reference],
        "cifar10-10": [*cifar, "--images-per-class", "10", "--exact", *shared, *reference],
        "cifar10-addressing": [*cifar, "--parameterization", "addressing", *shared, *reference],
        "cifar10-resnet12": [*cifar, "--architecture", "resnet12", *shared, *reference],
        "cifar10-1-any-algorithm": [*cifar, "--any-algorithm", *shared, *reference],
        "fashion_mnist-1": ["hypergradient", *modes, *shared, *reference],
    }
    for mode in EXECUTIONS if cuda else ():
        words = ["kernels", "--dataset", "cifar10", "--device", options.device, "--steps", str(options.steps)]
        commands[f"kernels-{mode}"] = [*words, "--execution", mode]
    for name, words in commands.items():
        _keep(options.out / f"{name}.json", words, ends)
    for name, change in PAPER_RUNS.items():
        _go_on(name, change, options, ends)


def _keep(file: Path, words: list[str], ends: float) -> None:
    """The output of one of these commands, in a process of its own; a failure is kept, and the next one tried."""
    if file.is_file() and "failed" not in json.loads(file.read_text()):
        print(f"{file.name}: was done before", flush=True)
        return
    command, left, trouble = [sys.executable, "-m", "tools.bench", *words], ends - time.monotonic(), ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        trouble = done.stderr[-4000:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        trouble = "the time was up"
    file.write_text(json.dumps({"failed": trouble}) if trouble else done.stdout)
    last = trouble.strip().splitlines()[-1] if trouble.strip() else ""
    print(f"{file.name}: {f'FAILED: {last}' if trouble else 'done'}", flush=True)


def _go_on(name: str, change: str, options: argparse.Namespace, ends: float) -> None:
    """One of the paper's runs, until it is done or the time is up; the next call goes on with it."""
    import signal

    words = [word for file in ["gin/fashion_mnist.gin", *options.gin] for word in ("--gin", file)]
    words += ["--set", change, "--set", "EXECUTION = 'captured'"]
    words += ["--device", options.device, "--out", str(options.out / "runs"), "--tracking-uri", "none"]
    process = subprocess.Popen([sys.executable, "-m", "suite.run", *words], stdout=subprocess.DEVNULL)
    try:
        process.wait(timeout=max(0.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
    told = {0: "done", 75: "stopped at a checkpoint; the same command goes on"}
    print(f"run {name}: {told.get(process.returncode, 'FAILED')}", flush=True)


def kernels(case: Case, execution: str) -> dict[str, float]:
    """Time in kernels against time on the clock, of one outer iteration on a GPU."""
    from torch.profiler import ProfilerActivity, profile

    step = outer_step(case, engine(8, execution))
    step()
    wall = statistics.median(_seconds(step, case.device) for _ in range(5))
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        step()
    events = [event for event in seen.key_averages() if event.self_device_time_total > 0]
    busy = sum(event.self_device_time_total for event in events) / 1e6
    launches = sum(event.count for event in events)
    return {"wall_seconds": wall, "kernel_seconds": busy, "kernels": launches, "share": busy / wall}


# ---------------------------------------------------------------- contenders


def contenders(case: Case, engines: list[str]) -> list[str]:
    """Names of all that can run here; the last one is what the others are compared with."""
    import importlib.util

    names = [*engines, FULL_GRAPH]
    if importlib.util.find_spec("torchopt"):
        names.insert(-1, TORCHOPT)
    return [*names, RELEASED] if case.reference else names


def engine(gib: float, execution: str = "eager", precision: str = "float32") -> str:
    """Name of this engine in one of its modes."""
    modes = [mode for mode in (execution, precision) if mode not in ("eager", "float32")]
    return " ".join([f"engine {gib:g} GiB", *modes])


def _objective(case: Case, contender: str) -> Any:
    from suite.objectives.bptt import BPTT

    _, gib, _, *words = contender.split()
    modes: list[Any] = words
    return BPTT(
        inner_steps=case.steps,
        images_per_class_per_step=10**6,
        real_per_class=case.real_per_class,
        memory_gib=float(gib),
        execution=next((m for m in modes if m in EXECUTIONS), "eager"),
        precision=next((m for m in modes if m in PRECISIONS), "float32"),
    )


def _setting(case: Case, double: bool = False) -> Any:
    import torch

    from suite.registry import architectures, load_components, parameterizations
    from suite.types import ImageShape, Setting

    load_components()
    fields = {"bases": case.bases} if case.parameterization == "addressing" else {}
    parameterization = parameterizations[case.parameterization].build(**fields)
    recipe = architectures[case.architecture].build()
    recipe = _Double(recipe) if double else recipe
    shape, where = ImageShape(*SHAPES[case.dataset]), torch.device(case.device)
    return Setting(shape, 10, recipe, parameterization, "none", where)


def outer_step(case: Case, contender: str, double: bool = False) -> Callable[[], dict[str, Any]]:
    """One outer iteration of a contender, from the same inputs at every call -> the memory's gradient."""
    import torch

    from suite.keys import Key, global_generators
    from suite.types import ClassRows, Split

    setting, key, dtype = _setting(case, double), Key(0), torch.float64 if double else torch.float32
    shape, classes, where = setting.shape, setting.classes, setting.device
    memory = setting.parameterization.init(shape, classes, case.images_per_class, key("memory"))
    memory = {k: v.to(where, dtype) for k, v in memory.items()}
    labels = torch.arange(classes).repeat_interleave(case.real_per_class)
    size = (len(labels), shape.channels, shape.height, shape.width)
    real = Split(torch.randn(size, generator=key("real").generator()).to(where, dtype), labels.to(where))
    if contender.startswith("engine "):
        objective, rows = _objective(case, contender), ClassRows.of(real, classes)
        return lambda: objective.gradients(setting, memory, rows, key)[0]
    with global_generators(key("network")):  # the weights that the engine's gets
        plain = setting.architecture.build(shape, classes).to(where)
    # The engine draws its real images in this order.
    drawn = ClassRows.of(real, classes).draw(list(range(classes)), case.real_per_class, key("real"))
    if contender == RELEASED:
        from tools import reference

        checkout = Path(case.reference)
        return reference.outer_step(
            checkout, plain, case.architecture, shape, classes, memory, drawn, case.steps, where
        )
    return partial(_by_one_graph, contender, setting, plain, memory, drawn, case.steps)


@dataclass(frozen=True)
class _Double:
    """An architecture in float64."""

    of: Any

    def build(self, shape: Any, classes: int) -> Any:
        return self.of.build(shape, classes).double()


def _by_one_graph(contender: str, setting: Any, network: Any, memory: Any, real: Any, steps: int) -> dict[str, Any]:
    """The outer iteration as one would write it down: one graph through all the steps, and one call of autograd."""
    import torch
    from torch.func import functional_call
    from torch.nn.functional import cross_entropy

    from suite.inner_optimizers.sgd_momentum import SGDMomentum

    leaves = {k: v.detach().requires_grad_() for k, v in memory.items()}
    classes = torch.arange(setting.classes, device=setting.device)
    images = setting.parameterization.recall(leaves, classes)
    labels = classes.repeat_interleave(images.shape[1])
    images = torch.flatten(images, 0, 1)
    params = {k: p.detach().clone().requires_grad_() for k, p in network.named_parameters()}
    if contender == TORCHOPT:
        import torchopt

        chain = torchopt.sgd(lr=0.01, momentum=0.9, moment_requires_grad=True)
        state = chain.init(params)
    else:
        optimizer = SGDMomentum()
        state = optimizer.init(params)
    for _ in range(steps):
        loss = cross_entropy(functional_call(network, params, (images,)), labels)
        grads = dict(zip(params, torch.autograd.grad(loss, list(params.values()), create_graph=True), strict=True))
        if contender == TORCHOPT:
            updates, state = chain.update(grads, state, inplace=False)
            params = torchopt.apply_updates(params, updates, inplace=False)
        else:
            params, state = optimizer.step(params, grads, state)
    outer = cross_entropy(functional_call(network, params, (real.images,)), real.labels)
    return dict(zip(leaves, torch.autograd.grad(outer, list(leaves.values())), strict=True))


# ---------------------------------------------------------------- one figure


def _seconds(step: Callable[[], Any], device: str) -> float:
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    started = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - started


def peak_of(case: Case, contender: str) -> dict[str, float]:
    """Memory that one outer iteration adds at its peak, in MiB; its seconds; and what the engine promises."""
    import torch

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
    found = {"peak_mib": (after - before) / 2**20, "seconds": seconds}
    if contender.startswith("engine "):
        per_class = _setting(case).parameterization.per_class(_setting(case).shape, 10, case.images_per_class)
        plan = _objective(case, contender).plan(_setting(case), per_class)
        found["promised_mib"] = float(plan["expected memory of one unroll (MiB)"])
    return found


def _resident_peak() -> int:
    """Most bytes this process ever had in memory. (Linux's getrusage counts the parent's before exec, too.)"""
    (line,) = [line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _peak_in_own_process(case: Case, contender: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tools.bench", "peak", json.dumps(asdict(case)), contender]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
