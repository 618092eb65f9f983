"""Stand-ins for other tasks: what a memory recalls, as other tasks of the stream's law would show it (ours)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from suite.keys import Key
from suite.types import ImageShape, Parameterization, Params, RelatedTasks, Setting


@dataclass(frozen=True, eq=False)
class WithStandIns:
    """A parameterization whose recall appends, to each class's images, the same images as other tasks show them.

    recall(m, q) = [x, v_1(x), ..., v_s(x)] with x = of.recall(m, q). Nothing more is stored.
    """

    of: Parameterization
    """What the memory stores, and how its own images are recalled."""
    views: tuple[Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]], ...]
    """Each shows images as another task of the stream would."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images of a class with its stand-ins."""
        return self.of.per_class(shape, classes, images_per_class) * (1 + len(self.views))

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """The memory without stand-ins."""
        return self.of.init(shape, classes, images_per_class, key)

    def recall(self, memory: Params, queries: Tensor) -> Float[Tensor, "n per_class c h w"]:
        """Images of each query, then its stand-ins."""
        images = self.of.recall(memory, queries)
        return torch.cat([images, *(view(images.flatten(0, 1)).view_as(images) for view in self.views)], 1)

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """The penalty of the memory itself."""
        return self.of.penalty(memory)


def with_stand_ins(setting: Setting, stream: RelatedTasks, number: int, key: Key) -> Setting:
    """The setting with a memory of which `number` stand-ins are recalled too, each of a task drawn by the key."""
    views = tuple(partial(stream.another, key=key(i)) for i in range(number))
    return replace(setting, parameterization=WithStandIns(setting.parameterization, views))
