"""The reverse sweep of `suite.core.unroll` as device work only, so that a GPU replays it as CUDA graphs.

On a GPU a small network's step takes as long as the launches of its kernels. Here one forward step and one reverse step
read and write tensors at fixed addresses, the number of the step t among them. Each is captured as a CUDA graph once
and replayed for every inner step of every outer step. Every (w_t, s_t) is kept, as one row of a tensor; every step is
recomputed in the reverse sweep. `suite.core.unroll.hypergradient` remains the plain form that this is tested against.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from suite.core import trees
from suite.core.unroll import (
    WHOLE,
    Hypergradient,
    InnerLoop,
    OuterLoss,
    TrainingState,
    Window,
    outer_value_and_grad,
    pull_back,
)
from suite.errors import UsageError
from suite.types import Params, State

ALIGNMENT = 64
"""Every tensor of a row starts at a multiple of this many numbers, which GPU libraries are fastest with."""


class CapturedHypergradient:
    """`hypergradient` of losses whose data lie at fixed addresses: built once, called for every outer step.

    The inner loss is given t as a tensor of one number. What the losses read besides their arguments must be refilled
    in place between calls, never replaced. With `compiled`, torch.compile fuses each step, which takes a minute once.
    On a CPU the same steps run without a capture. Raises UsageError for an optimizer whose state is of another dtype
    than the parameters.
    """

    def __init__(
        self,
        loop: InnerLoop,
        outer_losses: Sequence[OuterLoss],
        params: Params,
        steps: int,
        compiled: bool = False,
    ) -> None:
        self._loop, self._inputs_bar = replace(loop, inputs=_copies(loop.inputs)), _copies(loop.inputs)
        self._outer_losses, self._steps = outer_losses, steps
        params = _copies(params)
        start = (params, loop.optimizer.init(params))
        self._layout = _RowLayout(start)
        like = next(iter(loop.inputs.values()))
        self._history = like.new_empty(steps + 1, self._layout.width)  # row t: (w_t, s_t)
        self._bar = like.new_empty(self._layout.width)  # (a, u)
        self._inner_losses, self._outer = like.new_empty(steps), like.new_empty(())
        self._t = torch.zeros(1, dtype=torch.long, device=like.device)
        self._step = torch.compile(self._functional_step, fullgraph=True) if compiled else self._plain_step
        self._vjp = torch.compile(self._functional_vjp, fullgraph=True) if compiled else self._plain_vjp
        self._history[0] = self._layout.pack(start)
        self._run_forward = _capture(like.device, self._forward_step, prepare=lambda: self._t.fill_(0))
        self._run_outer = _capture(like.device, self._outer_step, prepare=lambda: self._t.fill_(self._steps))
        self._run_reverse = _capture(like.device, self._reverse_step, prepare=lambda: self._t.fill_(1))

    def __call__(
        self, params: Params, inputs: Params, steps: int | None = None, window: Window = WHOLE
    ) -> Hypergradient:
        """The hypergradient at w_0 = `params` and x = `inputs`, with the losses on the way; all of them copies.

        After `steps` steps, at most those it was built for (None: as many); only the end of a window is judged.
        """
        steps = self._steps if steps is None else steps
        for k, fixed in self._loop.inputs.items():
            fixed.copy_(inputs[k].detach())
        params = _copies(params)
        self._history[0] = self._layout.pack((params, self._loop.optimizer.init(params)))
        self._t.fill_(0)
        for _ in range(steps):
            self._run_forward()
        self._run_outer()
        last = _copies(self._state_at_t()[0])
        for _ in range(steps - window.first):
            self._run_reverse()
        losses = self._inner_losses[:steps].clone()
        return Hypergradient(self._outer.clone(), _copies(self._inputs_bar), losses, last)

    # ------------------------------------------------------------ what is captured: every tensor is written in place

    def _forward_step(self) -> None:
        """(w_t, s_t) -> (w_{t+1}, s_{t+1}), and t <- t + 1."""
        params, state, loss = self._step(*self._state_at_t(), self._loop.inputs, self._t)
        self._inner_losses.index_copy_(0, self._t, loss.detach()[None])
        self._t.add_(1)
        self._history.index_copy_(0, self._t, self._layout.pack((params, state))[None])

    def _outer_step(self) -> None:
        """l(w_T), and (a, u, x̄) <- (∇l(w_T), 0, 0)."""
        params, state = self._state_at_t()
        outer, params_bar = outer_value_and_grad(params, self._outer_losses)
        self._outer.copy_(outer)
        self._bar.copy_(self._layout.pack((params_bar, {slot: trees.zeros_like(part) for slot, part in state.items()})))
        for v in self._inputs_bar.values():
            v.zero_()

    def _reverse_step(self) -> None:
        """t <- t - 1, and (a, u, x̄) at t + 1 -> (a, u, x̄) at t."""
        self._t.sub_(1)
        params_bar, state_bar, inputs_bar = self._vjp(
            *self._state_at_t(), self._loop.inputs, self._t, *self._layout.unpack(self._bar), self._inputs_bar
        )
        self._bar.copy_(self._layout.pack((params_bar, state_bar)))
        for k, v in self._inputs_bar.items():
            v.copy_(inputs_bar[k])

    def _state_at_t(self) -> TrainingState:
        """A copy of (w_t, s_t)."""
        return self._layout.unpack(self._history.index_select(0, self._t)[0])

    # ------------------------------------------------------------ F_t and its VJP by plain autograd

    def _plain_step(self, params: Params, state: State, inputs: Params, t: Tensor) -> tuple[Params, State, Tensor]:
        return replace(self._loop, inputs=inputs).step(params, state, t)

    def _plain_vjp(
        self,
        params: Params,
        state: State,
        inputs: Params,
        t: Tensor,
        params_bar: Params,
        state_bar: State,
        inputs_bar: Params,
    ) -> tuple[Params, State, Params]:
        segment = replace(self._loop, inputs=inputs).record(params, state, [t])
        return pull_back(segment, params_bar, state_bar, inputs_bar)

    # ------------------------------------------------------------ the same by torch.func, which torch.compile can fuse

    def _functional_step(self, params: Params, state: State, inputs: Params, t: Tensor) -> tuple[Params, State, Tensor]:
        grads, loss = torch.func.grad_and_value(self._loop.loss)(params, inputs, t)
        return *self._loop.optimizer.step(params, grads, state), loss

    def _functional_vjp(
        self,
        params: Params,
        state: State,
        inputs: Params,
        t: Tensor,
        params_bar: Params,
        state_bar: State,
        inputs_bar: Params,
    ) -> tuple[Params, State, Params]:
        def step(params: Params, state: State, inputs: Params) -> TrainingState:
            params, state, _ = self._functional_step(params, state, inputs, t)
            return params, state

        vjp: Callable[[TrainingState], tuple[Params, State, Params]] = torch.func.vjp(step, params, state, inputs)[1]
        params_bar, state_bar, step_inputs_bar = vjp((params_bar, state_bar))
        return params_bar, state_bar, {k: v + step_inputs_bar[k] for k, v in inputs_bar.items()}


class _RowLayout:
    """Where parameters and optimizer state lie in one row of numbers."""

    def __init__(self, like: TrainingState) -> None:
        params, state = like
        self._slots = {slot: list(part) for slot, part in state.items()}
        self._names = list(params)
        tensors = self._tensors(like)
        if len({v.dtype for v in tensors}) > 1:
            raise UsageError("the inner optimizer's state must be numbers of the parameters' kind, such as float32")
        self._shapes = [v.shape for v in tensors]
        self._widths = [math.ceil(v.numel() / ALIGNMENT) * ALIGNMENT for v in tensors]
        self.width = sum(self._widths)
        self._padding = [v.new_zeros(width - v.numel()) for v, width in zip(tensors, self._widths, strict=True)]

    def pack(self, state: TrainingState) -> Tensor:
        """One row that holds copies of all tensors."""
        parts = zip(self._tensors(state), self._padding, strict=True)
        return torch.cat([piece for v, padding in parts for piece in (v.detach().reshape(-1), padding)])

    def unpack(self, row: Tensor) -> TrainingState:
        """The tensors as views of the row."""
        pieces = zip(row.split(self._widths), self._shapes, strict=True)
        views = iter([piece[: shape.numel()].view(shape) for piece, shape in pieces])
        params = {k: next(views) for k in self._names}
        return params, {slot: {k: next(views) for k in part} for slot, part in self._slots.items()}

    def _tensors(self, of: TrainingState) -> list[Tensor]:
        params, state = of
        return [params[k] for k in self._names] + [state[slot][k] for slot, part in self._slots.items() for k in part]


def _capture(device: torch.device, step: Callable[[], None], prepare: Callable[[], object]) -> Callable[[], object]:
    """A function that replays a step as a CUDA graph; where the tensors are not on a GPU, the step itself."""
    if device.type != "cuda":
        return step
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries tune themselves and allocate on first use, which must not happen in a capture
            prepare()
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    prepare()
    graph = torch.cuda.CUDAGraph()
    # On the stream of the warm-up, whose handles and workspaces are then the captured ones; the default capture stream
    # is the current device's, which need not be this one.
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def _copies(tensors: Params) -> Params:
    return {k: v.detach().clone() for k, v in tensors.items()}
