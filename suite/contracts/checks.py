"""What every registered component must keep to, checked on small problems in float64; for the suite's and for anyone's.

`check(kind, name)` gives one `Finding` for each promise. `python -m suite.check FILE` prints them for a new method, and
the suite's tests run them over every registry.
"""

import inspect
import tempfile
import traceback
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
from suite.core.outer_loop import require_given
from suite.datasets.digits import Digits
from suite.datasets.loading import check_data
from suite.errors import RunError, SuiteError, first_line
from suite.keys import Key, global_generators
from suite.parameterizations.image_queries import addressed
from suite.registry import REGISTRIES
from suite.types import (
    COMPONENTS,
    ImageShape,
    Labelled,
    LearnsLabels,
    Optimizer,
    Parameterization,
    Params,
    Remembering,
    SelectsInFeatures,
    StartsFromImages,
    State,
    Unrolled,
)
from suite.validation import missing


@dataclass(frozen=True)
class Finding:
    """The result of checking one promise."""

    verdict: Literal["kept", "broken", "note"]
    """'note': not a broken promise, but worth knowing."""
    promise: str
    """The promise in words, as `python -m suite.check` prints it."""
    detail: str = ""
    """What was measured, or what went wrong."""


def check(kind: str, name: str, data_dir: Path | None = None) -> list[Finding]:
    """Check every promise of one registered component, built with its defaults.

    `data_dir` is where data sets are kept; without it the files of data sets are not read. Raises UsageError for a
    name that is not registered; whatever the component itself raises counts as a broken promise.
    """
    entry = REGISTRIES[kind][name]
    findings = [_finding(bool(entry.summary), "its docstring's first line says what it is")]
    try:
        thing = entry.build()
    except (Exception, SystemExit) as error:  # an outsider's constructor may raise anything
        return [*findings, Finding("broken", "it can be built from its defaults alone", _first_line(error))]
    unset = [field.name for field in fields(thing) if field.default == ""] if is_dataclass(thing) else []
    if unset and kind in ("architectures", "datasets"):  # it stands for whatever its user names
        must_be_named = f"its {unset[0]} must be named"
        return [*findings, Finding("note", "it was not tried, since it has no default", must_be_named)]
    whole, lacks = isinstance(thing, COMPONENTS[kind]), missing(thing, COMPONENTS[kind])
    findings.append(_finding(whole, f"it has the methods of suite.types, {kind}", lacks))
    if not whole:
        return findings
    checks: dict[str, Callable[[Any], list[Finding]]] = {
        "datasets": lambda thing: _check_dataset(thing, data_dir),
        "architectures": _check_architecture,
        "parameterizations": _check_parameterization,
        "inner_optimizers": _check_inner_optimizer,
        "objectives": _check_objective,
        "controls": _check_control,
        "streams": lambda thing: _check_stream(thing, data_dir),
        "starts": _check_start,
        "schedules": _check_schedule,
        "experiments": _check_experiment,
    }
    try:
        return findings + checks[kind](thing)
    except (Exception, SystemExit) as error:  # whatever an outsider's methods raise is a broken promise
        where = "" if isinstance(error, SuiteError) else _place(error, thing)
        return [*findings, Finding("broken", "it runs on a small problem", _first_line(error) + where)]


# ---------------------------------------------------------------- one check for each kind


def _check_inner_optimizer(optimizer: Optimizer) -> list[Finding]:
    """Its step is a pure function, and hypergradients through it are exact."""
    pure = _pure_step(optimizer)
    if pure[-1].verdict == "broken":  # names or shapes that a hypergradient could not pass through
        return pure
    return [*pure, *_exact_hypergradient(optimizer)]


