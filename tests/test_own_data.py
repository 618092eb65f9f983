"""Images of one's own: folders of pictures, arrays, the Hugging Face library and torch's data sets."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command, sets
from PIL import Image

import suite
from suite.datasets import hugging_face
from suite.datasets.arrays import Arrays
from suite.datasets.hugging_face import HuggingFace
from suite.datasets.image_folder import ImageFolder
from suite.errors import RunError, SuiteError, UsageError
from suite.keys import Key

CLASSES = ("cats", "dogs", "eels")


def picture(label: int, row: int, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Image.Image:
    """Noise around a brightness that tells the class, as (width, height)."""
    noise = np.random.default_rng([label, row]).integers(0, 60, (size[1], size[0], 3))
    return Image.fromarray((noise + 90 * label).clip(0, 255).astype(np.uint8)).convert(mode)


def photos(folder: Path, per_class: int = 5) -> Path:
    for label, name in enumerate(CLASSES):
        (folder / name / "deeper").mkdir(parents=True)
        for row in range(per_class):
            below = "deeper" if row == 1 else "."
            picture(label, row).save(folder / name / below / f"{row}.png")
    return folder


# ---------------------------------------------------------------- folders


def test_a_folder_of_pictures_is_a_data_set(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine")
    dataset = ImageFolder(folder=str(folder), height=16, resize="crop")
    info = dataset.info
    assert (info.name, info.class_names, info.train_size, info.test_size) == ("mine (folder)", CLASSES, 12, 3)
    data = dataset.load(tmp_path, Key(0), validation=0.25)
    assert [len(data.train), len(data.validation), len(data.test)] == [9, 3, 3]
    assert torch.bincount(data.test.labels).tolist() == [1, 1, 1]
    # The middle 16 of 20 columns, as they are: no scaling.
    raw = dataset.prepare(tmp_path).raw
    images = torch.cat([raw.train_images, raw.test_images])
    expected = torch.from_numpy(np.array(picture(0, 0))).permute(2, 0, 1)[:, :, 2:18]
    assert any(bool((image == expected).all()) for image in images)


def test_the_folders_train_and_test_are_the_split(tmp_path: Path) -> None:
    photos(tmp_path / "mine" / "train", 4)
    photos(tmp_path / "mine" / "val", 2)
    dataset = ImageFolder(folder=str(tmp_path / "mine"), height=16)
    assert (dataset.info.train_size, dataset.info.test_size) == (12, 6)
    photos(tmp_path / "mine" / "test", 1)
    assert dataset.info.test_size == 3
    (tmp_path / "mine" / "test" / "frogs").mkdir()
    with pytest.raises(UsageError, match="has the class 'frogs', of which"):
        _ = dataset.info


def test_a_changed_folder_is_read_anew(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine")
    dataset = ImageFolder(folder=str(folder), height=16)
    before = dataset.prepare(tmp_path)
    assert dataset.prepare(tmp_path).file == before.file
    (folder / "cats" / "0.png").unlink()
    assert len(dataset.prepare(tmp_path).raw.train_labels) == len(before.raw.train_labels) - 1
    shutil.move(folder, tmp_path / "moved")
    with pytest.raises(UsageError, match="there is no folder"):
        dataset.prepare(tmp_path)


@pytest.mark.parametrize(
    ("resize", "height", "expected"),
    [("stretch", 8, (8, 8)), ("crop", 8, (8, 8)), ("crop", 40, (40, 40)), ("none", 16, None)],
)
def test_pictures_come_to_the_size(tmp_path: Path, resize: Any, height: int, expected: tuple[int, int] | None) -> None:
    dataset = ImageFolder(folder=str(photos(tmp_path / "mine")), height=height, resize=resize)
    if expected is None:
        with pytest.raises(RunError, match=r"15 of 15 pictures|pictures can't be read: .*has 16x20 pixels, not 16x16"):
            dataset.prepare(tmp_path)
        return
    assert tuple(dataset.prepare(tmp_path).raw.train_images.shape[2:]) == expected


def test_a_crop_keeps_proportions_and_a_stretch_does_not(tmp_path: Path) -> None:
    """Of a picture twice as wide as high with a white middle half, a crop shows white alone."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 8:24] = 255
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for row in range(2):
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{row}.png")
    means = {
        resize: ImageFolder(folder=str(tmp_path / "mine"), height=8, resize=resize, test_share=0.5)
        .prepare(tmp_path).raw.train_images.float().mean().item()
        for resize in ("crop", "stretch")
    }  # fmt: skip
    assert means["crop"] > 245 and 100 < means["stretch"] < 155


