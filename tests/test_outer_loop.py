"""The outer loop: torch's own descent on the memory, resumable at every step; NaN and infinity raise."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import as_people_run_it
from outer_steps import outer_states
from torch import Tensor

from suite.architectures.mlp import MLP
from suite.core.outer_loop import NotFinite, OuterState, begin, from_tensors, step, to_tensors
from suite.errors import RunError
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.standard import Standard
from suite.types import ClassRows, ImageShape, Optimizer, Parameterization, Params, Setting, Split

SHAPE, CLASSES = ImageShape(1, 6, 6), 3


def setting(way: Parameterization | None = None) -> Setting:
    recalls = Addressing(bases=2, coefficient_penalty=0.1) if way is None else way
    return Setting(SHAPE, CLASSES, MLP(width=5, depth=1), recalls, "flip_rotate", torch.device("cpu"))


def real() -> ClassRows:
    pixels = torch.randn(12, 1, 6, 6, generator=Key(0)("pixels").generator())
    return ClassRows.of(Split(pixels, torch.arange(12) % CLASSES), CLASSES)


OBJECTIVE = BPTT(inner_steps=3, classes_per_step=2, images_per_class_per_step=4, real_per_class=2)


@dataclass(frozen=True, eq=False)
class Scripted:
    """An objective whose gradients are known beforehand, one for every step; the step's number is read off its key."""

    gradients_of: list[Params]
    losses: list[float] = field(default_factory=list)

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        step = next(i for i in range(len(self.gradients_of)) if key == Key(0)(i))
        loss = self.losses[step] if self.losses else 1.0
        return self.gradients_of[step], {"loss": torch.tensor(loss)}

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        return {}


def one(value: float, other: float = 0.0) -> Params:
    """A gradient of a memory with two tensors."""
    return {"left": torch.full((2,), value), "right": torch.full((1, 2), other)}


def run(objective: Any, optimizer: Optimizer, steps: int, clip: float | None = None) -> list[OuterState]:
    start = OuterState(0, one(0.0), optimizer.init(one(0.0)), {})
    return list(outer_states(setting(Free()), objective, optimizer, real(), start, Key(0), steps, clip))


@dataclass(frozen=True)
class Free(Standard):
    """A memory of any tensors, without a penalty."""

    def penalty(self, memory: Params) -> Tensor:
        return next(iter(memory.values())).new_zeros(())


def same(a: OuterState, b: OuterState) -> bool:
    def tensors(p: OuterState) -> dict[str, Tensor]:
        state = {f"{slot} {k}": v for slot, part in p.optimizer_state.items() for k, v in part.items()}
        return {f"memory {k}": v for k, v in p.memory.items()} | state | p.metrics

    one, other = tensors(a), tensors(b)
    return a.iteration == b.iteration and list(one) == list(other) and all(torch.equal(one[k], other[k]) for k in one)


# ---------------------------------------------------------------- start and resume


@pytest.mark.parametrize("optimizer", [SGDMomentum(lr=0.1, momentum=0.5), Adam(lr=0.01)])
def test_a_start_depends_on_its_key_alone(optimizer: Optimizer) -> None:
    torch.manual_seed(1)
    first = begin(setting(), optimizer, 1.0, Key(0))
    torch.manual_seed(2)
    assert same(first, begin(setting(), optimizer, 1.0, Key(0))) and first.iteration == 0 and first.metrics == {}
    other = begin(setting(), optimizer, 1.0, Key(1))
    assert not any(torch.equal(first.memory[k], other.memory[k]) for k in first.memory)
    fresh = optimizer.init(first.memory)
    assert all(torch.equal(first.optimizer_state[s][k], v) for s, part in fresh.items() for k, v in part.items())


@pytest.mark.parametrize("optimizer", [SGDMomentum(lr=0.1, momentum=0.5), Adam(lr=0.01)])
def test_going_on_from_any_progress_gives_the_same_bits(optimizer: Optimizer) -> None:
    what, start = setting(), begin(setting(), optimizer, 1.0, Key(4))
    whole = list(outer_states(what, OBJECTIVE, optimizer, real(), start, Key(4), 6, 2.0))
    assert [p.iteration for p in whole] == [1, 2, 3, 4, 5, 6]
    for at in whole:
        saved = OuterState(at.iteration, *_through_a_file(at), {})
        rest = list(outer_states(what, OBJECTIVE, optimizer, real(), saved, Key(4), 6, 2.0))
        assert len(rest) == 6 - at.iteration
        assert all(same(a, b) for a, b in zip(whole[at.iteration :], rest, strict=True))


def test_a_step_is_a_function_of_its_state_alone() -> None:
    """Repeated, and from a state that was stored, it gives the same bits; what it started from is unchanged."""
    what, optimizer = setting(), SGDMomentum(lr=0.1, momentum=0.5)
    images, state = real(), begin(what, optimizer, 1.0, Key(4))
    for whole in outer_states(what, OBJECTIVE, optimizer, images, state, Key(4), 3, 2.0):
        before = {k: v.clone() for k, v in to_tensors(state).items()}
        stored = from_tensors(state.iteration, before, what.device)
        for start in (state, state, stored):
            assert same(step(what, OBJECTIVE, optimizer, images, start, Key(4), 2.0), whole)
        assert all(torch.equal(before[k], v) for k, v in to_tensors(state).items())
        state = whole


