"""Durations in words."""

UNITS = (("weeks", 604800.0), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
"""Units and their seconds, from large to small."""

SYMBOLS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
"""The short forms of a table's cell."""


def duration(seconds: float) -> str:
    """'about 3.1 hours': two digits, in the largest unit of which there are two."""
    unit, size = next(((unit, size) for unit, size in UNITS if seconds >= 2 * size), UNITS[-1])
    return f"about {float(f'{seconds / size:.2g}'):g} {unit}"


def short_duration(seconds: float) -> str:
    """'3 h': a whole number, in the largest unit of which there is one."""
    symbol, size = next(((symbol, size) for symbol, size in SYMBOLS if seconds >= size), SYMBOLS[-1])
    return f"{seconds / size:.0f} {symbol}"
