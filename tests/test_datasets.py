"""Data sets: what is known without their files, their splits, data sets made of others, and the command."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import published_layouts as layouts
import pytest
import torch

from suite.datasets import cifar, digits, prepare, sources, tiny_imagenet
from suite.datasets.base import ImageDataset, split_rows
from suite.datasets.cifar import CIFAR100
from suite.datasets.digits import Digits
from suite.datasets.some_classes import SomeClasses
from suite.datasets.training_only import TrainingOnly
from suite.errors import UsageError
from suite.keys import Key
from suite.registry import datasets
from suite.types import Dataset

KEY = Key(3)


# ---------------------------------------------------------------- what is known without files


DERIVED = {"some_classes", "training_only"}
"""Made of another data set, with no files of their own."""

OWN = {"image_folder", "numpy", "huggingface"}
"""Of the user's own images, which have to be named (`test_own_data`)."""


@pytest.mark.parametrize("entry", [e for e in datasets if e.name not in DERIVED | OWN], ids=lambda entry: entry.name)
def test_every_data_set_names_its_shape_sizes_and_classes_at_once(entry) -> None:
    dataset = entry.build()
    info = dataset.info
    assert isinstance(dataset, Dataset) and isinstance(dataset, ImageDataset)
    assert info.name == entry.name
    assert len(set(info.class_names)) == info.classes
    assert info.train_size >= info.classes and info.test_size >= info.classes
    assert entry.summary.endswith((".", "(paper, A.1)."))


def test_published_sizes_shapes_and_defaults() -> None:
    found = {
        entry.name: (
            entry.build().info.train_size,
            entry.build().info.test_size,
            str(entry.build().info.shape),
            entry.build().info.classes,
            entry.build().preprocessing,
            entry.build().zca_regularization,
            entry.build().augmentation,
        )
        for entry in datasets
        if entry.name in prepare.NAMES
    }
    assert found == {
        "digits": (1346, 451, "1x8x8", 10, "standardize", 0.1, "none"),
        "mnist": (60000, 10000, "1x28x28", 10, "standardize", 0.1, "none"),
        "fashion_mnist": (60000, 10000, "1x28x28", 10, "standardize", 0.1, "none"),
        "svhn": (73257, 26032, "3x32x32", 10, "zca_image", 100.0, "none"),
        "cifar10": (50000, 10000, "3x32x32", 10, "zca_image", 0.1, "flip_rotate"),
        "cifar100": (50000, 10000, "3x32x32", 100, "zca_image", 0.1, "flip_rotate"),
        "tiny_imagenet": (100000, 10000, "3x64x64", 200, "standardize", 0.1, "none"),
    }


def test_cifar100_has_twenty_superclasses_of_five_that_cover_its_classes() -> None:
    info = cifar.CIFAR100().info
    assert len(info.superclasses) == 20 and all(len(names) == 5 for _, names in info.superclasses)
    assert sorted(name for _, names in info.superclasses for name in names) == list(info.class_names)
    # Fixed points of the official numbering, from the published meta file.
    official = {0: "apple", 1: "aquarium_fish", 31: "elephant", 47: "maple_tree", 71: "sea", 99: "worm"}
    assert {number: info.class_names[number] for number in official} == official
    assert [name for name, _ in info.superclasses] == sorted(name for name, _ in info.superclasses)


def test_tiny_imagenet_has_its_two_hundred_sorted_wnids() -> None:
    assert list(tiny_imagenet.WNIDS) == sorted(set(tiny_imagenet.WNIDS)) and len(tiny_imagenet.WNIDS) == 200
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in tiny_imagenet.WNIDS)
    assert tiny_imagenet.WNIDS[0] == "n01443537" and tiny_imagenet.WNIDS[-1] == "n12267677"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preprocessing": "zca_imag"}, "did you mean 'zca_image'"),
        ({"augmentation": "flip-rotate"}, "did you mean 'flip_rotate'"),
        ({"zca_regularization": 0.0}, "must be above 0"),
        ({"zca_regularization": float("inf")}, "finite"),
    ],
)
def test_bad_settings_are_refused(settings, words) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        cifar.CIFAR10(**settings)


# ---------------------------------------------------------------- splits


def test_split_is_stratified_keyed_and_complete() -> None:
    labels = torch.tensor(layouts.labels(1003, 7))
    kept, held_out = split_rows(labels, 7, 0.1, KEY)
    assert sorted(torch.cat([kept, held_out]).tolist()) == list(range(1003))
    of = Counter(labels.tolist())
    assert Counter(labels[held_out].tolist()) == {c: int(0.1 * n + 0.5) for c, n in of.items()}
    assert torch.equal(held_out, split_rows(labels, 7, 0.1, Key(3))[1])
    assert not torch.equal(held_out, split_rows(labels, 7, 0.1, Key(4))[1])


