"""What a memory is worth: fresh networks trained on its images, and tested on real ones."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from suite.datasets import augment
from suite.fast import PIECE, fast
from suite.keys import Key, global_generators
from suite.types import Params, Split, Task, check_types, require

TrainingSet = Callable[[int], Split]
"""Network number -> the images it trains on."""

Part = str
"""What is measured on, such as 'test' or 'validation'."""
Splits = dict[Part, Split]
Accuracies = dict[Part, tuple[float, ...]]
Pause = Callable[[], None]
"""Called between epochs; may raise to stop."""

ONE_BY_ONE_LAYERS = (
    nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.AvgPool2d, nn.MaxPool2d, nn.Flatten, nn.Identity,
    nn.Sequential, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
"""Layers that draw nothing, and treat every image as if it were alone."""


def _go_on() -> None:
    """The pause of those who need none."""


@dataclass(frozen=True)
class Protocol:
    """How networks are trained to judge a memory; the defaults are the paper's (A.1; its released code for the rest).

    SGD with momentum at a constant rate for so many epochs of mini-batches; the last epoch counts. `augment` applies
    the data set's augmentation to the training images. `version` changes whenever the same fields would give other
    figures. How the work is arranged (networks together or one by one, batches whole or in pieces) changes only the
    rounding: weights agree to 1e-10 in float64, and in float32 a network's accuracy to 1 percentage point.
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
        """Whether it is anything but a published protocol."""
        return PROTOCOLS.get(self.name) != self


PROTOCOLS = {"paper": Protocol()}
"""The published protocols, by name: change one, and its version must change."""


def evaluate(
    task: Task, training_set: TrainingSet, protocol: Protocol, key: Key, splits: Splits, pause: Pause = _go_on
) -> Accuracies:
    """Accuracy in percent of each of the protocol's networks on each split; `pause` is called now and then."""
    found = list(evaluate_each(task, training_set, protocol, key, range(protocol.networks), splits, pause))
    return {name: tuple(one[name] for one in found) for name in splits}


def evaluate_each(
    task: Task,
    training_set: TrainingSet,
    protocol: Protocol,
    key: Key,
    numbers: Iterable[int],
    splits: Splits,
    pause: Pause = _go_on,
) -> Iterator[dict[Part, float]]:
    """Accuracies in percent of the networks of these numbers, in order, as they are found.

    The key and a network's number alone decide its draws. It is trained with its `companions`, wanted or not, so that
    its last bits do not depend on which networks are missing.
    """
    splits = {name: split.to(task.device) for name, split in splits.items()}
    left = list(numbers)
    while left:
        first = training_set(left[0])
        group = companions(task, len(first), protocol, left[0])
        sets = [first if i == left[0] else training_set(i) for i in group]
        networks = train_all(task, sets, protocol, [key("network", i) for i in group], pause)
        while left and left[0] in group:
            network = networks[group.index(left.pop(0))]
            batch = PIECE if _bound_by_convolutions(task, network) else 500
            yield {name: accuracy(network, split, batch, task) for name, split in splits.items()}


def companions(task: Task, images: int, protocol: Protocol, number: int) -> range:
    """The numbers of the networks that are trained together with this one, itself among them."""
    size = together(task, images, protocol)
    first = number // size * size
    return range(first, max(number + 1, min(first + size, protocol.networks)))