def _pure_step(optimizer: Optimizer) -> list[Finding]:
    generator = Key(0)("contract").generator()
    params, grads = (
        {k: torch.randn(3, 2, generator=generator, dtype=torch.float64) for k in ("a", "b")} for _ in range(2)
    )
    state = optimizer.init(params)
    if not _is_state(state):
        return [Finding("broken", IS_STATE, f"init gave {_shape_of(state)}")]
    before = _copied({"params": params, "grads": grads, **state})
    given, again = (optimizer.step(params, grads, state) for _ in range(2))
    for gave in (given, again):
        if not (isinstance(gave, tuple) and len(gave) == 2 and _is_state({"params": gave[0]}) and _is_state(gave[1])):
            return [Finding("broken", "a step gives parameters and state", STEP_MUST + _shape_of(gave))]
    (next_params, next_state), (same_params, same_state) = given, again
    unchanged = _equal({"params": params, "grads": grads, **state}, before)
    repeated = _equal({"params": next_params, **next_state}, {"params": same_params, **same_state})
    same_shapes = {k: v.shape for k, v in next_params.items()} == {k: v.shape for k, v in params.items()}
    same_slots = {slot: set(part) for slot, part in next_state.items()} == {s: set(part) for s, part in state.items()}
    return [
        Finding("kept", IS_STATE),
        _finding(unchanged, "a step changes nothing in place"),
        _finding(repeated, "a step is repeatable"),
        _finding(same_shapes and same_slots, "a step keeps names and shapes of parameters and state"),
    ]


IS_STATE = "its state is a dictionary of dictionaries of tensors"
STEP_MUST = (
    "step must return (params, state): params a dict of tensors by the parameters' names, state one of such dicts by "
    "the names of its slots; it gave "
)


def _exact_hypergradient(optimizer: Optimizer) -> list[Finding]:
    standard = REGISTRIES["parameterizations"]["standard"].build()
    problem = Problem(optimizer, standard, "mlp", 4, width=16)
    gradient = problem.gradient()
    autograd_error = relative_error(gradient, problem.gradient_by_full_graph())
    smooth = Problem(optimizer, standard, "mlp", 4, width=16, activation="silu")
    difference_error = finite_difference_error(smooth)
    detail = f"relative error {difference_error:.1e}"
    if difference_error < 1e-4:
        derivative = Finding("kept", "the hypergradient is the derivative of its steps", detail)
    else:
        detail += "; right only if a gradient is stopped on purpose, or the steps are not smooth"
        derivative = Finding("note", "the hypergradient differs from finite differences", detail)
    finite = all(v.isfinite().all() for v in gradient.values())
    detail = f"relative error {autograd_error:.1e}"
    return [
        _finding(autograd_error < 1e-10, "the hypergradient is plain autograd's", detail),
        _finding(finite, "the hypergradient is finite where units are dead"),
        derivative,
    ]


def _check_parameterization(parameterization: Parameterization) -> list[Finding]:
    """It keeps to its budget, its recall is a pure function of the queries, and autograd differentiates it.

    One that is queried by images gets random ones, and budgets that afford its addresses.
    """
    key = Key(0)("contract")
    by_image = types.query_kind(parameterization) == "images"
    images = torch.randn(4, 3, 32, 32, generator=key("queries").generator())
    queries = images if by_image else torch.arange(4)
    findings: list[Finding] = []
    small = 2 if isinstance(parameterization, Labelled) else 1  # an image with its label takes more than an image
    for images_per_class in (20, 30) if by_image else (small, 10):
        findings += _recall(parameterization, images_per_class, queries, key)
    small_images = images[:CLASSES, : SHAPE.channels, : SHAPE.height, : SHAPE.width].double()
    small_queries = small_images if by_image else torch.arange(CLASSES)
    memory = parameterization.init(SHAPE, CLASSES, 400 if by_image else 10, key)
    if isinstance(parameterization, StartsFromImages):
        findings += _fitted(parameterization, memory, key)
    if isinstance(parameterization, Labelled):
        findings += _labels(parameterization, memory)
    return findings + _recall_gradients(parameterization, memory, small_queries)


