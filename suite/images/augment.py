"""Augmentations: random changes of images that are differentiable in the images, drawn by a key.

A draw is separate from its use, so that one draw can serve the recalled images and the real ones of an outer step.

    >>> images = torch.arange(3.0).view(1, 1, 1, 3)
    >>> flip(images, torch.tensor([True])).flatten()
    tensor([2., 1., 0.])
    >>> augmentation = draw("flip_rotate", Key(0))
    >>> augmentation(images).equal(augmentation(images))
    True
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.registry import suggestion
from suite.validation import OneOf

DSA = {
    "dsa": ("colour", "crop", "cutout", "flip", "scale", "rotate"),
    "dsa_unflipped": ("colour", "crop", "cutout", "scale", "rotate"),
    "dsa_uncut": ("colour", "crop", "flip", "scale", "rotate"),
    "dsa_unflipped_uncut": ("colour", "crop", "scale", "rotate"),
}
"""What each kind of DSA draws one of; the second for images that must not be mirrored, the third beside CutMix."""

AUGMENTATIONS = ("none", "flip_rotate", "crop_flip", *DSA)
"""Names of the augmentations."""

AugmentationName = Annotated[str, OneOf(AUGMENTATIONS)]
"""A field that names an augmentation."""

AugmentationChoice = Annotated[str, OneOf(("default", *AUGMENTATIONS))]
"""A field that names an augmentation, or 'default' for the data set's own."""

LARGEST_ANGLE = 15.0
"""Degrees to either side (released code of the paper)."""

PADDING = 4
"""Pixels of zeros around an image that a crop may show (La-MAML)."""

Augmentation = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]
"""Images -> as many images of that shape."""


def draw(name: str, key: Key, n: int | None = None) -> Augmentation:
    """Draw the augmentation called `name` (paper, A.1): what it returns maps images (n c h w) to as many of that shape.

    flip_rotate draws one of two operations: a horizontal flip with probability ½, or a rotation by an angle uniform in
    ±15°. crop_flip draws both a crop of the image's size out of the image with four pixels of zeros around it, and a
    horizontal flip with probability ½ (La-MAML, CIFAR-100). The kinds of DSA (Zhao and Bilen, 2021) draw one of their
    operations for all images. With `n` None the draw is shared by every image, of any number; given, n images get one
    each.
    Raises UsageError for an unknown name.
    """
    if name == "none":
        return _same
    if name == "flip_rotate":
        numbers = torch.rand(1 + (1 if n is None else n), generator=key.generator(), dtype=torch.float64)
        operation, each = float(numbers[0]), numbers[1:]
        if operation < 0.5:
            return partial(flip, flipped=each < 0.5)
        return partial(rotate, radians=(2 * each - 1) * math.radians(LARGEST_ANGLE))
    if name == "crop_flip":
        each = torch.rand(3, 1 if n is None else n, generator=key.generator(), dtype=torch.float64)
        down, right = (each[:2] * (2 * PADDING + 1)).long()
        return lambda images: flip(crop(images, down, right), each[2] < 0.5)
    if name in DSA:
        numbers = torch.rand(1 + 3 * (1 if n is None else n), generator=key.generator(), dtype=torch.float64)
        chosen = DSA[name][int(float(numbers[0]) * len(DSA[name]))]
        return partial(_dsa, operation=chosen, drawn=numbers[1:].view(3, -1))
    raise UsageError(f"no augmentation is called '{name}'; {suggestion(name, list(AUGMENTATIONS))}")


def _same(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return images


def flip(images: Float[Tensor, "n c h w"], flipped: Bool[Tensor, " m"]) -> Float[Tensor, "n c h w"]:
    """Left and right exchanged in the images that are marked; one mark (m = 1) serves all."""
    if len(flipped) == 1:
        return images.flip(-1) if flipped else images
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(-1), images)


def crop(
    images: Float[Tensor, "n c h w"], down: Int64[Tensor, " m"], right: Int64[Tensor, " m"], padding: int = PADDING
) -> Float[Tensor, "n c h w"]:
    """The part of the image's size that starts so far down and right in the image with so many zeros around it."""
    n, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4).flatten(2)
    rows = down[:, None, None] + torch.arange(height)[:, None]
    columns = right[:, None, None] + torch.arange(width)
    places = (rows * (width + 2 * padding) + columns).flatten(1).to(images.device)
    return padded.gather(2, places[:, None].expand(n, channels, -1)).reshape(images.shape)


