"""How tests give commands: in this process, or as `python -m suite.run` in another, at settings that take a second."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # else a command takes every core it finds

import jaxtyping

from suite import config, runs
from suite.run import main

REPOSITORY = Path(__file__).resolve().parent.parent


def sets(*bindings: str) -> list[str]:
    """Each binding as a `--set`."""
    return [word for binding in bindings for word in ("--set", binding)]


QUICK = [
    *("--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin"),
    *sets("ARCHITECTURE = @architectures.mlp()", "architectures.mlp.width = 16", "FULL_DATA_EPOCHS = 0"),
    *sets("START = None"),
]
"""The quickstart's digits, two outer steps, a small network: a second or so.

The start is noise: for k-means every process would import scikit-learn."""

TABLE = {
    "momentum": {
        "no momentum": ["INNER_OPTIMIZER = @inner_optimizers.no_momentum()"],
        "full momentum": ["INNER_OPTIMIZER = @inner_optimizers.sgd_momentum()"],
    }
}
"""Axes of a small table for `run.axes`."""


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and what it said."""

    status: int
    out: str
    err: str

    @property
    def record(self) -> Any:
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line of stderr that is the command's own, which a failed command must have exactly one of."""
        assert "Traceback" not in self.err and "Traceback" not in self.out
        beside = ("[", "stopping at")  # progress is '[label] …', and a signal is acknowledged
        own = [line for line in self.err.splitlines() if not line.startswith(beside)]
        assert len(own) == 1, own
        assert own[0].startswith("suite.run: "), own[0]
        return own[0].removeprefix("suite.run: ")


@contextmanager
def as_people_run_it() -> Iterator[None]:
    """Without the tests' type checker: it refuses wrong settings in its own words before the suite can in its."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def resolve(
    files: list[str], bindings: Sequence[str] = (), seed: int | None = None, only: list[str] | None = None
) -> list[config.Run]:
    """`suite.config.resolve`."""
    with as_people_run_it():
        return config.resolve(files, list(bindings), seed, only)


def said(call: Callable[..., int], *arguments: Any) -> Done:
    """What a call that returns an exit status, such as a command's `main`, prints in this process."""
    out, err = io.StringIO(), io.StringIO()
    with as_people_run_it(), redirect_stdout(out), redirect_stderr(err):
        status = call(*arguments)
    return Done(status, out.getvalue(), err.getvalue())


def command(*arguments: str | Path) -> Done:
    """`python -m suite.run` with these arguments, in this process."""
    return said(main, [str(argument) for argument in arguments])


def ask(*words: str | Path) -> Done:
    """`python -m suite.runs` in this process."""
    return said(runs.main, [str(word) for word in words])


def start(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path = REPOSITORY, code: list[str] | None = None
) -> "subprocess.Popen[str]":
    """`python -m suite.run` (or other `code` for Python) as a process of its own, with one thread."""
    words = [sys.executable, *(code or ["-m", "suite.run"]), *map(str, arguments)]
    given = os.environ | {"OMP_NUM_THREADS": "1"} | dict(env or {})
    given["PYTHONPATH"] = os.pathsep.join(filter(None, [given.get("PYTHONPATH"), str(REPOSITORY)]))
    return subprocess.Popen(
        words, cwd=cwd, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c
    )


def _hear_ctrl_c() -> None:
    """As in a terminal: a shell has what it starts in the background ignore it, and so do all its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: "subprocess.Popen[str]", timeout: float = 900) -> Done:
    """Wait for a started process; for no longer than any machine takes, however busy."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Done(process.returncode, out, err)


def only_run(out: Path) -> Path:
    """The directory of the one run below an output directory."""
    (found,) = [p for p in out.glob("*/*seed*-*") if p.is_dir() and ".old" not in p.name]
    return found


def killed_at(line: Sequence[str], step: int) -> Done:
    """A command that is killed as soon as the checkpoint of a step is written."""
    program = f"""
import os, signal, sys
from suite.runtime.session import RunSession
before = RunSession.checkpoint
def checkpoint(self, iteration, *others):
    before(self, iteration, *others)
    if iteration == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
RunSession.checkpoint = checkpoint
from suite.run import main
sys.exit(main({list(line)!r}))
"""
    return ended(start(code=["-c", program]))
