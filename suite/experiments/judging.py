"""Judge a distilled set that somebody else made as if it were ours; `python -m suite.evaluate` imports it first."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Literal

import torch

from suite.architectures.convnet import ConvNet
from suite.controls.random_images import RandomImages
from suite.core.networks import label_of
from suite.datasets.digits import Digits
from suite.datasets.loading import load
from suite.errors import RunError
from suite.evaluation.probes import ProbeName
from suite.evaluation.protocol import Protocol
from suite.experiments import accounting, plots
from suite.experiments.final_measurements import FinalMeasurements
from suite.images.augment import AugmentationChoice
from suite.importers import cache, spaces
from suite.importers.cache import Kept
from suite.importers.spaces import Conversion, Space
from suite.keys import Key
from suite.parameterizations.imported import IMAGES, Imported
from suite.registry import ADDED, describe, experiments
from suite.storage.files import sha256
from suite.types import (
    Architecture,
    ClassRows,
    Control,
    Cost,
    Data,
    Dataset,
    Outcome,
    Parameterization,
    Session,
    Setting,
    Transform,
)
from suite.validation import AtLeast, AtMost, Few, Fraction, NonNegativeInt, Positive, require_labels

OWN = "own"
"""The space of a memory of this suite: the data set's preprocessing, to the bit."""


