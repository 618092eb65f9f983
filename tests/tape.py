"""A CUDA graph's semantics on a CPU: what a step dispatches is recorded once, and replayed on the same storages.

As with a graph, Python is not run again: what changes between replays must lie in tensors that never move. `capture`
has the form of `suite.core.captured`'s own, so a test can put it in its place.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten: Any = torch.ops.aten

Result = TypeVar("Result")

_WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""What torch says of operations that make a host wait for a number or a shape: item, equal, nonzero, …"""

INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
"""These wait where a mask says which numbers, not where rows do."""


def waits(func: Any, args: Any) -> bool:
    """Whether an operation as it is dispatched makes the host wait for the device."""
    if func in INDEXED:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return bool(_WAITING & set(func.tags))


class RefusedInCaptureError(RuntimeError):
    """An operation that no CUDA graph can hold."""


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, list[Any]]] = []
        self._made: dict[int, Tensor] = {}
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _require_capturable(func, args)
        for given in _tensors((args, kwargs)):
            storage = given.untyped_storage()
            if storage.data_ptr() not in self._made:
                self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        made = func(*args, **kwargs)
        for result in _tensors(made):
            if result.untyped_storage().data_ptr() not in self._before:
                self._made.setdefault(result.untyped_storage().data_ptr(), result)
        self._calls.append((func, args, kwargs, tree_leaves(made)))
        return made

    def forget(self) -> None:
        """A capture computes nothing: put back what was overwritten, and make what was made unusable."""
        for storage, before in self._before.values():
            storage.copy_(before)
        for made in self._made.values():
            if made.is_floating_point():
                torch.as_strided(made.detach(), (made.untyped_storage().nbytes() // made.itemsize,), (1,), 0).fill_(
                    torch.nan
                )

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, made in self._calls:
            for old, new in zip(made, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and not _same_storage(old, new):
                    old.copy_(new)


def capture(device: torch.device, work: Callable[[], Result], warm_up: Callable[[], object]) -> Callable[[], Result]:
    """A function that replays the work, which is recorded once after a warm-up, into the tensors that it gave then.

    Raises RefusedInCaptureError for work that waits for a number of the device, draws at random, or takes a number of
    the host's.
    """
    warm_up()
    tape = _Tape()
    with tape:
        result = work()
    tape.forget()

    def replay() -> Result:
        tape.replay()
        return result

    return replay


def _require_capturable(func: Any, args: Any) -> None:
    if torch.Tag.nondeterministic_seeded in func.tags:
        raise RefusedInCaptureError(f"{func} draws at random, and a replay draws the same again")
    if func is aten.lift_fresh.default:
        raise RefusedInCaptureError("a tensor is made of numbers of the host's, which a replay does not copy again")
    if waits(func, args):
        raise RefusedInCaptureError(f"{func} waits for the device")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _same_storage(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
