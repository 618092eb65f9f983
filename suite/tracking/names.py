"""Names as MLflow takes them: of parameters and metrics."""

import hashlib
import re
from collections.abc import Iterable

LONGEST_NAME = 250
"""Characters of the name of a parameter or metric; what is longer is cut off."""


def accepted(names: Iterable[str]) -> dict[str, str]:
    """Each name, and what the store is told: letters it refuses become '_', paths are made plain, long names are cut.

    A name that would then be another's gets eight digits of its own hash. The true names are in the run's record.

    >>> accepted(["loss", "test_accuracy/5-way,_1_shot:_memory", "lr // outer", "../x"])["lr // outer"]
    'lr / outer'
    >>> accepted(["a,b", "a;b"])
    {'a,b': 'a_b', 'a;b': 'a_b_5719af18'}
    """
    told: dict[str, str] = {}
    for name in dict.fromkeys(names):
        short = _plain(name)
        if len(short) > LONGEST_NAME or short in told.values():
            mark = "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
            short = short[: LONGEST_NAME - len(mark)] + mark
        told[name] = short
    return told


def _plain(name: str) -> str:
    """Without the letters and the parts of a path that MLflow refuses."""
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    return "/".join("_" if part == ".." else part for part in parts if part not in ("", ".")) or "_"
