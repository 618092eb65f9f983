"""A sweep: every run of a table as a process of its own, whatever dies, by a pool here or a job array of Slurm."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from command_line import said

from suite.errors import Interrupted, UsageError
from suite.run import main as run_main
from suite.runtime.record import dumps
from suite.runtime.run_directory import FINISHED, LOCK
from suite.storage.locks import locked
from suite.sweep.__main__ import _processes, main, parser
from suite.sweep.local import Processes
from suite.sweep.pool import MOST_DEATHS, Pool
from suite.sweep.slurm import check_options, write_array
from suite.sweep.units import LEFT, Unit, longest_first, shared_words, table

# ---------------------------------------------------------------- the pool, with processes that do what they are told

ENDS = "import pathlib, sys, time; here = pathlib.Path(sys.argv[1]); "
DONE = "(here / 'result.json').write_text('{}')"


@dataclass
class Made:
    """Units below a folder."""

    place: Path

    def unit(self, name: str, does: str = DONE, seconds: float | None = 1.0) -> Unit:
        directory = self.place / name
        directory.mkdir()
        return Unit(name, name, directory, (sys.executable, "-c", ENDS + does, str(directory)), seconds)

    def pool(self, workers: int = 2) -> tuple[Pool, list[str]]:
        lines: list[str] = []
        return Pool(Processes(workers), self.place / "logs", say=lines.append), lines


@pytest.fixture
def made(tmp_path: Path) -> Made:
    assert FINISHED == "result.json"
    return Made(tmp_path)


def names(units: list[Unit]) -> list[str]:
    return [unit.name for unit in units]


def test_what_fails_does_not_stop_the_others(made: Made) -> None:
    pool, lines = made.pool()
    bad = made.unit("bad", "print('a line'); sys.exit('no: the reason')")
    pool.run([bad, *(made.unit(f"good{i}") for i in range(4))], lambda: None)
    assert sorted(names(pool.done)) == [f"good{i}" for i in range(4)]
    assert pool.failed == {"bad": f"no: the reason ({made.place / 'logs' / 'bad.log'})"}
    assert "[sweep] bad failed: no: the reason" in "\n".join(lines)
    assert lines[-1].startswith("[sweep] 4 of 5 done, 0 running, 0 waiting, 1 failed")


def test_what_stops_at_a_checkpoint_or_is_killed_is_begun_again(made: Made) -> None:
    tried = "n = len(list(here.glob('try*'))); (here / f'try{n}').touch(); "
    stops = made.unit("stops", f"{tried}{DONE} if n == 4 else sys.exit(75)")
    dies = made.unit("dies", f"{tried}import os; {DONE} if n == {MOST_DEATHS - 1} else os.kill(os.getpid(), 9)")
    always = made.unit("always", f"{tried}import os; os.kill(os.getpid(), 9)")
    pool, _ = made.pool()
    pool.run([stops, dies, always], lambda: None)
    assert sorted(names(pool.done)) == ["dies", "stops"]
    assert pool.failed == {"always": f"killed by SIGKILL, {MOST_DEATHS} times"}
    assert len(list(always.directory.glob("try*"))) == MOST_DEATHS


def test_what_gets_nowhere_or_cannot_begin_is_given_up(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = made.pool()
    monkeypatch.setattr("suite.sweep.pool.MOST_STALLS", 3)
    nowhere, absent = made.unit("nowhere", "sys.exit(75)"), made.unit("absent")
    absent = replace(absent, command=("/there/is/no/such/program",))
    damaged = made.unit("damaged", "sys.exit('it is damaged')")
    (damaged.directory / "journal.jsonl").write_bytes(b"\xff\x00")
    unseen = made.unit("unseen", "pass")  # as a run whose folder another machine does not share
    pool.run([nowhere, absent, damaged, unseen, made.unit("good")], lambda: None)
    assert names(pool.done) == ["good"] and sorted(pool.failed) == ["absent", "damaged", "nowhere", "unseen"]
    assert (
        "left no record in" in pool.failed["unseen"]
        and "which all machines must share, 3 times" in pool.failed["unseen"]
    )
    assert pool.failed["nowhere"] == "stopped within 10 seconds, 3 times" and "No such file" in pool.failed["absent"]


def test_a_signal_without_a_name_is_told(made: Made) -> None:
    pool, _ = made.pool()
    pool.run([made.unit("dies", "import os; os.kill(os.getpid(), 40)")], lambda: None)
    assert pool.failed == {"dies": "killed by signal 40, 3 times"}


def test_no_more_are_at_work_than_there_are_workers(made: Made) -> None:
    spans = "begun = time.time(); time.sleep(0.3); (here / 'span').write_text(f'{begun} {time.time()}'); "
    units = [made.unit(f"u{i}", spans + DONE) for i in range(6)]
    pool, _ = made.pool(2)
    pool.run(units, lambda: None)
    found = [tuple(map(float, (unit.directory / "span").read_text().split())) for unit in units]
    at_once = [sum(begun <= moment < ended for begun, ended in found) for moment, _ in found]
    assert max(at_once) == 2


def test_a_worker_s_words_and_the_environment_reach_its_processes(made: Made) -> None:
    tells = "import os; (here / 'told').write_text(sys.argv[2] + os.environ['OF_A_TEST']); "
    processes = Processes(2, lambda worker: (f"worker{worker}",), {"OF_A_TEST": "!"})
    pool = Pool(processes, made.place / "logs", say=lambda line: None)
    units = [made.unit(f"u{i}", tells + DONE + "; time.sleep(0.3)") for i in range(4)]
    pool.run(units, lambda: None)
    assert {(unit.directory / "told").read_text() for unit in units} == {"worker0!", "worker1!"}


def test_a_stop_is_passed_on_and_waited_for(made: Made) -> None:
    listens = (
        "import signal; signal.signal(15, lambda *_: ((here / 'heard').touch(), sys.exit(75))); (here / 'up').touch(); "
        "time.sleep(60)"
    )
    first, second = made.unit("first", listens), made.unit("second", listens)
    pool, _ = made.pool(1)
    with pytest.raises(Interrupted, match="the same command goes on"):
        pool.run([first, second], (first.directory / "up").exists)
    assert (first.directory / "heard").exists() and not (second.directory / "up").exists()


def test_a_unit_at_which_another_process_is_at_work_is_waited_for(made: Made) -> None:
    elsewhere, free = made.unit("elsewhere", "sys.exit('begun twice')"), made.unit("free")
    ready = threading.Event()

    def work() -> None:
        with locked(elsewhere.directory / LOCK, wait=False):
            ready.set()
            time.sleep(1)
            (elsewhere.directory / FINISHED).write_text("{}")

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    pool, _ = made.pool()
    assert elsewhere.state == "running"
    pool.run([elsewhere, free], lambda: None)
    thread.join()
    assert names(pool.done) == ["free", "elsewhere"] and not pool.failed
    assert not (made.place / "logs" / "elsewhere.log").exists()  # nothing was begun there


def test_the_longest_come_first_and_the_unknown_before_them(made: Made) -> None:
    units = [made.unit("a", seconds=1.0), made.unit("b", seconds=None), made.unit("c", seconds=7.0), made.unit("d")]
    (units[3].directory / FINISHED).write_text("{}")
    assert names(longest_first(units, LEFT)) == ["b", "c", "a"]
    lines = table(units).splitlines()
    assert lines[2].split() == ["killed", "7", "s", "c"] and lines[3].split() == ["finished", "1", "s", "d"]
    assert lines[4] == "3 killed, 1 finished"


def test_the_time_left_goes_by_what_was_measured(made: Made) -> None:
    pool, lines = made.pool(1)
    slow = "time.sleep(0.5); " + DONE
    pool.run([made.unit(f"u{i}", slow, seconds=0.1) for i in range(3)], lambda: None)  # five times what was foretold
    assert "; about 1" in lines[0] and "seconds left" in lines[0]  # two of half a second, and the start of Python
    assert "left" not in lines[-1]


# ---------------------------------------------------------------- real runs

TABLE = """
include 'gin/quickstart.gin'
include 'gin/scale/smoke.gin'
ARCHITECTURE = @architectures.mlp()
architectures.mlp.width = 8
CONTROLS = []
FULL_DATA_EPOCHS = 0
SEEDS = [0, 1]
run.name = 'of_a_test'
run.axes = {'rate': {'slow': ['OUTER_LR = 0.01'], 'fast': ['OUTER_LR = 0.1']}}
"""


@dataclass
class Sweep:
    """The command on a table, in a folder of its own."""

    gin: Path
    out: Path
    data_dir: Path

    @property
    def words(self) -> list[str]:
        place = ["--out", str(self.out), "--data-dir", str(self.data_dir), "--tracking-uri", "none", "--device", "cpu"]
        return ["--gin", str(self.gin), *place]

    def records(self) -> dict[str, str]:
        """By the name of its directory, what a run measured."""
        return {file.parent.name: measured(json.loads(file.read_text())) for file in self.out.glob("*/*/result.json")}


def measured(record: dict[str, object]) -> str:
    left_out = ("cost", "environment", "finished_at")
    return dumps({key: value for key, value in record.items() if key not in left_out})


@pytest.fixture
def sweep(tmp_path: Path, data_dir: Path) -> Sweep:
    (tmp_path / "table.gin").write_text(TABLE)
    return Sweep(tmp_path / "table.gin", tmp_path / "runs", data_dir)


def test_a_sweep_measures_what_runs_by_hand_measure(sweep: Sweep, tmp_path: Path) -> None:
    planned = said(main, [*sweep.words, "--dry-run"])
    assert planned.status == 0 and planned.out.count("not begun") == 5 and "4 not begun" in planned.out
    done = said(main, [*sweep.words, "--workers", "2"])
    assert done.status == 0, done.err
    assert "[sweep] 4 of 4 runs are left, 2 at a time" in done.err and "4 of 4 done" in done.err
    assert "fast" in done.out and "slow" in done.out  # the table's own summary
    by_hand = Sweep(sweep.gin, tmp_path / "by_hand", sweep.data_dir)
    assert said(run_main, by_hand.words).status == 0
    assert sweep.records() == by_hand.records() and len(sweep.records()) == 4
    shown = said(main, [*sweep.words, "--status", "--json"])
    assert [unit["state"] for unit in json.loads(shown.out)] == ["finished"] * 4
    again = said(main, sweep.words)
    assert again.status == 0 and "0 of 4 runs are left" in again.err


def test_a_sweep_whose_driver_and_worker_were_killed_goes_on(sweep: Sweep, tmp_path: Path) -> None:
    sweep.gin.write_text(TABLE.replace("[0, 1]", "[0]") + "\nITERATIONS = 80\n")
    words = [sys.executable, "-m", "suite.sweep", *sweep.words, "--workers", "2", "--checkpoint-seconds", "0"]

    def at_work() -> list[int]:
        """Processes of runs, by their command lines."""
        found = subprocess.run(["pgrep", "-f", f"suite.run --gin={sweep.out}"], capture_output=True, text=True)
        return [int(line) for line in found.stdout.split()]

    drivers = [subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)]
    try:
        wait_for(lambda: len(at_work()) == 2)
        drivers[0].kill()
        drivers[0].wait()
        assert at_work()  # the runs do not need their driver
        drivers.append(second := subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True))
        wait_for(lambda: bool(list(sweep.out.glob("*/*/checkpoints/*"))) and bool(at_work()))
        for process in at_work()[:1]:
            os.kill(process, signal.SIGKILL)
        _, told = second.communicate(timeout=600)
    finally:
        for driver in drivers:
            driver.kill()
        for process in at_work():
            os.kill(process, signal.SIGKILL)
    assert second.returncode == 0, told
    by_hand = Sweep(sweep.gin, tmp_path / "by_hand", sweep.data_dir)
    assert said(run_main, by_hand.words).status == 0
    assert sweep.records() == by_hand.records() and len(sweep.records()) == 2


def wait_for(what: Callable[[], bool], patience: float = 120.0) -> None:
    until = time.monotonic() + patience
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_choice_is_made_once_all_trials_are_done(sweep: Sweep) -> None:
    choice = "run.choose = 'rate'\nrun.then = ['experiments.distillation.iterations = 4']\n"
    choice += "experiments.distillation.validation = 0.2\n"
    sweep.gin.write_text(TABLE.replace("[0, 1]", "[0]") + choice)
    done = said(main, [*sweep.words, "--workers", "1"])
    assert done.status == 0, done.err
    assert done.err.count("is best on validation") == 1 and len(sweep.records()) == 3


def test_what_fails_is_told_and_the_rest_is_kept(sweep: Sweep) -> None:
    sweep.gin.write_text(TABLE.replace("'OUTER_LR = 0.01'", "'OUTER_LR = 1e30'").replace("[0, 1]", "[0]"))
    done = said(main, [*sweep.words, "--workers", "2"])
    assert done.status == 1 and len(sweep.records()) == 1
    assert "1 of 2 runs failed; the others are done" in done.err and not done.out
    shown = said(main, [*sweep.words, "--status"])
    assert "1 failed" in shown.out and "1 finished" in shown.out


# ---------------------------------------------------------------- Slurm


def test_a_job_array_does_each_line_and_is_requeued_at_a_checkpoint(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made.place = made.place / "a place"
    tools = made.place / "tools"
    tools.mkdir(parents=True)
    asked = '[ "$1" = show ] && echo "MaxArraySize            = 4" && exit\n'
    (tools / "scontrol").write_text(f'#!/bin/sh\n{asked}echo "$@" >> "{made.place}/requeued"\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    heard = "import signal; signal.signal(10, lambda *_: sys.exit(75)); (here / 'up').touch(); time.sleep(60)"
    units = [made.unit("quick"), made.unit("bad", "sys.exit(3)"), made.unit("long", heard)]
    more = [*units, made.unit("no room")]
    script = write_array(made.place, "of a test", more, 7, ["--time=02:00:00"])
    assert "this Slurm takes arrays of 3 tasks; the other 1 runs are left" in capsys.readouterr().err
    text = script.read_text()
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    for line in (
        "--array=1-3%7",
        "--time=02:00:00",
        "--requeue",
        "--signal=B:USR1@120",
        "--job-name=sweep-of-a-test",
    ):
        assert f"#SBATCH {line}" in text

    def task(number: int) -> "subprocess.Popen[bytes]":
        about = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77"}
        return subprocess.Popen(["bash", str(script)], env=os.environ | about)

    assert task(1).wait() == 0 and units[0].state == "finished"
    assert task(9).wait() == 1
    assert task(2).wait() == 3
    long = task(3)
    wait_for((units[2].directory / "up").exists)
    long.send_signal(signal.SIGUSR1)
    assert long.wait() == 75
    assert (made.place / "requeued").read_text() == "requeue 77_3\n"


def test_a_task_does_several_runs_at_once_and_goes_on_with_those_that_stopped(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made.place = made.place / "a place"
    tools = made.place / "tools"
    tools.mkdir(parents=True)
    asked = '[ "$1" = show ] && echo "MaxArraySize            = 3" && exit\n'
    (tools / "scontrol").write_text(f'#!/bin/sh\n{asked}echo "$@" >> "{made.place}/requeued"\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    heard = (
        "import signal; signal.signal(10, lambda *_: (print('heard'), sys.exit(75)));"
        "(here / 'up').touch(); time.sleep(60)"
    )
    units = [made.unit("one", heard), made.unit("two", heard), made.unit("bad", "print('no'); sys.exit(3)")]
    units += [made.unit("quick"), made.unit("good"), made.unit("last"), made.unit("no room")]
    script = write_array(made.place, "it", units, None, ["--gres=gpu:1"], together=3)
    assert "this Slurm takes arrays of 2 tasks; the other 1 runs are left" in capsys.readouterr().err
    text = script.read_text()
    assert "#SBATCH --array=1-2\n" in text and "#SBATCH --gres=gpu:1" in text and "does 3 lines of" in text
    assert subprocess.run(["bash", "-n", script]).returncode == 0

    def task(number: int) -> "subprocess.Popen[bytes]":
        about = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77"}
        return subprocess.Popen(["bash", str(script)], env=os.environ | about)

    first = task(1)
    wait_for(lambda: all((unit.directory / "up").exists() for unit in units[:2]))  # at once
    first.send_signal(signal.SIGUSR1)
    assert first.wait() == 75 and (made.place / "requeued").read_text() == "requeue 77_1\n"
    logs = [(made.place / "logs" / f"{unit.name}.log").read_text() for unit in units[:3]]
    assert logs == ["heard\n", "heard\n", "no\n"]
    assert task(2).wait() == 0 and all(unit.state == "finished" for unit in units[3:6])
    assert task(3).wait() == 1 and units[6].state != "finished"
    assert (made.place / "requeued").read_text() == "requeue 77_1\n"


def test_the_array_has_what_is_left(sweep: Sweep) -> None:
    one = said(run_main, [*sweep.words, "--only", "slow", "--seed", "1"])
    assert one.status == 0, one.err
    done = said(main, [*sweep.words, "--on", "slurm", "--workers", "5", "--slurm=--partition=gpu"])
    assert done.status == 0 and "3 of 4 runs are left; submit them with" in done.out
    (script,) = sweep.out.glob("of_a_test/.sweep-*/array-*.sbatch")
    assert str(script) in done.out and "#SBATCH --partition=gpu" in script.read_text()
    (file,) = script.parent.glob("commands-*.txt")
    commands = file.read_text().splitlines()
    assert len(commands) == 3 and all("--device=cpu" in line for line in commands)
    assert subprocess.run(commands[0], shell=True, capture_output=True).returncode == 0
    assert len(sweep.records()) == 2
    again = said(main, [*sweep.words, "--on", "slurm"])
    assert "2 of 4 runs are left" in again.out and file.read_text().splitlines() == commands  # of the array before


def test_a_password_is_in_no_command(sweep: Sweep) -> None:
    address = "http://me:secret@127.0.0.1:9"
    words = [word if word != "none" else address for word in sweep.words]
    refused = said(main, [*words, "--on", "slurm"])
    assert refused.status == 2 and "MLFLOW_TRACKING_PASSWORD" in refused.err and "secret" not in refused.err
    options = parser().parse_args(words)
    assert not any("secret" in word for word in shared_words(options, sweep.out))
    assert "secret" in str(_processes(options, torch.device("cpu")).environment)


@pytest.mark.parametrize("option", ["--array=1-5", "-a1-5", "--no-requeue", "time=3", "--time=1\n#SBATCH --array=1"])
def test_options_that_are_none_are_refused(made: Made, option: str) -> None:
    with pytest.raises(UsageError, match="--slurm"):
        write_array(made.place, "it", [made.unit("one")], None, [option])


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--array 1-3", "the sweep sets that itself"),
        ("--signal TERM@10", "the sweep sets that itself"),
        ("--arr=1-3", "the sweep sets that itself"),  # sbatch takes a name's beginning for it
        ("--time 02:00:00", "it must be an option of sbatch such as --time=02:00:00"),
        ("--time =1", "it must be an option of sbatch"),
        ("--time=1 --array=1-3", "it must be an option of sbatch"),
        ("--comment='a", "it must be an option of sbatch"),
    ],
)
def test_no_option_overrides_the_sweep_s_own_by_a_blank(option: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"--slurm .*: {why}"):
        check_options([option])
    check_options(["--time=02:00:00", "--exclusive", "--comment='a -b'", "--constraint=a&b"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--fresh"], "--fresh: a sweep goes on with what there is"),
        (["--together", "2"], "--together: it is for --on slurm; --workers says how many are at work"),
        (["--slurm=--time=1"], "--slurm: options of sbatch are for --on slurm and --on submitit"),
        (["--only", "middling"], "middling"),
        (["--data-dir", ""], "--data-dir: it is empty; name a folder"),
        (["--data-dir", "~nosuch/x"], "--data-dir: there is no home for ~nosuch/x"),
        (["--data-dir", "", "--status"], "--data-dir: it is empty; name a folder"),
        (["--data-dir", "~nosuch/x", "--cancel"], "--data-dir: there is no home for ~nosuch/x"),
        (["--data-dir", "", "--on", "slurm"], "--data-dir: it is empty; name a folder"),
    ],
)
def test_what_a_sweep_does_not_do_is_said(sweep: Sweep, words: list[str], sentence: str) -> None:
    done = said(main, [*sweep.words, *words])
    assert done.status == 2 and sentence in done.err and "Traceback" not in done.err
    assert not list(sweep.out.glob("*"))


def test_a_gpu_that_is_named_has_one_run_at_a_time_and_no_number_is_all_gpus(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def engine(device: str, *words: str) -> Processes:
        options = parser().parse_args([*sweep.words, "--device", device, *words])
        return _processes(options, torch.device(device))

    assert engine("cuda:1").workers == 1 and engine("cuda:1", "--workers", "3").workers == 3
    assert engine("cuda:1").words_of_worker(0) == ()  # it is in the unit's command
    assert engine("cuda").workers == 2 and engine("cuda").words_of_worker(1) == ("--device=cuda:1",)


def test_a_unit_s_file_follows_what_the_table_says_now(sweep: Sweep) -> None:
    """Labels are no part of a key, so the run and its file keep their names."""

    def file_of(label: str) -> Path:
        done = said(main, [*sweep.words, "--on", "slurm", "--only", label, "--seed", "0"])
        assert done.status == 0, done.err
        (file,) = sweep.out.glob("of_a_test/.sweep-*/*.gin")
        return file

    file = file_of("slow")
    (sweep.out / "of_a_test" / file.stem).mkdir()  # as of a run that began
    sweep.gin.write_text(TABLE.replace("'slow'", "'sluggish'") + "\nSCALE = 'mine'\n")
    assert file_of("sluggish") == file
    text = file.read_text()
    assert "'sluggish'" in text and "'mine'" in text and "'slow'" not in text


def test_two_sweeps_of_one_table_are_refused(sweep: Sweep) -> None:
    assert said(main, [*sweep.words, "--status"]).status == 0
    assert not sweep.out.exists() or not list(sweep.out.glob("*/*"))  # to look writes nothing
    (sweep.out / "of_a_test").mkdir(parents=True, exist_ok=True)
    with locked(sweep.out / "of_a_test" / ".sweep.lock", wait=False):
        done = said(main, sweep.words)
    assert done.status == 1 and "another sweep is at work in" in done.err and not sweep.records()
