"""Memories of this suite, `memory.safetensors`, which say all of themselves."""

from pathlib import Path

from suite.importers.base import Reading, importer
from suite.memory import Memory


@importer("memory")
def read(path: Path, reading: Reading) -> Memory:
    """A memory of this suite, with its own parameterization and budget; it needs no declaration."""
    return Memory.load(path)
