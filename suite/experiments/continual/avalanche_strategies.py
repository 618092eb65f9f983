"""Avalanche's strategies on our streams: baselines from an independent implementation, measured as ours are."""

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from suite import avalanche
from suite.architectures.mlp import MLP
from suite.evaluation.protocol import Protocol
from suite.experiments.continual import presets, streaming
from suite.keys import global_generators
from suite.registry import experiments
from suite.streams.permutations import Permutations
from suite.types import Architecture, Outcome, Session, Setting, Stream, StreamTask
from suite.validation import Fraction, Positive, PositiveInt


@experiments.register("avalanche")
@dataclass(frozen=True)
class AvalancheStrategy:
    """A strategy of Avalanche (Carta et al., 2023) on a stream of ours, in one pass: naive, er, agem or mer.

    'er' replays from a reservoir of T `images_per_task` images for T tasks, 'agem' stores `images_per_task` of each
    task (Chaudhry et al., 2019), 'mer' is meta-experience replay (Riemer et al., 2019). torch's SGD with `lr` and
    `momentum`. Each of `evaluation.networks` networks has its own initialisation and draws. Needs the extra
    `avalanche`.
    """

    stream: Stream = field(default_factory=Permutations)
    architecture: Architecture = field(default_factory=MLP)
    method: Literal["naive", "er", "agem", "mer"] = "er"
    images_per_task: Positive = 10
    batch: PositiveInt = 10
    replay_batch: PositiveInt = 10
    lr: Positive = 0.01
    momentum: Fraction = 0.9
    evaluation: Protocol = field(default_factory=Protocol)
    preset: presets.Source = "paper"

    @property
    def memory_images(self) -> int:
        """Real images that may be stored."""
        info = self.stream.info
        each = int(self.images_per_task) if self.method == "agem" else self.images_per_task
        return 0 if self.method == "naive" else int(each * info.tasks)

    def plan(self) -> dict[str, Any]:
        return {
            **presets.plan(self),
            "method": f"{self.method} of Avalanche",
            "storage": f"{self.memory_images} images",
            "networks": self.evaluation.networks,
        }

    def run(self, session: Session) -> Outcome:
        def one(whole: Setting, stream: list[StreamTask], n: int) -> streaming.Matrix:
            with global_generators(session.key("network", n)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Avalanche's, about itself
                return self._one(session, whole, stream, n)

        return streaming.through_the_stream(self, session, None, one)

    def _one(self, session: Session, whole: Setting, stream: list[StreamTask], n: int) -> streaming.Matrix:
        """The matrix of one network."""
        network = whole.architecture.build(whole.shape, whole.classes).to(session.device).train()

        def criterion(scores: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(whole.masked(scores, labels), labels)

        learner = avalanche.strategy(
            self.method,
            network,
            torch.optim.SGD(network.parameters(), lr=self.lr, momentum=self.momentum),
            criterion,
            session.device,
            batch=self.batch,
            stored=max(1, self.memory_images),
            stored_each=max(1, int(self.images_per_task)),
            replay_batch=self.replay_batch,
            tasks=len(stream),
        )
        matrix: streaming.Matrix = []
        # Where the task is known the loss is masked; Avalanche's own multi-head layers are not needed.
        for t, experience in enumerate(avalanche.scenario(stream, task_known=False).train_stream):
            learner.train(experience)
            matrix.append(streaming.so_far(network, whole, stream, t))
            session.progress(n * len(stream) + t + 1, self.evaluation.networks * len(stream), f"network {n + 1}")
            session.pause()
        return matrix
