"""The outer loop: gradient descent on a memory. Knows no file, no configuration and no tracker.

One outer step is, with the memory m, the outer optimizer's state s, the objective's gradient and the penalty p,

    g = d objective(m) / dm + ∇p(m),    ĝ = g min(1, c / |g|),    (m, s) <- optimizer.step(m, ĝ, s),

where |g| is the norm over all tensors of the memory together and c is `max_grad_norm`. `step` is that as a pure
function of an `OuterState`; a learning loop calls it, and logs and saves the states in between.

With R rollouts, d objective(m) / dm is the mean of R gradients, each of draws of its own (a network, real images, an
augmentation). They are summed in the order of the rollouts, whether one process computed them or several
(`suite.core.ranks`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from suite.core import ranks, trees, turns
from suite.errors import RunError, UsageError
from suite.keys import Key
from suite.registry import name_of
from suite.types import (
    Averaging,
    ClassRows,
    Objective,
    Optimizer,
    Parameterization,
    Params,
    Remembering,
    Setting,
    Start,
    StartsFromImages,
    State,
)

PAPER_ITERATIONS = 50_000
"""Outer steps of a memory (paper, A.1)."""

LOGGED_POINTS = 500
"""Approximate number of outer steps whose metrics are logged."""


@dataclass(frozen=True, eq=False)
class OuterState:
    """State of the outer loop after `iteration` steps; enough to resume."""

    iteration: int
    """Outer steps done, skipped ones included."""
    memory: Params
    """The memory's tensors."""
    optimizer_state: State
    """The outer optimizer's state."""
    metrics: dict[str, Tensor]
    """Scalars that the last step measured (`loss` and `hypergradient_norm` among them); empty at the start, after a
    skipped step and when resumed."""
    skipped: int = 0
    """Outer steps that changed nothing, because a number was NaN or infinite."""
    kept: Params = field(default_factory=dict)
    """What the objective keeps from step to step (`suite.types.Remembering`); empty before the first."""


class NotFinite(RunError):
    """NaN or infinity in the training of a memory."""


def begin(
    setting: Setting,
    optimizer: Optimizer,
    images_per_class: float,
    key: Key,
    start: Start | None = None,
    real: ClassRows | None = None,
) -> OuterState:
    """A fresh memory of `images_per_class` real images' worth of stored numbers, at iteration 0.

    It recalls what a start makes of training images, `real`; without one it is as its parameterization draws it. Raises
    UsageError for a parameterization that offers no start from images.
    """
    parameterization, size = setting.parameterization, (setting.shape, setting.classes, images_per_class)
    memory = parameterization.init(*size, key("memory"))
    if start is not None:
        if real is None:
            raise UsageError("a start is made of training images, and there are none")
        images = start.images(setting, real, parameterization.per_class(*size), key("start")).cpu()
        memory = _fitted(parameterization, memory, images)
    memory = {k: v.to(setting.device) for k, v in memory.items()}
    return OuterState(0, memory, optimizer.init(memory), {})


def _fitted(parameterization: Parameterization, memory: Params, images: Tensor) -> Params:
    if not isinstance(parameterization, StartsFromImages):
        raise UsageError(
            f"{name_of(parameterization)} offers no start from images (`fitted`); leave the start out, for noise"
        )
    fitted = parameterization.fitted(memory, images)
    shapes, expected = ({k: tuple(v.shape) for k, v in tensors.items()} for tensors in (fitted, memory))
    if shapes != expected:
        raise UsageError(
            f"{name_of(parameterization)}.fitted gave {shapes}, not {expected}, which would change the budget"
        )
    return fitted


def judged(optimizer: Optimizer, state: OuterState) -> Params:
    """The memory that is judged and kept: the average that the optimizer keeps, or that of the last step."""
    if isinstance(optimizer, Averaging):
        return optimizer.average(state.memory, state.optimizer_state)
    return state.memory


