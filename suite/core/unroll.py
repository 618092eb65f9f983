"""The inner loop and its hypergradient: training as a function of what it is trained on, differentiated exactly.

The inner loop is, for t = 0, …, T-1,

    g_t = ∇_w L_t(w_t, x),    (w_{t+1}, s_{t+1}) = step(w_t, g_t, s_t),

with any registered optimizer's `step`, its state s, and the inputs x (recalled images and labels). The hypergradient is
d l(w_T) / d x. One inner step is a map F_t: (w_t, s_t, x) -> (w_{t+1}, s_{t+1}), so the chain rule sweeps backwards
over vector-Jacobian products of F_t, with cotangents a of w, u of s and x̄ of x:

    (a, u, x̄) <- (∇l(w_T), 0, 0)
    for t = T-1, …, 0:    (a, u, h) <- VJP of F_t at (w_t, s_t, x) applied to (a, u);    x̄ <- x̄ + h

Nothing here knows what an optimizer does: autograd differentiates its `step`. The time is linear in T. The memory that
is needed follows from `Retention`: states, from which a step is recomputed with its graph, or the graphs themselves.
`suite.core.captured` has a GPU replay the whole of it as one CUDA graph.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from suite.core import trees
from suite.errors import UsageError
from suite.types import Optimizer, Params, State
from suite.validation import NonNegativeInt, PositiveInt, checked

InnerLoss = Callable[[Params, Params, int | Tensor], Tensor]
"""L: (network parameters, inputs, t) -> loss of inner step t. Must be a pure function, since steps are recomputed.

`suite.core.captured` passes t as a tensor of one number on the device in steps that are not differentiated."""

OuterLoss = Callable[[Params], Tensor]
"""l: network parameters after the last step -> the outer loss, or one term of their sum."""

Watch = Callable[[int, Params], None]
"""(t, d l(w_T) / d w_t) -> None."""

TrainingState = tuple[Params, State]
"""(w_t, s_t): what inner step t starts from. Also its cotangents (a, u)."""


@checked
@dataclass(frozen=True)
class Retention:
    """What the forward sweep keeps for the reverse sweep: more memory for less time, the same result up to rounding.

    With G = min(`graphs`, T), R = T - G steps are recomputed from the states of the steps 0, `stride`, 2 `stride`, ….
    """

    graphs: NonNegativeInt = 0
    """Number of final steps whose autograd graph is kept; earlier steps are recomputed (gradient checkpointing)."""
    stride: PositiveInt = 1
    """Distance between the recomputed steps whose states are kept; states in between are recomputed, too."""

    def peak_bytes(self, steps: int, state_bytes: int, graph_bytes: int) -> int:
        """Bytes that an unroll of so many steps needs at its peak, from those of one state and of one step's graph.

        That is state_bytes (⌈R / stride⌉ + min(stride - 1, R) + G) + graph_bytes max(1, G).

        >>> Retention(graphs=0, stride=5).peak_bytes(steps=100, state_bytes=2, graph_bytes=10)
        58
        """
        graphs = min(self.graphs, steps)
        recomputed = steps - graphs
        states = math.ceil(recomputed / self.stride) + min(self.stride - 1, recomputed)
        return state_bytes * (states + graphs) + graph_bytes * max(1, graphs)

    @staticmethod
    def within(max_bytes: int, steps: int, state_bytes: int, graph_bytes: int) -> "Retention":
        """As many graphs at stride 1 as fit into `max_bytes`; where none fits, no graph and the least stride that fits.

        Where no stride fits either, the one that needs least. Graphs at a larger stride are not considered.

        >>> Retention.within(max_bytes=60, steps=100, state_bytes=2, graph_bytes=10)
        Retention(graphs=0, stride=5)
        """
        graphs = min(steps, (max_bytes - steps * state_bytes) // graph_bytes)
        if graphs > 0:
            return Retention(graphs)
        peaks = {
            stride: Retention(0, stride).peak_bytes(steps, state_bytes, graph_bytes)
            for stride in range(1, math.isqrt(steps) + 2)
        }
        fitting = [stride for stride, peak in peaks.items() if peak <= max_bytes]
        return Retention(0, min(fitting, default=min(peaks, key=peaks.__getitem__)))


@dataclass(frozen=True)
class _Span:
    """Consecutive inner steps that are pulled back together."""

    start: int
    end: int
    kept: bool
    """Whether their graph is kept; else there is one step, and its graph is made anew."""


@checked
@dataclass(frozen=True)
class Window:
    """Which steps of an unroll are differentiated, and after which of them the network is judged."""

    first: NonNegativeInt = 0
    """The first step that is differentiated; w and its state before it count as constants (truncation)."""
    judged: tuple[int, ...] = ()
    """Numbers of steps, above `first`, over which the outer loss is averaged; none: after all steps alone."""

    def spans(self, steps: int, graphs: int) -> list[_Span]:
        """The differentiated steps, cut where the network is judged; of the last `graphs` of them graphs are kept."""
        kept_from = max(self.first, steps - graphs)
        single = [_Span(t, t + 1, False) for t in range(self.first, kept_from)]
        cuts = [kept_from, *(t for t in sorted(self.judged) if kept_from < t < steps), steps]
        return single + [_Span(start, end, True) for start, end in pairwise(cuts) if start < end]


WHOLE = Window()
"""All steps are differentiated, and the network is judged after the last."""


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """Results of an unroll; none of them has a graph."""

    loss: Float[Tensor, ""]
    """The outer loss l(w_T)."""
    gradients: Params
    """d l(w_T) / d x, by the name of the input."""
    inner_losses: Float[Tensor, " steps"]
    """L_t(w_t, x) for t = 0, …, T-1."""
    params: Params
    """w_T."""


@runtime_checkable
class Chart(Protocol):
    """Other coordinates in which an inner loop keeps its weights, where these are exact (`suite.core.span`).

    A step of the weights is then the step of their coordinates with the gradients at `seen`. Nothing before the first
    differentiated step may be a constant other than w_0.
    """

    @property
    def outer_inputs(self) -> Params:
        """What the network's weights depend on beside their coordinates; inputs of the hypergradient, too."""
        ...

    def seen(self, params: Params, inputs: Params) -> Params:
        """Coordinates and x -> the weights for which the inner loss is a function of x."""
        ...

    def weights(self, params: Params, outer_inputs: Params) -> Params:
        """Coordinates -> the network's weights."""
        ...


