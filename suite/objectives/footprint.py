"""Bytes of an unroll: those of a state and of an inner step's graph, measured once for equal networks."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core import trees
from suite.core.networks import fresh_network, network_identity
from suite.core.unroll import used_gradients
from suite.keys import Key
from suite.types import Optimizer, Setting

SLACK = 1.35
"""Bytes that a graph takes of a process for each byte it saves, as seen: gaps between tensors, and temporaries."""

FIXED = 112 * 2**20
"""Bytes that a process takes on top whatever is kept, as seen: workspaces. Announced, not planned with."""

_graph_bytes: dict[tuple[object, ...], int] = {}
"""Measured once for each network, image shape, device and number of images."""


def state_bytes(network: nn.Module, optimizer: Optimizer) -> int:
    """Bytes of one state of the inner loop: weights, and the optimizer's slots."""
    state = optimizer.init(trees.detached(dict(network.named_parameters())))
    tensors = [*network.parameters(), *(v for part in state.values() for v in part.values())]
    return sum(v.numel() * v.element_size() for v in tensors)


def step_bytes(setting: Setting, images: int) -> int:
    """Bytes of the graph of one inner step on a batch, linear in the images: from graphs of one and of two."""
    one, two = graph_bytes(setting, 1), graph_bytes(setting, 2)
    return int(SLACK * (one + (two - one) * (images - 1)))


def outer_loss_bytes(setting: Setting, images: int) -> int:
    """Bytes of the outer loss's graph on real images: about half of an inner step's, image for image."""
    return images * (graph_bytes(setting, 2) - graph_bytes(setting, 1)) // 2


def graph_bytes(setting: Setting, images: int) -> int:
    """Bytes that autograd saves for one inner step on so many images, weights left out."""
    identity = (*network_identity(setting), images)
    if identity not in _graph_bytes:
        _graph_bytes[identity] = _measured_bytes(setting, images)
    return _graph_bytes[identity]


def _measured_bytes(setting: Setting, images: int) -> int:
    """The sizes of all storages that an inner step's graph saves, each counted once."""
    network = fresh_network(setting, Key(0))
    params = trees.leaves(dict(network.named_parameters()))
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    shape = (images, setting.shape.channels, setting.shape.height, setting.shape.width)
    batch = torch.randn(shape, generator=Key(0)("plan", images).generator())
    batch = batch.to(next(network.parameters())).requires_grad_()
    labels = torch.zeros(images, dtype=torch.long, device=setting.device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = cross_entropy(functional_call(network, params, (batch,)), labels)
        graph = used_gradients(loss, params, "the inner loss", create_graph=True)
    weights = {p.untyped_storage().data_ptr() for p in params.values()}
    saved = sum(size for pointer, size in sizes.items() if pointer not in weights)
    del graph  # kept until here, so that no saved tensor's address was used twice
    return saved
