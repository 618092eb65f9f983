"""Stored small, recalled large: another parameterization at a fraction of the resolution."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from suite.errors import UsageError
from suite.keys import Key
from suite.parameterizations.factors import factors
from suite.parameterizations.standard import Standard
from suite.registry import name_of, parameterizations
from suite.types import ImageShape, Labelled, Parameterization, Params, StartsFromImages
from suite.validation import PositiveInt, require


@parameterizations.register("downsampled")
@dataclass(frozen=True)
class Downsampled:
    """Another parameterization (`of`) stored at 1/factor of height and width, recalled with bilinear upsampling.

    The same budget holds factor² times the images or bases (paper, Table 3, 'BPTT+ds' and 'full').

    >>> halved = Downsampled(of=Standard(), factor=2)
    >>> memory = halved.init(ImageShape(1, 8, 8), classes=10, images_per_class=1, key=Key(0))
    >>> memory["images"].shape, halved.recall(memory, torch.tensor([7])).shape
    (torch.Size([10, 4, 1, 4, 4]), torch.Size([1, 4, 1, 8, 8]))
    """

    of: Parameterization = field(default_factory=Standard)
    """What is stored small."""
    factor: PositiveInt = 2
    """Height and width recalled over those stored."""

    def __post_init__(self) -> None:
        require(self, "of", not isinstance(self.of, Labelled), "without labels, which go around it: soft_labels(of=…)")

    def _small(self, shape: ImageShape) -> ImageShape:
        if shape.height % self.factor or shape.width % self.factor:
            raise UsageError(f"images of {shape} can't be stored at 1/{self.factor}; the factor must divide both sides")
        return ImageShape(shape.channels, shape.height // self.factor, shape.width // self.factor)

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images that `of` recalls from a budget of factor² times as many small images.

        Raises UsageError for images whose sides `factor` does not divide.
        """
        return self.of.per_class(self._small(shape), classes, images_per_class * self.factor**2)

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """The tensors of `of`, for small images."""
        return self.of.init(self._small(shape), classes, images_per_class * self.factor**2, key)

    def fitted(self, memory: Params, images: Float[Tensor, "classes per_class c h w"]) -> Params:
        """What `of` makes of the images at 1/factor of their size, each pixel the mean of those it stands for."""
        if not isinstance(self.of, StartsFromImages):
            raise UsageError(f"{name_of(self.of)} offers no start from images (`fitted`); start from noise")
        small = avg_pool2d(torch.flatten(images, 0, 1), self.factor)
        return self.of.fitted(memory, small.unflatten(0, images.shape[:2]))

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class c h w"]:
        """What `of` recalls, `factor` times as high and wide."""
        small = self.of.recall(memory, queries)
        return self._enlarged(torch.flatten(small, 0, 1)).unflatten(0, small.shape[:2])

    def factors(
        self, memory: Params, queries: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n per_class bases"], Float[Tensor, "bases c h w"]]:
        """The coefficients of `of`, and its bases `factor` times as high and wide: upsampling is linear."""
        coefficients, bases = factors(self.of, memory, queries)
        return coefficients, self._enlarged(bases)

    def _enlarged(self, small: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
        return interpolate(small, scale_factor=float(self.factor), mode="bilinear", align_corners=False)

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """That of `of`."""
        return self.of.penalty(memory)
