"""Data sets: published layouts are read, everything else is refused in one sentence, and the cache can be trusted."""

import dataclasses
import functools
import http.server
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import published_layouts as layouts
import pytest
import torch

from suite.datasets import cifar, digits, mnist, prepare, sources, svhn, tiny_imagenet
from suite.datasets.base import ImageDataset, Raw, split_rows
from suite.datasets.cifar import CIFAR100
from suite.datasets.digits import Digits
from suite.datasets.some_classes import SomeClasses
from suite.datasets.training_only import TrainingOnly
from suite.errors import RunError, UsageError
from suite.keys import Key
from suite.registry import datasets
from suite.storage import sealed
from suite.types import Dataset, DatasetInfo, ImageShape

KEY = Key(3)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("there is no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message, which must be one line that a person can act on."""
    words = str(error.value)
    assert "\n" not in words and len(words) > 40
    return words


# ---------------------------------------------------------------- what is known without files


DERIVED = {"some_classes", "training_only"}
"""Made of another data set, with no files of their own."""


@pytest.mark.parametrize("entry", [e for e in datasets if e.name not in DERIVED], ids=lambda entry: entry.name)
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


# ---------------------------------------------------------------- published layouts


def idx_arrays(train: int = 20, test: int = 10) -> list[np.ndarray]:
    y = [np.array(layouts.labels(n, 10), dtype=np.uint8) for n in (train, test)]
    return [layouts.images(train, 1, 28)[:, 0], y[0], layouts.images(test, 1, 28, 1)[:, 0], y[1]]


def use_idx(monkeypatch: pytest.MonkeyPatch, root: Path, plain: bool, zipped: bool, table: str = "MNIST_FILES") -> list:
    arrays = idx_arrays()
    monkeypatch.setattr(mnist, "SIZES", (20, 10))
    monkeypatch.setattr(mnist, table, layouts.write_idx(root, getattr(mnist, table), arrays, plain, zipped))
    return arrays


@pytest.mark.parametrize(("plain", "zipped"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("dataset", "table"), [(mnist.MNIST, "MNIST_FILES"), (mnist.FashionMNIST, "FASHION_FILES")])
def test_idx_files_are_read(tmp_path, monkeypatch, dataset, table, plain, zipped) -> None:
    arrays = use_idx(monkeypatch, tmp_path, plain, zipped, table)
    raw = dataset().prepare(tmp_path, download=False).raw
    assert np.array_equal(raw.train_images.numpy()[:, 0], arrays[0]) and raw.train_labels.tolist() == arrays[1].tolist()
    assert np.array_equal(raw.test_images.numpy()[:, 0], arrays[2]) and raw.test_labels.tolist() == arrays[3].tolist()


@pytest.mark.parametrize(("plain", "zipped"), [(True, False), (False, True)])
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty"])
def test_altered_idx_files_are_refused(tmp_path, monkeypatch, plain, zipped, harm) -> None:
    use_idx(monkeypatch, tmp_path, plain, zipped)
    file = next((tmp_path / "MNIST" / "raw").glob("t10k-images*"))
    damage(file, harm)
    with pytest.raises(RunError, match=re.escape(str(file))) as error:
        mnist.MNIST().prepare(tmp_path, download=False)
    assert "fetch it again" in sentence(error)
    assert not list((tmp_path / "cache").glob("*.safetensors"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\0",
        b"\0\0\x09\x01\0\0\0\x01x",
        layouts.idx(np.zeros(5, np.uint8))[:-1],
        layouts.idx(np.zeros(5, np.uint8)) + b"x",
    ],
)
def test_what_is_no_idx_file_is_refused(content: bytes) -> None:
    with pytest.raises(RunError, match="IDX"):
        mnist.read_idx(content, Path("somewhere"))


def test_counts_other_than_the_published_are_refused(tmp_path, monkeypatch) -> None:
    use_idx(monkeypatch, tmp_path, True, False)
    monkeypatch.setattr(mnist, "SIZES", (21, 10))
    with pytest.raises(RunError, match="hold 20 training images") as error:
        mnist.MNIST().prepare(tmp_path, download=False)
    sentence(error)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist_is_found_and_read_back_fast(tmp_path: Path, no_network: None) -> None:
    prepared = mnist.FashionMNIST().prepare(tmp_path)
    assert prepared.raw.train_images.shape == (60000, 1, 28, 28)
    assert Counter(prepared.raw.train_labels.tolist()) == {c: 6000 for c in range(10)}
    assert Counter(prepared.raw.test_labels.tolist()) == {c: 1000 for c in range(10)}
    assert prepared.digest == "10b4cb90b4fd639f719ec713f76231e123349c15e62a5f7dc6c8d5b8acfa5daf"
    start = time.perf_counter()
    assert mnist.FashionMNIST().prepare(tmp_path).digest == prepared.digest
    assert time.perf_counter() - start < 1


def test_svhn_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = (layouts.images(20, 3, 32), layouts.labels(20, 10))
    test = (layouts.images(10, 3, 32, 1), layouts.labels(10, 10))
    monkeypatch.setattr(svhn, "SIZES", (20, 10))
    monkeypatch.setattr(svhn, "FILES", layouts.write_svhn(tmp_path, train, test))
    raw = svhn.SVHN().prepare(tmp_path, download=False).raw
    assert np.array_equal(raw.train_images.numpy(), train[0]) and raw.train_labels.tolist() == train[1]
    assert np.array_equal(raw.test_images.numpy(), test[0]) and raw.test_labels.tolist() == test[1]


def test_altered_and_broken_svhn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = (layouts.images(10, 3, 32), layouts.labels(10, 10))
    monkeypatch.setattr(svhn, "FILES", layouts.write_svhn(tmp_path, part, part))
    file = tmp_path / "test_32x32.mat"
    damage(file, "flip")
    with pytest.raises(RunError, match="not the published file") as error:
        svhn.SVHN().prepare(tmp_path, download=False)
    sentence(error)
    file.write_bytes(b"MATLAB" * 100)
    monkeypatch.setattr(svhn, "FILES", svhn.FILES | {file.name: layouts.md5(file.read_bytes())})
    with pytest.raises(RunError, match="not a MATLAB file"):
        svhn.SVHN().prepare(tmp_path, download=False)


CIFARS = [(cifar.CIFAR10, "CIFAR10_FILES", 10), (cifar.CIFAR100, "CIFAR100_FILES", 100)]


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(("dataset", "table", "classes"), CIFARS)
def test_cifar_is_read(tmp_path, monkeypatch, dataset, table, classes, archive) -> None:
    published = getattr(cifar, table)
    pixels, y = layouts.images(classes, 3, 32), layouts.labels(classes, classes)
    batches = layouts.cifar_batches(published, pixels, y)
    monkeypatch.setattr(cifar, "SIZES", (classes * len(published.train), classes))
    monkeypatch.setattr(cifar, table, layouts.write_cifar(tmp_path, published, batches, archive))
    raw = dataset().prepare(tmp_path, download=False).raw
    expected = np.concatenate([(pixels + shift).astype(np.uint8) for shift in range(len(published.train))])
    assert np.array_equal(raw.train_images.numpy(), expected)
    assert raw.train_labels.tolist() == y * len(published.train) and raw.test_labels.tolist() == y
    assert np.array_equal(raw.test_images.numpy(), (pixels + len(published.train)).astype(np.uint8))


@pytest.mark.parametrize("protocol", [2, 4])
def test_batches_of_newer_pythons_are_read(protocol: int) -> None:
    pixels = layouts.images(4, 3, 32)
    content = pickle.dumps({"data": pixels.reshape(4, -1), "labels": [3, 1, 2, 0]}, protocol)
    images, labels = cifar.read_batch(content, "labels", Path("batch"))
    assert np.array_equal(images.numpy(), pixels) and labels.tolist() == [3, 1, 2, 0]


class Hostile:
    """Would make a file when unpickled by an unpickler that trusts its input."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["alone", "in a list", "in an object array", "beside a whole batch"])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path, where: str, protocol: int) -> None:
    payload = Hostile(tmp_path / "made")
    array = np.empty(2, dtype=object)
    array[:] = [payload, 1]
    batch = {"data": layouts.images(1, 3, 32).reshape(1, -1), "labels": [0], "more": payload}
    things = {"alone": payload, "in a list": [payload], "in an object array": {"data": array, "labels": [0, 1]}}
    content = pickle.dumps(things.get(where, batch), protocol)
    with pytest.raises(RunError, match="refused") as error:
        cifar.read_batch(content, "labels", Path("batch"))
    assert "mkdir" in sentence(error)
    assert not (tmp_path / "made").exists()
    pickle.loads(content)
    assert (tmp_path / "made").exists()  # an unpickler that trusts its input does run it


@pytest.mark.parametrize(
    "thing",
    [[], {"data": 1, "labels": [0]}, {"data": np.zeros((1, 3072)), "labels": [0]}, {"labels": [0]}],
    ids=["a list", "no array", "floats", "no data"],
)
def test_a_pickle_that_is_no_batch_is_refused(thing: object) -> None:
    with pytest.raises(RunError, match="refused"):
        cifar.read_batch(pickle.dumps(thing, 2), "labels", Path("batch"))


def test_cifar_is_verified_before_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = layouts.cifar_batches(cifar.CIFAR10_FILES, layouts.images(10, 3, 32), layouts.labels(10, 10))
    published = layouts.write_cifar(tmp_path, cifar.CIFAR10_FILES, batches, archive=False)
    monkeypatch.setattr(cifar, "CIFAR10_FILES", published)
    monkeypatch.setattr(cifar, "read_batch", lambda *_: pytest.fail("unpickled before it was verified"))
    damage(tmp_path / published.folder / "test_batch", "flip")
    with pytest.raises(RunError, match="test_batch is not the published file") as error:
        cifar.CIFAR10().prepare(tmp_path, download=False)
    sentence(error)


TINY = ("n01443537", "n01629819", "n01641577")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(tiny_imagenet, "WNIDS", TINY)
    monkeypatch.setattr(tiny_imagenet, "TRAIN_EACH", 2)
    monkeypatch.setattr(tiny_imagenet, "TEST_EACH", 4)
    return layouts.tiny_imagenet_files(TINY, 2, 4)


def test_every_layout_of_tiny_imagenet_gives_the_same_images(tmp_path, monkeypatch, tiny) -> None:
    layouts.write_folder(tmp_path / "published", tiny)
    layouts.write_folder(tmp_path / "sorted", layouts.sorted_by_class(tiny, "images/"))
    layouts.write_folder(tmp_path / "flat", layouts.sorted_by_class(tiny, ""))
    members = {f"tiny-imagenet-200/{path}": content for path, content in tiny.items()}
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE_MD5", layouts.write_zip(tmp_path / "zip", members))
    roots = ("published", "sorted", "flat", "zip")
    found = {root: tiny_imagenet.TinyImageNet().prepare(tmp_path / root, download=False) for root in roots}
    assert len({prepared.digest for prepared in found.values()}) == 1
    assert len({prepared.raw.source for prepared in found.values()}) == 1

    raw = found["published"].raw
    assert raw.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    # By file name as text: val_0, val_1, val_10, val_11, val_2, …
    order = sorted(range(12), key=lambda row: f"val_{row}.JPEG")
    assert raw.test_labels.tolist() == [row % 3 for row in order]
    for grey in (raw.train_images[0], raw.test_images[0]):
        assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])
        assert (grey[0].float() - torch.arange(64).float()).abs().max() <= 3
    assert not torch.equal(raw.train_images[1][0], raw.train_images[1][1])


@pytest.mark.parametrize("name", ["../outside", "/outside", "tiny-imagenet-200/../../outside", "elsewhere/file"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path, monkeypatch, tiny, name) -> None:
    members = {f"tiny-imagenet-200/{path}": content for path, content in tiny.items()} | {name: b"x"}
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE_MD5", layouts.write_zip(tmp_path / "data", members))
    with pytest.raises(RunError, match="is refused") as error:
        tiny_imagenet.TinyImageNet().prepare(tmp_path / "data", download=False)
    sentence(error)
    assert not list(tmp_path.rglob("outside")) and not Path("/outside").exists()


@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_an_altered_archive_is_refused(tmp_path, monkeypatch, tiny, harm) -> None:
    members = {f"tiny-imagenet-200/{path}": content for path, content in tiny.items()}
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE_MD5", layouts.write_zip(tmp_path, members))
    damage(tmp_path / "tiny-imagenet-200.zip", harm)
    with pytest.raises(RunError, match="not the published file"):
        tiny_imagenet.TinyImageNet().prepare(tmp_path, download=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"val/images/val_3.JPEG": b"no JPEG"}, "val_3.JPEG is not a whole JPEG"),
        ({"val/images/val_3.JPEG": layouts.jpeg(layouts.images(1, 3, 64)[0])[:900]}, "val_3.JPEG is not a whole JPEG"),
        ({"val/images/val_3.JPEG": layouts.jpeg(layouts.images(1, 3, 32)[0])}, "has the shape"),
        ({"val/images/val_12.JPEG": layouts.jpeg(layouts.images(1, 3, 64)[0])}, "no class"),
        ({"wnids.txt": b"n01443537\nn00000000"}, "other classes"),
        ({"train/n01443537/images/x.JPEG": layouts.jpeg(layouts.images(1, 3, 64)[0])}, "hold 7 training images"),
    ],
)
def test_tiny_imagenet_that_is_not_as_published_is_refused(tmp_path, tiny, change, words) -> None:
    layouts.write_folder(tmp_path, tiny | change)
    with pytest.raises(RunError, match=re.escape(words)) as error:
        tiny_imagenet.TinyImageNet().prepare(tmp_path, download=False)
    sentence(error)


# ---------------------------------------------------------------- missing files and downloads

NEEDS_FILES = ["cifar10", "cifar100", "fashion_mnist", "mnist", "svhn", "tiny_imagenet"]


@pytest.fixture
def not_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "FASHION_FILES", dataclasses.replace(mnist.FASHION_FILES, elsewhere=()))


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", NEEDS_FILES)
def test_missing_files_say_where_they_should_be_and_what_to_run(
    tmp_path, no_network, not_debian, name, download
) -> None:
    with pytest.raises(RunError) as error:
        datasets[name].build().prepare(tmp_path, download)
    words = sentence(error)
    assert words.startswith(f"{name}: ") and f"`python -m suite.datasets.prepare {name} --data-dir {tmp_path}`" in words
    assert ("there is no network" in words) == download
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a web server for the folder `server`."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "server"))
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


def test_files_are_downloaded_verified_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    use_idx(monkeypatch, tmp_path / "server", plain=False, zipped=True)
    mirrors = (server + "nowhere/", server + "MNIST/raw/")
    monkeypatch.setattr(mnist, "MNIST_FILES", dataclasses.replace(mnist.MNIST_FILES, mirrors=mirrors))
    here = tmp_path / "here"
    assert len(mnist.MNIST().load(here, KEY, 0.0).train) == 20
    assert sorted(path.name for path in (here / "MNIST" / "raw").iterdir()) == sorted(
        f"{file.name}.gz" for file in mnist.MNIST_FILES.files
    )


def test_a_download_with_another_digest_is_refused_and_removed(tmp_path, monkeypatch, server) -> None:
    use_idx(monkeypatch, tmp_path / "server", plain=False, zipped=True)
    mirrors = (server + "MNIST/raw/",)
    monkeypatch.setattr(mnist, "MNIST_FILES", dataclasses.replace(mnist.MNIST_FILES, mirrors=mirrors))
    damage(tmp_path / "server" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz", "flip")
    with pytest.raises(RunError, match="could not be downloaded") as error:
        mnist.MNIST().prepare(tmp_path / "here")
    sentence(error)
    assert list((tmp_path / "here" / "MNIST" / "raw").iterdir()) == []


def test_a_cached_data_set_needs_no_files_and_no_network(tmp_path, monkeypatch, no_network) -> None:
    use_idx(monkeypatch, tmp_path, True, False)
    digest = mnist.MNIST().prepare(tmp_path).digest
    for file in (tmp_path / "MNIST" / "raw").iterdir():
        file.unlink()
    assert mnist.MNIST().prepare(tmp_path).digest == digest


# ---------------------------------------------------------------- the cache


def damage(file: Path, harm: str, at: int = -5) -> None:
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[at] ^= 1
    file.write_bytes({"flip": bytes(content), "truncate": bytes(content[:-7]), "empty": b""}[harm])


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


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    file = Counting().prepare(tmp_path).file
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole)
        damage(file, "flip", at)
        with pytest.raises(RunError, match=re.escape(str(file))) as error:
            Counting().prepare(tmp_path)
        assert "delete it" in sentence(error)
    file.write_bytes(whole)
    Counting().prepare(tmp_path)


@pytest.mark.parametrize("harm", ["truncate", "empty"])
def test_a_truncated_cache_is_refused_and_can_be_made_again(tmp_path: Path, harm: str) -> None:
    first = Counting().prepare(tmp_path)
    damage(first.file, harm)
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
    assert str(tmp_path / "file") in sentence(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="can't write") as error:
        Counting().prepare(tmp_path)
    sentence(error)


def test_source_files_that_cant_be_listed_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> Raw:
        raise PermissionError(13, "Permission denied", str(tmp_path / "secret"))

    monkeypatch.setattr(Counting, "read", refuse)
    with pytest.raises(RunError, match="secret") as error:
        Counting().prepare(tmp_path)
    sentence(error)


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
    told = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0]
    assert len(set(told)) == 1 and told[0].strip()
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


# ---------------------------------------------------------------- the command


def test_the_default_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", "/somewhere/data")
    assert sources.default_data_dir() == Path("/somewhere/data")
    monkeypatch.delenv("SUITE_DATA_DIR")
    assert sources.default_data_dir() == Path.home() / ".cache" / "addressable-memory-suite"


def test_the_command_prepares_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["digits", "--data-dir", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "1346 training and 451 test images of 1x8x8" in told
    assert "cc1746b686398a5a" in told and str(tmp_path / "cache" / "digits-v1.safetensors") in told


def test_the_command_names_every_data_set_of_the_room() -> None:
    here = {entry.name for entry in datasets if entry.origin.startswith("suite.datasets")} - DERIVED
    assert set(prepare.NAMES) == here


def test_the_command_ends_with_two_for_an_unknown_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["digits", "mnits", "--data-dir", str(tmp_path)]) == 2
    assert "did you mean 'mnist'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_command_ends_with_one_where_a_data_set_is_missing(tmp_path, capsys, no_network) -> None:
    assert prepare.main(["mnist", "digits", "--data-dir", str(tmp_path), "--offline"]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and told.err.startswith("mnist: ") and "digits: " in told.out


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
