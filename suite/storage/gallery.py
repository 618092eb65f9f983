"""The gallery: memories of the leaderboard's best rows, by name, in a checkout of the repository."""

import csv
from pathlib import Path

import suite
from suite.errors import RunError

FOLDER = Path(suite.__file__).resolve().parent.parent / "leaderboard"
"""Where a checkout has its records; an installed package has none."""


def gallery() -> dict[str, Path]:
    """Name -> file, as `leaderboard/gallery.csv` says; empty outside a checkout."""
    listed = FOLDER / "gallery.csv"
    if not listed.is_file():
        return {}
    with listed.open(newline="") as opened:
        return {
            row["name"]: FOLDER / "records" / row["record"] / "memory.safetensors" for row in csv.DictReader(opened)
        }


def file_of(given: str | Path) -> Path:
    """The file that is meant: the path as it is, or that of the gallery's memory of this name.

    Raises RunError for a name, without any folder or ending, that is neither.
    """
    path, known = Path(given), gallery()
    if isinstance(given, Path) or path.exists() or path.suffix or len(path.parts) != 1:
        return path
    if given not in known:
        there = f"the gallery has: {', '.join(sorted(known))}" if known else "the gallery is in a checkout alone"
        raise RunError(f"there is no file {given}, and no memory of that name; {there}")
    return known[given]