def _fitted(parameterization: Any, memory: Params, key: Key) -> list[Finding]:
    """A start from images keeps the budget, and recalls nearer to them than the fresh memory does."""
    classes = torch.arange(CLASSES)
    images = torch.rand(parameterization.recall(memory, classes).shape, generator=key("images").generator())
    fitted = parameterization.fitted(memory, images)
    same_shapes = {k: v.shape for k, v in fitted.items()} == {k: v.shape for k, v in memory.items()}
    near, far = ((parameterization.recall(m, classes) - images).norm() for m in (fitted, memory))
    return [
        _finding(same_shapes, "a start from images keeps names and shapes"),
        _finding(bool(near < far), "a start from images recalls them, or what is near"),
    ]


def _labels(parameterization: Any, memory: Params) -> list[Finding]:
    """Labels are probabilities, one row for each image, and say at first what class the image is stored for."""
    classes = torch.arange(CLASSES)
    images, labels = parameterization.recall(memory, classes), parameterization.labels(memory, classes)
    moved = {k: v + torch.randn(v.shape, generator=Key(0)("moved", k).generator()) for k, v in memory.items()}
    later = parameterization.labels(moved, classes)
    probabilities = all(bool((v >= 0).all()) and torch.allclose(v.sum(-1), torch.ones(())) for v in (labels, later))
    of_class = labels.argmax(-1) == classes[:, None]
    alike = torch.allclose(parameterization.labels(moved, classes[[1]])[0], later[1])
    return [
        _finding(labels.shape == (*images.shape[:2], CLASSES), "it has a label for every image that it recalls"),
        _finding(probabilities, "labels are probabilities, whatever the memory holds"),
        _finding(bool(of_class.all()), "a label is at first that of the image's class"),
        _finding(alike, "a class is labelled alike, alone or among others"),
    ]


def _recall(parameterization: Parameterization, images_per_class: int, queries: Tensor, key: Key) -> list[Finding]:
    shape, classes = ImageShape(3, 32, 32), 10
    per_class = parameterization.per_class(shape, classes, images_per_class)
    memory, same_memory = (parameterization.init(shape, classes, images_per_class, key) for _ in range(2))
    stored, budget = addressed(memory)[0], images_per_class * classes * shape.numel
    images = parameterization.recall(memory, queries[[3, 0]])
    alone = parameterization.recall(memory, queries[[0]])
    expected = (2, per_class, shape.channels, shape.height, shape.width)
    alike = torch.allclose(alone[0], images[1], rtol=1e-3, atol=1e-5 * float(images.abs().max()))
    return [
        _finding(0 < stored <= budget, "it stores no more than its budget", f"{stored} of {budget} numbers"),
        _finding(_equal({"memory": memory}, {"memory": same_memory}), "its first values depend on the key alone"),
        _finding(tuple(images.shape) == expected, "it recalls per_class images of the right shape"),
        _finding(alike, "a class is recalled alike, alone or among others"),
    ]


def _recall_gradients(parameterization: Parameterization, memory: Params, queries: Tensor) -> list[Finding]:
    memory = {k: v.double().requires_grad_() for k, v in memory.items()}

    def recalled(memory: Params) -> list[Tensor]:
        """The images, and the labels of a memory that stores them."""
        labelled = isinstance(parameterization, Labelled)
        labels = [parameterization.labels(memory, queries)] if labelled else []  # type: ignore[attr-defined]
        return [parameterization.recall(memory, queries), *labels]

    total = torch.stack([part.sum() for part in recalled(memory)]).sum()
    grads = torch.autograd.grad(total, list(memory.values()), allow_unused=True)
    unused = [name for name, grad in zip(memory, grads, strict=True) if grad is None]

    def loss(*tensors: Tensor) -> Tensor:
        leaves = dict(zip(memory, tensors, strict=True))
        squares = torch.stack([part.square().sum() for part in recalled(leaves)])
        return squares.sum() + parameterization.penalty(leaves)

    exact = torch.autograd.gradcheck(loss, tuple(memory.values()), raise_exception=False, fast_mode=True)
    return [
        _finding(not unused, "every tensor takes part in what is recalled", ", ".join(unused)),
        _finding(exact, "recall and penalty have the gradients of finite differences"),
    ]


