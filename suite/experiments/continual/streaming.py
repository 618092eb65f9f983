"""What the methods of continual learning share: the matrix of accuracies, its measurements, and networks in a row."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from suite.evaluation.evaluate import accuracy, recalled
from suite.experiments import charts
from suite.experiments.accounting import save_task_memories
from suite.experiments.continual import metrics, presets
from suite.experiments.continual.metrics import Matrix, Row
from suite.memory import Memory
from suite.parameterizations.standard import Standard
from suite.storage.files import make_directory
from suite.types import Budget, Measurement, Outcome, Params, Session, Setting, Split, StreamInfo, StreamTask

Matrices = list[Matrix]
"""For each network its own."""


def output_groups(info: StreamInfo, tasks: Sequence[StreamTask]) -> Int64[Tensor, " outputs"] | None:
    """For each output its task, where a test image comes with it; None where all tasks share one head."""
    if not info.task_known:
        return None
    groups = torch.arange(info.outputs) // info.classes_per_task
    for t, task in enumerate(tasks):
        groups[list(task.classes)] = t
    return groups


def rows(accuracies: Mapping[str, Sequence[float]], tasks: int, networks: int) -> list[Row]:
    """For each network a row of its matrix, from its accuracies by task number ('0', '1', ...)."""
    return [[accuracies[str(j)][n] if str(j) in accuracies else None for j in range(tasks)] for n in range(networks)]


def row_so_far(network: nn.Module, setting: Setting, tasks: Sequence[StreamTask], t: int) -> Row:
    """A row of a network's matrix: its accuracies on the tasks up to t, and None for the later ones."""
    accuracies = [accuracy(network, task.test, setting=setting) for task in tasks[: t + 1]]
    return [*accuracies, *([None] * (len(tasks) - t - 1))]


QUANTITIES: dict[str, Callable[[metrics.Matrix], float | None]] = {
    "RA": metrics.retained,
    "LA": metrics.learning,
    "BTI": metrics.interference,
    "BWT": metrics.backward_transfer,
    "forgetting": metrics.forgetting,
}
"""What is measured of a matrix."""


def measurements(matrices: Matrices, method: str, over: str) -> list[Measurement]:
    """Every quantity of a method that its matrices determine; one value for each network, and nothing of none."""
    measured = []
    for quantity, compute in QUANTITIES.items() if matrices else ():
        try:
            values = [compute(matrix) for matrix in matrices]
        except ValueError:  # joint training has a last row and no diagonal
            continue
        if all(value is not None for value in values):
            percent = tuple(value for value in values if value is not None)
            measured.append(Measurement(method, "test", percent, over, quantity))
    return measured


def recalled_together(setting: Setting, memories: Sequence[Params], tasks: Sequence[StreamTask]) -> Split:
    """All images that the memories of these tasks recall, labelled as the head numbers the classes."""
    recalls = [recalled(setting, memory) for memory in memories]
    labels = [
        torch.tensor(task.classes, device=images.labels.device)[images.labels]
        for images, task in zip(recalls, tasks, strict=True)
    ]
    return Split(torch.cat([images.images for images in recalls]), torch.cat(labels))


def save_memories(
    experiment: Any, session: Session, budget: Budget, memories: Sequence[Params], tasks: Sequence[StreamTask]
) -> list[Memory]:
    """Write a file for each task's memory."""
    info = experiment.stream.info
    about = [{"dataset": info.name, "made_by": task.made_by, "class_names": list(task.class_names)} for task in tasks]
    transforms = [task.transform for task in tasks]
    return save_task_memories(session, experiment, info.shape, budget, zip(memories, transforms, about, strict=True))


def scale(experiment: Any, reduced_by: list[str]) -> dict[str, Any]:
    """How much of the published sizes an experiment on a stream uses."""
    return {"reduced": bool(reduced_by), "reduced_by": reduced_by, "protocol": experiment.evaluation.label()}


def facts(experiment: Any, tasks: Sequence[StreamTask], matrices: Matrices) -> dict[str, Any]:
    """The stream, its tasks, the matrices, and where it differs from the published benchmark."""
    return {
        "dataset": experiment.stream.info.name,
        "matrices": matrices,
        "tasks": [task.made_by for task in tasks],
        "differs": presets.deviations(experiment),
    }


def plot_matrices(session: Session, matrices: Matrices, reduced: bool) -> None:
    """Plot the matrix, and accuracy after each task where every task was measured."""
    folder = make_directory(session.directory / "figures")
    charts.accuracy_matrix(matrices, reduced, folder / "matrix.png")
    curves = [[value for value in metrics.curve(matrix) if value is not None] for matrix in matrices]
    if all(len(curve) == len(matrices[0]) for curve in curves):
        charts.after_each_task(curves, reduced, folder / "after_each_task.png")


OneNetwork = Callable[[Setting, list[StreamTask], int], Matrix]
"""The setting of the networks, the tasks and a network's number -> its matrix."""

AllNetworks = Callable[[Session, Setting, list[StreamTask]], Matrices]
"""The same of all networks at once."""


def setting_of(experiment: Any, tasks: list[StreamTask], device: torch.device, augmentation: str) -> Setting:
    """What networks that learn a whole stream are trained for."""
    info = experiment.stream.info
    groups = output_groups(info, tasks)
    return Setting(info.shape, info.outputs, experiment.architecture, Standard(), augmentation, device, groups)


def train_through_stream(
    experiment: Any, session: Session, one: OneNetwork, *, augmentation: str = "none", all_at_once: AllNetworks | None
) -> Outcome:
    """The outcome of networks that go through a stream one by one, or of `all_at_once`.

    A run that goes on keeps the networks that are done.
    """
    stream, started = experiment.stream, time.monotonic()
    presets.announce_deviations(experiment, session)
    restored = session.restore()
    matrices: Matrices = restored[2]["matrices"] if restored is not None else []
    tasks = list(stream.tasks(session.data_dir, session.key("stream")))
    setting = setting_of(experiment, tasks, session.device, augmentation)
    if all_at_once is not None:
        matrices = all_at_once(session, setting, tasks)
    for n in range(len(matrices), experiment.evaluation.networks):
        matrices.append(one(setting, tasks, n))
        session.checkpoint(n + 1, {}, {"matrices": matrices})
    reduced_by = presets.reduced_by(experiment)
    plot_matrices(session, matrices, bool(reduced_by))
    stored, info = experiment.stored_numbers, stream.info
    return Outcome(
        measurements=tuple(measurements(matrices, experiment.method_label, "networks, each through the stream")),
        budget=Budget(stored, stored / (info.shape.numel * info.outputs), 0),
        scale=scale(experiment, reduced_by),
        facts=facts(experiment, tasks, matrices),
        cost={"training_seconds": time.monotonic() - started},
    )
