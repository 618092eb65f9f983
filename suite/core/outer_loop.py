"""The outer loop: a memory, improved step by step. Knows no file, no configuration and no tracker."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from suite.errors import RunError
from suite.keys import Key
from suite.types import ClassRows, InnerOptimizer, Objective, Params, Setting, State

PAPER_ITERATIONS = 50_000
"""Outer steps of a memory (paper, A.1)."""

LOGGED_POINTS = 500
"""About so many outer steps of a run have their metrics logged."""


@dataclass(frozen=True, eq=False)
class OuterState:
    """Where the outer loop is after `iteration` steps: all that it needs to go on, and what the last step measured."""

    iteration: int
    memory: Params
    state: State
    metrics: dict[str, Tensor]
    skipped: int = 0
    """Outer steps that changed nothing, since their numbers were not finite."""


class NotFinite(RunError):
    """NaN or infinity in the training of a memory."""


def distill(
    setting: Setting,
    objective: Objective,
    optimizer: InnerOptimizer,
    real: ClassRows,
    start: OuterState,
    key: Key,
    iterations: int,
    clip: float | None,
    max_skipped: int = 0,
) -> Iterator[OuterState]:
    """Yield the memory after every outer step from `start` to `iterations`.

    Step i draws from `key(i)` alone, so starting from any OuterState gives the same bits. The gradient's norm, over all
    tensors of the memory together, is clipped to `clip`. A step with NaN or infinity in a metric or in the new memory
    changes nothing and is counted, up to `max_skipped` of them; the next one raises NotFinite, which names step and
    quantity.
    """
    memory, state, skipped = start.memory, start.state, start.skipped
    for iteration in range(start.iteration, iterations):
        gradients, metrics = objective.gradients(setting, memory, real, key(iteration))
        gradients = _with_penalty(setting, memory, gradients)
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        if clip is not None:
            scale = (clip / (norm + 1e-6)).clamp(max=1)
            gradients = {k: g * scale for k, g in gradients.items()}
        with torch.no_grad():
            new = optimizer.step(memory, gradients, state)
        metrics |= {"hypergradient_norm": norm}
        bad = _not_finite(metrics, new[0])
        if not bad:
            memory, state = new
        elif skipped < max_skipped:
            skipped, metrics = skipped + 1, {}
        else:
            before = f" ({skipped} such steps were skipped before)" if skipped else ""
            raise NotFinite(
                f"outer step {iteration + 1}: {', '.join(bad)} became NaN or infinite{before}; "
                "lower the outer or inner learning rate, or clip the gradient harder"
            )
        yield OuterState(iteration + 1, memory, state, metrics, skipped)


def begin(setting: Setting, optimizer: InnerOptimizer, images_per_class: float, key: Key) -> OuterState:
    """A fresh memory and outer state at iteration 0."""
    memory = setting.parameterization.init(setting.shape, setting.classes, images_per_class, key("memory"))
    memory = {k: v.to(setting.device) for k, v in memory.items()}
    return OuterState(0, memory, optimizer.init(memory), {})


def to_tensors(progress: OuterState) -> Params:
    """What a checkpoint holds of it."""
    slots = {f"state/{slot}/{k}": v for slot, part in progress.state.items() for k, v in part.items()}
    return {f"memory/{k}": v for k, v in progress.memory.items()} | slots


def from_tensors(iteration: int, tensors: Params, device: torch.device) -> OuterState:
    """What `to_tensors` held."""
    memory: Params = {}
    state: dict[str, Params] = {}
    for name, value in tensors.items():
        kind, rest = name.split("/", 1)
        if kind == "memory":
            memory[rest] = value.to(device)
        else:
            slot, k = rest.split("/", 1)
            state.setdefault(slot, {})[k] = value.to(device)
    return OuterState(iteration, memory, state, {})


def _with_penalty(setting: Setting, memory: Params, gradients: Params) -> Params:
    leaves = {k: v.detach().requires_grad_() for k, v in memory.items()}
    penalty = setting.parameterization.penalty(leaves)
    if not penalty.requires_grad:
        return gradients
    found = torch.autograd.grad(penalty, list(leaves.values()), allow_unused=True)  # a penalty may spare some tensors
    return {k: g if p is None else g + p for (k, g), p in zip(gradients.items(), found, strict=True)}


def _not_finite(metrics: dict[str, Tensor], memory: Params) -> list[str]:
    """The quantities that hold NaN or infinity."""
    quantities = metrics | {f"memory '{k}'": v for k, v in memory.items()}
    finite = torch.stack([v.isfinite().all() for v in quantities.values()])
    if finite.all():  # the only wait for the device in an outer step
        return []
    return [name for name, ok in zip(quantities, finite.tolist(), strict=True) if not ok]
