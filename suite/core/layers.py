"""Networks on a device, with the layers that are fast there."""

import importlib.util
from functools import cache

import torch
from torch import nn

from suite.core import convolution, cpu_layers, gpu_layers
from suite.core.convolution import Kernels
from suite.core.transfer import together


def to_device(network: nn.Module, device: torch.device, replace_layers: bool = True) -> nn.Module:
    """Move a network to a device, in place; with layers that are fast there, on a CPU in channels-last layout.

    Names and values of its parameters stay. `replace_layers` False keeps torch's own layers, which autocast and
    torch.func know. A network that is to stay `as_written` keeps its layers and its layout on a CPU.
    """
    _move(network, device)
    if device.type == "cpu" and getattr(network, "as_written", False):
        return network
    if replace_layers and device.type == "cpu":
        replace_for_cpu(network)
    elif replace_layers and device.type == "cuda":
        replace_for_gpu(network, fused=_has_triton())
    return network.to(memory_format=torch.channels_last) if device.type == "cpu" else network


def _move(network: nn.Module, device: torch.device) -> None:
    """Move a network, in place; from the host, its parameters and buffers as one tensor, of which they become parts."""
    places = [
        (module, name, tensor)
        for module in network.modules()
        for named in (module.named_parameters, module.named_buffers)
        for name, tensor in named(recurse=False, remove_duplicate=False)
    ]
    tensors = list({id(tensor): tensor for *_, tensor in places}.values())
    if device.type == "cpu" or not all(map(_can_be_sent, tensors)):
        network.to(device)
        return
    moved: dict[int, torch.Tensor] = {}
    for tensor, sent in zip(tensors, together(tensors, device), strict=True):
        is_parameter = isinstance(tensor, nn.Parameter)
        moved[id(tensor)] = nn.Parameter(sent, tensor.requires_grad) if is_parameter else sent
    for module, name, tensor in places:  # a tensor that two modules share stays one
        setattr(module, name, moved[id(tensor)])


def _can_be_sent(tensor: torch.Tensor) -> bool:
    """Whether a part of another tensor can take its place: it is dense, on the host, and nobody's hook hangs on it."""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor._backward_hooks


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
