"""Real images whose mean stays near their class's."""

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


@controls.register("herding")
@dataclass(frozen=True)
class Herding:
    """Real images chosen one after the other, so that the mean of those chosen is nearest to their class's mean.

    x_k = argmin over x of |m - (f(x) + sum over j < k of f(x_j)) / k|, in the features f of a network that was trained
    on all real images. Welling (2009), as Rebuffi et al. (2017) use it.

    >>> herded(torch.tensor([[0.0], [1.0], [5.0], [9.0]]), 2)  # their mean is 3.75
    tensor([2, 1])
    """

    epochs: NonNegativeInt = 30
    """Of the training of the network in whose features is selected; 0 selects in pixels."""
    label: ClassVar[str] = "herding"
    """Its name in tables."""
    over: ClassVar[str] = "evaluation networks"
    """What its accuracies are spread over."""

    def choose(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Callable[[int], Split]:
        """The same selection for every network."""
        chosen = select(real, features(setting, real, self.epochs, key), each, herded)
        return lambda network: chosen


def herded(x: Float[Tensor, "n d"], k: int) -> Int64[Tensor, " k"]:
    """Positions of k rows whose running mean follows the mean of all; the first of equals."""
    mean, total = x.mean(0), torch.zeros_like(x[0])
    chosen = [torch.zeros(0, dtype=torch.long, device=x.device)]  # there, so that no choice waits for the device
    free = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for n in range(1, min(k, len(x)) + 1):
        distances = (mean - (x + total) / n).square().sum(1)
        best = torch.where(free, distances, torch.inf).argmin(0, keepdim=True)
        chosen.append(best)
        free.index_fill_(0, best, False)
        total = total + x.index_select(0, best)[0]
    return torch.cat(chosen).cpu()
