"""Classes in turn: every task shows classes that no other task has."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from suite.datasets.cifar import CIFAR100
from suite.errors import UsageError
from suite.keys import Key
from suite.registry import streams
from suite.streams.base import draw, load, of_classes
from suite.types import Dataset, StreamInfo, StreamTask
from suite.validation import Above, Few, Fraction, PositiveInt


@streams.register("class_splits")
@dataclass(frozen=True)
class ClassSplits:
    """A task is `classes_per_task` classes of `of`, in an order drawn from the seed; labels are places in that order.

    The head has an output for every class of the stream; the task of an image is known at test. Paper, A.2, Table 1:
    incremental CIFAR-100.

    >>> info = ClassSplits(number=2, classes_per_task=3).info
    >>> info.name, info.outputs, info.task_known
    ('class splits of cifar100', 6, True)
    """

    of: Dataset = field(default_factory=CIFAR100)
    """The data set whose images the tasks show."""
    number: Few = 20
    """Tasks."""
    classes_per_task: Annotated[int, Above(1)] = 5
    """Classes that one task shows, and no other."""
    samples_per_task: PositiveInt = 2250
    """Training images of a task, drawn without replacement."""
    left_out: Fraction = 0.1
    """Of every training class, shown by no task: a tenth, as in La-MAML."""
    preprocessing: str | None = "standardize"
    """Takes the place of the data set's own; None keeps that."""

    def __post_init__(self) -> None:
        needed, classes = self.number * self.classes_per_task, self.of.info.classes
        if needed > classes:
            raise UsageError(
                f"ClassSplits.number: {self.number} tasks of {self.classes_per_task} classes need {needed} classes, "
                f"and {self.of.info.name} has {classes}; lower one of them"
            )

    @property
    def info(self) -> StreamInfo:
        """Sizes of the stream, known without any file."""
        of, k = self.of.info, self.classes_per_task
        differs = ("the order of classes and the images left out are drawn from the run's seed",)
        return StreamInfo(
            f"class splits of {of.name}", of.shape, self.number * k, self.number, k, self.samples_per_task,
            of.test_size * k // of.classes, task_known=True, differs=differs,
        )  # fmt: skip

    def tasks(self, data_dir: Path, key: Key) -> Iterator[StreamTask]:
        """The tasks in order; a function of the key. RunError for too few training images."""
        data, info, k = load(self, data_dir, key, self.left_out), self.info, self.classes_per_task
        order = key("classes").permutation(self.of.info.classes)[: info.outputs]
        train, test = (split.relabelled(order.tolist()) for split in (data.train, data.test))
        for t in range(self.number):
            classes = tuple(range(k * t, k * (t + 1)))
            names = tuple(self.of.info.class_names[int(order[c])] for c in classes)
            samples = draw(of_classes(train, classes), self.samples_per_task, key("samples", t), info.name)
            made_by = {"classes": list(names)}
            yield StreamTask(samples, of_classes(test, classes), classes, names, data.transform, made_by)