def _check_architecture(architecture: types.Architecture) -> list[Finding]:
    """Its networks come from torch's generator alone, and have the outputs and features of the protocol."""
    findings: list[Finding] = []
    for shape, classes in ((ImageShape(1, 28, 28), 10), (ImageShape(3, 32, 32), 7)):
        network, same_network = _built(architecture, shape, classes), _built(architecture, shape, classes)
        repeated = _equal({"params": _weights(network)}, {"params": _weights(same_network)})
        x = torch.randn(2, shape.channels, shape.height, shape.width, generator=Key(1).generator())
        network.eval()
        logits: Tensor = network(x)
        features = getattr(network, "features", lambda x: torch.zeros(0))(x)
        findings += [
            _finding(repeated, "its first values come from torch's generator alone"),
            _finding(tuple(logits.shape) == (2, classes), f"it scores {classes} classes of {shape} images"),
            _finding(features.ndim == 2 and len(features) == 2, "features(x) is a row for each image"),
        ]
    try:
        require_unrollable(network, type(architecture).__name__)
    except SuiteError as error:
        return [*findings, Finding("note", "it evaluates memories, but can't distil them", _first_line(error))]
    network.train()
    first, second = (functional_call(network, _weights(network), (x,)) for _ in range(2))
    return [*findings, _finding(torch.equal(first, second), "training passes are repeatable")]


def _check_objective(objective: types.Objective) -> list[Finding]:
    """Its gradient is finite, repeatable, and complete for any memory; that of labels, too, if it learns them."""
    ways = REGISTRIES["parameterizations"]
    standard, addressing = ways["standard"].build(), ways["addressing"].build(bases=2)
    own = {field.name for field in fields(objective)}  # type: ignore[arg-type]
    steps = {"inner_steps": 2} if isinstance(objective, Unrolled) and "inner_steps" in own else {}  # not one around it
    objective = replace(objective, **steps)  # type: ignore[type-var]
    labelled = [ways["soft_labels"].build(of=standard)] if isinstance(objective, LearnsLabels) else []
    whole = [finding for of in (standard, *labelled) for finding in _outer_step(objective, of)]
    return [*whole, _given_to_several_tensors(objective, addressing)]


def _outer_step(objective: types.Objective, parameterization: Parameterization) -> list[Finding]:
    setting, memory, real = small_setting(parameterization)
    before = _copied({"memory": memory})
    given, again = (objective.gradients(setting, memory, real, Key(0)("step")) for _ in range(2))
    complete = _given(objective, memory, given, "every tensor of the memory")
    if complete.verdict == "broken":
        return [complete]
    repeated = _equal({"grads": given[0]}, {"grads": again[0]})
    how = "" if repeated else f"two calls with one key differ; draw from the key, and networks by {FRESH_NETWORK}"
    return [
        complete,
        _finding(all(v.isfinite().all() for v in given[0].values()), "the gradient is finite"),
        _finding(repeated, "the gradient depends on memory, data and key alone", how),
        _finding(_equal({"memory": memory}, before), "it changes nothing in place"),
        _finding(isinstance(objective.plan(setting, 1), dict), "it says what a step will need"),
    ]


def _given_to_several_tensors(objective: types.Objective, addressing: Parameterization) -> Finding:
    """What an outer step of a run gets of a memory that is more than images."""
    setting, memory, real = small_setting(addressing)
    key, words = Key(0)("step"), "every tensor of a memory that is addressed"
    if not isinstance(objective, Remembering):
        return _given(objective, memory, objective.gradients(setting, memory, real, key), words)
    kept = objective.begin(setting, memory, real, key("begin"))
    after = objective.gradients_after(setting, memory, real, key, kept)
    return _given(objective, memory, after, words, remembering=True)


def _given(objective: Any, memory: Params, given: Any, words: str, remembering: bool = False) -> Finding:
    promise = f"it gives its loss, and a gradient for {words}"
    try:
        require_given(objective, memory, given, remembering)
    except SuiteError as error:
        return Finding("broken", promise, _first_line(error))
    return Finding("kept", promise)


FRESH_NETWORK = "suite.core.networks.fresh_network(setting, key)"
"""How an objective gets a network that depends on its key alone."""


