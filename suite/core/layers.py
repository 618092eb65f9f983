"""Networks on a device, with the layers that are fast there."""

import importlib.util
from functools import cache

import torch
from torch import nn

from suite.core import convolution, cpu_layers, gpu_layers
from suite.core.convolution import Kernels


def to_device(network: nn.Module, device: torch.device, replace_layers: bool = True) -> nn.Module:
    """Move a network to a device, in place; with layers that are fast there, on a CPU in channels-last layout.

    Names and values of its parameters stay. `replace_layers` False keeps torch's own layers, which torch.func and
    torch.compile can differentiate.
    """
    network = network.to(device)
    if replace_layers and device.type == "cpu":
        replace_for_cpu(network)
    elif replace_layers and device.type == "cuda":
        replace_for_gpu(network, fused=_has_triton())
    return network.to(memory_format=torch.channels_last) if device.type == "cpu" else network


def replace_for_cpu(network: nn.Module) -> None:
    """Put a CPU's convolutions and group norms in the place of torch's own, in place."""
    _replace_convolutions(network, cpu_layers.CONVOLUTION)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.GroupNorm and child.affine and _is_plain(child):
                setattr(parent, name, cpu_layers.GroupNorm(child))


def replace_for_gpu(network: nn.Module, fused: bool) -> None:
    """Put a GPU's convolutions in the place of torch's own, in place; where `fused`, run its sequences as `Fused`."""
    _replace_convolutions(network, gpu_layers.CONVOLUTION)
    for part in network.modules() if fused else ():
        if type(part) is nn.Sequential and gpu_layers.has_fusible(part):
            part.__class__ = gpu_layers.Fused  # it stays the module that others know, with all that was set on it


def _replace_convolutions(network: nn.Module, kernels: Kernels) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and convolution.replaceable(child) and _is_plain(child):
                setattr(parent, name, convolution.Conv2d(child, kernels))


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is its parameters alone, without hooks, as weight and spectral norm add them."""
    return not gpu_layers.hooked(layer) and isinstance(getattr(layer, "weight", None), nn.Parameter)


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
