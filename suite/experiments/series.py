"""Memories learned one after the other and figures measured one after the other, with checkpoints in between."""

import time
from collections.abc import Callable

from suite.core.outer_loop import LOGGED_POINTS, OuterState, from_tensors, to_tensors
from suite.types import Params, Session

Measured = dict[str, float]
"""Accuracies in percent, by the name of what was measured."""


class Series:
    """Where an experiment of several memories is. A run that goes on learns and measures only what is missing."""

    def __init__(self, session: Session, outer_steps: int) -> None:
        self.memories: dict[str, Params] = {}
        self.seconds = 0.0
        """Of outer steps, earlier sittings included."""
        self._session, self._outer_steps = session, outer_steps
        self._done = 0
        self._every = max(1, outer_steps // LOGGED_POINTS)
        self._measured: dict[str, list[Measured]] = {}
        self._under_way: OuterState | None = None
        restored = session.restore()
        if restored is None:
            return
        _, tensors, state = restored
        parts: dict[str, Params] = {name: {} for name in [*state["memories"], "under way"]}
        for name, value in tensors.items():
            part, rest = name.split(": ", 1)
            parts[part][rest] = value
        under_way = parts.pop("under way")
        self.memories = {name: {k: v.to(session.device) for k, v in own.items()} for name, own in parts.items()}
        self.seconds, self._done = state["seconds"], state["done"]
        self._measured = {name: [dict(one) for one in found] for name, found in state["measured"].items()}
        if state["iteration"] is not None:
            self._under_way = from_tensors(state["iteration"], under_way, session.device)

    def learn(self, name: str, start: OuterState, step: Callable[[OuterState], OuterState], iterations: int) -> Params:
        """The memory of this name: learned from `start` by so many outer steps, unless it is there already."""
        if name in self.memories:
            return self.memories[name]
        session, at = self._session, self._under_way or start
        done = self._done
        while at.iteration < iterations:
            began = time.monotonic()
            at = step(at)
            self.seconds += time.monotonic() - began
            if (done + at.iteration) % self._every == 0:
                session.log(done + at.iteration, {metric: value.item() for metric, value in at.metrics.items()})
            session.progress(done + at.iteration, self._outer_steps, name)
            if session.checkpoint_due() and at.iteration < iterations:
                self._under_way = at
                self._save(done + at.iteration)
        self.memories[name], self._under_way = at.memory, None
        self._done = done + iterations
        self._save(self._done)
        return at.memory

    def once(self, name: str, make: Callable[[], Params]) -> Params:
        """Other tensors that an experiment needs and makes once, such as a trained network's weights."""
        if name not in self.memories:
            self._session.say(name)
            self.memories[name] = make()
            self._save(self._done)
        return self.memories[name]

    def measure(self, name: str, count: int, one: Callable[[int], Measured]) -> dict[str, tuple[float, ...]]:
        """For everything that `one` measures, a value for each number below `count` that has it."""
        found = self._measured.setdefault(name, [])
        while len(found) < count:
            self._session.pause()
            found.append(one(len(found)))
            self._session.progress(len(found), count, f"episodes of {name}")
            if self._session.checkpoint_due():
                self._save(self._outer_steps + sum(map(len, self._measured.values())))
        kinds = dict.fromkeys(kind for measured in found for kind in measured)
        return {kind: tuple(measured[kind] for measured in found if kind in measured) for kind in kinds}

    def _save(self, iteration: int) -> None:
        tensors = {f"{name}: {k}": v for name, own in self.memories.items() for k, v in own.items()}
        if self._under_way is not None:
            tensors |= {f"under way: {k}": v for k, v in to_tensors(self._under_way).items()}
        state = {
            "memories": list(self.memories),
            "seconds": self.seconds,
            "done": self._done,
            # As pairs: JSON is written with its names in alphabetical order.
            "measured": {name: [list(one.items()) for one in found] for name, found in self._measured.items()},
            "iteration": self._under_way.iteration if self._under_way is not None else None,
        }
        self._session.checkpoint(iteration, tensors, state)
