"""What a command declares of a file, held against what the file says: together they make a set that can be judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from suite.errors import RunError, UsageError, printable
from suite.importers import spaces
from suite.importers.base import ForeignSet, Format, refused
from suite.importers.spaces import Space
from suite.parameterizations.imported import IMAGES, LABELS, RATE, Imported, ImportedLabels, LabelKind
from suite.storage.files import user_path
from suite.storage.plain_files import read_plain
from suite.types import DatasetInfo, Params

CLASS_KINDS = ("class", *get_args(LabelKind))
"""What `--labels` takes."""

IN_ORDER = "data-set"
"""What `--classes` says where label i of the file is class i of the data set."""

MOST_BYTES_OF_NAMES = 2**22
"""Of a file with names of classes."""


@dataclass(frozen=True)
class Declared:
    """The options of a command, as they were given; None for one that was left out."""

    space: str | None = None
    """Of the images, see `suite.importers.spaces`."""
    labels: str | None = None
    """What the numbers of a label are."""
    lr: str | None = None
    """'file', 'protocol' or a number."""
    classes: str | None = None
    """'data-set', names with commas between them, or file:NAME, a text with a name on every line."""
    factor: int | None = None
    """Tiles along each side of an image."""


@dataclass(frozen=True, eq=False)
class Judgeable:
    """A set with all that must be known to judge it."""

    parameterization: Imported | ImportedLabels
    """How it is stored and recalled."""
    tensors: Params
    """What it stores, images still in their own space."""
    space: Space
    """Of the images."""
    lr: float | None
    """The rate to train at; None: the protocol's."""
    settled: dict[str, Any]
    """What labels, rate and classes are, in words for the record."""
    notes: tuple[str, ...]
    """What else was done."""


def settle(path: Path, layout: Format, found: ForeignSet, declared: Declared, info: DatasetInfo) -> Judgeable:
    """A set of what its file says and what is declared.

    Raises UsageError, which names the option and its choices, for what nobody says, and for what is declared wrongly.
    """
    space = _space(path, layout, found, declared, info)
    if len(found.labels) != len(found.images):
        raise refused(path, f"it has {len(found.images)} images and {len(found.labels)} labels")
    kind = _kind(path, layout, found, declared, info)
    lr, with_rate = _rate(path, found, declared)
    factor = _factor(layout, declared, info)
    order, classes = _order(path, found, declared, info)
    labels = _renumbered(path, found.labels, order)
    rows, grouped = _by_class(path, labels, info)
    each = len(rows) // info.classes
    stored = Imported(factor=factor, rate=with_rate, decoded=0 if found.stored is None else each)
    tensors: Params = {IMAGES: found.images[rows].unflatten(0, (info.classes, each)).clone()}
    if kind != "class":
        tensors[LABELS] = labels[rows].unflatten(0, (info.classes, each)).clone()
    if with_rate:
        tensors[RATE] = torch.tensor([found.rate])
    return Judgeable(
        stored if kind == "class" else ImportedLabels(stored, kind),
        tensors,
        space,
        lr,
        {"labels": kind, "lr": "the protocol's" if lr is None else repr(lr), "classes": classes},
        (*found.notes, *grouped, *_weighed(kind, labels)),
    )


# ---------------------------------------------------------------- one declaration each


def _space(path: Path, layout: Format, found: ForeignSet, declared: Declared, info: DatasetInfo) -> Space:
    settled = layout.space or found.space
    if declared.space is None and settled is None:
        raise UsageError(f"--space: '{layout.name}' does not say what was done to its pixels; say: {spaces.CHOICES}")
    if settled is not None and declared.space not in (None, settled):
        raise UsageError(f"--space {printable(declared.space or '')}: the images of '{layout.name}' are {settled}")
    space = spaces.declared(declared.space or settled or "", info.shape)
    if space.text == "pixels":
        spaces.refuse_no_pixels(path, found.images, "--space pixels")
    return space


