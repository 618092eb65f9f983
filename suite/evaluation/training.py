"""Training of evaluation networks by a protocol, one by one or several side by side.

Both ways take the same steps v <- m v + ∇L(w), w <- w - lr v with the same keyed draws (initialisation, order of the
images, augmentation), so that a network's weights depend on the way by rounding alone. L is the mean cross-entropy to
what the images are to be taken for (`Split.taught`): their labels, or the probabilities that a memory stores.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from suite.core.cpu_layers import PIECE
from suite.core.layers import to_device
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
    sets = [data.to(setting.device) for data in sets]
    networks = []
    for key in keys:
        with global_generators(key("network")):
            networks.append(_fresh_network(setting))
    stacked, _ = stack_module_state(networks)
    weights = list(stacked.values())
    velocities = [torch.zeros_like(w) for w in weights]
    logits_of = vmap(lambda params, images: functional_call(networks[0], params, (images,)))
    for epoch in range(protocol.epochs):
        pause()
        epochs = [_batches(setting, data, protocol, key, epoch) for data, key in zip(sets, keys, strict=True)]
        for batches in zip(*epochs, strict=True):
            labels, taught = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("labels", "taught"))
            logits = logits_of(stacked, torch.stack([batch.images for batch in batches]))
            logits = setting.masked(logits.flatten(0, 1), labels)
            # The sum over networks of their mean losses: the gradient in a network's weights is that of its own loss.
            loss = cross_entropy(logits, taught, reduction="sum") / len(batches[0])
            _sgd_step(protocol, weights, velocities, torch.autograd.grad(loss, weights))
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
    data, piece = data.to(setting.device), piece or protocol.batch
    weights = [p for p in network.parameters() if p.requires_grad]
    velocities = [torch.zeros_like(w) for w in weights]
    for epoch in range(protocol.epochs):
        pause()
        for batch in _batches(setting, data, protocol, key, epoch):
            network.zero_grad()
            parts = (v.split(piece) for v in (batch.images, batch.labels, batch.taught))
            for images, labels, taught in zip(*parts, strict=True):
                loss = cross_entropy(setting.masked(network(images), labels), taught) * (len(labels) / len(batch))
                loss.backward()
            _sgd_step(protocol, weights, velocities, [w.grad for w in weights])


def bound_by_convolutions(setting: Setting, network: nn.Module) -> bool:
    """Whether `cpu_layers` and batches in pieces pay off.

    A ConvNet on 28x28 images trains 1.3 to 2.2 times as fast with them, on 8x8 images slower.
    """
    return _is_compute_bound(setting, network) and setting.shape.height >= 16


@torch.no_grad()
def _sgd_step(
    protocol: Protocol, weights: Sequence[Tensor], velocities: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> None:
    """v = m v + g, w = w - lr v in place, to the bits of torch.optim.SGD, whose import takes two seconds."""
    for w, v, grad in zip(weights, velocities, grads, strict=True):
        if grad is not None:
            v.mul_(protocol.momentum).add_(grad)
            w.sub_(v, alpha=protocol.lr)


def _fresh_network(setting: Setting) -> nn.Module:
    """A newly built network on the setting's device, in training mode; drawn from the global generators."""
    return setting.architecture.build(setting.shape, setting.classes).to(setting.device).train()


def _batches(setting: Setting, data: Split, protocol: Protocol, key: Key, epoch: int) -> Iterator[Split]:
    """The mini-batches of one epoch, in an order of its own, augmented."""
    augmentation = setting.augmentation if protocol.augment else "none"
    order = key("order", epoch).permutation(len(data)).to(setting.device)
    for first in range(0, len(data), protocol.batch):
        rows = order[first : first + protocol.batch]
        augmented = augment.draw(augmentation, key("augmentation", epoch, first), len(rows))
        batch = data.at(rows)
        yield replace(batch, images=augmented(batch.images))


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
