"""ResNet-12 with instance norm and the whole last feature map."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from suite.architectures.layers import Activation, Network, Norm, activation_layer, norm_layer, pooled
from suite.registry import architectures
from suite.types import ImageShape, check_types, require

WIDTHS = (64, 128, 256, 512)


class Residual(nn.Module):
    """A chain of 3x3 convolutions beside a shortcut; both are halved where `halve` says so."""

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
        return self.activation(self.chain(x) + self.shortcut(x))


@architectures.register("resnet12")
@dataclass(frozen=True)
class ResNet12:
    """A stem and residual stages of 64, 128, 256, 512 channels, instance norm, no final pooling (paper, A.1).

    `convolutions` 2 is the released code's block; 3 is the few-shot literature's.
    """

    convolutions: int = 2
    norm: Norm = "instance"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "convolutions", self.convolutions > 0, "above 0")

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        layers: list[nn.Module] = [
            nn.Conv2d(shape.channels, WIDTHS[0], 3, padding=1, bias=False),
            norm_layer(self.norm, WIDTHS[0]),
            activation_layer(self.activation),
        ]
        before = WIDTHS[0]
        for stage, after in enumerate(WIDTHS):
            layers.append(Residual(before, after, self.convolutions, stage > 0, self.norm, self.activation))
            before = after
        pixels = pooled(shape, len(WIDTHS) - 1, "resnet12")
        return Network(nn.Sequential(*layers), before * pixels, classes)
