"""Whole tables: 24 runs in a pool whose driver and worker are killed, and a real Slurm of one machine.

Takes minutes: `make test-services`. Slurm is Debian's (`apt-get install slurm-wlm munge`), in a folder of its own.
"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import REPOSITORY, ended, start
from test_sweep_engines import Table, assert_each_was_done_once, at_work, attempts, in_the_background
from test_sweeping import TABLE, Made, Sweep, wait_for

from suite.sweep.pool import Pool
from suite.sweep.slurm import write_array
from suite.sweep.submitit_jobs import Jobs

pytestmark = [pytest.mark.services, pytest.mark.slow]

# ---------------------------------------------------------------- 24 runs

RATES = ", ".join(f"'r{i}': ['OUTER_LR = {0.01 * i}']" for i in (1, 2, 3, 4))
STEPS = ", ".join(f"'s{i}': ['ITERATIONS = {i}']" for i in (2, 3, 4))
AXES = f"run.axes = {{'rate': {{{RATES}}}, 'steps': {{{STEPS}}}}}"
CELLS = re.sub(r"run.axes = .*", f"{AXES}\nSTART = None", TABLE)  # for k-means every process would import scikit-learn


def timed(*words: str, module: str = "suite.sweep") -> tuple[float, float]:
    """Seconds of a command, and seconds of processors that it and its processes took."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = ended(start(*words, code=["-m", module]), timeout=3600)
    assert done.status == 0, done.err
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_24_runs_are_what_they_are_by_hand_whatever_is_killed(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "table.gin").write_text(CELLS)
    killed, by_hand, alone, whole = (
        Sweep(tmp_path / "table.gin", tmp_path / name, data_dir) for name in ("killed", "by_hand", "alone", "whole")
    )
    drivers = [start(*killed.words, "--workers", "2", code=["-m", "suite.sweep"])]
    try:
        wait_for(lambda: len(killed.records()) >= 4, patience=1800)
        drivers[0].kill()
        drivers[0].communicate()
        drivers.append(start(*killed.words, "--workers", "2", code=["-m", "suite.sweep"]))
        wait_for(lambda: len(killed.records()) >= 10 and bool(at_work(killed.out)), patience=1800)
        os.kill(int(at_work(killed.out)[0]), signal.SIGKILL)
        done = ended(drivers[1], timeout=3600)
    finally:
        for driver in drivers:
            driver.kill()
    assert done.status == 0, done.err
    hand = timed(*by_hand.words, module="suite.run")
    records = by_hand.records()
    assert len(records) == 24 and killed.records() == records

    cells = [("r1", "s2"), ("r2", "s3"), ("r3", "s4"), ("r4", "s2")]
    ones = [timed(*alone.words, "--only", a, "--only", b, "--seed", "0", module="suite.run") for a, b in cells]
    one = [sum(times) / len(cells) for times in zip(*ones, strict=True)]
    swept = timed(*whole.words, "--workers", "1")
    assert whole.records() == records
    more = [swept[i] / 24 - one[i] for i in range(2)]
    print(f"\n24 runs in one process: {hand[0]:.1f} s ({hand[1]:.1f} s of processors)")
    print(f"as a sweep, one at a time: {swept[0]:.1f} s ({swept[1]:.1f} s of processors)")
    print(f"one run as a command of its own, mean of 4: {one[0]:.1f} s ({one[1]:.1f} s of processors)")
    print(f"a run of the sweep takes {more[0]:.2f} s ({more[1]:.2f} s of processors) more than that")
    assert more[1] < 2


# ---------------------------------------------------------------- Slurm

