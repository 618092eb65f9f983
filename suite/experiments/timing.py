"""What experiments will cost on this machine, from a few small pieces of their work on made-up images."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch

from suite.errors import UsageError
from suite.evaluation.evaluate import accuracy
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train
from suite.keys import Key
from suite.registry import describe, fingerprint
from suite.storage.files import json_sha256
from suite.types import ClassRows, Objective, Setting, Split

SGD_STEPS = 20
"""Of a training in small batches, measured together."""

IMAGES, IMAGES_ON_GPU = 64, 640
"""Made-up images for training and reading: enough that a batch's fixed cost does not count."""

ONCE, OFTEN = 3.0, 0.2
"""Work that takes more seconds is measured once; less than the second is measured three times more, else once more.

The first time pays for what is set up, such as the libraries' own kernels.
"""


@dataclass(frozen=True)
class Pace:
    """Seconds that evaluation networks take for an image."""

    train: float
    """Of a training step."""
    read: float
    """Of measuring accuracy."""

    def networks(self, networks: int, epochs: int, train_images: int, test_images: int) -> float:
        """Seconds of so many networks, each trained on `train_images` and measured on `test_images`."""
        return networks * (epochs * train_images * self.train + test_images * self.read)


@dataclass(frozen=True)
class _Named:
    """Work to be measured once for all runs that it is equal for: compared by name alone."""

    name: str
    prepare: Callable[[], Callable[[], Any]]
    """Gives what is timed."""

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and self.name == other.name


@lru_cache(maxsize=256)
def _seconds(work: _Named) -> float:
    do = work.prepare()
    took = _timed(do)
    if took > ONCE:
        return took
    again = _timed(do)
    return min(again, _timed(do), _timed(do)) if again < OFTEN else again


def _timed(do: Callable[[], Any]) -> float:
    started = time.perf_counter()
    do()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _place(setting: Setting) -> list[Any]:
    """What decides how long work on a network takes."""
    return [
        describe(setting.architecture),
        str(setting.shape),
        setting.classes,
        setting.augmentation,
        str(setting.device),
    ]


def _made_up(setting: Setting, each: int) -> Split:
    """Noise, `each` images of every class."""
    labels = torch.arange(setting.classes).repeat_interleave(each)
    shape = (len(labels), setting.shape.channels, setting.shape.height, setting.shape.width)
    return Split(torch.randn(shape, generator=Key(0)("rehearsal").generator()), labels).to(setting.device)


def pace(setting: Setting) -> Pace:
    """Of the evaluation's networks."""
    count = IMAGES if setting.device.type == "cpu" else IMAGES_ON_GPU
    protocol = Protocol(networks=1, epochs=1, batch=count)

    def images() -> Split:
        made = _made_up(setting, -(-count // setting.classes))
        return Split(made.images[:count], made.labels[:count])

    def training() -> Callable[[], Any]:
        return partial(train, setting, images(), protocol, Key(0))

    def reading() -> Callable[[], Any]:
        return partial(accuracy, training()(), images())

    one, other = (_Named(json_sha256([what.__name__, _place(setting)]), what) for what in (training, reading))
    return Pace(_seconds(one) / count, _seconds(other) / count)


def sgd_step(setting: Setting, images: int) -> float:
    """Seconds of one training step on so many images."""

    def step() -> Callable[[], Any]:
        made = _made_up(setting, -(-images // setting.classes))
        data = Split(made.images[:images], made.labels[:images])
        return partial(train, setting, data, Protocol(networks=1, epochs=SGD_STEPS, batch=images), Key(0))

    return _seconds(_Named(json_sha256(["sgd step", images, _place(setting)]), step)) / SGD_STEPS


def outer_step(setting: Setting, objective: Objective, images_per_class: float, per_class: int) -> float:
    """Seconds of one outer step; an objective that can say so from shorter ones of its own kind does."""

    def seconds(objective: Objective, classes: int | None = None) -> float:
        """Of one outer step on all classes, or on the first few alone."""
        small = replace(setting, classes=min(classes or setting.classes, setting.classes))

        def prepare() -> Callable[[], Any]:
            memory = setting.parameterization.init(small.shape, small.classes, images_per_class, Key(0))
            memory = {k: v.to(setting.device) for k, v in memory.items()}
            real = ClassRows.of(_made_up(small, getattr(objective, "real_per_class", 1)), small.classes)
            return partial(objective.gradients, small, memory, real, Key(0))

        name = json_sha256(["outer step", _place(small), fingerprint(objective)])
        try:
            return _seconds(_Named(name, prepare))
        except UsageError:  # the bases of all classes do not fit the budget of a few
            if small.classes == setting.classes:
                raise
            return seconds(objective)

    if hasattr(objective, "seconds"):
        return float(objective.seconds(setting, per_class, seconds))
    return seconds(objective)
