"""Pictures of shots and of what they recalled, where that went right and where it went wrong."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from suite.experiments import plots
from suite.experiments.synthesis.episode_measurement import of_class
from suite.experiments.synthesis.episodes import Episode
from suite.experiments.synthesis.summary import Values
from suite.storage.files import make_directory
from suite.types import Data

RIGHT = 50.0
"""Percent of a class's scored images that are labelled rightly, from which on a case counts as right."""

CASES = 4
"""Of each kind in the picture."""


@plots.picture
def plot_cases(
    folder: Path,
    data: Data,
    episodes: Iterable[tuple[Episode, tuple[int, ...]]],
    accuracies: Values,
    recall: Callable[[Float[Tensor, "1 c h w"]], Float[Tensor, "n c h w"]],
) -> None:
    """Plot the first right and wrong cases of these episodes: a class's first shot and what it recalled.

    `accuracies` of each class (`of_class`) are in the order of the episodes, which come with their classes.
    """
    cases: dict[bool, list[tuple[str, Tensor]]] = {True: [], False: []}
    for e, (episode, classes) in enumerate(episodes):
        shots = len(episode.support) // len(classes)
        for place, c in enumerate(classes):
            percent = accuracies[of_class(place)][e]
            if len(cases[percent >= RIGHT]) == CASES:
                continue
            shot = episode.support.images[place * shots :][:1]
            with torch.no_grad():
                images = plots.stretched(recall(shot).cpu())
            label = f"{data.info.class_names[c]}, {percent:.0f}%"
            cases[percent >= RIGHT].append((label, torch.cat([data.transform.display(shot.cpu()), images])))
        if all(len(kind) == CASES for kind in cases.values()):
            break
    for name, right in (("right", True), ("wrong", False)):
        if cases[right]:
            plots.cases(cases[right], make_directory(folder) / f"recalled_{name}.png")
