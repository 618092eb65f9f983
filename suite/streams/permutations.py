"""Permuted pixels: every task shows all classes with the pixels in an order of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from suite.datasets.mnist import MNIST
from suite.keys import Key
from suite.registry import streams
from suite.storage.files import sha256
from suite.streams.base import draw, load
from suite.types import Dataset, Split, StreamInfo, StreamTask
from suite.validation import Few, PositiveInt

DIFFERS = "permutations are drawn from the run's seed, not from the generator of the published code"


@streams.register("permutations")
@dataclass(frozen=True)
class Permutations:
    """A task is an order of the pixels of `of`, the same in every channel, drawn from the seed.

    One head for all tasks, which are not known at test. Paper, A.2, Table 1: also MANY (`number` 100) and the variant *
    (`first` 'identity', all training images), in `gin/continual/`.

    >>> stream = Permutations(number=3)
    >>> stream.info.tasks, stream.info.samples_per_task, stream.info.outputs
    (3, 1000, 10)
    >>> stream.order(0, Key(0)).sort().values.equal(torch.arange(784))
    True
    """

    of: Dataset = field(default_factory=MNIST)
    """The data set whose images the tasks show."""
    number: Few = 20
    """Tasks."""
    samples_per_task: PositiveInt = 1000
    """Training images of a task, drawn without replacement."""
    first: Literal["permuted", "identity"] = "permuted"
    """The first task: permuted too, as in GEM and La-MAML, or left as it is, as in Kernel Continual Learning."""
    preprocessing: str | None = "none"
    """Takes the place of the data set's own; None keeps that."""

    @property
    def info(self) -> StreamInfo:
        """Sizes of the stream, known without any file."""
        of = self.of.info
        star = "_star" if self.first == "identity" else ""
        return StreamInfo(
            f"permutations{star} of {of.name}", of.shape, of.classes, self.number, of.classes, self.samples_per_task,
            of.test_size, task_known=False, differs=(DIFFERS,),
        )  # fmt: skip

    def order(self, task: int, key: Key) -> Int64[Tensor, " pixels"]:
        """For each pixel of a task, counted from 0, the pixel of the data set it shows."""
        pixels = self.info.shape.height * self.info.shape.width
        unchanged = task == 0 and self.first == "identity"
        return torch.arange(pixels) if unchanged else key("permutation", task).permutation(pixels)

    def shown(self, key: Key) -> Int64[Tensor, " pixels"]:
        """For each pixel of another task that the stream might have, the pixel that it shows."""
        return key.permutation(self.info.shape.height * self.info.shape.width)

    def tasks(self, data_dir: Path, key: Key) -> Iterator[StreamTask]:
        """The tasks in order; a function of the key. RunError for too few training images."""
        data, info = load(self, data_dir, key), self.info
        for t in range(self.number):
            order = self.order(t, key)
            train, test = (
                Split(split.images.flatten(2)[:, :, order].view_as(split.images), split.labels)
                for split in (draw(data.train, self.samples_per_task, key("samples", t), info.name), data.test)
            )
            made_by = {"permutation_sha256": sha256(order.numpy().tobytes())}
            yield StreamTask(train, test, tuple(range(info.outputs)), data.info.class_names, data.transform, made_by)
