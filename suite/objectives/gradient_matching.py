"""Single-step gradient matching: recalled images should induce the weight gradients that real images induce."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core import trees
from suite.core.networks import fresh_network
from suite.core.transfer import together
from suite.core.unroll import through_recall
from suite.images import augment
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.registry import objectives
from suite.types import ClassRows, Optimizer, Params, Passes, Setting
from suite.validation import PositiveInt, require_labels

TRAINING_BATCH = 256
"""Recalled images of a training step at most, as in the released code."""


@objectives.register("gradient_matching")
@dataclass(frozen=True)
class GradientMatching:
    """Match, class by class, the loss's gradient on recalled images to that on real ones, layer by layer.

    D = sum over classes c, layers l and output units i of 1 - cos(g_real[c, l, i], g_recalled[c, l, i]), where g is the
    gradient of the cross-entropy with respect to a layer's weight and i a row of it (an output channel with all that
    feeds it); biases and the scales of a normalisation are left out. The network is fresh; with `stages` above 1 it is
    first trained on recalled images, to where the published method's network would be at some time of its loop. One
    draw of the augmentation serves both. Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching (2021),
    equation 9 and its released code; the baseline of the paper's Table 3.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 8, 8), 2, MLP(width=4), Standard(), "none", torch.device("cpu"))
    >>> images, labels = torch.rand(4, 1, 8, 8, generator=Key(0).generator()), torch.tensor([0, 0, 1, 1])
    >>> real, memory = ClassRows.of(Split(images, labels), 2), {"images": images[::2, None]}
    >>> gradients, metrics = GradientMatching(real_per_class=1).gradients(setting, memory, real, Key(1))
    >>> gradients["images"].shape, list(metrics)
    (torch.Size([2, 1, 1, 8, 8]), ['loss'])
    """

    real_per_class: PositiveInt = 256
    """Real training images of each class in an outer step, drawn anew."""
    images_per_class_per_step: PositiveInt = 128
    """Recalled images of each class in an outer step, drawn anew; all there are, if fewer."""
    stages: PositiveInt = 1
    """The network is first trained for a number of stages drawn from 0, ..., stages - 1."""
    steps_per_stage: PositiveInt = 1
    """Training steps of a stage, on 256 recalled images each."""
    inner_optimizer: Optimizer = field(default_factory=SGDMomentum)
    """Of that training."""

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """Gradient of D in the memory's tensors, and D itself as `loss`."""
        require_labels(setting)
        augmented = augment.draw(setting.augmentation, key("augmentation"))
        leaves = trees.leaves(memory)
        classes = torch.arange(setting.classes, device=setting.device)
        recalled = setting.parameterization.recall(leaves, classes)
        images = recalled.detach().requires_grad_()
        network = fresh_network(setting, key("network"))
        params = self._trained(network, augmented(images.detach().flatten(0, 1)), classes, key)

        per_class = images.shape[1]
        rows = key("recalled").subsets(setting.classes, per_class, min(self.images_per_class_per_step, per_class))
        drawn = [real.draw_rows([c], self.real_per_class, key("real")) for c in range(setting.classes)]
        rows, *drawn = together([rows, *drawn], setting.device)
        grads, distance = torch.zeros_like(images), images.new_zeros(())
        for c in range(setting.classes):  # one class's graphs at a time
            batch = real.split.at(drawn[c])
            real_grads = _weight_gradients(network, params, augmented(batch.images), batch.labels, graph=False)
            shown = augmented(images[c, rows[c]])
            labels = torch.full((len(shown),), c, device=setting.device)
            part = layerwise_distance(real_grads, _weight_gradients(network, params, shown, labels, graph=True))
            grads += torch.autograd.grad(part, images)[0]
            distance += part.detach()
        return through_recall({"images": recalled}, leaves, {"images": grads}), {"loss": distance}

    def _trained(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], classes: Int64[Tensor, " k"], key: Key
    ) -> Params:
        """The network's weights, fresh or after some stages of training on recalled images."""
        params = trees.detached(dict(network.named_parameters()))
        stages = int(torch.randint(self.stages, (), generator=key("stage").generator()))
        labels = classes.repeat_interleave(len(images) // len(classes))
        state = self.inner_optimizer.init(params)
        for step in range(stages * self.steps_per_stage):
            order = key("training", step).permutation(len(images))[:TRAINING_BATCH].to(images.device)
            params = trees.leaves(params)
            loss = cross_entropy(functional_call(network, params, (images[order],)), labels[order])
            grads = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
            with torch.no_grad():
                params, state = self.inner_optimizer.step(params, grads, state)
        return trees.leaves(params)

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Sizes of an outer step on a memory of `per_class` images for each class."""
        network = fresh_network(setting, Key(0))
        return {
            "matching": f"one step, after {self.stages - 1} stages of {self.steps_per_stage} steps at most",
            "recalled images of a class in a step": min(self.images_per_class_per_step, per_class),
            "real images of a class in a step": self.real_per_class,
            "network parameters": sum(p.numel() for p in network.parameters()),
        }

    def work(self, setting: Setting, per_class: int) -> list[Passes]:
        """For each class a gradient of real images and one of recalled ones, which is differentiated; the training."""
        training_steps = (self.stages - 1) / 2 * self.steps_per_stage
        return [
            Passes("gradient", self.real_per_class, setting.classes),
            Passes("unrolled", min(self.images_per_class_per_step, per_class), setting.classes),
            Passes("step", min(TRAINING_BATCH, per_class * setting.classes), training_steps),
        ]


def layerwise_distance(one: list[Tensor], other: list[Tensor]) -> Float[Tensor, ""]:
    """Sum over layers and output units of 1 - cosine of two lists of weights' gradients (n_out, ...)."""
    total = one[0].new_zeros(())
    for a, b in zip(one, other, strict=True):
        a, b = a.flatten(1), b.flatten(1)
        total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def _weight_gradients(
    network: nn.Module, params: Params, images: Tensor, labels: Int64[Tensor, " n"], graph: bool
) -> list[Tensor]:
    """Gradients of the loss with respect to the weights of linear and convolutional layers."""
    weights = [p for p in params.values() if p.dim() > 1]
    loss = cross_entropy(functional_call(network, params, (images,)), labels)
    return list(torch.autograd.grad(loss, weights, create_graph=graph))
