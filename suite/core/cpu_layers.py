"""Memory layout and layers that are fast on a CPU, with equal values up to rounding.

On a CPU, torch's convolutions and pooling run up to several times faster in the channels-last layout. Weights that an
inner loop updates lose that layout, and torch's second derivative of a convolution does not give it back: a convolution
of `suite.core.convolution` brings its weights to it, in all three passes.

In that layout torch's group normalisation is slow, and its second derivative slower still: torch composes it of some
forty passes over the images. Written out it takes eleven. With x̂ = (x - mean) r, where mean and r = 1 / sqrt(variance
+ eps) are taken over the D numbers of a group, y = w x̂ + b, and P v = r (v - mean(v) - x̂ mean(v x̂)):

    gradients for g = dl/dy:            gx = P(w g),    gw = Σ g x̂,    gb = Σ g
    cotangents v, p, q of gx, gw, gb:   dφ/dg = w P(v) + p x̂ + q
                                        dφ/dw = Σ g P(v)
                                        dφ/dx = P(h) - r² K x̂,    h = p g - r (w g mean(v x̂) + v mean(w g x̂))
                                        K = mean(v w g) - mean(w g) mean(v) - mean(w g x̂) mean(v x̂)

Everything but the passes over g, v and x is arithmetic on tensors of shape (n, channels).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from suite.core.convolution import Kernels

CONVOLUTION = Kernels(channels_last=True, joined=False)
"""What convolutions ask of a CPU."""

PIECE = 40
"""Images of one forward pass on a CPU; the activations of more do not fit into its caches."""


def piece_of(images: int, device: torch.device) -> int:
    """How many of so many images pass at a time, where their losses can be added: PIECE on a CPU, all elsewhere.

    >>> piece_of(640, torch.device("cpu")), piece_of(640, torch.device("cuda"))
    (40, 640)
    """
    return min(images, PIECE) if device.type == "cpu" else images


class GroupNorm(nn.GroupNorm):
    """torch's group normalisation with this module's second derivative, for inputs of shape (n, channels, h, w).

    Instance normalisation has one group per channel. The layer shares the parameters of the layer it replaces. A third
    derivative raises RuntimeError.
    """

    def __init__(self, like: nn.GroupNorm) -> None:
        super().__init__(like.num_groups, like.num_channels, like.eps, device="meta")
        self.weight, self.bias = like.weight, like.bias

    def forward(self, x: Tensor) -> Tensor:
        """y of the same shape as x; an input that is no batch of images goes through torch's own."""
        if x.ndim != 4:
            return super().forward(x)
        y: Tensor = _Normalize.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return y


class _Normalize(Function):
    """y = w x̂ + b; saves mean and r instead of x̂."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        numbers = x[0].numel() // groups
        mean = _mean(_sum(x), groups, numbers)
        centred = x - _per_channel(mean)
        r = (_mean(_sum(centred * centred), groups, numbers) + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, r)
        ctx.sizes = groups, numbers
        scale = r * weight
        return torch.addcmul(_per_channel(bias - mean * scale), x, _per_channel(scale))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_NormalizeBackward.apply(g, *ctx.saved_tensors, *ctx.sizes), None, None


class _NormalizeBackward(Function):
    """(gx, gw, gb): functions of g, x and w, since mean and r are themselves functions of x."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, groups: int, numbers: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        g_sum = _sum(g)
        gx_sum = (_sum(g * x) - mean * g_sum) * r  # Σ g x̂
        slope = r * _mean(weight * gx_sum, groups, numbers)
        shift = _mean(weight * g_sum, groups, numbers)
        ctx.save_for_backward(g, x, weight, mean, r, g_sum, gx_sum)
        ctx.sizes = groups, numbers
        return (
            _combined((g, r * weight), (x, -r * slope), r * (slope * mean - shift)),
            gx_sum.sum(0),
            g_sum.sum(0),
        )

    @staticmethod
    def backward(ctx: Any, v: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # marked once_differentiable, autograd.grad would leave its part out in silence
            raise RuntimeError(
                "suite.core.cpu_layers has no third derivative of group normalisation; use torch's own layer"
            )
        g, x, weight, mean, r, g_sum, gx_sum = ctx.saved_tensors
        groups, numbers = ctx.sizes

        def mean_of(sums: Tensor) -> Tensor:
            return _mean(sums, groups, numbers)

        v_sum, vg_sum = _sum(v), _sum(v * g)
        vx_mean = mean_of((_sum(v * x) - mean * v_sum) * r)
        v_mean, g_mean, gx_mean = mean_of(v_sum), mean_of(weight * g_sum), mean_of(weight * gx_sum)
        k = mean_of(weight * vg_sum) - g_mean * v_mean - gx_mean * vx_mean

        # P(v) = r v - r (v_mean + x̂ vx_mean), and x̂ = r (x - mean): everything is a combination of g, v, x and 1.
        g_slope = r * (p - r * weight * vx_mean)
        d_g = _combined((v, r * weight), (x, g_slope), q - r * weight * v_mean - g_slope * mean)
        d_weight = (r * (vg_sum - v_mean * g_sum - vx_mean * gx_sum)).sum(0)
        h_mean = mean_of(p * g_sum) - r * (g_mean * vx_mean + gx_mean * v_mean)
        hx_mean = mean_of(p * gx_sum) - 2 * r * gx_mean * vx_mean
        x_slope = -r * r * (hx_mean + r * k)
        d_x = _combined((g, g_slope), (v, -r * r * gx_mean), (x, x_slope), -r * h_mean - x_slope * mean)
        return d_g, d_x, d_weight, None, None, None, None


def _combined(first: tuple[Tensor, Tensor], *rest: Any) -> Tensor:
    """a x + b y + … + c for images x, y, … and coefficients a, b, …, c of shape (n, channels)."""
    (images, factor), constant = first, rest[-1]
    total = torch.addcmul(_per_channel(constant), images, _per_channel(factor))
    for images, factor in rest[:-1]:
        total.addcmul_(images, _per_channel(factor))
    return total


def _sum(x: Tensor) -> Tensor:
    """The sum over pixels, of shape (n, channels)."""
    return x.sum((2, 3))


def _mean(sums: Tensor, groups: int, numbers: int) -> Tensor:
    """From sums over pixels to the mean over the channel's group, both of shape (n, channels)."""
    n, channels = sums.shape
    if groups == channels:
        return sums / numbers
    means = sums.view(n, groups, -1).sum(2) / numbers
    return means.repeat_interleave(channels // groups, dim=1)


def _per_channel(values: Tensor) -> Tensor:
    """(n, channels) -> (n, channels, 1, 1), to be broadcast over pixels."""
    return values[:, :, None, None]
