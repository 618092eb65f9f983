"""What experiments on streams share: measuring networks on the tasks seen so far, and the figures of the matrix."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from suite import continual
from suite.evaluate import Protocol
from suite.types import Figure, Split, StreamInfo, StreamTask, Task

Matrices = list[list[list[float | None]]]
"""For each network R[i][j], the accuracy in percent on task j after task i, None where it was not measured."""


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


def row(measured: Measured, tests: dict[int, Split], tasks: int, networks: int) -> list[list[float | None]]:
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


def less(stream: Any, objective: Any, protocol: Protocol) -> list[str]:
    """What is below the published benchmark: tasks, their images, the objective's sizes, the protocol."""
    sizes = [(stream, "number"), (stream, "samples_per_task"), (objective, "inner_steps")]
    found = []
    for thing, name in sizes:
        used, whole = getattr(thing, name, None), getattr(type(thing), name, None)
        if used is not None and whole is not None and used < whole:
            found.append(f"{name} {used} of {whole}")
    return found + ([protocol.label()] if protocol.reduced else [])


def local(split: Split, classes: tuple[int, ...]) -> Split:
    """The split with labels as places among the classes."""
    place = torch.full((max(classes) + 1,), -1)
    place[list(classes)] = torch.arange(len(classes))
    return Split(split.images, place[split.labels])


def task_for(info: StreamInfo, architecture: Any, parameterization: Any, device: torch.device, groups: Any) -> Task:
    """The task of a network with a head for the whole stream."""
    return Task(info.shape, info.outputs, architecture, parameterization, "none", device, groups)
