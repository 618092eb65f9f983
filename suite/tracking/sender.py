"""Starts the process that sends journals to a tracker; a run never waits for it."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


class Sender:
    """Has another process send journals to a store, so that training neither waits for the store nor dies of it.

    That process lives until this one closes it, or dies: then it sends the rest and marks what died as KILLED.
    """

    def __init__(self, uri: str | None, out: Path) -> None:
        """`uri` None: nothing is sent now."""
        self.uri, self._out = uri, out
        self._process: subprocess.Popen[bytes] | None = None
        self._told: set[Path] = set()
        self._started_at = -RESTART_SECONDS

    def tell(self, directory: Path) -> None:
        """There is news in the journal of this directory."""
        if self.uri is None:
            return
        self._told.add(directory)
        if self._process is None or self._process.poll() is not None:
            if time.monotonic() - self._started_at >= RESTART_SECONDS:
                self._start()
            return
        self._write(directory)

    def close(self, patience: float) -> bool:
        """End the sending; whether all was sent within `patience` seconds."""
        if self.uri is None or not self._told:
            return True
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        if process is None:
            return False
        assert process.stdin is not None
        process.stdin.close()
        try:
            return process.wait(timeout=patience) == 0
        except subprocess.TimeoutExpired:
            print(
                f"[tracking] the tracking store {self.uri} did not take everything within {patience:g} s",
                file=sys.stderr,
            )
            process.kill()
            process.wait()
            return False

    def _start(self) -> None:
        assert self.uri is not None
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._started_at = time.monotonic()
        command = [*COMMAND, "--follow", "--tracking-uri", self.uri, str(self._out.resolve())]
        # A session of its own: Ctrl-C in the terminal is for the run, which then tells the rest.
        # And stdout is for the run's record.
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, start_new_session=True
            )
        except OSError as error:  # no more processes, no more memory: that is no reason to stop a run
            self._process = None
            print(f"[tracking] can't be started ({error}); what runs have to tell is kept", file=sys.stderr)
            return
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        for directory in self._told:
            self._write(directory)

    def _write(self, directory: Path) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(BlockingIOError, BrokenPipeError):  # busy with enough news, or gone: the journal keeps everything
            os.write(self._process.stdin.fileno(), os.fsencode(directory.resolve()) + b"\0")


COMMAND = [sys.executable, "-m", "suite.sync"]

RESTART_SECONDS = 60.0
