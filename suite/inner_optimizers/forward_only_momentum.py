"""Momentum that trains the network but is cut out of the hypergradient."""

from dataclasses import dataclass

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
    """

    lr: Positive = 0.01
    momentum: Fraction = 0.9

    def init(self, params: Params) -> State:
        return {"momentum": {k: torch.zeros_like(w) for k, w in params.items()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        b = {k: self.momentum * state["momentum"][k].detach() + g for k, g in grads.items()}
        return {k: w - self.lr * b[k] for k, w in params.items()}, {"momentum": b}
