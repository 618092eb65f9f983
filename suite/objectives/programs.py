"""Unrolls on tensors of their own, which a GPU captures once and replays in every outer step of the same sizes."""

import threading
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from suite.core import trees
from suite.core.captured import CapturedHypergradient, CapturedSteps
from suite.core.networks import fresh_network, network_identity
from suite.core.rows import Row, fits_a_row
from suite.core.unroll import Hypergradient, InnerLoop, Retention
from suite.keys import Key
from suite.objectives.losses import Problem
from suite.registry import fingerprint
from suite.types import Optimizer, Params, Setting

PROGRAMS = 2
"""Programs that a thread keeps at most: each holds the graphs of its unroll on the device."""


class _Kept(threading.local):
    """The programs of a thread, since those of two runs at once must not share tensors."""

    def __init__(self) -> None:
        self.programs: dict[tuple[object, ...], Program] = {}
        """By objective, network and sizes, least recently used first."""


_kept = _Kept()


@runtime_checkable
class Unroll(Protocol):
    """What a program needs to know of an objective, a frozen dataclass."""

    @property
    def inner_optimizer(self) -> Optimizer:
        """Trains the network."""
        ...

    @property
    def rewritten(self) -> bool:
        """Whether the network gets layers of our own (`suite.core.layers`)."""
        ...


@dataclass(frozen=True)
class Differentiated:
    """Which part of an unroll is differentiated."""

    steps: int
    """Its last steps, so many."""
    judged: tuple[int, ...]
    """Of these, numbers after which the network is judged (`Window`)."""
    retention: Retention
    """What is kept of them."""


def program(
    objective: Unroll, setting: Setting, problem: Problem, inputs: Params, differentiated: Differentiated
) -> "Program":
    """The program of all outer steps of the sizes of this problem and of what is recalled; made anew at first."""
    sizes = problem.batches.rows.shape, len(problem.batches.real), *((k, len(v)) for k, v in inputs.items())
    identity = (fingerprint(objective), *network_identity(setting), *sizes, differentiated)
    programs = _kept.programs
    known = programs.pop(identity, None)
    while len(programs) >= PROGRAMS:  # before another is made, which needs their room
        del programs[next(iter(programs))]
    programs[identity] = known or Program(objective, setting, problem, inputs, differentiated)
    return programs[identity]


def forget_programs() -> None:
    """Free what this thread's programs hold on the device."""
    _kept.programs.clear()


class Program:
    """An unroll on tensors that keep their addresses, filled with each outer step's data.

    Weights lie in one row where the optimizer allows it, and nothing is gathered where all images are shown.
    """

    def __init__(
        self, objective: Unroll, setting: Setting, problem: Problem, inputs: Params, differentiated: Differentiated
    ) -> None:
        network = fresh_network(setting, Key(0), objective.rewritten)
        params: Params = dict(network.named_parameters())
        self._row = Row.of(params) if fits_a_row(objective.inner_optimizer, params) else None
        self._differentiated = differentiated
        whole = problem.batches.rows.shape[1] == len(inputs["images"])
        self._batches = problem.batches.empty()
        rows, labels = (v[: differentiated.steps].clone() for v in (self._batches.rows, self._batches.labels))
        self._last = replace(self._batches, rows=rows, labels=labels)
        still = Problem(network, self._batches, problem.bfloat16, whole)
        last = replace(still, batches=self._last)
        self._optimizer = objective.inner_optimizer
        loop = InnerLoop(still.inner_loss, self._optimizer, trees.zeros_like(inputs))
        last_loop, losses = replace(loop, loss=last.inner_loss), last.outer_losses()
        if self._row is not None:
            loop, last_loop, losses = self._row.loop(loop), self._row.loop(last_loop), self._row.losses(losses)
            params = self._row.pack(params)
        how = differentiated.steps, differentiated.retention, differentiated.judged
        self._unroll = CapturedHypergradient(last_loop, losses, params, *how)
        self._before = CapturedSteps(loop, params) if problem.batches.rows.shape[0] > differentiated.steps else None

    def __call__(self, problem: Problem, params: Params, inputs: Params, first: int) -> Hypergradient:
        """The hypergradient on the problem's data from w_0 = `params`, and copies of what it gives.

        Of the steps `first`, first + 1, ..., as many as are differentiated; those before count as constants.
        """
        if self._before is not None:
            self._batches.fill(problem.batches)
        self._last.fill(problem.batches.steps(first, first + self._differentiated.steps))
        start = params if self._row is None else self._row.pack(params)
        state, losses = self._optimizer.init(start), list[Tensor]()
        if first and self._before is not None:
            start, state, losses = self._before(start, inputs, first)
        found = self._unroll(start, state, inputs)
        last = found.params if self._row is None else self._row.unpack(found.params)
        return replace(found, inner_losses=torch.cat([*(v[None] for v in losses), found.inner_losses]), params=last)
