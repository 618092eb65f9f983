"""Checkpoints: whole or absent, and of two at least one survives whatever happens to the other."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from suite.errors import RunError
from suite.keys import Key
from suite.storage import checkpoint
from suite.storage.checkpoint import Checkpoint, read_newest, write

FILES = ("tensors.safetensors", "state.json", "manifest.json")


def example(iteration: int) -> Checkpoint:
    tensors = {
        "memory/images": torch.randn(3, 5, generator=Key(iteration)("images").generator()),
        "state/momentum/images": torch.full((3, 5), float(iteration)),
        "count": torch.tensor(iteration),
    }
    return Checkpoint(iteration, tensors, {"seconds": 1.5, "metrics": [["loss", 0.1, 17, iteration]], "who": "Zoë"})


def same(one: Checkpoint | None, two: Checkpoint) -> bool:
    assert one is not None
    tensors = one.tensors.keys() == two.tensors.keys() and all(
        torch.equal(one.tensors[k], two.tensors[k]) and one.tensors[k].dtype == two.tensors[k].dtype
        for k in two.tensors
    )
    return tensors and one.iteration == two.iteration and one.state == two.state


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A directory with the checkpoints of steps 10 and 12."""
    for iteration in (10, 12):
        write(tmp_path, example(iteration))
    return tmp_path


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


# ---------------------------------------------------------------- there and back


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_newest(tmp_path / "none") == (None, [])
    write(tmp_path / "new" / "place", example(7))
    newest, complaints = read_newest(tmp_path / "new" / "place")
    assert same(newest, example(7)) and complaints == []


def test_tensors_come_back_in_their_order(tmp_path: Path) -> None:
    """Sums over all tensors of a memory depend on it in their last bits."""
    names = [f"memory/{word}" for word in ("zeta", "alpha", "matrices", "bases", "omega")]
    write(tmp_path, Checkpoint(1, {name: torch.zeros(2) for name in names}, {}))
    for _ in range(10):
        newest, _ = read_newest(tmp_path)
        assert newest is not None and list(newest.tensors) == names


def test_the_newest_two_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    for iteration in (2, 9, 10, 100, 99_999_999):
        write(tmp_path, example(iteration))
        assert same(read_newest(tmp_path)[0], example(iteration))
    assert names(tmp_path) == ["step-00000100", "step-99999999"]


def test_the_best_on_validation_is_kept_beside_the_newest_two(tmp_path: Path) -> None:
    scores = {1: None, 2: 70.0, 3: 80.0, 4: None, 5: 80.0, 6: 75.0, 7: None, 8: None}
    for iteration, score in scores.items():
        write(tmp_path, replace(example(iteration), score=score))
    assert names(tmp_path) == ["step-00000005", "step-00000007", "step-00000008"]
    for step in ("step-00000007", "step-00000008"):
        (tmp_path / step / "state.json").unlink()
    assert same(read_newest(tmp_path)[0], example(5))  # something to fall back on as well


def test_the_same_step_may_be_written_again(two: Path) -> None:
    again = Checkpoint(12, {"a": torch.ones(1)}, {"other": True})
    write(two, again)
    assert same(read_newest(two)[0], again) and names(two) == ["step-00000010", "step-00000012"]


def test_tensors_that_share_their_storage_or_need_gradients_are_kept_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0, requires_grad=True)
    write(tmp_path, Checkpoint(1, {"a": base[:4], "b": base[2:], "c": base.view(2, 3).T}, {}))
    newest, _ = read_newest(tmp_path)
    assert newest is not None and torch.equal(newest.tensors["b"], torch.arange(2.0, 6.0))
    newest.tensors["a"][2] = 100
    assert newest.tensors["b"][0] == 2


# ---------------------------------------------------------------- damage

DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "halved": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: file.write_bytes(b""),
    "zeroed tail": lambda file: file.write_bytes(file.read_bytes()[:-8] + bytes(8)),
    "first bit flipped": lambda file: flip(file, 0, 0),
    "last bit flipped": lambda file: flip(file, -1, 0),
    "middle bit flipped": lambda file: flip(file, file.stat().st_size // 2, 3),
    "deleted": lambda file: file.unlink(),
    "made a directory": lambda file: in_the_way(file),
    "another's": lambda file: shutil.copy(file.parent.parent / "step-00000010" / file.name, file),
    "not of this shape": lambda file: file.write_bytes(b"[]"),
}


def in_the_way(file: Path) -> None:
    file.unlink()
    file.mkdir()


