"""The same network, faster: the memory layout and the layers that suit a device, with equal values up to rounding.

On a CPU, torch's convolutions and pooling run up to several times faster with the channels innermost, where its group
normalisation is slow, and slower still to differentiate twice: torch composes the second derivative of some forty
passes over the images. Written out it takes eleven. With x̂ = (x - mean) r over the D numbers of a group, y = w x̂ + b,
and P v = r (v - mean(v) - x̂ mean(v x̂)):

    gradients for g = dl/dy:            gx = P(w g),    gw = Σ g x̂,    gb = Σ g
    cotangents v, p, q of gx, gw, gb:   dφ/dg = w P(v) + p x̂ + q
                                        dφ/dw = Σ g P(v)
                                        dφ/dx = P(h) - r² K x̂,    h = p g - r (w g mean(v x̂) + v mean(w g x̂))
                                        K = mean(v w g) - mean(w g) mean(v) - mean(w g x̂) mean(v x̂)

Everything but the passes over g, v and x is arithmetic on one number for each image and channel.
"""

from typing import Any

import torch
from torch import Tensor, device, nn
from torch.autograd import Function

PIECE = 40
"""Images that a network on a CPU is given at once: the activations of more leave its caches."""


def to_device(network: nn.Module, where: device, rewritten: bool = True) -> nn.Module:
    """The network itself, moved to a device and made fast on it; names, values and gradients of its parameters stay.

    `rewritten` False keeps torch's own layers, which function transforms and torch.compile can take apart.
    """
    network = network.to(where)
    if where.type != "cpu":
        return network
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if rewritten and type(child) is nn.GroupNorm and child.affine:
                setattr(parent, name, GroupNorm(child))
    return network.to(memory_format=torch.channels_last)


class GroupNorm(nn.GroupNorm):
    """torch's group normalisation of images with this module's second derivative (instance norm: a group a channel)."""

    def __init__(self, like: nn.GroupNorm) -> None:
        super().__init__(like.num_groups, like.num_channels, like.eps, device="meta")
        self.weight, self.bias = like.weight, like.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            return super().forward(x)
        y: Tensor = _Normalize.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return y


class _Normalize(Function):
    """y = w x̂ + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        numbers = x[0].numel() // groups
        mean = _mean(_sum(x), groups, numbers)
        centred = x - _each(mean)
        r = (_mean(_sum(centred * centred), groups, numbers) + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, r)
        ctx.sizes = groups, numbers
        scale = r * weight
        return torch.addcmul(_each(bias - mean * scale), x, _each(scale))

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

        def averaged(sums: Tensor) -> Tensor:
            return _mean(sums, groups, numbers)

        v_sum, vg_sum = _sum(v), _sum(v * g)
        vx_mean = averaged((_sum(v * x) - mean * v_sum) * r)
        v_mean, g_mean, gx_mean = averaged(v_sum), averaged(weight * g_sum), averaged(weight * gx_sum)
        k = averaged(weight * vg_sum) - g_mean * v_mean - gx_mean * vx_mean

        # P(v) = r v - r (v_mean + x̂ vx_mean), and x̂ = r (x - mean): everything is a combination of g, v, x and 1.
        g_slope = r * (p - r * weight * vx_mean)
        d_g = _combined((v, r * weight), (x, g_slope), q - r * weight * v_mean - g_slope * mean)
        d_weight = (r * (vg_sum - v_mean * g_sum - vx_mean * gx_sum)).sum(0)
        h_mean = averaged(p * g_sum) - r * (g_mean * vx_mean + gx_mean * v_mean)
        hx_mean = averaged(p * gx_sum) - 2 * r * gx_mean * vx_mean
        x_slope = -r * r * (hx_mean + r * k)
        d_x = _combined((g, g_slope), (v, -r * r * gx_mean), (x, x_slope), -r * h_mean - x_slope * mean)
        return d_g, d_x, d_weight, None, None, None, None


def _combined(first: tuple[Tensor, Tensor], *rest: Any) -> Tensor:
    """a x + b y + … + c, with the coefficients of each image and channel."""
    (image, factor), constant = first, rest[-1]
    total = torch.addcmul(_each(constant), image, _each(factor))
    for image, factor in rest[:-1]:
        total.addcmul_(image, _each(factor))
    return total


def _sum(x: Tensor) -> Tensor:
    """Over the pixels: one number for each image and channel."""
    return x.sum((2, 3))


def _mean(sums: Tensor, groups: int, numbers: int) -> Tensor:
    """From sums of each channel to the mean of its group, again for each channel."""
    n, channels = sums.shape
    if groups == channels:
        return sums / numbers
    means = sums.view(n, groups, -1).sum(2) / numbers
    return means.repeat_interleave(channels // groups, dim=1)


def _each(numbers: Tensor) -> Tensor:
    """One number for each image and channel, ready to meet the pixels."""
    return numbers[:, :, None, None]
