"""Real images that leave no other far away."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.controls.features import features, select
from suite.keys import Key
from suite.registry import controls
from suite.types import ClassRows, Setting, Split
from suite.validation import NonNegativeInt


@controls.register("k_center")
@dataclass(frozen=True)
class KCenter:
    """Real images chosen greedily in every class: first the one nearest to the mean, then always the farthest one.

    x_k = argmax over x of min over j < k of |f(x) - f(x_j)|, in the features f of a network that was trained on all
    real images. Gonzalez (1985); Sener and Savarese (2018).

    >>> centers(torch.tensor([[0.0], [1.0], [5.0], [9.0]]), 2)  # their mean is 3.75
    tensor([2, 0])
    """

    epochs: NonNegativeInt = 30
    """Of the training of the network in whose features is selected; 0 selects in pixels."""
    label: ClassVar[str] = "k-center"
    """Its name in tables."""
    over: ClassVar[str] = "evaluation networks"
    """What its accuracies are spread over."""

    def choose(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Callable[[int], Split]:
        """The same selection for every network."""
        chosen = select(real, features(setting, real, self.epochs, key), each, centers)
        return lambda network: chosen


def centers(x: Float[Tensor, "n d"], k: int) -> Int64[Tensor, " k"]:
    """Positions of k rows, each the farthest from those before it; the first is nearest to the mean."""
    chosen = [(x - x.mean(0)).square().sum(1).argmin(0, keepdim=True)]  # there, so that none waits for the device
    nearest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    while len(chosen) < min(k, len(x)):
        nearest = torch.minimum(nearest, (x - x.index_select(0, chosen[-1])).square().sum(1))
        chosen.append(nearest.argmax(0, keepdim=True))
    return torch.cat(chosen).cpu()
