"""A small distillation problem in float64, and the errors of its hypergradient."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core import trees
from suite.core.outer_loop import begin
from suite.core.unroll import (
    Hypergradient,
    InnerLoop,
    InnerLoss,
    OuterLoss,
    hypergradient,
    hypergradient_by_full_graph,
    through_recall,
)
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.registry import REGISTRIES
from suite.types import ClassRows, ImageShape, Labelled, Optimizer, Parameterization, Params, Setting, Split

SHAPE, CLASSES = ImageShape(1, 16, 16), 2
"""Images and classes of the small problems."""


class Problem:
    """One whole outer step on keyed random data: recall, inner loop, outer loss, and its gradient in the memory.

    The network is a registered architecture with `width` and `activation`; its inner loop has `steps` steps. Every
    draw is made on the CPU, so that all devices have the same numbers.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameterization: Parameterization,
        network: str,
        steps: int,
        *,
        width: int,
        activation: str = "relu",
        dtype: torch.dtype = torch.float64,
        device: torch.device = torch.device("cpu"),  # noqa: B008  # a constant
    ) -> None:
        key = Key(0)
        self.optimizer, self.parameterization, self.steps = optimizer, parameterization, steps
        memory = parameterization.init(SHAPE, CLASSES, 1.02, key("memory"))
        self.memory: Params = {k: v.to(device, dtype) for k, v in memory.items()}
        with global_generators(key("network")):
            recipe = REGISTRIES["architectures"][network].build(activation=activation, width=width)
            self.network: nn.Module = recipe.build(SHAPE, CLASSES).to(device)
        self.params: Params = {k: v.detach().to(dtype) for k, v in self.network.named_parameters()}
        size = (2 * CLASSES, SHAPE.channels, SHAPE.height, SHAPE.width)
        real = torch.randn(size, generator=key("real").generator(), dtype=torch.float64)
        self.real, self.real_labels = real.to(device, dtype), torch.arange(CLASSES, device=device).repeat(2)

    def gradient(self) -> Params:
        """The memory's gradient by the reverse sweep of `suite.core.unroll`."""
        return self._gradient_by(hypergradient)

    def gradient_by_full_graph(self) -> Params:
        """The memory's gradient by plain autograd through one graph of all steps."""
        return self._gradient_by(hypergradient_by_full_graph)

    def outer_loss(self, memory: Params) -> float:
        """The outer loss of a network trained on what the memory recalls, without any gradient."""
        recalled, inner, outer = self._losses(memory)
        loop = InnerLoop(inner, self.optimizer, recalled)
        params, state = self.params, self.optimizer.init(self.params)
        for t in range(self.steps):
            params, state, _ = loop.step(params, state, t)
        return float(outer(params))

    def _losses(self, memory: Params) -> tuple[Params, InnerLoss, OuterLoss]:
        """What is recalled, with the labels that the memory stores, and the losses of the inner and the outer loop."""
        classes = torch.arange(CLASSES, device=self.real.device)
        images = self.parameterization.recall(memory, classes)
        labels = classes.repeat_interleave(images.shape[1])
        recalled = {"images": torch.flatten(images, 0, 1)}
        if isinstance(self.parameterization, Labelled):
            recalled["labels"] = self.parameterization.labels(memory, classes).flatten(0, 1)

        def inner(params: Params, inputs: Params, t: int | Tensor) -> Tensor:
            rows = slice(int(t) % 2, None, 2) if len(labels) > CLASSES else slice(None)  # other images at odd steps
            taught = inputs.get("labels", labels)[rows]
            return cross_entropy(functional_call(self.network, params, (inputs["images"][rows],)), taught)

        def outer(params: Params) -> Tensor:
            return cross_entropy(functional_call(self.network, params, (self.real,)), self.real_labels)

        return recalled, inner, outer

    def _gradient_by(self, method: Callable[..., Hypergradient]) -> Params:
        leaves = trees.leaves(self.memory)
        recalled, inner, outer = self._losses(leaves)
        loop = InnerLoop(inner, self.optimizer, trees.detached(recalled))
        unroll = method(loop, [outer], self.params, self.steps)
        return through_recall(recalled, leaves, unroll.gradients)


def finite_difference_error(problem: Problem) -> float:
    """|central difference / directional derivative - 1| along a random direction; the least of three step sizes.

    A large step errs by the curvature, a small one by rounding, and how curved the loss is differs from row to row.
    """
    key = Key(1)("direction")
    drawn = {k: torch.randn(m.shape, generator=key(k).generator(), dtype=m.dtype) for k, m in problem.memory.items()}
    v = {k: direction.to(problem.real.device) for k, direction in drawn.items()}
    gradient = problem.gradient()
    derivative = sum(float((gradient[k] * v[k]).sum()) for k in v)
    errors = []
    for eps in (1e-4, 1e-5, 1e-6):
        ahead = problem.outer_loss({k: m + eps * v[k] for k, m in problem.memory.items()})
        behind = problem.outer_loss({k: m - eps * v[k] for k, m in problem.memory.items()})
        errors.append(abs((ahead - behind) / (2 * eps) / derivative - 1))
    return min(errors)


def relative_error(values: Params, reference: Params) -> float:
    """|values - reference| / |reference|, Euclidean norms over all tensors together, in float64.

    >>> relative_error({"w": torch.tensor([3.0, 4.5])}, {"w": torch.tensor([3.0, 4.0])})
    0.1
    """
    difference = sum(float((values[k].double() - reference[k].double()).square().sum()) for k in reference)
    size = sum(float(reference[k].double().square().sum()) for k in reference)
    return float((difference / size) ** 0.5)


def small_setting(parameterization: Parameterization | None = None) -> tuple[Setting, Params, ClassRows]:
    """A setting, a memory (of free images, unless said) and real images, on which an outer step takes a moment."""
    setting = Setting(
        SHAPE,
        CLASSES,
        REGISTRIES["architectures"]["mlp"].build(width=16),
        REGISTRIES["parameterizations"]["standard"].build() if parameterization is None else parameterization,
        "none",
        torch.device("cpu"),
    )
    # a little more than an image for each class, for its label or its addresses; free images leave the rest
    memory = begin(setting, SGDMomentum(), 1.1, Key(0)).memory
    images = torch.randn(20, SHAPE.channels, SHAPE.height, SHAPE.width, generator=Key(2).generator())
    return setting, memory, ClassRows.of(Split(images, torch.arange(20) % CLASSES), CLASSES)
