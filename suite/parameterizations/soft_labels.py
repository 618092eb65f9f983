"""Learned labels: another parameterization whose memory also says what each of its images is to be taken for."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key
from suite.parameterizations.addressing import Addressing, budget_numbers
from suite.parameterizations.factors import factors
from suite.registry import name_of, parameterizations
from suite.types import ImageShape, Labelled, Parameterization, Params, StartsFromImages, query_kind
from suite.validation import Above, Below, require

LABELS = "labels"
"""Name of the labels among a memory's tensors."""


@parameterizations.register("soft_labels")
@dataclass(frozen=True)
class SoftLabels:
    """Another parameterization (`of`), with a learned label of C numbers v for each image it recalls.

    Networks are trained on the probabilities softmax(s v) in place of the class. v starts as the class's one-hot
    vector, and s = log(confidence (C - 1) / (1 - confidence)) then gives the class the probability `confidence`. So
    labels are numbers of about the size of pixels, which one optimizer moves at one pace, and stay probabilities
    whatever it does. Labels are paid out of the budget: with r images of a class, r C² numbers of it.

    Labels were learned with images first by Sucholutsky and Schonlau, Soft-Label Dataset Distillation (2019). The
    released code of RaT-BPTT (Feng, Vedantam and Kempe, Embarrassingly Simple Dataset Distillation, 2024) starts from
    the one-hot vector, too, but takes v itself for the probabilities, with a rate of its own; such a v may become
    negative, and the loss of a network unbounded below.

    >>> from suite.parameterizations.standard import Standard
    >>> shape, soft = ImageShape(1, 8, 8), SoftLabels(of=Standard())
    >>> soft.per_class(shape, classes=10, images_per_class=2.5)  # an image takes 64 + 10 numbers of 2.5 * 64
    2
    >>> memory = soft.init(shape, classes=10, images_per_class=2.5, key=Key(0))
    >>> memory["images"].shape, memory["labels"].shape
    (torch.Size([10, 2, 1, 8, 8]), torch.Size([10, 2, 10]))
    >>> soft.labels(memory, torch.tensor([7]))[0, 0, 6:9]
    tensor([0.0111, 0.9000, 0.0111])
    """

    of: Parameterization = field(default_factory=Addressing)
    """What stores and recalls the images."""
    confidence: Annotated[float, Above(0.5), Below(1)] = 0.9
    """Probability of an image's own class before the first outer step. The nearer to 1, the smaller the gradient in v
    at first, and the larger the change of a probability's logarithm with v."""

    def __post_init__(self) -> None:
        require(self, "of", query_kind(self.of) == "labels", "queried by class label")
        require(self, "of", not isinstance(self.of, Labelled), "one without labels of its own")

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images recalled for a class: the most of which `of` and the labels together keep to the budget.

        Raises UsageError where `of` and one label of each class do not fit.
        """
        return self.of.per_class(shape, classes, self._rest(shape, classes, images_per_class))

    def _rest(self, shape: ImageShape, classes: int, images_per_class: float) -> float:
        """What is left of the budget for `of`: the largest budget whose images' labels fit beside it.

        Found among whole numbers b' by bisection of b' + r(b') C² <= b, where r(b') is what `of` recalls from b'.
        """
        numbers, unit = budget_numbers(shape, classes, images_per_class), classes * shape.numel
        self.of.per_class(shape, classes, images_per_class)  # UsageError where not even the images fit

        def recalled(rest: int) -> int:
            try:
                return self.of.per_class(shape, classes, rest / unit)
            except UsageError:  # not even one
                return 0

        rest = bisect_left(range(numbers + 1), True, key=lambda b: b + recalled(b) * classes**2 > numbers) - 1
        if recalled(rest):
            return rest / unit
        least = bisect_left(range(numbers + 1), True, key=lambda b: recalled(b) > 0)
        needed = least + recalled(least) * classes**2
        raise UsageError(
            f"{name_of(self.of)} with a label of {classes} numbers for each image does not fit a budget of {numbers} "
            f"numbers ({images_per_class:g} images for each of {classes} classes); raise images_per_class to "
            f"{math.ceil(100 * needed / unit) / 100:g}, or leave soft_labels out"
        )

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """The tensors of `of`, and `labels` (classes x images x classes), the classes' one-hot vectors."""
        rest = self._rest(shape, classes, images_per_class)
        each = self.of.per_class(shape, classes, rest)
        return self.of.init(shape, classes, rest, key) | {LABELS: torch.eye(classes)[:, None].repeat(1, each, 1)}

    def fitted(self, memory: Params, images: Float[Tensor, "classes per_class c h w"]) -> Params:
        """What `of` makes of the images; the labels stay as they are."""
        if not isinstance(self.of, StartsFromImages):
            raise UsageError(f"{name_of(self.of)} offers no start from images (`fitted`); start from noise")
        return self.of.fitted(_without_labels(memory), images) | {LABELS: memory[LABELS]}

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class c h w"]:
        """What `of` recalls."""
        return self.of.recall(_without_labels(memory), queries)

    def factors(
        self, memory: Params, queries: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n per_class bases"], Float[Tensor, "bases c h w"]]:
        """Those of `of`."""
        return factors(self.of, _without_labels(memory), queries)

    def labels(self, memory: Params, queries: Int64[Tensor, " n"]) -> Float[Tensor, "n per_class classes"]:
        """softmax(s v) for each image of each class number."""
        values = memory[LABELS][queries]
        scale = math.log(self.confidence * (values.shape[-1] - 1) / (1 - self.confidence))
        return (scale * values).softmax(-1)

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """That of `of`."""
        return self.of.penalty(_without_labels(memory))


def _without_labels(memory: Params) -> Params:
    return {name: v for name, v in memory.items() if name != LABELS}
