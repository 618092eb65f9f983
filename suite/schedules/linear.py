"""A straight line."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from suite.registry import schedules
from suite.validation import Fraction


@schedules.register("linear")
@dataclass(frozen=True)
class Linear:
    """From 1 to `end` along a straight line: 1 + (end - 1) t / T.

    >>> import torch
    >>> Linear(end=0.5).factor(torch.tensor(5.0), steps=10)
    tensor(0.7500)
    """

    end: Fraction = 0.0
    """Approached by the last step."""

    def factor(self, t: Float[Tensor, ""], steps: int) -> Float[Tensor, ""]:
        """Of step t, from 0, of T = `steps`."""
        return 1 + (self.end - 1) * (t / steps).clamp(max=1)
