"""The inner loop and its hypergradient: training as a function of what it is trained on, differentiated exactly.

The inner loop is, for t = 0, …, T-1,

    g_t = ∇_w L_t(w_t, x),    (w_{t+1}, s_{t+1}) = step(w_t, g_t, s_t),

with any registered optimizer's `step`, its state s, and the inputs x (the recalled images). The hypergradient is
d l(w_T) / d x. One inner step is a map F_t: (w_t, s_t, x) -> (w_{t+1}, s_{t+1}), so the chain rule sweeps backwards
over vector-Jacobian products of F_t, with cotangents a of w, u of s and x̄ of x:

    (a, u, x̄) <- (∇l(w_T), 0, 0)
    for t = T-1, …, 0:    (a, u, h) <- VJP of F_t at (w_t, s_t, x) applied to (a, u);    x̄ <- x̄ + h

Nothing here knows what an optimizer does: autograd differentiates its `step`. The time is linear in T. The memory is
whatever `Retention` keeps: states, from which a step is replayed with its graph, or the graphs themselves.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from suite.errors import UsageError
from suite.types import InnerOptimizer, Params, State
from suite.validation import NonNegativeInt, PositiveInt, checked

InnerLoss = Callable[[Params, Params, int | Tensor], Tensor]
"""(network parameters, inputs, t) -> loss of inner step t. Must be a pure function: it is replayed.

