"""Recipes and objectives side by side: accuracy against outer steps, seconds and stored numbers, over seeds.

    python -m tools.bench accuracy [--dataset NAME] [--gin SCALE] [--steps N ...] [--seeds N] [--target X] ...

Every contender (`tools.recipes`) is run by `python -m suite.run` on the same data, budget, network, evaluation and
seeds, and all figures are read back from records and metrics. So a command that was stopped goes on where it was, and
one that is given again reads what is there. Accuracy along the way is on validation images, which were held out; test
images are opened once, at a run's end.
"""

import argparse
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from leaderboard.speedrun import TARGETS
from suite.errors import UsageError, report
from suite.runtime.record_statistics import stdev
from suite.storage.files import make_directory, user_path, write_atomic
from suite.validation import Above, AtLeast, number_option
from tools.recipes import CONTENDERS, Contender, Point, Result, require_runnable, result_of, tested
from tools.reference import require_checkout

COUNT = number_option(int, AtLeast(1))
"""Of steps, seeds or points."""

STYLES = ("-", "--", ":", "-.")
"""Of lines, by budget."""


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of `tools.bench accuracy`."""
    add = command.add_argument
    add("--dataset", choices=TARGETS, default="digits", help="(default: %(default)s)")
    add("--architecture", default="convnet", metavar="NAME", help="a registered network (default: %(default)s)")
    add("--gin", action="append", default=[], metavar="FILE", help="the scale (default: gin/scale/cpu.gin)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="BINDING",
        help="a gin binding that all contenders use; it wins",
    )
    add(
        "--images-per-class",
        type=number_option(float, Above(0)),
        nargs="+",
        default=[1.0],
        metavar="N",
        help="budgets (default: 1)",
    )
    add("--steps", type=_steps, nargs="+", default=[], metavar="N", help="outer steps, as 200 or as fast=200")
    add(
        "--seconds",
        type=number_option(float, Above(0)),
        metavar="S",
        help="instead: the steps that S seconds of outer steps are enough for",
    )
    add("--points", type=COUNT, default=10, help="validations along the way (default: %(default)s)")
    add("--seeds", type=COUNT, default=3, metavar="N", help="memories of each (default: %(default)s)")
    add(
        "--target",
        type=number_option(float, AtLeast(0)),
        action="append",
        default=[],
        metavar="X",
        help="accuracies to reach, in percent",
    )
    add("--only", action="append", default=[], metavar="NAME", help=f"of {', '.join(c.name for c in CONTENDERS)}")
    add(
        "--reference",
        metavar="CHECKOUT",
        help="a checkout of the paper's released code: its gradient in the suite's outer loop with the paper's "
        "settings; free images only, and every inner step trains on all of them",
    )
    add("--device", metavar="D", help="cpu or cuda (default: a GPU if there is one)")
    add("--data-dir", metavar="DIR", help="where data sets are kept")
    add("--out", type=Path, default=Path("runs"), metavar="DIR", help="of runs and tables (default: %(default)s)")
    add("--json", action="store_true", help="print JSON in place of the table")


def _steps(word: str) -> tuple[str, int]:
    """Of which contender ('' for all), and how many."""
    name, _, number = word.rpartition("=")
    if name not in ("", *(contender.name for contender in CONTENDERS)):
        raise argparse.ArgumentTypeError(f"there is no contender '{name}'")
    return name, COUNT(number)


def accuracy_command(options: argparse.Namespace) -> None:
    """Do or read back all runs; print a table or JSON, and leave both and a picture in the output directory.

    Raises UsageError, before any run, for what one of them would be refused for.
    """
    if options.steps and options.seconds:
        raise UsageError("--steps or --seconds: one of them decides how long a contender runs")
    options.out = user_path(str(options.out), "--out")
    chosen = _chosen(options)
    for budget in options.images_per_class:
        for contender in chosen:
            require_runnable(contender, budget, options)
    results = [result_of(contender, budget, options) for budget in options.images_per_class for contender in chosen]
    made = described(results, options)
    place = make_directory(options.out) / f"accuracy-{options.dataset}"
    write_atomic(place.with_suffix(".json"), (json.dumps(made, indent=1) + "\n").encode())
    write_atomic(place.with_suffix(".md"), (table(made) + "\n").encode())
    write_atomic(place.with_suffix(".png"), picture(results, made["targets"]))
    print(json.dumps(made, indent=1) if options.json else table(made))
    report(f"[accuracy] {place}.json, .md and .png")


def _chosen(options: argparse.Namespace) -> list[Contender]:
    """The contenders that were asked for. Raises UsageError for a name that there is not, or without a checkout."""
    known = {contender.name: contender for contender in CONTENDERS if contender.name != "released" or options.reference}
    wrong = [name for name in options.only if name not in known]
    if wrong:
        hint = "it needs --reference CHECKOUT" if wrong[0] == "released" else f"there are {', '.join(known)}"
        raise UsageError(f"--only {wrong[0]}: {hint}")
    chosen = [contender for name, contender in known.items() if not options.only or name in options.only]
    if any(contender.name == "released" for contender in chosen):
        require_checkout(Path(options.reference))
    return chosen


# ---------------------------------------------------------------- what is printed


def described(results: list[Result], options: argparse.Namespace) -> dict[str, Any]:
    """All that was measured, as JSON: settings, machine, a row for each contender and budget, and what they need."""
    targets = sorted(options.target or TARGETS[options.dataset])
    first = results[0].records[0]
    return {
        "dataset": options.dataset,
        "architecture": first["config"]["architecture"],
        "scale": first["scale"]["label"],
        "evaluation": first["scale"]["protocol"],
        "seeds": len(results[0].records),
        "validation_images": first["facts"]["images"]["validation"],
        "validation_networks": first["config"]["validation_networks"],
        "networks": tested(first)["n"],
        "targets": targets,
        "machines": _distinct(record["environment"] for result in results for record in result.records),
        "rows": [_row(result, targets) for result in results],
        "comparisons": list(_comparisons(results)),
    }


def _row(result: Result, targets: list[float]) -> dict[str, Any]:
    curve = [{"step": p.step, "seconds": p.seconds, "mean": p.mean, "values": p.values} for p in result.curve]
    return {
        "contender": result.contender.title,
        "images_per_class": result.images_per_class,
        "stored_numbers": result.stored_numbers,
        "steps": result.last.step,
        "seconds": result.last.seconds,
        "curve": curve,
        "test": {"mean": fmean(result.test), "sd": _sd(result.test), "values": result.test},
        "reached": {f"{target:g}": _place(result.reached(target)) for target in targets},
        "reduced_by": result.records[0]["scale"].get("reduced_by", []),
        "command": result.command,
    }


def _place(point: Point | None) -> dict[str, float] | None:
    return {"step": point.step, "seconds": point.seconds} if point is not None else None


def _comparisons(results: list[Result]) -> Iterator[dict[str, Any]]:
    """For each budget, when the others have the accuracy that the paper's recipe has at its last step."""
    for paper in (result for result in results if result.contender.name == "paper"):
        for other in results:
            if other is paper or other.images_per_class != paper.images_per_class:
                continue
            point = other.reached(paper.last.mean)
            yield {
                "contender": other.contender.title,
                "images_per_class": paper.images_per_class,
                "accuracy": paper.last.mean,
                "of_steps": paper.last.step,
                "reached": _place(point),
                "fraction_of_steps": point.step / paper.last.step if point is not None else None,
                "fraction_of_seconds": point.seconds / paper.last.seconds if point is not None else None,
                "best": max(p.mean for p in other.curve),
                "steps": other.last.step,
            }