def step(
    setting: Setting,
    objective: Objective,
    optimizer: Optimizer,
    real: ClassRows,
    state: OuterState,
    key: Key,
    max_grad_norm: float | None,
    max_skipped: int = 0,
    rollouts: int = 1,
) -> OuterState:
    """One outer step, as this module's docstring defines it; `max_grad_norm` None does not clip.

    The step draws from `key(state.iteration)` alone, so that a resumed run continues with the same bits. Metrics are
    means over rollouts. Where an objective keeps tensors, each rollout has its own.
    `hypergradient_norm`, among the new state's metrics, is |g| before clipping. A step that gives NaN or infinity in a
    metric or in the memory changes neither the memory nor the optimizer's state and is counted in `skipped`; after
    `max_skipped` of them the next raises NotFinite, which names the step and the quantity. UsageError: `require_given`.
    """
    first = not state.metrics  # of the run, since it was resumed or after a skipped step; later ones cost nothing more

    def one_rollout(i: int) -> Params:
        kept = _part(state.kept, _of_rollout(i))
        return _rollout(setting, objective, real, state.memory, kept, _key_of(key(state.iteration), i), first)

    every = _every_rollout(one_rollout, rollouts, state.iteration)
    grads, metrics = (_mean([_part(gave, part) for gave in every]) for part in (GRADIENT, METRIC))
    kept = {_of_rollout(i) + k: v for i, gave in enumerate(every) for k, v in _part(gave, KEPT).items()}
    grads = _with_penalty(setting, state.memory, grads)
    norm = torch.stack([g.norm() for g in grads.values()]).norm()
    grads = _clipped(grads, norm, max_grad_norm)
    with torch.no_grad():
        memory, optimizer_state = optimizer.step(state.memory, grads, state.optimizer_state)
    metrics = metrics | {"hypergradient_norm": norm}
    not_finite = _not_finite(metrics, memory)
    iteration = state.iteration + 1
    if not not_finite:
        return OuterState(iteration, memory, optimizer_state, metrics, state.skipped, kept)
    if state.skipped < max_skipped:
        return replace(state, iteration=iteration, metrics={}, skipped=state.skipped + 1, kept=kept)
    before = f" ({state.skipped} such steps were skipped before)" if state.skipped else ""
    raise NotFinite(
        f"outer step {iteration}: {', '.join(not_finite)} became NaN or infinite{before}; "
        "lower the outer or inner learning rate, or clip the gradient harder"
    )


# ---------------------------------------------------------------- rollouts

GRADIENT, METRIC, KEPT = "gradient/", "metric/", "kept/"
"""Before the names of what a rollout gives."""


def _rollout(
    setting: Setting, objective: Objective, real: ClassRows, memory: Params, kept: Params, key: Key, first: bool
) -> Params:
    """The gradient and metrics of one rollout, and what its objective keeps after it; those of a first are checked."""
    if isinstance(objective, Remembering):
        kept = kept or objective.begin(setting, memory, real, key("begin"))
        given: tuple[Params, ...] = objective.gradients_after(setting, memory, real, key, kept)
    else:
        given = objective.gradients(setting, memory, real, key)
    if first:
        require_given(objective, memory, given, isinstance(objective, Remembering))
    names = (GRADIENT, METRIC, KEPT) if isinstance(objective, Remembering) else (GRADIENT, METRIC)
    return {part + k: v for part, tensors in zip(names, given, strict=True) for k, v in tensors.items()}


def require_given(objective: Objective, memory: Params, given: Any, remembering: bool = False) -> None:
    """Refuse what an objective gave in a step, unless it is a gradient of this memory and numbers to log.

    `remembering`: it was given by `gradients_after`, with what the objective keeps.

    Reads names, shapes and types alone, so that nothing waits for a device. Raises UsageError, which says which
    objective, what it gave and what it must give.
    """
    who = f"{name_of(objective)}.{'gradients_after' if remembering else 'gradients'} gave"
    parts = ("gradients", "metrics", "kept") if remembering else ("gradients", "metrics")
    if not isinstance(given, tuple) or len(given) != len(parts) or not all(isinstance(part, dict) for part in given):
        what = [type(part).__name__ for part in given] if isinstance(given, tuple) else type(given).__name__
        raise UsageError(f"{who} {what}, and must give ({', '.join(parts)}), each a dictionary of tensors")
    grads, metrics = (_kinds_of(part) for part in given[:2])
    if grads != _kinds_of(memory):
        raise UsageError(
            f"{who} the gradients {_listed(grads)}, and must give one for each tensor of the memory, of its shape and "
            f"type: {_listed(_kinds_of(memory))}"
        )
    if "loss" not in metrics or not all(isinstance(v, Tensor) and v.numel() == 1 for v in given[1].values()):
        raise UsageError(
            f"{who} the metrics {_listed(metrics)}, and must give tensors of one number each, 'loss' among them, as in "
            "{'loss': loss.detach()}"
        )
    for name, value in given[2].items() if remembering else ():
        if not isinstance(value, Tensor):
            raise UsageError(f"{who} as kept '{name}' a {type(value).__name__}, and must keep tensors alone")


