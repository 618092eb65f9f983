"""Folders of PNG or JPEG files, a folder for each class, as SRe2L, RDED, their kin and `Memory.export` write them."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from suite.errors import RunError, one_line, printable
from suite.importers.base import ForeignSet, Reading, content, importer, refused, require_room
from suite.storage.plain_files import shown
from suite.types import ImageShape

ENDINGS = (".png", ".jpg", ".jpeg")
"""Of the files that are read, in small or capital letters."""

MOST_FILES = 2_000_000
"""Of all classes together."""


@importer("image_folder", space="pixels")
def read(path: Path, reading: Reading) -> ForeignSet:
    """SRe2L, RDED and kin: a folder for each class with PNG or JPEG files, of the data set's size."""
    folders = _listed(path, folders=True)
    if not folders:
        raise refused(path, "it is no folder of class folders")
    files = {folder: _listed(path / folder, folders=False) for folder in folders}
    count = sum(map(len, files.values()))
    if count > MOST_FILES:
        raise refused(path, f"it has {count:,} files")
    require_room(path, count * reading.info.shape.numel)
    images, labels = [], []
    for c, folder in enumerate(folders):
        images += [_image(path / folder / name, reading.info.shape) for name in files[folder]]
        labels += [c] * len(files[folder])
    if not images:
        raise refused(path, "its class folders hold no PNG or JPEG file")
    names = tuple(map(printable, folders))
    said = names if set(names) == set(reading.info.class_names) else None
    return ForeignSet(torch.stack(images).float() / 255, torch.tensor(labels), class_names=said)


def _listed(folder: Path, folders: bool) -> list[str]:
    """The folders in a folder, or its pictures, sorted; RunError for a link among them, which may lead anywhere."""
    try:
        with os.scandir(folder) as entries:
            every = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise RunError(
            f"can't look into {folder} ({error.strerror or error}); name a folder of class folders"
        ) from error
    linked = [entry.name for entry in every if entry.is_symlink()]
    if linked:
        raise refused(folder, f"it holds a link {shown(linked[0])}, which is not followed")
    if folders:
        return sorted(entry.name for entry in every if entry.is_dir())
    return sorted(entry.name for entry in every if entry.is_file() and entry.name.lower().endswith(ENDINGS))


def _image(file: Path, shape: ImageShape) -> UInt8[Tensor, "c h w"]:
    return picture(file, content(file), shape)


def picture(place: Path, packed: bytes, shape: ImageShape) -> UInt8[Tensor, "c h w"]:
    """The pixels of a PNG or JPEG file, whose header is looked at before it is decoded.

    Raises RunError, which calls it `place`, for one that is damaged, of another size, or coloured where `shape` is not.
    """
    from PIL import Image

    place = Path(printable(str(place)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(packed), formats=("PNG", "JPEG")) as opened:
                if opened.size != (shape.width, shape.height):
                    width, height = opened.size
                    raise refused(
                        place, f"it has {width:,} x {height:,} pixels, and images of the data set are {shape}"
                    )
                pixels = torch.from_numpy(np.asarray(opened.convert("RGB")).copy()).permute(2, 0, 1)
    except RunError:
        raise
    except Exception as error:  # of a library that is given a stranger's bytes
        raise refused(place, one_line(error)[:200]) from error
    if shape.channels == 3:
        return pixels
    if shape.channels != 1 or not (pixels == pixels[:1]).all():
        raise refused(place, f"it is in colours, and images of the data set have {shape.channels} channels")
    return pixels[:1]
