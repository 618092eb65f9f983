"""What experiments on streams share: measuring networks on the tasks seen so far, and the figures of the matrix."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from suite import continual
from suite import figures as pictures
from suite.evaluate import accuracy
from suite.files import make_directory
from suite.parameterizations.standard import Standard
from suite.registry import describe
from suite.types import Budget, Figure, Outcome, Session, Split, StreamInfo, StreamTask, Task

Matrix = list[list[float | None]]
"""R[i][j], the accuracy in percent on task j after task i, None where it was not measured."""

Matrices = list[Matrix]
"""For each network its own."""


def head(info: StreamInfo, tasks: Sequence[StreamTask]) -> Int64[Tensor, " outputs"] | None:
    """For each output its task, where a test image comes with it; None where all tasks share one head."""
    if not info.task_known:
        return None
    groups = torch.arange(info.outputs) // info.classes_per_task
    for t, task in enumerate(tasks):
        groups[list(task.classes)] = t
    return groups


Measured = Callable[[dict[str, Split]], dict[str, Sequence[float]]]
"""Splits by name -> for each of them every network's accuracy in percent."""


def row(measured: Measured, tests: dict[int, Split], tasks: int, networks: int) -> Matrix:
    """For each network a row of its matrix, measured on these tasks' test images."""
    found = measured({str(j): split for j, split in tests.items()})
    return [[found[str(j)][n] if j in tests else None for j in range(tasks)] for n in range(networks)]


def figures(matrices: Matrices, over: str) -> list[Figure]:
    """RA, LA, BTI, BWT and forgetting, as far as the matrices tell them; one value for each network."""
    kinds: dict[str, Callable[[continual.Matrix], float | None]] = {
        "RA": continual.retained,
        "LA": continual.learning,
        "BTI": continual.interference,
        "BWT": continual.backward_transfer,
        "forgetting": continual.forgetting,
    }
    found = []
    for name, of in kinds.items():
        try:
            values = [of(r) for r in matrices]
        except ValueError:  # joint training has a last row and no diagonal
            continue
        if all(value is not None for value in values):
            found.append(Figure(name, "test", tuple(v for v in values if v is not None), over))
    return found


@dataclass(frozen=True)
class Preset:
    """Published sizes of a benchmark."""

    tasks: int
    samples_per_task: int
    images_per_task: float
    """Stored images over tasks."""
    replay: int
    """Updates for each incoming batch."""
    width: int | None = None
    """Of the network, where it is not its own default."""


Source = Literal["paper", "lamaml", "kcl"]

PRESETS: dict[tuple[Source, str], Preset] = {
    ("paper", "rotations"): Preset(20, 1000, 10, 4),
    ("paper", "permutations"): Preset(20, 1000, 10, 20),
    ("paper", "many"): Preset(100, 1000, 10, 20),
    ("paper", "cifar100"): Preset(20, 2250, 10, 4),
    ("paper", "rotations_star"): Preset(20, 60_000, 10, 2),
    ("paper", "permutations_star"): Preset(20, 60_000, 10, 2),
    ("lamaml", "rotations"): Preset(20, 1000, 10, 5, width=100),
    ("lamaml", "permutations"): Preset(20, 1000, 10, 5, width=100),
    ("lamaml", "many"): Preset(100, 200, 5, 10, width=100),
    ("lamaml", "cifar100"): Preset(20, 2250, 10, 10),
    ("kcl", "rotations_star"): Preset(20, 60_000, 200, 1),
    ("kcl", "permutations_star"): Preset(20, 60_000, 200, 1),
}
"""By who published them and stream: the paper's Table 1 (A.2), La-MAML's and Kernel Continual Learning's scripts."""

NOTES: dict[Source, tuple[str, ...]] = {
    "paper": (
        "the paper states neither preprocessing nor inner steps, depth of the MLP or retraining; see the settings",
    ),
    "lamaml": ("La-MAML draws Kaiming-normal first weights, and replays what was stored when the task before ended",),
    "kcl": (
        "Kernel Continual Learning is told the task at test and trains with dropout 0.5; here neither",
        "its rate falls from task to task; here it is constant",
    ),
}
NOTES_ON: dict[tuple[Source, str], tuple[str, ...]] = {
    ("paper", "many"): ("La-MAML's MANY has 200 images a task and stores 500; the paper's 1,000 and 1,000",),
    ("paper", "rotations_star"): ("Kernel Continual Learning stores 4,000 images; the paper 200",),
    ("paper", "permutations_star"): ("Kernel Continual Learning stores 4,000 images; the paper 200",),
    ("lamaml", "cifar100"): ("La-MAML jitters colours too; memories are learned from images as they are",),
}
"""Known deviations, to be printed with every result."""

INNER_STEPS = 100
"""Of an outer step, by default; the paper does not state them."""


