"""Locks: one holder of one name, also when the folder under the name is replaced."""

import threading
import time
from pathlib import Path

import pytest

from suite.errors import RunError
from suite.storage.locks import Held, locked


def test_who_starts_waits_for_one_who_only_looks(tmp_path: Path) -> None:
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
    with locked(tmp_path / ".lock", wait=False, refusal="no"):
        pass
    thread.join()
    assert looked.is_set()


def test_the_impatient_are_refused_in_the_words_they_gave(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(Held, match="mine"):
        locked(tmp_path / ".lock", wait=False, refusal="mine", patience=0.0).__enter__()
    assert issubclass(Held, RunError)


def test_a_lock_is_of_the_name_and_not_of_a_folder_that_was_renamed(tmp_path: Path) -> None:
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
