"""Layers that are fast on a GPU, with equal values up to rounding.

On a GPU a small network's step takes as long as its kernels are many. Seven tenths of a ConvNet's belong to instance
normalisation and its two derivatives: here it is one kernel with the ReLU and the pooling after it, and one for each
derivative (`suite.core.triton_kernels`). Convolutions come from `suite.core.convolution`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from suite.core.convolution import Kernels

CONVOLUTION = Kernels(channels_last=False, joined=True)
"""One convolution of twice the channels takes less time than two and a sum."""

MOST_PIXELS = 2**14
"""Of a map that a program can hold in registers, such as 128x128."""


def norm_relu_pool(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """y = 2x2 mean of max(0, weight x̂ + bias), with x̂ the images x (n, channels, h, w), each channel normalised.

    x̂ = (x - mean) / sqrt(variance + eps), over pixels. h and w are even, numbers float32 or float64, and the device is
    one of triton's. A third derivative raises RuntimeError.
    """
    y: Tensor = _NormReluPool.apply(x.contiguous(), weight.contiguous(), bias.contiguous(), eps)
    return y


class Fused(nn.Sequential):
    """torch's Sequential, where an instance norm, ReLU and 2x2 average pooling in a row are one function.

    Its layers are torch's own, with their names and parameters. They are run one by one where they are others, have
    hooks, or are given what `norm_relu_pool` does not take: odd sizes, large maps, other numbers, autocast.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The output of the last layer."""
        layers = list(self)
        while layers:
            if fusible(layers[:3]) and _taken(x):
                norm: Any = layers[0]
                x = norm_relu_pool(x, norm.weight, norm.bias, norm.eps)
                layers = layers[3:]
            else:
                x = layers.pop(0)(x)
        return x


def fusible(layers: Sequence[nn.Module]) -> bool:
    """Whether these are an instance norm with weights, ReLU and 2x2 average pooling, torch's own, without hooks."""
    if [type(layer) for layer in layers] != [nn.GroupNorm, nn.ReLU, nn.AvgPool2d]:
        return False
    norm, _, pool = layers
    assert isinstance(norm, nn.GroupNorm) and isinstance(pool, nn.AvgPool2d)
    halves = all(size in (2, (2, 2)) for size in (pool.kernel_size, pool.stride)) and pool.padding in (0, (0, 0))
    instance = norm.affine and norm.num_groups == norm.num_channels
    return instance and halves and pool.divisor_override is None and not any(hooked(layer) for layer in layers)


def has_fusible(sequence: nn.Sequential) -> bool:
    """Whether there are such layers in a row."""
    layers = list(sequence)
    return any(fusible(layers[i : i + 3]) for i in range(len(layers)))


def hooked(layer: nn.Module) -> bool:
    """Whether a layer has hooks: a user's, or such as weight and spectral norm add."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
    return any(map(bool, hooks))


def _taken(x: Tensor) -> bool:
    """Whether `norm_relu_pool` takes these images; half precision would need sums in another than the images' own."""
    if x.ndim != 4 or x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(x.device.type):
        return False
    height, width = x.shape[2:]
    return height % 2 == 0 and width % 2 == 0 and 0 < height * width <= MOST_PIXELS and len(x) > 0


class _NormReluPool(Function):
    """y; saves mean and r instead of x̂."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        from suite.core import triton_kernels

        y, mean, r = triton_kernels.forward(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_NormReluPoolBackward.apply(g.contiguous(), *ctx.saved_tensors), None


class _NormReluPoolBackward(Function):
    """(gx, gw, gb): functions of g, x, w and, but for its kinks, not of b."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, r: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        from suite.core import triton_kernels

        ctx.save_for_backward(g, x, weight, bias, mean, r)
        return triton_kernels.backward(g, x, weight, bias, mean, r)

    @staticmethod
    def backward(ctx: Any, v: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # marked once_differentiable, autograd.grad would leave its part out in silence
            raise RuntimeError("suite.core.gpu_layers has no third derivative of a norm; use torch's own layers")
        from suite.core import triton_kernels

        cotangents = v.contiguous(), p.contiguous(), q.contiguous()
        d_g, d_x, d_weight = triton_kernels.second(*cotangents, *ctx.saved_tensors)
        return d_g, d_x, d_weight, None, None, None
