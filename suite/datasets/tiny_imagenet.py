"""TinyImageNet: 200 classes of ImageNet as JPEG files of 64 pixels, from the published archive or its folder."""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import UInt8
from torch import Tensor

from suite.datasets import sources
from suite.datasets.base import ImageDataset, Raw
from suite.errors import RunError, one_line
from suite.registry import datasets
from suite.storage.plain_files import shown
from suite.types import DatasetInfo, ImageShape

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ARCHIVE_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
FOLDER = "tiny-imagenet-200"
TRAIN_EACH, TEST_EACH = 500, 50

MOST_BYTES = 2**20
"""Of an image or a list. The largest of those published, the list of `val`, has less than half of it."""

WNIDS = tuple(
    """
    n01443537 n01629819 n01641577 n01644900 n01698640 n01742172 n01768244 n01770393 n01774384 n01774750
    n01784675 n01855672 n01882714 n01910747 n01917289 n01944390 n01945685 n01950731 n01983481 n01984695
    n02002724 n02056570 n02058221 n02074367 n02085620 n02094433 n02099601 n02099712 n02106662 n02113799
    n02123045 n02123394 n02124075 n02125311 n02129165 n02132136 n02165456 n02190166 n02206856 n02226429
    n02231487 n02233338 n02236044 n02268443 n02279972 n02281406 n02321529 n02364673 n02395406 n02403003
    n02410509 n02415577 n02423022 n02437312 n02480495 n02481823 n02486410 n02504458 n02509815 n02666196
    n02669723 n02699494 n02730930 n02769748 n02788148 n02791270 n02793495 n02795169 n02802426 n02808440
    n02814533 n02814860 n02815834 n02823428 n02837789 n02841315 n02843684 n02883205 n02892201 n02906734
    n02909870 n02917067 n02927161 n02948072 n02950826 n02963159 n02977058 n02988304 n02999410 n03014705
    n03026506 n03042490 n03085013 n03089624 n03100240 n03126707 n03160309 n03179701 n03201208 n03250847
    n03255030 n03355925 n03388043 n03393912 n03400231 n03404251 n03424325 n03444034 n03447447 n03544143
    n03584254 n03599486 n03617480 n03637318 n03649909 n03662601 n03670208 n03706229 n03733131 n03763968
    n03770439 n03796401 n03804744 n03814639 n03837869 n03838899 n03854065 n03891332 n03902125 n03930313
    n03937543 n03970156 n03976657 n03977966 n03980874 n03983396 n03992509 n04008634 n04023962 n04067472
    n04070727 n04074963 n04099969 n04118538 n04133789 n04146614 n04149813 n04179913 n04251144 n04254777
    n04259630 n04265275 n04275548 n04285008 n04311004 n04328186 n04356056 n04366367 n04371430 n04376876
    n04398044 n04399382 n04417672 n04456115 n04465501 n04486054 n04487081 n04501370 n04507155 n04532106
    n04532670 n04540053 n04560804 n04562935 n04596742 n04597913 n06596364 n07579787 n07583066 n07614500
    n07615774 n07695742 n07711569 n07715103 n07720875 n07734744 n07747607 n07749582 n07753592 n07768694
    n07871810 n07873807 n07875152 n07920052 n09193705 n09246464 n09256479 n09332890 n09428293 n12267677
    """.split()  # noqa: SIM905 (a list would take two hundred lines)
)
"""WordNet identifiers of the classes, sorted: the order of the labels. The published wnids.txt has another order."""


@datasets.register("tiny_imagenet")
@dataclass(frozen=True)
class TinyImageNet(ImageDataset):
    """TinyImageNet: 3x64x64 photographs in 200 classes, 100,000 for training and 10,000 for testing (paper, A.1).

    The published test part has no labels, so the labelled `val` part is the test set here, as in published results.
    Read from tiny-imagenet-200 below the data directory, with `val` as published or sorted into a folder for each
    class, or from tiny-imagenet-200.zip in it, which is verified and never unpacked. Grey JPEGs become RGB.

    >>> info = TinyImageNet().info
    >>> str(info.shape), info.classes, info.train_size, info.test_size
    ('3x64x64', 200, 100000, 10000)
    """

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        sizes = (len(WNIDS) * TRAIN_EACH, len(WNIDS) * TEST_EACH)
        return DatasetInfo("tiny_imagenet", ImageShape(3, 64, 64), WNIDS, *sizes)

    def files(self, root: Path) -> list[Path]:
        """The folder, if it is there: no hash of it was published."""
        return [folder] if (folder := root / FOLDER).is_dir() else []

    def read(self, root: Path, download: bool) -> Raw:
        """The images of the folder or the archive; RunError for missing or altered files."""
        folder, archive = root / FOLDER, root / f"{FOLDER}.zip"
        if folder.is_dir():
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
            return _read(names, lambda name: sources.read_bytes(folder / name, MOST_BYTES), folder)
        if not sources.is_there(archive):
            if not download:
                raise sources.missing("tiny_imagenet", root, f"{FOLDER} or {archive.name}", sources.OFFLINE)
            sources.download("tiny_imagenet", root, [URL], ARCHIVE_MD5, archive)
        return _read_archive(sources.read_verified(archive, ARCHIVE_MD5), archive)


