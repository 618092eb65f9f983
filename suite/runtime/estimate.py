"""What a command will cost on this machine, before it starts: every run's time, the whole's, and a scale that fits."""

from collections.abc import Iterable
from pathlib import Path

import torch

from suite.config.resolve import Run, resolve
from suite.errors import UsageError
from suite.runtime.durations import duration
from suite.types import Cost

LONG, FITS = 2 * 86400.0, 86400.0
"""Seconds: what is longer gets advice, which names the largest scale that is shorter."""

SCALES = ("short", "cpu", "smoke")
"""Files of `gin/scale/` below the paper's, from large to small."""


def costs(runs: Iterable[Run], device: torch.device) -> list[Cost | None]:
    """Of each run; None where its experiment can't tell."""
    found = []
    for run in runs:
        tell = getattr(run.experiment, "cost", None)
        found.append(tell(device) if tell is not None else None)
    return found


def total(runs: list[Run], found: list[Cost | None], device: torch.device) -> float | None:
    """Seconds of all runs one after the other, shared work once, a choice's runs too; None if none can tell."""
    told = [(run, cost) for run, cost in zip(runs, found, strict=True) if cost is not None]
    if not told:
        return None
    last = _added(runs)
    told += [(run, cost) for run, cost in zip(last, costs(last, device), strict=True) if cost is not None]
    shared = {(run.seed, name): seconds for run, cost in told for name, seconds in cost.shared.items()}
    return sum(cost.own for _, cost in told) + sum(shared.values())


def _added(runs: list[Run]) -> list[Run]:
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
    said = f"this would take {duration(seconds)} on this machine ({where(device)})"
    for scale in SCALES:
        file = f"gin/scale/{scale}.gin"
        if file in [str(Path(one)) for one in files]:
            continue
        try:
            runs = resolve([*files, file], bindings, seed, only)
        except UsageError:
            continue  # the scale binds what an axis varies
        smaller = total(runs, costs(runs, device), device)
        if smaller is not None and smaller <= FITS:
            return f"{said}; with --gin {file} it takes {duration(smaller)}"
    return f"{said}, and no smaller scale fits a day; pick cells with --only, or use a GPU"


def where(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"
