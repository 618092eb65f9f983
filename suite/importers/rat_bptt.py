"""Files of RaT-BPTT (Feng, Vedantam and Kempe, 2024): HDF5, read by the package h5py (pip install h5py)."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.errors import SuiteError, one_line
from suite.importers.base import (
    ForeignSet,
    Reading,
    content,
    images_of,
    importer,
    in_order,
    labels_of,
    refused,
    require_room,
)


@importer("rat_bptt", labels="weights")
def read(path: Path, reading: Reading) -> ForeignSet:
    """RaT-BPTT: HDF5 with `data`, a row of pixels for each image, class by class, and `label` where it was learned."""
    import h5py

    data = content(path)
    try:
        with h5py.File(io.BytesIO(data), "r") as opened:
            arrays = {name: _array(path, opened, name) for name in ("data", "label") if name in opened}
    except SuiteError:
        raise
    except Exception as error:  # of a library that is given a stranger's bytes
        raise refused(path, one_line(error)[:200]) from error
    if "data" not in arrays:
        raise refused(path, "it has no array 'data'")
    images = images_of(path, arrays["data"], reading)
    if "label" in arrays:
        return ForeignSet(images, labels_of(path, arrays["label"]))
    return ForeignSet(
        images, in_order(len(images), reading.info.classes), notes=("labels: images stand class by class",)
    )


def _array(path: Path, opened: Any, name: str) -> Tensor:
    """An array of the file's own: not one that a link or the array itself says is in another file."""
    import h5py

    array = opened[name] if isinstance(opened.get(name, getlink=True), h5py.HardLink) else None
    plain = isinstance(array, h5py.Dataset) and not array.is_virtual and array.external is None
    if not plain or array is None or array.dtype.kind != "f" or array.compression not in (None, "gzip", "lzf"):
        raise refused(path, f"its '{name}' is no array of floating point numbers in the file itself")
    require_room(path, int(array.size), array.dtype.itemsize)
    return torch.from_numpy(array[()].astype("float32"))
