"""Sweeps on engines of others: Ray on two machines of which one is lost, jobs of submitit whose time is too short.

Here units are scripts that behave as runs do; what takes minutes, tables of real runs, is for `make test-services`.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import REPOSITORY, said, start
from test_sweeping import TABLE, Sweep, wait_for

from suite.errors import Interrupted, RunError, UsageError
from suite.run import main as run_main
from suite.storage.locks import locked
from suite.sweep.__main__ import main
from suite.sweep.attended import Errand, attend
from suite.sweep.pool import Pool
from suite.sweep.ray_tasks import RayTasks, Share
from suite.sweep.submitit_jobs import Jobs, _minutes
from suite.sweep.units import Unit

LIKE_A_RUN = """
import fcntl, os, pathlib, signal, sys, time
here, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
stop = []
signal.signal(signal.SIGHUP, lambda *_: stop.append(1))
lock = (here / '.lock').open('w')
until = time.monotonic() + 1  # a real run waits so long for those that only look
while True:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        if time.monotonic() > until:
            raise
        time.sleep(0.01)
with (here / 'attempts').open('a') as file:
    print(os.getpid(), file=file)
at = here / 'step'
for step in range(int(at.read_text()) if at.exists() else 0, int(seconds * 10)):
    if stop:
        sys.exit(75)
    time.sleep(0.1)
    at.write_text(str(step + 1))
with (here / 'ends').open('a') as file:
    print('done', file=file)
(here / 'result.json').write_text('{}')
"""
"""What a run does in the eyes of a sweep, without importing anything: holds its lock, goes on from its checkpoint,
stops at one with status 75, and writes its record last."""


@dataclass
class Table:
    """Units that are quick, in a folder with the lock of their sweep."""

    place: Path

    def __post_init__(self) -> None:
        (self.place / "logs").mkdir(parents=True)

    @property
    def lock(self) -> Path:
        return self.place / ".sweep.lock"

    @property
    def errand(self) -> Errand:
        return Errand((), {"OF_A_TEST": "yes"}, self.place / "logs", self.place / "stopped", self.lock)

    def unit(self, name: str, seconds: float = 0.0, does: str = LIKE_A_RUN) -> Unit:
        directory = self.place / name
        directory.mkdir()
        return Unit(name, name, directory, (sys.executable, "-c", does, str(directory), str(seconds)), 1.0)


@pytest.fixture
def sweep(tmp_path: Path, data_dir: Path) -> Sweep:
    (tmp_path / "table.gin").write_text(TABLE)
    return Sweep(tmp_path / "table.gin", tmp_path / "runs", data_dir)


@pytest.fixture
def quick(tmp_path: Path) -> Table:
    return Table(tmp_path / "table")


def attempts(unit: Unit) -> list[int]:
    file = unit.directory / "attempts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def assert_each_was_done_once(pool: Pool, units: list[Unit]) -> None:
    assert not pool.failed and sorted(unit.name for unit in pool.done) == sorted(unit.name for unit in units)
    assert all((unit.directory / "ends").read_text() == "done\n" for unit in units)


def in_the_background(call: Callable[[], Any]) -> Callable[[], None]:
    """Start a call in a thread; what is returned waits for it, and raises what it raised."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def wait() -> None:
        thread.join(120)
        assert not thread.is_alive()
        if raised:
            raise raised[0]

    return wait


# ---------------------------------------------------------------- a worker that sees to a unit's process


def test_a_worker_s_signal_and_a_stop_reach_its_process_once(quick: Table) -> None:
    """As on Slurm: SIGUSR2 comes to the run, too, and the worker's own second later is the run's only signal."""
    code = f"""
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from suite.sweep.attended import Errand, attend
command = ({sys.executable!r}, '-c', {LIKE_A_RUN!r}, sys.argv[1], '60')
errand = Errand(command, {{}}, Path(sys.argv[2]), Path(sys.argv[3]))
print(attend(errand, (signal.SIGUSR2, signal.SIGTERM))[0])
"""
    unit = quick.unit("one")
    worker = start(unit.directory, quick.place / "logs" / "one", quick.errand.stop, code=["-c", code])
    try:
        wait_for(lambda: (unit.directory / "step").exists())
        (run,) = attempts(unit)
        os.kill(run, signal.SIGUSR2)
        time.sleep(0.5)
        assert unit.state == "running" and worker.poll() is None
        worker.send_signal(signal.SIGUSR2)
        out, err = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert out == "75\n" and not err and unit.state != "running"


def test_a_run_stops_at_its_checkpoint_when_its_worker_is_killed(quick: Table) -> None:
    unit = quick.unit("one")
    code = f"""
import sys
from pathlib import Path
from suite.sweep.attended import begun
begun(({sys.executable!r}, '-c', {LIKE_A_RUN!r}, sys.argv[1], '60'), {{}}, Path(sys.argv[2]), attended=True).wait()
"""
    worker = start(unit.directory, quick.place / "logs" / "one", code=["-c", code])
    try:
        wait_for(lambda: (unit.directory / "step").exists())
    finally:
        worker.kill()
        worker.communicate()
    wait_for(lambda: unit.state != "running")
    assert 0 < int((unit.directory / "step").read_text()) < 600 and not (unit.directory / "ends").exists()


