"""Evaluation protocols: how networks are trained to judge a memory, as plain data with a version."""

import math
from dataclasses import dataclass, fields

from suite.validation import Fraction, Positive, PositiveInt, checked


@checked
@dataclass(frozen=True)
class Protocol:
    """How networks are trained to judge a memory; the defaults are the paper's (A.1; its released code for the rest).

    SGD with momentum at a constant rate for so many epochs of mini-batches; the last epoch counts. `augment` applies
    the data set's augmentation to the training images. `version` changes whenever the same fields would give other
    figures. How the work is arranged (networks together or one by one, batches whole or in pieces) changes only the
    rounding: weights agree to 1e-10 in float64, and in float32 a network's accuracy to 1 percentage point.
    """

    name: str = "paper"
    version: int = 1
    networks: PositiveInt = 10
    epochs: PositiveInt = 300
    batch: PositiveInt = 640
    lr: Positive = 0.01
    momentum: Fraction = 0.9
    augment: bool = True

    def sgd_steps(self, images: int) -> int:
        """Optimizer steps that training on so many images takes."""
        return self.epochs * math.ceil(images / self.batch)

    def label(self) -> str:
        """'paper-1', and what was changed of it, as in 'paper-1, changed: networks 3 of 10'."""
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
        """Whether it is anything but a published protocol."""
        return PROTOCOLS.get(self.name) != self


PROTOCOLS = {"paper": Protocol()}
"""The published protocols, by name: change one, and its version must change."""
