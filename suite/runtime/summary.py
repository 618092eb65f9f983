"""What runs measured, for a terminal: a row for each method, its controls once, and paired differences."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from suite.runtime.record import is_headline, label
from suite.runtime.record_schema import FULL_DATA, MEMORY
from suite.runtime.record_statistics import Estimate, estimate, paired
from suite.runtime.title import title
from suite.storage.files import canonical_json

EVALUATED_ON = ("dataset", "stream", "images_per_class", "architecture", "augmentation", "evaluation", "validation")
"""Settings that decide what a memory and its controls are measured on, and with what budget."""

HEAD = ("method", "what", "test (95% interval)", "validation", "n", "budget", "scale")
"""Of the columns."""

RULE = 80
"""The longest rule, which fits a narrow window."""

MOST_IN_PAIRS = 4
"""So many methods are compared each with each; of more, each with the one before."""

Record = Mapping[str, Any]
"""A result record."""

BySeed = dict[int, list[float]]
"""What a seed's run measured: a value for each network, or whatever its values are spread over."""


@dataclass
class Row:
    """One quantity of one method, or a control that methods share."""

    method: str
    """Of which method; of a control, of the first one that has it."""
    measurement: Mapping[str, Any]
    """One of those it is made of, for all but its numbers."""
    stands_alone: bool
    """Whether it is a control, whose note says how it was trained."""
    budget: str
    """What it stores or was trained on."""
    scale: str
    """The scale's name, with what is reduced marked."""
    measured_on: str
    """The settings `EVALUATED_ON`, as text: those of rows that may be compared are equal."""
    test: BySeed = field(default_factory=dict)
    """On test images."""
    validation: BySeed = field(default_factory=dict)
    """On validation images."""

    def of(self, split: str) -> BySeed:
        """On images of a split."""
        return self.test if split == "test" else self.validation

    def takes(self, split: str, values: BySeed) -> bool:
        """Whether values are new to it, or, of a control, what it has already."""
        known = self.of(split)
        return all(self.stands_alone and known[seed] == new for seed, new in values.items() if seed in known)


def summary(records: Sequence[Record]) -> str:
    """Means over seeds with 95% intervals, on test images, and what methods have over each other and over controls.

    An interval is over memories where there are several seeds, else over the networks of the only one.
    """
    first, *differences = _tables(records)
    lines, scale = _narrow(first)
    tables = [[*_aligned(lines), *scale], *map(_aligned, differences)]
    return "\n\n".join(map("\n".join, tables))


