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

AUGMENTATIONS = ("none", "flip_rotate", "crop_flip")
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
    horizontal flip with probability ½ (La-MAML, CIFAR-100). With `n` None the draw is shared by every image, of any
    number; given, n images get one each.
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
    raise UsageError(f"no augmentation is called '{name}'; {suggestion(name, list(AUGMENTATIONS))}")


def _same(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return images


def flip(images: Float[Tensor, "n c h w"], flipped: Bool[Tensor, " m"]) -> Float[Tensor, "n c h w"]:
    """Left and right exchanged in the images that are marked; one mark (m = 1) serves all."""
    if len(flipped) == 1:
        return images.flip(-1) if flipped else images
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(-1), images)


def crop(
    images: Float[Tensor, "n c h w"], down: Int64[Tensor, " m"], right: Int64[Tensor, " m"]
) -> Float[Tensor, "n c h w"]:
    """The part of the image's size that starts so far down and right in the image with `PADDING` zeros around it."""
    n, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PADDING,) * 4).flatten(2)
    rows = down[:, None, None] + torch.arange(height)[:, None]
    columns = right[:, None, None] + torch.arange(width)
    places = (rows * (width + 2 * PADDING) + columns).flatten(1).to(images.device)
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
    down = (torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2)[:, None]
    right = torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2
    x = (cos * right - sin * down + (width - 1) / 2).view(-1, height, width)
    y = (sin * right + cos * down + (height - 1) / 2).view(-1, height, width)
    left, top = x.floor(), y.floor()

    flat = images.flatten(2)
    turned = torch.zeros_like(flat)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        turned = turned + weight.flatten(1)[:, None] * flat.gather(2, index.flatten(1)[:, None].expand_as(flat))
    return turned.reshape(images.shape)
