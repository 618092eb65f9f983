"""The unroll of `suite.core.unroll` as device work only, which a GPU replays as one CUDA graph.

On a GPU a small network's step takes as long as the launches of its kernels, and a graph launches them all at once.
All that `hypergradient` does on the device (the inner steps, the outer loss, the way back) is captured once, on tensors
that keep their addresses, and replayed in every outer step. Nothing in it waits for the device, and every number that
changes from one outer step to the next lies in a tensor. On a CPU the same functions run without a capture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from suite.core import trees
from suite.core.unroll import Hypergradient, InnerLoop, OuterLoss, Retention, TrainingState, Window, hypergradient
from suite.types import Params, State

Result = TypeVar("Result")


@runtime_checkable
class Graph(Protocol):
    """A CUDA graph."""

    def replay(self) -> None:
        """Do what was captured."""
        ...


@dataclass(frozen=True, eq=False)
class Replay(Generic[Result]):
    """A CUDA graph, and what has to stay where it is for it."""

    graph: Graph
    """What the device does."""
    result: Result
    """The tensors that it writes."""
    work: Callable[[], Result]
    """What was captured. It holds what the graph reads by address, such as a network's buffers."""

    def __call__(self) -> Result:
        """Have the device do the work once more."""
        self.graph.replay()
        return self.result


class CapturedHypergradient:
    """`hypergradient` of losses whose data lie at fixed addresses: built once, called for every outer step.

    What the losses read besides their arguments must be refilled in place between calls, never replaced. `judged` are
    the numbers of steps after which the network is judged, as in `Window`.
    """

    def __init__(
        self,
        loop: InnerLoop,
        outer_losses: Sequence[OuterLoss],
        params: Params,
        steps: int,
        retention: Retention,
        judged: tuple[int, ...] = (),
    ) -> None:
        self._inputs = trees.copies(loop.inputs)
        self._start = _still(params, loop.optimizer.init(params))
        params, state = self._start
        fixed = replace(loop, inputs=self._inputs)

        def unroll(steps: int, window: Window) -> Hypergradient:
            return hypergradient(fixed, outer_losses, params, steps, retention, window=window, state=state)

        few = min(steps, 2)
        early = tuple(sorted({min(t, few) for t in judged}))
        self._replay = capture(
            _device(params), lambda: unroll(steps, Window(0, judged)), lambda: unroll(few, Window(0, early))
        )

    def __call__(self, params: Params, state: State, inputs: Params) -> Hypergradient:
        """The hypergradient from w_0 = `params`, s_0 = `state` and x = `inputs`; all of its tensors are copies."""
        _refill(self._inputs, inputs)
        _refill_state(self._start, (params, state))
        found = self._replay()
        copies = trees.copies(found.gradients), found.inner_losses.clone(), trees.copies(found.params)
        return Hypergradient(found.loss.clone(), *copies)


class CapturedSteps:
    """Inner steps that nothing is differentiated through: one step, captured once and replayed for each.

    The inner loss is given t as a tensor of one number.
    """

    def __init__(self, loop: InnerLoop, params: Params) -> None:
        self._inputs, self._optimizer = trees.copies(loop.inputs), loop.optimizer
        self._now = _still(params, loop.optimizer.init(params))
        self._t = torch.zeros(1, dtype=torch.long, device=_device(params))
        fixed = replace(loop, inputs=self._inputs)

        def step() -> Tensor:
            params, state, loss = fixed.step(*self._now, self._t)
            _refill_state(self._now, _still(params, state))  # a state may hold what the weights were
            self._t.add_(1)
            return loss

        def first_step() -> None:
            self._t.zero_()
            step()

        self._replay = capture(self._t.device, step, first_step)

    def __call__(self, params: Params, inputs: Params, steps: int) -> tuple[Params, State, list[Tensor]]:
        """(w, s) after the steps 0, ..., `steps` - 1 from w_0 = `params` on x = `inputs`, and the losses; copies."""
        _refill(self._inputs, inputs)
        _refill_state(self._now, (params, self._optimizer.init(params)))
        self._t.zero_()
        losses = [self._replay().clone() for _ in range(steps)]
        now, state = self._now
        return trees.copies(now), {slot: trees.copies(part) for slot, part in state.items()}, losses


def capture(device: torch.device, work: Callable[[], Result], warm_up: Callable[[], object]) -> Callable[[], Result]:
    """A function that replays device work as a CUDA graph, into the same tensors each time; on a CPU, the work itself.

    `warm_up` does what the work does, on fewer steps: libraries tune themselves and allocate when they are first used,
    which must not happen in a capture.
    """
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            warm_up()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        # On the stream of the warm-up, whose handles and workspaces are then the captured ones; the default capture
        # stream is the current device's, which need not be this one.
        with torch.cuda.graph(graph, stream=stream):
            result = work()
    except RuntimeError as error:
        if isinstance(error.__context__, torch.OutOfMemoryError):  # the capture's end has a sentence of its own
            raise error.__context__ from None
        raise
    return Replay(graph, result, work)


def _still(params: Params, state: State) -> TrainingState:
    """Copies, which keep their addresses."""
    return trees.copies(params), {slot: trees.copies(part) for slot, part in state.items()}


def _refill_state(still: TrainingState, other: TrainingState) -> None:
    """Another state's numbers, in place."""
    _refill(still[0], other[0])
    for slot, part in still[1].items():
        _refill(part, other[1][slot])


def _refill(still: Params, other: Params) -> None:
    for k, v in still.items():
        v.copy_(other[k].detach())


def _device(params: Params) -> torch.device:
    return next(iter(params.values())).device
