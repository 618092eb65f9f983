"""`suite.runs` and the directories of runs: states, resuming, marking killed runs, cleaning."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, Done, ask, command, ended, only_run, said, sets, start

from leaderboard import collect
from suite.runtime import session
from suite.runtime.run_directory import state
from suite.storage.files import sha256
from suite.storage.journal import Journal
from suite.storage.locks import locked
from suite.sweep.__main__ import main as sweep_main
from suite.tracking.store import stores
from suite.tracking.uri import default_uri

FIVE = sets("ITERATIONS = 5", "NETWORKS = 1", "VALIDATION_POINTS = 1")


def go(data_dir: Path, out: Path, *words: str) -> Done:
    return command(*QUICK, *FIVE, *words, "--data-dir", data_dir, "--out", out, "--tracking-uri", "none")


def listed(out: Path) -> list[dict[str, Any]]:
    rows = json.loads(ask("--out", out, "--json").out)
    assert isinstance(rows, list)
    return rows


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Arrange for a signal to this process at a step."""
    progress = session.RunSession.progress

    def arrange(step: int | None) -> None:
        def went(self: session.RunSession, iteration: int, total: int, words: str) -> None:
            if iteration == step:
                os.kill(os.getpid(), signal.SIGTERM)
            progress(self, iteration, total, words)

        monkeypatch.setattr(session.RunSession, "progress", went)

    return arrange


# ---------------------------------------------------------------- list


