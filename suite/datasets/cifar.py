"""CIFAR-10 and CIFAR-100, from their pickles or their records of bytes.

Pickles are read by an unpickler that can make arrays and nothing else.
"""

import codecs
import io
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from suite.datasets import sources
from suite.datasets.base import ImageDataset, Raw
from suite.errors import RunError, one_line
from suite.images.augment import AugmentationName
from suite.images.preprocess import PreprocessingName
from suite.registry import datasets
from suite.types import DatasetInfo, ImageShape

SIZES = (50_000, 10_000)
URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Published:
    """A data set as it was published."""

    archive: str
    """File name."""
    archive_md5: str
    """MD5 of the archive."""
    folder: str
    """What the archive unpacks to."""
    train: dict[str, str]
    """Batches of the training part, in order, and their MD5s."""
    test: dict[str, str]
    """Batches of the test part and their MD5s."""
    labels: str = ""
    """The entry of a pickled batch that holds its labels."""
    label_bytes: int = 0
    """Of a record, before the 3,072 of its pixels; the last of them is the label. 0: the batches are pickles."""


CIFAR10_FILES = Published(
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    labels="labels",
)
CIFAR10_RECORDS = Published(
    archive="cifar-10-binary.tar.gz",
    archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
    train={
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    },
    test={"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
    label_bytes=1,
)
CIFAR100_FILES = Published(
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    labels="fine_labels",
)
CIFAR100_RECORDS = Published(
    archive="cifar-100-binary.tar.gz",
    archive_md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    train={"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
    test={"test.bin": "4499cfba6c016c1be1438163640a0898"},
    label_bytes=2,  # of the superclass and of the class
)

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SUPERCLASSES = (
    ("aquatic_mammals", ("beaver", "dolphin", "otter", "seal", "whale")),
    ("fish", ("aquarium_fish", "flatfish", "ray", "shark", "trout")),
    ("flowers", ("orchid", "poppy", "rose", "sunflower", "tulip")),
    ("food_containers", ("bottle", "bowl", "can", "cup", "plate")),
    ("fruit_and_vegetables", ("apple", "mushroom", "orange", "pear", "sweet_pepper")),
    ("household_electrical_devices", ("clock", "keyboard", "lamp", "telephone", "television")),
    ("household_furniture", ("bed", "chair", "couch", "table", "wardrobe")),
    ("insects", ("bee", "beetle", "butterfly", "caterpillar", "cockroach")),
    ("large_carnivores", ("bear", "leopard", "lion", "tiger", "wolf")),
    ("large_man-made_outdoor_things", ("bridge", "castle", "house", "road", "skyscraper")),
    ("large_natural_outdoor_scenes", ("cloud", "forest", "mountain", "plain", "sea")),
    ("large_omnivores_and_herbivores", ("camel", "cattle", "chimpanzee", "elephant", "kangaroo")),
    ("medium_mammals", ("fox", "porcupine", "possum", "raccoon", "skunk")),
    ("non-insect_invertebrates", ("crab", "lobster", "snail", "spider", "worm")),
    ("people", ("baby", "boy", "girl", "man", "woman")),
    ("reptiles", ("crocodile", "dinosaur", "lizard", "snake", "turtle")),
    ("small_mammals", ("hamster", "mouse", "rabbit", "shrew", "squirrel")),
    ("trees", ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree")),
    ("vehicles_1", ("bicycle", "bus", "motorcycle", "pickup_truck", "train")),
    ("vehicles_2", ("lawn_mower", "rocket", "streetcar", "tank", "tractor")),
)
"""The published table of CIFAR-100's twenty superclasses."""

CIFAR100_CLASSES = tuple(sorted(name for _, names in SUPERCLASSES for name in names))
"""The official order is alphabetical."""


@datasets.register("cifar10")
@dataclass(frozen=True)
class CIFAR10(ImageDataset):
    """CIFAR-10: 3x32x32 photographs in 10 classes, 50,000 for training and 10,000 for testing (paper, A.1).

    Read from cifar-10-batches-py below the data directory, or from cifar-10-python.tar.gz in it; else from the binary
    version, cifar-10-batches-bin or cifar-10-binary.tar.gz.

    >>> info = CIFAR10().info
    >>> str(info.shape), info.classes, info.train_size, info.test_size
    ('3x32x32', 10, 50000, 10000)
    """

    preprocessing: PreprocessingName = "zca_image"
    """By default the paper's for this data set."""
    augmentation: AugmentationName = "flip_rotate"
    """By default the paper's for this data set."""

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        return DatasetInfo("cifar10", ImageShape(3, 32, 32), CIFAR10_CLASSES, *SIZES)

    def read(self, root: Path, download: bool) -> Raw:
        """The images of the published batches; RunError for missing or altered files."""
        return _read("cifar10", (CIFAR10_FILES, CIFAR10_RECORDS), root, download)


@datasets.register("cifar100")
@dataclass(frozen=True)
class CIFAR100(ImageDataset):
    """CIFAR-100: 3x32x32 photographs in 100 classes, 500 and 100 of each; 20 superclasses of five (paper, A.1).

    Read from cifar-100-python below the data directory, or from cifar-100-python.tar.gz in it; else from the binary
    version, cifar-100-binary or cifar-100-binary.tar.gz. The labels are the fine ones.

    >>> info = CIFAR100().info
    >>> str(info.shape), info.classes, info.train_size, info.test_size
    ('3x32x32', 100, 50000, 10000)
    >>> info.superclasses[1]
    ('fish', ('aquarium_fish', 'flatfish', 'ray', 'shark', 'trout'))
    """

    preprocessing: PreprocessingName = "zca_image"
    """By default the paper's for this data set."""
    augmentation: AugmentationName = "flip_rotate"
    """By default the paper's for this data set."""

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        return DatasetInfo("cifar100", ImageShape(3, 32, 32), CIFAR100_CLASSES, *SIZES, SUPERCLASSES)

    def read(self, root: Path, download: bool) -> Raw:
        """The images of the published batches; RunError for missing or altered files."""
        return _read("cifar100", (CIFAR100_FILES, CIFAR100_RECORDS), root, download)


def _read(name: str, versions: tuple[Published, ...], root: Path, download: bool) -> Raw:
    """The images of the first version that is there; of the first, which is the one that is fetched, where none is."""
    files = next((version for version in versions if _is_there(version, root)), versions[0])
    batches = files.train | files.test
    contents = _contents(name, files, list(batches), root, download)
    for batch, md5 in batches.items():
        sources.verify(root / files.folder / batch, contents[batch], md5)
    read = {batch: _read_batch(files, contents[batch], root / files.folder / batch) for batch in batches}
    train, test = [read[batch] for batch in files.train], [read[batch] for batch in files.test]
    kind = "batches of records" if files.label_bytes else "pickled batches"
    source = f"{kind} of MD5 " + ", ".join(f"{batch} {md5}" for batch, md5 in batches.items())
    return Raw(
        torch.cat([images for images, _ in train]),
        torch.cat([labels for _, labels in train]),
        torch.cat([images for images, _ in test]),
        torch.cat([labels for _, labels in test]),
        source,
    )


def _is_there(files: Published, root: Path) -> bool:
    """Whether all batches of a version are there, or its archive."""
    return sources.is_there(root / files.archive) or all(
        sources.is_there(root / files.folder / batch) for batch in files.train | files.test
    )


def _read_batch(
    files: Published, content: bytes, place: Path
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int64[Tensor, " n"]]:
    if files.label_bytes:
        return read_records(content, files.label_bytes, place)
    return read_batch(content, files.labels, place)


def read_records(
    content: bytes, label_bytes: int, place: Path
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int64[Tensor, " n"]]:
    """Images and labels of one batch of records, each of `label_bytes` and 3,072 bytes of pixels, channels first.

    Raises RunError for a batch that does not end with a record.
    """
    each = label_bytes + 3 * 32 * 32
    if not content or len(content) % each:
        raise RunError(f"{place} is refused: its {len(content):,} bytes are no records of {each:,}; fetch it again")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, each)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32).contiguous(), records[:, label_bytes - 1].long()


def _contents(name: str, files: Published, batches: list[str], root: Path, download: bool) -> dict[str, bytes]:
    """The bytes of every batch: from its folder, or else from the archive, which is never unpacked on disk."""
    folder, archive = root / files.folder, root / files.archive
    absent = [batch for batch in batches if not sources.is_there(folder / batch)]
    if not absent:
        return {batch: sources.read_bytes(folder / batch) for batch in batches}
    if not sources.is_there(archive):
        if not download:
            raise sources.missing(name, root, f"{files.folder}/{absent[0]}", sources.OFFLINE)
        sources.download(name, root, [URL + files.archive], files.archive_md5, archive)
    content = sources.read_verified(archive, files.archive_md5)
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            # Members are looked up by their exact names and no name of a member ever becomes a path.
            return {batch: _member(opened, f"{files.folder}/{batch}") for batch in batches}
    except (tarfile.TarError, zlib.error, KeyError, ValueError, OSError, EOFError) as error:
        raise sources.altered(archive, f"an archive with {', '.join(batches)}", one_line(error)) from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """The content of a file in an archive. Raises TarError for what is none, or larger than any batch."""
    member = archive.getmember(name)
    opened = archive.extractfile(member) if member.isreg() and member.size <= sources.MOST_BYTES else None
    if opened is None:
        raise tarfile.TarError(f"{name} is no file of at most {sources.MOST_BYTES:,} bytes")
    return opened.read()


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows numpy's arrays and refuses every other name, so that nothing in a file can run."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("_codecs", "encode"): codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs") from None


def read_batch(content: bytes, labels: str, place: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int64[Tensor, " n"]]:
    """Images and labels of one pickled batch; `labels` names the entry they are under.

    Raises RunError for a pickle that asks for anything but arrays, and for one that is no batch of images.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        pixels, numbers = batch["data"], batch[labels]
        if pixels.dtype != np.uint8 or pixels.shape != (len(numbers), 3 * 32 * 32):
            raise ValueError(f"it holds {pixels.dtype} pixels of shape {pixels.shape} and {len(numbers)} labels")
        images = torch.from_numpy(pixels.copy()).reshape(-1, 3, 32, 32)
        return images, torch.tensor([int(number) for number in numbers])
    except Exception as error:  # a pickle's own bytes choose what goes wrong
        raise RunError(f"{place} is refused: {one_line(error)}; delete it and fetch it again") from error
