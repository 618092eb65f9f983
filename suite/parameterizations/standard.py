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
    """Free images, a fixed number for each class, started from normal noise ('BPTT' in the paper's tables)."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        if images_per_class < 1:
            raise UsageError(
                f"standard stores whole images, so IMAGES_PER_CLASS must be at least 1, not {images_per_class}; "
                "downsampled or addressing go lower"
            )
        return int(images_per_class)

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        n = self.per_class(shape, classes, images_per_class)
        size = (classes, n, shape.channels, shape.height, shape.width)
        return {"images": torch.randn(size, generator=key("images").generator())}

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class c h w"]:
        if queries.is_floating_point():
            raise UsageError("standard stores images class by class, so it is queried by class number, not by a vector")
        return memory["images"][queries]

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        return memory["images"].new_zeros(())
