"""AlexNet for small images."""

from dataclasses import dataclass

from torch import nn

from suite.architectures.layers import Activation, Network, Norm, activation_layer, norm_layer, padding_to_32, pooled
from suite.registry import architectures
from suite.types import ImageShape, check_types

LAYERS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
"""Channels, kernel size, and whether pooling follows."""


@architectures.register("alexnet")
@dataclass(frozen=True)
class AlexNet:
    """Five convolutions with instance norm and ReLU, pooling after the first, second and fifth (paper, Table 2)."""

    norm: Norm = "instance"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        check_types(self)

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        grown = 2 * (padding_to_32(shape, 2) - 2)
        layers: list[nn.Module] = []
        before = shape.channels
        for i, (channels, kernel, pools) in enumerate(LAYERS):
            same = kernel // 2
            padding = padding_to_32(shape, same) if i == 0 else same
            layers.append(nn.Conv2d(before, channels, kernel, padding=padding))
            layers += [norm_layer(self.norm, channels), activation_layer(self.activation)]
            if pools:
                layers.append(nn.AvgPool2d(2))
            before = channels
        inner = ImageShape(before, shape.height + grown, shape.width + grown)
        return Network(nn.Sequential(*layers), before * pooled(inner, 3, "alexnet"), classes)
