"""What the two experiments of new-classifier synthesis share: measurements over episodes, scale and budget."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from suite.core.outer_loop import PAPER_ITERATIONS
from suite.keys import Key
from suite.types import Budget, Measurement, Setting


def outer_iterations(iterations: int, memories: int) -> str:
    return f"{iterations} ({iterations / PAPER_ITERATIONS:.2%} of the paper's) for each of {memories} memories"


def budget(task: Setting, images_per_class: float) -> Budget:
    """Of one memory."""
    memory = task.parameterization.init(task.shape, task.classes, images_per_class, Key(0))
    stored = sum(v.numel() for v in memory.values())
    per_class = task.parameterization.per_class(task.shape, task.classes, images_per_class)
    return Budget(stored, stored / (task.classes * task.shape.numel), per_class)


def measurements(found: dict[str, tuple[float, ...]], notes: dict[str, str]) -> Iterator[Measurement]:
    """A value for each episode: the mean of its networks; names are 'episodes: what was measured'."""
    for name, values in found.items():
        episodes, method = name.split(": ", 1)
        yield Measurement(method, "test", values, "episodes", episodes=episodes, note=notes.get(method, ""))


def less(experiment: Any) -> list[str]:
    """What is less than the paper's, in words."""
    done = [("iterations", experiment.iterations, PAPER_ITERATIONS)]
    for part, name in ((experiment.objective, "inner_steps"), (experiment.objective, "real_per_class"),
                       (experiment.architecture, "width")):  # fmt: skip
        used, paper = getattr(part, name, None), getattr(type(part), name, None)
        if used is not None and paper is not None:
            done.append((name, used, paper))
    sizes = {"episodes": 100, "draws": 10, "full_data_epochs": 300, "backbone_epochs": 100}
    done += [(name, getattr(experiment, name), paper) for name, paper in sizes.items() if hasattr(experiment, name)]
    found = [f"{name} {used} of {paper}" for name, used, paper in done if used < paper]
    protocol = experiment.evaluation
    judged = replace(protocol, networks=type(protocol)().networks)  # an episode has one by choice: episodes are many
    return found + ([protocol.label()] if judged.reduced else [])


def scale(experiment: Any, less: list[str]) -> dict[str, Any]:
    return {
        "iterations": experiment.iterations,
        "paper_iterations": PAPER_ITERATIONS,
        "fraction": experiment.iterations / PAPER_ITERATIONS,
        "protocol": experiment.evaluation.label(),
        "reduced": bool(less),
        "reduced_by": less,
    }
