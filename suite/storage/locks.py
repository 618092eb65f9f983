"""Locks between processes. The operating system releases them when their holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.errors import RunError
from suite.storage.files import disk_errors, make_directory

PATIENCE = 1.0
"""Seconds before a lock counts as held: a process that only checks whether it is free holds it for a moment."""


class Held(RunError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, wait: bool = True, refusal: str = "", patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock file `path`, which is made where it does not exist.

    `wait`: until it is free, however long. Otherwise raise Held(refusal) if it is not free within `patience` seconds.
    Raises RunError where the file can't be made or the file system has no locks.
    """
    until = time.monotonic() + patience
    handle = _open(path)
    try:
        with disk_errors(path):  # some network file systems have no locks
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    if time.monotonic() >= until:
                        raise Held(refusal) from error
                    time.sleep(0.02)
                    continue
                if _is_at(handle, path):
                    break
                os.close(handle)  # its folder was renamed meanwhile, and another folder may have the name now
                handle = _open(path)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    make_directory(path.parent)
    with disk_errors(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
