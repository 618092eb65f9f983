"""Your own pictures: a folder for each class."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from suite.datasets.base import Raw, split_rows
from suite.datasets.decoding import Pictures, decoded_files
from suite.errors import RunError, UsageError, one_line, report
from suite.keys import Key
from suite.registry import datasets
from suite.storage.files import user_path
from suite.types import DatasetInfo

SPLIT = Key(0)("image_folder", "test")
"""The key of the split into training and test images where there are no folders for it, whatever the run's seed."""

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
"""Ends of the names of files that are read as pictures, in small letters."""

TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
"""Beside `train`, the first of these that is there, in small or capital letters, has the test images."""


@datasets.register("image_folder")
@dataclass(frozen=True)
class ImageFolder(Pictures):
    """Pictures in one folder for each class, which gives the class its name; at any depth below it.

    `folder` has the classes' folders, or `train` and one of `TEST_FOLDERS` that have them. In the first case a share of
    each class, drawn by a constant key, is the test part.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cats/1.png", "cats/2.png", "dogs/1.jpg", "dogs/2.jpg"):
    ...         file = Path(folder, name)
    ...         file.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (40, 30)).save(file)
    ...     photos = ImageFolder(folder=folder, height=16, test_share=0.5)
    ...     photos.info.class_names, photos.info.train_size, photos.info.test_size, str(photos.info.shape)
    (('cats', 'dogs'), 2, 2, '3x16x16')
    """

    folder: str = ""
    """Where the pictures are: a whole path, `~/...`, or one from where the command is started."""

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names, as the folder has them now. Raises UsageError where it holds no classes."""
        classes, train, test = self._parts()
        name = f"{_place(self.folder).resolve().name or 'pictures'} (folder)"
        return DatasetInfo(name, self.shaping.shape, classes, len(train), len(test))

    def files(self, root: Path) -> list[Path]:
        """The folder."""
        return [_place(self.folder)]

    def read(self, root: Path, download: bool) -> Raw:
        """All pictures, decoded. Raises RunError that names those that can't be."""
        import PIL

        info, (_, train, test) = self.info, self._parts()
        if others := _others(_place(self.folder)):
            report(f"[data] {info.name}: {others} files do not end as pictures do and are left out")
        both = [*train, *test]
        images = decoded_files(info.name, [file for file, _ in both], self.shaping)
        labels = torch.tensor([label for _, label in both], dtype=torch.int64)
        source = f"pictures of a folder, decoded by Pillow {PIL.__version__}, resize '{self.resize}'"
        n = len(train)
        return Raw(images[:n], labels[:n], images[n:], labels[n:], source)

    def _parts(self) -> tuple[tuple[str, ...], list[tuple[Path, int]], list[tuple[Path, int]]]:
        """Class names; training and test files, each with its class."""
        folder = _place(self.folder)
        try:
            return self._parts_of(folder)
        except OSError as error:
            raise RunError(f"image_folder: {folder} can't be read ({one_line(error)}); mend its permissions") from error

    def _parts_of(self, folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]], list[tuple[Path, int]]]:
        below = {one.name.lower(): one for one in sorted(folder.iterdir()) if one.is_dir()}
        train = below.get("train", below.get("training"))
        test = next((below[name] for name in TEST_FOLDERS if name in below), None)
        if train is not None and test is not None:
            classes = _classes(train)
            if strange := sorted(set(_classes(test)) - set(classes)):
                raise UsageError(f"{test} has the class '{strange[0]}', of which {train} has no folder")
            return tuple(classes), _files(train, classes), _files(test, classes)
        if train is not None:
            raise UsageError(
                f"{train} is there, and no folder with test images: name it {', '.join(TEST_FOLDERS[:-1])} or "
                f"{TEST_FOLDERS[-1]}, or name {train} as the folder, for a test part of its own images"
            )
        classes = _classes(folder)
        files = _files(folder, classes)
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        kept, held_out = split_rows(labels, len(classes), self.test_share, SPLIT)
        if not len(held_out):
            raise UsageError(
                f"{folder} leaves no picture for a test: it has no folders train and test, and of no class would "
                "test_share take one; add pictures, or raise test_share"
            )
        return tuple(classes), _chosen(files, kept), _chosen(files, held_out)


def _place(folder: str) -> Path:
    """Where the pictures are. Raises UsageError for a folder that is not there."""
    if not folder:
        raise UsageError(
            "image_folder: say where the pictures are, such as --set 'datasets.image_folder.folder = \"photos\"'"
        )
    place = user_path(folder, "image_folder.folder")
    if not place.is_dir():
        raise UsageError(f"image_folder: there is no folder {place.absolute()}")
    return place


def _classes(folder: Path) -> list[str]:
    """Names of the folders, sorted; hidden ones are none."""
    classes = sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    if len(classes) < 2:
        raise UsageError(
            f"image_folder: {folder} has {len(classes)} folders, and each class needs one; make two or more"
        )
    return classes


def _files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Every picture below the classes' folders, sorted within each, with its class."""
    return [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted(_below(folder / name))
        if file.suffix.lower() in PICTURES
    ]


def _others(folder: Path) -> int:
    """How many files are no pictures by their names."""
    return sum(file.suffix.lower() not in PICTURES for file in _below(folder))


def _below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those below it; hidden ones are none. Raises OSError for one that is closed."""

    def closed(error: OSError) -> None:
        raise error

    seen = set()
    for place, below, files in os.walk(folder, onerror=closed, followlinks=True):
        found = os.stat(place)
        if (found.st_dev, found.st_ino) in seen:  # a link leads back to where it lies
            below.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(place, file) for file in files if not file.startswith("."))


def _chosen(files: list[tuple[Path, int]], rows: Tensor) -> list[tuple[Path, int]]:
    return [files[row] for row in rows.tolist()]
