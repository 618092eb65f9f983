"""Locks: one holder of a path, also when the folder at the path is replaced."""

import threading
import time
from pathlib import Path

import pytest

from suite.errors import RunError
from suite.storage.locks import PATIENCE, Held, locked


def test_a_run_that_starts_waits_for_a_process_that_only_looks(tmp_path: Path) -> None:
    """A look takes the lock for a moment."""
    looking, looked = threading.Event(), threading.Event()

    def look() -> None:
        with locked(tmp_path / ".lock"):
            looking.set()
            time.sleep(0.2)
        looked.set()

    thread = threading.Thread(target=look)
    thread.start()
    looking.wait()
    with locked(tmp_path / ".lock", wait=False, refusal="no", patience=60.0):
        pass
    assert PATIENCE >= 1  # as much as a look takes on a busy machine
    thread.join()
    assert looked.is_set()


def test_a_held_lock_is_refused_with_the_caller_s_sentence(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(Held, match="mine"):
        locked(tmp_path / ".lock", wait=False, refusal="mine", patience=0.0).__enter__()
    assert issubclass(Held, RunError)


def test_a_lock_belongs_to_the_path_and_not_to_a_folder_that_was_renamed(tmp_path: Path) -> None:
    """One waits for the lock in a folder; its holder renames the folder, and makes another of that name."""
    place, held = tmp_path / "run", []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with locked(place / ".lock"):
            held.append((place / "new").exists())

    with locked(place / ".lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        time.sleep(0.1)
        place.rename(tmp_path / "run.old1")
        place.mkdir()
        (place / "new").touch()
    with locked(place / ".lock", wait=False, patience=5.0):
        pass
    thread.join()
    assert held == [True] and (place / ".lock").exists()
