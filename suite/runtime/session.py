"""The services of one run: checkpoints, metrics, progress, and the end that a signal asks for."""

import csv
import io
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from tqdm import tqdm
from typing_extensions import TypedDict

from suite.core.ranks import Heard, here
from suite.errors import Interrupted, RunError, report
from suite.keys import Key
from suite.storage import checkpoint
from suite.storage.files import canonical_json, write_atomic
from suite.storage.journal import Journal, Point, PointRow, now
from suite.storage.plain_files import parse_json
from suite.types import Params

LINE_SECONDS = 10.0
"""Least time between two lines of progress, where stderr is no terminal."""


class _State(TypedDict):
    """What a run's checkpoint holds beside tensors."""

    experiment: dict[str, Any]
    metrics: list[PointRow]


def _draws_bars(stream: Any) -> bool:
    """Whether a line can be drawn over: on a terminal, and in a notebook, whose kernel has a stream of its own."""
    return bool(stream.isatty()) or type(stream).__module__.startswith("ipykernel")


def _size_told(stream: Any) -> dict[str, int]:
    """Columns and rows for a bar where a terminal says that it has none, as one of a container does."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return {}
    return ({} if size.columns else {"ncols": 80}) | ({} if size.lines else {"nrows": 24})


def interrupted(number: Signals) -> Interrupted:
    """What ends a run that a signal stopped at a checkpoint."""
    return Interrupted(f"stopped by {number.name} at a checkpoint; the same command, without --fresh, resumes there")


class RunSession:
    """The session of one run. A metric is in a checkpoint first, and in the journal once the checkpoint is durable."""

    def __init__(
        self, *, seed: int, device: torch.device, directory: Path, data_dir: Path, cache_dir: Path,
        journal: Journal, notify: Callable[[], None], stop: Heard, still_held: Callable[[], None], label: str,
        checkpoint_seconds: float, bars: bool = True,
    ) -> None:  # fmt: skip
        """`notify` is called when the journal has new entries; `label` stands before every line on the terminal.

        `bars`: whether progress may be a bar, of which a terminal has room for one. `still_held` raises where the
        directory is another process's by now.
        """
        self.key = Key(seed)
        self.device = device
        self.directory = directory
        self.data_dir = data_dir
        self.cache_dir = cache_dir
        self.leads = True
        self._journal, self._notify, self._stop, self._label = journal, notify, stop, label
        self._still_held, self._checkpoint_seconds = still_held, checkpoint_seconds
        self._points: list[Point] = []
        self._progress: tuple[int, int] | None = None
        self.upkeep_seconds = 0.0
        """Spent on checkpoints and the journal by this process."""
        self._saved_at = time.monotonic()
        self._reported_at = 0.0
        self._bar: tqdm[Any] | None = None
        self._bars = bars

    # ------------------------------------------------------------ checkpoints

    def restore(self) -> tuple[int, Params, dict[str, Any]] | None:
        """See `Session`. The metrics of the checkpoint come back too."""
        newest, complaints = checkpoint.read_newest(self.directory / "checkpoints")
        for complaint in complaints:
            self.report(complaint)
        team = here()
        if team is not None:
            for part in checkpoint.packed(newest):
                team.shared(part)
        if newest is None:
            return None
        place = f"{self.directory / 'checkpoints'}: the state of step {newest.iteration}"
        state = parse_json(canonical_json(newest.state), _State, place)
        self._points = [Point(*row) for row in state["metrics"]]
        self.report(f"resuming from the checkpoint of step {newest.iteration}")
        self.publish()
        return newest.iteration, newest.tensors, state["experiment"]

    def checkpoint(self, iteration: int, tensors: Params, state: dict[str, Any], score: float | None = None) -> None:
        """See `Session`. Raises `Lost`."""
        self._still_held()
        began = time.monotonic()
        whole = {"experiment": state, "metrics": [list(point) for point in self._points]}
        checkpoint.write(self.directory / "checkpoints", checkpoint.Checkpoint(iteration, tensors, whole, score))
        self._saved_at = time.monotonic()
        self.upkeep_seconds += self._saved_at - began
        self.publish()
        self.pause()

    def still_held(self) -> None:
        """See `Session`. Raises `Lost`."""
        self._still_held()

    def checkpoint_due(self) -> bool:
        """See `Session`."""
        return self._stop.signal is not None or time.monotonic() - self._saved_at > self._checkpoint_seconds

    def pause(self) -> None:
        """See `Session`."""
        number = self._stop.signal
        if number is not None:
            raise interrupted(number)

    def learned(self) -> None:
        """See `Session`. Of several ranks the first goes on alone, and stops when it hears a signal itself."""
        team = here()
        if team is not None:
            team.learning = False

    # ------------------------------------------------------------ metrics

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """See `Session`. Raises RunError for NaN and infinity."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunError(f"step {iteration}: {name} is {value}; find the cause before you resume the run")
        self._points += [Point(name, float(value), now(), iteration) for name, value in metrics.items()]

    def history(self, metric: str) -> list[tuple[int, float]]:
        """See `Session`."""
        return [(point.iteration, point.value) for point in self._points if point.name == metric]

    def publish(self) -> None:
        """Write metrics and progress that are not in the journal yet. Call it when no crash can undo them."""
        began = time.monotonic()
        self._journal.points(self._points, self._progress)
        self._notify()
        self.upkeep_seconds += time.monotonic() - began

    def write_metrics(self) -> None:
        """Write every metric to `metrics.csv`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["iteration", "metric", "value"])
        writer.writerows([point.iteration, point.name, repr(point.value)] for point in self._points)
        write_atomic(self.directory / "metrics.csv", text.getvalue().encode())

    # ------------------------------------------------------------ terminal

    def progress(self, iteration: int, total: int, words: str) -> None:
        """A bar on a terminal, elsewhere a line now and then. Another total, or a step back, begins a new count."""
        before, self._progress = self._progress, (iteration, total)
        anew = before is None or before[1] != total or iteration < before[0]
        now = time.monotonic()
        if anew:
            self._close_bar()
            self._first = (now, iteration)
        if self._bars and _draws_bars(sys.stderr):
            self._draw_bar(iteration, total, words)
            return
        self._close_bar()  # a terminal that was there, and hung up
        if now - self._reported_at >= LINE_SECONDS or iteration == total:
            self._reported_at = now
            seconds, done = now - self._first[0], iteration - self._first[1]
            rate = f", {done / seconds:.2f} it/s, {(total - iteration) * seconds / done:.0f} s left" if done else ""
            self.report(f"{iteration}/{total}{rate}, {words}")

    def report(self, sentence: str) -> None:
        """See `Session`."""
        line = f"[{self._label}] {sentence}"
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            report(line)

    @contextmanager
    def closing_bar(self) -> Iterator[None]:
        """Close the bar at the end of the block, so that the next line begins on a line of its own."""
        try:
            yield
        finally:
            self._close_bar()

    def _draw_bar(self, iteration: int, total: int, words: str) -> None:
        if self._bar is None:
            how = {"desc": self._label, "unit": "it", "file": sys.stderr}
            self._bar = tqdm(total=total, initial=iteration, **how, **_size_told(sys.stderr))
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(iteration - self._bar.n)
        if iteration == total:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
