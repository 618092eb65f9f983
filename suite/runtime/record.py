"""The result record: one JSON file that says what was measured, of what, how, and at what cost.

Same configuration, seed, code and machine: the same record, but for `cost`. `suite.runtime.record_schema` documents
its keys.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from suite.errors import RunError
from suite.runtime.environment import environment
from suite.runtime.record_schema import ACCURACY, MEMORY, SCHEMA, misshapen
from suite.storage.files import canonical_json, sha256

if TYPE_CHECKING:  # reading records needs no torch
    import torch

    from suite.types import Measurement, Outcome


def record(
    outcome: "Outcome",
    *,
    experiment: str,
    name: str,
    cell: dict[str, str],
    seed: int,
    run_key: str,
    config: dict[str, Any],
    config_text: str,
    scale_label: str,
    device: "torch.device",
    captured: bool | None = None,
    mixed: Sequence[str] = (),
    cost: dict[str, float],
) -> dict[str, Any]:
    """The record of an outcome, checked.

    `captured`: whether its unrolls were captured as CUDA graphs, None where there are none; `mixed`: what of the
    environment changed between the run's attempts.
    """
    unrolls = {} if captured is None else {"unrolls": "captured" if captured else "eager"}
    content = {
        "schema": SCHEMA,
        "experiment": experiment,
        "name": name,
        "cell": cell,
        "seed": seed,
        "run_key": run_key,
        "config": config,
        "config_text": config_text,
        "config_text_sha256": sha256(config_text.encode()),
        "measurements": [statistics(measurement) for measurement in outcome.measurements],
        "budget": asdict(outcome.budget),
        "scale": {"label": scale_label} | outcome.scale,
        "facts": outcome.facts,
        "environment": environment(device) | unrolls | {"mixed": list(mixed)},
        "cost": outcome.cost | cost,
    }
    problem = invalid(content)
    if problem:
        raise RunError(f"the result record of {name} is not valid: {problem}; this is a fault of the experiment")
    return content


def statistics(measurement: "Measurement") -> dict[str, Any]:
    """A measurement with its mean, sample standard deviation (None for one value) and n."""
    values = list(measurement.values)
    n, mean, std = _statistics(values)
    return asdict(measurement) | {"values": values, "mean": mean, "std": std, "n": n}


def _statistics(values: Sequence[float]) -> tuple[int, float, float | None]:
    n = len(values)
    mean = sum(values) / n
    return n, mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None


def label(measurement: Mapping[str, Any]) -> str:
    """A measurement's name for people, composed of its fields and never read back.

    >>> label({"method": "linear probe", "quantity": "accuracy", "network": "", "episodes": "5-way, 1 shot"})
    '5-way, 1 shot: linear probe'
    >>> label({"method": "memory", "quantity": "accuracy", "network": "alexnet", "episodes": ""})
    'memory on alexnet'
    >>> label({"method": "ER", "quantity": "RA", "network": "", "episodes": ""})
    'RA'
    """
    what = measurement["method"] if measurement["quantity"] == ACCURACY else measurement["quantity"]
    where = f" on {measurement['network']}" if measurement["network"] else ""
    return (f"{measurement['episodes']}: " if measurement["episodes"] else "") + what + where


def of_memory(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A run's measurements of its memory's accuracy on the run's own network, one for each split."""
    wanted = {"method": MEMORY, "quantity": ACCURACY, "network": "", "episodes": ""}
    return [measured for measured in record["measurements"] if wanted.items() <= measured.items()]


def headline(record: Mapping[str, Any], split: str = "test") -> float | None:
    """What a run is judged by, in percent on a split: its memory's accuracy, of a stream that after all tasks."""
    for measured in record["measurements"]:
        if measured["split"] == split and is_headline(measured):
            return float(measured["mean"])
    return None


def is_headline(measurement: Mapping[str, Any]) -> bool:
    """Whether methods are judged by a measurement."""
    return measurement["quantity"] == "RA" or (measurement["method"], measurement["quantity"]) == (MEMORY, ACCURACY)


def invalid(record: Any) -> str | None:
    """What is wrong with a record of either schema, in words, or None."""
    try:
        return misshapen(json.loads(canonical_json(record)))
    except ValueError:
        return "it holds NaN or infinity"
    except TypeError as error:
        return f"it holds what JSON can't ({error})"


def altered(record: Mapping[str, Any]) -> str | None:
    """What in a record does not follow from the rest of it, in words, or None: statistics, and the text's hash."""
    for measured in record["measurements"]:
        n, mean, std = _statistics(measured["values"])
        near = math.isclose(measured["mean"], mean, rel_tol=1e-9, abs_tol=1e-9) and measured["n"] == n
        # Python sums floats otherwise from 3.12 on, so a deviation of equal values may be 0 or 1e-15.
        spread = measured["std"]
        if spread is None or std is None:
            same = spread is std
        else:
            same = math.isclose(spread, std, rel_tol=1e-9, abs_tol=1e-9)
        if not (near and same):
            return f"mean, std and n of '{label(measured)}' are not those of its values"
    if sha256(record["config_text"].encode()) != record["config_text_sha256"]:
        return "config_text is not the text that config_text_sha256 is of"
    return None


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what differs from one run to the next of the same thing: what it cost."""
    return {key: value for key, value in record.items() if key != "cost"}


def dumps(record: dict[str, Any]) -> str:
    """The text of its file; ValueError for NaN or infinity."""
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"


def table(records: list[dict[str, Any]]) -> str:
    """Results for a terminal: a row for each run and measurement on test images, reduced runs marked."""
    lines = [("run", "what", "test accuracy", "validation", "n", "budget", "scale")]
    for record in records:
        cell = ", ".join(record["cell"].values())
        run = f"{record['name']}{f' [{cell}]' if cell else ''} seed {record['seed']}"
        scale = f"{record['scale']['label']}{' (reduced)' if record['scale']['reduced'] else ''}"
        validation = {label(m): m for m in record["measurements"] if m["split"] == "validation"}
        for measurement in record["measurements"]:
            if measurement["split"] != "test":
                continue
            what = label(measurement)
            stores = measurement["method"] == MEMORY or not measurement["note"]
            budget = f"{record['budget']['stored_numbers']} numbers" if stores else measurement["note"]
            validated = _plus_minus(validation[what]) if what in validation else "-"
            lines.append((run, what, _plus_minus(measurement), validated, str(measurement["n"]), budget, scale))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def _plus_minus(measurement: dict[str, Any]) -> str:
    spread = f" ± {measurement['std']:.1f}" if measurement["std"] is not None else ""
    return f"{measurement['mean']:.1f}{spread}"
