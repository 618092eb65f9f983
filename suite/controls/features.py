"""Selection of real images class by class, by distances between features."""

from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train
from suite.keys import Key
from suite.types import ClassRows, Setting, Split

BATCH = 500
"""Images whose features are computed at a time."""


@lru_cache(maxsize=1)
def features(setting: Setting, real: ClassRows, epochs: int, key: Key) -> Float[Tensor, "n d"]:
    """Features of all real images, by a network trained on them for `epochs` epochs; their pixels for 0."""
    images = real.split.images
    if epochs == 0:
        return images.flatten(1)
    network = train(setting, real.split, Protocol(networks=1, epochs=epochs), key("features")).eval()
    with torch.no_grad():
        return torch.cat([network.features(part.to(setting.device)) for part in images.split(BATCH)])  # type: ignore[operator]


def select(
    real: ClassRows, features: Float[Tensor, "n d"], each: int, pick: Callable[[Tensor, int], Int64[Tensor, " k"]]
) -> Split:
    """`each` real images of every class, at the positions that `pick` gives for the class's features."""
    rows = torch.cat([r[pick(features[r.to(features.device)], each).cpu()] for r in real.rows])
    return real.split.at(rows.to(real.split.labels.device))
