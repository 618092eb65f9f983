"""Truncated back-propagation through time on a pool of networks that grow older."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from suite.core import trees, turns
from suite.core.networks import fresh_network
from suite.core.unroll import InnerLoop
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.losses import Problem
from suite.registry import objectives
from suite.types import ClassRows, Params, Passes, Setting
from suite.validation import Few, PositiveInt

WEIGHTS, AGES = "weights ", "ages"
"""Names of the tensors that are kept: a stack of each weight, one row a network, and the inner steps of each."""


@objectives.register("pool")
@dataclass(frozen=True)
class Pool:
    """A network drawn from a pool goes on by `of.inner_steps` steps, all differentiated, and returns to the pool.

    The networks start at staggered ages, from 0 to nearly `oldest` inner steps on the memory as it is first; one that
    has reached `oldest`, or has diverged, is drawn anew. So a memory teaches networks of all ages at the price of short
    unrolls. The networks are part of what a run keeps (`suite.types.Remembering`); the optimizer's state is fresh at
    every visit. FRePo (Zhou, Nezhadarya and Ba, 2022) and RCIG (Loo et al., 2023) keep such pools, without unrolls.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 8, 8), 2, MLP(width=4), Standard(), "none", torch.device("cpu"))
    >>> memory = Standard().init(setting.shape, 2, 1, Key(0))
    >>> real = ClassRows.of(Split(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])), 2)
    >>> pool = Pool(of=BPTT(inner_steps=5), networks=3, oldest=12)
    >>> kept = pool.begin(setting, memory, real, Key(0))
    >>> kept["ages"], pool.gradients_after(setting, memory, real, Key(1), kept)[2]["ages"].sum()
    (tensor([0, 4, 8]), tensor(17))
    """

    of: BPTT = field(default_factory=lambda: BPTT(inner_steps=15))
    """A visit: its unroll, of few steps."""
    networks: Few = 10
    """In the pool."""
    oldest: PositiveInt = 100
    """Inner steps after which a network is drawn anew."""
    learns_labels: ClassVar[Literal[True]] = True
    """As `of` does."""

    @property
    def inner_steps(self) -> int:
        """Of a visit."""
        return self.of.inner_steps

    def begin(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> Params:
        """The networks, each trained on what the memory recalls up to its age, one row of every tensor each."""
        ages = [i * self.oldest // self.networks for i in range(self.networks)]
        grown = [self._grown(setting, memory, real, key("grown", i), age) for i, age in enumerate(ages)]
        stacks = {WEIGHTS + k: torch.stack([weights[k] for weights in grown]) for k in grown[0]}
        return stacks | {AGES: torch.tensor(ages)}

    def gradients_after(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key, kept: Params
    ) -> tuple[Params, dict[str, Tensor], Params]:
        """The gradient in the memory's tensors from one visit, BPTT's metrics, and the pool after it."""
        i = int(torch.randint(self.networks, (), generator=key("visit").generator()))
        weights = {k.removeprefix(WEIGHTS): v[i] for k, v in kept.items() if k != AGES}
        steps, age = self.inner_steps, int(kept[AGES][i])
        gradients, metrics, after = self.of.through(setting, memory, real, key, steps, weights=weights)
        age += steps
        finite = torch.stack([v.isfinite().all() for v in after.values()]).all()
        turns.hand_over()
        diverged = age < self.oldest and not finite
        if diverged or age >= self.oldest:
            after, age = self._fresh(setting, key("anew")), 0
        pool = {k: _with_row(v, i, age if k == AGES else after[k.removeprefix(WEIGHTS)]) for k, v in kept.items()}
        return gradients, metrics | {"network_age": torch.full((), float(age), device=setting.device)}, pool

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """Those of the first visit to a pool that begins."""
        gradients, metrics, _ = self._first(setting, memory, real, key)
        return gradients, metrics

    def gradient_norms(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> list[float]:
        """Those of a visit by a fresh network."""
        return self.of.gradient_norms(setting, memory, real, key)

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Sizes of an outer step."""
        pool = {"pool": f"{self.networks} networks of up to {self.oldest} inner steps"}
        return self.of.plan(setting, per_class) | pool

    def work(self, setting: Setting, per_class: int) -> list[Passes]:
        """That of a visit, on pixels; the pool's first training is not counted."""
        return replace(self.of, first_layer="pixels").work(setting, per_class)

    def _fresh(self, setting: Setting, key: Key) -> Params:
        return trees.detached(dict(fresh_network(setting, key, self.of.rewritten).named_parameters()))

    def _first(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor], Params]:
        return self.gradients_after(setting, memory, real, key, self.begin(setting, memory, real, key("pool")))

    def _grown(self, setting: Setting, memory: Params, real: ClassRows, key: Key, age: int) -> Params:
        """The weights of a network after `age` steps on what the memory recalls."""
        params = self._fresh(setting, key("network"))
        for visit in range(0, age, self.inner_steps):
            recalled, network, batches = self.of.drawn(setting, memory, real, key("visit", visit))
            loop = InnerLoop(Problem(network, batches, False).inner_loss, self.of.inner_optimizer, recalled)
            state = loop.optimizer.init(params)
            for t in range(min(self.inner_steps, age - visit)):
                params, state, _ = loop.step(params, state, t)
        return params


def _with_row(stack: Tensor, i: int, row: Tensor | int) -> Tensor:
    """A copy of a stack with another row i."""
    stack = stack.clone()
    stack[i] = row
    return stack
