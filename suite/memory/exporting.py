"""A memory's images for other programs: pictures, arrays of numpy, and a table of parquet."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from suite.errors import RunError, UsageError, report
from suite.memory.memory import Memory, NotShown
from suite.storage.files import canonical_json, disk_errors, make_directory, write_atomic

LONGEST_NAME = 255
"""Bytes of a file's name, as file systems have it."""

ARRAY_3D = "datasets.features.features.Array3DExtensionType"
"""What Hugging Face's `datasets` calls its type of arrays in a file."""

MOST_NUMBERS = 2**31 - 1
"""Of a column of lists, which counts them with 32 bits."""


def export(memory: Memory, to: Path) -> None:
    """Write what a memory recalls, as its `export` says; UsageError for what is there already."""
    if to.suffix not in (".npz", ".parquet"):
        as_pictures(memory, to)
        return
    with disk_errors(to):
        if to.exists():
            raise UsageError(f"{to} is there already; name a new file")
    write_atomic(to, as_arrays(memory) if to.suffix == ".npz" else as_table(memory))


# ---------------------------------------------------------------- pictures


def as_pictures(memory: Memory, folder: Path) -> None:
    """PNG files, a folder for each class, in display space.

    The folder must be new or empty, since ImageFolder takes every folder in it for a class. Raises UsageError where it
    is not, and for images of other than 1 or 3 channels, which a PNG file would not give back.
    """
    from torchvision.utils import save_image

    if memory.shape.channels not in (1, 3):
        raise UsageError(
            f"images of {memory.shape.channels} channels can't be exported as PNG files, which have 1 or 3; "
            "export them to a file .npz"
        )
    with disk_errors(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty, and an export needs a folder of its own; name a new one")
    images, labels = memory.display()
    for c, name in enumerate(class_folders(memory.class_names)):
        make_directory(folder / name)
        of_class = images[labels == c]
        digits = max(4, len(str(len(of_class) - 1)))
        for i, image in enumerate(of_class):
            with disk_errors(folder / name):
                save_image(image, folder / name / f"{i:0{digits}d}.png")


def class_folders(names: Sequence[str]) -> list[str]:
    """A folder's name for each class, numbered so that they sort as the classes do: '007_frog'."""
    digits = max(3, len(str(len(names) - 1)))
    plain = ["".join(c if c.isalnum() or c in "-_" else "_" for c in name) for name in names]
    folders = [f"{c:0{digits}d}_{name}" for c, name in enumerate(plain)]
    return [folder.encode()[:LONGEST_NAME].decode(errors="ignore") for folder in folders]


# ---------------------------------------------------------------- arrays


def as_arrays(memory: Memory) -> bytes:
    """The content of an `.npz`, which no pickle is needed to read; same memory, same bytes.

    `images` (n, c, h, w) float32 as the memory's networks see them, `labels` (n,) int64 and `class_names`;
    `soft_labels` (n, classes) float32 where a memory has learned some; `pixels` (n, c, h, w) float32 in [0, 1], the
    preprocessing undone, where it can be; `about`, the memory's description as a text of JSON.
    """
    images, taught = memory.dataset().tensors
    arrays: dict[str, Any] = {"images": images, "labels": memory.recall()[1]}
    if taught.is_floating_point():
        arrays["soft_labels"] = taught
    try:
        arrays["pixels"] = memory.display()[0]
    except NotShown as error:
        report(f"[memory] no pixels, images alone: {error}")
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
    arrays |= {"class_names": np.array(memory.class_names), "about": np.array(canonical_json(memory.about))}
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


# ---------------------------------------------------------------- a table


def as_table(memory: Memory) -> bytes:
    """The content of a file of parquet, whose columns have the types that Hugging Face's `datasets` knows.

    `pixel_values` (c, h, w) float32 as the memory's networks see them, `label`, and `soft_label` where a memory has
    learned some; `image`, a PNG in display space, where there can be one. The file's own metadata hold the memory's
    description, as 'suite'. Raises RunError without the package pyarrow.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise RunError(
            "a table needs the package pyarrow: pip install 'addressable-memory-suite[huggingface]'"
        ) from error
    images, taught = memory.dataset().tensors
    columns: dict[str, Any] = {}
    features: dict[str, Any] = {}
    pictures = _pictures(memory)
    if pictures is not None:
        kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        columns["image"] = arrow.array([{"bytes": png, "path": None} for png in pictures], kind)
        features["image"] = {"_type": "Image"}
    columns["pixel_values"] = _nested(arrow, images)
    features["pixel_values"] = {"shape": list(images.shape[1:]), "dtype": "float32", "_type": "Array3D"}
    columns["label"] = arrow.array(memory.recall()[1].tolist(), arrow.int64())
    features["label"] = {"names": list(memory.class_names), "_type": "ClassLabel"}
    if taught.is_floating_point():
        columns["soft_label"] = _nested(arrow, taught)
        features["soft_label"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "suite": canonical_json(memory.about)}
    # What `datasets` knows an array of three axes by; others read the lists that it is stored as.
    sizes = json.dumps([images.shape[1:], "float32"])
    extension = {"ARROW:extension:name": ARRAY_3D, "ARROW:extension:metadata": sizes}
    fields = [
        arrow.field(name, column.type, metadata=extension if name == "pixel_values" else None)
        for name, column in columns.items()
    ]
    schema = arrow.schema(fields, metadata)
    content = io.BytesIO()
    parquet.write_table(arrow.table(list(columns.values()), schema=schema), content)
    return content.getvalue()


def _pictures(memory: Memory) -> list[bytes] | None:
    """Each image as a PNG file; None, and a line that says why, where there can be none."""
    from PIL import Image

    try:
        if memory.shape.channels not in (1, 3):
            raise NotShown(f"images of {memory.shape.channels} channels are no pictures")
        images = memory.display()[0]
    except NotShown as error:
        report(f"[memory] no pictures in the table: {error}")
        return None
    pictures = []
    for pixels in images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
        pictures.append(file.getvalue())
    return pictures


def _nested(arrow: Any, tensor: Tensor) -> Any:
    """A tensor as a column of lists of lists, down to numbers. UsageError for more than a column of lists holds."""
    if tensor.numel() > MOST_NUMBERS:
        raise UsageError(f"{tensor.numel():,} numbers are too many for a table; export them to a file .npz")
    column = arrow.array(tensor.detach().cpu().contiguous().flatten().numpy(), arrow.float32())
    for size in reversed(tensor.shape[1:]):
        offsets = np.arange(0, len(column) + 1, size, dtype=np.int32)
        column = arrow.ListArray.from_arrays(offsets, column)
    return column
