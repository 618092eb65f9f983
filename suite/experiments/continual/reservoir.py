"""Reservoir sampling: of all items seen so far, a uniform sample of a fixed size."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from suite.keys import Key


@dataclass(frozen=True, eq=False)
class Reservoir:
    """The numbers of the items kept, in slots, and how many were seen; every item seen is kept with capacity / seen.

    A value: `add` gives a new one, and the draw for item n is a function of the key and n, so that going on from any
    reservoir gives the same bits (Vitter, 1985, algorithm R).
    """

    capacity: int
    """Items kept at the most."""
    seen: int
    """Items that were added so far."""
    kept: Int64[Tensor, " kept"]
    """Numbers of the items in its slots."""

    @staticmethod
    def empty(capacity: int) -> "Reservoir":
        """A reservoir that has seen nothing."""
        return Reservoir(capacity, 0, torch.empty(0, dtype=torch.int64))

    def add(self, items: Int64[Tensor, " n"], key: Key) -> "Reservoir":
        """With these items after all others: one is appended while there is room, then takes a random slot or none."""
        kept, seen = self.kept.tolist(), self.seen
        for item in items.tolist():
            seen += 1
            if len(kept) < self.capacity:
                kept.append(item)
            elif self.capacity:
                slot = int(torch.randint(seen, (), generator=key(seen).generator()))
                if slot < self.capacity:
                    kept[slot] = item
        return Reservoir(self.capacity, seen, torch.tensor(kept, dtype=torch.int64))

    def draw(self, n: int, key: Key) -> Int64[Tensor, " drawn"]:
        """So many of the kept items without replacement, or all of them if they are fewer."""
        return self.kept[key.permutation(len(self.kept))[:n]]
