"""Several runs in one process: they take turns, and each is what it is alone."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, command, sets

from suite.core.turns import by_turns, hand_over
from suite.errors import RunError
from suite.objectives import programs
from suite.runtime.record import comparable
from suite.runtime.session import RunSession

CPU = torch.device("cpu")


def test_one_works_at_a_time_and_each_has_all_its_turns() -> None:
    at_work, seen = 0, list[str]()

    def work(name: str) -> str:
        nonlocal at_work
        for _ in range(3):
            at_work += 1
            assert at_work == 1
            seen.append(name)
            at_work -= 1
            hand_over()
        return name

    ended = by_turns([partial(work, name) for name in "abc"], 3, CPU)
    assert [end.result() for end in ended] == ["a", "b", "c"]
    assert sorted(seen) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


def test_who_ends_by_an_error_hands_over_too() -> None:
    def fails() -> int:
        hand_over()
        raise RunError("no room")

    ended = by_turns([fails, lambda: 1, fails, lambda: 2], 2, CPU)
    assert [end.exception() is None for end in ended] == [False, True, False, True]
    assert ended[3].result() == 2


def test_alone_nothing_is_handed_over() -> None:
    hand_over()
    assert by_turns([lambda: 1], 1, CPU)[0].result() == 1


def test_programs_of_runs_at_once_share_no_tensors() -> None:
    kept = [end.result() for end in by_turns([lambda: id(programs._kept.programs)] * 2, 2, CPU)]
    assert id(programs._kept.programs) not in kept


# ---------------------------------------------------------------- of whole runs

SEEDS = [*QUICK, *sets("SEEDS = [0, 1, 2]", "ITERATIONS = 6", "EXECUTION = 'captured'")]


def go(out: Path, data_dir: Path, *words: str, seeds: list[str] = SEEDS) -> Any:
    return command(*seeds, "--data-dir", data_dir, "--out", out, "--tracking-uri", "none", *words)


def records(out: Path) -> dict[str, Any]:
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(out.glob("*/*/result.json"))}


@pytest.fixture(scope="module")
def alone(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds, one after the other."""
    out = tmp_path_factory.mktemp("alone")
    assert go(out, data_dir).status == 0
    return out


def assert_the_same(out: Path, alone: Path) -> None:
    found, expected = records(out), records(alone)
    assert len(found) == 3
    for name, record in found.items():
        assert record["measurements"] == expected[name]["measurements"]
        assert record["run_key"] == expected[name]["run_key"]
        memory = Path("quickstart", name, "memory.safetensors")
        assert (out / memory).read_bytes() == (alone / memory).read_bytes()


def test_seeds_at_once_are_the_seeds_alone(alone: Path, data_dir: Path, tmp_path: Path) -> None:
    done = go(tmp_path, data_dir, "--together", "3")
    assert done.status == 0, done.err
    assert_the_same(tmp_path, alone)
    together_, alone_ = (next(iter(records(out).values())) for out in (tmp_path, alone))
    assert together_["cost"]["runs_at_once"] == 3 and "runs_at_once" not in alone_["cost"]
    assert comparable(together_) == comparable(alone_)
    first, last = done.err.index("seed 2] 1/6"), done.err.index("seed 0] 6/6")
    assert first < last  # the last seed began before the first had ended


def test_a_signal_stops_all_of_them_and_the_same_command_goes_on(
    alone: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = RunSession.progress

    def stopping(self: RunSession, iteration: int, total: int, words: str) -> None:
        progress(self, iteration, total, words)
        if iteration == 3 and self.key.seed == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(RunSession, "progress", stopping)
        stopped = go(tmp_path, data_dir, "--together", "3")
    assert stopped.status == 75 and "stopped by SIGTERM at a checkpoint" in stopped.complaint
    assert not records(tmp_path)
    again = go(tmp_path, data_dir, "--together", "2")
    assert again.status == 0 and again.err.count("resuming from the checkpoint") == 3
    assert_the_same(tmp_path, alone)


def test_one_that_fails_takes_no_other_with_it(data_dir: Path, tmp_path: Path) -> None:
    axes = {"rate": {"good": ["OUTER_LR = 0.1"], "bad": ["OUTER_LR = 1e30"], "fair": ["OUTER_LR = 0.2"]}}
    seeds = [*QUICK, *sets("ITERATIONS = 6", f"run.axes = {axes}")]
    done = go(tmp_path, data_dir, "--together", "3", seeds=seeds)
    assert done.status == 1 and "became NaN or infinite" in done.complaint
    assert {record["cell"]["rate"] for record in records(tmp_path).values()} == {"good", "fair"}
