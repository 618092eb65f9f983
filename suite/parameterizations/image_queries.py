"""A memory that is asked with images: an extractor turns what is observed into the address of what is recalled."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from suite.architectures.convnet import ConvNet
from suite.errors import UsageError
from suite.keys import Key, global_generators
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.initial import Init, uniform
from suite.registry import parameterizations
from suite.types import Architecture, ImageShape, Parameterization, Params, QueryKind
from suite.validation import PositiveInt

PREFIX = "extractor."
"""Before the names of the extractor's weights among a memory's tensors."""


@parameterizations.register("image_queries")
@dataclass(frozen=True)
class ImageQueries:
    """Bases and addressing matrices whose query is the feature vector of an image: f(x)' A_j B (paper, A.3 and B.3).

    Every image x recalls `matrices` images. With K `bases` of p numbers and features of d numbers they store K p +
    `matrices` d K numbers, which `images_per_class` must afford; the weights of the `extractor` f, trained together
    with them, are told beside that budget (`addressed`). `dimension` d has f's linear head project its last maps to d
    numbers; None takes the maps' averages over their pixels. Behind an instance norm these are the same for all images
    but for a thousandth: such a memory recalls the same for every class, and has not learned otherwise here.
    """

    bases: PositiveInt = 64
    matrices: PositiveInt = 16
    extractor: Architecture = field(default_factory=ConvNet)
    dimension: PositiveInt | None = 100
    initialization: Init = "kaiming"
    query_kind: ClassVar[QueryKind] = "images"

    def numbers(self, shape: ImageShape) -> int:
        """Of bases and matrices, without the extractor's."""
        return self.bases * shape.numel + self.matrices * self._size(shape) * self.bases

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images that one image recalls."""
        budget, needed = math.floor(images_per_class * classes * shape.numel + 1e-6), self.numbers(shape)
        if needed > budget:
            raise UsageError(
                f"{self.bases} bases of {shape} and {self.matrices} matrices of {self._size(shape)} x {self.bases} are "
                f"{needed} numbers and the budget has {budget}; raise images_per_class to "
                f"{math.ceil(100 * needed / (classes * shape.numel)) / 100:g}, or lower bases or matrices"
            )
        return self.matrices

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        self.per_class(shape, classes, images_per_class)
        _skeleton(self, shape)  # refuses an extractor that mixes images
        size, (r, k) = self._size(shape), (self.matrices, self.bases)
        bases = uniform(k, shape.numel, self.initialization, key("bases"))
        with global_generators(key("extractor")):
            network = self.extractor.build(shape, self.dimension or 1)
        weights = {name: w.detach() for name, w in network.named_parameters() if self._used(name)}
        return {
            "bases": bases.view(k, shape.channels, shape.height, shape.width),
            "matrices": uniform(r * size, k, self.initialization, key("matrices")).view(r, size, k),
        } | {PREFIX + name: w for name, w in weights.items()}

    def features(self, memory: Params, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The queries of observed images."""
        bases = memory["bases"]
        if not images.is_floating_point() or images.shape[1:] != bases.shape[1:]:
            expected, given = ("x".join(map(str, tensor.shape[1:])) for tensor in (bases, images))
            queries = f"images of {given}" if images.is_floating_point() else "class numbers"
            raise UsageError(f"this memory is queried by images of {expected}, not by {queries}")
        network = _skeleton(self, ImageShape(*bases.shape[1:]))
        weights = {name[len(PREFIX) :]: w for name, w in memory.items() if name.startswith(PREFIX)}
        return functional_call(network, weights, (images,))

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n per_image c h w"]:
        return Addressing(self.bases).recall(memory, self.features(memory, queries))

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        return memory["bases"].new_zeros(())

    def _size(self, shape: ImageShape) -> int:
        return self.dimension or _features(self, shape)

    def _used(self, name: str) -> bool:
        return self.dimension is not None or not name.startswith("head.")


@dataclass(frozen=True, eq=False)
class Asked:
    """What a memory recalls for an episode: class i is asked for by row i of the queries."""

    own: Parameterization
    queries: Tensor
    """Classes x queries x what the memory is asked with."""
    images_per_class: float | None = None
    """The budget of a fresh one, of an episode's classes; for plans."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        each = self.own.per_class(shape, classes, self.images_per_class or images_per_class)
        return each * self.queries.shape[1]

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        return self.own.init(shape, classes, self.images_per_class or images_per_class, key)

    def recall(self, memory: Params, queries: Tensor) -> Tensor:
        asked = self.queries[queries]
        recalled = self.own.recall(memory, asked.flatten(0, 1))
        return recalled.view(len(queries), -1, *recalled.shape[2:])

    def penalty(self, memory: Params) -> Tensor:
        return self.own.penalty(memory)


def addressed(memory: Params) -> tuple[int, int]:
    """Stored numbers of a memory: those of bases and matrices, and those of its extractor."""
    sizes = {name: v.numel() for name, v in memory.items()}
    extractor = sum(size for name, size in sizes.items() if name.startswith(PREFIX))
    return sum(sizes.values()) - extractor, extractor


class _Averaged(nn.Module):
    """A network without its head: every map's mean over its pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.body = network.body

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        maps: Tensor = self.body(x)  # type: ignore[operator]
        return maps.flatten(2).mean(2) if maps.ndim > 2 else maps


@lru_cache(maxsize=8)
def _skeleton(of: ImageQueries, shape: ImageShape) -> nn.Module:
    """The extractor as a function of weights that are given to it."""
    with global_generators(Key(0)):
        network = of.extractor.build(shape, of.dimension or 1)
    dropout = any(getattr(part, "p", 0.0) for part in network.modules() if isinstance(part, nn.Dropout))
    if list(network.buffers()) or dropout:
        raise UsageError("ImageQueries.extractor must treat images one by one, without batch norm and dropout")
    if of.dimension is not None:
        return network
    if not isinstance(getattr(network, "body", None), nn.Module):
        raise UsageError("ImageQueries.dimension must be a number for an extractor that has no body to average over")
    return _Averaged(network)


@lru_cache(maxsize=8)
def _features(of: ImageQueries, shape: ImageShape) -> int:
    with torch.no_grad():
        return int(_skeleton(of, shape)(torch.zeros(1, shape.channels, shape.height, shape.width)).shape[1])
