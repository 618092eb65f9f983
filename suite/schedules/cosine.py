"""Half a wave of the cosine."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from suite.registry import schedules
from suite.validation import Fraction


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine:
    """From 1 to `end` along half a wave: end + (1 - end) (1 + cos(pi t / T)) / 2 (Loshchilov and Hutter, 2017).

    >>> Cosine().factor(torch.tensor(5.0), steps=10)
    tensor(0.5000)
    """

    end: Fraction = 0.0
    """Approached by the last step."""

    def factor(self, t: Float[Tensor, ""], steps: int) -> Float[Tensor, ""]:
        """Of step t, from 0, of T = `steps`."""
        return self.end + (1 - self.end) * (1 + torch.cos(math.pi * (t / steps).clamp(max=1))) / 2
