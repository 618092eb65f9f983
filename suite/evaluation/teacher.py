"""A teacher: a network trained on all training images, which says what each image of a set is to be taken for."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from suite.evaluation.evaluate import TrainingSet
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import Pause, train
from suite.keys import Key
from suite.registry import fingerprint
from suite.types import Setting, Split

PUBLISHED = Protocol(networks=1)
"""How a teacher is trained, but for its epochs: as the paper trains a network."""


@dataclass(frozen=True, eq=False)
class Teachers:
    """The teachers of one data set, one for each architecture that is taught, trained when a set first asks.

    A teacher gives p = softmax(network(x)) for images x as the student sees them, augmented and mixed.
    """

    real: Split
    """All training images."""
    protocol: Protocol
    """That teaches."""
    key: Key
    """Of a teacher's draws."""
    pause: Pause
    """Called between its epochs."""
    trained: dict[str, nn.Module] = field(default_factory=dict)
    """By its architecture."""

    def taught(self, training_set: TrainingSet, setting: Setting) -> TrainingSet:
        """The training sets of a protocol with a teacher; any other protocol's are returned as they are."""
        if self.protocol.labels != "teacher":
            return training_set

        def probabilities(images: Tensor) -> Tensor:
            network = self._teacher(setting)
            with torch.no_grad():
                said: Tensor = network(images).softmax(1)
            return said

        return lambda number: replace(training_set(number), teacher=probabilities)

    def _teacher(self, setting: Setting) -> nn.Module:
        name = fingerprint(setting.architecture)
        if name not in self.trained:
            protocol = replace(PUBLISHED, epochs=self.protocol.teacher_epochs)
            self.trained[name] = train(setting, self.real, protocol, self.key("teacher"), self.pause).eval()
        return self.trained[name]
