"""A small distillation problem in float64, and the errors of its hypergradient."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core.outer_loop import begin
from suite.core.unroll import (
    Hypergradient,
    Retention,
    hypergradient,
    hypergradient_by_full_graph,
    inner_step,
    through_recall,
)
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.registry import REGISTRIES
from suite.types import ClassRows, ImageShape, InnerOptimizer, Parameterization, Params, Setting, Split

SHAPE, CLASSES = ImageShape(1, 16, 16), 2


# ---------------------------------------------------------------- small problems


class Problem:
    """A small whole outer step on keyed random data: recall, unroll, outer loss, and the way back to the memory."""

    def __init__(
        self,
        optimizer: InnerOptimizer,
        parameterization: Parameterization,
        network: str,
        steps: int,
        *,
        width: int,
        activation: str = "relu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        key = Key(0)
        self.optimizer, self.parameterization, self.steps = optimizer, parameterization, steps
        memory = parameterization.init(SHAPE, CLASSES, 1.02, key("memory"))
        self.memory: Params = {k: v.to(dtype) for k, v in memory.items()}
        with global_generators(key("network")):
            recipe = REGISTRIES["architectures"][network].build(activation=activation, width=width)
            self.network: nn.Module = recipe.build(SHAPE, CLASSES)
        self.params: Params = {k: v.detach().to(dtype) for k, v in self.network.named_parameters()}
        size = (2 * CLASSES, SHAPE.channels, SHAPE.height, SHAPE.width)
        real = torch.randn(size, generator=key("real").generator(), dtype=torch.float64)
        self.real, self.real_labels = real.to(dtype), torch.arange(CLASSES).repeat(2)

    def swept(self, retention: Retention = Retention()) -> Params:  # noqa: B008  (frozen)
        """The memory's gradient by the engine."""
        return self._pulled_back(partial(hypergradient, retention=retention))

    def by_full_graph(self) -> Params:
        """The memory's gradient by plain autograd through everything at once."""
        return self._pulled_back(hypergradient_by_full_graph)

    def value(self, memory: Params) -> float:
        """The outer loss that a memory leads to, by the way there alone."""
        images, inner, outer = self._losses(memory)
        params, state = self.params, self.optimizer.init(self.params)
        for t in range(self.steps):
            params, state, _ = inner_step(inner, params, state, {"images": images}, self.optimizer, t)
        return float(outer(params))

    def _losses(self, memory: Params) -> tuple[Tensor, Callable[..., Tensor], Callable[..., Tensor]]:
        recalled = self.parameterization.recall(memory, torch.arange(CLASSES))
        labels = torch.arange(CLASSES).repeat_interleave(recalled.shape[1])

        def inner(params: Params, inputs: Params, t: int) -> Tensor:
            rows = slice(t % 2, None, 2) if len(labels) > CLASSES else slice(None)  # other images at odd steps
            return cross_entropy(functional_call(self.network, params, (inputs["images"][rows],)), labels[rows])

        def outer(params: Params) -> Tensor:
            return cross_entropy(functional_call(self.network, params, (self.real,)), self.real_labels)

        return torch.flatten(recalled, 0, 1), inner, outer

    def _pulled_back(self, engine: Callable[..., Hypergradient]) -> Params:
        leaves = {k: v.detach().requires_grad_() for k, v in self.memory.items()}
        images, inner, outer = self._losses(leaves)
        found = engine(inner, outer, self.params, {"images": images.detach()}, self.optimizer, self.steps)
        return through_recall(images, leaves, found.gradients["images"])


def finite_difference_error(problem: Problem) -> float:
    """|central difference / slope - 1| along a random direction, with the best of three step sizes.

    A large step errs by the curvature, a small one by rounding, and how curved the loss is differs from row to row.
    """
    key = Key(1)("direction")
    v = {k: torch.randn(m.shape, generator=key(k).generator(), dtype=m.dtype) for k, m in problem.memory.items()}
    gradient = problem.swept()
    slope = sum(float((gradient[k] * v[k]).sum()) for k in v)
    errors = []
    for eps in (1e-4, 1e-5, 1e-6):
        ahead = problem.value({k: m + eps * v[k] for k, m in problem.memory.items()})
        behind = problem.value({k: m - eps * v[k] for k, m in problem.memory.items()})
        errors.append(abs((ahead - behind) / (2 * eps) / slope - 1))
    return min(errors)


def relative_error(found: Params, reference: Params) -> float:
    """|found - reference| / |reference| over all tensors together."""
    difference = sum(float((found[k].double() - reference[k].double()).square().sum()) for k in reference)
    size = sum(float(reference[k].double().square().sum()) for k in reference)
    return float((difference / size) ** 0.5)


def small_setting() -> tuple[Setting, Params, ClassRows]:
    """A task, a memory and real images that an objective can work on in a moment."""
    setting = Setting(
        SHAPE,
        CLASSES,
        REGISTRIES["architectures"]["mlp"].build(width=16),
        REGISTRIES["parameterizations"]["standard"].build(),
        "none",
        torch.device("cpu"),
    )
    memory = begin(setting, SGDMomentum(), 1, Key(0)).memory
    images = torch.randn(20, SHAPE.channels, SHAPE.height, SHAPE.width, generator=Key(2).generator())
    return setting, memory, ClassRows.of(Split(images, torch.arange(20) % CLASSES), CLASSES)
