"""Distillation: compress a data set into a memory, and measure what the memory is worth."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from suite import __version__
from suite.architectures.convnet import ConvNet
from suite.controls.random_images import RandomImages
from suite.core.outer_loop import (
    LOGGED_POINTS,
    PAPER_ITERATIONS,
    NotFinite,
    OuterState,
    begin,
    distill,
    from_tensors,
    to_tensors,
)
from suite.datasets.digits import Digits
from suite.errors import RunError
from suite.evaluation.evaluate import Accuracies, Part, Splits, TrainingSet, evaluate, evaluate_each, recalled
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import group_of
from suite.experiments import plots, timing
from suite.images.augment import AugmentationChoice
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory, cosine_similarities, described
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import describe, experiments, name_of
from suite.storage.files import canonical_json, json_sha256, make_directory, sha256, write_atomic
from suite.storage.sealed import digest as tensors_sha256
from suite.types import (
    Architecture,
    Budget,
    ClassRows,
    Control,
    Cost,
    Data,
    Dataset,
    ImageShape,
    InnerOptimizer,
    Measurement,
    Objective,
    Outcome,
    Parameterization,
    Params,
    Session,
    Setting,
    Split,
)
from suite.validation import Fraction, NonNegativeInt, Positive, PositiveInt, require, require_labels


@experiments.register("distillation")
@dataclass(frozen=True)
class Distillation:
    """Distil a data set into a memory of a given budget and evaluate it beside its controls (paper, A.1).

    A `validation` fraction of every training class is set aside and watches the training; the memory of the last
    iteration is the result, and test images are opened at the end alone, and not at all without `test`. It is measured
    by networks of its own architecture and of those of `transfer`. The controls, under the same protocol: `controls`,
    real images, as many as the budget pays for; and the whole training part for `full_data_epochs` (0: left out).
    `gradient_norms` is the number of unrolls whose gradient is measured at every inner step, for the memory at the
    start and at the end (0: none). `augmentation` 'default' means the data set's own. Outer steps with NaN or infinity
    stop the run, or, up to `skip_not_finite` of them, are left out and counted in the record.
    """

    dataset: Dataset = field(default_factory=Digits)
    architecture: Architecture = field(default_factory=ConvNet)
    parameterization: Parameterization = field(default_factory=Addressing)
    objective: Objective = field(default_factory=BPTT)
    outer_optimizer: InnerOptimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    images_per_class: Positive = 1
    iterations: PositiveInt = PAPER_ITERATIONS
    clip: Positive | None = 2.0
    skip_not_finite: NonNegativeInt = 0
    augmentation: AugmentationChoice = "default"
    evaluation: Protocol = field(default_factory=Protocol)
    validation: Fraction = 0.1
    validation_points: NonNegativeInt = 10
    validation_networks: PositiveInt = 1
    full_data_epochs: NonNegativeInt = 300
    full_data_networks: PositiveInt = 3
    controls: Sequence[Control] = (RandomImages(),)
    transfer: Sequence[Architecture] = ()
    gradient_norms: NonNegativeInt = 0
    test: bool = True

    def __post_init__(self) -> None:
        require_labels(self)
        able = self.gradient_norms == 0 or hasattr(self.objective, "gradient_norms")
        require(self, "gradient_norms", able, "0 for an objective that unrolls nothing")

    # ------------------------------------------------------------ before the run

    def plan(self) -> dict[str, Any]:
        info, setting = self.dataset.info, self.setting(torch.device("cpu"))
        fresh = _Fresh(self.parameterization, setting.shape, setting.classes, self.images_per_class)
        budget = self._budget(setting, _fresh_numbers(fresh))
        return {
            "data set": f"{info.name}, {info.shape}, {info.classes} classes, {info.train_size} training images",
            "budget": f"{budget.stored_numbers} numbers ({budget.images_per_class:.4g} images per class)",
            "recalled images per class": budget.recalled_per_class,
            "outer iterations": f"{self.iterations} ({self.iterations / PAPER_ITERATIONS:.2%} of the paper's)",
            **self.objective.plan(setting, budget.recalled_per_class),
            "evaluation": self.evaluation.label(),
            "full-data control": f"{self.full_data_epochs} epochs, {self.full_data_networks} networks",
        }

    def cost(self, device: torch.device) -> Cost:
        """What the run will take on this machine, found without any data."""
        return timing.cost(self, device)

    def setting(self, device: torch.device) -> Setting:
        """What the memory is made for."""
        info = self.dataset.info
        augmentation = self.dataset.augmentation if self.augmentation == "default" else self.augmentation
        return Setting(info.shape, info.classes, self.architecture, self.parameterization, augmentation, device)

    def _budget(self, setting: Setting, stored: int) -> Budget:
        per_class = self.parameterization.per_class(setting.shape, setting.classes, self.images_per_class)
        return Budget(stored, stored / (setting.classes * setting.shape.numel), per_class)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        started = time.monotonic()
        setting = self.setting(session.device)
        data = self.dataset.load(session.data_dir, session.key("data"), self.validation)
        real = ClassRows.of(data.train.to(session.device), setting.classes)
        loaded = time.monotonic()
        last, seconds = self._distil(session, setting, data, real)
        memory = self._save_memory(session, setting, data, last)
        evaluated = time.monotonic()
        found = self._evaluate(session, setting, data, real.split, last.memory)
        session.pause()
        norms = self._gradient_norms(session, setting, real, last.memory)
        self._draw(session, memory, norms)
        return Outcome(
            figures=tuple(found),
            budget=self._budget(setting, _numbers(last.memory)),
            scale=self._scale(),
            facts=self._facts(session, data, last) | ({"gradient_norms": norms} if norms else {}),
            cost={
                "loading_seconds": loaded - started,
                "distillation_seconds": seconds,
                "seconds_per_iteration": seconds / self.iterations,
                "evaluation_seconds": time.monotonic() - evaluated,
            },
        )

    def _distil(self, session: Session, setting: Setting, data: Data, real: ClassRows) -> tuple[OuterState, float]:
        """The memory after the last iteration, and the seconds its outer steps took, earlier sittings included."""
        restored = session.restore()
        last, seconds = begin(setting, self.outer_optimizer, self.images_per_class, session.key), 0.0
        if restored is not None:
            iteration, tensors, state = restored
            last = replace(from_tensors(iteration, tensors, session.device), skipped=state["skipped"])
            seconds = state["seconds"]
        elif self._validates_at(0):
            self._validate(session, setting, data, last)

        every = max(1, self.iterations // LOGGED_POINTS)
        steps = distill(
            setting,
            self.objective,
            self.outer_optimizer,
            real,
            last,
            session.key("outer"),
            self.iterations,
            self.clip,
            self.skip_not_finite,
        )

        stored = last.iteration if restored is not None else -1

        def keep(score: float | None = None) -> None:
            nonlocal stored
            stored = last.iteration
            state = {"seconds": seconds, "skipped": last.skipped}
            session.checkpoint(last.iteration, to_tensors(last), state, score)

        clock = time.monotonic()
        try:
            for last in steps:
                seconds += time.monotonic() - clock
                if last.iteration % every == 0 or last.iteration == self.iterations:
                    session.log(last.iteration, {name: value.item() for name, value in last.metrics.items()})
                session.progress(last.iteration, self.iterations, _words(session))
                if self._validates_at(last.iteration):
                    keep(self._validate(session, setting, data, last))
                elif last.iteration == self.iterations or session.checkpoint_due():
                    keep()
                clock = time.monotonic()
        except NotFinite as error:
            if stored != last.iteration:
                keep()
            self._save_memory(session, setting, data, last)
            raise NotFinite(f"{error} (the memory of step {last.iteration} is kept in {session.directory})") from error
        return last, seconds

    def _validates_at(self, iteration: int) -> bool:
        """At the start, and at `validation_points` even distances up to and with the last iteration."""
        if self.validation == 0:
            return False
        n = self.validation_points
        return iteration * n // self.iterations > (iteration - 1) * n // self.iterations

    def _validate(self, session: Session, setting: Setting, data: Data, progress: OuterState) -> float:
        protocol = replace(self.evaluation, networks=self.validation_networks)
        training_set = recalled(setting, progress.memory)
        splits: Splits = {"validation": data.validation}
        key = session.key("validation")
        found = evaluate(setting, lambda i: training_set, protocol, key, splits)["validation"]
        accuracy = sum(found) / len(found)
        session.log(progress.iteration, {"validation_accuracy": accuracy})
        return accuracy

    def _evaluate(
        self, session: Session, setting: Setting, data: Data, train: Split, memory: Params
    ) -> list[Measurement]:
        """The memory on test and validation images, and its controls on test images."""
        key, protocol = session.key("evaluation"), self.evaluation
        test: Splits = {"test": data.test.to(session.device)} if self.test else {}
        both = dict(test)
        if len(data.validation):
            both["validation"] = data.validation.to(session.device)
        images = recalled(setting, memory)
        rows = ClassRows.of(train, setting.classes)
        each = min(max(1, int(self.images_per_class)), *(len(r) for r in rows.rows))

        def measured(
            name: str, setting: Setting, protocol: Protocol, draw: TrainingSet, size: int, folder: Path, **about: Any
        ) -> Accuracies:
            """Every network's accuracies; those measured before are read back, so that no sitting repeats another's."""

            def announced(i: int) -> Split:
                session.say(f"evaluating {name}: network {i + 1} of {protocol.networks}")
                return draw(i)

            about |= {"of": name, "protocol": asdict(replace(protocol, networks=1))}
            kept = [
                _Kept.of(folder, about | {"network": i, "beside": list(group_of(setting, size, protocol, i))})
                for i in range(protocol.networks)
            ]
            missing = [i for i, one in enumerate(kept) if not one.file.is_file()]
            splits = both if folder == own else test  # validation is for what was trained on the other part alone
            found = evaluate_each(setting, announced, protocol, key, missing, splits, session.pause)
            for i, accuracies in zip(missing, found, strict=True):
                kept[i].write(accuracies)
            accuracies_of = [one.read() for one in kept]
            return {part: tuple(one[part] for one in accuracies_of) for part in splits}

        own = session.directory / ".evaluation"
        which = {"memory": tensors_sha256(memory)}
        networks = "evaluation networks"
        note = f"{len(images)} recalled images, {protocol.sgd_steps(len(images))} SGD steps"
        figures_found = [
            (
                "memory",
                measured("the memory", setting, protocol, lambda i: images, len(images), own, **which),
                networks,
                note,
            )
        ]
        for architecture in self.elsewhere():
            other, name = replace(setting, architecture=architecture), f"memory on {_label(architecture)}"
            about = which | {"on": describe(architecture)}
            found = measured(f"the {name}", other, protocol, lambda i: images, len(images), own, **about)
            figures_found.append((name, found, networks, note))
        # Controls are shared by all runs with equal data, network, budget and seed.
        shared = make_directory(session.cache_dir / "controls")
        about = self._control_about(session, setting, data)
        note = f"{each} real images per class, {protocol.sgd_steps(each * setting.classes)} SGD steps"
        note += ", more than the budget" if self.images_per_class < 1 else ""
        for control in self.controls if self.test else ():
            chosen = _Lazily(partial(control.choose, setting, rows, each, key))
            which = about | {"control": describe(control), "images per class": each}
            found = measured(control.label, setting, protocol, chosen, each * setting.classes, shared, **which)
            figures_found.append((control.label, found, control.over, note))
        if self.full_data_epochs and self.test:
            # Fewer epochs and networks than the protocol's.
            short = replace(protocol, epochs=self.full_data_epochs, networks=self.full_data_networks)
            full = measured("the full data", setting, short, lambda i: train, len(train), shared, **about)
            note = f"{len(train)} images, {short.epochs} epochs of the paper's {Protocol().epochs}"
            figures_found.append(("full data", full, networks, note))
        return [
            Measurement(name, split, values, over, note)
            for name, by_split, over, note in figures_found
            for split, values in by_split.items()
        ]

    def elsewhere(self) -> list[Architecture]:
        """The other architectures to measure on."""
        return [one for one in self.transfer if describe(one) != describe(self.architecture)]

    def _control_about(self, session: Session, setting: Setting, data: Data) -> dict[str, Any]:
        """All that the full-data control depends on."""
        return {
            "data": data.digest,
            "preprocessing": data.transform.describe(),
            "validation": self.validation,
            "architecture": describe(self.architecture),
            "augmentation": setting.augmentation,
            "seed": session.key.seed,
            "device": session.device.type,
            "versions": [__version__, torch.__version__],
        }

    def _gradient_norms(self, session: Session, setting: Setting, real: ClassRows, memory: Params) -> dict[str, Any]:
        """Of several unrolls, for the first and the last memory: the norm of d loss / d w_t at every inner step t."""
        if not self.gradient_norms:
            return {}
        objective: Any = self.objective
        first = begin(setting, self.outer_optimizer, self.images_per_class, session.key).memory
        key = session.key("gradient norms")
        measure = partial(objective.gradient_norms, setting, real=real)
        return {
            when: [_finite(measure(memory=m, key=key(i))) for i in range(self.gradient_norms)]
            for when, m in (("at the start", first), ("at the end", memory))
        }

    # ------------------------------------------------------------ what is left behind

    def _save_memory(self, session: Session, setting: Setting, data: Data, last: OuterState) -> Memory:
        budget = self._budget(setting, _numbers(last.memory))
        transform = data.transform
        memory = Memory(
            {k: v.cpu() for k, v in last.memory.items()},
            {
                "dataset": data.info.name,
                "dataset_digest": data.digest,
                "class_names": list(data.info.class_names),
                "superclasses": [[name, list(classes)] for name, classes in data.info.superclasses],
                "iteration": last.iteration,
                "iterations": self.iterations,
                "seed": session.key.seed,
            }
            | described(self, setting.shape, transform, budget),
            transform,
        )
        memory.save(session.directory / "memory.safetensors")
        return memory

    def _draw(self, session: Session, memory: Memory, norms: dict[str, Any]) -> None:
        folder = make_directory(session.directory / "figures")
        plots.recalled_images(memory, folder / "recalled.png")
        if "bases" in memory.tensors:
            plots.bases(memory, folder / "bases.png")
            plots.coefficients(memory, folder / "coefficients.png")
            plots.similarity(memory, folder / "similarity.png")
        if norms:
            plots.gradient_norms(norms, folder / "gradient_norms.png")
        plots.curves(
            {
                "outer loss": session.history("loss"),
                "validation accuracy (%)": session.history("validation_accuracy"),
            },
            folder / "curves.png",
        )

    def _scale(self) -> dict[str, Any]:
        less = [f"{self.iterations} of {PAPER_ITERATIONS} iterations"] if self.iterations < PAPER_ITERATIONS else []
        sizes: list[tuple[str, object, str]] = [("", self.objective, n) for n in ("inner_steps", "real_per_class")]
        sizes += [(f"{name_of(one)} ", one, "width") for one in (self.architecture, *self.elsewhere())]
        for whose, part, name in sizes:
            used, paper = getattr(part, name, None), getattr(type(part), name, None)
            if used is not None and paper is not None and used < paper:
                less.append(f"{whose}{name} {used} of {paper}")
        if self.evaluation.reduced:
            less.append(self.evaluation.label())
        return {
            "iterations": self.iterations,
            "paper_iterations": PAPER_ITERATIONS,
            "fraction": self.iterations / PAPER_ITERATIONS,
            "protocol": self.evaluation.label(),
            "validation_held_out": self.validation,
            "full_data_epochs": self.full_data_epochs,
            "reduced": bool(less),
            "reduced_by": less,
        }

    def _likeness(self, data: Data, last: OuterState) -> dict[str, Any]:
        """How alike the coefficients of classes are, within superclasses and between them, where there are any."""
        if "matrices" not in last.memory or len(data.info.superclasses) < 2:
            return {}
        like = cosine_similarities(last.memory["matrices"])
        group = {name: i for i, (_, own) in enumerate(data.info.superclasses) for name in own}
        groups = torch.tensor([group[name] for name in data.info.class_names], device=like.device)
        same = groups[:, None] == groups[None, :]
        others = ~torch.eye(len(groups), dtype=torch.bool, device=like.device)
        means = {"within superclasses": like[same & others].mean().item(), "between": like[~same].mean().item()}
        return {"coefficient_similarity": means}

    def _facts(self, session: Session, data: Data, last: OuterState) -> dict[str, Any]:
        memory_file = session.directory / "memory.safetensors"
        return {
            "dataset": data.info.name,
            "dataset_digest": data.digest,
            "images": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
            "preprocessing": data.transform.describe(),
            "skipped_outer_steps": last.skipped,
            **self._likeness(data, last),
            "memory_sha256": sha256(memory_file.read_bytes()),
        }


@dataclass(frozen=True)
class _Fresh:
    """What the size of a fresh memory depends on. Hashed without the recipe, whose fields may be lists."""

    parameterization: Parameterization = field(hash=False)
    shape: ImageShape
    classes: int
    images_per_class: float


@lru_cache(maxsize=64)
def _fresh_numbers(of: _Fresh) -> int:
    """Of a memory made to be counted: once for all cells of a table that agree, since a large one takes seconds."""
    return _numbers(of.parameterization.init(of.shape, of.classes, of.images_per_class, Key(0)("memory")))


def _numbers(memory: Params) -> int:
    return sum(v.numel() for v in memory.values())


class _Lazily:
    """A training set that is made when the first network asks for it: what was measured before needs none."""

    def __init__(self, make: Callable[[], TrainingSet]) -> None:
        self._make = make
        self._made: TrainingSet | None = None

    def __call__(self, network: int) -> Split:
        self._made = self._made or self._make()
        return self._made(network)


def _label(architecture: Architecture) -> str:
    """The name of an architecture in tables; of timm's, the model's."""
    return str(getattr(architecture, "model", name_of(architecture)))


@dataclass(frozen=True)
class _Kept:
    """The file of one network's accuracies, named by all that they depend on."""

    file: Path
    about: dict[str, Any]

    @staticmethod
    def of(folder: Path, about: dict[str, Any]) -> "_Kept":
        return _Kept(folder / f"{json_sha256(about)[:24]}.json", about)

    def write(self, accuracies: dict[Part, float]) -> None:
        make_directory(self.file.parent)
        write_atomic(self.file, canonical_json({"about": self.about, "accuracy": accuracies}).encode())

    def read(self) -> dict[Part, float]:
        try:
            kept = json.loads(self.file.read_text())["accuracy"]
            return {part: float(value) for part, value in kept.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.file} is damaged ({error}); delete it and run the same command again") from error


def _finite(norms: list[float]) -> list[float | None]:
    """A norm that overflowed is None, since JSON has no infinity."""
    return [norm if math.isfinite(norm) else None for norm in norms]


def _words(session: Session) -> str:
    losses, accuracies = session.history("loss"), session.history("validation_accuracy")
    words = [f"loss {losses[-1][1]:.3f}"] if losses else []
    return ", ".join(words + ([f"validation {accuracies[-1][1]:.1f}%"] if accuracies else []))
