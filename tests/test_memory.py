"""Memories as files: the same bytes twice, every damage noticed, and usable by somebody who has only the file."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, REPOSITORY, command, only_run, sets
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from suite import memory as memory_module
from suite.errors import RunError
from suite.images import preprocess
from suite.keys import Key
from suite.memory import Memory
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.standard import Standard
from suite.registry import describe
from suite.types import ImageShape, Parameterization

SHAPE = ImageShape(3, 8, 8)
NAMES = ("apple", "pear / quince", "plum")


def made(parameterization: Parameterization | None = None, kind: str = "standardize") -> Memory:
    """A memory that nobody trained."""
    how = parameterization or Standard()
    generator = Key(0)("pixels").generator()
    pixels = torch.randint(0, 256, (40, 3, 8, 8), generator=generator).to(torch.uint8)
    transform = preprocess.fit(kind, pixels, 0.1)
    about = {
        "dataset": "fruit",
        "class_names": list(NAMES),
        "shape": [3, 8, 8],
        "preprocessing": transform.describe(),
        "preprocessing_stored": bool(transform.tensors()),
        "parameterization": describe(how),
    }
    return Memory(how.init(SHAPE, 3, 4.0, Key(1)), about, transform)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made().save(tmp_path / "memory.safetensors")
    return tmp_path / "memory.safetensors"


def refusal(file: Path) -> str:
    with pytest.raises(RunError) as error:
        Memory.load(file)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("kind", preprocess.PREPROCESSINGS)
@pytest.mark.parametrize(
    "how",
    [Standard(), Addressing(bases=2), Downsampled(of=Addressing(bases=3), factor=2)],
    ids=["standard", "addressing", "downsampled addressing"],
)
def test_a_memory_comes_back_as_it_was(how: Parameterization, kind: str, tmp_path: Path) -> None:
    before = made(how, kind)
    before.save(tmp_path / "m.safetensors")
    after = Memory.load(tmp_path / "m.safetensors")
    assert set(after.tensors) == set(before.tensors)
    assert all(torch.equal(after.tensors[k], before.tensors[k]) for k in before.tensors)
    assert after.parameterization == how and after.class_names == NAMES and after.shape == SHAPE
    for one, two in ((before.recall(), after.recall()), (before.display(), after.display())):
        assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    images, labels = after.display()
    assert images.min() >= 0 and images.max() <= 1 and labels.tolist() == sorted(labels.tolist())
    assert len(images) == 3 * how.per_class(SHAPE, 3, 4.0)


def test_the_same_memory_gives_the_same_bytes_wherever_it_is_saved(tmp_path: Path) -> None:
    hashes = {made().save(tmp_path / name) for name in ("a.safetensors", "b.safetensors")}
    assert len(hashes) == 1
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    Memory.load(tmp_path / "a.safetensors").save(tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    assert not [p for p in tmp_path.iterdir() if p.suffix != ".safetensors"]


KEPT = sorted((REPOSITORY / "tests" / "kept" / "memories").glob("*.safetensors"))


@pytest.mark.parametrize("file", [f for f in KEPT if not f.name.startswith("preprocessing-")], ids=lambda f: f.stem)
def test_a_memory_of_an_earlier_version_is_saved_as_the_same_bytes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file.stem == "beside":  # its preprocessing was written to a file of its own
        monkeypatch.setattr(memory_module, "EMBEDDED_BYTES", 0)
    Memory.load(file).save(tmp_path / file.name)
    written = list(tmp_path.iterdir())
    assert len(written) == (2 if file.stem == "beside" else 1)
    for path in written:
        assert path.read_bytes() == (file.parent / path.name).read_bytes()


def test_a_run_s_memory_describes_itself(data_dir: Path, tmp_path: Path) -> None:
    done = command(
        *QUICK, *sets("NETWORKS = 1"), *("--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json")
    )
    assert done.status == 0, done.err
    memory = Memory.load(only_run(tmp_path) / "memory.safetensors")
    about, record = memory.about, done.record
    assert about["dataset"] == "digits" and len(about["class_names"]) == 10
    assert about["dataset_digest"] == record["facts"]["dataset_digest"]
    assert about["budget"] == record["budget"] and about["seed"] == 0
    assert sum(v.numel() for v in memory.tensors.values()) == record["budget"]["stored_numbers"]
    assert about["parameterization"] == record["config"]["parameterization"]
    assert about["preprocessing"] == record["facts"]["preprocessing"] and memory.transform is not None
    assert {"architecture", "protocol", "config_hash"} <= set(about)


# ---------------------------------------------------------------- damage


@pytest.mark.slow
def test_every_flipped_bit_is_noticed(file: Path) -> None:
    """Of the header, where names, shapes and the description are, every bit; of the tensors, some."""
    whole = bytearray(file.read_bytes())
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    places = [(i, bit) for i in range(header) for bit in (0, 4)] + [(i, 7) for i in range(header, len(whole), 997)]
    unnoticed = []
    for i, bit in places:
        whole[i] ^= 1 << bit
        file.write_bytes(whole)
        try:
            Memory.load(file)
            unnoticed.append(bytes(whole[max(0, i - 15) : i + 15]))
        except RunError as error:
            assert str(file) in str(error)
        whole[i] ^= 1 << bit
    assert not unnoticed, unnoticed[:5]


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1000, -1])
def test_a_truncated_file_is_refused(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    assert str(file) in refusal(file)


def test_bytes_at_the_end_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    refusal(file)


def test_files_of_other_kinds_are_refused(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    assert "there is no file" in refusal(other)
    save_file({"weight": torch.zeros(3)}, other)
    assert "not a memory" in refusal(other)
    save_file({"weight": torch.zeros(3)}, other, {"format": "pt"})
    assert "not a memory" in refusal(other)
    other.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    refusal(other)
    refusal(tmp_path)


@pytest.mark.parametrize("about", [{"schema": 99}, {}, [], 3, {"schema": 1}])
def test_a_description_that_is_not_ours_is_refused(about: Any, tmp_path: Path) -> None:
    save_file({"memory/images": torch.zeros(3)}, tmp_path / "m.safetensors", {"suite": json.dumps(about)})
    refusal(tmp_path / "m.safetensors")


def test_a_newer_schema_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "SCHEMA", 2)
    words = refusal(file)
    assert "schema 1" in words and "2" in words


def test_a_memory_of_an_unknown_method_can_be_looked_at_and_says_what_is_missing(tmp_path: Path) -> None:
    before = made()
    Memory(before.tensors, before.about | {"parameterization": {"is": "standrd"}}, before.transform).save(
        tmp_path / "m.safetensors"
    )
    after = Memory.load(tmp_path / "m.safetensors")
    with pytest.raises(RunError, match=r"parameterizations.standrd.*did you mean 'standard'"):
        after.recall()


def test_loading_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("sprung").touch, ())

    trap = tmp_path / "trap.safetensors"
    trap.write_bytes(pickle.dumps(Trap()))
    refusal(trap)
    torch.save({"memory/images": Trap()}, trap)
    refusal(trap)
    assert not (tmp_path / "sprung").exists()

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("unpickled")

    made().save(tmp_path / "m.safetensors")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    Memory.load(tmp_path / "m.safetensors").recall()


# ---------------------------------------------------------------- large preprocessing


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A memory whose preprocessing is too large to travel in it, and the file that it lies in."""
    monkeypatch.setattr(memory_module, "EMBEDDED_BYTES", 1000)
    made(kind="zca_image").save(tmp_path / "m.safetensors")
    (beside,) = tmp_path.glob("preprocessing-*.safetensors")
    return tmp_path / "m.safetensors", beside


