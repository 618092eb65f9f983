"""A rise before another schedule."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from suite.errors import UsageError
from suite.registry import schedules
from suite.schedules.cosine import Cosine
from suite.types import Schedule
from suite.validation import PositiveInt


@schedules.register("warm_up")
@dataclass(frozen=True)
class WarmUp:
    """Up to 1 along a straight line, (t + 1) / rise, and `then` another schedule over the steps that are left.

    >>> [round(float(WarmUp(rise=4).factor(torch.tensor(float(t)), steps=14)), 2) for t in (0, 3, 4, 9)]
    [0.25, 1.0, 1.0, 0.5]
    """

    rise: PositiveInt = 10
    """Steps of the rise."""
    then: Schedule = field(default_factory=Cosine)
    """Over the steps after the rise."""

    def factor(self, t: Float[Tensor, ""], steps: int) -> Float[Tensor, ""]:
        """Of step t, from 0, of `steps`; UsageError where no step is left after the rise."""
        if steps <= self.rise:
            raise UsageError(
                f"a schedule of {steps} steps is shorter than its warm-up of {self.rise}; lower warm_up.rise or "
                "raise the steps"
            )
        later = self.then.factor((t - self.rise).clamp(min=0), steps - self.rise)
        return torch.where(t < self.rise, (t + 1) / self.rise, later)
