"""What experiments on streams share: accuracies on the tasks seen so far, and the measurements of the matrix."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from suite.evaluation.evaluate import accuracy
from suite.experiments import plots as pictures
from suite.experiments.continual import metrics
from suite.experiments.continual.presets import differs, less, tell
from suite.parameterizations.standard import Standard
from suite.storage.files import make_directory
from suite.types import Budget, Measurement, Outcome, Session, Setting, Split, StreamInfo, StreamTask

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


def measurements(matrices: Matrices, method: str, over: str) -> list[Measurement]:
    """A method's RA, LA, BTI, BWT and forgetting, as far as the matrices have them; one value for each network."""
    kinds: dict[str, Callable[[metrics.Matrix], float | None]] = {
        "RA": metrics.retained,
        "LA": metrics.learning,
        "BTI": metrics.interference,
        "BWT": metrics.backward_transfer,
        "forgetting": metrics.forgetting,
    }
    found = []
    for quantity, of in kinds.items():
        try:
            values = [of(r) for r in matrices]
        except ValueError:  # joint training has a last row and no diagonal
            continue
        if all(value is not None for value in values):
            accuracies = tuple(value for value in values if value is not None)
            found.append(Measurement(method, "test", accuracies, over, quantity))
    return found


def draw(session: Session, matrices: Matrices) -> None:
    """The pictures of a run: the matrix, and accuracy after each task."""
    folder = make_directory(session.directory / "figures")
    pictures.accuracy_matrix(matrices, folder / "matrix.png")
    curves = [[value for value in metrics.curve(r) if value is not None] for r in matrices]
    if all(len(curve) == len(matrices[0]) for curve in curves):  # else not every task was measured
        pictures.after_each_task(curves, folder / "after_each_task.png")


One = Callable[[Setting, list[StreamTask], int], Matrix]
"""The task of the networks, the stream and a network's number -> its matrix."""


def through_the_stream(
    experiment: Any,
    session: Session,
    together: Callable[[Session, Setting, list[StreamTask]], Matrices] | None,
    one: One,
) -> Outcome:
    """What networks that go through a stream one by one (or all of them `together`) come to; goes on after each."""
    stream, info, started = experiment.stream, experiment.stream.info, time.monotonic()
    tell(experiment, session)
    restored = session.restore()
    done: Matrices = restored[2]["matrices"] if restored is not None else []
    made = list(stream.tasks(session.data_dir, session.key("stream")))
    augmentation = getattr(experiment, "augmentation", "none")
    groups = head(info, made)
    whole = Setting(info.shape, info.outputs, experiment.architecture, Standard(), augmentation, session.device, groups)
    if together is not None:
        done = together(session, whole, made)
    for n in range(len(done), experiment.evaluation.networks):
        done.append(one(whole, made, n))
        session.checkpoint(n + 1, {}, {"matrices": done})
    stored, reduced_by = experiment.memory_images * info.shape.numel, less(experiment)
    draw(session, done)
    return Outcome(
        measurements=tuple(measurements(done, experiment.method_label, "networks, each through the stream")),
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


def so_far(network: nn.Module, whole: Setting, stream: Sequence[StreamTask], t: int) -> list[float | None]:
    """A row of a network's matrix: its accuracies on the tasks up to t, and None for the later ones."""
    found = [accuracy(network, task.test, setting=whole) for task in stream[: t + 1]]
    return [*found, *([None] * (len(stream) - t - 1))]


def local(split: Split, classes: tuple[int, ...]) -> Split:
    """The split with labels as places among the classes."""
    place = torch.full((max(classes) + 1,), -1)
    place[list(classes)] = torch.arange(len(classes))
    return Split(split.images, place[split.labels])