def less(experiment: Any, replay: int | None = None) -> list[str]:
    """What is below the preset that the experiment names: tasks, images, updates, inner steps, network, protocol."""
    architecture, info = experiment.architecture, experiment.stream.info
    inner_steps = getattr(getattr(experiment, "objective", None), "inner_steps", None)
    sizes: list[tuple[str, Any, Any]] = [("inner steps", inner_steps, INNER_STEPS)]
    published = PRESETS.get((experiment.preset, describe(experiment.stream)["is"]))
    width = (published and published.width) or getattr(type(architecture), "width", None)
    sizes += [("width", getattr(architecture, "width", None), width)]
    if published is not None:
        sizes += [("tasks", info.tasks, published.tasks)]
        sizes += [("images of a task", info.samples_per_task, published.samples_per_task)]
        sizes += [("stored images of a task", experiment.images_per_task, published.images_per_task)]
        sizes += [("updates for a batch", replay, published.replay)]
    found = [f"{name} {used} of {whole}" for name, used, whole in sizes if used and whole and used < whole]
    protocol = experiment.evaluation
    return found + ([protocol.label()] if protocol.reduced else [])


def differs(experiment: Any) -> list[str]:
    """Known deviations from the published benchmark: the stream's, and those of the preset."""
    stream, source = experiment.stream, experiment.preset
    found = [*stream.info.differs, *NOTES[source], *NOTES_ON.get((source, describe(stream)["is"]), ())]
    if getattr(experiment, "stand_ins", 0):
        found.append("networks of the inner loop learn stand-ins for other tasks, made by the stream's law: ours")
    return found


def tell(experiment: Any, session: Session) -> None:
    """Say every known deviation."""
    for text in differs(experiment):
        session.say(f"differs from the published benchmark: {text}")


def plan(experiment: Any) -> dict[str, Any]:
    """What a plan says of an experiment's stream."""
    info = experiment.stream.info
    said = f"{info.name}, {info.tasks} tasks of {info.samples_per_task} images, {info.outputs} outputs"
    return {"stream": said} | {f"differs ({i})": text for i, text in enumerate(differs(experiment), 1)}


def draw(session: Session, matrices: Matrices) -> None:
    """The pictures of a run: the matrix, and accuracy after each task."""
    folder = make_directory(session.directory / "figures")
    pictures.accuracy_matrix(matrices, folder / "matrix.png")
    curves = [[value for value in continual.curve(r) if value is not None] for r in matrices]
    if all(len(curve) == len(matrices[0]) for curve in curves):  # else not every task was measured
        pictures.after_each_task(curves, folder / "after_each_task.png")


One = Callable[[Task, list[StreamTask], int], Matrix]
"""The task of the networks, the stream and a network's number -> its matrix."""


def through_the_stream(
    experiment: Any, session: Session, together: Callable[[Session, Task, list[StreamTask]], Matrices] | None, one: One
) -> Outcome:
    """What networks that go through a stream one by one (or all of them `together`) come to; goes on after each."""
    stream, info, started = experiment.stream, experiment.stream.info, time.monotonic()
    tell(experiment, session)
    restored = session.restore()
    done: Matrices = restored[2]["matrices"] if restored is not None else []
    made = list(stream.tasks(session.data_dir, session.key("stream")))
    augmentation = getattr(experiment, "augmentation", "none")
    groups = head(info, made)
    whole = Task(info.shape, info.outputs, experiment.architecture, Standard(), augmentation, session.device, groups)
    if together is not None:
        done = together(session, whole, made)
    for n in range(len(done), experiment.evaluation.networks):
        done.append(one(whole, made, n))
        session.checkpoint(n + 1, {}, {"matrices": done})
    stored, reduced_by = experiment.memory_images * info.shape.numel, less(experiment)
    draw(session, done)
    return Outcome(
        figures=tuple(figures(done, "networks, each through the stream")),
        budget=Budget(stored, experiment.memory_images / info.outputs, 0),
        scale={"reduced": bool(reduced_by), "reduced_by": reduced_by, "protocol": experiment.evaluation.label()},
        facts={
            "dataset": info.name,
            "matrices": done,
            "tasks": [task.made_by for task in made],
            "differs": differs(experiment),
        },
        cost={"training_seconds": time.monotonic() - started},
    )


def so_far(network: nn.Module, whole: Task, stream: Sequence[StreamTask], t: int) -> list[float | None]:
    """A row of a network's matrix: its accuracies on the tasks up to t, and None for the later ones."""
    found = [accuracy(network, task.test, task=whole) for task in stream[: t + 1]]
    return [*found, *([None] * (len(stream) - t - 1))]


def local(split: Split, classes: tuple[int, ...]) -> Split:
    """The split with labels as places among the classes."""
    place = torch.full((max(classes) + 1,), -1)
    place[list(classes)] = torch.arange(len(classes))
    return Split(split.images, place[split.labels])
