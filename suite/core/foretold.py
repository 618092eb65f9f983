"""What is going to be made, before it is: sizes of fresh memories and networks, beside what this machine has.

Sizes come from the components' own `init` and `build`, run on tensors that have shapes and no numbers.
"""

import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from suite.errors import UsageError
from suite.keys import Key, global_generators
from suite.registry import fingerprint
from suite.types import Architecture, ImageShape, Parameterization, Params

CPU = torch.device("cpu")
"""Where memories are made."""

BYTES = 4
"""Of one number: what is learned, recalled and trained is of float32."""


@cache
def bytes_of(device: torch.device) -> int:
    """Memory of a device in bytes: of a GPU its own, else what this machine or its container has for all processes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container on Linux, and of an older one
        with suppress(OSError, ValueError):  # no such file, or 'max'
            whole = min(whole, int((Path("/sys/fs/cgroup") / limit).read_text()))
    return whole


def gib(size: float) -> str:
    """A size in bytes, for people.

    >>> gib(3 * 2**29), gib(1e300)
    ('1.5 GiB', '9.31e+290 GiB')
    """
    return f"{size / 2**30:.3g} GiB"


def require_room(what: str, numbers: float, device: torch.device) -> None:
    """Raise UsageError for so many numbers of float32 that the device could not hold them."""
    if numbers * BYTES > bytes_of(device):
        size = gib(numbers * BYTES) if math.isfinite(numbers) else "more memory than can be counted"
        raise UsageError(
            f"{what} takes {size}, more than the {gib(bytes_of(device))} of memory of {device} here; make it smaller"
        )


def fresh_memory(
    parameterization: Parameterization, shape: ImageShape, classes: int, images_per_class: float
) -> Params:
    """A fresh memory's tensors without their numbers, since a large one takes seconds, or all memory that there is.

    A parameterization that looks at its numbers makes them, if the budget has room here. Raises UsageError.
    """
    key = Key(0)("memory")
    try:
        with FakeTensorMode():
            return parameterization.init(shape, classes, images_per_class, key)
    except UsageError:
        raise
    except Exception:  # of numbers that are not there, or too many to be counted
        budget = images_per_class * classes * shape.numel
        require_room(f"a memory of {images_per_class:.6g} images for each of {classes} classes", budget, CPU)
    return parameterization.init(shape, classes, images_per_class, key)


def network_numbers(architecture: Architecture, shape: ImageShape, classes: int) -> float:
    """Numbers of a network's weights, made without them; infinity for more than can be counted.

    0 for a network whose `build` looks at its numbers: it is made when it is used, and may fail then.
    """
    identity = type(architecture), fingerprint(architecture), shape, classes
    if identity not in _numbers:
        _numbers[identity] = _network_numbers(architecture, shape, classes)
    return _numbers[identity]


_numbers: dict[tuple[object, ...], float] = {}
"""Counted once for equal networks."""


def _network_numbers(architecture: Architecture, shape: ImageShape, classes: int) -> float:
    try:
        with FakeTensorMode(), global_generators(Key(0)):
            return sum(weight.numel() for weight in architecture.build(shape, classes).parameters())
    except UsageError:
        raise
    except Exception as error:  # likewise
        return math.inf if "overflow" in str(error) else 0
