"""Keyed, stateless randomness: every draw is a function of (seed, purpose, step) and of nothing else.

There is no generator to save, restore or share: whoever knows the key can repeat the draw, in any order and in any
process. Draws are made on the CPU, so that a GPU run uses the same numbers; only what a module draws for itself while
it trains (dropout) comes from its device.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True)
class Key:
    """A name for one source of randomness: a seed and a path of purposes and steps, as in `Key(0)("inner", 3)`."""

    seed: int
    path: tuple[str | int, ...] = ()

    def __call__(self, *parts: str | int) -> "Key":
        """The key of a narrower purpose below this one."""
        return Key(self.seed, self.path + parts)

    def integer(self) -> int:
        """64 bits of the SHA-256 of the key's JSON text; torch's CPU generator uses the lower 32 of them."""
        text = json.dumps([self.seed, *self.path], separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)

    def generator(self) -> torch.Generator:
        """A fresh CPU generator; two calls give two generators with equal streams."""
        return torch.Generator().manual_seed(self.integer())

    def permutation(self, n: int) -> Int64[Tensor, " n"]:
        """A random order of 0, …, n-1."""
        return torch.randperm(n, generator=self.generator())

    def subsets(self, rows: int, n: int, k: int) -> Int64[Tensor, "rows k"]:
        """For each row, k of the numbers 0, …, n-1 without replacement; in order, without a draw, when k = n."""
        if k >= n:
            return torch.arange(n).expand(rows, n)
        return torch.rand(rows, n, generator=self.generator()).topk(k, dim=1).indices


@contextmanager
def global_generators(key: Key) -> Iterator[None]:
    """Lend code that insists on global generators (a module's own initialisation, dropout) a keyed state.

    torch's, Python's and numpy's. The state that was there before comes back afterwards, so nothing outside sees the
    loan.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key.integer())
        random.seed(key.integer())
        np.random.seed(key.integer() % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
