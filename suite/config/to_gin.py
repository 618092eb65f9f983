"""From an experiment made in Python to the gin text that describes it: the run can then be repeated from a file."""

from dataclasses import fields, is_dataclass
from typing import Any

from suite.errors import UsageError
from suite.evaluation.protocol import Protocol
from suite.registry import REGISTRIES
from suite.types import Experiment


def gin_text(experiment: Experiment, name: str, seed: int) -> str:
    """Bindings for every field of an experiment and of all its parts, each part in a scope of its own.

    `resolve` gives the same run for it. Raises UsageError for a part that is not registered.
    """
    bindings: list[str] = []
    reference = _value(experiment, "", bindings)
    run = [f"run.experiment = {reference}", f"run.name = {name!r}", f"run.seeds = [{seed}]"]
    return "\n".join([*run, *bindings]) + "\n"


def _value(value: Any, scope: str, bindings: list[str]) -> str:
    """A value as gin writes it; the bindings of a component's fields are added to `bindings`."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item, f"{scope}_{i}", bindings) for i, item in enumerate(value)) + "]"
    if not is_dataclass(value):
        return repr(value)
    selector = f"{scope}/{_selector(value)}" if scope else _selector(value)
    for field in fields(value):
        inner = f"{scope}_{field.name}" if scope else field.name
        bindings.append(f"{selector}.{field.name} = {_value(getattr(value, field.name), inner, bindings)}")
    return f"@{selector}()"


def _selector(component: Any) -> str:
    """What gin calls a component: its kind and its registered name."""
    if type(component) is Protocol:
        return "suite.protocol"
    for kind, registry in REGISTRIES.items():
        for entry in registry:
            if type(component) is entry.build:
                return f"{kind}.{entry.name}"
    raise UsageError(f"{type(component).__name__} is not registered; gin has no name for it")
