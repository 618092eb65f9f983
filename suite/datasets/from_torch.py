"""A data set of torch's as a file of arrays, which runs can name, repeat and resume."""

import io
import operator
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.datasets.arrays import Arrays
from suite.datasets.decoding import Resize, Shaping, decoded
from suite.errors import UsageError
from suite.storage.files import disk_errors, user_path, write_atomic
from suite.types import ImageShape


def from_torch(
    train: Any,
    test: Any,
    file: str | Path,
    *,
    class_names: Sequence[str] = (),
    height: int = 32,
    width: int | None = None,
    channels: int = 3,
    resize: Resize = "crop",
) -> Arrays:
    """Write the images of two data sets to a file .npz, and give the data set `numpy` of it.

    `train` and `test` are torch's `Dataset`s, or whatever has a length and items that are pairs of image and class
    number. An image is Pillow's, uint8 of shape (c, h, w), or numbers from 0 to 1 of that shape, as those of
    torchvision's `ToTensor`. `class_names`: none: those of `train.classes`, if it has any. A file that is there and has
    other content stays, and UsageError is raised. RunError names the items that are no such pairs.

    >>> import tempfile
    >>> pairs = [(torch.full((1, 8, 8), label / 10), label) for label in (0, 1, 0, 1)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mine = from_torch(pairs, pairs[:2], Path(folder, "mine.npz"), height=8, channels=1)
    ...     mine.info.train_size, mine.info.classes, str(mine.info.shape)
    (4, 2, '1x8x8')
    """
    place = user_path(str(file), "from_torch")
    if place.suffix != ".npz":
        raise UsageError(f"from_torch: {place} must end in .npz")
    if channels not in (1, 3):
        raise UsageError(f"from_torch: channels must be 1 or 3, not {channels}")
    shaping = Shaping(ImageShape(channels, height, width or height), resize)
    arrays: dict[str, Any] = {}
    for part, pairs in (("train", train), ("test", test)):
        if not hasattr(pairs, "__len__"):
            raise UsageError(f"from_torch: the {part} part has no length; give a data set whose items have numbers")
        labels = np.zeros(len(pairs), np.int64)
        read: list[Callable[[], Tensor]] = [partial(_pair, pairs, row, labels, shaping) for row in range(len(pairs))]
        # One at a time: a data set of somebody's may not bear to be read from several threads.
        images = decoded(f"from_torch, {part}", read, [f"item {row}" for row in range(len(pairs))], shaping.shape, 1)
        arrays |= {f"{part}_images": images.numpy(), f"{part}_labels": labels}
    content = io.BytesIO()
    np.savez(content, **arrays)
    with disk_errors(place):
        if not place.exists():
            write_atomic(place, content.getvalue())
        elif place.read_bytes() != content.getvalue():
            raise UsageError(f"from_torch: {place} is there, and holds other images; name another file, or delete it")
    names = tuple(class_names) or tuple(map(str, getattr(train, "classes", ())))
    return Arrays(file=str(place), class_names=names)


def _pair(pairs: Any, row: int, labels: Any, shaping: Shaping) -> Tensor:
    image, label = pairs[row]
    labels[row] = operator.index(label)  # 1.7 is no class
    if hasattr(image, "convert"):
        return shaping.image(image)
    pixels = torch.as_tensor(image)
    if pixels.is_floating_point():
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ValueError(
                f"its numbers go from {float(pixels.min()):.4g} to {float(pixels.max()):.4g}, and must be uint8, or "
                "from 0 to 1 before any normalisation"
            )
        pixels = pixels.mul(255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise ValueError(f"it is {pixels.dtype} of shape {tuple(pixels.shape)}, and must be uint8 of shape (c, h, w)")
    from PIL import Image

    rows = pixels.permute(1, 2, 0).numpy()
    return shaping.image(Image.fromarray(rows[:, :, 0] if len(pixels) == 1 else rows))
