"""A data set's training images alone, for choosing settings without a look at its test images."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from suite.datasets.base import ImageSource, OfAnother, Prepared
from suite.datasets.digits import Digits
from suite.keys import Key
from suite.registry import datasets
from suite.storage.files import json_sha256
from suite.types import DatasetInfo
from suite.validation import Above, Below

SPLIT = Key(0)("training only", 1)
"""The key of the split: part of the data set's definition, whatever the run's seed."""


@datasets.register("training_only")
@dataclass(frozen=True)
class TrainingOnly(OfAnother):
    """The training images of another data set (`of`), a `fraction` of them as the test part; its own is never read.

    The images are drawn by a constant key whatever their class. For choices that must not see test images, where an
    experiment has no validation part of its own.

    >>> info = TrainingOnly(of=Digits(), fraction=0.2).info
    >>> info.name, info.train_size, info.test_size
    ('training part of digits', 1077, 269)
    """

    of: ImageSource = field(default_factory=Digits)
    """The whole data set."""
    fraction: Annotated[float, Above(0), Below(1)] = 0.1
    """Of its training images, that serve as test images."""

    @property
    def _held_out(self) -> int:
        return round(self.fraction * self.of.info.train_size)

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        whole = self.of.info
        left = whole.train_size - self._held_out
        return replace(whole, name=f"training part of {whole.name}", train_size=left, test_size=self._held_out)

    def prepare(self, data_dir: Path) -> Prepared:
        """The training images, parted."""
        prepared = self.of.prepare(data_dir)
        raw, order = prepared.raw, SPLIT.permutation(len(prepared.raw.train_labels))
        test = round(self.fraction * len(order))  # what is made of another only estimates its number
        held_out, left = order[:test].sort().values, order[test:].sort().values
        raw = replace(
            raw,
            train_images=raw.train_images[left],
            train_labels=raw.train_labels[left],
            test_images=raw.train_images[held_out],
            test_labels=raw.train_labels[held_out],
        )
        return Prepared(raw, json_sha256([prepared.digest, "training only", self.fraction]), prepared.file)
