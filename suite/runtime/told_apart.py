"""What tells runs apart: the settings in which their configurations differ, in few words."""

from collections import Counter
from collections.abc import Mapping, Sequence

Config = Mapping[str, str]
"""A flat configuration, such as {'objective.inner_steps': '150'}."""


def told_apart(configs: Sequence[Config], but: Sequence[str] = ()) -> list[str]:
    """For each configuration, its values of the settings that are not the same in all; `but` these and their own.

    Where components differ, their own settings are left out, but among those that are alike so far; a name is as
    short as it can be.

    >>> sgd = {"is": "distillation", "outer": "sgd", "outer.lr": "0.1", "inner": "sgd", "inner.lr": "0.01"}
    >>> told_apart([sgd, sgd | {"outer": "adam", "outer.lr": "0.001", "inner.lr": "0.03"}])
    ['inner.lr=0.01, outer=sgd', 'inner.lr=0.03, outer=adam']
    >>> told_apart([sgd, sgd | {"outer.lr": "0.2"}, sgd | {"outer": "adam"}])
    ['outer=sgd, outer.lr=0.1', 'outer=sgd, outer.lr=0.2', 'outer=adam']
    """
    names = sorted({name for config in configs for name in config})
    differing = [name for name in names if len({config.get(name) for config in configs}) > 1]
    hidden = {*but, *differing}
    shown = [n for n in differing if n not in but and not any(n.startswith(f"{above}.") for above in hidden)]
    short = _shortened(names)
    told = [", ".join(f"{short[name]}={config.get(name, 'none')}" for name in shown) for config in configs]
    for words, count in Counter(told).items():
        if 1 < count < len(told):
            alike = [i for i, other in enumerate(told) if other == words]
            more = told_apart([configs[i] for i in alike], but)
            for i, own in zip(alike, more, strict=True):
                told[i] = ", ".join(filter(None, [words, own]))
    return told


def _shortened(names: Sequence[str]) -> dict[str, str]:
    """By name, the least of its last parts that no other name ends in; what only wraps another ('of') has no part."""
    ends = Counter(end for name in names for end in set(_ends(name)))
    return {name: next((end for end in _ends(name) if ends[end] == 1), name) for name in names}


def _ends(name: str) -> list[str]:
    parts = [part for part in name.split(".") if part != "of"]
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]
