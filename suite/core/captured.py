"""The same reverse sweep with nothing but device work in it: two steps on tensors that stay where they are.

On a GPU a small network's step is bound by the launches of its kernels. Here one forward step and one reverse step read
and write tensors of fixed places, the number of the step among them, so that each is captured as a CUDA graph once and
replayed for every inner step of every outer iteration. All states lie in one tensor, a row a step; every step is
replayed on the way back. `suite.core.unroll` stays the plain form, and what this is compared with.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, device

from suite.core.unroll import (
    Hypergradient,
    InnerLoss,
    OuterLoss,
    inner_step,
    outer_value_and_grad,
    pull_back,
    steps_with_graph,
)
from suite.errors import UsageError
from suite.types import InnerOptimizer, Params, State

ALIGNMENT = 64
"""Every tensor of a row starts at a multiple of so many numbers, as libraries for GPUs like it."""

Moment = tuple[Params, State]
"""What an inner step starts from and ends with, or the cotangents of that."""


class Program:
    """`hypergradient` of losses whose data lie in tensors that never move; call it as often as you like.

    The inner loss gets t as a tensor of one number. What the losses read besides their arguments must be refilled in
    place between calls, never replaced. `compiled` has torch.compile fuse each step, which takes a minute once.
    """

    def __init__(
        self,
        inner_loss: InnerLoss,
        outer_loss: OuterLoss | Sequence[OuterLoss],
        params: Params,
        inputs: Params,
        optimizer: InnerOptimizer,
        steps: int,
        compiled: bool = False,
    ) -> None:
        self._inner_loss, self._outer_loss, self._optimizer, self._steps = inner_loss, outer_loss, optimizer, steps
        self._inputs, self._inputs_bar = _copies(inputs), _copies(inputs)
        params = _copies(params)
        self._rows = _Rows((params, optimizer.init(params)))
        some = next(iter(inputs.values()))
        self._history = some.new_empty(steps + 1, self._rows.width)
        self._bar = some.new_empty(self._rows.width)
        self._losses, self._final = some.new_empty(steps), some.new_empty(())
        self._t = torch.zeros(1, dtype=torch.long, device=some.device)
        self._advance = torch.compile(self._pure_step, fullgraph=True) if compiled else self._plain_step
        self._return = torch.compile(self._pure_return, fullgraph=True) if compiled else self._plain_return
        self._history[0] = self._rows.packed((params, optimizer.init(params)))
        self._forward = _captured(some.device, self._forward_step, lambda: self._t.fill_(0))
        self._judge = _captured(some.device, self._judge_step, lambda: None)
        self._reverse = _captured(some.device, self._reverse_step, lambda: self._t.fill_(1))

    def __call__(self, params: Params, inputs: Params) -> Hypergradient:
        """The hypergradient from these parameters and inputs, and the losses on the way."""
        for k, place in self._inputs.items():
            place.copy_(inputs[k].detach())
        params = _copies(params)
        self._history[0] = self._rows.packed((params, self._optimizer.init(params)))
        self._t.fill_(0)
        for _ in range(self._steps):
            self._forward()
        self._judge()
        for _ in range(self._steps):
            self._reverse()
        return Hypergradient(self._final.clone(), _copies(self._inputs_bar), self._losses.clone())

    # ------------------------------------------------------------ the steps, in place

    def _forward_step(self) -> None:
        params, state, loss = self._advance(*self._then(), self._inputs, self._t)
        self._losses.index_copy_(0, self._t, loss.detach()[None])
        self._t.add_(1)
        self._history.index_copy_(0, self._t, self._rows.packed((params, state))[None])

    def _judge_step(self) -> None:
        params, state = self._rows.unpacked(self._history[-1].clone())
        final, params_bar = outer_value_and_grad(params, self._outer_loss)
        self._final.copy_(final)
        self._bar.copy_(self._rows.packed((params_bar, {s: _zeros(part) for s, part in state.items()})))
        for v in self._inputs_bar.values():
            v.zero_()

    def _reverse_step(self) -> None:
        self._t.sub_(1)
        params_bar, state_bar, inputs_bar = self._return(
            *self._then(), self._inputs, self._t, *self._rows.unpacked(self._bar), self._inputs_bar
        )
        self._bar.copy_(self._rows.packed((params_bar, state_bar)))
        for k, v in self._inputs_bar.items():
            v.copy_(inputs_bar[k])

    def _then(self) -> Moment:
        """A copy of what step t starts from."""
        return self._rows.unpacked(self._history.index_select(0, self._t)[0])

    # ------------------------------------------------------------ plain autograd

    def _plain_step(self, params: Params, state: State, inputs: Params, t: Tensor) -> tuple[Params, State, Tensor]:
        return inner_step(self._inner_loss, params, state, inputs, self._optimizer, t)

    def _plain_return(
        self, params: Params, state: State, inputs: Params, t: Tensor, params_bar: Params, state_bar: State, bar: Params
    ) -> tuple[Params, State, Params]:
        step = steps_with_graph(self._inner_loss, params, state, inputs, self._optimizer, [t])
        return pull_back(step, params_bar, state_bar, bar)

    # ------------------------------------------------------------ function transforms, which torch.compile can fuse

    def _pure_step(self, params: Params, state: State, inputs: Params, t: Tensor) -> tuple[Params, State, Tensor]:
        grads, loss = torch.func.grad_and_value(self._inner_loss)(params, inputs, t)
        return *self._optimizer.step(params, grads, state), loss

    def _pure_return(
        self, params: Params, state: State, inputs: Params, t: Tensor, params_bar: Params, state_bar: State, bar: Params
    ) -> tuple[Params, State, Params]:
        def outcome(params: Params, state: State, inputs: Params) -> Moment:
            params, state, _ = self._pure_step(params, state, inputs, t)
            return params, state

        pull: Callable[[Moment], tuple[Params, State, Params]] = torch.func.vjp(outcome, params, state, inputs)[1]
        params_bar, state_bar, found = pull((params_bar, state_bar))
        return params_bar, state_bar, {k: v + found[k] for k, v in bar.items()}


class _Rows:
    """How parameters and state lie in one row of numbers."""

    def __init__(self, like: Moment) -> None:
        params, state = like
        self._slots = {slot: list(part) for slot, part in state.items()}
        self._names = list(params)
        tensors = self._listed(like)
        if len({v.dtype for v in tensors}) > 1:
            raise UsageError("the inner optimizer's state must be numbers of the parameters' kind, such as float32")
        self._shapes = [v.shape for v in tensors]
        self._widths = [math.ceil(v.numel() / ALIGNMENT) * ALIGNMENT for v in tensors]
        self.width = sum(self._widths)
        self._padding = [v.new_zeros(width - v.numel()) for v, width in zip(tensors, self._widths, strict=True)]

    def packed(self, moment: Moment) -> Tensor:
        parts = zip(self._listed(moment), self._padding, strict=True)
        return torch.cat([piece for v, padding in parts for piece in (v.detach().reshape(-1), padding)])

    def unpacked(self, row: Tensor) -> Moment:
        """Views of the row."""
        pieces = zip(row.split(self._widths), self._shapes, strict=True)
        views = iter([piece[: shape.numel()].view(shape) for piece, shape in pieces])
        params = {k: next(views) for k in self._names}
        return params, {slot: {k: next(views) for k in part} for slot, part in self._slots.items()}

    def _listed(self, moment: Moment) -> list[Tensor]:
        params, state = moment
        return [params[k] for k in self._names] + [state[slot][k] for slot, part in self._slots.items() for k in part]


def _captured(where: device, step: Callable[[], None], prepare: Callable[[], object]) -> Callable[[], object]:
    """A step as a CUDA graph to be replayed; where the tensors are not on a GPU, the step itself."""
    if where.type != "cuda":
        return step
    stream = torch.cuda.Stream(where)
    stream.wait_stream(torch.cuda.current_stream(where))
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries tune and allocate themselves on first use, which a capture may not hold
            prepare()
            step()
    torch.cuda.current_stream(where).wait_stream(stream)
    prepare()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _copies(tensors: Params) -> Params:
    return {k: v.detach().clone() for k, v in tensors.items()}


def _zeros(tensors: Params) -> Params:
    return {k: torch.zeros_like(v) for k, v in tensors.items()}
