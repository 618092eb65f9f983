"""SVHN: house numbers, from two MATLAB files."""

import io
from dataclasses import dataclass
from pathlib import Path

import torch

from suite.datasets import sources
from suite.datasets.base import ImageDataset, Raw
from suite.errors import RunError, one_line
from suite.images.preprocess import PreprocessingName
from suite.registry import datasets
from suite.types import DatasetInfo, ImageShape
from suite.validation import Positive

SIZES = (73_257, 26_032)
URL = "http://ufldl.stanford.edu/housenumbers/"
FILES = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
"""MD5 of the published files: of the training part first, then of the test part."""


@datasets.register("svhn")
@dataclass(frozen=True)
class SVHN(ImageDataset):
    """SVHN: 3x32x32 cropped house numbers in 10 classes, 73,257 for training and 26,032 for testing (paper, A.1).

    Read from train_32x32.mat and test_32x32.mat in the data directory. The published label 10 stands for the digit 0.
    The paper uses no augmentation here.

    >>> info = SVHN().info
    >>> str(info.shape), info.classes, info.train_size, info.test_size
    ('3x32x32', 10, 73257, 26032)
    """

    preprocessing: PreprocessingName = "zca_image"
    """By default the paper's for this data set."""
    zca_regularization: Positive = 100.0
    """By default the released code's for this data set."""

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        return DatasetInfo("svhn", ImageShape(3, 32, 32), tuple("0123456789"), *SIZES)

    def read(self, root: Path, download: bool) -> Raw:
        """The images of the two MATLAB files; RunError for missing or altered files."""
        (train_images, train_labels), (test_images, test_labels) = (
            _read(root / name, md5, root, download) for name, md5 in FILES.items()
        )
        source = "MATLAB files of MD5 " + ", ".join(f"{name} {md5}" for name, md5 in FILES.items())
        return Raw(train_images, train_labels, test_images, test_labels, source)


def _read(file: Path, md5: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n 3 32 32) and labels (n) of one file, whose X is (32 32 3 n) and whose y is (n 1)."""
    if not sources.is_there(file):
        if not download:
            raise sources.missing("svhn", root, file.name, sources.OFFLINE)
        sources.download("svhn", root, [URL + file.name], md5, file)
    return read_matlab(sources.read_verified(file, md5), file)


def read_matlab(content: bytes, file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n 3 32 32) and labels (n) of a MATLAB file; RunError for any other content."""
    from scipy.io import loadmat, whosmat

    try:
        announced = {name: shape for name, shape, _ in whosmat(io.BytesIO(content)) if name in ("X", "y")}
        n = min(announced["X"][3:], default=0)
        if announced != {"X": (32, 32, 3, n), "y": (n, 1)} or n > max(SIZES):  # nothing large was unpacked so far
            raise ValueError(f"they have the shapes {announced}")
        arrays = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        images, labels = torch.from_numpy(arrays["X"]), torch.from_numpy(arrays["y"]).long().reshape(-1)
        images = images.permute(3, 2, 0, 1).contiguous()
    except Exception as error:  # scipy's parsers raise all kinds of errors
        raise RunError(
            f"{file} is not a MATLAB file with X and y ({one_line(error)}); delete it and fetch it again"
        ) from error
    return images, torch.where(labels == 10, 0, labels)
