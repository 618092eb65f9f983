"""Images of the Hugging Face Hub, or of a folder that its library reads (parquet, image folders, ...)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.datasets.base import Raw, split_rows
from suite.datasets.decoding import Pictures, Shaping, decoded
from suite.errors import RunError, UsageError, one_line
from suite.keys import Key
from suite.registry import datasets
from suite.types import DatasetInfo

SPLIT = Key(0)("huggingface", "test")
"""The key of the split into training and test images where no split is named for the test, whatever the run's seed."""


@datasets.register("huggingface")
@dataclass(frozen=True)
class HuggingFace(Pictures):
    """A data set of the Hugging Face Hub by its name, or of a folder, read by the package `datasets`.

    It must have a column of images and one of class numbers. Needs the extra `huggingface`; no code of the data set's
    is run. It is fetched at the first use and kept in Hugging Face's own cache.

    >>> HuggingFace(name="cifar10", image="img", height=32).resize
    'crop'
    """

    name: str = ""
    """On the Hub, such as 'cifar10' or 'me/flowers'; or a folder: a whole path, `~/...`, or one from where the command
    is started."""
    subset: str | None = None
    """The part, or 'config', where the data set has several."""
    revision: str | None = None
    """The commit on the Hub; None: the latest. Name it for results that others are to repeat."""
    train_split: str = "train"
    """The split with the training images."""
    test_split: str | None = "test"
    """The split with the test images; None: `test_share` of each class is taken from the training images."""
    image: str = "image"
    """The column of the images."""
    label: str = "label"
    """The column of the class numbers."""

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names, from the data set's own columns. Raises RunError where it is not there."""
        train, test = self._parts()
        subset = "" if self.subset is None else f" {self.subset}"
        title = f"{Path(self.name).name}{subset} (hugging face)"
        return DatasetInfo(title, self.shaping.shape, self._class_names(train, test), len(train.rows), len(test.rows))

    def files(self, root: Path) -> list[Path]:
        """The tables in Hugging Face's cache, and the folder, if it is one: its tables may only name its files."""
        place = Path(os.path.expanduser(self.name))
        own = [place] if self.name and place.exists() else []
        return own + list(
            dict.fromkeys(Path(file["filename"]) for part in self._parts() for file in part.table.cache_files)
        )

    def read(self, root: Path, download: bool) -> Raw:
        """All images, decoded. Raises RunError that names those that can't be."""
        import datasets as library
        import PIL

        info = self.info
        (train_images, train_labels), (test_images, test_labels) = (
            (self._images(info, part), part.labels) for part in self._parts()
        )
        source = f"datasets {library.__version__}, decoded by Pillow {PIL.__version__}, resize '{self.resize}'"
        return Raw(train_images, train_labels, test_images, test_labels, source)

    # ------------------------------------------------------------ columns

    def _parts(self) -> "tuple[_Part, _Part]":
        """The training and the test images."""
        table = self._table(self.train_split)
        labels = self._labels(table)
        if self.test_split is not None:
            test = self._table(self.test_split)
            return _of_all(table, labels), _of_all(test, self._labels(test))
        kept, held_out = split_rows(labels, int(labels.max()) + 1, self.test_share, SPLIT)
        return _Part(table, kept, labels[kept]), _Part(table, held_out, labels[held_out])

    def _table(self, split: str) -> Any:
        """A split with its columns. Raises UsageError for a name, split or column that is not there."""
        if not self.name:
            raise UsageError("huggingface: name a data set, such as --set 'datasets.huggingface.name = \"cifar10\"'")
        table = _loaded(os.path.expanduser(self.name), self.subset, self.revision, split)
        for what, column in (("image", self.image), ("label", self.label)):
            if column not in table.column_names:
                raise UsageError(
                    f"huggingface: {self.name} has no column '{column}' but {', '.join(table.column_names)}; say which "
                    f"holds the {what}s: --set 'datasets.huggingface.{what} = ...'"
                )
        return table

    def _labels(self, table: Any) -> Tensor:
        """The class numbers of a table. Raises UsageError for a column of other values."""
        if not len(table):
            raise UsageError(f"huggingface: a split of {self.name} is empty; name another")
        values = table.with_format("numpy")[self.label][:]
        if values.dtype.kind not in "iu" or values.ndim != 1 or (len(values) and values.min() < 0):
            raise UsageError(
                f"huggingface: the column '{self.label}' of {self.name} does not hold class numbers from 0; name "
                "another, or have `datasets` make some of it (`class_encode_column`)"
            )
        return torch.from_numpy(values).long()

    def _class_names(self, train: "_Part", test: "_Part") -> tuple[str, ...]:
        names = getattr(train.table.features[self.label], "names", None)
        labels = torch.cat([train.labels, test.labels])
        return tuple(names) if names else tuple(map(str, range(int(labels.max()) + 1)))

    def _images(self, info: DatasetInfo, part: "_Part") -> Tensor:
        """The pictures of some rows, as images."""
        column = part.table.select_columns([self.image])
        rows = part.rows.tolist()
        pictures: list[Callable[[], Tensor]] = [
            partial(_picture, column, self.image, row, self.shaping) for row in rows
        ]
        return decoded(info.name, pictures, [f"row {row}" for row in rows], info.shape)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some rows of a table."""

    table: Any
    rows: Tensor
    labels: Tensor


def _of_all(table: Any, labels: Tensor) -> _Part:
    return _Part(table, torch.arange(len(table)), labels)


def _picture(column: Any, name: str, row: int, shaping: Shaping) -> Tensor:
    picture = column[row][name]
    if not hasattr(picture, "convert"):
        raise ValueError(f"it is of type {type(picture).__name__}, and no image of Pillow")
    return shaping.image(picture)


@cache
def _loaded(name: str, subset: str | None, revision: str | None, split: str) -> Any:
    """A split, fetched if it is not here. Raises RunError, with the command that fetches it, where it can't be."""
    try:
        import datasets as library
    except ImportError as error:
        raise RunError(
            "huggingface: the package `datasets` is not installed: pip install 'addressable-memory-suite[huggingface]'"
        ) from error
    settings = {"name": subset, "split": split} | ({} if revision is None else {"revision": revision})
    library.disable_progress_bars()
    try:
        return library.load_dataset(name, **settings)
    except Exception as error:  # of the library's own, of its formats' and of the network
        call = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in settings.items() if value is not None)])
        raise RunError(
            f"huggingface: '{name}' can't be read ({one_line(error)[:300]}); check the names of data set, subset and "
            f'split; without a network, fetch it first where there is one: python -c "import datasets; '
            f'datasets.load_dataset({call})"'
        ) from error
