"""The losses of an unroll on the batches that an outer step has drawn, and their programs on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, device, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core import trees
from suite.core.captured import CapturedHypergradient
from suite.core.cpu_layers import piece_of
from suite.core.networks import fresh_network, network_identity
from suite.core.unroll import InnerLoop, OuterLoss
from suite.errors import UsageError
from suite.keys import Key
from suite.registry import fingerprint
from suite.types import Optimizer, Params, Setting


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


@dataclass(frozen=True, eq=False)
class Problem:
    """Inner and outer loss of one network on the batches of an outer step."""

    network: nn.Module
    """Whose parameters are given to each loss."""
    batches: Batches
    """What the losses are taken on."""
    bfloat16: bool
    """Whether products are taken in bfloat16, by autocast."""

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
        taught = inputs["labels"].index_select(0, rows) if "labels" in inputs else labels
        return cross_entropy(self.scores(params, inputs["images"].index_select(0, rows)), taught)

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


# ------------------------------------------------------------ programs


@runtime_checkable
class Unroll(Protocol):
    """What a program needs to know of an objective, a frozen dataclass."""

    @property
    def inner_optimizer(self) -> Optimizer:
        """Trains the network."""
        ...

    @property
    def inner_steps(self) -> int:
        """Steps of the inner loop."""
        ...

    @property
    def execution(self) -> str:
        """'captured' or 'compiled'."""
        ...

    @property
    def rewritten(self) -> bool:
        """Whether the network gets layers of our own (`suite.core.cpu_layers`)."""
        ...


PROGRAMS = 2
"""Programs kept at most: each holds all states of its unroll on the device."""

_programs: dict[tuple[object, ...], tuple[Problem, CapturedHypergradient]] = {}
"""By objective, network and sizes, least recently used first; before each the problem whose data it reads."""


def program(objective: Unroll, setting: Setting, problem: Problem, inputs: Params) -> CapturedHypergradient:
    """The program of all outer steps of the size of this problem and of what is recalled, filled with its data."""
    sizes = problem.batches.rows.shape, len(problem.batches.real), *((k, len(v)) for k, v in inputs.items())
    identity = (fingerprint(objective), *network_identity(setting), *sizes)
    built = _programs.pop(identity, None) or _built(objective, setting, problem, inputs)
    while len(_programs) >= PROGRAMS:
        del _programs[next(iter(_programs))]
    _programs[identity] = built
    fixed_problem, captured = built
    fixed_problem.batches.fill(problem.batches)
    return captured


def _built(
    objective: Unroll, setting: Setting, problem: Problem, inputs: Params
) -> tuple[Problem, CapturedHypergradient]:
    """A program and the problem it reads, on tensors of their own, of which a captured graph keeps the addresses."""
    network = fresh_network(setting, Key(0), objective.rewritten)
    still = Problem(network, problem.batches.empty(), problem.bfloat16)
    params: Params = dict(network.named_parameters())
    loop = InnerLoop(still.inner_loss, objective.inner_optimizer, trees.zeros_like(inputs))
    how = objective.inner_steps, objective.execution == "compiled"
    return still, CapturedHypergradient(loop, still.outer_losses(), params, *how)
