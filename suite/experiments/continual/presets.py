"""Published sizes of the continual benchmarks, and what a run has less of or does otherwise."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from suite.experiments.accounting import below, value_and_default, value_of
from suite.registry import describe
from suite.types import Session


@dataclass(frozen=True)
class Preset:
    """Published sizes of a benchmark."""

    tasks: int
    """Tasks of the stream."""
    samples_per_task: int
    """Training images of a task."""
    images_per_task: float
    """Stored images over tasks."""
    replay: int
    """Updates for each incoming batch."""
    width: int | None = None
    """Of the network, where it is not its own default."""


Source = Literal["paper", "paper_many", "paper_star", "lamaml", "lamaml_many", "kcl"]
"""Who published a benchmark; MANY and the variants with all training images (*) are settings of the same streams."""

PRESETS: dict[tuple[Source, str], Preset] = {
    ("paper", "rotations"): Preset(20, 1000, 10, 4),
    ("paper", "permutations"): Preset(20, 1000, 10, 20),
    ("paper", "class_splits"): Preset(20, 2250, 10, 4),
    ("paper_many", "permutations"): Preset(100, 1000, 10, 20),
    ("paper_star", "rotations"): Preset(20, 60_000, 10, 2),
    ("paper_star", "permutations"): Preset(20, 60_000, 10, 2),
    ("lamaml", "rotations"): Preset(20, 1000, 10, 5, width=100),
    ("lamaml", "permutations"): Preset(20, 1000, 10, 5, width=100),
    ("lamaml", "class_splits"): Preset(20, 2250, 10, 10),
    ("lamaml_many", "permutations"): Preset(100, 200, 5, 10, width=100),
    ("kcl", "rotations"): Preset(20, 60_000, 200, 1),
    ("kcl", "permutations"): Preset(20, 60_000, 200, 1),
}
"""By source and stream: the paper's Table 1 (A.2), La-MAML's and Kernel Continual Learning's scripts."""

_PAPER = "the paper states neither preprocessing nor inner steps, depth of the MLP or retraining; see the settings"
_LAMAML = "La-MAML draws Kaiming-normal first weights, and replays what was stored when the task before ended"

NOTES: dict[Source, tuple[str, ...]] = {
    "paper": (_PAPER,),
    "paper_many": (
        _PAPER,
        "La-MAML's MANY has 200 images a task and stores 500; the paper's 1,000 and 1,000",
    ),
    "paper_star": (_PAPER, "Kernel Continual Learning stores 4,000 images; the paper 200"),
    "lamaml": (_LAMAML,),
    "lamaml_many": (_LAMAML,),
    "kcl": (
        "Kernel Continual Learning is told the task at test and trains with dropout 0.5; here neither",
        "its rate falls from task to task; here it is constant",
    ),
}

NOTES_ON: dict[tuple[Source, str], tuple[str, ...]] = {
    ("lamaml", "class_splits"): ("La-MAML jitters colours too; memories are learned from images as they are",),
}
"""Known deviations, to be printed with every result."""

INNER_STEPS = 100
"""Of an outer step, by default; the paper does not state them."""


def reduced_by(experiment: Any, replay: int | None = None) -> list[str]:
    """What is below the preset that the experiment names: tasks, images, updates, inner steps, network, protocol."""
    info, protocol = experiment.stream.info, experiment.evaluation
    published = PRESETS.get((experiment.preset, describe(experiment.stream)["is"]))
    objective = value_of(experiment, "objective")
    made, every = _outer_steps(experiment)
    inner_steps = value_of(objective, "inner_steps") if objective is not None and made != 0 else None
    width, default_width = value_and_default(experiment.architecture, "width")
    published_width = (published and published.width) or default_width
    smaller = below("inner steps", inner_steps, INNER_STEPS) + below("width", width, published_width)
    if published is not None:
        smaller += below("tasks", info.tasks, published.tasks)
        smaller += below("images of a task", info.samples_per_task, published.samples_per_task)
        smaller += below("stored images of a task", experiment.images_per_task, published.images_per_task)
        smaller += below("updates for a batch", replay, published.replay)
        smaller += below("outer steps of a task", made, every)
    return smaller + ([protocol.label()] if protocol.reduced else [])


def _outer_steps(experiment: Any) -> tuple[int | None, int | None]:
    """Of a task, and how many it would be if none of its images were absorbed; None: the experiment has none."""
    steps = getattr(experiment, "steps_per_task", None)
    if steps is None:
        return None, None
    return steps, math.ceil(experiment.stream.info.samples_per_task / experiment.batch) * experiment.replay


def deviations(experiment: Any) -> list[str]:
    """Known deviations from the published benchmark: the stream's, and those of the preset."""
    stream, source = experiment.stream, experiment.preset
    notes = [*stream.info.differs, *NOTES[source], *NOTES_ON.get((source, describe(stream)["is"]), ())]
    if value_of(experiment, "stand_ins"):
        notes.append("networks of the inner loop learn stand-ins for other tasks, made by the stream's law: ours")
    if value_of(experiment, "beside") and _outer_steps(experiment)[0]:
        notes.append("networks of the inner loop learn finished memories beside a new one: ours")
    if value_of(experiment, "absorbed"):
        notes.append(
            f"memories absorb the first {experiment.absorbed} images of their task before any outer step: ours"
        )
    return notes


def announce_deviations(experiment: Any, session: Session) -> None:
    """Print every known deviation from the published benchmark."""
    for text in deviations(experiment):
        session.report(f"differs from the published benchmark: {text}")


def plan_of_stream(experiment: Any) -> dict[str, Any]:
    """What a plan says of an experiment's stream."""
    info = experiment.stream.info
    words = f"{info.name}, {info.tasks} tasks of {info.samples_per_task} images, {info.outputs} outputs"
    return {"stream": words} | {f"differs ({i})": text for i, text in enumerate(deviations(experiment), 1)}
