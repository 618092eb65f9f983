"""Training of evaluation networks by a protocol, one by one or several side by side.

Both ways take the same steps (`suite.evaluation.descent`) with the same keyed draws (initialisation, order of the
images, augmentation), so that a network's weights depend on the way by rounding alone. The loss is the protocol's, the
mean over images, to what they are to be taken for (`Split.taught`): their labels, the probabilities that a memory
stores, or those that a teacher gives to the augmented images.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy, one_hot

from suite.core.cpu_layers import PIECE
from suite.core.layers import to_device
from suite.errors import UsageError
from suite.evaluation.descent import Descent
from suite.evaluation.protocol import Protocol
from suite.images import augment
from suite.keys import Key, global_generators
from suite.types import Setting, Split

Pause = Callable[[], None]
"""Called between epochs; may raise to stop the training."""

PER_IMAGE_LAYERS = (
    nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.AvgPool2d, nn.MaxPool2d, nn.Flatten, nn.Identity,
    nn.Sequential, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
"""Layers that draw nothing and whose output for an image does not depend on the rest of the batch."""


def no_pause() -> None:
    """The pause that does nothing."""


def group_size(setting: Setting, images: int, protocol: Protocol) -> int:
    """How many networks are trained side by side, on `images` images each; 1 where that would not be faster.

    It is the largest number whose training images together fit into one mini-batch of the protocol, which bounds the
    memory of the device; a larger batch keeps a device busy by itself. Builds one network to see its layers.
    """
    with global_generators(Key(0)):
        network = _fresh_network(setting)
    if not _is_per_image(network) or _is_compute_bound(setting, network):
        return 1
    return max(1, protocol.batch // images)


def group_of(number: int, size: int, networks: int) -> range:
    """Numbers of the networks that are trained side by side with network `number`, itself among them.

    Numbers 0, …, networks - 1 are cut into groups of `size`; a number beyond them may be asked for, too.

    >>> [list(group_of(number, size=4, networks=10)) for number in (0, 5, 9)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """
    first = number // size * size
    return range(first, max(number + 1, min(first + size, networks)))


def train_group(
    setting: Setting, sets: list[Split], protocol: Protocol, keys: list[Key], pause: Pause = no_pause
) -> list[nn.Module]:
    """For each set and key the network that `train` gives, up to rounding; sets of one length are trained by vmap."""
    if len(sets) == 1 or len({len(data) for data in sets}) > 1:
        return [train(setting, data, protocol, key, pause) for data, key in zip(sets, keys, strict=True)]
    sets = [_taught(data.to(setting.device), protocol, setting) for data in sets]
    networks = []
    for key in keys:
        with global_generators(key("network")):
            networks.append(_fresh_network(setting))
    stacked, _ = stack_module_state(networks)
    weights = list(stacked.values())
    descent = Descent(protocol, weights, protocol.sgd_steps(len(sets[0])))
    logits_of = vmap(lambda params, images: functional_call(networks[0], params, (images,)))
    for epoch in range(protocol.epochs):
        pause()
        epochs = [_batches(setting, data, protocol, key, epoch) for data, key in zip(sets, keys, strict=True)]
        for batches in zip(*epochs, strict=True):
            labels, taught = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("labels", "taught"))
            logits = logits_of(stacked, torch.stack([batch.images for batch in batches]))
            logits = setting.masked(logits.flatten(0, 1), labels)
            # The sum over networks of their mean losses: the gradient in a network's weights is that of its own loss.
            loss = _summed_loss(protocol, logits, taught) / len(batches[0])
            descent.step(torch.autograd.grad(loss, weights))
    with torch.no_grad():
        for i, network in enumerate(networks):
            for name, weight in network.named_parameters():
                weight.copy_(stacked[name][i])
    return networks


def train(setting: Setting, data: Split, protocol: Protocol, key: Key, pause: Pause = no_pause) -> nn.Module:
    """A fresh network, trained on `data` by the protocol; initialisation, order and augmentation are drawn by `key`."""
    with global_generators(key("network")):  # a network with dropout draws from them while it trains, too
        network, piece = _fresh_network(setting), protocol.batch
        if bound_by_convolutions(setting, network):
            piece = PIECE if _is_per_image(network) else piece
            network = to_device(network, setting.device)
        train_further(setting, network, data, protocol, key, pause, piece)
    return network


def train_further(
    setting: Setting,
    network: nn.Module,
    data: Split,
    protocol: Protocol,
    key: Key,
    pause: Pause = no_pause,
    piece: int | None = None,
) -> None:
    """Train a network in place, as `train` does a fresh one; a batch passes through it in pieces of so many images."""
    data, piece = _taught(data.to(setting.device), protocol, setting), piece or protocol.batch
    weights = [p for p in network.parameters() if p.requires_grad]
    descent = Descent(protocol, weights, protocol.sgd_steps(len(data)))
    for epoch in range(protocol.epochs):
        pause()
        for batch in _batches(setting, data, protocol, key, epoch):
            network.zero_grad()
            parts = (v.split(piece) for v in (batch.images, batch.labels, batch.taught))
            for images, labels, taught in zip(*parts, strict=True):
                logits = setting.masked(network(images), labels)
                if protocol.loss == "cross_entropy":
                    loss = cross_entropy(logits, taught) * (len(labels) / len(batch))
                else:
                    loss = _summed_loss(protocol, logits, taught) / len(batch)
                loss.backward()
            descent.step([w.grad for w in weights])


def bound_by_convolutions(setting: Setting, network: nn.Module) -> bool:
    """Whether `cpu_layers` and batches in pieces pay off.

    A ConvNet on 28x28 images trains 1.3 to 2.2 times as fast with them, on 8x8 images slower.
    """
    return _is_compute_bound(setting, network) and setting.shape.height >= 16


def _taught(data: Split, protocol: Protocol, setting: Setting) -> Split:
    """The images with the labels that the protocol teaches.

    Raises UsageError where it has a teacher and they do not, and where logits of other groups of classes are masked and
    the protocol's loss is of all.
    """
    if setting.groups is not None and (protocol.cut_mix or protocol.loss != "cross_entropy"):
        raise UsageError(
            f"protocol {protocol.name} teaches all classes at once (CutMix, squared error), and here networks are told "
            "the task; choose another protocol"
        )
    if protocol.labels == "class":
        return replace(data, targets=None, teacher=None)
    if protocol.labels == "teacher" and data.teacher is None:
        raise UsageError(
            f"protocol {protocol.name} teaches by a network that was trained on all training images, which only "
            "suite.evaluate and distillation train; choose another protocol, or protocol.labels = 'stored'"
        )
    return data


def _summed_loss(protocol: Protocol, logits: Tensor, taught: Tensor) -> Tensor:
    """The sum over images of the protocol's loss."""
    if protocol.loss == "cross_entropy":
        return cross_entropy(logits, taught, reduction="sum")
    classes = logits.shape[1]
    probabilities = one_hot(taught, classes).to(logits.dtype) if taught.ndim == 1 else taught
    return (logits - (probabilities - 1 / classes)).square().sum() / 2


def _fresh_network(setting: Setting) -> nn.Module:
    """A newly built network on the setting's device, in training mode; drawn from the global generators."""
    return setting.architecture.build(setting.shape, setting.classes).to(setting.device).train()


def _batches(setting: Setting, data: Split, protocol: Protocol, key: Key, epoch: int) -> Iterator[Split]:
    """The mini-batches of one epoch, in an order of its own, augmented and mixed."""
    augmentation = protocol.augmentation_of(setting.augmentation)
    order = key("order", epoch).permutation(len(data)).to(setting.device)
    for first in range(0, len(data), protocol.batch):
        rows = order[first : first + protocol.batch]
        augmented = augment.draw(augmentation, key("augmentation", epoch, first), len(rows))
        batch = data.at(rows)
        batch = replace(batch, images=augmented(batch.images))
        yield cut_mix(batch, protocol.cut_mix, setting.classes, key("cut mix", epoch, first)).told()


def cut_mix(batch: Split, probability: float, classes: int, key: Key) -> Split:
    """With this probability, images with a rectangle of another of the batch, and as much of its label (CutMix).

    The rectangle has the image's proportions and a part 1 - λ of its area, λ uniform in [0, 1), less what lies outside;
    the targets are the labels' in the proportion of the pixels. With a probability above 0 every batch has targets.
    """
    if not probability:
        return batch
    known = batch.targets
    targets = one_hot(batch.labels, classes).to(batch.images.dtype) if known is None else known
    drawn, part, *centre = torch.rand(4, generator=key.generator(), dtype=torch.float64).tolist()
    if drawn >= probability:
        return replace(batch, targets=targets)
    inside = []
    for size, middle in zip(batch.images.shape[-2:], centre, strict=True):
        half = int(size * (1 - part) ** 0.5) // 2
        at = int(middle * size)
        places = torch.arange(size, device=batch.images.device)
        inside.append((places >= at - half) & (places < at + half))
    pasted = inside[0][:, None] & inside[1]
    others = key("others").permutation(len(batch)).to(batch.images.device)
    share = float(pasted.sum()) / pasted.numel()
    images = torch.where(pasted, batch.images[others], batch.images)
    return replace(batch, images=images, targets=(1 - share) * targets + share * targets[others])


def _is_compute_bound(setting: Setting, network: nn.Module) -> bool:
    """Whether arithmetic alone takes the time: training networks side by side with vmap brings no speed-up.

    Measured on two cores: side by side, ConvNets train 0.75 to 1.3 times as fast, MLPs 1.2 to 2 times. A GPU finishes a
    small network's operations before the next is launched.
    """
    return setting.device.type == "cpu" and any(isinstance(part, nn.Conv2d) for part in network.modules())


def _is_per_image(network: nn.Module) -> bool:
    """Whether a batch in pieces, or networks side by side, give each network what its whole batch gives it.

    Not so with dropout or stochastic depth, which would draw in another order, nor with batch norm, which mixes the
    images of a batch and keeps running statistics. The code of a network that is to stay `as_written` may do so, too.
    """
    if getattr(network, "as_written", False):
        return False
    layers = [part for part in network.modules() if not list(part.children())]
    return not list(network.buffers()) and all(type(layer) in PER_IMAGE_LAYERS for layer in layers)
