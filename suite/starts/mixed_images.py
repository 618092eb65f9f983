"""A start from whatever real images there are, however few."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.registry import starts
from suite.types import ClassRows, Setting


@starts.register("mixed_images")
@dataclass(frozen=True)
class MixedImages:
    """Random real images of a class; where it has too few, also u x + (1 - u) y of two, u uniform in [0, 1].

    Of a class without any image, combinations of all others' stand in. For streams, whose storage holds few images.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 1, 1), 1, MLP(), Standard(), "none", torch.device("cpu"))
    >>> real = ClassRows.of(Split(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0, 0])), classes=1)
    >>> images = MixedImages().images(setting, real, each=5, key=Key(0)).flatten()
    >>> sorted(images.tolist())[::4], len(images)
    ([0.0, 1.0], 5)
    """

    def images(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Float[Tensor, "classes each c h w"]:
        """The images; UsageError where there is not a single one."""
        if not len(real.split):
            raise UsageError("mixed_images can't start a memory without any training image")
        everything = torch.arange(len(real.split))
        found = []
        for c, own in enumerate(real.rows):
            rows = own if len(own) else everything
            order = rows[key("order", c).permutation(len(rows))]
            kept = real.split.images[order[:each] if len(own) else order[:0]]
            missing = each - len(kept)
            generator = key("mixed", c).generator()
            pairs = rows[torch.randint(len(rows), (missing, 2), generator=generator)]
            part = torch.rand(missing, 1, 1, 1, generator=generator).to(real.split.images)
            mixed = part * real.split.images[pairs[:, 0]] + (1 - part) * real.split.images[pairs[:, 1]]
            found.append(torch.cat([kept, mixed]))
        return torch.stack(found)
