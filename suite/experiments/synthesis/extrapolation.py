"""Task extrapolation: memories of separate tasks, recalled together for classes that never met."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from suite.architectures.convnet import ConvNet
from suite.controls.random_images import RandomImages
from suite.core.outer_loop import PAPER_ITERATIONS, OuterState, begin, distill
from suite.datasets.base import ImageDataset
from suite.datasets.digits import Digits
from suite.datasets.some_classes import SomeClasses
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.experiments import plots, timing
from suite.experiments.series import Measured, Series
from suite.experiments.synthesis import summary
from suite.experiments.synthesis.episodes import Cut, across, everything, of_classes, tasks_of
from suite.images import preprocess
from suite.images.augment import AugmentationChoice
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory, described
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import experiments
from suite.storage.files import make_directory
from suite.types import (
    Architecture,
    Budget,
    ClassRows,
    Control,
    Cost,
    Data,
    InnerOptimizer,
    Objective,
    Outcome,
    Parameterization,
    Params,
    SelectsInFeatures,
    Session,
    Setting,
    Split,
)
from suite.validation import NonNegativeInt, Positive, PositiveInt, require, require_labels


@experiments.register("extrapolation")
@dataclass(frozen=True)
class Extrapolation:
    """A memory for each task of `ways_per_task` classes; episodes take one class from each of several (paper, A.3).

    In an episode of n ways, for n in `ways`, a fresh network of n outputs is trained on what the memories of n
    different tasks recall for one class of each, and tested on all test images of those classes: no two of them were
    in one task, so no network that a memory was learned with ever told them apart. Beside it, on the same classes and
    with the same budget: the `controls`, and a memory distilled on exactly these classes (the oracle, whose bases
    are as many for each class); and all their training images, for `full_data_epochs` epochs. These two bounds are
    measured in the first `bound_episodes`. `preprocessing_of` 'all classes' fits the preprocessing once; 'each task'
    fits it to a task's images alone, and what is recalled is taken to the common one (`preprocess.moved`), in which
    every network is trained and tested.
    """

    dataset: ImageDataset = field(default_factory=Digits)
    ways_per_task: int = 2
    cut: Cut = "slices"
    architecture: Architecture = field(default_factory=ConvNet)
    parameterization: Parameterization = field(default_factory=lambda: Addressing(bases=None))
    objective: Objective = field(default_factory=BPTT)
    outer_optimizer: InnerOptimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    images_per_class: Positive = 10
    iterations: PositiveInt = PAPER_ITERATIONS
    clip: Positive | None = 2.0
    augmentation: AugmentationChoice = "default"
    preprocessing_of: Literal["all classes", "each task"] = "all classes"
    ways: Sequence[int] = (2, 5)
    episodes: PositiveInt = 100
    controls: Sequence[Control] = (RandomImages(),)
    bound_episodes: NonNegativeInt = 10
    full_data_epochs: PositiveInt = 300
    evaluation: Protocol = field(default_factory=lambda: Protocol(networks=1))

    def __post_init__(self) -> None:
        bounded = self.bound_episodes <= self.episodes
        require(self, "bound_episodes", bounded, f"from 0 to {self.episodes}, the episodes")
        require_labels(self)
        require(self, "ways", len(self.ways) == len(set(self.ways)) > 0, "different numbers, at least one")
        tasks = tasks_of(self.dataset.info, self.ways_per_task, self.cut, Key(0))
        for n in self.ways:
            across(tasks, n, Key(0))

    # ------------------------------------------------------------ before the run

    def _require_room(self) -> None:
        """Refuse what the budget can't store; not earlier, so that a table's other cells may be run."""
        for n in (self.ways_per_task, *(self.ways if self.bound_episodes else ())):
            self._of(n).per_class(self.dataset.info.shape, n, self.images_per_class)

    def plan(self) -> dict[str, Any]:
        self._require_room()
        info, task = self.dataset.info, self._task(torch.device("cpu"), self.ways_per_task)
        budget, tasks = self._budget(task), info.classes // self.ways_per_task
        return {
            "data set": f"{info.name}, {info.shape}, {tasks} tasks of {self.ways_per_task} classes ({self.cut})",
            "budget": f"{budget.stored_numbers} numbers for the memory of a task "
            f"({budget.images_per_class:.4g} images per class)",
            "recalled images per class": budget.recalled_per_class,
            "outer iterations": summary.outer_iterations(self.iterations, tasks),
            "oracles": f"up to {len(self.ways) * self.bound_episodes} memories more",
            "preprocessing fitted on": self.preprocessing_of,
            **self.objective.plan(task, budget.recalled_per_class),
            "episodes": f"{self.episodes} of each of {', '.join(map(str, self.ways))} ways, "
            f"the bounds in {self.bound_episodes}",
            "evaluation": self.evaluation.label(),
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of all memories and episodes; every oracle's classes are taken to be new."""
        info, protocol = self.dataset.info, self.evaluation
        task = self._task(device, self.ways_per_task)
        per_class = self._budget(task).recalled_per_class
        step = timing.outer_step(task, self.objective, self.images_per_class, per_class)
        own = self.iterations * step * (info.classes // self.ways_per_task)
        for n in self.ways:
            pace = timing.pace(self._task(device, n))
            test = n * info.test_size // info.classes * pace.read
            real = n * min(max(1, int(self.images_per_class)), info.train_size // info.classes)
            shown = (self.episodes + self.bound_episodes) * n * per_class + len(self.controls) * self.episodes * real
            networks = self.episodes * (1 + len(self.controls)) + 2 * self.bound_episodes
            own += protocol.networks * (protocol.epochs * shown * pace.train + networks * test)
            whole = n * info.train_size // info.classes
            own += protocol.networks * self.bound_episodes * self.full_data_epochs * whole * pace.train
            features = sum(control.epochs for control in self.controls if isinstance(control, SelectsInFeatures))
            own += self.episodes * features * whole * pace.train
            own += self.bound_episodes * self.iterations * step * n / self.ways_per_task
        return Cost(own, {}, step)

    def _task(self, device: torch.device, ways: int) -> Setting:
        augmentation = self.dataset.augmentation if self.augmentation == "default" else self.augmentation
        return Setting(self.dataset.info.shape, ways, self.architecture, self._of(ways), augmentation, device)

    def _of(self, ways: int) -> Parameterization:
        """For so many classes, with as many bases for each class as a task's memory has."""
        of: Any = self.parameterization
        if isinstance(getattr(of, "bases", None), int):
            return replace(of, bases=max(1, of.bases * ways // self.ways_per_task))
        return self.parameterization

    def _budget(self, task: Setting) -> Budget:
        return summary.budget(task, self.images_per_class)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        self._require_room()
        info = self.dataset.info
        tasks = tasks_of(info, self.ways_per_task, self.cut, session.key("tasks"))
        data = self.dataset.load(session.data_dir, session.key("data"), 0.0)
        rows, test = (ClassRows.of(part.to(session.device), info.classes) for part in (data.train, data.test))
        inner, banks = self._task(session.device, self.ways_per_task), []
        drawn = {n: [across(tasks, n, session.key("episode", n, e)) for e in range(self.episodes)] for n in self.ways}
        wanted = {self._classes(tasks, one) for own in drawn.values() for one in own[: self.bound_episodes]}
        series = Series(session, self.iterations * (len(tasks) + len(wanted)))
        spaces = [self._space(session, data, own) for own in tasks]
        for t, own in enumerate(tasks):
            real = ClassRows.of(spaces[t].train.to(session.device), len(own))
            banks.append(self._learn(series, f"task {t + 1}", inner, real, session.key("task", t)))
        oracles = {
            classes: self._learn(
                series,
                f"oracle of {', '.join(info.class_names[c] for c in classes)}",
                self._task(session.device, len(classes)),
                of_classes(rows, classes),
                session.key("oracle", *classes),
            )
            for classes in sorted(wanted)
        }
        found: dict[str, tuple[float, ...]] = {}
        for n, episodes in drawn.items():
            one = partial(self._episode, session, data, rows, test, spaces, banks, oracles, tasks, episodes)
            found |= {f"{n}-way: {name}": v for name, v in series.measure(f"{n}-way", self.episodes, one).items()}
        memories = [
            self._save(session, t, own, bank, space)
            for t, (own, bank, space) in enumerate(zip(tasks, banks, spaces, strict=True))
        ]
        plots.task_by_task(memories, make_directory(session.directory / "figures") / "recalled.png")
        less = summary.less(self)
        return Outcome(
            figures=tuple(summary.figures(found, self._notes())),
            budget=self._budget(inner),
            scale=summary.scale(self, less),
            facts={
                "dataset": info.name,
                "dataset_digest": data.digest,
                "tasks": [[info.class_names[c] for c in own] for own in tasks],
                "episodes": {f"{n}-way": [list(self._classes(tasks, one)) for one in own] for n, own in drawn.items()},
                "preprocessing": data.transform.describe(),
                "preprocessing_of": self.preprocessing_of,
            },
            cost={"seconds_per_iteration": series.seconds / (self.iterations * (len(tasks) + len(wanted)))},
        )

    def _classes(self, tasks: tuple[tuple[int, ...], ...], episode: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """The classes of an episode, ascending: their order changes neither what an oracle learns nor what is told."""
        return tuple(sorted(tasks[t][place] for t, place in episode))

    def _space(self, session: Session, data: Data, own: tuple[int, ...]) -> Data:
        """The training images of a task as its memory sees them."""
        if self.preprocessing_of == "each task":
            return SomeClasses(self.dataset, list(own)).load(session.data_dir, session.key("data"), 0.0)
        return replace(data, train=everything(of_classes(ClassRows.of(data.train, data.info.classes), own)))

    def _learn(self, series: Series, name: str, task: Setting, real: ClassRows, key: Key) -> Params:
        def step(at: OuterState) -> OuterState:
            (after,) = distill(
                task, self.objective, self.outer_optimizer, real, at, key("outer"), at.iteration + 1, self.clip
            )
            return after

        return series.learn(name, begin(task, self.outer_optimizer, self.images_per_class, key), step, self.iterations)

    def _episode(
        self,
        session: Session,
        data: Data,
        rows: ClassRows,
        test: ClassRows,
        spaces: list[Data],
        banks: list[Params],
        oracles: dict[tuple[int, ...], Params],
        tasks: tuple[tuple[int, ...], ...],
        episodes: list[tuple[tuple[int, int], ...]],
        e: int,
    ) -> Measured:
        """Accuracies of the memories and of what stands beside them, on one episode's test images."""
        episode = sorted(episodes[e], key=lambda one: tasks[one[0]][one[1]])
        classes = self._classes(tasks, episode)
        n = len(classes)
        task, key = self._task(session.device, n), session.key("evaluation", n, e)
        real = ClassRows.of(everything(of_classes(rows, classes)), n)  # controls look at all images they are given
        scored = {"test": everything(of_classes(test, classes))}

        def measured(training: Callable[[int], Split], protocol: Protocol = self.evaluation) -> float:
            found = evaluate(task, training, protocol, key, scored, session.pause)["test"]
            return sum(found) / len(found)

        of_tasks = [self._recalled(data, spaces[t], banks[t], place, session.device) for t, place in episode]
        labels = torch.arange(n).repeat_interleave(len(of_tasks[0])).to(session.device)
        images = Split(torch.cat(of_tasks), labels)
        found = {"memory": measured(lambda i: images)}
        each = max(1, int(self.images_per_class))
        for control in self.controls:
            found[control.label] = measured(control.choose(task, real, each, key(control.label)))
        if e < self.bound_episodes:
            oracle = recalled(task, oracles[classes])
            found["memory, episodes of the bounds"] = found["memory"]
            found["oracle memory"] = measured(lambda i: oracle)
            found["full data"] = measured(lambda i: real.split, replace(self.evaluation, epochs=self.full_data_epochs))
        return found

    def _recalled(self, data: Data, space: Data, bank: Params, place: int, device: torch.device) -> torch.Tensor:
        """What a task's memory recalls for one of its classes, in the space that all networks share."""
        with torch.no_grad():
            images = self.parameterization.recall(bank, torch.tensor([place], device=device))[0]
        if self.preprocessing_of == "all classes":
            return images
        return preprocess.moved(images, space.transform, data.transform)

    def _notes(self) -> dict[str, str]:
        """What a reader must know of a figure, by the name of its row."""
        each = max(1, int(self.images_per_class))
        return {control.label: f"{each} real images per class, drawn for each episode" for control in self.controls} | {
            "oracle memory": f"a memory of the same budget for each class, distilled on exactly the episode's "
            f"classes; the first {self.bound_episodes} episodes, whose classes may repeat",
            "full data": f"all training images of the classes, {self.full_data_epochs} epochs; the first "
            f"{self.bound_episodes} episodes",
        }

    def _save(self, session: Session, t: int, own: tuple[int, ...], bank: Params, space: Data) -> Memory:
        inner, info = self._task(session.device, self.ways_per_task), self.dataset.info
        memory = Memory(
            {k: v.cpu() for k, v in bank.items()},
            {
                "dataset": info.name,
                "task": t + 1,
                "class_names": [info.class_names[c] for c in own],
                "superclasses": [],
                "seed": session.key.seed,
            }
            | described(self, inner.shape, space.transform, self._budget(inner)),
            space.transform,
        )
        memory.save(make_directory(session.directory / "memories") / f"task-{t + 1:03}.safetensors")
        return memory
