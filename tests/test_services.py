"""Tracking against the real thing: an MLflow server on PostgreSQL, which goes away at times and comes back.

Needs PostgreSQL's programs, as Debian packages them, and psycopg2: `make test-services` gets both where it can.
"""

import csv
import json
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from command_line import QUICK, ended, only_run, sets, start

from suite.runtime.run_directory import about
from suite.storage.journal import Journal, Point, now, read
from suite.tracking import pages
from suite.tracking.pages import EXPERIMENT_TAGS
from suite.tracking.store import SENT, Store, page

pytestmark = [pytest.mark.services, pytest.mark.slow]

PATIENCE = 120.0
"""Seconds after which what should come soon counts as missing."""


def wait_for(what: str, there: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < until, f"{PATIENCE:.0f} s without {what}"
        time.sleep(0.1)


# ---------------------------------------------------------------- the services


def programs() -> Path | None:
    """The folder of PostgreSQL's own programs, the newest there is; Debian keeps them off the path."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if folders:
        return max(folders, key=lambda folder: float(folder.parent.name))
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def ordinary_user() -> pwd.struct_passwd | None:
    """Who runs PostgreSQL, which refuses root; None if that is whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses root, and there is no user postgres or nobody")


class Database:
    """A PostgreSQL of our own: a new data directory, reached by a socket that no one else may open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder_of_programs = programs()
        if folder_of_programs is None:
            pytest.skip("PostgreSQL is not installed: make test-services, or apt-get install postgresql")
        self._programs, user = folder_of_programs, ordinary_user()
        self._user: dict[str, Any] = {}
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def start(self) -> None:
        new = ["--auth=trust", "--username=suite", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._do("initdb", *new)
        # No disk is waited for: not PostgreSQL is killed here, but its client.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
        self._do("pg_ctl", "start", "--wait", "--log", str(self._folder / "log"), "--options", options)

    def stop(self) -> None:
        self._do("pg_ctl", "stop", "--mode=immediate")

    def _do(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), "--pgdata", str(self._folder / "data"), *words]
        # Its output goes to a file: the database would inherit a pipe, and hold it open.
        with (self._folder.parent / "postgresql.txt").open("a+") as output:
            done = subprocess.run(
                command, cwd=self._folder, stdout=output, stderr=output, timeout=PATIENCE, **self._user
            )
            output.seek(0)
            assert done.returncode == 0, output.read()

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://suite@/postgres?host={self._folder}"

    @contextmanager
    def connection(self) -> Iterator[Any]:
        import psycopg2

        with closing(psycopg2.connect(dbname="postgres", user="suite", host=str(self._folder))) as connection:
            yield connection

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())


class Server:
    """`mlflow server`, which may be stopped and started again on the same port."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._port, self._log = database, free_port(), folder / "server.txt"
        self.uri, self.artifacts = f"http://127.0.0.1:{self._port}", folder / "artifacts"
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        self._command += ["--workers", "1", "--backend-store-uri", database.uri]
        self._command += ["--artifacts-destination", str(self.artifacts)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it is there, and wait until it answers."""
        if self._process is not None:
            return
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self._log.open("ab") as log:  # a group of its own, for it has children
            self._process = subprocess.Popen(
                self._command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
            )
        wait_for("an answer of the MLflow server", self._answers)

    def stop(self, how: signal.Signals) -> None:
        """Stop it and all its children; afterwards nothing listens, and nothing is on its way into the database."""
        if self._process is not None:
            os.killpg(self._process.pid, how)
            self._process.wait(PATIENCE)
            self._process = None
            wait_for("a free port", lambda: not listens(self._port))
            wait_for("a database that is left alone", lambda: self._database.rows(GUESTS)[0][0] == 0)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


GUESTS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def listens(port: int) -> bool:
    with closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Below the ports that systems give to whoever connects: nobody else takes it while the server is away."""
    while listens(port := random.randrange(15_000, 32_000)):
        pass
    return port


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    pytest.importorskip("psycopg2", reason="the driver psycopg2 is not installed: make test-services")
    # Not pytest's folder, which is closed to other users, and whose name may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="suite-") as outer:
        os.chmod(outer, 0o711)
        inner = Path(outer) / "database"
        inner.mkdir(mode=0o700)
        running = Database(inner)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def only_server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(database, tmp_path_factory.mktemp("server"))
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)


@pytest.fixture
def server(only_server: Server) -> Server:
    """The server, at work whatever the test before left."""
    only_server.start()
    return only_server


# ---------------------------------------------------------------- what the store holds


class Stored:
    """What the store's database holds of one directory's run, as it lies there."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        (self._identity,) = [entry["id"] for entry in read(directory)[0] if entry["is"] == "run"]

    def ids(self) -> list[str]:
        """The ids of the runs with its identity."""
        query = "SELECT run_uuid FROM tags JOIN runs USING (run_uuid) WHERE key = 'suite.id' AND value = %s"
        return [row[0] for row in self._database.rows(f"{query} AND lifecycle_stage = 'active'", self._identity)]

    @property
    def id(self) -> str:
        (only,) = self.ids()
        return str(only)

    def points(self) -> list[tuple[str, int, float]]:
        """Every row, repeated ones too."""
        rows = self._database.rows("SELECT key, step, value FROM metrics WHERE run_uuid = %s", self.id)
        return sorted((key, step, value) for key, step, value in rows)

    def count(self) -> int:
        """How many points have arrived so far."""
        query = "SELECT count(*) FROM metrics JOIN tags t USING (run_uuid) WHERE t.key = 'suite.id' AND t.value = %s"
        return int(self._database.rows(query, self._identity)[0][0])

    def latest(self) -> dict[str, int]:
        """The iteration of each metric's last value, which the pages show."""
        return dict(self._database.rows("SELECT key, step FROM latest_metrics WHERE run_uuid = %s", self.id))

    def end(self) -> tuple[str, int | None]:
        (row,) = self._database.rows("SELECT status, end_time FROM runs WHERE run_uuid = %s", self.id)
        return row[0], row[1]

    def parameters(self) -> dict[str, str]:
        return dict(self._database.rows("SELECT key, value FROM params WHERE run_uuid = %s", self.id))

    def artifacts(self, server: Server) -> dict[str, bytes]:
        (folder,) = server.artifacts.glob(f"*/{self.id}/artifacts")
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


ARTIFACTS = {"config.gin", "operative.gin", "memory.safetensors", "metrics.csv", "result.json", "figures/curves.png"}


def assert_everything_is_there_once(stored: Stored, server: Server, directory: Path) -> None:
    with (directory / "metrics.csv").open(newline="") as file:
        curves = {(row["metric"], int(row["iteration"]), float(row["value"])) for row in csv.DictReader(file)}
    told = [point for entry in read(directory)[0] if entry["is"] == "metrics" for point in entry["points"]]
    points = [(name, iteration, value) for name, value, _, iteration in told]
    assert curves < set(points) and {"test_accuracy/memory_std", "stored_numbers"} <= {name for name, _, _ in points}
    assert len(points) == len({(name, iteration) for name, iteration, _ in points}) > 1000
    assert stored.points() == sorted(points)
    assert stored.latest() == {name: max(i for other, i, _ in points if other == name) for name, _, _ in points}
    status, end = stored.end()
    (finished,) = [e["time"] for e in read(directory)[0] if e["is"] == "status" and e["status"] == "FINISHED"]
    assert status == "FINISHED" and end == finished
    content = about(directory)
    assert content is not None and stored.parameters() == content["config"] | {"seed": "0"}
    assert stored.parameters()["dataset"] == "digits" and stored.parameters()["iterations"] == str(ITERATIONS)
    artifacts = stored.artifacts(server)
    assert artifacts.keys() >= ARTIFACTS
    assert artifacts == {name: (directory / name).read_bytes() for name in artifacts}


# ---------------------------------------------------------------- runs, and a server that goes away


ITERATIONS = 800
"""With its start and its end, about twenty seconds on two cores."""

PACED = """
# A run that no machine ends before the test is ready: it crawls until the files 'middle' and 'end' are there.
import time
from pathlib import Path
from suite.runtime.session import RunSession

progress = RunSession.progress

def paced(self, iteration, total, words):
    progress(self, iteration, total, words)
    for name, first, seconds in (("middle", 200, 0.1), ("end", total - 100, 1.0)):
        if iteration >= first and not Path(__file__).with_name(name).exists():
            time.sleep(seconds)

RunSession.progress = paced
"""


class Run:
    """A run on digits at work in another process, tracked on the server."""

    def __init__(self, folder: Path, data_dir: Path, server: Server) -> None:
        self.out, self._folder = folder / "out", folder
        (folder / "paced.py").write_text(PACED)
        arguments = [*QUICK, *sets(f"ITERATIONS = {ITERATIONS}"), "--checkpoint-seconds", "1", "--json"]
        arguments += ["--plugin", folder / "paced.py", "--data-dir", data_dir, "--out", self.out]
        self.process = start(*arguments, "--tracking-uri", server.uri)
        self._lines: list[str] = []
        self._listener = Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    @property
    def output(self) -> str:
        """Its stderr so far."""
        return "".join(self._lines)

    @property
    def directory(self) -> Path:
        return only_run(self.out)

    def written(self) -> int:
        """How many points are in its journal."""
        return sum(len(entry["points"]) for entry in read(self.directory)[0] if entry["is"] == "metrics")

    def may_go_on(self, *where: str) -> None:
        """No longer crawl in the middle, or before the end."""
        for name in where:
            (self._folder / name).touch()

    def end(self) -> tuple[int, Any]:
        """Its exit status and its record."""
        assert self.process.stdout is not None
        status = self.process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        return status, json.loads(self.process.stdout.read())

    def close(self) -> None:
        self.process.kill()
        self._listener.join(PATIENCE)
        self.process.communicate()


@pytest.fixture
def run(tmp_path: Path, data_dir: Path, server: Server, database: Database) -> Iterator[Run]:
    """A run of which something has arrived at the server."""
    at_work = Run(tmp_path, data_dir, server)
    try:
        wait_for("a journal", lambda: list(at_work.out.glob("*/*/journal.jsonl")) and read(at_work.directory)[0])
        wait_for("metrics at the server", lambda: Stored(database, at_work.directory).count() > 20)
        yield at_work
    finally:
        at_work.close()


def test_a_server_that_comes_back_during_the_run_gets_everything_once(
    run: Run, server: Server, database: Database
) -> None:
    stored, outages = Stored(database, run.directory), run.output.count("runs continue")
    server.stop(signal.SIGKILL)
    before, written = stored.count(), run.written()
    run.may_go_on("middle")
    assert stored.end() == ("RUNNING", None)
    wait_for("a line on the outage", lambda: run.output.count("runs continue") > outages)
    wait_for("more progress", lambda: run.written() >= written + 100)  # nothing waits for the server
    assert stored.count() == before < run.written()
    server.start()
    assert run.process.poll() is None
    run.may_go_on("end")
    status, record = run.end()
    assert status == 0, run.output
    assert record["run_key"] and "send it later" not in run.output
    assert run.output.count("runs continue") == outages + 1  # reported once
    assert_everything_is_there_once(stored, server, run.directory)


def test_a_server_that_stays_away_gets_everything_later_and_once(run: Run, server: Server, database: Database) -> None:
    stored = Stored(database, run.directory)
    server.stop(signal.SIGTERM)
    before = stored.count()
    run.may_go_on("middle", "end")
    status, record = run.end()
    assert status == 0 and record["run_key"], run.output
    assert stored.end() == ("RUNNING", None) and stored.count() == before < run.written()
    (later,) = re.findall(r"nothing is lost, send it later: (.*)", run.output)
    words = shlex.split(later)
    assert words == [sys.executable, "-m", "suite.sync", str(run.out), "--tracking-uri", server.uri]
    server.start()
    ends = []
    for _ in range(2):  # the second time there is nothing to say
        done = ended(start(code=words[1:]))
        assert done.status == 0 and not done.err and "has everything of 1 runs" in done.out, done
        assert_everything_is_there_once(stored, server, run.directory)
        ends.append(stored.end())
    assert ends[0] == ends[1]


# ---------------------------------------------------------------- what its pages show


def test_a_server_is_told_the_data_set_the_description_and_the_view(
    server: Server, database: Database, tmp_path: Path
) -> None:
    told = journal(tmp_path / "out" / "told", [Point("test_accuracy/memory", 50.0, now(), 1)])
    for digest in ("a" * 64, "b" * 64):
        told.dataset("digits", digest, {"train": 7})
        told.description("| memory |", [told.directory / "figures" / "recalled.png"])
        for _ in range(2):  # the second time as if nothing had been noted
            Store(server.uri, tmp_path / "out").send(told.directory)
            address = page(told.directory, server.uri)
            (told.directory / SENT).unlink()
    stored = Stored(database, told.directory)
    inputs = "datasets JOIN inputs ON source_id = dataset_uuid WHERE destination_id = %s"
    known = database.rows(f"SELECT name, digest FROM {inputs}", stored.id)
    assert sorted(known) == [("digits", letter * 36) for letter in "ab"]
    note = "SELECT value FROM tags WHERE key = 'mlflow.note.content' AND run_uuid = %s"
    shown = f"get-artifact?path=figures%2Frecalled.png&run_uuid={stored.id}"
    assert database.rows(note, stored.id) == [(f"| memory |\n\n![recalled]({shown})",)]
    ((experiment,),) = database.rows("SELECT experiment_id FROM runs WHERE run_uuid = %s", stored.id)
    tags = dict(database.rows("SELECT key, value FROM experiment_tags WHERE experiment_id = %s", experiment))
    assert tags.items() >= EXPERIMENT_TAGS.items() and address == pages.address(str(experiment))


# ---------------------------------------------------------------- a server in trouble while it receives


SENDS = """
import sys, time
from pathlib import Path
from suite.errors import RunError
from suite.tracking.store import Store
store = Store(sys.argv[1], Path(sys.argv[2]).parent)
while True:
    try:
        store.send(Path(sys.argv[2]))
        break
    except RunError as error:
        print(error, file=sys.stderr)
        time.sleep(0.5)
"""


def journal(directory: Path, points: list[Point]) -> Journal:
    """The journal of a run that found these points, and finished."""
    finished = Journal(directory)
    finished.begin("services", directory.name, {}, {"a": "b"})
    finished.mark("RUNNING")
    for first in range(0, len(points), 700):  # not the size of a batch
        finished.points(points[first : first + 700])
    finished.mark("FINISHED")
    return finished


@contextmanager
def sending(server: Server, directory: Path, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that sends a journal until all is sent."""
    process = start(server.uri, directory, code=["-c", SENDS], env=env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_server_killed_again_and_again_while_it_receives_holds_everything_once(
    server: Server, database: Database, tmp_path: Path
) -> None:
    at, chance = now(), random.Random(0)
    points = [Point(f"metric {i % 4}", chance.gauss(0, 1), at + i, i // 4) for i in range(20_000)]
    journal(tmp_path / "many", points)
    stored = Stored(database, tmp_path / "many")
    with sending(server, tmp_path / "many") as process:
        for some in (0, 2_000, 6_000):
            wait_for(f"more than {some} points", lambda some=some: stored.count() > some)
            server.stop(signal.SIGKILL)
            assert some < stored.count() < len(points)
            server.start()
        done = ended(process, PATIENCE)
    assert done.status == 0, done.err
    assert "did not answer as it should" in done.err
    assert stored.points() == sorted((p.name, p.iteration, p.value) for p in points)
    assert stored.latest() == {f"metric {i}": 4_999 for i in range(4)}
    assert stored.end()[0] == "FINISHED" and stored.parameters() == {"a": "b"}


def test_a_run_is_created_once_though_the_server_answers_too_late(
    server: Server, database: Database, tmp_path: Path
) -> None:
    """Each request to create it is carried out in the end, but the answers of the first ones are lost."""
    journal(tmp_path / "late", [Point("loss", 0.5 * i, now(), i) for i in range(10)])
    stored = Stored(database, tmp_path / "late")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO runs%'"
    with sending(server, tmp_path / "late", MLFLOW_HTTP_REQUEST_TIMEOUT="2") as process:
        with database.connection() as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE runs IN EXCLUSIVE MODE")  # it may be read, but not written
            wait_for("two requests for one run", lambda: database.rows(waiting)[0][0] >= 2)
            connection.rollback()
        done = ended(process, PATIENCE)
    assert done.status == 0, done.err
    assert len(stored.ids()) == 1
    assert stored.points() == [("loss", i, 0.5 * i) for i in range(10)] and stored.end()[0] == "FINISHED"
