"""Memories as files: the same bytes twice, every damage noticed, and usable by somebody who has only the file."""

import json
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, REPOSITORY, command, only_run, sets
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from suite.architectures.convnet import ConvNet
from suite.errors import RunError, UsageError
from suite.images import preprocess
from suite.keys import Key
from suite.memory import Memory, exporting
from suite.memory import memory as memory_module
from suite.parameterizations import image_queries
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.image_queries import ImageQueries
from suite.parameterizations.standard import Standard
from suite.registry import describe
from suite.storage import memory_file, sealed
from suite.storage.files import json_sha256
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


# ---------------------------------------------------------------- memories that lie, under a right seal


def forged(path: Path, tensors: dict[str, Tensor] | None = None, kind: str = "standardize", **about: Any) -> Path:
    """A memory's file of somebody who knows the format: other tensors and other words under the right seal."""
    honest = made(kind=kind)
    words = honest.about | {"schema": 1} | about
    words = {key: value for key, value in words.items() if value is not LEFT_OUT}
    assert honest.transform is not None
    whole = {"memory/images": honest.tensors["images"]} if tensors is None else tensors
    if not any(name.startswith("preprocessing/") for name in whole):
        whole |= {f"preprocessing/{name}": tensor for name, tensor in honest.transform.tensors().items()}
    words["sha256"] = json_sha256([sealed.digest(whole), {k: v for k, v in words.items() if k != "sha256"}])
    save_file({name: tensor.contiguous() for name, tensor in whole.items()}, path, {"suite": json.dumps(words)})
    return path


LEFT_OUT = object()
IMAGES = torch.zeros(3, 4, 3, 8, 8)


def nested(levels: int) -> Any:
    whole: Any = {"is": "standard"}
    for _ in range(levels):
        whole = {"is": "downsampled", "factor": 1, "of": whole}
    return whole


def with_fitted(**fitted: Tensor) -> dict[str, Any]:
    """Another preprocessing of the same name, under the right hash."""
    described = {"name": "standardize", "sha256": sealed.digest(fitted)}
    tensors = {"memory/images": IMAGES} | {f"preprocessing/{name}": tensor for name, tensor in fitted.items()}
    return {"tensors": tensors, "preprocessing": described}


THREE, SEVEN = torch.ones(3).double(), torch.ones(7).double()
SHAPELESS = {"memory/bases": torch.zeros(0, 3, 8, 8), "memory/matrices": torch.zeros(10**9, 3, 0)}


