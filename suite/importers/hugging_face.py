"""Tables of parquet, as Hugging Face's `datasets` writes them and its Hub keeps them."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.errors import SuiteError, UsageError, one_line, printable
from suite.importers.base import (
    ForeignSet,
    Reading,
    content,
    images_of,
    importer,
    labels_of,
    refused,
    require_room,
)
from suite.importers.image_folder import picture
from suite.storage.plain_files import parse_json, shown

NUMBERS, PICTURES = "pixel_values", "image"
"""Columns of images: of numbers, which are as they were stored, and of PNG or JPEG files."""

SOFT, HARD = "soft_label", "label"
"""Columns of labels: a row of numbers for each image, and class numbers."""

NAME = re.compile(r"(.+?)(?:-(\d{5})-of-(\d{5}))?(?:-[0-9a-f]{16})?\.parquet")
"""A file's part, such as 'train', its number, and how many there are."""

MOST_ROWS = 2_000_000
"""Of one file."""

ROWS = 64
"""That are unpacked at once."""


@importer("huggingface", hub=True)
def read(path: Path, reading: Reading) -> ForeignSet:
    """Hugging Face: parquet with `pixel_values` or `image`, and `soft_label` or `label`; of the Hub, too."""
    files, notes = _files(path)
    tables = [_table(file, reading) for file in files]
    images, labels, names = (list(parts) for parts in zip(*tables, strict=True))
    if any(of_file != names[0] for of_file in names) or len({part[0] for part in images}) > 1:
        raise refused(path, "its files have other columns or classes than each other")
    if len({part.shape[1:] for part in labels}) > 1:
        raise refused(path, "its files have labels of several kinds")
    column, space = images[0][0], "pixels" if images[0][0] == PICTURES else None
    whole, taught = torch.cat([part[1] for part in images]), torch.cat(labels)
    notes += [f"the column '{column}' is read"]
    notes += [f"the column '{SOFT}' is read, not '{HARD}'"] if taught.ndim == 2 else []
    known = names[0] if names[0] is not None and set(names[0]) == set(reading.info.class_names) else None
    return ForeignSet(whole, taught, class_names=known, notes=tuple(notes), space=space)


# ---------------------------------------------------------------- files


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """The files of one set in their order, and what was left out.

    Raises RunError for a folder without one, and for a set that lacks some; UsageError for a folder of several sets.
    """
    if not path.is_dir():
        return [path], []
    every = sorted(file for file in (*path.glob("*.parquet"), *path.glob("*/*.parquet")))
    linked = [file for file in every if file.is_symlink() or file.parent.is_symlink()]
    if linked:
        raise refused(path, f"it holds a link {shown(linked[0].name)}, which is not followed")
    sets: dict[tuple[str, str], list[_Piece]] = {}
    for file in every:
        piece = _piece(file)
        sets.setdefault((file.parent.relative_to(path).as_posix(), piece.part), []).append(piece)
    if not sets:
        raise refused(path, "it has no files of parquet, here or in a folder below")
    train = [key for key in sets if key[1] == "train"]
    if len(sets) > 1 and len(train) != 1:
        named = ", ".join(printable(f"{folder}/{part}".removeprefix("./")) for folder, part in list(sets)[:5])
        raise UsageError(f"{path} holds several sets ({named}); name the folder or the file of one")
    chosen = train[0] if len(sets) > 1 else next(iter(sets))
    pieces = sorted(sets[chosen], key=lambda piece: piece.number)
    count = pieces[0].count or pieces[-1].number + 1
    if [piece.number for piece in pieces] != list(range(count)):
        raise refused(path, f"of the {count} files of '{printable(chosen[1])}' it has {len(pieces)}")
    others = sorted({part for _, part in sets} - {chosen[1]})
    notes = [f"the part 'train' is read, not {', '.join(map(printable, others))}"] if others else []
    return [piece.file for piece in pieces], notes


@dataclass(frozen=True)
class _Piece:
    """One file of a set that may lie in several."""

    file: Path
    part: str
    """Such as 'train'."""
    number: int
    """From 0."""
    count: int | None
    """Files of the set; None where their names do not say."""


def _piece(file: Path) -> _Piece:
    """What a file's name says: train-00000-of-00002.parquet, train/0000.parquet, or anything.parquet."""
    if file.stem.isascii() and file.stem.isdigit() and len(file.stem) < 10:
        return _Piece(file, file.parent.name, int(file.stem), None)
    found = NAME.fullmatch(file.name)
    if found is None or found[2] is None:
        return _Piece(file, found[1] if found else file.stem, 0, 1)
    return _Piece(file, found[1], int(found[2]), int(found[3]))


