"""Distil a data set into a memory, and compare it with its controls (paper, A.1)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from suite.architectures.convnet import ConvNet
from suite.controls.random_images import RandomImages
from suite.core import outer_loop
from suite.core.outer_loop import PAPER_ITERATIONS, NotFinite, OuterState
from suite.datasets.digits import Digits
from suite.datasets.loading import load
from suite.evaluation.protocol import Protocol
from suite.experiments import accounting, diagnostics, plots, stages, timing
from suite.experiments.final_measurements import FinalMeasurements
from suite.experiments.learning import Place, Stopwatch, evenly_spaced, learn, validated
from suite.images.augment import AugmentationChoice
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.memory import Memory
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import ADDED, describe, experiments
from suite.storage.files import sha256
from suite.types import (
    Architecture,
    ClassRows,
    Control,
    Cost,
    Data,
    Dataset,
    LearnsLabels,
    Objective,
    Optimizer,
    Outcome,
    Parameterization,
    Params,
    Session,
    Setting,
    Start,
    Unrolled,
    over_steps,
)
from suite.validation import Few, Fraction, NonNegativeInt, Positive, PositiveInt, require, require_labels


@experiments.register("distillation")
@dataclass(frozen=True)
class Distillation:
    """Distil a data set into a memory of a given budget and evaluate it beside its controls (paper, A.1).

    The memory of the last outer step is the result; test images are opened at the end alone.

    >>> Distillation(images_per_class=1).plan()["budget"]
    '592 numbers (0.925 images per class)'
    """

    dataset: Dataset = field(default_factory=Digits)
    """What is distilled."""
    architecture: Architecture = field(default_factory=ConvNet)
    """Of the networks that the memory is learned with and judged by."""
    parameterization: Parameterization = field(default_factory=Addressing)
    """What the memory stores, and how images are recalled from it."""
    objective: Objective = field(default_factory=BPTT)
    """Gives the memory its gradient."""
    outer_optimizer: Optimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    """Improves the memory."""
    start: Start | None = field(default=None, metadata=ADDED)
    """What the memory recalls at first, made of training images; None: as its parameterization draws it."""
    images_per_class: Positive = 1
    """Budget, in real images of each class."""
    iterations: PositiveInt = PAPER_ITERATIONS
    """Outer steps."""
    rollouts: PositiveInt = field(default=1, metadata=ADDED)
    """Of an outer step, which takes their mean gradient: each has a network and draws of its own."""
    clip: Positive | None = 2.0
    """Largest norm of the memory's gradient; None: not clipped."""
    skip_not_finite: NonNegativeInt = 0
    """Outer steps with NaN or infinity that are left out, and counted in the record, before the run fails."""
    augmentation: AugmentationChoice = "default"
    """Of recalled and real images; 'default': the data set's own."""
    evaluation: Protocol = field(default_factory=Protocol)
    """How the networks that judge the memory are trained."""
    validation: Fraction = 0.1
    """Fraction of every training class that is set aside."""
    validation_points: NonNegativeInt = 10
    """Validations at even distances, beside the one at the start."""
    validation_networks: Few = 1
    """Networks of each validation."""
    full_data_epochs: NonNegativeInt = 300
    """Epochs of the control that trains on all training images; 0: left out."""
    full_data_networks: Few = 3
    """Networks of that control."""
    controls: Sequence[Control] = (RandomImages(),)
    """Selections of real images, as many as the budget pays for."""
    transfer: Sequence[Architecture] = ()
    """Other architectures that judge the memory (paper, Table 2)."""
    gradient_norms: NonNegativeInt = 0
    """Unrolls whose gradient is measured at every inner step, for the memory at the start and at the end."""
    test: bool = True
    """Whether test images are opened."""

    def __post_init__(self) -> None:
        require_labels(self, learned=isinstance(self.objective, LearnsLabels))
        over_steps(self.outer_optimizer, self.iterations)  # refuses too few for a schedule
        able = self.gradient_norms == 0 or isinstance(self.objective, Unrolled)
        require(self, "gradient_norms", able, "0 for an objective that unrolls nothing")

    # ------------------------------------------------------------ sizes

    def setting(self, device: torch.device) -> Setting:
        """What the memory is distilled for."""
        info, augmentation = self.dataset.info, accounting.augmentation_of(self.dataset, self.augmentation)
        return Setting(info.shape, info.classes, self.architecture, self.parameterization, augmentation, device)

    def plan(self) -> dict[str, Any]:
        """Sizes and steps, found without any data."""
        info, setting = self.dataset.info, self.setting(torch.device("cpu"))
        FinalMeasurements.of(self).require_networks(setting)
        budget = accounting.budget_of(setting, self.images_per_class)
        return {
            "data set": f"{info.name}, {info.shape}, {info.classes} classes, {info.train_size} training images",
            "budget": f"{budget.stored_numbers} numbers ({budget.images_per_class:.4g} images per class)",
            "recalled images per class": budget.recalled_per_class,
            "outer iterations": f"{self.iterations} ({self.iterations / PAPER_ITERATIONS:.2%} of the paper's)",
            **accounting.outer_step_plan(self, setting, budget.recalled_per_class),
            "evaluation": self.evaluation.label(),
            "full-data control": f"{self.full_data_epochs} epochs, {self.full_data_networks} networks",
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of the run with its evaluation, and of the controls, which runs may share."""
        setting, info, comparison = self.setting(device), self.dataset.info, FinalMeasurements.of(self)
        per_class = self.parameterization.per_class(setting.shape, setting.classes, self.images_per_class)
        images = per_class * setting.classes
        step_seconds = timing.outer_step(setting, self.objective, self.images_per_class, per_class, self.rollouts)
        seconds = self.iterations * step_seconds + comparison.seconds_of_memory(setting, info, images)
        if self.validation and self.validation_points:
            networks, held_out = self.validation_networks, round(self.validation * info.train_size)
            of_one = timing.pace(setting, self.evaluation).networks(networks, self.evaluation.epochs, images, held_out)
            seconds += (min(self.validation_points, self.iterations) + 1) * of_one
        return Cost(seconds, comparison.seconds_of_controls(setting, describe(self.dataset), info), step_seconds)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        """Distil, evaluate and compare."""
        started, setting = time.monotonic(), self.setting(session.device)
        FinalMeasurements.of(self).require_networks(setting)
        data = load(self.dataset, session.data_dir, session.key("data"), self.validation)
        real, loaded = ClassRows.of(data.train.to(session.device), setting.classes), time.monotonic()
        state, distillation_seconds = self._distil(session, setting, data, real)
        tensors = outer_loop.judged(self._optimizer, state)
        memory, distilled = self._write_memory(session, setting, data, state), time.monotonic()
        measurements = FinalMeasurements.of(self).measure(session, setting, data, real, tensors)
        session.pause()
        first = self._begin(session, setting, real).memory if self.gradient_norms else tensors
        memories, key = {"at the start": first, "at the end": tensors}, session.key("gradient norms")
        norms = diagnostics.gradient_norms(self.objective, setting, real, memories, self.gradient_norms, key)
        plots.distillation(memory, norms, session)
        return Outcome(
            measurements=tuple(measurements),
            budget=accounting.budget_of(setting, self.images_per_class, tensors),
            scale=self._scale(),
            facts=self._facts(session, data, state, tensors) | ({"gradient_norms": norms} if norms else {}),
            cost={
                "loading_seconds": loaded - started,
                "distillation_seconds": distillation_seconds,
                "seconds_per_iteration": distillation_seconds / self.iterations,
                "evaluation_seconds": time.monotonic() - distilled,
            },
        )

    def _distil(self, session: Session, setting: Setting, data: Data, real: ClassRows) -> tuple[OuterState, float]:
        """The state after the last outer step, and the seconds that all steps took."""
        stopwatch, restored = Stopwatch(), session.restore()
        if restored is None:
            state = stopwatch.timed(self._begin, session, setting, real)  # a start from data has its price
            self._validate(session, setting, data, state)
        else:
            iteration, tensors, extra = restored
            state = replace(outer_loop.from_tensors(iteration, tensors, session.device), skipped=extra["skipped"])
            stopwatch.seconds = extra["seconds"]
        last = state  # that a checkpoint holds

        def one_step(before: OuterState) -> OuterState:
            how = session.key("outer"), self.clip, self.skip_not_finite, self.rollouts
            return outer_loop.step(setting, self.objective, self._optimizer, real, before, *how)

        def checkpoint(now: OuterState, score: float | None) -> None:
            nonlocal last
            last = now
            extra = {"seconds": stopwatch.seconds, "skipped": now.skipped}
            session.checkpoint(now.iteration, outer_loop.to_tensors(now), extra, score)

        validate, place = partial(self._validate, session, setting, data), Place(0, self.iterations)
        try:
            state = learn(session, state, one_step, self.iterations, checkpoint, stopwatch, place, validate)
        except NotFinite as error:
            self._write_memory(session, setting, data, last)
            raise NotFinite(f"{error} (the memory of step {last.iteration} is kept in {session.directory})") from error
        if last.iteration < state.iteration:
            checkpoint(state, None)
        return state, stopwatch.seconds

    def _begin(self, session: Session, setting: Setting, real: ClassRows) -> OuterState:
        return outer_loop.begin(setting, self._optimizer, self.images_per_class, session.key, self.start, real)

    @property
    def _optimizer(self) -> Optimizer:
        return over_steps(self.outer_optimizer, self.iterations)

    def _validate(self, session: Session, setting: Setting, data: Data, state: OuterState) -> float | None:
        """None at steps without validation; else the mean accuracy on validation images in percent, which is logged."""
        stages.keep(session, setting, data, self._optimizer, state, self.iterations)
        if not evenly_spaced(state.iteration, self.iterations, self.validation_points if self.validation else 0):
            return None
        memory = outer_loop.judged(self._optimizer, state)
        protocol = replace(self.evaluation.without_teacher(), networks=self.validation_networks)
        return validated(session, setting, memory, data.validation, protocol, state.iteration)

    # ------------------------------------------------------------ what is left behind

    def _write_memory(self, session: Session, setting: Setting, data: Data, state: OuterState) -> Memory:
        memory, file = outer_loop.judged(self._optimizer, state), session.directory / "memory.safetensors"
        budget, facts = accounting.budget_of(setting, self.images_per_class, memory), accounting.dataset_about(data)
        steps = {"iteration": state.iteration, "iterations": self.iterations, "seed": session.key.seed}
        return accounting.save_memory(file, memory, self, setting.shape, data.transform, budget, **facts, **steps)

    def _scale(self) -> dict[str, Any]:
        """How much of the paper's compute the run uses."""
        others = FinalMeasurements.of(self).elsewhere
        reduced_by = [f"{self.iterations} of {PAPER_ITERATIONS} iterations"] * (self.iterations < PAPER_ITERATIONS)
        reduced_by += accounting.smaller_parts(self.objective, self.architecture, *others, named=True)
        reduced_by += [self.evaluation.label()] if self.evaluation.reduced else []
        extra = {"validation_held_out": self.validation, "full_data_epochs": self.full_data_epochs}
        return accounting.scale_of(self, reduced_by) | extra

    def _facts(self, session: Session, data: Data, state: OuterState, memory: Params) -> dict[str, Any]:
        """What else identifies the result."""
        return {
            **accounting.dataset_facts(data),
            "images": accounting.numbers_of_images(data),
            "skipped_outer_steps": state.skipped,
            **diagnostics.coefficient_similarity(memory, data.info),
            "memory_sha256": sha256((session.directory / "memory.safetensors").read_bytes()),
        }
