"""What streams share: each task's own draw of training images, and what is refused."""

from pathlib import Path
from typing import Any

import torch

from suite.errors import RunError
from suite.keys import Key
from suite.types import Data, Dataset, Split, require


def check(stream: Any) -> None:
    """Refuse counts that can't be; for the fields that every stream has."""
    for name in ("number", "samples_per_task"):
        require(stream, name, getattr(stream, name) > 0, "above 0")


def load(of: Dataset, data_dir: Path, key: Key, left_out: float = 0.0) -> Data:
    """The data set, without a fraction of every training class that the key leaves out."""
    return of.load(data_dir, key("data"), left_out)


def draw(split: Split, samples: int, key: Key, name: str) -> Split:
    """So many images without replacement, whatever their classes, as published streams draw; RunError if too few."""
    if samples > len(split):
        raise RunError(f"{name}: a task needs {samples} training images and has {len(split)}; lower samples_per_task")
    rows = key.permutation(len(split))[:samples]
    return Split(split.images[rows], split.labels[rows])


def of_classes(split: Split, classes: tuple[int, ...]) -> Split:
    """The images of these classes, in the split's order."""
    rows = torch.isin(split.labels, torch.tensor(classes)).nonzero()[:, 0]
    return Split(split.images[rows], split.labels[rows])