@dataclass(frozen=True, eq=False)
class InnerLoop:
    """Training of a network on inputs, step by step: F_t as a function of (w_t, s_t)."""

    loss: InnerLoss
    """L."""
    optimizer: Optimizer
    """Its `step` gives (w_{t+1}, s_{t+1})."""
    inputs: Params
    """x."""
    chart: Chart | None = None
    """The coordinates of w; None: w itself."""

    def step(self, params: Params, state: State, t: int | Tensor) -> tuple[Params, State, Tensor]:
        """F_t without a graph: (w_{t+1}, s_{t+1}) and the loss of step t."""
        leaves = trees.leaves(params)
        inputs = trees.detached(self.inputs)
        seen = leaves if self.chart is None else self.chart.seen(leaves, inputs)
        loss = self.loss(seen, inputs, t)
        grads = used_gradients(loss, seen, "the inner loss")
        with torch.no_grad():
            params, state = self.optimizer.step(trees.detached(leaves), dict(zip(leaves, grads, strict=True)), state)
        return params, state, loss.detach()

    def record(self, params: Params, state: State, steps: Iterable[int | Tensor]) -> "Segment":
        """The inner steps of these numbers, starting from fresh leaves, with their graph."""
        first_params, inputs = trees.leaves(params), trees.leaves(self.inputs)
        first_state = {slot: trees.leaves(part) for slot, part in state.items()}
        params, state, losses = first_params, first_state, []
        for t in steps:
            seen = params if self.chart is None else self.chart.seen(params, inputs)
            loss = self.loss(seen, inputs, t)
            grads = used_gradients(loss, seen, "the inner loss", create_graph=True)
            params, state = self.optimizer.step(params, dict(zip(params, grads, strict=True)), state)
            losses.append(loss.detach())
        return Segment(first_params, first_state, inputs, params, state, losses)


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive inner steps with the autograd graph from their leaves to their last state."""

    params: Params
    """Leaves: w of the first step."""
    state: State
    """Leaves: s of the first step."""
    inputs: Params
    """Leaves: x."""
    next_params: Params
    """w after the last step."""
    next_state: State
    """s after the last step."""
    losses: list[Tensor]
    """Detached losses of the steps, in order."""


def hypergradient(
    loop: InnerLoop,
    outer_losses: Sequence[OuterLoss],
    params: Params,
    steps: int,
    retention: Retention = Retention(),
    watch: Watch | None = None,
    window: Window = WHOLE,
    state: State | None = None,
) -> Hypergradient:
    """d l(w_T) / d x after T = `steps` inner steps from w_0 = `params`, by this module's reverse sweep.

    s_0 is `state`, a constant; None: the optimizer's `init`. l is the sum of the outer losses; the graph of one is
    freed before the next is built. `window` says which steps are differentiated and where the network is judged.
    `watch` is called with T, and then with every step that is recomputed, in the order of the reverse sweep.
    Raises UsageError where a parameter or an input does not influence the loss, since its zero gradient would hide a
    mistake, and where torch has no second derivative.

    Two steps of rate 1/2 from 0 towards x lead to w_2 = 3/4 x; with w_1 held constant, d w_2 / d x = 1/2:

    >>> from suite.inner_optimizers.no_momentum import NoMomentum
    >>> def inner_loss(params, inputs, t):
    ...     return (params["w"] - inputs["x"]).square().sum() / 2
    >>> loop, start = InnerLoop(inner_loss, NoMomentum(lr=0.5), {"x": torch.ones(1)}), {"w": torch.zeros(1)}
    >>> outer = [lambda params: params["w"].sum()]
    >>> hypergradient(loop, outer, start, 2).gradients, hypergradient(loop, outer, start, 2, window=Window(1)).gradients
    ({'x': tensor([0.7500])}, {'x': tensor([0.5000])})
    """
    start = loop.optimizer.init(params) if state is None else state
    state = {slot: trees.detached(part) for slot, part in start.items()}
    params, forward = trees.detached(params), _Forward(loop, retention.stride, window.first)
    judgement = _Judgement(outer_losses, window.judged or (steps,), loop.chart)
    losses: list[Tensor] = []
    for t in range(window.first):
        params, state, loss = loop.step(params, state, t)
        losses.append(loss)
    spans = window.spans(steps, retention.graphs)
    judgement.at(window.first, params)
    for span in spans:
        params, state, span_losses = forward.over(span, params, state)
        losses += span_losses
        judgement.at(span.end, params)

    params_bar = judgement.added(steps, trees.zeros_like(params))
    if watch is not None:
        watch(steps, params_bar)
    state_bar: State = {slot: trees.zeros_like(part) for slot, part in state.items()}
    inputs_bar, last = trees.zeros_like(loop.inputs), trees.detached(judgement.weights(params))
    del params, state  # the graph of the last span is the sweep's alone
    for span in reversed(spans):
        if span.end < steps:
            params_bar = judgement.added(span.end, params_bar)
        params_bar, state_bar, inputs_bar = pull_back(forward.again(span), params_bar, state_bar, inputs_bar)
        if watch is not None and not span.kept:
            watch(span.start, params_bar)
    inner_losses = torch.stack(losses) if losses else judgement.loss.new_zeros(0)
    return Hypergradient(judgement.loss, inputs_bar | judgement.outer_inputs_bar, inner_losses, last)


def hypergradient_by_full_graph(
    loop: InnerLoop, outer_losses: Sequence[OuterLoss], params: Params, steps: int, window: Window = WHOLE
) -> Hypergradient:
    """The same hypergradient by plain autograd through one graph of all steps.

    The reference that `hypergradient` is tested against. It keeps the graphs of all steps.
    """
    inputs = trees.leaves(loop.inputs)
    params, state = trees.leaves(params), loop.optimizer.init(params)
    losses: list[Tensor] = []
    judged: list[Tensor] = []
    for t in range(steps):
        if t == window.first:
            params, state = trees.leaves(params), {slot: trees.detached(part) for slot, part in state.items()}
        loss = loop.loss(params, inputs, t)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params, state = loop.optimizer.step(params, dict(zip(params, grads, strict=True)), state)
        losses.append(loss.detach())
        if t + 1 in (window.judged or (steps,)):
            judged.append(torch.stack([term(params) for term in outer_losses]).sum())
    outer = torch.stack(judged).mean()
    gradients = torch.autograd.grad(outer, list(inputs.values()))
    by_name = dict(zip(inputs, gradients, strict=True))
    return Hypergradient(outer.detach(), by_name, torch.stack(losses), trees.detached(params))


# ---------------------------------------------------------------- the two sweeps


class _Forward:
    """The forward sweep, and what it keeps for the reverse one."""

    def __init__(self, loop: InnerLoop, stride: int, first: int) -> None:
        self._loop, self._stride, self._first = loop, stride, first
        self._states: dict[int, TrainingState] = {}
        self._segments: dict[int, Segment] = {}

    def over(self, span: _Span, params: Params, state: State) -> tuple[Params, State, list[Tensor]]:
        """(w, s) after a span, and the losses of its steps."""
        if span.kept:
            segment = self._segments[span.start] = self._loop.record(params, state, range(span.start, span.end))
            return segment.next_params, segment.next_state, segment.losses
        if (span.start - self._first) % self._stride == 0:
            self._states[span.start] = (params, state)
        params, state, loss = self._loop.step(params, state, span.start)
        return params, state, [loss]

    def again(self, span: _Span) -> Segment:
        """A span's steps with their graph, for the last time."""
        if span.kept:
            return self._segments.pop(span.start)
        if span.start not in self._states:
            known = span.start - (span.start - self._first) % self._stride
            params, state = self._states[known]
            for t in range(known, span.start):
                params, state, _ = self._loop.step(params, state, t)
                self._states[t + 1] = (params, state)
        return self._loop.record(*self._states.pop(span.start), [span.start])


