"""What `tools.bench accuracy` compares: recipes, each run by the suite and read back from records and metrics.

paper                   gin/recipe/paper.gin
fast                    gin/recipe/fast.gin
gradient-matching       gin/recipe/gradient_matching.gin
distribution-matching   gin/recipe/distribution_matching.gin
released                the gradient of the paper's released code, from a checkout of it, in the recipe of the paper
"""

import argparse
import io
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from suite import run
from suite.config.resolve import resolve
from suite.errors import Interrupted, RunError, SuiteError, UsageError, report
from suite.registry import load_components, load_plugin
from tools.reference import CHECKOUT

NAME, PILOT = "accuracy", "accuracy-pilot"
"""Folders of the runs, and of the short ones that are timed for --seconds."""

PILOT_STEPS = 10
"""Outer steps of those, the first of which a program may be captured in."""

RELEASED_CODE = (
    *("--plugin", str(Path(__file__).with_name("released.py"))),
    *("--set", "OBJECTIVE = @objectives.released_code()"),
    *("--set", "objectives.released_code.inner_steps = %INNER_STEPS"),
    *("--set", "objectives.released_code.real_per_class = %REAL_IMAGES"),
)
"""What makes the gradient of a run the released code's."""


@dataclass(frozen=True)
class Contender:
    """A way to distil: a recipe as a gin file."""

    name: str
    """On the command line and in records."""
    title: str
    """In tables."""
    recipe: str
    """The gin file, read after the scale's."""
    words: tuple[str, ...] = ()
    """Further arguments of `suite.run`."""


CONTENDERS = (
    Contender("paper", "the paper's recipe", "gin/recipe/paper.gin"),
    Contender("fast", "the fast recipe", "gin/recipe/fast.gin"),
    Contender("gradient-matching", "gradient matching", "gin/recipe/gradient_matching.gin"),
    Contender("distribution-matching", "distribution matching", "gin/recipe/distribution_matching.gin"),
    Contender("released", "the paper's released code", "gin/recipe/paper.gin", RELEASED_CODE),
)
"""All of them; the first is what the others are compared with, the last needs a checkout."""


@dataclass(frozen=True)
class Point:
    """One validation of every seed's memory."""

    step: int
    """Outer steps done."""
    seconds: float
    """That so many outer steps took: the mean over seeds."""
    values: tuple[float, ...]
    """Accuracy in percent on validation images, for each seed."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.values)


@dataclass(frozen=True)
class Result:
    """What a contender's runs with one budget measured."""

    contender: Contender
    """Whose."""
    images_per_class: float
    """The budget that was given."""
    curve: tuple[Point, ...]
    """Validations, the one before the first step among them."""
    records: tuple[dict[str, Any], ...]
    """Of its runs, by seed."""
    command: str
    """Does them again."""

    @property
    def stored_numbers(self) -> int:
        """Of one memory."""
        return int(self.records[0]["budget"]["stored_numbers"])

    @property
    def test(self) -> tuple[float, ...]:
        """Test accuracy in percent at the end, for each seed the mean over its networks."""
        return tuple(tested(record)["mean"] for record in self.records)

    @property
    def last(self) -> Point:
        """The validation after the last step."""
        return self.curve[-1]

    def reached(self, accuracy: float) -> Point | None:
        """The first validation whose mean over seeds is at or above an accuracy; None if none is."""
        return next((point for point in self.curve if point.mean >= accuracy), None)


# ---------------------------------------------------------------- runs


def result_of(contender: Contender, budget: float, options: argparse.Namespace) -> Result:
    """Do a contender's runs, or read back what is done of them."""
    words = _words(contender, budget, options)
    records = _records(contender, words, options)
    folder = options.out / NAME
    curves = [dict(_validations(next(folder.glob(f"*-{record['run_key']}")))) for record in records]
    per_step = fmean(record["cost"]["seconds_per_iteration"] for record in records)
    curve = tuple(Point(step, step * per_step, tuple(one[step] for one in curves)) for step in curves[0])
    return Result(contender, budget, curve, tuple(records), _command(contender, words))


OPTIONS = {"SEEDS": "--seeds", "VALIDATION_POINTS": "--points"}
"""What has an option of the command, and so no `--set`."""


def require_runnable(contender: Contender, budget: float, options: argparse.Namespace) -> None:
    """Raises UsageError for settings that a contender's runs would be refused for."""
    for binding in options.set:
        option = OPTIONS.get(binding.partition("=")[0].strip())
        if option:
            raise UsageError(f"--set {binding}: say it by {option}")
    words = _shared_words(contender, NAME, {"contender": contender.name}, budget, [], options)
    given = run.parser().parse_args(words)
    load_components()
    for plugin in given.plugin:
        load_plugin(plugin)
    try:
        resolve(given.gin, given.set)
    except UsageError as error:
        raise UsageError(f"{contender.title}: {error}") from error