@experiments.register("judging")
@dataclass(frozen=True)
class Judging:
    """Train fresh networks on a distilled set of somebody else, by the suite's protocol and beside its controls.

    The set is one that `python -m suite.evaluate` read and stored beside the runs; `identity` names it there.

    >>> Judging(images_per_class=1).plan()["budget"]
    '640 numbers (1 images per class)'
    """

    dataset: Dataset = field(default_factory=Digits)
    """What the set was distilled from."""
    architecture: Architecture = field(default_factory=ConvNet)
    """Of the networks."""
    parameterization: Parameterization = field(default_factory=Imported)
    """How the set is stored and recalled."""
    images_per_class: Positive = 1.0
    """Its budget: all that it stores, labels and rate among it, as real images per class."""
    identity: str = ""
    """SHA-256 of all that was read of its file."""
    file: str = ""
    """The file's name."""
    format: str = ""
    """Its layout, as `--as` names it."""
    space: str = OWN
    """What was done to its pixels, as it was declared (`suite.importers.spaces`); 'own' for a memory of the suite."""
    labels: str = "class"
    """What its labels are."""
    lr: str = "the protocol's"
    """The rate that networks are trained at, which `evaluation` has: the protocol's, or another."""
    classes: str = "as in the data set"
    """How its classes were numbered."""
    printed: Annotated[float, AtLeast(0), AtMost(100)] | None = None
    """The accuracy in percent that its authors printed."""
    augmentation: AugmentationChoice = "default"
    """Of the images; 'default': the data set's own."""
    evaluation: Protocol = field(default_factory=Protocol)
    """How the networks are trained."""
    validation: Fraction = 0.0
    """Fraction of every training class that is set aside, before the preprocessing is fitted and controls are drawn."""
    full_data_epochs: NonNegativeInt = 0
    """Epochs of the control that trains on all training images; 0: left out."""
    full_data_networks: Few = 3
    """Networks of that control."""
    controls: Sequence[Control] = (RandomImages(),)
    """Selections of real images, as many as the budget pays for."""
    transfer: Sequence[Architecture] = ()
    """Other architectures that judge the set."""
    probes: Sequence[ProbeName] = field(default=(), metadata=ADDED)
    """What else networks are tested on: corrupted and attacked images, membership (`suite.evaluation.probes`)."""

    def __post_init__(self) -> None:
        require_labels(self, learned=True)

    @property
    def test(self) -> Literal[True]:
        """Test images are opened: nothing is chosen here."""
        return True

    # ------------------------------------------------------------ sizes

    def setting(self, device: torch.device) -> Setting:
        """What the networks are trained for."""
        info, augmentation = self.dataset.info, accounting.augmentation_of(self.dataset, self.augmentation)
        return Setting(info.shape, info.classes, self.architecture, self.parameterization, augmentation, device)

    def plan(self) -> dict[str, Any]:
        """Sizes, found without any data."""
        info, setting = self.dataset.info, self.setting(torch.device("cpu"))
        FinalMeasurements.of(self).require_networks(setting)
        budget = accounting.budget_of(setting, self.images_per_class)
        return {
            "set": f"{self.file} as {self.format}: {self.space}, labels {self.labels}",
            "data set": f"{info.name}, {info.shape}, {info.classes} classes, {info.train_size} training images",
            "budget": f"{budget.stored_numbers} numbers ({budget.images_per_class:.4g} images per class)",
            "recalled images per class": budget.recalled_per_class,
            "evaluation": self.evaluation.label(),
            "full-data control": f"{self.full_data_epochs} epochs, {self.full_data_networks} networks",
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of judging the set, and of the controls, which runs may share."""
        setting, info, measured = self.setting(device), self.dataset.info, FinalMeasurements.of(self)
        per_class = self.parameterization.per_class(setting.shape, setting.classes, self.images_per_class)
        seconds = measured.seconds_of_memory(setting, info, per_class * info.classes)
        return Cost(seconds, measured.seconds_of_controls(setting, describe(self.dataset), info), 0.0)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        """Convert the images, train, measure and compare."""
        started = time.monotonic()
        setting = self.setting(session.device)
        FinalMeasurements.of(self).require_networks(setting)
        kept = cache.kept(session.cache_dir, self.identity, self.file)
        data = load(self.dataset, session.data_dir, session.key("data"), self.validation)
        images = self._converted(session.data_dir, kept, data)
        tensors = dict(kept.tensors) if images is None else kept.tensors | {IMAGES: images.images}
        loaded = time.monotonic()
        budget = accounting.budget_of(setting, self.images_per_class, tensors)
        memory = accounting.save_memory(
            session.directory / "memory.safetensors", tensors, self, setting.shape, data.transform, budget,
            seed=session.key.seed, **accounting.dataset_about(data),
        )  # fmt: skip
        real = ClassRows.of(data.train.to(session.device), setting.classes)
        on_device = {name: tensor.to(session.device) for name, tensor in memory.tensors.items()}
        measurements = FinalMeasurements.of(self).measure(session, setting, data, real, on_device)
        session.pause()
        plots.distillation(memory, {}, session)
        facts = accounting.dataset_facts(data) | {"images": accounting.numbers_of_images(data)}
        facts["memory_sha256"] = sha256((session.directory / "memory.safetensors").read_bytes())
        return Outcome(
            measurements=tuple(measurements),
            budget=budget,
            scale=self._scale(),
            facts=facts | {"imported": self._source(kept, images)},
            cost={"loading_seconds": loaded - started, "evaluation_seconds": time.monotonic() - loaded},
        )

    def _converted(self, data_dir: Path, kept: Kept, data: Data) -> Conversion | None:
        """The set's images in the data set's preprocessing; None for a memory of the suite, which is in it."""
        if self.space == OWN:
            if kept.about.get("dataset_digest") not in (None, data.digest):
                raise RunError(f"{self.file} was distilled from other images than {data.info.name} has here")
            if kept.about["preprocessing"] != data.transform.describe():
                raise RunError(
                    f"{self.file} is preprocessed otherwise than {data.info.name} is here: by another fit, or of other "
                    "images; give the data set's settings and the validation of its own run"
                )
            return None
        images = kept.tensors[IMAGES]
        of = self._transform(data_dir, Space(self.space, kept.space))
        tiles = getattr(getattr(self.parameterization, "of", self.parameterization), "factor", 1) > 1
        done = spaces.converted(torch.flatten(images, 0, 1), of, data.transform, tiles)
        return Conversion(done.images.unflatten(0, images.shape[:2]), done.words, done.outside)

    def _transform(self, data_dir: Path, space: Space) -> Transform:
        """What was done to the set's pixels."""
        if space.fitted is None:
            return space.transform()
        name, regularization = space.fitted
        alike = accounting.with_values(self.dataset, preprocessing=name, zca_regularization=regularization)
        fitted: Transform = alike.load(data_dir, Key(0), 0.0).transform
        if fitted.name != name:
            raise RunError(f"--space {self.space}: {self.dataset.info.name} fits no such preprocessing; name a file")
        return fitted

    # ------------------------------------------------------------ what is left behind

    def _scale(self) -> dict[str, Any]:
        """What is less than the paper's protocol and networks."""
        reduced_by = [
            text
            for architecture in (self.architecture, *FinalMeasurements.of(self).elsewhere)
            for text in accounting.below_default(architecture, "width", f"{label_of(architecture)} ")
        ]
        reduced_by += [self.evaluation.label()] if self.evaluation.reduced else []
        scale = {"protocol": self.evaluation.label(), "reduced": bool(reduced_by), "reduced_by": reduced_by}
        return scale | {"validation_held_out": self.validation, "full_data_epochs": self.full_data_epochs}

    def _source(self, kept: Kept, images: Conversion | None) -> dict[str, Any]:
        """What the record says of the file: what it is, what was done to it, and what its authors measured."""
        accuracies = {
            network: {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None, "n": len(values)}
            for network, values in kept.about["accuracies"].items()
        }
        return {
            "file": self.file,
            "format": self.format,
            "sha256": kept.about["sha256"],
            "space": self.space,
            "labels": self.labels,
            "lr": self.lr,
            "classes": self.classes,
            "conversion": "kept as they are" if images is None else images.words,
            "pixels_outside": {} if images is None else images.outside,
            "notes": kept.about["notes"],
            "printed": self.printed,
            "accuracies": accuracies,
        }
