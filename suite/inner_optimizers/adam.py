"""Adam, with a derivative that stays finite where a gradient is exactly zero."""

from dataclasses import dataclass

import torch

from suite.registry import inner_optimizers
from suite.types import Params, State
from suite.validation import Fraction, NonNegative, Positive


@inner_optimizers.register("adam")
@dataclass(frozen=True)
class Adam:
    """Adam: m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g²; w <- w - lr m̂ / (√(v̂ + eps_root) + eps), m̂ and v̂ unbiased.

    The root's derivative is infinite at v = 0, which a dead ReLU reaches; `eps_root` bounds it. With `eps_root = 0` the
    steps are torch.optim.Adam's. The default rate is the one the paper prefers in the inner loop (B.1).
    """

    lr: Positive = 1e-4
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8
    eps_root: NonNegative = 1e-12

    def init(self, params: Params) -> State:
        one = torch.ones_like(next(iter(params.values())).reshape(-1)[0])
        zeros = {k: torch.zeros_like(w) for k, w in params.items()}
        return {"m": zeros, "v": dict(zeros), "power": {"b1": one, "b2": one.clone()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        m = {k: self.b1 * state["m"][k] + (1 - self.b1) * g for k, g in grads.items()}
        v = {k: self.b2 * state["v"][k] + (1 - self.b2) * g * g for k, g in grads.items()}
        # b1^t and b2^t ride along as tensors, so that a step needs no counter.
        power = {"b1": self.b1 * state["power"]["b1"].detach(), "b2": self.b2 * state["power"]["b2"].detach()}
        m_scale, v_scale = 1 / (1 - power["b1"]), 1 / (1 - power["b2"])
        new = {
            k: w - self.lr * (m[k] * m_scale) / ((v[k] * v_scale + self.eps_root).sqrt() + self.eps)
            for k, w in params.items()
        }
        return new, {"m": m, "v": v, "power": power}
