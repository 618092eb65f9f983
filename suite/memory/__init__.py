"""Memories as files, in Python and on their way to others.

memory       the tensors, how images are recalled from them, and what is done with these
exporting    the images for other programs: pictures, arrays, a table
sharing      to a Hugging Face repository, a folder, and back: `python -m suite.memory push`, `pull`, `export`

The names of `memory` are this package's, too, imported when they are used: the help of the command needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suite.memory.memory import Memory as Memory
    from suite.memory.memory import NotShown as NotShown
    from suite.memory.memory import beside as beside
    from suite.memory.memory import cosine_similarities as cosine_similarities
    from suite.memory.memory import described as described
    from suite.memory.memory import load as load
    from suite.memory.memory import rebuilt as rebuilt
    from suite.memory.memory import with_colours as with_colours


def __getattr__(name: str) -> Any:
    """A name of `suite.memory.memory`."""
    if name.startswith("_"):
        raise AttributeError(f"module 'suite.memory' has no attribute '{name}'")
    return getattr(importlib.import_module("suite.memory.memory"), name)
