"""Evaluation protocols: how networks are trained to evaluate a memory, as plain data with a version."""

import math
from dataclasses import dataclass, fields

from suite.errors import UsageError
from suite.validation import Few, Fraction, Positive, PositiveInt, checked


@checked
@dataclass(frozen=True)
class Protocol:
    """How networks are trained to evaluate a memory; the defaults are the paper's (A.1, released code).

    Every network is trained by SGD with momentum at a constant rate; its accuracy after the last epoch counts. How the
    work is arranged (networks one by one or side by side, batches whole or in pieces) changes rounding only: weights
    agree to 1e-10 in float64, and in float32 a network's accuracy to 1 percentage point.
    """

    name: str = "paper"
    """Name of the protocol; 'paper' with these defaults is the published one."""
    version: int = 1
    """Changes whenever the same fields would give other accuracies."""
    networks: Few = 10
    """Networks that are trained, each with its own initialisation and its own order of images."""
    epochs: PositiveInt = 300
    """Passes over the training images."""
    batch: PositiveInt = 640
    """Images of a mini-batch; the last one of an epoch may be smaller."""
    lr: Positive = 0.01
    """Learning rate of SGD."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    augment: bool = True
    """Whether the data set's augmentation is applied to the training images."""

    def sgd_steps(self, images: int) -> int:
        """Optimizer steps of training on so many images: epochs times ceil(images / batch).

        >>> Protocol(epochs=300, batch=640).sgd_steps(1000)
        600
        """
        return self.epochs * math.ceil(images / self.batch)

    def label(self) -> str:
        """Name and version, and the fields that differ from the published protocol of that name.

        >>> Protocol().label()
        'paper-1'
        >>> Protocol(networks=3).label()
        'paper-1, changed: networks 3 of 10'
        """
        published = PROTOCOLS.get(self.name)
        if published is None:
            return f"{self.name}-{self.version}"
        changed = [
            f"{f.name} {getattr(self, f.name)} of {getattr(published, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(published, f.name)
        ]
        return f"{self.name}-{self.version}" + (", changed: " + ", ".join(changed) if changed else "")

    @property
    def reduced(self) -> bool:
        """Whether it differs from the published protocol of its name, or has no published name."""
        return PROTOCOLS.get(self.name) != self


PROTOCOLS = {"paper": Protocol()}
"""The published protocols, by name: whoever changes one must change its version."""


def published(name: str) -> Protocol:
    """The published protocol of this name; UsageError if there is none."""
    if name not in PROTOCOLS:
        raise UsageError(f"no protocol is called '{name}'; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
