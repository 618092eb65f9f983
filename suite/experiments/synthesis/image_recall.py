"""Recall with images: a few observed images of a class recall others, from which a new classifier is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from suite.architectures.convnet import ConvNet
from suite.controls.random_images import RandomImages
from suite.core.outer_loop import PAPER_ITERATIONS, OuterState, begin, distill
from suite.datasets.digits import Digits
from suite.evaluation.evaluate import accuracy, evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train
from suite.experiments import plots, timing
from suite.experiments.series import Measured, Series
from suite.experiments.synthesis import summary
from suite.experiments.synthesis.episodes import Shown, everything, of_classes, shown, tasks_of
from suite.images.augment import AugmentationChoice, AugmentationName
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.memory import Memory, described
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.image_queries import Asked, ImageQueries, addressed
from suite.registry import experiments
from suite.storage.files import make_directory
from suite.types import (
    Architecture,
    Budget,
    ClassRows,
    Cost,
    Data,
    Dataset,
    ImageShape,
    InnerOptimizer,
    Objective,
    Outcome,
    Params,
    Session,
    Setting,
    Split,
)
from suite.validation import Positive, PositiveInt, require

RIGHT = 50.0
"""Percent of a class's scored images told rightly, from which a case is drawn among the right ones."""

CASES = 4
"""Of each kind in the picture."""

OF = "of "

OF_CLASS, OF_LABELS = f"{OF}class ", f"{OF}labels: "
"""Names of what is kept of an episode beside accuracies of methods."""


