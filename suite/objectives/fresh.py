"""What objectives share: networks that are new in every outer step, and how small a rehearsal of one is."""

from torch import nn

from suite.fast import fast
from suite.keys import Key, global_generators
from suite.registry import name_of
from suite.types import Task
from suite.unroll import require_unrollable


def fresh_network(task: Task, key: Key, rewritten: bool = True) -> nn.Module:
    """A newly initialised network for the task, refused if it can't be differentiated through twice."""
    with global_generators(key):
        network = task.architecture.build(task.shape, task.classes)
    require_unrollable(network, name_of(task.architecture))
    return fast(network, task.device, rewritten)


FEW_CLASSES = 10
AFFORDED = 3.0
"""Seconds that measuring one piece of a rehearsal at its full size may take."""


def few(images: int, groups: int) -> int:
    """How many of `images` of each group the first try of a rehearsal takes."""
    return max(1, min(images, 16 // groups))