class _Judgement:
    """The outer loss after some steps: their mean, and its gradients in the weights there."""

    def __init__(self, outer_losses: Sequence[OuterLoss], judged: Sequence[int], chart: Chart | None) -> None:
        self._outer_losses, self._judged, self._chart = outer_losses, judged, chart
        self._gradients: dict[int, Params] = {}
        self._losses: list[Tensor] = []
        self.outer_inputs_bar: Params = {}
        """Cotangents of what the weights depend on beside their coordinates."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The mean so far."""
        return self._losses[0] if len(self._losses) == 1 else torch.stack(self._losses).mean()

    def at(self, t: int, params: Params) -> None:
        """Judge w_t, if it is one of those."""
        if t not in self._judged:
            return
        loss, gradients = outer_value_and_grad(trees.detached(self.weights(params)), self._outer_losses)
        self._losses.append(loss)
        self._gradients[t] = gradients if self._chart is None else self._in_coordinates(self._chart, params, gradients)

    def weights(self, params: Params) -> Params:
        """The network's weights at these parameters."""
        return params if self._chart is None else self._chart.weights(params, self._chart.outer_inputs)

    def _in_coordinates(self, chart: Chart, params: Params, gradients: Params) -> Params:
        """Gradients in the weights -> those in their coordinates; adds to `outer_inputs_bar`."""
        leaves, outer = trees.leaves(params), trees.leaves(chart.outer_inputs)
        weights = chart.weights(leaves, outer)
        cotangents = [gradients[k] for k in weights]
        found = iter(torch.autograd.grad(list(weights.values()), [*leaves.values(), *outer.values()], cotangents))
        in_params = {k: next(found) for k in leaves}
        for k, v in zip(outer, found, strict=True):
            added = v / len(self._judged)
            self.outer_inputs_bar[k] = self.outer_inputs_bar[k] + added if k in self.outer_inputs_bar else added
        return in_params

    def added(self, t: int, params_bar: Params) -> Params:
        """The cotangent of w_t, with the outer loss's own part."""
        if t not in self._gradients:
            return params_bar
        scale = 1 / len(self._judged)
        own = self._gradients.pop(t)
        return {k: params_bar[k] + (g if scale == 1 else scale * g) for k, g in own.items()}


