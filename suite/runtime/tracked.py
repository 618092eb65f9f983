"""What a tracker is told of runs and tables beside their curves: names, tags, settings, final numbers, descriptions."""

import getpass
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

from suite.config.resolve import Run
from suite.registry import describe
from suite.runtime.record import label
from suite.runtime.record_statistics import estimate
from suite.runtime.summary import markdown, methods_of, rows_of
from suite.runtime.title import called, title
from suite.storage.files import json_sha256
from suite.storage.journal import Journal, Point, now
from suite.tracking.store import flat

PICTURE = "recalled.png"
"""What a run's description shows."""

LONGEST_DESCRIPTION = 7000
"""Characters of a description; MLflow takes 8000, with its pictures."""

Record = Mapping[str, Any]
"""A result record."""

# ---------------------------------------------------------------- at the beginning


def begin_run(run: Run, journal: Journal, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Write what a run is, unless an earlier attempt did."""
    tags = {"suite.run_key": run.key, "suite.scale": run.scale, "suite.experiment": config["is"]}
    tags |= {"suite.hardware": _hardware(environment)} | _origin(environment)
    journal.begin(run.name, called(config, run.cell, run.seed), tags, _settings(run))


def begin_table(runs: Sequence[Run], key: str, journal: Journal, environment: Mapping[str, Any]) -> None:
    """Write what a table is, unless an earlier command did: its settings are those of its runs."""
    titles = list(dict.fromkeys(title(describe(run.experiment), run.cell) for run in runs))
    of = f"{len(runs)} seeds" if len(titles) == 1 else f"table of {len(runs)} runs"
    name = f"{_beginning(titles) or runs[0].name} ({of})"
    settings = [_settings(run) for run in runs]
    values = {name: dict.fromkeys(s[name] for s in settings if name in s) for s in settings for name in s}
    tags = {"suite.run_key": key, "suite.scale": runs[0].scale} | _origin(environment)
    journal.begin(runs[0].name, name, tags, {setting: " | ".join(said) for setting, said in values.items()})


def _beginning(titles: Sequence[str]) -> str:
    """The words that all titles begin with: 'digits 1 I/C' of 'digits 1 I/C full' and 'digits 1 I/C BPTT'."""
    columns = zip(*map(str.split, titles), strict=False)
    return " ".join(words[0] for words in takewhile(lambda words: len(set(words)) == 1, columns))


def _settings(run: Run) -> dict[str, str]:
    """A run's flat configuration, its seed and its cell."""
    parameters = flat(describe(run.experiment)) | {"seed": str(run.seed)}
    return parameters | {f"axis {axis}" if axis in parameters else axis: label for axis, label in run.cell.items()}


def _hardware(environment: Mapping[str, Any]) -> str:
    threads = environment["threads"]
    cpu = f"{environment['processor']}, {threads} thread{'' if threads == 1 else 's'}"
    return cpu if environment["device"] == "cpu" else str(environment["device"])


def _origin(environment: Mapping[str, Any]) -> dict[str, str]:
    """Who ran it, by which command and of which commit, under MLflow's own names."""
    spec = sys.modules["__main__"].__spec__  # of `python -m`; a script and a notebook have none
    commit = environment["code"]["commit"]
    command = spec.name.removesuffix(".__main__") if spec is not None else Path(sys.argv[0]).name or "python"
    origin = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL"}
    origin |= {"mlflow.source.git.commit": commit} if commit else {}
    try:
        return origin | {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # a user without a name, as in some containers
        return origin


# ---------------------------------------------------------------- at the end


def end_run(record: Record, journal: Journal) -> None:
    """Write what a run measured, what it was learned from and what it cost."""
    iterations = record["scale"].get("iterations", 0)
    journal.points([Point(name, value, now(), iterations) for name, value in _for_comparison(record).items()])
    _write_dataset(record, journal)
    picture = journal.directory / "figures" / PICTURE
    journal.description(_description([record]), [picture] if picture.is_file() else [])


def end_table(records: Sequence[Record], journal: Journal) -> None:
    """Write what a table's runs measured, over seeds; of runs that were done again, in place of what was."""
    journal.figures(_aggregates(records))
    for record in records:
        _write_dataset(record, journal)
    journal.description(_description(records))


def _write_dataset(record: Record, journal: Journal) -> None:
    """Write the data set, or the stream by its tasks, as far as the record holds an identity of it."""
    facts = record["facts"]
    digest = facts.get("dataset_digest") or ("tasks" in facts and json_sha256(facts["tasks"]))
    if digest:
        journal.dataset(facts["dataset"], digest, facts.get("images", {}))


def metric(measurement: Mapping[str, Any]) -> str:
    """The metric's name in a tracker: 'test_accuracy/random_real_images'."""
    return f"{measurement['split']}_accuracy/{label(measurement).replace(' ', '_')}"


def _for_comparison(record: Record) -> dict[str, float]:
    """What a tracker has beside a run's means, to compare runs by: deviations, and its numbers."""
    deviations = {f"{metric(m)}_std": m["std"] for m in record["measurements"] if m["std"] is not None}
    return deviations | _numbers(record)


def _numbers(record: Record) -> dict[str, float]:
    """What a run's memory stores, and what the run cost."""
    budget = {name: record["budget"].get(name) for name in ("stored_numbers", "images_per_class")}
    cost = {f"cost/{name}": value for name, value in record["cost"].items() if name != "finished_at"}
    if record["cost"].get("seconds_per_iteration"):
        cost["cost/iterations_per_second"] = 1 / record["cost"]["seconds_per_iteration"]
    return {name: value for name, value in (budget | cost).items() if isinstance(value, (int, float))}


def _aggregates(records: Sequence[Record]) -> dict[str, float]:
    """What a table's runs measured, over seeds: by method and measurement the mean, its 95% interval, and n.

    Of one method the names are those of its runs, and the mean of what they cost is there, too: so several such tables
    can be compared, and plotted against their costs.
    """
    numbers: dict[str, float] = {}
    several = len(set(methods_of(records))) > 1
    for row in rows_of(records):
        ending = f"/{row.method.replace(' ', '_')}" if several else ""
        for split, values in (("test", row.test), ("validation", row.validation)):
            if values:
                of, name = estimate(values), metric({**row.measurement, "split": split}) + ending
                numbers |= {name: of.mean, f"{name}/seeds": float(of.memories)}
                numbers |= {} if of.interval is None else {f"{name}/interval": of.interval}
    costs = [] if several else [_numbers(record) for record in records]
    return numbers | {name: fmean(of[name] for of in costs if name in of) for of in costs for name in of}


def _description(records: Sequence[Record]) -> str:
    """The table that a command ends with, in Markdown, as far as it has room."""
    text = markdown(records)
    if len(text) <= LONGEST_DESCRIPTION:
        return text
    return text[: text.rindex("\n", 0, LONGEST_DESCRIPTION)] + "\n\nThe table is longer; the records hold all of it."
