"""A first layer in the span of what it is shown: an exact short cut for networks that read pixels by one linear layer.

Let a network read an image x by W x alone, and let all images that it is shown be x_i = a_i B with K bases B of p
pixels. A step that is linear in weights, gradients and state, as that of SGD with momentum is, changes W only along the
bases:

    W_t = W_0 + V_t B,    W_t x_i = Q_t a_i    with Q_t = P + V_t G,    P = W_0 B',    G = B B',

and the gradient in W, d' a B for the cotangents d of W x, is d' a times B. So the inner loop trains V on the
coefficients a, K numbers of an image in place of its p pixels, by the same steps with the gradients d' a, which are
those in Q_t. The last weights are W_0 + V_T B again. The hypergradient passes through P, G and B to the bases: nothing
is left out, and results differ from those on pixels by rounding only.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from suite.types import Architecture, Linear, Params, ReadsByLinear, Setting

START, GRAM = "first layer of bases", "products of bases"
"""Names of P and G among the inputs of an inner loop."""


@dataclass(frozen=True, eq=False)
class Span:
    """Where an inner loop keeps its first weight: as V, in the span of bases (`suite.core.unroll.Chart`)."""

    name: str
    """Of the first weight among the network's."""
    first: Float[Tensor, "width pixels"]
    """W_0."""
    outer_inputs: Params
    """`bases`, B: what the last weights depend on beside V."""

    def begin(self, params: Params) -> Params:
        """The weights with V = 0 in the place of W_0."""
        return params | {self.name: self.first.new_zeros(len(self.first), len(self.outer_inputs["bases"]))}

    def seen(self, params: Params, inputs: Params) -> Params:
        """The weights with Q, which the network has for coefficients, in the place of V."""
        return params | {self.name: torch.addmm(inputs[START], params[self.name], inputs[GRAM])}

    def weights(self, params: Params, outer_inputs: Params) -> Params:
        """The network's own weights: W_0 + V B in the place of V."""
        return params | {self.name: torch.addmm(self.first, params[self.name], outer_inputs["bases"])}


LEAST_GAIN = 2
"""Pixels over bases from which on it pays."""


def chart(architecture: Architecture, params: Params, recalled: Params) -> tuple[Span | None, Params]:
    """Where the first of these weights is kept, and what is recalled with P and G; as it was where it has no bases."""
    if "bases" not in recalled or not isinstance(architecture, ReadsByLinear):
        return None, recalled
    name, bases = architecture.first_weight, recalled["bases"]
    first = params[name].detach()
    products = {START: first @ bases.T, GRAM: bases @ bases.T}
    return Span(name, first, {"bases": bases.detach()}), recalled | products


def why_not(setting: Setting, optimizer: object) -> str:
    """Why a first layer can't be kept in the span of what is recalled; empty where it can."""
    if not isinstance(setting.architecture, ReadsByLinear):
        return "the network does not read its pixels by one linear layer"
    if not (isinstance(optimizer, Linear) and optimizer.linear):
        return "a step of the inner optimizer is not linear"
    if setting.augmentation != "none":
        return "what is recalled is augmented"
    return ""