def _narrow(lines: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows without the columns that a terminal can do without, and a line with the scale that all share.

    Where each method has one quantity, and controls stand once, the first column alone tells rows apart.
    """
    head, *rows = lines
    if len({row[1] for row in rows if row[0]}) == 1:
        head, *rows = [head[:1] + head[2:], *((row[0] or row[1], *row[2:]) for row in rows)]
    scales = {row[-1] for row in rows}
    if len(scales) > 1:
        return [head, *rows], []
    return [row[:-1] for row in (head, *rows)], [f"scale: {scale}" for scale in scales]


def markdown(records: Sequence[Record]) -> str:
    """The summary as tables of Markdown, for a page that names the method where there is only one."""
    texts = []
    for table in _tables(records):
        nameless = len(table[0]) == len(HEAD) and len({row[0] for row in table[1:]} - {""}) == 1
        head, *lines = [row[1:] for row in table] if nameless else table
        rows = [head, ("---",) * len(head), *lines]
        texts.append("\n".join(f"| {' | '.join(part.replace('|', '/') for part in row)} |" for row in rows))
    return "\n\n".join(texts)


def _tables(records: Sequence[Record]) -> list[list[tuple[str, ...]]]:
    """The rows below their head, and the differences where there are any."""
    rows = rows_of(records)
    lines: list[tuple[str, ...]] = [HEAD]
    times = Counter(label(row.measurement) for row in rows if row.stands_alone)
    for row in rows:
        of = estimate(row.test or row.validation)
        test, validation = (_plus_minus(estimate(values)) if values else "-" for values in (row.test, row.validation))
        n = f"{of.memories} x {of.networks}" if of.networks > 1 else str(of.memories)
        method = "" if row.stands_alone and times[label(row.measurement)] == 1 else row.method
        lines.append((method, label(row.measurement), test, validation, n, row.budget, row.scale))
    differences: list[tuple[str, ...]] = list(_differences(rows))
    head = ("", "difference (paired 95% interval)", "seeds")
    return [lines, [head, *differences]] if differences else [lines]


def rows_of(records: Sequence[Record]) -> list[Row]:
    """The methods' own rows in the records' order, then the controls, each once where methods have the same."""
    rows: dict[tuple[str, ...], list[Row]] = {}
    for record, method in zip(records, methods_of(records), strict=True):
        measured_on = canonical_json({name: record["config"].get(name) for name in EVALUATED_ON})
        scale = f"{record['scale']['label']}{' (reduced)' if record['scale']['reduced'] else ''}"
        for measured in record["measurements"]:
            alone = measured["method"] != MEMORY and bool(measured["note"])
            budget = measured["note"] if alone else f"{record['budget']['stored_numbers']:,} numbers"
            new = Row(method, measured, alone, budget, scale, measured_on)
            values = {record["seed"]: list(measured["values"])}
            alike = rows.setdefault((label(measured), budget, measured_on) if alone else (label(measured), method), [])
            row = next((known for known in alike if known.takes(measured["split"], values)), None)
            if row is None:
                alike.append(row := new)
            row.of(measured["split"]).update(values)
    return sorted((row for alike in rows.values() for row in alike), key=lambda row: row.stands_alone)


def methods_of(records: Sequence[Record]) -> list[str]:
    """What each record's run is called beside the others: its labels where they differ, else its title."""
    every = dict.fromkeys(axis for record in records for axis in record["cell"])
    axes = [axis for axis in every if len({record["cell"].get(axis) for record in records}) > 1]
    differing = [[record["cell"][axis] for axis in axes if axis in record["cell"]] for record in records]
    pairs = zip(records, differing, strict=True)
    return [", ".join(labels) or title(record["config"], record["cell"]) for record, labels in pairs]


def _differences(rows: list[Row]) -> Iterator[tuple[str, str, str]]:
    """Of the memories of two seeds or more: over each control that they share, and over the methods before."""
    memories = [row for row in rows if not row.stands_alone and is_headline(row.measurement)]
    for number, row in enumerate(memories):
        others = [other for other in rows if _is_a_rival(row, other)]
        before = [other for other in memories[:number] if _is_alike(row, other)]
        if sum(_is_alike(row, other) for other in memories) > MOST_IN_PAIRS:
            before = before[-1:]
        for other in [*others, *before]:
            difference = paired(other.test, row.test)
            if difference is not None and difference.interval is not None:
                told = "" if difference.shown else ", not told apart"
                name = label(other.measurement) if other not in memories else other.method
                words = f"{difference.mean:+.1f} ± {difference.interval:.1f}{told}"
                measured = " ".join(filter(None, (row.measurement["episodes"], row.measurement["network"])))
                where = f" ({measured})" if measured and other in memories else ""
                yield f"{row.method} over {name}{where}", words, str(difference.seeds)


def _is_a_rival(row: Row, other: Row) -> bool:
    """Whether the other is a control, or another method of the same runs, that was measured in the same way."""
    of_the_runs = other.stands_alone or (other.method == row.method and not is_headline(other.measurement))
    return _is_alike(row, other) and of_the_runs and other.measurement["method"] != FULL_DATA


def _is_alike(row: Row, other: Row) -> bool:
    """Whether both are the same quantity of the same images."""
    same = ("quantity", "network", "episodes")
    return row.measured_on == other.measured_on and all(row.measurement[k] == other.measurement[k] for k in same)


def _plus_minus(of: Estimate) -> str:
    return f"{of.mean:.1f}" + ("" if of.interval is None else f" ± {of.interval:.1f}")


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns below each other, and a rule under the first line."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [text[0], "-" * min(RULE, max(map(len, text))), *text[1:]]
