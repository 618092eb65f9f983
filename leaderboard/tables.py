"""The tables: published figures and records joined into rows, with what may be compared and what may not."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from leaderboard.published import Published
from leaderboard.records import Entry
from leaderboard.statistics import Difference, Estimate, Kind, estimate, paired
from suite.runtime.record import label
from suite.storage.files import json_sha256

DATASETS = ("mnist", "fashion_mnist", "svhn", "cifar10", "cifar100", "tiny_imagenet", "digits")
MEMORY = "memory"
PAPER_NETWORK = "convnet"
"""What the paper's distillation tables are measured with, but for the table of transfer."""


STREAMS = ("rotations", "permutations", "many", "cifar100")
STREAM_FILES = (
    *STREAMS,
    *(f"{name}_lamaml" for name in STREAMS),
    *(f"{name}_star{kcl}" for name in STREAMS[:2] for kcl in ("", "_kcl")),
)
"""The names of gin/continual/."""


@dataclass(frozen=True)
class Spec:
    """One page: which records belong to it, and the axis of theirs whose labels are its methods."""

    slug: str
    short: str
    title: str
    what: str
    experiments: tuple[str, ...] = ()
    axis: str = ""
    methods: tuple[str, ...] = ()
    """Their order, as far as it is known."""
    row_axis: str = ""
    """What the memory was made with, where the table varies that too."""
    chart: bool = False
    """Whether the methods are numbers, to be drawn along an axis."""
    ranked: bool = True
    """Whether its rows are rivals: full runs then have a rank."""
    figure: str = MEMORY
    """The name of the figure that a row shows; the others stand beside it."""
    seeds: Kind = "memories"
    """What every seed makes anew."""
    episodes: bool = False
    """Whether its figures are 'episodes: what', a value for each episode; every kind of episode has a row."""

    @property
    def row_title(self) -> str:
        """Over the column of what tells rows of one method apart, if there is one."""
        return "episodes" if self.episodes else "made with" if self.row_axis else ""

    @property
    def within(self) -> Kind:
        """What a seed has several values of."""
        return "episodes" if self.episodes else "evaluation networks"


SPECS = (
    Spec(
        "components",
        "Table 3",
        "Table 3: what each part of the method adds",
        "Single-step gradient matching, back-propagation through time (BPTT), the same with downsampled images (ds), "
        "and the full method with addressable bases, without and with augmentation.",
        ("ablation_components",),
        "method",
        ("single-step GM", "BPTT", "BPTT+ds", "full without augmentation", "full"),
    ),
    Spec(
        "momentum",
        "Table 4",
        "Table 4: momentum in the inner loop",
        "BPTT without momentum, with momentum in the forward pass alone, and with momentum that gradients pass.",
        ("ablation_momentum",),
        "momentum",
        ("no momentum", "forward-only momentum", "full momentum"),
    ),
    Spec(
        "transfer",
        "Table 2",
        "Table 2: transfer across architectures",
        "Memories made with one architecture, judged by networks of others.",
        ("transfer",),
        row_axis="trained on",
        methods=("alexnet", "resnet12", "convnet"),
        ranked=False,
    ),
    Spec(
        "bases",
        "Figure 1",
        "Figure 1: number of bases",
        "Validation accuracy against the number of bases. The best on validation is run once more, and that run alone "
        "sees test images.",
        ("bases",),
        "bases",
        chart=True,
        ranked=False,
    ),
    Spec(
        "continual",
        "Continual",
        "Continual learning: compress-then-recall",
        "A stream of tasks, each seen once: retained accuracy (RA), the mean over all tasks after the last. Each is "
        "compressed into a memory of its share of the storage, beside networks that learn the stream: without "
        "a storage (naive), with replay from one of that size (ER; A-GEM and MER of Avalanche), or all tasks at "
        "once (joint, the upper bound). With stand-ins (ours), the inner loop's networks learn other tasks of the "
        "stream's law beside a memory. LA is the accuracy on a task just after it was learned, and BTI = RA - LA.",
        STREAM_FILES,
        "method",
        (
            "naive",
            "ER",
            "ER (Avalanche)",
            "A-GEM (Avalanche)",
            "MER (Avalanche)",
            "compress-then-recall",
            "compress-then-recall with stand-ins",
            "joint",
        ),
        figure="RA",
        seeds="streams",
    ),
    Spec(
        "extrapolation",
        "Extrapolation",
        "New classifiers: task extrapolation",
        "A memory for each of several tasks; in an episode, networks learn one class from each of several memories, "
        "and are tested on real images of these classes, no two of which any memory had together. Beside it, with the "
        "same budget: real images, and a memory distilled on exactly the episode's classes (oracle).",
        ("extrapolation",),
        "method",
        ("standard", "addressing"),
        ranked=False,
        episodes=True,
    ),
    Spec(
        "image-recall",
        "Image recall",
        "New classifiers: recall with images",
        "In an episode a memory is asked with one or five test images (shots) of each class, and networks that learn "
        "what it recalls are tested on the other test images. Beside it, classifiers that know all classes or look at "
        "the shots: nearest neighbours and a linear probe in features, fine-tuning, and recall by a label that a "
        "classifier gives to the shot.",
        ("image_recall",),
        "method",
        ("asked with images",),
        ranked=False,
        episodes=True,
    ),
    Spec(
        "field",
        "The field",
        "Published figures of the field",
        "What others printed for these data sets and budgets.",
    ),
    Spec(
        "others",
        "Other runs",
        "Other runs",
        "Every other record: examples, and methods that no table of the paper has.",
    ),
)