@pytest.mark.parametrize(("each", "fraction", "count"), [(10, 0.0, 0), (10, 0.01, 1), (10, 0.99, 9), (1, 0.5, 0)])
def test_split_leaves_something_on_both_sides(each: int, fraction: float, count: int) -> None:
    labels = torch.tensor(layouts.labels(3 * each, 3))
    kept, held_out = split_rows(labels, 3, fraction, KEY)
    assert len(held_out) == 3 * count and len(kept) == 3 * (each - count)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="fraction"):
        split_rows(torch.tensor([0, 1]), 2, fraction, KEY)


def test_digits_load_with_a_fixed_test_part(tmp_path: Path) -> None:
    one = digits.Digits().load(tmp_path, Key(0), 0.1)
    two = digits.Digits().load(tmp_path, Key(1), 0.1)
    whole = digits.Digits().load(tmp_path, Key(0), 0.0)
    assert torch.equal(one.test.labels, two.test.labels) and not torch.equal(one.train.images, two.train.images)
    assert len(one.train) + len(one.validation) == 1346 == len(whole.train) and len(whole.validation) == 0
    # The pixels and the split are part of the definition: a change of either must raise Digits.version.
    assert one.digest == two.digest == "cc1746b686398a5a3c2b0625b3568a289c949fbf3e4bc945722f01df450fa5ba"
    assert whole.validation.images.shape == (0, 1, 8, 8)


def test_the_transform_sees_the_training_part_only(tmp_path: Path) -> None:
    data = digits.Digits().load(tmp_path, KEY, 0.3)
    mean, std = data.train.images.double().mean(), data.train.images.double().std(correction=0)
    assert abs(mean) < 1e-6 and abs(std - 1) < 1e-6
    assert abs(data.validation.images.mean()) > 1e-4 and abs(data.test.images.mean()) > 1e-4

    raw = digits.Digits().prepare(tmp_path).raw
    train, held_out = split_rows(raw.train_labels, 10, 0.3, KEY)
    assert torch.equal(data.transform.tensors()["mean"], (raw.train_images[train].double() / 255).mean((0, 2, 3)))
    assert torch.equal(data.validation.images, data.transform.apply(raw.train_images[held_out]))


def test_zca_fits_are_kept_and_depend_on_the_split(tmp_path: Path) -> None:
    dataset = digits.Digits(preprocessing="zca_image")
    first = dataset.load(tmp_path, KEY, 0.1)
    fits = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("zca_image-*.safetensors")}
    again = dataset.load(tmp_path, KEY, 0.1)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("zca_image-*.safetensors")} == fits
    assert torch.equal(first.train.images, again.train.images)
    assert first.transform.describe() == again.transform.describe()
    dataset.load(tmp_path, Key(4), 0.1)
    digits.Digits(preprocessing="zca_image", zca_regularization=1.0).load(tmp_path, KEY, 0.1)
    digits.Digits(preprocessing="zca_feature").load(tmp_path, KEY, 0.1)
    assert len(list((tmp_path / "cache").glob("zca_*.safetensors"))) == 4


# ---------------------------------------------------------------- the command


def test_the_default_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", "/somewhere/data")
    assert sources.default_data_dir() == Path("/somewhere/data")
    monkeypatch.delenv("SUITE_DATA_DIR")
    assert sources.default_data_dir() == Path.home() / ".cache" / "addressable-memory-suite"


