"""Named tensors taken together: a network's parameters, a memory, or one slot of an optimizer's state."""

import torch

from suite.types import Params


def leaves(tensors: Params) -> Params:
    """The same numbers, cut off from their graph, as leaves that autograd differentiates in; whole numbers stay so."""
    return {k: v.detach().requires_grad_(v.is_floating_point()) for k, v in tensors.items()}


def detached(tensors: Params) -> Params:
    """The same numbers, cut off from their graph."""
    return {k: v.detach() for k, v in tensors.items()}


def zeros_like(tensors: Params) -> Params:
    """Zeros of the same names and shapes."""
    return {k: torch.zeros_like(v) for k, v in tensors.items()}


def copies(tensors: Params) -> Params:
    """The same numbers in tensors of their own."""
    return {k: v.detach().clone() for k, v in tensors.items()}
