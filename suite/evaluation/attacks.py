"""Attacks of the Adversarial Robustness Toolbox, on pixels, through the preprocessing."""

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from suite.errors import UsageError
from suite.keys import global_generators
from suite.types import Setting, Split, Transform

if TYPE_CHECKING:
    from suite.evaluation.probes import Attacked


def require_toolbox() -> None:
    """Raise UsageError where the toolbox is not installed."""
    if find_spec("art") is None:
        raise UsageError("attacks need the Adversarial Robustness Toolbox: pip install -e '.[robustness]'")


class OfPixels(nn.Module):
    """A network that takes pixels in [0, 1]."""

    def __init__(self, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.network, self.transform = network, transform

    def forward(self, pixels: Tensor) -> Tensor:
        """Its logits."""
        logits: Tensor = self.network(self.transform.apply(pixels))
        return logits


def attacked(probe: "Attacked", network: nn.Module, batch: int, setting: Setting) -> Split:
    """The probe's images, each pixel changed by at most ε so that the network's loss grows, and preprocessed again."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    from suite.evaluation.probes import EPSILON, STEP, STEPS

    split, shape = probe.split, setting.shape
    pixels = probe.transform.display(split.images)
    given: Any = PyTorchClassifier(
        OfPixels(network.eval(), probe.transform), nn.CrossEntropyLoss(), (shape.channels, shape.height, shape.width),
        setting.classes, clip_values=(0.0, 1.0), device_type="cpu" if pixels.device.type == "cpu" else "gpu",
    )  # fmt: skip
    if probe.name == "fgsm":
        attack: Any = FastGradientMethod(given, eps=EPSILON, batch_size=batch)
    else:
        attack = ProjectedGradientDescentPyTorch(
            given, eps=EPSILON, eps_step=STEP, max_iter=STEPS, num_random_init=1, batch_size=batch, verbose=False
        )
    with global_generators(probe.key):  # of the attack's start
        changed = attack.generate(pixels.cpu().numpy(), split.labels.cpu().numpy())
    return replace(split, images=probe.transform.apply(torch.from_numpy(changed).to(pixels.device, pixels.dtype)))
