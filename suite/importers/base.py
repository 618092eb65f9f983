"""What every importer shares: the set that it reads, the decorator that names it, and limits for files of strangers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.core.foretold import CPU, bytes_of, gib
from suite.errors import RunError, UsageError, printable
from suite.memory import Memory
from suite.registry import suggestion
from suite.storage.plain_files import read_plain
from suite.types import DatasetInfo


@dataclass(frozen=True, eq=False)
class ForeignSet:
    """A distilled set as its file has it: nothing is converted yet, and classes are numbered as the file does."""

    images: Float[Tensor, "n c h w"]
    """In the space that they were distilled in; those that hold tiles, as they are stored."""
    labels: Int64[Tensor, " n"] | Float[Tensor, "n classes"]
    """Class numbers, or several numbers for each image; of what kind these are, the format or the command says."""
    rate: float | None = None
    """The learning rate that the file stores; None where it has none."""
    accuracies: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """What the file says that its authors measured, in percent, by their name of the network."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of the labels, where the file has them."""
    notes: tuple[str, ...] = ()
    """What was chosen or left out of the file, each as a sentence for the record."""
    space: str | None = None
    """Of the images, where this file settles it, though its layout does not."""
    stored: int | None = None
    """Numbers that the set stores for its images, where they were decoded from others; None: the images are stored."""


@dataclass(frozen=True)
class Reading:
    """What a reader may need to know beside the file's place."""

    info: DatasetInfo
    """Of the data set that the file was distilled from."""
    experiment: int | None
    """Which of several sets in one file, from 0, as `--experiment` says."""
    waves: tuple[float, float] | None = None
    """Of networks of sines, the frequency of the first layer and that of the others, as `--waves` says."""


Read = Callable[[Path, Reading], ForeignSet | Memory]
"""A reader. It raises RunError, in one sentence, for a file that is missing, damaged, hostile or of another layout."""


R = TypeVar("R", bound=Read)


@dataclass(frozen=True)
class Format:
    """One layout of files that can be imported."""

    name: str
    """As `--as` takes it."""
    read: Read
    """Its reader; gives a memory for files of this suite, which say all of themselves."""
    summary: str
    """One line."""
    space: str | None
    """The space of its images, where the layout settles it (`suite.importers.spaces`)."""
    labels: str | None
    """The kind of labels of several numbers, where the layout settles it."""
    tiles: bool
    """Whether its images hold several smaller ones, so that `--factor` must say how many."""
    several: bool
    """Whether a file may hold several sets, of which `--experiment` names one."""
    waves: bool
    """Whether its images are made by networks of sines, so that `--waves` must say their frequencies."""
    hub: bool
    """Whether a repository of the Hugging Face Hub may be named, whose tables are fetched (`suite.importers.hub`)."""


FORMATS: dict[str, Format] = {}
"""By name, every format that is known."""


def importer(
    name: str,
    *,
    space: str | None = None,
    labels: str | None = None,
    tiles: bool = False,
    several: bool = False,
    waves: bool = False,
    hub: bool = False,
) -> Callable[[R], R]:
    """Decorator of a reader: makes it the format `name`, described by the first line of its docstring.

    The others are those of `Format`. Raises UsageError for a name that is taken.
    """

    def decorate(read: R) -> R:
        if name in FORMATS:
            raise UsageError(f"a format '{name}' is already there; choose another name")
        summary = (read.__doc__ or "").strip().split("\n")[0]
        FORMATS[name] = Format(name, read, summary, space, labels, tiles, several, waves, hub)
        return read

    return decorate


def format_of(name: str | None) -> Format:
    """The format of this name; UsageError, with all that there are, for another and for None."""
    if name is None:
        raise UsageError(f"--as: say what the file is; there are: {', '.join(sorted(FORMATS))}")
    if name not in FORMATS:
        raise UsageError(f"--as: no format is called '{printable(name)}'; {suggestion(name, sorted(FORMATS))}")
    return FORMATS[name]


# ---------------------------------------------------------------- limits

SHARE = 4
"""A set may take one part in so many of the machine's memory: it is held as a file, as it is stored and converted."""


def most_bytes() -> int:
    """The largest file that is read, and the largest array that one may hold."""
    return bytes_of(CPU) // SHARE


def content(path: Path) -> bytes:
    """The bytes of a plain file of a size that this machine has room for. Raises RunError."""
    try:
        return read_plain(path, most_bytes(), follow=True)
    except FileNotFoundError as error:
        raise RunError(f"there is no file {printable(str(path))}") from error


def require_room(path: Path, numbers: int, bytes_each: int = 4) -> None:
    """Raise RunError for more numbers than a set may hold here; call it with what a header says, before it is read."""
    if numbers < 0 or numbers * max(4, bytes_each) > most_bytes():
        raise RunError(
            f"{path} says that it holds {numbers:,} numbers, which take {gib(numbers * max(4, bytes_each))} of the "
            f"{gib(most_bytes())} that a set may take here; it is damaged, or needs a larger machine"
        )


def refused(path: Path, why: str) -> RunError:
    """The sentence for a file that is not of its format."""
    return RunError(f"{path} is refused: {printable(why)}; is it whole, and of this format?")


def tensor_of(path: Path, what: str, value: Any, axes: tuple[int, ...]) -> Tensor:
    """A value of a file as a tensor of so many axes of finite numbers.

    Raises RunError for any other, and for one that claims more numbers than are stored.
    """
    if not isinstance(value, Tensor):
        raise refused(path, f"its {what} are {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
        raise refused(path, f"its {what} are no plain numbers")
    require_room(path, value.numel(), value.element_size())
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise refused(path, f"its {what} claim {value.numel():,} numbers, and fewer are stored")
    if value.ndim not in axes or not value.numel():
        axis = " or ".join(map(str, axes))
        raise refused(path, f"its {what} have the shape {tuple(value.shape)}, not {axis} axes with numbers")
    plain = value.detach().contiguous()
    if plain.is_floating_point() and not plain.isfinite().all():
        raise refused(path, f"its {what} hold NaN or infinity")
    return plain


def images_of(path: Path, value: Any, reading: Reading) -> Float[Tensor, "n c h w"]:
    """Images of a file, channels first, as float32; flat ones take the data set's shape. RunError for others."""
    images = tensor_of(path, "images", value, (2, 4)).float()
    shape = reading.info.shape
    if images.ndim == 2 and images.shape[1] == shape.numel:
        images = images.reshape(-1, shape.channels, shape.height, shape.width)
    if tuple(images.shape[1:]) != (shape.channels, shape.height, shape.width):
        raise refused(path, f"its images are {sizes(images)}, and those of {reading.info.name} are {shape}")
    return images


def labels_of(path: Path, value: Any) -> Int64[Tensor, " n"] | Float[Tensor, "n classes"]:
    """Labels of a file: whole numbers in one axis as class numbers, rows of numbers as float32. RunError for others."""
    labels = tensor_of(path, "labels", value, (1, 2))
    if labels.ndim == 2:
        return labels.float()
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise refused(path, f"its labels are one {labels.dtype} for each image, neither class numbers nor rows")
    return labels.long()


def in_order(count: int, classes: int) -> Int64[Tensor, " n"]:
    """Class numbers of images that stand class by class, as many of each; those of none where that can't be."""
    return torch.arange(count) // max(1, count // classes)


def sizes(images: Tensor) -> str:
    """The shape of one image, as '3x32x32'."""
    return "x".join(map(str, images.shape[1:]))
