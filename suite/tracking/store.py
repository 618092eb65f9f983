"""MLflow: the only module that imports it, and never in the process that trains.

One MLflow experiment for each name, a parent run for a table, a child for each of its runs. Parameters are the flat
configuration, metrics go in batches with their own times, texts and pictures are artifacts. All of it is read from a
run's journal, and sending twice adds nothing.
"""

import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from suite.errors import RunError
from suite.storage import journal
from suite.storage.files import canonical_json, make_directory, write_atomic
from suite.storage.locks import locked

BATCH = 1000  # what one log_batch takes

PARAMETERS = 100

LONGEST_PARAMETER = 6000

HEARD, SENDING = ".sending/heard.json", ".sending/lock"
"""For each store, the run's id there and how much of the journal it has heard; and the lock of who is sending."""


class Store:
    """An MLflow store: a database beside the runs, or any server by its URI."""

    def __init__(self, uri: str, out: Path) -> None:
        self.uri, self._out = uri, out
        plain = uri.startswith("sqlite:///") and "?" not in uri
        self._database = Path(uri.removeprefix("sqlite:///")) if plain else None
        self._lock = (out if self._database is None else self._database.parent) / ".mlflow.lock"
        self._client: Any = None

    def send(self, directory: Path) -> str:
        """Tell the store all that it has not heard of a directory's journal; returns the run's id there.

        Raises RunError if the store does not answer as it should.
        """
        with locked(directory / SENDING):
            known = _known(directory)
            mine = known.get(self.uri, {})
            if mine.get("id") != journal.identity(journal.read(directory)[0]):  # a run that has the name of another
                mine = {}
            self.connect()
            try:
                return self._rest(directory, known, mine.get("run_id"), mine.get("heard", 0))
            except _Lost:  # somebody deleted the store's content: it hears everything again
                try:
                    return self._rest(directory, known, None, 0)
                except _Lost as error:
                    raise RunError(f"the tracking store {self.uri} loses the run of {directory} at once") from error

    def _rest(self, directory: Path, known: dict[str, Any], run_id: str | None, heard: int) -> str:
        identity = journal.identity(journal.read(directory)[0])
        entries, end = journal.read(directory, heard if run_id else 0)
        if run_id is None:
            run_id = self._begin(directory, entries)
        with self._sentence():
            self._tell(directory, run_id, entries)
        mine = {"id": identity, "run_id": run_id, "heard": end}
        if known.get(self.uri) != mine:
            write_atomic(directory / HEARD, canonical_json(known | {self.uri: mine}).encode())
        return run_id

    def _begin(self, directory: Path, entries: list[journal.Entry]) -> str:
        """The run that the journal is of: found by its identity, if a crash came after it was created, or created."""
        what = next((entry for entry in entries if entry["is"] == "run"), None)
        if what is None:
            raise RunError(f"{directory / journal.NAME} does not say what it is of; nothing was sent of it")
        with self._sentence(), locked(self._lock):
            client = self._client
            found = client.get_experiment_by_name(what["experiment"])
            if found is None:
                place = (self._out / "artifacts").resolve().as_uri() if self.uri.startswith("sqlite:") else None
                experiment = client.create_experiment(what["experiment"], artifact_location=place)
            else:
                experiment = found.experiment_id
                if (mine := self._only(experiment, what["id"])) is not None:
                    return mine
            tags = what["tags"] | {"suite.id": what["id"]}
            made = client.create_run(experiment, start_time=what["time"], tags=tags, run_name=what["name"])
            return str(made.info.run_id)

    def _only(self, experiment: str, identity: str, mine: str | None = None) -> str | None:
        """The store's one run of this identity: `mine` if given, else any, else None.

        A request to create it whose answer was lost, or came too late, was repeated: what that made is deleted.
        """
        runs = self._client.search_runs([experiment], filter_string=f"tags.`suite.id` = '{identity}'")
        found = sorted(str(run.info.run_id) for run in runs)
        mine = mine or next(iter(found), None)
        for run_id in found:
            if run_id != mine:
                self._client.delete_run(run_id)
        return mine

    def _tell(self, directory: Path, run_id: str, entries: list[journal.Entry]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client = self._client
        tags, parameters, metrics = [], [], []
        files: dict[str, None] = {}
        status = None
        for entry in entries:
            if entry["is"] == "run":
                named = {re.sub(r"[^\w\-. :/]", "_", key): value for key, value in entry["parameters"].items()}
                parameters += [Param(key, value[:LONGEST_PARAMETER]) for key, value in named.items()]
            elif entry["is"] == "parent":
                parent = directory / entry["journal"]
                if not (parent / journal.NAME).is_file():  # only this run was copied here
                    continue
                tags.append(RunTag("mlflow.parentRunId", self.send(parent)))
            elif entry["is"] == "metrics":
                metrics += [Metric(*point) for point in entry["points"]]
            elif entry["is"] == "artifact":
                files[entry["file"]] = None
            elif entry["is"] == "status":
                status = entry
        if status is not None:
            resumable = status["status"] == "KILLED"
            tags += [RunTag("suite.resumable", str(resumable).lower())]
        for part in _parts(parameters, PARAMETERS):
            client.log_batch(run_id, params=part)
        for part in _parts(metrics, BATCH):
            client.log_batch(run_id, metrics=part)
        for file in files:
            if (directory / file).is_file():  # else it was cleaned away since
                client.log_artifact(run_id, str(directory / file), os.path.dirname(file) or None)
        if tags:
            client.log_batch(run_id, tags=tags)
        if status is not None and status["status"] == "RUNNING":
            client.update_run(run_id, status="RUNNING")
        elif status is not None:
            run = client.get_run(run_id)
            self._only(run.info.experiment_id, run.data.tags["suite.id"], run_id)
            client.set_terminated(run_id, status["status"], end_time=status["time"])

    def download(self, names: Iterable[str], to: Path) -> Iterator[Path]:
        """Of every finished run the artifacts of these names, in a folder below `to` that is called by the run's id.

        Runs that lack the first name, such as a table's own, are passed over. Raises RunError.
        """
        if self._database is not None and not (self._database.is_file() and self._database.stat().st_size):
            raise RunError(f"there is no tracking database {self._database}; look at --tracking-uri")
        self.connect()
        first, *_ = names = list(names)
        with self._sentence():
            finished = list(self._finished())
        for run_id in finished:
            with suppress(_Lost), self._sentence():  # somebody deleted it since
                held = {artifact.path for artifact in self._client.list_artifacts(run_id)}
                if first not in held:
                    continue
                folder = make_directory(to / run_id)
                for name in [name for name in names if name in held]:
                    self._client.download_artifacts(run_id, name, str(folder))
                yield folder

    def _finished(self) -> Iterator[str]:
        client, finished = self._client, "attributes.status = 'FINISHED'"
        experiments = [one.experiment_id for one in _pages(lambda token: client.search_experiments(page_token=token))]
        for experiment in experiments:
            for run in _pages(lambda token: client.search_runs([experiment], finished, page_token=token)):  # noqa: B023
                yield str(run.info.run_id)

    def connect(self) -> None:
        """Reach the store once; RunError if it does not answer."""
        if self._client is not None:
            return
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        # Two processes that first open one database together break each other's migration.
        with self._sentence(), locked(self._lock):
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "alembic"):  # their notes on a fresh database are not for the terminal
                logging.getLogger(name).setLevel(logging.ERROR)
            if self._database is not None and not self._database.exists():
                # MLflow can't open a database whose making was interrupted, so a name is given to a whole one only.
                fresh = self._database.with_name(f".{self._database.name}.tmp")
                fresh.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
                fresh.replace(self._database)
            client = MlflowClient(self.uri)
            client.search_experiments(max_results=1)
            self._client = client

    @contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's own, about its own code
                yield
        except _Lost:
            raise
        except RunError as error:
            if self.uri in str(error):  # it was said of a table's journal, on the way
                raise
            raise RunError(f"the tracking store {self.uri} did not answer as it should ({error})") from error
        except Exception as error:  # MLflow raises what its store, its server and its network libraries raise
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                raise _Lost from error
            first = str(error).strip().split("\n")[0][:200]
            raise RunError(
                f"the tracking store {self.uri} did not answer as it should ({type(error).__name__}: {first})"
            ) from error


class _Lost(Exception):
    """The store does not have the run any more."""


def _known(directory: Path) -> dict[str, Any]:
    """What `HEARD` says; nothing if it is not there or damaged, which costs repeated sending and no more."""
    try:
        known = json.loads((directory / HEARD).read_text())
        return {
            uri: {"id": str(one["id"]), "run_id": str(one["run_id"]), "heard": int(one["heard"])}
            for uri, one in known.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def stores(directory: Path) -> list[str]:
    """The stores that have heard of the run in a directory."""
    return list(_known(directory))


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """A described configuration as MLflow parameters: {'objective.inner_steps': '150', …}."""
    if isinstance(config, dict):
        found: dict[str, str] = {}
        for key, value in config.items():
            name = prefix if key == "is" and prefix else f"{prefix}.{key}" if prefix else key
            found |= flat(value, name)
        return found
    return {prefix: str(config)}


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    """Everything that a store gives page by page."""
    token: str | None = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _parts(rows: list[Any], size: int) -> Iterable[list[Any]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
