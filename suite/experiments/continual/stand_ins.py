"""Stand-ins for other tasks: what a memory recalls, as other tasks of the stream's law would show it (ours)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.core.transfer import together
from suite.keys import Key
from suite.streams.base import at_places
from suite.types import ImageShape, Parameterization, Params, RelatedTasks, Setting


@dataclass(frozen=True, eq=False)
class WithStandIns:
    """A parameterization whose recall appends, to each class's images, the same images as other tasks show them.

    recall(m, q) = [x, v_1(x), ..., v_s(x)] with x = of.recall(m, q). Nothing more is stored.
    """

    of: Parameterization
    """What the memory stores, and how its own images are recalled."""
    shown: Int64[Tensor, "stand_ins pixels"]
    """For each stand-in and pixel the pixel that it shows; -1: none, for which the corners' mean stands."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images of a class with its stand-ins."""
        return self.of.per_class(shape, classes, images_per_class) * (1 + len(self.shown))

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """The memory without stand-ins."""
        return self.of.init(shape, classes, images_per_class, key)

    def recall(self, memory: Params, queries: Tensor) -> Float[Tensor, "n per_class c h w"]:
        """Images of each query, then its stand-ins."""
        images = self.of.recall(memory, queries)
        flat = images.flatten(0, 1)
        corners = flat.detach()[:, :, :: max(1, flat.shape[2] - 1), :: max(1, flat.shape[3] - 1)]
        black = corners.flatten(2).mean((0, 2))
        return torch.cat([images, *(at_places(flat, one, black).view_as(images) for one in self.shown)], 1)

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """The penalty of the memory itself."""
        return self.of.penalty(memory)


def with_stand_ins(setting: Setting, stream: RelatedTasks, number: int, key: Key) -> Setting:
    """The setting with a memory of which `number` stand-ins are recalled too, each of a task drawn by the key."""
    drawn = torch.stack([stream.shown(key(i)) for i in range(number)])
    (shown,) = together([drawn], setting.device)
    return replace(setting, parameterization=WithStandIns(setting.parameterization, shown))
