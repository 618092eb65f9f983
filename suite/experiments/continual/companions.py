"""What networks of the inner loop learn beside a memory, so that it serves in one network with others (ours).

Finished memories of earlier tasks are other tasks as they are. Stand-ins are what the memory itself recalls, as other
tasks of the stream's law would show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from suite.core.transfer import together
from suite.keys import Key
from suite.parameterizations.factors import factors
from suite.streams.base import at_places
from suite.types import ImageShape, Parameterization, Params, RelatedTasks, Setting


@dataclass(frozen=True, eq=False)
class WithCompanions:
    """A parameterization whose recall appends images to learn beside its own, class by class.

    recall(m, q) = [x, v_1(x), ..., v_s(x), of.recall(f_1, q), ..., of.recall(f_k, q)] with x = of.recall(m, q), s
    stand-ins and k finished memories, which are constants. Nothing more is stored.
    """

    of: Parameterization
    """What the memory stores, and how its own images are recalled."""
    shown: Int64[Tensor, "stand_ins pixels"]
    """For each stand-in and pixel the pixel that it shows; -1: none, for which the corners' mean stands."""
    finished: tuple[Params, ...] = ()
    """Memories of other tasks, with the same classes."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images of a class, with those beside it."""
        own = self.of.per_class(shape, classes, images_per_class)
        return own * (1 + len(self.shown) + len(self.finished))

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """The memory alone."""
        return self.of.init(shape, classes, images_per_class, key)

    def recall(self, memory: Params, queries: Tensor) -> Float[Tensor, "n per_class c h w"]:
        """Images of each query, then those of stand-ins and of finished memories."""
        images = self.of.recall(memory, queries)
        flat = images.flatten(0, 1)
        black = _black(flat)
        stand_ins = [at_places(flat, one, black).view_as(images) for one in self.shown]
        with torch.no_grad():
            others = [self.of.recall(other, queries) for other in self.finished]
        return torch.cat([images, *stand_ins, *others], 1)

    def factors(
        self, memory: Params, queries: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n per_class bases"], Float[Tensor, "bases c h w"]]:
        """Those of the memory, of it as each stand-in shows it, and of finished memories, side by side.

        Where a stand-in shows no pixel, all its images have the corners' mean, which is one more basis.
        """
        coefficients, bases = factors(self.of, memory, queries)
        black = _black(torch.einsum("nrk,kchw->nrchw", coefficients, bases).flatten(0, 1))
        nothing, one = torch.zeros_like(black), coefficients.new_ones(*coefficients.shape[:2], 1)
        parts = [(coefficients, bases)]
        for shown in self.shown:
            corners = at_places(torch.zeros_like(bases[:1]), shown, black)
            moved = torch.cat([at_places(bases, shown, nothing), corners])
            parts.append((torch.cat([coefficients, one], 2), moved))
        with torch.no_grad():
            parts += [factors(self.of, other, queries) for other in self.finished]
        return _side_by_side(parts)

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """The penalty of the memory itself."""
        return self.of.penalty(memory)


def _side_by_side(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Factors of the images of all parts: each part's coefficients are zero for the bases of the others."""
    width, first = sum(len(bases) for _, bases in parts), 0
    coefficients = []
    for own, bases in parts:
        coefficients.append(pad(own, (first, width - first - len(bases))))
        first += len(bases)
    return torch.cat(coefficients, 1), torch.cat([bases for _, bases in parts])


def _black(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " c"]:
    """The mean of the images' corners, of each channel; a constant."""
    corners = images.detach()[:, :, :: max(1, images.shape[2] - 1), :: max(1, images.shape[3] - 1)]
    return corners.flatten(2).mean((0, 2))


def with_stand_ins(setting: Setting, stream: RelatedTasks, number: int, key: Key) -> Setting:
    """The setting with a memory of which `number` stand-ins are recalled too, each of a task drawn by the key."""
    drawn = torch.stack([stream.shown(key(i)) for i in range(number)])
    (shown,) = together([drawn], setting.device)
    return replace(setting, parameterization=WithCompanions(setting.parameterization, shown))


def with_finished(setting: Setting, finished: Sequence[Params], number: int, key: Key) -> Setting:
    """The setting with `number` of the finished memories recalled too, drawn by the key; all where they are fewer."""
    drawn = key.permutation(len(finished))[:number].tolist()
    own = setting.parameterization
    if not isinstance(own, WithCompanions):
        own = WithCompanions(own, torch.empty(0, setting.shape.height * setting.shape.width, dtype=torch.int64))
    return replace(setting, parameterization=replace(own, finished=tuple(finished[i] for i in drawn)))
