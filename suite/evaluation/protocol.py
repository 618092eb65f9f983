"""Evaluation protocols: how networks are trained to evaluate a memory, as plain data with a version."""

import math
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from suite.errors import UsageError
from suite.images.augment import AUGMENTATIONS
from suite.registry import ADDED
from suite.validation import (
    Above,
    AtLeast,
    AtMost,
    Few,
    Fraction,
    NonNegative,
    OneOf,
    Positive,
    PositiveInt,
    checked,
)

DATA_SETS_OWN = "data set's"
"""The augmentation that the data set names."""


@checked
@dataclass(frozen=True)
class Protocol:
    """How networks are trained to evaluate a memory; the defaults are the paper's (A.1, released code).

    A network's accuracy after its last step counts. Its rate is `lr` times `drop` for each of `drops` that is past, and
    follows as much of a cosine's half wave as `cosine` names, after a linear rise over the part `warm_up`. How the work
    is arranged (networks one by one or side by side, batches whole or in pieces) changes rounding only: weights agree
    to 1e-10 in float64, and in float32 a network's accuracy to 1 percentage point.

    >>> Protocol(lr=1.0, drops=[0.5], drop=0.1).rate(step=60, steps=100)
    0.1
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
    """Learning rate."""
    momentum: Fraction = 0.9
    """Momentum of SGD; decay of the gradients' mean of Adam."""
    augment: bool = True
    """Whether the training images are augmented."""
    optimizer: Literal["sgd", "adam", "adamw"] = field(default="sgd", metadata=ADDED)
    """SGD with momentum, Adam, or Adam with its weight decay apart from the gradient."""
    weight_decay: NonNegative = field(default=0.0, metadata=ADDED)
    """Added to the gradient, times the weights; of 'adamw' the part of the rate by which weights shrink."""
    drops: Sequence[Annotated[float, Above(0), AtMost(1)]] = field(default=(), metadata=ADDED)
    """Parts of the training after which the rate is multiplied by `drop`."""
    drop: Annotated[float, Above(0), AtMost(1)] = field(default=0.1, metadata=ADDED)
    """What the rate is multiplied by at each of `drops`."""
    cosine: Annotated[float, AtLeast(0), AtMost(1)] = field(default=0.0, metadata=ADDED)
    """How much of a cosine's half wave the rate follows: 1 ends at `lowest`, 1/2 halfway, 0 is constant."""
    lowest: Fraction = field(default=0.0, metadata=ADDED)
    """Where the whole half wave ends, as a part of the rate."""
    warm_up: Fraction = field(default=0.0, metadata=ADDED)
    """First part of the training, in which the rate rises linearly; the cosine begins after it."""
    loss: Literal["cross_entropy", "squared_error"] = field(default="cross_entropy", metadata=ADDED)
    """Squared error: half the squared distance of the logits to the labels less 1 / classes (FRePo)."""
    labels: Literal["stored", "class", "teacher"] = field(default="stored", metadata=ADDED)
    """What images are taught by: the labels that the memory stores, if it does; their classes alone; or what a network
    that was trained on all training images says of each augmented image."""
    teacher_epochs: PositiveInt = field(default=60, metadata=ADDED)
    """Of the teacher on all training images, by the paper's protocol."""
    augmentation: Annotated[str, OneOf((DATA_SETS_OWN, *AUGMENTATIONS))] = field(default=DATA_SETS_OWN, metadata=ADDED)
    """Of the training images: the data set's own, or one by its name (`suite.images.augment`)."""
    cut_mix: Annotated[float, AtLeast(0), AtMost(1)] = field(default=0.0, metadata=ADDED)
    """Probability that a batch is mixed: each image gets a rectangle of another, and of its label as much."""

    def sgd_steps(self, images: int) -> int:
        """Optimizer steps of training on so many images: epochs times ceil(images / batch).

        >>> Protocol(epochs=300, batch=640).sgd_steps(1000)
        600
        """
        return self.epochs * math.ceil(images / self.batch)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate at a step, counted from 0, of so many."""
        factor = self.drop ** sum(step >= part * steps for part in self.drops)
        rising = self.warm_up * steps
        if step < rising:
            return self.lr * factor * step / rising
        if self.cosine:
            part = (step - rising) / (steps - rising)
            factor *= self.lowest + (1 - self.lowest) * (1 + math.cos(math.pi * self.cosine * part)) / 2
        return self.lr * factor

    def augmentation_of(self, own: str) -> str:
        """The augmentation's name, where `own` is the data set's. DSA leaves out the flip where the data set has none.

        >>> Protocol(augmentation="dsa").augmentation_of("none")
        'dsa_unflipped'
        """
        if not self.augment:
            return "none"
        if self.augmentation in ("dsa", "dsa_uncut") and own == "none":
            return self.augmentation.replace("dsa", "dsa_unflipped")
        return own if self.augmentation == DATA_SETS_OWN else self.augmentation

    def without_teacher(self) -> "Protocol":
        """The same, by classes where it has a teacher."""
        return replace(self, labels="class") if self.labels == "teacher" else self

    def settings(self) -> dict[str, Any]:
        """Its fields as plain data, those that came later only where they are not at their defaults."""
        shown = (f for f in fields(self) if not (f.metadata and _plain(getattr(self, f.name)) == _plain(f.default)))
        return {f.name: _plain(getattr(self, f.name)) for f in shown}

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
            if _differ(f, self, published)
        ]
        return f"{self.name}-{self.version}" + (", changed: " + ", ".join(changed) if changed else "")

    @property
    def reduced(self) -> bool:
        """Whether it differs from the published protocol of its name, or has no published name."""
        published = PROTOCOLS.get(self.name)
        return published is None or any(_differ(f, self, published) for f in fields(self))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _differ(declared: Field[Any], one: Protocol, other: Protocol) -> bool:
    return bool(_plain(getattr(one, declared.name)) != _plain(getattr(other, declared.name)))


# Settings of others, read in their code, which gin/protocols/ names, and says what differs here.
_DC_BENCH = Protocol("dc_bench", networks=5, epochs=300, batch=256, augment=False, weight_decay=5e-4, drops=(0.5,))
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(),
        _DC_BENCH,
        replace(_DC_BENCH, name="dc_bench_dsa", epochs=1000, augment=True, augmentation="dsa"),
        Protocol(
            "dd_ranking", networks=5, epochs=1000, batch=128, weight_decay=5e-4, drops=(0.5,), labels="class",
            augmentation="dsa",
        ),
        Protocol(
            "dd_ranking_soft", networks=5, epochs=300, batch=1024, optimizer="adamw", lr=0.001, weight_decay=0.01,
            cosine=0.5, augment=False, cut_mix=1.0, labels="teacher",
        ),
        Protocol(
            "idc", networks=3, epochs=1000, batch=64, weight_decay=5e-4, drops=(2 / 3, 5 / 6), drop=0.2,
            augmentation="dsa_uncut", cut_mix=0.5,
        ),
        Protocol(
            "frepo", networks=5, epochs=1000, batch=500, optimizer="adam", lr=3e-4, cosine=1.0, lowest=0.01,
            warm_up=0.5, loss="squared_error", augmentation="dsa",
        ),
        Protocol(
            "rat_bptt", networks=5, epochs=1000, batch=5000, optimizer="adam", lr=0.001, augmentation="flip_rotate",
        ),
    )
}  # fmt: skip
"""The published protocols, by name: whoever changes one must change its version."""


def published(name: str) -> Protocol:
    """The published protocol of this name; UsageError if there is none."""
    if name not in PROTOCOLS:
        raise UsageError(f"no protocol is called '{name}'; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