def _check_control(control: types.Control) -> list[Finding]:
    """Its images are real ones, as many of every class, and chosen by data and key alone."""
    setting, _, real = small_setting()
    short = {"epochs": 1} if isinstance(control, SelectsInFeatures) else {}
    control = replace(control, **short)  # type: ignore[type-var]
    choice, same_choice = (control.choose(setting, real, 3, Key(0)("control")) for _ in range(2))
    splits, same_splits = ([chosen(network) for network in (0, 1)] for chosen in (choice, same_choice))
    repeated = all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(splits, same_splits, strict=True)
    )
    real_images = {tuple(image.flatten().tolist()) for image in real.split.images}
    balanced = all(torch.equal(split.labels.bincount(), torch.full((CLASSES,), 3)) for split in splits)
    are_real = all(tuple(x.flatten().tolist()) in real_images for split in splits for x in split.images)
    return [
        _finding(repeated, "its choice depends on data and key alone"),
        _finding(balanced, "it gives as many images of every class as it is asked for"),
        _finding(are_real, "they are real"),
    ]


def _check_start(start: types.Start) -> list[Finding]:
    """Its images are finite, as many of every class as asked for, and made by data and key alone."""
    setting, _, real = small_setting()
    findings: list[Finding] = []
    for each in (1, 3):
        images, same_images = (start.images(setting, real, each, Key(0)("start")) for _ in range(2))
        expected = (CLASSES, each, SHAPE.channels, SHAPE.height, SHAPE.width)
        findings += [
            _finding(tuple(images.shape) == expected, "it gives as many images of every class as it is asked for"),
            _finding(torch.equal(images, same_images), "its images depend on data and key alone"),
            _finding(bool(images.isfinite().all()), "they are finite"),
        ]
    return findings


def _check_schedule(schedule: types.Schedule) -> list[Finding]:
    """Its factors are finite numbers of the step's type, none below 0, in every step of a run."""
    factors = [schedule.factor(torch.tensor(float(t), dtype=torch.float64), 50) for t in range(51)]
    alike = all(f.shape == () and f.dtype == torch.float64 for f in factors)
    return [
        _finding(alike, "a factor is a number of the step's type"),
        _finding(all(bool(f.isfinite()) and float(f) >= 0 for f in factors), "factors are finite and not below 0"),
        _finding(any(float(f) > 0 for f in factors), "some step is taken"),
    ]


def _check_stream(stream: Any, data_dir: Path | None) -> list[Finding]:
    """Its tasks are what its `info` says and depend on the key alone.

    A stream with the suite's fields (`of`, `number`, `samples_per_task`) is checked on a few digits; others on their
    own data in `data_dir`.
    """
    names = {field.name for field in fields(stream)} if is_dataclass(stream) else set()
    small = {"of": Digits(), "number": 2, "samples_per_task": 20}
    stream = replace(stream, **{name: value for name, value in small.items() if name in names})
    if "of" not in names and data_dir is None:
        return [Finding("note", "its tasks were not made; name a place for its data with --data-dir")]
    with tempfile.TemporaryDirectory() as fresh:
        tasks, same_tasks, others = (list(stream.tasks(data_dir or Path(fresh), Key(seed))) for seed in (0, 0, 1))
    info = stream.info
    shape = (info.shape.channels, info.shape.height, info.shape.width)
    images = [split.images for task in tasks for split in (task.train, task.test)]
    repeated = all(torch.equal(a.train.images, b.train.images) for a, b in zip(tasks, same_tasks, strict=True))
    differs = any(not torch.equal(a.train.images, b.train.images) for a, b in zip(tasks, others, strict=True))
    known = all(set(split.labels.tolist()) <= set(t.classes) for t in tasks for split in (t.train, t.test))
    return [
        _finding(len(tasks) == info.tasks, "it has as many tasks as it says"),
        _finding(all(len(t.train) == info.samples_per_task for t in tasks), "its tasks have as many images as it says"),
        _finding(all(tuple(i.shape[1:]) == shape for i in images), "its images have the shape it says"),
        _finding(known and all(max(t.classes) < info.outputs for t in tasks), "its labels are its tasks' classes"),
        _finding(repeated, "its tasks depend on the key alone"),
        _finding(differs, "another key gives other tasks"),
    ]


