"""What the experiments of new-classifier synthesis share: measurements over episodes, and how far a run is reduced."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from suite.core.outer_loop import PAPER_ITERATIONS
from suite.experiments.accounting import below, smaller_parts, value_of
from suite.types import Measurement

PAPER_SIZES = {"episodes": 100, "draws": 10, "full_data_epochs": 300, "backbone_epochs": 100}
"""Of the experiments' fields."""

Values = dict[str, tuple[float, ...]]
"""By method, a value for each episode: the mean of its networks."""


def outer_iterations(iterations: int, memories: int) -> str:
    """Outer steps of several memories, for a plan."""
    return f"{iterations} ({iterations / PAPER_ITERATIONS:.2%} of the paper's) for each of {memories} memories"


def measurements(values_of: Mapping[str, Values], notes: Mapping[str, str]) -> Iterator[Measurement]:
    """Accuracies by kind of episode and method; `notes` say what a reader must know of a method."""
    for kind, values in values_of.items():
        for method, accuracies in values.items():
            yield Measurement(method, "test", accuracies, "episodes", episodes=kind, note=notes.get(method, ""))


def reduced_by(experiment: Any) -> list[str]:
    """What is less than the paper's, in words."""
    objective, protocol = experiment.objective, experiment.evaluation
    smaller = below("iterations", experiment.iterations, PAPER_ITERATIONS)
    smaller += smaller_parts(objective, experiment.architecture)
    for name, paper in PAPER_SIZES.items():
        smaller += below(name, value_of(experiment, name), paper)
    # An episode has one network by choice: episodes are many.
    all_networks = replace(protocol, networks=type(protocol)().networks)
    return smaller + ([protocol.label()] if all_networks.reduced else [])
