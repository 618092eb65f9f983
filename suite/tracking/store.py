"""MLflow stores. The only module that imports MLflow, and never in the process that trains.

One MLflow experiment for each name, a parent run for a table, a child for each of its runs. Parameters are the flat
configuration, metrics go in batches with their own times, texts and pictures are artifacts. All of it is read from a
run's journal, and sending twice adds nothing.
"""

import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NotRequired

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from suite.errors import RunError, first_line, report
from suite.storage import journal
from suite.storage.files import canonical_json, make_directory, write_atomic
from suite.storage.locks import locked
from suite.storage.plain_files import open_plain, plain_below, read_json
from suite.tracking.names import accepted
from suite.tracking.pages import EXPERIMENT_TAGS, address, note
from suite.tracking.patience import NoAnswer, Patient, within
from suite.tracking.places import artifact_problem
from suite.tracking.uri import PASSWORD, USER, WHOLE, credentials, hidden, plain_uri, with_password

BATCH = 1000
"""Metrics that one request of MLflow takes."""

MOST_PAGES = 1000
"""Of a list of experiments or runs, each of 1000."""

SLOWEST_BYTES_PER_SECOND = 100_000.0
"""At which a file may be sent."""

RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$")]
"""Of a run in a store."""

PARAMETERS = 100
"""Parameters that one request of MLflow takes."""

LONGEST_PARAMETER = 6000
"""Characters of a parameter's value; what is longer is cut off."""

LONGEST_NAME_OF_RUN = 250
"""Characters of a run's name; what is longer is cut off."""

LONGEST_DIGEST = 36
"""Characters of a data set's digest."""

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's codes of errors that are of what was sent, not of the store."""

SENT = ".sending/heard.json"
"""In a run's directory, for each store: the run's id and experiment there, the journal offset already sent, and files
yet to be sent."""

SENDING = ".sending/lock"
"""The lock of the process that sends the run's journal."""

CONNECT_SECONDS = 120.0
"""For reaching a store, and for making a database."""

LISTING_SECONDS = 600.0
"""For the list of all runs of a store, page by page."""


