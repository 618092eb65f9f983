"""A unit's process, here or on the machine of an engine's worker, which sees to its end."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from suite.errors import Interrupted, RunError
from suite.storage.files import write_atomic
from suite.storage.locks import Held, locked

LOOK = 0.2
"""Seconds between looks at the process, and at whether the sweep was stopped."""

FORWARDED_AFTER = 1.0
"""Seconds between a signal to a worker and what its process is sent: many systems signal all processes at once, and a
second signal ends a run before its checkpoint."""

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: which signal a process gets when the one that began it dies."""

PRCTL = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
"""Looked up here: between a fork and the new program, nothing may be loaded."""


ATTENDED = "SUITE_SWEEP_ATTENDED"
"""Set for a process that a worker attends."""


def begun(
    command: Sequence[str], environment: Mapping[str, str], log: Path, attended: bool = False
) -> "subprocess.Popen[bytes]":
    """A unit's process, the leader of its own session, so that a terminal's Ctrl-C comes to the sweep alone.

    `attended`: it is stopped at its next checkpoint when the process that began it dies. Raises OSError.
    """
    given = os.environ | dict(environment) | ({ATTENDED: "1"} if attended else {})
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=given, start_new_session=True,
            preexec_fn=_as_attended if attended else None,
        )  # fmt: skip


def is_attended(process: int) -> bool:
    """Whether a worker attends a process of this machine, as Linux tells."""
    try:
        return f"{ATTENDED}=1".encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _as_attended() -> None:
    """In the new process: hear what its worker passes on, and nothing that is meant for the worker alone."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray's processes block SIGINT
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends it to all processes of a job, where it would kill
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGHUP)


@dataclass(frozen=True)
class Errand:
    """What a worker of an engine is given to do; its paths are those of a folder that all machines share."""

    command: tuple[str, ...]
    """Of the unit; its first word, this Python, is replaced by the worker's."""
    environment: dict[str, str]
    """What its process has beside the worker's environment."""
    log: Path
    """Where it says what it says."""
    stop: Path
    """A file that is there once the sweep was stopped."""
    lock: Path | None = None
    """Held by the sweep as long as it lives; None: the worker may outlive it."""

    @property
    def stopped(self) -> bool:
        """Whether the sweep was stopped."""
        return self.stop.exists()

    def call_off(self) -> None:
        """Have all workers stop at the next checkpoint. Raises RunError."""
        write_atomic(self.stop, b"")


def attend(errand: Errand, signals: Sequence[int] = ()) -> tuple[int, float]:
    """Do an errand: its exit status, and the seconds that it took.

    It is stopped at its next checkpoint once the sweep was stopped, or one of `signals` came. Raises RunError where
    the sweep's folder is not shared with this machine, or its locks do not hold here.
    """
    _refuse_a_folder_apart(errand)
    started, asked, passed_on = time.monotonic(), list[float](), False

    def hear(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())

    for number in signals:
        signal.signal(number, hear)
    if errand.stopped:
        return Interrupted.status, 0.0
    process = begun((sys.executable, *errand.command[1:]), errand.environment, errand.log, attended=True)
    while process.poll() is None:
        late = bool(asked) and time.monotonic() - asked[0] > FORWARDED_AFTER
        if not passed_on and (late or errand.stopped):
            process.send_signal(signal.SIGHUP)  # a second signal of this kind changes nothing
            passed_on = True
        time.sleep(LOOK)
    return process.returncode, time.monotonic() - started


def _refuse_a_folder_apart(errand: Errand) -> None:
    """Raise RunError where this machine does not see the sweep's folder, or does not see that its lock is held."""
    here = socket.gethostname()
    if not errand.log.parent.is_dir():
        raise RunError(f"{here} has no {errand.log.parent}; --out must be a folder that all machines share")
    if errand.lock is None:
        return
    try:
        with locked(errand.lock, wait=False, patience=0.0):
            pass
    except Held:
        return
    raise RunError(
        f"{here} does not see that the sweep holds {errand.lock}, so two processes could do one run; --out must be on "
        "a file system whose locks hold between machines (docs/scale-out.md)"
    )
