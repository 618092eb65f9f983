"""Multi-layer perceptron."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from suite.architectures.layers import Activation, Network, activation_layer
from suite.registry import architectures
from suite.types import ImageShape
from suite.validation import Few, PositiveInt


@architectures.register("mlp")
@dataclass(frozen=True)
class MLP:
    """Fully connected layers of `width` hidden units on flattened pixels (paper, A.2: 256 units).

    >>> network = MLP(width=100, depth=1).build(ImageShape(1, 28, 28), classes=10)
    >>> [tuple(weight.shape) for weight in network.parameters()]
    [(100, 784), (100,), (10, 100), (10,)]
    """

    width: PositiveInt = 256
    """Units of each hidden layer."""
    depth: Few = 2
    """Hidden layers; the paper does not state their number."""
    activation: Activation = "relu"
    """Non-linearity after each hidden layer."""
    first_weight: ClassVar[str] = "body.1.weight"
    """Of the layer that reads the pixels."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network, with torch's default initialisation."""
        layers: list[nn.Module] = [nn.Flatten()]
        for layer in range(self.depth):
            layers.append(nn.Linear(shape.numel if layer == 0 else self.width, self.width))
            layers.append(activation_layer(self.activation))
        return Network(nn.Sequential(*layers), self.width, classes)
