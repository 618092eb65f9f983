"""Several processes, called ranks, that share the rollouts of an outer step: what crosses between them, and when.

All ranks do the same outer steps on the same memory. Rank r of W computes rollouts r, r + W, r + 2 W, … of each. What
its rollouts give is gathered as one row of bytes, so that every rank has all of it and takes the mean in the order of
the rollouts: the same bits for every W. Beside that, small numbers and a checkpoint cross, over gloo: before a rank
takes part in anything, it says what (`_meet`). So a rank that ends says so instead, the others wait for a rank that
evaluates without a deadline, and a signal that one has heard stops all after the same outer step. When a process
dies, its connections close, and those of the others that wait end at once. Only the row crosses by NCCL on GPUs: there
a death is not seen, but all ranks have just met, so a short deadline serves.
"""

import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from suite.core.launched import Place
from suite.errors import Interrupted, Left, RunError, SuiteError, first_line
from suite.types import Params

START_SECONDS = 300.0
"""How long ranks wait for each other at the start."""

GATHER_SECONDS = 120.0
"""Deadline of NCCL for one row, all ranks having met before: the first call also connects the GPUs."""

NO_DEADLINE = timedelta(days=365)
"""Of gloo, which sees at once when a process has died."""

STEP, SHARED, LEAVING = range(3)
"""What a rank says that it takes part in."""

HEARD = "heard"
"""Where a rank that waits for an evaluation leaves its signal."""


class LostRank(RunError):
    """The process of another rank is gone, or does not answer."""


@runtime_checkable
class Heard(Protocol):
    """Says which signal asked this process to stop."""

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that came; None: none."""
        ...


class Ranks:
    """The ranks of a command, as one of them sees them."""

    def __init__(self, place: Place, device: torch.device, heard: Heard, store: Any) -> None:
        """Meets the others; raises LostRank if some are not there in time, Interrupted after a signal."""
        self.rank, self.count = place.rank, place.count
        self.learning = False
        """Whether ranks do outer steps together, which all of them stop after the same one."""
        self.device = device
        """Where this rank computes."""
        self._heard, self._agreed = heard, 0
        self._passed_on = False
        with _losses():
            self._store = store = _own_part(store, place, heard)
            dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.count, timeout=NO_DEADLINE)
            self._data: Any = None
            if device.type == "cuda":
                deadline = timedelta(seconds=GATHER_SECONDS)
                self._data = dist.new_group(backend="nccl", timeout=deadline)

    # ------------------------------------------------------------ an outer step

    def own(self, rollouts: int) -> range:
        """The rollouts of this rank, in order."""
        return range(self.rank, rollouts, self.count)

    def gathered(self, own: Sequence[Params], step: int) -> list[Params]:
        """What all rollouts gave, in their order, of what this rank's own gave: equal names, types and shapes.

        Every rank calls it once in each outer step, with the step's number, and knows afterwards of the same signal.
        """
        row = torch.cat([_as_bytes(value).to(self.device) for tensors in own for value in tensors.values()])
        said = self._meet(STEP, step, len(row))
        self._agreed = max(heard for *_, heard in said)
        rows = [torch.empty_like(row) for _ in said]
        with _losses():
            dist.all_gather(rows, row, group=self._data)
        of_each = [_as_tensors(row, own) for row in rows]
        return [tensors for in_turn in zip(*of_each, strict=True) for tensors in in_turn]

    # ------------------------------------------------------------ beside it

    def shared(self, data: bytes | None) -> bytes:
        """What rank 0 gives, for all; the others give None."""
        size = max(size for *_, size, _ in self._meet(SHARED, 0, len(data or b""), alike=False))
        numbers = torch.zeros(size, dtype=torch.uint8)
        if data:
            numbers = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        with _losses():
            dist.broadcast(numbers, 0)
        return numbers.numpy().tobytes()

    def leave(self, status: int) -> None:
        """End together, with this exit status; raises Left where it is 0 and another rank's is not."""
        self.learning = False
        said = self._meet(LEAVING, status, 0)
        others = [(rank, other) for rank, (what, other, *_) in enumerate(said) if what == LEAVING and other]
        if status == 0 and others:
            raise Left(*others[0])

    @property
    def signal(self) -> signal.Signals | None:
        """What asks all to stop: during outer steps a signal that all know of, else one that any rank has heard."""
        number = self._agreed if self.learning else self._own_signal() or self._passed()
        return signal.Signals(number) if number else None

    def _own_signal(self) -> int:
        heard = self._heard.signal
        return 0 if heard is None else int(heard)

    def _passed(self) -> int:
        """The signal that another rank left, while it waits; 0: none."""
        with _losses():
            return int(self._store.get(HEARD)) if self._store.check([HEARD]) else 0

    def _meet(self, what: int, number: int, size: int, alike: bool = True) -> list[list[int]]:
        """What every rank takes part in, its number, a size, and the signal that it has heard; waits for all.

        Raises Left where another has ended, RunError where two do different things.
        """
        mine = torch.tensor([what, number, size, self._own_signal()])
        rows = [torch.empty_like(mine) for _ in range(self.count)]
        with _losses():
            self._wait(dist.all_gather(rows, mine, async_op=True))
        said: list[list[int]] = [row.tolist() for row in rows]
        for rank, (other, status, *_) in enumerate(said):
            if other == LEAVING != what:
                raise Left(rank, status)
        if what != LEAVING and len({tuple(row[: 3 if alike else 2]) for row in said}) > 1:
            raise RunError(
                f"the ranks are not at the same outer step ({said}); start them with the same command and files"
            )
        return said

    def _wait(self, work: Any) -> None:
        """Until it is done, however long; a signal that comes meanwhile is passed on."""
        pause = 1e-5
        while not work.is_completed():
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
            if not self.learning and not self._passed_on and (number := self._own_signal()):
                self._store.set(HEARD, str(number))
                self._passed_on = True
        work.wait()


