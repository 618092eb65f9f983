"""Keyed, stateless randomness: every draw is a function of (seed, purpose, step) and of nothing else.

There is no generator to save, restore or share: a draw is repeated from its key alone, in any order and in any process.
Draws are made on the CPU, so that a GPU run uses the same numbers; only what a module itself draws while it trains
(dropout) comes from its device.
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
    """A name for one source of randomness, as in `Key(0)("inner", 3)`."""

    seed: int
    """Of the run."""
    path: tuple[str | int, ...] = ()
    """Purposes and steps, from wide to narrow."""

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
        """A random order of 0, …, n-1, shape (n,)."""
        return torch.randperm(n, generator=self.generator())

    def subsets(self, rows: int, n: int, k: int) -> Int64[Tensor, "rows k"]:
        """For each row, k of the numbers 0, …, n-1 without replacement; 0, …, n-1 in order if k >= n."""
        if k >= n:
            return torch.arange(n).expand(rows, n)
        return torch.rand(rows, n, generator=self.generator()).topk(k, dim=1).indices


@contextmanager
def global_generators(key: Key) -> Iterator[None]:
    """Seed the global generators of torch, Python and numpy from a key, and restore their states at the end.

    For code that takes no generator: a module's own initialisation, dropout.
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