@dataclass(frozen=True)
class Conditions:
    """What must be equal for two rows to be compared."""

    label: str
    reduced: bool
    iterations: int | None
    paper_iterations: int | None
    judges: str
    """Hash of what judges a memory: data, budget, network and protocol. Rivals for a rank share it."""
    rest: str
    """Hash of the configuration without what a method may choose."""


@dataclass(frozen=True, eq=False)
class Row:
    """One method under one configuration: its printed figure, its runs (one for each seed) and what they say."""

    dataset: str
    images_per_class: float | None
    made_with: str
    method: str
    published: tuple[Published, ...] = ()
    runs: tuple[Entry, ...] = ()
    conditions: Conditions | None = None
    test: Estimate | None = None
    validation: Estimate | None = None
    controls: dict[str, Estimate] = field(default_factory=dict)
    rank: int | None = None
    chosen: bool = False
    figure: str = MEMORY
    """The name of the figure that it shows."""

    @property
    def reduced(self) -> bool:
        return self.conditions is not None and self.conditions.reduced

    @property
    def first(self) -> dict[str, Any]:
        """The record of the first seed."""
        return self.runs[0].record

    @property
    def paper(self) -> Published | None:
        return self.published[0] if self.published else None

    @property
    def apart(self) -> float | None:
        """Ours less the printed figure, in points."""
        return self.test.mean - self.paper.accuracy if self.test is not None and self.paper is not None else None


@dataclass(frozen=True)
class Comparison:
    """Two methods under equal conditions on the seeds that both have."""

    dataset: str
    images_per_class: float | None
    first: str
    second: str
    test: Difference
    reduced: bool
    label: str
    made_with: str = ""
    """What both rows share beside that: the kind of episodes."""

    @property
    def what(self) -> str:
        return f"{self.second} over {self.first}" + (f", {self.made_with}" if self.made_with else "")


@dataclass(frozen=True)
class Table:
    spec: Spec
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]

    @cached_property
    def measured(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.runs)

    @cached_property
    def controls(self) -> tuple[str, ...]:
        """Names of all controls in it, the data's own last; of continual learning its other figures."""
        names = dict.fromkeys(name for row in self.rows for name in row.controls)
        if self.spec.figure != MEMORY:
            return tuple(names)
        return tuple(sorted(names, key=lambda name: (name == "full data", name)))


def tables(entries: Sequence[Entry], figures: Sequence[Published]) -> tuple[Table, ...]:
    """All tables, in order; every record is in exactly one, and every printed figure too."""
    homes = {name: spec.slug for spec in SPECS for name in spec.experiments}
    made = []
    for spec in SPECS:
        own = [entry for entry in entries if homes.get(entry.record["name"], "others") == spec.slug]
        printed = [one for one in figures if one.table == spec.slug]
        rows = _ranked(spec, _ordered(spec, _joined(_rows(spec, own), printed)))
        compared = tuple(_comparisons(spec, rows)) if spec.axis and spec.methods else ()
        made.append(Table(spec, rows, compared))
    return tuple(made)


