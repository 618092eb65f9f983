"""Atomic file writes and content hashes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.errors import RunError, UsageError, printable

# ---------------------------------------------------------------- hashes


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces. Raises ValueError for NaN and infinity, TypeError for no JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_sha256(value: Any) -> str:
    """SHA-256 of plain data: that of its canonical JSON."""
    return sha256(canonical_json(value).encode())


# ---------------------------------------------------------------- writes


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old or the new one: temporary file, fsync, rename. Raises RunError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            write_synced(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it; a crash may leave a part of it. Raises OSError, also for a link."""
    with open(path, "wb", opener=_unlinked) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def append_synced(path: Path, data: bytes) -> None:
    """Add to the end of a file and wait until the disk has it; a part that fits alone is removed. Raises RunError."""
    with disk_errors(path), open(path, "ab", buffering=0, opener=_unlinked) as file:
        before = os.fstat(file.fileno()).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise
        if before == 0:
            sync_directory(path.parent)


def _unlinked(path: str, flags: int) -> int:
    """Open what is no link, which could lead to any file of this machine, and no pipe, which nobody may read."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def sync_file(path: Path) -> None:
    """Wait until the disk has what was written to a file. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make the renames in a directory durable. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- directories


def user_path(text: str, option: str) -> Path:
    """A path that a user gave, with '~' and '~name' as a shell means them, which it leaves alone behind a '='.

    Raises UsageError where there is no such home, and for an empty text, which would be the working directory.
    """
    if not text:
        raise UsageError(f"{option}: it is empty; name a folder")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{option}: {printable(text)} is no text in UTF-8; name another folder") from error
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{option}: there is no home for {text} ({error}); name a folder in full") from error


def make_directory(path: Path) -> Path:
    """Make a directory and those above it, where they do not exist; returns it. Raises RunError."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def remove_leftovers(directory: Path) -> None:
    """Delete the temporary files of a crash, in a folder and in those below it that are no links.

    Call it only where no other process writes. Raises RunError.
    """
    with disk_errors(directory):
        # the sender of a killed run may still write in '.sending'
        below = [path for path in directory.iterdir() if _is_folder(path) and path.name != ".sending"]
    for folder in (directory, *below):
        for leftover in folder.glob(".*.tmp"):
            delete(leftover)


def delete(path: Path) -> None:
    """Delete a file, a folder with all that is in it, or a link and not where it leads. Raises RunError."""
    with disk_errors(path):
        shutil.rmtree(path) if _is_folder(path) else path.unlink(missing_ok=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about a path (full, read-only, not permitted) into a RunError of one sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"can't write {path}: {error.strerror or error}; free some room or choose another place"
        ) from error
