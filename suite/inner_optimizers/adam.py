"""Adam, with a derivative that stays finite where a gradient is exactly zero."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Fraction, NonNegative, Positive


@inner_optimizers.register("adam")
@dataclass(frozen=True)
class Adam:
    """Adam: m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g²; w <- w - lr m̂ / (√(v̂ + eps_root) + eps), m̂ and v̂ unbiased.

    Kingma and Ba (2015), differentiable: the root's derivative is infinite at v = 0, which a dead ReLU reaches, and
    `eps_root` bounds it. With `eps_root = 0` the steps are torch.optim.Adam's.

    >>> import torch
    >>> optimizer, params, grads = Adam(lr=0.1), {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    >>> params, state = optimizer.step(params, grads, optimizer.init(params))
    >>> params["w"]
    tensor([0.9000])
    """

    lr: Positive = 1e-4
    """Learning rate; the default is the one the paper prefers in the inner loop (B.1)."""
    b1: Fraction = 0.9
    """Decay of the mean of gradients, m."""
    b2: Fraction = 0.999
    """Decay of the mean of squared gradients, v."""
    eps: Positive = 1e-8
    """Added to the root."""
    eps_root: NonNegative = 1e-12
    """Added to v̂ under the root."""
    elementwise: ClassVar[Literal[True]] = True
    """Every number is stepped by itself."""

    def init(self, params: Params) -> State:
        """m and v, zero for every parameter, and the powers b1^0 and b2^0."""
        power = torch.ones_like(next(iter(params.values())).reshape(-1)[0])
        zeros = {k: torch.zeros_like(w) for k, w in params.items()}
        return {"m": zeros, "v": dict(zeros), "power": {"b1": power, "b2": power.clone()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters, m, v and the powers b1^t and b2^t after step t."""
        m = {k: self.b1 * state["m"][k] + (1 - self.b1) * g for k, g in grads.items()}
        v = {k: self.b2 * state["v"][k] + (1 - self.b2) * g * g for k, g in grads.items()}
        # b1^t and b2^t are carried as tensors, so that a step needs no counter.
        power = {"b1": self.b1 * state["power"]["b1"].detach(), "b2": self.b2 * state["power"]["b2"].detach()}
        m_scale, v_scale = 1 / (1 - power["b1"]), 1 / (1 - power["b2"])
        new = {
            k: w - self.lr * (m[k] * m_scale) / ((v[k] * v_scale + self.eps_root).sqrt() + self.eps)
            for k, w in params.items()
        }
        return new, {"m": m, "v": v, "power": power}
