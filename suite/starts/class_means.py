"""A start from the means of classes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from suite.keys import Key
from suite.registry import starts
from suite.starts.enough import require_images
from suite.types import ClassRows, Setting


@starts.register("class_means")
@dataclass(frozen=True)
class ClassMeans:
    """The mean of a class; for several images of a class, the means of as many random equal parts of it.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 1, 1), 2, MLP(), Standard(), "none", torch.device("cpu"))
    >>> images, labels = torch.tensor([0.0, 1.0, 2.0, 5.0]).view(4, 1, 1, 1), torch.tensor([0, 1, 0, 1])
    >>> ClassMeans().images(setting, ClassRows.of(Split(images, labels), classes=2), each=1, key=Key(0)).flatten()
    tensor([1., 3.])
    """

    def images(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Float[Tensor, "classes each c h w"]:
        """The means; UsageError for a class of fewer than `each` images."""
        require_images("class_means", real, each)
        means = []
        for c, rows in enumerate(real.rows):
            dealt = rows[key(c).permutation(len(rows))].tensor_split(each)
            means.append(torch.stack([real.split.images[part].mean(0) for part in dealt]))
        return torch.stack(means)
