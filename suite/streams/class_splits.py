"""Classes in turn: every task shows classes that no other task has."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch

from suite.datasets.cifar import CIFAR100
from suite.errors import UsageError
from suite.keys import Key
from suite.registry import streams
from suite.streams.base import draw, load, of_classes
from suite.types import Dataset, Split, StreamInfo, StreamTask
from suite.validation import Above, Fraction, PositiveInt


@streams.register("class_splits")
@dataclass(frozen=True)
class ClassSplits:
    """A task is `classes_per_task` classes of `of`, in an order drawn from the seed; labels are places in that order.

    A tenth of every training class is left out (`left_out`), as in La-MAML. The head has an output for every class of
    the stream; the task of an image is known at test. `preprocessing` takes the place of the data set's own (None keeps
    that). Paper, A.2, Table 1: incremental CIFAR-100.
    """

    of: Dataset = field(default_factory=CIFAR100)
    number: PositiveInt = 20
    classes_per_task: Annotated[int, Above(1)] = 5
    samples_per_task: PositiveInt = 2250
    left_out: Fraction = 0.1
    preprocessing: str | None = "standardize"

    def __post_init__(self) -> None:
        wanted, known = self.number * self.classes_per_task, self.of.info.classes
        if wanted > known:
            raise UsageError(
                f"ClassSplits.number: {self.number} tasks of {self.classes_per_task} classes need {wanted} classes, "
                f"and {self.of.info.name} has {known}; lower one of them"
            )

    @property
    def info(self) -> StreamInfo:
        of, k = self.of.info, self.classes_per_task
        differs = ("the order of classes and the images left out are drawn from the run's seed",)
        return StreamInfo(
            f"class splits of {of.name}", of.shape, self.number * k, self.number, k, self.samples_per_task,
            of.test_size * k // of.classes, task_known=True, differs=differs,
        )  # fmt: skip

    def tasks(self, data_dir: Path, key: Key) -> Iterator[StreamTask]:
        data, info, k = load(self, data_dir, key, self.left_out), self.info, self.classes_per_task
        order = key("classes").permutation(self.of.info.classes)[: info.outputs]
        place = torch.full((self.of.info.classes,), -1)
        place[order] = torch.arange(info.outputs)
        train, test = (Split(split.images, place[split.labels]) for split in (data.train, data.test))
        for t in range(self.number):
            own = tuple(range(k * t, k * (t + 1)))
            names = tuple(self.of.info.class_names[int(order[c])] for c in own)
            shown = draw(of_classes(train, own), self.samples_per_task, key("samples", t), info.name)
            yield StreamTask(shown, of_classes(test, own), own, names, data.transform, {"classes": list(names)})
