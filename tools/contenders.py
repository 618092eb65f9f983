"""What `tools.bench` compares: ways to compute the gradient of one outer iteration, from the same inputs.

engine M GiB …   this suite with M GiB for an unroll, in one of its executions and precisions
full graph       plain autograd through one graph of all inner steps, torch's own layers
torchopt         the same graph by TorchOpt's differentiable optimizer, where it is installed
released code    the paper's, from a checkout of it
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.objectives.bptt import BPTT
from suite.registry import architectures, load_components, parameterizations
from suite.types import Architecture, ClassRows, ImageShape, Params, Setting, Split
from tools import reference

SHAPES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
"""Channels, height and width of the images, by data set."""

CLASSES = 10
LR, MOMENTUM = 0.01, 0.9
"""Of the inner optimizer."""

EXECUTIONS = ("eager", "captured")
PRECISIONS = ("float32", "tf32", "bfloat16")
FIRST_LAYERS = ("pixels", "span")
"""Modes of this suite's engine (`BPTT.execution`, `BPTT.precision`, `BPTT.first_layer`)."""


@dataclass(frozen=True)
class Case:
    """The outer iteration that is measured: ten classes, keyed random images, no augmentation."""

    dataset: str = "fashion_mnist"
    """Whose image shape: one of `SHAPES`."""
    architecture: str = "convnet"
    """Of the network, by its registered name."""
    depth: int = 2
    """Hidden layers of an MLP."""
    parameterization: str = "standard"
    """Of the memory, by its registered name."""
    images_per_class: int = 1
    """Budget of the memory, in real images per class."""
    bases: int = 8
    """Bases of the addressing parameterization."""
    steps: int = 150
    """Inner steps, each on all recalled images."""
    real_per_class: int = 64
    """Real images of each class in the outer loss."""
    device: str = "cpu"
    """Where all is computed."""
    reference: str = ""
    """Folder of a checkout of the released code; '' for none."""


@dataclass(frozen=True)
class Contender:
    """One way to compute the gradient. The fields after `kind` are those of the engine."""

    kind: Literal["engine", "full graph", "torchopt", "released code"]
    """Whose code."""
    gib: float = 8.0
    """GiB for an unroll (`BPTT.memory_gib`)."""
    execution: Literal["eager", "captured"] = "eager"
    """How inner steps are run (`BPTT.execution`)."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the networks' products (`BPTT.precision`)."""
    first_layer: Literal["pixels", "span"] = "pixels"
    """Where a first linear layer is trained (`BPTT.first_layer`)."""

    @property
    def name(self) -> str:
        """Its name in tables.

        >>> Contender("engine", gib=1, execution="captured").name
        'engine 1 GiB captured'
        """
        if self.kind != "engine":
            return self.kind
        usual = ("eager", "float32", "pixels")
        modes = [mode for mode in (self.execution, self.precision, self.first_layer) if mode not in usual]
        return " ".join([f"engine {self.gib:g} GiB", *modes])


ENGINE = Contender("engine")
FULL_GRAPH, TORCHOPT, RELEASED = Contender("full graph"), Contender("torchopt"), Contender("released code")


def contenders(case: Case, engines: list[Contender]) -> list[Contender]:
    """The engines and all others that can run here; the last one is what the others are compared with."""
    torchopt = [TORCHOPT] if importlib.util.find_spec("torchopt") else []
    released = [RELEASED] if case.reference else []
    return [*engines, *torchopt, FULL_GRAPH, *released]


def objective(case: Case, engine: Contender) -> BPTT:
    """The objective of an engine."""
    return BPTT(
        inner_steps=case.steps,
        images_per_class_per_step=10**6,
        real_per_class=case.real_per_class,
        memory_gib=engine.gib,
        execution=engine.execution,
        precision=engine.precision,
        first_layer=engine.first_layer,
    )


def setting(case: Case, double: bool = False) -> Setting:
    """The setting of a case; with `double`, its networks are in float64."""
    load_components()
    fields = {"bases": case.bases} if case.parameterization == "addressing" else {}
    parameterization = parameterizations[case.parameterization].build(**fields)
    hidden = {"depth": case.depth} if case.architecture == "mlp" else {}
    architecture = architectures[case.architecture].build(**hidden)
    shape = ImageShape(*SHAPES[case.dataset])
    architecture = Double(architecture) if double else architecture
    return Setting(shape, CLASSES, architecture, parameterization, "none", torch.device(case.device))


