"""Records as runs leave them, made up for tests of the leaderboard."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from leaderboard import build, published, records
from leaderboard.tables import Table, tables
from suite.runtime.record_schema import SCHEMA, misshapen
from suite.runtime.record_statistics import stdev
from suite.storage.files import json_sha256, sha256

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)
"""A PNG file of one pixel."""


def measurement(
    method: str, split: str, values: list[float], over: str = "evaluation networks", **fields: str
) -> dict[str, Any]:
    """A measurement of a record; `fields`: quantity, network, episodes and note, where they are not the usual."""
    usual = {"quantity": "accuracy", "network": "", "episodes": "", "note": ""}
    assert fields.keys() <= usual.keys()
    spread = stdev(values) if len(values) > 1 else None
    statistics = {"values": values, "mean": sum(values) / len(values), "std": spread, "n": len(values)}
    return {"method": method, "split": split, "over": over} | usual | fields | statistics


def record(
    method: str = "full",
    seed: int = 0,
    test: tuple[float, ...] = (80.0, 82.0),
    *,
    name: str = "ablation_components",
    axis: str = "method",
    dataset: str = "fashion_mnist",
    budget: float = 1,
    reduced: bool = True,
    cell: dict[str, str] | None = None,
    measurements: list[dict[str, Any]] | None = None,
    **config: Any,
) -> dict[str, Any]:
    """A valid record; what is not given is the same for all."""
    settings = {"is": "distillation", "images_per_class": budget, "iterations": 200 if reduced else 50_000}
    settings |= {
        "dataset": {"is": dataset},
        "objective": {"is": "bptt", "inner_steps": 20},
        "parameterization": {"is": method},
    } | config
    text = f"# {method}\nSEEDS = [{seed}]\n"
    iterations = settings["iterations"]
    measured = measurements or [
        measurement("memory", "test", list(test)),
        measurement("memory", "validation", [v + 1 for v in test]),
        measurement(
            "random real images", "test", [50.0, 52.0], "evaluation networks, each with its own draw of images"
        ),
        measurement("full data", "test", [90.0]),
    ]
    return {
        "schema": SCHEMA,
        "experiment": "distillation",
        "name": name,
        "cell": cell if cell is not None else {"data set": dataset, axis: method},
        "seed": seed,
        "run_key": json_sha256([json_sha256(settings), seed])[:16],
        "config": settings,
        "config_text": text,
        "config_text_sha256": sha256(text.encode()),
        "measurements": measured,
        "budget": {"stored_numbers": 7840, "images_per_class": float(budget), "recalled_per_class": 4},
        "scale": {
            "label": "cpu" if reduced else "paper", "reduced": reduced, "iterations": iterations,
            "paper_iterations": 50_000, "reduced_by": ["200 of 50000 iterations"] if reduced else [],
        },
        "facts": {"dataset": dataset, "memory_sha256": "1" * 64},
        "environment": {
            "device": "cpu", "processor": "A Processor", "threads": 1, "code": {"commit": "a" * 40, "changed": False},
        },
        "cost": {"seconds_per_iteration": 0.5, "process_peak_memory_mib": 1000.0},
    }  # fmt: skip


def sealed(made: dict[str, Any]) -> dict[str, Any]:
    """The record with the hashes of what it holds, as if a run had written it so."""
    made["experiment"] = made["config"]["is"]
    made["run_key"] = json_sha256([json_sha256(made["config"]), made["seed"]])[:16]
    made["config_text_sha256"] = sha256(made["config_text"].encode())
    return made


def changed(made: dict[str, Any], *path: Any, to: Any = None) -> dict[str, Any]:
    """A copy with one value replaced, or removed where `to` is None; its hashes stay what they were."""
    made = copy.deepcopy(made)
    at: Any = made
    for step in path[:-1]:
        at = at[step]
    if to is None:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return made


def put(place: Path, made: dict[str, Any], folder: str | None = None, pictures: bool = False) -> Path:
    """A run's folder, as suite.run leaves it."""
    run = place / made["name"].replace("/", "-") / (folder or f"{made['seed']}-{made['run_key']}")
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps(made))
    (run / "operative.gin").write_text("# every default\n")
    losses = "".join(f"{i},loss,{2 - i / 200}\n" for i in range(200))
    (run / "metrics.csv").write_text(f"iteration,metric,value\n{losses}200,validation_accuracy,60\n")
    if pictures:
        (run / "figures").mkdir()
        (run / "figures" / "recalled.png").write_bytes(PIXEL)
    return run


GOOD = record()
"""A record that nothing is wrong with."""


# ---------------------------------------------------------------- what is built of them


def built(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """The command's status and what it said on stderr."""
    status = build.main([str(word) for word in words])
    return status, capsys.readouterr().err


def contents(site: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(site)): p.read_bytes() for p in sorted(site.rglob("*")) if p.is_file()}


def table_of(made: list[dict[str, Any]], slug: str = "components", printed: bool = False) -> Table:
    """The table of a page, of these records and, if `printed`, of the published numbers."""
    entries = [records.Entry(sealed(one), "here") for one in made]
    assert [misshapen(one) or records.unfit(one) for one in made] == [None] * len(made)
    (found,) = [t for t in tables(entries, published.published() if printed else []) if t.page.slug == slug]
    return found
