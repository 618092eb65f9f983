"""What is said on a terminal can't end a command: readers that leave, streams that are closed, letters that lack."""

import errno
import io
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from suite import terminal
from suite.runtime.session import RunSession, _size_told
from suite.runtime.signals import Stop
from suite.storage import journal
from suite.terminal import unbreakable_streams

ROOT = Path(__file__).parents[1]
SMOKE = [
    "--gin",
    "gin/quickstart.gin",
    "--gin",
    "gin/scale/smoke.gin",
    "--set",
    "SEEDS = [0]",
    "--set",
    "ARCHITECTURE = @architectures.mlp()",
    "--set",
    "FULL_DATA_EPOCHS = 0",
    "--set",
    "START = None",
    "--tracking-uri",
    "none",
]


GONE = BrokenPipeError(errno.EPIPE, "Broken pipe")


class Leaves(io.StringIO):
    """A stream whose reader leaves after so many texts; a terminal until then."""

    def __init__(self, after: int, error: Exception = GONE) -> None:
        super().__init__()
        self.after, self.error = after, error

    def write(self, text: str) -> int:
        self.after -= 1
        if self.after < 0:
            raise self.error
        return super().write(text)

    def isatty(self) -> bool:
        return self.after > 0


@pytest.mark.parametrize("error", [GONE, OSError(errno.EIO, "gone"), ValueError("closed")])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_texts_that_nobody_reads_are_lost_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    stream = Leaves(2, error)
    monkeypatch.setattr(sys, name, stream)
    with unbreakable_streams():
        for word in ("one", "two", "three"):
            getattr(sys, name).write(word)
    assert stream.getvalue() == "onetwo"
    assert getattr(sys, name) is stream


def test_a_stream_that_was_closed_before_python_started_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with unbreakable_streams():
        print("a word", file=sys.stderr)
        assert not sys.stderr.isatty()


def test_a_closed_stream_takes_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each line: a long run would have none left for its checkpoints."""
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, Leaves(0)):
        monkeypatch.setattr(sys, "stderr", stream)
        before = len(os.listdir("/proc/self/fd"))
        with unbreakable_streams():
            for _ in range(20):
                print("a word", file=sys.stderr, flush=True)
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_not_printed_for_want_of_room_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @terminal.command
    def main() -> int:
        print("a list")
        return 0

    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as broken:
        broken.setattr(sys, "stdout", Leaves(0, full))
        assert main() == 1
    assert "not whole (No space left on device)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", Leaves(0))
    assert main() == 0  # a reader that left


def test_a_letter_that_an_encoding_lacks_is_written_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with unbreakable_streams():
        print("90.1 ± 0.3")
    assert raw.getvalue() == b"90.1 \\xb1 0.3\n"


def test_a_command_s_status_and_errors_pass_through() -> None:
    @terminal.command
    def main(status: int) -> int:
        if status < 0:
            raise SystemExit(3)
        return status

    assert main(75) == 75
    with pytest.raises(SystemExit):
        main(-1)


def test_progress_goes_on_where_a_terminal_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar first, then lines: the streams of one run are two kinds."""
    session = RunSession.__new__(RunSession)
    session._progress, session._bar, session._bars, session._reported_at, session._label = None, None, True, 0.0, "run"
    monkeypatch.setattr(sys, "stderr", Leaves(4))
    with unbreakable_streams():
        for step in range(1, 9):
            session.progress(step, 8, "loss 1")
    assert session._bar is None


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (24, 0), (0, 40), (24, 40), (1, 1)])
def test_a_terminal_of_any_size_shows_progress(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a container has no rows and no columns."""
    assert _size_told(io.StringIO()) == {}
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    session = RunSession.__new__(RunSession)
    session._progress, session._bar, session._bars, session._reported_at, session._label = None, None, True, 0.0, "run"
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        for step in range(1, 4):
            session.progress(step, 3, "")
        terminal.flush()
        os.set_blocking(ours, False)
        shown = b""
        with suppress(BlockingIOError):
            while True:
                shown += os.read(ours, 10_000)
    os.close(ours)
    assert b"3/3" in shown or columns == 1


def test_the_end_of_a_terminal_is_a_signal_to_stop_unless_it_was_to_be_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    stop = Stop()
    with stop.listening():
        for _ in range(3):  # a shell and the system each send one
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal == signal.SIGHUP
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# ---------------------------------------------------------------- whole commands


def start(*words: str, **how: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, **how)


def without_a_reader() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def close_both() -> None:
    os.close(1)
    os.close(2)


@pytest.mark.parametrize("command", [["suite.run", "--list"], ["suite.run", "--help"], ["suite", "--help"]])
def test_a_command_whose_reader_has_left_ends_quietly(command: list[str]) -> None:
    nobody = without_a_reader()
    process = start("-m", *command, stdout=nobody, stderr=subprocess.PIPE)
    os.close(nobody)
    _, said = process.communicate()
    assert (process.returncode, said) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no reader", "closed", "ascii"])
def test_a_run_is_done_whatever_its_terminal_is(tmp_path: Path, how: str) -> None:
    out, nobody = tmp_path / "out", without_a_reader()
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": nobody}
    if how == "closed":
        streams = {"preexec_fn": close_both}
    environment = os.environ | ({"PYTHONIOENCODING": "ascii"} if how == "ascii" else {})
    process = start("-m", "suite.run", *SMOKE, "--out", str(out), env=environment, **streams)
    os.close(nobody)
    shown, _ = process.communicate()
    assert process.returncode == 0
    assert len(list(out.rglob("result.json"))) == 1
    if how == "ascii":
        assert b"\\xb1" in shown


def wait_for(what: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not what():
        assert process.poll() is None, "the run ended too early"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_leads_to_a_checkpoint_though_nobody_reads(tmp_path: Path, number: int) -> None:
    """As Ctrl-C does to `… 2>&1 | tee log`, which ends tee first."""
    nobody = without_a_reader()
    words = [*SMOKE, "--set", "ITERATIONS = 100000", "--set", "VALIDATION_POINTS = 0", "--out", str(tmp_path)]
    words += ["--checkpoint-seconds", "0.2"]
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)}  # even where tests run under nohup
    process = start("-m", "suite.run", *words, stdout=nobody, stderr=nobody, **heard)
    os.close(nobody)
    wait_for(lambda: any(tmp_path.rglob("checkpoints/*/manifest.json")), process)
    process.send_signal(number)
    assert process.wait() == 75
    (file,) = tmp_path.rglob(journal.NAME)
    entries, _ = journal.read(file.parent)
    assert [e["status"] for e in entries if e["is"] == "status"][-1] == "KILLED"