# ---------------------------------------------------------------- the parts of the sweep


def outer_value_and_grad(params: Params, outer_losses: Sequence[OuterLoss]) -> tuple[Tensor, Params]:
    """l(w_T) and ∇l(w_T), term by term."""
    first, *rest = outer_losses
    leaves = trees.leaves(params)
    loss = first(leaves)
    total, grads = loss.detach(), used_gradients(loss, leaves, "the outer loss")
    for term in rest:
        loss = term(leaves)
        total = total + loss.detach()
        grads = tuple(a + b for a, b in zip(grads, used_gradients(loss, leaves, "the outer loss"), strict=True))
    return total, dict(zip(leaves, grads, strict=True))


def pull_back(
    segment: Segment, params_bar: Params, state_bar: State, inputs_bar: Params
) -> tuple[Params, State, Params]:
    """The VJP of a segment: cotangents (a, u) of its last state and x̄ -> (a, u) of its first state and x̄ + h."""
    outputs, cotangents = list(segment.next_params.values()), list(params_bar.values())
    for slot, part in segment.next_state.items():
        for k, v in part.items():
            if v.requires_grad:  # a slot may hold a constant
                outputs.append(v)
                cotangents.append(state_bar[slot][k])
    state_leaves = [v for part in segment.state.values() for v in part.values() if v.requires_grad]
    leaves = [*segment.params.values(), *segment.inputs.values(), *state_leaves]
    try:
        grads = iter(torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True))
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise UsageError(
            f"the network or optimizer has no second derivative in torch ({error}); use another"
        ) from error
    params_grads = _all_used({k: next(grads) for k in segment.params})
    inputs_grads = _all_used({k: next(grads) for k in segment.inputs})
    state_grads = {  # an optimizer may ignore its state
        slot: {
            k: torch.zeros_like(v) if not v.requires_grad or (g := next(grads)) is None else g for k, v in part.items()
        }
        for slot, part in segment.state.items()
    }
    return params_grads, state_grads, {k: inputs_bar[k] + g for k, g in inputs_grads.items()}


