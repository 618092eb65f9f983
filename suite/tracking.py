"""MLflow: the only module that imports it, and only when a run is tracked.

One MLflow experiment for each name, a parent run for a table, a child for each of its runs. Parameters are the flat
configuration, metrics go in batches with their own times, texts and pictures are artifacts.
"""

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from suite.errors import RunError, UsageError
from suite.files import canonical_json, make_directory, write_whole
from suite.locks import locked

Status = Literal["FINISHED", "FAILED", "KILLED"]
BATCH = 1000  # what one log_batch takes
PARAMETERS = 100
LONGEST_PARAMETER = 6000


class Point(NamedTuple):
    """One value of one metric; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    iteration: int


@runtime_checkable
class Tracker(Protocol):
    """Where runs are recorded."""

    uri: str

    def start(self, experiment: str, name: str, tags: dict[str, str], known: Path) -> str: ...

    def tag(self, known: Path, tags: dict[str, str]) -> None: ...

    def parameters(self, run_id: str, values: dict[str, str]) -> None: ...

    def metrics(self, run_id: str, points: list[Point]) -> None: ...

    def artifact(self, run_id: str, file: Path, folder: str | None = None) -> None: ...

    def finish(self, run_id: str, status: Status) -> None: ...


class NoTracker:
    """Records nothing; MLflow need not be installed."""

    uri = "none"

    def start(self, experiment: str, name: str, tags: dict[str, str], known: Path) -> str:
        return ""

    def tag(self, known: Path, tags: dict[str, str]) -> None: ...

    def parameters(self, run_id: str, values: dict[str, str]) -> None: ...

    def metrics(self, run_id: str, points: list[Point]) -> None: ...

    def artifact(self, run_id: str, file: Path, folder: str | None = None) -> None: ...

    def finish(self, run_id: str, status: Status) -> None: ...


class MlflowTracker:
    """Records in an MLflow store: a database beside the runs, or any server by its URI."""

    def __init__(self, uri: str, out: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self.uri, self.out = uri, out
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its dependencies, at import
                from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise UsageError(
                f"MLflow can't be imported ({error}); install it, or run with --tracking-uri none"
            ) from error
        import logging

        for name in ("mlflow", "alembic"):  # their notes on a fresh database are not for the terminal
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._sentence(), locked(make_directory(out) / ".mlflow.lock"):
            # Two processes that first open one database together break each other's migration.
            self._client = MlflowClient(uri)
            self._client.search_experiments(max_results=1)

    def start(self, experiment: str, name: str, tags: dict[str, str], known: Path) -> str:
        """Create a run, or go on with the one whose id the file `known` holds for this store; returns its id."""
        earlier = self._earlier(known, tags)
        if earlier is not None:
            with self._sentence():
                self._client.update_run(earlier, status="RUNNING")
            return earlier
        with self._sentence(), locked(self.out / ".mlflow.lock"):
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                place = (self.out / "artifacts").resolve().as_uri() if self.uri.startswith("sqlite:") else None
                experiment_id = self._client.create_experiment(experiment, artifact_location=place)
            else:
                experiment_id = found.experiment_id
            run_id = str(self._client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
        write_whole(known, canonical_json({"uri": self.uri, "run_id": run_id}).encode())
        return run_id

    def tag(self, known: Path, tags: dict[str, str]) -> None:
        """Tag the run whose id the file `known` holds, if this store has it."""
        self._earlier(known, tags)

    def _earlier(self, known: Path, tags: dict[str, str]) -> str | None:
        """The run that the file names, tagged; None if it names none that this store has."""
        from mlflow.exceptions import MlflowException

        try:
            kept = json.loads(known.read_text())
            uri, run_id = str(kept["uri"]), str(kept["run_id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if uri != self.uri:
            return None
        with self._sentence():
            try:
                for key, value in tags.items():
                    self._client.set_tag(run_id, key, value)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # somebody deleted the store's content
                    return None
                raise
        return run_id

    def parameters(self, run_id: str, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        rows = [Param(key, value[:LONGEST_PARAMETER]) for key, value in values.items()]
        with self._sentence():
            for part in _parts(rows, PARAMETERS):
                self._client.log_batch(run_id, params=part)

    def metrics(self, run_id: str, points: list[Point]) -> None:
        """Repeating points that were sent before, times included, adds nothing."""
        from mlflow.entities import Metric

        rows = [Metric(point.name, point.value, point.time, point.iteration) for point in points]
        with self._sentence():
            for part in _parts(rows, BATCH):
                self._client.log_batch(run_id, metrics=part)

    def artifact(self, run_id: str, file: Path, folder: str | None = None) -> None:
        with self._sentence():
            self._client.log_artifact(run_id, str(file), folder)

    def finish(self, run_id: str, status: Status) -> None:
        with self._sentence():
            self._client.set_terminated(run_id, status)

    @contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's own, about its own code
                yield
        except RunError:
            raise
        except Exception as error:  # MLflow raises what its store, its server and its network libraries raise
            first = str(error).strip().split("\n")[0][:200]
            raise RunError(
                f"the tracking store {self.uri} did not answer as it should ({type(error).__name__}: {first}); "
                "check it, choose another with --tracking-uri, or go on with --tracking-uri none"
            ) from error


def open_tracker(uri: str | None, out: Path) -> Tracker:
    """'none', an MLflow URI, or None for a database beside the runs."""
    if uri == "none":
        return NoTracker()
    return MlflowTracker(uri or f"sqlite:///{(out / 'mlflow.db').resolve()}", out)


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """A described configuration as MLflow parameters: {'objective.inner_steps': '150', …}."""
    if isinstance(config, dict):
        found: dict[str, str] = {}
        for key, value in config.items():
            name = prefix if key == "is" and prefix else f"{prefix}.{key}" if prefix else key
            found |= flat(value, name)
        return found
    return {prefix: str(config)}


def _parts(rows: list[Any], size: int) -> Iterable[list[Any]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
