"""What every image data set shares: read once, split by class, preprocessed by what its training part shows."""

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from suite.datasets.identity import identity
from suite.errors import RunError, UsageError
from suite.images import preprocess
from suite.images.augment import AugmentationName
from suite.images.preprocess import PreprocessingName
from suite.keys import Key
from suite.storage import sealed
from suite.storage.source_code import has_source
from suite.types import Data, Dataset, DatasetInfo, Split
from suite.validation import Positive


@dataclass(frozen=True, eq=False)
class Raw:
    """The images of a data set as published, and where they came from."""

    train_images: UInt8[Tensor, "train c h w"]
    """Pixels 0 to 255."""
    train_labels: Int64[Tensor, " train"]
    """Class numbers from 0."""
    test_images: UInt8[Tensor, "test c h w"]
    """Pixels 0 to 255."""
    test_labels: Int64[Tensor, " test"]
    """Class numbers from 0."""
    source: str
    """Digests of the source files, and how they were read."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A data set's images, as its verified cache holds them."""

    raw: Raw
    """Its images."""
    digest: str
    """SHA-256 of their pixels and labels."""
    file: Path | None
    """Where the cache is; None for a class that was typed in, which has none."""


@runtime_checkable
class ImageSource(Dataset, Protocol):
    """A data set that gives its images as published, too: any `ImageDataset`, and what is made of one."""

    @property
    def preprocessing(self) -> PreprocessingName:
        """One of `preprocess.PREPROCESSINGS`."""
        ...

    @property
    def zca_regularization(self) -> float:
        """Of the two ZCA kinds."""
        ...

    def prepare(self, data_dir: Path) -> Prepared:
        """The images before any preprocessing."""
        ...


@dataclass(frozen=True)
class ImageDataset(ABC):
    """A data set of labelled images with a published test part; subclasses say what it is and read its files."""

    preprocessing: PreprocessingName = "standardize"
    """One of `preprocess.PREPROCESSINGS`, fitted on the training images."""
    zca_regularization: Positive = 0.1
    """Of the two ZCA kinds."""
    augmentation: AugmentationName = "none"
    """One of `augment.AUGMENTATIONS`, that a run uses on this data set by default."""

    version: ClassVar[int] = 1
    """Raised whenever a change that `identity` does not see, such as of an outside package, changes the tensors."""

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """Shapes, sizes and class names, known without the files."""

    @abstractmethod
    def read(self, root: Path, download: bool) -> Raw:
        """The images from source files below `root`, fetched first if they are missing and `download` is set."""

    def files(self, root: Path) -> Sequence[Path]:
        """The user's own files and folders that `read` reads: where one of them changed, the images are read anew.

        By default those that are there and that a field names: as a `Path`; as a text with a whole path (`/data/mine`,
        `~/mine`), but for the folders at the top and your home; or as a text that names something below `root`.
        Published files need not be named, since `read` verifies them.
        """
        values = [getattr(self, f.name) for f in fields(self) if f.name not in USED_LATER]
        each = [one for value in values for one in (value if isinstance(value, (list, tuple)) else [value])]
        named = [place for one in each if isinstance(one, (str, Path)) for place in _named(one, root)]
        return [place for place in dict.fromkeys(named) if os.path.exists(place)]

    @final
    def prepare(self, data_dir: Path, download: bool = True) -> Prepared:
        """Everything as published, from `data_dir/cache`; filled from the source files at the first call.

        Images of other settings, of an edited reader or of other `files` are in another cache. Those of a class that
        was typed in are in none, and read at each call. Raises RunError for source files that are missing or altered,
        and for a cache that is damaged.
        """
        info = self.info

        def read() -> Raw:
            try:
                raw = self.read(data_dir, download)
            except OSError as error:
                raise RunError(f"{info.name}: {data_dir} can't be read ({error}); mend it or name another") from error
            _check_raw(raw, info, data_dir)
            return raw

        if not has_source(type(self)):  # nothing tells when a helper or a constant beside it was typed in anew
            raw = read()
            return Prepared(raw, sealed.digest(_tensors(raw)), None)

        file, made_of = self._cache(data_dir)

        def build() -> tuple[dict[str, Tensor], sealed.About]:
            raw = read()
            if self._cache(data_dir)[1] != made_of:
                raise RunError(f"{info.name}: its files changed while they were read; run again when they are whole")
            versions = {"torch": torch.__version__, "reader": self.version}
            names = {"name": info.name, "class_names": list(info.class_names), "made_of": made_of}
            return _tensors(raw), names | {"source": raw.source, "versions": versions}

        stored = sealed.stored(file, build)
        if stored.about.get("made_of") != made_of:
            raise RunError(f"{file} holds another data set than {info.name} with these settings; delete it")
        return Prepared(Raw(**stored.tensors, source=stored.about["source"]), stored.digest, file)

    @final
    def cached(self, data_dir: Path) -> Path | None:
        """The cache that `prepare` would use, if it is there; nothing is read of it, and none is made."""
        file, _ = self._cache(data_dir)
        return file if file.is_file() else None

    def _cache(self, data_dir: Path) -> tuple[Path, str]:
        """The cache's file, and the hash of all that the images are made of."""
        info, cache_dir = self.info, data_dir / "cache"
        # No reader of the suite looks at what is done to the images later; a reader from outside may.
        settings = replace(self, **USED_LATER) if type(self).__module__.startswith("suite.") else self
        made_of = identity(settings, info, self.version, self.files(data_dir), cache_dir)
        name = re.sub(r"[^\w.,=+-]", "_", info.name)[:80]
        return cache_dir / f"{name}-v{self.version}-{made_of[:16]}.safetensors", made_of

    @final
    def load(self, data_dir: Path, key: Key, validation: float) -> Data:
        """Preprocessed splits; the transform is fitted on what is left of the training part after the split.

        `validation` is the fraction of every class that is set aside by the key, 0 for none.
        """
        return prepared_splits(self, self.info, self.prepare(data_dir), data_dir, key, validation)


