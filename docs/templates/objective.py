r"""Template of an objective: gives a memory its gradient.

    python -m suite.check docs/templates/objective.py
    python -m suite.run --plugin docs/templates/objective.py --gin gin/quickstart.gin --gin gin/scale/smoke.gin \
        --set 'OBJECTIVE = @objectives.mean_matching()'
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suite.images import augment
from suite.keys import Key
from suite.registry import objectives
from suite.types import ClassRows, Params, Setting
from suite.validation import PositiveInt


@objectives.register("mean_matching")  # its name in gin: @objectives.mean_matching()
@dataclass(frozen=True)
class MeanMatching:
    """Match class means in pixels: loss = sum over classes c of |mean recalled_c - mean real_c|^2.

    >>> MeanMatching(real_per_class=10)
    MeanMatching(real_per_class=10)
    """

    real_per_class: PositiveInt = 64
    """Real training images of each class in an outer step, drawn anew."""

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """Gradient of the loss in every tensor of the memory, and what is logged; `loss` must be there."""
        # Whatever is drawn comes from the key, so that a resumed run has the same bits. So does a network:
        # suite.core.networks.fresh_network(setting, key("network")).
        augmented = augment.draw(setting.augmentation, key("augmentation"))
        leaves = {k: v.detach().requires_grad_() for k, v in memory.items()}
        recalled = setting.parameterization.recall(leaves, torch.arange(setting.classes, device=setting.device))
        loss = recalled.new_zeros(())
        for c in range(setting.classes):
            batch = real.draw([c], self.real_per_class, key("real"))
            loss = loss + (augmented(recalled[c]).mean(0) - augmented(batch.images).mean(0)).square().sum()
        grads = torch.autograd.grad(loss, list(leaves.values()))
        return dict(zip(leaves, grads, strict=True)), {"loss": loss.detach()}

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """What `--dry-run` prints of one outer step. With a method `work` its time is counted (`types.Counted`)."""
        return {"matching": "mean pixels", "real images of a class in a step": self.real_per_class}