def _kind(path: Path, layout: Format, found: ForeignSet, declared: Declared, info: DatasetInfo) -> Any:
    """'class' or one of `LabelKind`."""
    given = declared.labels
    if given is not None and given not in CLASS_KINDS:
        raise UsageError(f"--labels {printable(given)}: there is no such kind; there are: {', '.join(CLASS_KINDS)}")
    if found.labels.ndim == 1:
        if given not in (None, "class"):
            raise UsageError(f"--labels {given}: {path} stores one class number for each image; leave it out")
        return "class"
    if found.labels.shape[1] != info.classes:
        raise refused(path, f"its labels have {found.labels.shape[1]} numbers, for {info.classes} classes")
    if given is None and layout.labels is None:
        raise UsageError(
            f"--labels: {path} stores {info.classes} numbers for each image; say what they are: "
            + ", ".join(get_args(LabelKind))
        )
    if given == "class":
        raise UsageError(f"--labels class: {path} stores {info.classes} numbers for each image, which are no classes")
    if layout.labels is not None and given not in (None, layout.labels):
        raise UsageError(f"--labels {given}: the labels of '{layout.name}' are {layout.labels}")
    kind = given or layout.labels
    _refuse_contradiction(path, kind, found.labels)
    return kind


def _refuse_contradiction(path: Path, kind: str | None, labels: Tensor) -> None:
    """Raise UsageError for numbers that can't be of their kind."""
    if kind in ("probabilities", "weights") and bool((labels < 0).any()):
        raise UsageError(f"--labels: those in {path} go down to {float(labels.min()):.3g}, so they are no {kind}")
    sums = labels.sum(1)
    if kind == "probabilities" and not torch.allclose(sums, torch.ones(()), atol=1e-3):
        least, largest = float(sums.min()), float(sums.max())
        raise UsageError(
            f"--labels probabilities: the rows in {path} add up to {least:.3g} to {largest:.3g}, not to 1; weights, "
            "which are divided by their sum, logits and regression need not"
        )
    if kind == "weights" and not bool((sums > 0).all()):
        raise UsageError(f"--labels weights: a row in {path} is all 0")


def _rate(path: Path, found: ForeignSet, declared: Declared) -> tuple[float | None, bool]:
    """The rate, None for the protocol's, and whether it is the file's, so that the set stores it."""
    given = declared.lr
    if found.rate is not None:
        if given not in ("file", "protocol"):
            raise UsageError(
                f"--lr: {path} stores a rate of {found.rate:.6g}; say whether networks are trained at it (--lr file) "
                "or at the protocol's (--lr protocol)"
            )
        if given == "protocol":
            return None, False
        if not 0 < found.rate < 1e6:
            raise RunError(f"{path}: its rate is {found.rate:.6g}, at which nothing can be trained; use --lr protocol")
        return found.rate, True
    if given in (None, "protocol"):
        return None, False
    if given == "file":
        raise UsageError(f"--lr file: {path} stores no rate; choose --lr protocol, or a number")
    try:
        lr = float(given)
    except ValueError:
        lr = 0.0
    if not 0 < lr < 1e6:
        raise UsageError(f"--lr {printable(given)}: it must be file, protocol or a number above 0")
    return lr, False


def _factor(layout: Format, declared: Declared, info: DatasetInfo) -> int:
    if layout.tiles and declared.factor is None:
        raise UsageError(
            f"--factor: '{layout.name}' does not say how many tiles an image holds along each side; say 1 for none, 2 "
            "for four in an image, 3 for nine"
        )
    if not layout.tiles and declared.factor is not None:
        raise UsageError(f"--factor {declared.factor}: images of '{layout.name}' hold no tiles; leave it out")
    factor = declared.factor or 1
    if info.shape.height % factor or info.shape.width % factor:
        raise UsageError(f"--factor {factor}: it must divide both sides of images of {info.shape}")
    return factor


