"""Files of KIP (Nguyen et al., 2021): numpy's `.npz`, of which no array may be a pickle."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from suite.errors import SuiteError, one_line
from suite.importers.base import ForeignSet, Reading, content, images_of, importer, labels_of, refused, require_room


@importer("kip", labels="regression")
def read(path: Path, reading: Reading) -> ForeignSet:
    """KIP: `.npz` with `images` (channels last) and `labels`, a row of numbers for each image."""
    arrays = arrays_of(path, ("images", "labels"))
    images = arrays["images"]
    if images.ndim == 4:
        images = images.permute(0, 3, 1, 2).contiguous()
    return ForeignSet(images_of(path, images, reading), labels_of(path, arrays["labels"]))


def arrays_of(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The arrays of an `.npz` file by name, headers checked before there is room made. Raises RunError."""
    data = content(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            missing = [name for name in names if name not in members]
            if missing:
                raise refused(path, f"it has no array '{missing[0]}'")
            wanted = [name for name in (*names, *optional) if name in members]
            return {name: _array(path, archive, members[name]) for name in wanted}
    except SuiteError:
        raise
    except Exception as error:  # zipfile's, zlib's and numpy's
        raise refused(path, one_line(error)[:200]) from error


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    require_room(path, member.file_size // 4)
    with archive.open(member) as opened:
        packed = io.BytesIO(opened.read(member.file_size))
    version = np.lib.format.read_magic(packed)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = header(packed)
    if kind.hasobject or kind.kind not in "fiu":
        raise refused(path, f"its array '{member.filename}' is of {kind}, not of numbers")
    if math.prod(shape) * kind.itemsize > member.file_size:
        raise refused(path, f"its array '{member.filename}' claims a shape of {shape}, and less is stored")
    packed.seek(0)
    array = np.lib.format.read_array(packed, allow_pickle=False)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
