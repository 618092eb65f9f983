"""What a table costs on 1, 8 and 64 GPUs, simulated: foretold seconds of its runs, dealt longest first.

    python -m tools.table_cost --gin gin/ablation_components.gin

Seconds are foretold as by `suite.run --dry-run`, from counted operations, at the rates of a GPU that need not be here:
its rates are solved from outer steps that were measured on it (docs/measured/h100.jsonl). The runs of a table are dealt
to GPUs as `suite.sweep` does. Each takes what was foretold times a ratio that is drawn from how much longer or shorter
than the median of its cell's seeds each run of the leaderboard's records took. Docs: docs/what-a-table-costs.md.
"""

import argparse
import heapq
import json
import math
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suite.config.resolve import Run, resolve
from suite.errors import SuiteError, UsageError, report
from suite.experiments.distillation import Distillation
from suite.experiments.operations import Operations, operations
from suite.experiments.rates import Rates, at_rates
from suite.registry import load_components, parts
from suite.runtime.execute import name_of_run
from suite.types import Capturing, Counted
from suite.validation import Above, AtLeast, number_option
from tools.contenders import CLASSES, ENGINE, Case, objective, setting

CPU, GPU = torch.device("cpu"), torch.device("cuda")
"""Where operations are counted, and what is asked whether it captures; nothing is made there."""

DOCS = Path(__file__).resolve().parents[1] / "docs"
MEASURED = DOCS / "measured" / "h100.jsonl"
RECORDS = DOCS.parent / "leaderboard" / "records"

CASES = {
    "convnet-1": Case(dataset="cifar10"),
    "convnet-10": Case(dataset="cifar10", images_per_class=10),
    "mlp": Case(architecture="mlp", images_per_class=10, steps=100, real_per_class=2),
}
"""The outer steps that were measured, as `tools.gpu_check` has them. The first two give the rates, the third checks."""

SEEDS = 3
"""Of a cell whose runs are compared with their median: as many or more."""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        _print(options)
    except SuiteError as error:
        report(f"tools.table_cost: {error}")
        return error.status
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    command = argparse.ArgumentParser(prog="python -m tools.table_cost", description=(__doc__ or "").split("\n")[0])
    add, whole = command.add_argument, number_option(int, AtLeast(1))
    add("--gin", action="append", default=[], metavar="FILE", help="configuration of the table, as of suite.run")
    add("--set", action="append", default=[], metavar="BINDING", help="one gin binding")
    add("--only", action="append", default=[], metavar="CELL", help="only these cells")
    add("--gpus", type=whole, nargs="+", default=[1, 8, 64], metavar="G", help="numbers of GPUs (%(default)s)")
    add("--simulations", type=whole, default=2000, metavar="N", help="for each number of GPUs (%(default)s)")
    add("--together", type=whole, default=1, metavar="N", help="runs at once on each GPU (%(default)s)")
    positive = number_option(float, Above(0))
    add("--slower", type=positive, default=1.0, metavar="S", help="how often its own time a run takes so (%(default)g)")
    how = "standard deviation of the logarithm of each run's ratio, where it is assumed (%(default)g)"
    add("--spread", type=positive, default=0.05, metavar="S", help=how)
    return command


# ---------------------------------------------------------------- what was measured


def measured() -> dict[tuple[str, str], float]:
    """Seconds of an outer step by case and execution, the median of the repeats in float32 that were measured."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in MEASURED.read_text().splitlines()]
    return {
        (row["case"], row["execution"]): statistics.median(row["seconds"])
        for row in rows
        if row["what"] == "outer iteration" and row.get("precision") == "float32" and "seconds" in row
    }


def gpu() -> str:
    """The GPU's name."""
    return str(json.loads(MEASURED.read_text().splitlines()[0])["gpu"])


def work(case: Case) -> Operations:
    """Counted operations of a measured outer step."""
    what, total = setting(case), Operations()
    bptt = objective(case, ENGINE)
    assert isinstance(bptt, Counted)
    for passes in bptt.work(what, what.parameterization.per_class(what.shape, CLASSES, case.images_per_class)):
        total = total.plus(operations(what, passes.kind, passes.images), passes.times)
    return total


