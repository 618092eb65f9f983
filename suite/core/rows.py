"""Named tensors as one row of numbers, for which an elementwise step is one operation and not one for each tensor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Size, Tensor

from suite.core.unroll import InnerLoop, OuterLoss
from suite.types import Elementwise, Params

ROW = "all"
"""The name of the one tensor."""

ALIGNMENT = 64
"""Tensors of a multiple of so many numbers come first: a GPU's kernels are fastest where a tensor's address is even."""


@dataclass(frozen=True)
class Row:
    """Where named tensors lie in one row of numbers."""

    shapes: tuple[tuple[str, Size], ...]
    """Their names and shapes, in the row's order."""

    @staticmethod
    def of(tensors: Params) -> "Row":
        """That of tensors like these."""
        names = sorted(tensors, key=lambda k: tensors[k].numel() % ALIGNMENT > 0)
        return Row(tuple((k, tensors[k].shape) for k in names))

    def pack(self, tensors: Params) -> Params:
        """The row, as a copy.

        >>> tensors = {"b": torch.ones(2), "w": torch.zeros(8, 8)}
        >>> row = Row.of(tensors)
        >>> row.pack(tensors)["all"].shape, row.unpack(row.pack(tensors))["b"]
        (torch.Size([66]), tensor([1., 1.]))
        """
        return {ROW: torch.cat([tensors[k].detach().reshape(-1) for k, _ in self.shapes])}

    def unpack(self, row: Params) -> Params:
        """The tensors, as views of the row."""
        pieces: Sequence[Tensor] = row[ROW].split([shape.numel() for _, shape in self.shapes])
        return {k: piece.view(shape) for (k, shape), piece in zip(self.shapes, pieces, strict=True)}

    def loop(self, loop: InnerLoop) -> InnerLoop:
        """An inner loop whose parameters are the row."""
        return replace(loop, loss=lambda row, inputs, t: loop.loss(self.unpack(row), inputs, t))

    def losses(self, outer_losses: Sequence[OuterLoss]) -> list[OuterLoss]:
        """Outer losses whose parameters are the row."""
        return [lambda row, loss=loss: loss(self.unpack(row)) for loss in outer_losses]  # type: ignore[misc]


def fits_a_row(optimizer: object, tensors: Params) -> bool:
    """Whether the optimizer's steps on one row are those on the tensors."""
    elementwise = isinstance(optimizer, Elementwise) and optimizer.elementwise
    return elementwise and len({v.dtype for v in tensors.values()}) == 1