def _kinds_of(named: dict[str, Any]) -> dict[str, str]:
    """For each value the type and shape of a tensor, as 'float32 (2, 3)'; of anything else the type."""
    return {k: _kind(v) for k, v in named.items()}


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _listed(kinds: dict[str, str]) -> str:
    return "{" + ", ".join(f"'{name}': {kind}" for name, kind in kinds.items()) + "}"


def _every_rollout(one: Callable[[int], Params], rollouts: int, step: int) -> list[Params]:
    """What each rollout gives, in order, by this process or by all of its ranks."""
    team = ranks.here()
    if team is None:
        return [one(i) for i in range(rollouts)]
    return team.gathered([one(i) for i in team.own(rollouts)], step)


def _key_of(step: Key, i: int) -> Key:
    """The key of a step's rollout: of the first that of a step without others, so that more rollouts only add some."""
    return step if i == 0 else step("rollout", i)


def _of_rollout(i: int) -> str:
    """Before the names of what rollout i keeps: of the first nothing, as where there are no others."""
    return "" if i == 0 else f"rollout {i}/"


def _part(tensors: Params, prefix: str) -> Params:
    """Those whose names begin so, without it; with no prefix those of no rollout but the first."""
    if not prefix:
        return {k: v for k, v in tensors.items() if not k.startswith("rollout ")}
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _mean(of_each: list[Params]) -> Params:
    """The mean of named tensors, summed in order; one alone is given back as it is."""
    if len(of_each) == 1:
        return of_each[0]
    return {k: reduce(torch.add, [tensors[k] for tensors in of_each]) / len(of_each) for k in of_each[0]}


# ---------------------------------------------------------------- what a checkpoint holds


def to_tensors(state: OuterState) -> Params:
    """What a checkpoint stores: `memory/NAME`, the optimizer's `state/SLOT/NAME`, and the objective's `kept/NAME`."""
    slots = {f"state/{slot}/{k}": v for slot, part in state.optimizer_state.items() for k, v in part.items()}
    kept = {f"kept/{k}": v for k, v in state.kept.items()}
    return {f"memory/{k}": v for k, v in state.memory.items()} | slots | kept


def from_tensors(iteration: int, tensors: Params, device: torch.device) -> OuterState:
    """The inverse of `to_tensors`, on a device; metrics are empty and no step counts as skipped."""
    memory: Params = {}
    kept: Params = {}
    slots: State = {}
    for name, value in tensors.items():
        kind, rest = name.split("/", 1)
        if kind == "memory":
            memory[rest] = value.to(device)
        elif kind == "kept":
            kept[rest] = value.to(device)
        else:
            slot, k = rest.split("/", 1)
            slots.setdefault(slot, {})[k] = value.to(device)
    return OuterState(iteration, memory, slots, {}, kept=kept)


def _with_penalty(setting: Setting, memory: Params, grads: Params) -> Params:
    """g + ∇p(m); a penalty may depend on some of the tensors only, or on none."""
    leaves = trees.leaves(memory)
    penalty = setting.parameterization.penalty(leaves)
    if not penalty.requires_grad:
        return grads
    of_penalty = dict(zip(leaves, torch.autograd.grad(penalty, list(leaves.values()), allow_unused=True), strict=True))
    return {k: g if (p := of_penalty[k]) is None else g + p for k, g in grads.items()}


def _clipped(grads: Params, norm: Float[Tensor, ""], max_norm: float | None) -> Params:
    """The gradients, scaled down to the norm `max_norm` if theirs is larger (as torch's clip_grad_norm_ does)."""
    if max_norm is None:
        return grads
    scale = (max_norm / (norm + 1e-6)).clamp(max=1)
    return {k: g * scale for k, g in grads.items()}


def _not_finite(metrics: dict[str, Tensor], memory: Params) -> list[str]:
    """Names of the quantities that hold NaN or infinity."""
    quantities = metrics | {f"memory '{k}'": v for k, v in memory.items()}
    finite = torch.stack([v.isfinite().all() for v in quantities.values()])
    turns.hand_over()
    if finite.all():  # here an outer step waits for the device
        return []
    return [name for name, ok in zip(quantities, finite.tolist(), strict=True) if not ok]
