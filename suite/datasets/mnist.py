"""MNIST and Fashion-MNIST: IDX files, plain or gzipped, wherever torchvision or Debian puts them."""

import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from suite.datasets import sources
from suite.datasets.base import ImageDataset, Raw
from suite.errors import RunError
from suite.registry import datasets
from suite.types import DatasetInfo, ImageShape

SIZES = (60_000, 10_000)


@dataclass(frozen=True)
class File:
    """One published IDX file."""

    name: str
    """Without `.gz`."""
    gz_md5: str
    """MD5 of the gzipped file."""
    sha256: str
    """SHA-256 of what it unpacks to."""


@dataclass(frozen=True)
class Published:
    """The four files of a data set, and where they are."""

    files: tuple[File, ...]
    """Images and labels, training part first."""
    mirrors: tuple[str, ...]
    """Addresses that have them, tried in turn."""
    folder: str
    """Below the data directory."""
    elsewhere: tuple[Path, ...] = ()
    """Other folders that may have them."""


MNIST_FILES = Published(
    files=(
        File(
            "train-images-idx3-ubyte",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        File(
            "train-labels-idx1-ubyte",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        File(
            "t10k-images-idx3-ubyte",
            "9fb629c4189551a2d022fa330f9573f3",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        File(
            "t10k-labels-idx1-ubyte",
            "ec29112dd5afa0611ce80d1b7f02629c",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    folder="MNIST/raw",
)

FASHION_FILES = Published(
    files=(
        File(
            "train-images-idx3-ubyte",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        File(
            "train-labels-idx1-ubyte",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        File(
            "t10k-images-idx3-ubyte",
            "bef4ecab320f06d8554ea6380940ec79",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        File(
            "t10k-labels-idx1-ubyte",
            "bb300cfdad3c16e7a12a480ee83cd310",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    folder="FashionMNIST/raw",
    # Debian's package dataset-fashion-mnist installs the files here: recompressed, the same once unpacked.
    elsewhere=(Path("/usr/share/datasets/fashion-mnist"),),
)


@datasets.register("mnist")
@dataclass(frozen=True)
class MNIST(ImageDataset):
    """MNIST: 1x28x28 handwritten digits in 10 classes, 60,000 for training and 10,000 for testing (paper, A.1).

    Read from MNIST/raw below the data directory, from IDX files that may be gzipped.

    >>> info = MNIST().info
    >>> str(info.shape), info.classes, info.train_size, info.test_size
    ('1x28x28', 10, 60000, 10000)
    """

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        return DatasetInfo("mnist", ImageShape(1, 28, 28), tuple("0123456789"), *SIZES)

    def read(self, root: Path, download: bool) -> Raw:
        """The images of the published IDX files; RunError for missing or altered files."""
        return _read("mnist", MNIST_FILES, root, download)


@datasets.register("fashion_mnist")
@dataclass(frozen=True)
class FashionMNIST(ImageDataset):
    """Fashion-MNIST: 1x28x28 pieces of clothing in 10 classes, 60,000 for training and 10,000 for testing (paper, A.1).

    Read from FashionMNIST/raw below the data directory, or from where Debian's dataset-fashion-mnist puts it.

    >>> FashionMNIST().info.class_names[:3]
    ('T-shirt/top', 'Trouser', 'Pullover')
    """

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        names = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
        return DatasetInfo("fashion_mnist", ImageShape(1, 28, 28), tuple(names.split(",")), *SIZES)

    def read(self, root: Path, download: bool) -> Raw:
        """The images of the published IDX files; RunError for missing or altered files."""
        return _read("fashion_mnist", FASHION_FILES, root, download)


def _read(name: str, published: Published, root: Path, download: bool) -> Raw:
    train_images, train_labels, test_images, test_labels = (
        _tensor(name, file, published, root, download) for file in published.files
    )
    source = "IDX files of SHA-256 " + ", ".join(f"{file.name} {file.sha256}" for file in published.files)
    return Raw(train_images[:, None], train_labels.long(), test_images[:, None], test_labels.long(), source)


def _tensor(name: str, file: File, published: Published, root: Path, download: bool) -> UInt8[Tensor, "..."]:
    """One IDX file, from the first folder that has it, plain or gzipped; verified by what it unpacks to."""
    folders = (root / published.folder, *published.elsewhere)
    places = [folder / (file.name + ending) for folder in folders for ending in ("", ".gz")]
    place = next((place for place in places if sources.is_there(place)), None)
    if place is None:
        place = folders[0] / f"{file.name}.gz"
        if not download:
            raise sources.missing(name, root, f"{published.folder}/{file.name}", sources.OFFLINE)
        urls = [mirror + place.name for mirror in published.mirrors]
        sources.download(name, root, urls, file.gz_md5, place)
    most = len(b"\0\0\x08\x03") + 3 * 4 + max(SIZES) * 28 * 28
    if place.suffix == ".gz":
        content = _unpacked(sources.read_bytes(place), most, file, place)
    else:
        content = sources.read_bytes(place, most)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != file.sha256:
        raise sources.altered(place, f"content of SHA-256 {file.sha256}", sha256)
    return read_idx(content, place)


def _unpacked(packed: bytes, most: int, file: File, place: Path) -> bytes:
    """What a gzipped file holds; RunError where that is damaged or more than `most` bytes, the rest not unpacked."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)
    expected = f"gzipped content of SHA-256 {file.sha256}"
    try:
        content = unpacker.decompress(packed, most + 1)
    except zlib.error as error:
        raise sources.altered(place, expected, f"{error}") from error
    if not unpacker.eof:
        raise sources.altered(place, expected, "more" if len(content) > most else "a part of it")
    return content


def read_idx(content: bytes, place: Path) -> UInt8[Tensor, "..."]:
    """The tensor of bytes that an IDX file holds: 0, 0, type 8, the number of axes, each axis as 4 bytes, the bytes.

    Raises RunError for any other content.
    """
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 and content[3] <= 4 else 0
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    start = 4 + 4 * axes
    if not axes or not math.prod(shape) or len(content) != start + math.prod(shape):
        raise RunError(f"{place} is not an IDX file of bytes of the length it announces; delete it and fetch it again")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)
