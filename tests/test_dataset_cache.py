"""The cache of a data set: made once, verified whenever it is opened, and never half there."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import published_layouts as layouts
import pytest
import torch

from suite.datasets.base import ImageDataset, Raw
from suite.errors import RunError
from suite.keys import Key
from suite.storage import sealed
from suite.types import DatasetInfo, ImageShape

KEY = Key(3)


@dataclasses.dataclass(frozen=True)
class Counting(ImageDataset):
    """A data set whose reader leaves a line in a file whenever it is asked."""

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("counting", ImageShape(1, 2, 2), ("a", "b"), 4, 2)

    def read(self, root: Path, download: bool) -> Raw:
        with open(root / "reads", "a") as file:
            file.write("read\n")
        images = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
        labels = torch.tensor([0, 1, 0, 1, 0, 1])
        return Raw(images[:4], labels[:4], images[4:], labels[4:], "counted")


def test_the_cache_says_what_it_holds(tmp_path: Path) -> None:
    prepared = Counting().prepare(tmp_path)
    assert prepared.file == tmp_path / "cache" / "counting-v1.safetensors"
    assert Counting().prepare(tmp_path).raw.source == "counted"
    assert (tmp_path / "reads").read_text() == "read\n"
    header = prepared.file.read_bytes()
    described = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert json.loads(described["about"])["class_names"] == ["a", "b"]
    assert set(json.loads(described["sha256"])) == {"train_images", "train_labels", "test_images", "test_labels"}
    # Others on the machine may read what this user's other files let them read.
    (tmp_path / "plain").touch()
    assert prepared.file.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    file = Counting().prepare(tmp_path).file
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole)
        layouts.damage(file, "flip", at)
        with pytest.raises(RunError, match=re.escape(str(file))) as error:
            Counting().prepare(tmp_path)
        assert "delete it" in layouts.sentence(error)
    file.write_bytes(whole)
    Counting().prepare(tmp_path)


@pytest.mark.parametrize("harm", ["truncate", "empty"])
def test_a_truncated_cache_is_refused_and_can_be_made_again(tmp_path: Path, harm: str) -> None:
    first = Counting().prepare(tmp_path)
    layouts.damage(first.file, harm)
    with pytest.raises(RunError, match="delete it"):
        Counting().load(tmp_path, KEY, 0.0)
    first.file.unlink()
    assert Counting().prepare(tmp_path).digest == first.digest


def test_another_classs_cache_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Counting().prepare(tmp_path)
    renamed = DatasetInfo("counting", ImageShape(1, 2, 2), ("a", "c"), 4, 2)
    monkeypatch.setattr(Counting, "info", property(lambda _self: renamed))
    with pytest.raises(RunError, match="other classes"):
        Counting().prepare(tmp_path)


def test_a_directory_that_cant_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't write") as error:
        Counting().prepare(tmp_path / "file" / "data")
    assert str(tmp_path / "file") in layouts.sentence(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="can't write") as error:
        Counting().prepare(tmp_path)
    layouts.sentence(error)


def test_source_files_that_cant_be_listed_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> Raw:
        raise PermissionError(13, "Permission denied", str(tmp_path / "secret"))

    monkeypatch.setattr(Counting, "read", refuse)
    with pytest.raises(RunError, match="secret") as error:
        Counting().prepare(tmp_path)
    layouts.sentence(error)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
import resource, sys, torch
from pathlib import Path
from suite.storage import sealed
from suite.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    sealed.stored(Path({str(tmp_path)!r}) / "big.safetensors", lambda: ({{"x": torch.zeros(100_000)}}, {{}}))
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "can't write" in done.stdout and done.stdout.count("\n") == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["big.safetensors.lock"]


@pytest.mark.slow
def test_processes_that_start_together_prepare_once(tmp_path: Path) -> None:
    program = f"""
import time, torch
from pathlib import Path
from suite.storage import sealed
root = Path({str(tmp_path)!r})
def build():
    with open(root / "builds", "a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    return {{"x": torch.arange(10)}}, {{}}
(root / f"ready{{time.monotonic_ns()}}").touch()
while len(list(root.glob("ready*"))) < 4:
    time.sleep(0.01)
print(sealed.stored(root / "one.safetensors", build).digest)
"""
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0]
    assert len(set(outputs)) == 1 and outputs[0].strip()
    assert (tmp_path / "builds").read_text() == "built\n"


def test_a_preparation_that_died_is_made_again(tmp_path: Path) -> None:
    program = f"""
import os, torch
from pathlib import Path
from suite.storage import sealed
sealed.sync_file = lambda path: os._exit(9)
sealed.stored(Path({str(tmp_path)!r}) / "one.safetensors", lambda: ({{"x": torch.zeros(9)}}, {{}}))
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert list(tmp_path.glob("*.part")) and not (tmp_path / "one.safetensors").exists()
    found = sealed.stored(tmp_path / "one.safetensors", lambda: ({"x": torch.ones(9)}, {}))
    assert found.tensors["x"].sum() == 9 and not list(tmp_path.glob("*.part"))
