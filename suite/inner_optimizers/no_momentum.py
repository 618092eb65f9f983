"""Plain gradient descent."""

from dataclasses import dataclass

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Positive


@inner_optimizers.register("no_momentum")
@dataclass(frozen=True)
class NoMomentum:
    """Gradient descent without momentum: w <- w - lr g (paper, Table 4)."""

    lr: Positive = 0.01

    def init(self, params: Params) -> State:
        return {}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        return {k: w - self.lr * grads[k] for k, w in params.items()}, {}
