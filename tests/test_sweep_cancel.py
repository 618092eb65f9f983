"""`suite.sweep --cancel`: what is at work stops at checkpoints, wherever it is, and goes on later."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from command_line import ended, said, start
from test_sweep_engines import LIKE_A_RUN
from test_sweeping import TABLE, Made, Sweep, wait_for

from suite.errors import RunError
from suite.storage.locks import holder, locked
from suite.sweep import cancelling
from suite.sweep.__main__ import main
from suite.sweep.attended import begun
from suite.sweep.cancelling import LOCK, NOTE, cancel, note
from suite.sweep.slurm import CANCELLED, write_array
from suite.sweep.units import Unit


@pytest.fixture
def made(tmp_path: Path) -> Made:
    (tmp_path / "a table").mkdir()
    return Made(tmp_path / "a table")


@pytest.fixture
def folder(made: Made) -> Path:
    return made.place / ".sweep-0123456789abcdef"


# ---------------------------------------------------------------- a sweep on this machine


def test_a_sweep_that_is_cancelled_stops_at_checkpoints(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "table.gin").write_text(TABLE.replace("[0, 1]", "[0]") + "\nITERATIONS = 400\nSTART = None\n")
    sweep = Sweep(tmp_path / "table.gin", tmp_path / "runs", data_dir)
    idle = said(main, [*sweep.words, "--cancel"])
    nothing = f"nothing is at work on the table in {sweep.out / 'of_a_test'}; --status shows it\n"
    assert (idle.status, idle.out) == (0, nothing)
    words = [*sweep.words, "--workers", "1", "--checkpoint-seconds", "0"]
    driver = start(*words, code=["-m", "suite.sweep"])
    try:
        wait_for(lambda: bool(list(sweep.out.glob("*/*/checkpoints/step-*"))))
        asked = said(main, [*sweep.words, "--cancel"])
        done = ended(driver)
    finally:
        driver.kill()
    who = f"process {driver.pid}, which drives the sweep on local"
    assert asked.status == 0 and asked.out.startswith(f"asked {who}, to stop: runs stop at their next checkpoints")
    assert done.status == 75 and "the same command goes on" in done.err
    shown = said(main, [*sweep.words, "--status"])
    assert "1 stopped" in shown.out and "1 not begun" in shown.out
    assert not (sweep.out / "of_a_test" / NOTE).exists()
    assert said(main, [*sweep.words, "--cancel"]).out == nothing


DRIVES = f"""
import signal, sys, time
from pathlib import Path
from suite.storage.locks import locked
from suite.sweep.cancelling import note
folder, heard = Path(sys.argv[1]), open(sys.argv[2], "a", buffering=1)
signal.signal(signal.SIGTERM, lambda *_: print("once", file=heard))
signal.signal(signal.SIGUSR1, lambda *_: sys.exit())
with locked(folder.parent / {LOCK!r}, wait=False), note(folder, "ray", folder / "stopped-it"):
    print("up", flush=True)
    time.sleep(60)
