"""The words of the suite as types: what components are given, and what each kind of component must offer.

Everything here is a frozen dataclass or a protocol. A memory, the parameters of a network and the state of an optimizer
are plain dictionaries of tensors, so that one pure function serves them all. Every component must offer what the
protocol of its kind has (`COMPONENTS`). Some offer more, found by `isinstance`:

    RelatedTasks        a stream shows images as another of its tasks would
    Queried             a parameterization says what its memory is queried by
    StartsFromImages    a parameterization takes over images as the start of a memory
    Planned             an optimizer depends on how many steps a run takes
    Labelled            a parameterization stores what each of its images is to be taken for
    Averaging           an optimizer keeps an average of what its steps give
    Unrolled            an objective differentiates through training, and measures gradients along it
    LearnsLabels        an objective learns the labels that a memory stores
    Remembering         an objective keeps tensors from one outer step to the next
    Counted             an objective counts the work of an outer step
    SelectsInFeatures   a control trains a network to select in its features
    Priced              an experiment estimates its time before it starts
    InRollouts          an experiment takes several rollouts in an outer step
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, device, nn

from suite.keys import Key

Params = dict[str, Tensor]
"""Named tensors: a network's parameters, or a memory."""

State = dict[str, Params]
"""An optimizer's state: named slots, each a dictionary of tensors."""

# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class ImageShape:
    """Channels, height and width of one image."""

    channels: int
    """1 for grey images, 3 for coloured ones."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""

    def __post_init__(self) -> None:
        for side in ("channels", "height", "width"):  # of a library's kind of whole number, which no record can hold
            object.__setattr__(self, side, operator.index(getattr(self, side)))

    @property
    def numel(self) -> int:
        """Stored numbers of one image."""
        return self.channels * self.height * self.width

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


@dataclass(frozen=True)
class DatasetInfo:
    """Static metadata of a data set, available without reading any file."""

    name: str
    """As in tables and file names."""
    shape: ImageShape
    """Of every image."""
    class_names: tuple[str, ...]
    """In the order of the labels."""
    train_size: int
    """Training images, those of a validation split among them."""
    test_size: int
    """Test images."""
    superclasses: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Pairs of a superclass and the names of its classes, where the data set has them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        superclasses = tuple((str(name), tuple(map(str, own))) for name, own in self.superclasses)
        object.__setattr__(self, "superclasses", superclasses)
        for size in ("train_size", "test_size"):
            object.__setattr__(self, size, operator.index(getattr(self, size)))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclass(frozen=True, eq=False)
class Split:
    """Images, preprocessed, and their labels."""

    images: Float[Tensor, "n channels height width"]
    """Preprocessed."""
    labels: Int64[Tensor, " n"]
    """Class numbers from 0."""
    targets: Float[Tensor, "n classes"] | None = None
    """Probabilities of the classes, which networks are trained on in place of `labels` (`taught`); None: there are
    none. Accuracy is by `labels` alone."""
    teacher: Callable[[Tensor], Tensor] | None = None
    """Gives the probabilities for images as they are shown, in place of all else (`told`)."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def taught(self) -> Int64[Tensor, " n"] | Float[Tensor, "n classes"]:
        """What a network is taught of each image, as torch's `cross_entropy` takes it: the targets, else the labels."""
        return self.labels if self.targets is None else self.targets

    def told(self) -> "Split":
        """The same images with the targets that the teacher gives them, if there is one."""
        return self if self.teacher is None else replace(self, targets=self.teacher(self.images), teacher=None)

    def to(self, where: device) -> "Split":
        """The same images, labels and targets on a device."""
        return self._each(lambda part: part.to(where))

    def at(self, rows: Int64[Tensor, " k"]) -> "Split":
        """These rows, in this order."""
        return self._each(lambda part: part[rows])

    def relabelled(self, classes: Sequence[int]) -> "Split":
        """The same images, their labels numbered anew by `relabel`; of the targets those of `classes`, in order."""
        targets = None if self.targets is None else self.targets[:, list(classes)]
        return Split(self.images, relabel(self.labels, classes), targets)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Split":
        targets = None if self.targets is None else change(self.targets)
        return Split(change(self.images), change(self.labels), targets, self.teacher)


