"""Checkpoints of RCIG (Loo et al., 2023) and FRePo (Zhou et al., 2022): flax's msgpack, read by the package msgpack."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from suite.errors import SuiteError, one_line
from suite.importers.base import ForeignSet, Reading, content, images_of, importer, labels_of, refused, require_room

AVERAGE, PARAMETERS = "ema_average", "params"
"""Where the images and labels are: the moving average, which their authors evaluate, and the last step's."""

MOST_ITEMS = 4096
"""Of one list, table or text: those of a checkpoint have a few, and its numbers lie in extensions."""

NDARRAY, NUMBER = 1, 3
"""flax's extension types of arrays and of numpy's numbers."""

TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32")
"""The types of array that are decoded."""


@importer("rcig", labels="regression")
def read(path: Path, reading: Reading) -> ForeignSet:
    """RCIG and FRePo: a flax checkpoint with `x_proto` (channels last) and `y_proto`, averaged ones before others."""
    whole = _unpacked(path)
    part = AVERAGE if isinstance(whole.get(AVERAGE), dict) else PARAMETERS
    stored = whole.get(part)
    if not isinstance(stored, dict) or not {"x_proto", "y_proto"} <= stored.keys():
        raise refused(path, f"it has no 'x_proto' and 'y_proto' in '{AVERAGE}' or '{PARAMETERS}'")
    images = stored["x_proto"]
    if isinstance(images, torch.Tensor) and images.ndim == 4:
        images = images.permute(0, 3, 1, 2).contiguous()
    return ForeignSet(images_of(path, images, reading), labels_of(path, stored["y_proto"]), notes=(f"'{part}'",))


def _unpacked(path: Path) -> dict[str, Any]:
    """The checkpoint as tables of tensors. Raises RunError."""
    import msgpack

    data = content(path)

    def extension(code: int, packed: bytes) -> Any:
        """An array or a number: its shape, its type's name and its bytes, packed once more."""
        if code not in (NDARRAY, NUMBER):
            raise refused(path, f"it holds an extension of type {code}, which no array of flax's has")
        shape, name, numbers = msgpack.unpackb(packed, raw=True, ext_hook=_no_extension, **_limits(packed))
        kind = name.decode("ascii") if isinstance(name, bytes) else ""
        whole = isinstance(shape, list) and all(isinstance(side, int) and side >= 0 for side in shape)
        if kind not in TYPES or not whole or not isinstance(numbers, bytes):
            raise refused(path, f"it holds an array of type '{kind[:40]}', which is not decoded here")
        require_room(path, math.prod(shape))
        if math.prod(shape) * np.dtype(kind).itemsize != len(numbers):
            raise refused(path, f"an array of shape {shape} has {len(numbers):,} bytes")
        return torch.from_numpy(np.frombuffer(numbers, np.dtype(kind).newbyteorder("<")).reshape(shape).astype(kind))

    try:
        whole = msgpack.unpackb(data, raw=False, ext_hook=extension, **_limits(data))
    except SuiteError:
        raise
    except Exception as error:  # of a library that is given a stranger's bytes
        raise refused(path, one_line(error)[:200]) from error
    if not isinstance(whole, dict):
        raise refused(path, "it is no checkpoint of flax's")
    return whole


def _limits(data: bytes) -> dict[str, int]:
    """What msgpack may make room for because a header says so."""
    return {
        **{f"max_{kind}_len": MOST_ITEMS for kind in ("str", "array", "map")},
        **{f"max_{kind}_len": len(data) for kind in ("bin", "ext")},
    }


def _no_extension(code: int, packed: bytes) -> Any:
    raise ValueError("an array within an array")
