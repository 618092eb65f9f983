"""One set judged by several protocols: what of its accuracy is the images, and what labels, rate and augmentation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.runtime.record_schema import ACCURACY, FULL_DATA, MEMORY
from suite.runtime.record_statistics import Estimate, estimate, paired

HEAD = ("protocol", "", "the set", "random real images", "difference")
"""Of the columns."""

RANDOM, HARD, SOFT = "random real images", "dd_ranking", "dd_ranking_soft"
"""The control that DD-Ranking's scores are made with, and its protocols."""

PROBED = {"membership": "area under the ROC curve"}
"""Words for probes under which no accuracy is measured."""

Record = Mapping[str, Any]
"""A result record of `suite.evaluate`, whose cell names the protocol, and what the set was judged without."""

BySeed = dict[int, list[float]]
"""By seed, the accuracy of each network on test images in percent."""


@dataclass(frozen=True)
class Scores:
    """DD-Ranking's scores (doc/metrics/); accuracies in them are parts of one, where its code has percent.

    HLR = full data - the set, by classes alone; IOR = the set - random real images, by any labels. With
    s(a) = (e^a - 1/e) / (e - 1/e): LRS = s((IOR - HLR) / 2), and ARS = s of the mean of IOR with augmentation and
    without. Each in percent; None where a measurement is missing.
    """

    hlr: float | None
    """Hard label recovery, in points."""
    ior: float | None
    """Improvement over random, in points."""
    lrs: float | None
    """Label robust score."""
    ars: float | None
    """Augmentation robust score."""
    labels: str
    """Of which labels IOR is, as DD-Ranking has a class of scores for each: 'soft' (a teacher's) or 'hard'."""


def matrix_of(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """The head and a row for each protocol, whole and without a part, and for each probe of its networks.

    Intervals are of 95%, over seeds, else networks.
    """
    rows: list[tuple[str, ...]] = [HEAD]
    for (protocol, without), of_row in _by_row(records).items():
        for probe in dict.fromkeys(m["episodes"] for r in of_row for m in r["measurements"]):
            own, chance = (_values(of_row, method, probe) for method in (MEMORY, RANDOM))
            difference = paired(chance, own) if own and chance else None
            shown = "" if difference is None else _signed(difference.mean, difference.interval)
            under = PROBED.get(probe, f"under {probe}" if probe else "")
            what = ", ".join(filter(None, [f"without {without}" if without else "", under]))
            rows.append((protocol, what, *(_shown(estimate(v)) if v else "-" for v in (own, chance)), shown))
    return rows


def scores_of(records: Sequence[Record]) -> Scores:
    """DD-Ranking's scores, as far as its protocols are among the records."""
    rows = _by_row(records)
    hard = rows.get((HARD, ""), [])
    any_labels = SOFT if (SOFT, "") in rows else HARD
    recovery = _apart(_values(hard, FULL_DATA), _values(hard, MEMORY))
    improvement, plain = (
        _apart(_values(of_row, MEMORY), _values(of_row, RANDOM))
        for of_row in (rows.get((any_labels, without), []) for without in ("", "augmentation"))
    )
    return Scores(
        recovery,
        improvement,
        None if recovery is None or improvement is None else _squashed((improvement - recovery) / 2),
        None if improvement is None or plain is None else _squashed((improvement + plain) / 2),
        "soft" if any_labels == SOFT else "hard",
    )


def _squashed(points: float) -> float:
    """Percent: (e^a - 1/e) / (e - 1/e), which is 0 at a = -1 and 1 at a = 1, for a in points."""
    return 100 * (math.exp(points / 100) - math.exp(-1)) / (math.e - math.exp(-1))


def _by_row(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    rows: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        cell = record["cell"]
        others = [label for axis, label in cell.items() if axis not in ("set", "protocol", "without")]
        name = ", ".join([cell.get("protocol", ""), *others])
        rows.setdefault((name, cell.get("without", "")), []).append(record)
    return rows


def _values(records: Sequence[Record], method: str, probe: str = "") -> BySeed:
    """By seed, what networks of the set's own architecture have on test images, as they are or under a probe."""
    wanted = {"method": method, "quantity": ACCURACY, "network": "", "episodes": probe, "split": "test"}
    found = ((r["seed"], m["values"]) for r in records for m in r["measurements"] if wanted.items() <= m.items())
    return dict(found)


def _apart(first: BySeed, second: BySeed) -> float | None:
    """The difference of two means, in points."""
    return estimate(first).mean - estimate(second).mean if first and second else None


def _shown(one: Estimate) -> str:
    return f"{one.mean:.1f}" if one.interval is None else f"{one.mean:.1f} ± {one.interval:.1f}"


def _signed(mean: float, interval: float | None) -> str:
    return f"{mean:+.1f}" if interval is None else f"{mean:+.1f} ± {interval:.1f}"
