"""Free images: every pixel of every synthetic image is stored."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.registry import parameterizations
from suite.types import ImageShape, Params


@parameterizations.register("standard")
@dataclass(frozen=True)
class Standard:
    """Free images, a fixed number for each class, started from normal noise ('BPTT' in the paper's tables).

    >>> memory = Standard().init(ImageShape(1, 8, 8), classes=10, images_per_class=2, key=Key(0))
    >>> memory["images"].shape, Standard().recall(memory, torch.tensor([7])).shape
    (torch.Size([10, 2, 1, 8, 8]), torch.Size([1, 2, 1, 8, 8]))
    """

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """`images_per_class`, rounded down; UsageError below 1."""
        if images_per_class < 1:
            raise UsageError(
                f"standard stores whole images, so IMAGES_PER_CLASS must be at least 1, not {images_per_class}; "
                "downsampled or addressing go lower"
            )
        return int(images_per_class)

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """`images`: normal noise, classes x images x c x h x w."""
        n = self.per_class(shape, classes, images_per_class)
        size = (classes, n, shape.channels, shape.height, shape.width)
        return {"images": torch.randn(size, generator=key("images").generator())}

    def fitted(self, memory: Params, images: Float[Tensor, "classes per_class c h w"]) -> Params:
        """The images themselves."""
        return {"images": images}

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class c h w"]:
        """The images of each class number; UsageError for vectors."""
        if queries.is_floating_point():
            raise UsageError("standard stores images class by class, so it is queried by class number, not by a vector")
        return memory["images"][queries]

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """0."""
        return memory["images"].new_zeros(())