def _own_part(store: Any, place: Place, heard: Heard) -> Any:
    """The part of a store that these processes alone use, all of which are there when it returns.

    A launcher that starts processes again gives them the store of those that died, with their addresses in it. So each
    says hello by a name of its own, which the first, who sees the newest, answers with the part's name.
    """
    name, until = uuid.uuid4().hex, time.monotonic() + START_SECONDS
    others = range(1, place.count)
    if place.rank > 0:
        store.set(f"hello/{place.rank}", name)
        _until(lambda: store.check([f"part of {name}"]), until, heard)
        name = store.get(f"part of {name}").decode()
        store.set(f"{name} has {place.rank}", "1")
        return dist.PrefixStore(name, store)

    def all_are_there() -> bool:
        for rank in others:
            if store.check([f"hello/{rank}"]):
                store.set(f"part of {store.get(f'hello/{rank}').decode()}", name)
        return bool(store.check([f"{name} has {rank}" for rank in others]))

    _until(all_are_there, until, heard)
    return dist.PrefixStore(name, store)


def _until(ready: Callable[[], bool], deadline: float, heard: Heard) -> None:
    """Wait until it is ready. Raises LostRank after the deadline, a time of `time.monotonic`."""
    while not ready():
        number = heard.signal
        if number is not None:
            raise Interrupted(f"stopped by {number.name} before all ranks were there; the same command goes on")
        if time.monotonic() > deadline:
            raise LostRank(f"not all ranks were there within {START_SECONDS:.0f} seconds; start all of them again")
        time.sleep(0.02)


_ranks: Ranks | None = None


def here() -> Ranks | None:
    """The ranks that this process is one of; None for a process alone."""
    return _ranks


@contextmanager
def joined(place: Place | None, device: torch.device, heard: Heard) -> Iterator[Ranks | None]:
    """Within the block, the process is one of several (`here`); None: it is alone.

    A block that ends, also by an exception, says so to the others and waits for them to end theirs. If another ended
    otherwise, `Left` is raised.
    """
    global _ranks
    if place is None:
        yield None
        return
    with _losses():
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=START_SECONDS)))
    _ranks = Ranks(place, device, heard, store)
    try:
        yield _ranks
    except (LostRank, Left):  # nobody is there to wait for
        raise
    except BaseException as error:
        with suppress(LostRank):  # what went wrong here is what is told
            _ranks.leave(error.status if isinstance(error, SuiteError) else RunError.status)
        raise
    else:
        _ranks.leave(0)
        dist.destroy_process_group()
    finally:
        _ranks = None


@contextmanager
def _losses() -> Iterator[None]:
    """What torch raises where a process has died or does not answer, as LostRank."""
    try:
        yield
    except RuntimeError as error:  # of which torch.distributed's errors are kinds
        raise LostRank(
            f"another rank is gone, or did not come ({first_line(error)}); the run goes on from its last checkpoint "
            "when all are started again, as torchrun does with --max-restarts"
        ) from error


def _as_bytes(value: Tensor) -> Tensor:
    """The bytes of a tensor's numbers, in a row."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def _as_tensors(row: Tensor, like: Sequence[Params]) -> list[Params]:
    """The inverse: tensors of the names, types and shapes of `like`."""
    made: list[Params] = []
    first = 0
    for tensors in like:
        made.append({})
        for name, value in tensors.items():
            last = first + value.numel() * value.element_size()
            made[-1][name] = (
                row[first:last].clone().view(value.dtype).view(value.shape).to(value.device)
            )  # a copy is aligned
            first = last
    return made