def together(task: Task, images: int, protocol: Protocol) -> int:
    """How many networks are trained together on so many images each: 1 where that would not be faster.

    Their batches together hold no more images than one of the protocol's may, which bounds the memory that they need;
    larger batches keep a device busy without company.
    """
    with global_generators(Key(0)):
        network = _fresh(task)
    if not _treats_images_one_by_one(network) or _convolves_on_cpu(task, network):
        return 1
    return max(1, protocol.batch // images)


def train_all(
    task: Task, sets: list[Split], protocol: Protocol, keys: list[Key], pause: Pause = _go_on
) -> list[nn.Module]:
    """For each set and key the network that `train` gives, up to rounding, trained together (sets of one length)."""
    if len(sets) == 1 or len({len(data) for data in sets}) > 1:
        return [train(task, data, protocol, key, pause) for data, key in zip(sets, keys, strict=True)]
    sets = [data.to(task.device) for data in sets]
    networks = []
    for key in keys:
        with global_generators(key("network")):
            networks.append(_fresh(task))
    stacked, _ = stack_module_state(networks)
    weights = list(stacked.values())
    velocities = [torch.zeros_like(w) for w in weights]
    scores = vmap(lambda own, images: functional_call(networks[0], own, (images,)))
    for epoch in range(protocol.epochs):
        pause()
        each = [_batches(task, data, protocol, key, epoch) for data, key in zip(sets, keys, strict=True)]
        for batches in zip(*each, strict=True):
            labels = torch.cat([batch.labels for batch in batches])
            given = scores(stacked, torch.stack([batch.images for batch in batches]))
            given = task.masked(given.flatten(0, 1), labels)
            loss = cross_entropy(given, labels, reduction="sum") / len(batches[0])
            slopes = torch.autograd.grad(loss, weights)  # a network's loss alone moves its weights
            _descend(protocol, weights, velocities, slopes)
    with torch.no_grad():
        for i, network in enumerate(networks):
            for name, weight in network.named_parameters():
                weight.copy_(stacked[name][i])
    return networks


def train(task: Task, data: Split, protocol: Protocol, key: Key, pause: Pause = _go_on) -> nn.Module:
    """One fresh network, trained on `data` by the protocol."""
    data = data.to(task.device)
    with global_generators(key("network")):  # a network with dropout draws from them while it trains, too
        network, piece = _fresh(task), protocol.batch
        if _bound_by_convolutions(task, network):
            piece = PIECE if _treats_images_one_by_one(network) else piece
            network = fast(network, task.device)
        weights = [p for p in network.parameters() if p.requires_grad]
        velocities = [torch.zeros_like(w) for w in weights]
        for epoch in range(protocol.epochs):
            pause()
            for batch in _batches(task, data, protocol, key, epoch):
                network.zero_grad()
                for images, labels in zip(batch.images.split(piece), batch.labels.split(piece), strict=True):
                    loss = cross_entropy(task.masked(network(images), labels), labels) * (len(labels) / len(batch))
                    loss.backward()
                _descend(protocol, weights, velocities, [w.grad for w in weights])
    return network


@torch.no_grad()
def _descend(
    protocol: Protocol, weights: Sequence[Tensor], velocities: Sequence[Tensor], slopes: Sequence[Tensor | None]
) -> None:
    """v = m v + g, w = w - lr v in place, to the bits of torch.optim.SGD, whose import takes two seconds."""
    for w, v, slope in zip(weights, velocities, slopes, strict=True):
        if slope is not None:
            v.mul_(protocol.momentum).add_(slope)
            w.sub_(v, alpha=protocol.lr)


def _fresh(task: Task) -> nn.Module:
    return task.architecture.build(task.shape, task.classes).to(task.device).train()


def _batches(task: Task, data: Split, protocol: Protocol, key: Key, epoch: int) -> Iterator[Split]:
    """The mini-batches of one epoch, augmented."""
    augmentation = task.augmentation if protocol.augment else "none"
    order = key("order", epoch).permutation(len(data)).to(task.device)
    for first in range(0, len(data), protocol.batch):
        rows = order[first : first + protocol.batch]
        augmented = augment.draw(augmentation, key("augmentation", epoch, first), len(rows))
        yield Split(augmented(data.images[rows]), data.labels[rows])


def _convolves_on_cpu(task: Task, network: nn.Module) -> bool:
    """Whether networks wait for arithmetic alone, so that company gains them nothing.

    Measured on two cores: together, a ConvNet is 0.75 to 1.3 times as fast, an MLP 1.2 to 2 times. A GPU finishes a
    small network's operations before the next is launched.
    """
    return task.device.type == "cpu" and any(isinstance(part, nn.Conv2d) for part in network.modules())


def _bound_by_convolutions(task: Task, network: nn.Module) -> bool:
    """Whether fast layers and pieces pay: a 28x28 ConvNet is trained 1.3 to 2.2 times as fast, an 8x8 one slower."""
    return _convolves_on_cpu(task, network) and task.shape.height >= 16


def _treats_images_one_by_one(network: nn.Module) -> bool:
    """Whether pieces, or networks side by side, give what the whole batch gives one network.

    Not so with dropout or stochastic depth, which would draw in another order, nor with batch norm, which mixes the
    images of a batch and keeps running statistics.
    """
    layers = [part for part in network.modules() if not list(part.children())]
    return not list(network.buffers()) and all(type(layer) in ONE_BY_ONE_LAYERS for layer in layers)


def accuracy(network: nn.Module, split: Split, batch: int = 500, task: Task | None = None) -> float:
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
            told = scores if task is None else task.masked(scores, part.labels)
            right += ((told.argmax(1) == part.labels) & scores.isfinite().all(1)).sum()
    return 100 * right.item() / len(split)


def recalled(task: Task, memory: Params) -> Split:
    """Everything a memory recalls, class by class, with its labels."""
    classes = torch.arange(task.classes, device=task.device)
    with torch.no_grad():
        images = task.parameterization.recall(memory, classes)
    return Split(torch.flatten(images, 0, 1), classes.repeat_interleave(images.shape[1]))
