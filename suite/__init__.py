"""Distil data sets into addressable memories, and measure what the memories remember.

    import suite

    memory = suite.distil("digits", images_per_class=1)
    memory.evaluate()
    memory = suite.load("runs/quickstart/.../memory.safetensors")

These names are imported when they are used, so that `import suite` takes no time: no torch, no gin.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suite.api import distil as distil
    from suite.datasets.from_torch import from_torch as from_torch
    from suite.memory import Memory as Memory
    from suite.memory import load as load

__version__ = "0.1.0"

_HOMES = {
    "Memory": "suite.memory",
    "distil": "suite.api",
    "from_torch": "suite.datasets.from_torch",
    "load": "suite.memory",
}
"""The module of every public name of the package."""


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'suite' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What is there, the names that are not imported yet among it."""
    return sorted({*globals(), *_HOMES})
