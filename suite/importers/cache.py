"""A set that was read once, kept for the runs that judge it; a run names it by the hash of all that was read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.errors import RunError
from suite.storage import sealed
from suite.storage.files import json_sha256, make_directory
from suite.types import Params

MEMORY, SPACE = "memory/", "space/"
"""What the names of tensors begin with: of the set, and of the space that its images are in."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A set as it was read."""

    tensors: Params
    """What it stores, images in their own space."""
    space: Params
    """What was read with the space."""
    about: dict[str, Any]
    """The file's name and hash, its authors' accuracies, and notes."""


def keep(cache_dir: Path, kept: Kept) -> str:
    """Write a set into `cache_dir`, unless it is there; returns the hash that names it. Raises RunError."""
    tensors = {MEMORY + k: v for k, v in kept.tensors.items()} | {SPACE + k: v for k, v in kept.space.items()}
    identity = json_sha256([sealed.digest(tensors), kept.about])
    make_directory(cache_dir / "imported")
    sealed.stored(_file(cache_dir, identity), lambda: (tensors, kept.about))
    return identity


def kept(cache_dir: Path, identity: str, name: str) -> Kept:
    """The set of this hash. Raises RunError where it is not there, or is another."""
    file = _file(cache_dir, identity)

    def nothing() -> tuple[Params, dict[str, Any]]:
        raise RunError(
            f"the set '{name}' was not imported into {file.parent}; give its file to python -m suite.evaluate again"
        )

    if not file.is_file():
        nothing()
    stored = sealed.stored(file, nothing)
    if json_sha256([stored.digest, stored.about]) != identity:
        raise RunError(f"{file} holds another set than '{name}'; delete it, and import the set again")

    def under(prefix: str) -> Params:
        return {k.removeprefix(prefix): v for k, v in stored.tensors.items() if k.startswith(prefix)}

    return Kept(under(MEMORY), under(SPACE), stored.about)


def _file(cache_dir: Path, identity: str) -> Path:
    return cache_dir / "imported" / f"{identity[:24]}.safetensors"
