"""A memory judged on test and validation images, beside real images of the same budget and all training images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch

from suite import __version__
from suite.core.networks import label_of, require_logits, require_parameters
from suite.errors import UsageError, one_line
from suite.evaluation.cached import CachedAccuracies, LazyTrainingSet
from suite.evaluation.comparison import affordable_per_class
from suite.evaluation.evaluate import Accuracies, Splits, recalled
from suite.evaluation.probes import Probes, described
from suite.evaluation.protocol import Protocol
from suite.evaluation.teacher import Teachers
from suite.experiments import timing
from suite.keys import Key, global_generators
from suite.registry import describe
from suite.storage.files import json_sha256, make_directory
from suite.storage.sealed import digest
from suite.types import (
    Architecture,
    ClassRows,
    Control,
    Data,
    DatasetInfo,
    Measurement,
    Params,
    SelectsInFeatures,
    Session,
    Setting,
)

NETWORKS = "evaluation networks"
"""What accuracies are spread over, unless every network has its own images."""

UNDER = "test under "
"""Before the name of a probe, among the names of splits."""


@dataclass(frozen=True)
class FinalMeasurements:
    """What is measured at the end of a distillation; its fields are the experiment's."""

    architecture: Architecture
    """Of the networks that the memory was learned with."""
    transfer: Sequence[Architecture]
    """Other architectures that judge it."""
    controls: Sequence[Control]
    """Selections of real images."""
    images_per_class: float
    """The memory's budget."""
    evaluation: Protocol
    """How all networks are trained."""
    full_data_epochs: int
    """Epochs on all training images; 0: not measured."""
    full_data_networks: int
    """Networks on all training images."""
    validation: float
    """Fraction of every training class that was set aside."""
    test: bool
    """Whether test images are opened."""
    probes: Sequence[str] = ()
    """What else networks are tested on (`suite.evaluation.probes`)."""

    @staticmethod
    def of(experiment: Any) -> "FinalMeasurements":
        """That of an experiment with these fields."""
        names = (field.name for field in fields(FinalMeasurements))
        return FinalMeasurements(**{name: getattr(experiment, name) for name in names if hasattr(experiment, name)})

    @property
    def elsewhere(self) -> list[Architecture]:
        """The architectures of `transfer` that are not the memory's own."""
        return [other for other in self.transfer if describe(other) != describe(self.architecture)]

    def require_networks(self, setting: Setting) -> None:
        """Raise UsageError for an architecture that has no network for such images, before hours are spent."""
        for other in (self.architecture, *self.elsewhere):
            try:
                with torch.no_grad(), global_generators(Key(0)):
                    network = other.build(setting.shape, setting.classes)
                    require_parameters(network, label_of(other))
                    size = setting.shape.channels, setting.shape.height, setting.shape.width
                    for mode in (False, True):  # some have other outputs while they train
                        scores = network.train(mode)(torch.zeros(2, *size))
                        require_logits(scores, 2, setting.classes, label_of(other))
            except UsageError:
                raise
            except Exception as error:  # whatever the network's own code raises
                raise UsageError(
                    f"{label_of(other)} can't be used on images of {setting.shape} with {setting.classes} classes "
                    f"({one_line(error)[:200]}); choose another architecture"
                ) from error

    # ------------------------------------------------------------ measuring

    def measure(
        self, session: Session, setting: Setting, data: Data, real: ClassRows, memory: Params
    ) -> list[Measurement]:
        """The memory on every architecture, then its controls; a run that goes on trains only what is missing.

        Networks of the memory are kept in the run's directory; those of the controls are shared by all runs with equal
        data, network, budget and seed, and see test images alone.
        """
        test: Splits = {"test": data.test.to(session.device)} if self.test else {}
        probes = Probes(self.probes, data, real, session.key("probes"))
        probes.require()
        test = {**test, **{f"{UNDER}{name}": probe.to(session.device) for name, probe in probes.made().items()}}
        validation: Splits = {"validation": data.validation.to(session.device)} if len(data.validation) else {}
        cached = CachedAccuracies(
            session.directory / ".evaluation",
            {**test, **validation},
            session.key("evaluation"),
            session.report,
            session.pause,
        )
        teachers = Teachers(real.split, self.evaluation, cached.key, cached.pause)
        measurements = list(self._memory(cached, setting, teachers, memory))
        if self.test:
            shared = replace(cached, folder=make_directory(session.cache_dir / "controls"), splits=test)
            measurements += self._controls(shared, setting, real, teachers, self._depends_on(session, setting, data))
        return measurements

    def _memory(
        self, cached: CachedAccuracies, setting: Setting, teachers: Teachers, memory: Params
    ) -> Iterator[Measurement]:
        images, about = recalled(setting, memory), {"memory": digest(memory)} | self._about_probes()
        note = f"{len(images)} recalled images, {self.evaluation.sgd_steps(len(images))} SGD steps"

        def accuracies(name: str, on: Setting, about: dict[str, Any]) -> Accuracies:
            taught = teachers.taught(lambda network: images, on)
            return cached.evaluate(name, on, taught, len(images), self.evaluation, about)

        yield from _by_split("memory", accuracies("the memory", setting, about), NETWORKS, note)
        for other in self.elsewhere:
            on, network = replace(setting, architecture=other), label_of(other)
            transferred = accuracies(f"the memory on {network}", on, about | {"on": describe(other)})
            yield from _by_split("memory", transferred, NETWORKS, note, network)

    def _controls(
        self,
        cached: CachedAccuracies,
        setting: Setting,
        real: ClassRows,
        teachers: Teachers,
        about: dict[str, Any],
    ) -> Iterator[Measurement]:
        each, protocol = affordable_per_class(self.images_per_class), self.evaluation
        counts = [min(each, len(rows)) for rows in real.rows]
        size, fewest = sum(counts), min(counts)
        note = f"{each} real images per class, {protocol.sgd_steps(size)} SGD steps"
        note += f", all there are of a class that has fewer ({fewest} of the smallest)" if fewest < each else ""
        note += ", more than the budget" if self.images_per_class < 1 else ""
        for control in self.controls:
            images = LazyTrainingSet(partial(control.choose, setting, real, each, cached.key))
            taught = teachers.taught(images, setting)
            of_control = about | {"control": describe(control), "images per class": each}
            accuracies = cached.evaluate(control.label, setting, taught, size, protocol, of_control)
            yield from _by_split(control.label, accuracies, control.over, note)
        if self.full_data_epochs:
            size = len(real.split)
            protocol = replace(
                protocol.without_teacher(), epochs=self.full_data_epochs, networks=self.full_data_networks
            )
            accuracies = cached.evaluate("the full data", setting, lambda network: real.split, size, protocol, about)
            note = f"{size} images, {protocol.epochs} epochs of the paper's {Protocol().epochs}"
            yield from _by_split("full data", accuracies, NETWORKS, note)

    def _depends_on(self, session: Session, setting: Setting, data: Data) -> dict[str, Any]:
        """All that the accuracies of the full-data control depend on."""
        return {
            "data": data.digest,
            "preprocessing": data.transform.describe(),
            "validation": self.validation,
            "architecture": describe(self.architecture),
            "augmentation": setting.augmentation,
            "seed": session.key.seed,
            "device": session.device.type,
            "versions": [__version__, torch.__version__],
        } | self._about_probes()

    def _about_probes(self) -> dict[str, Any]:
        return {"probes": {name: described(name) for name in self.probes}} if self.probes else {}

    # ------------------------------------------------------------ its cost

    def seconds_of_memory(self, setting: Setting, info: DatasetInfo, images: int) -> float:
        """Seconds of judging a memory that recalls so many images, on every architecture."""
        measured = (info.test_size if self.test else 0) + round(self.validation * info.train_size)
        seconds = 0.0
        for architecture in (self.architecture, *self.elsewhere):
            pace = timing.pace(replace(setting, architecture=architecture), self.evaluation)
            seconds += pace.networks(self.evaluation.networks, self.evaluation.epochs, images, measured)
        return seconds

    def seconds_of_controls(self, setting: Setting, described_dataset: Any, info: DatasetInfo) -> dict[str, float]:
        """Seconds of each control, by a hash of all that it depends on, the described data set among it."""
        if not self.test:
            return {}
        protocol, pace = self.evaluation, timing.pace(setting, self.evaluation)
        about = {"data": described_dataset, "held out": self.validation, "on": describe(self.architecture)}
        about |= {"augmentation": setting.augmentation, "protocol": describe(protocol)}
        images = affordable_per_class(self.images_per_class) * setting.classes
        train_images = info.train_size - round(self.validation * info.train_size)
        seconds: dict[str, float] = {}
        for control in self.controls:
            identity = json_sha256([about, describe(control), images])
            seconds[identity] = pace.networks(protocol.networks, protocol.epochs, images, info.test_size)
            if isinstance(control, SelectsInFeatures) and control.epochs:  # in features that controls share
                seconds[json_sha256([about, "features", control.epochs])] = control.epochs * train_images * pace.train
        if protocol.labels == "teacher":
            for on in (self.architecture, *self.elsewhere):
                each = timing.pace(replace(setting, architecture=on), self.evaluation).train
                seconds[json_sha256([about, "teacher", describe(on)])] = protocol.teacher_epochs * train_images * each
        if self.full_data_epochs:
            epochs, networks = self.full_data_epochs, self.full_data_networks
            identity = json_sha256([about, "full data", epochs, networks])
            seconds[identity] = pace.networks(networks, epochs, train_images, info.test_size)
        return seconds


def _by_split(method: str, accuracies: Accuracies, over: str, note: str, network: str = "") -> Iterator[Measurement]:
    """A measurement for each split, and for each probe of test images."""
    for split, values in accuracies.items():
        probe = split.removeprefix(UNDER) if split.startswith(UNDER) else ""
        yield Measurement(method, "test" if probe else split, values, over, network=network, episodes=probe, note=note)
