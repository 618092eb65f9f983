"""What a run is called where people compare runs: its data, budget and method."""

from collections.abc import Mapping
from typing import Any

USUAL = {"objective": "bptt", "inner_optimizer": "sgd_momentum"}
"""Components that are not named where they are these."""


def title(config: Mapping[str, Any], cell: Mapping[str, str]) -> str:
    """The words of a described configuration and its cell of a table, which says again what it says already.

    >>> config = {"dataset": {"is": "digits"}, "images_per_class": 1.0, "parameterization": {"is": "addressing"}}
    >>> title(config, {}), title(config, {"images per class": "1 I/C", "method": "full"})
    ('digits 1 I/C addressing', 'digits 1 I/C full')
    >>> title(config | {"objective": {"is": "bptt", "inner_optimizer": {"is": "adam"}}}, {})
    'digits 1 I/C addressing adam'
    """
    said = " ".join(cell.values())
    data = _name(config, "dataset") or _name(config, "stream")
    budget = config.get("images_per_class")
    words = [data, f"{budget:g} I/C" if isinstance(budget, (int, float)) else ""]
    return " ".join([*(word for word in words if word and word not in said), *(cell.values() or _method(config))])


def _method(config: Mapping[str, Any]) -> list[str]:
    """The parameterization, or what else is run, and the components that are not the usual ones."""
    objective = config.get("objective")
    inner = config if not isinstance(objective, Mapping) else objective
    named = {"objective": _name(config, "objective"), "inner_optimizer": _name(inner, "inner_optimizer")}
    first = _name(config, "parameterization") or _name(config, "method") or str(config.get("is", ""))
    return [first, *(name for kind, name in named.items() if name and name != USUAL[kind])]


def _name(config: Mapping[str, Any], kind: str) -> str:
    """The component's registered name; '' where there is none."""
    component = config.get(kind)
    return str(component.get("is", "")) if isinstance(component, Mapping) else ""