def test_a_folder_that_is_not_shared_is_refused(quick: Table) -> None:
    errand = replace(quick.errand, command=quick.unit("one").command, log=quick.place / "logs" / "one")
    with pytest.raises(RunError, match="file system whose locks hold between machines"):
        attend(errand)  # nobody holds the sweep's lock, as it looks where locks are a machine's own
    with pytest.raises(RunError, match="--out must be a folder that all machines share"):
        attend(replace(errand, log=quick.place / "elsewhere" / "one"))
    with locked(quick.lock, wait=False):
        assert attend(errand)[0] == 0
        errand.call_off()
        assert attend(errand) == (Interrupted.status, 0.0)


# ---------------------------------------------------------------- Ray


class Machines:
    """A Ray cluster of this machine, whose machines may be lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._few = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        head = self._few | {"include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self.cluster.address

    def add(self) -> Any:
        return self.cluster.add_node(**self._few)

    def lose(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'addressable-memory-suite[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        patch.delenv("RAY_ADDRESS", raising=False)
        heard = signal.getsignal(signal.SIGTERM)
        made = Machines()
        try:
            yield made
        finally:
            made.cluster.shutdown()
            signal.signal(signal.SIGTERM, heard)


def of_ray(pid: int) -> int:
    """Which raylet, by its process, a process of a task belongs to."""
    while pid > 1:
        about = Path(f"/proc/{pid}/stat").read_text()
        if "(raylet)" in about:
            return pid
        pid = int(about.rpartition(")")[2].split()[1])
    return 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_a_lost_machine_was_at_work_on_goes_on_elsewhere(machines: Machines, quick: Table) -> None:
    second = machines.add()
    units = [quick.unit(f"u{i}", seconds=2) for i in range(5)]
    units.append(quick.unit("bad", does="import sys; sys.exit('no: the reason')"))
    lines: list[str] = []
    with locked(quick.lock, wait=False), RayTasks(quick.errand, Share(1, None), machines.address) as engine:
        pool = Pool(engine, quick.place / "logs", say=lines.append)
        wait_for(lambda: engine.workers == 2)
        wait = in_the_background(lambda: pool.run(units, lambda: None))
        wait_for(lambda: sum(unit.state == "running" and bool(attempts(unit)) for unit in units) == 2)
        raylet = second.all_processes["raylet"][0].process.pid
        (lost,) = [unit for unit in units if unit.state == "running" and of_ray(attempts(unit)[-1]) == raylet]
        machines.lose(second)
        machines.add()
        wait()
    assert pool.failed.pop("bad").startswith("no: the reason")
    assert_each_was_done_once(pool, units[:5])
    assert len(attempts(lost)) == 2 and sum(len(attempts(unit)) for unit in units[:5]) == 6


@pytest.mark.services
@pytest.mark.slow
def test_a_sweep_on_ray_whose_driver_and_machine_are_lost_measures_what_runs_by_hand_measure(
    machines: Machines, sweep: Sweep, tmp_path: Path
) -> None:
    sweep.gin.write_text(TABLE.replace("[0, 1]", "[0]") + "\nITERATIONS = 40\nSTART = None\n")
    words = [*sweep.words, "--on", "ray", "--address", machines.address, "--checkpoint-seconds", "0"]
    drivers = []

    def drive() -> "subprocess.Popen[str]":
        drivers.append(start(*words, code=["-m", "suite.sweep"]))
        return drivers[-1]

    last = machines.add()
    try:
        first = drive()
        wait_for(lambda: bool(list(sweep.out.glob("*/*/checkpoints/step-*"))))
        first.kill()
        first.communicate()
        second = drive()
        wait_for(lambda: not list(sweep.out.glob("*/*/result.json")) and len(at_work(sweep.out)) >= 1)
        machines.lose(last)
        machines.add()
        out, told = second.communicate(timeout=600)
    finally:
        for driver in drivers:
            driver.kill()
    assert second.returncode == 0, told
    assert "fast" in out and "slow" in out
    by_hand = Sweep(sweep.gin, tmp_path / "by_hand", sweep.data_dir)
    assert said(run_main, by_hand.words).status == 0
    assert sweep.records() == by_hand.records() and len(sweep.records()) == 2


def at_work(out: Path) -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"suite.run --gin={out}"], capture_output=True, text=True)
    return found.stdout.split()


@pytest.mark.slow
def test_ray_is_started_here_and_stops_at_checkpoints(quick: Table, machines: Machines) -> None:
    """Where no address is given; `machines` for its environment."""
    units = [quick.unit("long", seconds=100), quick.unit("after")]
    with (
        locked(quick.lock, wait=False),
        RayTasks(quick.errand, Share(1, None), None, at_once=1) as engine,
        pytest.raises(Interrupted, match="the same command goes on"),
    ):
        Pool(engine, quick.place / "logs", say=lambda line: None).run(units, (units[0].directory / "step").exists)
    assert [unit.state for unit in units] == ["killed", "killed"] and not attempts(units[1])
    assert not (units[0].directory / "ends").exists()


def test_a_cluster_that_does_not_answer_is_told(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'addressable-memory-suite[ray]'")
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    dead = said(main, [*sweep.words, "--on", "ray", "--address", address])
    assert dead.status == 1 and f"--address {address}: no Ray cluster answers there" in dead.err
    for wrong, why in (("ray://there:1", "give the cluster's own address"), ("there", "it must be HOST:PORT")):
        monkeypatch.setenv("RAY_ADDRESS", wrong)
        done = said(main, [*sweep.words, "--on", "ray"])
        assert done.status == 2 and why in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(("engine", "package"), [("ray", "Ray"), ("submitit", "submitit")])
def test_an_engine_that_is_not_installed_is_told(
    sweep: Sweep, engine: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    done = said(main, [*sweep.words, "--on", engine])
    assert done.status == 2 and f"--on {engine}: {package} is not installed; pip install" in done.err
    assert not sweep.records()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpus", "0.5"], "--gpus: it is for --on ray"),
        (["--on", "slurm", "--address", "auto"], "--address: it is for --on ray"),
        (["--on", "ray", "--slurm=--time=1"], "--slurm: options of sbatch are for --on slurm and --on submitit"),
        (["--on", "ray", "--device", "cuda:1"], "--device cuda:1: Ray picks a GPU for each run"),
        (["--on", "ray", "--tracking-uri", "http://me:secret@127.0.0.1:9"], "MLFLOW_TRACKING_PASSWORD"),
        (["--on", "submitit", "--slurm=--time=soon"], "--slurm=--time=soon: it must be a time"),
        (["--on", "submitit", "--slurm=--array=1-3"], "the sweep sets that itself"),
    ],
)
def test_what_an_engine_does_not_take_is_told(sweep: Sweep, words: list[str], sentence: str) -> None:
    if "submitit" in words:
        pytest.importorskip("submitit", reason="submitit is not installed")
    done = said(main, [*sweep.words, *words])
    assert done.status == 2 and sentence in done.err and "Traceback" not in done.err and "secret" not in done.err


# ---------------------------------------------------------------- submitit


@pytest.mark.slow
def test_a_job_whose_time_is_too_short_is_submitted_again(quick: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(
        "submitit", reason="submitit is not installed: pip install 'addressable-memory-suite[submitit]'"
    )
    monkeypatch.setattr("suite.sweep.submitit_jobs.LOCAL", True)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    units = [quick.unit("long", seconds=5), quick.unit("bad", does="import sys; sys.exit('no: the reason')")]
    errand = replace(quick.errand, lock=None)
    with Jobs(errand, quick.place / "logs" / "submitit", ("--time=0:06",), warning_seconds=4) as engine:
        pool = Pool(engine, quick.place / "logs", say=lambda line: None)
        pool.run(units, lambda: None)
    assert pool.failed.pop("bad").startswith("no: the reason")
    assert_each_was_done_once(pool, units[:1])
    assert len(attempts(units[0])) >= 2  # of which none began at the start


def test_times_of_sbatch_are_read() -> None:
    times = {"90": 90, "1:30": 1.5, "02:00:00": 120, "1-12": 2160, "1-00:30": 1470, "0-0:0:30": 0.5}
    assert {time: _minutes(time) for time in times} == times
    with pytest.raises(UsageError, match="--time"):
        _minutes("noon")


# ---------------------------------------------------------------- what the page shows

PAGE = (REPOSITORY / "docs" / "scale-out.md").read_text()


def planned(words: list[str], out: Path) -> str:
    """What a command of the page would do, at smoke scale."""
    assert words[:2] == ["python", "-m"]
    of = {"suite.run": run_main, "suite.sweep": main}[words[2]]
    place = words.index("--out")
    words = [*words[3 : place + 1], str(out), *words[place + 2 :], "--gin", "gin/scale/smoke.gin", "--dry-run"]
    done = said(of, words)
    assert done.status == 0, done.err
    return done.out


def test_the_page_s_job_and_task_go_on_at_status_75(tmp_path: Path) -> None:
    job, task = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    again, *others = job["spec"]["podFailurePolicy"]["rules"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    named = {"containerName": container["name"], "operator": "In"}
    assert again == {"action": "Ignore", "onExitCodes": named | {"values": [Interrupted.status]}}
    assert others[1] == {"action": "FailJob", "onExitCodes": named | {"values": [UsageError.status]}}
    assert pod["restartPolicy"] == "Never" and job["spec"]["completionMode"] == "Indexed"  # as its rules demand
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "2") for word in container["command"]]
    assert "full momentum" in planned(words, tmp_path) and "seed 2" in planned(words, tmp_path)
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [Interrupted.status]
    words = shlex.split(task["run"])
    assert words[0] == "exec"  # else a shell would keep the status, and the signals, to itself
    out = Path(words[words.index("--out") + 1])
    assert task["file_mounts"][str(out)]["mode"] == "MOUNT_CACHED"
    assert "full momentum" in planned(words[1:], tmp_path)