"""
"""What drives a sweep: it writes down each time that it is asked to stop, and ends at SIGUSR1."""


@contextmanager
def driving(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    driver = start(folder, folder.parent / "heard", code=["-c", DRIVES])
    try:
        assert driver.stdout is not None and driver.stdout.readline() == "up\n"
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def test_a_sweep_is_asked_once_since_a_second_signal_would_end_it_at_once(made: Made, folder: Path) -> None:
    heard = made.place / "heard"
    with driving(folder) as driver:
        (first,), (second,) = cancel(folder, []), cancel(folder, [])
        wait_for(lambda: heard.read_text().startswith("once\n"))
        time.sleep(0.2)
        assert heard.read_text() == "once\n" and driver.poll() is None
    who = f"process {driver.pid}, which drives the sweep on ray"
    assert first.startswith(f"asked {who}, to stop") and second.startswith(f"{who}, was asked before")
    assert cancel(folder, []) == []


def two_at_once(folder: Path) -> list[list[str]]:
    """What two commands say that are given at the same moment."""
    with ThreadPoolExecutor(2) as both:
        return list(both.map(lambda _: cancel(folder, []), range(2)))


def test_a_sweep_that_two_ask_at_once_is_asked_once(made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = cancelling._read

    def slowly(place: Path) -> cancelling.Driver | None:
        found = read(place)
        time.sleep(0.5)
        return found

    with driving(folder) as driver:
        monkeypatch.setattr(cancelling, "_read", slowly)
        said = sorted(line for lines in two_at_once(folder) for line in lines)
        time.sleep(0.2)
        assert (made.place / "heard").read_text() == "once\n"
    assert said[0].startswith("asked") and said[1].startswith(f"process {driver.pid}") and "was asked before" in said[1]


def test_a_sweep_that_ends_while_it_is_asked_leaves_no_note(
    made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = cancelling._write
    with driving(folder) as driver:

        def late(place: Path, about: cancelling.Driver) -> None:
            driver.send_signal(signal.SIGUSR1)
            with suppress(subprocess.TimeoutExpired):
                driver.wait(1)
            write(place, about)

        monkeypatch.setattr(cancelling, "_write", late)
        with suppress(RunError):  # it may be gone
            cancel(folder, [])
        driver.wait(60)
        assert not (made.place / NOTE).exists()


def test_two_that_find_no_sweep_do_not_take_each_other_for_one(
    made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def slowly(path: Path, **words: Any) -> Iterator[None]:
        with locked(path, **words):
            time.sleep(0.3 if path.name == LOCK else 0.0)
            yield

    (made.place / LOCK).touch()
    monkeypatch.setattr(cancelling, "locked", slowly)
    monkeypatch.setattr(cancelling, "holder", lambda path: None)
    assert two_at_once(folder) == [[], []]


def test_a_sweep_that_another_machine_drives_is_named(
    made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(made.place / LOCK, wait=False), note(folder, "ray", folder / "stopped-it"):
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        monkeypatch.setattr(cancelling, "holder", lambda path: None)  # as locks of other machines look
        with pytest.raises(RunError, match=f"driven by process {os.getpid()} on .*; give the same command there"):
            cancel(folder, [])
        (made.place / NOTE).write_text('{"host": 3}')
        with pytest.raises(RunError, match="driven by a process that can't be seen from here"):
            cancel(folder, [])


# ---------------------------------------------------------------- runs that a dead sweep left


@contextmanager
def at_work(unit: Unit) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that does a unit, without a sweep."""
    process = subprocess.Popen([sys.executable, "-c", LIKE_A_RUN.replace("SIGHUP", "SIGTERM"), unit.directory, "60"])
    try:
        wait_for((unit.directory / "step").exists)
        yield process
    finally:
        process.kill()
        process.wait()


def test_runs_whose_sweep_was_killed_stop_at_checkpoints(made: Made, folder: Path) -> None:
    left, other = made.unit("left"), made.unit("other")
    driver = {"host": "it", "pid": 7, "on": "local", "stop": "", "asked": []}
    (made.place / NOTE).write_text(json.dumps(driver))
    with at_work(left) as process:
        assert holder(left.directory / ".lock") == process.pid and holder(other.directory / ".lock") is None
        (said,) = cancel(folder, [left, other])
        assert said.startswith(f"asked process {process.pid}, which does left without a sweep, to stop")
        assert process.wait(60) == 75
    assert cancel(folder, [left, other]) == []


def dead_driver(made: Made, on: str, **more: Any) -> dict[str, Any]:
    """The note of a driver that was killed."""
    about = {"host": "it", "pid": 7, "on": on, "stop": ".sweep-0123456789abcdef/stopped-7", "asked": [], **more}
    (made.place / NOTE).write_text(json.dumps(about))
    return about


def test_what_a_dead_driver_left_is_stopped_though_another_drives_the_sweep(made: Made, folder: Path) -> None:
    left, by_hand = made.unit("left"), made.unit("by hand")
    dead_driver(made, "local")
    with at_work(left) as process, driving(folder) as driver, at_work(by_hand) as other:
        said = cancel(folder, [left, by_hand])
        assert process.wait(60) == 75 and other.poll() is None
        assert len(said) == 2 and said[0].startswith(f"asked process {driver.pid}, which drives the sweep on ray")
        assert said[1].startswith(f"asked process {process.pid}, which does left without a sweep, to stop")
        driver.send_signal(signal.SIGUSR1)
        assert driver.wait(60) == 0 and not (made.place / NOTE).exists()


def test_the_note_of_a_dead_driver_is_put_back_while_its_runs_are_at_work(made: Made, folder: Path) -> None:
    left, by_hand = made.unit("left"), made.unit("by hand")
    dead_driver(made, "local")
    with at_work(left) as process:
        with driving(folder) as driver:
            driver.send_signal(signal.SIGUSR1)
            assert driver.wait(60) == 0
        back = json.loads((made.place / NOTE).read_text())
        assert back["pid"] == 7 and back["runs"] == {"left": process.pid}
        with at_work(by_hand) as other:
            (said,) = cancel(folder, [left, by_hand])
            assert said.startswith(f"asked process {process.pid}, which does left without a sweep, to stop")
            assert process.wait(60) == 75
            (said,) = cancel(folder, [left, by_hand])
            assert said == f"process {other.pid}, which does by hand, was started by hand: stop it there"


