"""What a distilled set of somebody else stores: its images, its labels where it learned them, and its learning rate."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from suite.errors import UsageError
from suite.keys import Key
from suite.parameterizations.addressing import budget_numbers
from suite.registry import ADDED, parameterizations
from suite.types import ImageShape, Params
from suite.validation import NonNegativeInt, PositiveInt

IMAGES, LABELS, RATE = "images", "labels", "rate"
"""Names of the tensors."""

LabelKind = Literal["probabilities", "weights", "logits", "regression"]
"""What stored labels of several numbers are, see `ImportedLabels`."""


@parameterizations.register("imported")
@dataclass(frozen=True)
class Imported:
    """Images that were distilled elsewhere, class by class; with a `factor`, each image stores factor² smaller ones.

    The smaller ones are the image's tiles, enlarged to its size by bilinear interpolation (IDC: Kim et al., Dataset
    Condensation via Efficient Synthetic-Data Parameterization, ICML 2022).

    >>> shape, quarters = ImageShape(1, 8, 8), Imported(factor=2)
    >>> memory = quarters.init(shape, classes=10, images_per_class=3, key=Key(0))
    >>> memory["images"].shape, quarters.recall(memory, torch.tensor([7])).shape
    (torch.Size([10, 3, 1, 8, 8]), torch.Size([1, 12, 1, 8, 8]))
    """

    factor: PositiveInt = 1
    """Tiles along each side of a stored image; 1: images are stored as they are."""
    rate: bool = False
    """Whether a learning rate belongs to the set, one stored number that networks are trained at."""
    decoded: NonNegativeInt = field(default=0, metadata=ADDED)
    """Images of each class that were decoded from fewer stored numbers, which the budget counts; 0: nothing was."""

    def stored_per_class(self, shape: ImageShape, classes: int, images_per_class: float, each: int) -> int:
        """Images of every class that a budget stores, each with `each` numbers of labels; UsageError for none.

        Raises UsageError, too, where `factor` does not divide the sides. Decoded images are as many as there are.
        """
        if self.decoded:
            return self.decoded
        if shape.height % self.factor or shape.width % self.factor:
            raise UsageError(
                f"images of {shape} can't hold tiles of 1/{self.factor}; the factor must divide both sides"
            )
        numbers = budget_numbers(shape, classes, images_per_class) - self.rate
        stored = numbers // (classes * (shape.numel + each))
        if stored < 1:
            raise UsageError(f"{images_per_class:g} images per class do not hold one whole image of each class")
        return stored

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """factor² images for each that the budget stores; UsageError where it stores none."""
        return self.stored_per_class(shape, classes, images_per_class, 0) * self.factor**2

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """`images`: normal noise, classes x images x c x h x w; `rate`: 0.01."""
        return self.of_size(shape, classes, self.stored_per_class(shape, classes, images_per_class, 0), key)

    def of_size(self, shape: ImageShape, classes: int, stored: int, key: Key) -> Params:
        """A fresh memory of so many stored images of every class."""
        size = (classes, stored, shape.channels, shape.height, shape.width)
        images = {IMAGES: torch.randn(size, generator=key("images").generator())}
        return images | ({RATE: torch.full((1,), 0.01)} if self.rate else {})

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class c h w"]:
        """The images of each class number, or their enlarged tiles: the first tile of every image, the second, …"""
        if queries.is_floating_point():
            raise UsageError("imported sets are stored class by class, so they are queried by class number")
        images = memory[IMAGES][queries]
        if self.factor == 1:
            return images
        n, each, channels, height, width = images.shape
        f = self.factor
        tiles = images.reshape(n, each, channels, f, height // f, f, width // f).permute(0, 3, 5, 1, 2, 4, 6)
        small = tiles.reshape(-1, channels, height // f, width // f)
        large = interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
        return large.reshape(n, f * f * each, channels, height, width)

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """0."""
        return memory[IMAGES].new_zeros(())


@parameterizations.register("imported_labels")
@dataclass(frozen=True)
class ImportedLabels:
    """Imported images (`of`), each with a label of C stored numbers, which say what networks are taught of it.

    `kind` says what the numbers z of a label are. Networks are taught probabilities: of 'logits' softmax(z); of
    'probabilities', and of 'weights' that are not below 0, z / sum(z); of 'regression', the targets of a squared
    error, which this suite's protocols do not have, the class of the largest number alone.

    >>> shape, soft = ImageShape(1, 8, 8), ImportedLabels()
    >>> memory = soft.init(shape, classes=10, images_per_class=2.5, key=Key(0))
    >>> memory["images"].shape, memory["labels"].shape
    (torch.Size([10, 2, 1, 8, 8]), torch.Size([10, 2, 10]))
    >>> soft.labels(memory, torch.tensor([7]))[0, 0, 6:9]
    tensor([0.0853, 0.2320, 0.0853])
    """

    of: Imported = field(default_factory=Imported)
    """What stores the images."""
    kind: LabelKind = "logits"
    """What the numbers of a label are."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """factor² images for each that the budget stores with its label; UsageError where it stores none."""
        return self.of.stored_per_class(shape, classes, images_per_class, classes) * self.of.factor**2

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """The tensors of `of`, and `labels` (classes x images x classes), the classes' one-hot vectors."""
        stored = self.of.stored_per_class(shape, classes, images_per_class, classes)
        labels = torch.eye(classes)[:, None].repeat(1, stored, 1)
        return self.of.of_size(shape, classes, stored, key) | {LABELS: labels}

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class c h w"]:
        """What `of` recalls."""
        return self.of.recall(memory, queries)

    def labels(self, memory: Params, queries: Int64[Tensor, " n"]) -> Float[Tensor, "n per_class classes"]:
        """The probabilities that networks are taught; those of an image for each of its tiles."""
        values = memory[LABELS][queries].repeat(1, self.of.factor**2, 1)
        if self.kind == "logits":
            return values.softmax(-1)
        if self.kind == "regression":
            return one_hot(values.argmax(-1), values.shape[-1]).to(values.dtype)
        shares = values.clamp_min(0)
        total = shares.sum(-1, keepdim=True)
        return torch.where(total > 0, shares / torch.where(total > 0, total, 1), 1 / values.shape[-1])

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """0."""
        return self.of.penalty(memory)
