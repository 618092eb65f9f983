"""The result record: one JSON file that says what was measured, of what, how, and at what cost.

Same configuration, seed, code and machine: the same record, but for `cost`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from suite.errors import RunError
from suite.storage.files import canonical_json, sha256

if TYPE_CHECKING:  # reading records needs no torch
    import torch

    from suite.types import Measurement, Outcome
from suite.runtime.environment import environment

SCHEMA = 1

FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "experiment": str,
    "name": str,
    "cell": dict,
    "seed": int,
    "run_key": str,
    "config": dict,
    "config_text": str,
    "config_text_sha256": str,
    "figures": list,
    "budget": dict,
    "scale": dict,
    "facts": dict,
    "environment": dict,
    "cost": dict,
}
"""The keys of a record and the types of their values."""

MEASUREMENT_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "split": str,
    "values": list,
    "mean": (int, float),
    "std": (int, float, type(None)),
    "n": int,
    "over": str,
}
"""Likewise of each of its figures."""


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
    mixed: Sequence[str] = (),
    cost: dict[str, float],
) -> dict[str, Any]:
    """The record of an outcome, validated; `mixed`: what of the environment changed between the run's sittings."""
    made = {
        "schema": SCHEMA,
        "experiment": experiment,
        "name": name,
        "cell": cell,
        "seed": seed,
        "run_key": run_key,
        "config": config,
        "config_text": config_text,
        "config_text_sha256": sha256(config_text.encode()),
        "figures": [statistics(figure) for figure in outcome.figures],
        "budget": asdict(outcome.budget),
        "scale": {"label": scale_label} | outcome.scale,
        "facts": outcome.facts,
        "environment": environment(device) | {"mixed": list(mixed)},
        "cost": outcome.cost | cost,
    }
    problem = invalid(made)
    if problem:
        raise RunError(f"the result record of {name} is not valid: {problem}; this is a fault of the experiment")
    return made


def statistics(figure: "Measurement") -> dict[str, Any]:
    """A figure with its mean, sample standard deviation (None for one value) and n."""
    values = list(figure.values)
    n = len(values)
    mean = sum(values) / n
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
    return asdict(figure) | {"values": values, "mean": mean, "std": std, "n": n}


def invalid(made: Any) -> str | None:
    """What is wrong with a record, in words, or None."""
    problem = misshapen(made)
    if problem:
        return problem
    try:
        canonical_json(made)
    except ValueError:
        return "it holds NaN or infinity"
    except TypeError as error:
        return f"it holds what JSON can't ({error})"
    return None


def misshapen(made: Any) -> str | None:
    """What is wrong with a record that was read as JSON, in words, or None."""
    if not isinstance(made, dict):
        return "it is not a JSON object"
    for key, kind in FIELDS.items():
        if key not in made:
            return f"'{key}' is missing"
        if not isinstance(made[key], kind) or isinstance(made[key], bool):
            return f"'{key}' is a {type(made[key]).__name__}"
    if made["schema"] != SCHEMA:
        return f"it has schema {made['schema']}, and this version reads {SCHEMA}"
    for figure in made["figures"]:
        if not isinstance(figure, dict) or not set(MEASUREMENT_FIELDS) <= set(figure):
            return f"a figure lacks one of {', '.join(MEASUREMENT_FIELDS)}"
        for key, kind in MEASUREMENT_FIELDS.items():
            if not isinstance(figure[key], kind) or isinstance(figure[key], bool):
                return f"'{key}' of a figure is a {type(figure[key]).__name__}"
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in figure["values"]):
            return f"the values of the figure '{figure['name']}' are not a list of numbers"
        if not figure["values"] or len(figure["values"]) != figure["n"]:
            return f"the figure '{figure['name']}' has {len(figure['values'])} values and says n = {figure['n']}"
    return None


def comparable(made: dict[str, Any]) -> dict[str, Any]:
    """The record without what differs from one run to the next of the same thing: what it cost."""
    return {key: value for key, value in made.items() if key != "cost"}


def dumps(made: dict[str, Any]) -> str:
    return json.dumps(made, indent=1, sort_keys=True, allow_nan=False) + "\n"


def table(records: list[dict[str, Any]]) -> str:
    """Results for a terminal: a row for each run and figure on test images, reduced runs marked."""
    lines = [("run", "what", "test accuracy", "validation", "n", "budget", "scale")]
    for made in records:
        cell = ", ".join(made["cell"].values())
        run = f"{made['name']}{f' [{cell}]' if cell else ''} seed {made['seed']}"
        by = {(f["name"], f["split"]): f for f in made["figures"]}
        for (name, split), figure in by.items():
            if split != "test":
                continue
            watched = by.get((name, "validation"))
            scale = f"{made['scale']['label']}{' (reduced)' if made['scale']['reduced'] else ''}"
            own = name.startswith("memory") or not figure["note"]
            budget = f"{made['budget']['stored_numbers']} numbers" if own else figure["note"]
            shown = _plus_minus(figure), _plus_minus(watched) if watched else "-"
            lines.append((run, name, *shown, str(figure["n"]), budget, scale))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def _plus_minus(figure: dict[str, Any]) -> str:
    return f"{figure['mean']:.1f}" + (f" ± {figure['std']:.1f}" if figure["std"] is not None else "")