def images(tensor: Tensor) -> dict[str, Any]:
    return {"tensors": {"memory/images": tensor}}


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": (images(IMAGES.index_fill(1, torch.tensor([2]), torch.nan)), "'memory/images' holds NaN or infinity"),
    "infinity": (images(IMAGES.index_fill(1, torch.tensor([2]), torch.inf)), "holds NaN or infinity"),
    "whole numbers": (images(IMAGES.long()), "of int64"),
    "bytes": (images(IMAGES.to(torch.uint8)), "of uint8"),
    "complex numbers": (images(IMAGES.to(torch.complex64)), "of complex64"),
    "truth values": (images(IMAGES.bool()), "of bool"),
    "eight bits": (images(IMAGES.to(torch.float8_e4m3fn)), "of float8_e4m3fn"),
    "half of the bits": (images(IMAGES.half()), "float16 3x4x3x8x8 in 'images', not float32"),
    "twice the bits": (images(IMAGES.double()), "float64"),
    "transposed": (images(IMAGES.transpose(0, 1)), "4x3x3x8x8 in 'images', not float32 3x4x3x8x8"),
    "flat": (images(IMAGES.flatten()), "float32 2304 in 'images'"),
    "a number": (images(torch.tensor(1.0)), "is no memory of 'standard'"),
    "of another size": (images(torch.zeros(3, 4, 3, 8, 9)), "in 'images'"),
    "empty": (images(torch.zeros(3, 0, 3, 8, 8)), "is no memory of 'standard'"),
    "missing": ({"tensors": {}}, "is no memory of 'standard'"),
    "under another name": ({"tensors": {"memory/image": IMAGES}}, "has a tensor 'image'"),
    "one too many": ({"tensors": {"memory/images": IMAGES, "memory/more": IMAGES.clone()}}, "has a tensor 'more'"),
    "a billion images of nothing": (
        {"tensors": SHAPELESS, "parameterization": {"is": "addressing", "bases": 1}},
        "is no memory of 'addressing'",
    ),
    "another method's": ({"parameterization": {"is": "addressing"}}, "'bases'|no room"),
    "more bases than there are": ({"parameterization": {"is": "addressing", "bases": 10**9}}, "no room"),
    "an extractor without limits": (
        {"parameterization": {"is": "image_queries", "extractor": {"is": "mlp", "width": 10**9}, "bases": 1}},
        "is no memory of 'image_queries'",
    ),
    "labels that are missing": (
        {"parameterization": {"is": "soft_labels", "of": {"is": "standard"}}},
        "no .* 'labels'",
    ),
    "more classes than images": ({"class_names": ["a", "b", "c", "d"]}, "in 'images'"),
    "classes without end": ({"class_names": ["a"] * 100_001}, "'class_names' is wrong: .*at most 100000"),
    "a shape of four": ({"shape": [3, 8, 8, 8]}, "'shape' is wrong"),
    "a shape below nothing": ({"shape": [3, -8, -8]}, "'shape\\[1\\]' is wrong"),
    "a shape of text": ({"shape": "388"}, "'shape' is wrong"),
    "a shape of another size": ({"shape": [3, 8, 16]}, "in 'images'"),
    "class names that are a number": ({"class_names": 7}, "'class_names' is wrong"),
    "class names of numbers": ({"class_names": [1, 2, 3]}, "'class_names\\[0\\]' is wrong"),
    "class names that a terminal obeys": ({"class_names": ["\x1b[2J", "b", "c"]}, "'class_names\\[0\\]' is wrong"),
    "no class": ({"class_names": []}, "'class_names' is wrong"),
    "no preprocessing": ({"preprocessing": None}, "'preprocessing' is wrong"),
    "a preprocessing that is elsewhere": (
        {"preprocessing": {"name": "none", "sha256": "../../../etc"}},
        "'preprocessing.sha256' is wrong",
    ),
    "a preprocessing without a name": (
        {"preprocessing": {"name": ["none"], "sha256": "0" * 64}},
        "'preprocessing.name' is wrong",
    ),
    "no parameterization": ({"parameterization": {}}, "'parameterization.is' is missing"),
    "a parameterization of text": ({"parameterization": "standard"}, "'parameterization' is wrong"),
    "a parameterization called 7": ({"parameterization": {"is": 7}}, "'parameterization.is' is wrong"),
    "one that can't be": ({"parameterization": {"is": "addressing", "bases": "eight"}}, "bases must be a whole number"),
    "one with more settings": (
        {"parameterization": {"is": "standard", "self": 1, "x": 2}},
        "parameterizations.standard",
    ),
    "an inner one called 7": ({"parameterization": {"is": "downsampled", "of": {"is": 7}}}, "called 7"),
    "nested deep": ({"parameterization": nested(300)}, "recursion limit"),
    "nested less deep, of another size": (
        {"parameterization": {"is": "downsampled", "of": nested(90), "factor": 2}},
        "is no memory of 'downsampled'",
    ),
    "a missing key": ({"shape": LEFT_OUT}, "'shape' is missing"),
    "a budget of text": ({"budget": {"stored_numbers": "many"}}, "'budget.stored_numbers' is wrong"),
    "a budget below nothing": (
        {"budget": {"stored_numbers": -1, "images_per_class": 1.0, "recalled_per_class": 1}},
        "'budget.stored_numbers' is wrong",
    ),
    "a configuration that is a number": ({"config": 3}, "'config' is wrong"),
    "the mean of other channels": (
        with_fitted(mean=SEVEN, std=SEVEN.clone()),
        "of other images than 3x8x8",
    ),
    "no mean": (with_fitted(std=THREE), "none of none, standardize"),
    "a mean that is NaN": (with_fitted(mean=THREE * torch.nan, std=THREE), "'preprocessing/mean' holds NaN"),
}


