"""Locks: one holder of a path, also when the folder at the path is replaced."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.errors import RunError
from suite.storage import locks
from suite.storage.locks import PATIENCE, Held, Lost, locked, locks_of_one_machine


@pytest.fixture
def on_refusal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Do something when a lock was found held for the first time: no clock says when another thread got that far."""

    def arrange(action: Callable[[], None]) -> None:
        flock, refused = fcntl.flock, threading.Event()

        def went(handle: int, how: int) -> None:
            try:
                flock(handle, how)
            except BlockingIOError:
                if not refused.is_set():
                    refused.set()
                    action()
                raise

        monkeypatch.setattr(locks.fcntl, "flock", went)

    return arrange


def test_a_run_that_starts_waits_for_a_process_that_only_looks(
    tmp_path: Path, on_refusal: Callable[[Callable[[], None]], None]
) -> None:
    """A look takes the lock for a moment."""
    look = locked(tmp_path / ".lock")
    look.__enter__()
    on_refusal(lambda: look.__exit__(None, None, None))
    with locked(tmp_path / ".lock", wait=False, refusal="no", patience=60.0):
        pass
    assert PATIENCE >= 1  # as much as a look takes on a busy machine


def test_a_lock_that_is_waited_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After some seconds, while the wait goes on; the data cache and the sender wait so."""
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.0)
    holder = locked(tmp_path / ".lock")
    holder.__enter__()
    monkeypatch.setattr(locks, "report", lambda line: (print(line), holder.__exit__(None, None, None)))
    with locked(tmp_path / ".lock"):
        pass
    said = capsys.readouterr().out
    holders = ("another process", f"process {os.getpid()}")  # Linux tells
    assert said in [
        f"[waiting] {who} holds {tmp_path / '.lock'}; this one goes on when it is done\n" for who in holders
    ]


@pytest.mark.parametrize(
    ("number", "error", "sentence"),
    [
        (errno.ESTALE, Lost, "was deleted or replaced"),
        (errno.ENOENT, Lost, "was deleted or replaced"),
        (errno.EIO, RunError, "can't look at .*lock .*Input/output error"),
        (errno.EACCES, RunError, "can't look at .*lock .*Permission denied"),
        (errno.ELOOP, RunError, "can't look at .*lock"),
    ],
)
def test_a_file_system_that_lost_a_lock_is_a_sentence(
    number: int, error: type[RunError], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def samestat(*_: object) -> bool:
        raise OSError(number, os.strerror(number))

    with locked(tmp_path / ".lock") as still_held:
        with monkeypatch.context() as patched:
            patched.setattr(os.path, "samestat", samestat)
            with pytest.raises(error, match=sentence):
                still_held()
        still_held()


@pytest.mark.parametrize("how", ["deleted", "replaced", "folder deleted", "folder renamed", "a link"])
def test_a_lock_that_is_gone_is_noticed_by_its_holder(how: str, tmp_path: Path) -> None:
    place = tmp_path / "run"
    with locked(place / ".lock") as still_held:
        still_held()
        if how == "folder renamed":
            place.rename(tmp_path / "run.old1")
        else:
            (place / ".lock").unlink()
        if how == "folder deleted":
            place.rmdir()
        if how == "replaced":
            (place / ".lock").touch()
        if how == "a link":
            (place / ".lock").symlink_to(tmp_path)
        with pytest.raises(Lost, match=f"{place}.* was deleted or replaced"):
            still_held()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.with_name("private"))])
def test_a_lock_is_a_plain_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(RunError, match=r"\.lock"):
        locked(tmp_path / ".lock", wait=False, patience=0.0).__enter__()
    assert not (tmp_path / "private").exists()


def test_a_held_lock_is_refused_with_the_caller_s_sentence(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(Held, match="mine"):
        locked(tmp_path / ".lock", wait=False, refusal="mine", patience=0.0).__enter__()
    assert issubclass(Held, RunError)


def test_a_lock_belongs_to_the_path_and_not_to_a_folder_that_was_renamed(
    tmp_path: Path, on_refusal: Callable[[Callable[[], None]], None]
) -> None:
    """One waits for the lock in a folder; its holder renames the folder, and makes another of that name."""
    place = tmp_path / "run"
    holder = locked(place / ".lock")
    holder.__enter__()

    def renamed() -> None:
        place.rename(tmp_path / "run.old1")
        place.mkdir()
        (place / "new").touch()
        holder.__exit__(None, None, None)

    on_refusal(renamed)
    with locked(place / ".lock") as still_held:
        assert (place / "new").exists()
        still_held()


MOUNTS = """
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2,local_lock=none
31 22 0:41 / /old rw - nfs server:/old rw,vers=3,nolock,local_lock=all
32 22 0:42 / /shared rw - lustre 10.0.0.1@tcp:/work rw,flock
33 32 0:43 / /shared/a\\040place rw - lustre 10.0.0.1@tcp:/place rw,localflock
34 22 0:44 / /bucket rw - fuse.rclone bucket: rw
""".strip()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/data/runs", None),
        ("/home/me/runs", None),
        ("/old/runs", "nfs with local_lock=all"),
        ("/older/runs", None),
        ("/shared/runs", None),
        ("/shared/a place/runs", "lustre with localflock"),
        ("/bucket", "fuse.rclone"),
    ],
)
def test_file_systems_whose_locks_are_a_machine_s_own_are_known(path: str, why: str | None) -> None:
    assert locks_of_one_machine(Path(path), MOUNTS) == why
