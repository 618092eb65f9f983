"""Instance norm, ReLU and 2x2 average pooling in one kernel, with a kernel for each of their two derivatives (Triton).

With x̂ = (x - mean) r, where mean and r = 1 / sqrt(variance + eps) are taken over the D pixels of an image's channel,
n = w x̂ + b, on = [n > 0], y the mean of on n over squares of 2x2 pixels, P v = r (v - mean(v) - x̂ mean(v x̂)), and
e = on g / 4 the gradient dl/dn, spread from g = dl/dy:

    gradients for g = dl/dy:            gx = P(w e),    gw = Σ e x̂,    gb = Σ e
    cotangents v, p, q of gx, gw, gb:   dφ/dg = mean over squares of on (w P(v) + p x̂ + q)
                                        dφ/dw = Σ e P(v)
                                        dφ/dx = P(h) - r² K x̂,    h = p e - r (w e mean(v x̂) + v mean(w e x̂))
                                        K = mean(v w e) - mean(w e) mean(v) - mean(w e x̂) mean(v x̂)

At n = 0, `on` is 0; it counts as constant. One program takes one channel of one image, whose pixels stay in registers:
the four pixels of a square are in four arrays of one number for each square. Images lie as (n, channels, h, w), are
contiguous, and have even h and w. On a CPU Triton's interpreter runs the same kernels, where TRITON_INTERPRET=1 is set
before triton is imported.

This module imports triton, which takes a moment and is not everywhere: `suite.core.gpu_layers` imports it when needed.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
@no_type_check  # and no checker of types may wrap what triton reads as text
def _squares(start, W: tl.constexpr, o):
    """Where the upper left pixel of each square lies."""
    across: tl.constexpr = W // 2
    return start + (o // across) * (2 * W) + (o % across) * 2


@triton.jit
@no_type_check
def _load(start, W: tl.constexpr, o, inside):
    """The four pixels of each square; 0 beyond the last square."""
    at = _squares(start, W, o)
    return (
        tl.load(at, mask=inside, other=0.0),
        tl.load(at + 1, mask=inside, other=0.0),
        tl.load(at + W, mask=inside, other=0.0),
        tl.load(at + W + 1, mask=inside, other=0.0),
    )


@triton.jit
@no_type_check
def _normalised(start, W: tl.constexpr, o, inside, m, s):
    """x̂ at the four pixels of each square."""
    x0, x1, x2, x3 = _load(start, W, o, inside)
    return (x0 - m) * s, (x1 - m) * s, (x2 - m) * s, (x3 - m) * s


@triton.jit
@no_type_check
def _store(start, W: tl.constexpr, o, inside, v0, v1, v2, v3):
    at = _squares(start, W, o)
    tl.store(at, v0, mask=inside)
    tl.store(at + 1, v1, mask=inside)
    tl.store(at + W, v2, mask=inside)
    tl.store(at + W + 1, v3, mask=inside)


@triton.jit
@no_type_check
def _forward(x, w, b, y, mean, r, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, E: tl.constexpr, B: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    channel = row % C
    D: tl.constexpr = H * W
    o = tl.arange(0, B)
    inside = o < D // 4
    x0, x1, x2, x3 = _load(x + row * D, W, o, inside)
    m = tl.sum(x0 + x1 + x2 + x3, 0) / D
    x0 = tl.where(inside, x0 - m, 0.0)
    x1 = tl.where(inside, x1 - m, 0.0)
    x2 = tl.where(inside, x2 - m, 0.0)
    x3 = tl.where(inside, x3 - m, 0.0)
    s = 1.0 / tl.sqrt(tl.sum(x0 * x0 + x1 * x1 + x2 * x2 + x3 * x3, 0) / D + E)
    weight = tl.load(w + channel)
    shift = tl.load(b + channel)
    n0 = tl.maximum(x0 * s * weight + shift, 0.0)
    n1 = tl.maximum(x1 * s * weight + shift, 0.0)
    n2 = tl.maximum(x2 * s * weight + shift, 0.0)
    n3 = tl.maximum(x3 * s * weight + shift, 0.0)
    tl.store(y + row * (D // 4) + o, (n0 + n1 + n2 + n3) * 0.25, mask=inside)
    tl.store(mean + row, m)
    tl.store(r + row, s)


@triton.jit
@no_type_check
def _backward(
    g, x, w, b, mean, r, gx, gw, gb, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = row % C
    D: tl.constexpr = H * W
    o = tl.arange(0, B)
    inside = o < D // 4
    m = tl.load(mean + row)
    s = tl.load(r + row)
    weight = tl.load(w + channel)
    shift = tl.load(b + channel)
    x0, x1, x2, x3 = _normalised(x + row * D, W, o, inside, m, s)
    quarter = tl.load(g + row * (D // 4) + o, mask=inside, other=0.0) * 0.25
    e0 = tl.where(x0 * weight + shift > 0, quarter, 0.0)
    e1 = tl.where(x1 * weight + shift > 0, quarter, 0.0)
    e2 = tl.where(x2 * weight + shift > 0, quarter, 0.0)
    e3 = tl.where(x3 * weight + shift > 0, quarter, 0.0)
    e_sum = tl.sum(e0 + e1 + e2 + e3, 0)
    ex_sum = tl.sum(e0 * x0 + e1 * x1 + e2 * x2 + e3 * x3, 0)
    k = weight * s
    u = e_sum / D
    t = ex_sum / D
    gx0 = k * (e0 - u - x0 * t)
    gx1 = k * (e1 - u - x1 * t)
    gx2 = k * (e2 - u - x2 * t)
    gx3 = k * (e3 - u - x3 * t)
    _store(gx + row * D, W, o, inside, gx0, gx1, gx2, gx3)
    tl.store(gw + row, ex_sum)
    tl.store(gb + row, e_sum)


@triton.jit
@no_type_check
def _second(
    v, p, q, g, x, w, b, mean, r, dg, dx, dw, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = row % C
    D: tl.constexpr = H * W
    o = tl.arange(0, B)
    inside = o < D // 4
    m = tl.load(mean + row)
    s = tl.load(r + row)
    weight = tl.load(w + channel)
    shift = tl.load(b + channel)
    pc = tl.load(p + channel)
    qc = tl.load(q + channel)
    x0, x1, x2, x3 = _normalised(x + row * D, W, o, inside, m, s)
    v0, v1, v2, v3 = _load(v + row * D, W, o, inside)
    quarter = tl.load(g + row * (D // 4) + o, mask=inside, other=0.0) * 0.25
    on0 = x0 * weight + shift > 0
    on1 = x1 * weight + shift > 0
    on2 = x2 * weight + shift > 0
    on3 = x3 * weight + shift > 0
    e0 = tl.where(on0, quarter, 0.0)
    e1 = tl.where(on1, quarter, 0.0)
    e2 = tl.where(on2, quarter, 0.0)
    e3 = tl.where(on3, quarter, 0.0)
    # Means over the pixels; beyond the last square v and e are 0.
    v_mean = tl.sum(v0 + v1 + v2 + v3, 0) / D
    vx_mean = tl.sum(v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3, 0) / D
    e_mean = tl.sum(e0 + e1 + e2 + e3, 0) / D
    ex_mean = tl.sum(e0 * x0 + e1 * x1 + e2 * x2 + e3 * x3, 0) / D
    ve_mean = tl.sum(v0 * e0 + v1 * e1 + v2 * e2 + v3 * e3, 0) / D
    tl.store(dw + row, D * s * (ve_mean - v_mean * e_mean - vx_mean * ex_mean))
    k = weight * s
    d0 = tl.where(on0, k * (v0 - v_mean - x0 * vx_mean) + pc * x0 + qc, 0.0)
    d1 = tl.where(on1, k * (v1 - v_mean - x1 * vx_mean) + pc * x1 + qc, 0.0)
    d2 = tl.where(on2, k * (v2 - v_mean - x2 * vx_mean) + pc * x2 + qc, 0.0)
    d3 = tl.where(on3, k * (v3 - v_mean - x3 * vx_mean) + pc * x3 + qc, 0.0)
    tl.store(dg + row * (D // 4) + o, (d0 + d1 + d2 + d3) * 0.25, mask=inside)
    # h = e_slope e + v_slope v, and P(h) - r² K x̂ = r (h - mean(h)) - x_slope x̂.
    e_slope = pc - k * vx_mean
    v_slope = -k * ex_mean
    h_mean = e_slope * e_mean + v_slope * v_mean
    hx_mean = e_slope * ex_mean + v_slope * vx_mean
    x_slope = s * hx_mean + s * k * (ve_mean - e_mean * v_mean - ex_mean * vx_mean)
    dx0 = s * (e_slope * e0 + v_slope * v0 - h_mean) - x_slope * x0
    dx1 = s * (e_slope * e1 + v_slope * v1 - h_mean) - x_slope * x1
    dx2 = s * (e_slope * e2 + v_slope * v2 - h_mean) - x_slope * x2
    dx3 = s * (e_slope * e3 + v_slope * v3 - h_mean) - x_slope * x3
    _store(dx + row * D, W, o, inside, dx0, dx1, dx2, dx3)


# ------------------------------------------------------------ as functions of tensors


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, r) of images x; mean and r have the shape (n, channels)."""
    n, channels, height, width = x.shape
    y = x.new_empty(n, channels, height // 2, width // 2)
    mean, r = x.new_empty(n, channels), x.new_empty(n, channels)
    _launch(_forward, x, x, weight, bias, y, mean, r, E=eps)
    return y, mean, r


def backward(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(gx, gw, gb)."""
    gx, gw, gb = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)
    _launch(_backward, x, g, x, weight, bias, mean, r, gx, gw, gb)
    return gx, gw.sum(0), gb.sum(0)


def second(
    v: Tensor, p: Tensor, q: Tensor, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dφ/dg, dφ/dx, dφ/dw)."""
    dg, dx, dw = torch.empty_like(g), torch.empty_like(x), torch.empty_like(mean)
    _launch(_second, x, v, p, q, g, x, weight, bias, mean, r, dg, dx, dw)
    return dg, dx, dw.sum(0)


def _launch(kernel: Any, images: Tensor, *tensors: Tensor, **constants: float) -> None:
    """One program for each channel of each image, of as many warps as leave a thread few pixels."""
    n, channels, height, width = images.shape
    squares = height * width // 4
    warps = min(16, max(1, triton.next_power_of_2(squares) // 64))
    sizes = {"C": channels, "H": height, "W": width, "B": triton.next_power_of_2(squares)}
    with torch.cuda.device_of(images):  # triton launches on the current device
        kernel[(n * channels,)](*tensors, **constants, **sizes, num_warps=warps)
