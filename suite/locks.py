"""Locks between processes, which the operating system drops when their holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.errors import RunError
from suite.files import disk_errors, make_directory


@contextmanager
def locked(path: Path, wait: bool = True, refusal: str = "") -> Iterator[None]:
    """Hold the lock file; without `wait`, raise RunError(refusal) if another process holds it."""
    make_directory(path.parent)
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with disk_errors(path):  # some network file systems have no locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(refusal) from error
        yield
    finally:
        os.close(handle)