def test_the_command_prepares_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["digits", "--data-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "1346 training and 451 test images of 1x8x8" in printed
    assert "cc1746b686398a5a" in printed and str(tmp_path / "cache" / "digits-v1-") in printed


def test_the_command_names_every_data_set_of_the_room() -> None:
    here = {entry.name for entry in datasets if entry.origin.startswith("suite.datasets")} - DERIVED - OWN
    assert set(prepare.NAMES) == here


def test_the_command_ends_with_two_for_an_unknown_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["digits", "mnits", "--data-dir", str(tmp_path)]) == 2
    assert "did you mean 'mnist'" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["--data-dir", "~nobody-of-this-name/x"], "--data-dir: there is no home for ~nobody"),
        (["--data-dir", ""], "--data-dir: it is empty"),
        (["--data-dir", "data\udcff"], "is no text in UTF-8"),
        ([], "SUITE_DATA_DIR: there is no home for ~nobody"),
    ],
)
def test_the_command_ends_with_two_for_a_place_that_is_none(
    named: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", "~nobody-of-this-name/x")
    assert prepare.main(["digits", *named]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_the_command_means_a_home_where_a_shell_left_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepare.main(["digits", "--data-dir", "~/x"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_the_command_ends_with_one_where_a_data_set_is_missing(tmp_path, capsys, no_network) -> None:
    assert prepare.main(["mnist", "digits", "--data-dir", str(tmp_path), "--offline"]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and printed.err.startswith("mnist: ") and "digits: " in printed.out


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys; from suite.__main__ import main\ntry: main(['data', '--help'])\n"
    program += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and "--offline" in done.stdout, done.stderr


# ---------------------------------------------------------------- some classes of another


def test_some_classes_are_a_data_set_of_their_own(data_dir: Path) -> None:
    whole, few = Digits(), SomeClasses(of=Digits(), classes=(7, 3, 4))
    assert few.info.class_names == tuple(whole.info.class_names[c] for c in (7, 3, 4))
    assert few.info.name == "digits[7,3,4]" and few.info.classes == 3
    data, all_of_it = few.load(data_dir, Key(0), 0.1), whole.prepare(data_dir).raw
    for part, labels in ((data.test, all_of_it.test_labels),):
        assert part.labels.bincount().tolist() == [int((labels == c).sum()) for c in (7, 3, 4)]
    assert len(data.train) + len(data.validation) == int(sum((all_of_it.train_labels == c).sum() for c in (7, 3, 4)))
    pixels = data.transform.display(data.test.images[data.test.labels == 0]) * 255
    expected = all_of_it.test_images[all_of_it.test_labels == 7].float()
    torch.testing.assert_close(pixels, expected, atol=1.0, rtol=0)
    other = SomeClasses(of=Digits(), classes=(3, 7, 4)).load(data_dir, Key(0), 0.1)
    assert len({data.digest, other.digest, whole.load(data_dir, Key(0), 0.1).digest}) == 3
    assert data.transform.describe() != whole.load(data_dir, Key(0), 0.1).transform.describe()  # fitted on these alone


def test_some_classes_keep_their_superclasses() -> None:
    info = SomeClasses(of=CIFAR100(), classes=(0, 1, 2, 83)).info
    assert info.train_size == 2000 and info.test_size == 400
    assert {name: own for name, own in info.superclasses if "apple" in own}
    assert sorted(n for _, own in info.superclasses for n in own) == sorted(info.class_names)


@pytest.mark.parametrize("classes", [(1,), (1, 1), (0, 10), (-1, 2), ()])
def test_classes_that_can_not_be_are_refused(classes: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"SomeClasses.classes must be"):
        SomeClasses(of=Digits(), classes=classes)


# ---------------------------------------------------------------- training images alone


def test_training_images_alone_never_show_a_test_image(data_dir: Path) -> None:
    raw = Digits().prepare(data_dir).raw
    part = TrainingOnly(of=Digits(preprocessing="none"), fraction=0.2)
    data = part.load(data_dir, Key(0), 0.0)
    assert (len(data.train), len(data.test)) == (part.info.train_size, part.info.test_size) == (1077, 269)
    both = torch.cat([data.train.images, data.test.images]).flatten(1)
    published = raw.train_images.flatten(1).float() / 255
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, published.tolist()))  # each image once, and no other
    again = part.load(data_dir, Key(1), 0.0)  # another run's seed
    assert torch.equal(data.test.images, again.test.images)
    assert data.digest != Digits().load(data_dir, Key(0), 0.0).digest
    with pytest.raises(UsageError, match="fraction must be above 0 and below 1"):
        TrainingOnly(fraction=1.0)


def test_what_is_made_of_a_data_set_may_be_made_of_another(data_dir: Path) -> None:
    whole, classes = Digits(preprocessing="none"), (7, 3)
    one = SomeClasses(of=TrainingOnly(of=whole, fraction=0.2), classes=classes).load(data_dir, Key(0), 0.0)
    parted = TrainingOnly(of=whole, fraction=0.2).load(data_dir, Key(0), 0.0)
    for part, of in ((one.train, parted.train), (one.test, parted.test)):
        for label, c in enumerate(classes):
            assert torch.equal(part.images[part.labels == label], of.images[of.labels == c])
    for two in (classes, (0, 8)):  # whose numbers are more and fewer than two tenths of all
        few = SomeClasses(of=whole, classes=two)
        other, both = TrainingOnly(of=few, fraction=0.2).load(data_dir, Key(0), 0.0), few.load(data_dir, Key(0), 0.0)
        assert len({one.digest, parted.digest, other.digest, both.digest}) == 4
        every = torch.cat([other.train.images, other.test.images]).flatten(1)
        assert sorted(map(tuple, every.tolist())) == sorted(map(tuple, both.train.images.flatten(1).tolist()))
        assert len(other.test) == round(0.2 * len(both.train))


OF_NUMPY = """
import json
from dataclasses import asdict
import numpy as np
from suite.types import DatasetInfo, ImageShape
sizes = np.array([1, 8, 8, 100, 20])
groups = ((np.int64(7), tuple(np.unique([1, 2]))),)
info = DatasetInfo("own", ImageShape(*sizes[:3]), tuple(np.unique([3, 1, 2])), *sizes[3:], groups)
print(json.dumps(asdict(info)))
try:
    ImageShape(1.5, 8, 8)
except TypeError:
    print("refused")
"""


def test_numbers_and_names_of_a_library_s_kinds_become_plain_ones() -> None:
    """numpy's whole numbers are no JSON: a run was done, and then could not write its record.

    In a process of its own, without the type checks of these tests.
    """
    said = subprocess.run([sys.executable, "-c", OF_NUMPY], capture_output=True, text=True, check=True).stdout
    described, refused = said.splitlines()
    assert json.loads(described)["class_names"] == ["1", "2", "3"] and refused == "refused"
    assert json.loads(described)["superclasses"] == [["7", ["1", "2"]]]
    assert json.loads(described)["shape"] == {"channels": 1, "height": 8, "width": 8}
