"""What a run is called wherever people compare runs: its data, budget, method, network and recipe."""

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

USUAL = {"objective": "bptt", "inner_optimizer": "sgd_momentum", "architecture": "convnet"}
"""Components that are not named where they are these."""

RECIPES = {("", "sgd_momentum"): "", ("k_means", "adam"): "fast recipe"}
"""By the start and the outer optimizer, what the recipes in `gin/recipe/` are called; the paper's is not named."""

LONGEST_FOLDER = 245
"""Letters of a run's folder: file systems take 255, and `--fresh` adds some."""


def title(config: Mapping[str, Any], cell: Mapping[str, str]) -> str:
    """The words of a described configuration and its cell of a table, which says again what it says already.

    >>> config = {"dataset": {"is": "digits"}, "images_per_class": 1.0, "parameterization": {"is": "addressing"}}
    >>> title(config, {}), title(config, {"images per class": "1 I/C", "method": "full"})
    ('digits 1 I/C addressing', 'digits 1 I/C full')
    >>> inner, start = {"is": "bptt", "inner_optimizer": {"is": "adam"}}, {"is": "class_means"}
    >>> title(config | {"objective": inner, "architecture": {"is": "mlp"}, "start": start}, {})
    'digits 1 I/C addressing adam mlp from class_means'
    """
    said = " ".join(cell.values())
    before = [word for word in _data(config) if word not in said]
    return " ".join([*before, *(cell.values() or _method(config)), *_after(config, said)])


def method(config: Mapping[str, Any], cell: Mapping[str, str]) -> str:
    """The words of a title without its data and budget, for where these stand beside it.

    >>> config = {"dataset": {"is": "digits"}, "images_per_class": 1.0, "parameterization": {"is": "addressing"}}
    >>> method(config, {}), method(config, {"images per class": "1 I/C", "inner optimizer": "Lion"})
    ('addressing', 'Lion')
    >>> fast = {"start": {"is": "k_means"}, "outer_optimizer": {"is": "adam"}}
    >>> method(config | fast, {"contender": "fast"})
    'fast recipe'
    """
    labels = [label for label in cell.values() if label not in _data(config)]
    words = " ".join([*(labels or _method(config)), *_after(config, " ".join(labels))]).split()
    return " ".join(word for word, _ in groupby(words))  # a cell 'fast' of the fast recipe


def called(config: Mapping[str, Any], cell: Mapping[str, str], seed: int) -> str:
    """A run's title and its seed."""
    return f"{title(config, cell)}, seed {seed}"


def folder(config: Mapping[str, Any], cell: Mapping[str, str], seed: int, key: str) -> str:
    """What a run's directory is called: title, seed and key; what is long is cut, since the key tells runs apart.

    >>> config = {"dataset": {"is": "fashion_mnist"}, "images_per_class": 1.0}
    >>> folder(config, {"method": "full"}, 0, "0123456789abcdef")
    'fashion_mnist-1-ic-full-seed0-0123456789abcdef'
    """
    words = re.sub(r"[^a-z0-9._]+", "-", title(config, cell).lower().replace("i/c", "ic")).strip("-.")
    end = f"seed{str(seed)[:20]}-{key}"
    return f"{words[: LONGEST_FOLDER - 1 - len(end)]}-{end}" if words else end


def _data(config: Mapping[str, Any]) -> list[str]:
    """The data set or stream, and the budget, as far as there are any."""
    budget = config.get("images_per_class")
    words = [_name(config, "dataset") or _name(config, "stream")]
    return [*filter(None, words), *([f"{budget:g} I/C"] if isinstance(budget, (int, float)) else [])]


def _after(config: Mapping[str, Any], said: str) -> list[str]:
    """The network and the recipe, as far as they are not the usual ones or said already."""
    return [word for word in (_unusual(config, "architecture"), *_recipe(config)) if word and word not in said]


def _method(config: Mapping[str, Any]) -> list[str]:
    """The parameterization, or what else is run, and the components that are not the usual ones."""
    objective = config.get("objective")
    inner = config if not isinstance(objective, Mapping) else objective
    first = _name(config, "parameterization") or _name(config, "method") or str(config.get("is", ""))
    return [first, *filter(None, [_unusual(config, "objective"), _unusual(inner, "inner_optimizer")])]


def _recipe(config: Mapping[str, Any]) -> list[str]:
    """The name of the recipe, or the start and the outer optimizer, as far as they are not the paper's."""
    outer = config.get("outer_optimizer")
    while isinstance(outer, Mapping) and isinstance(outer.get("of"), Mapping):
        outer = outer["of"]
    start, optimizer = _name(config, "start"), _name({"outer": outer}, "outer")
    if (start, optimizer) in RECIPES:
        return [RECIPES[start, optimizer]]
    return [f"from {start}" if start else "", f"outer {optimizer}" if optimizer not in ("", "sgd_momentum") else ""]


def _unusual(config: Mapping[str, Any], kind: str) -> str:
    """The component's registered name; '' where there is none, or the usual one."""
    name = _name(config, kind)
    return "" if name == USUAL[kind] else name


def _name(config: Mapping[str, Any], kind: str) -> str:
    """The component's registered name; '' where there is none."""
    component = config.get(kind)
    return str(component.get("is", "")) if isinstance(component, Mapping) else ""