def _order(path: Path, found: ForeignSet, declared: Declared, info: DatasetInfo) -> tuple[list[int], str]:
    """For each class of the file its number in the data set, and what says so."""
    given = declared.classes
    if found.class_names is not None:
        if given is not None and _names(given, info) != found.class_names:
            raise UsageError(f"--classes: {path} names its classes, in another order; leave it out")
        names, says = found.class_names, "by the names in the file"
    elif given is None:
        raise UsageError(
            f"--classes: {path} numbers its classes; say --classes {IN_ORDER} if they are numbered as in {info.name} "
            f"({', '.join(map(printable, info.class_names[:3]))}, …), or their names in the file's order"
        )
    else:
        names = _names(given, info)
        says = "as in the data set" if given == IN_ORDER else ", ".join(names[:1000])
    return [info.class_names.index(name) for name in names], says


def _names(given: str, info: DatasetInfo) -> tuple[str, ...]:
    """The names that `--classes` gives, each class of the data set once."""
    if given == IN_ORDER:
        return info.class_names
    if given.startswith("file:"):
        file = user_path(given.removeprefix("file:"), "--classes")
        try:
            names = read_plain(file, MOST_BYTES_OF_NAMES, follow=True).decode().splitlines()
        except FileNotFoundError as error:
            raise UsageError(f"--classes: there is no file {printable(str(file))}") from error
        except ValueError as error:
            raise UsageError(f"--classes: {printable(str(file))} is no text in UTF-8") from error
    else:
        names = given.split(",")
    names = [name.strip() for name in names if name.strip()]
    unknown = [name for name in names if name not in info.class_names]
    missing = [name for name in info.class_names if name not in names]
    if unknown or missing or len(names) != len(info.class_names):
        what = f"'{printable(unknown[0])}' is no class" if unknown else f"'{missing[0]}' is missing" if missing else ""
        raise UsageError(
            f"--classes: {what or 'a name is there twice'}; give {IN_ORDER}, or each of the {info.classes} classes of "
            f"{info.name} once"
        )
    return tuple(names)


# ---------------------------------------------------------------- rows


def _renumbered(path: Path, labels: Tensor, order: Sequence[int]) -> Tensor:
    """Labels with classes numbered as in the data set."""
    places = torch.tensor(order)
    if labels.ndim == 2:
        return torch.empty_like(labels).index_copy_(1, places, labels)
    if int(labels.min()) < 0 or int(labels.max()) >= len(order):
        least, largest = int(labels.min()), int(labels.max())
        raise refused(path, f"its labels go from {least} to {largest}, for {len(order)} classes")
    return places[labels]


def _by_class(path: Path, labels: Tensor, info: DatasetInfo) -> tuple[Tensor, tuple[str, ...]]:
    """The rows of all images, class by class, as many of each; and how that was decided.

    A label of several numbers belongs to the class of the largest. Where that does not give every class as many images,
    they stay in the file's order: the class of such an image is its place, and networks are taught its label.
    """
    own = labels if labels.ndim == 1 else labels.argmax(1)
    counts = torch.bincount(own, minlength=info.classes)
    if bool((counts == counts[0]).all()) and int(counts[0]):
        return torch.sort(own, stable=True).indices, ()
    if labels.ndim == 1 or len(labels) % info.classes or not len(labels):
        least, most = int(counts.min()), int(counts.max())
        raise RunError(
            f"{path} has {least} to {most} images for each of {info.classes} classes of {info.name}; a memory recalls "
            "as many of every class, so such a set can't be judged here"
        )
    return torch.arange(len(labels)), ("images are grouped in the file's order, since labels favour some classes",)


def _weighed(kind: str, labels: Tensor) -> tuple[str, ...]:
    """What was done to labels that are no probabilities."""
    if kind == "weights":
        sums = labels.sum(1)
        return (f"each label is divided by its sum ({float(sums.min()):.3g} to {float(sums.max()):.3g})",)
    if kind == "regression":
        return ("of labels for a squared error networks are taught the class of the largest number",)
    return ()