def test_jobs_of_a_dead_driver_are_called_off_though_another_drives_the_sweep(made: Made, folder: Path) -> None:
    (folder / "logs").mkdir(parents=True)
    left = made.unit("left")
    (folder / "left.gin").touch()  # as it was when its job was submitted
    about = dead_driver(made, "submitit")
    for ends in ("by itself", "cancelled"):
        with driving(folder) as driver:
            if ends == "cancelled":
                said = cancel(folder, [left])
                assert len(said) == 2 and "process 7 on it, which drove the sweep on submitit, is dead" in said[1]
                assert (made.place / about["stop"]).exists()
            driver.send_signal(signal.SIGUSR1)
            assert driver.wait(60) == 0
        assert (made.place / NOTE).exists() == (ends == "by itself")  # they may wait in a queue


def test_a_run_that_a_worker_attends_is_not_asked_by_a_signal_as_well(made: Made, folder: Path) -> None:
    """The worker passes the end on that the file tells, and a second signal would end the run at once."""
    folder.mkdir()
    attended, left = made.unit("attended"), made.unit("left")
    jobs = dead_driver(made, "submitit")
    first = dead_driver(made, "local", stop="", runs={"left": 1})  # and process 1 does it no more
    dead_driver(made, "local", pid=8, stop="", before=[jobs, first])
    command = (sys.executable, "-c", LIKE_A_RUN, str(attended.directory), "60")
    job = begun(command, {}, made.place / "log", attended=True)
    try:
        wait_for((attended.directory / "step").exists)
        with at_work(left) as process:
            off, asked = cancel(folder, [attended, left])
            assert process.wait(60) == 75 and job.poll() is None
        assert off.startswith("process 7 on it, which drove the sweep on submitit, is dead; called its jobs off")
        assert asked.startswith(f"asked process {process.pid}, which does left without a sweep")
    finally:
        job.kill()
        job.wait()


