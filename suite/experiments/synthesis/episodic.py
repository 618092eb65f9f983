"""Memories learned by episodes: every outer step draws classes, and images of them that the memory is queried by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from suite.core.outer_loop import OuterState, begin, step
from suite.errors import UsageError
from suite.experiments.learning import Series
from suite.experiments.synthesis.episodes import Episode, draw_episode
from suite.images.augment import AugmentationName
from suite.keys import Key
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.image_queries import Asked, ImageQueries
from suite.types import (
    Budget,
    ClassRows,
    DatasetInfo,
    Objective,
    Optimizer,
    Parameterization,
    Params,
    Remembering,
    Session,
    Setting,
    Start,
    over_steps,
)
from suite.validation import require, require_no_teacher

STANDARDIZED_ON = 32
"""Training images of each class, or all there are, whose features start with mean 0 and deviation 1."""


@dataclass(frozen=True, eq=False)
class _Given:
    """A start that is these images."""

    of_classes: Tensor

    def images(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Tensor:
        return self.of_classes


@dataclass(frozen=True)
class EpisodicMemories:
    """A memory that is queried by images, and one of as many bases and matrices that is queried by labels.

    Both are learned by the same steps. The fields are the experiment's, but for the last two.
    """

    parameterization: ImageQueries
    """Of the memory that is queried by images."""
    objective: Objective
    """Gives a memory its gradient."""
    outer_optimizer: Optimizer
    """Improves a memory."""
    start: Start | None
    """What the memories recall before their first step; None: noise."""
    ways: int
    """Classes of a step."""
    shots: Sequence[int]
    """Numbers of images of each class, one of which is drawn for a step."""
    iterations: int
    """Outer steps of each memory."""
    rollouts: int
    """Of an outer step."""
    clip: float | None
    """Largest norm of a memory's gradient; None: not clipped."""
    info: DatasetInfo
    """Of the data set."""
    setting: Setting
    """Of an episode's networks."""

    @staticmethod
    def of(experiment: Any, device: torch.device) -> "EpisodicMemories":
        """Those of an experiment with these fields; UsageError for an objective that keeps networks, or a teacher."""
        require_no_teacher(experiment)
        keeps = isinstance(experiment.objective, Remembering)
        require(experiment, "objective", not keeps, "one that keeps nothing, since every step has other classes")
        return EpisodicMemories(
            experiment.parameterization,
            experiment.objective,
            over_steps(experiment.outer_optimizer, experiment.iterations),
            experiment.start,
            experiment.ways,
            experiment.shots,
            experiment.iterations,
            experiment.rollouts,
            experiment.clip,
            experiment.dataset.info,
            experiment.setting(device),
        )

    @property
    def by_label(self) -> Addressing:
        """The parameterization of the memory that is queried by labels."""
        return Addressing(self.parameterization.bases, self.parameterization.initialization)

    # ------------------------------------------------------------ sizes

    @property
    def budget(self) -> Budget:
        """Of the memory that is queried by images, without its extractor; it recalls so many images for each shot."""
        numbers = self.parameterization.numbers(self.info.shape)
        images_per_class = numbers / (self.info.classes * self.info.shape.numel)
        return Budget(numbers, images_per_class, self.parameterization.matrices)

    @property
    def images_per_class(self) -> float:
        """The budget that buys exactly the memory queried by images; half a number is added against rounding."""
        return self._affords(self.parameterization.numbers(self.info.shape))

    def _affords(self, numbers: int) -> float:
        """Images per class that take so many numbers, and half a number, against the rounding of this division."""
        return (numbers + 0.5) / (self.info.classes * self.info.shape.numel)

    def largest(self) -> Setting:
        """The setting with a memory that is queried by as many images as it ever is, all black: for plans."""
        shape, budget = self.info.shape, self.images_per_class * self.info.classes / self.ways
        images = torch.zeros(self.ways, max(self.shots), shape.channels, shape.height, shape.width)
        queried = Asked(self.parameterization, images.to(self.setting.device), budget)
        return replace(self.setting, parameterization=queried)

    def of_extractor(self, augmentation: AugmentationName) -> Setting:
        """Of the classifier that a start makes the extractor of; its outputs beyond the classes are of no class."""
        outputs, architecture = self.parameterization.dimension or self.info.classes, self.parameterization.extractor
        return replace(self.setting, architecture=architecture, classes=outputs, augmentation=augmentation)

    # ------------------------------------------------------------ learning

    def images_of_start(self, start: Start, rows: ClassRows, key: Key) -> Tensor:
        """What both memories recall at first, of shape (classes, matrices, c, h, w).

        Raises UsageError for more images than a class has.
        """
        return start.images(self._whole(self.by_label), rows, self.parameterization.matrices, key)

    def begin(
        self,
        key: Key,
        rows: ClassRows | None = None,
        extractor: nn.Module | None = None,
        images: Tensor | None = None,
    ) -> OuterState:
        """The start of the memory that is queried by images; with training images, its features are standardised.

        With a start, `extractor` is a network of its architecture that was trained to tell all classes, and `images`
        are those of `images_of_start`.
        """
        state = begin(self._whole(self.parameterization), self.outer_optimizer, self.images_per_class, key)
        if rows is None:
            return state
        if self.start is None:
            seen = rows.draw(list(range(self.info.classes)), STANDARDIZED_ON, key("features"))
            memory = self.parameterization.standardize(state.memory, seen.images)
        else:
            if extractor is None or images is None:
                raise UsageError("a start of recall with images needs a trained extractor and the images of classes")
            weights = {name: w.detach() for name, w in extractor.named_parameters()}
            memory = self.parameterization.taught(state.memory, weights, images)
        return replace(state, memory=memory, optimizer_state=self.outer_optimizer.init(memory))

    def _whole(self, parameterization: Parameterization) -> Setting:
        """With all classes."""
        return replace(self.setting, classes=self.info.classes, parameterization=parameterization)

    def learn(
        self, session: Session, series: Series, rows: ClassRows, classify: Callable[[], nn.Module]
    ) -> tuple[Params, Params]:
        """The memory that is queried by images and the one that is queried by labels, from these training images.

        `classify()` is the network that a start makes the extractor of. The start's images are made before that network
        is trained, so that a start that can't be made costs no training.
        """
        device, key = session.device, session.key("outer")
        images = None
        if self.start is not None:
            made = partial(self.images_of_start, self.start, rows, session.key("start"))
            images = series.once("start", lambda: {"images": made()})["images"]

        def by_images(episode: Episode, classes: tuple[int, ...]) -> Asked:
            return Asked(self.parameterization, episode.support.images.unflatten(0, (self.ways, -1)))

        def by_labels(episode: Episode, classes: tuple[int, ...]) -> Asked:
            return Asked(self.by_label, torch.tensor(classes, device=device)[:, None])

        start = partial(self.begin, session.key("memory"), rows, None if images is None else classify(), images)
        memory = self._learn(series, "asked with images", start, rows, key, by_images)
        stored = self.by_label.numbers(self.info.shape, self.info.classes, self.parameterization.matrices)
        of_labels = self._whole(self.by_label), self.outer_optimizer, self._affords(stored), session.key("labels")
        start = partial(begin, *of_labels, None if images is None else _Given(images), rows)
        return memory, self._learn(series, "asked with labels", start, rows, key, by_labels)

    def _learn(
        self, series: Series, name: str, start: Callable[[], OuterState], rows: ClassRows, key: Key,
        queried: Callable[[Episode, tuple[int, ...]], Asked],
    ) -> Params:  # fmt: skip
        """A memory that is queried for the classes drawn in every step; equal keys draw equal classes and images."""

        def one_step(state: OuterState) -> OuterState:
            of_step = key(state.iteration)
            classes = tuple(of_step("classes").permutation(len(rows.rows))[: self.ways].tolist())
            k = self.shots[int(of_step("number").permutation(len(self.shots))[0])]
            episode = draw_episode(rows, classes, k, of_step("shots"))
            posed = replace(self.setting, parameterization=queried(episode, classes))
            given = posed, self.objective, self.outer_optimizer, episode.query, state, of_step("step")
            return step(*given, self.clip, rollouts=self.rollouts)

        return series.learn(name, self.outer_optimizer, start, one_step, self.iterations)
