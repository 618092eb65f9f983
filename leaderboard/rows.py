"""Rows: what the runs of one configuration measured, beside what was printed for the same."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from leaderboard.pages import Page
from leaderboard.published import Published
from leaderboard.records import OF_MEMORY, Entry, Quantity
from suite.runtime.record_schema import ACCURACY, FULL_DATA
from suite.runtime.record_statistics import Difference, Estimate, estimate, paired
from suite.runtime.title import method as method_of
from suite.storage.files import json_sha256

PAPER_NETWORK = "convnet"
"""What the paper's distillation tables are measured with, but for the table of transfer."""

EVALUATED_BY = ("dataset", "stream", "images_per_class", "architecture", "evaluation", "validation")
"""Settings that decide how a memory is evaluated."""

OF_THE_METHOD = {
    "objective",
    "outer_optimizer",  # each method has the rate that the search found for it
    "parameterization",
    "augmentation",
    "controls",
    "transfer",
    "gradient_norms",
    "memory_gib",
}
"""Settings that methods differ in, or that change no measurement."""


@dataclass(frozen=True)
class Conditions:
    """What must be equal for two rows to be compared."""

    label: str
    """The scale's name."""
    reduced: bool
    """Whether less was done than the paper does."""
    iterations: int | None
    """Outer iterations."""
    paper_iterations: int | None
    """Outer iterations of the paper."""
    evaluation: str
    """Hash of `EVALUATED_BY`: data, budget, network and protocol. Rivals for a rank share it."""
    rest: str
    """Hash of the configuration without what a method may choose."""


@dataclass(frozen=True)
class Control:
    """What stands beside a row's accuracy: real images, a baseline, or another quantity of the same method."""

    test: Estimate
    """On test images."""
    behind: Difference | None
    """What the row has on test images less what this has, paired by seed, or by episode; None without a shared seed."""
    note: str = ""
    """How it was trained, where that is another way than a memory's networks are."""
    tested: dict[int, list[float]] = field(default_factory=dict)
    """By seed, its values on test images."""


@dataclass(frozen=True, eq=False)
class Row:
    """One method under one configuration: its printed accuracy, its runs (one for each seed) and what they measured."""

    dataset: str
    """Its name in records."""
    images_per_class: float | None
    """The budget that was given; None for the whole training part."""
    made_with: str
    """What the memory was made with, or the kind of episode; '' where the table has neither."""
    method: str
    """The method, or the network it was measured on."""
    published: tuple[Published, ...] = ()
    """What sources print for the same."""
    runs: tuple[Entry, ...] = ()
    """By seed; () where nobody ran it here."""
    conditions: Conditions | None = None
    """Of its runs."""
    test: Estimate | None = None
    """What it shows, on test images."""
    validation: Estimate | None = None
    """The same on validation images."""
    controls: dict[str, Control] = field(default_factory=dict)
    """By title."""
    rank: int | None = None
    """Among full runs that were evaluated alike."""
    chosen: bool = False
    """Whether a sweep chose it on validation and ran it once more."""
    shows: Quantity = OF_MEMORY
    """What was measured."""

    @property
    def reduced(self) -> bool:
        """Whether its runs did less than the paper."""
        return self.conditions is not None and self.conditions.reduced

    @property
    def first(self) -> dict[str, Any]:
        """The record of the first seed."""
        return self.runs[0].record

    @property
    def paper(self) -> Published | None:
        """The first printed accuracy."""
        return self.published[0] if self.published else None

    @cached_property
    def tested(self) -> dict[int, list[float]]:
        """By seed, the values of what it shows on test images."""
        return values_of(self.runs, self.shows, "test")

    @property
    def apart(self) -> float | None:
        """Ours less the printed accuracy, in points."""
        return self.test.mean - self.paper.accuracy if self.test is not None and self.paper is not None else None


# ---------------------------------------------------------------- from records


def rows_of(page: Page, entries: Iterable[Entry]) -> list[Row]:
    """The rows of every configuration, whose runs differ in their seed alone."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.configuration, []).append(entry)
    rows = []
    for runs in groups.values():
        runs.sort(key=lambda entry: (entry.record["seed"], entry.identity))
        rows += [_row(page, tuple(runs), shows) for shows in _shown(page, runs[0])]
    return rows


def _shown(page: Page, entry: Entry) -> list[Quantity]:
    """What of a record gets a row each: the memory's accuracy, that in every kind of episode, or on every network."""
    if page.episodes:
        wanted = Quantity(quantity=page.quantity)
        return [of for of in entry.measurements if of.episodes and of._replace(episodes="") == wanted]
    if page.row_axis:
        return [of for of in entry.measurements if of.of_memory]
    if page.quantity == ACCURACY:
        return [OF_MEMORY]
    of_stream = [of for of in entry.measurements if of.quantity == page.quantity]
    return of_stream[:1] or [Quantity(quantity=page.quantity)]