@pytest.mark.parametrize(("width", "height"), [(29, 28), (58, 28), (225, 224), (123, 7)])
def test_a_crop_stays_within_the_picture_whatever_rounding_does(tmp_path: Path, width: int, height: int) -> None:
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for row in range(2):
            Image.new("RGB", (width, height + 5)).save(tmp_path / "mine" / name / f"{row}.png")
            Image.new("RGB", (height + 5, width)).save(tmp_path / "mine" / name / f"turned{row}.png")
    ImageFolder(folder=str(tmp_path / "mine"), height=height).prepare(tmp_path)


def test_hidden_folders_are_none_and_a_train_folder_alone_is_no_class(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine")
    before = ImageFolder(folder=str(folder), height=16).info
    shutil.copytree(folder / "cats" / "deeper", folder / "cats" / ".ipynb_checkpoints")
    (folder / "dogs" / "link").symlink_to(folder)  # which would never end
    assert ImageFolder(folder=str(folder), height=16).info.train_size >= before.train_size
    (folder / "dogs" / "link").unlink()
    assert ImageFolder(folder=str(folder), height=16).info == before
    for name in ("train", "held out"):
        photos(tmp_path / "split" / name, 2)
    with pytest.raises(UsageError, match=r"and no folder with test images: name it test,"):
        _ = ImageFolder(folder=str(tmp_path / "split"), height=16).info
    (tmp_path / "split" / "held out").rename(tmp_path / "split" / "Valid")
    assert ImageFolder(folder=str(tmp_path / "split"), height=16).info.test_size == 6


MODES = ["L", "P", "RGBA", "CMYK", "1", "LA"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_every_kind_come_to_grey_and_to_colour(tmp_path: Path, mode: str, channels: Any) -> None:
    for label, name in enumerate(CLASSES):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for row in range(2):
            ending = "tif" if mode == "CMYK" else "png"
            picture(label, row, mode="RGB").convert(mode).save(tmp_path / "mine" / name / f"{row}.{ending}")
    raw = ImageFolder(folder=str(tmp_path / "mine"), height=16, channels=channels, test_share=0.5).prepare(tmp_path).raw
    assert raw.train_images.shape == (3, channels, 16, 16)
    brightness = raw.train_images.float().mean((1, 2, 3))
    assert bool((brightness.diff() > 0).all())


def test_sixteen_bits_are_cut_to_eight_and_a_held_camera_is_turned(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for row in range(2):
            Image.fromarray(np.full((4, 4), 0xAB12, np.uint16)).save(tmp_path / "mine" / name / f"{row}.png")
    raw = ImageFolder(folder=str(tmp_path / "mine"), height=4, channels=1, test_share=0.5).prepare(tmp_path).raw
    assert raw.train_images.unique().tolist() == [0xAB]
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 255  # the top row is white; held by its side, it is the right column
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        for row in range(2):
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{row}.png", exif=exif)
    raw = ImageFolder(folder=str(tmp_path / "mine"), height=4, channels=1, test_share=0.5).prepare(tmp_path).raw
    assert raw.train_images[0, 0, 0].tolist() == [0, 0, 0, 255]


def test_broken_pictures_are_named_together(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine")
    whole = (folder / "cats" / "0.png").read_bytes()
    (folder / "cats" / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dogs" / "0.png").write_bytes(b"")
    (folder / "dogs" / "2.png").write_bytes(b"GIF89a" + bytes(20))
    (folder / "eels" / "notes.txt").write_text("no picture")
    (folder / "eels" / ".DS_Store").write_text("hidden")
    with pytest.raises(RunError, match=r"3 of 15 pictures can't be read: .*mend or remove them") as caught:
        ImageFolder(folder=str(folder), height=16).prepare(tmp_path)
    assert all(name in str(caught.value) for name in ("cats/0.png", "dogs/0.png", "dogs/2.png"))


def test_a_picture_of_a_billion_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mine")
    huge = bytearray((folder / "cats" / "0.png").read_bytes())
    huge[16:24] = (40_000).to_bytes(4, "big") + (30_000).to_bytes(4, "big")
    import zlib

    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    (folder / "cats" / "0.png").write_bytes(huge)
    with pytest.raises(RunError, match=r"1 of 15 pictures can't be read: .*0\.png .*(1200000000 pixels|30,000x40,000)"):
        ImageFolder(folder=str(folder), height=16).prepare(tmp_path)


def with_a_fifo(folder: Path) -> None:
    import os

    photos(folder)
    os.mkfifo(folder / "cats" / "pipe.png")


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (lambda folder: None, {"folder": ""}, "say where the pictures are"),
        (lambda folder: None, {}, "there is no folder"),
        (lambda folder: folder.mkdir(), {}, "has 0 folders, and each class needs one"),
        (lambda folder: (folder / "only").mkdir(parents=True), {}, "has 1 folders"),
        (lambda folder: photos(folder, 1), {}, "leaves no picture for a test"),
        (lambda folder: photos(folder), {"test_share": 0.0}, "leaves no picture for a test"),
        (with_a_fifo, {}, "pipe.png"),
    ],
)
def test_a_folder_that_is_none_is_a_sentence(tmp_path: Path, make: Any, settings: dict[str, Any], words: str) -> None:
    make(tmp_path / "mine")
    with pytest.raises(SuiteError, match=words):
        ImageFolder(**({"folder": str(tmp_path / "mine"), "height": 16} | settings)).prepare(tmp_path)


# ---------------------------------------------------------------- from a folder to a memory and a page


@pytest.mark.slow
def test_scikit_learns_photographs_from_folder_to_memory_and_page(tmp_path: Path) -> None:
    """Two classes of tiles of its two photographs, as a new user would bring them."""
    import sklearn.datasets

    for name in ("china", "flower"):
        photograph = Image.fromarray(sklearn.datasets.load_sample_image(f"{name}.jpg"))
        (tmp_path / "photos" / name).mkdir(parents=True)
        for row in range(0, 400, 50):
            for column in range(0, 600, 100):
                tile = photograph.crop((column, row, column + 60, row + 50))
                tile.save(tmp_path / "photos" / name / f"{row}-{column}.jpg")
    arguments = [
        *("--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin", "--data-dir", tmp_path / "data"),
        *("--out", tmp_path / "runs", "--tracking-uri", "none"),
        *sets("DATASET = @datasets.image_folder()", f"datasets.image_folder.folder = '{tmp_path / 'photos'}'"),
        *sets("datasets.image_folder.height = 16", "WIDTH = 8", "EPOCHS = 30", "ITERATIONS = 5", "INNER_STEPS = 5"),
        *sets("PARAMETERIZATION = @parameterizations.standard()", "REAL_IMAGES = 8", "IMAGES_PER_CLASS = 2"),
    ]
    planned = command(*arguments, "--dry-run")
    assert planned.status == 0 and "photos (folder), 3x16x16, 2 classes, 76 training images" in planned.out
    done = command(*arguments)
    assert done.status == 0, done.err
    (record,) = (tmp_path / "runs").rglob("result.json")
    measured = json.loads(record.read_text())
    assert measured["facts"]["dataset"] == "photos (folder)"
    memory = suite.load(next((tmp_path / "runs").rglob("memory.safetensors")))
    assert memory.class_names == ("china", "flower")
    from leaderboard import build

    assert build.main(["--records", str(tmp_path / "runs"), "--out", str(tmp_path / "site")]) == 0
    assert any("photos (folder)" in page.read_text() for page in (tmp_path / "site").rglob("*.html"))


# ---------------------------------------------------------------- arrays


def arrays(images_shape: tuple[int, ...] = (8, 8), count: int = 6) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    parts = {}
    for part in ("train", "test"):
        parts[f"{part}_images"] = draws.integers(0, 256, (count, *images_shape), dtype=np.uint8)
        parts[f"{part}_labels"] = np.arange(count) % 3
    return parts


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 9), "1x8x9"), ((8, 9, 1), "1x8x9"), ((8, 9, 3), "3x8x9"), ((3, 8, 9), "3x8x9"), ((1, 8, 9), "1x8x9")],
)
def test_arrays_of_every_layout_are_a_data_set(tmp_path: Path, shape: tuple[int, ...], expected: str) -> None:
    parts = arrays(shape)
    np.savez_compressed(tmp_path / "mine.npz", **parts)
    (tmp_path / "folder").mkdir()
    keras = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
    for name, array in parts.items():
        np.save(tmp_path / "folder" / f"{keras[name]}.npy", np.asfortranarray(array))
    found = [Arrays(file=str(tmp_path / name)) for name in ("mine.npz", "folder")]
    assert [str(one.info.shape) for one in found] == [expected] * 2
    one, other = (dataset.prepare(tmp_path).raw for dataset in found)
    assert one.train_images.equal(other.train_images) and one.test_labels.equal(other.test_labels)
    image = parts["train_images"][2].reshape(shape if len(shape) == 3 else (*shape, 1))
    image = image if image.shape[0] in (1, 3) else image.transpose(2, 0, 1)
    assert one.train_images[2].numpy().tolist() == image.tolist()


