"""A disk that is really full, or read-only: one sentence, the last whole checkpoint, and on when there is room."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import QUICK, Done, command, only_run, resolve, said, sets
from test_sweeping import TABLE, Made, Sweep

from suite.run import main as run_main
from suite.runtime import session
from suite.runtime.execute import directories_of
from suite.storage.checkpoint import read_newest
from suite.sweep.__main__ import main as sweep_main
from suite.sweep.local import Processes
from suite.sweep.pool import Pool

SIX = sets("ITERATIONS = 6", "NETWORKS = 1", "VALIDATION_POINTS = 3")
KIB = 1024


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of this size."""
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB of its own."""
    with mounted(tmp_path / "disk", "1m") as place:
        yield place


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all room but `leave` bytes."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(free.f_bavail * free.f_bsize - leave))
    return filler


def go(data_dir: Path, out: Path, uri: str = "none") -> Done:
    return command(*QUICK, *SIX, "--data-dir", data_dir, "--out", out, "--tracking-uri", uri, "--json")


@pytest.fixture(scope="module")
def memory(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the run ends in where there is room."""
    out = tmp_path_factory.mktemp("room")
    assert go(data_dir, out).status == 0
    return (only_run(out) / "memory.safetensors").read_bytes()


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Do something when a run comes to a step, once."""
    progress = session.RunSession.progress

    def arrange(step: int, action: Callable[[], object]) -> None:
        def went(self: session.RunSession, iteration: int, total: int, words: str) -> None:
            progress(self, iteration, total, words)
            if iteration == step:
                action()
                monkeypatch.setattr(session.RunSession, "progress", progress)

        monkeypatch.setattr(session.RunSession, "progress", went)

    return arrange


@pytest.mark.parametrize("leave", [0, 12 * KIB, 36 * KIB, 60 * KIB, 100 * KIB])
def test_where_there_is_no_room_a_run_says_so_and_goes_on_when_there_is(
    leave: int, disk: Path, data_dir: Path, memory: bytes
) -> None:
    filler = fill(disk, leave)
    done = go(data_dir, disk / "out")
    assert done.status == 1 and "No space left on device" in done.complaint and "free some room" in done.complaint
    assert not list(disk.rglob("*.tmp")) and not list(disk.rglob("result.json"))
    filler.unlink()
    done = go(data_dir, disk / "out")
    assert done.status == 0, done.err
    assert (only_run(disk / "out") / "memory.safetensors").read_bytes() == memory


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    disk: Path, data_dir: Path, memory: bytes, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(3, lambda: fill(disk, 0))
    done = go(data_dir, disk / "out")
    assert done.status == 1 and "No space left on device" in done.complaint
    directory = only_run(disk / "out")
    newest, complaints = read_newest(directory / "checkpoints")
    assert newest is not None and newest.iteration == 2 and complaints == []
    (disk / "filler").unlink()
    done = go(data_dir, disk / "out")
    assert done.status == 0 and "resuming from the checkpoint of step 2" in done.err
    assert (directory / "memory.safetensors").read_bytes() == memory


def test_a_read_only_disk_is_one_sentence_and_loses_nothing(
    disk: Path, data_dir: Path, memory: bytes, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert go(data_dir, disk / "out").status == 75
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = go(data_dir, disk / "out")
    assert done.status == 1 and "Read-only file system" in done.complaint
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    done = go(data_dir, disk / "out")
    assert done.status == 0 and "resuming from the checkpoint of step 3" in done.err
    assert (only_run(disk / "out") / "memory.safetensors").read_bytes() == memory


@pytest.mark.slow
def test_a_store_without_room_costs_no_run(disk: Path, data_dir: Path, memory: bytes, tmp_path: Path) -> None:
    """The database is on the full disk, the runs are not."""
    fill(disk, 8 * KIB)
    done = go(data_dir, tmp_path / "out", f"sqlite:///{disk / 'mlflow.db'}")
    assert done.status == 0 and "send it later" in done.err
    assert (only_run(tmp_path / "out") / "memory.safetensors").read_bytes() == memory


# ---------------------------------------------------------------- sweeps


def test_a_run_of_a_sweep_without_room_is_named_and_the_others_are_done(tmp_path: Path, data_dir: Path) -> None:
    """As where a quota is full: one run's folder has room for its first checkpoint alone."""
    (tmp_path / "table.gin").write_text(TABLE.replace("[0, 1]", "[0]") + "\nSTART = None\nITERATIONS = 6\n")
    sweep, by_hand = (Sweep(tmp_path / "table.gin", tmp_path / name, data_dir) for name in ("runs", "by_hand"))
    directory = directories_of(resolve([str(sweep.gin)]), sweep.out)[0]
    words = [*sweep.words, "--workers", "1", "--checkpoint-seconds", "0"]
    with mounted(directory, "48k"):
        done = said(sweep_main, words)
        assert done.status == 1 and "1 of 2 runs failed; the others are done" in done.err, done.err
        (line,) = [line for line in done.err.splitlines() if "slow" in line and "failed: " in line]
        assert "failed: suite.run: can't write" in line and "No space left on device; free some room" in line
        assert len(sweep.records()) == 1 and "1 failed, 1 finished" in said(sweep_main, [*sweep.words, "--status"]).out
        newest, complaints = read_newest(directory / "checkpoints")
        assert newest is not None and newest.iteration == 1 and complaints == []
        subprocess.run(["mount", "-o", "remount,size=4m", directory], check=True)
        again = said(sweep_main, words)
        assert again.status == 0, again.err
        (log,) = sweep.out.glob(f"*/.sweep-*/logs/{directory.name}.log")
        assert "resuming from the checkpoint of step 1" in log.read_text()
        assert said(run_main, by_hand.words).status == 0
        assert sweep.records() == by_hand.records() and len(sweep.records()) == 2


def test_what_a_run_could_not_say_for_want_of_room_is_said_for_it(tmp_path: Path) -> None:
    made = Made(tmp_path)
    does = "(here / '..' / 'logs' / 'filler').write_bytes(bytes(size)); print('begun ' * size); sys.exit('why')"
    with mounted(tmp_path / "logs", "64k") as logs:
        unit = made.unit("it", f"size = {60 * KIB}; {does}")
        pool = Pool(Processes(1), logs, say=lambda line: None)
        pool.run([unit, made.unit("other")], lambda: None)
        assert "No space left on device; free some room" in pool.failed["it"] and len(pool.done) == 1
