"""The process that sends journals: started once, named every directory, never waited for; and addresses of stores."""

import os
import signal
import sys
from pathlib import Path

import pytest

from suite.errors import UsageError
from suite.tracking.sender import Sender
from suite.tracking.uri import default_uri, whole_uri


def test_a_sender_that_died_is_started_again_for_all_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process dies at once; closing starts another, which gets every directory."""
    received = tmp_path / "received"
    script = "import sys; [open(sys.argv[1], 'a').write(line) for line in sys.stdin]"
    sender = Sender("sqlite:///x", tmp_path)
    monkeypatch.setattr("suite.tracking.sender.COMMAND", [sys.executable, "-c", "pass"])
    for name in ("a", "b"):
        sender.notify(tmp_path / name)
        assert sender._process is not None and sender._process.wait(600) == 0
    monkeypatch.setattr("suite.tracking.sender.COMMAND", [sys.executable, "-c", script, str(received)])
    assert sender.close(600)
    assert sorted(received.read_text().split("\0")) == ["", *(str(tmp_path / name) for name in ("a", "b"))]


def test_a_sender_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hangs = "import signal\nwhile True: signal.pause()"
    monkeypatch.setattr("suite.tracking.sender.COMMAND", [sys.executable, "-c", hangs])
    sender = Sender("sqlite:///x", tmp_path)
    for _ in range(5000):  # more than a pipe holds
        sender.notify(tmp_path / "a")
    assert not sender.close(0.2) and sender._process is not None and sender._process.returncode == -signal.SIGKILL
    assert "the tracking store sqlite:///x did not take everything within 0.2 s" in capsys.readouterr().err


def test_names_that_a_full_pipe_did_not_take_are_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were dropped, and the command said that all had been sent."""
    received = tmp_path / "received"
    script = "import os, sys, time\nwhile not os.path.exists(sys.argv[1] + '.go'): time.sleep(0.01)\n"
    script += "open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    monkeypatch.setattr("suite.tracking.sender.COMMAND", [sys.executable, "-c", script, str(received)])
    sender, names = Sender("sqlite:///x", tmp_path), {tmp_path / str(i) for i in range(5000)}
    for name in names:
        sender.notify(name)
    assert sender._unheard
    (tmp_path / "received.go").touch()
    assert sender.close(600)
    assert {Path(os.fsdecode(name)) for name in received.read_bytes().split(b"\0")[:-1]} == names


def test_a_sender_that_can_not_be_started_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("suite.tracking.sender.COMMAND", [str(tmp_path / "no such program")])
    sender = Sender("sqlite:///x", tmp_path)
    sender.notify(tmp_path / "a")
    assert not sender.close(1) and "can't be started" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a b", "a\nb", "grün", os.fsdecode(b"a\xff")])
def test_any_name_of_a_folder_will_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = tmp_path / "received"
    script = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    monkeypatch.setattr("suite.tracking.sender.COMMAND", [sys.executable, "-c", script, str(received)])
    sender = Sender("sqlite:///x", tmp_path)
    sender.notify(tmp_path / name)
    assert sender.close(600) and received.read_bytes() == os.fsencode(tmp_path / name) + b"\0"


@pytest.mark.parametrize("name", ["50%", "what?", "a#b"])
def test_a_place_that_no_database_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose another --out"):
        default_uri(tmp_path / name)


def test_a_relative_database_means_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert whole_uri("sqlite:///runs/x.db") == f"sqlite:///{tmp_path}/runs/x.db"
    for uri in ("sqlite:////a/x.db", "http://127.0.0.1:5000", "postgresql://u@h/d"):
        assert whole_uri(uri) == uri


def test_an_untracked_run_starts_no_sender(tmp_path: Path) -> None:
    sender = Sender(None, tmp_path)
    sender.notify(tmp_path)
    assert sender.close(0) and sender._process is None