def _through_a_file(progress: OuterState) -> tuple[Params, dict[str, Params]]:
    """What a checkpoint keeps: copies of the tensors, and nothing else."""
    state = {slot: {k: v.clone() for k, v in part.items()} for slot, part in progress.optimizer_state.items()}
    return {k: v.clone() for k, v in progress.memory.items()}, state


def test_another_key_is_another_run_and_every_step_draws_anew() -> None:
    optimizer = NoMomentum(lr=1e-6)
    start = begin(setting(), optimizer, 1.0, Key(0))
    one, other = (
        [
            p.metrics["loss"].item()
            for p in outer_states(setting(), OBJECTIVE, optimizer, real(), start, Key(seed), 4, None)
        ]
        for seed in (0, 1)
    )
    assert len({*one, *other}) == 8


def test_a_memory_that_was_handed_out_is_not_changed_afterwards() -> None:
    optimizer = SGDMomentum(lr=0.1, momentum=0.5)
    handed = []
    for progress in outer_states(
        setting(), OBJECTIVE, optimizer, real(), begin(setting(), optimizer, 1.0, Key(0)), Key(0), 4, 2.0
    ):
        assert not any(v.requires_grad for v in progress.memory.values())
        handed.append((progress, _through_a_file(progress)[0]))
    assert all(torch.equal(p.memory[k], copy[k]) for p, copy in handed for k in copy)
    assert not any(torch.equal(handed[0][0].memory[k], handed[1][0].memory[k]) for k in handed[0][1])


def test_nothing_is_left_to_do_at_the_end() -> None:
    optimizer = NoMomentum()
    last = OuterState(5, one(1.0), {}, {})
    for iterations in (0, 4, 5):
        assert (
            list(outer_states(setting(Free()), Scripted([]), optimizer, real(), last, Key(0), iterations, None)) == []
        )


# ---------------------------------------------------------------- the step


@pytest.mark.parametrize("clip", [None, 0.02, 100.0])
def test_the_memory_moves_as_torch_moves_it(clip: float | None) -> None:
    """torch.optim.SGD, clip_grad_norm_ and backward of the penalty, on the same hypergradients."""
    what, optimizer, key = setting(), SGDMomentum(lr=0.1, momentum=0.5), Key(2)
    start = begin(what, optimizer, 1.0, key)
    leaves = {k: v.clone().requires_grad_() for k, v in start.memory.items()}
    reference = torch.optim.SGD(leaves.values(), lr=0.1, momentum=0.5)
    norms = []
    for progress in outer_states(what, OBJECTIVE, optimizer, real(), start, key, 4, clip):
        gradients, _ = OBJECTIVE.gradients(
            what, {k: v.detach() for k, v in leaves.items()}, real(), key(progress.iteration - 1)
        )
        reference.zero_grad()
        (0.1 * leaves["matrices"].square().mean()).backward()
        leaves["bases"].grad = torch.zeros_like(leaves["bases"])
        for k, v in leaves.items():
            assert v.grad is not None
            v.grad += gradients[k]
        norm = torch.nn.utils.clip_grad_norm_(leaves.values(), float("inf") if clip is None else clip)
        torch.testing.assert_close(progress.metrics["hypergradient_norm"], norm, rtol=1e-5, atol=0)
        reference.step()
        for k, v in leaves.items():
            torch.testing.assert_close(progress.memory[k], v.detach(), rtol=1e-4, atol=1e-6)
        norms.append(float(norm))
    assert clip != 0.02 or min(norms) > 0.02


def test_clipping_takes_all_tensors_together_and_only_if_they_are_too_long() -> None:
    gradients = [one(3.0, 4.0), one(0.3, 0.4)]  # of norms 5 and 0.5 times the root of two
    root = 2**0.5
    first, second = run(Scripted(gradients), NoMomentum(lr=1.0), 2, clip=root)
    for name, expected in (("left", -3.0 / 5), ("right", -4.0 / 5)):
        torch.testing.assert_close(first.memory[name], torch.full_like(first.memory[name], expected))
    assert float(first.metrics["hypergradient_norm"]) == pytest.approx(5 * root, rel=1e-6)  # before clipping
    assert float(second.metrics["hypergradient_norm"]) == pytest.approx(0.5 * root, rel=1e-6)
    torch.testing.assert_close(second.memory["left"] - first.memory["left"], torch.full((2,), -0.3))
    free = run(Scripted(gradients), NoMomentum(lr=1.0), 1)[0]
    assert torch.equal(free.memory["left"], torch.full((2,), -3.0))


def test_a_gradient_of_zero_leaves_the_memory_to_momentum() -> None:
    still, moved, carried = run(Scripted([one(0.0), one(1.0), one(0.0)]), SGDMomentum(lr=1.0, momentum=0.5), 3, 2.0)
    assert torch.equal(still.memory["left"], torch.zeros(2)) and float(moved.memory["left"][0]) == pytest.approx(-1)
    assert float(carried.memory["left"][0]) == pytest.approx(-1.5)


