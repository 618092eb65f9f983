"""The parts that the architectures share."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from suite.errors import UsageError
from suite.types import ImageShape

Norm = Literal["instance", "group", "layer", "batch", "none"]
"""Names of normalisations, see `norm_layer`."""

Replacement = Literal["instance", "group", "layer"]
"""Names of those that take the place of batch norm in a network of others."""

AsIsOrReplaced = Literal["as_is", "instance", "group", "layer"]
"""What is done to its batch norm, which 'as_is' keeps."""

Activation = Literal["relu", "leaky_relu", "elu", "silu", "sigmoid"]
"""Names of non-linearities."""

Pooling = Literal["average", "max"]
"""Names of poolings, see `pooling_layer`."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


class Network(nn.Module):
    """A body and a linear head: `features(x)` is the flattened body, `forward(x)` gives the logits of the classes."""

    def __init__(self, body: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, classes)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """The input of the head."""
        return self.body(x).flatten(1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of the classes."""
        return self.head(self.features(x))


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A normalisation with learned scale and shift; all but 'batch' are functions of one image alone.

    Instance normalisation is group normalisation with a group per channel, which has a faster double backward.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    groups = {"instance": channels, "group": 4 if channels % 4 == 0 else 1, "layer": 1}[norm]
    return nn.GroupNorm(groups, channels)


def activation_layer(activation: Activation) -> nn.Module:
    """A non-linearity by its name."""
    return _ACTIVATIONS[activation]()


def pooling_layer(pooling: Pooling) -> nn.Module:
    """2x2 pooling: halves height and width, rounding down."""
    return nn.AvgPool2d(2) if pooling == "average" else nn.MaxPool2d(2)


def pooled(shape: ImageShape, times: int, name: str) -> int:
    """Pixels left after `times` halvings of both sides; UsageError, with the architecture's `name`, if none are."""
    height, width = shape.height >> times, shape.width >> times
    if height == 0 or width == 0:
        raise UsageError(
            f"{name} halves the image {times} times, too often for images of {shape.height}x{shape.width}; "
            "choose a smaller depth, another architecture or larger images"
        )
    return height * width


def padding_to_32(shape: ImageShape, same: int) -> int:
    """Padding of the first convolution: `same` keeps the size, and two pixels more make 28-pixel images 32 pixels."""
    return same + 2 if shape.height == shape.width == 28 else same


# ---------------------------------------------------------------- networks of others


def replace_batch_norm(module: nn.Module, norm: Replacement) -> None:
    """Put a normalisation without running statistics wherever batch norm stands; timm's fused activations stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            replacement: nn.Module = norm_layer(norm, child.num_features)
            fused = [part for part in (getattr(child, "drop", None), getattr(child, "act", None)) if part is not None]
            setattr(module, name, nn.Sequential(replacement, *fused) if fused else replacement)
        else:
            replace_batch_norm(child, norm)


def refuse_single_pixels(model: nn.Module, shape: ImageShape, name: str) -> None:
    """Raise UsageError where instance norm sees maps of one pixel: it makes them a constant, and all that follows."""

    def refuse(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[2:].numel() == 1:
            raise UsageError(
                f"{name} shrinks images of {shape} to maps of one pixel, of which instance norm leaves nothing; "
                "set norm to 'group' or 'layer', or use larger images"
            )

    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm) and m.num_groups == m.num_channels]
    if not norms:
        return
    hooks = [norm.register_forward_pre_hook(refuse) for norm in norms]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(2, shape.channels, shape.height, shape.width))
    model.train()
    for hook in hooks:
        hook.remove()