def peaks() -> Rates:
    """Seconds of a multiplication or addition, and of a byte, at the rates of one large product and one large copy."""
    rows = [json.loads(line) for line in MEASURED.read_text().splitlines()]
    flops = max(row["tflops"] for row in rows if row["what"] == "matmul" and not row["tf32"])
    copied = max(row["tb_s"] for row in rows if row["what"] == "copy")
    return Rates(convolutions=1e-12 / flops, products=1e-12 / flops, bytes=1e-12 / copied)


def solved(seconds: dict[tuple[str, str], float], execution: str) -> Rates:
    """Rates that give the two ConvNets' outer steps: seconds = calls * call + slower * seconds at the peaks.

    The two unknowns, `call` and `slower`, are solved from the two equations; of the eager form, whose kernels are the
    same, `call` alone from the first.
    """
    small, large = work(CASES["convnet-1"]), work(CASES["convnet-10"])
    at_peak = peaks()
    captured = [seconds[case, "captured"] for case in ("convnet-1", "convnet-10")]
    share = small.calls / large.calls
    slower = (captured[0] - captured[1] * share) / (at_peak.seconds(small) - at_peak.seconds(large) * share)
    call = (seconds["convnet-1", execution] - slower * at_peak.seconds(small)) / small.calls
    return Rates(call, *(slower * rate for rate in (at_peak.convolutions, at_peak.products, at_peak.bytes)))


def ratios() -> list[float]:
    """Of each run on the leaderboard of a cell with several seeds: its seconds over the median of the cell's."""
    cells: dict[str, list[float]] = defaultdict(list)
    for file in sorted(RECORDS.glob("*/*/result.json")):
        record = json.loads(file.read_text())
        cost = record["cost"]
        if "distillation_seconds" in cost:
            cell = json.dumps([record["name"], record["cell"], record["config"]], sort_keys=True)
            cells[cell].append(cost["distillation_seconds"] + cost["evaluation_seconds"])
    return sorted(
        seconds / statistics.median(runs) for runs in cells.values() if len(runs) >= SEEDS for seconds in runs
    )


# ---------------------------------------------------------------- what is foretold


@dataclass(frozen=True)
class Foretold:
    """A run of the table."""

    name: str
    """Its cell and seed."""
    seconds: float
    """With the controls that it shares with others, where it is the first of them."""


def foretold(runs: Sequence[Run], captured: Rates, eager: Rates) -> list[Foretold]:
    """Seconds of each run: outer steps as replayed graphs where its objective captures them, all else as eager calls.

    Raises UsageError for other experiments than distillation, whose outer steps are not all alike.
    """
    found, shared = [], set[tuple[int, str]]()
    for run in runs:
        experiment = run.experiment
        if not isinstance(experiment, Distillation):
            raise UsageError(f"'{run.label}' is no distillation, and nothing else is foretold here")
        with at_rates(eager):
            whole = experiment.cost(CPU)
        less = 0.0
        if any(isinstance(part, Capturing) and part.unrolls_captured(GPU) for part in parts(experiment)):
            with at_rates(captured):
                less = experiment.iterations * (whole.step - experiment.cost(CPU).step)
        first = [name for name in whole.shared if (run.seed, name) not in shared]
        shared |= {(run.seed, name) for name in first}
        seconds = whole.own - less + sum(whole.shared[name] for name in first)
        found.append(Foretold(name_of_run(run), seconds))
    return found


# ---------------------------------------------------------------- what is simulated


def makespan(seconds: Sequence[float], at_once: int) -> float:
    """Seconds until the last of these ends, where each is begun in this order as soon as there is room.

    >>> makespan([3, 3, 2, 2, 2], 2)
    7.0
    """
    free = [0.0] * at_once
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def simulated(
    seconds: Sequence[float], at_once: int, ratio: Callable[[random.Random], float], simulations: int
) -> list[float]:
    """Makespans in ascending order: each run takes its seconds times a ratio that is drawn anew."""
    chance = random.Random(0)
    return sorted(makespan([one * ratio(chance) for one in seconds], at_once) for _ in range(simulations))


