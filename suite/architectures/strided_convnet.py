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

    Of incremental CIFAR-100 (paper, A.2; Gupta et al., 2020): 32 pixels become 16, 8 and 4.

    >>> network = StridedConvNet().build(ImageShape(3, 32, 32), classes=100)
    >>> [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]
    [(2560, 320), (320, 320), (320, 100)]
    """

    width: PositiveInt = 160
    """Channels of every convolution; the hidden layers have twice as many units."""
    activation: Activation = "relu"
    """Non-linearity after every layer but the head."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network, with torch's default initialisation."""
        layers: list[nn.Module] = []
        channels, height, width = shape.channels, shape.height, shape.width
        for _ in range(3):
            layers += [nn.Conv2d(channels, self.width, 3, stride=2, padding=1), activation_layer(self.activation)]
            channels, height, width = self.width, (height + 1) // 2, (width + 1) // 2
        hidden = 2 * self.width
        layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden), activation_layer(self.activation)]
        layers += [nn.Linear(hidden, hidden), activation_layer(self.activation)]
        return Network(nn.Sequential(*layers), hidden, classes)
