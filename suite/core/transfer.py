"""Tensors of the host sent to a device in one copy."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suite.types import ClassRows, Split

ALIGNMENT = 512
"""Bytes at a multiple of which every tensor starts, as those that a GPU's allocator gives out do."""


def together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on a device, contiguous, sent as one: of any shapes and types, views of one tensor there.

    A copy from the host costs as much for a number as for a megabyte, and a GPU waits for each that is not from pinned
    memory. On a CPU they stay what they are.

    >>> together([torch.ones(2), torch.arange(3)], torch.device("cpu"))
    [tensor([1., 1.]), tensor([0, 1, 2])]
    """
    if device.type == "cpu" or not tensors:
        return list(tensors)
    sizes = [math.ceil(t.numel() * t.element_size() / ALIGNMENT) * ALIGNMENT for t in tensors]
    starts = list(itertools.accumulate(sizes, initial=0))
    host = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, tensor in zip(starts, tensors, strict=False):
        _part(host, start, tensor).copy_(tensor.detach())
    sent = host.to(device, non_blocking=True)
    return [_part(sent, start, tensor) for start, tensor in zip(starts, tensors, strict=False)]


def sent(split: Split, classes: int, device: torch.device) -> ClassRows:
    """A split of the host's on a device, in one copy, with the rows of each class, for which nothing is waited."""
    images, labels = together([split.images, split.labels], device)
    return ClassRows(Split(images, labels), ClassRows.of(split, classes).rows)


def _part(flat: Tensor, start: int, like: Tensor) -> Tensor:
    """The bytes from `start` on, as a tensor of this shape and type."""
    piece = flat[start : start + like.numel() * like.element_size()]
    return piece.view(like.dtype).view(like.shape)