def test_a_large_preprocessing_lies_beside_the_memory(two: tuple[Path, Path], tmp_path: Path) -> None:
    file, beside = two
    assert beside.stat().st_size > 192 * 192 * 4 > file.stat().st_size
    assert torch.equal(Memory.load(file).display()[0], made(kind="zca_image").display()[0])
    before = beside.read_bytes()
    made(Addressing(bases=2), "zca_image").save(tmp_path / "other.safetensors")
    assert len(list(tmp_path.glob("preprocessing-*"))) == 1 and beside.read_bytes() == before  # shared


def test_without_it_a_memory_can_be_recalled_but_not_shown(two: tuple[Path, Path], tmp_path: Path) -> None:
    file, beside = two
    beside.unlink()
    memory = Memory.load(file)
    assert memory.recall()[0].shape == (12, 3, 8, 8)
    with pytest.raises(RunError, match=beside.name):
        memory.display()
    with pytest.raises(RunError, match=beside.name):
        memory.export(tmp_path / "png")


@pytest.mark.parametrize("damage", ["flip", "cut", "another", "empty"])
def test_a_damaged_preprocessing_is_refused(two: tuple[Path, Path], damage: str) -> None:
    file, beside = two
    whole = bytearray(beside.read_bytes())
    if damage == "flip":
        whole[-1000] ^= 1
    beside.write_bytes({"flip": whole, "cut": whole[:-8], "empty": b"", "another": whole}[damage])
    if damage == "another":
        save_file({"preprocessing/mean": torch.zeros(3)}, beside)
    refusal(file)


# ---------------------------------------------------------------- in other hands


def test_export_is_a_folder_for_each_class(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    memory = made(Addressing(bases=2))
    folder = ImageFolder(str(memory.export(tmp_path / "png")))
    images, labels = memory.display()
    assert [name.split("_", 1)[0] for name in folder.classes] == ["000", "001", "002"]
    assert all("/" not in name and name.split("_", 1)[1][:4] == NAMES[i][:4] for i, name in enumerate(folder.classes))
    assert [label for _, label in folder.samples] == labels.tolist()
    for (picture, _), image in zip(folder, images, strict=True):
        pixels = torch.tensor(list(picture.tobytes()), dtype=torch.float32).view(8, 8, 3).permute(2, 0, 1) / 255
        assert (pixels - image).abs().max() <= 0.51 / 255


@pytest.mark.slow
def test_a_user_s_own_network_learns_from_a_memory(data_dir: Path, tmp_path: Path) -> None:
    """The whole way: distil for a little while, hand the file over, train something else on it."""
    from suite.datasets.digits import Digits

    settings = sets("ITERATIONS = 40", "INNER_STEPS = 20", "REAL_IMAGES = 30", "NETWORKS = 1", "VALIDATION_POINTS = 0")
    rates = sets("inner_optimizers.sgd_momentum.lr = 0.05")
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none"]
    done = command(*QUICK, *sets("architectures.mlp.width = 64"), *settings, *rates, *place)
    assert done.status == 0, done.err
    memory = Memory.load(only_run(tmp_path) / "memory.safetensors")
    loader = DataLoader(memory.dataset(), batch_size=8, shuffle=True, generator=Key(0)("loader").generator())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 48), torch.nn.Tanh())
        network.append(torch.nn.Linear(48, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(40):
        for images, labels in loader:
            optimizer.zero_grad()
            cross_entropy(network(images), labels).backward()
            optimizer.step()
    test = Digits().load(data_dir, Key(0), 0.0).test
    right = (network(test.images).argmax(1) == test.labels).float().mean().item()
    assert right > 0.3, right  # chance is a tenth
