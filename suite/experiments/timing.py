"""Seconds of training, measuring and outer steps on this machine: counted operations at its measured rates.

A pass of a network over a batch of images takes

    seconds = calls * call + flops * flop + bytes * byte

with the counts of `suite.experiments.operations`, and a machine's seconds for a call of an operator, a floating point
operation and a byte (`suite.experiments.rates`).
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from suite.core.launched import in_turn
from suite.core.networks import network_identity
from suite.evaluation.evaluate import read_batch
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import bound_by_convolutions, group_size
from suite.experiments.operations import Kind, evaluation_network, operations
from suite.experiments.rates import assumed, least_seconds, rates
from suite.keys import Key
from suite.registry import fingerprint
from suite.types import ClassRows, Counted, Objective, Setting, Split

CAPTURED_CALL = 3e-6
"""Seconds of a kernel that is replayed in a CUDA graph: an estimate, not measured."""

TRIAL_IMAGES = 64
"""Real images of each class for a trial step of an objective that counts no work."""


@dataclass(frozen=True)
class Pace:
    """Seconds of evaluation networks that are trained by one protocol."""

    batch: int
    """Images of the protocol's mini-batch."""
    step: float
    """Of a training step, whatever its batch."""
    image: float
    """Of training on an image, beside its share of the step."""
    read: float
    """Of measuring accuracy on an image."""
    side_by_side: bool = False
    """Whether several networks are trained in one step where their batches are small."""

    @property
    def train(self) -> float:
        """Seconds of training on an image in full batches."""
        return self.image + self.step / self.batch

    def networks(self, networks: int, epochs: int, train_images: int, test_images: int) -> float:
        """Seconds of so many networks, each trained on `train_images` and measured on `test_images`."""
        group = max(1, self.batch // max(1, train_images)) if self.side_by_side else 1
        steps = math.ceil(networks / group) * epochs * math.ceil(train_images / self.batch)
        return steps * self.step + networks * (epochs * train_images * self.image + test_images * self.read)


_paces: dict[tuple[object, ...], Pace] = {}
"""By network, mini-batch and the rates that are assumed."""


def pace(setting: Setting, protocol: Protocol) -> Pace:
    """The pace of a setting's evaluation networks under a protocol."""
    identity = (*network_identity(setting), protocol.batch, assumed())
    if identity not in _paces:
        step, with_an_image = sgd_step(setting, 0), sgd_step(setting, 1)
        batch = read_batch(setting, evaluation_network(setting))
        reading = _evaluation_seconds(setting, "forward", batch) / batch
        side_by_side = group_size(setting, 1, protocol) > 1
        _paces[identity] = Pace(protocol.batch, step, with_an_image - step, reading, side_by_side)
    return _paces[identity]


def sgd_step(setting: Setting, images: int) -> float:
    """Seconds of one training step on so many images."""
    return _evaluation_seconds(setting, "step", images)


def _evaluation_seconds(setting: Setting, kind: Kind, images: int) -> float:
    network = evaluation_network(setting)
    convolves = any(isinstance(part, nn.Conv2d) for part in network.modules())
    plain = setting.device.type == "cpu" and convolves and not bound_by_convolutions(setting, network)
    return rates(setting.device, plain).seconds(operations(setting, kind, images, in_evaluation=True))


def outer_step(
    setting: Setting, objective: Objective, images_per_class: float, per_class: int, rollouts: int = 1
) -> float:
    """Seconds of one outer step: of the passes that the objective counts, or of a trial step where it counts none."""
    counted = objective.work(setting, per_class) if isinstance(objective, Counted) else []
    if not counted:
        return in_turn(rollouts) * _trial(setting, objective, images_per_class)
    machine = rates(setting.device)
    in_graph = replace(machine, calls=min(machine.calls, CAPTURED_CALL)) if setting.device.type == "cuda" else machine
    return in_turn(rollouts) * sum(
        passes.times
        * (in_graph if passes.captured else machine).seconds(operations(setting, passes.kind, passes.images))
        for passes in counted
    )


_trials: dict[tuple[object, ...], float] = {}
"""Seconds of trial steps."""


def _trial(setting: Setting, objective: Objective, images_per_class: float) -> float:
    """Seconds of one outer step on a fresh memory and noise for real images, measured."""
    parts = setting.parameterization, objective
    sizes = setting.augmentation, images_per_class
    identity = (*network_identity(setting), *map(type, parts), *map(fingerprint, parts), *sizes)
    if identity not in _trials:
        memory = setting.parameterization.init(setting.shape, setting.classes, images_per_class, Key(0))
        memory = {k: v.to(setting.device) for k, v in memory.items()}
        labels = torch.arange(setting.classes).repeat_interleave(TRIAL_IMAGES)
        shape = (len(labels), setting.shape.channels, setting.shape.height, setting.shape.width)
        noise = torch.randn(shape, generator=Key(0)("timing").generator())
        real = ClassRows.of(Split(noise, labels).to(setting.device), setting.classes)
        step = partial(objective.gradients, setting, memory, real, Key(0))
        _trials[identity] = least_seconds(step, setting.device)
    return _trials[identity]
