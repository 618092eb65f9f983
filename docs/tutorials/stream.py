# %% [markdown]
# # Write a stream
#
# A stream is a row of tasks for continual learning, made of a data set. It is two things: `info`, its sizes before
# any file is read, and `tasks`, a generator that makes each task when it is reached. Whatever a task draws comes from
# the key it is given, so that the same seed gives the same tasks.
#
# In this one the images turn around their frame: task t moves them t pixels to the right, and what leaves at
# one side enters at the other.

# %%
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from suite.datasets.digits import Digits
from suite.datasets.sources import default_data_dir
from suite.keys import Key
from suite.streams.base import draw
from suite.types import Dataset, Split, StreamInfo, StreamTask
from suite.validation import PositiveInt


@dataclass(frozen=True)
class Shifts:
    """Task t moves the images of `of` t pixels to the right, around; one head for all tasks."""

    of: Dataset = field(default_factory=Digits)
    """The data set whose images the tasks show."""
    number: PositiveInt = 4
    """Tasks."""
    samples_per_task: PositiveInt = 300
    """Training images of a task, drawn without replacement."""

    @property
    def info(self) -> StreamInfo:
        of, outputs = self.of.info, self.of.info.classes
        sizes = (outputs, self.number, outputs, self.samples_per_task, of.test_size)
        return StreamInfo(f"shifts of {of.name}", of.shape, *sizes, task_known=False)

    def tasks(self, data_dir: Path, key: Key) -> Iterator[StreamTask]:
        data, classes = self.of.load(data_dir, key("data"), validation=0.0), tuple(range(self.info.outputs))
        for t in range(self.number):
            train = draw(data.train, self.samples_per_task, key("samples", t), self.info.name)
            yield StreamTask(
                moved(train, t), moved(data.test, t), classes, data.info.class_names, data.transform, {"pixels": t}
            )


def moved(split: Split, pixels: int) -> Split:
    return Split(split.images.roll(pixels, dims=-1), split.labels)


# %% [markdown]
# Look at it before anything learns from it: ten test images in each task, which are the same ten.

# %%
import matplotlib.pyplot as plt

stream = Shifts()
tasks = list(stream.tasks(default_data_dir(), Key(0)))
rows = torch.cat([torch.cat(list(task.test.images[:10, 0]), dim=1) for task in tasks])
figure, axes = plt.subplots(figsize=(6, 2.5))
axes.imshow(rows.numpy(), cmap="gray")
axes.set_axis_off()

# %% [markdown]
# Does knowing one task help with the others? If it does, the stream says little of forgetting. A linear network learns
# the first task, and is tested on all.

# %%
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
for _ in range(100):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(tasks[0].train.images), tasks[0].train.labels).backward()
    optimizer.step()
knows = []
for t, task in enumerate(tasks):
    with torch.no_grad():
        right = network(task.test.images).argmax(1) == task.test.labels
    knows.append(100 * float(right.float().mean()))
    print(f"task {t}: {knows[t]:.1f}%")

# %% [markdown]
# The contract: as many tasks and images as `info` says, labels of the tasks' classes, the same tasks for the same key
# and others for another. A name makes the stream a component (once in a session).

# %%
from suite.contracts.checks import check
from suite.registry import load_components, streams

load_components()
streams.register("shifts")(Shifts)
findings = check("streams", "shifts")
for finding in findings:
    print(finding.verdict, "-", finding.promise)

# %% [markdown]
# In a file of its own, with `@streams.register("shifts")` above the class, every method for streams runs on it:
# `python -m suite.run --plugin shifts.py --gin gin/continual/permutations.gin --set 'STREAM = @streams.shifts()'`.
# `docs/templates/stream.py` is a file to start from.
