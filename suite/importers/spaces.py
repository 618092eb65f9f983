"""The space of somebody else's images: what was done to their pixels, as the command declares it.

pixels                   nothing: numbers from 0 to 1
standardized:MEAN/STD    (x - mean) / std of each channel, as in standardized:0.2861/0.3530
standardized:data-set    likewise, by the mean and deviation of the data set's training images
zca:FILE                 (x - mean) M of flattened images, channels first; M is the array `whitening` in FILE, an
                         `.npz`, and `mean` its other array. Without `mean`, KIP's kind: every image less its own
                         mean, over its norm, times M
zca_image:REG            KIP's kind, as this suite fits it on the data set's training images
zca_feature:REG          kornia's kind, likewise
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from suite.errors import RunError, UsageError, printable
from suite.images import preprocess
from suite.images.preprocess import Identity, Standardize, ZCAFeature, ZCAImage
from suite.importers.kip import arrays_of
from suite.storage.files import user_path
from suite.types import ImageShape, Params, Transform

CHOICES = (
    "pixels, standardized:MEAN/STD, standardized:data-set, zca:FILE with its matrix, zca_image:REG, zca_feature:REG"
)
"""What `--space` takes."""

PIXELS_FROM, PIXELS_TO = -1.0, 2.0
"""Learned pixels leave [0, 1] by a little. Numbers beyond these are in some other space."""


@dataclass(frozen=True, eq=False)
class Space:
    """A declared space."""

    text: str
    """As it was declared; of a file its name alone."""
    tensors: Params
    """What was read from that file."""

    @property
    def fitted(self) -> tuple[str, float] | None:
        """Preprocessing and regularization where the suite fits it on the data set's training images."""
        kind, _, value = self.text.partition(":")
        if self.text == "standardized:data-set":
            return "standardize", 0.1
        return (kind, float(value)) if kind in ("zca_image", "zca_feature") else None

    def transform(self) -> Transform:
        """What was done to pixels, of a space that is not `fitted`."""
        kind, _, values = self.text.partition(":")
        if kind == "pixels":
            return Identity()
        if kind == "standardized":
            mean, std = ([float(v) for v in part.split(",")] for part in values.split("/"))
            return Standardize(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
        if "mean" in self.tensors:
            return ZCAFeature(self.tensors["mean"].double(), self.tensors["whitening"].float(), 0.0)
        return ZCAImage(self.tensors["whitening"].float(), 0.0)


def declared(text: str, shape: ImageShape) -> Space:
    """The space that `--space` declares for images of a shape. Raises UsageError, and RunError for a file."""
    kind, _, value = text.partition(":")
    if text in ("pixels", "standardized:data-set"):
        return Space(text, {})
    if kind == "standardized":
        return Space(_standardized(text, value, shape), {})
    if kind in ("zca_image", "zca_feature"):
        return Space(f"{kind}:{_positive(text, value)!r}", {})
    if kind == "zca" and value:
        file = user_path(value, "--space")
        return Space(f"zca:{printable(file.name)}", _matrix(file, shape))
    raise UsageError(f"--space {printable(text)}: there is no such space; there are: {CHOICES}")


def _standardized(text: str, value: str, shape: ImageShape) -> str:
    """Mean and deviation for each channel, one for all or one for each."""
    try:
        parts = [[float(number) for number in part.split(",")] for part in value.split("/")]
        mean, std = (part * shape.channels if len(part) == 1 else part for part in parts)
    except ValueError:
        mean, std = [], []
    fits = len(mean) == len(std) == shape.channels and all(map(math.isfinite, [*mean, *std]))
    if not fits or not all(v > 0 for v in std):
        raise UsageError(
            f"--space {printable(text)}: write the mean and the deviation, above 0, of each of {shape.channels} "
            "channels, as in standardized:0.5,0.5,0.5/0.25,0.25,0.25, or standardized:data-set"
        )
    return f"standardized:{','.join(map(repr, mean))}/{','.join(map(repr, std))}"


def _positive(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not (math.isfinite(number) and number > 0):
        raise UsageError(f"--space {printable(text)}: write the regularization, above 0, as in zca_image:0.1")
    return number


def _matrix(file: Path, shape: ImageShape) -> Params:
    """The matrix of a ZCA, and the mean that it takes off if it does."""
    tensors = arrays_of(file, ("whitening",), ("mean",))
    sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if sizes["whitening"] != (shape.numel, shape.numel) or sizes.get("mean", (shape.numel,)) != (shape.numel,):
        raise RunError(f"{file}: 'whitening' must have {shape.numel} x {shape.numel} numbers, 'mean' {shape.numel}")
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise RunError(f"{file} holds NaN or infinity; take the matrix that the images were whitened with")
    return tensors


# ---------------------------------------------------------------- into another space


@dataclass(frozen=True, eq=False)
class Conversion:
    """Images in another space, and what was done."""

    images: Float[Tensor, "n c h w"]
    """In the new space."""
    words: str
    """How they came there."""
    outside: dict[str, float]
    """Of their pixels: the fraction outside [0, 1], the least and the largest; empty where there are no pixels."""


def converted(images: Float[Tensor, "n c h w"], of: Transform, to: Transform, tiles: bool) -> Conversion:
    """Images of one space in another: back to pixels, nothing clamped, and preprocessed anew.

    `tiles`: whether the images hold others, which are cut out later, so that only maps of single pixels will do. Raises
    UsageError where the way is not open.
    """
    if tiles and (of.name.startswith("zca") or to.name.startswith("zca")):
        raise UsageError(
            "images that hold tiles can't be whitened before they are cut; judge them under another preprocessing of "
            "the data set, as in --set 'cifar10.preprocessing = \"standardize\"'"
        )
    if of.name == "zca_image":
        if to.name != "zca_image":
            raise UsageError(
                f"--space: images whitened as zca_image have no brightness and contrast, so they can't be taken to the "
                f"data set's preprocessing '{to.name}'; judge them under zca_image, as in "
                "--set 'cifar10.preprocessing = \"zca_image\"'"
            )
        same = of.describe() == to.describe()
        moved = images if same else preprocess.moved(images, of, to)
        return Conversion(
            moved, "kept as they are" if same else "unwhitened, and whitened by the data set's matrix", {}
        )
    pixels = preprocess.pixels_of(images, of)
    outside = {
        "fraction": float(((pixels < 0) | (pixels > 1)).double().mean()),
        "least": float(pixels.min()),
        "largest": float(pixels.max()),
    }
    if of.describe() == to.describe():
        return Conversion(images, "kept as they are", outside)
    undone = "" if of.name == "none" else f"'{of.name}' undone, "
    return Conversion(to.apply(pixels), f"{undone}then '{to.name}' as fitted on the data set", outside)


def refuse_no_pixels(path: Path, images: Tensor, option: str) -> None:
    """Raise UsageError for images that are declared as pixels, and are none."""
    least, largest = float(images.min()), float(images.max())
    if least < PIXELS_FROM or largest > PIXELS_TO:
        raise UsageError(
            f"{option}: the images in {path} go from {least:.3g} to {largest:.3g}, so they are no pixels in [0, 1]; "
            f"say what was done to them: {CHOICES}"
        )