class OfAnother(ABC):
    """A data set whose images are some of another's, `of`; subclasses say which."""

    of: ImageSource

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""

    @abstractmethod
    def prepare(self, data_dir: Path) -> Prepared:
        """The images, before any preprocessing."""

    @property
    def augmentation(self) -> str:
        """That of the whole data set."""
        return self.of.augmentation

    @property
    def preprocessing(self) -> PreprocessingName:
        """That of the whole data set, fitted on what is left of it."""
        return self.of.preprocessing

    @property
    def zca_regularization(self) -> float:
        """That of the whole data set."""
        return self.of.zca_regularization

    def load(self, data_dir: Path, key: Key, validation: float) -> Data:
        """Preprocessed splits of these images."""
        return prepared_splits(self, self.info, self.prepare(data_dir), data_dir, key, validation)


USED_LATER: dict[str, Any] = {field.name: field.default for field in fields(ImageDataset)}
"""The settings that all data sets share, which say what is done to the images once they are read; their defaults."""


def _named(field: str | Path, root: Path) -> list[Path]:
    """The places that a field may name. A separator or a word such as '/', '.' or '~' must not stand for a machine."""
    name, base = os.path.expanduser(field), os.path.abspath(root)
    place, is_path = Path(os.path.normpath(os.path.join(base, name))), isinstance(field, Path)
    if place.is_relative_to(Path(base, "cache")):  # what is written there is made of what is read
        return []
    if os.path.isabs(name):
        home = Path(os.path.expanduser("~"))
        far = len(place.parts) > 1 if is_path else len(place.parts) > 2 and place not in (home, *home.parents)
        return [Path(name)] if far else []
    below = [root / name] if Path(base) in place.parents else []
    here = is_path and Path.cwd() in Path(os.path.abspath(name)).parents
    return [*below, *([Path(name)] if here else [])]


def prepared_splits(
    dataset: ImageSource, info: DatasetInfo, prepared: Prepared, data_dir: Path, key: Key, validation: float
) -> Data:
    """Split and preprocess images as a data set does; the transform is fitted on the training part that is left."""
    raw = prepared.raw
    train, held_out = split_rows(raw.train_labels, info.classes, validation, key)
    pixels = raw.train_images[train]
    transform = preprocess.fit_stored(dataset.preprocessing, pixels, dataset.zca_regularization, data_dir / "cache")
    return Data(
        info,
        train=Split(transform.apply(pixels), raw.train_labels[train]),
        validation=Split(transform.apply(raw.train_images[held_out]), raw.train_labels[held_out]),
        test=Split(transform.apply(raw.test_images), raw.test_labels.clone()),
        transform=transform,
        digest=prepared.digest,
    )


def split_rows(
    labels: Int64[Tensor, " n"], classes: int, fraction: float, key: Key
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " held_out"]]:
    """Rows to keep and rows to hold out, both ascending: of a class of m, ⌊fraction · m + ½⌋ are held out by the key.

    A class of two or more gives at least one and keeps at least one, unless the fraction is 0. Raises UsageError for a
    fraction below 0, or 1 and above.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"validation must be a fraction from 0 to below 1, not {fraction!r}")
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for c in range(classes):
        rows = (labels == c).nonzero()[:, 0]
        count = min(max(math.floor(fraction * len(rows) + 0.5), 1), len(rows) - 1) if fraction else 0
        held_out[rows[key("held out", c).permutation(len(rows))[: max(count, 0)]]] = True
    return (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]


def _tensors(raw: Raw) -> dict[str, Tensor]:
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return {name: getattr(raw, name) for name in names}


def _check_raw(raw: Raw, info: DatasetInfo, data_dir: Path) -> None:
    """Published counts, shape and labels, in one place for every data set."""
    shape = (info.shape.channels, info.shape.height, info.shape.width)
    parts = (
        ("training", raw.train_images, raw.train_labels, info.train_size),
        ("test", raw.test_images, raw.test_labels, info.test_size),
    )
    for part, images, labels, size in parts:
        kinds_fit = images.dtype == torch.uint8 and labels.dtype == torch.int64 and labels.ndim == 1
        counts_fit = len(images) == len(labels) == size > 0 and tuple(images.shape[1:]) == shape
        if not (kinds_fit and counts_fit and int(labels.min()) >= 0 and int(labels.max()) < info.classes):
            raise RunError(
                f"{info.name}: the files in {data_dir} hold {len(images)} {part} images of shape "
                f"{tuple(images.shape[1:])}{_kind(images, 'uint8')} and {_labels(labels)}, not {size} of shape {shape} "
                f"with labels 0 to {info.classes - 1}; fetch the published files again"
            )


def _labels(labels: Tensor) -> str:
    span = f" {int(labels.min())} to {int(labels.max())}" if labels.numel() else ""
    return f"{labels.numel()} labels{span}{_kind(labels, 'int64')}"


def _kind(tensor: Tensor, wanted: str) -> str:
    """The type of a tensor's numbers, where it is another than the wanted."""
    found = str(tensor.dtype).removeprefix("torch.")
    return "" if found == wanted else f" (of type {found}, not {wanted})"
