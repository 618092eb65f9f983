"""What streams share: their data set, and each task's draw of training images."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.datasets import loading
from suite.errors import RunError, UsageError
from suite.keys import Key
from suite.types import Data, Split


def load(stream: Any, data_dir: Path, key: Key, left_out: float = 0.0) -> Data:
    """The stream's data set, preprocessed as the stream says, without a fraction of every training class."""
    return loading.load(preprocessed(stream.of, stream.preprocessing), data_dir, key("data"), left_out)


def preprocessed(of: Any, name: str | None) -> Any:
    """The data set with this preprocessing; None leaves its own. UsageError for one that has none to choose."""
    settings = {field.name for field in fields(of)}
    if name is None or "preprocessing" in settings:
        return of if name is None else replace(of, preprocessing=name)
    if "of" not in settings:
        raise UsageError(f"{type(of).__name__} has no preprocessing to choose; set the stream's preprocessing to None")
    return replace(of, of=preprocessed(of.of, name))


def draw(split: Split, samples: int, key: Key, name: str) -> Split:
    """So many images without replacement, whatever their classes, as published streams draw; RunError if too few."""
    if samples > len(split):
        raise RunError(f"{name}: a task needs {samples} training images and has {len(split)}; lower samples_per_task")
    rows = key.permutation(len(split))[:samples]
    return split.at(rows)


def of_classes(split: Split, classes: tuple[int, ...]) -> Split:
    """The images of these classes, in the split's order."""
    rows = torch.isin(split.labels, torch.tensor(classes)).nonzero()[:, 0]
    return split.at(rows)


def at_places(
    images: Float[Tensor, "n c h w"], shown: Int64[Tensor, " pixels"], black: Float[Tensor, " c"]
) -> Float[Tensor, "n c h w"]:
    """Images each of whose pixels shows the pixel of this number; `black`, of each channel, where that is -1.

    Gathered, since torchvision's own operations make a GPU wait, and their derivative is not repeatable there.
    """
    moved = images.flatten(2).gather(2, shown.clamp(min=0).expand(*images.shape[:2], -1))
    return torch.where(shown < 0, black[:, None], moved).view(images.shape)
