"""The cache of a data set: made once, verified whenever it is opened, and never half there."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published_layouts as layouts
import pytest
import torch

from suite.datasets import identity
from suite.datasets.base import ImageDataset, Raw
from suite.datasets.digits import Digits
from suite.errors import RunError, UsageError
from suite.keys import Key
from suite.storage import locks, sealed
from suite.storage.locks import locked
from suite.storage.source_code import code_of
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
    assert re.fullmatch(r"counting-v1-[0-9a-f]{16}\.safetensors", prepared.file.name)
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


def test_another_sets_cache_is_not_taken(tmp_path: Path) -> None:
    wrong, right = Counting().prepare(tmp_path / "a").file, Counting(preprocessing="none").prepare(tmp_path / "b").file
    wrong.replace(right)
    with pytest.raises(RunError, match="another data set") as error:
        Counting(preprocessing="none").prepare(tmp_path / "b")
    layouts.sentence(error)


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


# ---------------------------------------------------------------- what a cache is found by


@dataclasses.dataclass(frozen=True)
class Painted(ImageDataset):
    """Two classes of one colour, from the settings and from files of the user."""

    colour: int = 0
    size: int = 4
    side: int = 2
    classes: int = 2
    name: str = "painted"
    folder: str | Path | None = None
    parts: tuple[str, ...] = ()
    nested: ImageDataset | None = None

    @property
    def info(self) -> DatasetInfo:
        names = tuple(f"class {c}" for c in range(self.classes))
        return DatasetInfo(self.name, ImageShape(1, self.side, self.side), names, self.size, 2)

    def read(self, root: Path, download: bool) -> Raw:
        places = [root / str(place) for place in (*self.parts, self.folder) if place is not None]
        files = [f for place in places for f in (sorted(place.rglob("*")) if place.is_dir() else [place])]
        colour = (
            self.colour + getattr(self.nested, "colour", 0) + sum(sum(f.read_bytes()) for f in files if not f.is_dir())
        )
        images = torch.full((self.size + 2, 1, self.side, self.side), colour % 256, dtype=torch.uint8)
        labels = torch.arange(self.size + 2) % self.classes
        return Raw(images[2:], labels[2:], images[:2], labels[:2], "painted")


def colour(dataset: ImageDataset, data_dir: Path) -> int:
    return int(dataset.prepare(data_dir).raw.train_images[0, 0, 0, 0])


@pytest.mark.parametrize(
    "settings",
    [
        {"colour": 9},
        {"size": 6},
        {"side": 3},
        {"classes": 1},
        {"name": "../../out/of/the/cache"},
        {"name": "x" * 999},
        {"nested": Painted(colour=9)},
        {"preprocessing": "none"},  # a reader from outside may look at every setting
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_other_settings_have_another_cache(settings: dict[str, Any], tmp_path: Path) -> None:
    first, other = Painted().prepare(tmp_path), Painted(**settings).prepare(tmp_path)
    assert first.file != other.file and first.file.parent == other.file.parent
    alone = Painted(**settings).prepare(tmp_path / "alone")
    assert alone.digest == other.digest and Painted().prepare(tmp_path).digest == first.digest
    assert list(tmp_path.glob("**/out")) == []


def test_what_is_done_after_reading_does_not_read_a_set_of_the_suite_again(data_dir: Path) -> None:
    whitened = Digits(preprocessing="zca_image", zca_regularization=3.0, augmentation="flip_rotate")
    assert Digits().prepare(data_dir).file == whitened.prepare(data_dir).file


def change(file: Path) -> None:
    file.write_bytes(b"\x07")


def restore_the_time(file: Path) -> None:
    """Another content of the same size and time."""
    before = file.stat()
    change(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "edit",
    [
        change,
        restore_the_time,
        lambda file: file.rename(file.with_name("0")) and file.with_name("1").write_bytes(b"\x05"),
        lambda file: (file.parent / "another").write_bytes(b"\x05"),
        lambda file: (file.parent / "deeper").mkdir() or (file.parent / "deeper" / "one").write_bytes(b"\x05"),
        lambda file: (file.parent.parent / "far").write_bytes(b"\x05") and (file.parent / "z").symlink_to("../far"),
    ],
    ids=["content", "content, not its time", "name", "a file more", "a folder more", "a link more"],
)
@pytest.mark.parametrize("form", ["in the data directory", "anywhere", "a path", "among others"])
def test_a_changed_file_of_the_user_is_read_again(form: str, edit: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "1").write_bytes(b"\x03")
    (folder / "back").symlink_to(folder)  # leads in a circle
    dataset = {
        "in the data directory": Painted(folder="mine"),
        "anywhere": Painted(folder=str(folder)),
        "a path": Painted(folder=folder),
        "among others": Painted(parts=("mine",)),
    }[form]
    assert colour(dataset, tmp_path) == 3 and len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    assert colour(dataset, tmp_path) == 3 and len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    edit(folder / "1")
    expected = colour(dataset, tmp_path)
    assert expected != 3 and len(list((tmp_path / "cache").glob("*.safetensors"))) == 2


def test_a_file_that_is_gone_is_missed(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"\x03")
    assert colour(Painted(folder="one"), tmp_path) == 3
    (tmp_path / "one").unlink()
    with pytest.raises(RunError, match="can't be read") as error:
        colour(Painted(folder="one"), tmp_path)
    layouts.sentence(error)


def test_a_pipe_among_the_files_of_the_user_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    os.mkfifo(tmp_path / "mine" / "pipe")
    with pytest.raises(RunError, match="a pipe") as error:
        colour(Painted(folder="mine"), tmp_path)
    layouts.sentence(error)


def test_files_that_change_while_they_are_read_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_bytes(b"\x03")
    read = Painted.read

    def slow(self: Painted, root: Path, download: bool) -> Raw:
        raw = read(self, root, download)
        (tmp_path / "one").write_bytes(b"\x04")
        return raw

    monkeypatch.setattr(Painted, "read", slow)
    with pytest.raises(RunError, match="changed while they were read") as error:
        colour(Painted(folder="one"), tmp_path)
    layouts.sentence(error)
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_a_setting_that_can_not_be_written_down_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be written down") as error:
        Painted(nested=object()).prepare(tmp_path)  # type: ignore[arg-type]
    layouts.sentence(error)


@pytest.mark.parametrize(
    "text",
    ["/", ".", "..", "~", "/tmp", "/.", "//", "beside", "inside/..", "./", "../data", "cache", "", "\0", "x" * 9999],
)
def test_a_text_that_is_no_path_stands_for_no_file(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    for folder in (home, data / "inside", data / "cache", home / "beside"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    assert Painted(folder=text).files(data) == [] == Painted(parts=(text, text)).files(data)


@pytest.mark.parametrize("field", ["mine", Path("mine"), "~/mine", "{}/mine", Path("here"), Path("mine/../mine")])
def test_a_path_stands_for_one_file(field: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "work/here"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "work")
    field = field.format(tmp_path) if isinstance(field, str) else field
    (found,) = Painted(folder=field, parts=(str(field),) if field != Path("here") else ()).files(tmp_path)
    assert found.resolve() in (tmp_path / "mine", tmp_path / "work" / "here")


@pytest.mark.parametrize("target", ["nowhere", "1/below a file", "mine/nowhere"])
def test_a_link_that_leads_nowhere_hides_no_other_file(target: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "1").write_bytes(b"\x03")
    (tmp_path / "mine" / "link").symlink_to(target)

    def hashed() -> Any:
        return identity._contents(tmp_path / "mine", tmp_path / "cache")

    before = hashed()
    assert before["link"] is None and before["1"]
    (tmp_path / "mine" / "1").write_bytes(b"\x04")
    assert hashed()["1"] != before["1"]


def test_a_link_to_itself_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link").symlink_to("link")
    with pytest.raises(RunError, match="can't be read") as error:
        colour(Painted(folder="mine"), tmp_path)
    assert "link" in layouts.sentence(error)


@pytest.mark.parametrize("closed", ["mine", "mine/deeper"])
def test_a_closed_folder_is_one_sentence(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "deeper").mkdir(parents=True)
    listed = os.scandir

    def refuse(folder: Any) -> Any:
        if Path(folder) == tmp_path / closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # root may look anywhere
    with pytest.raises(RunError, match="can't be read") as error:
        identity._contents(tmp_path / "mine", tmp_path / "cache")
    assert str(tmp_path / closed) in layouts.sentence(error)


def test_a_folder_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    for name in "123":
        (tmp_path / "mine" / name).write_bytes(b"\x03")
    read: list[str] = []
    said: list[str] = []
    hashed = identity._sha256
    monkeypatch.setattr(identity, "_sha256", lambda file: read.append(file.name) or hashed(file))
    monkeypatch.setattr(identity, "report", said.append)
    monkeypatch.setattr(identity, "MANY", 2)

    def contents() -> Any:
        return identity._contents(tmp_path / "mine", tmp_path / "cache")

    first = contents()
    assert contents() == first and read == [*"123"] * 2  # written just now: its time might not tell of another change
    monkeypatch.setattr(identity, "SETTLED", -9999.0)
    assert contents() == contents() == first and read == [*"123"] * 3
    assert said == [f"[data] reading 3 files of {tmp_path / 'mine'} to see whether they changed"] * 3
    (tmp_path / "mine" / "2").write_bytes(b"\x04\x04")
    assert contents() != first and read == [*"123"] * 4


PLUGIN = """
from dataclasses import dataclass
import torch
from suite.datasets.base import ImageDataset, Raw
from suite.types import DatasetInfo, ImageShape
{imports}

