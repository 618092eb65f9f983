"""Memories as files, in Python and on their way to others.

memory     the tensors, how images are recalled from them, and what is done with these
sharing    to a Hugging Face repository, a folder, and back: `python -m suite.memory push`, `pull`
"""

from suite.memory.memory import Memory, NotShown, beside, cosine_similarities, described, load, rebuilt, with_colours

__all__ = ["Memory", "NotShown", "beside", "cosine_similarities", "described", "load", "rebuilt", "with_colours"]
