"""Distribution matching: recalled images shall have the mean features of real ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from suite.core.networks import fresh_network
from suite.core.unroll import through_recall
from suite.images import augment
from suite.keys import Key
from suite.objectives.fresh import AFFORDED, FEW_CLASSES, few
from suite.registry import objectives
from suite.types import ClassRows, Params, Setting
from suite.validation import PositiveInt


@objectives.register("distribution_matching")
@dataclass(frozen=True)
class DistributionMatching:
    """Match, class by class, the mean of an untrained network's features.

    loss = sum over classes c of |mean f(real_c) - mean f(recalled_c)|^2, with f the features of a network that is
    fresh in every outer step, and `real_per_class` real images drawn anew. No network is trained. One draw of the
    augmentation serves both. Zhao and Bilen, Dataset Condensation with Distribution Matching (2023), equation 5 and
    its released code, where the outer rate is 1.
    """

    real_per_class: PositiveInt = 256

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        augmented = augment.draw(setting.augmentation, key("augmentation"))
        leaves = {k: v.detach().requires_grad_() for k, v in memory.items()}
        recalled = setting.parameterization.recall(leaves, torch.arange(setting.classes, device=setting.device))
        images = recalled.detach().requires_grad_()
        network: Any = fresh_network(setting, key("network")).requires_grad_(False)
        slopes, loss = torch.zeros_like(images), images.new_zeros(())
        for c in range(setting.classes):  # one class's graphs at a time
            batch = real.draw([c], self.real_per_class, key("real"))
            with torch.no_grad():
                wanted = network.features(augmented(batch.images)).mean(0)
            apart = (network.features(augmented(images[c])).mean(0) - wanted).square().sum()
            slopes += torch.autograd.grad(apart, images)[0]
            loss += apart.detach()
        return through_recall(recalled, leaves, slopes), {"loss": loss}

    def seconds(self, setting: Setting, per_class: int, measured: Callable[..., float]) -> float:
        """Of one outer step, from measured ones of a few classes; on few real images if all take long."""
        classes = min(setting.classes, FEW_CLASSES)
        real = few(self.real_per_class, classes)
        one, two = (measured(replace(self, real_per_class=n * real), classes) for n in (1, 2))
        whole = one + max(two - one, 0.0) * (self.real_per_class / real - 1)
        if whole < AFFORDED or setting.device.type != "cpu":
            whole = measured(self, classes)
        return whole * setting.classes / classes

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        return {
            "matching": "mean features of a fresh network",
            "recalled images of a class in a step": per_class,
            "real images of a class in a step": self.real_per_class,
        }
