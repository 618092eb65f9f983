"""Recall with images: a few observed images of a class recall others, which train a new classifier (paper, A.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from suite.architectures.convnet import ConvNet
from suite.core.outer_loop import PAPER_ITERATIONS
from suite.datasets.digits import Digits
from suite.datasets.loading import load
from suite.evaluation.evaluate import accuracy
from suite.evaluation.protocol import Protocol
from suite.experiments import accounting, timing
from suite.experiments.learning import Measured, Series
from suite.experiments.synthesis import summary
from suite.experiments.synthesis.cases import plot_cases
from suite.experiments.synthesis.episode_measurement import (
    EpisodeMeasurement,
    beside_methods,
    full_data_classifier,
    label_rates,
)
from suite.experiments.synthesis.episodes import Episode, draw_episode, rows_of, tasks_of
from suite.experiments.synthesis.episodic import EpisodicMemories
from suite.images.augment import AugmentationChoice, AugmentationName
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.parameterizations.image_queries import ImageQueries, addressed
from suite.registry import ADDED, experiments
from suite.types import (
    Architecture,
    Budget,
    Cost,
    Data,
    Dataset,
    Objective,
    Optimizer,
    Outcome,
    Params,
    Session,
    Setting,
    Start,
)
from suite.validation import Few, Positive, PositiveInt, require

PAPER_SIZES = {"bases": 64, "matrices": 16}
"""Of the memory (paper, B.3)."""

NOTES = {
    "random real images": "training images, as many as are recalled",
    "fine-tuned classifier": "the full-data classifier with a fresh head, trained on the shots, not augmented",
    "classify-then-recall": "the label that the full-data classifier gives to each shot is recalled",
}
"""What a reader must know of a method."""


@experiments.register("image_recall")
@dataclass(frozen=True)
class ImageRecall:
    """A memory that is queried by images of classes, and what it recalls trains a new classifier (paper, A.3, B.3).

    Every outer step draws `ways` classes and one of `shots` as the number k of training images of each that are shown;
    what they recall trains a fresh network, whose outer loss is on other training images of those classes. An episode
    shows k test images of each class of a task (`ways` classes, slices of all), trains a fresh network on what they
    recall, and scores it on all other test images of these classes. Beside it: a classifier trained on all classes
    gives the features of nearest neighbours, class means and a linear probe, is fine-tuned on the shots, and,
    restricted to the episode's classes, is what all data can do; classify-then-recall queries a memory of as many bases
    and matrices, addressed by labels and learned by the same steps, by the label that the classifier gives to a shot
    ('recall by true label': by the true one); and random training images, as many as are recalled. Shots are never
    augmented.

    >>> ImageRecall(ways=2, shots=(1, 5), draws=20).plan()["episodes"]
    '100 of 2 ways, for each of 1, 5 shots'
    """

    dataset: Dataset = field(default_factory=Digits)
    """Its classes are cut into slices, the tasks."""
    architecture: Architecture = field(default_factory=ConvNet)
    """Of every network."""
    parameterization: ImageQueries = field(default_factory=ImageQueries)
    """Of the memory."""
    objective: Objective = field(default_factory=BPTT)
    """Gives the memory its gradient."""
    outer_optimizer: Optimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    """Improves the memory."""
    start: Start | None = field(default=None, metadata=ADDED)
    """What both memories recall at first (`ImageQueries.taught`); None: what their parameterizations draw."""
    ways: int = 2
    """Classes of an episode."""
    shots: Sequence[PositiveInt] = (1, 5)
    """Images of each class that are shown."""
    iterations: PositiveInt = PAPER_ITERATIONS
    """Outer steps of each of the two memories."""
    rollouts: PositiveInt = field(default=1, metadata=ADDED)
    """Of an outer step, which takes their mean gradient: each has a network and draws of its own."""
    clip: Positive | None = 2.0
    """Largest norm of the memory's gradient; None: not clipped."""
    augmentation: AugmentationChoice = "default"
    """Of recalled images; 'default': the data set's own."""
    draws: Few = 20
    """Episodes of every task and number of shots."""
    backbone_epochs: PositiveInt = 100
    """Of the classifier's training, and of the extractor's before a start."""
    backbone_augmentation: AugmentationName = "crop_flip"
    """Of the training images of both."""
    evaluation: Protocol = field(default_factory=lambda: Protocol(networks=1))
    """How an episode's networks are trained."""

    def __post_init__(self) -> None:
        require(self, "shots", len(set(self.shots)) == len(self.shots) > 0, "different numbers, at least one")
        info = self.dataset.info
        fewest = min(info.train_size, info.test_size) // info.classes
        require(self, "shots", max(self.shots) < fewest, f"below {fewest}, the images of a class of {info.name}")
        require(self, "ways", 2 <= self.ways <= info.classes, f"from 2 to {info.classes}, the classes of {info.name}")
        tasks_of(info, self.ways, "slices", Key(0))
        asked = self.parameterization
        tells = asked.softmax and not asked.standardized and (asked.dimension or 0) >= info.classes
        said = (
            f"one with softmax, not standardized, whose dimension is {info.classes}, the classes, or more, for a start"
        )
        require(self, "parameterization", self.start is None or tells, said)

    # ------------------------------------------------------------ sizes

    def plan(self) -> dict[str, Any]:
        """Sizes and steps, found without any data."""
        info, memories = self.dataset.info, EpisodicMemories.of(self, torch.device("cpu"))
        budget, extractor = memories.budget, addressed(memories.begin(Key(0)).memory)[1]
        return {
            "data set": f"{info.name}, {info.shape}, {info.classes} classes",
            "budget": f"{budget.stored_numbers} numbers ({budget.images_per_class:.4g} images per class), and "
            f"{extractor} of the extractor beside it",
            "recalled images per shot": budget.recalled_per_class,
            "outer iterations": summary.outer_iterations(self.iterations, 2),
            **accounting.outer_step_plan(self, memories.largest(), budget.recalled_per_class * max(self.shots)),
            "episodes": f"{self._episodes} of {self.ways} ways, for each of {', '.join(map(str, self.shots))} shots",
            "classifier": f"{self.backbone_epochs} epochs on all classes",
            "evaluation": self.evaluation.label(),
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of both memories, the classifier and all episodes."""
        info, protocol, per_image = self.dataset.info, self.evaluation, self.parameterization.matrices
        memories, most = EpisodicMemories.of(self, device), per_image * max(self.shots)
        setting = memories.largest()
        step_seconds = timing.outer_step(setting, self.objective, memories.images_per_class, most, self.rollouts)
        pace, whole = timing.pace(setting, protocol), timing.pace(self._whole(device), protocol)
        extractor = (
            timing.pace(memories.of_extractor(self.backbone_augmentation), protocol).train if self.start else 0.0
        )
        seconds = self.backbone_epochs * info.train_size * (whole.train + extractor)
        seconds += 2 * self.iterations * step_seconds
        seconds += 2 * info.test_size * whole.read  # its accuracy, and its features of the query images
        for k in self.shots:
            measured = self.ways * info.test_size // info.classes
            # The memory, classify-then-recall, recall by true label and random real images; and fine-tuning on shots.
            for images in [self.ways * k * per_image] * 4 + [self.ways * k]:
                seconds += self._episodes * pace.networks(protocol.networks, protocol.epochs, images, measured)
        return Cost(seconds, {}, step_seconds)

    @property
    def _episodes(self) -> int:  # of each number of shots
        return self.draws * (self.dataset.info.classes // self.ways)

    def _kind(self, shots: int) -> str:
        """The name of a kind of episode."""
        return f"{self.ways}-way, {shots} shot{'s' if shots > 1 else ''}"

    def setting(self, device: torch.device) -> Setting:
        """What an episode's networks are trained for."""
        augmentation, shape = accounting.augmentation_of(self.dataset, self.augmentation), self.dataset.info.shape
        return Setting(shape, self.ways, self.architecture, self.parameterization, augmentation, device)

    def _whole(self, device: torch.device) -> Setting:
        """Of the classifier of all classes."""
        classes = self.dataset.info.classes
        return replace(self.setting(device), classes=classes, augmentation=self.backbone_augmentation)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        """Learn both memories and train the classifier, then measure episode after episode."""
        data = load(self.dataset, session.data_dir, session.key("data"), 0.0)
        train_rows, test_rows = rows_of(self, data, session.device)
        tasks = tasks_of(self.dataset.info, self.ways, "slices", Key(0))
        series, memories = Series(session, 2 * self.iterations), EpisodicMemories.of(self, session.device)
        classify = partial(full_data_classifier, session, series, images=data.train, epochs=self.backbone_epochs)
        of_extractor = partial(classify, memories.of_extractor(self.backbone_augmentation), name="extractor")
        memory, memory_by_label = memories.learn(session, series, train_rows, of_extractor)
        backbone = classify(self._whole(session.device), name="classifier")
        baselines = EpisodeMeasurement(
            session, self.setting(session.device), self.evaluation, train_rows, memory, memories.by_label,
            memory_by_label, backbone, self.parameterization.matrices,
        )  # fmt: skip

        def episode(k: int, e: int) -> tuple[Episode, tuple[int, ...]]:
            classes = tasks[e % len(tasks)]
            return draw_episode(test_rows, classes, k, session.key("episode", k, e)), classes

        def measure(k: int, e: int) -> Measured:
            return baselines.measure(*episode(k, e), session.key("evaluation", k, e))

        values = {k: series.measure(self._kind(k), self._episodes, partial(measure, k)) for k in self.shots}
        k, folder, recall = min(self.shots), session.directory / "figures", self.parameterization.recall
        shown = map(partial(episode, k), range(self._episodes))
        plot_cases(folder, data, shown, values[k], lambda shot: recall(memory, shot)[0])
        self._save(session, data, memory, memories.budget)
        return Outcome(
            measurements=tuple(summary.measurements(*self._methods(values))),
            budget=memories.budget,
            scale=accounting.scale_of(self, self._reduced_by()),
            facts=accounting.dataset_facts(data)
            | {
                "tasks": [[data.info.class_names[c] for c in classes] for classes in tasks],
                "extractor_numbers": addressed(memory)[1],
                "classifier_labels": label_rates({self._kind(k): by_name for k, by_name in values.items()}),
                "classifier": f"{accuracy(backbone, data.test):.1f}% of all test images, {data.info.classes} ways",
            },
            cost={"seconds_per_iteration": series.stopwatch.seconds / (2 * self.iterations)},
        )

    # ------------------------------------------------------------ what is left behind

    def _save(self, session: Session, data: Data, memory: Params, budget: Budget) -> None:
        info = self.dataset.info
        accounting.save_memory(
            session.directory / "memory.safetensors", memory, self, info.shape, data.transform, budget,
            dataset=info.name, class_names=list(info.class_names), superclasses=[], seed=session.key.seed,
        )  # fmt: skip

    def _methods(self, values: dict[int, summary.Values]) -> tuple[dict[str, summary.Values], dict[str, str]]:
        """Accuracies by kind of episode and method, and what a reader must know of the methods."""
        beside, epochs = beside_methods(self.ways), self.backbone_epochs
        note = {"full-data classifier": f"trained on all training images of all classes for {epochs} epochs"}
        return {
            self._kind(k): {name: accuracies for name, accuracies in by_name.items() if name not in beside}
            for k, by_name in values.items()
        }, NOTES | note

    def _reduced_by(self) -> list[str]:
        sizes = [(name, getattr(self.parameterization, name), paper) for name, paper in PAPER_SIZES.items()]
        return summary.reduced_by(self) + [less for size in sizes for less in accounting.below(*size)]