def relabel(labels: Int64[Tensor, " n"], classes: Sequence[int]) -> Int64[Tensor, " n"]:
    """For each label the place of its class among `classes`, -1 for any other class."""
    places = torch.full((max(int(labels.max()), *classes) + 1,), -1, device=labels.device)
    places[list(classes)] = torch.arange(len(classes), device=labels.device)
    return places[labels]


@runtime_checkable
class Transform(Protocol):
    """A preprocessing that was fitted on training images; works on pixels in [0, 1]."""

    @property
    def name(self) -> str:
        """One of `preprocess.PREPROCESSINGS`."""
        ...

    def apply(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The preprocessed images."""
        ...

    def display(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Back to pixels in [0, 1], as near as the preprocessing allows."""
        ...

    def tensors(self) -> Params:
        """What was fitted, to be stored beside a memory."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, settings and the hash of what was fitted."""
        ...


@dataclass(frozen=True, eq=False)
class Data:
    """A loaded data set: preprocessed splits. Only the end of an experiment opens `test`."""

    info: DatasetInfo
    """Of the data set."""
    train: Split
    """Training images, without those set aside."""
    validation: Split
    """Training images that were set aside; may be empty."""
    test: Split
    """Test images."""
    transform: Transform
    """The preprocessing, fitted on `train`."""
    digest: str
    """SHA-256 of the pixels and labels it was made of."""


@dataclass(frozen=True)
class StreamInfo:
    """Static metadata of a stream of tasks, available without reading any file."""

    name: str
    """As in tables."""
    shape: ImageShape
    """Of every image."""
    outputs: int
    """Outputs of the network's head, of all tasks together."""
    tasks: int
    """Number of tasks."""
    classes_per_task: int
    """Classes of one task."""
    samples_per_task: int
    """Training images of a task."""
    test_per_task: int
    """Test images of a task, about."""
    task_known: bool
    """Whether a test image comes with its task, so that the outputs of other tasks are masked."""
    differs: tuple[str, ...] = ()
    """Known deviations from the published benchmark, to be printed with every result."""


@dataclass(frozen=True, eq=False)
class StreamTask:
    """One task of a stream: its images, with labels as the network's head numbers them."""

    train: Split
    """Training images."""
    test: Split
    """Test images of its classes."""
    classes: tuple[int, ...]
    """Outputs of the head that are its classes."""
    class_names: tuple[str, ...]
    """Of `classes`, in their order."""
    transform: Transform
    """The preprocessing of its images."""
    made_by: dict[str, Any]
    """What distinguishes it from the stream's other tasks: an angle, a permutation's hash, class names."""


# ---------------------------------------------------------------- components


@runtime_checkable
class Dataset(Protocol):
    """A data set: metadata without any file, images when it is loaded."""

    @property
    def info(self) -> DatasetInfo:
        """Its metadata."""
        ...

    @property
    def augmentation(self) -> str:
        """Name of the augmentation the benchmark uses on this data set, or 'none'."""
        ...

    def load(self, data_dir: Path, key: Key, validation: float) -> Data:
        """Splits, with `validation` (a fraction) of every training class set aside by the key."""
        ...


@runtime_checkable
class Stream(Protocol):
    """A sequence of tasks, made of a data set and a key: the same bits for the same key."""

    @property
    def info(self) -> StreamInfo:
        """Its metadata."""
        ...

    def tasks(self, data_dir: Path, key: Key) -> Iterator[StreamTask]:
        """The tasks in order, each made when the iterator reaches it."""
        ...


@runtime_checkable
class RelatedTasks(Protocol):
    """A stream whose tasks show the same images with their pixels at other places; offered by some."""

    def shown(self, key: Key) -> Int64[Tensor, " pixels"]:
        """For each pixel of a task drawn by the key, the pixel of an image that it shows; -1: none, which is black."""
        ...


@runtime_checkable
class Architecture(Protocol):
    """Builds networks with forward(x) -> logits (n, classes) and features(x) -> penultimate activations (n, d)."""

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """A network with fresh weights; UsageError for images it can't take."""
        ...


@runtime_checkable
class Parameterization(Protocol):
    """What a memory stores, and how images are recalled from it. Pure functions of the memory's tensors."""

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        """Images recalled for each class from a budget of `images_per_class` real images' worth of stored numbers."""
        ...

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """A fresh memory, a function of the key; its tensors count towards the budget, an extractor's weights apart.

        Raises UsageError where the budget affords nothing.
        """
        ...

    def recall(
        self, memory: Params, queries: Int64[Tensor, " n"] | Float[Tensor, "n query"]
    ) -> Float[Tensor, "n per_class channels height width"]:
        """The images of each query: a class number, or a row of the queries the memory is addressed with."""
        ...

    def penalty(self, memory: Params) -> Float[Tensor, ""]:
        """What is added to the outer loss for the memory itself; zero where there is nothing to regularise."""
        ...


QueryKind = Literal["labels", "images"]
"""What a memory is queried by: class numbers, or observed images."""


@runtime_checkable
class Queried(Protocol):
    """A parameterization that says what its memory is queried by; offered by some, see `query_kind`."""

    @property
    def query_kind(self) -> QueryKind:
        """'labels' or 'images'."""
        ...


def query_kind(parameterization: Parameterization) -> QueryKind:
    """What a memory of this parameterization is queried by: class labels, unless it says otherwise."""
    return parameterization.query_kind if isinstance(parameterization, Queried) else "labels"


@runtime_checkable
class Labelled(Protocol):
    """A parameterization whose memory stores labels beside images, to be learned with them; see `soft_labels`."""

    def labels(self, memory: Params, queries: Int64[Tensor, " n"]) -> Float[Tensor, "n per_class classes"]:
        """What each image that `recall` gives is to be taken for: probabilities of the classes, with gradients."""
        ...


@runtime_checkable
class Factored(Protocol):
    """A parameterization whose images are combinations of fewer bases: `recall(m, y)` is coefficients times bases."""

    def factors(
        self, memory: Params, queries: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n per_class bases"], Float[Tensor, "bases c h w"]]:
        """The coefficients of each image that `recall` gives, and the bases; both with gradients."""
        ...


@runtime_checkable
class Optimizer(Protocol):
    """Descent on named tensors, a network's parameters or a memory: two pure functions, out of place.

    Differentiable through `params`, `grads` and `state`. The inner loop and the outer loop use the same ones.
    """

    def init(self, params: Params) -> State:
        """The state before the first step."""
        ...

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters and the state after one step; nothing is changed in place."""
        ...


@runtime_checkable
class Elementwise(Protocol):
    """An optimizer that says whether its step treats every number by itself.

    If it does, its steps on all weights in one row are its steps on each tensor, and take one operation instead of one
    for each tensor: what a GPU's time goes to in small networks.
    """

    @property
    def elementwise(self) -> bool:
        """Whether a number's step depends on its own weight, gradient and state alone."""
        ...


@runtime_checkable
class Linear(Protocol):
    """An optimizer that says whether its step is linear in weights, gradients and state, with the same factors for all.

    If it is, weights may be kept in other coordinates (`suite.core.span`).
    """

    @property
    def linear(self) -> bool:
        """Whether a step of weights V B with gradients g B is the step of V with g, times B; derivatives in B, too."""
        ...


@runtime_checkable
class ReadsByLinear(Protocol):
    """An architecture that reads pixels by one linear layer, and by nothing else."""

    @property
    def first_weight(self) -> str:
        """The name of that layer's weight, of pixels for each unit, among the network's parameters."""
        ...


@runtime_checkable
class Capturing(Protocol):
    """An objective whose work a GPU may replay as a CUDA graph."""

    def unrolls_captured(self, device: torch.device) -> bool:
        """Whether it does so on this device."""
        ...


@runtime_checkable
class StartsFromImages(Protocol):
    """A parameterization whose memory can start from images (`starts`); offered by most."""

    def fitted(self, memory: Params, images: Float[Tensor, "classes per_class c h w"]) -> Params:
        """The memory, of the same shapes, that recalls the images of each class, or what is near them.

        `memory` is fresh, for the shapes, and for what the images do not decide.
        """
        ...


@runtime_checkable
class Averaging(Protocol):
    """An optimizer that keeps an average of what its steps give, which is judged and kept; see `averaged`."""

    def average(self, params: Params, state: State) -> Params:
        """The average that a state holds."""
        ...


@runtime_checkable
class Planned(Protocol):
    """An optimizer that depends on how many steps a run takes; see `scheduled`."""

    def over(self, steps: int) -> Optimizer:
        """The optimizer of a run of so many steps; UsageError for too few of them."""
        ...


def over_steps(optimizer: Optimizer, steps: int) -> Optimizer:
    """The optimizer of a run of so many steps."""
    return optimizer.over(steps) if isinstance(optimizer, Planned) else optimizer


@runtime_checkable
class Schedule(Protocol):
    """Factors of an optimizer's steps over a run."""

    def factor(self, t: Float[Tensor, ""], steps: int) -> Float[Tensor, ""]:
        """Of step t, from 0, of a run of so many steps; UsageError for too few of them."""
        ...


@dataclass(frozen=True, eq=False)
class Setting:
    """What a memory is distilled for: the choices an objective works under."""

    shape: ImageShape
    """Of every image."""
    classes: int
    """Outputs of the networks."""
    architecture: Architecture
    """Of the networks that are trained on what is recalled."""
    parameterization: Parameterization
    """Of the memory."""
    augmentation: str
    """One of `augment.AUGMENTATIONS`."""
    device: device
    """Where tensors are."""
    groups: Int64[Tensor, " classes"] | None = None
    """For each class its group, for task-incremental masking (`masked`); None: all classes are one group."""

    def masked(self, scores: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """The scores (logits), at minus infinity for classes of other groups than the label's."""
        if self.groups is None:
            return scores
        groups = self.groups.to(scores.device)
        return scores.masked_fill(groups[labels][:, None] != groups[None, :], -torch.inf)


@dataclass(frozen=True, eq=False)
class ClassRows:
    """Real training images with the rows of each class, for drawing class by class."""

    split: Split
    """The images."""
    rows: tuple[Int64[Tensor, " _"], ...]
    """For each class the rows of its images."""

    @staticmethod
    def of(split: Split, classes: int) -> "ClassRows":
        """Of a split whose labels are 0 to `classes` - 1."""
        labels = split.labels.cpu()
        return ClassRows(split, tuple((labels == c).nonzero()[:, 0] for c in range(classes)))

    def draw(self, classes: list[int], each: int, key: Key) -> Split:
        """`each` images (or all there are) of every class named, without replacement within a class."""
        return self.split.at(self.draw_rows(classes, each, key).to(self.split.labels.device))

    def draw_rows(self, classes: list[int], each: int, key: Key) -> Int64[Tensor, " n"]:
        """The rows of what `draw` gives, on the host, to be sent to a device with others."""
        picks = []
        for c in classes:
            rows = self.rows[c]
            picks.append(rows[key(c).permutation(len(rows))[:each]])
        return torch.cat(picks)


@runtime_checkable
class Objective(Protocol):
    """What a memory is optimised for: gives its gradient."""

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """Gradient of the memory for one outer step, and what is logged: tensors of one number, `loss` among them."""
        ...

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Work and bytes of one outer step, by name, found without any data."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """An objective that keeps tensors from one outer step to the next, such as networks; they are checkpointed."""

    def begin(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> Params:
        """What it keeps before the first outer step."""
        ...

    def gradients_after(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key, kept: Params
    ) -> tuple[Params, dict[str, Tensor], Params]:
        """As `gradients`, which stands for a first step; and what it keeps after the step, nothing changed in place."""
        ...


@dataclass(frozen=True)
class Passes:
    """Equal passes of a network over images: the unit in which an objective counts its work."""

    kind: Literal["forward", "gradient", "step", "unrolled"]
    """Scores alone; the loss's gradient in the weights; an update by it; an update that is differentiated in turn."""
    images: float
    """Of each pass."""
    times: float
    """Passes in one outer step, on average where their number is drawn."""
    captured: bool = False
    """Whether a GPU replays them as a CUDA graph, which saves most of the time of launching kernels."""


@runtime_checkable
class Counted(Protocol):
    """An objective that counts the work of one outer step; of any other, one step is timed."""

    def work(self, setting: Setting, per_class: int) -> list[Passes]:
        """The passes of one outer step on a memory of `per_class` images for each class, found without any data.

        Empty where they can't be counted: then one step is timed.
        """
        ...


@runtime_checkable
class Unrolled(Protocol):
    """An objective that differentiates through `inner_steps` steps of training."""

    @property
    def inner_steps(self) -> int:
        """Steps of the inner loop."""
        ...

    def gradient_norms(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> list[float]:
        """Norms of d outer loss / d w_t in one outer step, for t = 0, ..., inner_steps."""
        ...


@runtime_checkable
class LearnsLabels(Protocol):
    """An objective that trains its networks on the labels of a `Labelled` memory, and gives their gradient."""

    @property
    def learns_labels(self) -> Literal[True]:
        """True; an objective that does not leaves it out, and such memories are refused."""
        ...


@runtime_checkable
class Control(Protocol):
    """Real images that a memory of the same budget must beat."""

    @property
    def label(self) -> str:
        """Its name in tables."""
        ...

    @property
    def over(self) -> str:
        """What its accuracies are spread over, such as 'evaluation networks'."""
        ...

    def choose(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Callable[[int], Split]:
        """For each network's number its images, `each` of every class; a function of the key."""
        ...


@runtime_checkable
class Start(Protocol):
    """Images that a memory recalls before its first outer step, made of training images alone."""

    def images(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Float[Tensor, "classes each c h w"]:
        """`each` images of every class, a function of the key; UsageError for more than can be made."""
        ...


@runtime_checkable
class SelectsInFeatures(Protocol):
    """A control that selects in the features of a network it trains on all real images; offered by some."""

    @property
    def epochs(self) -> int:
        """Of that network's training; 0 where it selects in pixels."""
        ...


@runtime_checkable
class Experiment(Protocol):
    """What ends in one record. A frozen dataclass, so that its fields are the whole configuration."""

    def plan(self) -> dict[str, Any]:
        """What a run does, by name, found without any data."""
        ...

    def run(self, session: "Session") -> "Outcome":
        """Do it: a function of the configuration and the session's key, that resumes from its checkpoint."""
        ...


COMPONENTS: dict[str, type] = {
    "datasets": Dataset,
    "architectures": Architecture,
    "parameterizations": Parameterization,
    "inner_optimizers": Optimizer,
    "objectives": Objective,
    "controls": Control,
    "streams": Stream,
    "starts": Start,
    "schedules": Schedule,
    "experiments": Experiment,
}
"""The kinds of component, as registries and gin name them, and what each must offer."""

# ---------------------------------------------------------------- runs


@runtime_checkable
class Session(Protocol):
    """Services that a run offers its experiment: directories, checkpoints, metric logging, interruption."""

    key: Key
    device: device
    directory: Path
    """The run's own; whatever is left in it is kept and logged."""
    data_dir: Path
    cache_dir: Path
    """Shared by all runs of one output directory."""
    leads: bool
    """Whether this process measures and writes; False in those that only share its outer steps."""

    def restore(self) -> tuple[int, Params, dict[str, Any]] | None:
        """Iteration, tensors and state of the newest whole checkpoint, or None for a run that starts."""
        ...

    def checkpoint(self, iteration: int, tensors: Params, state: dict[str, Any], score: float | None = None) -> None:
        """Save what the run needs to go on; raises Interrupted afterwards if a signal asked the run to stop.

        `score`: on validation, if it was measured at this iteration; the best checkpoint is kept.
        """
        ...

    def still_held(self) -> None:
        """Raise RunError where the run's directory is another process's by now; ask before writing into it."""
        ...

    def checkpoint_due(self) -> bool:
        """Whether a signal asked for a checkpoint, or enough time has passed since the last one."""
        ...

    def pause(self) -> None:
        """Between two pieces of work that need no checkpoint: raises Interrupted if a signal asked the run to stop."""
        ...

    def learned(self) -> None:
        """Say that no outer step is left: a process that only shares them leaves the run here, by an exception."""
        ...

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Add values of metrics, by name, after `iteration` iterations."""
        ...

    def history(self, metric: str) -> list[tuple[int, float]]:
        """Every logged value of a metric, as (iteration, value), earlier attempts included."""
        ...

    def progress(self, iteration: int, total: int, words: str) -> None:
        """How far the run is; `words` says the rest."""
        ...

    def report(self, sentence: str) -> None:
        """Print one line for people."""
        ...


@dataclass(frozen=True)
class Measurement:
    """One measured quantity in percent: a value for each network (or episode), never only their mean.

    `suite.runtime.record.label` composes the fields for people; no code reads them back from that text.
    """

    method: str
    """What was measured: 'memory', a control such as 'random real images' or 'full data', a baseline such as 'ER'."""
    split: str
    """Of which images: 'test' or 'validation'."""
    values: tuple[float, ...]
    """One number for each of what `over` names."""
    over: str
    """What the values are spread over, such as 'evaluation networks' or 'episodes'."""
    quantity: str = "accuracy"
    """What the numbers are: accuracy; of a stream RA, LA, BTI, BWT or forgetting; or another rate in percent."""
    network: str = ""
    """The architecture it was measured on; '' for the run's own."""
    episodes: str = ""
    """The kind of episode, such as '2-way' or '5-way, 1 shot', or a probe such as 'blur' or 'pgd'; '' where neither."""
    note: str = ""
    """What a reader must know of it, such as the images and steps of its training."""


@dataclass(frozen=True)
class Budget:
    """What a memory stores, as numbers and as real images per class, and what it recalls."""

    stored_numbers: int
    """All numbers of its tensors, an extractor's weights apart."""
    images_per_class: float
    """Real images of a class that take as many numbers."""
    recalled_per_class: int
    """Images recalled for each class."""


@dataclass(frozen=True)
class Outcome:
    """What an experiment found; the record is made of it."""

    measurements: tuple[Measurement, ...]
    """In the order in which tables show them."""
    budget: Budget
    """What its memory stores and recalls."""
    scale: dict[str, Any]
    """How much of the paper's compute it used; `reduced` is True where it was less."""
    facts: dict[str, Any]
    """What else identifies it: data digest, sizes, preprocessing, hashes."""
    cost: dict[str, float]
    """Seconds, by what they were spent on; these differ from run to run."""


EXPECTED_MIB = "expected memory of one unroll (MiB)"
"""What a plan calls the memory that a run will need."""


@dataclass(frozen=True)
class Cost:
    """What a run is expected to take on this machine, in seconds."""

    own: float
    """Work that no other run shares."""
    shared: dict[str, float]
    """Work that runs with the same entry (and seed) do once for all of them, by name."""
    step: float
    """One outer step."""


@runtime_checkable
class Priced(Protocol):
    """An experiment that can estimate its time before it starts."""

    def cost(self, device: device) -> Cost:
        """What a run takes on a device, found without any data."""
        ...


@runtime_checkable
class InRollouts(Protocol):
    """An experiment that takes several rollouts in an outer step, which processes can share."""

    @property
    def rollouts(self) -> int:
        """Of each outer step."""
        ...


def rollouts_of(experiment: object) -> int:
    """The rollouts of an experiment's outer steps: one, unless it says otherwise."""
    return experiment.rollouts if isinstance(experiment, InRollouts) else 1
