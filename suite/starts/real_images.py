"""A start from real images."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from suite.controls.random_images import RandomImages
from suite.keys import Key
from suite.registry import starts
from suite.starts.enough import require_images
from suite.types import ClassRows, Control, Setting


@starts.register("real_images")
@dataclass(frozen=True)
class RealImages:
    """Real training images as a control selects them: at random, by herding or by k-center.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 1, 1), 2, MLP(), Standard(), "none", torch.device("cpu"))
    >>> real = ClassRows.of(Split(torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([0, 0, 1, 1])), classes=2)
    >>> RealImages().images(setting, real, each=2, key=Key(0)).sort(1).values.flatten()
    tensor([0., 1., 2., 3.])
    """

    control: Control = field(default_factory=RandomImages)
    """Selects them; its choice for the first network."""

    def images(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Float[Tensor, "classes each c h w"]:
        """The images; UsageError for more than a class has."""
        require_images("real_images", real, each)
        chosen = self.control.choose(setting, real, each, key)(0)
        by_class = [chosen.images[chosen.labels == c] for c in range(len(real.rows))]
        return torch.stack(by_class)
