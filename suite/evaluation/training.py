"""Training of evaluation networks, one by one or several together, by a protocol."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from suite.core.cpu_layers import PIECE, fast
from suite.evaluation.protocol import Protocol
from suite.images import augment
from suite.keys import Key, global_generators
from suite.types import Setting, Split

Pause = Callable[[], None]
"""Called between epochs; may raise to stop."""

ONE_BY_ONE_LAYERS = (
    nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.AvgPool2d, nn.MaxPool2d, nn.Flatten, nn.Identity,
    nn.Sequential, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
"""Layers that draw nothing, and treat every image as if it were alone."""


def go_on() -> None:
    """The pause of those who need none."""


def group_of(setting: Setting, images: int, protocol: Protocol, number: int) -> range:
    """The numbers of the networks that are trained together with this one, itself among them."""
    size = together(setting, images, protocol)
    first = number // size * size
    return range(first, max(number + 1, min(first + size, protocol.networks)))


def together(setting: Setting, images: int, protocol: Protocol) -> int:
    """How many networks are trained together on so many images each: 1 where that would not be faster.

    Their batches together hold no more images than one of the protocol's may, which bounds the memory that they need;
    larger batches keep a device busy without company.
    """
    with global_generators(Key(0)):
        network = _fresh(setting)
    if not _treats_images_one_by_one(network) or _convolves_on_cpu(setting, network):
        return 1
    return max(1, protocol.batch // images)


def train_all(
    setting: Setting, sets: list[Split], protocol: Protocol, keys: list[Key], pause: Pause = go_on
) -> list[nn.Module]:
    """For each set and key the network that `train` gives, up to rounding, trained together (sets of one length)."""
    if len(sets) == 1 or len({len(data) for data in sets}) > 1:
        return [train(setting, data, protocol, key, pause) for data, key in zip(sets, keys, strict=True)]
    sets = [data.to(setting.device) for data in sets]
    networks = []
    for key in keys:
        with global_generators(key("network")):
            networks.append(_fresh(setting))
    stacked, _ = stack_module_state(networks)
    weights = list(stacked.values())
    velocities = [torch.zeros_like(w) for w in weights]
    scores = vmap(lambda own, images: functional_call(networks[0], own, (images,)))
    for epoch in range(protocol.epochs):
        pause()
        each = [_batches(setting, data, protocol, key, epoch) for data, key in zip(sets, keys, strict=True)]
        for batches in zip(*each, strict=True):
            labels = torch.cat([batch.labels for batch in batches])
            given = scores(stacked, torch.stack([batch.images for batch in batches]))
            given = setting.masked(given.flatten(0, 1), labels)
            loss = cross_entropy(given, labels, reduction="sum") / len(batches[0])
            slopes = torch.autograd.grad(loss, weights)  # a network's loss alone moves its weights
            _descend(protocol, weights, velocities, slopes)
    with torch.no_grad():
        for i, network in enumerate(networks):
            for name, weight in network.named_parameters():
                weight.copy_(stacked[name][i])
    return networks


def train(setting: Setting, data: Split, protocol: Protocol, key: Key, pause: Pause = go_on) -> nn.Module:
    """One fresh network, trained on `data` by the protocol."""
    data = data.to(setting.device)
    with global_generators(key("network")):  # a network with dropout draws from them while it trains, too
        network, piece = _fresh(setting), protocol.batch
        if bound_by_convolutions(setting, network):
            piece = PIECE if _treats_images_one_by_one(network) else piece
            network = fast(network, setting.device)
        weights = [p for p in network.parameters() if p.requires_grad]
        velocities = [torch.zeros_like(w) for w in weights]
        for epoch in range(protocol.epochs):
            pause()
            for batch in _batches(setting, data, protocol, key, epoch):
                network.zero_grad()
                for images, labels in zip(batch.images.split(piece), batch.labels.split(piece), strict=True):
                    loss = cross_entropy(setting.masked(network(images), labels), labels) * (len(labels) / len(batch))
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


def _fresh(setting: Setting) -> nn.Module:
    return setting.architecture.build(setting.shape, setting.classes).to(setting.device).train()


def _batches(setting: Setting, data: Split, protocol: Protocol, key: Key, epoch: int) -> Iterator[Split]:
    """The mini-batches of one epoch, augmented."""
    augmentation = setting.augmentation if protocol.augment else "none"
    order = key("order", epoch).permutation(len(data)).to(setting.device)
    for first in range(0, len(data), protocol.batch):
        rows = order[first : first + protocol.batch]
        augmented = augment.draw(augmentation, key("augmentation", epoch, first), len(rows))
        yield Split(augmented(data.images[rows]), data.labels[rows])


def _convolves_on_cpu(setting: Setting, network: nn.Module) -> bool:
    """Whether networks wait for arithmetic alone, so that company gains them nothing.

    Measured on two cores: together, a ConvNet is 0.75 to 1.3 times as fast, an MLP 1.2 to 2 times. A GPU finishes a
    small network's operations before the next is launched.
    """
    return setting.device.type == "cpu" and any(isinstance(part, nn.Conv2d) for part in network.modules())


def bound_by_convolutions(setting: Setting, network: nn.Module) -> bool:
    """Whether fast layers and pieces pay: a 28x28 ConvNet is trained 1.3 to 2.2 times as fast, an 8x8 one slower."""
    return _convolves_on_cpu(setting, network) and setting.shape.height >= 16


def _treats_images_one_by_one(network: nn.Module) -> bool:
    """Whether pieces, or networks side by side, give what the whole batch gives one network.

    Not so with dropout or stochastic depth, which would draw in another order, nor with batch norm, which mixes the
    images of a batch and keeps running statistics.
    """
    layers = [part for part in network.modules() if not list(part.children())]
    return not list(network.buffers()) and all(type(layer) in ONE_BY_ONE_LAYERS for layer in layers)
