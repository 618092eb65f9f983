"""ResNet-12 with instance norm and the whole last feature map."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from suite.architectures.layers import Activation, Network, Norm, activation_layer, norm_layer, pooled
from suite.registry import architectures
from suite.types import ImageShape
from suite.validation import Few, PositiveInt


class Residual(nn.Module):
    """A chain of 3x3 convolutions beside a shortcut, their sum activated; both are halved where `halve` says so."""

    def __init__(self, before: int, after: int, convolutions: int, halve: bool, norm: Norm, act: Activation) -> None:
        super().__init__()
        chain: list[nn.Module] = []
        for i in range(convolutions):
            chain.append(nn.Conv2d(before if i == 0 else after, after, 3, padding=1, bias=False))
            chain.append(norm_layer(norm, after))
            if i < convolutions - 1:
                chain.append(activation_layer(act))
        shortcut: list[nn.Module] = []
        if before != after:
            shortcut = [nn.Conv2d(before, after, 1, bias=False), norm_layer(norm, after)]
        if halve:
            chain.append(nn.AvgPool2d(2))
            shortcut.append(nn.AvgPool2d(2))
        self.chain = nn.Sequential(*chain)
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = activation_layer(act)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """activation(chain(x) + shortcut(x))."""
        return self.activation(self.chain(x) + self.shortcut(x))


@architectures.register("resnet12")
@dataclass(frozen=True)
class ResNet12:
    """A stem and four residual stages of 64, 128, 256, 512 channels, instance norm, no final pooling (paper, A.1).

    Stages two to four halve the image, as long as it is at least 4 pixels: a normalised channel pooled down to one
    pixel would be a constant.

    >>> network = ResNet12(width=8).build(ImageShape(3, 32, 32), classes=10)
    >>> network.head.in_features  # 64 channels of 4 x 4 pixels
    1024
    """

    width: PositiveInt = 64
    """Channels of the first stage; each later one has twice as many."""
    convolutions: Few = 2
    """Of a residual block: 2 in the released code, 3 in the few-shot literature."""
    norm: Norm = "instance"
    """Normalisation after each convolution; 'batch' can't be unrolled."""
    activation: Activation = "relu"
    """Non-linearity after each normalisation."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network, with torch's default initialisation."""
        layers: list[nn.Module] = [
            nn.Conv2d(shape.channels, self.width, 3, padding=1, bias=False),
            norm_layer(self.norm, self.width),
            activation_layer(self.activation),
        ]
        before, halvings = self.width, 0
        for stage in range(4):
            after = self.width * 2**stage
            halve = stage > 0 and min(shape.height, shape.width) >> halvings >= 4
            layers.append(Residual(before, after, self.convolutions, halve, self.norm, self.activation))
            before, halvings = after, halvings + halve
        return Network(nn.Sequential(*layers), before * pooled(shape, halvings, "resnet12"), classes)