def outer_step(case: Case, contender: Contender, double: bool = False) -> Callable[[], Params]:
    """A function that computes one outer iteration: the memory's gradient, from the same inputs at every call.

    With `double`, in float64. Raises UsageError where `case.reference` is no checkout of the released code.
    """
    what, key, dtype = setting(case, double), Key(0), torch.float64 if double else torch.float32
    memory = what.parameterization.init(what.shape, CLASSES, case.images_per_class, key("memory"))
    memory = {k: v.to(what.device, dtype) for k, v in memory.items()}
    real = _real_images(case, what, key("real"), dtype)
    rows = ClassRows.of(real, CLASSES)
    if contender.kind == "engine":
        bptt = objective(case, contender)
        return lambda: bptt.gradients(what, memory, rows, key)[0]
    with global_generators(key("network")):  # the engine draws the same weights
        network = what.architecture.build(what.shape, CLASSES).to(what.device)
    batch = rows.draw(list(range(CLASSES)), case.real_per_class, key("real"))  # in the engine's order
    if contender.kind == "released code":
        sizes = what.shape, CLASSES, memory, batch, case.steps, what.device
        return reference.outer_step(Path(case.reference), network, case.architecture, *sizes)
    unroll = _unroll_by_torchopt if contender.kind == "torchopt" else _unroll
    return partial(_by_full_graph, unroll, what, network, memory, batch, case.steps)


def _real_images(case: Case, what: Setting, key: Key, dtype: torch.dtype) -> Split:
    labels = torch.arange(CLASSES).repeat_interleave(case.real_per_class)
    size = (len(labels), what.shape.channels, what.shape.height, what.shape.width)
    images = torch.randn(size, generator=key.generator())
    return Split(images.to(what.device, dtype), labels.to(what.device))


@dataclass(frozen=True)
class Double:
    """An architecture in float64."""

    of: Architecture
    """The architecture."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """Its network, with weights of float64."""
        return self.of.build(shape, classes).double()


# ---------------------------------------------------------------- one graph of all steps

Loss = Callable[[Params], torch.Tensor]


def _by_full_graph(
    unroll: Callable[[Loss, Params, int], Params],
    what: Setting,
    network: nn.Module,
    memory: Params,
    real: Split,
    steps: int,
) -> Params:
    """The outer iteration as one would write it down: recall, unroll, outer loss, and one call of autograd."""
    leaves = {k: v.detach().requires_grad_() for k, v in memory.items()}
    classes = torch.arange(CLASSES, device=what.device)
    recalled = what.parameterization.recall(leaves, classes)
    images, labels = torch.flatten(recalled, 0, 1), classes.repeat_interleave(recalled.shape[1])

    def inner_loss(params: Params) -> torch.Tensor:
        return cross_entropy(functional_call(network, params, (images,)), labels)

    start = {k: p.detach().clone().requires_grad_() for k, p in network.named_parameters()}
    params = unroll(inner_loss, start, steps)
    outer = cross_entropy(functional_call(network, params, (real.images,)), real.labels)
    return dict(zip(leaves, torch.autograd.grad(outer, list(leaves.values())), strict=True))


def _grads_with_graph(loss: Loss, params: Params) -> Params:
    grads = torch.autograd.grad(loss(params), list(params.values()), create_graph=True)
    return dict(zip(params, grads, strict=True))


def _unroll(loss: Loss, params: Params, steps: int) -> Params:
    optimizer = SGDMomentum(lr=LR, momentum=MOMENTUM)
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = optimizer.step(params, _grads_with_graph(loss, params), state)
    return params


def _unroll_by_torchopt(loss: Loss, params: Params, steps: int) -> Params:
    import torchopt

    optimizer: Any = torchopt.sgd(lr=LR, momentum=MOMENTUM, moment_requires_grad=True)
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(_grads_with_graph(loss, params), state, inplace=False)
        params = torchopt.apply_updates(params, updates, inplace=False)
    return params
