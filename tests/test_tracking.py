"""Tracking: what a real MLflow store holds after runs that finished, failed, were stopped, or came by twice."""

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, TABLE, command, ended, only_run, resolve, sets, start

from suite import session
from suite.errors import RunError
from suite.registry import describe
from suite.tracking import LONGEST_PARAMETER, MlflowTracker, NoTracker, Point, flat

ARTIFACTS = {"config.gin", "operative.gin", "memory.safetensors", "metrics.csv", "result.json"}
PICTURES = {"recalled.png", "bases.png", "coefficients.png", "curves.png"}


class Store:
    """An MLflow store, as somebody else's program reads it."""

    def __init__(self, out: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.tracking import MlflowClient

            self.client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")

    def runs(self, experiment: str = "quickstart") -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.client.get_experiment_by_name(experiment)
            assert found is not None
            return list(self.client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]))

    def history(self, run: Any, metric: str) -> list[tuple[int, float]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, metric)]

    def artifacts(self, run: Any, folder: str | None = None) -> set[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.client.list_artifacts(run.info.run_id, folder)
            return {Path(entry.path).name for entry in found if not entry.is_dir}


@pytest.fixture(scope="module")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty store: making one takes seconds, copying one does not."""
    out = tmp_path_factory.mktemp("store")
    MlflowTracker(f"sqlite:///{out / 'mlflow.db'}", out)
    return (out / "mlflow.db").read_bytes()


@pytest.fixture
def out(tmp_path: Path, fresh_database: bytes) -> Path:
    """An output directory with an empty store in it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlflow.db").write_bytes(fresh_database)
    return tmp_path / "out"


# ---------------------------------------------------------------- a run


def test_a_finished_run_is_in_the_store_with_all_it_found(data_dir: Path, out: Path) -> None:
    done = command(*QUICK, "--data-dir", data_dir, "--out", out, "--json")
    assert done.status == 0, done.err
    store = Store(out)
    (run,) = store.runs()
    assert run.info.status == "FINISHED" and run.info.run_name == "seed 0"
    assert run.data.tags["suite.run_key"] == done.record["run_key"] and run.data.tags["suite.scale"] == "smoke"
    expected = flat(describe(resolve(*_split(QUICK))[0].experiment)) | {"seed": "0"}
    assert run.data.params == expected
    assert run.data.params["objective.inner_optimizer.momentum"] == "0.9" and run.data.params["dataset"] == "digits"
    assert [step for step, _ in store.history(run, "loss")] == [1, 2]
    assert [step for step, _ in store.history(run, "validation_accuracy")] == [0, 2]
    (figure,) = [f for f in done.record["figures"] if f["name"] == "memory" and f["split"] == "test"]
    assert store.history(run, "test_accuracy/memory") == [(2, figure["mean"])]
    assert store.artifacts(run) >= ARTIFACTS and store.artifacts(run, "figures") == PICTURES
    # The same command again records nothing more.
    assert command(*QUICK, "--data-dir", data_dir, "--out", out).status == 0
    assert len(store.runs()) == 1 and store.runs()[0].info.end_time == run.info.end_time


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    return [v for k, v in pairs if k == "--gin"], [v for k, v in pairs if k == "--set"]


def test_a_table_is_a_parent_with_a_child_for_each_of_its_runs(data_dir: Path, out: Path) -> None:
    table = [*QUICK, *sets(f"run.axes = {TABLE!r}", "NETWORKS = 1", "ITERATIONS = 1"), "--data-dir", data_dir]
    for _ in range(2):  # the second time everything was done before
        assert command(*table, "--out", out).status == 0
        runs = Store(out).runs()
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        (parent,) = [run for run in runs if run not in children]
        assert {run.info.run_name for run in children} == {"no momentum seed 0", "full momentum seed 0"}
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
        assert {run.info.status for run in runs} == {"FINISHED"} and "table" in parent.info.run_name
        assert {run.data.params["momentum"] for run in children} == {"no momentum", "full momentum"}


def test_a_failed_run_says_so_and_keeps_the_traceback(
    data_dir: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite import evaluate

    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("a fault\nof two lines")

    monkeypatch.setattr(evaluate, "train_all", broken)
    done = command(*QUICK, *sets("VALIDATION_POINTS = 0"), "--data-dir", data_dir, "--out", out)
    assert done.status == 1 and "ZeroDivisionError" in done.complaint and "failure.txt" in done.complaint
    (run,) = Store(out).runs()
    assert run.info.status == "FAILED" and "failure.txt" in Store(out).artifacts(run)
    assert "Traceback" in (only_run(out) / "failure.txt").read_text()
    monkeypatch.undo()
    assert command(*QUICK, *sets("VALIDATION_POINTS = 0"), "--data-dir", data_dir, "--out", out).status == 0
    (run,) = Store(out).runs()  # the same run went on
    assert run.info.status == "FINISHED"


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
    store = Store(out)
    (stopped,) = store.runs()
    assert stopped.info.status == "KILLED" and [step for step, _ in store.history(stopped, "loss")] == [1, 2, 3]
    monkeypatch.undo()
    assert command(*arguments).status == 0
    (run,) = store.runs()
    assert run.info.run_id == stopped.info.run_id and run.info.status == "FINISHED"
    assert [step for step, _ in store.history(run, "loss")] == [1, 2, 3, 4, 5]
    assert store.history(run, "loss")[:3] == store.history(stopped, "loss")[:3]


def test_a_store_that_lost_the_run_gets_a_new_one(
    data_dir: Path, out: Path, fresh_database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deleted the database between two sittings."""
    from suite import evaluate

    monkeypatch.setattr(evaluate, "train_all", lambda *_: 1 / 0)
    arguments = [*QUICK, *sets("VALIDATION_POINTS = 0"), "--data-dir", data_dir, "--out", out]
    assert command(*arguments).status == 1
    monkeypatch.undo()
    (out / "mlflow.db").write_bytes(fresh_database)
    done = command(*arguments)
    assert done.status == 0, done.err
    assert [run.info.status for run in Store(out).runs()] == ["FINISHED"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_note_of_the_run_s_id_that_is_damaged_costs_a_new_run_at_most(
    tracker: MlflowTracker, out: Path, content: bytes
) -> None:
    (out / "known.json").write_bytes(content)
    first = tracker.start("note", "one", {"suite.run_key": "k"}, out / "known.json")
    assert tracker.start("note", "one", {"suite.run_key": "k"}, out / "known.json") == first
    assert len(Store(out).runs("note")) == 1


# ---------------------------------------------------------------- the tracker


@pytest.fixture
def tracker(out: Path) -> MlflowTracker:
    return MlflowTracker(f"sqlite:///{out / 'mlflow.db'}", out)


def test_points_that_are_sent_twice_add_nothing(tracker: MlflowTracker, out: Path) -> None:
    run_id = tracker.start("points", "one", {"suite.run_key": "k"}, out / "known.json")
    points = [Point("loss", 0.5 * i, 1_700_000_000_000 + i, i) for i in range(2500)]  # more than one batch
    for part in (points[:10], points[:1500], points, points):
        tracker.metrics(run_id, part)
    store = Store(out)
    (run,) = store.runs("points")
    assert store.history(run, "loss") == [(p.iteration, p.value) for p in points]


def test_the_run_that_a_file_knows_is_taken_up_again(tracker: MlflowTracker, out: Path) -> None:
    tags = {"suite.run_key": "k"}
    first = tracker.start("again", "one", tags, out / "known.json")
    tracker.finish(first, "KILLED")
    assert tracker.start("again", "one", tags, out / "known.json") == first
    assert [run.info.status for run in Store(out).runs("again")] == ["RUNNING"]
    assert tracker.start("again", "one", tags, out / "other.json") != first


def test_long_and_many_parameters_are_taken(tracker: MlflowTracker, out: Path) -> None:
    run_id = tracker.start("long", "one", {"suite.run_key": "k"}, out / "known.json")
    values = {f"setting.{i}": str(i) for i in range(250)} | {"text": "x" * (LONGEST_PARAMETER + 50)}
    tracker.parameters(run_id, values)
    tracker.parameters(run_id, values)  # again, as a run does that goes on
    (run,) = Store(out).runs("long")
    assert len(run.data.params) == 251 and run.data.params["text"] == "x" * LONGEST_PARAMETER


def test_a_store_that_can_not_be_used_is_one_sentence(out: Path, tracker: MlflowTracker) -> None:
    with pytest.raises(RunError) as error:
        tracker.metrics("no-such-run", [Point("loss", 1.0, 1, 1)])
    assert "--tracking-uri none" in str(error.value) and "\n" not in str(error.value)
    (out / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RunError, match="did not answer as it should"):
        MlflowTracker(f"sqlite:///{out / 'mlflow.db'}", out / "other")


def test_nothing_is_told_to_mlflow_s_makers(tracker: MlflowTracker) -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_no_tracker_does_nothing(tmp_path: Path) -> None:
    none = NoTracker()
    run_id = none.start("a", "b", {}, tmp_path / "known.json")
    none.parameters(run_id, {"a": "b"})
    none.metrics(run_id, [Point("loss", 1.0, 1, 1)])
    none.artifact(run_id, tmp_path / "not there")
    none.finish(run_id, "FINISHED")
    assert none.uri == "none" and not list(tmp_path.iterdir())


def test_a_configuration_is_flattened_for_people(tmp_path: Path) -> None:
    config = {"is": "distillation", "clip": None, "objective": {"is": "bptt", "inner": {"is": "adam", "lr": 0.1}}}
    assert flat(config) == {
        "is": "distillation",
        "clip": "None",
        "objective": "bptt",
        "objective.inner": "adam",
        "objective.inner.lr": "0.1",
    }


STARTS = """
import sys
from pathlib import Path
from suite.tracking import open_tracker
out = Path(sys.argv[1])
tracker = open_tracker(None, out)
print("ready", flush=True)
run_id = tracker.start("together", sys.argv[2], {"suite.run_key": sys.argv[2]}, out / (sys.argv[2] + ".json"))
tracker.parameters(run_id, {"a": "b"})
tracker.finish(run_id, "FINISHED")
"""


@pytest.mark.slow
def test_processes_that_start_together_on_a_fresh_store_all_succeed(tmp_path: Path) -> None:
    processes = [start(tmp_path / "out", str(i), code=["-c", STARTS]) for i in range(4)]
    ends = [ended(process) for process in processes]
    assert [end.status for end in ends] == [0] * 4, [end.err for end in ends]
    runs = Store(tmp_path / "out").runs("together")
    assert len(runs) == 4 and {run.info.status for run in runs} == {"FINISHED"}
