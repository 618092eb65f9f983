"""What every registered thing must keep to, checked on small problems in float64; for our components and for anyone's.

`check(kind, name)` gives one finding for each promise. `python -m suite.check FILE` prints them for a new method, and
the suite's own tests run them over every registry.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from suite import types
from suite.contracts.problem import CLASSES, SHAPE, Problem, finite_difference_error, relative_error, small_setting
from suite.core.networks import require_unrollable
from suite.datasets.digits import Digits
from suite.errors import RunError, SuiteError
from suite.keys import Key, global_generators
from suite.parameterizations.image_queries import addressed
from suite.registry import REGISTRIES
from suite.types import COMPONENTS, ImageShape, InnerOptimizer, Parameterization, Params, Split, State


@dataclass(frozen=True)
class Finding:
    """One promise: kept, broken, or 'note' for what is allowed but worth knowing."""

    verdict: Literal["kept", "broken", "note"]
    promise: str
    said: str = ""


def check(kind: str, name: str, data_dir: Path | None = None) -> list[Finding]:
    """Every promise of one registered component, built with its defaults. `data_dir` is for data sets and streams."""
    entry = REGISTRIES[kind][name]
    findings = [_finding(bool(entry.summary), "its docstring's first line says what it is")]
    try:
        thing = entry.build()
    except Exception as error:  # an outsider's constructor may raise anything
        return [*findings, Finding("broken", "it can be built from its defaults alone", _short(error))]
    findings.append(_finding(isinstance(thing, COMPONENTS[kind]), f"it has the methods of suite.types, {kind}"))
    if findings[-1].verdict == "broken":
        return findings
    checks: dict[str, Callable[[Any], list[Finding]]] = {
        "datasets": lambda thing: _dataset(thing, data_dir),
        "architectures": _architecture,
        "parameterizations": _parameterization,
        "inner_optimizers": _inner_optimizer,
        "objectives": _objective,
        "controls": _control,
        "streams": lambda thing: _stream(thing, data_dir),
        "experiments": _experiment,
    }
    try:
        return findings + checks[kind](thing)
    except Exception as error:  # likewise
        return [*findings, Finding("broken", "it runs on a small problem", _short(error))]


# ---------------------------------------------------------------- one check for each kind


def _inner_optimizer(optimizer: InnerOptimizer) -> list[Finding]:
    generator = Key(0)("contract").generator()

    def some() -> Params:
        return {k: torch.randn(3, 2, generator=generator, dtype=torch.float64) for k in ("a", "b")}

    params, grads = some(), some()
    state = optimizer.init(params)
    found = [_finding(_is_state(state), "its state is a dictionary of dictionaries of tensors")]
    before = _copied({"params": params, "grads": grads, **state})
    once, again = (optimizer.step(params, grads, state) for _ in range(2))
    found.append(
        _finding(_equal({"params": params, "grads": grads, **state}, before), "a step changes nothing in place")
    )
    found.append(_finding(_equal({"p": once[0], **once[1]}, {"p": again[0], **again[1]}), "a step is repeatable"))
    same = {k: v.shape for k, v in once[0].items()} == {k: v.shape for k, v in params.items()}
    kept = {s: set(part) for s, part in once[1].items()} == {s: set(part) for s, part in state.items()}
    found.append(_finding(same and kept, "a step keeps names and shapes of parameters and state"))

    problem = Problem(optimizer, REGISTRIES["parameterizations"]["standard"].build(), "mlp", 4, width=16)
    gradient = problem.swept()
    error = relative_error(gradient, problem.by_full_graph())
    found.append(_finding(error < 1e-10, "the hypergradient is plain autograd's", f"relative error {error:.1e}"))
    finite = all(v.isfinite().all() for v in gradient.values())
    found.append(_finding(finite, "the hypergradient is finite where units are dead"))
    smooth = Problem(
        optimizer, REGISTRIES["parameterizations"]["standard"].build(), "mlp", 4, width=16, activation="silu"
    )
    error = finite_difference_error(smooth)
    said = f"relative error {error:.1e}"
    if error < 1e-4:
        found.append(Finding("kept", "the hypergradient is the derivative of its steps", said))
    else:
        said += "; right only if a gradient is stopped on purpose, or the steps are not smooth"
        found.append(Finding("note", "the hypergradient differs from finite differences", said))
    return found


def _parameterization(parameterization: Parameterization) -> list[Finding]:
    """One that is `asked_with` images is asked with some, and given a budget that affords its addresses."""
    shape, classes = ImageShape(3, 32, 32), 10
    key = Key(0)("contract")
    by_image = types.query_kind(parameterization) == "images"
    some = torch.randn(4, shape.channels, shape.height, shape.width, generator=key("queries").generator())
    queries = some if by_image else torch.arange(4)
    found: list[Finding] = []
    for images_per_class in (20, 30) if by_image else (1, 10):
        per_class = parameterization.per_class(shape, classes, images_per_class)
        memory = parameterization.init(shape, classes, images_per_class, key)
        stored, budget = addressed(memory)[0], images_per_class * classes * shape.numel
        found.append(
            _finding(0 < stored <= budget, "it stores no more than its budget", f"{stored} of {budget} numbers")
        )
        again = parameterization.init(shape, classes, images_per_class, key)
        found.append(_finding(_equal({"m": memory}, {"m": again}), "its first values depend on the key alone"))
        images = parameterization.recall(memory, queries[[3, 0]])
        wanted = (2, per_class, shape.channels, shape.height, shape.width)
        found.append(_finding(tuple(images.shape) == wanted, "it recalls per_class images of the right shape"))
        rows = parameterization.recall(memory, queries[[0]])
        alike = torch.allclose(rows[0], images[1], rtol=1e-3, atol=1e-5 * float(images.abs().max()))
        found.append(_finding(alike, "a class is recalled alike, alone or among others"))
    budget_of_small = 400 if by_image else 10
    memory = {
        k: v.double().requires_grad_() for k, v in parameterization.init(SHAPE, CLASSES, budget_of_small, key).items()
    }
    small = (
        some[:CLASSES, : SHAPE.channels, : SHAPE.height, : SHAPE.width].double() if by_image else torch.arange(CLASSES)
    )

    slopes = torch.autograd.grad(parameterization.recall(memory, small).sum(), list(memory.values()), allow_unused=True)
    unused = [name for name, slope in zip(memory, slopes, strict=True) if slope is None]
    found.append(_finding(not unused, "every tensor takes part in what is recalled", ", ".join(unused)))

    def recalled(*tensors: Tensor) -> Tensor:
        leaves = dict(zip(memory, tensors, strict=True))
        return parameterization.recall(leaves, small).square().sum() + parameterization.penalty(leaves)

    right = torch.autograd.gradcheck(recalled, tuple(memory.values()), raise_exception=False, fast_mode=True)
    return [*found, _finding(right, "recall and penalty have the gradients of finite differences")]


def _architecture(architecture: types.Architecture) -> list[Finding]:
    found: list[Finding] = []
    for shape, classes in ((ImageShape(1, 28, 28), 10), (ImageShape(3, 32, 32), 7)):
        with global_generators(Key(0)("contract")):
            network = architecture.build(shape, classes)
        with global_generators(Key(0)("contract")):
            again = architecture.build(shape, classes)
        params, others = _weights(network), _weights(again)
        found.append(
            _finding(_equal({"p": params}, {"p": others}), "its first values come from torch's generator alone")
        )
        x = torch.randn(2, shape.channels, shape.height, shape.width, generator=Key(1).generator())
        network.eval()
        scores: Tensor = network(x)
        found.append(_finding(tuple(scores.shape) == (2, classes), f"it scores {classes} classes of {shape} images"))
        features = getattr(network, "features", lambda x: torch.zeros(0))(x)
        found.append(_finding(features.ndim == 2 and len(features) == 2, "features(x) is a row for each image"))
    try:
        require_unrollable(network, type(architecture).__name__)
    except SuiteError as error:
        return [*found, Finding("note", "it evaluates memories, but can't distil them", _short(error))]
    network.train()
    weights = _weights(network)
    repeatable = torch.equal(functional_call(network, weights, (x,)), functional_call(network, weights, (x,)))
    return [*found, _finding(repeatable, "training passes are repeatable")]


def _objective(objective: types.Objective) -> list[Finding]:
    setting, memory, real = small_setting()
    before = _copied({"m": memory})
    steps = {"inner_steps": 2} if hasattr(objective, "inner_steps") else {}
    objective = replace(objective, **steps)  # type: ignore[type-var]
    once, again = (objective.gradients(setting, memory, real, Key(0)("step")) for _ in range(2))
    like = {k: v.shape for k, v in once[0].items()} == {k: v.shape for k, v in memory.items()}
    return [
        _finding(like, "it gives a gradient for every tensor of the memory"),
        _finding(all(v.isfinite().all() for v in once[0].values()), "the gradient is finite"),
        _finding(_equal({"g": once[0]}, {"g": again[0]}), "the gradient depends on memory, data and key alone"),
        _finding(_equal({"m": memory}, before), "it changes nothing in place"),
        _finding("loss" in once[1], "it reports a loss"),
        _finding(isinstance(objective.plan(setting, 1), dict), "it says what a step will need"),
    ]


def _control(control: types.Control) -> list[Finding]:
    setting, _, real = small_setting()
    short = {"epochs": 1} if isinstance(control, types.SelectsInFeatures) else {}
    control = replace(control, **short)  # type: ignore[type-var]
    once, again = (control.choose(setting, real, 3, Key(0)("control")) for _ in range(2))
    sets = [(once(i), again(i)) for i in (0, 1)]
    seen = {tuple(image.flatten().tolist()) for image in real.split.images}
    balanced = all(torch.equal(one.labels.bincount(), torch.full((CLASSES,), 3)) for one, _ in sets)
    return [
        _finding(all(_same(one, other) for one, other in sets), "its choice depends on data and key alone"),
        _finding(balanced, "it gives as many images of every class as it is asked for"),
        _finding(all(tuple(x.flatten().tolist()) in seen for one, _ in sets for x in one.images), "they are real"),
    ]


def _same(one: Split, other: Split) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def _stream(stream: Any, data_dir: Path | None) -> list[Finding]:
    """On a few digits, where the stream has the fields that ours have; else on its own data."""
    own = {field.name for field in fields(stream)} if is_dataclass(stream) else set()
    small = {"of": Digits(), "number": 2, "samples_per_task": 20}
    stream = replace(stream, **{name: value for name, value in small.items() if name in own})
    if "of" not in own and data_dir is None:
        return [Finding("note", "its tasks were not made; name a place for its data with --data-dir")]
    with tempfile.TemporaryDirectory() as fresh:
        tasks, again, other = (list(stream.tasks(data_dir or Path(fresh), Key(seed))) for seed in (0, 0, 1))
    info = stream.info
    shape = (info.shape.channels, info.shape.height, info.shape.width)
    images = [split.images for task in tasks for split in (task.train, task.test)]
    repeated = all(torch.equal(a.train.images, b.train.images) for a, b in zip(tasks, again, strict=True))
    differs = any(not torch.equal(a.train.images, b.train.images) for a, b in zip(tasks, other, strict=True))
    known = all(set(split.labels.tolist()) <= set(t.classes) for t in tasks for split in (t.train, t.test))
    return [
        _finding(len(tasks) == info.tasks, "it has as many tasks as it says"),
        _finding(all(len(t.train) == info.samples_per_task for t in tasks), "its tasks have as many images as it says"),
        _finding(all(tuple(i.shape[1:]) == shape for i in images), "its images have the shape it says"),
        _finding(known and all(max(t.classes) < info.outputs for t in tasks), "its labels are its tasks' classes"),
        _finding(repeated, "its tasks depend on the key alone"),
        _finding(differs, "another key gives other tasks"),
    ]


def _dataset(dataset: types.Dataset, data_dir: Path | None) -> list[Finding]:
    info = dataset.info
    found = [
        _finding(len(set(info.class_names)) == info.classes, "its class names differ from each other"),
        _finding(info.train_size > 0 and info.test_size > 0, "it knows its sizes before it is loaded"),
    ]
    if data_dir is None:
        return [*found, Finding("note", "its files were not read; name a place with --data-dir")]
    try:
        data = dataset.load(data_dir, Key(0), 0.1)
    except RunError as error:
        return [*found, Finding("note", "its files were not read", _short(error))]
    shape = (info.shape.channels, info.shape.height, info.shape.width)
    together = len(data.train) + len(data.validation)
    shown = data.transform.display(data.train.images[:8])
    again = dataset.load(data_dir, Key(0), 0.1)
    return [
        *found,
        _finding((together, len(data.test)) == (info.train_size, info.test_size), "it holds as many images as it says"),
        _finding(tuple(data.train.images.shape[1:]) == shape, "its images have the shape it says"),
        _finding(set(data.train.labels.tolist()) == set(range(info.classes)), "every class is in its training part"),
        _finding(torch.equal(data.train.images, again.train.images), "its split depends on the key alone"),
        _finding(float(shown.min()) >= 0 and float(shown.max()) <= 1, "its images can be displayed in [0, 1]"),
    ]


def _experiment(experiment: types.Experiment) -> list[Finding]:
    plan = experiment.plan()
    return [_finding(bool(plan) and all(isinstance(k, str) for k in plan), "it says what it will do, without any data")]


# ---------------------------------------------------------------- words


def _finding(kept: bool, promise: str, said: str = "") -> Finding:
    return Finding("kept" if kept else "broken", promise, said)


def _short(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if isinstance(error, SuiteError) else f"{type(error).__name__}: {text}"


def _weights(network: nn.Module) -> Params:
    return {k: p.detach() for k, p in network.named_parameters()}


def _is_state(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(part, dict) and all(isinstance(v, Tensor) for v in part.values()) for part in state.values()
    )


def _copied(state: State) -> State:
    return {slot: {k: v.clone() for k, v in part.items()} for slot, part in state.items()}


def _equal(one: State, other: State) -> bool:
    return {s: set(part) for s, part in one.items()} == {s: set(part) for s, part in other.items()} and all(
        torch.equal(v, other[slot][k]) for slot, part in one.items() for k, v in part.items()
    )
