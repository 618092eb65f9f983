"""The paper's released code on this suite's inputs, so that both are measured in one process.

The caller names a checkout of it (princetonvisualai/RememberThePast-DatasetDistillation); none of it is in this
repository.
"""

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.errors import UsageError
from suite.types import ImageShape, Params, Split

NETWORKS = {"convnet": "ConvNet", "resnet12": "ResNet12", "alexnet": "AlexNet"}
"""Its names of the suite's architectures."""

CHECKOUT = "REMEMBER_THE_PAST"
"""The environment variable that names a checkout to `tools/released.py`."""


def outer_step(
    checkout: Path,
    network: nn.Module,
    architecture: str,
    shape: ImageShape,
    classes: int,
    memory: Params,
    real: Split,
    steps: int,
    device: torch.device,
) -> Callable[[], Params]:
    """A function that computes the memory's gradient in one outer step of the released code.

    The memory is free images, or bases and matrices at full resolution; every inner step trains on all that it
    recalls. Momentum 0.9 at rate 0.01, no augmentation, no penalty. Raises UsageError for a folder that is no checkout,
    or a network whose layers differ.
    """
    trainer, optimizer = _trainer(checkout, shape, classes, memory, steps, device)
    build = importlib.import_module("utils.model_utils").get_network
    size = (shape.height, shape.width)

    def step() -> Params:
        backbone = build(NETWORKS[architecture], shape.channels, classes, size).to(device)
        _copy_weights(network, backbone)
        _, gradient, _ = trainer.inner_loop_address_label(
            backbone, optimizer(backbone), list(range(classes)), [real.images, real.labels], 0
        )
        return _gradients(gradient, memory)

    return step


def gradients(
    checkout: Path,
    network: nn.Module,
    shape: ImageShape,
    classes: int,
    memory: Params,
    real: Split,
    steps: int,
    device: torch.device,
) -> tuple[Tensor, Params]:
    """The outer loss and the memory's gradient in one outer step of the released code, on a network of the caller's.

    The network is trained by it. As `outer_step` in all else, but for networks of any layers.
    """
    trainer, optimizer = _trainer(checkout, shape, classes, memory, steps, device)
    loss, gradient, _ = trainer.inner_loop_address_label(
        network, optimizer(network), list(range(classes)), [real.images, real.labels], 0
    )
    return loss.detach(), _gradients(gradient, memory)


def require_checkout(folder: Path) -> None:
    """UsageError for a folder without the released code."""
    if not (folder / "models" / "compressor_bptt_standard.py").is_file():
        raise UsageError(
            f"{folder} is no checkout of RememberThePast-DatasetDistillation; clone it and name its folder"
        )


def _trainer(
    checkout: Path, shape: ImageShape, classes: int, memory: Params, steps: int, device: torch.device
) -> tuple[Any, Callable[[nn.Module], Any]]:
    """The released code's trainer of a memory, and what makes its optimizer of a network."""
    require_checkout(checkout)
    if str(checkout) not in sys.path:
        sys.path.append(str(checkout))
    bptt = importlib.import_module("models.compressor_bptt_standard")
    optimizer = importlib.import_module("utils.optimizer_utils").get_optimizer
    settings = argparse.Namespace(lr=0.01, momentum=0.9, optimizer="SGD")
    config = argparse.Namespace(bptt=argparse.Namespace(inner_steps=steps), bptt_optim=settings)
    compressor = _compressor(memory, shape, classes, device)
    sizes = (shape.channels, (shape.height, shape.width))
    trainer = bptt.CompressorBPTT(compressor, config, sizes, None, classes, "l2", 0.0)
    return trainer, lambda network: optimizer(network.parameters(), settings)


def _compressor(memory: Params, shape: ImageShape, classes: int, device: torch.device) -> nn.Module:
    """The released code's module for a memory, with our values in it."""
    size = (shape.height, shape.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it initialises by a function that torch has renamed
        if "images" in memory:
            module = importlib.import_module("compressors.imgs_embedding_minibatch")
            per_class = memory["images"].shape[1]
            net = module.Net(per_class, shape.channels, size, classes, device, n_per_c=per_class)
            net.imgs.weight.data.copy_(memory["images"].flatten(2).flatten(0, 1))
        else:
            module = importlib.import_module("compressors.imgs_embedding_basis_minibatch")
            per_class, _, bases = memory["matrices"].shape
            net = module.Net(per_class, shape.channels, size, classes, device, n_basis=bases, n_per_c=per_class)
            net.imgs.weight.data.copy_(memory["matrices"].transpose(0, 1).flatten(0, 1))
            net.basis.weight.data.copy_(memory["bases"].flatten(1))
    compressor: nn.Module = net.to(device)
    return compressor


def _copy_weights(network: nn.Module, backbone: nn.Module) -> None:
    """Copy our network's weights into the released code's: both list the same layers in the same order."""
    ours, theirs = list(network.parameters()), list(backbone.parameters())
    if [p.shape for p in ours] != [p.shape for p in theirs]:
        raise UsageError("the released code's network has other layers than ours, so the two can't be compared")
    with torch.no_grad():
        for p, q in zip(theirs, ours, strict=True):
            p.copy_(q)


def _gradients(gradient: Tensor | list[Tensor], memory: Params) -> Params:
    """The released code's gradient in the shapes of our memory."""
    if isinstance(gradient, list):
        r, classes, bases = memory["matrices"].shape
        return {
            "bases": gradient[0].view_as(memory["bases"]),
            "matrices": gradient[1].view(classes, r, bases).transpose(0, 1),
        }
    return {"images": gradient.view_as(memory["images"])}