def _check_dataset(dataset: types.Dataset, data_dir: Path | None) -> list[Finding]:
    """Its images and labels are what its `info` says, as far as there are files in `data_dir`."""
    info = dataset.info
    findings = [
        _finding(len(set(info.class_names)) == info.classes, "its class names differ from each other"),
        _finding(info.train_size > 0 and info.test_size > 0, "it knows its sizes before it is loaded"),
    ]
    if data_dir is None:
        return [*findings, Finding("note", "its files were not read; name a place with --data-dir")]
    try:
        data, same_data = (dataset.load(data_dir, Key(0), 0.1) for _ in range(2))
    except RunError as error:
        return [*findings, Finding("note", "its files were not read", _first_line(error))]
    try:
        check_data(data)
    except RunError as error:
        return [*findings, Finding("broken", "its images and labels can be trained and measured on", str(error))]
    sizes = (len(data.train) + len(data.validation), len(data.test))
    shape = (info.shape.channels, info.shape.height, info.shape.width)
    pixels = data.transform.display(data.train.images[:8])
    repeated = torch.equal(data.train.images, same_data.train.images)
    return [
        *findings,
        _finding(sizes == (info.train_size, info.test_size), "it holds as many images as it says"),
        _finding(tuple(data.train.images.shape[1:]) == shape, "its images have the shape it says"),
        _finding(set(data.train.labels.tolist()) == set(range(info.classes)), "every class is in its training part"),
        _finding(repeated, "its split depends on the key alone"),
        _finding(float(pixels.min()) >= 0 and float(pixels.max()) <= 1, "its images can be displayed in [0, 1]"),
    ]


def _check_experiment(experiment: types.Experiment) -> list[Finding]:
    """It can say what it will do."""
    plan = experiment.plan()
    return [_finding(bool(plan) and all(isinstance(k, str) for k in plan), "it says what it will do, without any data")]


# ---------------------------------------------------------------- helpers


def _finding(holds: bool, promise: str, detail: str = "") -> Finding:
    return Finding("kept" if holds else "broken", promise, detail)


def _first_line(error: BaseException) -> str:
    """An error's first line; of an unexpected one, with its type."""
    text = first_line(error)
    return text if isinstance(error, SuiteError) else f"{type(error).__name__}: {text}"


def _place(error: BaseException, thing: object) -> str:
    """' in FILE, line N': the innermost line of the thing's own file that an error came through; '' for none."""
    try:
        own = inspect.getsourcefile(type(thing))
    except (OSError, TypeError):  # a class of a notebook or of Python's prompt
        return ""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    return f" in {own}, line {lines[-1].lineno}" if lines else ""


def _shape_of(value: Any) -> str:
    """What a value is made of, such as '(dict of Tensor, dict of float)'."""
    if isinstance(value, tuple):
        return f"({', '.join(_shape_of(part) for part in value)})"
    if isinstance(value, dict):
        return "dict of " + (" and ".join(dict.fromkeys(_shape_of(part) for part in value.values())) or "nothing")
    return type(value).__name__


def _built(architecture: types.Architecture, shape: ImageShape, classes: int) -> nn.Module:
    with global_generators(Key(0)("contract")):
        return architecture.build(shape, classes)


def _weights(network: nn.Module) -> Params:
    return {k: p.detach() for k, p in network.named_parameters()}


def _is_state(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(part, dict) and all(isinstance(v, Tensor) for v in part.values()) for part in state.values()
    )


def _copied(state: State) -> State:
    return {slot: {k: v.clone() for k, v in part.items()} for slot, part in state.items()}


def _equal(a: State, b: State) -> bool:
    """Whether names and bits agree."""
    return {s: set(part) for s, part in a.items()} == {s: set(part) for s, part in b.items()} and all(
        torch.equal(v, b[slot][k]) for slot, part in a.items() for k, v in part.items()
    )
