"""Task extrapolation: memories of separate tasks, recalled together for classes that never met (paper, A.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from suite.architectures.convnet import ConvNet
from suite.controls.random_images import RandomImages
from suite.core.outer_loop import PAPER_ITERATIONS, OuterState, begin, step
from suite.datasets.base import ImageSource
from suite.datasets.digits import Digits
from suite.datasets.loading import load
from suite.datasets.some_classes import SomeClasses
from suite.evaluation.comparison import affordable_per_class
from suite.evaluation.protocol import Protocol
from suite.experiments import plots, timing
from suite.experiments.accounting import augmentation_of, budget_of, outer_step_plan, scale_of
from suite.experiments.learning import Series
from suite.experiments.synthesis import summary
from suite.experiments.synthesis.episodes import Cut, all_images, of_classes, sample_classes, tasks_of
from suite.experiments.synthesis.joined import JoinedEpisodes
from suite.images.augment import AugmentationChoice
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import ADDED, experiments
from suite.storage.files import make_directory
from suite.types import (
    Architecture,
    ClassRows,
    Control,
    Cost,
    Data,
    Objective,
    Optimizer,
    Outcome,
    Parameterization,
    Params,
    SelectsInFeatures,
    Session,
    Setting,
    Start,
    over_steps,
)
from suite.validation import Few, NonNegativeInt, Positive, PositiveInt, require, require_labels, require_no_teacher


@experiments.register("extrapolation")
@dataclass(frozen=True)
class Extrapolation:
    """A memory for each task of `ways_per_task` classes; episodes take one class from each of several (paper, A.3).

    In an episode of n ways, for n in `ways`, a fresh network of n outputs is trained on what the memories of n
    different tasks recall for one class of each, and tested on all test images of those classes: no two of them were
    in one task, so no network that a memory was learned with ever separated them. Beside it, on the same classes and
    with the same budget: the `controls`, and a memory distilled on exactly these classes (the oracle, whose bases
    are as many for each class); and all their training images.

    >>> Extrapolation(ways_per_task=2).plan()["data set"]
    'digits, 1x8x8, 5 tasks of 2 classes (slices)'
    """

    dataset: ImageSource = field(default_factory=Digits)
    """Its classes are cut into tasks."""
    ways_per_task: int = 2
    """Classes of a task."""
    cut: Cut = "slices"
    """How classes are cut into tasks."""
    architecture: Architecture = field(default_factory=ConvNet)
    """Of every network."""
    parameterization: Parameterization = field(default_factory=lambda: Addressing(bases=None))
    """Of a task's memory."""
    objective: Objective = field(default_factory=BPTT)
    """Gives a memory its gradient."""
    outer_optimizer: Optimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    """Improves a memory."""
    start: Start | None = field(default=None, metadata=ADDED)
    """What a memory recalls at first, made of its training images; None: as its parameterization draws it."""
    images_per_class: Positive = 10
    """Budget of a memory, in real images of each class."""
    iterations: PositiveInt = PAPER_ITERATIONS
    """Outer steps of each memory."""
    rollouts: PositiveInt = field(default=1, metadata=ADDED)
    """Of an outer step, which takes their mean gradient: each has a network and draws of its own."""
    clip: Positive | None = 2.0
    """Largest norm of the memory's gradient; None: not clipped."""
    augmentation: AugmentationChoice = "default"
    """Of recalled and real images; 'default': the data set's own."""
    preprocessing_of: Literal["all classes", "each task"] = "all classes"
    """What it is fitted on; networks are always in the space of 'all classes', where `preprocess.moved` takes them."""
    ways: Sequence[int] = (2, 5)
    """Classes of an episode."""
    episodes: Few = 100
    """Of each number of ways."""
    controls: Sequence[Control] = (RandomImages(),)
    """Real images of the same budget."""
    bound_episodes: NonNegativeInt = 10
    """First episodes in which the oracle and all training images are measured too."""
    full_data_epochs: PositiveInt = 300
    """Epochs on all training images of an episode's classes."""
    evaluation: Protocol = field(default_factory=lambda: Protocol(networks=1))
    """How an episode's networks are trained."""

    def __post_init__(self) -> None:
        bounded = self.bound_episodes <= self.episodes
        require(self, "bound_episodes", bounded, f"from 0 to {self.episodes}, the episodes")
        require_labels(self)
        require_no_teacher(self)
        require(self, "ways", len(self.ways) == len(set(self.ways)) > 0, "different numbers, at least one")
        tasks = tasks_of(self.dataset.info, self.ways_per_task, self.cut, Key(0))
        for n in self.ways:
            sample_classes(tasks, n, Key(0))

    # ------------------------------------------------------------ sizes

    def setting(self, device: torch.device, ways: int) -> Setting:
        """What a memory of so many classes is distilled for, and what an episode's networks are trained for."""
        augmentation, parameterization = augmentation_of(self.dataset, self.augmentation), self._with_bases_for(ways)
        return Setting(self.dataset.info.shape, ways, self.architecture, parameterization, augmentation, device)

    def _with_bases_for(self, ways: int) -> Parameterization:
        """The parameterization with as many bases for each class as a task's memory has."""
        of = self.parameterization
        if isinstance(of, Addressing) and of.bases is not None:
            return replace(of, bases=max(1, of.bases * ways // self.ways_per_task))
        return of

    def require_room(self) -> None:
        """Refuse what the budget can't store; not earlier, so that a table's other cells may be run."""
        for n in (self.ways_per_task, *(self.ways if self.bound_episodes else ())):
            self._with_bases_for(n).per_class(self.dataset.info.shape, n, self.images_per_class)

    def plan(self) -> dict[str, Any]:
        """Sizes and steps, found without any data."""
        self.require_room()
        info, setting = self.dataset.info, self.setting(torch.device("cpu"), self.ways_per_task)
        budget, tasks = budget_of(setting, self.images_per_class), info.classes // self.ways_per_task
        return {
            "data set": f"{info.name}, {info.shape}, {tasks} tasks of {self.ways_per_task} classes ({self.cut})",
            "budget": f"{budget.stored_numbers} numbers for the memory of a task "
            f"({budget.images_per_class:.4g} images per class)",
            "recalled images per class": budget.recalled_per_class,
            "outer iterations": summary.outer_iterations(self.iterations, tasks),
            "oracles": f"up to {len(self.ways) * self.bound_episodes} memories more",
            "preprocessing fitted on": self.preprocessing_of,
            **outer_step_plan(self, setting, budget.recalled_per_class),
            "episodes": f"{self.episodes} of each of {', '.join(map(str, self.ways))} ways, "
            f"the bounds in {self.bound_episodes}",
            "evaluation": self.evaluation.label(),
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of all memories and episodes; every oracle's classes are taken to be new."""
        info, protocol, setting = self.dataset.info, self.evaluation, self.setting(device, self.ways_per_task)
        per_class = budget_of(setting, self.images_per_class).recalled_per_class
        step_seconds = timing.outer_step(setting, self.objective, self.images_per_class, per_class, self.rollouts)
        seconds = self.iterations * step_seconds * (info.classes // self.ways_per_task)
        feature_epochs = sum(control.epochs for control in self.controls if isinstance(control, SelectsInFeatures))
        for n in self.ways:
            pace = timing.pace(self.setting(device, n), protocol)
            whole, tested = (n * size // info.classes for size in (info.train_size, info.test_size))
            real = n * min(affordable_per_class(self.images_per_class), info.train_size // info.classes)
            for episodes, epochs, images in (
                (self.episodes, protocol.epochs, n * per_class),  # memories
                (self.episodes * len(self.controls), protocol.epochs, real),
                (self.bound_episodes, protocol.epochs, n * per_class),  # oracles
                (self.bound_episodes, self.full_data_epochs, whole),
            ):
                seconds += episodes * pace.networks(protocol.networks, epochs, images, tested)
            seconds += self.episodes * feature_epochs * whole * pace.train
            seconds += self.bound_episodes * self.iterations * step_seconds * n / self.ways_per_task
        return Cost(seconds, {}, step_seconds)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        """Learn a memory of every task and the oracles, then measure episode after episode."""
        self.require_room()
        joined = self._joined(session)
        oracle_classes = joined.classes_of_oracles()
        steps = self.iterations * (len(joined.tasks) + len(oracle_classes))
        series, memories, oracles = Series(session, steps), [], {}
        for t, space in enumerate(joined.spaces):
            real = ClassRows.of(space.train.to(session.device), self.ways_per_task)
            memories.append(self._learn(series, f"task {t + 1}", real, session.key("task", t)))
        for classes in oracle_classes:
            name, key = f"oracle of {', '.join(joined.names(classes))}", session.key("oracle", *classes)
            oracles[classes] = self._learn(series, name, of_classes(joined.train, classes), key)
        joined = replace(joined, memories=memories, oracles=oracles)
        values = {f"{n}-way": series.measure(f"{n}-way", self.episodes, partial(joined.measure, n)) for n in self.ways}
        plots.task_by_task(joined.save_memories(self), make_directory(session.directory / "figures") / "recalled.png")
        return Outcome(
            measurements=tuple(summary.measurements(values, self._notes())),
            budget=budget_of(self.setting(session.device, self.ways_per_task), self.images_per_class),
            scale=scale_of(self, summary.reduced_by(self)),
            facts=joined.facts() | {"preprocessing_of": self.preprocessing_of},
            cost={"seconds_per_iteration": series.stopwatch.seconds / steps},
        )

    def _joined(self, session: Session) -> JoinedEpisodes:
        """The episodes, before any memory is learned."""
        data, device = load(self.dataset, session.data_dir, session.key("data"), 0.0), session.device
        tasks = tasks_of(data.info, self.ways_per_task, self.cut, session.key("tasks"))
        return JoinedEpisodes(
            session=session,
            data=data,
            tasks=tasks,
            spaces=[self._space(session, data, classes) for classes in tasks],
            settings={n: self.setting(device, n) for n in {self.ways_per_task, *self.ways}},
            drawn={
                n: [sample_classes(tasks, n, session.key("episode", n, e)) for e in range(self.episodes)]
                for n in self.ways
            },
            controls=self.controls,
            images_per_class=self.images_per_class,
            protocol=self.evaluation,
            full_data_epochs=self.full_data_epochs,
            bound_episodes=self.bound_episodes,
            train=ClassRows.of(data.train.to(device), data.info.classes),
            test=ClassRows.of(data.test.to(device), data.info.classes),
        )

    def _space(self, session: Session, data: Data, classes: tuple[int, ...]) -> Data:
        """The training images of a task as its memory sees them."""
        if self.preprocessing_of == "each task":
            return load(SomeClasses(self.dataset, list(classes)), session.data_dir, session.key("data"), 0.0)
        return replace(data, train=all_images(of_classes(ClassRows.of(data.train, data.info.classes), classes)))

    def _learn(self, series: Series, name: str, real: ClassRows, key: Key) -> Params:
        setting = self.setting(real.split.labels.device, len(real.rows))
        optimizer = over_steps(self.outer_optimizer, self.iterations)

        def one_step(state: OuterState) -> OuterState:
            return step(setting, self.objective, optimizer, real, state, key("outer"), self.clip, 0, self.rollouts)

        start = partial(begin, setting, optimizer, self.images_per_class, key, self.start, real)
        return series.learn(name, optimizer, start, one_step, self.iterations)

    def _notes(self) -> dict[str, str]:
        each = affordable_per_class(self.images_per_class)
        return {control.label: f"{each} real images per class, drawn for each episode" for control in self.controls} | {
            "oracle memory": f"a memory of the same budget for each class, distilled on exactly the episode's "
            f"classes; the first {self.bound_episodes} episodes, whose classes may repeat",
            "full data": f"all training images of the classes, {self.full_data_epochs} epochs; the first "
            f"{self.bound_episodes} episodes",
        }
