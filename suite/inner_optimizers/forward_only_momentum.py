"""Momentum that trains the network but is cut out of the hypergradient."""

from dataclasses import dataclass

from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import check_types, require


@inner_optimizers.register("forward_only_momentum")
@dataclass(frozen=True)
class ForwardOnlyMomentum:
    """Momentum whose carried buffer is a constant to the hypergradient: b <- momentum stop(b) + g; w <- w - lr b.

    Its steps are those of `sgd_momentum` bit for bit; only the way back differs (paper, Table 4). Stopping the new
    buffer instead of the carried one would cut off every gradient.
    """

    lr: float = 0.01
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "lr", self.lr > 0, "above 0")
        require(self, "momentum", 0 <= self.momentum < 1, "at least 0 and below 1")

    def init(self, params: Params) -> State:
        return SGDMomentum(self.lr, self.momentum).init(params)

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        stopped = {"momentum": {k: b.detach() for k, b in state["momentum"].items()}}
        return SGDMomentum(self.lr, self.momentum).step(params, grads, stopped)