@dataclass(frozen=True)
class Edited({parent}):
    @property
    def info(self):
        return DatasetInfo("edited", ImageShape(1, 2, 2), ("a", "b"), 4, 2)

    def read(self, root, download):
        {first}
        images = torch.full((6, 1, 2, 2), {colour}, dtype=torch.uint8)
        labels = torch.arange(6) % 2
        return Raw(images[2:], labels[2:], images[:2], labels[:2], "an edited reader")
"""

HELPERS = {
    "": ("", "ImageDataset", "", "{}"),
    "COLOUR = {}": ("from shades import COLOUR", "ImageDataset", "", "COLOUR"),
    "COLOUR = {} ": ("import shades", "ImageDataset", "", "shades.COLOUR"),
    "COLOUR = {}  ": ("", "ImageDataset", "from shades import COLOUR", "COLOUR"),  # where only a reading meets it
    "from suite.datasets.base import ImageDataset\nclass Parent(ImageDataset):\n    colour = {}": (
        "import shades",
        "shades.Parent",
        "",
        "self.colour",
    ),
}
"""What lies beside a plugin, and how the plugin uses it."""


@pytest.mark.parametrize("helper", HELPERS, ids=["itself", "a name", "a module", "late", "a parent"])
def test_an_edited_reader_reads_again(helper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imports, parent, first, used = HELPERS[helper]
    (tmp_path / "code").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("shades", "edited"):
        monkeypatch.setitem(sys.modules, name, None)  # gone after this test
    found = []
    for shade in (3, 5, 3):
        (tmp_path / "code" / "shades.py").write_text(helper.format(shade))
        (tmp_path / "code" / "edited.py").write_text(
            PLUGIN.format(imports=imports, parent=parent, first=first or "pass", colour=used.format(shade))
        )
        for name in ("shades", "edited"):  # as in a process of its own
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        found.append(colour(importlib.import_module("edited").Edited(), tmp_path / "data"))
    assert found == [3, 5, 3] and len(list((tmp_path / "data" / "cache").glob("*.safetensors"))) == 2


BESIDE = {
    "a package": ("import boom.sub", "raise SystemExit('imported')"),
    "a part of one": ("from boom.sub import x", "raise SystemExit('imported')"),
    "no Python": ("import boom", "this is = no Python"),
    "a zero byte": ("import boom", "\0"),
    "too deep": ("import boom", "(" * 9999),
}
"""What a plugin imports where only a reading meets it, and what lies there."""


@pytest.mark.parametrize("what", BESIDE)
def test_what_a_reader_imports_is_looked_at_and_not_run(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, content = BESIDE[what]
    (tmp_path / "code" / "boom").mkdir(parents=True)
    (tmp_path / "code" / "boom" / "__init__.py").write_text(content)
    (tmp_path / "code" / "boom" / "sub.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = PLUGIN.format(imports="", parent="ImageDataset", first=f"if False: {first}", colour=3)
    (tmp_path / "code" / "beside.py").write_text(text)
    monkeypatch.setitem(sys.modules, "beside", None)  # gone after this test

    def found() -> list[str]:
        sys.modules.pop("beside", None)
        importlib.invalidate_caches()
        return code_of(importlib.import_module("beside").Edited, identity.OF_ALL)

    before = found()
    assert len(before) == 2 and "boom" not in sys.modules
    (tmp_path / "code" / "boom" / ("sub.py" if "sub" in first else "__init__.py")).write_text("edited = 1")
    assert len(set(before) & set(found())) == 1


@pytest.mark.parametrize("module", ["__main__", "typed_in", "typed.deeper"])
def test_what_was_typed_in_is_read_at_each_call(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed_in = types.ModuleType(module)
    monkeypatch.setitem(sys.modules, module, typed_in)
    exec(PLUGIN.format(imports="COLOUR = 3", parent="ImageDataset", first="pass", colour="COLOUR"), vars(typed_in))
    assert colour(typed_in.Edited(), tmp_path) == 3
    exec("COLOUR = 5", vars(typed_in))
    assert colour(typed_in.Edited(), tmp_path) == 5 and not (tmp_path / "cache").exists()
    child = type("Child", (typed_in.Edited,), {"__module__": __name__})  # in a file, of a parent that is in none
    assert child().prepare(tmp_path).file is None


def test_a_cache_under_its_old_name_is_not_looked_at(tmp_path: Path) -> None:
    """Until now a file was found by its name alone."""
    file = Painted(colour=9).prepare(tmp_path).file
    file.rename(file.with_name("painted-v1.safetensors"))
    assert colour(Painted(), tmp_path) == 0


# ---------------------------------------------------------------- what is in a cache's place


def test_a_pipe_in_the_place_of_a_cache_is_not_waited_for(tmp_path: Path) -> None:
    file = Counting().prepare(tmp_path).file
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(RunError, match="a pipe") as error:
        Counting().prepare(tmp_path)
    layouts.sentence(error)


def test_what_another_process_left_half_written_is_replaced_whatever_it_is(tmp_path: Path) -> None:
    file = Counting().prepare(tmp_path).file
    file.unlink()
    os.mkfifo(file.with_name(file.name + ".part"))
    assert Counting().prepare(tmp_path).file == file


def test_who_is_waited_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.0)
    file = tmp_path / "one.safetensors"
    waits = threading.Thread(target=sealed.stored, args=(file, lambda: ({"x": torch.ones(1)}, {})))
    said: list[str] = []
    monkeypatch.setattr(locks, "report", lambda line: said.append(line) or told.set())
    told = threading.Event()
    with locked(tmp_path / "one.safetensors.lock"):
        waits.start()
        assert told.wait(60)
        assert not file.exists()
    waits.join()
    assert file.exists() and len(said) == 1
    holder = f"process {os.getpid()}" if Path("/proc/locks").exists() else "another process"
    assert f"[waiting] {holder} holds {tmp_path / 'one.safetensors.lock'}" in said[0]
