"""AlexNet for small images."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from suite.architectures.layers import Activation, Network, Norm, activation_layer, norm_layer, padding_to_32, pooled
from suite.registry import architectures
from suite.types import ImageShape
from suite.validation import Above, MultipleOf

LAYERS = ((2, 5, True), (3, 5, True), (4, 3, False), (3, 3, False), (3, 3, True))
"""Channels in halves of the width, kernel size, and whether pooling follows."""


@architectures.register("alexnet")
@dataclass(frozen=True)
class AlexNet:
    """Five convolutions with instance norm and ReLU, pooling after the first, second and fifth (paper, Table 2).

    `width` is the first convolution's; the others have 192, 256, 192 and 192 channels for 128 of it.
    """

    width: Annotated[int, Above(0), MultipleOf(2)] = 128
    norm: Norm = "instance"
    activation: Activation = "relu"

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        grown = 2 * (padding_to_32(shape, 2) - 2)
        layers: list[nn.Module] = []
        before = shape.channels
        for i, (halves, kernel, pools) in enumerate(LAYERS):
            channels = halves * self.width // 2
            same = kernel // 2
            padding = padding_to_32(shape, same) if i == 0 else same
            layers.append(nn.Conv2d(before, channels, kernel, padding=padding))
            layers += [norm_layer(self.norm, channels), activation_layer(self.activation)]
            if pools:
                layers.append(nn.AvgPool2d(2))
            before = channels
        inner = ImageShape(before, shape.height + grown, shape.width + grown)
        return Network(nn.Sequential(*layers), before * pooled(inner, 3, "alexnet"), classes)