def _row(page: Page, runs: tuple[Entry, ...], shows: Quantity) -> Row:
    """The row of one quantity of a configuration."""
    record = runs[0].record
    config, declared = record["config"], number(record["config"].get("images_per_class"))
    made_with, method = _names(page, record, shows)
    return Row(
        dataset=record["facts"]["dataset"],
        images_per_class=float(record["budget"]["images_per_class"]) if declared is None else declared,
        made_with=made_with,
        method=method,
        runs=runs,
        conditions=_conditions(record["scale"], config),
        test=_estimate(page, runs, shows, "test"),
        validation=_estimate(page, runs, shows, "validation"),
        controls=_controls(page, runs, shows),
        chosen="chosen" in record["cell"],
        shows=shows,
    )


def _names(page: Page, record: dict[str, Any], shows: Quantity) -> tuple[str, str]:
    """What a row's memory was made with (or the kind of episode), and its method (or the network it is measured on)."""
    cell, network = record["cell"], _component(record["config"].get("architecture"))
    made_with = cell.get(page.row_axis, shows.episodes)
    if page.row_axis:
        if network and made_with.lower().replace("-", "") != network:
            made_with = network  # a --set replaced what the label says
        return made_with, shows.network or network
    if page.axes and page.axes[0] in cell:
        named = [f"without {cell[axis]}" if axis == "without" else cell[axis] for axis in page.axes if axis in cell]
        return made_with, ", ".join(named)
    if not page.axis:
        return made_with, method_of(record["config"], cell)
    method = cell[page.axis] if page.axis in cell else ", ".join([record["name"], *cell.values()])
    if page.trials in cell:
        method += f", {page.trials} {cell[page.trials]}"
    if page.quantity == ACCURACY and network not in ("", PAPER_NETWORK):
        method += f" ({network})"  # so that it does not stand beside what was printed for another network
    return made_with, method


def _component(config: Any) -> str:
    """The name of a described component; of a timm network, its model's."""
    return str(config.get("model", config.get("is", ""))) if isinstance(config, dict) else ""


def _controls(page: Page, runs: tuple[Entry, ...], shows: Quantity) -> dict[str, Control]:
    """By title, what else the runs measured in the same kind of episode; nothing beside another network's accuracy."""
    if shows.network:
        return {}
    controls, own = {}, values_of(runs, shows, "test")
    for quantity in dict.fromkeys(quantity for run in runs for quantity in run.measurements):
        of_other_episodes = shows.episodes and quantity.episodes != shows.episodes
        no_accuracy = page.episodes and quantity.quantity != page.quantity
        if quantity == shows or quantity.of_memory or of_other_episodes or no_accuracy:
            continue
        values = values_of(runs, quantity, "test")
        if values:
            title = quantity._replace(episodes="").label if shows.episodes else quantity.label
            by_episode = page.episodes and len(own) == len(values) == 1
            behind, note = paired(values, own, by_episode), _note(runs[0], quantity)
            controls[title] = Control(estimate(values, page.seeds, page.within), behind, note, values)
    return controls


def _note(entry: Entry, quantity: Quantity) -> str:
    """How a control was trained, where its networks see other images or epochs than a memory's, or in episodes."""
    for measurement in entry.measurements.get(quantity, {}).values():
        if quantity.method == FULL_DATA or measurement["over"] == "episodes":
            return str(measurement["note"])
    return ""


def _estimate(page: Page, runs: Iterable[Entry], quantity: Quantity, split: str) -> Estimate | None:
    """Over all runs; None if none measured it."""
    values = values_of(runs, quantity, split)
    return estimate(values, page.seeds, page.within) if values else None


def values_of(runs: Iterable[Entry], quantity: Quantity, split: str) -> dict[int, list[float]]:
    """By seed, the values of one quantity; runs that did not measure it are left out."""
    values = {entry.record["seed"]: entry.values(quantity, split) for entry in runs}
    return {seed: of_seed for seed, of_seed in values.items() if of_seed}


def _conditions(scale: dict[str, Any], config: dict[str, Any]) -> Conditions:
    """What a record's scale and settings say of them."""
    return Conditions(
        label=scale["label"],
        reduced=scale["reduced"],
        iterations=scale.get("iterations"),
        paper_iterations=scale.get("paper_iterations"),
        evaluation=json_sha256([config.get(key) for key in EVALUATED_BY])[:16],
        rest=json_sha256({key: value for key, value in config.items() if key not in OF_THE_METHOD})[:16],
    )


def number(value: Any) -> float | None:
    """A number of a record, or None for what is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
