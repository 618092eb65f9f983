"""What a data set's images depend on, as one hash: its settings, the code that reads them and the user's own files.

A cache is found by this hash, so that other settings, an edited reader or a changed folder never give old images.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from suite.errors import RunError, UsageError, one_line, report
from suite.registry import describe
from suite.storage.files import json_sha256, sha256
from suite.storage.plain_files import open_plain
from suite.storage.source_code import code_of
from suite.types import DatasetInfo

OF_ALL = frozenset({"suite.datasets.base"})
"""The module that all data sets share. It reads no image, so an edit of it changes none."""


def identity(dataset: Any, info: DatasetInfo, version: int, files: Sequence[Path], cache_dir: Path) -> str:
    """SHA-256 of what a data set's images depend on, as far as it can be known before they are read.

    That is every setting, the metadata, the reader's version, its source (`code_of`; for what the suite's own files
    import, the version stands), and the content of `files`, of a folder all that lies in it but `cache_dir`. Raises
    UsageError for settings that can't be written down, and RunError for a file that can't be read.
    """
    try:
        contents = [_contents(file, cache_dir) for file in files]
        depends_on = [describe(dataset), asdict(info), version, code_of(type(dataset), OF_ALL), contents]
        return sha256(json.dumps(depends_on, sort_keys=True, allow_nan=False, default=os.fspath).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{info.name}: its settings can't be written down ({one_line(error)}), so that its images could not be "
            "found again; give texts, numbers, lists and components"
        ) from error


# ---------------------------------------------------------------- files


MANY = 20_000
"""Files of a folder that take so long to read that it is said."""

SETTLED = 2.0
"""Seconds after which a change of a file gives it another time, on any disk."""

_known: dict[str, dict[str, str | None]] = {}
"""What files hold, by a hash of their names, places, sizes and times: each is read once in a process."""


def _contents(file: Path, cache_dir: Path) -> Any:
    """SHA-256 of a file; of a folder, that of every file in it by its name; None for what is not there."""
    now = time.time()
    try:
        is_folder = file.is_dir()
        files = {str(one.relative_to(file)): one for one in (_below(file, cache_dir) if is_folder else [file])}
        stamps = {name: _stamp(one) for name, one in files.items()}
        listing = json_sha256(stamps)
        contents = _known.get(listing)
        if contents is None:
            if len(files) > MANY:
                report(f"[data] reading {len(files):,} files of {file} to see whether they changed")
            contents = {name: _sha256(one) if stamps[name] else None for name, one in files.items()}
            if all(max(stamp[-2:]) < (now - SETTLED) * 1e9 for stamp in stamps.values() if stamp):
                _known[listing] = contents
        return contents if is_folder else contents["."]
    except FileNotFoundError:  # it went away just now
        return None
    except OSError as error:
        raise RunError(f"{file} can't be read ({one_line(error)}); mend it") from error


def _stamp(file: Path) -> tuple[int, ...] | None:
    """What changes with a file's content; None for a file that is not there, such as a link that leads nowhere."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _below(folder: Path, cache_dir: Path) -> Iterator[Path]:
    """What lies in a folder and is none, also behind links, in a fixed order. Raises OSError for one that is closed."""

    def closed(error: OSError) -> None:
        raise error

    seen = {_place(cache_dir)} if cache_dir.is_dir() else set()
    seen.add(_place(folder))
    for place, below, names in os.walk(folder, onerror=closed, followlinks=True):
        new = [name for name in sorted(below) if _place(Path(place, name)) not in seen]
        seen |= {_place(Path(place, name)) for name in new}  # a link may lead back to where it lies
        below[:] = new
        yield from (Path(place, name) for name in sorted(names))


def _place(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _sha256(file: Path) -> str:
    with open_plain(file, follow=True) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
