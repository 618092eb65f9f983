"""Reads files that may come from somebody else: plain files only, of a stated size at most, and JSON of a stated shape.

What such a file holds is judged here once, so that its readers can rely on the types. A file is opened without waiting
(a pipe has no end) and looked at through its handle (nobody can put another in its place in between).
"""

import json
import os
import stat
from collections.abc import Hashable, Iterable
from functools import cache
from io import BufferedReader
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from suite.errors import RunError, first_line, printable

T = TypeVar("T")

MOST_BYTES_OF_JSON = 64 * 2**20
"""Of one JSON file that does not grow with a run's steps. The largest that the suite writes have less than one MiB."""

MOST_BYTES_OF_STEPS = 512 * 2**20
"""Of a file that holds every step's metrics. Each step has some 230 bytes, so it is that of two million steps."""


class Damaged(RunError):
    """A file can be read, and is not what it must be."""


def open_plain(file: Path, follow: bool = False) -> BufferedReader:
    """Open a plain file for reading.

    `follow`: whether the name may be a link, as in a path that the user typed. Names inside a run's folder may not: a
    link there can lead to any file of this machine. Raises FileNotFoundError, and RunError for whatever is no plain
    file or can't be opened.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(file, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        if not follow and os.path.islink(file):
            raise Damaged(f"{file} is a link, which is not followed here; put the file itself there") from error
        raise RunError(
            f"can't read {file} ({error.strerror or error}); mend its permissions or move it away"
        ) from error
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        raise Damaged(f"{file} is {_KINDS.get(stat.S_IFMT(kind), 'no file')}, not a plain file; move it away")
    return os.fdopen(handle, "rb")


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_plain(file: Path, most_bytes: int, follow: bool = False) -> bytes:
    """The content of a plain file of at most `most_bytes`. Raises as `open_plain`, and RunError for a larger one."""
    with open_plain(file, follow) as opened:
        try:
            size = os.fstat(opened.fileno()).st_size
            data = opened.read(min(size, most_bytes) + 1)  # a read takes as much memory as it is asked for
            if len(data) > size:  # it grew since, or is one of the system's, whose size is 0
                data += opened.read(most_bytes + 1 - len(data))
        except OSError as error:
            raise RunError(f"can't read {file} ({error.strerror or error}); try again") from error
    if len(data) > most_bytes:
        raise Damaged(f"{file} has more than {most_bytes:,} bytes, which no file of its kind has; move it away")
    return data


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Raise RunError if a folder, or what has one of these names in it, is neither a folder nor a plain file.

    What is named may be a folder; then what is in it must be plain, too, but for hidden files (an editor's, say). A
    link in a run's folder leads to what belongs to somebody else: nothing is written or deleted there. Under other
    names nothing is opened, so whatever is there is left alone.
    """
    problem = _out_of_place(folder)
    looked_at = [folder] if problem else [folder / name for name in names]
    while looked_at:
        place = looked_at.pop()
        problem = _out_of_place(place)
        if problem:
            raise RunError(f"{place} is {problem}, which has no place in a run's folder; move it away")
        if place.is_dir():
            try:
                looked_at += [Path(entry.path) for entry in os.scandir(place) if not entry.name.startswith(".")]
            except FileNotFoundError:  # another process tidied up meanwhile
                continue
            except OSError as error:
                raise RunError(f"can't look into {place} ({error.strerror or error}); mend its permissions") from error


def plain_below(folder: Path, name: str) -> Path:
    """The path of a plain file below a folder; no folder in between may be a link. The folder itself may be one.

    Raises FileNotFoundError, and RunError for what is no plain file there.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise RunError(f"{shown(name)} is no file of {folder}")
    path = folder
    for part in parts:
        path /= part
        problem = _out_of_place(path)
        if problem:
            raise RunError(f"{path} is {problem}, which is not followed here; put the file itself in its place")
    if not path.exists():
        raise FileNotFoundError(path)
    if not path.is_file():
        raise RunError(f"{path} is a folder, not a plain file; move it away")
    return path


def _out_of_place(path: Path) -> str | None:
    """What a path is, if it is neither a plain file, nor a folder, nor absent."""
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if kind in (stat.S_IFREG, stat.S_IFDIR) else _KINDS.get(kind, "no file")


def read_json(
    file: Path, shape: type[T] | GenericAlias, most_bytes: int = MOST_BYTES_OF_JSON, follow: bool = False
) -> T:
    """The content of a JSON file, of the shape of a dataclass or `TypedDict` (of `typing_extensions`).

    Raises FileNotFoundError, and RunError that names the file and the field that is wrong.
    """
    return parse_json(read_plain(file, most_bytes, follow), shape, str(file))


def parse_json(text: bytes | str, shape: type[T] | GenericAlias, what: str) -> T:
    """JSON text as a value of `shape`, nothing converted: text is no number, and true is none either.

    `shape` is what `pydantic` can check: dataclasses, `TypedDict`, lists, mappings, `Annotated` limits. NaN, infinity,
    nesting of more than 200 levels and text that is not UTF-8 are refused. Raises RunError: `what` begins its sentence.
    """
    try:
        json.dumps(from_json(text, allow_inf_nan=False), allow_nan=False)  # 1e999 is infinity too
        return cast(T, _adapter(cast(Hashable, shape)).validate_json(text, strict=True))
    except ValidationError as error:
        raise Damaged(f"{what} is damaged: {_words(error)}") from error
    except ValueError as error:
        raise Damaged(f"{what} is damaged: it is no JSON ({first_line(error)})") from error


def shown(value: Any, most: int = 40) -> str:
    """A value that somebody else wrote, short and without a letter that a terminal would obey."""
    text = repr(value)  # escapes what can't be printed
    return text if len(text) <= most else f"{text[: most - 1]}…"


def misfit(value: Any, shape: type) -> str | None:
    """Why a value that was read as JSON is not of a shape, in words and as strictly as `parse_json`; None if it is."""
    try:
        _adapter(cast(Hashable, shape)).validate_python(value, strict=True)
    except ValidationError as error:
        return _words(error)
    return None


def _words(error: ValidationError) -> str:
    wrong = error.errors(include_url=False, include_context=False)[0]
    steps = [f"[{step}]" if isinstance(step, int) else f".{shown(step).strip(QUOTES)}" for step in wrong["loc"]]
    field, value = "".join(steps).removeprefix("."), wrong["input"]
    if wrong["type"] == "missing":
        return f"its '{field}' is missing"
    found = f", not {shown(value)}" if isinstance(value, (str, int, float, bool, type(None))) else ""
    message = printable(wrong["msg"].removeprefix("Value error, "))
    return (f"its '{field}' is wrong: " if field else "") + message[:1].lower() + message[1:] + found


QUOTES = "'\""


@cache
def _adapter(shape: Hashable) -> Any:
    return TypeAdapter(cast(Any, shape))
