"""Loading a data set for an experiment: whoever wrote it, what it gives is looked at once, before the first step."""

from pathlib import Path

import torch

from suite.errors import RunError, report
from suite.keys import Key
from suite.types import Data, Dataset, DatasetInfo, Split

PIECE = 1024
"""Images that are looked at a time, so that a large set is not copied."""


def load(dataset: Dataset, data_dir: Path, key: Key, validation: float) -> Data:
    """The data set's splits. Raises RunError where they are not what a data set promises (`check_data`).

    Classes without a test image are named: nothing is measured on them.
    """
    data = dataset.load(data_dir, key, validation)
    check_data(data)
    if untested := _without_images(data.info, data.test):
        report(f"[data] {data.info.name} has no test image of {untested}; accuracies are over the other classes")
    return data


def check_data(data: Data) -> None:
    """Raise RunError for splits that can't be trained or measured on, in one sentence that says what and where.

    Images are finite float32 numbers of the shape in `info`; labels are whole class numbers, one for each image; there
    are test images, and training images of every class.
    """
    for part, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        _check_split(data.info, part, split)
    if not len(data.test):
        raise RunError(f"{data.info.name} has no test images; a data set must have a test part")
    if missing := _without_images(data.info, data.train):
        raise RunError(f"{data.info.name} has no training image of {missing}; add some, or leave the class out")


def _without_images(info: DatasetInfo, split: Split) -> str:
    """The classes of which there is no image, in words; empty: none."""
    counts = torch.bincount(split.labels, minlength=info.classes).tolist()
    missing = [name for name, count in zip(info.class_names, counts, strict=True) if not count]
    others = f" and {len(missing) - 1} other classes" if len(missing) > 1 else ""
    return f"class '{missing[0]}'{others}" if missing else ""


def _check_split(info: DatasetInfo, part: str, split: Split) -> None:
    images, labels, name = split.images, split.labels, info.name
    shape = (info.shape.channels, info.shape.height, info.shape.width)
    if images.dtype != torch.float32 or images.ndim != 4:
        raise RunError(
            f"{name}: {part} images are {_words(images)}, not float32 numbers of four axes (images, channels, height, "
            "width); preprocess them so in its load()"
        )
    if tuple(images.shape[1:]) != shape:
        raise RunError(f"{name}: {part} images have shape {tuple(images.shape[1:])}, and its info says {shape}")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise RunError(f"{name}: {part} labels are {_words(labels)}, not int64 numbers of one axis")
    if len(labels) != len(images):
        raise RunError(f"{name}: there are {len(images)} {part} images and {len(labels)} labels; give one to each")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= info.classes):
        raise RunError(
            f"{name}: {part} labels are {int(labels.min())} to {int(labels.max())}; with {info.classes} classes they "
            f"must be 0 to {info.classes - 1}"
        )
    for start in range(0, len(images), PIECE):
        finite = images[start : start + PIECE].isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            row = start + int((~finite).nonzero()[0])
            raise RunError(f"{name}: {part} image {row} holds NaN or infinity; mend its file or its preprocessing")


def _words(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} numbers of {tensor.ndim} axes"
