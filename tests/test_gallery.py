"""The gallery: memories by name, each the one that its record measured."""

import json
from pathlib import Path

import pytest
import torch
from command_line import REPOSITORY

import suite
from suite.errors import RunError
from suite.storage import gallery
from suite.storage.files import sha256

NAMES = sorted(gallery.gallery())


def test_there_is_a_gallery() -> None:
    assert NAMES and gallery.FOLDER == REPOSITORY / "leaderboard"


@pytest.mark.parametrize("name", NAMES)
def test_a_memory_of_the_gallery_is_the_one_its_record_measured(name: str) -> None:
    file = gallery.gallery()[name]
    record = json.loads((file.parent / "result.json").read_text())
    assert sha256(file.read_bytes()) == record["facts"]["memory_sha256"]
    memory = suite.load(name)
    assert memory.about["dataset"] == record["facts"]["dataset"] == name.split("-")[0]
    assert f"{memory.about['config']['images_per_class']:g}ipc" == name.split("-")[1]
    images, labels = memory.display()
    assert len(images) == len(labels) and torch.isfinite(images).all()
    (measured,) = [m for m in record["measurements"] if (m["method"], m["split"]) == ("memory", "test")]
    assert f"| `{name}` | {measured['mean']:.1f} |" in (REPOSITORY / "leaderboard" / "README.md").read_text()


def test_what_is_neither_a_file_nor_a_name_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=rf"no file nothing-1ipc, and no memory of that name; the gallery has: {NAMES[0]}"
    ):
        suite.load("nothing-1ipc")
    for given in ("nothing.safetensors", "folder/nothing", tmp_path / NAMES[0]):
        with pytest.raises(RunError, match=r"there is no file [^,]*$"):
            suite.load(given)
    monkeypatch.setattr(gallery, "FOLDER", tmp_path)
    with pytest.raises(RunError, match="the gallery is in a checkout alone"):
        suite.load(NAMES[0])


def test_a_file_of_a_memory_s_name_goes_before_the_gallery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAMES[0]).write_bytes(b"mine")
    assert gallery.file_of(NAMES[0]) == Path(NAMES[0])
