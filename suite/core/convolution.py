"""A convolution whose first and second derivatives are made of the kernels that torch has for the first.

With y = x * w + b, l(x, w, b) its loss, * the convolution, and (gx, gw) = back(g; x, w) its gradients for g = dl/dy,
the cotangents v, p, q of gx, gw, gb give

    dφ/dg = v * w + x * p + q,    dφ/dx = gx of back(g; x, p),    dφ/dw = gw of back(g; v, w)

torch takes the last by a convolution whose filter is a whole output map, for which its libraries have no fast kernel.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


@dataclass(frozen=True)
class Kernels:
    """How a device is asked for convolutions."""

    channels_last: bool
    """Whether weights are brought to channels-last layout in every pass."""
    joined: bool
    """Whether v * w + x * p is taken as one convolution, [v, x] * [w, p], where all channels are one group."""


@dataclass(frozen=True)
class _Sizes:
    """A convolution's numbers, as torch names them, and its kernels."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    kernels: Kernels

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x * w + b."""
        return torch.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False, (0, 0), self.groups
        )  # fmt: skip

    def back(self, g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> Any:
        """(gx, gw, gb), None where not wanted."""
        sizes = self.stride, self.padding, self.dilation, False, (0, 0), self.groups
        return torch.ops.aten.convolution_backward(g, x, weight, [weight.shape[0]], *sizes, wanted)

    def laid_out(self, weight: Tensor) -> Tensor:
        """The weights as the kernels want them."""
        # By its stride, since a contiguous tensor of one channel passes for either layout.
        if not self.kernels.channels_last or weight.stride(1) == 1:
            return weight
        return weight.clone(memory_format=torch.channels_last)


class Conv2d(nn.Conv2d):
    """torch's convolution with this module's derivatives, for inputs of shape (n, channels, h, w).

    The layer shares the parameters of the layer it replaces. A third derivative raises RuntimeError.
    """

    def __init__(self, like: nn.Conv2d, kernels: Kernels) -> None:
        names = "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"
        sizes: dict[str, Any] = {name: getattr(like, name) for name in names}
        super().__init__(**sizes, bias=like.bias is not None, device="meta")
        self.weight, self.bias, self._kernels = like.weight, like.bias, kernels

    def forward(self, x: Tensor) -> Tensor:
        """y, as torch's own layer gives it, which takes what is no batch of images and what autocast is to cast."""
        if x.ndim != 4 or torch.is_autocast_enabled(x.device.type) or isinstance(self.padding, str):
            return super().forward(x)
        sizes = _Sizes(self.stride, self.padding, self.dilation, self.groups, self._kernels)
        y: Tensor = _Convolve.apply(x, sizes.laid_out(self.weight), self.bias, sizes)
        return y


def replaceable(layer: nn.Module) -> bool:
    """Whether `Conv2d` can take a layer's place: torch's own, with zeros around the image, as many as a number says."""
    return type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


class _Convolve(Function):
    """y = x * w + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sizes: _Sizes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        return sizes.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        wanted = list(ctx.needs_input_grad[:3])
        return *_ConvolveBackward.apply(g, *ctx.saved_tensors, ctx.sizes, wanted), None


class _ConvolveBackward(Function):
    """(gx, gw, gb): functions of g, x and w."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, sizes: _Sizes, wanted: list[bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, weight)
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)  # nobody asks for the gradient in images of an inner step
        gradients: tuple[Tensor | None, ...] = sizes.back(g, x, weight, wanted)
        return gradients

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, p: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # marked once_differentiable, autograd.grad would leave its part out in silence
            raise RuntimeError("suite.core.convolution has no third derivative; use torch's own layer")
        g, x, weight = ctx.saved_tensors
        sizes: _Sizes = ctx.sizes
        p = None if p is None else sizes.laid_out(p)
        d_x = None if p is None else sizes.back(g, x, p, [True, False, False])[0]
        d_weight = None if v is None else sizes.back(g, v, weight, [False, True, False])[1]
        return _d_g(g, x, weight, v, p, q, sizes), d_x, d_weight, None, None


def _d_g(
    g: Tensor, x: Tensor, weight: Tensor, v: Tensor | None, p: Tensor | None, q: Tensor | None, sizes: _Sizes
) -> Tensor | None:
    """v * w + x * p + q."""
    if v is not None and p is not None and sizes.kernels.joined and sizes.groups == 1:
        return sizes.forward(torch.cat([v, x], 1), torch.cat([weight, p], 1), q)
    d_g = None
    if p is not None:
        d_g = sizes.forward(x, p, None)
    if v is not None:
        through = sizes.forward(v, weight, None)
        d_g = through if d_g is None else d_g.add_(through)
    if q is not None:
        each = q[None, :, None, None]
        d_g = each.expand_as(g) if d_g is None else d_g.add_(each)
    return d_g
