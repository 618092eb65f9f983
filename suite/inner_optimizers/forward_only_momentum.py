"""Momentum that trains the network but is cut out of the hypergradient."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Fraction, Positive


@inner_optimizers.register("forward_only_momentum")
@dataclass(frozen=True)
class ForwardOnlyMomentum:
    """Momentum whose carried buffer is a constant to the hypergradient: b <- momentum stop(b) + g; w <- w - lr b.

    Its steps are those of `sgd_momentum` bit for bit; only the way back differs (paper, Table 4). Stopping the new
    buffer instead of the carried one would cut off every gradient.

    >>> import torch
    >>> optimizer, params, grads = ForwardOnlyMomentum(lr=0.1), {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    >>> params, state = optimizer.step(params, grads, optimizer.init(params))
    >>> params["w"]
    tensor([0.8000])
    """

    lr: Positive = 0.01
    """Learning rate."""
    momentum: Fraction = 0.9
    """Share of the buffer that is carried to the next step."""
    elementwise: ClassVar[Literal[True]] = True
    """Every number is stepped by itself."""

    def init(self, params: Params) -> State:
        """The buffer b, zero for every parameter."""
        return {"momentum": {k: torch.zeros_like(w) for k, w in params.items()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters and the buffer after one step; no gradient flows through the buffer of before."""
        b = {k: self.momentum * state["momentum"][k].detach() + g for k, g in grads.items()}
        return {k: w - self.lr * b[k] for k, w in params.items()}, {"momentum": b}
