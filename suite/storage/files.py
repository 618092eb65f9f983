"""Atomic file writes and content hashes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.errors import RunError, UsageError

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
    """Write a file and wait until the disk has it; a crash may leave a part of it. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def append_synced(path: Path, data: bytes) -> None:
    """Add to the end of a file and wait until the disk has it; a part that fits alone is removed. Raises RunError."""
    with disk_errors(path), path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, before)
            raise
        if before == 0:
            sync_directory(path.parent)


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
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{option}: there is no home for {text} ({error}); name a folder in full") from error


def make_directory(path: Path) -> Path:
    """Make a directory and those above it, where they do not exist; returns it. Raises RunError."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def remove_leftovers(directory: Path) -> None:
    """Delete the temporary files of a crash. Call it only where no other process writes. Raises RunError."""
    for leftover in [*directory.glob(".*.tmp"), *directory.glob("*/.*.tmp")]:
        if leftover.parent.name == ".sending":  # the sender of a killed run may still write there
            continue
        with disk_errors(leftover):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about a path (full, read-only, not permitted) into a RunError of one sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"can't write {path}: {error.strerror or error}; free some room or choose another place"
        ) from error
