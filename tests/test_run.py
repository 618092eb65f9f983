"""Runs from end to end: what they leave behind, that they repeat bit by bit, and that they go on after any end."""

import csv
import io
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, TABLE, Done, command, ended, only_run, resolve, sets, start

from suite.errors import RunError
from suite.memory import Memory
from suite.registry import describe
from suite.runtime import session
from suite.runtime.environment import environment
from suite.runtime.execute import read_record
from suite.runtime.record import comparable, invalid, label
from suite.runtime.signals import Stop
from suite.runtime.tracked import begin_run
from suite.storage.files import sha256
from suite.storage.journal import Journal, read
from suite.storage.locks import locked

FILES = {"config.gin", "operative.gin", "memory.safetensors", "result.json", "metrics.csv", "run.json", "journal.jsonl"}
PICTURES = {"recalled.png", "stages.png", "bases.png", "coefficients.png", "similarity.png", "curves.png"}
LONGER = sets(
    *("ITERATIONS = 6", "VALIDATION_POINTS = 3"),
    "experiments.distillation.clip = 1e-4",  # so that the gradient's norm, a sum over all tensors, shows in the bits
)


def go(data_dir: Path, out: Path, *arguments: str | Path) -> Done:
    """The quick run without a tracker."""
    return command(*QUICK, "--data-dir", data_dir, "--out", out, "--tracking-uri", "none", *arguments)


def memory_hash(out: Path) -> str:
    return sha256((only_run(out) / "memory.safetensors").read_bytes())


