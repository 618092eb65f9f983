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
from suite.validation import Fraction, Positive, PositiveInt, require


@experiments.register("avalanche")
@dataclass(frozen=True)
class AvalancheStrategy:
    """A strategy of Avalanche (Carta et al., 2023) on a stream of ours, in one pass.

    'er' replays from a reservoir of T `images_per_task` images for T tasks, 'agem' stores `images_per_task` of each
    task (Chaudhry et al., 2019), 'mer' is meta-experience replay (Riemer et al., 2019). 'der' is DER++ (Buzzega et
    al., 2020), which replays the logits of stored images, too; they are counted, so it stores fewer images. 'scr'
    classifies by the nearest mean of stored images in features learned by contrast (Mai et al., 2021; here without
    augmentation, so that both views are one, and without the published code's review of what is stored). The last
    two take streams of one head alone. Needs the extra `avalanche`.

    >>> AvalancheStrategy(method="agem").method_label
    'A-GEM (Avalanche)'
    """

    stream: Stream = field(default_factory=Permutations)
    """The tasks, in order."""
    architecture: Architecture = field(default_factory=MLP)
    """Of the networks."""
    method: Literal["naive", "er", "agem", "mer", "der", "scr"] = "er"
    """Avalanche's strategy."""
    images_per_task: Positive = 10
    """Storage of a task, in real images."""
    batch: PositiveInt = 10
    """Images that come in at once."""
    replay_batch: PositiveInt = 10
    """Stored images that are replayed beside them."""
    lr: Positive = 0.01
    """Learning rate of torch's SGD."""
    momentum: Fraction = 0.9
    """Its momentum."""
    evaluation: Protocol = field(default_factory=Protocol)
    """Its `networks` is the number of networks, each with its own initialisation and draws."""
    preset: presets.Source = "paper"
    """Whose published sizes the run is held against (`presets.PRESETS`)."""

    def __post_init__(self) -> None:
        one_head = self.method not in ("der", "scr") or not self.stream.info.task_known
        require(self, "method", one_head, "naive, er, agem or mer where a test image's task is known")
        enough = self.method != "scr" or self.stored_images >= self.stream.info.outputs
        require(self, "images_per_task", enough, "enough for an image of each class, of which scr has the mean")

    @property
    def method_label(self) -> str:
        """The method of its measurements, such as 'A-GEM (Avalanche)'."""
        names = {"naive": "naive", "er": "ER", "agem": "A-GEM", "mer": "MER", "der": "DER++", "scr": "SCR"}
        name = names[self.method]
        return f"{name} (Avalanche)"

    @property
    def stored_images(self) -> int:
        """Real images that may be stored."""
        info = self.stream.info
        each = int(self.images_per_task) if self.method == "agem" else self.images_per_task
        images = 0 if self.method == "naive" else int(each * info.tasks)
        return images * info.shape.numel // self._numbers_of_an_image

    @property
    def stored_numbers(self) -> int:
        """Of these images, their logits included."""
        return self.stored_images * self._numbers_of_an_image

    @property
    def _numbers_of_an_image(self) -> int:
        info = self.stream.info
        return info.shape.numel + (info.outputs if self.method == "der" else 0)

    def plan(self) -> dict[str, Any]:
        """Storage and networks, found without any data."""
        return {
            **presets.plan_of_stream(self),
            "method": f"{self.method} of Avalanche",
            "storage": f"{self.stored_images} images{' and their logits' if self.method == 'der' else ''}",
            "networks": self.evaluation.networks,
        }

    def run(self, session: Session) -> Outcome:
        """Train every network through the stream."""

        def one_network(setting: Setting, tasks: list[StreamTask], n: int) -> streaming.Matrix:
            with global_generators(session.key("network", n)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Avalanche's, about itself
                return self._through_stream(session, setting, tasks, n)

        return streaming.train_through_stream(self, session, one_network, all_at_once=None)

    def _through_stream(self, session: Session, setting: Setting, tasks: list[StreamTask], n: int) -> streaming.Matrix:
        """The matrix of network n."""
        network = setting.architecture.build(setting.shape, setting.classes).to(session.device).train()

        def criterion(logits: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(setting.masked(logits, labels), labels)

        learner = avalanche.strategy(
            self.method,
            network,
            torch.optim.SGD(network.parameters(), lr=self.lr, momentum=self.momentum),
            criterion,
            session.device,
            batch=self.batch,
            stored=max(1, self.stored_images),
            stored_each=max(1, int(self.images_per_task)),
            replay_batch=self.replay_batch,
            tasks=len(tasks),
            image=tasks[0].train.images[0].to(session.device),
        )
        matrix: streaming.Matrix = []
        # Where the task is known the loss is masked; Avalanche's own multi-head layers are not needed.
        for t, experience in enumerate(avalanche.scenario(tasks, task_known=False).train_stream):
            learner.train(experience)
            matrix.append(streaming.row_so_far(learner.model, setting, tasks, t))
            session.progress(n * len(tasks) + t + 1, self.evaluation.networks * len(tasks), f"network {n + 1}")
            session.pause()
        return matrix
