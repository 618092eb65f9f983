"""Episodes of new-classifier synthesis: which classes, which images are shown, which are scored (paper, A.3)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from suite.errors import UsageError
from suite.keys import Key
from suite.types import ClassRows, Data, DatasetInfo, Split
from suite.validation import require

Cut = Literal["slices", "superclasses", "random"]
"""How classes are cut into tasks."""


def tasks_of(info: DatasetInfo, ways: int, cut: Cut, key: Key) -> tuple[tuple[int, ...], ...]:
    """The classes of disjoint tasks of `ways` classes each.

    'slices': by number, which is alphabetical for CIFAR-100, as the released code of the paper has them;
    'superclasses': each a superclass of the data set; 'random': slices of an order drawn by the key.
    """
    if info.classes % ways or ways < 2:
        raise UsageError(f"{info.classes} classes of {info.name} can't be cut into tasks of {ways}; choose a divisor")
    order = list(range(info.classes))
    if cut == "superclasses":
        order = [info.class_names.index(name) for _, own in info.superclasses for name in own]
        if len(order) != info.classes or any(len(own) != ways for _, own in info.superclasses):
            raise UsageError(f"{info.name} has no superclasses of {ways} classes each; cut it into slices")
    elif cut == "random":
        order = key.permutation(info.classes).tolist()
    return tuple(tuple(order[i : i + ways]) for i in range(0, info.classes, ways))


def sample_classes(tasks: tuple[tuple[int, ...], ...], ways: int, key: Key) -> tuple[tuple[int, int], ...]:
    """One class from each of `ways` different tasks: pairs of a task and the class's place in it."""
    if not 2 <= ways <= len(tasks):
        raise UsageError(
            f"an episode of {ways} ways takes a class from each of {ways} tasks, and there are {len(tasks)}; choose 2 "
            f"to {len(tasks)} ways"
        )
    chosen = key("tasks").permutation(len(tasks))[:ways].tolist()
    return tuple((t, int(key("class", t).permutation(len(tasks[t]))[0])) for t in chosen)


@dataclass(frozen=True, eq=False)
class Episode:
    """Images of a few classes, numbered anew: those that are shown, and those that are scored."""

    support: Split
    """The shots, class by class."""
    query: ClassRows
    """All other images of the classes."""


def draw_episode(rows: ClassRows, classes: tuple[int, ...], shots: int, key: Key) -> Episode:
    """`shots` images of every class at random, and all its others; UsageError if none would be left."""
    support, query = [], []
    for c in classes:
        if shots >= len(rows.rows[c]):
            raise UsageError(
                f"{shots} shots of a class with {len(rows.rows[c])} images leave none to be scored; lower shots"
            )
        order = rows.rows[c][key("shots", c).permutation(len(rows.rows[c]))]
        support.append(order[:shots])
        query.append(order[shots:].sort().values)
    images = rows.split.relabelled(classes)
    return Episode(all_images(ClassRows(images, tuple(support))), ClassRows(images, tuple(query)))


def rows_of(experiment: Any, data: Data, device: torch.device) -> tuple[ClassRows, ClassRows]:
    """Training and test images on the device; UsageError if a class has too few for the experiment's `shots`."""
    train, test = (ClassRows.of(part.to(device), data.info.classes) for part in (data.train, data.test))
    fewest = min(len(rows) for part in (train, test) for rows in part.rows)
    require(experiment, "shots", max(experiment.shots) < fewest, f"below {fewest}, the images of the smallest class")
    return train, test


def of_classes(rows: ClassRows, classes: tuple[int, ...]) -> ClassRows:
    """The images of these classes, numbered anew in their order."""
    return ClassRows(rows.split.relabelled(classes), tuple(rows.rows[c] for c in classes))


def all_images(rows: ClassRows) -> Split:
    """The images of all classes, class by class."""
    return rows.split.at(torch.cat(rows.rows).to(rows.split.labels.device))
