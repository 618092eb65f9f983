"""The rates of a machine: its seconds for a call of an operator, a floating point operation and a byte.

Solved from timed steps, in each of which another of them is most of the time. Nothing else is run, so that weeks of
work are estimated in a second.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.core.networks import fresh_network
from suite.experiments.operations import Operations, evaluation_network, network_pass, operations
from suite.keys import Key
from suite.parameterizations.standard import Standard
from suite.types import Architecture, ImageShape, Setting

SHARED = 0.85
"""n threads of a CPU are taken to work n ** SHARED times as fast as one; two worked 1.6 to 1.9 times as fast.

Not measured in each run: on a busy machine threads wait for each other, and estimates would be ten times too long."""


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
    machine = assumed()
    if machine is not None:
        return machine
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


_assumed: list[Rates] = []
"""Of machines that need not be here; the last counts."""


@contextmanager
def at_rates(machine: Rates) -> Iterator[None]:
    """Within the block, what is counted is foretold for a machine of these rates, which need not be here.

    A step that is not counted but timed (`suite.experiments.timing.outer_step`) stays one of this machine.
    """
    _assumed.append(machine)
    try:
        yield
    finally:
        _assumed.pop()


def assumed() -> Rates | None:
    """The rates that a block assumes; None: they are this machine's."""
    return _assumed[-1] if _assumed else None


def _timed_step(
    device: torch.device, architecture: Architecture, shape: ImageShape, images: int, plain: bool
) -> tuple[Operations, float]:
    """The operations of a training step on so many images, and its seconds."""
    setting = Setting(shape, 10, architecture, Standard(), "none", device)
    network = evaluation_network(setting) if plain else fresh_network(setting, Key(0))
    work = operations(setting, "step", images, in_evaluation=plain)
    return work, least_seconds(network_pass(network, setting, "step", images), device)


def least_seconds(do: Callable[[], object], device: torch.device, enough: float = 0.05) -> float:
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
