"""Measurements of the engine: time per outer iteration and peak memory, side by side with what else one could use.

    python -m tools.bench hypergradient [--reference CHECKOUT] [--dataset NAME] [--steps N] ...
    python -m tools.bench memory [--steps N ...]

An outer iteration is the whole of it: recall, a fresh network, the inner steps, the outer loss on real images, and the
way back to the memory. All contenders get the same network, memory and images, in turn in one process, and are
compared pair by pair. Each one's peak memory comes from a process of its own. With --exact, each gradient is compared
with the engine's in float64, since two float32 paths differ from each other for no fault of either. The contenders:

    engine M GiB     this suite with so much memory for an unroll (--memory)
    full graph       plain autograd through one graph of all steps, torch's own layers
    torchopt         the same graph by TorchOpt's differentiable optimizer, where it is installed
    released code    the paper's, where --reference names a checkout of it
"""

import argparse
import json
import os
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
FULL_GRAPH, TORCHOPT, RELEASED = "full graph", "torchopt", "released code"


@dataclass(frozen=True)
class Setting:
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("hypergradient", help="time per outer iteration and peak memory, side by side")
    _add_setting(compare)
    compare.add_argument("--memory", type=float, nargs="+", default=[8.0], help="GiB for an unroll (%(default)s)")
    compare.add_argument("--repeats", type=int, default=5)
    compare.add_argument("--without", nargs="+", default=[], help="contenders to leave out")
    compare.add_argument("--exact", action="store_true", help="compare the gradients with float64")
    compare.add_argument("--no-peak", action="store_true", help="leave out the peak memory")
    compare.add_argument("--json", action="store_true")
    memory = commands.add_parser("memory", help="promised and measured peak memory at several numbers of steps")
    memory.add_argument("--steps", type=int, nargs="+", default=[20, 50, 100, 200])
    memory.add_argument("--memory", type=float, nargs="+", default=[8.0, 1.0, 0.2])
    memory.add_argument("--json", action="store_true")
    peak = commands.add_parser("peak", help="the peak memory of one contender in this process (used by the others)")
    peak.add_argument("setting", type=json.loads)
    peak.add_argument("contender")
    options = parser.parse_args(arguments)

    from suite.errors import SuiteError

    try:
        if options.command == "peak":
            print(json.dumps(peak_of(Setting(**options.setting), options.contender)))
        elif options.command == "memory":
            print(memory_table(options.steps, options.memory, options.json))
        else:
            print(hypergradient_table(options))
    except SuiteError as error:
        print(f"tools.bench: {error}", file=sys.stderr)
        return error.status
    return 0


def _add_setting(parser: argparse.ArgumentParser) -> None:
    default = Setting()
    parser.add_argument("--dataset", choices=SHAPES, default=default.dataset, help="whose shape (%(default)s)")
    parser.add_argument("--architecture", choices=("convnet", "resnet12"), default=default.architecture)
    parser.add_argument("--parameterization", choices=("standard", "addressing"), default=default.parameterization)
    parser.add_argument("--images-per-class", type=int, default=default.images_per_class)
    parser.add_argument("--bases", type=int, default=default.bases, help="of addressing (%(default)s)")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--real-per-class", type=int, default=default.real_per_class)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--reference", default="", metavar="CHECKOUT", help="a checkout of the paper's released code")


# ---------------------------------------------------------------- tables


