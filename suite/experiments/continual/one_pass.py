"""A network that goes through a stream once: steps on what comes in and on what is replayed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.experiments.continual import streaming
from suite.experiments.continual.metrics import Matrix
from suite.experiments.continual.reservoir import Reservoir
from suite.images import augment
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.types import Optimizer, Params, Session, Setting, Split, State, StreamTask

Rows = Int64[Tensor, " n"]
"""Numbers of images."""


@runtime_checkable
class Replay(Protocol):
    """What a network sees again."""

    def draw(self, task: int, key: Key) -> Tensor:
        """Numbers of the images of one step in a task."""
        ...

    def seen(self, incoming: Tensor, key: Key) -> None:
        """A batch has come in and been learned."""
        ...


class Nothing:
    """No replay."""

    def draw(self, task: int, key: Key) -> Rows:
        """No image."""
        return torch.empty(0, dtype=torch.int64)

    def seen(self, incoming: Rows, key: Key) -> None:
        """Nothing is kept."""


class OfReservoir:
    """Images that came in, kept by reservoir sampling over the whole stream."""

    def __init__(self, capacity: int, batch: int) -> None:
        self._kept, self._batch = Reservoir.empty(capacity), batch

    def draw(self, task: int, key: Key) -> Rows:
        """So many of those kept, without replacement."""
        return self._kept.draw(self._batch, key)

    def seen(self, incoming: Rows, key: Key) -> None:
        """They are offered to the reservoir."""
        self._kept = self._kept.add(incoming, key)


@dataclass(frozen=True, eq=False)
class OfMemories:
    """Images that memories of the tasks before recall."""

    numbers: Sequence[Tensor]
    """Of each task's memory, as many as it recalls."""
    batch: int
    """Images of a step."""

    def draw(self, task: int, key: Key) -> Rows:
        """So many of them, without replacement; none in the first task."""
        before = torch.cat([torch.empty(0, dtype=torch.int64), *self.numbers[:task]])
        return before[key.permutation(len(before))[: self.batch]]

    def seen(self, incoming: Rows, key: Key) -> None:
        """A memory stands for it, once its task is over."""


@dataclass(frozen=True)
class OnePass:
    """How a network goes through a stream."""

    optimizer: Optimizer
    """Its own."""
    batch: int
    """Images that come in at once."""
    updates: int = 1
    """Steps on every incoming batch."""
    augmentation: augment.AugmentationName = "none"
    """Applied to images one by one."""

    def matrix(
        self,
        session: Session,
        setting: Setting,
        tasks: list[StreamTask],
        images: Split,
        replay: Replay,
        key: Key,
        at: tuple[int, int] = (0, 1),
    ) -> Matrix:
        """The matrix of one network, whose weights are drawn from torch's generator.

        `images` are those of all tasks in order, and behind them others that `replay` may name. `at`: the number of
        the network among so many, for the session's lines.
        """
        network = setting.architecture.build(setting.shape, setting.classes).to(session.device).train()
        params: Params = {k: p.detach() for k, p in network.named_parameters()}
        state, matrix, first = self.optimizer.init(params), list[list[float | None]](), 0
        for t, task in enumerate(tasks):
            order = first + key("order", t).permutation(len(task.train))
            for b, incoming in enumerate(order.split(self.batch)):
                for u in range(self.updates):
                    rows = torch.cat([incoming, replay.draw(t, key("replay", t, b, u))]).to(session.device)
                    augmented = augment.draw(self.augmentation, key("augmentation", t, b, u), len(rows))
                    shown = Split(augmented(images.images[rows]), images.labels[rows])
                    params, state = self._step(setting, network, shown, params, state)
                replay.seen(incoming, key("reservoir"))
            first += len(task.train)
            _set_weights(network, params)
            matrix.append(streaming.row_so_far(network, setting, tasks, t))
            network.train()
            session.progress(at[0] * len(tasks) + t + 1, at[1] * len(tasks), f"network {at[0] + 1}")
            session.pause()
        return matrix

    def _step(
        self, setting: Setting, network: nn.Module, batch: Split, params: Params, state: State
    ) -> tuple[Params, State]:
        """One optimizer step on a batch."""
        leaves = {k: p.detach().requires_grad_() for k, p in params.items()}
        logits = functional_call(network, leaves, (batch.images,))
        loss = cross_entropy(setting.masked(logits, batch.labels), batch.labels)
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        with torch.no_grad():
            return self.optimizer.step(params, grads, state)


def kept_beside_memories(
    experiment: Any, session: Session, setting: Setting, memories: Sequence[Params], tasks: list[StreamTask], n: int
) -> Matrix:
    """The matrix of network n of `kept_networks`, which goes through the stream beside the memories of tasks before.

    The order of a task's images is its own.
    """
    whole, own = streaming.setting_of(experiment, tasks, session.device, "none"), all_images(tasks)
    recalls = [streaming.recalled_together(setting, [m], [task]) for m, task in zip(memories, tasks, strict=True)]
    every = [own.to(session.device), *recalls]
    images = Split(torch.cat([one.images for one in every]), torch.cat([one.labels for one in every]))
    numbers = torch.arange(len(own), len(images)).split([len(recall) for recall in recalls])
    how, replay = OnePass(SGDMomentum(), experiment.batch), OfMemories(numbers, experiment.replay_batch)
    key = session.key("kept network", n)
    with global_generators(key("network")):
        return how.matrix(session, whole, tasks, images, replay, key, (n, experiment.kept_networks))


def all_images(tasks: list[StreamTask]) -> Split:
    """The training images of all tasks, in order."""
    images, labels = zip(*((task.train.images, task.train.labels) for task in tasks), strict=True)
    return Split(torch.cat(images), torch.cat(labels))


@torch.no_grad()
def _set_weights(network: nn.Module, params: Params) -> None:
    for name, weight in network.named_parameters():
        weight.copy_(params[name])
