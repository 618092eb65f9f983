"""Your own images as numpy arrays: a file .npz, or a folder of files .npy."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.datasets.base import ImageDataset, Raw
from suite.errors import RunError, UsageError, one_line
from suite.registry import datasets
from suite.storage.files import user_path
from suite.storage.plain_files import open_plain
from suite.types import DatasetInfo, ImageShape

NAMES = {
    "train_images": ("train_images", "x_train"),
    "train_labels": ("train_labels", "y_train"),
    "test_images": ("test_images", "x_test"),
    "test_labels": ("test_labels", "y_test"),
}
"""Of each array the names that it may have: MedMNIST's, and Keras's."""

MOST_LABELS = 2**26
"""Labels that are read to know the number of classes."""

MOST_CLASSES = 100_000
"""More are taken for numbers of another kind."""


@datasets.register("numpy")
@dataclass(frozen=True)
class Arrays(ImageDataset):
    """Arrays train_images, train_labels, test_images and test_labels (or x_train, y_train, x_test, y_test).

    Images are uint8 from 0 to 255, of shape (n, height, width), (n, height, width, channels) or (n, channels, height,
    width); the channels are the axis of 1 or 3. Labels are whole numbers from 0, of shape (n,) or (n, 1).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    ...     file = Path(folder, "mine.npz")
    ...     np.savez(file, x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    ...     mine = Arrays(file=str(file), class_names=("day", "night"))
    ...     mine.info.name, mine.info.train_size, mine.info.class_names, str(mine.info.shape)
    ('mine (arrays)', 4, ('day', 'night'), '1x8x8')
    """

    file: str = ""
    """A file .npz, or a folder with a file .npy for each array: a whole path, `~/...`, or one from where the command is
    started."""
    class_names: Sequence[str] = ()
    """In the order of the labels; none: the numbers themselves."""

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and classes, from the arrays' headers and the labels."""
        place = _place(self.file)
        heads = {name: _read(place, name, header_only=True) for name in ("train_images", "test_images")}
        labels = [_labels(_read(place, name), place, name) for name in ("train_labels", "test_labels")]
        channels, height, width = _layout(heads["train_images"], place)
        if _layout(heads["test_images"], place) != (channels, height, width):
            raise RunError(
                f"numpy: training images of {place} are {channels}x{height}x{width}, and test images are not"
            )
        classes = 1 + max((int(part.max()) for part in labels if len(part)), default=0)
        if classes > MOST_CLASSES:
            raise UsageError(f"numpy: the labels of {place} go up to {classes - 1:,}; number the classes from 0")
        names = tuple(self.class_names) or tuple(map(str, range(max(classes, 2))))
        if len(names) < classes:
            raise UsageError(
                f"numpy.class_names has {len(names)} names, and the labels of {place} go up to {classes - 1}"
            )
        shape = ImageShape(channels, height, width)
        sizes = (heads[name][0] for name in ("train_images", "test_images"))
        return DatasetInfo(f"{place.resolve().stem} (arrays)", shape, names, *sizes)

    def files(self, root: Path) -> list[Path]:
        """The file or the folder."""
        return [_place(self.file)]

    def read(self, root: Path, download: bool) -> Raw:
        """All arrays."""
        place = _place(self.file)
        images = {name: _images(_read(place, name), place, name) for name in ("train_images", "test_images")}
        labels = {name: _labels(_read(place, name), place, name) for name in ("train_labels", "test_labels")}
        for part in ("train", "test"):
            counts = len(images[f"{part}_images"]), len(labels[f"{part}_labels"])
            if counts[0] != counts[1]:
                raise RunError(
                    f"numpy: {place} has {counts[0]} {part}_images and {counts[1]} {part}_labels; save one each"
                )
        return Raw(**images, **labels, source=f"arrays of numpy, read by numpy {np.__version__}")


def _place(file: str) -> Path:
    if not file:
        raise UsageError("numpy: say where the arrays are, such as --set 'datasets.numpy.file = \"mine.npz\"'")
    place = user_path(file, "numpy.file")
    if not place.exists():
        raise UsageError(f"numpy: there is no file {place.absolute()}")
    return place


def _read(place: Path, name: str, header_only: bool = False) -> Any:
    """An array, or its shape. Raises RunError where it is missing, holds objects, or is damaged."""
    try:
        if place.is_dir():
            found = [place / f"{one}.npy" for one in NAMES[name] if (place / f"{one}.npy").exists()]
            if found:
                with open_plain(found[0], follow=True) as opened:
                    return _array(opened, name, header_only)
        else:
            with open_plain(place, follow=True) as opened, zipfile.ZipFile(opened) as archive:
                members = [one for one in NAMES[name] if f"{one}.npy" in archive.namelist()]
                if members:
                    with archive.open(f"{members[0]}.npy") as member:
                        return _array(member, name, header_only)
    except RunError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file leads them to
        raise RunError(f"numpy: {name} of {place} can't be read ({one_line(error)[:200]}); save it again") from error
    raise RunError(f"numpy: {place} has no array {' or '.join(NAMES[name])}; save it under one of these names")


def _array(opened: Any, name: str, header_only: bool) -> Any:
    """What an open file .npy holds, or its shape. Objects, which could run code, are refused."""
    version = np.lib.format.read_magic(opened)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, kind = header(opened)
    if kind.hasobject:
        raise ValueError("it holds Python objects; save numbers")
    if header_only:
        return shape
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if name.endswith("labels") and count > MOST_LABELS:
        raise ValueError(f"it has {count:,} labels")
    numbers = np.empty(0, kind)
    pieces, left = [numbers], count
    while left:  # what a header claims is not believed before it was read
        data = opened.read(min(left, PIECE) * kind.itemsize)
        if len(data) < kind.itemsize:
            raise ValueError(f"it ends after {count - left:,} of {count:,} numbers")
        pieces.append(np.frombuffer(data, kind, len(data) // kind.itemsize))
        left -= len(pieces[-1])
    return np.concatenate(pieces).reshape(shape, order="F" if by_columns else "C")


PIECE = 2**24
"""Numbers that are read at a time."""


def _layout(shape: tuple[int, ...], place: Path) -> tuple[int, int, int]:
    """(channels, height, width) of images of this shape."""
    if 0 in shape[1:]:
        raise RunError(f"numpy: the images of {place} have shape {shape}, which holds no pixels")
    if len(shape) == 3:
        return 1, shape[1], shape[2]
    first, last = (len(shape) == 4 and shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        what = "either axis could be the channels" if first else "no axis of 1 or 3 is the channels"
        raise RunError(
            f"numpy: the images of {place} have shape {shape}: {what}; save (n, height, width, channels), of 1 or 3 "
            "channels"
        )
    return (shape[1], shape[2], shape[3]) if first else (shape[3], shape[1], shape[2])


def _images(array: Any, place: Path, name: str) -> Tensor:
    if array.dtype != np.uint8:
        span = f" from {array.min():.4g} to {array.max():.4g}" if array.size and array.dtype.kind in "iuf" else ""
        raise RunError(
            f"numpy: {name} of {place} are {array.dtype}{span}, and must be uint8 from 0 to 255; scale and round them "
            "first"
        )
    channels, height, width = _layout(array.shape, place)
    if array.ndim == 4 and array.shape[1:] != (channels, height, width):
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.array(array, order="C").reshape(-1, channels, height, width))


def _labels(array: Any, place: Path, name: str) -> Tensor:
    """Class numbers. Raises RunError for what are none."""
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    whole = flat.dtype.kind in "iu" or (
        flat.dtype.kind == "f" and bool((np.isfinite(flat) & (flat == np.floor(flat))).all())
    )
    if flat.ndim != 1 or not whole or (len(flat) and flat.min() < 0):
        raise RunError(
            f"numpy: {name} of {place} are {array.dtype} of shape {array.shape}, and must be whole numbers from 0, one "
            "for each image"
        )
    return torch.from_numpy(flat.astype(np.int64))