def _words(contender: Contender, budget: float, options: argparse.Namespace) -> list[str]:
    """The arguments of `suite.run` for a contender's seeds."""
    own = [steps for name, steps in options.steps if name == contender.name]
    steps = (own or [steps for name, steps in options.steps if not name])[-1:]
    if options.seconds:
        steps = [_steps_within(contender, budget, options)]
    cell = {"contender": contender.name, "images per class": f"{budget:g} I/C"}
    bindings = [f"SEEDS = {list(range(options.seeds))}", f"VALIDATION_POINTS = {options.points}"]
    bindings += [f"ITERATIONS = {steps[0]}"] if steps else []
    return _shared_words(contender, NAME, cell, budget, bindings, options)


def _shared_words(
    contender: Contender,
    name: str,
    cell: dict[str, str],
    budget: float,
    bindings: list[str],
    options: argparse.Namespace,
) -> list[str]:
    """Arguments of `suite.run`: what is the same for all contenders, then the recipe, then what was asked for."""
    files = ["gin/shared/distillation.gin", *(options.gin or ["gin/scale/cpu.gin"]), contender.recipe]
    every = [
        f'run.name = "{name}"',
        f"run.cell = {json.dumps(cell)}",
        f"DATASET = @datasets.{options.dataset}()",
        f"ARCHITECTURE = @architectures.{options.architecture}()",
        f"IMAGES_PER_CLASS = {budget:g}",
        "CONTROLS = []",
        "FULL_DATA_EPOCHS = 0",
        *bindings,
        *options.set,
    ]
    words = [word for file in files for word in ("--gin", file)]
    words += [*contender.words, *(word for binding in every for word in ("--set", binding))]
    words += ["--device", options.device] if options.device else []
    words += ["--data-dir", options.data_dir] if options.data_dir else []
    return [*words, "--tracking-uri", "none", "--out", str(options.out)]


def _steps_within(contender: Contender, budget: float, options: argparse.Namespace) -> int:
    """The outer steps that --seconds are enough for, at the pace of a short run, which is kept and read back."""
    short = ["SEEDS = [0]", f"ITERATIONS = {PILOT_STEPS}", "VALIDATION_POINTS = 0", "NETWORKS = 1", "EPOCHS = 1"]
    words = _shared_words(contender, PILOT, {"contender": contender.name}, budget, short, options)
    (record,) = _records(contender, words, options)
    return max(options.points, int(options.seconds / record["cost"]["seconds_per_iteration"]))


def _records(contender: Contender, words: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The records of `suite.run` with these arguments. Raises Interrupted after a signal, RunError for a failed run."""
    if contender.name == "released":
        os.environ[CHECKOUT] = str(Path(options.reference).resolve())
    report(f"[accuracy] {_command(contender, words)}")
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = run.main([*words, "--json"])
    if status == Interrupted.status:
        raise Interrupted("stopped; the same command goes on where it was")
    if status:
        error: type[SuiteError] = UsageError if status == UsageError.status else RunError
        raise error(f"{contender.title}: its run failed, as the line above says; the same command tries it again")
    read = json.loads(printed.getvalue())
    return read if isinstance(read, list) else [read]


def _command(contender: Contender, words: list[str]) -> str:
    """The command of these arguments as a shell takes it, from the folder of a checkout and without places."""
    places = {i for i, word in enumerate(words) if word in ("--out", "--data-dir")}
    kept = [word for i, word in enumerate(words) if i not in places and i - 1 not in places]
    kept = ["tools/released.py" if word == RELEASED_CODE[1] else word for word in kept]
    before = f"{CHECKOUT}=CHECKOUT " if contender.name == "released" else ""
    return before + shlex.join(["python", "-m", "suite.run", *kept])


def _validations(folder: Path) -> Iterator[tuple[int, float]]:
    """Step and accuracy of every validation of a run."""
    for line in (folder / "metrics.csv").read_text().splitlines()[1:]:
        step, metric, value = line.split(",")
        if metric == "validation_accuracy":
            yield int(step), float(value)


def tested(record: dict[str, Any]) -> dict[str, Any]:
    """The measurement of the memory on test images, by networks of the run's own architecture."""
    own = [m for m in record["measurements"] if not m.get("network")]
    (measured,) = [m for m in own if (m["method"], m["split"]) == ("memory", "test")]
    return dict(measured)
