"""Plain gradient descent."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Positive


@inner_optimizers.register("no_momentum")
@dataclass(frozen=True)
class NoMomentum:
    """Gradient descent without momentum: w <- w - lr g (paper, Table 4).

    >>> import torch
    >>> optimizer, params, grads = NoMomentum(lr=0.1), {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    >>> params, state = optimizer.step(params, grads, optimizer.init(params))
    >>> params["w"]
    tensor([0.8000])
    """

    lr: Positive = 0.01
    """Learning rate."""
    elementwise: ClassVar[Literal[True]] = True
    """Every number is stepped by itself."""
    linear: ClassVar[Literal[True]] = True
    """A step commutes with a change of coordinates."""

    def init(self, params: Params) -> State:
        """Nothing is carried from step to step."""
        return {}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters after one step."""
        return {k: w - self.lr * grads[k] for k, w in params.items()}, {}