def test_labels_may_be_a_column_and_class_names_are_kept(tmp_path: Path) -> None:
    parts = arrays()
    parts["train_labels"] = parts["train_labels"][:, None].astype(np.uint8)
    parts["test_labels"] = parts["test_labels"].astype(np.float64)
    np.savez(tmp_path / "mine.npz", **parts)
    info = Arrays(file=str(tmp_path / "mine.npz"), class_names=CLASSES).info
    assert info.class_names == CLASSES and info.name == "mine (arrays)"
    with pytest.raises(UsageError, match=r"class_names has 2 names, and the labels of .* go up to 2"):
        _ = Arrays(file=str(tmp_path / "mine.npz"), class_names=("a", "b")).info


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_images": np.zeros((6, 8, 8))}, r"float64 from 0 to 0, and must be uint8"),
        ({"train_images": np.zeros((6, 8, 8, 5), np.uint8)}, "no axis of 1 or 3 is the channels"),
        ({"train_images": np.zeros((6, 3, 8, 3), np.uint8)}, "either axis could be the channels"),
        ({"train_images": np.zeros((6, 8), np.uint8)}, "no axis of 1 or 3"),
        ({"train_images": np.array([{}] * 6, dtype=object)}, "holds Python objects"),
        ({"train_labels": np.array(list("abcabc"))}, "must be whole numbers from 0"),
        ({"train_labels": np.array([0.5] * 6)}, "must be whole numbers from 0"),
        ({"train_labels": np.array([-1, 0, 1, 0, 1, 2])}, "must be whole numbers from 0"),
        ({"train_labels": np.array([0, 1, 10**9, 0, 1, 2])}, "go up to 1,000,000,000"),
        ({"train_labels": np.array([0, 1, np.inf, 0, 1, 2])}, "must be whole numbers from 0"),
        ({"test_images": np.zeros((6, 9, 8), np.uint8)}, "training images of .* are 1x8x8, and test images are not"),
        ({"test_images": np.zeros((), np.uint8)}, "no axis of 1 or 3"),
        ({"train_images": np.zeros((6, 0, 0), np.uint8)}, "holds no pixels"),
        ({"train_labels": np.zeros((6, 10), np.int64)}, "must be whole numbers from 0"),
        ({"train_labels": np.zeros(5, np.int64)}, "has 6 train_images and 5 train_labels"),
        ({"train_labels": None}, "has no array train_labels or y_train"),
    ],
)
def test_arrays_that_are_no_data_set_are_a_sentence(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    parts = {name: array for name, array in (arrays() | changed).items() if array is not None}
    np.savez(tmp_path / "mine.npz", **parts)
    with pytest.raises(SuiteError, match=words):
        Arrays(file=str(tmp_path / "mine.npz")).prepare(tmp_path)


def test_a_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    for name, array in arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    with (tmp_path / "train_labels.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**15,)})
    with pytest.raises(RunError, match=r"1,000,000,000,000,000 labels"):
        Arrays(file=str(tmp_path)).prepare(tmp_path)
    np.save(tmp_path / "train_labels.npy", arrays()["train_labels"])
    with (tmp_path / "train_images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 8, 8)})
    with pytest.raises(RunError, match=r"ends after 0 of 64,000,000,000 numbers"):
        Arrays(file=str(tmp_path)).prepare(tmp_path)
    for damaged in (b"", b"PK\x03\x04", b"\x93NUMPY"):
        (tmp_path / "mine.npz").write_bytes(damaged)
        with pytest.raises(RunError, match="can't be read"):
            Arrays(file=str(tmp_path / "mine.npz")).prepare(tmp_path)


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its library with a cache of its own, which reaches for no network."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hugging_face, "_loaded", hugging_face._loaded.__wrapped__)
    return library


def test_a_folder_of_parquet_is_read_as_hugging_face_reads_it(tmp_path: Path, offline: Any) -> None:
    features = offline.Features({"img": offline.Image(), "kind": offline.ClassLabel(names=list(CLASSES))})
    for split, count in (("train", 9), ("test", 3)):
        rows = {"img": [picture(row % 3, row) for row in range(count)], "kind": [row % 3 for row in range(count)]}
        table = offline.Dataset.from_dict(rows, features=features)
        (tmp_path / "mine" / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(tmp_path / "mine" / "data" / f"{split}-00000-of-00001.parquet")
    dataset = HuggingFace(name=str(tmp_path / "mine"), image="img", label="kind", height=16)
    info = dataset.info
    assert (info.name, info.class_names, info.train_size, info.test_size) == ("mine (hugging face)", CLASSES, 9, 3)
    raw = dataset.prepare(tmp_path).raw
    assert raw.train_labels.tolist() == [0, 1, 2] * 3
    assert raw.train_images[4].equal(torch.from_numpy(np.array(picture(1, 4))).permute(2, 0, 1)[:, :, 2:18])
    shared = HuggingFace(name=str(tmp_path / "mine"), image="img", label="kind", height=16, test_split=None)
    assert (shared.info.train_size, shared.info.test_size) == (6, 3)
    with pytest.raises(UsageError, match=r"has no column 'label' but img, kind; say which holds the labels"):
        _ = HuggingFace(name=str(tmp_path / "mine"), image="img").info
    with pytest.raises(UsageError, match="does not hold class numbers"):
        _ = HuggingFace(name=str(tmp_path / "mine"), image="kind", label="img").info


def test_an_edited_picture_of_a_local_folder_is_read_anew(tmp_path: Path, offline: Any) -> None:
    for split in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            picture(label, 0).save(tmp_path / "mine" / split / name / "0.png")
    dataset = HuggingFace(name=str(tmp_path / "mine"), height=16)
    before = dataset.prepare(tmp_path)
    for file in (tmp_path / "mine").rglob("*.png"):
        picture(0, 99).save(file)
    after = dataset.prepare(tmp_path)
    assert after.digest != before.digest and len(after.raw.train_images.unique(dim=0)) == 1


def test_what_is_not_here_names_the_command_that_fetches_it(tmp_path: Path, offline: Any) -> None:
    with pytest.raises(RunError, match=r"load_dataset\('nobody/nothing', split='train'\)"):
        _ = HuggingFace(name="nobody/nothing").info
    with pytest.raises(UsageError, match="name a data set"):
        _ = HuggingFace().info


def test_without_the_package_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr(hugging_face, "_loaded", hugging_face._loaded.__wrapped__)
    with pytest.raises(RunError, match=r"pip install 'addressable-memory-suite\[huggingface\]'"):
        _ = HuggingFace(name="cifar10").info


# ---------------------------------------------------------------- torch


class Pairs(torch.utils.data.Dataset[Any]):
    classes = CLASSES

    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> Any:
        return self.make(picture(row % 3, row)), row % 3


def as_bytes(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("make", [lambda image: image, as_bytes, lambda image: as_bytes(image) / 255])
def test_torchs_data_sets_are_written_as_arrays(tmp_path: Path, make: Any) -> None:
    dataset = suite.from_torch(Pairs(make), Pairs(make), tmp_path / "mine.npz", height=16)
    assert dataset.info.class_names == CLASSES
    raw = dataset.prepare(tmp_path).raw
    assert raw.train_images[4].equal(as_bytes(picture(1, 4))[:, :, 2:18]) and raw.test_labels.tolist() == [0, 1, 2] * 2
    again = suite.from_torch(Pairs(make), Pairs(make), tmp_path / "mine.npz", height=16)
    assert again == dataset
    with pytest.raises(UsageError, match="is there, and holds other images"):
        suite.from_torch(Pairs(make), Pairs(make), tmp_path / "mine.npz", height=8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda image: (as_bytes(image).float() - 128) / 50, r"6 of 6 pictures .*before any normalisation"),
        (lambda image: as_bytes(image).long(), "must be uint8 of shape"),
        (lambda image: as_bytes(image)[0], "must be uint8 of shape"),
    ],
)
def test_numbers_that_are_no_pixels_are_refused(tmp_path: Path, make: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        suite.from_torch(Pairs(make), Pairs(make), tmp_path / "mine.npz", height=16)
    assert not (tmp_path / "mine.npz").exists()


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"height": 9999, "channels": 3}, "preprocessed, of mine"),
        ({"height": 512, "preprocessing": "zca_image"}, "a whitening matrix for images of 3x512x512 takes"),
    ],
)
def test_images_that_have_no_room_are_refused_in_the_dry_run(
    tmp_path: Path, settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite.core import foretold

    monkeypatch.setattr(foretold, "bytes_of", lambda device: 8 * 2**30)
    folder = photos(tmp_path / "mine")
    named = [f"datasets.image_folder.{name} = {value!r}" for name, value in settings.items()]
    found = command(
        *("--gin", "gin/quickstart.gin", "--dry-run", "--tracking-uri", "none", "--out", tmp_path / "runs"),
        *sets("DATASET = @datasets.image_folder()", f"datasets.image_folder.folder = '{folder}'", *named),
    )
    assert found.status == 2 and words in found.err, found.err
