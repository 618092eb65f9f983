r"""Template of an inner optimizer: how a network is trained, as two pure functions that autograd differentiates.

    python -m suite.check docs/templates/inner_optimizer.py
    python -m suite.run --plugin docs/templates/inner_optimizer.py --gin gin/quickstart.gin \
        --gin gin/scale/smoke.gin --set 'INNER_OPTIMIZER = @inner_optimizers.nesterov()'
"""

from dataclasses import dataclass

import torch

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Fraction, Positive


@inner_optimizers.register("nesterov")  # its name in gin: @inner_optimizers.nesterov()
@dataclass(frozen=True)
class Nesterov:
    """Nesterov's momentum: b <- momentum b + g; w <- w - lr (g + momentum b).

    >>> optimizer, params, grads = Nesterov(lr=0.1), {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    >>> optimizer.step(params, grads, optimizer.init(params))[0]["w"]  # b = 2; 1 - 0.1 (2 + 0.9 * 2)
    tensor([0.6200])
    """

    lr: Positive = 0.01
    """Learning rate."""
    momentum: Fraction = 0.9
    """Share of the buffer that is carried to the next step."""

    def init(self, params: Params) -> State:
        """The state before the first step: named slots, each with a tensor for every parameter."""
        return {"momentum": {k: torch.zeros_like(w) for k, w in params.items()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """One step, out of place: the hypergradient passes through `params`, `grads` and `state`."""
        b = {k: self.momentum * state["momentum"][k] + g for k, g in grads.items()}
        return {k: w - self.lr * (grads[k] + self.momentum * b[k]) for k, w in params.items()}, {"momentum": b}
