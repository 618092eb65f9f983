"""What MLflow's own pages show of runs: the page of training runs with its columns, and a run's description."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

LONGEST_TAG = 8000
"""Characters of a tag's value."""

VIEW = "suite"
"""Of the view of the page of runs that the suite lays down; users may choose another, and their own stays theirs."""

WIDTHS = {
    "attributes.`Run Name`": 330,
    "metrics.`test_accuracy/memory`": 170,
    "metrics.`test_accuracy/memory/interval`": 210,
    "metrics.`test_accuracy/memory_std`": 190,
    "metrics.`test_accuracy/RA`": 150,
    "metrics.`validation_accuracy/memory`": 200,
    "metrics.`stored_numbers`": 140,
    "metrics.`cost/distillation_seconds`": 190,
}
"""Columns of that view in their order, and their widths. Those that no run has are not shown."""

EXPERIMENT_TAGS = {
    # Its runs are of training; MLflow's other pages are for traces of language models.
    "mlflow.experimentKind": "custom_model_development",
    # By name, the seeds of a method stand together. By time, a table's runs fold away below a row without figures.
    f"mlflow.sharedViewState.{VIEW}": json.dumps(
        {"selectedColumns": [*WIDTHS][1:], "columnOrder": [*WIDTHS], "columnWidths": WIDTHS}
        | {"orderByKey": "tags.`mlflow.runName`", "orderByAsc": True}
    ),
}
"""Tells MLflow's pages how to show an experiment."""


def address(experiment: str) -> str:
    """Of the page of an experiment's training runs, below that of a server."""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def note(text: str, pictures: Sequence[str], run_id: str) -> str:
    """A description in Markdown with pictures among the run's artifacts, which the pages find below their own address.

    >>> note("what it found", ["figures/recalled.png"], "7")
    'what it found\\n\\n![recalled](get-artifact?path=figures%2Frecalled.png&run_uuid=7)'
    """
    named = [(Path(name).stem, urlencode({"path": name, "run_uuid": run_id})) for name in pictures]
    below = "".join(f"\n\n![{name}](get-artifact?{where})" for name, where in named)
    return text[: max(0, LONGEST_TAG - len(below))] + below
