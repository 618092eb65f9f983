"""Compress-then-recall: every task of a stream becomes a memory, and all memories train a new network (paper, A.2)."""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch

from suite.architectures.mlp import MLP
from suite.evaluation.evaluate import evaluate
from suite.evaluation.protocol import Protocol
from suite.experiments import accounting, plots, timing
from suite.experiments.continual import presets, streaming
from suite.experiments.continual.compressing import Compression
from suite.experiments.continual.metrics import Row
from suite.experiments.continual.one_pass import kept_beside_memories
from suite.experiments.continual.stream_state import StreamState
from suite.experiments.learning import Stopwatch
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import ADDED, experiments
from suite.storage.files import make_directory
from suite.streams.permutations import Permutations
from suite.types import (
    Architecture,
    Budget,
    Cost,
    Objective,
    Optimizer,
    Outcome,
    Parameterization,
    RelatedTasks,
    Session,
    Setting,
    StartsFromImages,
    Stream,
    StreamTask,
)
from suite.validation import AtLeast, NonNegativeInt, Positive, PositiveInt, require, require_labels, require_no_teacher

KEPT = "memory, network kept"
"""The method of a second evaluation's measurements."""


@experiments.register("compress_then_recall")
@dataclass(frozen=True)
class CompressThenRecall:
    """Compress each task of a stream into a memory of its share of the storage (paper, A.2 and B.2).

    The storage is M = T `images_per_task` images for T tasks. While task t is learned, its images are kept by reservoir
    sampling in what finished memories leave of it: floor(M (T - t + 1) / T). For every incoming batch there are
    `replay` outer steps, whose outer loss is on the batch and on `replay_batch` images drawn from the reservoir. Then
    the memory, of M / T images' worth of numbers, takes its share and the images are cleared. After every task fresh
    networks are trained on all that the memories recall. The memory being learned is working space beside the storage.

    >>> CompressThenRecall(images_per_task=10, batch=10, replay=20).steps_per_task
    2000
    """

    stream: Stream = field(default_factory=Permutations)
    """The tasks, in order."""
    architecture: Architecture = field(default_factory=MLP)
    """Of the inner loop's networks and of those that are evaluated."""
    parameterization: Parameterization = field(default_factory=lambda: Addressing(bases=8))
    """Of every task's memory."""
    objective: Objective = field(default_factory=BPTT)
    """Its `real_per_class` is not used: the outer loss takes the incoming and the replayed images."""
    outer_optimizer: Optimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    """Improves the memory."""
    images_per_task: Annotated[float, AtLeast(1)] = 10
    """Storage of a task, in real images."""
    batch: PositiveInt = 10
    """Images that come in at once."""
    replay: PositiveInt = 20
    """Outer steps for every incoming batch; what `Online` calls updates."""
    replay_batch: PositiveInt = 10
    """Images of the reservoir in each outer loss."""
    rollouts: PositiveInt = field(default=1, metadata=ADDED)
    """Of an outer step, which takes their mean gradient: each has a network and draws of its own."""
    clip: Positive | None = 2.0
    """Largest norm of the memory's gradient; None: not clipped."""
    evaluation: Protocol = field(default_factory=Protocol)
    """How networks are trained on what all memories recall."""
    stand_ins: NonNegativeInt = 0
    """Copies of recalled images as other tasks of the stream's law, which networks learn beside the memory (ours)."""
    beside: NonNegativeInt = field(default=0, metadata=ADDED)
    """Finished memories that networks learn beside the memory, drawn anew for each outer step; all there are, if fewer
    (ours)."""
    absorbed: NonNegativeInt = field(default=0, metadata=ADDED)
    """First images of a task, whole batches of them, that are folded into its memory before its first outer step and
    have none of their own (`absorbing`; ours). All images: there is no outer step."""
    whole_matrix: bool = True
    """Measure every task so far after every task; else the new one alone, and all after the last."""
    kept_networks: NonNegativeInt = field(default=0, metadata=ADDED)
    """Networks that go through the stream once, as those of `Online` do, with images that finished memories recall in
    the place of a reservoir's: a second evaluation, as in Distilled Replay (Rosasco et al., 2021)."""
    preset: presets.Source = "paper"
    """Whose published sizes the run is held against (`presets.PRESETS`)."""

    def __post_init__(self) -> None:
        require_labels(self)
        require_no_teacher(self)
        info, possible = self.stream.info, self.stand_ins == 0 or isinstance(self.stream, RelatedTasks)
        require(self, "stand_ins", possible, "0 for a stream whose law makes no other task of a task's images")
        samples = info.samples_per_task
        whole = self.absorbed == samples or (self.absorbed < samples and self.absorbed % self.batch == 0)
        require(self, "absorbed", whole, f"whole batches of {self.batch}, or all {samples} images")
        starts = self.absorbed == 0 or isinstance(self.parameterization, StartsFromImages)
        require(self, "absorbed", starts, "0 for a parameterization that offers no start from images (`fitted`)")
        one_head = not self.beside or info.outputs == info.classes_per_task
        require(self, "beside", one_head, "0 for a stream whose tasks have classes of their own")
        self.parameterization.per_class(info.shape, info.classes_per_task, self.images_per_class)  # refuses no room

    # ------------------------------------------------------------ sizes

    @property
    def stored_images(self) -> int:
        """Real images that the storage would hold."""
        return int(self.images_per_task * self.stream.info.tasks)

    @property
    def images_per_class(self) -> float:
        """A task's share of the storage, in images per class."""
        return self.images_per_task / self.stream.info.classes_per_task

    @property
    def steps_per_task(self) -> int:
        """Outer steps of one task's memory."""
        return math.ceil((self.stream.info.samples_per_task - self.absorbed) / self.batch) * self.replay

    @property
    def _companions(self) -> int:
        """What networks learn beside a memory at the most, each as many images as a memory's."""
        return self.stand_ins + min(self.beside, self.stream.info.tasks - 1)

    def capacity(self, task: int) -> int:
        """Real images that may be kept while this task (from 0) is learned."""
        return int(self.images_per_task * (self.stream.info.tasks - task))

    def setting(self, device: torch.device) -> Setting:
        """What one memory is distilled for: the classes of one task."""
        info = self.stream.info
        return Setting(info.shape, info.classes_per_task, self.architecture, self.parameterization, "none", device)

    def plan(self) -> dict[str, Any]:
        """Sizes, storage and steps, found without any data."""
        setting, companions = self.setting(torch.device("cpu")), self._companions
        objective = self.objective_beside(companions, self.stream.info.classes_per_task)
        budget = accounting.budget_of(setting, self.images_per_class)
        return {
            **presets.plan_of_stream(self),
            "storage": f"{self.stored_images} images, {budget.stored_numbers} numbers for the memory of a task",
            "recalled images per class and task": budget.recalled_per_class,
            "outer steps": f"{self.steps_per_task} a task, {self.steps_per_task * self.stream.info.tasks} in all",
            **accounting.outer_step_plan(self, setting, budget.recalled_per_class * (1 + companions), objective),
            "evaluation": self.evaluation.label(),
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of all tasks, their evaluation among them."""
        info, setting, protocol = self.stream.info, self.setting(device), self.evaluation
        per_class = self.parameterization.per_class(info.shape, info.classes_per_task, self.images_per_class)
        pace = timing.pace(replace(setting, classes=info.outputs), protocol)
        objective, rollouts = self.objective_beside(self._companions, info.classes_per_task), self.rollouts
        step_seconds = timing.outer_step(setting, objective, self.images_per_class, per_class, rollouts)
        seconds = self.steps_per_task * info.tasks * step_seconds
        for t in range(1, info.tasks + 1):
            measured, images = t if self.whole_matrix or t == info.tasks else 1, t * per_class * info.classes_per_task
            seconds += pace.networks(protocol.networks, protocol.epochs, images, measured * info.test_per_task)
        if self.kept_networks:
            batches = math.ceil(info.samples_per_task / self.batch) * info.tasks
            step = timing.sgd_step(replace(setting, classes=info.outputs), self.batch + self.replay_batch)
            reading = info.tasks * (info.tasks + 1) // 2 * info.test_per_task * pace.read
            seconds += self.kept_networks * (batches * step + reading)
        return Cost(seconds, {}, step_seconds)

    def objective_beside(self, companions: int, classes: int = 1) -> Objective:
        """The objective with all incoming and replayed images in its outer loss, for networks that learn so many
        companions of the memory, too; in plans with the part of a class.
        """
        shown = accounting.value_of(self.objective, "images_per_class_per_step")  # of every task that a network learns
        return accounting.with_values(
            self.objective,
            real_per_class=math.ceil((self.batch + self.replay_batch) / classes),
            images_per_class_per_step=None if shown is None else shown * (1 + companions),
        )

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        """Compress and measure task after task."""
        presets.announce_deviations(self, session)
        setting, state = self.setting(session.device), StreamState.restored(session)
        stopwatch, tasks = Stopwatch(state.seconds), list[StreamTask]()
        for t, task in enumerate(self.stream.tasks(session.data_dir, session.key("stream"))):
            tasks.append(task)
            if t == len(state.memories):
                state = Compression(self, session, setting, task, state).done(stopwatch)
                state.save(session, self.steps_per_task)
            if len(state.memories) == self.stream.info.tasks:
                session.learned()
            if t == len(state.rows) and session.leads:
                state = replace(state, rows=(*state.rows, self._measure(session, setting, state, tasks)))
                state.save(session, self.steps_per_task)
        while session.leads and len(state.kept) < self.kept_networks:
            matrix = kept_beside_memories(self, session, setting, state.memories, tasks, len(state.kept))
            state = replace(state, kept=(*state.kept, matrix))
            state.save(session, self.steps_per_task)
        return self._outcome(session, setting, state, tasks)

    def _measure(self, session: Session, setting: Setting, state: StreamState, tasks: list[StreamTask]) -> list[Row]:
        """For each evaluation network, trained on all that is recalled, its accuracies on the tasks so far."""
        info, last, key = self.stream.info, len(tasks) - 1, session.key("evaluation", len(tasks))
        whole = replace(setting, classes=info.outputs, groups=streaming.output_groups(info, tasks))
        training = streaming.recalled_together(setting, state.memories, tasks)
        first = 0 if self.whole_matrix or last == info.tasks - 1 else last
        tests = {str(j): tasks[j].test for j in range(first, len(tasks))}
        accuracies = evaluate(whole, lambda network: training, self.evaluation, key, tests, session.pause)
        return streaming.rows(accuracies, info.tasks, self.evaluation.networks)

    def _outcome(self, session: Session, setting: Setting, state: StreamState, tasks: list[StreamTask]) -> Outcome:
        """The record of what was measured, beside the memories and plots."""
        info, budget = self.stream.info, accounting.budget_of(setting, self.images_per_class)
        memories = streaming.save_memories(self, session, budget, state.memories, tasks)
        plots.task_by_task(memories, make_directory(session.directory / "figures") / "recalled.png")
        matrices = [[rows[n] for rows in state.rows] for n in range(self.evaluation.networks)]
        reduced_by = presets.reduced_by(self, self.replay)
        streaming.plot_matrices(session, matrices, bool(reduced_by))
        steps, storage_per_class = self.steps_per_task * info.tasks, self.stored_images / info.outputs
        sizes = {
            "storage_numbers": self.stored_images * info.shape.numel,
            "most_stored_numbers": state.peak_numbers,
            "working_numbers": budget.stored_numbers,
        }
        return Outcome(
            measurements=(
                *streaming.measurements(matrices, "memory", "evaluation networks"),
                *streaming.measurements(list(state.kept), KEPT, "networks, each through the stream"),
            ),
            budget=Budget(budget.stored_numbers * info.tasks, storage_per_class, budget.recalled_per_class),
            scale={"iterations": steps} | streaming.scale(self, reduced_by),
            facts=streaming.facts(self, tasks, matrices)
            | sizes
            | ({"kept_matrices": state.kept} if state.kept else {}),
            cost={"seconds_per_iteration": state.seconds / steps} if steps else {},
        )
