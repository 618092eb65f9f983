"""Every model of timm, as an architecture."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from suite.architectures.layers import norm_layer
from suite.errors import UsageError
from suite.registry import architectures, suggestion
from suite.types import ImageShape


class TimmNetwork(nn.Module):
    """A timm model with this suite's two methods."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        model: Any = self.model
        return model.forward_head(model.forward_features(x), pre_logits=True).flatten(1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.model(x)


@architectures.register("timm")
@dataclass(frozen=True)
class Timm:
    """Any timm model by its name, untrained; `norm` replaces batch norm so that the model can be unrolled.

    With `norm = 'as_is'` a model that keeps running statistics may evaluate a memory but not distil one.
    """

    model: str = "resnet18"
    norm: Literal["as_is", "instance", "group", "layer"] = "as_is"

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        import timm  # takes a second to import, and few runs need it

        if not timm.is_model(self.model):
            raise UsageError(f"timm has no model '{self.model}'; {_nearest(self.model, timm.list_models())}")
        wanted = {"in_chans": shape.channels, "num_classes": classes}
        try:
            model = timm.create_model(self.model, img_size=(shape.height, shape.width), **wanted)
        except TypeError:  # only some models are built for one image size
            model = timm.create_model(self.model, **wanted)
        if self.norm != "as_is":
            _replace_batch_norm(model, self.norm)
        for part in model.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = False  # torch's fused attention has no second derivative
        if self.norm == "instance":
            _refuse_single_pixels(model, shape, self.model)
        return TimmNetwork(model)


def _nearest(name: str, known: list[str]) -> str:
    """As `suggestion`, without reciting a thousand names."""
    words = suggestion(name, known).split("there are: ")[0]
    return words + "timm.list_models() has all names"


def _replace_batch_norm(module: nn.Module, norm: Literal["instance", "group", "layer"]) -> None:
    """Put a normalisation without running statistics wherever batch norm stands; timm's fused activations stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            replacement: nn.Module = norm_layer(norm, child.num_features)
            fused = [part for part in (getattr(child, "drop", None), getattr(child, "act", None)) if part is not None]
            setattr(module, name, nn.Sequential(replacement, *fused) if fused else replacement)
        else:
            _replace_batch_norm(child, norm)


def _refuse_single_pixels(model: nn.Module, shape: ImageShape, name: str) -> None:
    """Instance norm of a map of one pixel is a constant, and so is everything after it."""

    def look(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].shape[2:].numel() == 1:
            raise UsageError(
                f"{name} shrinks images of {shape} to maps of one pixel, of which instance norm leaves nothing; "
                "set norm to 'group' or 'layer', or use larger images"
            )

    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm) and m.num_groups == m.num_channels]
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(2, shape.channels, shape.height, shape.width))
    model.train()
    for hook in hooks:
        hook.remove()
