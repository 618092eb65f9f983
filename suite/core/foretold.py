"""What is going to be made, before it is: sizes of fresh memories and networks, beside what this machine has.

Sizes come from the components' own `init` and `build`: what is small is made, and what is large is made of tensors that
have shapes and no numbers.
"""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from suite.errors import UsageError
from suite.keys import Key, global_generators
from suite.registry import fingerprint
from suite.types import Architecture, ImageShape, Parameterization, Params

T = TypeVar("T")

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


SMALL = 2**21
"""Numbers of a tensor that is made, and as a matrix inverted, in no time."""


def tried(make: Callable[[], T]) -> T:
    """What `make` makes; of tensors without numbers, if one that it makes or reads is large.

    Those are not used for everything, since torch imports its compiler for them, which takes seconds.
    """
    try:
        with _Small():
            return make()
    except _Large:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True):
            return make()


class _Large(Exception):
    """A tensor of more than `SMALL` numbers is about to be made."""


class _Small(TorchDispatchMode):
    """Raises `_Large` before a large tensor is made."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; torch's guard against it imports the compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in args:
            if isinstance(given, torch.Tensor):
                numbers = given.numel()
            elif isinstance(given, (list, tuple)) and all(isinstance(n, int) for n in given):
                numbers = math.prod(given)  # the shape of what is made, or axes
            else:
                continue
            if numbers > SMALL:
                raise _Large
        return func(*args, **(kwargs or {}))


def fresh_memory(
    parameterization: Parameterization, shape: ImageShape, classes: int, images_per_class: float
) -> Params:
    """A fresh memory's tensors; those of a large one are without numbers, which take seconds, or all memory there is.

    A parameterization that looks at its numbers makes them, if the budget has room here. Raises UsageError.
    """
    key = Key(0)("memory")
    try:
        return tried(lambda: parameterization.init(shape, classes, images_per_class, key))
    except UsageError:
        raise
    except Exception:  # of numbers that are not there, or too many to count; what else it is, `init` raises below
        budget = images_per_class * classes * shape.numel
        require_room(f"a memory of {images_per_class:.6g} images for each of {classes} classes", budget, CPU)
    return parameterization.init(shape, classes, images_per_class, key)


def network_numbers(architecture: Architecture, shape: ImageShape, classes: int) -> float:
    """Numbers of a network's weights, a large one's made without them; infinity for more than can be counted.

    0 for a network whose `build` looks at its numbers: it is made when it is used, and may fail then.
    """
    identity = type(architecture), fingerprint(architecture), shape, classes
    if identity not in _numbers:
        _numbers[identity] = _network_numbers(architecture, shape, classes)
    return _numbers[identity]


_numbers: dict[tuple[object, ...], float] = {}
"""Counted once for equal networks."""


def _network_numbers(architecture: Architecture, shape: ImageShape, classes: int) -> float:
    def on_meta() -> Any:
        """As `tried`, but what names the CPU is made there, such as a few numbers of timm's."""
        with torch.device("meta"):
            return architecture.build(shape, classes)

    for make in (lambda: tried(lambda: architecture.build(shape, classes)), on_meta):
        try:
            with global_generators(Key(0)):
                return sum(weight.numel() for weight in make().parameters())
        except UsageError:
            raise
        except Exception as error:  # of `build`, which raises it again where the network is made for use
            if "overflow" in str(error):
                return math.inf
    return 0
