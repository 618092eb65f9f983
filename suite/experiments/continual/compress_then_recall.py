"""Compress-then-recall: every task of a stream becomes a memory, and all memories train a new network (paper, A.2)."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from suite.architectures.mlp import MLP
from suite.core.outer_loop import OuterState, begin, step
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.experiments import plots, timing
from suite.experiments.accounting import budget_of, save_memory, stored_numbers
from suite.experiments.continual import presets, streaming
from suite.experiments.continual.reservoir import Reservoir
from suite.experiments.continual.stand_ins import with_stand_ins
from suite.experiments.continual.stream_state import Row, StreamState
from suite.experiments.learning import Stopwatch, learn
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.memory import Memory
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import experiments
from suite.storage.files import make_directory
from suite.streams.permutations import Permutations
from suite.types import (
    Architecture,
    Budget,
    ClassRows,
    Cost,
    InnerOptimizer,
    Objective,
    Outcome,
    Parameterization,
    RelatedTasks,
    Session,
    Setting,
    Split,
    Stream,
    StreamTask,
)
from suite.validation import check_types, require, require_labels


@experiments.register("compress_then_recall")
@dataclass(frozen=True)
class CompressThenRecall:
    """Compress each task of a stream into a memory of its share of the storage (paper, A.2 and B.2).

    The storage is M = T `images_per_task` images for T tasks. While task t is learned, its images are kept by reservoir
    sampling in what finished memories leave of it: floor(M (T - t + 1) / T). For every incoming batch there are
    `replay` outer steps, whose outer loss is on the batch and on `replay_batch` images drawn from the reservoir. Then
    the memory, of M / T images' worth of numbers, takes its share and the images are cleared. After every task fresh
    networks are trained on all that the memories recall. The memory that is being learned is working space of M / T
    images beside the storage; the record has both.
    """

    stream: Stream = field(default_factory=Permutations)
    """The tasks, in order."""
    architecture: Architecture = field(default_factory=MLP)
    """Of the inner loop's networks and of those that are evaluated."""
    parameterization: Parameterization = field(default_factory=lambda: Addressing(bases=8))
    """Of every task's memory."""
    objective: Objective = field(default_factory=BPTT)
    """Its `real_per_class` is not used: the outer loss takes the incoming and the replayed images."""
    outer_optimizer: InnerOptimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    """Improves the memory."""
    images_per_task: float = 10
    """Storage of a task, in real images."""
    batch: int = 10
    """Images that come in at once."""
    replay: int = 20
    """Outer steps for every incoming batch."""
    replay_batch: int = 10
    """Images of the reservoir in each outer loss."""
    clip: float | None = 2.0
    """Largest norm of the memory's gradient; None: not clipped."""
    evaluation: Protocol = field(default_factory=Protocol)
    """How networks are trained on what all memories recall."""
    stand_ins: int = 0
    """Copies of the recalled images, each as another task of the stream's law shows it, that the inner loop's networks
    learn beside the memory, drawn anew for every outer step. Ours, not the paper's."""
    whole_matrix: bool = True
    """Measure every task so far after every task; else the new one alone, and all after the last."""
    preset: presets.Source = "paper"
    """Whose published sizes the run is held against (`presets.PRESETS`)."""

    def __post_init__(self) -> None:
        check_types(self)
        require_labels(self)
        for name in ("images_per_task", "batch", "replay", "replay_batch"):
            require(self, name, getattr(self, name) > 0, "above 0")
        require(self, "clip", self.clip is None or self.clip > 0, "above 0, or None")
        info = self.stream.info
        require(self, "stand_ins", self.stand_ins >= 0, "at least 0")
        able = self.stand_ins == 0 or isinstance(self.stream, RelatedTasks)
        require(self, "stand_ins", able, "0 for a stream whose law makes no other task of a task's images")
        require(self, "images_per_task", self.images_per_task >= 1, "at least 1")
        # What the parameterization can't store in a task's share it refuses here, before anything is run.
        self.parameterization.per_class(info.shape, info.classes_per_task, self._images_per_class)

    # ------------------------------------------------------------ sizes

    @property
    def stored_images(self) -> int:
        """Real images that the storage would hold."""
        return int(self.images_per_task * self.stream.info.tasks)

    @property
    def steps_per_task(self) -> int:
        """Outer steps of one task's memory."""
        return -(-self.stream.info.samples_per_task // self.batch) * self.replay

    @property
    def _images_per_class(self) -> float:
        """A task's share of the storage, in images per class."""
        return self.images_per_task / self.stream.info.classes_per_task

    def capacity(self, task: int) -> int:
        """Real images that may be kept while this task (from 0) is learned."""
        return int(self.images_per_task * (self.stream.info.tasks - task))

    def setting(self, device: torch.device) -> Setting:
        """What one memory is distilled for: the classes of one task."""
        info = self.stream.info
        return Setting(info.shape, info.classes_per_task, self.architecture, self.parameterization, "none", device)

    def plan(self) -> dict[str, Any]:
        """Sizes, storage and steps, found without any data."""
        setting = self.setting(torch.device("cpu"))
        budget = budget_of(setting, self._images_per_class)
        return {
            **presets.plan_of_stream(self),
            "storage": f"{self.stored_images} images, {budget.stored_numbers} numbers for the memory of a task",
            "recalled images per class and task": budget.recalled_per_class,
            "outer steps": f"{self.steps_per_task} a task, {self.steps_per_task * self.stream.info.tasks} in all",
            **self._objective_on_average().plan(setting, budget.recalled_per_class),
            "evaluation": self.evaluation.label(),
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of all tasks, their evaluation among them."""
        info, setting, protocol = self.stream.info, self.setting(device), self.evaluation
        per_class = self.parameterization.per_class(info.shape, info.classes_per_task, self._images_per_class)
        pace = timing.pace(replace(setting, classes=info.outputs))
        step_seconds = timing.outer_step(setting, self._objective_on_average(), self._images_per_class, per_class)
        seconds = self.steps_per_task * info.tasks * step_seconds
        for t in range(1, info.tasks + 1):
            measured = t if self.whole_matrix or t == info.tasks else 1
            images = t * per_class * info.classes_per_task
            seconds += pace.networks(protocol.networks, protocol.epochs, images, measured * info.test_per_task)
        return Cost(seconds, {}, step_seconds)

    def _objective(self, real_per_class: int | None = None) -> Objective:
        """The objective with the incoming and the replayed images in its outer loss, of whatever classes they are."""
        objective: Any = self.objective
        names = {declared.name for declared in fields(objective)}
        if "real_per_class" in names:
            objective = replace(objective, real_per_class=real_per_class or self.batch + self.replay_batch)
        if self.stand_ins and "images_per_class_per_step" in names:
            each = objective.images_per_class_per_step  # of every task that a network learns
            objective = replace(objective, images_per_class_per_step=each * (1 + self.stand_ins))
        return objective

    def _objective_on_average(self) -> Objective:
        """The objective of the same size for plans, where every class has its part of the images."""
        return self._objective(-(-(self.batch + self.replay_batch) // self.stream.info.classes_per_task))

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        """Compress and measure task after task."""
        presets.announce_deviations(self, session)
        setting, state = self.setting(session.device), StreamState.restored(session)
        stopwatch, tasks = Stopwatch(state.seconds), list[StreamTask]()
        for t, task in enumerate(self.stream.tasks(session.data_dir, session.key("stream"))):
            tasks.append(task)
            if t < state.task:
                continue
            state = self._compress(session, setting, task, state, stopwatch)
            rows = self._measure(session, setting, state, tasks)
            state = replace(state, rows=(*state.rows, rows), seconds=stopwatch.seconds)
            state.save(session, self.steps_per_task)
        return self._outcome(session, setting, state, tasks)

    def _compress(
        self, session: Session, setting: Setting, task: StreamTask, state: StreamState, stopwatch: Stopwatch
    ) -> StreamState:
        """The stream's state with this task's memory among the finished ones."""
        t, images = state.task, task.train.relabelled(task.classes)
        key, order = session.key("task", t), session.key("order", t).permutation(len(images))
        finished_numbers = sum(map(stored_numbers, state.memories))

        def one_batch(outer: OuterState) -> OuterState:
            """`replay` outer steps on the next incoming batch."""
            nonlocal state
            number = outer.iteration // self.replay
            incoming = order[number * self.batch : (number + 1) * self.batch]
            reservoir = (state.reservoir or Reservoir.empty(self.capacity(t))).add(incoming, key("reservoir"))
            stored = finished_numbers + len(reservoir.kept) * setting.shape.numel
            state = replace(state, reservoir=reservoir, peak_numbers=max(state.peak_numbers, stored))
            for update in range(self.replay):
                replayed = reservoir.draw(self.replay_batch, key("replay", number, update))
                real = _rows_of(images, torch.cat([incoming, replayed]), setting)
                of_step = setting
                if self.stand_ins and isinstance(self.stream, RelatedTasks):
                    of_step = with_stand_ins(setting, self.stream, self.stand_ins, key("stand-ins", number, update))
                outer = step(
                    of_step, self._objective(), self.outer_optimizer, real, outer, key("outer"), self.clip
                )  # fmt: skip
            return outer

        def save(outer: OuterState, score: float | None) -> None:
            replace(state, outer=outer, seconds=stopwatch.seconds).save(session, self.steps_per_task)

        outer = learn(
            session,
            state.outer or begin(setting, self.outer_optimizer, self._images_per_class, key),
            one_batch,
            -(-len(images) // self.batch) * self.replay,
            save,
            stopwatch,
            steps_before=t * self.steps_per_task,
            total=self.steps_per_task * self.stream.info.tasks,
            caption=f"task {t + 1}",
        )
        return state.finished(outer.memory)

    def _measure(self, session: Session, setting: Setting, state: StreamState, tasks: list[StreamTask]) -> list[Row]:
        """For each evaluation network, trained on all that is recalled, its accuracies on the tasks so far."""
        info = self.stream.info
        whole = replace(setting, classes=info.outputs, groups=streaming.output_groups(info, tasks))
        splits = []
        for memory, task in zip(state.memories, tasks, strict=True):
            images = recalled(setting, memory)
            labels = torch.tensor(task.classes, device=images.labels.device)[images.labels]
            splits.append(Split(images.images, labels))
        training = Split(torch.cat([s.images for s in splits]), torch.cat([s.labels for s in splits]))
        last = len(tasks) - 1
        all_of_them = self.whole_matrix or last == info.tasks - 1
        tests = {str(j): task.test for j, task in enumerate(tasks) if all_of_them or j == last}
        key = session.key("evaluation", len(tasks))
        accuracies = evaluate(whole, lambda network: training, self.evaluation, key, tests, session.pause)
        return streaming.rows(accuracies, info.tasks, self.evaluation.networks)

    # ------------------------------------------------------------ what is left behind

    def _outcome(self, session: Session, setting: Setting, state: StreamState, tasks: list[StreamTask]) -> Outcome:
        info, budget = self.stream.info, budget_of(setting, self._images_per_class)
        matrices = [[rows[n] for rows in state.rows] for n in range(self.evaluation.networks)]
        memories = self._save_memories(session, setting, state, tasks, budget)
        streaming.plot_matrices(session, matrices)
        plots.task_by_task(memories, make_directory(session.directory / "figures") / "recalled.png")
        steps = self.steps_per_task * info.tasks
        reduced_by = presets.reduced_by(self, self.replay)
        return Outcome(
            measurements=tuple(streaming.measurements(matrices, "memory", "evaluation networks")),
            budget=Budget(
                budget.stored_numbers * info.tasks, self.stored_images / info.outputs, budget.recalled_per_class
            ),
            scale={"iterations": steps} | streaming.scale(self, reduced_by),
            facts=streaming.facts(self, tasks, matrices)
            | {
                "storage_numbers": self.stored_images * info.shape.numel,
                "most_stored_numbers": state.peak_numbers,
                "working_numbers": budget.stored_numbers,
            },
            cost={"seconds_per_iteration": state.seconds / steps},
        )

    def _save_memories(
        self, session: Session, setting: Setting, state: StreamState, tasks: list[StreamTask], budget: Budget
    ) -> list[Memory]:
        """A file for each task's memory."""
        folder = make_directory(session.directory / "memories")
        return [
            save_memory(
                folder / f"task-{t:03}.safetensors", memory, self, setting.shape, task.transform, budget,
                dataset=self.stream.info.name, task=t, made_by=task.made_by, class_names=list(task.class_names),
                superclasses=[], seed=session.key.seed,
            )
            for t, (memory, task) in enumerate(zip(state.memories, tasks, strict=True), 1)
        ]  # fmt: skip


def _rows_of(images: Split, rows: Int64[Tensor, " n"], setting: Setting) -> ClassRows:
    """These images, on the device, with the rows of each class."""
    batch = Split(images.images[rows], images.labels[rows]).to(setting.device)
    return ClassRows.of(batch, setting.classes)
