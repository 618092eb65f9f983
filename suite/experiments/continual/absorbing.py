"""A memory's start from a stream: what comes in is folded into it, in its own room (ours)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.registry import name_of
from suite.types import Params, Setting, Split, StartsFromImages


def absorbed(setting: Setting, memory: Params, batches: Sequence[Split], key: Key) -> Params:
    """The memory after these batches, each of which is needed once, and not after the next has come.

    An image takes the place of the oldest of its class's r recalled images, and the memory is fitted to all of them:

        X <- recall(m),    X[y, n_y mod r] <- x for each (x, y) of the batch,    m <- fitted(X),

    where n_y counts a class's images so far. The first image of a class takes all r places; before it, combinations
    u x + (1 - u) x' of the first batch's images stand there. So nothing is stored but the memory and one batch.
    """
    fitting, classes = setting.parameterization, torch.arange(setting.classes)
    if not isinstance(fitting, StartsFromImages):
        raise UsageError(f"{name_of(fitting)} can't absorb images: it offers no start from them (`fitted`)")
    seen = [0] * setting.classes
    images: Float[Tensor, "classes per_class c h w"] | None = None
    for batch in batches:
        if images is None:
            images = _combinations(batch.images, fitting.recall(memory, classes).shape, key)
        for image, y in zip(batch.images, batch.labels.tolist(), strict=True):
            if seen[y] == 0:
                images[y] = image
            images[y, seen[y] % images.shape[1]] = image
            seen[y] += 1
        memory = fitting.fitted(memory, images)
        images = fitting.recall(memory, classes).detach().clone()
    return memory


def _combinations(images: Float[Tensor, "n c h w"], shape: torch.Size, key: Key) -> Tensor:
    generator = key("first").generator()
    pairs = torch.randint(len(images), (*shape[:2], 2), generator=generator)
    part = torch.rand(*shape[:2], 1, 1, 1, generator=generator).to(images)
    return part * images[pairs[..., 0]] + (1 - part) * images[pairs[..., 1]]