class Store:
    """An MLflow store: a database beside the runs, or any server by its URI."""

    def __init__(self, uri: str, out: Path) -> None:
        """`uri`: of the store; `out`: the runs' output directory, which holds the artifacts of a database."""
        self.uri, self._out = plain_uri(uri), out
        """The address as it may be printed and stored, without a password."""
        self._address = with_password(self.uri) if uri == self.uri else uri
        plain = uri.startswith("sqlite:///") and "?" not in uri
        self._database = Path(uri.removeprefix("sqlite:///")) if plain else None
        self._lock = (out if self._database is None else self._database.parent) / ".mlflow.lock"
        self._client: Any = None
        self._seen: dict[str, str | None] = {}

    def connect(self) -> None:
        """Reach the store, once; a database is made where there is none. Raises RunError if it does not answer."""
        if self._client is not None:
            return
        self._check_database()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        for way in ("UPLOAD", "DOWNLOAD"):  # in pieces, to and from addresses that the server names
            os.environ[f"MLFLOW_ENABLE_PROXY_MULTIPART_{way}"] = "false"
        # Two processes that first open one database at once break each other's migration.
        with self._store_errors():  # not within the seconds of a store: importing is the disk's matter
            from mlflow.tracking import MlflowClient

        with self._store_errors(), locked(self._lock), within(CONNECT_SECONDS, self.uri):
            for name in ("mlflow", "alembic"):  # their notes on a fresh database are not for the terminal
                logging.getLogger(name).setLevel(logging.ERROR)
            if self._database is not None and not self._database.exists():
                # MLflow can't open a database whose making was interrupted: only a whole one gets the name.
                fresh = self._database.with_name(f".{self._database.name}.tmp")
                fresh.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
                fresh.replace(self._database)
            given = credentials(self._address)
            os.environ.update({name: given[name] for name in (USER, PASSWORD) if name in given})
            client = MlflowClient(self._address if WHOLE in given else self.uri)
            client.search_experiments(max_results=1)
            self._client = Patient(client, self.uri)

    def _check_database(self) -> None:
        """Raise RunError for what is no database, and for a folder that is not there, which MLflow tries ten times."""
        file = self._database
        if file is None:
            return
        if not file.parent.is_dir():
            raise self._failure(f"there is no folder {file.parent}")
        try:
            with open_plain(file, follow=True) as opened:
                beginning = opened.read(16)
        except FileNotFoundError:
            return
        if beginning not in (b"", b"SQLite format 3\0"):
            raise self._failure(f"{file} is no SQLite database")

    # ------------------------------------------------------------ send

    def send(self, directory: Path, verify: bool = False) -> str:
        """Send what the store does not have yet of a directory's journal; returns the run's id there.

        A run that was deleted there is told anew, as another run, when there is something to send; with `verify`, at
        once. Raises RunError if the store does not answer as it should, and Misplaced after everything but files was
        sent, which are tried again at the next call.
        """
        if not directory.is_dir():
            raise RunError(f"there is no folder {directory} any more; nothing was sent of it")
        if (directory / SENDING).parent.is_symlink():
            raise RunError(f"{(directory / SENDING).parent} is a link, which is not followed; delete it")
        with locked(directory / SENDING):
            sent = _sent(directory)
            here = sent.get(self.uri, {})
            identity = journal.identity(journal.read(directory)[0])
            if here.get("id") != identity:  # of another run of this name
                here = {}
            self.connect()
            if here and verify and not self._is_active(here["run_id"]):
                here = {}
            try:
                return self._send_rest(directory, identity, sent, here)
            except _RunMissing:  # the store's content was deleted: everything is sent again
                try:
                    return self._send_rest(directory, identity, sent, {})
                except _RunMissing as error:
                    raise RunError(f"the tracking store {self.uri} loses the run of {directory} at once") from error

    def _send_rest(self, directory: Path, identity: str | None, sent: dict[str, Any], before: dict[str, Any]) -> str:
        """Send what was not sent before, or all as a new run (`before` is empty), and note how far it was sent."""
        run_id, waiting = before.get("run_id"), before.get("misplaced", [])
        entries, end = journal.read(directory, before.get("heard", 0))
        if run_id is not None and (entries or waiting) and not self._is_of(run_id, identity):
            raise _RunMissing
        experiment = before.get("experiment")
        if run_id is None:
            run_id, experiment = self._find_or_create(directory, entries)
        try:
            with self._store_errors():
                misplaced, problem = self._upload(directory, run_id, entries, waiting)
        except NoAnswer:
            raise
        except RunError as error:
            if self._is_active(run_id):
                raise
            raise _RunMissing from error
        here = {"id": identity, "run_id": run_id, "heard": end} | ({"experiment": experiment} if experiment else {})
        here |= {"misplaced": misplaced} if misplaced else {}
        if sent.get(self.uri) != here:
            write_atomic(directory / SENT, canonical_json(sent | {self.uri: here}).encode())
        if misplaced:
            raise Misplaced(f"{self.uri} refused {_first_of(misplaced)} ({problem}); suite.sync tries it again")
        return run_id

    def _find_or_create(self, directory: Path, entries: list[journal.Entry]) -> tuple[str, str]:
        """The ids of the journal's run and its experiment. It exists already if a crash came after it was created."""
        begun = next((entry for entry in entries if entry["is"] == "run"), None)
        if begun is None:
            raise RunError(f"{directory / journal.NAME} does not say what run it is of; nothing was sent of it")
        with self._store_errors(), locked(self._lock):
            client = self._client
            experiment = client.get_experiment_by_name(begun["experiment"])
            if experiment is not None and experiment.lifecycle_stage != "active":
                raise RunError(
                    f"its experiment '{begun['experiment']}' was deleted; restore it with: mlflow experiments restore "
                    f"--experiment-id {experiment.experiment_id}, with MLFLOW_TRACKING_URI={self.uri}"
                )
            if experiment is None:
                place = (self._out / "artifacts").resolve().as_uri() if self.uri.startswith("sqlite:") else None
                experiment_id = _plain_id(client.create_experiment(begun["experiment"], place, EXPERIMENT_TAGS))
            else:
                experiment_id = _plain_id(experiment.experiment_id)
                self._show(experiment_id, experiment.tags)
                run_id = self._without_duplicates(experiment_id, begun["id"])
                if run_id is not None:
                    return run_id, experiment_id
            tags = begun["tags"] | {"suite.id": begun["id"]}
            name = begun["name"][:LONGEST_NAME_OF_RUN]
            run = client.create_run(experiment_id, start_time=begun["time"], tags=tags, run_name=name)
            return _plain_id(run.info.run_id), experiment_id

    def _show(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Have an experiment of before shown as those that are made now, if this user may change it."""
        for name in EXPERIMENT_TAGS.keys() - tags.keys():
            try:
                self._client.set_experiment_tag(experiment_id, name, EXPERIMENT_TAGS[name])
            except Exception as error:  # as in `_log`
                if getattr(error, "error_code", None) not in (*REFUSALS, "PERMISSION_DENIED"):
                    raise
                report(f"[tracking] {self.uri} refused a tag of experiment {experiment_id} ({first_line(error)[:200]})")

    def _without_duplicates(self, experiment_id: str, identity: str, keep: str | None = None) -> str | None:
        """The id of the store's run of this identity (`keep` if given), after its duplicates are deleted; None: none.

        Duplicates come of a request to create the run that was repeated since its answer was lost or late.
        """
        runs = self._client.search_runs([experiment_id], filter_string=f"tags.`suite.id` = '{identity}'")
        run_ids = sorted(_plain_id(run.info.run_id) for run in runs)
        keep = keep or next(iter(run_ids), None)
        for run_id in run_ids:
            if run_id != keep:
                self._client.delete_run(run_id)
        return keep

    def _upload(
        self, directory: Path, run_id: str, entries: list[journal.Entry], waiting: list[str]
    ) -> tuple[list[str], str | None]:
        """Send entries as parameters, metrics, artifacts (first those that wait) and tags, and the state last.

        Returns what `_send_files` does of files that can't go where the store would have them.
        """
        from mlflow.entities import Metric, Param, RunTag

        client = self._client
        is_table = directory.name.startswith(".table-")  # which is part of no other
        parents = [directory / entry["journal"] for entry in entries if entry["is"] == "parent" and not is_table]
        tags = [
            RunTag("mlflow.parentRunId", self.send(parent, verify=True))
            for parent in parents
            if (parent / journal.NAME).is_file() and not parent.is_symlink()  # else only this run was copied here
        ]
        values = {k: v for entry in entries if entry["is"] == "run" for k, v in entry["parameters"].items()}
        points = [point for entry in entries if entry["is"] == "metrics" for point in entry["points"]]
        parameters = {accepted(name): value[:LONGEST_PARAMETER] for name, value in values.items()}
        metrics = [Metric(accepted(name), *rest) for name, *rest in points]
        files = dict.fromkeys([*waiting, *(entry["file"] for entry in entries if entry["is"] == "artifact")])
        status = next((entry for entry in reversed(entries) if entry["is"] == "status"), None)
        if status is not None:
            tags.append(RunTag("suite.resumable", str(status["status"] == "KILLED").lower()))
        refused: list[str] = []
        for batch in _batches([Param(*parameter) for parameter in parameters.items()], PARAMETERS):
            refused += self._log(run_id, "params", batch)
        for batch in _batches(metrics, BATCH):
            refused += self._log(run_id, "metrics", batch)
        others, misplaced, problem = self._send_files(directory, run_id, files)
        refused += others
        for entry in entries:
            if entry["is"] == "dataset":
                refused += self._log_dataset(run_id, entry)
            elif entry["is"] == "description":
                tags.append(RunTag("mlflow.note.content", note(entry["text"], entry["pictures"], run_id)))
        if tags:
            client.log_batch(run_id, tags=tags)
        if status is not None:
            self._set_status(run_id, status)
        if refused:
            report(f"[tracking] {self.uri} refused {_first_of(refused)}; the record of {directory} has everything")
        return misplaced, problem

    def _send_files(
        self, directory: Path, run_id: str, names: Iterable[str]
    ) -> tuple[list[str], list[str], str | None]:
        """Send files of a run's directory; returns those that can't be, each with its reason.

        A link is none of the run's files, and a server does not decide where on this machine they are written: of
        those that it would have elsewhere, the names and the reason come after, since the place can be mended.
        """
        files: list[tuple[str, Path]] = []
        refused: list[str] = []
        for name in names:
            try:
                files.append((name, plain_below(directory, name)))
            except FileNotFoundError:  # it was deleted meanwhile
                continue
            except RunError as error:
                refused.append(f"{name} ({error})")
        if not files:
            return refused, [], None
        place = str(self._client.get_run(run_id).info.artifact_uri)
        problem = artifact_problem(place, self.uri, self._database, self._out)
        if problem:
            return refused, [name for name, _ in files], problem
        repository = self._repository(place)
        for name, file in files:
            seconds = file.stat().st_size / SLOWEST_BYTES_PER_SECOND
            repository.log_artifact(str(file), os.path.dirname(name) or None, more_seconds=seconds)
        return refused, [], None

    def _repository(self, place: str) -> Any:
        """MLflow's access to the files of one run. Its client's own would ask the server for the place once more."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

        whole = add_databricks_profile_info_to_artifact_uri(place, self.uri)
        return Patient(get_artifact_repository(whole, tracking_uri=self.uri), self.uri)

    def _log(self, run_id: str, what: str, batch: list[Any]) -> list[str]:
        """Send a batch of 'params' or 'metrics'; returns those that the store refuses, each with its reason.

        A refusal is of the whole batch, so its halves are sent by themselves, down to the one that is meant.
        """
        try:
            self._client.log_batch(run_id, **{what: batch})
            return []
        except Exception as error:  # MLflow's own come from what is imported only where it is used
            if getattr(error, "error_code", None) not in REFUSALS:
                raise
            if not self._is_active(run_id):
                raise _RunMissing from error
            if len(batch) == 1:
                return [f"{batch[0].key} ({first_line(error)[:200]})"]
        half = len(batch) // 2
        return self._log(run_id, what, batch[:half]) + self._log(run_id, what, batch[half:])

    def _log_dataset(self, run_id: str, entry: journal.Entry) -> list[str]:
        """Send which data set the run is of; returns it with the reason if the store does not take it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        name, digest = entry["name"], entry["digest"][:LONGEST_DIGEST]
        source = canonical_json({"tags": {"suite.dataset": name}})
        told = Dataset(name, digest, "code", source, profile=canonical_json({"images": entry["images"]}))
        try:
            used_for = [InputTag("mlflow.data.context", "training")]
            self._client.log_inputs(run_id, datasets=[DatasetInput(told, used_for)])
            return []
        except Exception as error:  # as in `_log`; a server of before MLflow 2.4 has no place for it
            if getattr(error, "error_code", None) not in (*REFUSALS, "ENDPOINT_NOT_FOUND"):
                raise
            return [f"data set {name} ({first_line(error)[:200]})"]

    def _is_of(self, run_id: str, identity: str | None) -> bool:
        """Whether the store's run is of this journal: a note of what was sent may come from another folder."""
        if run_id not in self._seen:
            with self._store_errors():
                self._seen[run_id] = self._client.get_run(run_id).data.tags.get("suite.id")
        return self._seen[run_id] == identity

    def _is_active(self, run_id: str) -> bool:
        """Whether the store has this run, and nobody deleted it."""
        try:
            with self._store_errors():
                return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except _RunMissing:
            return False

    def _set_status(self, run_id: str, status: journal.Entry) -> None:
        client = self._client
        if status["status"] == "RUNNING":
            client.update_run(run_id, status="RUNNING")
            return
        run = client.get_run(run_id)
        self._without_duplicates(run.info.experiment_id, run.data.tags["suite.id"], run_id)
        client.set_terminated(run_id, status["status"], end_time=status["time"])

    # ------------------------------------------------------------ download

    def download(self, names: Iterable[str], to: Path) -> Iterator[Path]:
        """Of every finished run its artifacts of these names, in a folder below `to` named by the run's id.

        Runs that lack the first name, such as the parent runs of tables, are skipped. Raises RunError.
        """
        if self._database is not None and not (self._database.is_file() and self._database.stat().st_size):
            raise RunError(f"there is no tracking database {self._database}; look at --tracking-uri")
        self.connect()
        first, *_ = names = list(names)
        with self._store_errors():
            finished = dict(self._finished())
        for run_id, place in finished.items():
            problem = artifact_problem(place, self.uri, self._database, self._out)
            if problem:
                report(f"[tracking] {self.uri}: the files of run {run_id} are left out ({problem})")
                continue
            with suppress(_RunMissing), self._store_errors():  # somebody deleted it meanwhile
                repository = self._repository(place)
                stored = {artifact.path: artifact.is_dir for artifact in repository.list_artifacts()}
                if first not in stored:
                    continue
                folder = make_directory(to / run_id)
                for name in [name for name in names if name in stored]:
                    files = [name]
                    if stored[name]:
                        listed = repository.list_artifacts(name)
                        files = [f"{name}/{PurePosixPath(one.path).name}" for one in listed if not one.is_dir]
                        make_directory(folder / name)
                    for file in files:
                        # not `download_artifacts`, whose threads nobody can stop
                        repository._download_file(file, str(folder / file))
                yield folder

    def _finished(self) -> Iterator[tuple[str, str]]:
        """The ids of all finished runs, and where the store keeps the files of each."""
        client, condition = self._client, "attributes.status = 'FINISHED'"
        for experiment in list(_pages(lambda token: client.search_experiments(page_token=token))):
            ids = [experiment.experiment_id]
            for run in _pages(lambda token: client.search_runs(ids, condition, page_token=token)):  # noqa: B023
                yield _plain_id(run.info.run_id), str(run.info.artifact_uri)

    # ------------------------------------------------------------ errors

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Turn whatever MLflow raises into a RunError of one sentence, or into _RunMissing."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's own, about its own code
                yield
        except (_RunMissing, NoAnswer):
            raise
        except RunError as error:
            if self.uri in str(error):  # raised while a table's journal was sent, on the way
                raise
            raise self._failure(str(error)) from error
        except Exception as error:  # MLflow raises what its store, its server and its network libraries raise
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                raise _RunMissing from error
            raise self._failure(f"{type(error).__name__}: {first_line(error)[:200]}") from error

    def _failure(self, cause: str) -> RunError:
        asked = any(word in cause.lower() for word in ("401", "password", "unauthenticated"))
        advice = f"; set {USER} and {PASSWORD}, or {WHOLE} to the whole address" if asked else ""
        return RunError(
            f"the tracking store {self.uri} did not answer as it should ({hidden(cause, self._address)}){advice}"
        )


class Misplaced(RunError):
    """A store has everything of a run but files, which it would have in a place that is not its own."""


class _RunMissing(Exception):
    """The store does not have the run any more."""


class _Heard(TypedDict):
    """What a store was sent of a journal."""

    id: str
    run_id: RunId
    experiment: NotRequired[RunId]
    heard: Annotated[int, Field(ge=0, lt=2**63)]
    misplaced: NotRequired[list[str]]


def _sent(directory: Path) -> dict[str, Any]:
    """What `SENT` holds; nothing if it is absent or damaged, which costs repeated sending and no more."""
    if (directory / SENT).parent.is_symlink():
        return {}
    try:
        return dict(read_json(directory / SENT, dict[str, _Heard]))
    except (FileNotFoundError, RunError):
        return {}


def _plain_id(run_id: object) -> str:
    """A run's id as a store gives it, which becomes a part of names here. Raises RunError for what can't."""
    if not isinstance(run_id, str) or re.fullmatch(r"\w[\w-]{0,99}", run_id, re.ASCII) is None:
        raise RunError("it calls a run by no name that a run can have")
    return run_id


def stores(directory: Path) -> list[str]:
    """The addresses of the stores that something of a run's journal was sent to."""
    return list(_sent(directory))


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """A described configuration as MLflow parameters: {'objective.inner_steps': '150', …}."""
    if not isinstance(config, dict):
        return {prefix: str(config)}
    parameters: dict[str, str] = {}
    for key, value in config.items():
        name = prefix if key == "is" and prefix else f"{prefix}.{key}" if prefix else key
        parameters |= flat(value, name)
    return parameters


def _pages(request: Callable[[str | None], Any]) -> Iterator[Any]:
    """All items of a request that a store answers page by page."""
    token, until = None, time.monotonic() + LISTING_SECONDS
    for _ in range(MOST_PAGES):
        if time.monotonic() > until:
            raise RunError(f"its list had no end within {LISTING_SECONDS:g} s")
        page = request(token)
        yield from page
        token = page.token
        if not token:
            return
    raise RunError(f"it answers a list with more than {MOST_PAGES} pages")


def page(directory: Path, uri: str) -> str:
    """Where a store's pages show the runs that are of one experiment with a directory's; '' before any was sent."""
    experiment = _sent(directory).get(uri, {}).get("experiment")
    return address(experiment) if experiment else ""


def _first_of(names: list[str]) -> str:
    return names[0] + (f", and {len(names) - 1} more" if len(names) > 1 else "")


def _batches(rows: list[Any], size: int) -> Iterable[list[Any]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
