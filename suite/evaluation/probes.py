"""What a trained network is tested on beside the test images: corrupted ones, attacks, and what it was taught.

Corruptions and attacks change pixels in [0, 1], before the data set's preprocessing. torchvision blurs, Pillow
compresses, and the Adversarial Robustness Toolbox (extra `robustness`) attacks; it is imported where it is used.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, device, nn

from suite.evaluation.evaluate import Probe, accuracy
from suite.images.preprocess import pixels_of
from suite.keys import Key
from suite.types import ClassRows, Data, Setting, Split, Transform
from suite.validation import OneOf

NOISE, BRIGHTER, FLATTER, BLUR, QUALITY = 0.1, 1.5, 0.4, 1.0, 25
"""Deviation of the noise; factors of brightness and contrast; deviation of the blur in pixels; quality of the JPEG."""

EPSILON, STEP, STEPS = 8 / 255, 2 / 255, 10
"""Of attacks: the largest change of a pixel, and of PGD the change in a step and the number of steps."""

ATTACKED = 1000
"""Test images that are attacked, at the most."""

MEMBERSHIP = "membership"
"""The probe that asks whether images were in the data set's training part."""


def _brighter(pixels: Tensor, key: Key) -> Tensor:
    return (pixels * BRIGHTER).clamp(0, 1)


def _flatter(pixels: Tensor, key: Key) -> Tensor:
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return mean + FLATTER * (pixels - mean)


def _noisy(pixels: Tensor, key: Key) -> Tensor:
    noise = torch.randn(pixels.shape, generator=key.generator(), dtype=pixels.dtype)
    return (pixels + NOISE * noise.to(pixels.device)).clamp(0, 1)


def _blurred(pixels: Tensor, key: Key) -> Tensor:
    from torchvision.transforms.v2.functional import gaussian_blur

    blurred: Tensor = gaussian_blur(pixels, [5, 5], [BLUR, BLUR])
    return blurred


def _coarser(pixels: Tensor, key: Key) -> Tensor:
    size = pixels.shape[-2:]
    half = nn.functional.interpolate(pixels, scale_factor=0.5, mode="area")
    return nn.functional.interpolate(half, size=tuple(size), mode="nearest")


def _compressed(pixels: Tensor, key: Key) -> Tensor:
    whole = (255 * pixels).round().to(torch.uint8).cpu()
    kept = []
    for image in whole:
        file = io.BytesIO()
        picture = image[0] if len(image) == 1 else image.movedim(0, -1)
        Image.fromarray(picture.numpy()).save(file, "JPEG", quality=QUALITY)
        read = torch.from_numpy(np.array(Image.open(file)))
        kept.append(read[None] if len(image) == 1 else read.movedim(-1, 0))
    return torch.stack(kept).to(pixels.device, pixels.dtype) / 255


CORRUPTIONS: dict[str, Callable[[Tensor, Key], Tensor]] = {
    "noise": _noisy, "blur": _blurred, "brightness": _brighter, "contrast": _flatter, "pixelate": _coarser,
    "jpeg": _compressed,
}  # fmt: skip
"""By name; each takes pixels in [0, 1] to pixels in [0, 1]."""

ATTACKS = ("fgsm", "pgd")
"""White-box attacks in the largest norm, with the labels known."""

PROBES = (*CORRUPTIONS, *ATTACKS, MEMBERSHIP)
"""All names."""

ProbeName = Annotated[str, OneOf(PROBES)]
"""A field that names a probe."""


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Test images that were changed before any network saw them: the percentage that is classified correctly."""

    split: Split
    """Preprocessed after the corruption."""
    counted = True

    def __len__(self) -> int:
        return len(self.split)

    def to(self, where: device) -> "Corrupted":
        """The same on a device."""
        return replace(self, split=self.split.to(where))

    def percent(self, network: nn.Module, batch: int, setting: Setting) -> float:
        """Accuracy."""
        return accuracy(network, self.split, batch, setting)


@dataclass(frozen=True, eq=False)
class Attacked:
    """Test images that are changed against the network at hand: the percentage that is still classified correctly."""

    split: Split
    """Preprocessed."""
    transform: Transform
    """Their preprocessing."""
    name: str
    """One of `ATTACKS`."""
    key: Key
    """Of the attack's random start."""
    counted = True

    def __len__(self) -> int:
        return len(self.split)

    def to(self, where: device) -> "Attacked":
        """The same on a device."""
        return replace(self, split=self.split.to(where))

    def percent(self, network: nn.Module, batch: int, setting: Setting) -> float:
        """Accuracy under the attack."""
        from suite.evaluation.attacks import attacked

        return accuracy(network, attacked(self, network, batch, setting), batch, setting)


