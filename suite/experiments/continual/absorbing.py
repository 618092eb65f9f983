"""A memory's start from a stream: what comes in is folded into it, in its own room (ours)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from suite.errors import UsageError
from suite.keys import Key
from suite.parameterizations.downsampled import Downsampled
from suite.registry import name_of
from suite.types import Params, Setting, Split, StartsFromImages


def absorbed(setting: Setting, memory: Params, batches: Sequence[Split], key: Key) -> Params:
    """The memory after these batches, each of which is needed once, and not after the next has come.

    A memory of r images for each class recalls the last r of each class that came in, as far as its bases span them:

        X <- recall(m),    X[y, n_y mod r] <- x for each (x, y) of the batch,    m <- fitted(X),

    where n_y counts a class's images before x. In places that no image has had yet stand combinations u x + (1 - u) x'
    of two images of the class, u uniform in [0, 1]; of a class without any image, of two of any class. So nothing is
    stored but the memory and one batch. UsageError where a parameterization offers no `fitted`.
    """
    fitting, factor, classes = setting.parameterization, 1, torch.arange(setting.classes)
    while isinstance(fitting, Downsampled):  # as they are stored: to enlarge and to reduce each time would blur them
        factor *= fitting.factor
        fitting = fitting.of
    if not isinstance(fitting, StartsFromImages):
        raise UsageError(f"{name_of(fitting)} can't absorb images: it offers no start from them (`fitted`)")
    seen = [0] * setting.classes
    for b, batch in enumerate(batches):
        images = fitting.recall(memory, classes).detach().clone()
        for image, y in zip(avg_pool2d(batch.images, factor), batch.labels.tolist(), strict=True):
            images[y, seen[y] % images.shape[1]] = image
            seen[y] += 1
        memory = fitting.fitted(memory, _filled(images, seen, key("filled", b)))
    return memory


def _filled(
    images: Float[Tensor, "classes per_class c h w"], seen: Sequence[int], key: Key
) -> Float[Tensor, "classes per_class c h w"]:
    """The images, with combinations in the places that no image has had yet."""
    each = images.shape[1]
    held = [own[: min(n, each)] for own, n in zip(images, seen, strict=True)]
    parts = []
    for c, own in enumerate(held):
        of, missing = (own if len(own) else torch.cat(held)), each - len(own)
        generator = key(c).generator()
        first, second = of[torch.randint(len(of), (2, missing), generator=generator)]
        part = torch.rand(missing, 1, 1, 1, generator=generator).to(images)
        parts.append(torch.cat([own, part * first + (1 - part) * second]))
    return torch.stack(parts)
