# %% [markdown]
# # Write an objective
#
# An objective gives a memory its gradient, and the suite does the rest: the outer optimizer, checkpoints, records. So
# it is one method, `gradients`, and a second one for what `--dry-run` says.
#
# This one matches moments in pixels: for each class the mean and the variance of recalled images to those of real
# ones. No network takes part, so a memory takes seconds.

# %%
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import suite
from suite.keys import Key
from suite.types import ClassRows, Params, Setting
from suite.validation import NonNegative, PositiveInt


@dataclass(frozen=True)
class Moments:
    """Match moments in pixels: sum over classes of |mean - real mean|^2 + s |variance - real variance|^2."""

    spread: NonNegative = 1.0
    """s, the weight of the variances."""
    real_per_class: PositiveInt = 64
    """Real training images of each class in an outer step, drawn anew."""

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in memory.items()}
        recalled = setting.parameterization.recall(leaves, torch.arange(setting.classes, device=setting.device))
        loss = recalled.new_zeros(())
        for c in range(setting.classes):
            images = real.draw([c], self.real_per_class, key("real")).images
            loss = loss + (recalled[c].mean(0) - images.mean(0)).square().sum()
            spread = recalled[c].var(0, correction=0) - images.var(0, correction=0)
            loss = loss + self.spread * spread.square().sum()
        grads = torch.autograd.grad(loss, list(leaves.values()))
        return dict(zip(leaves, grads, strict=True)), {"loss": loss.detach()}

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        return {"matching": "means and variances of pixels"}


# %% [markdown]
# Does it do what it should? Two memories of free images, four for each class, from noise: one matches the means
# alone, the other the variances, too.

# %%
memories = {}
for spread in (0.0, 1.0):
    memories[spread] = suite.distil(
        "digits",
        objective=Moments(spread=spread),
        architecture="mlp",
        parameterization="standard",
        images_per_class=4,
        start=None,
        iterations=150,
        progress=False,
    )

# %% [markdown]
# Where only means are matched, the loss asks nothing of a single image, and its noise stays. With variances the images
# of a class differ about as much as real ones, pixel by pixel:

# %%
from suite.datasets.digits import Digits
from suite.datasets.sources import default_data_dir

data = Digits().load(default_data_dir(), Key(0), validation=0.1)
real = torch.stack([data.train.images[data.train.labels == c].std(0) for c in range(10)])
off = {}
for spread, memory in memories.items():
    images, labels = memory.recall()
    recalled = torch.stack([images[labels == c].std(0) for c in range(10)])
    off[spread] = float((recalled - real).abs().mean())
    print(f"spread {spread:.0f}: deviations are off by {off[spread]:.2f} on average")

# %%
memories[1.0]

# %% [markdown]
# What a memory is worth is another question than its loss. Fresh networks decide it, trained on what is recalled and
# tested on real images. (One memory of each: a difference of a point means nothing.)

# %%
worth = {spread: memory.evaluate(progress=False) for spread, memory in memories.items()}
for spread, accuracies in worth.items():
    print(f"spread {spread:.0f}", accuracies, sep="\n")

# %% [markdown]
# Last, the contract: the gradient is finite, depends on the key alone, leaves the memory as it was. The first version
# of this tutorial broke it. It matched standard deviations, whose derivative is not finite where a class recalls a
# single image, so variances took their place.
#
# A name makes the objective a component (once in a session). In a file of its own `python -m suite.check FILE` does
# both; `docs/templates/objective.py` is a file to start from.

# %%
from suite.contracts.checks import check
from suite.registry import load_components, objectives

load_components()
objectives.register("moments")(Moments)
findings = check("objectives", "moments")
for finding in findings:
    print(finding.verdict, "-", finding.promise)
