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

    >>> network = AlexNet().build(ImageShape(3, 32, 32), classes=10)
    >>> [layer.out_channels for layer in network.body if isinstance(layer, nn.Conv2d)], network.head.in_features
    ([128, 192, 256, 192, 192], 3072)
    """

    width: Annotated[int, Above(0), MultipleOf(2)] = 128
    """Channels of the first convolution; the others have 1.5, 2, 1.5 and 1.5 times as many."""
    norm: Norm = "instance"
    """Normalisation after each convolution; 'batch' can't be unrolled."""
    activation: Activation = "relu"
    """Non-linearity after each normalisation."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network, with torch's default initialisation.

        Raises UsageError for an image that is too small for its pooling.
        """
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
