"""What every rank but the first does of a command's runs: it shares their outer steps, and writes and measures nothing.

The first rank does the runs as a process alone would (`suite.runtime.execute`). It tells the others which run begins,
what its checkpoint holds, and which cells a table chose. They do the same outer steps from the same checkpoint, and
leave the run after the last one, or when all stop.
"""

import json
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.config.resolve import Run
from suite.core.outer_loop import NotFinite
from suite.core.ranks import Ranks, here
from suite.errors import Left, RunError, SuiteError, UsageError, first_line
from suite.keys import Key
from suite.objectives.programs import forget_programs
from suite.runtime.session import interrupted
from suite.storage import checkpoint
from suite.types import Params, rollouts_of


def refuse_to_deal(runs: list[Run], ranks: int, at_once: int) -> None:
    """Raise UsageError for runs that so many processes can't share evenly, or not in turns."""
    if at_once > 1:
        raise UsageError("--together takes turns in one process; leave it out where several share a run (torchrun)")
    for run in [*runs, *(run.then for run in runs if run.then is not None)]:
        rollouts = rollouts_of(run.experiment)
        if rollouts % ranks:
            there = f"{rollouts} rollout{'' if rollouts == 1 else 's'}"
            raise UsageError(
                f"{ranks} processes can't share the {there} of an outer step evenly; start as many as divide them, or "
                f"set another number, as in --set 'ROLLOUTS = {-(-rollouts // ranks) * ranks}'"
            )


@contextmanager
def followed(run: Run) -> Iterator[None]:
    """Have the other ranks share the outer steps of a run within the block; nothing in a process alone."""
    team = here()
    tell_followers(run.key)
    if team is not None:
        team.learning = True
    try:
        yield
    finally:
        if team is not None:
            team.learning = False


def tell_followers(words: Any) -> None:
    """Give the other ranks what `follow` waits for, as JSON; nothing in a process alone."""
    team = here()
    if team is not None:
        team.shared(json.dumps(words).encode())


def follow(runs: list[Run], data_dir: Path, cache_dir: Path) -> None:
    """Share the outer steps of all runs, and of those that a table chooses. Raises Interrupted where all stop."""
    team = here()
    assert team is not None
    for run in runs:
        _follow_one(run, data_dir, cache_dir, team)
    if len(runs) > 1 or runs[0].then is not None:
        keys = json.loads(team.shared(None))
        further = {run.then.key: run.then for run in runs if run.then is not None}
        for key in keys:
            _follow_one(further[key], data_dir, cache_dir, team)


def _follow_one(run: Run, data_dir: Path, cache_dir: Path, team: Ranks) -> None:
    """Share the outer steps of one run, unless it was done before."""
    key = json.loads(team.shared(None))
    if key is None:
        return
    if key != run.key:
        raise RunError("this rank has another configuration than rank 0; give all the same command and files")
    team.learning = True
    try:
        with tempfile.TemporaryDirectory(prefix="memory-suite-") as nowhere:
            run.experiment.run(_FollowersSession(run, team, Path(nowhere), data_dir, cache_dir))
    except _Learned:
        pass
    except NotFinite as error:  # the bits are equal, so rank 0 met and tells it
        raise Left(0, NotFinite.status) from error
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:  # of a method, or of this rank's device
        where = traceback.extract_tb(error.__traceback__)[-1]
        cause = f"{type(error).__name__}: {first_line(error)}; {Path(where.filename).name}, line {where.lineno}"
        raise RunError(f"'{run.label}' failed on this rank ({cause})") from error
    finally:
        team.learning = False
        forget_programs()


class _Learned(Exception):
    """No outer step is left to share."""


class _FollowersSession:
    """The session of a rank that only shares outer steps: it knows what rank 0 restored, and keeps nothing."""

    def __init__(self, run: Run, team: Ranks, directory: Path, data_dir: Path, cache_dir: Path) -> None:
        """`directory` is for what an experiment writes although it is told that it does not lead."""
        self.key, self.device, self.leads = Key(run.seed), team.device, False
        self.directory, self.data_dir, self.cache_dir = directory, data_dir, cache_dir
        self._team = team

    def restore(self) -> tuple[int, Params, dict[str, Any]] | None:
        found = checkpoint.unpacked(self._team.shared(None), self._team.shared(None))
        return None if found is None else (found.iteration, found.tensors, found.state["experiment"])

    def checkpoint(self, iteration: int, tensors: Params, state: dict[str, Any], score: float | None = None) -> None:
        self.pause()

    def still_held(self) -> None: ...

    def checkpoint_due(self) -> bool:
        return self._team.signal is not None

    def pause(self) -> None:
        if (number := self._team.signal) is not None:
            raise interrupted(number)

    def learned(self) -> None:
        raise _Learned

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None: ...

    def history(self, metric: str) -> list[tuple[int, float]]:
        return []

    def progress(self, iteration: int, total: int, words: str) -> None: ...

    def report(self, sentence: str) -> None: ...
