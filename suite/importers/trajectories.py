"""Folders of trajectory matching: MTT (Cazenavette et al., 2022) with its kin, and DATM (Guo et al., 2024)."""

from pathlib import Path

from torch import Tensor

from suite.importers import torch_files
from suite.importers.base import ForeignSet, Reading, images_of, importer, labels_of, refused, tensor_of

IMAGES, LABELS, RATE = "images_best.pt", "labels_best.pt", "lr_best.pt"
"""The files of a folder; the rate is not in all."""

MASK, WEIGHTS = "mask.pt", "weights_best.pt"
"""What FreD and HaBa store beside, so that the images are not what is stored, or not what networks are trained on."""


@importer("mtt")
def read(path: Path, reading: Reading) -> ForeignSet:
    """MTT: a folder with `images_best.pt`, `labels_best.pt`, and `lr_best.pt` where the rate was kept."""
    if not path.is_dir():
        raise refused(path, f"it is no folder with {IMAGES} and {LABELS}")
    for name, whose, other in ((MASK, "FreD's", "fred"), (WEIGHTS, "HaBa's", "haba")):
        if (path / name).exists():
            raise refused(path, f"by its {name} it is {whose}, and its budget another; read it by --as {other}")
    rate = None
    if (path / RATE).exists():
        value = torch_files.load(path / RATE)
        rate = value if isinstance(value, float) else _one(path / RATE, tensor_of(path / RATE, "rates", value, (0, 1)))
    images = images_of(path / IMAGES, torch_files.load(path / IMAGES), reading)
    return ForeignSet(images, labels_of(path / LABELS, torch_files.load(path / LABELS)), rate)


@importer("datm", labels="logits")
def read_datm(path: Path, reading: Reading) -> ForeignSet:
    """DATM: a folder as of `mtt`, whose labels are logits."""
    return read(path, reading)


def _one(path: Path, rates: Tensor) -> float:
    if rates.numel() != 1:
        raise refused(path, f"it holds {rates.numel()} rates, and a protocol has one")
    return float(rates)
