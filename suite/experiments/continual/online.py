"""Continual learning without memories: the baselines that compress-then-recall must beat."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.architectures.mlp import MLP
from suite.evaluation.evaluate import evaluate
from suite.evaluation.protocol import Protocol
from suite.experiments import timing
from suite.experiments.continual import presets, streaming
from suite.experiments.continual.reservoir import Reservoir
from suite.images import augment
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.parameterizations.standard import Standard
from suite.registry import experiments
from suite.streams.permutations import Permutations
from suite.types import (
    Architecture,
    Cost,
    Optimizer,
    Outcome,
    Params,
    Session,
    Setting,
    Split,
    State,
    Stream,
    StreamTask,
)
from suite.validation import Positive, PositiveInt, require_no_teacher


@experiments.register("online")
@dataclass(frozen=True)
class Online:
    """Networks that go through a stream once: naive, with reservoir replay (ER), or trained on all tasks at the end.

    'naive': `updates` steps of the optimizer on every incoming batch. 'replay': each step also on `replay_batch` images
    of a reservoir over the whole stream, which may hold T `images_per_task` images for T tasks (Chaudhry et al., 2019).
    'joint': the upper bound, fresh networks trained on every task's images together by the evaluation protocol after
    the last task; only the last row of the matrix exists.

    >>> Online(method="replay", images_per_task=10).stored_images
    200
    """

    stream: Stream = field(default_factory=Permutations)
    """The tasks, in order."""
    architecture: Architecture = field(default_factory=MLP)
    """Of the networks."""
    method: Literal["naive", "replay", "joint"] = "replay"
    """How they learn."""
    optimizer: Optimizer = field(default_factory=SGDMomentum)
    """Of the networks; the protocol's own for 'joint'."""
    images_per_task: Positive = 10
    """Storage of a task, in real images."""
    batch: PositiveInt = 10
    """Images that come in at once."""
    updates: PositiveInt = 1
    """Optimizer steps on every incoming batch."""
    replay_batch: PositiveInt = 10
    """Images of the reservoir in each step."""
    augmentation: augment.AugmentationName = "none"
    """Applied to images one by one."""
    evaluation: Protocol = field(default_factory=Protocol)
    """Its `networks` is the number of networks, each with its own initialisation and draws."""
    preset: presets.Source = "paper"
    """Whose published sizes the run is held against (`presets.PRESETS`)."""

    def __post_init__(self) -> None:
        require_no_teacher(self)

    @property
    def method_label(self) -> str:
        """The method of its measurements: 'naive', 'ER' or 'joint'."""
        return "ER" if self.method == "replay" else self.method

    @property
    def stored_images(self) -> int:
        """Real images that may be stored."""
        return int(self.images_per_task * self.stream.info.tasks) if self.method == "replay" else 0

    @property
    def _steps(self) -> int:
        """Optimizer steps of each network through the whole stream."""
        info = self.stream.info
        return -(-info.samples_per_task // self.batch) * self.updates * info.tasks

    def plan(self) -> dict[str, Any]:
        """Storage, steps and networks, found without any data."""
        return {
            **presets.plan_of_stream(self),
            "method": self.method,
            "storage": f"{self.stored_images} images",
            "steps": f"{self._steps} in all" if self.method != "joint" else "by the protocol",
            "networks": self.evaluation.networks,
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of all networks, their evaluation among them."""
        info, protocol = self.stream.info, self.evaluation
        setting = Setting(info.shape, info.outputs, self.architecture, Standard(), self.augmentation, device)
        pace = timing.pace(setting, protocol)
        if self.method == "joint":
            images = info.tasks * info.samples_per_task
            seconds = protocol.epochs * images * pace.train + info.tasks * info.test_per_task * pace.read
            return Cost(protocol.networks * seconds, {}, protocol.batch * pace.train)
        step = timing.sgd_step(setting, self.batch + (self.replay_batch if self.method == "replay" else 0))
        reading = info.tasks * (info.tasks + 1) // 2 * info.test_per_task * pace.read
        return Cost(protocol.networks * (self._steps * step + reading), {}, step)

    def run(self, session: Session) -> Outcome:
        """Train every network through the stream, or all of them jointly."""

        def one_network(setting: Setting, tasks: list[StreamTask], n: int) -> streaming.Matrix:
            key = session.key("network", n)
            with global_generators(key("network")):  # dropout draws from them while it trains, too
                return self._through_stream(session, setting, tasks, n, key)

        all_at_once = self._joint if self.method == "joint" else None
        return streaming.train_through_stream(
            self, session, one_network, augmentation=self.augmentation, all_at_once=all_at_once
        )

    def _joint(self, session: Session, setting: Setting, tasks: list[StreamTask]) -> streaming.Matrices:
        """The matrices of networks that are trained on all tasks at once: their last rows."""
        training = _all_images(tasks).to(session.device)
        tests = {str(j): task.test for j, task in enumerate(tasks)}
        key, networks = session.key("joint"), self.evaluation.networks
        accuracies = evaluate(setting, lambda n: training, self.evaluation, key, tests, session.pause)
        empty: streaming.Matrix = [[None] * len(tasks) for _ in tasks[1:]]
        return [[*empty, row] for row in streaming.rows(accuracies, len(tasks), networks)]

    def _through_stream(
        self, session: Session, setting: Setting, tasks: list[StreamTask], n: int, key: Key
    ) -> streaming.Matrix:
        """The matrix of network n."""
        network = setting.architecture.build(setting.shape, setting.classes).to(session.device).train()
        params: Params = {k: p.detach() for k, p in network.named_parameters()}
        state, reservoir = self.optimizer.init(params), Reservoir.empty(self.stored_images)
        images = _all_images(tasks).to(session.device)
        matrix: streaming.Matrix = []
        first = 0
        for t, task in enumerate(tasks):
            order = first + key("order", t).permutation(len(task.train))
            for b, incoming in enumerate(order.split(self.batch)):
                for u in range(self.updates):
                    rows = incoming
                    if self.method == "replay":
                        rows = torch.cat([incoming, reservoir.draw(self.replay_batch, key("replay", t, b, u))])
                    rows = rows.to(session.device)
                    augmented = augment.draw(self.augmentation, key("augmentation", t, b, u), len(rows))
                    batch = Split(augmented(images.images[rows]), images.labels[rows])
                    params, state = self._step(setting, network, batch, params, state)
                reservoir = reservoir.add(incoming, key("reservoir"))
            first += len(task.train)
            _set_weights(network, params)
            matrix.append(streaming.row_so_far(network, setting, tasks, t))
            network.train()
            session.progress(n * len(tasks) + t + 1, self.evaluation.networks * len(tasks), f"network {n + 1}")
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


def _all_images(tasks: list[StreamTask]) -> Split:
    """The training images of all tasks, in order."""
    images, labels = zip(*((task.train.images, task.train.labels) for task in tasks), strict=True)
    return Split(torch.cat(images), torch.cat(labels))


@torch.no_grad()
def _set_weights(network: nn.Module, params: Params) -> None:
    for name, weight in network.named_parameters():
        weight.copy_(params[name])
