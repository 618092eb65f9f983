"""The addressable memory: bases shared by all classes, and matrices that address them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.parameterizations.initial import Init, uniform
from suite.registry import parameterizations
from suite.types import ImageShape, Params
from suite.validation import NonNegative, PositiveInt

SHARE = 0.4
"""Of the budget, that bases take where their number is not given: as in the one setting that the released code states
(16 at half resolution for CIFAR-10 at 1 image per class)."""


def budget_numbers(shape: ImageShape, classes: int, images_per_class: float) -> int:
    """b, the numbers that a budget affords: images_per_class C p, rounded down.

    1e-6 of a number is added before, against the rounding of the product. A budget that was computed from a count of
    stored numbers has half a number added there (`suite.experiments.synthesis.episodic`), against its division.

    >>> 1.02 * 10 * 100, budget_numbers(ImageShape(1, 10, 10), classes=10, images_per_class=1.02)
    (1019.9999999999999, 1020)
    """
    return math.floor(images_per_class * classes * shape.numel + 1e-6)


@parameterizations.register("addressing")
@dataclass(frozen=True)
class Addressing:
    """Bases and addressing matrices: image i of a query y is y' A_i B (paper, formulation).

    With K bases of p numbers, C classes and r matrices the memory stores K p + r C K numbers, so a budget of b numbers
    affords r = floor((b - K p) / (C K)) images for each class. A class number queries with its one-hot vector.

    >>> shape, addressing = ImageShape(1, 8, 8), Addressing(bases=6)
    >>> addressing.per_class(shape, classes=10, images_per_class=1)  # (10 * 64 - 6 * 64) / (10 * 6), rounded down
    4
    >>> memory = addressing.init(shape, classes=10, images_per_class=1, key=Key(0))
    >>> memory["bases"].shape, memory["matrices"].shape
    (torch.Size([6, 1, 8, 8]), torch.Size([4, 10, 6]))
    >>> addressing.recall(memory, torch.tensor([3, 7])).shape
    torch.Size([2, 4, 1, 8, 8])
    """

    bases: PositiveInt | None = 8
    """K; None takes as many as need two fifths of the budget."""
    initialization: Init = "kaiming"
    """Distribution of the first values of bases and matrices, see `initial.uniform`."""
    coefficient_penalty: NonNegative = 0.0
    """Times the mean square of the matrices, added to the outer loss."""

    def numbers(self, shape: ImageShape, classes: int, matrices: int) -> int:
        """Stored numbers of bases and matrices: K p + matrices C K; UsageError where K follows from a budget."""
        if self.bases is None:
            raise UsageError("addressing.bases must be a number to count what a memory stores without a budget")
        return self.bases * shape.numel + matrices * classes * self.bases

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """r, the images recalled for a class.

        Raises UsageError where the bases leave no room for a matrix.
        """
        budget = budget_numbers(shape, classes, images_per_class)
        bases = self._bases(shape, classes, images_per_class)
        matrices = (budget - bases * shape.numel) // (classes * bases)
        if matrices < 1:
            largest = budget // (shape.numel + classes)
            raise UsageError(
                f"{bases} bases of {shape} leave no room for an addressing matrix in a budget of {budget} numbers "
                f"({images_per_class:g} images for each of {classes} classes); "
                + (f"at most {largest} bases fit" if largest else "not even one basis fits, so raise the budget")
            )
        return matrices

    def _bases(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """K."""
        if self.bases is not None:
            return self.bases
        return max(1, round(SHARE * images_per_class * classes))

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """`bases` (K c h w) and `matrices` (r C K), drawn by the key."""
        r, k = self.per_class(shape, classes, images_per_class), self._bases(shape, classes, images_per_class)
        rows = uniform(r * classes, k, self.initialization, key("matrices"))
        bases = uniform(k, shape.numel, self.initialization, key("bases"))
        return {
            "bases": bases.view(k, shape.channels, shape.height, shape.width),
            "matrices": rows.view(r, classes, k),
        }

    def fitted(self, memory: Params, images: Float[Tensor, "classes per_class c h w"]) -> Params:
        """The K bases and the coefficients whose images are nearest to these in squares, by a singular values'
        decomposition.

        Of the images' matrix X = U S V', one row each, bases and coefficients take sqrt(S) each, times g and 1 / g such
        that both have entries of one size, since one optimizer moves both. Bases beyond the images' rank stay as they
        are in `memory`, without coefficients.
        """
        r, classes, k = memory["matrices"].shape
        rows = torch.flatten(images.transpose(0, 1).flatten(0, 1), 1)
        u, s, v = torch.linalg.svd(rows.cpu().double(), full_matrices=False)
        kept = min(k, int((s > 1e-6 * s[0]).sum()))
        root, g = s[:kept].sqrt(), (rows.shape[1] / rows.shape[0]) ** 0.25
        bases, matrices = memory["bases"].flatten(1).clone(), torch.zeros_like(memory["matrices"])
        bases[:kept] = (g * root[:, None] * v[:kept]).to(bases)
        matrices[:, :, :kept] = (u[:, :kept] * root / g).view(r, classes, kept).to(matrices)
        return {"bases": bases.view_as(memory["bases"]), "matrices": matrices}

    def coefficients(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class bases"]:
        """y' A_i for every query y and matrix A_i; UsageError for vectors of another length."""
        if queries.is_floating_point():
            if queries.shape[1] != memory["matrices"].shape[1]:
                raise UsageError(
                    f"this memory is addressed by vectors of {memory['matrices'].shape[1]}, not {queries.shape[1]}"
                )
            return torch.einsum("nq,rqk->nrk", queries, memory["matrices"])
        return memory["matrices"][:, queries].transpose(0, 1)

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class c h w"]:
        """y' A_i B: r images for each query, a class number or a vector of C numbers."""
        return torch.einsum("nrk,kchw->nrchw", self.coefficients(memory, queries), memory["bases"])

    def factors(
        self, memory: Params, queries: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n per_class bases"], Float[Tensor, "bases c h w"]]:
        """y' A_i and B."""
        return self.coefficients(memory, queries), memory["bases"]

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """`coefficient_penalty` times the mean square of the matrices."""
        return self.coefficient_penalty * memory["matrices"].square().mean()