def through_recall(recalled: Params, leaves: Params, recalled_bar: Params) -> Params:
    """The VJP of recall: cotangents of what is recalled, by name -> gradients of the memory's tensors, the `leaves`.

    Raises UsageError for a tensor that nothing recalled depends on.
    """
    grads: Sequence[Tensor | None] = [None] * len(leaves)
    outputs = {name: v for name, v in recalled.items() if v.requires_grad}
    if outputs:
        bars = [recalled_bar[name] for name in outputs]
        grads = torch.autograd.grad(list(outputs.values()), list(leaves.values()), bars, allow_unused=True)
    memory_grads = {}
    for name, grad in zip(leaves, grads, strict=True):
        if grad is None:
            raise UsageError(
                f"the memory's '{name}' takes no part in what is recalled, so it would never be learned; use it in "
                "recall, without detaching it, or leave it out of init"
            )
        memory_grads[name] = grad
    return memory_grads


def _all_used(grads: dict[str, Tensor | None]) -> Params:
    """The gradients, none of which may be missing: a zero would hide a mistake."""
    used = {}
    for name, grad in grads.items():
        if grad is None:
            raise UsageError(
                f"'{name}' takes no part in the inner step, so it has no hypergradient; check the inner loss, and that "
                "the optimizer's step uses the gradients it is given"
            )
        used[name] = grad
    return used


def used_gradients(loss: Tensor, params: Params, what: str, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradients of a loss in every parameter. Raises UsageError for one that takes no part, by its name."""
    grads = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph, allow_unused=True)
    for name, grad in zip(params, grads, strict=True):
        if grad is None:
            raise UsageError(f"the parameter '{name}' takes no part in {what}; remove it from the network")
    return grads
