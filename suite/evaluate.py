"""What a memory is worth: fresh networks trained on its images, and tested on real ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from suite.datasets import augment
from suite.keys import Key, global_generators
from suite.types import Params, Split, Task, check_types, require

TrainingSet = Callable[[int], Split]
"""Network number -> the images it trains on."""

Part = Literal["test", "validation"]
Splits = dict[Part, Split]
Accuracies = dict[Part, tuple[float, ...]]
Pause = Callable[[], None]
"""Called between epochs; may raise to stop."""


def _go_on() -> None:
    """The pause of those who need none."""


@dataclass(frozen=True)
class Protocol:
    """How networks are trained to judge a memory; the defaults are the paper's (A.1; its released code for the rest).

    SGD with momentum at a constant rate for so many epochs of mini-batches; the last epoch counts. `augment` applies
    the data set's augmentation to the training images. `version` changes whenever the same fields would give other
    figures.
    """

    name: str = "paper"
    version: int = 1
    networks: int = 10
    epochs: int = 300
    batch: int = 640
    lr: float = 0.01
    momentum: float = 0.9
    augment: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("networks", "epochs", "batch", "lr"):
            require(self, name, getattr(self, name) > 0, "above 0")
        require(self, "momentum", 0 <= self.momentum < 1, "at least 0 and below 1")

    def sgd_steps(self, images: int) -> int:
        """Optimizer steps that training on so many images takes."""
        return self.epochs * math.ceil(images / self.batch)

    def label(self) -> str:
        """'paper-1', and what was changed of it, as in 'paper-1, changed: networks 3 of 10'."""
        published = PROTOCOLS.get(self.name)
        if published is None:
            return f"{self.name}-{self.version}"
        changed = [
            f"{f.name} {getattr(self, f.name)} of {getattr(published, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(published, f.name)
        ]
        return f"{self.name}-{self.version}" + (", changed: " + ", ".join(changed) if changed else "")

    @property
    def reduced(self) -> bool:
        """Whether it is a published protocol with something taken away or changed."""
        return self.name in PROTOCOLS and self != PROTOCOLS[self.name]


PROTOCOLS = {"paper": Protocol()}
"""The published protocols, by name: change one, and its version must change."""


def evaluate(
    task: Task, training_set: TrainingSet, protocol: Protocol, key: Key, splits: Splits, pause: Pause = _go_on
) -> Accuracies:
    """Accuracy in percent of each of the protocol's networks on each split; `pause` is called now and then."""
    found = [evaluate_one(task, training_set(i), protocol, key, i, splits, pause) for i in range(protocol.networks)]
    return {name: tuple(one[name] for one in found) for name in splits}


def evaluate_one(
    task: Task, data: Split, protocol: Protocol, key: Key, number: int, splits: Splits, pause: Pause = _go_on
) -> dict[Part, float]:
    """Accuracy in percent of the network of this number; the key and number alone decide its draws."""
    network = train(task, data, protocol, key("network", number), pause)
    return {name: accuracy(network, split) for name, split in splits.items()}


def train(task: Task, data: Split, protocol: Protocol, key: Key, pause: Pause = _go_on) -> nn.Module:
    """One fresh network, trained on `data` by the protocol."""
    data = data.to(task.device)
    n, batch = len(data), protocol.batch
    augmentation = task.augmentation if protocol.augment else "none"
    with global_generators(key("network")):  # a network with dropout draws from them while it trains, too
        network = task.architecture.build(task.shape, task.classes).to(task.device).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=protocol.lr, momentum=protocol.momentum)
        for epoch in range(protocol.epochs):
            pause()
            order = key("order", epoch).permutation(n).to(task.device)
            for first in range(0, n, batch):
                rows = order[first : first + batch]
                images = augment.draw(augmentation, key("augmentation", epoch, first), len(rows))(data.images[rows])
                loss = cross_entropy(network(images), data.labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    return network


def accuracy(network: nn.Module, split: Split, batch: int = 500) -> float:
    """Percent of a split that the network labels rightly; scores that are not finite label nothing."""
    network.eval()
    where = next(network.parameters()).device
    right = torch.zeros((), dtype=torch.long, device=where)
    with torch.no_grad():
        for first in range(0, len(split), batch):
            part = Split(split.images[first : first + batch], split.labels[first : first + batch]).to(where)
            scores = network(part.images)
            right += ((scores.argmax(1) == part.labels) & scores.isfinite().all(1)).sum()
    return 100 * right.item() / len(split)


def recalled(task: Task, memory: Params) -> Split:
    """Everything a memory recalls, class by class, with its labels."""
    classes = torch.arange(task.classes, device=task.device)
    with torch.no_grad():
        images = task.parameterization.recall(memory, classes)
    return Split(torch.flatten(images, 0, 1), classes.repeat_interleave(images.shape[1]))