def rotate(images: Float[Tensor, "n c h w"], radians: Float64[Tensor, " m"]) -> Float[Tensor, "n c h w"]:
    """Images turned about their centre, bilinear between pixels and zero outside; one angle (m = 1) serves all.

    y[p] = Σ_k weight_k(p) x[corner_k(p)] over the four pixels around the place that p shows. The sum is linear in x,
    so it has derivatives of every order. torch's grid_sample has none beyond the first, and that one is not repeatable
    on CUDA; a gather's is, under torch.use_deterministic_algorithms.
    """
    height, width = images.shape[-2:]
    cos, sin = torch.stack([radians.cos(), radians.sin()]).to(images.dtype)[:, :, None, None]
    # A number serves a device as it is; several are copied there.
    cos, sin = (cos[0, 0, 0], sin[0, 0, 0]) if len(radians) == 1 else torch.stack([cos, sin]).to(images.device)
    down, right = _from_centre(images)
    x = (cos * right - sin * down + (width - 1) / 2).view(-1, height, width)
    y = (sin * right + cos * down + (height - 1) / 2).view(-1, height, width)
    return _sampled(images, x, y)


def scale(
    images: Float[Tensor, "n c h w"], across: Float64[Tensor, " m"], along: Float64[Tensor, " m"]
) -> Float[Tensor, "n c h w"]:
    """Images shrunk by these factors about their centre, in width and in height, sampled as `rotate` does."""
    height, width = images.shape[-2:]
    wide, high = torch.stack([across, along]).to(images.device, images.dtype)[:, :, None, None]
    down, right = _from_centre(images)
    x = (wide * right + (width - 1) / 2).expand(-1, height, width)
    y = (high * down + (height - 1) / 2).expand(-1, height, width)
    return _sampled(images, x, y)


def _from_centre(images: Tensor) -> tuple[Tensor, Tensor]:
    """Places of rows (h 1) and of columns (w), counted from the middle."""
    height, width = images.shape[-2:]
    down = (torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2)[:, None]
    return down, torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2


def _sampled(images: Float[Tensor, "n c h w"], x: Tensor, y: Tensor) -> Float[Tensor, "n c h w"]:
    """The images at these places (m h w), bilinear between pixels and zero outside."""
    height, width = images.shape[-2:]
    left, top = x.floor(), y.floor()

    flat = images.flatten(2)
    sampled = torch.zeros_like(flat)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        sampled = sampled + weight.flatten(1)[:, None] * flat.gather(2, index.flatten(1)[:, None].expand_as(flat))
    return sampled.reshape(images.shape)


# ---------------------------------------------------------------- DSA

LARGEST_SCALE = 1.2
"""Images are shrunk by 1 / 1.2 to 1.2 times."""

SHIFT = 0.125
"""Part of the image's size that a crop moves it by at most."""

CUT = 0.5
"""Part of the image's height and width that is cut out."""


def _dsa(images: Float[Tensor, "n c h w"], operation: str, drawn: Float64[Tensor, "3 m"]) -> Float[Tensor, "n c h w"]:
    """One operation of DSA with numbers from [0, 1) for each image, with the limits of its released code."""
    height, width = images.shape[-2:]
    if operation == "flip":
        return flip(images, drawn[0] < 0.5)
    if operation == "rotate":
        return rotate(images, (2 * drawn[0] - 1) * math.radians(LARGEST_ANGLE))
    if operation == "scale":
        across, along = 1 / LARGEST_SCALE + drawn[:2] * (LARGEST_SCALE - 1 / LARGEST_SCALE)
        return scale(images, across, along)
    if operation == "crop":
        farthest = [int(size * SHIFT + 0.5) for size in (height, width)]
        around = max(farthest)
        down, right = (
            (part * (2 * far + 1)).long() + around - far for part, far in zip(drawn[:2], farthest, strict=True)
        )
        return crop(images, down, right, around)
    if operation == "cutout":
        rows, columns = (
            _hidden(part, size).to(images.device) for part, size in zip(drawn[:2], (height, width), strict=True)
        )
        return images * ~(rows[:, None, :, None] & columns[:, None, None, :])
    brightness, saturation, contrast = drawn.to(images.device, images.dtype)[:, :, None, None, None]
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    level = images.mean((1, 2, 3), keepdim=True)
    return (images - level) * (contrast + 0.5) + level


def _hidden(drawn: Float64[Tensor, " m"], size: int) -> Bool[Tensor, "m size"]:
    """Of so many rows, or columns, those that are cut out: half of them around a place that was drawn."""
    length = int(size * CUT + 0.5)
    first = (drawn * (size + 1 - length % 2)).long() - length // 2
    places = torch.arange(size)
    return (places >= first[:, None]) & (places < first[:, None] + length)
