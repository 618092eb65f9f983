"""Stores that misbehave, and runs that would have more sent than their own files."""

import importlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Done, said

from suite import sync
from suite.errors import RunError
from suite.storage.journal import Journal, identity, read
from suite.tracking import patience, store
from suite.tracking.pages import EXPERIMENT_TAGS
from suite.tracking.patience import NoAnswer, Patient, within
from suite.tracking.places import artifact_problem
from suite.tracking.store import SENT, Misplaced, Store, stores


def synced(*words: str | Path) -> Done:
    """`python -m suite.sync` in this process."""
    return said(sync.main, [str(word) for word in words])


def begun(directory: Path) -> Journal:
    journal = Journal(directory)
    journal.begin("points", directory.name, {}, {"rate": "0.1"})
    journal.mark("RUNNING")
    return journal


# ---------------------------------------------------------------- waiting


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes is waited for half a second, with a word after a tenth."""
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(store, "CONNECT_SECONDS", 0.5)


Answer = Callable[[BaseHTTPRequestHandler], None]


def never(request: BaseHTTPRequestHandler) -> None:
    request.server.over.wait()  # type: ignore[attr-defined]


def byte_by_byte(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    while not request.server.over.wait(0.01):  # type: ignore[attr-defined]
        request.wfile.write(b" ")
        request.wfile.flush()


def in_a_day(request: BaseHTTPRequestHandler) -> None:
    request.send_response(429)
    request.send_header("Retry-After", "86400")
    request.send_header("Content-Length", "0")
    request.end_headers()


@pytest.fixture
def server() -> Iterator[Callable[[Answer], str]]:
    """A tracking server that answers each request so; gives its address."""
    running: list[ThreadingHTTPServer] = []

    def begin(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answer(self)
                except OSError:  # who asked has gone
                    self.close_connection = True

            do_POST = do_GET

            def log_message(self, *_: object) -> None: ...

        one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        one.over = threading.Event()  # type: ignore[attr-defined]
        one.daemon_threads = True
        running.append(one)
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{one.server_address[1]}"

    yield begin
    for one in running:
        one.over.set()  # type: ignore[attr-defined]
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize("answer", [never, byte_by_byte, in_a_day])
def test_a_server_is_waited_for_with_a_word_and_not_without_end(
    answer: Answer, server: Callable[[Answer], str], impatient: None, tmp_path: Path
) -> None:
    importlib.import_module("mlflow.tracking")  # it takes seconds, which are no wait for the server
    journals = [begun(tmp_path / "points" / name) for name in ("one", "two")]
    uri = server(answer)
    done = synced(tmp_path, "--tracking-uri", uri)
    assert done.status == 1 and f"{uri} has not answered for 0 s" in done.err
    assert f"the tracking store {uri} gave no whole answer within 0.5 s" in done.err
    assert not any(stores(journal.directory) for journal in journals)


def test_after_a_wait_in_vain_the_other_runs_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        begun(tmp_path / "points" / name)
    asked: list[Path] = []

    def send(self: Store, directory: Path) -> str:
        asked.append(directory)
        if len(asked) == 2:
            raise NoAnswer("the store gave no whole answer")
        return "run"

    monkeypatch.setattr(Store, "connect", lambda self: None)
    monkeypatch.setattr(Store, "send", send)
    done = synced(tmp_path)
    assert done.status == 1 and len(asked) == 2
    assert "what comes after it was not tried" in done.err and "1 runs and tables of 3" in done.out


def test_what_is_waited_for_in_vain_is_broken_off_and_the_alarm_is_put_back(impatient: None) -> None:
    import signal

    before, over = signal.getsignal(signal.SIGALRM), threading.Event()

    class Library:
        def ask(self, answer: int) -> int:
            return answer

        def hang(self) -> None:
            while not over.is_set():
                try:
                    over.wait()
                except Exception:  # as libraries do
                    continue

    patient = Patient(Library(), "sqlite:///x")
    assert patient.ask(7) == 7 and patient.ask(answer=8, more_seconds=9.0) == 8
    with pytest.raises(NoAnswer, match=r"sqlite:///x gave no whole answer within 0\.5 s"):
        patient.hang()
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_there_is_no_alarm() -> None:
    done: list[int] = []

    def work() -> None:
        with within(1.0, "sqlite:///x"):
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


def page(token: str | None) -> Any:
    class Page(list[int]):
        pass

    one = Page([1])
    one.token = f"{token}x"  # type: ignore[attr-defined]
    return one


def test_a_list_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_PAGES", 20)
    with pytest.raises(RunError, match="more than 20 pages"):
        list(store._pages(page))
    monkeypatch.setattr(store, "LISTING_SECONDS", -1.0)
    with pytest.raises(RunError, match="no end within"):
        list(store._pages(page))


# ---------------------------------------------------------------- databases


def a_folder(file: Path) -> None:
    file.mkdir()


def no_folder(file: Path) -> None:
    file.parent.rmdir()


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def a_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def words(file: Path) -> None:
    file.write_bytes(b"this is no database" * 100)


@pytest.mark.parametrize("spoil", [a_folder, no_folder, a_pipe, a_device, words])
def test_what_can_be_no_database_is_a_sentence_at_once(
    spoil: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow tries ten times, for a minute and more without a word."""
    journal = begun(tmp_path / "runs" / "points" / "one")
    (tmp_path / "db%20x").mkdir()
    spoil(tmp_path / "db%20x" / "mlflow.db")
    monkeypatch.setattr(store, "within", lambda *_: pytest.fail("MLflow was asked"))
    done = synced(tmp_path / "runs", "--tracking-uri", f"sqlite:///{tmp_path}/db%20x/mlflow.db")
    assert done.status == 1 and done.err.count("\n") == 1 and "mlflow.db" in done.err
    assert stores(journal.directory) == []


