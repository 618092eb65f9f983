"""A session without a run: it keeps its last checkpoint in memory, and may stop at one."""

import json
from pathlib import Path
from typing import Any

import torch

from suite.keys import Key


class FakeSession:
    """What an experiment is given, with a checkpoint due after every step unless `due` is False."""

    def __init__(
        self,
        data_dir: Path,
        directory: Path,
        seed: int = 0,
        *,
        stop_at: int | None = None,
        before: "FakeSession | None" = None,
        due: bool = True,
    ) -> None:
        """`stop_at`: the iteration whose checkpoint raises KeyboardInterrupt; `before`: a session to resume."""
        self.key, self.device = Key(seed), torch.device("cpu")
        self.data_dir, self.directory, self.cache_dir = data_dir, directory, directory
        self.leads = True
        self.saved = before.saved if before else None
        self.logged: list[int] = []
        self.lines: list[str] = []
        self._stop_at, self._due = stop_at, due

    def restore(self) -> Any:
        return self.saved

    def checkpoint(self, iteration: int, tensors: Any, state: Any, score: float | None = None) -> None:
        self.saved = (iteration, {k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(state)))
        if self._stop_at is not None and iteration >= self._stop_at:
            raise KeyboardInterrupt

    def still_held(self) -> None: ...

    def checkpoint_due(self) -> bool:
        return self._due

    def log(self, iteration: int, metrics: Any) -> None:
        self.logged.append(iteration)

    def history(self, metric: str) -> list[tuple[int, float]]:
        return []

    def pause(self) -> None: ...

    def learned(self) -> None: ...

    def progress(self, iteration: int, total: int, words: str) -> None: ...

    def report(self, sentence: str) -> None:
        self.lines.append(sentence)
