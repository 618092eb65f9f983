"""Gradient descent with momentum, differentiated through its momentum too."""

from dataclasses import dataclass

import torch

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Fraction, Positive


@inner_optimizers.register("sgd_momentum")
@dataclass(frozen=True)
class SGDMomentum:
    """Gradient descent with momentum: b <- momentum b + g; w <- w - lr b (paper, A.1; Table 4, 'full')."""

    lr: Positive = 0.01
    momentum: Fraction = 0.9

    def init(self, params: Params) -> State:
        return {"momentum": {k: torch.zeros_like(w) for k, w in params.items()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        b = {k: self.momentum * state["momentum"][k] + g for k, g in grads.items()}
        return {k: w - self.lr * b[k] for k, w in params.items()}, {"momentum": b}