`suite.core.captured` gives t as a tensor of one number on the device."""

Watch = Callable[[int, Params], None]
"""(t, d outer loss / d w_t) -> None."""

OuterLoss = Callable[[Params], Tensor]
"""Network parameters after the last step -> what the memory is judged by, or a part of it."""


@checked
@dataclass(frozen=True)
class Retention:
    """What the forward sweep keeps for the way back: more memory for less work, the same result up to rounding.

    `graphs`: the last so many steps keep one graph and are not replayed (the most memory, the least work).
    `stride`: of the other steps, every stride-th state is kept; those between are run again (the least memory).
    """

    graphs: NonNegativeInt = 0
    stride: PositiveInt = 1

    def size(self, steps: int, state: int, graph: int) -> int:
        """Bytes an unroll needs at its peak, from those of a state (weights, the optimizer's slots) and of a graph."""
        graphs = min(self.graphs, steps)
        replayed = steps - graphs
        kept = math.ceil(replayed / self.stride) + min(self.stride - 1, replayed)
        return state * (kept + graphs) + graph * max(1, graphs)

    @staticmethod
    def within(memory: int, steps: int, state: int, graph: int) -> "Retention":
        """The least work that a memory of so many bytes affords; where it affords nothing, what needs the least."""
        graphs = min(steps, (memory - steps * state) // graph)
        if graphs > 0:
            return Retention(graphs)
        sizes = {stride: Retention(0, stride).size(steps, state, graph) for stride in range(1, math.isqrt(steps) + 2)}
        fitting = [stride for stride, size in sizes.items() if size <= memory]
        return Retention(0, min(fitting, default=min(sizes, key=sizes.__getitem__)))


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """What an unroll gives: the outer loss, its gradient in each input, and the inner losses in order."""

    loss: Float[Tensor, ""]
    gradients: Params
    inner_losses: Float[Tensor, " steps"]


@dataclass(frozen=True, eq=False)
class Steps:
    """Inner steps with their graph: the leaves they started from, what they made of them, and the losses on the way."""

    params: Params
    state: State
    inputs: Params
    next_params: Params
    next_state: State
    losses: list[Tensor]


def hypergradient(
    inner_loss: InnerLoss,
    outer_loss: OuterLoss | Sequence[OuterLoss],
    params: Params,
    inputs: Params,
    optimizer: InnerOptimizer,
    steps: int,
    retention: Retention = Retention(),
    watch: Watch | None = None,
) -> Hypergradient:
    """d outer_loss(w_T) / d inputs after `steps` inner steps from `params`, by the reverse sweep of this module.

    An outer loss in parts is their sum; one part's graph is gone before the next is made. `watch` is told on the way
    back: of t = T, and then of every step that is replayed.
    Raises UsageError where a parameter or an input takes no part, since its zero gradient would hide a mistake, and
    where torch lacks a second derivative.
    """
    params, state = _detached(params), _detached_state(optimizer.init(params))
    replayed = max(0, steps - retention.graphs)
    kept: dict[int, tuple[Params, State]] = {}
    losses: list[Tensor] = []
    for t in range(replayed):
        if t % retention.stride == 0:
            kept[t] = (params, state)
        params, state, loss = inner_step(inner_loss, params, state, inputs, optimizer, t)
        losses.append(loss)
    last = steps_with_graph(inner_loss, params, state, inputs, optimizer, range(replayed, steps))
    losses += last.losses

    final, params_bar = outer_value_and_grad(last.next_params, outer_loss)
    if watch is not None:
        watch(steps, params_bar)
    state_bar: State = {slot: {k: torch.zeros_like(v) for k, v in part.items()} for slot, part in state.items()}
    inputs_bar = {k: torch.zeros_like(v) for k, v in inputs.items()}
    if replayed < steps:
        params_bar, state_bar, inputs_bar = pull_back(last, params_bar, state_bar, inputs_bar)
    del last  # with what it started from, which no replay needs

    for t in reversed(range(replayed)):
        if t not in kept:
            start = t - t % retention.stride
            params, state = kept[start]
            for between in range(start, t):
                params, state, _ = inner_step(inner_loss, params, state, inputs, optimizer, between)
                kept[between + 1] = (params, state)
        step = steps_with_graph(inner_loss, *kept.pop(t), inputs, optimizer, [t])
        params_bar, state_bar, inputs_bar = pull_back(step, params_bar, state_bar, inputs_bar)
        if watch is not None:
            watch(t, params_bar)
    return Hypergradient(final, inputs_bar, torch.stack(losses) if losses else final.new_zeros(0))


def hypergradient_by_full_graph(
    inner_loss: InnerLoss,
    outer_loss: OuterLoss | Sequence[OuterLoss],
    params: Params,
    inputs: Params,
    optimizer: InnerOptimizer,
    steps: int,
) -> Hypergradient:
    """The same hypergradient by plain autograd through one graph of all steps: the oracle, and hungry for memory."""
    inputs = _leaves(inputs)
    params, state = _leaves(params), optimizer.init(params)
    losses: list[Tensor] = []
    for t in range(steps):
        loss = inner_loss(params, inputs, t)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params, state = optimizer.step(params, dict(zip(params, grads, strict=True)), state)
        losses.append(loss.detach())
    final = torch.stack([part(params) for part in _parts(outer_loss)]).sum()
    gradients = torch.autograd.grad(final, list(inputs.values()))
    return Hypergradient(final.detach(), dict(zip(inputs, gradients, strict=True)), torch.stack(losses))


def _parts(outer_loss: OuterLoss | Sequence[OuterLoss]) -> Sequence[OuterLoss]:
    return outer_loss if isinstance(outer_loss, Sequence) else [outer_loss]


def outer_value_and_grad(params: Params, outer_loss: OuterLoss | Sequence[OuterLoss]) -> tuple[Tensor, Params]:
    """The outer loss and its gradient in the parameters."""
    first, *rest = _parts(outer_loss)
    leaves = _leaves(params)
    loss = first(leaves)
    total, gradients = loss.detach(), _gradients(loss, leaves, "the outer loss")
    for part in rest:
        loss = part(leaves)
        total = total + loss.detach()
        gradients = tuple(a + b for a, b in zip(gradients, _gradients(loss, leaves, "the outer loss"), strict=True))
    return total, dict(zip(leaves, gradients, strict=True))


def inner_step(
    inner_loss: InnerLoss, params: Params, state: State, inputs: Params, optimizer: InnerOptimizer, t: int | Tensor
) -> tuple[Params, State, Tensor]:
    """One inner step that leaves no graph behind."""
    leaves = _leaves(params)
    loss = inner_loss(leaves, _detached(inputs), t)
    grads = _gradients(loss, leaves, f"the loss of inner step {t}")
    with torch.no_grad():
        params, state = optimizer.step(_detached(leaves), dict(zip(leaves, grads, strict=True)), state)
    return params, state, loss.detach()


def steps_with_graph(
    inner_loss: InnerLoss,
    params: Params,
    state: State,
    inputs: Params,
    optimizer: InnerOptimizer,
    steps: Iterable[int | Tensor],
) -> Steps:
    """The same inner steps, from fresh leaves, with one graph from them to the last one's outcome."""
    first_params, inputs = _leaves(params), _leaves(inputs)
    first_state = {slot: _leaves(part) for slot, part in state.items()}
    params, state, losses = first_params, first_state, []
    for t in steps:
        loss = inner_loss(params, inputs, t)
        grads = _gradients(loss, params, f"the loss of inner step {t}", create_graph=True)
        params, state = optimizer.step(params, dict(zip(params, grads, strict=True)), state)
        losses.append(loss.detach())
    return Steps(first_params, first_state, inputs, params, state, losses)


def pull_back(steps: Steps, params_bar: Params, state_bar: State, inputs_bar: Params) -> tuple[Params, State, Params]:
    """Cotangents of the steps' outcome -> cotangents of what it started from; the inputs' are added up."""
    outcomes = list(steps.next_params.values())
    cotangents = list(params_bar.values())
    for slot, part in steps.next_state.items():
        for k, v in part.items():
            if v.requires_grad:
                outcomes.append(v)
                cotangents.append(state_bar[slot][k])
    state_leaves = [v for part in steps.state.values() for v in part.values()]
    leaves = [*steps.params.values(), *steps.inputs.values(), *state_leaves]
    try:
        # An optimizer may ignore its state; parameters and inputs are checked below.
        found = torch.autograd.grad(outcomes, leaves, cotangents, allow_unused=True)
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise UsageError(
            f"the network or optimizer has no second derivative in torch ({error}); use another"
        ) from error
    n, m = len(steps.params), len(steps.inputs)
    for name, gradient in zip([*steps.params, *steps.inputs], found[: n + m], strict=True):
        if gradient is None:
            raise UsageError(
                f"'{name}' takes no part in the inner step, so it has no hypergradient; check the inner loss, and that "
                "the optimizer's step uses the gradients it is given"
            )
    state_found = iter(found[n + m :])
    return (
        dict(zip(steps.params, found[:n], strict=True)),
        {
            slot: {k: torch.zeros_like(v) if (g := next(state_found)) is None else g for k, v in part.items()}
            for slot, part in steps.state.items()
        },
        {k: inputs_bar[k] + g for k, g in zip(steps.inputs, found[n : n + m], strict=True)},
    )


def through_recall(images: Tensor, leaves: Params, images_bar: Tensor) -> Params:
    """Cotangents of recalled images -> cotangents of the memory's tensors that they were recalled from.

    Raises UsageError for a tensor that takes no part in them.
    """
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if images.requires_grad:
        found = torch.autograd.grad(images, list(leaves.values()), images_bar, allow_unused=True)
    gradients = {}
    for name, gradient in zip(leaves, found, strict=True):
        if gradient is None:
            raise UsageError(
                f"the memory's '{name}' takes no part in what is recalled, so it would never be learned; use it in "
                "recall, without detaching it, or leave it out of init"
            )
        gradients[name] = gradient
    return gradients


def _gradients(loss: Tensor, params: Params, what: str, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradient of a loss in every parameter; a parameter without one is refused by name."""
    grads = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph, allow_unused=True)
    for name, gradient in zip(params, grads, strict=True):
        if gradient is None:
            raise UsageError(f"the parameter '{name}' takes no part in {what}; remove it from the network")
    return grads


def _leaves(params: Params) -> Params:
    return {k: v.detach().requires_grad_() for k, v in params.items()}


def _detached(params: Params) -> Params:
    return {k: v.detach() for k, v in params.items()}


def _detached_state(state: State) -> State:
    return {slot: _detached(part) for slot, part in state.items()}
