"""Rotated images: every task shows all classes at an angle of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.datasets.mnist import MNIST
from suite.keys import Key
from suite.registry import streams
from suite.streams.base import at_places, draw, load
from suite.types import Dataset, Split, StreamInfo, StreamTask
from suite.validation import Few, PositiveInt

DIFFERS = "angles are drawn from the run's seed; the published ones came from an unseeded generator"


@streams.register("rotations")
@dataclass(frozen=True)
class Rotations:
    """A task is an angle: all images of `of` are turned by it, counter-clockwise, nearest pixel, filled with black.

    One head for all tasks, which are not known at test. Paper, A.2, Table 1: also the variant * (`law` 'steps', all
    training images), in `gin/continual/`.

    >>> stream = Rotations(number=3)
    >>> stream.info.tasks, stream.info.samples_per_task, stream.info.outputs
    (3, 1000, 10)
    >>> 120 <= stream.angle(2, Key(0)) < 180
    True
    """

    of: Dataset = field(default_factory=MNIST)
    """The data set whose images the tasks show."""
    number: Few = 20
    """Tasks."""
    samples_per_task: PositiveInt = 1000
    """Training images of a task, drawn without replacement."""
    law: Literal["bins", "steps"] = "bins"
    """'bins': task t of T has an angle uniform in [t, t + 1) 180/T degrees, as in GEM and La-MAML; 'steps': 10 (t + 1)
    less U(0, 10) degrees, as in Kernel Continual Learning."""
    preprocessing: str | None = "none"
    """Takes the place of the data set's own; None keeps that."""

    @property
    def info(self) -> StreamInfo:
        """Sizes of the stream, known without any file."""
        of, star = self.of.info, "" if self.law == "bins" else "_star"
        return StreamInfo(
            f"rotations{star} of {of.name}", of.shape, of.classes, self.number, of.classes, self.samples_per_task,
            of.test_size, task_known=False, differs=(DIFFERS,),
        )  # fmt: skip

    def angle(self, task: int, key: Key) -> float:
        """Degrees by which a task, counted from 0, is turned."""
        uniform = torch.rand((), generator=key("angle", task).generator(), dtype=torch.float64).item()
        return (task + uniform) * 180 / self.number if self.law == "bins" else 10 * (task + 1 - uniform)

    def shown(self, key: Key) -> Int64[Tensor, " pixels"]:
        """For each pixel of another task that the stream might have, the pixel that it shows; -1 in turned corners."""
        angle = torch.rand((), generator=key.generator(), dtype=torch.float64).item() * 360 - 180
        return _places(self.info.shape.height, self.info.shape.width, angle)

    def tasks(self, data_dir: Path, key: Key) -> Iterator[StreamTask]:
        """The tasks in order; a function of the key. RunError for too few training images."""
        data, info = load(self, data_dir, key), self.info
        # What a black pixel becomes.
        black = data.transform.apply(torch.zeros_like(data.train.images[:1])).mean((0, 2, 3))
        for t in range(self.number):
            angle = self.angle(t, key)
            train, test = (
                Split(_turned(split.images, angle, black), split.labels)
                for split in (draw(data.train, self.samples_per_task, key("samples", t), info.name), data.test)
            )
            yield StreamTask(
                train, test, tuple(range(info.outputs)), data.info.class_names, data.transform, {"angle": angle}
            )


def _turned(images: Float[Tensor, "n c h w"], degrees: float, black: Float[Tensor, " c"]) -> Float[Tensor, "n c h w"]:
    """Images turned counter-clockwise, nearest pixel; `black` fills the corners, one number for each channel."""
    return at_places(images, _places(images.shape[2], images.shape[3], degrees), black)


def _places(height: int, width: int, degrees: float) -> Int64[Tensor, " pixels"]:
    """The pixel that each pixel of a turned image shows; -1: none. As torchvision turns an image of their numbers."""
    from torchvision.transforms import InterpolationMode  # slow to import, for a stream of one kind
    from torchvision.transforms.functional import rotate

    numbers = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    return rotate(numbers, degrees, InterpolationMode.NEAREST, fill=[-1.0]).long().flatten()
