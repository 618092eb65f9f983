"""The convolutional network of La-MAML's CIFAR-100 experiments."""

from dataclasses import dataclass

from torch import nn

from suite.architectures.layers import Activation, Network, activation_layer
from suite.registry import architectures
from suite.types import ImageShape
from suite.validation import PositiveInt


@architectures.register("strided_convnet")
@dataclass(frozen=True)
class StridedConvNet:
    """Three 3x3 convolutions of stride 2 and two hidden layers of 2 `width` units, without normalisation or pooling.

    With width 160, that of incremental CIFAR-100: 32 pixels become 16, 8, 4, and 2,560 features 320 and 320 (paper,
    A.2; Gupta et al., 2020).
    """

    width: PositiveInt = 160
    activation: Activation = "relu"

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        layers: list[nn.Module] = []
        channels, height, width = shape.channels, shape.height, shape.width
        for _ in range(3):
            layers += [nn.Conv2d(channels, self.width, 3, stride=2, padding=1), activation_layer(self.activation)]
            channels, height, width = self.width, (height + 1) // 2, (width + 1) // 2
        hidden = 2 * self.width
        layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden), activation_layer(self.activation)]
        layers += [nn.Linear(hidden, hidden), activation_layer(self.activation)]
        return Network(nn.Sequential(*layers), hidden, classes)
