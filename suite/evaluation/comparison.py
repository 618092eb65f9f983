"""A memory beside its controls: what each teaches fresh networks, by one protocol and on the same test images."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from suite.evaluation.evaluate import TrainingSet, evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.keys import Key
from suite.types import ClassRows, Control, Data, Params, Setting

MEMORY = "memory"
"""The name of the memory among the methods that are compared."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Test accuracies of a memory and of its controls. Prints as a table."""

    protocol: Protocol
    """How every network was trained."""
    accuracies: dict[str, tuple[float, ...]]
    """By method, the memory first: the accuracy of each network in percent."""

    def mean(self, method: str = MEMORY) -> float:
        """Mean accuracy over networks, in percent. KeyError for a method that was not compared."""
        return mean(self.accuracies[method])

    def std(self, method: str = MEMORY) -> float | None:
        """Sample standard deviation over networks, in percentage points; None for one network."""
        accuracies = self.accuracies[method]
        return stdev(accuracies) if len(accuracies) > 1 else None

    def __repr__(self) -> str:
        """The table as text."""
        width = max(map(len, self.accuracies))
        return "\n".join([self._title(), *(f"{method:{width}}  {text}" for method, text in self._rows())])

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        rows = "".join(f"<tr><td>{html.escape(method)}</td><td>{text}</td></tr>" for method, text in self._rows())
        return f"<table><caption>{html.escape(self._title())}</caption>{rows}</table>"

    def _title(self) -> str:
        return f"test accuracy (%), mean ± standard deviation over networks, protocol {self.protocol.label()}"

    def _rows(self) -> list[tuple[str, str]]:
        deviations = {method: self.std(method) for method in self.accuracies}
        return [
            (method, f"{self.mean(method):.1f}" + ("" if deviation is None else f" ± {deviation:.1f}"))
            for method, deviation in deviations.items()
        ]


def affordable_per_class(images_per_class: float) -> int:
    """Real images of each class that a budget pays for, one at the least."""
    return max(1, int(images_per_class))


def compare(
    setting: Setting,
    memory: Params,
    data: Data,
    controls: Sequence[Control],
    images_per_class: float,
    protocol: Protocol,
    key: Key,
    report: Callable[[str], None],
) -> Comparison:
    """Train and test the protocol's networks on what the memory recalls, and on each control's images.

    A control has as many images of every class as the budget pays for, at least one, or all there are. `report` is
    given a sentence before each method. The same key gives the accuracies that a run's record holds.
    """
    real = ClassRows.of(data.train.to(setting.device), setting.classes)
    images = affordable_per_class(images_per_class)
    all_recalled = recalled(setting, memory)
    accuracies = {}

    def measure(method: str, training_set: TrainingSet) -> None:
        report(f"evaluating {method}: {protocol.networks} networks")
        accuracies[method] = evaluate(setting, training_set, protocol, key, {"test": data.test})["test"]

    measure(MEMORY, lambda network: all_recalled)
    for control in controls:
        measure(control.label, control.choose(setting, real, images, key))
    return Comparison(protocol, accuracies)