@experiments.register("image_recall")
@dataclass(frozen=True)
class ImageRecall:
    """A memory that is asked with images of classes, and what is recalled trains a new classifier (paper, A.3, B.3).

    Every outer step draws `ways` classes and one of `shots` as the number k of training images of each that are shown;
    what they recall trains a fresh network, whose outer loss is on other training images of those classes. An episode
    shows k test images of each class of a task (`ways` classes, slices of all), trains a fresh network on what they
    recall, and scores it on all other test images of these classes; `draws` episodes of every task and k. Beside it: a
    classifier trained on all classes for `backbone_epochs` epochs gives the features of nearest neighbours, class means
    and a linear probe, is tuned on the shots, and, restricted to the episode's classes, is what all data can do;
    classify-then-recall asks a memory of as many bases and matrices, addressed by labels and learned by the same steps,
    for the label that the classifier gives to a shot ('recall by true label': for the true one); and random training
    images, as many as are recalled. Shots are never augmented.
    """

    dataset: Dataset = field(default_factory=Digits)
    architecture: Architecture = field(default_factory=ConvNet)
    parameterization: ImageQueries = field(default_factory=ImageQueries)
    objective: Objective = field(default_factory=BPTT)
    outer_optimizer: InnerOptimizer = field(default_factory=lambda: SGDMomentum(lr=0.1, momentum=0.5))
    ways: int = 2
    shots: Sequence[PositiveInt] = (1, 5)
    iterations: PositiveInt = PAPER_ITERATIONS
    clip: Positive | None = 2.0
    augmentation: AugmentationChoice = "default"
    draws: PositiveInt = 20
    backbone_epochs: PositiveInt = 100
    backbone_augmentation: AugmentationName = "crop_flip"
    evaluation: Protocol = field(default_factory=lambda: Protocol(networks=1))

    def __post_init__(self) -> None:
        require(self, "shots", len(set(self.shots)) == len(self.shots) > 0, "different numbers, at least one")
        info = self.dataset.info
        fewest = min(info.train_size, info.test_size) // info.classes
        require(self, "shots", max(self.shots) < fewest, f"below {fewest}, the images of a class of {info.name}")
        require(self, "ways", 2 <= self.ways <= info.classes, f"from 2 to {info.classes}, the classes of {info.name}")
        tasks_of(info, self.ways, "slices", Key(0))

    @property
    def labels(self) -> Addressing:
        """How the memory of classify-then-recall is addressed."""
        return Addressing(self.parameterization.bases, self.parameterization.initialization)

    # ------------------------------------------------------------ before the run

    def plan(self) -> dict[str, Any]:
        info, budget = self.dataset.info, self._budget()
        extractor = addressed(self._start(torch.device("cpu"), Key(0)).memory)[1]
        most = self._most(torch.device("cpu"))
        return {
            "data set": f"{info.name}, {info.shape}, {info.classes} classes",
            "budget": f"{budget.stored_numbers} numbers ({budget.images_per_class:.4g} images per class), and "
            f"{extractor} of the extractor beside it",
            "recalled images per shot": budget.recalled_per_class,
            "outer iterations": summary.outer_iterations(self.iterations, 2),
            **self.objective.plan(most, budget.recalled_per_class * max(self.shots)),
            "episodes": f"{self._episodes} of {self.ways} ways, for each of {', '.join(map(str, self.shots))} shots",
            "classifier": f"{self.backbone_epochs} epochs on all classes",
            "evaluation": self.evaluation.label(),
        }

    def cost(self, device: torch.device) -> Cost:
        """Seconds of both memories, the classifier and all episodes."""
        info, protocol, per_image = self.dataset.info, self.evaluation, self.parameterization.matrices
        task = self._most(device)
        step = timing.outer_step(task, self.objective, self._images_per_class, per_image * max(self.shots))
        pace, whole = timing.pace(task), timing.pace(self._whole(device))
        own = 2 * self.iterations * step + self.backbone_epochs * info.train_size * whole.train
        own += 2 * info.test_size * whole.read
        for k in self.shots:
            shown = self.ways * k * (4 * per_image + 1)
            read = 5 * self.ways * info.test_size / info.classes * pace.read
            own += self._episodes * protocol.networks * (protocol.epochs * shown * pace.train + read)
        return Cost(own, {}, step)

    @property
    def _episodes(self) -> int:
        """For each number of shots."""
        return self.draws * (self.dataset.info.classes // self.ways)

    @property
    def _images_per_class(self) -> float:
        """What bases and matrices store, in images of each class."""
        info = self.dataset.info
        return (self.parameterization.numbers(info.shape) + 0.5) / (info.classes * info.shape.numel)

    def _budget(self) -> Budget:
        info, numbers = self.dataset.info, self.parameterization.numbers(self.dataset.info.shape)
        return Budget(numbers, numbers / (info.classes * info.shape.numel), self.parameterization.matrices)

    def _task(self, device: torch.device) -> Setting:
        """Of an episode."""
        own = getattr(self.dataset, "augmentation", "none") if self.augmentation == "default" else self.augmentation
        return Setting(self.dataset.info.shape, self.ways, self.architecture, self.parameterization, own, device)

    def _whole(self, device: torch.device) -> Setting:
        """Of the classifier."""
        return replace(self._task(device), classes=self.dataset.info.classes, augmentation=self.backbone_augmentation)

    def _start(self, device: torch.device, key: Key) -> OuterState:
        whole = replace(self._whole(device), parameterization=self.parameterization)
        return begin(whole, self.outer_optimizer, self._images_per_class, key)

    def _start_of_labels(self, device: torch.device, key: Key) -> OuterState:
        """With as many bases and matrices."""
        info, k, r = self.dataset.info, self.parameterization.bases, self.parameterization.matrices
        numbers = k * info.shape.numel + r * info.classes * k
        whole = replace(self._whole(device), parameterization=self.labels)
        return begin(whole, self.outer_optimizer, (numbers + 0.5) / (info.classes * info.shape.numel), key)

    def _most(self, device: torch.device) -> Setting:
        """With a memory that is asked with as many images as it ever is, all black: for plans."""
        shape = self.dataset.info.shape
        some = torch.zeros(self.ways, max(self.shots), shape.channels, shape.height, shape.width, device=device)
        asked = Asked(self.parameterization, some, self._images_per_class * self.dataset.info.classes / self.ways)
        return replace(self._task(device), parameterization=asked)

    # ------------------------------------------------------------ the run

    def run(self, session: Session) -> Outcome:
        info, device = self.dataset.info, session.device
        data = self.dataset.load(session.data_dir, session.key("data"), 0.0)
        rows, test = (ClassRows.of(part.to(device), info.classes) for part in (data.train, data.test))
        fewest = min(len(own) for part in (rows, test) for own in part.rows)
        require(self, "shots", max(self.shots) < fewest, f"below {fewest}, the images of the smallest class")
        series = Series(session, 2 * self.iterations)
        by_image = self._learn(
            series, "asked with images", self._start(device, session.key("memory")), rows, session.key("outer"),
            lambda at, classes: self._asked(at.shots.images),
        )  # fmt: skip
        by_label = self._learn(
            series, "asked with labels", self._start_of_labels(device, session.key("labels")), rows,
            session.key("outer"),
            lambda at, classes: Asked(self.labels, torch.tensor(classes, device=device)[:, None]),
        )  # fmt: skip
        backbone = self._backbone(series, session, data.train)
        episode = _Beside(self, session, rows, test, by_image, by_label, backbone)
        tasks = tasks_of(info, self.ways, "slices", Key(0))
        found: dict[str, tuple[float, ...]] = {}
        for k in self.shots:
            name = f"{self.ways}-way, {k} shot{'s' if k > 1 else ''}"
            one = partial(self._episode, episode, tasks, k)
            found |= {f"{name}: {what}": v for what, v in series.measure(name, self._episodes, one).items()}
        whole = accuracy(backbone, data.test)
        self._draw(session, data, test, tasks, by_image, found)
        self._save(session, data, by_image)
        less = summary.less(self)
        own = self.parameterization
        sizes = ("bases", own.bases, 64), ("matrices", own.matrices, 16)
        less += [f"{what} {n} of {paper}" for what, n, paper in sizes if n < paper]
        labels = {n: sum(v) / len(v) for n, v in found.items() if OF_LABELS in n}
        return Outcome(
            figures=tuple(summary.figures({n: v for n, v in found.items() if f": {OF}" not in n}, self._notes())),
            budget=self._budget(),
            scale=summary.scale(self, less),
            facts={
                "dataset": info.name,
                "dataset_digest": data.digest,
                "tasks": [[info.class_names[c] for c in own] for own in tasks],
                "preprocessing": data.transform.describe(),
                "extractor_numbers": addressed(by_image)[1],
                "classifier_labels": labels,
                "classifier": f"{whole:.1f}% of all test images, {info.classes} ways",
            },
            cost={"seconds_per_iteration": series.seconds / (2 * self.iterations)},
        )

    def _asked(self, shots: Tensor) -> Asked:
        return Asked(self.parameterization, shots.unflatten(0, (self.ways, -1)))

    def _learn(
        self, series: Series, name: str, start: OuterState, rows: ClassRows, key: Key,
        asked: Callable[[Shown, list[int]], Asked],
    ) -> Params:  # fmt: skip
        """A memory that is asked for the drawn classes of every step; equal keys draw equal classes and images."""
        task, classes = self._task(rows.split.images.device), len(rows.rows)

        def step(at: OuterState) -> OuterState:
            own = key(at.iteration)
            drawn = own("classes").permutation(classes)[: self.ways].tolist()
            k = self.shots[int(own("number").permutation(len(self.shots))[0])]
            one = shown(rows, tuple(drawn), k, own("shots"))
            posed = replace(task, parameterization=asked(one, drawn))
            steps = distill(
                posed, self.objective, self.outer_optimizer, one.rest, at, own("step"), at.iteration + 1, self.clip
            )
            (after,) = steps
            return after

        return series.learn(name, start, step, self.iterations)

    def _backbone(self, series: Series, session: Session, data: Split) -> nn.Module:
        """The classifier of all classes."""
        task, key = self._whole(session.device), session.key("classifier")
        protocol = Protocol(name="classifier", networks=1, epochs=self.backbone_epochs, batch=128)

        def weights() -> Params:
            network = train(task, data, protocol, key, session.pause)
            return {name: w.detach() for name, w in network.named_parameters()}

        kept = series.once("classifier", weights)
        with global_generators(key):
            network = self.architecture.build(task.shape, task.classes).to(session.device).eval()
        network.load_state_dict(kept, strict=False)
        return network

    def _shown(self, test: ClassRows, tasks: tuple[tuple[int, ...], ...], k: int, e: int, key: Key) -> Shown:
        return shown(test, tasks[e % len(tasks)], k, key("episode", k, e))

    def _episode(self, beside: "_Beside", tasks: tuple[tuple[int, ...], ...], k: int, e: int) -> Measured:
        key = beside.session.key
        one = self._shown(beside.test, tasks, k, e, key)
        return beside.measured(one, tasks[e % len(tasks)], key("evaluation", k, e))

    def _notes(self) -> dict[str, str]:
        return {
            "full-data classifier": f"trained on all training images of all classes for {self.backbone_epochs} epochs",
            "random real images": "training images, as many as are recalled",
            "fine-tuned classifier": "the full-data classifier with a fresh head, trained on the shots, not augmented",
            "classify-then-recall": "the label that the full-data classifier gives to each shot is recalled",
        }

    def _draw(
        self, session: Session, data: Data, test: ClassRows, tasks: tuple[tuple[int, ...], ...], memory: Params,
        found: dict[str, tuple[float, ...]],
    ) -> None:  # fmt: skip
        """Of the fewest shots, the first cases that went right and wrong: a class's first shot and what it recalled."""
        k = min(self.shots)
        name = f"{self.ways}-way, {k} shot{'s' if k > 1 else ''}: {OF_CLASS}"
        cases: dict[bool, list[tuple[str, Tensor]]] = {True: [], False: []}
        for e in range(self._episodes):
            for place in range(self.ways):
                right = found[f"{name}{place}"][e]
                own = cases[right >= RIGHT]
                if len(own) == CASES:
                    continue
                shot = self._shown(test, tasks, k, e, session.key).shots.images[place * k :][:1]
                with torch.no_grad():
                    images = self.parameterization.recall(memory, shot)[0]
                label = f"{self.dataset.info.class_names[tasks[e % len(tasks)][place]]}, {right:.0f}%"
                own.append((label, torch.cat([data.transform.display(shot.cpu()), plots.stretched(images.cpu())])))
        folder = make_directory(session.directory / "figures")
        for which, own in (("right", cases[True]), ("wrong", cases[False])):
            if own:
                plots.cases(own, folder / f"recalled_{which}.png")

    def _save(self, session: Session, data: Data, memory: Params) -> None:
        info = self.dataset.info
        about = {"dataset": info.name, "class_names": list(info.class_names), "superclasses": [],
                 "seed": session.key.seed}  # fmt: skip
        about |= described(self, info.shape, data.transform, self._budget())
        Memory({k: v.cpu() for k, v in memory.items()}, about, data.transform).save(
            session.directory / "memory.safetensors"
        )


@dataclass(frozen=True, eq=False)
class _Pretrained:
    """A recipe whose networks begin with given weights, but for what another number of classes changes the size of."""

    recipe: Architecture
    weights: Params

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        network = self.recipe.build(shape, classes)
        own = dict(network.named_parameters())
        fitting = {name: w for name, w in self.weights.items() if name in own and own[name].shape == w.shape}
        network.load_state_dict(fitting, strict=False)
        return network


@dataclass(frozen=True, eq=False)
class _Beside:
    """All that is measured in an episode."""

    experiment: ImageRecall
    session: Session
    train: ClassRows
    test: ClassRows
    by_image: Params
    by_label: Params
    backbone: nn.Module

    def measured(self, one: Shown, classes: tuple[int, ...], key: Key) -> Measured:
        own, task = self.experiment, self.experiment._task(self.session.device)
        n, k = own.ways, len(one.shots) // own.ways
        test = everything(one.rest)
        by_class = {f"{OF_CLASS}{i}": everything(ClassRows(one.rest.split, (one.rest.rows[i],))) for i in range(n)}
        device, protocol = self.session.device, own.evaluation

        def trained_on(images: Split, splits: dict[str, Split], on: Setting = task) -> dict[str, float]:
            found = evaluate(on, lambda i: images, protocol, key, splits, self.session.pause)
            return {name: sum(values) / len(values) for name, values in found.items()}

        def by_label(labels: Tensor) -> Split:
            asked = Asked(own.labels, labels.view(n, k))
            return recalled(replace(task, parameterization=asked), self.by_label)

        asked = own._asked(one.shots.images)
        found = trained_on(recalled(replace(task, parameterization=asked), self.by_image), {"memory": test} | by_class)
        with torch.no_grad():
            told = self.backbone(one.shots.images).argmax(1)
        true = torch.tensor(classes, device=device)[one.shots.labels]
        found[f"{OF_LABELS}right (%)"] = 100 * float((told == true).float().mean())
        met = [{int(label) for label in own} for own in told.view(n, k)]
        conflicts = any(met[i] & met[j] for i in range(n) for j in range(i))
        found[f"{OF_LABELS}episodes with one label for shots of two classes (%)"] = 100.0 * conflicts
        found["classify-then-recall"] = trained_on(by_label(told), {"": test})[""]
        found["recall by true label"] = trained_on(by_label(true), {"": test})[""]
        each = own.parameterization.matrices * k
        real = RandomImages().choose(task, of_classes(self.train, classes), each, key)(0)
        found["random real images"] = trained_on(real, {"": test})[""]
        weights = {name: w.detach() for name, w in self.backbone.named_parameters()}
        tuned = replace(task, architecture=_Pretrained(own.architecture, weights), augmentation="none")
        found["fine-tuned classifier"] = trained_on(one.shots, {"": test}, tuned)[""]
        return found | self._features(one, test, classes)

    def _features(self, one: Shown, test: Split, classes: tuple[int, ...]) -> Measured:
        """What needs no training but a linear one."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier

        with torch.no_grad():
            pieces = test.images.split(500)
            seen = torch.cat([self.backbone.features(part) for part in pieces]).cpu().numpy()  # type: ignore[operator]
            scores = torch.cat([self.backbone(part) for part in pieces])[:, list(classes)]
            shots = self.backbone.features(one.shots.images).cpu().numpy()  # type: ignore[operator]
        labels, wanted = one.shots.labels.cpu().numpy(), test.labels.cpu().numpy()
        n = len(classes)
        means, each = shots.reshape(n, -1, shots.shape[1]).mean(1), list(range(n))
        told = {
            "nearest neighbour (cosine)": KNeighborsClassifier(1, metric="cosine").fit(shots, labels),
            "nearest neighbour (L2)": KNeighborsClassifier(1).fit(shots, labels),
            "nearest class mean": KNeighborsClassifier(1).fit(means, each),
            "linear probe": LogisticRegression(max_iter=1000).fit(shots, labels),
        }
        found = {name: 100 * float(fitted.score(seen, wanted)) for name, fitted in told.items()}
        right = (scores.argmax(1) == test.labels).float().mean()
        return found | {"full-data classifier": 100 * float(right)}
