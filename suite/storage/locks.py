"""Locks between processes, which the operating system drops when their holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.errors import RunError
from suite.storage.files import disk_errors, make_directory

PATIENCE = 1.0
"""Seconds that even an impatient one waits: somebody may only be looking whether the lock is free."""


class Held(RunError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, wait: bool = True, refusal: str = "", patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock file; without `wait`, raise Held(refusal) if another process holds it longer than `patience`."""
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
                os.close(handle)  # its folder was renamed meanwhile, and another may have its name now
                handle = _open(path)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    make_directory(path.parent)
    with disk_errors(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
