"""Multi-layer perceptron."""

from dataclasses import dataclass

from torch import nn

from suite.architectures.layers import Activation, Network, activation_layer
from suite.registry import architectures
from suite.types import ImageShape
from suite.validation import PositiveInt


@architectures.register("mlp")
@dataclass(frozen=True)
class MLP:
    """Fully connected layers of `width` hidden units on flattened pixels (paper, A.2: 256 units)."""

    width: PositiveInt = 256
    depth: PositiveInt = 2
    activation: Activation = "relu"

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for layer in range(self.depth):
            layers.append(nn.Linear(shape.numel if layer == 0 else self.width, self.width))
            layers.append(activation_layer(self.activation))
        return Network(nn.Sequential(*layers), self.width, classes)
