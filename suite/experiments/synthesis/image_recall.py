"""Recall with images: a few observed images of a class recall others, which train a new classifier (paper, A.3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from suite.architectures.convnet import ConvNet
from suite.core.outer_loop import PAPER_ITERATIONS, OuterState, begin, step
from suite.datasets.digits import Digits
from suite.evaluation.evaluate import accuracy
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train
from suite.experiments import timing
from suite.experiments.accounting import augmentation_of, below, require_augmentation, save_memory, scale_of
from suite.experiments.learning import Accuracies, Series
from suite.experiments.synthesis import summary
from suite.experiments.synthesis.baselines import LABEL_CONFLICTS, LABELS_RIGHT, EpisodeBaselines, beside_methods
from suite.experiments.synthesis.cases import plot_cases
from suite.experiments.synthesis.episodes import Episode, draw_episode, tasks_of
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.image_queries import Asked, ImageQueries, addressed
from suite.registry import experiments
from suite.types import (
    Architecture,
    Budget,
    ClassRows,
    Cost,
    Data,
    Dataset,
    InnerOptimizer,
    Objective,
    Outcome,
    Params,
    Session,
    Setting,
    Split,
)
from suite.validation import check_types, require

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
    """

    dataset: Dataset = field(default_factory=Digits)
    """Its classes are cut into slices, the tasks."""
    architecture: Architecture = field(default_factory=ConvNet)
    """Of every network."""
    parameterization: ImageQueries = field(default_factory=ImageQueries)
    """Of the memory."""
    objective: Objective = field(default_factory=BPTT)
    """Gives the memory its gradient."""
    outer_optimizer: InnerOptimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    """Improves the memory."""
    ways: int = 2
    """Classes of an episode."""
    shots: Sequence[int] = (1, 5)
    """Images of each class that are shown."""
    iterations: int = PAPER_ITERATIONS
    """Outer steps of each of the two memories."""
    clip: float | None = 2.0
    """Largest norm of the memory's gradient; None: not clipped."""
    augmentation: str = "default"
    """Of recalled images; 'default': the data set's own."""
    draws: int = 20
    """Episodes of every task and number of shots."""
    backbone_epochs: int = 100
    """Of the classifier's training."""
    backbone_augmentation: str = "crop_flip"
    """Of the classifier's training images."""
    evaluation: Protocol = field(default_factory=lambda: Protocol(networks=1))
    """How an episode's networks are trained."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("iterations", "draws", "backbone_epochs"):
            require(self, name, getattr(self, name) > 0, "above 0")
        require(self, "clip", self.clip is None or self.clip > 0, "above 0, or None")
        require(self, "shots", len(set(self.shots)) == len(self.shots) > 0, "different numbers, at least one")
        require(self, "shots", min(self.shots) > 0, "above 0")
        info = self.dataset.info
        fewest = min(info.train_size, info.test_size) // info.classes
        require(self, "shots", max(self.shots) < fewest, f"below {fewest}, the images of a class of {info.name}")
        require(self, "ways", 2 <= self.ways <= info.classes, f"from 2 to {info.classes}, the classes of {info.name}")
        tasks_of(info, self.ways, "slices", Key(0))
        require_augmentation(self)
        require_augmentation(self, "backbone_augmentation", extra=())

    @property
    def labels(self) -> Addressing:
        """Of the memory of classify-then-recall, which is queried by labels."""
        return Addressing(self.parameterization.bases, self.parameterization.initialization)

    # ------------------------------------------------------------ sizes

    def plan(self) -> dict[str, Any]:
        """Sizes and steps, found without any data."""
        info, budget, device = self.dataset.info, self._budget(), torch.device("cpu")
        extractor = addressed(self._begin(device, Key(0)).memory)[1]
        return {
            "data set": f"{info.name}, {info.shape}, {info.classes} classes",
            "budget": f"{budget.stored_numbers} numbers ({budget.images_per_class:.4g} images per class), and "
            f"{extractor} of the extractor beside it",
            "recalled images per shot": budget.recalled_per_class,
            "outer iterations": summary.outer_iterations(self.iterations, 2),
            **self.objective.plan(self._largest(device), budget.recalled_per_class * max(self.shots)),
            "episodes": f"{self._episodes} of {self.ways} ways, for each of {', '.join(map(str, self.shots))} shots",
            "classifier": f"{self.backbone_epochs} epochs on all classes",
            "evaluation": self.evaluation.label(),
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of both memories, the classifier and all episodes."""
        info, protocol, per_image = self.dataset.info, self.evaluation, self.parameterization.matrices
        setting = self._largest(device)
        step_seconds = timing.outer_step(setting, self.objective, self._images_per_class, per_image * max(self.shots))
        pace, whole = timing.pace(setting), timing.pace(self._whole(device))
        seconds = 2 * self.iterations * step_seconds + self.backbone_epochs * info.train_size * whole.train
        seconds += 2 * info.test_size * whole.read
        for k in self.shots:
            measured = self.ways * info.test_size // info.classes
            for images in [self.ways * k * per_image] * 4 + [self.ways * k]:
                seconds += self._episodes * pace.networks(protocol.networks, protocol.epochs, images, measured)
        return Cost(seconds, {}, step_seconds)

    @property
    def _episodes(self) -> int:
        """Of each number of shots."""
        return self.draws * (self.dataset.info.classes // self.ways)

    def _kind(self, shots: int) -> str:
        """The name of a kind of episode."""
        return f"{self.ways}-way, {shots} shot{'s' if shots > 1 else ''}"

    @property
    def _images_per_class(self) -> float:
        """What bases and matrices store, in images of each class; half a number more, against rounding."""
        info = self.dataset.info
        return (self.parameterization.numbers(info.shape) + 0.5) / (info.classes * info.shape.numel)

    def _budget(self) -> Budget:
        info, numbers = self.dataset.info, self.parameterization.numbers(self.dataset.info.shape)
        return Budget(numbers, numbers / (info.classes * info.shape.numel), self.parameterization.matrices)

    def setting(self, device: torch.device) -> Setting:
        """What an episode's networks are trained for."""
        augmentation = augmentation_of(self.dataset, self.augmentation)
        shape = self.dataset.info.shape
        return Setting(shape, self.ways, self.architecture, self.parameterization, augmentation, device)

    def _whole(self, device: torch.device) -> Setting:
        """Of the classifier of all classes."""
        classes = self.dataset.info.classes
        return replace(self.setting(device), classes=classes, augmentation=self.backbone_augmentation)

    def _largest(self, device: torch.device) -> Setting:
        """With a memory that is queried by as many images as it ever is, all black: for plans."""
        shape = self.dataset.info.shape
        queries = torch.zeros(self.ways, max(self.shots), shape.channels, shape.height, shape.width, device=device)
        budget = self._images_per_class * self.dataset.info.classes / self.ways
        return replace(self.setting(device), parameterization=Asked(self.parameterization, queries, budget))

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        """Learn both memories and train the classifier, then measure episode after episode."""
        data = self.dataset.load(session.data_dir, session.key("data"), 0.0)
        train_rows, test_rows = self._rows(session, data)
        tasks = tasks_of(self.dataset.info, self.ways, "slices", Key(0))
        series = Series(session, 2 * self.iterations)
        memory, memory_of_labels = self._memories(session, series, train_rows)
        backbone = self._backbone(session, series, data.train)
        baselines = EpisodeBaselines(
            session, self.setting(session.device), self.evaluation, train_rows, memory, self.labels, memory_of_labels,
            backbone, self.parameterization.matrices,
        )  # fmt: skip

        def episode(k: int, e: int) -> tuple[Episode, tuple[int, ...]]:
            classes = tasks[e % len(tasks)]
            return draw_episode(test_rows, classes, k, session.key("episode", k, e)), classes

        def measure(k: int, e: int) -> Accuracies:
            return baselines.measure(*episode(k, e), session.key("evaluation", k, e))

        values = {k: series.measure(self._kind(k), self._episodes, partial(measure, k)) for k in self.shots}
        fewest = min(self.shots)
        plot_cases(
            session.directory / "figures",
            data,
            (episode(fewest, e) for e in range(self._episodes)),
            values[fewest],
            lambda shot: self.parameterization.recall(memory, shot)[0],
        )
        self._save(session, data, memory)
        return self._outcome(data, tasks, values, accuracy(backbone, data.test), memory, series)

    def _rows(self, session: Session, data: Data) -> tuple[ClassRows, ClassRows]:
        """Training and test images on the device; UsageError if a class has too few for the shots."""
        classes = self.dataset.info.classes
        train_rows, test_rows = (ClassRows.of(part.to(session.device), classes) for part in (data.train, data.test))
        fewest = min(len(rows) for part in (train_rows, test_rows) for rows in part.rows)
        require(self, "shots", max(self.shots) < fewest, f"below {fewest}, the images of the smallest class")
        return train_rows, test_rows

    def _begin(self, device: torch.device, key: Key) -> OuterState:
        """The start of the memory that is queried by images."""
        setting = replace(self._whole(device), parameterization=self.parameterization)
        return begin(setting, self.outer_optimizer, self._images_per_class, key)

    def _begin_of_labels(self, device: torch.device, key: Key) -> OuterState:
        """The start of the memory that is queried by labels, with as many bases and matrices."""
        info, k, r = self.dataset.info, self.parameterization.bases, self.parameterization.matrices
        numbers = k * info.shape.numel + r * info.classes * k
        setting = replace(self._whole(device), parameterization=self.labels)
        return begin(setting, self.outer_optimizer, (numbers + 0.5) / (info.classes * info.shape.numel), key)

    def _memories(self, session: Session, series: Series, rows: ClassRows) -> tuple[Params, Params]:
        """The memory that is queried by images, and the one that is queried by labels."""
        device, key = session.device, session.key("outer")

        def by_images(episode: Episode, classes: tuple[int, ...]) -> Asked:
            return Asked(self.parameterization, episode.support.images.unflatten(0, (self.ways, -1)))

        def by_labels(episode: Episode, classes: tuple[int, ...]) -> Asked:
            return Asked(self.labels, torch.tensor(classes, device=device)[:, None])

        start = self._begin(device, session.key("memory"))
        memory = self._learn(series, "asked with images", start, rows, key, by_images)
        start = self._begin_of_labels(device, session.key("labels"))
        return memory, self._learn(series, "asked with labels", start, rows, key, by_labels)

    def _learn(
        self, series: Series, name: str, start: OuterState, rows: ClassRows, key: Key,
        queried: Callable[[Episode, tuple[int, ...]], Asked],
    ) -> Params:  # fmt: skip
        """A memory that is queried for the classes drawn in every step; equal keys draw equal classes and images."""
        setting = self.setting(rows.split.images.device)

        def one_step(state: OuterState) -> OuterState:
            of_step = key(state.iteration)
            classes = tuple(of_step("classes").permutation(len(rows.rows))[: self.ways].tolist())
            k = self.shots[int(of_step("number").permutation(len(self.shots))[0])]
            episode = draw_episode(rows, classes, k, of_step("shots"))
            posed = replace(setting, parameterization=queried(episode, classes))
            return step(posed, self.objective, self.outer_optimizer, episode.query, state, of_step("step"), self.clip)

        return series.learn(name, start, one_step, self.iterations)

    def _backbone(self, session: Session, series: Series, images: Split) -> nn.Module:
        """The classifier of all classes."""
        setting, key = self._whole(session.device), session.key("classifier")
        protocol = Protocol(name="classifier", networks=1, epochs=self.backbone_epochs, batch=128)

        def weights() -> Params:
            network = train(setting, images, protocol, key, session.pause)
            return {name: w.detach() for name, w in network.named_parameters()}

        trained = series.once("classifier", weights)
        with global_generators(key):
            network = self.architecture.build(setting.shape, setting.classes).to(session.device).eval()
        network.load_state_dict(trained, strict=False)
        return network

    # ------------------------------------------------------------ what is left behind

    def _save(self, session: Session, data: Data, memory: Params) -> None:
        info = self.dataset.info
        save_memory(
            session.directory / "memory.safetensors", memory, self, info.shape, data.transform, self._budget(),
            dataset=info.name, class_names=list(info.class_names), superclasses=[], seed=session.key.seed,
        )  # fmt: skip

    def _outcome(
        self, data: Data, tasks: tuple[tuple[int, ...], ...], values: dict[int, summary.Values], accuracy_of_all: float,
        memory: Params, series: Series,
    ) -> Outcome:  # fmt: skip
        info, beside = self.dataset.info, beside_methods(self.ways)
        reduced_by = summary.reduced_by(self)
        for name, paper in PAPER_SIZES.items():
            reduced_by += below(name, getattr(self.parameterization, name), paper)
        methods = {
            self._kind(k): {name: v for name, v in by_name.items() if name not in beside}
            for k, by_name in values.items()
        }
        labels = {
            f"{self._kind(k)}: {name}": sum(by_name[name]) / len(by_name[name])
            for k, by_name in values.items()
            for name in (LABELS_RIGHT, LABEL_CONFLICTS)
        }
        return Outcome(
            measurements=tuple(summary.measurements(methods, NOTES | self._note_on_epochs())),
            budget=self._budget(),
            scale=scale_of(self, reduced_by),
            facts={
                "dataset": info.name,
                "dataset_digest": data.digest,
                "tasks": [[info.class_names[c] for c in classes] for classes in tasks],
                "preprocessing": data.transform.describe(),
                "extractor_numbers": addressed(memory)[1],
                "classifier_labels": labels,
                "classifier": f"{accuracy_of_all:.1f}% of all test images, {info.classes} ways",
            },
            cost={"seconds_per_iteration": series.stopwatch.seconds / (2 * self.iterations)},
        )

    def _note_on_epochs(self) -> dict[str, str]:
        epochs = self.backbone_epochs
        return {"full-data classifier": f"trained on all training images of all classes for {epochs} epochs"}
