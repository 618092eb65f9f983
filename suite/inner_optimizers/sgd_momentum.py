"""Gradient descent with momentum, differentiated through its momentum too."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Fraction, Positive


@inner_optimizers.register("sgd_momentum")
@dataclass(frozen=True)
class SGDMomentum:
    """Gradient descent with momentum: b <- momentum b + g; w <- w - lr b (paper, A.1; Table 4, 'full').

    >>> import torch
    >>> optimizer, params, grads = SGDMomentum(lr=0.1), {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    >>> params, state = optimizer.step(params, grads, optimizer.init(params))
    >>> params["w"]
    tensor([0.8000])
    >>> optimizer.step(params, grads, state)[0]["w"]  # b = 0.9 * 2 + 2
    tensor([0.4200])
    """

    lr: Positive = 0.01
    """Learning rate."""
    momentum: Fraction = 0.9
    """Share of the buffer that is carried to the next step."""
    elementwise: ClassVar[Literal[True]] = True
    """Every number is stepped by itself."""
    linear: ClassVar[Literal[True]] = True
    """A step commutes with a change of coordinates."""

    def init(self, params: Params) -> State:
        """The buffer b, zero for every parameter."""
        return {"momentum": {k: torch.zeros_like(w) for k, w in params.items()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters and the buffer after one step."""
        b = {k: self.momentum * state["momentum"][k] + g for k, g in grads.items()}
        return {k: w - self.lr * b[k] for k, w in params.items()}, {"momentum": b}
