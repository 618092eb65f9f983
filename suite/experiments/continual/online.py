"""Continual learning without memories: the baselines that compress-then-recall must beat."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from suite.architectures.mlp import MLP
from suite.evaluation.evaluate import evaluate
from suite.evaluation.protocol import Protocol
from suite.experiments import timing
from suite.experiments.continual import presets, streaming
from suite.experiments.continual.one_pass import Nothing, OfReservoir, OnePass, all_images
from suite.images import augment
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import global_generators
from suite.parameterizations.standard import Standard
from suite.registry import experiments
from suite.streams.permutations import Permutations
from suite.types import (
    Architecture,
    Cost,
    Optimizer,
    Outcome,
    Session,
    Setting,
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
    def stored_numbers(self) -> int:
        """Of the stored images."""
        return self.stored_images * self.stream.info.shape.numel

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
            key, images = session.key("network", n), all_images(tasks).to(session.device)
            replay = OfReservoir(self.stored_images, self.replay_batch) if self.method == "replay" else Nothing()
            how = OnePass(self.optimizer, self.batch, self.updates, self.augmentation)
            with global_generators(key("network")):  # dropout draws from them while it trains, too
                return how.matrix(session, setting, tasks, images, replay, key, (n, self.evaluation.networks))

        all_at_once = self._joint if self.method == "joint" else None
        return streaming.train_through_stream(
            self, session, one_network, augmentation=self.augmentation, all_at_once=all_at_once
        )

    def _joint(self, session: Session, setting: Setting, tasks: list[StreamTask]) -> streaming.Matrices:
        """The matrices of networks that are trained on all tasks at once: their last rows."""
        training = all_images(tasks).to(session.device)
        tests = {str(j): task.test for j, task in enumerate(tasks)}
        key, networks = session.key("joint"), self.evaluation.networks
        accuracies = evaluate(setting, lambda n: training, self.evaluation, key, tests, session.pause)
        empty: streaming.Matrix = [[None] * len(tasks) for _ in tasks[1:]]
        return [[*empty, row] for row in streaming.rows(accuracies, len(tasks), networks)]