def test_every_state_is_listed_as_it_is(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    assert go(data_dir, tmp_path).status == 0
    stop_at(3)
    assert go(data_dir, tmp_path, "--seed", "1").status == 75
    failed = go(data_dir, tmp_path, "--seed", "2", *sets("OUTER_LR = 1e30", "experiments.distillation.clip = None"))
    assert failed.status == 1
    by_seed = {int(row["run"].split("seed")[1][0]): row for row in listed(tmp_path)}
    assert {seed: row["state"] for seed, row in by_seed.items()} == {0: "finished", 1: "stopped", 2: "failed"}
    assert (by_seed[0]["done"], by_seed[0]["total"], by_seed[1]["done"]) == (5, 5, 3)
    assert 0 <= by_seed[0]["validation"] <= 100 and 0 <= by_seed[0]["age"] < 600
    with locked(tmp_path / by_seed[1]["run"] / ".lock"):
        assert listed(tmp_path)[1]["state"] == "running"
    text = ask("--out", tmp_path).out.splitlines()
    columns = ["data set", "I/C", "method", "seed", "state", "progress", "validation", "test", "age", "run"]
    assert [part.strip() for part in text[0].split("  ") if part.strip()] == columns
    assert len(text) == 4 and "digits" in text[1] and "outer_optimizer.lr=1e+30" in text[3]
    assert by_seed[0]["test"] is not None and by_seed[1]["test"] is None
    record = json.loads((tmp_path / by_seed[0]["run"] / "result.json").read_text())
    measured = {(m["method"], m["split"]): m["mean"] for m in record["measurements"]}
    assert by_seed[0]["validation"] == measured["memory", "validation"]  # and not the curve's last, of a trial network
    assert "3/5" in text[2] and "stopped" in text[2]
    one = ask("list", "seed1", "--out", tmp_path).out.splitlines()
    assert len(one) == 2 and "seed1" in one[1]


@pytest.mark.parametrize("words", [["list", "nothing"], ["resume", "nothing"]])
def test_a_run_that_is_not_there_is_one_sentence(words: list[str], data_dir: Path, tmp_path: Path) -> None:
    done = ask(*words, "--out", tmp_path)
    assert done.status == 2 and done.err.count("\n") == 1 and "'nothing'" in done.err
    assert ask("--out", tmp_path / "no").status == 2
    assert ask("--out", tmp_path).out == f"no runs in {tmp_path}\n"


def test_methods_of_separate_commands_are_told_apart_and_filtered(data_dir: Path, tmp_path: Path) -> None:
    for optimizer in ("sgd_momentum", "adam"):
        assert go(data_dir, tmp_path, *sets(f"INNER_OPTIMIZER = @inner_optimizers.{optimizer}()")).status == 0
    methods = {row["method"] for row in listed(tmp_path)}
    assert methods == {"inner_optimizer=adam", "inner_optimizer=sgd_momentum"}
    (only,) = json.loads(ask("--out", tmp_path, "--json", "--method", "Adam", "--data-set", "DIGITS").out)
    assert only["method"] == "inner_optimizer=adam" and (only["images_per_class"], only["seed"]) == (1, 0)
    assert 0 <= only["test"] <= 100
    none = ask("--out", tmp_path, "--state", "killed")
    assert none.status == 0 and none.out == f"no run in {tmp_path} has all of that\n"


def test_a_record_that_is_none_has_no_accuracy(data_dir: Path, tmp_path: Path) -> None:
    assert go(data_dir, tmp_path).status == 0
    (only_run(tmp_path) / "result.json").write_text("{}")
    assert [row["test"] for row in listed(tmp_path)] == [None]


# ---------------------------------------------------------------- delete


def test_runs_are_deleted_after_a_question(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert go(data_dir, tmp_path).status == go(data_dir, tmp_path, "--seed", "1").status == 0
    for words in ([], [""], ["seed0", "--state", "failed"]):
        assert ask("delete", *words, "--yes", "--out", tmp_path).status == 2 and len(listed(tmp_path)) == 2
    refused = ask("delete", "seed0", "--out", tmp_path)  # nobody is there to be asked
    assert refused.status == 1 and "--yes deletes 1 run" in refused.err and len(listed(tmp_path)) == 2
    monkeypatch.setattr("suite.runs._agreed", lambda question: "delete 1 run" in question)
    done = ask("delete", "seed0", "--out", tmp_path)
    assert done.status == 0 and "MiB" in done.out
    (left,) = listed(tmp_path)
    assert "seed1" in left["run"]
    with locked(tmp_path / left["run"] / ".lock"):
        held = ask("delete", "seed1", "--out", tmp_path, "--yes")
    assert held.status == 1 and "stays: a process is at work on it" in held.err and len(listed(tmp_path)) == 1
    assert ask("delete", "seed1", "--out", tmp_path, "--yes").status == 0 and not listed(tmp_path)


def test_what_is_no_run_is_not_deleted(tmp_path: Path) -> None:
    """Any folder of two levels that has a file called run.json looks like a run's."""
    thing = tmp_path / "project" / "thing"
    thing.mkdir(parents=True)
    (thing / "run.json").write_text("{}")
    (thing / "thesis.tex").write_text("years of work")
    done = ask("delete", "thing", "--yes", "--out", tmp_path)
    assert done.status == 2 and "is not deleted" in done.err and (thing / "thesis.tex").is_file()


def test_a_damaged_run_json_takes_no_method_from_the_others(data_dir: Path, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        assert go(data_dir, tmp_path, "--seed", seed).status == 0
    next(tmp_path.glob("*/*seed1-*/run.json")).write_text("{")
    assert [row["method"] for row in listed(tmp_path)] == ["", ""]


# ---------------------------------------------------------------- resume


def test_resume_brings_a_stopped_run_to_the_same_bits(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    assert go(data_dir, tmp_path / "whole").status == 0
    stop_at(3)
    assert go(data_dir, tmp_path / "out").status == 75
    stop_at(None)
    done = ask("resume", "--out", tmp_path / "out")
    assert done.status == 0 and "resuming from the checkpoint of step 3" in done.err, done.err
    memories = [(only_run(tmp_path / o) / "memory.safetensors").read_bytes() for o in ("whole", "out")]
    assert sha256(memories[0]) == sha256(memories[1])
    assert ask("resume", "--out", tmp_path / "out").out == "no runs to resume\n"


@pytest.mark.parametrize("by", ["command", "resume"])
def test_a_run_with_a_name_of_before_goes_on_in_its_directory(
    by: str, data_dir: Path, tmp_path: Path, stop_at: Any
) -> None:
    """Directories were called by cell and seed once. The key in the name is what counts."""
    stop_at(3)
    assert go(data_dir, tmp_path).status == 75
    new = only_run(tmp_path)
    old = new.rename(new.with_name(f"seed0-{new.name.rpartition('-')[2]}"))
    stop_at(None)
    done = go(data_dir, tmp_path) if by == "command" else ask("resume", "--out", tmp_path)
    assert done.status == 0 and "resuming from the checkpoint of step 3" in done.err, done.err
    assert only_run(tmp_path) == old and [row["run"] for row in listed(tmp_path)] == [f"quickstart/{old.name}"]
    again = go(data_dir, tmp_path)
    assert "was done before" in again.err and str(old / "figures") in again.out
    assert collect.main([str(tmp_path), "--to", str(tmp_path / "kept")]) == 0
    assert (tmp_path / "kept" / "quickstart" / old.name / "result.json").is_file()
    if by == "command":
        assert go(data_dir, tmp_path, "--fresh").status == 0  # what is made anew has the name of today
        (anew,) = [path for path in old.parent.iterdir() if not path.name.startswith(".") and "old" not in path.name]
        assert anew == new and (old.parent / f"{old.name}.old1" / "result.json").is_file()


def test_a_failed_run_is_resumed_only_by_name(data_dir: Path, tmp_path: Path) -> None:
    bad = sets("OUTER_LR = 1e30", "experiments.distillation.clip = None")
    assert go(data_dir, tmp_path, *bad).status == 1
    assert ask("resume", "--out", tmp_path).out == "no runs to resume\n"
    done = ask("resume", "seed0", "--out", tmp_path)
    assert done.status == 1 and "became NaN or infinite" in done.err


# ---------------------------------------------------------------- killed runs


DIES = """
import os, signal
from suite.runtime import session

def went(self, iteration, total, words):
    if iteration == 3:
        os.kill(os.getpid(), signal.SIGKILL)

session.RunSession.progress = went
"""


@pytest.mark.slow
def test_a_killed_run_is_marked_by_the_first_command_that_lists_it(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(DIES)
    place = ["--data-dir", data_dir, "--out", tmp_path / "out", "--tracking-uri", "none"]
    assert ended(start(*QUICK, *FIVE, *place, "--plugin", tmp_path / "dies.py")).status == -signal.SIGKILL
    directory = only_run(tmp_path / "out")
    assert Journal(directory).status == "RUNNING" and state(directory) == "killed"
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "out", copy)
    (row,) = listed(tmp_path / "out")
    assert row["state"] == "killed" and Journal(directory).status == "KILLED"
    assert "no killed run was left unmarked" in ask("reap", "--out", tmp_path / "out").out  # the list has marked it
    reaped = ask("reap", "--out", copy)
    assert reaped.status == 0 and "seed0" in reaped.out and "resumable" in reaped.out
    assert Journal(only_run(copy)).status == "KILLED"
    (tmp_path / "dies.py").write_text("")  # a resumed run loads the same plugins, if they are named again
    assert (
        ask("resume", "--out", copy, "--plugin", tmp_path / "dies.py").status == 0
        and listed(copy)[0]["state"] == "finished"
    )


def test_a_run_at_work_is_not_marked_as_killed(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    stop_at(2)
    go(data_dir, tmp_path)
    directory = only_run(tmp_path)
    Journal(directory).mark("RUNNING")
    with locked(directory / ".lock"):
        assert (
            "no killed run was left unmarked" in ask("reap", "--out", tmp_path).out
            and listed(tmp_path)[0]["state"] == "running"
        )
    assert Journal(directory).status == "RUNNING"
    assert listed(tmp_path)[0]["state"] == "killed"


def test_a_run_killed_after_its_record_and_before_the_journal_s_end_is_finished(data_dir: Path, tmp_path: Path) -> None:
    assert go(data_dir, tmp_path).status == 0
    journal = only_run(tmp_path) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b"FINISHED" not in line and b'"artifact"' not in line))
    assert Journal(journal.parent).status == "RUNNING"
    assert "no killed run was left unmarked" in ask("reap", "--out", tmp_path).out
    assert Journal(journal.parent).status == "FINISHED" and b"result.json" in journal.read_bytes()


@pytest.mark.slow
def test_reap_sends_also_what_was_marked_before(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    stop_at(2)
    go(data_dir, tmp_path)
    directory = only_run(tmp_path)
    about = json.loads((directory / "run.json").read_text())
    about["options"]["tracking_uri"] = default_uri(tmp_path)
    (directory / "run.json").write_text(json.dumps(about))
    Journal(directory).mark("RUNNING")
    assert listed(tmp_path)[0]["state"] == "killed"  # marked, and not sent
    assert ask("reap", "--out", tmp_path).status == 0
    assert stores(directory) == [default_uri(tmp_path)]


def test_reap_leaves_finished_tables_alone_and_is_stopped_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished table, which has no record of its own, was called dead, and its server untold."""
    table = Journal(tmp_path / "several" / ".table-1")
    table.begin("several", "bptt", {}, {})
    table.mark("RUNNING")
    table.mark("FINISHED")
    monkeypatch.setattr("suite.runs.stores", lambda directory: ["http://server"])
    done = ask("reap", "--out", tmp_path)
    assert (done.status, done.err, done.out) == (0, "", "no killed run was left unmarked\n")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("suite.runtime.run_directory.mark_dead", interrupt)
    stopped = ask("reap", "--out", tmp_path)
    assert stopped.status == 75 and stopped.err == "suite.runs: stopped; give the command again\n"


def test_one_run_that_can_not_be_resumed_does_not_stop_the_others(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    stop_at(2)
    for seed in ("0", "1"):
        assert go(data_dir, tmp_path, "--seed", seed).status == 75
    stop_at(None)
    (first,) = tmp_path.glob("quickstart/*seed0-*")
    for damage in (b"{}", b"", b'{"cell": 1}'):
        (first / "run.json").write_bytes(damage)
        assert ask("--out", tmp_path).status == 0
    done = ask("resume", "--out", tmp_path)
    assert done.status == 1 and "run.json is damaged" in done.err
    (second,) = tmp_path.glob("quickstart/*seed1-*")
    assert (second / "result.json").is_file() and not (first / "result.json").exists()


def test_a_run_named_by_its_folder_is_resumed_there(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    stop_at(2)
    assert go(data_dir, tmp_path).status == 75
    stop_at(None)
    assert ask("resume", "--out", only_run(tmp_path)).status == 0
    assert (only_run(tmp_path) / "result.json").is_file()


# ---------------------------------------------------------------- another configuration


def test_another_configuration_starts_beside_and_reports_the_difference(
    data_dir: Path, tmp_path: Path, stop_at: Any
) -> None:
    stop_at(2)
    assert go(data_dir, tmp_path).status == 75
    stop_at(None)
    first = only_run(tmp_path)
    before = {p: p.read_bytes() for p in first.rglob("*") if p.is_file()}
    other = go(data_dir, tmp_path, *sets("OUTER_LR = 0.5"))
    assert other.status == 0 and f"starts from the beginning; {first} stays as it is" in other.err
    (line,) = [line for line in other.err.splitlines() if "starts from the beginning" in line]
    assert "outer_optimizer.of.of.of.lr: " in line and ", now 0.5" in line and "inner_steps" not in line
    assert {p: p.read_bytes() for p in first.rglob("*") if p.is_file()} == before
    another_method = go(data_dir, tmp_path, *sets("INNER_OPTIMIZER = @inner_optimizers.no_momentum()"))
    assert another_method.status == 0 and "starts from the beginning" not in another_method.err


def test_a_directory_with_another_configuration_in_it_is_refused(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    stop_at(2)
    assert go(data_dir, tmp_path).status == 75
    stop_at(None)
    right = only_run(tmp_path)
    assert go(data_dir, tmp_path / "b", *sets("OUTER_LR = 0.5")).status == 0
    name = only_run(tmp_path / "b").name
    shutil.copytree(right, right.parent / name)  # somebody renames a directory
    refused = go(data_dir, tmp_path, *sets("OUTER_LR = 0.5"))
    assert refused.status == 1 and "holds a run of another configuration" in refused.complaint
    assert "outer_optimizer.of.of.of.lr" in refused.complaint and "--fresh" in refused.complaint
    assert go(data_dir, tmp_path, *sets("OUTER_LR = 0.5"), "--fresh").status == 0


def test_resuming_in_another_environment_is_reported_and_recorded(
    data_dir: Path, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(2)
    assert go(data_dir, tmp_path).status == 75
    stop_at(None)
    monkeypatch.setattr("suite.runtime.environment._processor", lambda: "another processor")
    done = go(data_dir, tmp_path, "--json")
    assert done.status == 0 and "resumes in another environment (processor: " in done.err
    (change,) = done.record["environment"]["mixed"]
    assert change.endswith("now another processor") and done.record["cost"]["attempts"] == 2
    whole = go(data_dir, tmp_path / "whole", "--json")
    assert whole.record["environment"]["mixed"] == [] and whole.record["cost"]["attempts"] == 1


def test_a_run_that_is_moved_to_another_place_and_machine_goes_on_to_the_same_bits(
    data_dir: Path, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder, another copy of the data, another processor, and nothing left where the run was."""

    def words(name: str) -> list[str]:
        place = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / name), "--tracking-uri", "none"]
        return [*QUICK, *FIVE, *place]

    stop_at(3)
    assert go(data_dir, tmp_path / "one").status == 75
    stop_at(None)
    run = only_run(tmp_path / "one")
    (tmp_path / "two").mkdir()
    shutil.move(run.parent, tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    shutil.copytree(data_dir, tmp_path / "data")
    monkeypatch.setattr("suite.runtime.environment._processor", lambda: "another processor")
    swept = said(sweep_main, [*words("two"), "--status"])
    assert swept.out.startswith("stopped"), swept.out + swept.err
    moved, whole = (command(*words(name), "--json") for name in ("two", "whole"))
    assert moved.status == 0 and "resuming from the checkpoint of step 3" in moved.err, moved.err
    assert not (tmp_path / "one").exists()
    left_out = {"environment", "cost", "finished_at"}
    same = [{name: value for name, value in done.record.items() if name not in left_out} for done in (moved, whole)]
    assert same[0] == same[1] and moved.record["cost"]["attempts"] == 2
    assert moved.record["environment"]["mixed"] and not whole.record["environment"]["mixed"]
    memories = [(only_run(tmp_path / name) / "memory.safetensors").read_bytes() for name in ("two", "whole")]
    assert memories[0] == memories[1]


# ---------------------------------------------------------------- clean


def test_reap_and_clean_are_for_all(data_dir: Path, tmp_path: Path) -> None:
    for action in ("reap", "clean"):
        done = ask(action, "seed3", "--yes", "--out", tmp_path)
        assert done.status == 2 and f"{action} is for all runs" in done.err


def test_a_run_whose_name_looks_set_aside_is_not_cleaned_away(data_dir: Path, tmp_path: Path) -> None:
    axes = {"network": {"mlp.old": ["OUTER_LR = 0.1"]}}
    assert go(data_dir, tmp_path, *sets(f"run.axes = {axes!r}")).status == 0
    (row,) = listed(tmp_path)
    assert "mlp.old" in row["run"]
    assert ask("clean", "--yes", "--out", tmp_path).status == 0
    assert (tmp_path / row["run"] / "result.json").is_file()


def test_nothing_is_cleaned_away_from_a_run_at_work(data_dir: Path, tmp_path: Path) -> None:
    assert go(data_dir, tmp_path).status == 0
    directory = only_run(tmp_path)
    with locked(directory / ".lock"):
        done = ask("clean", "--yes", "--out", tmp_path)
    assert done.status == 0 and (directory / "checkpoints").is_dir()
    (directory / "result.json").unlink()  # what was finished when it was listed, and is not any more
    assert ask("clean", "--yes", "--out", tmp_path).status == 0 and any((directory / "checkpoints").iterdir())


def test_damaged_checkpoints_stay_where_nothing_else_is_left(data_dir: Path, tmp_path: Path, stop_at: Any) -> None:
    stop_at(2)
    assert go(data_dir, tmp_path).status == 75
    stop_at(None)
    for step in (only_run(tmp_path) / "checkpoints").iterdir():
        (step / "state.json").write_bytes(b"")
    assert go(data_dir, tmp_path).status == 1
    assert ask("clean", "--yes", "--out", tmp_path).status == 0
    refused = go(data_dir, tmp_path)
    assert refused.status == 1 and "no checkpoint" in refused.complaint


def test_clean_deletes_what_no_result_depends_on_and_only_with_yes(
    data_dir: Path, tmp_path: Path, stop_at: Any
) -> None:
    assert go(data_dir, tmp_path).status == 0
    assert go(data_dir, tmp_path, "--fresh").status == 0
    stop_at(3)
    assert go(data_dir, tmp_path, "--seed", "1").status == 75
    (stopped,) = tmp_path.glob("quickstart/*seed1-*")
    (finished,) = [p for p in tmp_path.glob("quickstart/*seed0-*") if "old" not in p.name]
    (stopped / "checkpoints" / "damaged-step-00000001").mkdir()
    half, young = finished / ".metrics.csv.1.tmp", finished / ".memory.1.tmp"
    half.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(half, (0, 0))
    before = sorted(tmp_path.rglob("*"))
    done = ask("clean", "--out", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before and "--yes" in done.out
    listed_paths = [line.split("  (")[0] for line in done.out.splitlines()[:-1]]
    going = {str(p.relative_to(tmp_path)) for p in (finished / "checkpoints", half)}
    going |= {f"quickstart/{finished.name}.old1", f"quickstart/{stopped.name}/checkpoints/damaged-step-00000001"}
    assert set(listed_paths) == going
    assert ask("clean", "--yes", "--out", tmp_path).status == 0
    assert not any((tmp_path / name).exists() for name in going) and young.exists()
    stop_at(None)
    assert go(data_dir, tmp_path, "--json").record  # the record is still there
    assert ask("resume", "--out", tmp_path).status == 0 and "result.json" in {p.name for p in stopped.iterdir()}