@pytest.fixture(scope="module")
def out(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output directory in which the quick run was done."""
    place = tmp_path_factory.mktemp("runs")
    done = go(data_dir, place)
    assert done.status == 0, done.err
    return place


@pytest.fixture(scope="module")
def record(out: Path) -> dict[str, Any]:
    found = json.loads((only_run(out) / "result.json").read_text())
    assert isinstance(found, dict)
    return found


# ---------------------------------------------------------------- what a run leaves


def test_the_record_says_how_unrolls_were_run(record: dict[str, Any]) -> None:
    assert record["environment"]["unrolls"] == "eager" and record["config"]["objective"]["execution"] == "eager"
    assert "EXECUTION = 'auto'" in record["config_text"]


def test_a_run_leaves_its_files_and_nothing_half_done(out: Path) -> None:
    directory = only_run(out)
    names = {p.name for p in directory.iterdir() if not p.name.startswith(".")}
    assert names == FILES | {"figures", "checkpoints"}
    assert {p.name for p in (directory / "figures").iterdir()} == PICTURES
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in (directory / "figures").iterdir())
    assert all(p.stat().st_size > 0 for p in directory.rglob("*") if p.is_file() and p.name != ".lock")
    assert not list(out.rglob("*.tmp"))


def test_the_record_is_valid_and_says_what_was_measured(out: Path, record: dict[str, Any]) -> None:
    assert invalid(record) is None
    directory = only_run(out)
    assert directory.name == f"digits-1-ic-addressing-mlp-outer-adam-seed0-{record['run_key']}"
    assert record["facts"]["memory_sha256"] == sha256((directory / "memory.safetensors").read_bytes())
    assert record["config_text"] == (directory / "config.gin").read_text()
    assert record["budget"] == {"stored_numbers": 624, "images_per_class": 0.975, "recalled_per_class": 4}
    assert record["facts"]["images"] == {"train": 1210, "validation": 136, "test": 451}
    measured = {(label(m), m["split"]): m for m in record["measurements"]}
    assert set(measured) == {("memory", "test"), ("memory", "validation"), ("random real images", "test")}
    assert all(m["n"] == 2 and all(0 <= v <= 100 for v in m["values"]) for m in measured.values())


def test_a_run_that_is_smaller_than_the_paper_s_is_marked(out: Path, record: dict[str, Any]) -> None:
    assert record["scale"]["reduced"] is True and record["scale"]["label"] == "smoke"
    assert record["scale"]["fraction"] == 2 / 50_000 and "changed: networks 2 of 10" in record["scale"]["protocol"]


TITLE = "digits 1 I/C addressing mlp outer adam"
"""Of the runs of `QUICK`."""


def test_what_is_printed(data_dir: Path, tmp_path: Path) -> None:
    done = go(data_dir, tmp_path, *sets("FULL_DATA_EPOCHS = 1", "ITERATIONS = 1"))
    assert done.status == 0
    rows = done.out.splitlines()[2:5]
    assert [row.startswith(words) for words, row in zip((TITLE, "random real", "full data"), rows, strict=True)]
    assert "624 numbers" in rows[0] and "seed 0" not in done.out and "\nscale: smoke (reduced)\n" in done.out
    assert f"pictures: {only_run(tmp_path) / 'figures'}" in done.out
    assert f"-m leaderboard.serve {tmp_path}\n" in done.out
    lines = done.err.splitlines()
    assert all(line.startswith(("[cost] ", f"[{TITLE}, seed 0] ")) for line in lines)  # no terminal: no bar
    assert any("1/1" in line and "loss" in line for line in lines)
    assert any("evaluating the full data: network 1 of 1" in line for line in lines)
    # The control is measured once for equal settings and seed.
    seeds = go(data_dir, tmp_path, *sets("FULL_DATA_EPOCHS = 1", "ITERATIONS = 1"), "--verbose")
    assert "quickstart seed 0" in seeds.out and set(rows) <= set(seeds.out.splitlines())
    again = go(data_dir, tmp_path, *sets("FULL_DATA_EPOCHS = 1", "ITERATIONS = 2"), "--json")
    assert "evaluating the full data" not in again.err
    first = json.loads(next(p for p in tmp_path.glob("quickstart/*/result.json")).read_text())
    full = [[m for m in r["measurements"] if m["method"] == "full data"] for r in (first, again.record)]
    assert full[0] == full[1] and full[0][0]["n"] == 1


def test_json_on_stdout_is_the_record_alone(out: Path, record: dict[str, Any], data_dir: Path) -> None:
    assert go(data_dir, out, "--json").record == record


def test_the_metrics_file_holds_every_metric(out: Path) -> None:
    rows = list(csv.DictReader((only_run(out) / "metrics.csv").read_text().splitlines()))
    names = {row["metric"] for row in rows}
    assert {"loss", "inner_loss", "hypergradient_norm", "validation_accuracy", "test_accuracy/memory"} <= names
    assert [row["iteration"] for row in rows if row["metric"] == "loss"] == ["1", "2"]
    assert [row["iteration"] for row in rows if row["metric"] == "validation_accuracy"] == ["0", "2"]


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = sets("ITERATIONS = 8", "NETWORKS = 1")
    quiet = go(data_dir, tmp_path / "a", *many).err.splitlines()
    assert [line for line in quiet if "1/8" in line or "8/8" in line] == [line for line in quiet if "/8" in line]
    monkeypatch.setattr(session, "LINE_SECONDS", 0.0)
    lines = [line for line in go(data_dir, tmp_path / "b", *many).err.splitlines() if "/8" in line]
    assert len(lines) == 8 and all(words in lines[-1] for words in ("8/8", "it/s", "s left", "loss", "validation"))


def test_progress_of_a_second_count_is_not_measured_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as episodes of another kind, after a run went on among those of the first."""
    monkeypatch.setattr(session, "LINE_SECONDS", 0.0)
    one = session.RunSession(
        seed=0, device=torch.device("cpu"), directory=tmp_path, data_dir=tmp_path, cache_dir=tmp_path,
        journal=Journal(tmp_path), notify=lambda: None, stop=Stop(), still_held=lambda: None, label="run",
        checkpoint_seconds=60.0,
    )  # fmt: skip
    for iteration, total in ((90, 100), (100, 100), (1, 100), (2, 100), (3, 8), (4, 8)):
        one.progress(iteration, total, "words")
    rates = [re.search(r"(-?[\d.]+) it/s", line) for line in capsys.readouterr().err.splitlines()]
    assert [rate is not None for rate in rates] == [False, True, False, True, False, True]
    assert all(float(rate[1]) > 0 for rate in rates if rate is not None)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    one.progress(3, 8, "words")
    one.progress(1, 5, "words")
    assert "3/8" in terminal.getvalue() and "1/5" in terminal.getvalue()


# ---------------------------------------------------------------- once, anew, again


def test_the_same_command_again_reads_what_was_found(out: Path, record: dict[str, Any], data_dir: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in only_run(out).rglob("*") if p.is_file()}
    done = go(data_dir, out, "--json")
    assert done.status == 0 and "was done before" in done.err and done.record == record
    assert {p: p.stat().st_mtime_ns for p in only_run(out).rglob("*") if p.is_file()} == before


def change_mean(record: dict[str, Any]) -> None:
    record["measurements"][0]["mean"] = 99.0


def change_values(record: dict[str, Any]) -> None:
    for measured in record["measurements"]:
        measured |= {"values": [99.0] * measured["n"], "mean": 99.0, "std": 0.0 if measured["n"] > 1 else None}


def change_text(record: dict[str, Any]) -> None:
    record["config_text"] += "# more\n"


def change_seed(record: dict[str, Any]) -> None:
    record["seed"] = 77


def change_key(record: dict[str, Any]) -> None:
    record["run_key"] = "0" * 16


def drop_budget(record: dict[str, Any]) -> None:
    del record["budget"]


@pytest.mark.parametrize("sealed", [True, False], ids=["with its hash", "of before there was one"])
@pytest.mark.parametrize(
    "change", [change_mean, change_values, change_text, change_seed, change_key, drop_budget], ids=lambda f: f.__name__
)
def test_a_record_that_was_altered_is_not_read_back(
    change: Callable[[dict[str, Any]], None], sealed: bool, out: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("run.json", "result.json", "config.gin"):
        (directory / name).write_bytes((only_run(out) / name).read_bytes())
    (run,) = resolve([str(directory / "config.gin")])
    about, record = (json.loads((directory / name).read_text()) for name in ("run.json", "result.json"))
    if not sealed:
        del about["record_sha256"]
        (directory / "run.json").write_text(json.dumps(about))
    assert read_record(run, directory)["run_key"] == run.key
    change(record)
    (directory / "result.json").write_text(json.dumps(record))
    if change is change_values and not sealed:
        assert read_record(run, directory)["measurements"][0]["mean"] == 99.0  # nothing is left to tell by
        return
    with pytest.raises(RunError, match=r"result.json (was altered|is not a valid record): .*--fresh"):
        read_record(run, directory)


def test_an_axis_with_the_name_of_a_setting_hides_none(tmp_path: Path) -> None:
    (one,) = resolve(["gin/quickstart.gin"], ["run.axes = {'seed': {'x': ['EPOCHS = 1']}}"])
    begin_run(one, Journal(tmp_path), describe(one.experiment), environment(torch.device("cpu")))
    told = read(tmp_path)[0][0]["parameters"]
    assert (told["seed"], told["axis seed"]) == ("0", "x")


def test_fresh_keeps_the_old_and_gives_the_same_bits(data_dir: Path, tmp_path: Path) -> None:
    first = go(data_dir, tmp_path, "--json").record
    second = go(data_dir, tmp_path, "--json", "--fresh")
    third = go(data_dir, tmp_path, "--json", "--fresh")
    assert "was done before" not in second.err + third.err
    kept = sorted(p.name for p in (tmp_path / "quickstart").iterdir() if not p.name.startswith("."))
    name = only_run(tmp_path).name
    assert kept == [name, f"{name}.old1", f"{name}.old2"]
    assert json.loads((tmp_path / "quickstart" / f"{name}.old1" / "result.json").read_text()) == first
    assert comparable(first) == comparable(second.record) == comparable(third.record)
    assert second.record["cost"] != first["cost"]


def test_fresh_does_not_take_a_run_away_from_a_process_at_work(data_dir: Path, tmp_path: Path) -> None:
    go(data_dir, tmp_path)
    directory = only_run(tmp_path)
    with locked(directory / ".lock"):  # as another process would hold it
        done = go(data_dir, tmp_path, "--fresh")
    assert done.status == 1 and "another process" in done.complaint
    assert directory.is_dir() and not list(directory.parent.glob("*.old*"))


def test_another_place_gives_the_same_bits_and_another_seed_does_not(
    out: Path, record: dict[str, Any], data_dir: Path, tmp_path: Path
) -> None:
    same = go(data_dir, tmp_path / "same", "--json").record
    assert memory_hash(tmp_path / "same") == memory_hash(out) and comparable(same) == comparable(record)
    pictures = [{p.name: p.read_bytes() for p in (only_run(o) / "figures").iterdir()} for o in (out, tmp_path / "same")]
    assert pictures[0] == pictures[1]
    other = go(data_dir, tmp_path / "other", "--json", "--seed", "1").record
    assert other["seed"] == 1 and memory_hash(tmp_path / "other") != memory_hash(out)
    assert other["run_key"] != record["run_key"]


@pytest.mark.parametrize("text", ["config.gin", "operative.gin"])
def test_a_saved_configuration_gives_the_same_memory(out: Path, data_dir: Path, tmp_path: Path, text: str) -> None:
    done = command(
        *("--gin", only_run(out) / text, "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none")
    )
    assert done.status == 0, done.err
    assert memory_hash(tmp_path) == memory_hash(out) and only_run(tmp_path).name == only_run(out).name


@pytest.mark.slow
def test_a_cell_of_a_table_is_the_same_alone(data_dir: Path, tmp_path: Path) -> None:
    table = sets(f"run.axes = {TABLE!r}", "NETWORKS = 1", "ITERATIONS = 1")
    done = go(data_dir, tmp_path / "table", *table, "--json")
    assert done.status == 0, done.err
    assert [made["cell"] for made in done.record] == [{"momentum": "no momentum"}, {"momentum": "full momentum"}]
    assert done.record[0]["facts"]["memory_sha256"] != done.record[1]["facts"]["memory_sha256"]
    alone = go(data_dir, tmp_path / "alone", *table, "--only", "full momentum", "--json").record
    assert comparable(alone) == comparable(done.record[1])
    shown = go(data_dir, tmp_path / "table", *table).out
    assert "\nno momentum    " in shown and "\nfull momentum  " in shown
    assert f"pictures: {tmp_path / 'table' / 'quickstart' / '*' / 'figures'}\n" in shown


def test_logging_and_validating_do_not_change_the_memory(out: Path, data_dir: Path, tmp_path: Path) -> None:
    assert go(data_dir, tmp_path, *sets("VALIDATION_POINTS = 2", "NETWORKS = 1", "EPOCHS = 1")).status == 0
    tensors = [Memory.load(only_run(o) / "memory.safetensors").tensors for o in (out, tmp_path)]
    assert all((tensors[0][k] == tensors[1][k]).all() for k in tensors[0])


# ---------------------------------------------------------------- stopped, killed, and going on


@pytest.fixture(scope="module")
def uninterrupted(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("uninterrupted")
    assert go(data_dir, place, *LONGER).status == 0
    return place


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, signal.Signals], None]:
    """Arrange for a signal to this process the n-th time the run reports something with these words."""

    def arrange(words: str, nth: int, number: signal.Signals) -> None:
        seen = 0
        report, progress = session.RunSession.report, session.RunSession.progress

        def note(sentence: str) -> None:
            nonlocal seen
            seen += words in sentence
            if words in sentence and seen == nth:
                os.kill(os.getpid(), number)

        def reported(self: session.RunSession, sentence: str) -> None:
            note(sentence)
            report(self, sentence)

        def went(self: session.RunSession, iteration: int, total: int, more: str) -> None:
            note(f"step {iteration} of {total}")
            progress(self, iteration, total, more)

        monkeypatch.setattr(session.RunSession, "report", reported)
        monkeypatch.setattr(session.RunSession, "progress", went)

    return arrange


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("step 1 of", signal.SIGINT),
        ("step 3 of", signal.SIGTERM),
        ("step 4 of", signal.SIGUSR1),
        ("step 6 of", signal.SIGINT),
        ("evaluating the memory", signal.SIGINT),
        ("evaluating random real images", signal.SIGTERM),
    ],
)
def test_a_stopped_run_says_so_and_goes_on_to_the_same_bits(
    words: str,
    number: signal.Signals,
    at: Callable[[str, int, signal.Signals], None],
    uninterrupted: Path,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    before = signal.getsignal(number)
    at(words, 1, number)
    stopped = go(data_dir, tmp_path, *LONGER)
    assert stopped.status == 75 and number.name in stopped.complaint and "resumes" in stopped.complaint
    assert not (only_run(tmp_path) / "result.json").exists() and not stopped.out
    assert signal.getsignal(number) == before
    done = go(data_dir, tmp_path, *LONGER)
    assert done.status == 0 and "resuming from the checkpoint of step" in done.err
    assert memory_hash(tmp_path) == memory_hash(uninterrupted)
    records = [json.loads((only_run(o) / "result.json").read_text()) for o in (tmp_path, uninterrupted)]
    assert comparable(records[0]) == comparable(records[1])
    metrics = [(only_run(o) / "metrics.csv").read_text() for o in (tmp_path, uninterrupted)]
    assert metrics[0] == metrics[1]  # every step once


def test_a_table_that_is_stopped_goes_on_with_the_cells_that_are_left(
    at: Callable[[str, int, signal.Signals], None], data_dir: Path, tmp_path: Path
) -> None:
    table = sets(f"run.axes = {TABLE!r}", "NETWORKS = 1", "ITERATIONS = 2")
    at("step 1 of", 2, signal.SIGTERM)  # in the second cell
    assert go(data_dir, tmp_path, *table).status == 75
    assert len(list(tmp_path.glob("quickstart/*/result.json"))) == 1
    done = go(data_dir, tmp_path, *table, "--json")
    assert done.status == 0 and done.err.count("was done before") == 1 and len(done.record) == 2


PLUGIN = """
import os, signal, time
from suite.runtime import session

progress = session.RunSession.progress

def went(self, iteration, total, words):
    progress(self, iteration, total, words)
    if iteration == STEP:
        ACTION

session.RunSession.progress = went
"""


@pytest.fixture
def attempt(data_dir: Path, tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start a run as a process of its own that does something at a step."""

    def begin(step: int, action: str, *arguments: str) -> "subprocess.Popen[str]":
        file = tmp_path / "at_step.py"
        file.write_text(PLUGIN.replace("STEP", str(step)).replace("ACTION", action))
        place = ["--data-dir", str(data_dir), "--out", str(tmp_path / "runs"), "--tracking-uri", "none"]
        return start(*QUICK, *LONGER, *place, "--plugin", file, *arguments)

    return begin


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    attempt: Callable[..., "subprocess.Popen[str]"], uninterrupted: Path, data_dir: Path, tmp_path: Path
) -> None:
    killed = ended(attempt(5, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert killed.status == -signal.SIGKILL
    done = go(data_dir, tmp_path / "runs", *LONGER)
    assert done.status == 0 and "resuming from the checkpoint of step 4" in done.err
    assert memory_hash(tmp_path / "runs") == memory_hash(uninterrupted)


@pytest.fixture
def waiting(attempt: Callable[..., "subprocess.Popen[str]"]) -> Iterator["subprocess.Popen[str]"]:
    """A process that is at work on a run, and stays at step 3 until it is asked to stop."""
    process = attempt(3, "while self._stop.signal is None: time.sleep(0.02)")
    assert process.stderr is not None
    assert "[cost]" in process.stderr.readline()
    assert "1/6" in process.stderr.readline()
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_one_run_is_not_for_two_processes_and_a_signal_stops_it_with_75(
    waiting: "subprocess.Popen[str]", uninterrupted: Path, data_dir: Path, tmp_path: Path
) -> None:
    second = go(data_dir, tmp_path / "runs", *LONGER)
    assert second.status == 1 and "another process is at work" in second.complaint
    waiting.send_signal(signal.SIGTERM)
    first = ended(waiting)
    assert first.status == 75 and "SIGTERM" in first.complaint
    assert go(data_dir, tmp_path / "runs", *LONGER).status == 0
    assert memory_hash(tmp_path / "runs") == memory_hash(uninterrupted)


@pytest.mark.slow
def test_a_second_signal_ends_the_process_at_once(attempt: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = attempt(1, "print('here', flush=True)\n        while True: signal.pause()")
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    while "a second signal ends at once" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process).status == 128 + signal.SIGINT


# ---------------------------------------------------------------- the command itself


def test_help_loads_no_library_and_names_every_option() -> None:
    """So it takes less than a second."""
    program = """
import atexit, sys
from suite.run import main
atexit.register(lambda: print({"torch", "gin", "mlflow", "numpy", "matplotlib"} & set(sys.modules)))
main(["--help"])
"""
    done = ended(start(code=["-c", program]))
    assert done.status == 0 and not done.err and done.out.endswith("set()\n"), done
    options = ("--gin", "--set", "--seed", "--device", "--out", "--data-dir", "--tracking-uri", "--plugin", "--only")
    assert all(option in done.out for option in (*options, "--fresh", "--dry-run", "--list", "--json"))


def test_a_dry_run_needs_no_data_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*QUICK, "--dry-run", "--data-dir", tmp_path / "none", "--out", tmp_path / "runs")
    assert done.status == 0 and not list(tmp_path.iterdir())


WITHOUT_MLFLOW = """
import sys
sys.modules["mlflow"] = None
from suite.run import main
sys.exit(main())
"""


@pytest.mark.slow
def test_mlflow_is_needed_only_where_runs_are_tracked(data_dir: Path, tmp_path: Path) -> None:
    arguments = [*QUICK, *sets("NETWORKS = 1"), "--data-dir", data_dir, "--out", tmp_path]
    processes = [start(*arguments, *uri, code=["-c", WITHOUT_MLFLOW]) for uri in (["--tracking-uri", "none"], [])]
    untracked, tracked = (ended(process) for process in processes)
    assert untracked.status == 0, untracked.err
    assert tracked.status == 2 and "--tracking-uri none" in tracked.complaint


@pytest.mark.slow
def test_the_module_is_a_command_with_an_exit_status(tmp_path: Path) -> None:
    done = ended(start("--gin", "gin/quickstrat.gin", cwd=tmp_path))
    assert done.status == 2 and "did you mean 'gin/quickstart.gin'" in done.complaint
    assert not list(tmp_path.iterdir())


def test_a_finished_cell_is_printed_as_it_was(data_dir: Path, tmp_path: Path) -> None:
    axes = {"z": {"second": ["VALIDATION_POINTS = 1"]}, "a": {"first": ["NETWORKS = 1"]}}  # not in the alphabet's order
    words = [*QUICK, *sets(f"run.axes = {axes}"), "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none"]
    first, again = command(*words), command(*words)
    assert "\ndigits 1 I/C second first mlp outer adam  " in first.out and "was done before" in again.err
    assert again.out == first.out
