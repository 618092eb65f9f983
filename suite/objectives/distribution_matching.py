"""Distribution matching: recalled images should match the mean features of real images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suite.core import trees
from suite.core.networks import fresh_network
from suite.core.transfer import together
from suite.core.unroll import through_recall
from suite.images import augment
from suite.keys import Key
from suite.registry import objectives
from suite.types import ClassRows, Params, Passes, Setting
from suite.validation import PositiveInt, require_labels


@objectives.register("distribution_matching")
@dataclass(frozen=True)
class DistributionMatching:
    """Match, class by class, the mean of an untrained network's features.

    loss = sum over classes c of |mean f(real_c) - mean f(recalled_c)|^2, with f the features of a network that is
    fresh in every outer step. No network is trained. One draw of the augmentation serves both. Zhao and Bilen, Dataset
    Condensation with Distribution Matching (2023), equation 5 and its released code, where the outer rate is 1.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 8, 8), 2, MLP(width=4), Standard(), "none", torch.device("cpu"))
    >>> images, labels = torch.rand(4, 1, 8, 8, generator=Key(0).generator()), torch.tensor([0, 0, 1, 1])
    >>> real, memory = ClassRows.of(Split(images, labels), 2), {"images": images[::2, None]}
    >>> gradients, metrics = DistributionMatching(real_per_class=1).gradients(setting, memory, real, Key(1))
    >>> gradients["images"].shape, list(metrics)
    (torch.Size([2, 1, 1, 8, 8]), ['loss'])
    """

    real_per_class: PositiveInt = 256
    """Real training images of each class in an outer step, drawn anew."""

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """Gradient of the distance in the memory's tensors, and the distance itself as `loss`."""
        require_labels(setting)
        augmented = augment.draw(setting.augmentation, key("augmentation"))
        leaves = trees.leaves(memory)
        recalled = setting.parameterization.recall(leaves, torch.arange(setting.classes, device=setting.device))
        images = recalled.detach().requires_grad_()
        network: Any = fresh_network(setting, key("network")).requires_grad_(False)
        drawn = [real.draw_rows([c], self.real_per_class, key("real")) for c in range(setting.classes)]
        grads, loss = torch.zeros_like(images), images.new_zeros(())
        for c, rows in enumerate(together(drawn, setting.device)):  # one class's graphs at a time
            with torch.no_grad():
                target = network.features(augmented(real.split.images[rows])).mean(0)
            distance = (network.features(augmented(images[c])).mean(0) - target).square().sum()
            grads += torch.autograd.grad(distance, images)[0]
            loss += distance.detach()
        return through_recall({"images": recalled}, leaves, {"images": grads}), {"loss": loss}

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Sizes of an outer step on a memory of `per_class` images for each class."""
        return {
            "matching": "mean features of a fresh network",
            "recalled images of a class in a step": per_class,
            "real images of a class in a step": self.real_per_class,
        }

    def work(self, setting: Setting, per_class: int) -> list[Passes]:
        """For each class its real images forth, its recalled ones forth and back."""
        forth = Passes("forward", self.real_per_class, setting.classes)
        return [forth, Passes("gradient", per_class, setting.classes)]