CONFIGURATION = """
ClusterName=ofatest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MaxArraySize=4
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
"""A cluster of this machine. Arrays are small; a requeued job waits until its credential expires, so that is soon."""


def free_ports() -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of our own, to which this process's commands speak."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, ports=free_ports(), folder=folder))
    files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in files.items())]
    conf = str(folder / "slurm.conf")
    daemons: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch, (folder / "daemons.txt").open("wb") as said:
        patch.setenv("SLURM_CONF", conf)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        try:
            for words in (munged, ["slurmctld", "-D", "-c", "-f", conf], ["slurmd", "-D", "-c", "-f", conf]):
                daemons.append(subprocess.Popen(words, stdout=said, stderr=said))
                wait_for((folder / "munge.sock").exists)
            wait_for(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True).stdout)
            yield
            wait_for(lambda: not queue())
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(60)


def queue() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout.strip()


def test_an_array_does_a_table_though_a_task_is_preempted(slurm: None, tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "table.gin").write_text(TABLE + "\nITERATIONS = 60\n")
    sweep = Sweep(tmp_path / "table.gin", tmp_path / "a place", data_dir)
    words = [*sweep.words, "--on", "slurm", "--checkpoint-seconds", "0"]
    preempted = False
    for n, left in enumerate((4, 1)):  # the array takes three
        done = ended(start(*words, code=["-m", "suite.sweep"]))
        assert done.status == 0 and f"{left} of 4 runs are left" in done.out, done
        assert ("this Slurm takes arrays of 3 tasks; the other 1 runs are left" in done.err) == (n == 0)
        submit = done.out.splitlines()[-1].strip()
        subprocess.run(submit, shell=True, check=True, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 600
        while queue():
            assert time.monotonic() < until, queue()
            if not preempted and at_work(sweep.out) and list(sweep.out.glob("*/*/checkpoints/step-*")):
                task = subprocess.run(
                    ["squeue", "--noheader", "--states=RUNNING", "--format=%i"], capture_output=True, text=True
                ).stdout.split()[0]
                subprocess.run(["scancel", "--batch", "--signal=USR1", task], check=True)
                preempted = True
            time.sleep(0.5)
    logs = "".join(file.read_text() for file in sweep.out.glob("*/.sweep-*/logs/*.log"))
    assert preempted and logs.count("stopping at the next checkpoint") == 1, logs
    by_hand = Sweep(sweep.gin, tmp_path / "by_hand", sweep.data_dir)
    assert ended(start(*by_hand.words)).status == 0
    assert sweep.records() == by_hand.records() and len(sweep.records()) == 4


def test_submitit_s_jobs_that_are_signalled_or_killed_are_submitted_again(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setattr("suite.sweep.submitit_jobs.LOOKED_EVERY", 3.0)
    quick = Table(tmp_path / "table")
    units = [quick.unit("signalled", seconds=5), quick.unit("killed", seconds=5), quick.unit("after", seconds=1)]
    errand = replace(quick.errand, lock=None)
    with Jobs(errand, quick.place / "logs" / "submitit", ("--time=5",), warning_seconds=30) as engine:
        pool = Pool(engine, quick.place / "logs", say=lambda line: None)
        wait = in_the_background(lambda: pool.run(units, lambda: None))
        wait_for(lambda: all(unit.state == "running" for unit in units[:2]))
        first, second = sorted(
            subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], capture_output=True, text=True).stdout.split(),
            key=int,
        )
        subprocess.run(["scancel", "--signal=USR2", first], check=True)
        subprocess.run(["scancel", "--full", "--signal=KILL", second], check=True)
        wait()
    assert_each_was_done_once(pool, units)
    assert [len(attempts(unit)) for unit in units] == [2, 2, 1]


def test_an_array_of_two_runs_a_task_is_cancelled_and_goes_on_later(
    slurm: None, tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "table.gin").write_text(TABLE + "\nITERATIONS = 60\nSTART = None\n")
    sweep = Sweep(tmp_path / "table.gin", tmp_path / "a place", data_dir)
    words = [*sweep.words, "--on", "slurm", "--checkpoint-seconds", "0", "--together", "2", "--workers", "1"]

    def submitted() -> None:
        done = ended(start(*words, code=["-m", "suite.sweep"]))
        assert done.status == 0 and "4 of 4 runs are left" in done.out, done
        subprocess.run(done.out.splitlines()[-1].strip(), shell=True, check=True, stdout=subprocess.DEVNULL)

    def states() -> list[str]:
        shown = json.loads(ended(start(*sweep.words, "--status", "--json", code=["-m", "suite.sweep"])).out)
        return [unit["state"] for unit in shown]

    def cancelled() -> str:
        done = ended(start(*sweep.words, "--cancel", code=["-m", "suite.sweep"]))
        assert done.status == 0, done.err
        return done.out

    submitted()
    wait_for(lambda: len(list(sweep.out.glob("*/*/checkpoints/step-*"))) >= 2 and len(at_work(sweep.out)) >= 2, 600)
    assert re.match(r"cancelled array \d+ of Slurm: what waited is gone", cancelled())
    wait_for(lambda: not queue(), 600)
    assert sorted(states()) == ["not begun"] * 2 + ["stopped"] * 2
    assert "nothing is at work on the table" in cancelled()
    submitted()
    wait_for(lambda: not queue(), 600)
    assert states() == ["finished"] * 4
    by_hand = Sweep(sweep.gin, tmp_path / "by_hand", sweep.data_dir)
    assert ended(start(*by_hand.words)).status == 0
    assert sweep.records() == by_hand.records()


def test_what_scancel_ends_is_not_requeued_and_what_a_signal_stops_is(slurm: None, tmp_path: Path) -> None:
    made = Made(tmp_path)
    stops = "import signal; signal.signal(15, lambda *_: sys.exit(75)); (here / 'up').touch(); time.sleep(60)"
    unit = made.unit("stops", stops)
    script = write_array(made.place, "of a test", [unit], None, [])
    submit = ["sbatch", "--parsable", str(script)]
    array = subprocess.run(submit, check=True, capture_output=True, text=True).stdout.strip()
    up = unit.directory / "up"
    for words in (["scancel", "--full", "--signal=TERM", array], ["scancel", array]):  # as a preemption; as a user
        wait_for(up.exists)
        up.unlink()
        subprocess.run(words, check=True)
    wait_for(lambda: not queue())
    assert not up.exists()
