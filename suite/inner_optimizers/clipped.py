"""Another optimizer whose gradients are cut to a multiple of their usual norm."""

from dataclasses import dataclass, field, replace

import torch

from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.inner_optimizers.wrapping import require_order
from suite.registry import inner_optimizers
from suite.types import Optimizer, Params, State, over_steps
from suite.validation import Fraction, Positive

SLOT = "clip"
"""Of the state, beside those of `of`."""


@inner_optimizers.register("clipped")
@dataclass(frozen=True)
class Clipped:
    """Another optimizer (`of`), given g min(1, c / |g|), c = `multiple` times a moving average of |g|.

    |g| is the norm over all tensors. The average is that of the norms after clipping, with the weights `decay`^i, so
    that one large gradient can't raise the limit much; the first gradient is not clipped. A fixed norm fits one
    problem; this fits gradients of any size (Feng et al., Embarrassingly Simple Dataset Distillation, 2024).

    >>> optimizer = Clipped(of=SGDMomentum(lr=1.0, momentum=0.0), multiple=2.0)
    >>> params, state = {"w": torch.zeros(1)}, optimizer.init({"w": torch.zeros(1)})
    >>> for g in (1.0, 1.0, 5.0):
    ...     params, state = optimizer.step(params, {"w": torch.tensor([g])}, state)
    >>> params["w"]
    tensor([-4.])
    """

    of: Optimizer = field(default_factory=SGDMomentum)
    """Takes the step."""
    multiple: Positive = 2.0
    """The largest norm over the average one."""
    decay: Fraction = 0.9
    """Of the average."""

    def __post_init__(self) -> None:
        require_order(self)

    def over(self, steps: int) -> Optimizer:
        """With `of` of so many steps."""
        return replace(self, of=over_steps(self.of, steps))

    def init(self, params: Params) -> State:
        """That of `of`, and the average norm, 0 of no weight."""
        zero = torch.zeros_like(next(iter(params.values())).detach().reshape(-1)[0])
        return self.of.init(params) | {SLOT: {"norm": zero, "weight": zero.clone()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters and the state after a step along the clipped gradient."""
        norm = torch.stack([g.square().sum() for g in grads.values()]).sum().clamp(min=1e-30).sqrt()
        before = {k: v.detach() for k, v in state[SLOT].items()}
        seen = before["weight"] > 0
        average = torch.where(seen, before["norm"] / before["weight"].clamp(min=1e-30), norm.detach())
        scale = torch.where(seen, (self.multiple * average / norm).clamp(max=1), torch.ones_like(norm))
        after = {
            "norm": self.decay * before["norm"] + (1 - self.decay) * (scale * norm).detach(),
            "weight": self.decay * before["weight"] + (1 - self.decay),
        }
        inner = {slot: part for slot, part in state.items() if slot != SLOT}
        params, inner = self.of.step(params, {k: scale * g for k, g in grads.items()}, inner)
        return params, inner | {SLOT: after}
