"""One run at work: its directory, lock, checkpoints, metrics and progress, and what signals ask of it."""

import csv
import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from suite.errors import Interrupted, RunError
from suite.keys import Key
from suite.storage import checkpoint
from suite.storage.files import write_atomic
from suite.storage.journal import Journal, Point, now
from suite.types import Params

LINE_SECONDS = 10.0

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop:
    """Whether a signal asked the process to stop. The first is noted; a second ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        os.write(2, b"stopping at the next checkpoint; a second signal ends at once\n")  # print() may be at work


def _draws_bars(stream: Any) -> bool:
    """Whether a line can be drawn over: on a terminal, and in a notebook, whose kernel has a stream of its own."""
    return bool(stream.isatty()) or type(stream).__module__.startswith("ipykernel")


class RunSession:
    """The session of one run. Metrics are in a checkpoint first, and in the journal after it is durable."""

    def __init__(
        self, *, seed: int, device: torch.device, directory: Path, data_dir: Path, cache_dir: Path,
        journal: Journal, tell: Callable[[], None], stop: Stop, label: str, checkpoint_seconds: float,
    ) -> None:  # fmt: skip
        self.key = Key(seed)
        self.device = device
        self.directory = directory
        self.data_dir = data_dir
        self.cache_dir = cache_dir
        self._journal, self._tell, self._stop, self._label = journal, tell, stop, label
        self._checkpoint_seconds = checkpoint_seconds
        self._points: list[Point] = []
        self._progress: tuple[int, int] | None = None
        self.upkeep_seconds = 0.0
        """Spent on checkpoints and the journal in this sitting."""
        self._saved_at = time.monotonic()
        self._said_at = 0.0
        self._bar: tqdm[Any] | None = None

    # ------------------------------------------------------------ going on

    def restore(self) -> tuple[int, Params, dict[str, Any]] | None:
        found, complaints = checkpoint.read_newest(self.directory / "checkpoints")
        for complaint in complaints:
            self.say(complaint)
        if found is None:
            return None
        self._points = [Point(*row) for row in found.state["metrics"]]
        self.say(f"going on from the checkpoint of step {found.iteration}")
        self.publish()
        return found.iteration, found.tensors, found.state["experiment"]

    def checkpoint(self, iteration: int, tensors: Params, state: dict[str, Any], score: float | None = None) -> None:
        began = time.monotonic()
        kept = {"experiment": state, "metrics": [list(point) for point in self._points]}
        checkpoint.write(self.directory / "checkpoints", checkpoint.Checkpoint(iteration, tensors, kept, score))
        self._saved_at = time.monotonic()
        self.upkeep_seconds += self._saved_at - began
        self.publish()
        self.pause()

    def checkpoint_due(self) -> bool:
        return self._stop.signal is not None or time.monotonic() - self._saved_at > self._checkpoint_seconds

    def pause(self) -> None:
        if self._stop.signal is not None:
            name = self._stop.signal.name
            raise Interrupted(f"stopped by {name} at a checkpoint; the same command, without --fresh, goes on there")

    # ------------------------------------------------------------ metrics

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunError(f"step {iteration}: {name} is {value}; look for its cause before you go on")
        self._points += [Point(name, float(value), now(), iteration) for name, value in metrics.items()]

    def history(self, metric: str) -> list[tuple[int, float]]:
        return [(point.iteration, point.value) for point in self._points if point.name == metric]

    def publish(self) -> None:
        """Put into the journal what is not there yet. Called when no crash can take it back."""
        began = time.monotonic()
        self._journal.points(self._points, self._progress)
        self._tell()
        self.upkeep_seconds += time.monotonic() - began

    def write_metrics(self) -> None:
        """Every metric as `metrics.csv`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["iteration", "metric", "value"])
        writer.writerows([point.iteration, point.name, repr(point.value)] for point in self._points)
        write_atomic(self.directory / "metrics.csv", text.getvalue().encode())

    # ------------------------------------------------------------ telling

    def progress(self, iteration: int, total: int, words: str) -> None:
        """A bar on a terminal, else a line now and then. A total of its own, or a step back, begins a new count."""
        before, self._progress = self._progress, (iteration, total)
        anew = before is None or before[1] != total or iteration < before[0]
        if anew:
            self._close_bar()
        if _draws_bars(sys.stderr):
            if self._bar is None:
                self._bar = tqdm(total=total, initial=iteration, desc=self._label, unit="it", file=sys.stderr)
            self._bar.set_postfix_str(words, refresh=False)
            self._bar.update(iteration - self._bar.n)
            if iteration == total:
                self._close_bar()
            return
        now = time.monotonic()
        if anew:
            self._first = (now, iteration)
        if now - self._said_at >= LINE_SECONDS or iteration == total:
            self._said_at = now
            seconds, done = now - self._first[0], iteration - self._first[1]
            rate = f", {done / seconds:.2f} it/s, {(total - iteration) * seconds / done:.0f} s left" if done else ""
            self.say(f"{iteration}/{total}{rate}, {words}")

    def say(self, sentence: str) -> None:
        text = f"[{self._label}] {sentence}"
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Leave the terminal tidy, however the run ends."""
        try:
            yield
        finally:
            self._close_bar()
