"""Rollouts: their mean gradient is exact, and processes that share them, die, stop and go on give the same bits."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, command, only_run, said, sets
from several_ranks import AT_END, Blow, Ranks, several_ranks
from test_matching import memory_of, real, setting
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.architectures.mlp import MLP
from suite.contracts.problem import relative_error
from suite.core.outer_loop import OuterState, from_tensors, step, to_tensors
from suite.experiments.distillation import Distillation
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.objectives.gradient_matching import GradientMatching
from suite.objectives.pool import Pool
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard
from suite.registry import describe
from suite.runtime.run_directory import FINISHED, state
from suite.sweep.__main__ import main as sweep
from suite.types import Objective, Params

# ---------------------------------------------------------------- one process

PLAIN = SGDMomentum(lr=1.0, momentum=0.0)
"""An outer step by the gradient itself: memory - g."""

OF = BPTT(inner_steps=3, inner_optimizer=SGDMomentum(lr=0.1), real_per_class=4)


def gradient(objective: Objective, recalls: Any, rollouts: int, steps: int = 1) -> tuple[Params, OuterState]:
    """What the last of so many outer steps moves the memory by, and the state after it."""
    what = setting(recalls, MLP(width=5))
    after = OuterState(0, memory_of(what), PLAIN.init(memory_of(what)), {})
    for _ in range(steps):
        before = after
        after = step(what, objective, PLAIN, real(), before, Key(5), None, rollouts=rollouts)
    return {k: before.memory[k] - after.memory[k] for k in after.memory}, after


@pytest.mark.parametrize("recalls", [Standard(), Addressing(bases=2), SoftLabels(of=Standard())], ids=["s", "a", "l"])
def test_the_gradient_is_that_of_the_mean_of_the_losses(recalls: Any) -> None:
    """Against autograd through plain training of each rollout's network, in float64."""
    what = setting(recalls, MLP(width=5))
    leaves = {k: v.requires_grad_() for k, v in memory_of(what).items()}
    losses = []
    for i in range(3):
        key = Key(5)(0) if i == 0 else Key(5)(0, "rollout", i)
        recalled, network, batches = OF.drawn(what, leaves, real(), key)
        weights = dict(network.named_parameters())
        velocity = {k: torch.zeros_like(w) for k, w in weights.items()}
        for t in range(3):
            scores = functional_call(network, weights, (recalled["images"][batches.rows[t]],))
            taught = recalled["labels"][batches.rows[t]] if "labels" in recalled else batches.labels[t]
            grads = torch.autograd.grad(cross_entropy(scores, taught), [*weights.values()], create_graph=True)
            velocity = {k: 0.9 * velocity[k] + g for k, g in zip(weights, grads, strict=True)}
            weights = {k: w - 0.1 * velocity[k] for k, w in weights.items()}
        losses.append(cross_entropy(functional_call(network, weights, (batches.real,)), batches.real_labels))
    loss = torch.stack(losses).mean()
    wanted = dict(zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True))
    found, after = gradient(OF, recalls, 3)
    assert relative_error(found, wanted) < 1e-12
    torch.testing.assert_close(after.metrics["loss"], loss.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("objective", [OF, GradientMatching(real_per_class=4), DistributionMatching(real_per_class=4)])
def test_one_rollout_is_the_first_of_several_and_what_there_was_before(objective: Objective) -> None:
    what = setting(Standard(), MLP(width=5))
    keys = Key(5)(0), Key(5)(0, "rollout", 1)
    one, other = (objective.gradients(what, memory_of(what), real(), key)[0]["images"] for key in keys)
    moved = memory_of(what)["images"]
    assert torch.equal(gradient(objective, Standard(), 1)[0]["images"], moved - (moved - one))
    assert torch.equal(gradient(objective, Standard(), 2)[0]["images"], moved - (moved - (one + other) / 2))
    assert not torch.equal(one, other)
    assert describe(Distillation(rollouts=1)) == describe(Distillation())
    assert describe(Distillation(rollouts=2)) == describe(Distillation()) | {"rollouts": 2}


def test_each_rollout_has_a_pool_of_its_own_which_a_checkpoint_holds() -> None:
    pool = Pool(of=OF, networks=2, oldest=6)
    _, after = gradient(pool, Standard(), 2, steps=2)
    ages = [after.kept[name] for name in ("ages", "rollout 1/ages")]
    assert [int(age.sum()) for age in ages] != [0, 0] and len(after.kept) % 2 == 0
    alone = gradient(pool, Standard(), 1, steps=2)[1].kept
    assert {name for name in after.kept if not name.startswith("rollout ")} == set(alone)
    restored = from_tensors(2, to_tensors(after), torch.device("cpu"))
    what = setting(Standard(), MLP(width=5))
    on = [step(what, pool, PLAIN, real(), one, Key(5), None, rollouts=2) for one in (after, restored)]
    assert torch.equal(on[0].memory["images"], on[1].memory["images"])


# ---------------------------------------------------------------- several

STEPS = 6
FOUR = [*QUICK, *sets("ROLLOUTS = 4", f"ITERATIONS = {STEPS}"), "--checkpoint-seconds", "0", "--tracking-uri", "none"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with several_ranks(tmp_path_factory.mktemp("ranks")) as started:
        yield started


@dataclass(frozen=True)
class Left:
    """What a run left that must not depend on who did it."""

    record: dict[str, Any]
    memory: bytes
    metrics: bytes

    @staticmethod
    def by(out: Path) -> "Left":
        run = only_run(out)
        record = json.loads((run / FINISHED).read_text())
        del record["cost"]
        return Left(record, (run / "memory.safetensors").read_bytes(), (run / "metrics.csv").read_bytes())


def cost(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((only_run(out) / FINISHED).read_text())["cost"]
    return {name: found.get(name) for name in ("rollouts", "ranks", "attempts")}


def newest_checkpoint(out: Path) -> int:
    return max(int(path.name.removeprefix("step-")) for path in only_run(out).glob("checkpoints/step-*"))


@pytest.fixture(scope="module")
def alone(ranks: Ranks, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What one process leaves."""
    out = tmp_path_factory.mktemp("alone")
    ended = ranks(1, [*FOUR, "--data-dir", data_dir, "--out", out])
    assert ended.statuses == [0], ended.said
    assert cost(out) == {"rollouts": 4, "ranks": None, "attempts": 1}
    return Left.by(out)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_ranks_gives_the_same_bits(
    count: int, ranks: Ranks, alone: Left, data_dir: Path, tmp_path: Path
) -> None:
    ended = ranks(count, [*FOUR, "--data-dir", data_dir, "--out", tmp_path])
    assert ended.statuses == [0] * count, ended.said
    assert Left.by(tmp_path) == alone
    assert cost(tmp_path) == {"rollouts": 4, "ranks": count, "attempts": 1}
    assert "test (95% interval)" in ended.said[0] and ended.said[1:] == [""] * (count - 1)  # one speaks for all


@pytest.mark.slow
def test_whichever_rank_is_killed_the_run_goes_on_and_two_go_on_with_what_four_began(
    ranks: Ranks, alone: Left, data_dir: Path, tmp_path: Path
) -> None:
    line = [*FOUR, "--data-dir", data_dir, "--out", tmp_path]
    for done, (count, rank) in enumerate([(4, 3), (2, 0), (2, 1)], 1):
        ended = ranks(count, line, Blow(rank, step=done))
        assert ended.statuses == [-9 if r == rank else 1 for r in range(count)], ended.said
        assert "another rank is gone" in ended.said[(rank + 1) % count] and "Traceback" not in "".join(ended.said)
        assert state(only_run(tmp_path)) == "killed"
        assert newest_checkpoint(tmp_path) == done
    ended = ranks(2, line)
    assert ended.statuses == [0, 0], ended.said
    assert "resuming from the checkpoint of step 3" in ended.said[0]
    assert Left.by(tmp_path) == alone
    assert cost(tmp_path) == {"rollouts": 4, "ranks": 2, "attempts": 4}


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_step(
    ranks: Ranks, alone: Left, data_dir: Path, tmp_path: Path
) -> None:
    line = [*FOUR, "--data-dir", data_dir, "--out", tmp_path, "--checkpoint-seconds", "1000"]
    ended = ranks(2, line, Blow(1, step=3, signal=15))
    assert ended.statuses == [75] * 2, ended.said
    assert "stopped by SIGTERM at a checkpoint" in ended.said[0] and "stopped by" not in ended.said[1]
    assert state(only_run(tmp_path)) == "stopped" and newest_checkpoint(tmp_path) == 4
    ended = ranks(2, line, Blow(1, AT_END, signal=10))  # the first evaluates, and the others wait
    assert ended.statuses == [75] * 2, ended.said
    assert "stopped by SIGUSR1" in ended.said[0]
    assert ranks(1, line).statuses == [0]  # a process alone goes on with it
    assert Left.by(tmp_path) == alone


FAILS = """
import os
from dataclasses import dataclass
from suite.objectives.bptt import BPTT
from suite.registry import objectives

@objectives.register("fails")
@dataclass(frozen=True)
class Fails(BPTT):
    "Fails on the second rank."
    def gradients(self, *given):
        if os.environ["RANK"] == "1":
            raise ValueError("no more")
        return super().gradients(*given)

@objectives.register("differs")
@dataclass(frozen=True)
class Differs(BPTT):
    "Is another configuration on each rank."
    rank: int = int(os.environ["RANK"])
"""
"""A plugin."""


@pytest.mark.slow
def test_what_fails_on_one_rank_is_said_once_and_ends_all(ranks: Ranks, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    line = [*FOUR, "--plugin", tmp_path / "fails.py", "--data-dir", data_dir, "--out", tmp_path / "out"]
    ended = ranks(2, [*line, *sets("OBJECTIVE = @objectives.differs()", "objectives.differs.inner_steps = 2")])
    assert ended.statuses == [1, 1]
    assert "[rank 1] suite.run: this rank has another configuration than rank 0" in ended.said[1]
    shutil.rmtree(tmp_path / "out")
    ended = ranks(2, [*line, *sets("OBJECTIVE = @objectives.fails()", "objectives.fails.inner_steps = 2")])
    assert ended.statuses == [1, 1]
    assert ended.said[1].startswith("[rank 1] suite.run: ") and "no more" in ended.said[1]
    assert "rank 1 ended with status 1" in ended.said[0] and "Traceback" not in "".join(ended.said)
    assert state(only_run(tmp_path / "out")) == "failed"


@pytest.mark.slow
def test_what_is_not_finite_is_said_once(ranks: Ranks, data_dir: Path, tmp_path: Path) -> None:
    line = [*FOUR, "--data-dir", data_dir, "--out", tmp_path / "out", *sets("OUTER_LR = 1e30")]
    ended = ranks(2, line)
    assert ended.statuses == [1, 1] and ended.said[1] == ""
    assert "is kept in" in ended.said[0] and "Traceback" not in ended.said[0]


# ---------------------------------------------------------------- refusals


MEET = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def refused(monkeypatch: pytest.MonkeyPatch, count: int, *line: str | Path, **place: str) -> str:
    """The sentence with which the first of so many ranks refuses a command; the second says nothing."""
    for rank in (1, 0):
        for name, value in (MEET | {"RANK": str(rank), "WORLD_SIZE": str(count)} | place).items():
            monkeypatch.setenv(name, value)
        done = command(*QUICK, *line)
        assert done.status == 2
        assert rank == 0 or done.err == ""
    return done.complaint


def test_what_ranks_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = "--out", tmp_path / "out"
    sentence = refused(monkeypatch, 2, *sets("ROLLOUTS = 3"), *out)
    assert sentence.startswith("2 processes can't share the 3 rollouts of an outer step evenly")
    assert "ROLLOUTS = 4" in sentence
    assert "4 processes can't share the 2 rollouts" in refused(monkeypatch, 4, *sets("ROLLOUTS = 2"), *out)
    assert "2 processes can't share the 1 rollout of" in refused(monkeypatch, 2, *out)
    together = refused(monkeypatch, 2, *sets("ROLLOUTS = 2"), "--together", "2", *out)
    assert "leave it out where several share a run" in together
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "2 processes need as many GPUs, and there are 1" in refused(
        monkeypatch, 2, *sets("ROLLOUTS = 2"), "--device", "cuda", *out
    )
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = command(*QUICK, "--out", tmp_path)
    assert done.status == 2 and "no place among several processes" in done.complaint
    monkeypatch.setenv("RANK", "0")
    done = command(*QUICK, "--out", tmp_path)
    assert done.status == 2 and "$MASTER_ADDR, where they meet, is not set" in done.complaint


def test_a_rank_on_a_machine_of_its_own_says_what_is_wrong_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in (MEET | place).items():
        monkeypatch.setenv(name, value)
    done = command("--gin", tmp_path / "none.gin", "--out", tmp_path)
    assert done.status == 2 and done.err.startswith("[rank 1] suite.run: ") and "none.gin" in done.err


def test_a_sweep_is_no_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (MEET | {"RANK": "0", "WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    done = said(sweep, [*QUICK, "--out", str(tmp_path)])
    assert done.status == 2 and "start one sweep alone" in done.err
