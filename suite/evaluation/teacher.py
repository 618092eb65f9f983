"""A teacher: a network trained on all training images, which says what each image of a set is to be taken for."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from suite.evaluation.evaluate import TrainingSet
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import Pause, train
from suite.keys import Key
from suite.types import Setting, Split

PUBLISHED = Protocol(networks=1)
"""How a teacher is trained, but for its epochs: as the paper trains a network."""


def taught_by_teacher(
    training_set: TrainingSet, setting: Setting, real: Split, protocol: Protocol, key: Key, pause: Pause
) -> TrainingSet:
    """The training sets of a protocol with a teacher; any other protocol's are returned as they are.

    The teacher has the setting's architecture, and is trained on the real images when the first set is asked for. It
    gives p = softmax(network(x)) for images x as the student sees them, augmented and mixed.
    """
    if protocol.labels != "teacher":
        return training_set

    def probabilities(images: Tensor) -> Tensor:
        network = _teacher(setting, real, protocol.teacher_epochs, key("teacher"), pause)
        with torch.no_grad():
            said: Tensor = network(images).softmax(1)
        return said

    return lambda number: replace(training_set(number), teacher=probabilities)


@lru_cache(maxsize=1)
def _teacher(setting: Setting, real: Split, epochs: int, key: Key, pause: Pause) -> torch.nn.Module:
    """One for the memory and for all that stands beside it."""
    return train(setting, real, replace(PUBLISHED, epochs=epochs), key, pause).eval()