@pytest.mark.parametrize(("lie", "words"), LIES.values(), ids=LIES)
def test_a_memory_that_lies_is_one_sentence_before_anything_is_computed(
    lie: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = forged(tmp_path / "m.safetensors", **lie)
    sentence = refusal(file)
    assert re.search(words, sentence) and len(sentence) < 1000, sentence
    assert sentence.startswith((str(file), "the memory needs", "the preprocessing")) and "\x1b" not in sentence


def test_a_forged_memory_that_tells_the_truth_is_read(tmp_path: Path) -> None:
    assert len(Memory.load(forged(tmp_path / "m.safetensors")).recall()[0]) == 12


@pytest.mark.parametrize(("dimension", "softmax"), [(5, False), (None, False), (5, True)])
def test_a_memory_that_is_asked_with_images_recalls_after_it_was_judged(
    dimension: int | None, softmax: bool, tmp_path: Path
) -> None:
    """Its extractor is judged by networks without numbers, which must not be those that recall."""
    extractor = ConvNet(width=4)
    how = ImageQueries(2, 2, extractor, dimension=dimension, standardized=not softmax, softmax=softmax)
    before = Memory(
        how.init(SHAPE, 3, 4.0, Key(1)), made().about | {"parameterization": describe(how)}, made().transform
    )
    before.save(tmp_path / "m.safetensors")
    image_queries._skeleton.cache_clear()
    image_queries._features.cache_clear()
    after = Memory.load(tmp_path / "m.safetensors")
    asked = torch.linspace(-1, 1, 2 * 192).view(2, 3, 8, 8)
    assert torch.equal(*(m.parameterization.recall(m.tensors, asked) for m in (before, after)))


def test_a_small_memory_of_more_images_than_there_is_room_for_is_not_recalled(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory.load(file)
    monkeypatch.setattr(memory_module, "bytes_of", lambda device: 12 * 192 * 4 - 1)
    with pytest.raises(RunError, match=r"recalling 12 images of 3x8x8 takes .* more than"):
        memory.recall()
    assert memory._repr_png_() is None
    assert "more than the 3,071 that this machine has room for" in refusal(file)


def test_tensors_without_end_are_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_file, "MOST_TENSORS", 3)
    assert "has 4 tensors; a memory has at most 3" in refusal(file)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def endless_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def a_hole_of_a_tebibyte(path: Path) -> None:
    with path.open("wb") as hole:
        hole.truncate(2**40)


@pytest.mark.parametrize("made_at", [a_pipe, a_folder, endless_zeros, a_link_to_itself, a_hole_of_a_tebibyte])
def test_what_is_no_plain_file_is_refused_at_once(made_at: Callable[[Path], None], two: tuple[Path, Path]) -> None:
    file, beside = two
    for place in (beside, file):
        place.unlink()
        made_at(place)
        assert str(place) in refusal(file)


def test_links_to_a_memory_and_to_its_preprocessing_are_followed(two: tuple[Path, Path], tmp_path: Path) -> None:
    """A cache of Hugging Face has nothing else."""
    file, beside = two
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    assert len(Memory.load(link).recall()[0]) == 12
    beside.rename(tmp_path / "elsewhere")
    beside.symlink_to(tmp_path / "elsewhere")
    assert Memory.load(file).transform is not None
    (tmp_path / "elsewhere").write_bytes(b"another")
    assert "elsewhere" in refusal(file) or beside.name in refusal(file)


EVALUATED: dict[str, tuple[dict[str, Any], str]] = {
    "no data set": ({"is": "distillation"}, "'dataset' is missing"),
    "a fraction above one": ({"validation": 7.0}, "'validation' is wrong"),
    "a budget without limits": ({"images_per_class": 1e300}, "'images_per_class' is wrong"),
    "controls that are none": ({"controls": 3}, "'controls' is wrong"),
    "a data set of other images": ({}, "recalls other images or classes than digits has"),
}


@pytest.mark.parametrize(("config", "words"), EVALUATED.values(), ids=EVALUATED)
def test_a_memory_that_says_too_little_or_too_much_is_not_judged(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    whole = {
        "is": "distillation",
        "dataset": {"is": "digits"},
        "architecture": {"is": "mlp"},
        "augmentation": "none",
        "controls": [],
        "validation": 0.1,
        "images_per_class": 4.0,
    }
    said = config if config.keys() == {"is"} else whole | config
    memory = Memory.load(forged(tmp_path / "m.safetensors", config=said, seed=0, dataset_digest="0"))
    with pytest.raises(RunError, match=words):
        memory.evaluate(progress=False, device="cpu", data_dir=tmp_path)


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


@pytest.mark.parametrize("classes", [10, 1000, 1001, 10_001])
def test_folders_of_an_export_sort_as_the_classes_do(classes: int) -> None:
    folders = exporting.class_folders([f"class {c}" for c in range(classes)])
    assert folders == sorted(folders) and len(set(folders)) == classes
    assert folders[7] == ("007_class_7" if classes <= 1000 else f"{7:0{len(str(classes - 1))}}_class_7")


@pytest.mark.parametrize("name", ["x" * 300, "ü" * 200, "漢" * 90, "/" * 256, "", ".."])
def test_names_of_any_length_make_folders_that_a_disk_takes(name: str, tmp_path: Path) -> None:
    folders = exporting.class_folders([name, name])
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert len(list(tmp_path.iterdir())) == 2


def test_an_export_beside_another_is_refused(tmp_path: Path) -> None:
    made().export(tmp_path / "png")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="is not empty, and an export needs a folder of its own"):
        made(Addressing(bases=2)).export(tmp_path / "png")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="can't write"):
        made().export(tmp_path / "file")


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
