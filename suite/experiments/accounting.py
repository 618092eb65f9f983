"""What every experiment states in one way: its budget, its scale beside the paper's, its augmentation, its memories."""

from collections.abc import Iterable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from suite.core.foretold import fresh_memory
from suite.core.outer_loop import PAPER_ITERATIONS
from suite.memory import Memory, described
from suite.parameterizations.addressing import budget_numbers
from suite.parameterizations.imported import Imported
from suite.registry import fingerprint, name_of
from suite.storage.files import make_directory
from suite.types import (
    Architecture,
    Budget,
    Data,
    Dataset,
    ImageShape,
    Objective,
    Params,
    Session,
    Setting,
    Transform,
)

# ---------------------------------------------------------------- budget

_FRESH_NUMBERS: dict[tuple[str, ImageShape, int, float], int] = {}
"""Stored numbers of fresh memories that were counted."""


def stored_numbers(memory: Params) -> int:
    """Numbers that a memory's tensors hold."""
    return sum(tensor.numel() for tensor in memory.values())


def budget_of(setting: Setting, images_per_class: float, memory: Params | None = None) -> Budget:
    """The budget of one memory: stored numbers, the same as real images per class, and images recalled per class.

    Of a fresh memory of this size where none is given.
    """
    parameterization, shape, classes = setting.parameterization, setting.shape, setting.classes
    if isinstance(parameterization, Imported) and parameterization.decoded:
        numbers = budget_numbers(shape, classes, images_per_class)  # its source's, and no longer those of its images
    elif memory is not None:
        numbers = stored_numbers(memory)
    else:
        size = (fingerprint(parameterization), shape, classes, images_per_class)
        if size not in _FRESH_NUMBERS:
            _FRESH_NUMBERS[size] = stored_numbers(fresh_memory(parameterization, shape, classes, images_per_class))
        numbers = _FRESH_NUMBERS[size]
    per_class = parameterization.per_class(shape, classes, images_per_class)
    return Budget(numbers, numbers / (classes * shape.numel), per_class)


# ---------------------------------------------------------------- an outer step


def outer_step_plan(
    experiment: Any, setting: Setting, per_class: int, objective: Objective | None = None
) -> dict[str, Any]:
    """What a plan says of an outer step; `objective`: another than the experiment's, of the same work."""
    several = {"rollouts of an outer step": experiment.rollouts} if experiment.rollouts > 1 else {}
    return several | (objective or experiment.objective).plan(setting, per_class)


# ---------------------------------------------------------------- scale


def below(name: str, used: float | None, paper: float | None) -> list[str]:
    """['name used of paper'] where a run uses less than the paper, else nothing; None: it has no such size."""
    return [f"{name} {used} of {paper}"] if used is not None and paper is not None and used < paper else []


def below_default(component: object, field: str, label: str = "") -> list[str]:
    """['field used of default'] where a component's field is below its default, the paper's size; else nothing."""
    used, paper = value_and_default(component, field)
    return below(f"{label}{field}", used, paper)


def value_and_default(component: Any, field: str) -> tuple[Any, Any]:
    """A dataclass's value of a field and the field's default, or those of what it wraps (`of`); None for neither."""
    for declared in fields(component):
        if declared.name == field:
            return getattr(component, field), None if declared.default is MISSING else declared.default
    of = getattr(component, "of", None)
    return (None, None) if of is None else value_and_default(of, field)


def value_of(component: Any, field: str) -> Any:
    """A dataclass's value of a field, or that of what it wraps; None if neither has such a field."""
    return value_and_default(component, field)[0]


def with_values(component: Any, **values: Any) -> Any:
    """A dataclass with these values in the fields that it, or what it wraps, has; None leaves a field as it is."""
    names = {declared.name for declared in fields(component)}
    changed = replace(component, **{k: v for k, v in values.items() if k in names and v is not None})
    others = {k: v for k, v in values.items() if k not in names}
    return replace(changed, of=with_values(changed.of, **others)) if others and "of" in names else changed


def smaller_parts(objective: object, *architectures: Architecture, named: bool = False) -> list[str]:
    """Sizes of an objective and of networks that are below the paper's; `named` says which architecture is meant."""
    smaller = below_default(objective, "inner_steps") + below_default(objective, "real_per_class")
    for architecture in architectures:
        smaller += below_default(architecture, "width", f"{name_of(architecture)} " if named else "")
    return smaller


def scale_of(experiment: Any, reduced_by: list[str]) -> dict[str, Any]:
    """How much of the paper's compute an experiment with `iterations` and an `evaluation` protocol uses."""
    return {
        "iterations": experiment.iterations,
        "paper_iterations": PAPER_ITERATIONS,
        "fraction": experiment.iterations / PAPER_ITERATIONS,
        "protocol": experiment.evaluation.label(),
        "reduced": bool(reduced_by),
        "reduced_by": reduced_by,
    }


# ---------------------------------------------------------------- augmentation


def augmentation_of(dataset: Dataset, name: str) -> str:
    """The augmentation called `name`; 'default' is the data set's own."""
    return dataset.augmentation if name == "default" else name


# ---------------------------------------------------------------- what is kept


def dataset_facts(data: Data) -> dict[str, Any]:
    """What identifies the images of a run, for its record."""
    return {
        "dataset": data.info.name,
        "dataset_digest": data.digest,
        "preprocessing": data.transform.describe(),
    }


def dataset_about(data: Data) -> dict[str, Any]:
    """What a memory's file says of the images it was learned from."""
    info = data.info
    return {
        "dataset": info.name,
        "dataset_digest": data.digest,
        "class_names": list(info.class_names),
        "superclasses": [[name, list(classes)] for name, classes in info.superclasses],
    }


def numbers_of_images(data: Data) -> dict[str, int]:
    """By split."""
    return {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}


def save_memory(
    file: Path,
    memory: Params,
    experiment: Any,
    shape: ImageShape,
    transform: Transform,
    budget: Budget,
    **about: Any,
) -> Memory:
    """Write a memory with all that says what it is; `about` adds data set, class names, seed and the like."""
    whole = about | described(experiment, shape, transform, budget)
    saved = Memory({name: tensor.cpu() for name, tensor in memory.items()}, whole, transform)
    saved.save(file)
    return saved


def save_task_memories(
    session: Session, experiment: Any, shape: ImageShape, budget: Budget,
    tasks: Iterable[tuple[Params, Transform, dict[str, Any]]],
) -> list[Memory]:  # fmt: skip
    """Write the memory of every task in the run's `memories`: its tensors, its preprocessing and what it is."""
    folder, seed = make_directory(session.directory / "memories"), session.key.seed
    return [
        save_memory(
            folder / f"task-{t:03}.safetensors", memory, experiment, shape, transform, budget,
            task=t, superclasses=[], seed=seed, **about,
        )
        for t, (memory, transform, about) in enumerate(tasks, 1)
    ]  # fmt: skip
