"""A memory queried by images: an extractor turns an observed image into the address of the images that are recalled."""

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
from suite.parameterizations.addressing import Addressing, budget_numbers
from suite.parameterizations.initial import Init, uniform
from suite.registry import ADDED, parameterizations
from suite.types import Architecture, ImageShape, Parameterization, Params, QueryKind
from suite.validation import PositiveInt

PREFIX = "extractor."
"""Before the names of the extractor's weights among a memory's tensors."""
FACTOR, SHIFT = PREFIX + "(factor)", PREFIX + "(shift)"  # no module can give such names
"""The two tensors of d numbers that standardise features: f(x) factor + shift."""


PIECE = 256
"""Images whose features are taken at a time to standardise them."""


@parameterizations.register("image_queries")
@dataclass(frozen=True)
class ImageQueries:
    """Bases and addressing matrices whose query is the feature vector of an image: f(x)' A_j B (paper, A.3 and B.3).

    Every image x recalls `matrices` images. With K `bases` of p numbers and features of d numbers they store K p +
    `matrices` d K numbers, which `images_per_class` must afford; the weights of the extractor f, trained together with
    them, are counted apart from that budget (`addressed`).

    >>> by_images = ImageQueries(bases=4, matrices=2, extractor=ConvNet(width=8), dimension=5)
    >>> memory = by_images.init(ImageShape(1, 8, 8), classes=10, images_per_class=1, key=Key(0))
    >>> memory["matrices"].shape, by_images.recall(memory, torch.zeros(3, 1, 8, 8)).shape
    (torch.Size([2, 5, 4]), torch.Size([3, 2, 1, 8, 8]))
    """

    bases: PositiveInt = 64
    """K."""
    matrices: PositiveInt = 16
    """Images that one image recalls."""
    extractor: Architecture = field(default_factory=ConvNet)
    """f; it must treat images one by one, without batch norm and dropout."""
    dimension: PositiveInt | None = 100
    """d, to which f's linear head projects its last maps; None takes the maps' means over their pixels. Behind an
    instance norm these are the same for all images but for a thousandth: such a memory recalls the same for every
    class, and has not learned otherwise here."""
    initialization: Init = "kaiming"
    """Distribution of the first values of bases and matrices, see `initial.uniform`."""
    standardized: bool = field(default=False, metadata=ADDED)
    """Whether features start with mean 0 and deviation 1 on training images: each is multiplied by a factor and shifted
    by a number that are learned on from there, 2 d numbers of the extractor's. Means of maps need it most."""
    softmax: bool = field(default=False, metadata=ADDED)
    """Whether the query is the softmax of f(x), so that an image recalls a mean of the matrices' rows. Not in the
    paper. A start from images needs it, and `dimension` of at least as many as there are classes."""
    query_kind: ClassVar[QueryKind] = "images"
    """Its memory is queried by images, not by class labels."""

    def numbers(self, shape: ImageShape) -> int:
        """Stored numbers of bases and matrices, without the extractor's: K p + matrices d K."""
        return self.bases * shape.numel + self.matrices * self._dimension(shape) * self.bases

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images that one image recalls; UsageError where the budget does not afford bases and matrices."""
        budget, needed = budget_numbers(shape, classes, images_per_class), self.numbers(shape)
        d = self._dimension(shape)
        if needed > budget:
            raise UsageError(
                f"{self.bases} bases of {shape} and {self.matrices} matrices of {d} x {self.bases} are "
                f"{needed} numbers and the budget has {budget}; raise images_per_class to "
                f"{math.ceil(100 * needed / (classes * shape.numel)) / 100:g}, or lower bases or matrices"
            )
        return self.matrices

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """`bases` (K c h w), `matrices` (matrices d K) and the extractor's weights, named `extractor.…`.

        Raises UsageError for an extractor with batch norm or dropout, and as `per_class` does.
        """
        self.per_class(shape, classes, images_per_class)
        _skeleton(self, shape)  # refuses an extractor that mixes images
        d, (r, k) = self._dimension(shape), (self.matrices, self.bases)
        bases = uniform(k, shape.numel, self.initialization, key("bases"))
        with global_generators(key("extractor")):
            network = self.extractor.build(shape, self.dimension or 1)
        weights = {PREFIX + name: w.detach() for name, w in network.named_parameters() if self._used(name)}
        if self.standardized:
            weights |= {FACTOR: torch.ones(d), SHIFT: torch.zeros(d)}
        return {
            "bases": bases.view(k, shape.channels, shape.height, shape.width),
            "matrices": uniform(r * d, k, self.initialization, key("matrices")).view(r, d, k),
        } | weights

    def standardize(self, memory: Params, images: Float[Tensor, "n c h w"]) -> Params:
        """The memory whose features have mean 0 and deviation 1 on these images; as it is, unless `standardized`.

        A feature that is the same for all of them keeps its factor of 1.
        """
        if not self.standardized:
            return memory
        device = memory["bases"].device
        with torch.no_grad():
            pieces = [self._raw_features(memory, piece.to(device)) for piece in images.split(PIECE)]
        raw = torch.cat(pieces).double()
        mean, deviation = raw.mean(0), raw.std(0, correction=0)
        factor = torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation, 1.0)
        return memory | {FACTOR: factor.to(memory[FACTOR]), SHIFT: (-mean * factor).to(memory[SHIFT])}

    def taught(self, memory: Params, classifier: Params, images: Float[Tensor, "classes matrices c h w"]) -> Params:
        """The memory that recalls, for an image x, the sum over classes c of p_c(x) times the images given for c.

        Its extractor becomes a classifier of d outputs, whose weights are given by name and of which the first C tell
        the classes: p is their softmax. Row c of matrix A_j has the coefficients of the class's j-th image, of which
        the K bases keep what they can (`Addressing.fitted`). Raises UsageError unless `softmax` without `standardized`,
        for fewer outputs than classes, and for the weights of another network than the extractor.
        """
        if not self.softmax or self.standardized:
            raise UsageError("a start from images needs image_queries.softmax = True, and standardized = False")
        r, d, k = memory["matrices"].shape
        if self.dimension is None or d < len(images):
            raise UsageError(
                f"image_queries.dimension must be {len(images)}, the classes, or more, not {self.dimension}"
            )
        shapes = {name[len(PREFIX) :]: v.shape for name, v in memory.items() if name.startswith(PREFIX)}
        if {name: w.shape for name, w in classifier.items()} != shapes:
            raise UsageError(
                "a start from images needs a classifier of image_queries.extractor with `dimension` outputs"
            )
        by_label = {"bases": memory["bases"].cpu(), "matrices": torch.zeros(r, len(images), k)}
        fitted = Addressing(k).fitted(by_label, images.cpu())
        matrices = torch.zeros(r, d, k)
        matrices[:, : len(images)] = fitted["matrices"]
        weights = {PREFIX + name: w for name, w in classifier.items()}
        made = {"bases": fitted["bases"], "matrices": matrices} | weights
        return memory | {name: v.to(memory[name]) for name, v in made.items()}

    def features(self, memory: Params, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """f(x), the queries of observed images; UsageError for class numbers and images of another shape."""
        bases = memory["bases"]
        if not images.is_floating_point() or images.shape[1:] != bases.shape[1:]:
            expected, given = ("x".join(map(str, tensor.shape[1:])) for tensor in (bases, images))
            queries = f"images of {given}" if images.is_floating_point() else "class numbers"
            raise UsageError(f"this memory is queried by images of {expected}, not by {queries}")
        raw = self._raw_features(memory, images)
        scores = raw * memory[FACTOR] + memory[SHIFT] if self.standardized else raw
        return scores.softmax(1) if self.softmax else scores

    def _raw_features(self, memory: Params, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Those of the extractor as it is."""
        network = _skeleton(self, ImageShape(*memory["bases"].shape[1:]))
        of_network = {name for name in memory if name.startswith(PREFIX)} - {FACTOR, SHIFT}
        return functional_call(network, {name[len(PREFIX) :]: memory[name] for name in of_network}, (images,))

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n per_image c h w"]:
        """f(x)' A_j B for every image x and matrix A_j."""
        return Addressing(self.bases).recall(memory, self.features(memory, queries))

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """0."""
        return memory["bases"].new_zeros(())

    def _dimension(self, shape: ImageShape) -> int:
        return self.dimension or _features(self, shape)

    def _used(self, name: str) -> bool:
        return self.dimension is not None or not name.startswith("head.")


@dataclass(frozen=True, eq=False)
class Asked:
    """A parameterization for an episode: class i recalls what the memory recalls for row i of the queries."""

    parameterization: Parameterization
    """Of the memory."""
    queries: Tensor
    """Classes x queries of each x what the memory is queried by."""
    images_per_class: float | None = None
    """The budget of a fresh memory in images of each of the episode's classes, for plans; None takes what is given."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images recalled for each class: those of one query, times the queries of a class."""
        each = self.parameterization.per_class(shape, classes, self.images_per_class or images_per_class)
        return each * self.queries.shape[1]

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """A fresh memory of the parameterization."""
        return self.parameterization.init(shape, classes, self.images_per_class or images_per_class, key)

    def recall(self, memory: Params, queries: Tensor) -> Tensor:
        """The images of each class number, of all its queries together."""
        recalled = self.parameterization.recall(memory, self.queries[queries].flatten(0, 1))
        return recalled.view(len(queries), -1, *recalled.shape[2:])

    def penalty(self, memory: Params) -> Tensor:
        """That of the parameterization."""
        return self.parameterization.penalty(memory)


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
    dropout = any(part.p for part in network.modules() if isinstance(part, nn.Dropout))
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