def test_a_run_that_a_dead_driver_of_another_machine_left_is_named(
    made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = made.unit("away")
    dead_driver(made, "local")
    with locked(away.directory / ".lock", wait=False), driving(folder) as driver:
        seen = holder
        monkeypatch.setattr(cancelling, "holder", lambda path: seen(path) if path.name == LOCK else None)
        note = json.loads((made.place / NOTE).read_text())
        note["before"][0]["runs"] = {"away": 0}
        (made.place / NOTE).write_text(json.dumps(note))
        names = f"asked process {driver.pid}, .* goes on; away: at work on another machine; process 7 on it drove"
        with pytest.raises(RunError, match=names):
            cancel(folder, [away])


def test_a_run_that_was_started_by_hand_is_left_alone(made: Made, folder: Path) -> None:
    one = made.unit("one")
    with at_work(one) as process:
        for _ in range(2):
            assert cancel(folder, [one]) == [
                f"process {process.pid}, which does one, was started by hand: stop it there"
            ]
        assert process.poll() is None


def test_an_array_that_was_cancelled_ends_before_another_is_made(made: Made, folder: Path) -> None:
    left, other = made.unit("left"), made.unit("other")
    write_array(folder, "it", [left, other], None, [])
    (folder / CANCELLED).touch()
    with at_work(left), pytest.raises(RunError, match="on their way to a checkpoint; give the command again"):
        write_array(folder, "it", [other], None, [], 1, [left, other])
    assert (folder / CANCELLED).exists()
    write_array(folder, "it", [other], None, [], 1, [left, other])
    assert not (folder / CANCELLED).exists()


def test_a_run_at_work_on_another_machine_is_named(made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = made.unit("away")
    with locked(away.directory / ".lock", wait=False):
        monkeypatch.setattr(cancelling, "holder", lambda path: None)
        with pytest.raises(RunError, match="away: at work on another machine, so give the same command there"):
            cancel(folder, [away])


@pytest.mark.parametrize("told", [".sweep-0123456789abcdef/stopped-it", "../../stopped-it"])
def test_jobs_whose_sweep_was_killed_are_called_off_by_their_file(made: Made, folder: Path, told: str) -> None:
    """And no file anywhere else is written, whatever stands in the note."""
    folder.mkdir()
    left = made.unit("left")
    about = {"host": "it", "pid": 7, "on": "submitit", "stop": told, "asked": []}
    (made.place / NOTE).write_text(json.dumps(about))
    with at_work(left) as process:
        (said,) = cancel(folder, [left])
        if told.startswith(".sweep"):
            assert said.startswith("process 7 on it, which drove the sweep on submitit, is dead; called its jobs off")
            assert (folder / "stopped-it").exists() and process.poll() is None  # its worker tells it
        else:
            assert process.wait(60) == 75
    assert not (made.place / ".." / ".." / "stopped-it").resolve().exists()
    (left.directory / "result.json").write_text("{}")
    assert cancel(folder, [left]) == []


# ---------------------------------------------------------------- arrays of Slurm


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that come before all others; what `scancel` is given is in its `given`."""
    place = tmp_path / "tools"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


def tool(place: Path, does: str) -> None:
    place.write_text(f"#!/bin/bash\n{does}\n")
    place.chmod(0o755)


def test_an_array_in_the_queue_is_cancelled_and_its_tasks_are_not_requeued(
    made: Made, folder: Path, tools: Path
) -> None:
    waits = "import signal; signal.signal(10, lambda *_: sys.exit(75)); (here / 'up').touch(); time.sleep(60)"
    units, given = [made.unit("a", waits), made.unit("b")], tools / "given"
    note_it = f'echo "$(basename "$0")" "$@" >> {shlex.quote(str(given))}'
    tool(tools / "scontrol", f'[ "$1" = show ] || {note_it}')
    script = write_array(folder, "it", units, None, [])
    tool(tools / "squeue", f"echo '77 {script}'; echo '77 {script}'; echo '5 /of/another/array-1.sbatch'")
    tool(tools / "scancel", note_it)

    def task(number: int) -> "subprocess.Popen[str]":
        about = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77"}
        return subprocess.Popen(["bash", script], env=os.environ | about, stderr=subprocess.PIPE, text=True)

    at_work = task(1)
    wait_for((units[0].directory / "up").exists)
    (said,) = cancel(folder, units)
    assert said.startswith("cancelled array 77 of Slurm: what waited is gone, runs stop at their next checkpoints")
    assert given.read_text() == "scancel --state=PENDING 77\nscancel --batch --signal=USR1 77\n"
    at_work.send_signal(signal.SIGUSR1)  # as that scancel would
    late = ended(task(2))
    assert ended(at_work).status == 75 and late.status == 75 and "this sweep was cancelled" in late.err
    assert "requeue" not in given.read_text() and units[1].state != "finished"
    write_array(folder, "it", units[1:], None, [])
    assert not (folder / CANCELLED).exists() and ended(task(2)).status == 0


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("squeue", r"can't be asked here \(squeue: no controller\); where it can, give arrays=\$\(squeue .*scancel"),
        ("scancel", "no controller; give it by hand: scancel --state=PENDING 77 && scancel --batch --signal=USR1 77"),
    ],
)
def test_where_slurm_cannot_be_asked_the_commands_are_printed(
    made: Made, folder: Path, tools: Path, missing: str, sentence: str
) -> None:
    units = [made.unit("a")]
    script = write_array(folder, "it", units, None, [])
    tool(tools / "squeue", f"echo '77 {script}'")
    tool(tools / "scancel", f"echo $* >> {shlex.quote(str(tools / 'given'))}")
    tool(tools / missing, "echo no controller >&2; exit 1")
    with pytest.raises(RunError, match=sentence) as refused:
        cancel(folder, units)
    assert (folder / CANCELLED).exists()  # so no task is requeued, or begins
    tool(tools / "squeue", f"echo '77 {script}'")
    tool(tools / "scancel", f"echo $* >> {shlex.quote(str(tools / 'given'))}")
    commands = re.search(r"give (arrays=.*)|by hand: (.*)", str(refused.value))
    assert commands is not None
    subprocess.run(["bash", "-c", commands[1] or commands[2]], check=True)
    assert (tools / "given").read_text() == "--state=PENDING 77\n--batch --signal=USR1 77\n"
    if commands[1]:  # an empty queue: without a number, scancel would take whatever waits
        tool(tools / "squeue", "true")
        subprocess.run(["bash", "-c", commands[1]], check=True)
        assert len((tools / "given").read_text().splitlines()) == 2
    units[0].directory.joinpath("result.json").write_text("{}")
    tool(tools / "squeue", "exit 1")
    assert cancel(folder, units) == []  # all is done, so nothing can be at work


def test_that_the_driver_was_asked_is_said_where_slurm_cannot_be(made: Made, folder: Path, tools: Path) -> None:
    write_array(folder, "it", [made.unit("a")], None, [])
    tool(tools / "squeue", "exit 1")
    with driving(folder) as driver, pytest.raises(RunError) as refused:
        cancel(folder, [made.unit("b")])
    said = str(refused.value)
    assert said.startswith(f"asked process {driver.pid}, which drives the sweep on ray, to stop: ")
    assert "; arrays of" in said and "can't be asked here" in said
