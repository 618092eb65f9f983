"""Preprocessing of images: transforms that are fitted on training images only, stored, hashed and undone for display.

    none         pixels in [0, 1] as they are
    standardize  (x - mean_c) / std_c per channel, computed from the training part; published constants were computed
                 with the images that a validation split sets aside
    zca_image    the whitening of the paper's released code (paper, 4; KIP's and RaT-BPTT's kind)
    zca_feature  the whitening of kornia (MTT's, HaBa's and DATM's kind)

`fit` makes a transform; `restore` makes it again from what `describe()` and `tensors()` gave. uint8 images count as
pixels times 255, so that a data set need not exist as floats beside the result.

    >>> images = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1)
    >>> transform = fit("standardize", images, regularization=0.1)
    >>> transform.apply(images).flatten(), transform.display(transform.apply(images)).flatten()
    (tensor([-1.,  1.]), tensor([0.2500, 0.7500]))
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor

from suite.errors import RunError, UsageError
from suite.registry import suggestion
from suite.storage import sealed
from suite.storage.files import json_sha256
from suite.types import Params, Transform
from suite.validation import OneOf

PREPROCESSINGS = ("none", "standardize", "zca_image", "zca_feature")
"""Names of the preprocessings."""

PreprocessingName = Annotated[str, OneOf(PREPROCESSINGS)]
"""A field that names a preprocessing."""

CHUNK = 8 * 2**20
"""Numbers held in float64 at a time beside a covariance matrix."""

VERSION = 1
"""Raised whenever the same images would give another fit; stored fits are then made anew."""

Images = Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"]
"""Pixels in [0, 1], or bytes that are 255 times as large."""


# ---------------------------------------------------------------- transforms


@dataclass(frozen=True, eq=False)
class Identity:
    """Pixels in [0, 1] as they are."""

    name = "none"

    def apply(self, pixels: Images) -> Float[Tensor, "n c h w"]:
        """x, as floating point."""
        return _chunked(pixels, lambda x: x)

    def display(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """x, clamped to [0, 1]."""
        return images.clamp(0, 1)

    def tensors(self) -> Params:
        """Nothing was fitted."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Name, settings and the hash of what was fitted."""
        return _description(self.name, None, self.tensors())