# ---------------------------------------------------------------- where files go, and which

HTTP = "http://host:5000"


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        ("mlflow-artifacts:/1/abc/artifacts", HTTP),
        ("mlflow-artifacts://host:5000/1/abc/artifacts", HTTP),
        ("http://host:5000/api/2.0/mlflow-artifacts/artifacts/1", HTTP),
        ("http://host:80/api/2.0/mlflow-artifacts/artifacts/1", "http://host"),
        ("http://Host/api/2.0/mlflow-artifacts/artifacts/1", "http://host:80"),
        ("https://host:443/1", "https://host/"),
        ("mlflow-artifacts://host:443/1", "https://host"),
        ("mlflow-artifacts://host/1", "http://host:80"),
        ("dbfs:/databricks/mlflow-tracking/1/abc/artifacts", "databricks://profile"),
        ("dbfs:/Volumes/a/b", "databricks"),
        ("uc://a/b", "databricks"),
        ("s3://bucket/abc", "databricks"),
        ("abfss://bucket@host/abc", "databricks://profile"),
        ("file:///runs/artifacts/abc/artifacts", "sqlite:////runs/mlflow.db"),
        ("/runs/artifacts/abc/artifacts", "sqlite:////runs/mlflow.db"),
        ("file:///elsewhere/artifacts/abc", "sqlite:////elsewhere/mlflow.db"),  # which the user named
        ("s3://bucket/abc", "postgresql://user@host/mlflow"),
        ("s3://bucket/abc", HTTP),
        ("gs://bucket/abc", HTTP),
    ],
)
def test_files_go_where_the_user_pointed(place: str, uri: str) -> None:
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:") else None
    assert artifact_problem(place, uri, database, Path("/runs")) is None


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        ("file:///home/me/.ssh", HTTP),
        ("/home/me/.ssh", HTTP),
        ("./mlruns", HTTP),
        ("", HTTP),
        ("FILE:///home/me", HTTP),
        ("mlflow-artifacts://elsewhere:5000/1/abc", HTTP),
        ("mlflow-artifacts://host:5001/1/abc", HTTP),
        ("https://elsewhere/x", HTTP),
        ("http://host:443/x", "http://host"),
        ("http://host/x", "https://host"),
        ("http://me@host/x", "http://host"),
        ("http://host:99999/x", "http://host"),
        ("mlflow-artifacts://host:80/1", "https://host"),
        ("C:/home", "databricks"),
        ("sftp://me@elsewhere/abc", HTTP),
        ("http://[", HTTP),
        ("file:///tmp/x", "databricks"),
        ("file:///home/me/.ssh", "sqlite:////runs/mlflow.db"),
        ("file:///runs/../home/me", "sqlite:////runs/mlflow.db"),
        ("file:///runs/%2e%2e/home/me", "sqlite:////runs/mlflow.db"),
        ("file://elsewhere/runs/artifacts", "sqlite:////runs/mlflow.db"),
        ("s3://bucket/abc", "sqlite:////runs/mlflow.db"),
    ],
)
def test_a_store_does_not_decide_where_files_go(place: str, uri: str) -> None:
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:") else None
    assert artifact_problem(place, uri, database, Path("/runs")) is not None