def _distinct(environments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each machine once."""
    return [json.loads(text) for text in dict.fromkeys(json.dumps(one, sort_keys=True) for one in environments)]


def _sd(values: tuple[float, ...]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def table(made: dict[str, Any]) -> str:
    """What was measured, in Markdown: on what, the table, and each comparison as a sentence."""
    reach = [f"steps (s) to {target:g}%" for target in made["targets"]]
    titles = ["contender", "I/C", "stored numbers", "outer steps", "their seconds", "validation", "test ± sd", *reach]
    lines = [*_about(made), "", "| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    for row in made["rows"]:
        test, places = row["test"], [row["reached"][f"{target:g}"] for target in made["targets"]]
        cells = [
            row["contender"],
            f"{row['images_per_class']:g}",
            f"{row['stored_numbers']:,}",
            f"{row['steps']:,}",
            f"{row['seconds']:.1f}",
            f"{row['curve'][-1]['mean']:.1f}",
            f"{test['mean']:.1f}" + (f" ± {test['sd']:.1f}" if test["sd"] is not None else ""),
            *(f"{place['step']:,} ({place['seconds']:.1f})" if place else "–" for place in places),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    sentences = [_sentence(comparison) for comparison in made["comparisons"]]
    return "\n".join([*lines, "", *sentences]) if sentences else "\n".join(lines)


def _about(made: dict[str, Any]) -> list[str]:
    """Data, network, seeds, machine, and what was less than in the paper."""
    machines = "; ".join(
        f"{one['processor'] if one['device'] == 'cpu' else one['device']}, {one['threads']} threads, "
        f"torch {one['packages']['torch']}"
        for one in made["machines"]
    )
    n = made["seeds"]
    lines = [
        f"{made['dataset']}, {made['architecture']['is']}, scale {made['scale']}, n = {n} seed{'s' if n > 1 else ''}. "
        f"Machine: {machines}.",
        f"Validation: the mean over seeds on {made['validation_images']} held-out images, "
        f"{made['validation_networks']} network each; steps to an accuracy are to its first validation that has it. "
        f"Test: the mean over seeds of {made['networks']} networks each, once at the end. Seconds are those of outer "
        "steps, without any evaluation.",
    ]
    reduced = [
        f"Reduced, {row['contender']}: {'; '.join(row['reduced_by'])}." for row in made["rows"] if row["reduced_by"]
    ]
    return lines + list(dict.fromkeys(reduced))


def _sentence(of: dict[str, Any]) -> str:
    """'At 1 I/C, the fast recipe reaches the 70.1% which the paper's recipe has at its last step (200) after …'."""
    had = f"the {of['accuracy']:.1f}% which the paper's recipe has at its last step ({of['of_steps']:,})"
    where = f"At {of['images_per_class']:g} I/C, {of['contender']}"
    if of["reached"] is None:
        return f"{where} does not reach {had} in {of['steps']:,} steps; its best is {of['best']:.1f}%."
    return (
        f"{where} reaches {had} after {of['reached']['step']:,} steps: {of['fraction_of_steps']:.3g} of its steps, "
        f"{of['fraction_of_seconds']:.3g} of its seconds."
    )


# ---------------------------------------------------------------- the picture


def picture(results: list[Result], targets: list[float]) -> bytes:
    """A PNG file: validation accuracy against steps and seconds, test accuracy against stored numbers; bars are sds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = dict(zip(("step", "seconds", "stored numbers"), figure.subplots(1, 3, sharey=True), strict=True))
    budgets = list(dict.fromkeys(result.images_per_class for result in results))
    for colour, title in enumerate(dict.fromkeys(result.contender.title for result in results)):
        own = [result for result in results if result.contender.title == title]
        look: dict[str, Any] = {"color": f"C{colour}", "marker": ".", "capsize": 2}
        for result in own:
            means, bars = [p.mean for p in result.curve], [_sd(p.values) or 0.0 for p in result.curve]
            label = title + (f", {result.images_per_class:g} I/C" if len(budgets) > 1 else "")
            line = look | {"label": label, "linestyle": STYLES[budgets.index(result.images_per_class) % len(STYLES)]}
            for along in ("step", "seconds"):
                panels[along].errorbar([getattr(p, along) for p in result.curve], means, bars, **line)
        bars = [_sd(result.test) or 0.0 for result in own]
        stored = [result.stored_numbers for result in own]
        panels["stored numbers"].errorbar(stored, [fmean(result.test) for result in own], bars, **look)
    _finish(panels, results, targets)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _finish(panels: dict[str, Any], results: list[Result], targets: list[float]) -> None:
    """Labels, legend, and a line for each target that is not far above all."""
    highest = max(max(p.mean for p in result.curve) for result in results)
    for along, axes in panels.items():
        for target in (target for target in targets if target <= highest + 5):
            axes.axhline(target, color="grey", linewidth=0.6, linestyle=":")
        axes.set_xlabel({"step": "outer steps", "seconds": "seconds of outer steps"}.get(along, along))
        axes.grid(alpha=0.3)
    panels["step"].set_ylabel("validation accuracy (%)")
    panels["stored numbers"].set_title("test accuracy at the end (%)", fontsize=10)
    panels["step"].legend(fontsize=8)
