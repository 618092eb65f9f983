"""Seconds of training, measuring and outer steps on this machine: counted operations at its measured rates.

A pass of a network over a batch of images takes

    seconds = calls * call + flops * flop + bytes * byte

with the counts of `suite.experiments.operations`, and a machine's seconds for a call of an operator, a floating point
operation and a byte. These three are solved from three timed steps, in each of which another of them is most of the
time. Nothing else is run, so that weeks of work are estimated in a second.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.core.launched import in_turn
from suite.core.networks import fresh_network, network_identity
from suite.evaluation.evaluate import read_batch
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import bound_by_convolutions, group_size
from suite.experiments.operations import Kind, Operations, evaluation_network, network_pass, operations
from suite.keys import Key
from suite.parameterizations.standard import Standard
from suite.registry import fingerprint
from suite.types import Architecture, ClassRows, Counted, ImageShape, Objective, Setting, Split

CAPTURED_CALL = 3e-6
"""Seconds of a kernel that is replayed in a CUDA graph: an estimate, not measured."""

SHARED = 0.85
"""n threads of a CPU are taken to work n ** SHARED times as fast as one; two worked 1.6 to 1.9 times as fast.

Not measured in each run: on a busy machine threads wait for each other, and estimates would be ten times too long."""

TRIAL_IMAGES = 64
"""Real images of each class for a trial step of an objective that counts no work."""

# ------------------------------------------------------------ the machine's rates


@dataclass(frozen=True)
class Rates:
    """Seconds that a machine takes for one operation of each sort, named as in `Operations`."""

    calls: float = 0.0
    """Of a call of an operator."""
    convolutions: float = 0.0
    """Of a floating point operation in a convolution."""
    products: float = 0.0
    """Of one in a matrix product."""
    bytes: float = 0.0
    """Of a byte read or written."""

    def seconds(self, work: Operations) -> float:
        """Seconds of all this work."""
        return sum(rate * getattr(work, sort) for sort, rate in vars(self).items())


_rates: dict[tuple[str, bool], Rates] = {}
"""For each device, and for layers of our own or torch's."""


def rates(device: torch.device, plain: bool = False) -> Rates:
    """A device's rates, measured once in a third of a second: with `plain`, of torch's own layers on small images.

    Each sort of operation is most of one training step: calls of a narrow ConvNet on two images, convolutions of a wide
    one, products of an MLP, bytes of a narrow ConvNet on many pixels.
    """
    identity = str(device), plain
    if identity not in _rates:
        many = 1 if device.type == "cpu" else 16  # times the images, so that a GPU has enough to do
        large, small = ImageShape(1, 28, 28), ImageShape(1, 8, 8)
        steps: dict[str, tuple[Architecture, ImageShape, int]] = {
            "calls": (ConvNet(width=4), small, 2),
            "convolutions": (ConvNet(), small, 64) if plain else (ConvNet(), large, 10 * many),
            "products": (MLP(width=512), large, 256 * many),
            "bytes": (ConvNet(width=16), small, 256) if plain else (ConvNet(width=16), large, 40 * many),
        }
        timed = {sort: _timed_step(device, *step, plain) for sort, step in steps.items()}
        _rates[identity] = _with_all_threads(_solved(timed), device)
    return _rates[identity]


def _timed_step(
    device: torch.device, architecture: Architecture, shape: ImageShape, images: int, plain: bool
) -> tuple[Operations, float]:
    """The operations of a training step on so many images, and its seconds."""
    setting = Setting(shape, 10, architecture, Standard(), "none", device)
    network = evaluation_network(setting) if plain else fresh_network(setting, Key(0))
    work = operations(setting, "step", images, in_evaluation=plain)
    return work, _least_seconds(network_pass(network, setting, "step", images), device)


def _least_seconds(do: Callable[[], object], device: torch.device, enough: float = 0.05) -> float:
    """Seconds of one call: the least of all tries in `enough` seconds, since the first sets up.

    On a CPU those of one thread at work, which other processes can't hold up.
    """
    with _one_thread() if device.type == "cpu" else nullcontext():
        tries = [_seconds(do, device)]
        while sum(tries) < enough or (len(tries) < 3 and sum(tries) < 10 * enough):
            tries.append(_seconds(do, device))
    return min(tries)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch's operators, and afterwards as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(do: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: at work on a CPU, until the device is done elsewhere."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def _with_all_threads(rates: Rates, device: torch.device) -> Rates:
    """A CPU's rates with as many threads as torch has: work on numbers is shared among them, calls are not."""
    speedup = torch.get_num_threads() ** SHARED if device.type == "cpu" else 1.0
    return replace(
        rates, convolutions=rates.convolutions / speedup, products=rates.products / speedup, bytes=rates.bytes / speedup
    )


def _solved(timed: dict[str, tuple[Operations, float]]) -> Rates:
    """Rates that give these seconds, by Gauss and Seidel's iteration: each sort is most of the step of its name.

    Where noise would make a rate negative it is a tenth of what its step alone would give.
    """
    rates = Rates()
    for _ in range(50):
        for sort, (work, seconds) in timed.items():
            rest = replace(rates, **{sort: 0.0}).seconds(work)
            rates = replace(rates, **{sort: max(seconds - rest, seconds / 10) / getattr(work, sort)})
    return rates


# ------------------------------------------------------------ what experiments ask


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
"""By network and mini-batch."""


def pace(setting: Setting, protocol: Protocol) -> Pace:
    """The pace of a setting's evaluation networks under a protocol."""
    identity = (*network_identity(setting), protocol.batch)
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
        _trials[identity] = _least_seconds(step, setting.device)
    return _trials[identity]
