"""What a memory is worth: fresh networks trained on its images, and tested on real ones."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from suite.core.cpu_layers import PIECE
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import Pause, bound_by_convolutions, go_on, group_of, train_all
from suite.keys import Key
from suite.types import Params, Setting, Split

TrainingSet = Callable[[int], Split]
"""Network number -> the images it trains on."""

Part = str
"""What is measured on, such as 'test' or 'validation'."""

Splits = dict[Part, Split]

Accuracies = dict[Part, tuple[float, ...]]


def evaluate(
    setting: Setting, training_set: TrainingSet, protocol: Protocol, key: Key, splits: Splits, pause: Pause = go_on
) -> Accuracies:
    """Accuracy in percent of each of the protocol's networks on each split; `pause` is called now and then."""
    found = list(evaluate_each(setting, training_set, protocol, key, range(protocol.networks), splits, pause))
    return {name: tuple(one[name] for one in found) for name in splits}


def evaluate_each(
    setting: Setting,
    training_set: TrainingSet,
    protocol: Protocol,
    key: Key,
    numbers: Iterable[int],
    splits: Splits,
    pause: Pause = go_on,
) -> Iterator[dict[Part, float]]:
    """Accuracies in percent of the networks of these numbers, in order, as they are found.

    The key and a network's number alone decide its draws. It is trained with its `group_of`, wanted or not, so that
    its last bits do not depend on which networks are missing.
    """
    splits = {name: split.to(setting.device) for name, split in splits.items()}
    left = list(numbers)
    while left:
        first = training_set(left[0])
        group = group_of(setting, len(first), protocol, left[0])
        sets = [first if i == left[0] else training_set(i) for i in group]
        networks = train_all(setting, sets, protocol, [key("network", i) for i in group], pause)
        while left and left[0] in group:
            network = networks[group.index(left.pop(0))]
            batch = PIECE if bound_by_convolutions(setting, network) else 500
            yield {name: accuracy(network, split, batch, setting) for name, split in splits.items()}


def accuracy(network: nn.Module, split: Split, batch: int = 500, setting: Setting | None = None) -> float:
    """Percent of a split that the network labels rightly; scores that are not finite label nothing.

    With a task that has groups, an image is told from the classes of its own group alone.
    """
    network.eval()
    where = next(network.parameters()).device
    right = torch.zeros((), dtype=torch.long, device=where)
    with torch.no_grad():
        for first in range(0, len(split), batch):
            part = Split(split.images[first : first + batch], split.labels[first : first + batch]).to(where)
            scores = network(part.images)
            told = scores if setting is None else setting.masked(scores, part.labels)
            right += ((told.argmax(1) == part.labels) & scores.isfinite().all(1)).sum()
    return 100 * right.item() / len(split)


def recalled(setting: Setting, memory: Params) -> Split:
    """Everything a memory recalls, class by class, with its labels."""
    classes = torch.arange(setting.classes, device=setting.device)
    with torch.no_grad():
        images = setting.parameterization.recall(memory, classes)
    return Split(torch.flatten(images, 0, 1), classes.repeat_interleave(images.shape[1]))