@dataclass(frozen=True, eq=False)
class Membership:
    """How well the loss tells training images from test images: 100 times the area under the ROC curve, 50 for chance.

    The score of an image is minus its cross-entropy (Yeom et al., 2018); as many of each are asked.
    """

    members: Split
    """Training images."""
    others: Split
    """Test images."""
    counted = False

    def __len__(self) -> int:
        return len(self.members) + len(self.others)

    def to(self, where: device) -> "Membership":
        """The same on a device."""
        return Membership(self.members.to(where), self.others.to(where))

    def percent(self, network: nn.Module, batch: int, setting: Setting) -> float:
        """The area."""
        from sklearn.metrics import roc_auc_score

        scores = [_losses(network.eval(), split, batch).neg() for split in (self.members, self.others)]
        member = torch.cat([torch.ones(len(scores[0])), torch.zeros(len(scores[1]))])
        return 100 * float(roc_auc_score(member.numpy(), torch.cat(scores).double().cpu().numpy()))


@torch.no_grad()
def _losses(network: nn.Module, split: Split, batch: int) -> Tensor:
    parts = zip(split.images.split(batch), split.labels.split(batch), strict=True)
    each = [nn.functional.cross_entropy(network(images), labels, reduction="none") for images, labels in parts]
    return torch.cat(each).nan_to_num(nan=torch.finfo(torch.float32).max)


@dataclass(frozen=True, eq=False)
class Probes:
    """The probes of these names, of one data set."""

    names: Iterable[str]
    """Of `PROBES`."""
    data: Data
    """Of the networks."""
    real: ClassRows
    """Its training images."""
    key: Key
    """Of noise, of the images that are attacked, and of the training images that are asked about."""

    def require(self) -> None:
        """Raise UsageError where a probe can't be made, before anything is trained."""
        if any(name in ATTACKS for name in self.names):
            from suite.evaluation.attacks import require_toolbox

            require_toolbox()
        if any(name != MEMBERSHIP for name in self.names):
            pixels_of(self.data.test.images[:1], self.data.transform)

    def made(self) -> dict[str, Probe]:
        """By name, on the CPU."""
        return {name: self._made(name) for name in self.names}

    def _made(self, name: str) -> Probe:
        test, key = self.data.test, self.key(name)
        if name in ATTACKS:
            return Attacked(test.at(self._few(len(test), ATTACKED)), self.data.transform, name, key)
        if name == MEMBERSHIP:
            real = self.real.split
            n = min(len(real), len(test))
            members = self._few(len(real), n).to(real.labels.device)
            return Membership(real.at(members), test.at(self._few(len(test), n)))
        changed = CORRUPTIONS[name](self.data.transform.display(test.images), key)
        return Corrupted(replace(test, images=self.data.transform.apply(changed)))

    def _few(self, of: int, at_most: int) -> Tensor:
        return self.key("some", of).permutation(of)[:at_most]


def described(name: str) -> dict[str, Any]:
    """The settings of a probe, which its accuracies depend on."""
    if name in ATTACKS:
        return {"epsilon": EPSILON, "images": ATTACKED} | ({"step": STEP, "steps": STEPS} if name == "pgd" else {})
    of = {"noise": NOISE, "blur": BLUR, "brightness": BRIGHTER, "contrast": FLATTER, "pixelate": 0.5, "jpeg": QUALITY}
    return {} if name == MEMBERSHIP else {"strength": of[name]}
