"""What a command will take on this machine, estimated before it starts: time, memory, and a scale that fits."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suite.config.resolve import Run, resolve
from suite.core.foretold import BYTES, CPU, fresh_memory, network_numbers, require_room
from suite.errors import SuiteError, UsageError, one_line
from suite.registry import name_of, parts
from suite.runtime.durations import duration
from suite.types import EXPECTED_MIB, Architecture, Cost, DatasetInfo, Parameterization, Priced, StreamInfo

LONG, FITS = 2 * 86400.0, 86400.0
"""Seconds: what is longer gets advice, which names the largest scale that is shorter."""

SCALES = ("smoke", "cpu", "short")
"""Files of `gin/scale/` below the paper's, from small to large."""


@dataclass(frozen=True)
class Estimate:
    """What the runs of a command will take."""

    costs: list[Cost | None]
    """Of each run; None where its experiment has no estimate."""
    seconds: float | None
    """Of all runs one after the other; None where no experiment has an estimate."""
    advice: str | None
    """A sentence that names a smaller scale, where the whole takes too long."""


def estimate(
    runs: list[Run], files: list[str], bindings: list[str], seed: int | None, only: list[str], device: torch.device
) -> Estimate:
    """Of runs that were resolved from these files, bindings, seed and cells."""
    run_costs = costs(runs, device)
    seconds = total(runs, run_costs, device)
    hint = advice(seconds, files, bindings, seed, only, device) if seconds is not None else None
    return Estimate(run_costs, seconds, hint)


def costs(runs: Iterable[Run], device: torch.device) -> list[Cost | None]:
    """Of each run; None where its experiment has no estimate."""
    experiments = (run.experiment for run in runs)
    return [experiment.cost(device) if isinstance(experiment, Priced) else None for experiment in experiments]


def total(runs: list[Run], run_costs: list[Cost | None], device: torch.device) -> float | None:
    """Seconds of all runs one after the other, shared work once, a choice's runs too; None if none has an estimate."""
    chosen = _chosen(runs)
    pairs = zip([*runs, *chosen], [*run_costs, *costs(chosen, device)], strict=True)
    priced = [(run, cost) for run, cost in pairs if cost is not None]
    if not any(cost is not None for cost in run_costs):
        return None
    shared = {(run.seed, name): seconds for run, cost in priced for name, seconds in cost.shared.items()}
    return sum(cost.own for _, cost in priced) + sum(shared.values())


def _chosen(runs: list[Run]) -> list[Run]:
    """For each choice and seed one run that may be the chosen one."""
    groups: dict[tuple[str, ...], Run] = {}
    for run in runs:
        if run.then is not None:
            others = (label for axis, label in run.cell.items() if axis != run.choose)
            groups[(*others, str(run.seed))] = run.then
    return list(groups.values())


def advice(
    seconds: float, files: list[str], bindings: list[str], seed: int | None, only: list[str], device: torch.device
) -> str | None:
    """For work that takes too long here: a sentence that says so and names the largest scale that does not."""
    if seconds <= LONG:
        return None
    sentence = f"this would take {duration(seconds)} on this machine ({where(device)})"
    fitting = None
    for scale in SCALES:
        file = f"gin/scale/{scale}.gin"
        if file in [str(Path(name)) for name in files]:
            continue
        try:
            runs = resolve([*files, file], bindings, seed, only)
        except UsageError:
            continue  # the scale binds what an axis varies
        shorter = total(runs, costs(runs, device), device)
        if shorter is None or shorter > FITS:
            break
        fitting = f"with --gin {file} it takes {duration(shorter)}"
    if fitting is not None:
        return f"{sentence}; {fitting}"
    return f"{sentence}, and no smaller scale fits a day; pick cells with --only, or use a GPU"


# ------------------------------------------------------------ memory

GENEROUS = 4
"""An unroll is refused from so many times the memory: it is foretold with room, and often for a larger machine."""

Plans = list[dict[str, Any]]
"""What each run does, by name."""


def plans(runs: Iterable[Run], device: torch.device) -> Plans:
    """The plan of each run, where all of them have room on the device. Raises UsageError, before anything is made."""
    return [_plan(run, device) for run in runs]


def _plan(run: Run, device: torch.device) -> dict[str, Any]:
    try:
        _require_room(run.experiment, device)
        plan = run.experiment.plan()
        unroll = plan.get(EXPECTED_MIB, 0) * 2**20 / BYTES
        require_room(f"a {GENEROUS}th of one unroll", unroll / GENEROUS, device)
    except SuiteError as error:
        where = f"'{run.label}': " if run.cell else ""
        raise UsageError(f"{where}{error}") from error
    except (Exception, SystemExit) as error:  # of sizes that can't be counted, and of methods from outside
        sizes = isinstance(error, (MemoryError, OverflowError)) or "alloc" in str(error)
        mend = "lower its sizes" if sizes else "mend the method that raises it"
        raise UsageError(f"'{run.label}' can't be planned ({one_line(error)[:200]}); {mend}") from error
    return plan


def _require_room(experiment: Any, device: torch.device) -> None:
    """Refuse networks, a memory or recalled images that the device could not hold, from their sizes alone."""
    source = getattr(experiment, "dataset", None) or getattr(experiment, "stream", None)
    info = getattr(source, "info", None)
    if isinstance(info, DatasetInfo):
        shape, classes, of_memory = info.shape, info.classes, info.classes
        images = info.train_size + info.test_size
        require_room(f"{images:,} images of {shape}, preprocessed, of {info.name}", images * shape.numel, CPU)
        if str(getattr(source, "preprocessing", "")).startswith("zca"):
            require_room(f"a whitening matrix for images of {shape}", 2 * shape.numel**2, CPU)  # in float64
    elif isinstance(info, StreamInfo):
        shape, classes, of_memory = info.shape, info.outputs, info.classes_per_task
    else:
        return  # an experiment of another kind, whose plan says what it takes
    for part in parts(experiment):
        if isinstance(part, Architecture):
            require_room(f"a network '{name_of(part)}'", network_numbers(part, shape, classes), device)
    parameterization = getattr(experiment, "parameterization", None)
    budget = getattr(experiment, "images_per_class", None)
    if isinstance(parameterization, Parameterization) and isinstance(budget, (int, float)):
        memory = fresh_memory(parameterization, shape, of_memory, budget)
        stored = sum(tensor.numel() for tensor in memory.values())
        recalled = of_memory * parameterization.per_class(shape, of_memory, budget)
        words = f"of {budget:.6g} images per class"
        require_room(f"a memory {words}", stored, device)
        require_room(f"recalling {recalled:,} images from a memory {words}", recalled * shape.numel, device)


# ------------------------------------------------------------ in units that people read


def where(device: torch.device) -> str:
    """The name of a GPU, or a CPU's number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"


def size_words(mib: float) -> str:
    """MiB, or GiB from one on.

    >>> size_words(112), size_words(1382)
    ('112 MiB', '1.35 GiB')
    """
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.3g} GiB"


def readable(value: object) -> str:
    """A value of a plan, with a comma between the thousands of every number of five digits and more.

    >>> readable(122880000), readable("50000 (100% of the paper's)"), readable(2000)
    ('122,880,000', "50,000 (100% of the paper's)", '2000')
    """
    return re.sub(r"(?<![\w.])\d{5,}(?![\w.])", lambda digits: f"{int(digits[0]):,}", str(value))
