"""Networks that objectives train: new in every outer step."""

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