class Answers:
    """An MLflow client of a server that has one run, whose files it would have at `place`."""

    def __init__(self, place: str, tags: dict[str, str]) -> None:
        self.calls: list[str] = []
        self._run = SimpleNamespace(
            info=SimpleNamespace(run_id="there", artifact_uri=place, lifecycle_stage="active", experiment_id="1"),
            data=SimpleNamespace(tags=tags),
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if name == "get_experiment_by_name":
                return SimpleNamespace(lifecycle_stage="active", experiment_id="1", tags=EXPERIMENT_TAGS)
            if name in ("search_runs", "search_experiments"):
                experiment = SimpleNamespace(experiment_id="1", tags=EXPERIMENT_TAGS)
                one = page(None)
                one[:], one.token = [self._run if name == "search_runs" else experiment], None
                return one
            return self._run

        return asked


def test_a_server_that_names_a_folder_here_gets_everything_but_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = begun(tmp_path / "out" / "points" / "one")
    (journal.directory / "a.txt").write_text("a")
    journal.artifacts([journal.directory / "a.txt"])
    journal.mark("FINISHED")
    one = Store(HTTP, tmp_path / "out")
    tags = {"suite.id": str(identity(read(journal.directory)[0]))}
    one._client = answers = Answers(f"file://{tmp_path}/home", tags)
    with pytest.raises(Misplaced, match=r"refused a\.txt .the server .* at 'file://.*another run\.name"):
        one.send(journal.directory)
    assert "set_terminated" in answers.calls and not (tmp_path / "home").exists()
    answers.calls.clear()
    with pytest.raises(Misplaced, match=r"a\.txt"):  # again, and of the rest nothing
        one.send(journal.directory)
    assert set(answers.calls) == {"get_run"}
    one._client, sent = Answers("mlflow-artifacts:/1", tags), []
    one._repository = lambda place: SimpleNamespace(log_artifact=lambda file, *_, **__: sent.append(file))  # type: ignore[method-assign]
    assert [one.send(journal.directory), one.send(journal.directory)] == ["there", "there"]
    assert sent == [str(journal.directory / "a.txt")] and capsys.readouterr().err == ""


def test_sync_ends_with_1_where_files_have_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "points" / "one")

    def send(self: Store, directory: Path) -> str:
        raise Misplaced("http://host refused a.txt")

    monkeypatch.setattr(Store, "connect", lambda self: None)
    monkeypatch.setattr(Store, "send", send)
    done = synced(tmp_path, "--tracking-uri", HTTP)
    assert done.status == 1 and "refused a.txt" in done.err and "has everything of 0 runs" in done.out


