"""ConvNet: the field's standard small convolutional network."""

from dataclasses import dataclass

from torch import nn

from suite.architectures.layers import (
    Activation,
    Network,
    Norm,
    Pooling,
    activation_layer,
    norm_layer,
    padding_to_32,
    pooled,
    pooling_layer,
)
from suite.registry import architectures
from suite.types import ImageShape
from suite.validation import Few, PositiveInt


@architectures.register("convnet")
@dataclass(frozen=True)
class ConvNet:
    """Blocks of 3x3 convolution, instance norm, ReLU, average pooling, and a linear head (paper, A.1).

    >>> import torch
    >>> network = ConvNet(width=16).build(ImageShape(3, 32, 32), classes=10)
    >>> images = torch.zeros(2, 3, 32, 32)
    >>> network(images).shape, network.features(images).shape
    (torch.Size([2, 10]), torch.Size([2, 256]))
    """

    width: PositiveInt = 128
    """Channels of every convolution."""
    depth: Few | None = None
    """Blocks; None means 3, 4 from 64 pixels on, and 2 below 16: instance norm leaves of a map of 2x2 pixels only its
    pattern, and pooling that leaves nothing."""
    norm: Norm = "instance"
    """Normalisation after each convolution; 'batch' can't be unrolled."""
    activation: Activation = "relu"
    """Non-linearity after each normalisation."""
    pooling: Pooling = "average"
    """How each block halves height and width."""
    activation_first: bool = False
    """Activation before the norm, as in the paper's text; its released code has it after."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network, with torch's default initialisation.

        Raises UsageError for an image that is too small for its pooling.
        """
        depth = self.depth or (4 if shape.height >= 64 else 3 if shape.height >= 16 else 2)
        first_padding = padding_to_32(shape, 1)
        grown = 2 * (first_padding - 1)
        inner = ImageShape(self.width, shape.height + grown, shape.width + grown)
        features = self.width * pooled(inner, depth, "convnet")  # before layers are made, of which there may be many
        layers: list[nn.Module] = []
        for block in range(depth):
            channels, padding = (shape.channels, first_padding) if block == 0 else (self.width, 1)
            layers.append(nn.Conv2d(channels, self.width, 3, padding=padding))
            between = [norm_layer(self.norm, self.width), activation_layer(self.activation)]
            layers += reversed(between) if self.activation_first else between
            layers.append(pooling_layer(self.pooling))
        return Network(nn.Sequential(*layers), features, classes)
