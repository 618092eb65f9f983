"""Digits: the 1,797 small handwritten digits that come with scikit-learn, for tests and first runs offline."""

from dataclasses import dataclass
from pathlib import Path

import torch

from suite.datasets.base import ImageDataset, Raw, split_rows
from suite.keys import Key
from suite.registry import datasets
from suite.types import DatasetInfo, ImageShape

SIZES = (1346, 451)
SPLIT = Key(0)("digits", "test", 1)
"""The key of the split into training and test images: part of the data set's definition, whatever the run's seed."""


@datasets.register("digits")
@dataclass(frozen=True)
class Digits(ImageDataset):
    """1x8x8 handwritten digits in 10 classes, read from scikit-learn's own files.

    There is no published split, so one is defined here: a quarter of every class, drawn by a constant key, is the test
    part. The published values 0 to 16 become round(255 v / 16).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as data_dir:
    ...     data = Digits().load(Path(data_dir), Key(0), validation=0.1)
    >>> len(data.train), len(data.validation), len(data.test), data.train.images[0].shape
    (1210, 136, 451, torch.Size([1, 8, 8]))
    """

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        return DatasetInfo("digits", ImageShape(1, 8, 8), tuple("0123456789"), *SIZES)

    def read(self, root: Path, download: bool) -> Raw:
        """The images of scikit-learn, split by `SPLIT`."""
        import sklearn
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy(bunch.images)[:, None].mul(255 / 16).add(0.5).floor().to(torch.uint8)
        labels = torch.from_numpy(bunch.target).long()
        train, test = split_rows(labels, 10, 0.25, SPLIT)
        source = (
            f"scikit-learn {sklearn.__version__} load_digits, values 0 to 16 as round(255 v / 16), split by {SPLIT}"
        )
        return Raw(images[train], labels[train], images[test], labels[test], source)
