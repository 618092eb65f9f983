"""The learning loop of every experiment: outer steps, logged, shown, checkpointed, and resumed to the same bits.

learn    one memory, from a state of the outer loop to its last outer step
Series   several memories one after the other, and then measurements one after the other
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suite.core.outer_loop import LOGGED_POINTS, NotFinite, OuterState, from_tensors, judged, to_tensors
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.types import Optimizer, Params, Session, Setting, Split

Measured = dict[str, float]
"""What was measured, by name; accuracies in percent."""


@dataclass
class Stopwatch:
    """Seconds that starts and outer steps took, those of earlier attempts included."""

    seconds: float = 0.0
    """Of all that was timed so far."""

    def timed(self, make: Callable[..., OuterState], *given: Any) -> OuterState:
        """`make(*given)`, a start or a step, with its duration added."""
        started = time.monotonic()
        after = make(*given)
        self.seconds += time.monotonic() - started
        return after


Save = Callable[[OuterState, float | None], None]
"""Writes a checkpoint of a run whose memory is in this state; with its validation accuracy, if that was measured."""


@dataclass(frozen=True)
class Place:
    """Where the outer steps of one memory are among those of its run."""

    steps_before: int
    """Outer steps of the memories before it."""
    total: int
    """Outer steps of all memories."""
    caption: str = ""
    """Name of the memory, for the progress line."""


def _no_validation(state: OuterState) -> float | None:
    return None


def learn(
    session: Session,
    state: OuterState,
    step: Callable[[OuterState], OuterState],
    iterations: int,
    save: Save,
    stopwatch: Stopwatch,
    place: Place,
    validate: Callable[[OuterState], float | None] = _no_validation,
) -> OuterState:
    """Improve a memory until its state has made `iterations` outer steps; `step` makes one or several of them.

    About LOGGED_POINTS times a run the metrics are logged. A checkpoint is saved where `validate` gives a score, and
    where the session asks for one; that of the last step is the caller's, who knows what comes next. Where a step
    raises NotFinite, the state before it is saved first.
    """
    log_every = max(1, place.total // LOGGED_POINTS)
    shown = {name: points[-1][1] for name in ("loss", "validation_accuracy") if (points := session.history(name))}
    while state.iteration < iterations:
        before = place.steps_before + state.iteration
        try:
            state = stopwatch.timed(step, state)
        except NotFinite:
            save(state, None)
            raise
        position = place.steps_before + state.iteration
        if position // log_every > before // log_every or position == place.total:
            metrics = {name: value.item() for name, value in state.metrics.items()}
            session.log(position, metrics)
            shown |= metrics
        session.progress(position, place.total, _words(place.caption, shown))
        score = validate(state)
        if score is not None:
            shown["validation_accuracy"] = score
            save(state, score)
        elif state.iteration < iterations and session.checkpoint_due():
            save(state, None)
    if place.steps_before + iterations >= place.total:
        session.learned()
    return state


def validated(
    session: Session, setting: Setting, memory: Params, validation: Split, protocol: Protocol, iteration: int
) -> float | None:
    """The mean accuracy in percent on validation images of networks trained on what a memory recalls; it is logged.

    None in a process that does not measure.
    """
    if not session.leads:
        return None
    images, splits = recalled(setting, memory), {"validation": validation}
    accuracies = evaluate(setting, lambda network: images, protocol, session.key("validation"), splits)
    mean = sum(accuracies["validation"]) / protocol.networks
    session.log(iteration, {"validation_accuracy": mean})
    return mean


def evenly_spaced(iteration: int, iterations: int, points: int) -> bool:
    """Whether a step is the start, or one of `points` at even distances up to and with the last; never for 0 points.

    >>> [i for i in range(11) if evenly_spaced(i, 10, 3)]
    [0, 4, 7, 10]
    """
    return iteration * points // iterations > (iteration - 1) * points // iterations


def _words(caption: str, shown: dict[str, float]) -> str:
    parts = [caption] if caption else []
    if "loss" in shown:
        parts.append(f"loss {shown['loss']:.3f}")
    if "validation_accuracy" in shown:
        parts.append(f"validation so far {shown['validation_accuracy']:.1f}%")
    return ", ".join(parts)


class Series:
    """Several memories learned one after the other, then measurements; a run that goes on makes what is missing."""

    def __init__(self, session: Session, outer_steps: int) -> None:
        """Reads the newest checkpoint; `outer_steps` are those of all memories together."""
        self.tensors: dict[str, Params] = {}
        """Finished memories, and other tensors that were made once, by name."""
        self.stopwatch = Stopwatch()
        self._session, self._outer_steps = session, outer_steps
        self._steps_done = 0
        self._measured: dict[str, list[Measured]] = {}
        self._state: OuterState | None = None
        """Of the memory that is being learned."""
        restored = session.restore()
        if restored is not None:
            self._restore(*restored[1:])

    def learn(
        self,
        name: str,
        optimizer: Optimizer,
        start: Callable[[], OuterState],
        step: Callable[[OuterState], OuterState],
        iterations: int,
    ) -> Params:
        """The memory of this name: learned from `start()` by so many outer steps, unless it is there already."""
        if self._steps_done == self._outer_steps:
            self._session.learned()
        if name not in self.tensors:
            state = learn(
                self._session,
                self._state or self.stopwatch.timed(start),
                step,
                iterations,
                self._save_state,
                self.stopwatch,
                Place(self._steps_done, self._outer_steps, name),
            )
            self.tensors[name], self._state = judged(optimizer, state), None
            self._steps_done += iterations
            self._save(self._steps_done)
        return self.tensors[name]

    def once(self, name: str, make: Callable[[], Params]) -> Params:
        """Other tensors that an experiment needs and makes once, such as a trained network's weights."""
        if name not in self.tensors:
            self._session.report(name)
            self.tensors[name] = make()
            self._save(self._steps_done)
        return self.tensors[name]

    def measure(self, name: str, count: int, measure_one: Callable[[int], Measured]) -> dict[str, tuple[float, ...]]:
        """By name, a value for each number below `count` for which `measure_one` returned that name."""
        measured = self._measured.setdefault(name, [])
        while len(measured) < count:
            self._session.pause()
            measured.append(measure_one(len(measured)))
            self._session.progress(len(measured), count, f"episodes of {name}")
            if self._session.checkpoint_due():
                self._save(self._outer_steps + sum(map(len, self._measured.values())))
        names = dict.fromkeys(key for accuracies in measured for key in accuracies)
        return {key: tuple(accuracies[key] for accuracies in measured if key in accuracies) for key in names}

    def _save_state(self, state: OuterState, score: float | None) -> None:
        self._state = state
        self._save(self._steps_done + state.iteration)

    def _save(self, iteration: int) -> None:
        tensors = {f"{name}: {k}": v for name, parts in self.tensors.items() for k, v in parts.items()}
        if self._state is not None:
            tensors |= {f"under way: {k}": v for k, v in to_tensors(self._state).items()}
        state = {
            "memories": list(self.tensors),
            "seconds": self.stopwatch.seconds,
            "done": self._steps_done,
            # As pairs: JSON is written with its names in alphabetical order.
            "measured": {name: [list(one.items()) for one in rows] for name, rows in self._measured.items()},
            "iteration": self._state.iteration if self._state is not None else None,
        }
        self._session.checkpoint(iteration, tensors, state)

    def _restore(self, tensors: Params, state: dict[str, Any]) -> None:
        device = self._session.device
        parts: dict[str, Params] = {name: {} for name in [*state["memories"], "under way"]}
        for name, value in tensors.items():
            part, rest = name.rsplit(": ", 1)
            parts[part][rest] = value
        under_way = parts.pop("under way")
        self.tensors = {name: {k: v.to(device) for k, v in part.items()} for name, part in parts.items()}
        self.stopwatch, self._steps_done = Stopwatch(state["seconds"]), state["done"]
        self._measured = {name: [dict(pairs) for pairs in rows] for name, rows in state["measured"].items()}
        if state["iteration"] is not None:
            self._state = from_tensors(state["iteration"], under_way, device)