def hypergradient_table(options: argparse.Namespace) -> str:
    """Every contender timed in turn, as a table or as JSON."""
    import torch

    from suite.contracts import relative_error
    from suite.results import environment

    setting = Setting(**{name: getattr(options, name) for name in asdict(Setting())})
    names = [n for n in contenders(setting, options.memory) if n not in options.without]
    steps = {name: outer_step(setting, name) for name in names}
    gradients = {name: step() for name, step in steps.items()}  # what a first call allocates and tunes is not timed
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name, step in steps.items():
            seconds[name].append(_seconds(step, setting.device))
    exact = outer_step(setting, "engine 8 GiB", double=True)() if options.exact else None
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
        row["peak_mib"] = None if options.no_peak else _peak_in_own_process(setting, name)["peak_mib"]
        row["error"] = None if exact is None else relative_error(gradients[name], exact)
        rows.append(row)
    made = {"setting": asdict(setting) | {"reference": bool(setting.reference)}, "rows": rows}
    made["environment"] = environment(torch.device(setting.device))
    if options.json:
        return json.dumps(made, indent=1)
    lines = [
        f"{setting.dataset} shape, {setting.architecture}, {setting.parameterization}, {setting.images_per_class} I/C, "
        f"{setting.steps} inner steps, {10 * setting.real_per_class} real images, {options.repeats} repeats, "
        f"{setting.device}, torch {torch.__version__}, {torch.get_num_threads()} threads",
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
    for name in [*(_engine(gib) for gib in memory), FULL_GRAPH]:
        rows[name] = [_peak_in_own_process(Setting(steps=t), name) for t in steps]
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


# ---------------------------------------------------------------- contenders


def contenders(setting: Setting, memory: list[float]) -> list[str]:
    """Names of all that can run here; the last one is what the others are compared with."""
    import importlib.util

    names = [*(_engine(gib) for gib in memory), FULL_GRAPH]
    if importlib.util.find_spec("torchopt"):
        names.insert(-1, TORCHOPT)
    return [*names, RELEASED] if setting.reference else names


def _engine(gib: float) -> str:
    return f"engine {gib:g} GiB"


def outer_step(setting: Setting, contender: str, double: bool = False) -> Callable[[], dict[str, Any]]:
    """One outer iteration of a contender, from the same inputs at every call -> the memory's gradient."""
    import torch

    from suite.keys import Key, global_generators
    from suite.objectives.bptt import BPTT
    from suite.registry import architectures, load_components, parameterizations
    from suite.types import ClassRows, ImageShape, Split, Task

    load_components()
    shape, classes, key = ImageShape(*SHAPES[setting.dataset]), 10, Key(0)
    dtype = torch.float64 if double else torch.float32
    fields = {"bases": setting.bases} if setting.parameterization == "addressing" else {}
    parameterization = parameterizations[setting.parameterization].build(**fields)
    recipe = architectures[setting.architecture].build()
    where = torch.device(setting.device)
    task = Task(shape, classes, _Double(recipe) if double else recipe, parameterization, "none", where)
    memory = parameterization.init(shape, classes, setting.images_per_class, key("memory"))
    memory = {k: v.to(where, dtype) for k, v in memory.items()}
    labels = torch.arange(classes).repeat_interleave(setting.real_per_class)
    size = (len(labels), shape.channels, shape.height, shape.width)
    real = Split(torch.randn(size, generator=key("real").generator()).to(where, dtype), labels.to(where))
    objective = BPTT(inner_steps=setting.steps, images_per_class_per_step=10**6, real_per_class=setting.real_per_class)
    if contender.startswith("engine "):
        objective = replace(objective, memory_gib=float(contender.split()[1]))
        rows = ClassRows.of(real, classes)
        return lambda: objective.gradients(task, memory, rows, key)[0]
    with global_generators(key("network")):  # the weights that the engine's gets
        plain = recipe.build(shape, classes).to(where)
    # The engine draws its real images in this order.
    drawn = ClassRows.of(real, classes).draw(list(range(classes)), setting.real_per_class, key("real"))
    if contender == RELEASED:
        from tools import reference

        checkout = Path(setting.reference)
        return reference.outer_step(
            checkout, plain, setting.architecture, shape, classes, memory, drawn, setting.steps, where
        )
    return partial(_by_one_graph, contender, task, plain, memory, drawn, setting.steps)


@dataclass(frozen=True)
class _Double:
    """An architecture in float64."""

    of: Any

    def build(self, shape: Any, classes: int) -> Any:
        return self.of.build(shape, classes).double()


def _by_one_graph(contender: str, task: Any, network: Any, memory: Any, real: Any, steps: int) -> dict[str, Any]:
    """The outer iteration as one would write it down: one graph through all the steps, and one call of autograd."""
    import torch
    from torch.func import functional_call
    from torch.nn.functional import cross_entropy

    from suite.inner_optimizers.sgd_momentum import SGDMomentum

    leaves = {k: v.detach().requires_grad_() for k, v in memory.items()}
    classes = torch.arange(task.classes, device=task.device)
    images = task.parameterization.recall(leaves, classes)
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


def peak_of(setting: Setting, contender: str) -> dict[str, float]:
    """Memory that one outer iteration adds at its peak, in MiB; its seconds; and what the engine promises."""
    import resource

    import torch

    outer_step(replace(setting, steps=1, real_per_class=1), contender)()  # the first use of every operation
    step = outer_step(setting, contender)
    cuda = setting.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = _seconds(step, setting.device)
    after = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"peak_mib": (after - before) / 2**20, "seconds": seconds}
    if contender.startswith("engine "):
        found["promised_mib"] = promised(setting, contender)
    return found


def promised(setting: Setting, contender: str) -> float:
    """MiB that a plan of the engine expects."""
    import torch

    from suite.objectives.bptt import BPTT
    from suite.registry import architectures, load_components, parameterizations
    from suite.types import ImageShape, Task

    load_components()
    shape, where = ImageShape(*SHAPES[setting.dataset]), torch.device(setting.device)
    recipes = architectures[setting.architecture].build(), parameterizations[setting.parameterization].build()
    task = Task(shape, 10, *recipes, "none", where)
    gib = float(contender.split()[1])
    objective = BPTT(inner_steps=setting.steps, real_per_class=setting.real_per_class, memory_gib=gib)
    plan = objective.plan(task, setting.images_per_class)
    return float(plan["expected memory of one unroll (MiB)"])


def _peak_in_own_process(setting: Setting, contender: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tools.bench", "peak", json.dumps(asdict(setting)), contender]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.exit(main())
