"""The journal: whole lines only, every point once, and all other lines where one is damaged."""

import errno
import itertools
import os
from pathlib import Path

import pytest

from suite.errors import RunError
from suite.storage.journal import NAME, Journal, Point, identity, read


def points(*iterations: int) -> list[Point]:
    return [Point("loss", 1.0 / (1 + i), 1000 + i, i) for i in iterations]


def iterations(directory: Path) -> list[int]:
    """The iterations of all points, in order."""
    return [i for entry in read(directory)[0] if entry["is"] == "metrics" for _, _, _, i in entry["points"]]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    fresh = Journal(tmp_path / "run")
    fresh.begin("name", "seed 0", {"tag": "Zoë"}, {"rate": "0.1"})
    return fresh


def test_entries_are_read_back_in_order_with_their_times(journal: Journal) -> None:
    journal.mark("RUNNING")
    journal.points(points(1, 2), progress=(2, 10))
    journal.artifacts([journal.directory / "figures" / "a.png"])
    journal.mark("FINISHED")
    entries, end = read(journal.directory)
    assert [e["is"] for e in entries] == ["run", "status", "metrics", "progress", "artifact", "status"]
    assert entries[0]["tags"] == {"tag": "Zoë"} and entries[0]["parameters"] == {"rate": "0.1"}
    assert entries[2]["points"] == [("loss", 0.5, 1001, 1), ("loss", 1 / 3, 1002, 2)]
    assert (entries[3]["done"], entries[3]["total"], entries[4]["file"]) == (2, 10, "figures/a.png")
    assert all(b["time"] >= a["time"] > 1.6e12 for a, b in itertools.pairwise(entries))
    assert read(journal.directory, end) == ([], end) and end == (journal.directory / NAME).stat().st_size


def test_a_run_begins_once_and_keeps_its_identity(journal: Journal, tmp_path: Path) -> None:
    again = Journal(journal.directory)
    again.begin("name", "seed 0", {}, {})
    other = Journal(tmp_path / "other")
    other.begin("name", "seed 0", {}, {})
    (entry,), (another,) = read(journal.directory)[0], read(tmp_path / "other")[0]
    assert len(entry["id"]) == 32 and entry["id"] != another["id"]


def test_a_point_is_written_once_with_its_first_time(journal: Journal) -> None:
    journal.points(points(1, 2))
    journal.points([Point("loss", 0.5, 9999, 1), *points(2, 3)])
    later = Journal(journal.directory)
    later.points(points(1, 2, 3, 4))
    assert iterations(journal.directory) == [1, 2, 3, 4]
    assert read(journal.directory)[0][1]["points"][0][2] == 1001


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_partial_line_that_a_crash_left_is_removed_and_written_again(journal: Journal, cut: int) -> None:
    journal.points(points(1))
    whole = (journal.directory / NAME).read_bytes()
    journal.points(points(2))
    torn = (journal.directory / NAME).read_bytes()[:-cut]
    (journal.directory / NAME).write_bytes(torn)
    assert iterations(journal.directory) == [1] and read(journal.directory)[1] == len(whole)
    Journal(journal.directory).points(points(1, 2))
    assert iterations(journal.directory) == [1, 2]


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_a_flipped_bit_costs_one_line_which_the_run_writes_again(journal: Journal, bit: int) -> None:
    for i in (1, 2, 3):
        journal.points(points(i))
    file = journal.directory / NAME
    lines = file.read_bytes().splitlines(keepends=True)
    for place in range(0, len(lines[2]) - 1, 5):
        damaged = bytearray(lines[2])
        damaged[place] ^= 1 << bit
        if b"\n" in damaged[:-1]:
            continue
        file.write_bytes(b"".join([*lines[:2], bytes(damaged), *lines[3:]]))
        assert iterations(journal.directory) == [1, 3]
    Journal(journal.directory).points(points(1, 2, 3))
    assert iterations(journal.directory) == [1, 3, 2]


def test_a_partial_line_on_a_full_disk_is_removed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.points(points(1))
    before = (journal.directory / NAME).read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device"):
            journal.points(points(2))
    assert (journal.directory / NAME).read_bytes() == before
    journal.points(points(2, 3))
    assert iterations(journal.directory) == [1, 2, 3]


def test_state_and_table_are_known_to_the_next_process(journal: Journal, tmp_path: Path) -> None:
    journal.mark("RUNNING")
    journal.mark("KILLED")
    journal.mark("RUNNING")
    journal.belongs_to(tmp_path / ".table-1")
    later = Journal(journal.directory)
    assert (later.status, later.attempts, later.parent, later.began) == ("RUNNING", 2, "../.table-1", True)
    size = (journal.directory / NAME).stat().st_size
    later.belongs_to(tmp_path / ".table-1")
    assert (journal.directory / NAME).stat().st_size == size


def test_no_journal_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == ([], 0) and Journal(tmp_path).status is None


def test_a_journal_that_was_replaced_is_read_from_its_beginning(journal: Journal, tmp_path: Path) -> None:
    journal.points(points(1, 2, 3))
    _, end = read(journal.directory)
    (journal.directory / NAME).unlink()
    other = Journal(journal.directory)
    other.begin("name", "seed 0", {}, {})
    other.points(points(7))
    assert [e["is"] for e in read(journal.directory, end)[0]] == ["run", "metrics"]
    assert read(journal.directory, 10**9)[0] == read(journal.directory)[0]
    assert identity(read(journal.directory)[0]) is not None and identity([]) is None