def _rows(spec: Spec, entries: Iterable[Entry]) -> list[Row]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.configuration, []).append(entry)
    rows = []
    for runs in groups.values():
        runs.sort(key=lambda entry: (entry.record["seed"], entry.identity))
        rows += [_row(spec, tuple(runs), name) for name in _measured(spec, runs[0])]
    return rows


def _measured(spec: Spec, entry: Entry) -> list[str]:
    """The figures of a record that get a row each: the memory's, and in the table of transfer those elsewhere too."""
    names = dict.fromkeys(name for name in map(label, entry.record["measurements"]) if _of_memory(name))
    if spec.episodes:
        every = map(label, entry.record["measurements"])
        return [name for name in dict.fromkeys(every) if name.endswith(f": {spec.figure}")]
    return list(names) if spec.slug == "transfer" else [spec.figure]


def _of_memory(name: str) -> bool:
    """Whether a figure is a memory's, on its own network or on another; else it is a control's."""
    return name == MEMORY or name.startswith(f"{MEMORY} on ")


def _row(spec: Spec, runs: tuple[Entry, ...], name: str) -> Row:
    record = runs[0].record
    cell, config = record["cell"], record["config"]
    network = _is(config.get("architecture"))
    kind = name.removesuffix(spec.figure) if spec.episodes else ""
    made_with = cell.get(spec.row_axis, kind.removesuffix(": "))
    if spec.slug == "transfer":
        method = name.removeprefix(f"{MEMORY} on ") if name != MEMORY else network
        if network and made_with.lower().replace("-", "") != network:
            made_with = network  # a --set replaced what the label says
    else:
        method = cell[spec.axis] if spec.axis in cell else ", ".join([record["name"], *cell.values()])
        if spec.axis and spec.figure == MEMORY and network not in ("", PAPER_NETWORK):
            method += f" ({network})"  # so that it does not stand beside what was printed for another network
    declared = config.get("images_per_class")
    plain = isinstance(declared, (int, float)) and not isinstance(declared, bool)
    every = dict.fromkeys(label(measurement) for run in runs for measurement in run.record["measurements"])
    shown = name == kind + spec.figure
    controls = [one for one in every if one.startswith(kind) and not _of_memory(one) and one != name] if shown else []
    found = {one.removeprefix(kind): _estimate(runs, one, "test", spec) for one in controls}
    return Row(
        dataset=record["facts"]["dataset"],
        images_per_class=float(declared if plain else record["budget"]["images_per_class"]),
        made_with=made_with,
        method=method,
        runs=runs,
        conditions=_conditions(record),
        test=_estimate(runs, name, "test", spec),
        validation=_estimate(runs, name, "validation", spec),
        controls={one: value for one, value in found.items() if value is not None},
        chosen="chosen" in cell,
        figure=name,
    )


def _is(config: Any) -> str:
    """The name of a described component."""
    return str(config.get("model", config.get("is", ""))) if isinstance(config, dict) else ""


def _estimate(runs: Iterable[Entry], name: str, split: str, spec: Spec) -> Estimate | None:
    values = values_of(runs, name, split)
    return estimate(values, spec.seeds, spec.within) if values else None


def values_of(runs: Iterable[Entry], name: str, split: str) -> dict[int, list[float]]:
    """By seed, the values of one figure."""
    found = {entry.record["seed"]: entry.values(name, split) for entry in runs}
    return {seed: values for seed, values in found.items() if values}


def _conditions(record: dict[str, Any]) -> Conditions:
    scale, config = record["scale"], record["config"]
    rest = {key: value for key, value in config.items() if key not in OF_THE_METHOD}
    return Conditions(
        label=scale["label"],
        reduced=scale["reduced"],
        iterations=_whole(scale.get("iterations")),
        paper_iterations=_whole(scale.get("paper_iterations")),
        judges=json_sha256([config.get(key) for key in JUDGES])[:16],
        rest=json_sha256(rest)[:16],
    )


