"""Episodes of extrapolation: what memories of different tasks recall together, beside controls and bounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from suite.evaluation.comparison import affordable_per_class
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.experiments.accounting import budget_of, dataset_facts, save_task_memories
from suite.experiments.learning import Measured
from suite.experiments.synthesis.episodes import all_images, of_classes
from suite.images import preprocess
from suite.memory import Memory
from suite.types import ClassRows, Control, Data, Params, Session, Setting, Split

ClassOfTask = tuple[int, int]
"""A task and the place of one of its classes."""


@dataclass(frozen=True, eq=False)
class JoinedEpisodes:
    """All that is measured in an episode, which joins one class from each of several tasks."""

    session: Session
    """Of the run."""
    data: Data
    """In the space that every network is trained and tested in."""
    tasks: tuple[tuple[int, ...], ...]
    """The classes of each task."""
    spaces: Sequence[Data]
    """Of each task, its training images and preprocessing as its memory sees them."""
    settings: Mapping[int, Setting]
    """By ways, what an episode's networks are trained for."""
    drawn: Mapping[int, Sequence[tuple[ClassOfTask, ...]]]
    """By ways, the classes of every episode."""
    controls: Sequence[Control]
    """Real images of the same budget."""
    images_per_class: float
    """Budget of a memory."""
    protocol: Protocol
    """How networks are trained."""
    full_data_epochs: int
    """Epochs on all training images of an episode's classes."""
    bound_episodes: int
    """First episodes in which oracle and full data are measured."""
    train: ClassRows
    """All training images, on the device."""
    test: ClassRows
    """All test images, on the device."""
    memories: Sequence[Params] = ()
    """Of each task; none before they are learned."""
    oracles: Mapping[tuple[int, ...], Params] = field(default_factory=dict)
    """By classes, the memory of exactly these; none before they are learned."""

    def names(self, classes: Sequence[int]) -> list[str]:
        """The names of these classes."""
        return [self.data.info.class_names[c] for c in classes]

    def classes_of(self, episode: Sequence[ClassOfTask]) -> tuple[int, ...]:
        """The classes of an episode, ascending: their order changes neither what is learned nor what is recalled."""
        return tuple(sorted(self.tasks[t][place] for t, place in episode))

    def classes_of_oracles(self) -> list[tuple[int, ...]]:
        """The classes of all episodes in which the bounds are measured."""
        first = (episode for episodes in self.drawn.values() for episode in episodes[: self.bound_episodes])
        return sorted({self.classes_of(episode) for episode in first})

    def measure(self, ways: int, number: int) -> Measured:
        """Accuracies of the memories and of what stands beside them on an episode's test images, by method."""
        episode = sorted(self.drawn[ways][number], key=lambda pair: self.tasks[pair[0]][pair[1]])
        classes = self.classes_of(episode)
        setting, key = self.settings[ways], self.session.key("evaluation", ways, number)
        real = ClassRows.of(all_images(of_classes(self.train, classes)), ways)  # controls look at all that they get
        scored = {"test": all_images(of_classes(self.test, classes))}

        def accuracy_of(training: Callable[[int], Split], protocol: Protocol = self.protocol) -> float:
            accuracies = evaluate(setting, training, protocol, key, scored, self.session.pause)["test"]
            return sum(accuracies) / len(accuracies)

        images = self._recalled_together(episode)
        accuracies = {"memory": accuracy_of(lambda network: images)}
        each = affordable_per_class(self.images_per_class)
        for control in self.controls:
            accuracies[control.label] = accuracy_of(control.choose(setting, real, each, key(control.label)))
        if number < self.bound_episodes:
            oracle = recalled(setting, self.oracles[classes])
            long = replace(self.protocol, epochs=self.full_data_epochs)
            accuracies["memory, episodes of the bounds"] = accuracies["memory"]
            accuracies["oracle memory"] = accuracy_of(lambda network: oracle)
            accuracies["full data"] = accuracy_of(lambda network: real.split, long)
        return accuracies

    def _recalled_together(self, episode: Sequence[ClassOfTask]) -> Split:
        """What each task's memory recalls for its class, class by class, in the common space."""
        images = [self._recalled(t, place) for t, place in episode]
        labels = torch.arange(len(episode)).repeat_interleave(len(images[0]))
        return Split(torch.cat(images), labels.to(self.session.device))

    def _recalled(self, t: int, place: int) -> Float[Tensor, "n c h w"]:
        parameterization = self.settings[len(self.tasks[t])].parameterization
        with torch.no_grad():
            images = parameterization.recall(self.memories[t], torch.tensor([place], device=self.session.device))[0]
        transform = self.spaces[t].transform
        return images if transform is self.data.transform else preprocess.moved(images, transform, self.data.transform)

    def facts(self) -> dict[str, Any]:
        """What identifies the tasks and episodes, for the record."""
        return {
            **dataset_facts(self.data),
            "tasks": [self.names(classes) for classes in self.tasks],
            "episodes": {
                f"{n}-way": [list(self.classes_of(episode)) for episode in episodes]
                for n, episodes in self.drawn.items()
            },
        }

    def save_memories(self, experiment: Any) -> list[Memory]:
        """Write a file for each task's memory."""
        info, setting = self.data.info, self.settings[len(self.tasks[0])]
        about = [{"dataset": info.name, "class_names": self.names(task)} for task in self.tasks]
        tasks = zip(self.memories, (space.transform for space in self.spaces), about, strict=True)
        budget = budget_of(setting, self.images_per_class)
        return save_task_memories(self.session, experiment, setting.shape, budget, tasks)
