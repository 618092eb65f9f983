"""Starts the process that sends journals to a tracker, so that a run never waits for the tracker."""

import os
import subprocess
import sys
import time
from pathlib import Path

from suite.errors import report
from suite.tracking.uri import credentials, plain_uri

COMMAND = [sys.executable, "-m", "suite.sync"]
"""The process that sends; it reads directories from its stdin."""

RESTART_SECONDS = 60.0
"""Least time between two starts of that process, should it die."""


class Sender:
    """Has another process send journals to a store; training neither waits for the store nor fails with it.

    That process lives until this one closes it or dies. Then it sends the rest, and marks runs that died as KILLED.
    """

    def __init__(self, uri: str | None, out: Path) -> None:
        """`uri`: of the store; None: nothing is sent. `out`: the runs' output directory."""
        self.uri, self._out = None if uri is None else plain_uri(uri), out
        self._credentials = {} if uri is None else credentials(uri)
        self._process: subprocess.Popen[bytes] | None = None
        self._directories: set[Path] = set()
        self._unheard: dict[Path, None] = {}  # directories that the process was too far behind to be told
        self._started_at = -RESTART_SECONDS

    def notify(self, directory: Path) -> None:
        """Have new entries in the journal of `directory` sent. Returns at once."""
        if self.uri is None:
            return
        self._directories.add(directory)
        if self._process is None or self._process.poll() is not None:
            if time.monotonic() - self._started_at >= RESTART_SECONDS:
                self._start()
            return
        self._unheard[directory] = None
        self._tell()

    def close(self, patience: float) -> bool:
        """Let the process send the rest and end; False if it failed, or was killed after `patience` seconds, or if some
        directories could not be named to it.
        """
        if self.uri is None or not self._directories:
            return True
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        if process is None:
            return False
        assert process.stdin is not None
        end = time.monotonic() + patience
        while self._unheard and process.poll() is None and time.monotonic() < end:
            self._tell()
            time.sleep(0.05)
        process.stdin.close()
        try:
            return process.wait(timeout=max(0.0, end - time.monotonic())) == 0 and not self._unheard
        except subprocess.TimeoutExpired:
            report(f"[tracking] the tracking store {self.uri} did not take everything within {patience:g} s")
            process.kill()
            process.wait()
            return False

    def _start(self) -> None:
        """Start the process, or start it again, and name all directories to it."""
        assert self.uri is not None
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._started_at = time.monotonic()
        command = [*COMMAND, "--follow", "--tracking-uri", self.uri, str(self._out.resolve())]
        # A session of its own: Ctrl-C in the terminal reaches the run alone, whose last entries are then sent.
        # No stdout: that is for the run's record. A password is in the environment, which no list of processes shows.
        environment = os.environ | self._credentials
        try:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:  # no more processes or no more bytes: no reason to end a run
            self._process = None
            report(f"[tracking] can't be started ({error}); the runs' journals are kept, and can be sent later")
            return
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._unheard = dict.fromkeys(self._directories)
        self._tell()

    def _tell(self) -> None:
        """Name to the process the directories that it has not heard of."""
        assert self._process is not None and self._process.stdin is not None
        for directory in list(self._unheard):
            try:
                os.write(self._process.stdin.fileno(), os.fsencode(directory.resolve()) + b"\0")
            except (BlockingIOError, BrokenPipeError):  # it is behind, or dead: the journal keeps everything
                return  # a name is written whole or not at all
            del self._unheard[directory]
