"""Continual learning: compress every task into a memory, and recall all of them to train a new network."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from suite.architectures.mlp import MLP
from suite.core.outer_loop import OuterState, begin, distill
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.experiments import plots, timing
from suite.experiments.continual import presets, streaming
from suite.experiments.continual.reservoir import Reservoir
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory, described
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
    ImageShape,
    InnerOptimizer,
    Objective,
    Outcome,
    Parameterization,
    Params,
    RelatedTasks,
    Session,
    Setting,
    Split,
    Stream,
    StreamTask,
)
from suite.validation import AtLeast, NonNegativeInt, Positive, PositiveInt, require, require_labels


@experiments.register("compress_then_recall")
@dataclass(frozen=True)
class CompressThenRecall:
    """Compress each task of a stream into a memory of its share of the storage (paper, A.2 and B.2).

    The storage is M = T `images_per_task` images for T tasks. While task t is learned, its images are kept by reservoir
    sampling in what finished memories leave of it: floor(M (T - t + 1) / T). For every incoming batch there are
    `replay` outer steps, whose outer loss is on the batch and on `replay_batch` images drawn from the reservoir. Then
    the memory, of M / T images' worth of numbers, takes its share and the images are cleared. After every task fresh
    networks are trained on all that the memories recall, and measured on every task so far; with `whole_matrix` False
    on the new task alone, and on all after the last.
    With `stand_ins` (ours, not the paper's) the inner loop's networks learn, beside the memory, so many copies of what
    it recalls, each as another task of the stream's law would show it, drawn anew for every outer step: a stand-in for
    the memories of other tasks, which the networks at the end learn together with it.
    The memory being learned is working space of M / T images beside the storage; the record has both. `preset` names
    whose published sizes a run is held against (`presets.PRESETS`).
    """

    stream: Stream = field(default_factory=Permutations)
    architecture: Architecture = field(default_factory=MLP)
    parameterization: Parameterization = field(default_factory=lambda: Addressing(bases=8))
    objective: Objective = field(default_factory=BPTT)
    outer_optimizer: InnerOptimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    images_per_task: Annotated[float, AtLeast(1)] = 10
    batch: PositiveInt = 10
    replay: PositiveInt = 20
    replay_batch: PositiveInt = 10
    clip: Positive | None = 2.0
    evaluation: Protocol = field(default_factory=Protocol)
    stand_ins: NonNegativeInt = 0
    whole_matrix: bool = True
    preset: presets.Source = "paper"

    def __post_init__(self) -> None:
        require_labels(self)
        info = self.stream.info
        able = self.stand_ins == 0 or isinstance(self.stream, RelatedTasks)
        require(self, "stand_ins", able, "0 for a stream whose law makes no other task of a task's images")
        # What the parameterization can't store in a task's share it refuses here, before anything is run.
        self.parameterization.per_class(info.shape, info.classes_per_task, self._images_per_class)

    @property
    def memory_images(self) -> int:
        """Real images that the storage would hold."""
        return int(self.images_per_task * self.stream.info.tasks)

    @property
    def _images_per_class(self) -> float:
        """A task's share, in images per class."""
        return self.images_per_task / self.stream.info.classes_per_task

    @property
    def _steps_per_task(self) -> int:
        return -(-self.stream.info.samples_per_task // self.batch) * self.replay

    def capacity(self, task: int) -> int:
        """Real images that may be kept while this task (from 0) is learned."""
        return int(self.images_per_task * (self.stream.info.tasks - task))

    # ------------------------------------------------------------ before the run

    def plan(self) -> dict[str, Any]:
        info, task = self.stream.info, self._inner(torch.device("cpu"))
        budget = self._budget(task)
        plan = self._objective_on_average().plan(task, budget.recalled_per_class)
        return {
            **presets.plan(self),
            "storage": f"{self.memory_images} images, {budget.stored_numbers} numbers for the memory of a task",
            "recalled images per class and task": budget.recalled_per_class,
            "outer steps": f"{self._steps_per_task} a task, {self._steps_per_task * info.tasks} in all",
            **plan,
            "evaluation": self.evaluation.label(),
        }

    def cost(self, where: torch.device) -> Cost:
        """Seconds of all tasks, their evaluation among them."""
        info, inner, protocol = self.stream.info, self._inner(where), self.evaluation
        whole = replace(inner, classes=info.outputs)
        per_class = self.parameterization.per_class(info.shape, info.classes_per_task, self._images_per_class)
        pace = timing.pace(whole)
        step = timing.outer_step(inner, self._objective_on_average(), self._images_per_class, per_class)
        own, test = self._steps_per_task * info.tasks * step, info.test_per_task
        for t in range(1, info.tasks + 1):
            shown = t if self.whole_matrix or t == info.tasks else 1
            images = t * per_class * info.classes_per_task
            own += protocol.networks * (protocol.epochs * images * pace.train + shown * test * pace.read)
        return Cost(own, {}, step)

    def _inner(self, device: torch.device) -> Setting:
        """What one memory is made for: the classes of one task."""
        info = self.stream.info
        return Setting(info.shape, info.classes_per_task, self.architecture, self.parameterization, "none", device)

    def _objective(self, real_per_class: int | None = None) -> Objective:
        """With the whole of an incoming and a replayed batch in the outer loss, of whatever classes they are."""
        objective: Any = self.objective
        if any(one.name == "real_per_class" for one in fields(objective)):
            objective = replace(objective, real_per_class=real_per_class or self.batch + self.replay_batch)
        if self.stand_ins and any(one.name == "images_per_class_per_step" for one in fields(objective)):
            each = objective.images_per_class_per_step  # of every task that a network learns
            objective = replace(objective, images_per_class_per_step=each * (1 + self.stand_ins))
        return objective

    def _objective_on_average(self) -> Objective:
        """Of the same size, for a plan: every class has its part of the images."""
        return self._objective(-(-(self.batch + self.replay_batch) // self.stream.info.classes_per_task))

    def _budget(self, task: Setting) -> Budget:
        memory = self.parameterization.init(task.shape, task.classes, self._images_per_class, Key(0))
        stored = sum(v.numel() for v in memory.values())
        per_class = self.parameterization.per_class(task.shape, task.classes, self._images_per_class)
        return Budget(stored, stored / (task.classes * task.shape.numel), per_class)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        info, inner = self.stream.info, self._inner(session.device)
        presets.tell(self, session)
        at = _At.restored(session) or _At.start()
        seen: list[StreamTask] = []
        clock = time.monotonic()
        for t, task in enumerate(self.stream.tasks(session.data_dir, session.key("stream"))):
            seen.append(task)
            if t < at.task:
                continue
            at = self._learn(session, inner, t, task, at, clock)
            if self.whole_matrix or t == info.tasks - 1:
                shown = dict(enumerate(one.test for one in seen))
            else:
                shown = {t: task.test}
            rows = self._measure(session, inner, at.banks, seen, shown)
            at = replace(at, matrix=[*at.matrix, rows], seconds=at.seconds + time.monotonic() - clock)
            clock = time.monotonic()
            at.save(session, self._steps_per_task)
        matrices = [[one[n] for one in at.matrix] for n in range(self.evaluation.networks)]
        budget = self._budget(inner)
        less = presets.less(self, self.replay)
        memories = self._save_memories(session, inner, at.banks, seen)
        streaming.draw(session, matrices)
        plots.task_by_task(memories, make_directory(session.directory / "figures") / "recalled.png")
        return Outcome(
            figures=tuple(streaming.figures(matrices, "evaluation networks")),
            budget=Budget(
                budget.stored_numbers * info.tasks, self.memory_images / info.outputs, budget.recalled_per_class
            ),
            scale={
                "iterations": self._steps_per_task * info.tasks,
                "reduced": bool(less),
                "reduced_by": less,
                "protocol": self.evaluation.label(),
            },
            facts={
                "dataset": info.name,
                "matrices": matrices,
                "tasks": [one.made_by for one in seen],
                "differs": presets.differs(self),
                "storage_numbers": self.memory_images * info.shape.numel,
                "most_stored_numbers": at.most,
                "working_numbers": budget.stored_numbers,
            },
            cost={"seconds_per_iteration": at.seconds / (self._steps_per_task * info.tasks)},
        )

    def _learn(self, session: Session, inner: Setting, t: int, task: StreamTask, at: "_At", clock: float) -> "_At":
        """The memories with this task's among them."""
        own, capacity = streaming.local(task.train, task.classes), self.capacity(t)
        order = session.key("order", t).permutation(len(own))
        objective, key, numel = self._objective(), session.key("task", t), inner.shape.numel
        progress = at.progress or begin(inner, self.outer_optimizer, self._images_per_class, key)
        pool = at.pool or Reservoir.empty(capacity)
        finished = sum(v.numel() for bank in at.banks for v in bank.values())
        for b in range(progress.iteration // self.replay, -(-len(order) // self.batch)):
            incoming = order[b * self.batch : (b + 1) * self.batch]
            pool = pool.add(incoming, key("reservoir"))
            at = replace(at, most=max(at.most, finished + len(pool.kept) * numel))
            for u in range(self.replay):
                rows = torch.cat([incoming, pool.draw(self.replay_batch, key("replay", b, u))])
                batch = Split(own.images[rows], own.labels[rows]).to(session.device)
                real = ClassRows.of(batch, inner.classes)
                steps = distill(
                    self._among_others(inner, key("stand-ins", b, u)),
                    objective,
                    self.outer_optimizer,
                    real,
                    progress,
                    key("outer"),
                    progress.iteration + 1,
                    self.clip,
                )
                (progress,) = steps
            done = t * self._steps_per_task + progress.iteration
            session.log(done, {name: value.item() for name, value in progress.metrics.items()})
            session.progress(done, self._steps_per_task * self.stream.info.tasks, f"task {t + 1}")
            if session.checkpoint_due() and progress.iteration < self._steps_per_task:
                now = replace(at, progress=progress, pool=pool, seconds=at.seconds + time.monotonic() - clock)
                now.save(session, self._steps_per_task)
        return replace(at, task=t + 1, banks=[*at.banks, progress.memory], progress=None, pool=None)

    def _among_others(self, inner: Setting, key: Key) -> Setting:
        """With a memory whose stand-ins the networks learn beside it."""
        if not self.stand_ins:
            return inner
        assert isinstance(self.stream, RelatedTasks)
        others = tuple(partial(self.stream.another, key=key(i)) for i in range(self.stand_ins))
        return replace(inner, parameterization=_Among(inner.parameterization, others))

    def _save_memories(
        self, session: Session, inner: Setting, banks: list[Params], seen: list[StreamTask]
    ) -> list[Memory]:
        """A file for each task's memory."""
        folder, budget = make_directory(session.directory / "memories"), self._budget(inner)
        memories = []
        for t, (bank, task) in enumerate(zip(banks, seen, strict=True), 1):
            about = {
                "dataset": self.stream.info.name,
                "task": t,
                "made_by": task.made_by,
                "class_names": list(task.class_names),
                "superclasses": [],
                "seed": session.key.seed,
            } | described(self, inner.shape, task.transform, budget)
            memories.append(Memory({k: v.cpu() for k, v in bank.items()}, about, task.transform))
            memories[-1].save(folder / f"task-{t:03}.safetensors")
        return memories

    def _measure(
        self, session: Session, inner: Setting, banks: list[Params], seen: list[StreamTask], shown: dict[int, Split]
    ) -> list[list[float | None]]:
        """For each evaluation network, trained on all that is recalled, its accuracies on the tasks shown."""
        info = self.stream.info
        whole = replace(inner, classes=info.outputs, groups=streaming.head(info, seen))
        parts = []
        for bank, one in zip(banks, seen, strict=True):
            found = recalled(inner, bank)
            labels = torch.tensor(one.classes, device=found.labels.device)[found.labels]
            parts.append(Split(found.images, labels))
        training = Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))
        key, protocol = session.key("evaluation", len(banks)), self.evaluation

        def accuracies(splits: dict[str, Split]) -> dict[str, Any]:
            return dict(evaluate(whole, lambda n: training, protocol, key, splits, session.pause))

        return streaming.row(accuracies, shown, info.tasks, protocol.networks)


@dataclass(frozen=True, eq=False)
class _Among:
    """A memory's images of each class, and after them the same as images of other tasks."""

    own: Parameterization
    others: tuple[Callable[[Tensor], Tensor], ...]

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        return self.own.per_class(shape, classes, images_per_class) * (1 + len(self.others))

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        return self.own.init(shape, classes, images_per_class, key)

    def recall(self, memory: Params, queries: Tensor) -> Tensor:
        own = self.own.recall(memory, queries)
        return torch.cat([own, *(other(own.flatten(0, 1)).view_as(own) for other in self.others)], 1)

    def penalty(self, memory: Params) -> Tensor:
        return self.own.penalty(memory)


@dataclass(frozen=True, eq=False)
class _At:
    """Where a stream is: what goes into a checkpoint, and all that going on needs."""

    task: int
    banks: list[Params]
    matrix: list[list[list[float | None]]]
    """After each task, for each network, a row."""
    progress: OuterState | None
    pool: Reservoir | None
    seconds: float
    most: int
    """Numbers stored at the most so far."""

    @staticmethod
    def start() -> "_At":
        return _At(0, [], [], None, None, 0.0, 0)

    def save(self, session: Session, steps_per_task: int) -> None:
        tensors = {f"bank/{i}/{k}": v for i, bank in enumerate(self.banks) for k, v in bank.items()}
        state: dict[str, Any] = {"task": self.task, "matrix": self.matrix, "seconds": self.seconds, "most": self.most}
        state["pool"] = None
        iteration = self.task * steps_per_task
        if self.progress is not None and self.pool is not None:
            iteration += self.progress.iteration
            tensors |= {f"memory/{k}": v for k, v in self.progress.memory.items()}
            tensors |= {f"state/{s}/{k}": v for s, part in self.progress.state.items() for k, v in part.items()}
            tensors["pool"] = self.pool.kept
            state["pool"] = [self.pool.capacity, self.pool.seen, self.progress.iteration]
        session.checkpoint(iteration, tensors, state)

    @staticmethod
    def restored(session: Session) -> "_At | None":
        found = session.restore()
        if found is None:
            return None
        _, tensors, state = found
        banks: dict[int, Params] = {}
        memory: Params = {}
        slots: dict[str, Params] = {}
        for name, value in tensors.items():
            kind, *rest = name.split("/")
            if kind == "bank":
                banks.setdefault(int(rest[0]), {})[rest[1]] = value.to(session.device)
            elif kind == "memory":
                memory[rest[0]] = value.to(session.device)
            elif kind == "state":
                slots.setdefault(rest[0], {})[rest[1]] = value.to(session.device)
        progress, pool = None, None
        if state["pool"] is not None:
            capacity, seen, iteration = state["pool"]
            progress, pool = OuterState(iteration, memory, slots, {}), Reservoir(capacity, seen, tensors["pool"])
        ordered = [banks[i] for i in sorted(banks)]
        return _At(state["task"], ordered, state["matrix"], progress, pool, state["seconds"], state["most"])
