r"""Template of a parameterization: what a memory stores, and how images are recalled from it.

    python -m suite.check docs/templates/parameterization.py
    python -m suite.run --plugin docs/templates/parameterization.py --gin gin/fashion_mnist.gin \
        --gin gin/scale/smoke.gin --set 'DATASET = @datasets.digits()' \
        --set 'PARAMETERIZATION = @parameterizations.low_rank()' --set 'IMAGES_PER_CLASS = 2'
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.registry import parameterizations
from suite.types import ImageShape, Params
from suite.validation import PositiveInt


@parameterizations.register("low_rank")  # its name in gin: @parameterizations.low_rank()
@dataclass(frozen=True)
class LowRank:
    """Images of rank r: each channel is U V with U of (height, r) and V of (r, width), which take r (h + w) numbers.

    >>> LowRank(rank=2).per_class(ImageShape(1, 8, 8), classes=10, images_per_class=2)  # 2 * 64 / (2 * 16)
    4
    """

    rank: PositiveInt = 2
    """r; `suite.validation` has the limits that an annotation can declare."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images for each class from this budget; UsageError where it affords none."""
        number = int(images_per_class * shape.height * shape.width / (self.rank * (shape.height + shape.width)))
        if number < 1:
            raise UsageError(f"no image of rank {self.rank} fits {images_per_class:g} images per class; lower the rank")
        return number

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """`left` and `right`, drawn by the key: every tensor here counts towards the budget."""
        images = (classes, self.per_class(shape, classes, images_per_class), shape.channels)
        left = torch.randn(*images, shape.height, self.rank, generator=key("left").generator())
        return {"left": left, "right": torch.randn(*images, self.rank, shape.width, generator=key("right").generator())}

    def recall(self, memory: Params, queries: Tensor) -> Tensor:
        """U V for each class number: (n, per_class, channels, height, width). A pure, differentiable function."""
        return memory["left"][queries] @ memory["right"][queries]

    def penalty(self, memory: Params) -> Tensor:
        """What is added to the outer loss for the memory itself; here nothing."""
        return memory["left"].new_zeros(())
