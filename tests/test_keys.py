"""Keyed randomness: equal keys draw equal numbers, and nothing global is read or changed."""

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from outer_steps import outer_states

from suite.architectures.mlp import MLP
from suite.core.outer_loop import begin
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.types import ClassRows, ImageShape, Setting, Split


def test_equal_keys_draw_equal_numbers_in_any_order() -> None:
    first = [Key(3)("inner", step).permutation(20) for step in range(5)]
    again = [Key(3)("inner", step).permutation(20) for step in reversed(range(5))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    key = Key(3)("inner", 0)
    assert torch.equal(key.permutation(20), key.permutation(20)) and torch.equal(key.permutation(20), first[0])
    assert torch.equal(torch.rand(4, generator=key.generator()), torch.rand(4, generator=key.generator()))


def test_a_longer_path_is_the_same_key_however_it_is_reached() -> None:
    assert Key(0)("a", 1)("b") == Key(0)("a")(1, "b") == Key(0, ("a", 1, "b"))


def test_every_difference_of_keys_makes_a_difference() -> None:
    paths: list[tuple[str | int, ...]] = [(), ("a",), ("b",), ("a", "a"), ("a", "b"), ("ab",), ("a,b",), (1,), ("1",)]
    paths += [(1, 2), (12,), ("a", 1), ("a", "1"), ("",), ("", "")]
    keys = [Key(seed, path) for seed in (0, 1, -1, 2**40) for path in paths]
    keys += [Key(0)("step", i) for i in range(2000)]
    assert len({key.integer() for key in keys}) == len(keys)
    draws = {tuple(torch.rand(2, generator=key.generator()).tolist()) for key in keys}
    assert len(draws) == len(keys)


def test_the_numbers_behind_a_key_never_change() -> None:
    """Published runs would stop being repeatable: these values may only change together with a major version."""
    assert Key(0).integer() == -3405670119645216457
    assert Key(0)("inner", 3).integer() == 4623331278174274448
    assert Key(7)("network", 0)("ü").integer() == 5810800403987732473
    assert Key(0)("inner", 3).permutation(8).tolist() == [5, 2, 3, 1, 7, 4, 0, 6]


def test_a_subset_of_everything_is_everything_in_order() -> None:
    for k in (5, 6, 100):
        assert Key(0).subsets(3, 5, k).tolist() == [[0, 1, 2, 3, 4]] * 3


def test_subsets_are_drawn_without_replacement() -> None:
    drawn = Key(0)("subsets").subsets(500, 9, 4)
    assert drawn.shape == (500, 4) and drawn.dtype == torch.int64
    assert drawn.min() == 0 and drawn.max() == 8
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    assert torch.equal(drawn, Key(0)("subsets").subsets(500, 9, 4))
    assert not torch.equal(drawn, Key(1)("subsets").subsets(500, 9, 4))


def test_subsets_are_uniform() -> None:
    rows = 6000
    drawn = Key(0)("uniform").subsets(rows, 5, 2)
    expected = rows * 2 / 5
    for place in (drawn, drawn[:, :1], drawn[:, 1:]):  # together, and at each place on its own
        share = torch.bincount(place.flatten(), minlength=5) / place.shape[1]
        assert (share - rows / 5).abs().max() < 5 * (rows / 5) ** 0.5
    pairs = torch.bincount((drawn.sort(1).values * torch.tensor([5, 1])).sum(1), minlength=25)
    assert (pairs > 0).sum() == 10 and (pairs[pairs > 0] - expected / 4).abs().max() < 5 * (expected / 4) ** 0.5


def test_a_lent_global_generator_is_keyed_and_given_back() -> None:
    before = torch.random.get_rng_state()
    with global_generators(Key(0)("network")):
        first = torch.rand(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    with global_generators(Key(0)("network")):
        assert torch.equal(torch.rand(5), first)
    with global_generators(Key(0)("other")):
        assert not torch.equal(torch.rand(5), first)


def test_a_lent_global_generator_is_given_back_after_an_error() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="boom"), global_generators(Key(0)):
        torch.rand(5)
        raise RuntimeError("boom")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_loan_leaves_the_generators_of_cuda_alone() -> None:
    before = torch.cuda.get_rng_state_all()
    with global_generators(Key(0)):
        torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(torch.cuda.get_rng_state_all(), before, strict=True))


def _global_states() -> dict[str, Any]:
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": str(numpy.random.get_state()),
        "random": random.getstate(),
    }


def _under_seed(seed: int, work: Callable[[], Any]) -> Any:
    """What `work` gives when every global generator starts from `seed`; they must be left as they were found."""
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    random.seed(seed)
    before = _global_states()
    result = work()
    assert _global_states() == before
    return result


def _whole_run() -> tuple[list[torch.Tensor], dict]:
    """Two outer steps with everything that draws, and an evaluation of what they made."""
    shape, classes = ImageShape(1, 8, 8), 3
    setting = Setting(shape, classes, MLP(width=8), Addressing(bases=2), "flip_rotate", torch.device("cpu"))
    pixels = torch.randn(12, 1, 8, 8, generator=Key(0)("pixels").generator())
    split = Split(pixels, torch.arange(classes).repeat(4))
    objective = BPTT(inner_steps=3, classes_per_step=2, images_per_class_per_step=4, real_per_class=2)
    optimizer = SGDMomentum(lr=0.1, momentum=0.5)
    start = begin(setting, optimizer, 1.0, Key(5)("memory"))
    *_, last = outer_states(
        setting, objective, optimizer, ClassRows.of(split, classes), start, Key(5), 2, max_grad_norm=2.0
    )
    judged = evaluate(
        setting,
        lambda _: recalled(setting, last.memory),
        Protocol(name="small", networks=2, epochs=3, batch=16),
        Key(5)("evaluate"),
        {"test": split},
    )
    return [*last.memory.values(), *last.optimizer_state["momentum"].values(), *last.metrics.values()], judged


@pytest.mark.slow
def test_distilling_and_evaluating_neither_read_nor_change_global_generators() -> None:
    """In a process of its own, since the type checks of these tests draw from Python's `random` themselves."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal bits\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    tensors, judged = _under_seed(1, _whole_run)
    others, again = _under_seed(2, _whole_run)
    assert judged == again and all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))
    print("equal bits")