def middle_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the range that 95% of sorted values are in."""
    last = len(values) - 1
    return statistics.median(values), values[round(0.025 * last)], values[round(0.975 * last)]


# ---------------------------------------------------------------- the tables


def _print(options: argparse.Namespace) -> None:
    load_components()
    runs = resolve(options.gin, options.set, None, options.only)
    seconds = measured()
    captured, eager = (solved(seconds, execution) for execution in ("captured", "eager"))
    table = foretold(runs, captured, eager)
    print(f"{gpu()}, seconds of an outer step in float32:\n\n{_checks(seconds, captured, eager)}\n")
    print(f"{_parts(runs, table)}\n")
    longest, whole = max(table, key=lambda one: one.seconds), sum(one.seconds for one in table)
    print(f"The longest run is {longest.name}; more than {math.ceil(whole / longest.seconds)} GPUs end no earlier.\n")
    drawn = ratios()
    middle, low, high = middle_and_range(drawn)
    print(
        f"Ratios of {len(drawn)} records: median {middle:.2f}, 95% of them {low:.2f} to {high:.2f}, the most "
        f"{drawn[-1]:.1f}; n = {options.simulations} simulations.\n\n{_deals(table, drawn, options)}"
    )


def _checks(seconds: dict[tuple[str, str], float], captured: Rates, eager: Rates) -> str:
    lines = [_row("case", "form", "measured", "foretold", "measured / foretold"), _row(*["---"] * 5)]
    for case, what in CASES.items():
        for form, rates in (("captured", captured), ("eager", eager)):
            there, here = seconds[case, form], rates.seconds(work(what))
            lines.append(_row(case, form, f"{there:.3g}", f"{here:.3g}", f"{there / here:.2f}"))
    return "\n".join(lines)


def _parts(runs: Sequence[Run], table: Sequence[Foretold]) -> str:
    """The runs' hours, of all and by the values of each axis."""
    groups = {"all": [one.seconds for one in table]}
    for axis in runs[0].cell:
        for run, one in zip(runs, table, strict=True):
            groups.setdefault(run.cell[axis], []).append(one.seconds)
    lines = [_row("runs", "GPU hours together", "shortest", "longest"), _row(*["---"] * 4)]
    for label, seconds in groups.items():
        together, shortest, longest = (hours(value) for value in (sum(seconds), min(seconds), max(seconds)))
        lines.append(_row(f"{label} ({len(seconds)})", together, shortest, longest))
    return "\n".join(lines)


def _deals(table: Sequence[Foretold], drawn: Sequence[float], options: argparse.Namespace) -> str:
    in_order = [one.seconds * options.slower for one in table]
    longest_first = sorted(in_order, reverse=True)
    spread = f"a spread of {options.spread:.0%}"
    heads = ("hours / GPUs", "as foretold", "in the table's order", spread, "the records' ratios", "GPUs at work")
    lines = [_row("GPUs", *heads), _row(*["---"] * 7)]
    for gpus in options.gpus:
        at_once = gpus * options.together
        share, whole = sum(in_order) / at_once, makespan(longest_first, at_once)
        ways = (lambda chance: math.exp(options.spread * chance.gauss(0, 1)), lambda chance: chance.choice(drawn))
        found = (middle_and_range(simulated(longest_first, at_once, way, options.simulations)) for way in ways)
        ranges = (f"{hours(middle)} ({hours(low)} to {hours(high)})" for middle, low, high in found)
        lines.append(
            _row(
                str(gpus),
                hours(share),
                hours(whole),
                hours(makespan(in_order, at_once)),
                *ranges,
                f"{share / whole:.0%}",
            )
        )
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def hours(seconds: float) -> str:
    """Seconds in hours.

    >>> hours(1800), hours(3.6e6)
    ('0.5', '1,000')
    """
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
