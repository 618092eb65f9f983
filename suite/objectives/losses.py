"""The losses of an unroll on the batches that an outer step has drawn."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, device, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core.cpu_layers import piece_of
from suite.core.unroll import OuterLoss
from suite.errors import UsageError
from suite.types import Params


@dataclass(frozen=True, eq=False)
class Batches:
    """What an outer step shows its network."""

    rows: Int64[Tensor, "steps batch"]
    """Of the recalled images, for each inner step."""
    labels: Int64[Tensor, "steps batch"]
    """Of the images in `rows`, for memories without labels of their own."""
    real: Float[Tensor, "n c h w"]
    """Images of the outer loss."""
    real_labels: Int64[Tensor, " n"]
    """Of the images in `real`."""

    def empty(self) -> "Batches":
        """Zeros of the same sizes."""
        return Batches(*(v.new_zeros(v.shape) for v in vars(self).values()))

    def fill(self, other: "Batches") -> None:
        """Take over another's numbers, in place."""
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name))

    def steps(self, first: int, end: int) -> "Batches":
        """Those of the inner steps `first`, ..., `end` - 1: views, with the same real images."""
        return replace(self, rows=self.rows[first:end], labels=self.labels[first:end])


@dataclass(frozen=True, eq=False)
class Problem:
    """Inner and outer loss of one network on the batches of an outer step."""

    network: nn.Module
    """Whose parameters are given to each loss."""
    batches: Batches
    """What the losses are taken on."""
    bfloat16: bool
    """Whether products are taken in bfloat16, by autocast."""
    whole: bool = False
    """Whether every step shows all recalled images in their order, so that nothing needs to be gathered."""

    def scores(self, params: Params, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The network's logits, in the images' precision."""
        # Without its cache, autocast keeps no cast weight from one step or captured graph to the next.
        with torch.autocast(images.device.type, torch.bfloat16, self.bfloat16, cache_enabled=False):
            scores: Tensor = functional_call(self.network, params, (images,))
        return scores.to(images.dtype)

    def inner_loss(self, params: Params, inputs: Params, t: int | Tensor) -> Float[Tensor, ""]:
        """Mean cross-entropy on the recalled images of inner step t, to the `labels` among the inputs if there are."""
        parts = self.batches.rows, self.batches.labels
        rows, labels = (v[t] if isinstance(t, int) else v.index_select(0, t)[0] for v in parts)
        of_images = {k: inputs[k] for k in ("images", "labels") if k in inputs}
        shown = of_images if self.whole else {k: v.index_select(0, rows) for k, v in of_images.items()}
        return cross_entropy(self.scores(params, shown["images"]), shown.get("labels", labels))

    def outer_losses(self) -> list[OuterLoss]:
        """Mean cross-entropy on the real images, in parts whose activations stay in a CPU's caches."""
        real, labels = self.batches.real, self.batches.real_labels
        piece = piece_of(len(real), real.device)

        def loss(images: Tensor, labels: Tensor, params: Params) -> Tensor:
            return cross_entropy(self.scores(params, images), labels, reduction="sum") / len(real)

        return [partial(loss, *both) for both in zip(real.split(piece), labels.split(piece), strict=True)]


@contextmanager
def tf32(where: device, wanted: bool) -> Iterator[None]:
    """Where wanted, products of float32 with 10 bits of mantissa on a GPU, and afterwards what there was before."""
    if not wanted:
        yield
        return
    if where.type != "cuda":
        raise UsageError("BPTT.precision 'tf32' is a GPU's; on a CPU use float32 or bfloat16")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
