"""The paper's released code as an objective, so that its gradient is used in ordinary runs: a plugin of `suite.run`.

    python -m suite.run --plugin tools/released.py --set 'OBJECTIVE = @objectives.released_code()' ...

The environment variable REMEMBER_THE_PAST names the checkout, since a record holds every setting and no path.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from suite.errors import UsageError
from suite.keys import Key, global_generators
from suite.registry import objectives
from suite.types import ClassRows, Params, Setting
from suite.validation import PositiveInt
from tools import reference


@objectives.register("released_code")
@dataclass(frozen=True)
class ReleasedCode:
    """The hypergradient as the paper's released code computes it, for free images at full resolution.

    Its unroll and its way back through all steps, by its own loop; every inner step trains on all recalled images, at
    rate 0.01 with momentum 0.9 and without augmentation. The networks are the suite's, since its own have one width.
    """

    inner_steps: PositiveInt = 150
    """Of every unroll."""
    real_per_class: PositiveInt = 64
    """Real images of each class in the outer loss."""

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """The gradient in the images, and the outer loss; the network and the real images are those of BPTT."""
        if set(memory) != {"images"} or setting.augmentation != "none":
            raise UsageError(
                "released_code serves free images without augmentation: PARAMETERIZATION = "
                "@parameterizations.standard() and AUGMENTATION = 'none'"
            )
        checkout = Path(os.environ.get(reference.CHECKOUT, ""))
        with global_generators(key("network")):
            network = setting.architecture.build(setting.shape, setting.classes).to(setting.device)
        batch = real.draw(list(range(setting.classes)), self.real_per_class, key("real"))
        sizes = setting.shape, setting.classes, memory, batch, self.inner_steps, setting.device
        loss, gradients = reference.gradients(checkout, network, *sizes)
        return gradients, {"loss": loss}

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Sizes of an outer step on a memory of `per_class` images for each class."""
        return {
            "inner steps": self.inner_steps,
            "inner batch": per_class * setting.classes,
            "real images in the outer loss": self.real_per_class * setting.classes,
        }
