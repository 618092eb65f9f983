"""Networks for the inner loop: initialised by a key, and refused where their forward pass is not a pure function."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core import trees
from suite.core.layers import to_device
from suite.core.unroll import used_gradients
from suite.errors import UsageError, one_line
from suite.keys import Key, global_generators
from suite.registry import fingerprint, name_of
from suite.types import Architecture, ImageShape, Params, Setting


def label_of(architecture: Architecture) -> str:
    """The name of an architecture for people: of timm's the model's, of a class by its path that path."""
    return str(getattr(architecture, "model", "") or name_of(architecture))


def require_unrollable(module: nn.Module, name: str) -> None:
    """Raise UsageError for a network whose layers are not a pure function of their parameters and input.

    Running statistics change with every pass, and dropout draws anew: a recomputed step would not be the same step.
    `name` is the network's in the sentence. `require_pure` finds what layers do not show.
    """
    for part_name, part in module.named_modules():
        if getattr(part, "running_mean", None) is not None:
            raise UsageError(
                f"{name} keeps running statistics in '{part_name}', which no hypergradient can pass through; "
                "set its norm to 'instance', 'group' or 'layer' (it may still evaluate a memory as it is)"
            )
        drops = part.p if isinstance(part, nn.modules.dropout._DropoutNd) else getattr(part, "drop_prob", 0)
        if drops:
            raise UsageError(
                f"{name} uses dropout in '{part_name}', which would draw anew when a step is recomputed; set it to 0"
            )


def require_parameters(module: nn.Module, name: str) -> None:
    """Raise UsageError for a network that nothing can be learned in."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError(
            f"{name} has no parameters that learn; a network's own are layers or torch.nn.Parameter in its attributes"
        )


def require_logits(scores: Any, images: int, classes: int, name: str) -> None:
    """Raise UsageError for what a network gives of so many images, if it is no row of numbers for each."""
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if shape != (images, classes) or not scores.is_floating_point():
        raise UsageError(f"{name} gives {shape} for {images} images, and must give logits {images, classes}")


def require_pure(network: nn.Module, shape: ImageShape, classes: int, name: str) -> None:
    """Raise UsageError for a network that an inner loop can't train and differentiate, as a step on two images shows.

    Its forward pass must give logits, the same when it is asked again, and change nothing; every parameter must learn,
    and the step must have a derivative in the images.
    """
    require_parameters(network, name)
    tensors: Params = dict(network.named_parameters())
    frozen = [key for key, parameter in tensors.items() if not parameter.requires_grad]
    if frozen:
        raise UsageError(
            f"the parameter '{frozen[0]}' of {name} is frozen (requires_grad is False), and an inner loop trains all; "
            "make it a buffer"
        )
    before = trees.copies(tensors | dict(network.named_buffers()))
    params, like = trees.leaves(tensors), next(iter(tensors.values()))
    size = (2, shape.channels, shape.height, shape.width)
    images = torch.randn(size, generator=Key(0)("trial").generator()).to(like).requires_grad_()
    labels = torch.arange(2, device=like.device) % classes
    try:
        with global_generators(Key(0)("trial")):
            scores = functional_call(network, params, (images,))
        require_logits(scores, 2, classes, name)
        with global_generators(Key(1)("trial")):
            again = functional_call(network, params, (images,)).detach()
        _refuse_changes(before, tensors | dict(network.named_buffers()), name)
        if not torch.allclose(scores, again, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise UsageError(
                f"{name} gives the same images other scores when it is asked again, and a step that is recomputed must "
                "be the same; let it draw nothing (dropout of 0) and keep nothing from one pass to the next"
            )
        grads = used_gradients(cross_entropy(scores, labels), params, f"the loss of {name}", create_graph=True)
        # Into every leaf: autograd.grad would pass over what is marked once_differentiable in silence.
        torch.stack([grad.square().sum() for grad in grads]).sum().backward()
    except UsageError:
        raise
    except Exception as error:  # whatever a network's own code raises, and torch where there is no derivative
        raise UsageError(
            f"{name} can't be unrolled on images of {shape} with {classes} classes ({one_line(error)[:300]}); it must "
            "be differentiable twice, and must not change its parameters in place"
        ) from error
    if images.grad is None:
        raise UsageError(f"what {name} learns does not depend on its images; nothing can be distilled through it")


def _refuse_changes(before: dict[str, Tensor], after: dict[str, Tensor], name: str) -> None:
    """Raise UsageError for a tensor of a network that a pass has changed."""
    for key, tensor in after.items():
        if key not in before or not torch.equal(before[key], tensor):
            kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
            raise UsageError(
                f"{name} changes its {kind} '{key}' whenever it passes images, and a step that is recomputed must be "
                "the same; its forward must be a function of its parameters and images alone"
            )


def network_identity(setting: Setting) -> tuple[object, ...]:
    """Equal for settings that build equal networks on one device: a key for what is measured or built once."""
    architecture = setting.architecture
    return type(architecture), fingerprint(architecture), setting.shape, setting.classes, str(setting.device)


_pure: set[tuple[object, ...]] = set()
"""The networks that were tried, with and without layers of our own: a trial takes as long as a few steps."""


def fresh_network(setting: Setting, key: Key, replace_layers: bool = True) -> nn.Module:
    """A network of the setting, initialised by `key`, on its device as `to_device` puts it there.

    Raises UsageError for a network that `require_unrollable` or `require_pure` refuses.
    """
    name = label_of(setting.architecture)
    with global_generators(key):
        network = setting.architecture.build(setting.shape, setting.classes)
    require_unrollable(network, name)
    network = to_device(network, setting.device, replace_layers)
    identity = (*network_identity(setting), replace_layers)
    if identity not in _pure:
        require_pure(network, setting.shape, setting.classes, name)
        _pure.add(identity)
    return network
