"""Accuracies of a protocol's networks, each trained on a memory's images and tested on real ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Protocol as Interface
from typing import runtime_checkable

import torch
from torch import nn

from suite.core.cpu_layers import PIECE
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import Pause, bound_by_convolutions, group_of, group_size, no_pause, train_group
from suite.keys import Key
from suite.types import Labelled, Parameterization, Params, Setting, Split
from suite.validation import require_labels

TrainingSet = Callable[[int], Split]
"""Network number -> the images it is trained on."""


@runtime_checkable
class Probe(Interface):
    """Something else than a split that a trained network is tested on (`suite.evaluation.probes`)."""

    counted: bool
    """Whether what it finds is the percentage of a number of images."""

    def __len__(self) -> int: ...

    def to(self, where: torch.device) -> "Probe":
        """The same on a device."""
        ...

    def percent(self, network: nn.Module, batch: int, setting: Setting) -> float:
        """What a network has of it, in percent."""
        ...


Splits = Mapping[str, Split | Probe]
"""The images to test on, by name, such as 'test' or 'validation', and other probes."""

READ_BATCH = 500
"""Images that a network classifies at a time, where no cache asks for fewer."""

Accuracies = dict[str, tuple[float, ...]]
"""For each split the accuracy in percent of every network."""


def evaluate(
    setting: Setting, training_set: TrainingSet, protocol: Protocol, key: Key, splits: Splits, pause: Pause = no_pause
) -> Accuracies:
    """Accuracy in percent of each of the protocol's networks on each split; `pause` is called between epochs."""
    networks = list(evaluate_each(setting, training_set, protocol, key, range(protocol.networks), splits, pause))
    return {name: tuple(accuracies[name] for accuracies in networks) for name in splits}


def evaluate_each(
    setting: Setting,
    training_set: TrainingSet,
    protocol: Protocol,
    key: Key,
    numbers: Iterable[int],
    splits: Splits,
    pause: Pause = no_pause,
) -> Iterator[dict[str, float]]:
    """Yield the accuracies in percent, by split, of the networks of these numbers, in order.

    The key and a network's number alone decide its draws. The whole group of a network (`group_of`) is trained even
    when only some of its accuracies are wanted, since grouping changes last bits.
    """
    splits = {name: split.to(setting.device) for name, split in splits.items()}
    size = cache(lambda images: group_size(setting, images, protocol))
    remaining = list(numbers)
    while remaining:
        number = remaining[0]
        images = training_set(number)
        group = group_of(number, size(len(images)), protocol.networks)
        sets = [images if i == number else training_set(i) for i in group]
        networks = train_group(setting, sets, protocol, [key("network", i) for i in group], pause)
        while remaining and remaining[0] in group:
            network = networks[group.index(remaining.pop(0))]
            batch = read_batch(setting, network)
            yield {name: _percent(network, on, batch, setting) for name, on in splits.items()}


def _percent(network: nn.Module, on: Split | Probe, batch: int, setting: Setting) -> float:
    return accuracy(network, on, batch, setting) if isinstance(on, Split) else on.percent(network, batch, setting)


def read_batch(setting: Setting, network: nn.Module) -> int:
    """Images that a trained network classifies at a time: as many as it is fast on, which a CPU's caches bound."""
    return PIECE if bound_by_convolutions(setting, network) else READ_BATCH


def accuracy(network: nn.Module, split: Split, batch: int = READ_BATCH, setting: Setting | None = None) -> float:
    """Percent of a split's images that the network classifies correctly; logits that are not finite never do.

    With a setting that has groups, the logits of other groups' classes are masked.
    """
    network.eval()
    device = next(network.parameters()).device
    correct = torch.zeros((), dtype=torch.long, device=device)
    with torch.no_grad():
        for first in range(0, len(split), batch):
            images = split.images[first : first + batch].to(device)
            labels = split.labels[first : first + batch].to(device)
            logits = network(images)
            masked = logits if setting is None else setting.masked(logits, labels)
            correct += ((masked.argmax(1) == labels) & logits.isfinite().all(1)).sum()
    return 100 * correct.item() / len(split)


def recalled(setting: Setting, memory: Params) -> Split:
    """What `recall_all` gives for the memory and the classes of a setting; with groups, for hard labels alone."""
    if setting.groups is not None:
        require_labels(setting)
    return recall_all(setting.parameterization, memory, setting.classes)


def recall_all(parameterization: Parameterization, memory: Params, classes: int) -> Split:
    """Every image that a memory of so many classes recalls, class by class, with its label; without a graph.

    Targets are the labels that the memory stores, if it does.
    """
    labels, targets = torch.arange(classes, device=next(iter(memory.values())).device), None
    with torch.no_grad():
        images = parameterization.recall(memory, labels)
        if isinstance(parameterization, Labelled):
            targets = torch.flatten(parameterization.labels(memory, labels), 0, 1)
    return Split(torch.flatten(images, 0, 1), labels.repeat_interleave(images.shape[1]), targets)
