"""A memory's file as it lies on the disk: what it may hold at all, whoever wrote it, judged before it is used.

Reading one runs no code. Whether the tensors are those that the memory's parameterization needs is judged by
`suite.memory`, which knows parameterizations.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from typing_extensions import TypedDict

from suite.errors import RunError, one_line
from suite.storage.plain_files import MOST_BYTES_OF_JSON, open_plain, parse_json, shown
from suite.types import Params

MOST_TENSORS = 10_000
"""Of one file; a deep extractor has some hundreds."""

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What is learned by gradients, and what a preprocessing is fitted in."""

# ---------------------------------------------------------------- what it says of itself

Text = Annotated[str, Field(max_length=1000, pattern=r"^\P{Cc}*$")]
"""A name, without letters that a terminal obeys."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

Count = Annotated[int, Field(ge=1, le=2**53)]

Component = TypedDict("Component", {"is": Text})
"""The description of a registered component, and its fields, which are checked when it is built."""


class Preprocessing(TypedDict):
    """How images were preprocessed; the hash is part of a file's name."""

    name: Text
    sha256: Sha256
    regularization: NotRequired[float | None]


class Stored(TypedDict):
    """As `suite.types.Budget`."""

    stored_numbers: Count
    images_per_class: Annotated[float, Field(gt=0, le=1e12)]
    recalled_per_class: Count


class About(TypedDict):
    """What every memory says of itself, and what some do; a file may say more."""

    schema: int
    sha256: Sha256
    class_names: Annotated[list[Text], Field(min_length=1, max_length=100_000)]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=100_000)]], Field(min_length=3, max_length=3)]
    preprocessing: Preprocessing
    preprocessing_stored: bool
    parameterization: Component
    budget: NotRequired[Stored]
    dataset: NotRequired[Text]
    dataset_digest: NotRequired[Text]
    seed: NotRequired[int]
    iteration: NotRequired[Annotated[int, Field(ge=0)]]
    iterations: NotRequired[Annotated[int, Field(ge=0)]]
    config: NotRequired[Component]


class Distilled(TypedDict):
    """What `config` must say of a distillation, so that its memory can be judged again."""

    dataset: Component
    architecture: Component
    augmentation: Text
    controls: Annotated[list[Component], Field(max_length=1000)]
    validation: Annotated[float, Field(ge=0, lt=1)]
    images_per_class: Annotated[float, Field(gt=0, le=1e12)]


def require_shape(description: Any, shape: type, what: str) -> None:
    """Raise RunError for a description that is not of the shape of a `TypedDict`; `what` begins the sentence."""
    parse_json(json.dumps(description), shape, what)


# ---------------------------------------------------------------- what it holds


def read_tensors(path: Path, most_bytes: int, follow: bool) -> tuple[Params, dict[str, Any]]:
    """The tensors of a plain safetensors file, all floating point and finite, and its metadata.

    `follow`: as for `open_plain`. Raises FileNotFoundError, and RunError that names the file and what is wrong with it.
    """
    data = _content(path, most_bytes, follow)
    header = _header(path, data)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise RunError(
            f"{path} can't be read as a memory ({one_line(error)[:200]}); it is damaged or of another kind"
        ) from error
    for name, tensor in tensors.items():
        _require_numbers(path, name, tensor)
    return tensors, header


def _content(path: Path, most_bytes: int, follow: bool) -> bytes:
    with open_plain(path, follow) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > most_bytes:
            raise RunError(f"{path} has {size:,} bytes, more than the {most_bytes:,} that this machine has room for")
        try:
            return opened.read(size)
        except OSError as error:
            raise RunError(f"can't read {path} ({error.strerror or error}); try again") from error


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """The metadata, of a file with a bounded header and number of tensors."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= min(len(data) - 8, MOST_BYTES_OF_JSON):
        raise RunError(f"{path} can't be read as a memory; it is damaged or of another kind")
    header: dict[str, Any] = parse_json(data[8 : 8 + length], dict, str(path))
    if len(header) > MOST_TENSORS:
        raise RunError(f"{path} has {len(header):,} tensors; a memory has at most {MOST_TENSORS:,}")
    metadata = header.get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def _require_numbers(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise RunError(f"{path} is no memory: its tensor {shown(name)} is of {kind}, and a memory's are floating point")
    if not tensor.isfinite().all():
        raise RunError(f"{path} is no memory: its tensor {shown(name)} holds NaN or infinity; distil it again")


def difference(found: Params, needed: Params) -> str:
    """What tensors are not as needed, in words: names, types and shapes; '' where all are."""
    names = sorted(set(found) ^ set(needed))
    if names:
        return f"{'has no' if names[0] in needed else 'has a'} tensor {shown(names[0])}"
    for name, tensor in needed.items():
        one, other = _kind(found[name]), _kind(tensor)
        if one != other:
            return f"has {one} in {shown(name)}, not {other}"
    return ""


def _kind(tensor: Tensor) -> str:
    """Type and shape, as 'float32 10x1x8x8'."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'of one number'}"