JUDGES = ("dataset", "stream", "images_per_class", "architecture", "evaluation", "validation")
OF_THE_METHOD = {
    "objective",
    "parameterization",
    "augmentation",
    "controls",
    "transfer",
    "gradient_norms",
    "memory_gib",
}
"""Settings that methods differ in, or that change no figure."""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float | None:
    """A number of a record, or None for what is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _joined(rows: list[Row], printed: Sequence[Published]) -> list[Row]:
    """Rows with the figures printed for the same thing, and rows for printed figures that nobody ran here."""
    by: dict[tuple[str, float | None, str, str], list[Published]] = {}
    for one in printed:
        by.setdefault((one.dataset, one.images_per_class, one.row, one.method), []).append(one)
    joined, met = [], set()
    for row in rows:
        at = (row.dataset, row.images_per_class, row.made_with, row.method)
        joined.append(replace(row, published=tuple(by.get(at, ()))))
        met.add(at)
    return joined + [_printed_only(*at, found) for at, found in by.items() if at not in met]


def _printed_only(dataset: str, budget: float | None, made_with: str, method: str, found: Sequence[Published]) -> Row:
    return Row(dataset, budget, made_with, method, published=tuple(found))


def _ordered(spec: Spec, rows: list[Row]) -> list[Row]:
    """By data set and budget; full runs, then reduced ones, then what is only printed; methods in the paper's order."""

    def key(row: Row) -> tuple[Any, ...]:
        known = row.method in spec.methods
        return (
            DATASETS.index(row.dataset) if row.dataset in DATASETS else len(DATASETS),
            row.dataset,
            *((row.images_per_class is None, row.images_per_class or 0.0) if spec.figure == MEMORY else ()),
            2 if not row.runs else int(row.reduced),
            row.chosen,
            repr(_comparable(spec, row)) if row.runs and spec.slug != "transfer" else "",
            natural(row.made_with),
            spec.methods.index(row.method) if known else len(spec.methods),
            natural(row.method) if row.runs else [],
            row.runs[0].configuration if row.runs else "",
        )

    return sorted(rows, key=key)


def _comparable(spec: Spec, row: Row) -> Any:
    """What rows share that stand together: their conditions, or, where methods are whole experiments, their judges."""
    if spec.figure == MEMORY or row.conditions is None:
        return row.conditions
    return row.conditions.label, row.conditions.reduced, row.conditions.judges


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key that puts '4' before '16'."""
    parts = re.split(r"(\d+)", text)
    return [(0, float(part), "") if part.isdigit() and part.isascii() else (1, 0.0, part) for part in parts if part]


def _ranked(spec: Spec, rows: list[Row]) -> tuple[Row, ...]:
    """Full runs that were judged alike, by test accuracy. Reduced runs are never ranked."""
    places: dict[str, list[float]] = {}
    if spec.ranked:
        for row in rows:
            if row.test is not None and row.conditions is not None and not row.reduced:
                places.setdefault(row.conditions.judges, []).append(row.test.mean)
    for means in places.values():
        means.sort()

    def rank(row: Row) -> int | None:
        if row.test is None or row.conditions is None or row.reduced or row.conditions.judges not in places:
            return None
        means = places[row.conditions.judges]
        return 1 + len(means) - bisect_right(means, row.test.mean)

    return tuple(replace(row, rank=rank(row)) for row in rows)


def _comparisons(spec: Spec, rows: Sequence[Row]) -> Iterable[Comparison]:
    """Each method beside the one before it, where both were run under equal conditions."""
    blocks: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.test is not None and not row.chosen:
            budget = row.images_per_class if spec.figure == MEMORY else None
            blocks.setdefault((row.dataset, budget, row.made_with, _comparable(spec, row)), []).append(row)
    for own in blocks.values():
        for first, second in pairwise(own):
            test = _paired(first, second)
            if test is not None and first.method != second.method and _alike(first, second):
                assert second.conditions is not None
                label = second.conditions.label
                yield Comparison(
                    second.dataset,
                    second.images_per_class,
                    first.method,
                    second.method,
                    test,
                    first.reduced,
                    label,
                    second.made_with,
                )


def _alike(first: Row, second: Row) -> bool:
    """Whether two objectives of one kind agree in their sizes, such as inner steps or real images."""
    one, other = (row.first["config"].get("objective") for row in (first, second))
    if not isinstance(one, dict) or not isinstance(other, dict) or one.get("is") != other.get("is"):
        return True
    sizes = [key for key in set(one) & set(other) if number(one[key]) is not None and key not in OF_THE_METHOD]
    return all(one[key] == other[key] for key in sizes)


def _paired(first: Row, second: Row) -> Difference | None:
    return paired(*(values_of(row.runs, row.figure, "test") for row in (first, second)))
