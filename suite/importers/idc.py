"""Files of IDC (Kim et al., 2022) and its kin NCFM and DREAM: pixels whose images hold several smaller ones."""

from pathlib import Path

from suite.importers import torch_files
from suite.importers.base import ForeignSet, Reading, images_of, importer, labels_of, refused


@importer("idc", space="pixels", tiles=True)
def read(path: Path, reading: Reading) -> ForeignSet:
    """IDC and NCFM: `data*.pt`, a pair of images in [0, 1], each of factor² tiles, and labels."""
    pair = torch_files.load(path)
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise refused(path, "it is no pair of images and labels")
    return ForeignSet(images_of(path, pair[0], reading), labels_of(path, pair[1]))