def flip(file: Path, place: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_renamed_and_the_one_before_is_used(two: Path, name: str, damage: str) -> None:
    DAMAGE[damage](two / "step-00000012" / name)
    newest, complaints = read_newest(two)
    assert same(newest, example(10))
    assert len(complaints) == 1 and "step-00000012" in complaints[0] and "damaged-step-00000012" in complaints[0]
    assert "\n" not in complaints[0]
    assert names(two) == ["damaged-step-00000012", "step-00000010"]
    assert read_newest(two)[1] == []  # reported once
    write(two, example(12))  # the run comes by again
    assert same(read_newest(two)[0], example(12))


def test_a_flipped_bit_anywhere_in_the_manifest_is_noticed(two: Path) -> None:
    """The other files are hashed in it, and it is sealed itself."""
    shutil.rmtree(two / "step-00000010")
    file = two / "step-00000012" / "manifest.json"
    whole = file.read_bytes()
    unnoticed = []
    for place in range(len(whole)):
        for bit in (0, 1, 3, 6):
            flip(file, place, bit)
            try:
                newest, _ = read_newest(two)
                assert newest is not None
                if not same(newest, example(12)):
                    unnoticed.append(file.read_bytes()[max(0, place - 12) : place + 12])
            except RunError:
                (two / "damaged-step-00000012").rename(two / "step-00000012")
            file.write_bytes(whole)
    assert not unnoticed


def test_when_none_is_intact_nothing_starts_from_zero_in_silence(two: Path) -> None:
    for step in ("step-00000010", "step-00000012"):
        (two / step / "manifest.json").write_bytes(b"")
    with pytest.raises(RunError) as error:
        read_newest(two)
    assert "step-00000010" in str(error.value) and "step-00000012" in str(error.value)
    assert "--fresh" in str(error.value) and "\n" not in str(error.value)
    assert names(two) == ["damaged-step-00000010", "damaged-step-00000012"]


def test_after_all_were_renamed_the_next_attempt_does_not_start_from_zero_either(two: Path) -> None:
    for step in ("step-00000010", "step-00000012"):
        (two / step / "state.json").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(RunError):
            read_newest(two)


def test_an_unknown_schema_is_not_read(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = checkpoint.SCHEMA
    monkeypatch.setattr(checkpoint, "SCHEMA", 99)
    with pytest.raises(RunError, match=f"schema {known}"):
        read_newest(two)


def test_what_a_crash_left_is_ignored_and_removed(two: Path) -> None:
    for left in (".step-00000014.tmp", ".step-00000012.tmp"):
        (two / left).mkdir()
        (two / left / "tensors.safetensors").write_bytes(b"half")
    assert same(read_newest(two)[0], example(12))
    write(two, example(14))
    assert same(read_newest(two)[0], example(14)) and ".step-00000014.tmp" not in names(two)


# ---------------------------------------------------------------- failing writes


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_full_disk_leaves_the_old_ones(two: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file or directory the disk has no room for."""
    calls = 0
    fsync = os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    if nth <= 5:  # three files, their directory, and the one above
        with pytest.raises(RunError, match="No space left on device"):
            write(two, example(14))
    else:
        write(two, example(14))
    monkeypatch.undo()
    newest, complaints = read_newest(two)
    assert complaints == [] and same(newest, example(14 if nth >= 5 else 12))
    assert not [name for name in names(two) if name.startswith(".")]
    assert "step-00000012" in names(two)


def test_a_failing_rename_leaves_the_old_ones(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunError, match="Read-only file system"):
        write(two, example(14))
    monkeypatch.undo()
    assert same(read_newest(two)[0], example(12)) and names(two) == ["step-00000010", "step-00000012"]


def test_an_old_one_that_can_not_be_deleted_does_not_lose_the_new(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rmdir", lambda *_args, **_kwargs: (_ for _ in ()).throw(PermissionError(13, "no")))
    write(two, example(14))
    monkeypatch.undo()
    assert same(read_newest(two)[0], example(14))


def test_a_state_that_json_can_not_hold_is_no_checkpoint(two: Path) -> None:
    with pytest.raises(ValueError):
        write(two, Checkpoint(14, {}, {"loss": float("nan")}))
    assert same(read_newest(two)[0], example(12))


def test_the_manifest_names_what_is_there(two: Path) -> None:
    manifest = json.loads((two / "step-00000012" / "manifest.json").read_bytes())
    assert manifest["iteration"] == 12 and set(manifest["sha256"]) == {*FILES} - {"manifest.json"}
    assert set(names(two / "step-00000012")) == set(FILES)
