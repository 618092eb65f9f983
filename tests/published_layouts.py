"""Small files in the exact layouts in which the data sets were published, and the digests they have.

Every writer returns what the loader's own table of published digests must hold for its files to be accepted.
"""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from suite.datasets import cifar, mnist

Images = np.ndarray
"""uint8, n x c x h x w."""


def images(n: int, channels: int, size: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def labels(n: int, classes: int) -> list[int]:
    return [row % classes for row in range(n)]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# ---------------------------------------------------------------- IDX


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(
    root: Path, published: mnist.Published, arrays: list[np.ndarray], plain: bool, zipped: bool
) -> mnist.Published:
    """Four arrays as IDX files in the folder that torchvision uses, plain, gzipped or both."""
    folder = root / published.folder
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for file, array in zip(published.files, arrays, strict=True):
        content = idx(array)
        packed = gzip.compress(content, mtime=0)
        if plain:
            (folder / file.name).write_bytes(content)
        if zipped:
            (folder / f"{file.name}.gz").write_bytes(packed)
        files.append(dataclasses.replace(file, gz_md5=md5(packed), sha256=hashlib.sha256(content).hexdigest()))
    return dataclasses.replace(published, files=tuple(files), elsewhere=())


# ---------------------------------------------------------------- MATLAB


def write_svhn(root: Path, train: tuple[Images, list[int]], test: tuple[Images, list[int]]) -> dict[str, str]:
    """X as (32 32 3 n) and y as (n 1) with 10 for the digit 0, as on the SVHN page."""
    root.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, (pixels, digits) in {"train_32x32.mat": train, "test_32x32.mat": test}.items():
        y = np.array([[digit or 10] for digit in digits], dtype=np.uint8)
        savemat(root / name, {"X": pixels.transpose(2, 3, 1, 0), "y": y}, do_compression=True)
        digests[name] = md5((root / name).read_bytes())
    return digests


# ---------------------------------------------------------------- CIFAR


def python2_batch(pixels: Images, entries: dict[str, list[int]]) -> bytes:
    """A batch with the opcodes that Python 2 and numpy of 2009 wrote, in which all texts are byte strings."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1))
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    dtype = (
        b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNN" + number(-1) * 2 + b"K\x00tb"
    )
    content = b"T" + struct.pack("<i", flat.nbytes) + flat.tobytes()
    shape = number(flat.shape[0]) + number(flat.shape[1]) + b"\x86"
    data = empty + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"
    listed = {key: b"](" + b"".join(number(value) for value in values) + b"e" for key, values in entries.items()}
    items = {"data": data} | listed
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in items.items()) + b"u."


def cifar_batches(published: cifar.Published, pixels: Images, digits: list[int]) -> dict[str, bytes]:
    """The same images in every batch of a published list, with coarse labels where the fine ones are called fine."""
    if published.label_bytes:
        before = np.array([[0] * (published.label_bytes - 1) + [digit] for digit in digits])
        return {
            batch: np.hstack([before, (pixels + shift).reshape(len(pixels), -1)]).astype(np.uint8).tobytes()
            for shift, batch in enumerate(published.train | published.test)
        }
    coarse = {"coarse_labels": [0] * len(digits)} if published.labels == "fine_labels" else {}
    return {
        batch: python2_batch((pixels + shift).astype(np.uint8), {published.labels: digits} | coarse)
        for shift, batch in enumerate(published.train | published.test)
    }


def write_cifar(root: Path, published: cifar.Published, batches: dict[str, bytes], archive: bool) -> cifar.Published:
    """Batches in their folder, or in the .tar.gz archive that holds the folder."""
    root.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for batch, content in batches.items():
            member = tarfile.TarInfo(f"{published.folder}/{batch}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    if archive:
        (root / published.archive).write_bytes(buffer.getvalue())
    else:
        (root / published.folder).mkdir()
        for batch, content in batches.items():
            (root / published.folder / batch).write_bytes(content)
    digests = {batch: md5(content) for batch, content in batches.items()}
    return dataclasses.replace(
        published,
        archive_md5=md5(buffer.getvalue()),
        train={batch: digests[batch] for batch in published.train},
        test={batch: digests[batch] for batch in published.test},
    )


# ---------------------------------------------------------------- TinyImageNet


def jpeg(pixels: np.ndarray) -> bytes:
    """A JPEG file of an image of shape (3 64 64), or a grey one of an image of shape (64 64)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def tiny_imagenet_files(wnids: tuple[str, ...], train_each: int, test_each: int) -> dict[str, bytes]:
    """Paths below tiny-imagenet-200, as published; the first training image and the first of `val` are grey."""
    grey = jpeg(np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    files = {"wnids.txt": "\n".join(reversed(wnids)).encode(), "words.txt": b"", "test/images/test_0.JPEG": grey}
    for c, wnid in enumerate(wnids):
        boxes = ""
        for row in range(train_each):
            name = f"{wnid}_{row}.JPEG"
            files[f"train/{wnid}/images/{name}"] = grey if row + c == 0 else jpeg(images(1, 3, 64, 100 * c + row)[0])
            boxes += f"{name}\t0\t0\t62\t62\n"
        files[f"train/{wnid}/{wnid}_boxes.txt"] = boxes.encode()
    lines = []
    for row in range(test_each * len(wnids)):
        # Labels go round the classes, so that no order by class is right by accident.
        files[f"val/images/val_{row}.JPEG"] = grey if row == 0 else jpeg(images(1, 3, 64, 9000 + row)[0])
        lines.append(f"val_{row}.JPEG\t{wnids[row % len(wnids)]}\t0\t32\t44\t62")
    files["val/val_annotations.txt"] = ("\n".join(lines) + "\n").encode()
    return files


def sorted_by_class(files: dict[str, bytes], inner: str) -> dict[str, bytes]:
    """`val` moved into a folder for each class, as many projects do in place; `inner` is 'images/' or ''."""
    moved = {path: content for path, content in files.items() if not path.startswith("val/")}
    for line in files["val/val_annotations.txt"].decode().splitlines():
        name, wnid = line.split("\t")[:2]
        moved[f"val/{wnid}/{inner}{name}"] = files[f"val/images/{name}"]
    return moved


def write_folder(root: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        place = root / "tiny-imagenet-200" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def write_zip(root: Path, members: dict[str, bytes]) -> str:
    """An archive of members with their full names; returns its MD5."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(file, "w") as opened:
        opened.mkdir("tiny-imagenet-200")
        for name, content in members.items():
            opened.writestr(name, content)
    return md5(file.read_bytes())


# ---------------------------------------------------------------- what goes wrong


def damage(file: Path, harm: str, at: int = -5) -> None:
    """Flip one bit of a file, cut its end off or empty it."""
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[at] ^= 1
    file.write_bytes({"flip": bytes(content), "truncate": bytes(content[:-7]), "empty": b""}[harm])


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message, which must be one line that a person can act on."""
    words = str(error.value)
    assert "\n" not in words and len(words) > 40
    return words
