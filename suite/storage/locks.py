"""Locks between processes. The operating system releases them when their holder dies."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from suite.errors import RunError, report
from suite.storage.files import disk_errors, make_directory

PATIENCE = 1.0
"""Seconds before a lock counts as held: a process that only checks whether it is free holds it for a moment."""


SILENT_SECONDS = 5.0
"""How long a held lock is waited for without a word."""


class Held(RunError):
    """Another process holds the lock."""


class Lost(RunError):
    """The lock's file, or its folder, was deleted or replaced, so that another process may hold the place."""


@contextmanager
def locked(
    path: Path, wait: bool = True, refusal: str = "", patience: float = PATIENCE
) -> Iterator[Callable[[], None]]:
    """Hold the lock file `path`, which is made where it does not exist.

    `wait`: until it is free, however long; after some seconds a line says so, and who holds it. Otherwise raise
    Held(refusal) if it is not free within `patience` seconds. What it gives is called to see whether the lock is still
    this process's; it raises Lost, and RunError where that can't be told.
    Raises RunError where the file can't be made or is no plain file, and where the file system has no locks.
    """
    patience = SILENT_SECONDS if wait else patience
    until = time.monotonic() + patience
    handle = _open(path)
    try:
        with disk_errors(path):  # some network file systems have no locks
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    if time.monotonic() < until:
                        time.sleep(0.02)
                        continue
                    if not wait:
                        raise Held(refusal) from error
                    report(f"[waiting] {_holder(path)} holds {path}; this one goes on when it is done")
                    fcntl.flock(handle, fcntl.LOCK_EX)
                if _is_at(handle, path):
                    break
                os.close(handle)  # its folder was renamed meanwhile, and another folder may have the name now
                handle = _open(path)
        yield partial(_still_held, handle, path)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    make_directory(path.parent)
    if os.path.islink(path):
        raise RunError(f"{path} is a link, which is not followed here; delete it")
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RunError(f"{path} is not a plain file, which a lock must be; delete it")
    return handle


def _still_held(handle: int, path: Path) -> None:
    if not _is_at(handle, path):
        what = path if os.path.exists(path.parent) else path.parent
        raise Lost(
            f"{what} was deleted or replaced while a run was at work there; another process may have the place now, so "
            "nothing more is written; give the same command again"
        )


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one that a path names. Raises RunError where that can't be told."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise RunError(
            f"can't look at {path} ({error.strerror or error}), so nobody knows who holds it; mend that and give the "
            "same command again"
        ) from error


_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
"""Errors of a file that is not there any more; the last is how a network file system says so."""


def locks_of_one_machine(path: Path, mounts: str) -> str | None:
    """Which file system and option make locks below `path` a machine's own, though others may share it; None: unknown.

    `mounts`: /proc/self/mountinfo of Linux. What a server or a daemon was told is not in it.
    """
    found: tuple[int, str | None] = (-1, None)
    for line in mounts.splitlines():
        words, _, about = line.partition(" - ")
        point, fields = words.split(" ")[4], about.split(" ")
        for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            point = point.replace(code, letter)
        if len(point) >= found[0] and path.is_relative_to(point):
            options = {*words.split(" ")[5].split(","), *fields[2].split(",")}
            own = sorted(_OWN_LOCKS.get(fields[0], set()) & options)
            always = fields[0] if fields[0] in _OWN_LOCKS_ALWAYS else None
            found = (len(point), f"{fields[0]} with {own[0]}" if own else always)
    return found[1]


_OWN_LOCKS = {
    "nfs": {"local_lock=all", "local_lock=flock", "nolock"},
    "nfs4": {"local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "cifs": {"nobrl"},
}
"""By file system, options with which the kernel does not ask the server about locks."""

_OWN_LOCKS_ALWAYS = ("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.mount-s3")
"""File systems that leave flock() to the kernel of each machine."""


def holder(path: Path) -> int | None:
    """The process that holds a lock; None: none, one of another machine or user, or a system that does not tell.

    It is named by Linux's list of locks and has the file open, since other file systems have the same numbers of files.
    """
    try:
        known = path.stat()
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    found = [int(words[4]) for words in held if words[1] == "FLOCK" and words[5].endswith(f":{known.st_ino}")]
    return next((process for process in found if _has_open(process, known)), None)


def _has_open(process: int, known: os.stat_result) -> bool:
    handles: list[str] = []
    with suppress(OSError):  # it ended, or is another user's
        handles = os.listdir(f"/proc/{process}/fd")
    for handle in handles:
        with suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/{process}/fd/{handle}"), known):
                return True
    return False


def _holder(path: Path) -> str:
    """Who holds a lock, as far as Linux tells."""
    process = holder(path)
    return "another process" if process is None else f"process {process}"
