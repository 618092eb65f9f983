"""Where compress-then-recall is in its stream: everything that a checkpoint holds."""

from dataclasses import dataclass, replace
from typing import Any

from suite.core.outer_loop import OuterState, from_tensors, to_tensors
from suite.experiments.accounting import stored_numbers
from suite.experiments.continual.metrics import Matrix, Row
from suite.experiments.continual.reservoir import Reservoir
from suite.types import Params, Session


@dataclass(frozen=True, eq=False)
class StreamState:
    """Finished memories and measurements, and the memory of the task that is being compressed."""

    memories: tuple[Params, ...] = ()
    """Of the finished tasks, in order."""
    rows: tuple[list[Row], ...] = ()
    """After each finished task a row for each evaluation network."""
    outer: OuterState | None = None
    """State of the outer loop of the task under way."""
    reservoir: Reservoir | None = None
    """Images that are kept of the task under way."""
    seconds: float = 0.0
    """Of absorbing and of outer steps so far."""
    peak_numbers: int = 0
    """Numbers stored at the most so far: finished memories and kept images."""
    kept: tuple[Matrix, ...] = ()
    """Of networks that are kept through the stream, those that are done."""

    def finished(self, memory: Params, seconds: float) -> "StreamState":
        """With the memory of the task under way among the finished ones, and the seconds so far."""
        memories = (*self.memories, memory)
        most = max(self.peak_numbers, sum(map(stored_numbers, memories)))
        return replace(self, memories=memories, outer=None, reservoir=None, seconds=seconds, peak_numbers=most)

    def save(self, session: Session, steps_per_task: int) -> None:
        """Write a checkpoint; the names on disk are those of the first release."""
        tensors = {f"bank/{i}/{k}": v for i, memory in enumerate(self.memories) for k, v in memory.items()}
        state: dict[str, Any] = {
            "task": len(self.memories),
            "matrix": list(self.rows),
            "seconds": self.seconds,
            "most": self.peak_numbers,
            "pool": None,
        }
        if self.kept:
            state["kept"] = list(self.kept)
        iteration = len(self.memories) * (steps_per_task or 1)  # absorbed tasks have no steps, and follow each other
        if self.outer is not None and self.reservoir is not None:
            iteration += self.outer.iteration
            tensors |= to_tensors(self.outer) | {"pool": self.reservoir.kept}
            state["pool"] = [self.reservoir.capacity, self.reservoir.seen, self.outer.iteration]
        session.checkpoint(iteration, tensors, state)

    @staticmethod
    def restored(session: Session) -> "StreamState":
        """From the newest checkpoint; the start of the stream where there is none."""
        checkpoint = session.restore()
        if checkpoint is None:
            return StreamState()
        _, tensors, state = checkpoint
        memories: dict[int, Params] = {}
        under_way: Params = {}
        for name, value in tensors.items():
            kind, *rest = name.split("/")
            if kind == "bank":
                memories.setdefault(int(rest[0]), {})[rest[1]] = value.to(session.device)
            elif kind != "pool":
                under_way[name] = value
        outer, reservoir = None, None
        if state["pool"] is not None:
            capacity, seen, iteration = state["pool"]
            outer = from_tensors(iteration, under_way, session.device)
            reservoir = Reservoir(capacity, seen, tensors["pool"])
        ordered = tuple(memories[i] for i in sorted(memories))
        kept = tuple(state.get("kept", ()))
        return StreamState(ordered, tuple(state["matrix"]), outer, reservoir, state["seconds"], state["most"], kept)