# ---------------------------------------------------------------- bad numbers


def _until_it_fails(
    objective: Any, steps: int = 4, clip: float | None = None, lr: float = 1.0
) -> tuple[list[OuterState], str]:
    start, handed = OuterState(0, one(0.0), {}, {}), []
    with pytest.raises(NotFinite) as failure:
        for progress in outer_states(setting(Free()), objective, NoMomentum(lr=lr), real(), start, Key(0), steps, clip):
            handed.append(progress)
    assert isinstance(failure.value, RunError) and "\n" not in str(failure.value)
    return handed, str(failure.value)


@pytest.mark.parametrize("clip", [None, 2.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_by_name(bad: float, clip: float | None) -> None:
    handed, message = _until_it_fails(Scripted([one(1.0), one(1.0), one(1.0, bad), one(1.0)]), clip=clip)
    assert [p.iteration for p in handed] == [1, 2]
    assert all(v.isfinite().all() for p in handed for v in p.memory.values())
    assert message.startswith("outer step 3: hypergradient_norm, ") and "memory 'right'" in message
    assert clip is not None or "'left'" not in message  # without clipping the other tensor is sound
    assert "became NaN or infinite; lower the outer or inner learning rate" in message


def test_a_loss_that_is_not_finite_stops_the_run_by_name() -> None:
    handed, message = _until_it_fails(Scripted([one(1.0)] * 2, losses=[1.0, float("nan")]))
    assert len(handed) == 1 and message.startswith("outer step 2: loss became NaN")


def test_a_memory_that_overflows_stops_the_run_by_name() -> None:
    handed, message = _until_it_fails(Scripted([one(1e9), one(1e9, 1e11)]), lr=1e28)
    assert len(handed) == 1 and message.startswith("outer step 2: memory 'right' became NaN or infinite")


def test_a_real_run_that_explodes_stops_by_name() -> None:
    what, optimizer = setting(Standard()), NoMomentum(lr=1e30)
    start = begin(what, optimizer, 1.0, Key(0))
    handed: list[OuterState] = []
    with pytest.raises(NotFinite, match=r"^outer step \d: .*became NaN or infinite"):
        for progress in outer_states(what, BPTT(inner_steps=3), optimizer, real(), start, Key(0), 9, None):
            handed.append(progress)
    assert all(v.isfinite().all() for p in handed for v in p.memory.values())


@pytest.mark.slow
def test_four_hundred_outer_steps_need_no_more_memory_than_a_hundred() -> None:
    """What is in memory, from Linux's account of this process; 2 MiB are less than 7 kilobytes a step."""

    def resident() -> int:
        (line,) = [line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    executions: list[Any] = ["eager", "captured"]
    for execution in executions:
        what = Setting(ImageShape(1, 8, 8), 3, MLP(width=16), Standard(), "flip_rotate", torch.device("cpu"))
        images = torch.randn(30, 1, 8, 8, generator=Key(0).generator())
        real = ClassRows.of(Split(images, torch.arange(30) % 3), 3)
        objective = BPTT(inner_steps=2, real_per_class=2, execution=execution)
        start = begin(what, SGDMomentum(), 1, Key(0))
        after = {}
        with as_people_run_it():
            for state in outer_states(what, objective, SGDMomentum(), real, start, Key(0), 400, 2.0):
                if state.iteration in (100, 400):
                    after[state.iteration] = resident()
        assert after[400] - after[100] < 2 * 2**20


# ---------------------------------------------------------------- skipping


def _handed(objective: Any, max_skipped: int, start: OuterState | None = None, steps: int = 6) -> list[OuterState]:
    start = OuterState(0, one(0.0), {}, {}) if start is None else start
    return list(
        outer_states(setting(Free()), objective, NoMomentum(lr=1.0), real(), start, Key(0), steps, None, max_skipped)
    )


def test_bad_steps_change_nothing_and_are_counted_up_to_their_number() -> None:
    bad, good = one(1.0, float("nan")), one(1.0)
    script = [good, bad, good, bad, good, good]
    handed = _handed(Scripted(script), max_skipped=2)
    assert [p.iteration for p in handed] == [1, 2, 3, 4, 5, 6] and [p.skipped for p in handed] == [0, 1, 1, 2, 2, 2]
    sound = _handed(Scripted([good] * 4), max_skipped=0, steps=4)
    assert all(torch.equal(handed[-1].memory[k], sound[-1].memory[k]) for k in sound[-1].memory)
    assert [bool(p.metrics) for p in handed] == [True, False, True, False, True, True]
    with pytest.raises(NotFinite, match=r"outer step 4: .* \(1 such steps were skipped before\)"):
        _handed(Scripted(script), max_skipped=1)


def test_steps_that_were_skipped_before_a_stop_count_after_it() -> None:
    start = OuterState(2, one(0.0), {}, {}, skipped=1)
    with pytest.raises(NotFinite, match="outer step 3"):
        _handed(Scripted([one(float("inf"))] * 6), max_skipped=1, start=start)
