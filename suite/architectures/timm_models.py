"""Every model of timm, as an architecture."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from suite.architectures.layers import AsIsOrReplaced, refuse_single_pixels, replace_batch_norm
from suite.errors import UsageError
from suite.registry import architectures, nearest
from suite.types import ImageShape


class TimmNetwork(nn.Module):
    """A timm model with the methods of `suite.types.Architecture`'s networks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """What the model's last layer sees: its pooled features."""
        model: Any = self.model
        return model.forward_head(model.forward_features(x), pre_logits=True).flatten(1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of the classes."""
        return self.model(x)


@architectures.register("timm")
@dataclass(frozen=True)
class Timm:
    """Any timm model by its name, untrained; `norm` replaces batch norm so that the model can be unrolled.

    >>> import torch
    >>> network = Timm("resnet10t", norm="group").build(ImageShape(3, 32, 32), classes=10)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    model: str = "resnet18"
    """One of `timm.list_models()`."""
    norm: AsIsOrReplaced = "as_is"
    """What takes the place of batch norm; 'as_is' keeps it: such a model may evaluate a memory but not distil one."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The model for images of this shape.

        Raises UsageError for an unknown name, and where instance norm would see maps of one pixel.
        """
        import timm  # takes a second to import, and few runs need it

        if not timm.is_model(self.model):
            raise UsageError(f"timm has no model '{self.model}'; {_nearest(self.model, timm.list_models())}")
        sizes = {"in_chans": shape.channels, "num_classes": classes}
        try:
            model = timm.create_model(self.model, img_size=(shape.height, shape.width), **sizes)
        except TypeError:  # only some models are built for one image size
            model = timm.create_model(self.model, **sizes)
        if self.norm != "as_is":
            replace_batch_norm(model, self.norm)
        for part in model.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = False  # torch's fused attention has no second derivative
        if self.norm == "instance":
            refuse_single_pixels(model, shape, self.model)
        return TimmNetwork(model)


def _nearest(name: str, known: list[str]) -> str:
    """As `suggestion`, without reciting a thousand names."""
    return nearest(name, known) + "timm.list_models() has all names"
