"""No schedule."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from suite.registry import schedules


@schedules.register("constant")
@dataclass(frozen=True)
class Constant:
    """No schedule: every step keeps its length, f = 1.

    >>> Constant().factor(torch.tensor(7.0), steps=10)
    tensor(1.)
    """

    def factor(self, t: Float[Tensor, ""], steps: int) -> Float[Tensor, ""]:
        """1."""
        return torch.ones_like(t)