@dataclass(frozen=True, eq=False)
class Standardize:
    """y = (x - mean_c) / std_c for every channel c, both over the training pixels; a constant channel is only moved."""

    mean: Float64[Tensor, " c"]
    """Of each channel's training pixels."""
    std: Float64[Tensor, " c"]
    """Of each channel's training pixels; 1 for a constant channel."""
    name = "standardize"

    def apply(self, pixels: Images) -> Float[Tensor, "n c h w"]:
        """(x - mean_c) / std_c."""
        mean, std = _columns(pixels, self.mean), _columns(pixels, self.std)
        return _chunked(pixels, lambda x: (x - mean) / std)

    def display(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """y std_c + mean_c, clamped to [0, 1]."""
        mean, std = _columns(images, self.mean), _columns(images, self.std)
        return _chunked(images, lambda y: (y * std + mean).clamp(0, 1))

    def tensors(self) -> Params:
        """`mean` and `std`, of every channel."""
        return {"mean": self.mean, "std": self.std}

    def describe(self) -> dict[str, Any]:
        """Name, settings and the hash of what was fitted."""
        return _description(self.name, None, self.tensors())


@dataclass(frozen=True, eq=False)
class ZCAImage:
    """y = u M, u = (x - its mean) / its norm for each image; M = V diag((e + λ)^-½) Vᵀ, λ = regularization · mean(e).

    e and V are the eigenvalues and vectors of UᵀU / n over the training images, whose mean image is not removed. Images
    that are constant become zero. Display gives u again, rescaled to [0, 1]: brightness and contrast are gone.
    """

    whitening: Float32[Tensor, "d d"]
    """M, for flattened images of d pixels."""
    regularization: float
    """λ over the mean eigenvalue."""
    name = "zca_image"

    def apply(self, pixels: Images) -> Float[Tensor, "n c h w"]:
        """u M."""
        matrix = self.whitening.to(pixels.device, torch.float64)
        return _chunked(pixels, lambda x: (_unit(x.flatten(1)) @ matrix).reshape(x.shape))

    def display(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """u = y M⁻¹, each image rescaled to [0, 1]."""
        inverse = self.inverse.to(images.device)

        def undo(y: Tensor) -> Tensor:
            u = y.flatten(1) @ inverse
            low, high = u.amin(1, keepdim=True), u.amax(1, keepdim=True)
            span = high - low
            return ((u - low) / torch.where(span > 0, span, 1)).reshape(y.shape)

        return _chunked(images, undo)

    @cached_property
    def inverse(self) -> Float64[Tensor, "d d"]:
        """M⁻¹ = V diag((e + λ)^½) Vᵀ, found from M when an image is first displayed."""
        return torch.linalg.inv(self.whitening.double())

    def tensors(self) -> Params:
        """`whitening`, M."""
        return {"whitening": self.whitening}

    def describe(self) -> dict[str, Any]:
        """Name, settings and the hash of what was fitted."""
        return _description(self.name, self.regularization, self.tensors())


@dataclass(frozen=True, eq=False)
class ZCAFeature:
    """y = (x - mean) M, mean of every pixel position over the training images; M = V diag((e + regularization)^-½) Vᵀ.

    e and V are the eigenvalues and vectors of the covariance, divided by n - 1. Display undoes it exactly.
    """

    mean: Float64[Tensor, " d"]
    """Of each pixel position's training pixels."""
    whitening: Float32[Tensor, "d d"]
    """M, for flattened images of d pixels."""
    regularization: float
    """Added to every eigenvalue."""
    name = "zca_feature"

    def apply(self, pixels: Images) -> Float[Tensor, "n c h w"]:
        """(x - mean) M."""
        mean, matrix = self.mean.to(pixels.device), self.whitening.to(pixels.device, torch.float64)
        return _chunked(pixels, lambda x: ((x.flatten(1) - mean) @ matrix).reshape(x.shape))

    def display(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """y M⁻¹ + mean, clamped to [0, 1]."""
        mean, inverse = self.mean.to(images.device), self.inverse.to(images.device)
        return _chunked(images, lambda y: (y.flatten(1) @ inverse + mean).clamp(0, 1).reshape(y.shape))

    @cached_property
    def inverse(self) -> Float64[Tensor, "d d"]:
        """M⁻¹ = V diag((e + regularization)^½) Vᵀ, found from M when an image is first displayed."""
        return torch.linalg.inv(self.whitening.double())

    def tensors(self) -> Params:
        """`mean` and `whitening`, M."""
        return {"mean": self.mean, "whitening": self.whitening}

    def describe(self) -> dict[str, Any]:
        """Name, settings and the hash of what was fitted."""
        return _description(self.name, self.regularization, self.tensors())


# ---------------------------------------------------------------- fitting


def fit(name: str, pixels_train: Images, regularization: float) -> Transform:
    """The transform called `name`, fitted on training images; `regularization` is used by the two ZCA kinds.

    Raises UsageError for an unknown name, and RunError where ZCA sees constant images alone.
    """
    if name == "none":
        return Identity()
    if name == "standardize":
        return _fit_standardize(pixels_train)
    if name == "zca_image":
        return _fit_zca_image(pixels_train, regularization)
    if name == "zca_feature":
        return _fit_zca_feature(pixels_train, regularization)
    raise UsageError(f"no preprocessing is called '{name}'; {suggestion(name, list(PREPROCESSINGS))}")


def fit_stored(name: str, pixels_train: Images, regularization: float, cache_dir: Path) -> Transform:
    """`fit`, with the slow ZCA fits kept in `cache_dir` under a hash of the images and settings they depend on."""
    if not name.startswith("zca"):
        return fit(name, pixels_train, regularization)
    about: sealed.About = {"kind": name, "regularization": regularization, "version": VERSION}
    about["images"] = sealed.digest({"pixels": pixels_train})

    def build() -> tuple[Params, sealed.About]:
        fitted = fit(name, pixels_train, regularization)
        return fitted.tensors(), about | {"description": fitted.describe()}

    stored = sealed.stored(cache_dir / f"{name}-{json_sha256(about)[:16]}.safetensors", build)
    return restore(stored.about["description"], stored.tensors)


def moved(images: Float[Tensor, "n c h w"], of: Transform, to: Transform) -> Float[Tensor, "n c h w"]:
    """Images of one preprocessing as another of the same kind would have made them, nothing clamped or rescaled.

    Of `zca_image`: y M_of⁻¹ M_to, so that an image's norm before whitening stays what it is. Raises UsageError for
    preprocessings of different kinds.
    """
    if isinstance(of, Standardize) and isinstance(to, Standardize):
        mean, std = _columns(images, of.mean), _columns(images, of.std)
        new_mean, new_std = _columns(images, to.mean), _columns(images, to.std)
        return _chunked(images, lambda y: (y * std + mean - new_mean) / new_std)
    if isinstance(of, ZCAImage) and isinstance(to, ZCAImage):
        matrix = (of.inverse @ to.whitening.double()).to(images.device)
        return _chunked(images, lambda y: (y.flatten(1) @ matrix).reshape(y.shape))
    if isinstance(of, ZCAFeature) and isinstance(to, ZCAFeature):
        matrix = (of.inverse @ to.whitening.double()).to(images.device)
        shift = ((of.mean - to.mean) @ to.whitening.double()).to(images.device)
        return _chunked(images, lambda y: (y.flatten(1) @ matrix + shift).reshape(y.shape))
    if isinstance(of, Identity) and isinstance(to, Identity):
        return images
    raise UsageError(f"images of the preprocessing '{of.name}' can't be taken to '{to.name}'")


def pixels_of(images: Float[Tensor, "n c h w"], of: Transform) -> Float[Tensor, "n c h w"]:
    """The pixels that a preprocessing would have made these images of, as far outside [0, 1] as they are.

    Raises UsageError for `zca_image`, which keeps no brightness and contrast.
    """
    if isinstance(of, Identity):
        return images
    if isinstance(of, Standardize):
        mean, std = _columns(images, of.mean), _columns(images, of.std)
        return _chunked(images, lambda y: y * std + mean)
    if isinstance(of, ZCAFeature):
        mean, inverse = of.mean.to(images.device), of.inverse.to(images.device)
        return _chunked(images, lambda y: (y.flatten(1) @ inverse + mean).reshape(y.shape))
    raise UsageError(f"the preprocessing '{of.name}' keeps no brightness and contrast, so pixels can't be had of it")


def restore(description: dict[str, Any], tensors: Params) -> Transform:
    """The transform that gave this description and these tensors.

    Raises RunError where the tensors are not the described ones, or the description is of no known transform.
    """
    name: Any = description.get("name")
    regularization: Any = description.get("regularization")
    sha256 = sealed.digest(tensors)
    if sha256 != description.get("sha256"):
        raise RunError(
            f"the tensors of the preprocessing '{name}' have SHA-256 {sha256}, not {description.get('sha256')} as "
            "described; take the tensors and the description from the same file"
        )
    transforms: dict[str, Callable[..., Transform]] = {
        "none": lambda: Identity(),
        "standardize": lambda: Standardize(**tensors),
        "zca_image": lambda: ZCAImage(**tensors, regularization=float(regularization)),
        "zca_feature": lambda: ZCAFeature(**tensors, regularization=float(regularization)),
    }
    try:
        return transforms[name]()
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the preprocessing '{name}' with tensors {sorted(tensors)} is none of {', '.join(PREPROCESSINGS)}; "
            "use the version of the suite that wrote it"
        ) from error


def _fit_standardize(pixels: Images) -> Standardize:
    count = pixels.numel() // pixels.shape[1]
    mean = torch.stack([x.sum((0, 2, 3)) for x in _chunks(pixels)]).sum(0) / count
    column = mean.reshape(-1, 1, 1)
    variance = torch.stack([((x - column) ** 2).sum((0, 2, 3)) for x in _chunks(pixels)]).sum(0) / count
    # Of bytes, one that differs moves the deviation by more than this; what is below it is rounding.
    return Standardize(mean, torch.where(variance.sqrt() > 1e-9, variance.sqrt(), 1))


def _fit_zca_image(pixels: Images, regularization: float) -> ZCAImage:
    covariance = _second_moment(pixels, _unit) / len(pixels)
    values, vectors = _eigen(covariance)
    return ZCAImage(_inverse_root(values, vectors, regularization * float(values.mean())), float(regularization))


def _fit_zca_feature(pixels: Images, regularization: float) -> ZCAFeature:
    mean = torch.stack([x.flatten(1).sum(0) for x in _chunks(pixels)]).sum(0) / len(pixels)
    covariance = _second_moment(pixels, lambda x: x - mean) / max(len(pixels) - 1, 1)
    values, vectors = _eigen(covariance)
    return ZCAFeature(mean, _inverse_root(values, vectors, regularization), float(regularization))


# ---------------------------------------------------------------- arithmetic


def _unit(x: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """Each image less its own mean, divided by its own norm; zero for an image without contrast."""
    centred = x - x.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    # What rounding leaves of a constant image is no picture: contrast below it counts as none.
    seen = norm > 1e-12 * x.norm(dim=1, keepdim=True)
    return torch.where(seen, centred / torch.where(seen, norm, 1), 0)


def _second_moment(pixels: Images, prepare: Callable[[Tensor], Tensor]) -> Float64[Tensor, "d d"]:
    """Sum of xᵀx over prepared, flattened images, a bounded number of them at a time."""
    d = pixels[0].numel()
    total = torch.zeros(d, d, dtype=torch.float64, device=pixels.device)
    for chunk in _chunks(pixels):
        x = prepare(chunk.flatten(1))
        total.addmm_(x.T, x)
    return total


def _eigen(covariance: Float64[Tensor, "d d"]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    """Eigenvalues, those that rounding made negative raised to 0, and eigenvectors of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.clamp_min(0), vectors


def _inverse_root(
    values: Float64[Tensor, " d"], vectors: Float64[Tensor, "d d"], ridge: float
) -> Float32[Tensor, "d d"]:
    """V diag((e + ridge)^-½) Vᵀ, rounded once, so that the matrix in use is the matrix that is stored."""
    if not ridge > 0:  # only images without any contrast have a zero trace
        raise RunError("zca can't be fitted: every training image is constant; use another preprocessing for them")
    return ((vectors * (values + ridge).rsqrt()) @ vectors.T).float()


def _chunks(images: Images) -> Iterator[Float64[Tensor, "n c h w"]]:
    """The images as float64 pixels, a bounded number at a time."""
    for part in images.split(max(1, CHUNK // max(1, images[0].numel())) if len(images) else 1):
        yield part.double() / 255 if part.dtype == torch.uint8 else part.double()


def _chunked(images: Images, change: Callable[[Tensor], Tensor]) -> Float[Tensor, "n c h w"]:
    """Every image changed in float64; float32 comes out of uint8, else the type that went in."""
    dtype = torch.float32 if images.dtype == torch.uint8 else images.dtype
    changed = torch.empty(images.shape, dtype=dtype, device=images.device)
    start = 0
    for part in _chunks(images):
        changed[start : start + len(part)] = change(part)
        start += len(part)
    return changed


def _columns(images: Images, each: Float64[Tensor, " c"]) -> Float64[Tensor, "c 1 1"]:
    return each.to(images.device).reshape(-1, 1, 1)


def _description(name: str, regularization: float | None, tensors: Params) -> dict[str, Any]:
    settings = {} if regularization is None else {"regularization": regularization}
    return {"name": name} | settings | {"sha256": sealed.digest(tensors)}