def test_files_without_a_place_hold_no_other_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no outage: whoever follows runs says it once, tries it when the run grows, and goes on."""

    def send(self: Store, directory: Path) -> str:
        if directory.name == "bad":
            raise Misplaced("refused a.txt")
        return "there"

    monkeypatch.setattr(Store, "send", send)
    misplaced: set[Path] = set()
    for _ in range(2):
        pending = {Path("bad"): None, Path("good"): None}
        assert not sync._send_pending(Store(HTTP, tmp_path), pending, misplaced, False, False)
        assert not pending and misplaced == {Path("bad")}
    assert capsys.readouterr().err == "[tracking] refused a.txt\n"


def test_a_database_to_move_away_is_named() -> None:
    database = Path("/runs/mlflow.db")
    problem = artifact_problem("file:///elsewhere", f"sqlite:///{database}", database, Path("/runs"))
    assert problem is not None and f"move {database} away" in problem


@pytest.mark.parametrize("run_id", ["../../x", "", "a/b", ".", "a\x00b", 7, "x" * 200])
def test_a_run_s_name_in_a_store_is_no_path(run_id: Any) -> None:
    with pytest.raises(RunError, match="by no name that a run can have"):
        store._plain_id(run_id)
    assert store._plain_id("0f" * 16) == "0f" * 16


def test_files_of_this_machine_are_not_read_as_a_run_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text("{}")
    one = Store(HTTP, tmp_path / "out")
    one._client = Answers(f"file://{tmp_path}", {})
    assert list(one.download(["result.json"], tmp_path / "to")) == []
    assert "the files of run there are left out" in capsys.readouterr().err


def test_a_note_of_what_was_sent_leads_to_no_run_of_another(tmp_path: Path) -> None:
    """Somebody's folder comes with a note that names a run of one's own store."""
    journal = begun(tmp_path / "out" / "points" / "one")
    known = identity(read(journal.directory)[0])
    (journal.directory / SENT).parent.mkdir()
    (journal.directory / SENT).write_text(json.dumps({HTTP: {"id": known, "run_id": "mine", "heard": 0}}))
    one = Store(HTTP, tmp_path / "out")
    one._client = answers = Answers("", {"suite.id": "another"})
    one.send(journal.directory)
    assert answers.calls[:3] == ["get_run", "get_experiment_by_name", "search_runs"]
    assert json.loads((journal.directory / SENT).read_text())[HTTP]["run_id"] == "there"


@pytest.mark.parametrize(
    "note",
    [{"id": 1, "run_id": "a", "heard": 0}, {"id": "a", "run_id": "../a", "heard": 0}, {"id": "a", "run_id": "a"},
     {"id": "a", "run_id": "a", "heard": -5}, {"id": "a", "run_id": "a", "heard": 2**70}, {}, [], None, "x"],
)  # fmt: skip
def test_a_note_of_another_shape_is_no_note(note: Any, tmp_path: Path) -> None:
    (tmp_path / SENT).parent.mkdir()
    (tmp_path / SENT).write_text(json.dumps({HTTP: note}))
    assert stores(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_link_leads_to_is_not_sent(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = begun(tmp_path / "out" / "points" / "one")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("mine")
    (journal.directory / "good.txt").write_text("good")
    if what == "file":
        (journal.directory / "key").symlink_to(tmp_path / "private" / "key")
    else:
        (journal.directory / "figures").symlink_to(tmp_path / "private")
    names = ["good.txt", "key" if what == "file" else "figures/key"]
    sent: list[str] = []
    one = Store(HTTP, tmp_path / "out")
    one._client = Answers("mlflow-artifacts:/1", {})
    one._repository = lambda place: SimpleNamespace(log_artifact=lambda file, *_, **__: sent.append(file))  # type: ignore[method-assign]
    (refused,), *_ = one._send_files(journal.directory, "there", names)
    assert sent == [str(journal.directory / "good.txt")] and "is a link, which is not followed" in refused


def test_a_table_that_names_itself_is_sent_once(tmp_path: Path) -> None:
    """It would wait for its own lock for ever."""
    table = begun(tmp_path / "out" / "points" / ".table-1")
    table._add([{"is": "parent", "journal": "../.table-1"}])
    one = Store(HTTP, tmp_path / "out")
    one._client = Answers("", {})
    assert one.send(table.directory) == "there"


@pytest.mark.parametrize("what", ["gone", ".sending is a link"])
def test_sending_makes_no_folder_and_writes_through_no_link(what: str, tmp_path: Path) -> None:
    directory = tmp_path / "out" / "points" / "one"
    if what != "gone":
        begun(directory)
        (tmp_path / "outside").mkdir()
        (directory / ".sending").symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=r"no folder|is a link"):
        Store(HTTP, tmp_path / "out").send(directory)
    assert directory.exists() == (what != "gone") and not list((tmp_path).glob("outside/*"))


def test_an_empty_database_is_one(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "mlflow.db").close()
    Store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)._check_database()
    Store(f"sqlite:///{tmp_path}/new.db", tmp_path)._check_database()