def _table(path: Path, reading: Reading) -> tuple[tuple[str, Tensor], Tensor, tuple[str, ...] | None]:
    """Of a file: the column of images and the images, the labels, and the classes' names where it has them."""
    import pyarrow
    from pyarrow import parquet

    data = content(path)
    try:
        limits = {"thrift_string_size_limit": len(data), "thrift_container_size_limit": len(data)}
        opened = parquet.ParquetFile(io.BytesIO(data), **limits)
        there = opened.schema_arrow.names
        image, label = _one_of(path, there, (NUMBERS, PICTURES)), _one_of(path, there, (SOFT, HARD))
        rows = opened.metadata.num_rows
        if not 0 < rows <= MOST_ROWS:
            raise refused(path, f"it has {rows:,} rows")
        require_room(path, rows * reading.info.shape.numel)
        table = _unpacked(path, opened, [image, label])
        if table.num_rows != rows:
            raise refused(path, f"it claims {rows:,} rows, and has {table.num_rows:,}")
        columns = {name: table.column(name).combine_chunks() for name in (image, label)}
        names = _class_names(path, opened.schema_arrow.metadata or {}) if label == HARD else None
        found = _pictures(path, columns[image], reading) if image == PICTURES else _numbers(path, columns[image], image)
        return (image, images_of(path, found, reading)), labels_of(path, _numbers(path, columns[label], label)), names
    except SuiteError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise refused(path, one_line(error)[:200]) from error  # of a library that is given a stranger's bytes


def _one_of(path: Path, there: Sequence[str], wanted: tuple[str, str]) -> str:
    found = [name for name in wanted if name in there]
    if not found:
        named = ", ".join(map(printable, there[:10]))
        raise refused(path, f"it has no column '{wanted[0]}' or '{wanted[1]}', but {named or 'none'}")
    return found[0]


def _unpacked(path: Path, opened: Any, wanted: list[str]) -> Any:
    """These columns, a few rows at a time. Raises RunError as soon as they are larger than a set may be.

    What the file says of its columns is not asked: pyarrow ends the process where that is damaged.
    """
    import pyarrow as arrow

    batches, size = [], 0
    for batch in opened.iter_batches(batch_size=ROWS, columns=wanted, use_threads=False):
        batches.append(batch)
        size += batch.nbytes
        require_room(path, size // 4)
    return arrow.Table.from_batches(batches)


# ---------------------------------------------------------------- columns


def _numbers(path: Path, column: Any, name: str) -> Tensor:
    """A column of numbers, or of lists of numbers, all of one length, as a tensor. Raises RunError for any other."""
    import pyarrow as arrow
    from pyarrow import compute

    sizes = [len(column)]
    while True:
        if isinstance(column, arrow.ExtensionArray):  # as `datasets` has its arrays
            column = column.storage
        if column.null_count:
            raise refused(path, f"its column '{printable(name)}' lacks values")
        kind = column.type
        if not (arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind)):
            break
        lengths = compute.list_value_length(column)
        least, most = (value.as_py() for value in compute.min_max(lengths).values())
        if least != most or not most:
            raise refused(path, f"the lists in its column '{printable(name)}' have {least} to {most} values")
        sizes.append(most)
        column = column.flatten()
    if not (arrow.types.is_floating(kind) or arrow.types.is_integer(kind)):
        raise refused(path, f"its column '{printable(name)}' is of {kind}, not of numbers")
    if name == NUMBERS and not arrow.types.is_floating(kind):
        raise refused(path, f"its column '{NUMBERS}' is of {kind}, and floating point is read; is it '{PICTURES}'?")
    values = np.array(column.to_numpy(zero_copy_only=False))
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinity, which is refused
        return torch.from_numpy(values.astype("float32" if values.dtype.kind == "f" else "int64")).reshape(sizes)


def _pictures(path: Path, column: Any, reading: Reading) -> Tensor:
    """A column of PNG or JPEG files, decoded, from 0 to 1."""
    images = []
    for row, value in enumerate(column):
        value = value.as_py()
        packed = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(packed, bytes):
            raise refused(path, f"the image in its row {row} is no PNG or JPEG file, though it may name one")
        images.append(picture(path.with_name(f"{path.name}, row {row}"), packed, reading.info.shape))
    return torch.stack(images).float() / 255


def _class_names(path: Path, metadata: dict[bytes, bytes]) -> tuple[str, ...] | None:
    """The names that `datasets` has written for the class numbers, if it has."""
    if b"huggingface" not in metadata:
        return None
    about: Any = parse_json(metadata[b"huggingface"], dict, f"what {path} says of its columns")
    for key in ("info", "features", HARD, "names"):
        about = about.get(key) if isinstance(about, dict) else None
    if not isinstance(about, list) or not all(isinstance(name, str) for name in about):
        return None
    return tuple(map(printable, about))
