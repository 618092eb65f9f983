"""Continual learning without memories: the baselines that compress-then-recall must beat."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
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
    InnerOptimizer,
    Outcome,
    Params,
    Session,
    Setting,
    Split,
    State,
    Stream,
    StreamTask,
)
from suite.validation import Positive, PositiveInt


@experiments.register("online")
@dataclass(frozen=True)
class Online:
    """Networks that go through a stream once: naive, with reservoir replay (ER), or trained on all tasks at the end.

    'naive': `updates` steps of the optimizer on every incoming batch. 'replay': each step also on `replay_batch` images
    of a reservoir over the whole stream, which may hold T `images_per_task` images for T tasks (Chaudhry et al., 2019).
    'joint': the upper bound, fresh networks trained on every task's images together by the evaluation protocol after
    the last task; only the last row of the matrix exists. `evaluation.networks` networks, each with its own
    initialisation and draws, and images augmented one by one. `preset` names whose published sizes a run is held
    against (`presets.PRESETS`).
    """

    stream: Stream = field(default_factory=Permutations)
    architecture: Architecture = field(default_factory=MLP)
    method: Literal["naive", "replay", "joint"] = "replay"
    optimizer: InnerOptimizer = field(default_factory=SGDMomentum)
    images_per_task: Positive = 10
    batch: PositiveInt = 10
    updates: PositiveInt = 1
    replay_batch: PositiveInt = 10
    augmentation: augment.AugmentationName = "none"
    evaluation: Protocol = field(default_factory=Protocol)
    preset: presets.Source = "paper"

    @property
    def memory_images(self) -> int:
        """Real images that may be stored."""
        return int(self.images_per_task * self.stream.info.tasks) if self.method == "replay" else 0

    @property
    def _steps(self) -> int:
        """Of each network, through the whole stream."""
        info = self.stream.info
        return -(-info.samples_per_task // self.batch) * self.updates * info.tasks

    def plan(self) -> dict[str, Any]:
        return {
            **presets.plan(self),
            "method": self.method,
            "storage": f"{self.memory_images} images",
            "steps": f"{self._steps} in all" if self.method != "joint" else "by the protocol",
            "networks": self.evaluation.networks,
        }

    def cost(self, where: torch.device) -> Cost:
        """Seconds of all networks, their evaluation among them."""
        info, protocol = self.stream.info, self.evaluation
        whole = Setting(info.shape, info.outputs, self.architecture, Standard(), self.augmentation, where)
        pace = timing.pace(whole)
        if self.method == "joint":
            images = info.tasks * info.samples_per_task
            own = protocol.epochs * images * pace.train + info.tasks * info.test_per_task * pace.read
            return Cost(protocol.networks * own, {}, protocol.batch * pace.train)
        step = timing.sgd_step(whole, self.batch + (self.replay_batch if self.method == "replay" else 0))
        read = info.tasks * (info.tasks + 1) // 2 * info.test_per_task * pace.read
        return Cost(protocol.networks * (self._steps * step + read), {}, step)

    def run(self, session: Session) -> Outcome:
        def one(whole: Setting, stream: list[StreamTask], n: int) -> streaming.Matrix:
            key = session.key("network", n)
            with global_generators(key("network")):  # dropout draws from them while it trains, too
                return self._one(session, whole, stream, n, key)

        return streaming.through_the_stream(self, session, self._joint if self.method == "joint" else None, one)

    def _joint(self, session: Session, whole: Setting, stream: list[StreamTask]) -> streaming.Matrices:
        images = torch.cat([one.train.images for one in stream])
        data = Split(images, torch.cat([one.train.labels for one in stream])).to(session.device)
        tests = {str(j): one.test for j, one in enumerate(stream)}
        key = session.key("joint")
        found = evaluate(whole, lambda n: data, self.evaluation, key, tests, session.pause)
        t = len(stream)
        empty: list[list[float | None]] = [[None] * t for _ in range(t - 1)]
        return [[*empty, [found[str(j)][n] for j in range(t)]] for n in range(self.evaluation.networks)]

    def _one(self, session: Session, whole: Setting, stream: list[StreamTask], n: int, key: Key) -> streaming.Matrix:
        """The matrix of one network."""
        network = whole.architecture.build(whole.shape, whole.classes).to(session.device).train()
        params: Params = {k: p.detach() for k, p in network.named_parameters()}
        state = self.optimizer.init(params)
        pool = Reservoir.empty(self.memory_images)
        everything = Split(
            torch.cat([one.train.images for one in stream]), torch.cat([one.train.labels for one in stream])
        ).to(session.device)
        matrix: streaming.Matrix = []
        first = 0
        for t, one in enumerate(stream):
            order = first + key("order", t).permutation(len(one.train))
            for b, incoming in enumerate(order.split(self.batch)):
                for u in range(self.updates):
                    rows = incoming
                    if self.method == "replay":
                        rows = torch.cat([incoming, pool.draw(self.replay_batch, key("replay", t, b, u))])
                    rows = rows.to(session.device)
                    shown = Split(everything.images[rows], everything.labels[rows])
                    draw = augment.draw(self.augmentation, key("augmentation", t, b, u), len(rows))
                    params, state = self._step(whole, network, draw(shown.images), shown.labels, params, state)
                pool = pool.add(incoming, key("reservoir"))
            first += len(one.train)
            with torch.no_grad():
                for name, p in network.named_parameters():
                    p.copy_(params[name])
            matrix.append(streaming.so_far(network, whole, stream, t))
            network.train()
            session.progress(n * len(stream) + t + 1, self.evaluation.networks * len(stream), f"network {n + 1}")
            session.pause()
        return matrix

    def _step(
        self, whole: Setting, network: torch.nn.Module, images: Tensor, labels: Tensor, params: Params, state: State
    ) -> tuple[Params, State]:
        leaves = {k: p.detach().requires_grad_() for k, p in params.items()}
        scores = functional_call(network, leaves, (images,))
        loss = cross_entropy(whole.masked(scores, labels), labels)
        slopes = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        with torch.no_grad():
            return self.optimizer.step(params, slopes, state)
