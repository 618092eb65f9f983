"""A pretend GPU with real numbers: tensors on 'pretend:0' wrap tensors of the CPU, and no others may be beside them.

Counts the waits of the host and the copies from the host, by the line of `suite/` that asked for them. `install`
changes torch for a whole process, so a test does that in a process of its own.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from command_line import REPOSITORY
from tape import INDEXED, waits
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

SUITE = str(REPOSITORY / "suite")
aten: Any = torch.ops.aten


class MixedDevicesError(RuntimeError):
    """An operation on tensors of the device and of the host."""


@dataclass
class Counts:
    """What the host did with the device, by line of the suite."""

    waits: Counter[str] = field(default_factory=Counter)
    """For a number, a shape, or a copy to the host."""
    copies: Counter[str] = field(default_factory=Counter)
    """From the host to the device."""

    def add(self, other: "Counts") -> None:
        """Count another's, too."""
        self.waits += other.waits
        self.copies += other.copies

    def per_step(self, steps: int) -> dict[str, Any]:
        """Both, of one of so many outer steps, and the lines."""
        lines = {f"{kind} {line}": n / steps for kind, of in vars(self).items() for line, n in of.items()}
        return {"waits": self.waits.total() / steps, "copies": self.copies.total() / steps, "lines": lines}


_counts = [Counts()]
"""Of all that is being counted."""


@contextmanager
def counted() -> Iterator[Counts]:
    """What happens inside."""
    counts = Counts()
    _counts.append(counts)
    try:
        yield counts
    finally:
        _counts.remove(counts)


def _note(kind: str) -> None:
    place = _line()
    for counts in _counts:
        getattr(counts, kind)[place] += 1


def _line() -> str:
    """The innermost line of the suite that is being run."""
    frame = sys._getframe(1)
    while frame.f_back is not None and not frame.f_code.co_filename.startswith(SUITE):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class Pretended(Tensor):
    """A tensor of the device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        sizes = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made: Pretended = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, **sizes, dtype=held.dtype, device=torch.device("pretend:0")
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatched(func, args, kwargs or {})


def _is_pretended(device: Any) -> bool:
    return device is not None and torch.device(device).type == "pretend"


def _dispatched(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation on the numbers held, with its result on the device unless it is sent to the host."""
    device = kwargs.get("device")
    to_host = func is aten._to_copy.default and device is not None and not _is_pretended(device)
    leaves = tree_leaves((args, kwargs))
    mine = [v for v in leaves if isinstance(v, Pretended)]
    hosts = [v for v in leaves if isinstance(v, Tensor) and not isinstance(v, Pretended)]
    if to_host or waits(func, args):
        _note("waits")
    elif func is aten.copy_.default and hosts:
        _note("copies" if isinstance(args[0], Pretended) else "waits")
    elif any(v.dim() > 0 for v in hosts):
        _require_index(func, args, hosts)
        _note("copies")
    if device is not None and not to_host:
        kwargs = kwargs | {"device": torch.device("cpu")}
    given, named = tree_map(lambda v: v.held if isinstance(v, Pretended) else v, (args, kwargs))
    made = func(*given, **named)
    assert all(v.shape == v.held.shape for v in mine), f"{func} gives what it writes into another size"
    if to_host:
        return made.clone() if made is given[0] else made
    known = {id(v.held): v for v in mine}

    def wrapped(v: Any) -> Any:
        if not isinstance(v, Tensor):
            return v
        return known[id(v)] if id(v) in known else Pretended(v)

    return tree_map(wrapped, made)


def _require_index(func: Any, args: Any, hosts: list[Tensor]) -> None:
    """Refuse the host's tensors but as an index, which torch copies to the device."""
    indices = args[1] if func in INDEXED else []
    if not all(any(host is index for index in indices) for host in hosts if host.dim() > 0):
        raise MixedDevicesError(f"{func} at {_line()}: tensors of the device and of the host")


class _Backend(_DummyBackendModule):
    def synchronize(self, *_: object) -> None:
        """Nothing is under way."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_library: list[Any] = []
"""Keeps the registrations."""


def install() -> torch.device:
    """Make the device known to torch, for the rest of this process, and give it."""
    _setup_privateuseone_for_python_backend("pretend", backend_module=_Backend())
    library = torch.library.Library("aten", "IMPL")

    def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Tensor:
        return Pretended(torch.empty_strided(size, stride, dtype=dtype))

    def empty(size: Any, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
        return Pretended(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))

    def copy_from(given: Tensor, into: Pretended, non_blocking: bool = False) -> Tensor:  # torch.tensor(…, device=…)
        _note("copies")
        into.held.copy_(given)
        return into

    def arange(start: Any, end: Any, step: Any = 1, dtype: Any = None, **_: Any) -> Tensor:
        return Pretended(torch.arange(start, end, step, dtype=dtype))

    library.impl("arange", lambda end, **others: arange(0, end, **others), "PrivateUse1")
    library.impl("arange.start", arange, "PrivateUse1")
    library.impl("arange.start_step", arange, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    _library.append(library)
    return torch.device("pretend:0")
