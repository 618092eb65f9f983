r"""Template of a stream: tasks for continual learning, made of a data set.

    python -m suite.check docs/templates/stream.py
    python -m suite.run --plugin docs/templates/stream.py --gin gin/continual/rotations.gin --seed 0 \
        --gin gin/scale/smoke.gin --set 'STREAM = @streams.noise()' --set 'streams.noise.of = @datasets.digits()' \
        --set 'streams.noise.number = %TASKS' --set 'streams.noise.samples_per_task = %SAMPLES'
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from suite.datasets.mnist import MNIST
from suite.keys import Key
from suite.registry import streams
from suite.streams.base import draw
from suite.types import Dataset, Split, StreamInfo, StreamTask
from suite.validation import PositiveInt


@streams.register("noise")  # its name in gin: @streams.noise()
@dataclass(frozen=True)
class Noise:
    """Task t of T adds noise of standard deviation t / T to the images of `of`; one head for all tasks.

    >>> Noise(number=5).info.tasks
    5
    """

    of: Dataset = field(default_factory=MNIST)
    """The data set whose images the tasks show. Fields of these three names let `suite.check` use a small stream."""
    number: PositiveInt = 20
    """T."""
    samples_per_task: PositiveInt = 1000
    """Training images of a task, drawn without replacement."""

    @property
    def info(self) -> StreamInfo:
        """Sizes of the stream, known before any file is read."""
        of, outputs = self.of.info, self.of.info.classes  # the head has one output for each class of the stream
        sizes = (outputs, self.number, outputs, self.samples_per_task, of.test_size)
        return StreamInfo(f"noise on {of.name}", of.shape, *sizes, task_known=False)

    def tasks(self, data_dir: Path, key: Key) -> Iterator[StreamTask]:
        """The tasks in order, each made when it is reached; a function of the key."""
        data, classes = self.of.load(data_dir, key("data"), validation=0.0), tuple(range(self.info.outputs))
        for t in range(self.number):
            std = t / self.number
            train = draw(data.train, self.samples_per_task, key("samples", t), self.info.name)
            train, test = _noisy(train, std, key("train", t)), _noisy(data.test, std, key("test", t))
            made_by = {"noise": std}  # what distinguishes the task from the others, for the record
            yield StreamTask(train, test, classes, data.info.class_names, data.transform, made_by)


def _noisy(split: Split, std: float, key: Key) -> Split:
    return Split(split.images + std * torch.randn(split.images.shape, generator=key.generator()), split.labels)
