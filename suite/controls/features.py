"""What selections measure distances in."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from suite.evaluate import Protocol, train
from suite.keys import Key
from suite.types import ClassRows, Task

BATCH = 500


@lru_cache(maxsize=1)
def features(task: Task, real: ClassRows, epochs: int, key: Key) -> Float[Tensor, "n d"]:
    """Features of all real images, by a network trained on them for so many epochs; pixels if there are none."""
    images = real.split.images
    if epochs == 0:
        return images.flatten(1)
    network = train(task, real.split, Protocol(networks=1, epochs=epochs), key("features")).eval()
    with torch.no_grad():
        return torch.cat([network.features(part.to(task.device)) for part in images.split(BATCH)])  # type: ignore[operator]