def _read_archive(content: bytes, archive: Path) -> Raw:
    """Read the images inside the zip file; an archive with a name that leaves its folder is refused as a whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            members = [PurePosixPath(name) for name in opened.namelist() if not name.endswith("/")]
            for member in members:
                if member.is_absolute() or ".." in member.parts or member.parts[0] != FOLDER:
                    raise RunError(f"{archive} is refused: its member {shown(str(member))} is outside of {FOLDER}")
            names = [member.relative_to(FOLDER).as_posix() for member in members]
            return _read(names, lambda name: _member(opened, name, archive), archive)
    except RunError:
        raise
    except Exception as error:  # each way to pack a member has errors of its own
        raise sources.altered(archive, "a whole zip file", one_line(error)) from error


def _member(opened: zipfile.ZipFile, name: str, archive: Path) -> bytes:
    """The content of a file in an archive; a large one is not unpacked, whatever size it announces."""
    with opened.open(f"{FOLDER}/{name}") as member:
        content = member.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise RunError(f"{archive} has more than {MOST_BYTES:,} bytes in {name}; fetch the published file again")
    return content


def _read(names: list[str], read: Callable[[str], bytes], where: Path) -> Raw:
    """The images of a listing, in an order that does not depend on the layout: by class, then by file name; `val` by
    file name alone.
    """
    number = {wnid: label for label, wnid in enumerate(WNIDS)}
    images = [PurePosixPath(name) for name in names if name.endswith(".JPEG")]
    if "wnids.txt" in names and set(read("wnids.txt").decode(errors="replace").split()) != set(WNIDS):
        raise RunError(f"{where} has other classes than TinyImageNet in wnids.txt; fetch the published files again")

    train = [(path, path.parts[1]) for path in images if path.parts[0] == "train" and len(path.parts) > 2]
    train.sort(key=lambda item: (item[1], item[0].name))
    test = [(path, path.parts[1]) for path in images if path.parts[0] == "val" and len(path.parts) > 2]
    if "val/val_annotations.txt" in names and any(folder == "images" for _, folder in test):
        lines = read("val/val_annotations.txt").decode(errors="replace").splitlines()
        label_of = {line.split("\t")[0]: line.split("\t")[1] for line in lines if "\t" in line}
        test = [(path, label_of.get(path.name, "none")) for path, _ in test]
    test.sort(key=lambda item: item[0].name)

    for path, wnid in train + test:
        if wnid not in number:
            raise RunError(
                f"{where} has {shown(str(path), 80)} under {shown(wnid)}, which is no class of TinyImageNet; fetch it "
                "again"
            )
    parts = []
    seen = hashlib.sha256()
    for part, listed, each in (("training", train, TRAIN_EACH), ("test", test, TEST_EACH)):
        if len(listed) != each * len(WNIDS):
            raise RunError(
                f"tiny_imagenet: the files in {where} hold {len(listed)} {part} images, not {each * len(WNIDS)}; fetch "
                "the published files again"
            )
        pixels = torch.empty(len(listed), 3, 64, 64, dtype=torch.uint8)
        for row, (path, _) in enumerate(listed):
            content = read(path.as_posix())
            seen.update(content)
            pixels[row] = _decode(content, where / path)
        parts.append((pixels, torch.tensor([number[wnid] for _, wnid in listed], dtype=torch.int64)))
    return Raw(*parts[0], *parts[1], f"JPEG files of SHA-256 {seen.hexdigest()} in the order read, by {_decoder()}")


def _decode(content: bytes, place: Path) -> UInt8[Tensor, "3 64 64"]:
    import numpy as np
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at here
            image = Image.open(io.BytesIO(content), formats=("JPEG",))
        if image.size != (64, 64):  # before anything is decoded
            raise RunError(f"{place} has the shape {image.size}, not (64, 64); fetch it again")
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunError(f"{place} is not a whole JPEG file ({one_line(error)}); fetch it again") from error


def _decoder() -> str:
    """The decoder, which the pixels of a JPEG file depend on."""
    import PIL
    from PIL import features

    return f"Pillow {PIL.__version__} with libjpeg {features.version('jpg')}"
