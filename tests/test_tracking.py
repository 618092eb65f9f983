"""Tracking: what an MLflow store holds of runs that finished, failed, were stopped, or were sent twice."""

import getpass
import os
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from board import record
from command_line import QUICK, TABLE, Done, command, ended, only_run, resolve, sets, start

from suite.errors import RunError
from suite.registry import describe
from suite.runtime import session
from suite.runtime.environment import code_state
from suite.runtime.record import of_memory
from suite.runtime.tracked import end_table
from suite.storage.journal import Journal, Point, read
from suite.tracking.names import accepted
from suite.tracking.pages import EXPERIMENT_TAGS, address
from suite.tracking.store import LONGEST_PARAMETER, SENT, Store, flat, page
from suite.tracking.uri import default_uri

ARTIFACTS = {"config.gin", "operative.gin", "memory.safetensors", "metrics.csv", "result.json"}
PICTURES = {"recalled.png", "bases.png", "coefficients.png", "similarity.png", "curves.png", "stages.png"}


class Seen:
    """An MLflow store, as another program reads it."""

    def __init__(self, out: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.tracking import MlflowClient

            self.client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")

    def runs(self, experiment: str = "quickstart") -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known = self.client.get_experiment_by_name(experiment)
            assert known is not None
            return list(self.client.search_runs([known.experiment_id], order_by=["attributes.start_time ASC"]))

    def history(self, run: Any, metric: str) -> list[tuple[int, float]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, metric)]

    def artifacts(self, run: Any, folder: str | None = None) -> set[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            artifacts = self.client.list_artifacts(run.info.run_id, folder)
            return {Path(entry.path).name for entry in artifacts if not entry.is_dir}


@pytest.fixture(scope="module")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty store: making one takes seconds, copying one does not."""
    out = tmp_path_factory.mktemp("store")
    Store(default_uri(out), out).connect()
    return (out / "mlflow.db").read_bytes()


@pytest.fixture
def out(tmp_path: Path, fresh_database: bytes) -> Path:
    """An output directory with an empty store in it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlflow.db").write_bytes(fresh_database)
    return tmp_path / "out"


# ---------------------------------------------------------------- a run


@pytest.mark.slow
def test_a_finished_run_is_in_the_store_with_all_it_found(data_dir: Path, out: Path) -> None:
    done = command(*QUICK, "--data-dir", data_dir, "--out", out, "--json")
    assert done.status == 0, done.err
    store = Seen(out)
    (run,) = store.runs()
    assert run.info.status == "FINISHED" and run.info.run_name == "digits 1 I/C addressing mlp outer adam, seed 0"
    assert run.data.tags["suite.run_key"] == done.record["run_key"] and run.data.tags["suite.scale"] == "smoke"
    expected = flat(describe(resolve(*_split(QUICK))[0].experiment)) | {"seed": "0"}
    assert run.data.params == expected
    assert run.data.params["objective.inner_optimizer.momentum"] == "0.9" and run.data.params["dataset"] == "digits"
    assert [step for step, _ in store.history(run, "loss")] == [1, 2]
    assert [step for step, _ in store.history(run, "validation_accuracy")] == [0, 2]
    (measured,) = [m for m in of_memory(done.record) if m["split"] == "test"]
    assert store.history(run, "test_accuracy/memory") == [(2, measured["mean"])]
    assert store.artifacts(run) >= ARTIFACTS and store.artifacts(run, "figures") == PICTURES
    tags = run.data.tags
    assert tags["mlflow.user"] == getpass.getuser() and tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.source.name"] and tags.get("mlflow.source.git.commit") == code_state()["commit"]
    assert "thread" in tags["suite.hardware"]
    assert f"| memory | {measured['mean']:.1f} ± " in tags["mlflow.note.content"]
    assert tags["mlflow.note.content"].endswith(
        f"(get-artifact?path=figures%2Frecalled.png&run_uuid={run.info.run_id})"
    )
    assert of_data(run) == [("digits", done.record["facts"]["dataset_digest"][:36], "training")]
    numbers = run.data.metrics  # what accuracies are plotted against in MLflow's compare view
    assert (numbers["stored_numbers"], numbers["images_per_class"]) == (624, 0.975)
    assert numbers["cost/iterations_per_second"] == pytest.approx(1 / done.record["cost"]["seconds_per_iteration"])
    assert numbers["cost/process_peak_memory_mib"] > 0 and numbers["cost/distillation_seconds"] > 0
    assert numbers["test_accuracy/memory_std"] == measured["std"]
    experiment = store.client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert page(only_run(out), default_uri(out)) == address(run.info.experiment_id)
    # The same command again records nothing more.
    assert command(*QUICK, "--data-dir", data_dir, "--out", out).status == 0
    assert len(store.runs()) == 1 and store.runs()[0].info.end_time == run.info.end_time


def of_data(run: Any) -> list[tuple[str, str, str]]:
    """The data sets of a run: name, digest and what it was used for."""
    inputs = run.inputs.dataset_inputs
    return [(one.dataset.name, one.dataset.digest, tag.value) for one in inputs for tag in one.tags]


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    return [v for k, v in pairs if k == "--gin"], [v for k, v in pairs if k == "--set"]


@pytest.mark.slow
def test_a_table_is_a_parent_with_a_child_for_each_of_its_runs(data_dir: Path, out: Path) -> None:
    table = [*QUICK, *sets(f"run.axes = {TABLE!r}", "NETWORKS = 1", "ITERATIONS = 1"), "--data-dir", data_dir]
    for _ in range(2):  # the second time everything was done before
        assert command(*table, "--out", out).status == 0
        runs = Seen(out).runs()
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        (parent,) = [run for run in runs if run not in children]
        names = {f"digits 1 I/C {momentum} momentum mlp outer adam, seed 0" for momentum in ("no", "full")}
        assert {run.info.run_name for run in children} == names
        measured = {run.data.params["momentum"]: run.data.metrics for run in children}
        for momentum, of_child in measured.items():
            mean = parent.data.metrics[f"test_accuracy/memory/{momentum.replace(' ', '_')}"]
            assert mean == of_child["test_accuracy/memory"] and of_child["cost/distillation_seconds"] > 0
            assert of_child["stored_numbers"] == 624
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert parent.info.run_name == "digits 1 I/C (table of 2 runs)"
        assert parent.data.params["momentum"] == "no momentum | full momentum"
        assert (parent.data.params["dataset"], parent.data.params["seed"]) == ("digits", "0")
        assert [name for name, _, _ in of_data(parent)] == ["digits"]
        assert "| full momentum | memory | " in parent.data.tags["mlflow.note.content"]
        assert {run.data.params["momentum"] for run in children} == {"no momentum", "full momentum"}


@pytest.mark.slow
def test_a_failed_run_says_so_and_keeps_the_traceback(
    data_dir: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite.evaluation import evaluate

    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("a fault\nof two lines")

    monkeypatch.setattr(evaluate, "train_group", broken)
    done = command(*QUICK, *sets("VALIDATION_POINTS = 0"), "--data-dir", data_dir, "--out", out)
    assert done.status == 1 and "ZeroDivisionError" in done.complaint and "failure.txt" in done.complaint
    (run,) = Seen(out).runs()
    assert run.info.status == "FAILED" and "failure.txt" in Seen(out).artifacts(run)
    assert "Traceback" in (only_run(out) / "failure.txt").read_text()
    monkeypatch.undo()
    assert command(*QUICK, *sets("VALIDATION_POINTS = 0"), "--data-dir", data_dir, "--out", out).status == 0
    (run,) = Seen(out).runs()  # the same run went on
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_a_stopped_run_is_killed_and_goes_on_as_the_same_with_each_point_once(
    data_dir: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = session.RunSession.progress

    def went(self: session.RunSession, iteration: int, total: int, words: str) -> None:
        if iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        progress(self, iteration, total, words)

    arguments = [*QUICK, *sets("ITERATIONS = 5", "NETWORKS = 1"), "--data-dir", data_dir, "--out", out]
    monkeypatch.setattr(session.RunSession, "progress", went)
    assert command(*arguments).status == 75
    store = Seen(out)
    (stopped,) = store.runs()
    assert stopped.info.status == "KILLED" and [step for step, _ in store.history(stopped, "loss")] == [1, 2, 3]
    monkeypatch.undo()
    assert command(*arguments).status == 0
    (run,) = store.runs()
    assert run.info.run_id == stopped.info.run_id and run.info.status == "FINISHED"
    assert [step for step, _ in store.history(run, "loss")] == [1, 2, 3, 4, 5]
    assert store.history(run, "loss")[:3] == store.history(stopped, "loss")[:3]


@pytest.mark.slow
def test_a_store_that_lost_the_run_gets_a_new_one(
    data_dir: Path, out: Path, fresh_database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deleted the database between two attempts."""
    from suite.evaluation import evaluate

    monkeypatch.setattr(evaluate, "train_group", lambda *_: 1 / 0)
    arguments = [*QUICK, *sets("VALIDATION_POINTS = 0"), "--data-dir", data_dir, "--out", out]
    assert command(*arguments).status == 1
    monkeypatch.undo()
    (out / "mlflow.db").write_bytes(fresh_database)
    done = command(*arguments)
    assert done.status == 0, done.err
    assert [run.info.status for run in Seen(out).runs()] == ["FINISHED"]


# ---------------------------------------------------------------- the store


@pytest.fixture
def store(out: Path) -> Store:
    return Store(default_uri(out), out)


@pytest.fixture
def journal(out: Path) -> Journal:
    """The journal of a run that has just begun."""
    begun = Journal(out / "points" / "one")
    begun.begin("points", "one", {"suite.run_key": "k"}, {"rate": "0.1"})
    begun.mark("RUNNING")
    return begun


def points(n: int) -> list[Point]:
    return [Point("loss", 0.5 * i, 1_700_000_000_000 + i, i) for i in range(n)]


@pytest.mark.slow
def test_what_is_sent_twice_adds_nothing(store: Store, journal: Journal, out: Path) -> None:
    for n in (10, 1500, 2500):  # more than one batch
        journal.points(points(n), progress=(n, 2500))
        store.send(journal.directory)
    sent = journal.directory / SENT
    for content in (sent.read_bytes(), b"", b"{", b"[]", b'{"sqlite:": 3}', None):  # intact, damaged, absent
        sent.unlink() if content is None else sent.write_bytes(content)
        store.send(journal.directory)
    (run,) = Seen(out).runs("points")
    assert Seen(out).history(run, "loss") == [(p.iteration, p.value) for p in points(2500)]
    assert run.data.params == {"rate": "0.1"} and run.info.status == "RUNNING"


def test_a_run_is_created_once_whatever_crash_came_after(
    store: Store, journal: Journal, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("suite.tracking.store.write_atomic", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.send(journal.directory)
    Store(store.uri, out).send(journal.directory)
    assert len(Seen(out).runs("points")) == 1


@pytest.mark.slow
def test_a_database_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow does not open one that was half made when a process was killed."""
    killed = start(tmp_path / "out", "a", code=["-c", KILLED_WHILE_MAKING + STARTS])
    assert ended(killed).status == -signal.SIGKILL
    assert not (tmp_path / "out" / "mlflow.db").exists() and list((tmp_path / "out").glob(".mlflow.db.tmp"))
    assert ended(start(tmp_path / "out", "a", code=["-c", STARTS])).status == 0
    assert [run.info.status for run in Seen(tmp_path / "out").runs("together")] == ["FINISHED"]


KILLED_WHILE_MAKING = """
import os, signal
import alembic.operations
from alembic.operations import Operations
create, tables = Operations.create_table, []
def create_table(self, *arguments, **more):
    tables.append(1)
    if len(tables) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, *arguments, **more)
from alembic import op
op.create_table = lambda *a, **k: create_table(op._proxy, *a, **k)
"""


def test_states_have_the_times_at_which_they_were_written(store: Store, journal: Journal, out: Path) -> None:
    journal.mark("KILLED")
    store.send(journal.directory)
    (run,) = Seen(out).runs("points")
    entries = {e["is"] if e["is"] == "run" else e["status"]: e["time"] for e in read(journal.directory)[0]}
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("KILLED", entries["run"], entries["KILLED"])
    assert run.data.tags["suite.resumable"] == "true"
    journal.mark("RUNNING")
    store.send(journal.directory)
    assert Seen(out).runs("points")[0].info.status == "RUNNING"
    journal.mark("FINISHED")
    store.send(journal.directory)
    (run,) = Seen(out).runs("points")
    assert run.info.status == "FINISHED" and run.data.tags["suite.resumable"] == "false"


def test_a_store_that_lost_its_content_gets_everything_again(
    store: Store, journal: Journal, out: Path, fresh_database: bytes
) -> None:
    journal.points(points(3))
    store.send(journal.directory)
    (out / "mlflow.db").write_bytes(fresh_database)
    journal.points(points(5))
    Store(store.uri, out).send(journal.directory)
    (run,) = Seen(out).runs("points")
    assert [step for step, _ in Seen(out).history(run, "loss")] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_with_the_name_of_another_is_not_taken_for_it(store: Store, journal: Journal, out: Path) -> None:
    """`--fresh` put another journal there, and an old sender wrote what it knows into the new folder."""
    journal.points(points(9))
    store.send(journal.directory)
    sent = (journal.directory / SENT).read_bytes()
    shutil.rmtree(journal.directory)
    other = Journal(journal.directory)
    other.begin("points", "two", {}, {})
    other.points(points(20))
    (journal.directory / SENT).parent.mkdir()
    (journal.directory / SENT).write_bytes(sent)
    store.send(journal.directory)
    first, second = Seen(out).runs("points")
    assert len(Seen(out).history(first, "loss")) == 9 and len(Seen(out).history(second, "loss")) == 20


def test_a_child_whose_table_is_not_here_is_sent_alone(store: Store, journal: Journal, out: Path) -> None:
    journal.belongs_to(out / "points" / ".table-1")
    store.send(journal.directory)
    assert not (out / "points" / ".table-1").exists() and len(Seen(out).runs("points")) == 1


def test_tables_of_one_method_each_have_the_same_metrics(store: Store, out: Path) -> None:
    """Of three commands, one for each method, MLflow compares the parents by these names."""
    for i, method in enumerate(("sgd", "adam")):
        table = Journal(out / "several" / f".table-{i}")
        table.begin("several", method, {}, {})
        records = [record(method, seed, (60.0 + 10 * i + seed, 62.0 + 10 * i + seed)) for seed in (0, 1)]
        end_table(records, table)
        end_table(records, table)
        store.send(table.directory)
    first, second = Seen(out).runs("several")
    assert first.data.metrics.keys() == second.data.metrics.keys()
    found = second.data.metrics
    assert (found["test_accuracy/memory"], found["test_accuracy/memory/seeds"]) == (71.5, 2)
    assert found["test_accuracy/memory/interval"] == pytest.approx(12.706 * 0.5, rel=1e-3)  # t(0.975, 1) s / sqrt(2)
    assert (found["cost/seconds_per_iteration"], found["cost/iterations_per_second"]) == (0.5, 2)
    assert (found["stored_numbers"], found["images_per_class"]) == (7840, 1)
    assert [e["is"] for e in read(table.directory)[0]].count("description") == 1


def test_a_table_that_is_done_again_has_the_figures_of_its_last_runs(store: Store, out: Path) -> None:
    """The first means stayed, below a description of the second ones."""
    directory = out / "again" / ".table-1"
    Journal(directory).begin("again", "bptt", {}, {})
    for accuracy in (60.0, 60.0, 80.0, 60.0):
        end_table([record("bptt", seed, (accuracy,)) for seed in (0, 1)], Journal(directory))
        store.send(directory)
        (found,) = Seen(out).runs("again")
        assert found.data.metrics["test_accuracy/memory"] == accuracy
    assert len(Seen(out).history(found, "test_accuracy/memory")) == 3


def test_a_data_set_and_a_description_are_told_once_and_hold_nothing_back(
    store: Store, out: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for digest in ("a" * 64, "b" * 64):  # the images changed, and the run was done again
        journal.dataset("digits", digest, {"train": 7})
        journal.description("x" * 9000, [journal.directory / "figures" / "a b.png"])
        for _ in range(2):
            store.send(journal.directory)
            (journal.directory / SENT).unlink()
    (run,) = Seen(out).runs("points")
    assert sorted(of_data(run)) == [("digits", letter * 36, "training") for letter in "ab"]
    note = run.data.tags["mlflow.note.content"]
    assert len(note) == 8000
    assert note.endswith(f"x\n\n![a b](get-artifact?path=figures%2Fa+b.png&run_uuid={run.info.run_id})")
    monkeypatch.setattr("suite.tracking.store.LONGEST_DIGEST", 64)  # which MLflow refuses
    journal.mark("FINISHED")
    store.send(journal.directory)
    assert Seen(out).runs("points")[0].info.status == "FINISHED"
    assert "refused data set digits (" in capsys.readouterr().err


def test_an_experiment_of_before_is_shown_as_one_of_now(store: Store, out: Path, journal: Journal) -> None:
    store.connect()
    (tag, *_), mine = EXPERIMENT_TAGS, "what somebody chose"
    made = store._client.create_experiment("points", tags={tag: mine})
    store.send(journal.directory)
    assert Seen(out).client.get_experiment(made).tags.items() >= (EXPERIMENT_TAGS | {tag: mine}).items()


def test_names_that_mlflow_does_not_take_are_changed(store: Store, out: Path) -> None:
    journal = Journal(out / "named" / "one")
    journal.begin("named", "one", {}, {"width (units), n=1": "8", "Größe": "3"})
    store.send(journal.directory)
    assert Seen(out).runs("named")[0].data.params == {accepted("width (units), n=1"): "8", "Größe": "3"}


HOSTILE = [
    "test_accuracy/5-way,_1_shot:_memory", "lr // outer", "images / class /", "first images (no draw), k=1", "../../x",
    "/absolute", ".", "", "..", "a/./b", "@", "timing(s)", "mean@1", "x" * 324, "x" * 323 + "y", "é" * 300, "a,b",
    "a;b", "a\nb", "\t", "a\x00b", "😀", "[0, 1]",
]  # fmt: skip


def test_every_name_becomes_one_that_mlflow_takes_and_none_another_s() -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    told = [accepted(name) for name in HOSTILE]
    assert len(set(told)) == len(HOSTILE) and told == [accepted(name) for name in HOSTILE]
    for name in told:
        _validate_metric_name(name)
        _validate_param_name(name)
        assert 0 < len(name) <= 250
    usual = ["loss", "validation_accuracy/memory", "images per class", "objective.inner_steps", "Größe"]
    assert [accepted(name) for name in usual] == usual


def test_metrics_of_any_name_are_told_and_the_run_is_finished(store: Store, out: Path) -> None:
    """The README's own synthesis commands have such names: all that came after them was held back, for good."""
    journal = Journal(out / "named" / "two")
    journal.begin("named", "two", {}, {name: str(i) for i, name in enumerate(HOSTILE)})
    made = [Point(name, float(i), 1_700_000_000_000, 1) for i, name in enumerate(HOSTILE)]
    for some in (made[:20], made):  # in two goes, where names of the second could be taken for some of the first
        journal.points(some)
        store.send(journal.directory)
    journal.mark("FINISHED")
    store.send(journal.directory)
    (run,) = Seen(out).runs("named")
    assert run.info.status == "FINISHED"
    assert sorted(run.data.metrics.values()) == [float(i) for i in range(len(HOSTILE))]
    assert sorted(map(int, run.data.params.values())) == list(range(len(HOSTILE)))


def test_what_a_store_refuses_holds_nothing_else_back(
    store: Store, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("suite.tracking.store.accepted", lambda name: name)
    journal = Journal(out / "named" / "three")
    journal.begin("named", "three", {}, {"good": "1", "bad, name": "2"})
    names = ["one", "two, of them", "three", "four; of them", "five"]
    journal.points([Point(name, 1.0, 1_700_000_000_000, 1) for name in names])
    journal.mark("FINISHED")
    store.send(journal.directory)
    (run,) = Seen(out).runs("named")
    assert run.info.status == "FINISHED" and run.data.params == {"good": "1"}
    assert set(run.data.metrics) == {"one", "three", "five"}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "refused bad, name (" in said and "and 2 more" in said
    store.send(journal.directory)
    assert capsys.readouterr().err == ""  # said once


# ---------------------------------------------------------------- deleted in MLflow's pages


@pytest.mark.parametrize("more", ["metrics", "status"])
def test_a_run_that_was_deleted_is_told_anew(store: Store, journal: Journal, out: Path, more: str) -> None:
    journal.points(points(3))
    store.send(journal.directory)
    (deleted,) = Seen(out).runs("points")
    store._client.delete_run(deleted.info.run_id)
    if more == "metrics":
        journal.points(points(5))
    journal.mark("FINISHED")
    store.send(journal.directory)
    (run,) = Seen(out).runs("points")
    assert run.info.run_id != deleted.info.run_id and run.info.status == "FINISHED"
    assert len(Seen(out).history(run, "loss")) == (5 if more == "metrics" else 3)


def test_a_table_that_was_deleted_is_told_anew_with_its_next_run(store: Store, out: Path) -> None:
    table = Journal(out / "points" / ".table-1")
    table.begin("points", "points (table)", {}, {})
    table.mark("RUNNING")
    store.send(table.directory)
    store._client.delete_run(Seen(out).runs("points")[0].info.run_id)
    journal = Journal(out / "points" / "one")
    journal.begin("points", "one", {}, {})
    journal.belongs_to(table.directory)
    journal.mark("FINISHED")
    store.send(journal.directory)
    runs = {run.info.run_name: run for run in Seen(out).runs("points")}
    assert runs["one"].data.tags["mlflow.parentRunId"] == runs["points (table)"].info.run_id


def test_an_experiment_that_was_deleted_is_a_sentence_with_the_remedy(
    store: Store, journal: Journal, out: Path
) -> None:
    store.send(journal.directory)
    (run,) = Seen(out).runs("points")
    store._client.delete_experiment(run.info.experiment_id)
    other = Journal(out / "points" / "other")
    other.begin("points", "other", {}, {})
    with pytest.raises(RunError, match=r"'points' was deleted; restore it with: mlflow experiments restore"):
        store.send(other.directory)
    store._client.restore_experiment(run.info.experiment_id)
    store.send(other.directory)
    assert len(Seen(out).runs("points")) == 2


def test_two_stores_each_get_everything(journal: Journal, store: Store, out: Path, fresh_database: bytes) -> None:
    journal.points(points(2))
    store.send(journal.directory)
    (out / "second").mkdir()
    (out / "second" / "mlflow.db").write_bytes(fresh_database)
    second = Store(default_uri(out / "second"), out / "second")
    for n in (2, 4):
        journal.points(points(n))
        second.send(journal.directory)
    store.send(journal.directory)
    for place in (out, out / "second"):
        (run,) = Seen(place).runs("points")
        assert [step for step, _ in Seen(place).history(run, "loss")] == [0, 1, 2, 3]


def test_long_and_many_parameters_are_taken(store: Store, out: Path) -> None:
    journal = Journal(out / "long" / "one")
    values = {f"setting.{i}": str(i) for i in range(250)} | {"text": "x" * (LONGEST_PARAMETER + 50)}
    journal.begin("long", "one", {}, values)
    for _ in range(2):
        store.send(journal.directory)
        (journal.directory / SENT).unlink()
    (run,) = Seen(out).runs("long")
    assert len(run.data.params) == 251 and run.data.params["text"] == "x" * LONGEST_PARAMETER


def test_artifacts_go_where_they_were_and_missing_ones_are_passed_over(
    store: Store, journal: Journal, out: Path
) -> None:
    (journal.directory / "figures").mkdir()
    for name in ("a.txt", "figures/b.txt", "gone.txt"):
        (journal.directory / name).write_text(name)
    journal.artifacts([journal.directory / name for name in ("a.txt", "figures/b.txt", "gone.txt")])
    (journal.directory / "gone.txt").unlink()
    store.send(journal.directory)
    (run,) = Seen(out).runs("points")
    assert Seen(out).artifacts(run) == {"a.txt"} and Seen(out).artifacts(run, "figures") == {"b.txt"}


@pytest.mark.slow
def test_a_store_that_can_not_be_used_is_one_sentence(out: Path, journal: Journal) -> None:
    (out / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RunError, match="did not answer as it should") as error:
        Store(default_uri(out), out).send(journal.directory)
    assert "\n" not in str(error.value)
    (out / "empty").mkdir()
    with pytest.raises(RunError, match="does not say what run it is of"):
        Journal(out / "empty").mark("RUNNING")
        Store(default_uri(out / "empty"), out / "empty").send(out / "empty")


def test_mlflow_s_telemetry_is_off(store: Store) -> None:
    store.connect()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_configuration_is_flattened_for_people(tmp_path: Path) -> None:
    config = {"is": "distillation", "clip": None, "objective": {"is": "bptt", "inner": {"is": "adam", "lr": 0.1}}}
    assert flat(config) == {
        "is": "distillation",
        "clip": "None",
        "objective": "bptt",
        "objective.inner": "adam",
        "objective.inner.lr": "0.1",
    }


# ---------------------------------------------------------------- sending


def synced(*words: str | Path) -> Done:
    return ended(start(*words, code=["-m", "suite.sync"]))


@pytest.mark.slow
def test_a_run_without_a_network_is_synced_later_and_as_often_as_one_likes(data_dir: Path, out: Path) -> None:
    untracked = command(*QUICK, "--data-dir", data_dir, "--out", out, "--tracking-uri", "none")
    assert untracked.status == 0
    for _ in range(2):
        done = synced(out)
        assert done.status == 0 and "1 runs and tables of 1" in done.out, done.err
        (run,) = Seen(out).runs()
        assert run.info.status == "FINISHED" and Seen(out).artifacts(run) >= ARTIFACTS
        assert [step for step, _ in Seen(out).history(run, "loss")] == [1, 2]


def test_nothing_to_sync_is_one_sentence(tmp_path: Path) -> None:
    done = synced(tmp_path)
    assert done.status == 2 and done.err == f"suite.sync: {tmp_path} holds no runs; name the folder that --out named\n"


@pytest.mark.slow
def test_a_killed_run_is_marked_by_the_process_that_sends_for_it(out: Path, data_dir: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "dies.py"
    plugin.write_text(DIES)
    arguments = [*QUICK, *sets("ITERATIONS = 5", "NETWORKS = 1"), "--data-dir", data_dir, "--out", out]
    killed = ended(start(*arguments, "--checkpoint-seconds", "0", "--plugin", plugin))
    assert killed.status == -signal.SIGKILL
    until = time.monotonic() + 900
    while not (runs := Seen(out).runs()) or runs[0].info.status != "KILLED":
        assert time.monotonic() < until
        time.sleep(0.2)
    assert [step for step, _ in Seen(out).history(runs[0], "loss")] == [1, 2]
    assert runs[0].data.tags["suite.resumable"] == "true"
    assert command(*arguments).status == 0
    (run,) = Seen(out).runs()
    assert run.info.status == "FINISHED" and [step for step, _ in Seen(out).history(run, "loss")] == [1, 2, 3, 4, 5]


DIES = """
import os, signal
from suite.runtime import session

progress = session.RunSession.progress

def went(self, iteration, total, words):
    progress(self, iteration, total, words)
    if iteration == 3:
        os.kill(os.getpid(), signal.SIGKILL)

session.RunSession.progress = went
"""


@pytest.mark.slow
def test_one_run_is_synced_to_the_database_of_all(data_dir: Path, out: Path) -> None:
    assert command(*QUICK, "--data-dir", data_dir, "--out", out, "--tracking-uri", "none").status == 0
    done = synced(only_run(out))
    assert done.status == 0 and len(Seen(out).runs()) == 1, done.err
    assert not list(only_run(out).glob("mlflow.db"))


STARTS = """
import sys
from pathlib import Path
from suite.storage.journal import Journal
from suite.tracking.store import Store
from suite.tracking.uri import default_uri
out = Path(sys.argv[1])
journal = Journal(out / "together" / sys.argv[2])
journal.begin("together", sys.argv[2], {}, {"a": "b"})
journal.mark("FINISHED")
Store(default_uri(out), out).send(journal.directory)
"""


@pytest.mark.slow
def test_processes_that_start_together_on_a_fresh_store_all_succeed(tmp_path: Path) -> None:
    processes = [start(tmp_path / "out", str(i), code=["-c", STARTS]) for i in range(8)]
    ends = [ended(process) for process in processes]
    assert [end.status for end in ends] == [0] * 8, [end.err for end in ends]
    runs = Seen(tmp_path / "out").runs("together")
    assert len(runs) == 8 and {run.info.status for run in runs} == {"FINISHED"}
