"""Truncated windows, several judgements and pools: exact for what they differentiate, and resumed to the same bits."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from command_line import resolve
from test_objective import memory, real, setting
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.contracts.checks import check
from suite.contracts.problem import relative_error
from suite.core.networks import fresh_network
from suite.core.outer_loop import begin, from_tensors, step, to_tensors
from suite.core.unroll import InnerLoop, Retention, Window, hypergradient, hypergradient_by_full_graph
from suite.errors import UsageError
from suite.experiments.accounting import value_of, with_values
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.averaged import Averaged
from suite.inner_optimizers.clipped import Clipped
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.inner_optimizers.scheduled import Scheduled
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.judged_often import JudgedOften
from suite.objectives.pool import Pool
from suite.objectives.windows import Windows
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.standard import Standard
from suite.schedules.warm_up import WarmUp
from suite.types import Objective, Optimizer, Params

STEPS = 7
SGD = SGDMomentum(lr=0.05)


def numbers(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=Key(0)(name).generator(), dtype=torch.float64)


def inner(params: Params, inputs: Params, t: int | Tensor) -> Tensor:
    """Another mini-batch at every step, so that a step taken for another shows."""
    rows = (torch.arange(3) + 2 * t) % 5
    return cross_entropy(torch.tanh(inputs["x"].index_select(0, rows) @ params["first"]) @ params["second"], rows % 2)


REAL = numbers(8, 4, name="real")
PARAMS = {"first": numbers(4, 5, name="first"), "second": numbers(5, 2, name="second")}
INPUTS = {"x": numbers(5, 4, name="x")}


def outer(params: Params) -> Tensor:
    return cross_entropy(torch.tanh(REAL @ params["first"]) @ params["second"], torch.arange(8) % 2)


WINDOWS = [
    *[Window(first) for first in range(STEPS)],
    *[Window(0, judged) for judged in ((7,), (3, 7), (1, 2, 3, 4, 5, 6, 7), (2, 5))],
    *[Window(2, (4, 7)), Window(4, (6,))],
]
RETENTIONS = [Retention(), Retention(graphs=2), Retention(graphs=100), Retention(0, 3), Retention(1, 2)]


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("optimizer", [SGD, Adam(lr=0.05), NoMomentum(lr=0.05)], ids=["sgd", "adam", "plain"])
def test_a_window_is_plain_autograd_s(optimizer: Optimizer, window: Window, retention: Retention) -> None:
    loop = InnerLoop(inner, optimizer, INPUTS)
    found = hypergradient(loop, [outer], PARAMS, STEPS, retention, window=window)
    expected = hypergradient_by_full_graph(loop, [outer], PARAMS, STEPS, window)
    assert expected.gradients["x"].norm() > 0
    assert relative_error(found.gradients, expected.gradients) < 1e-12
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.inner_losses, expected.inner_losses, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.params, expected.params, rtol=1e-13, atol=0)


# ---------------------------------------------------------------- the objectives, written out once more

OF = BPTT(inner_optimizer=SGD, inner_steps=6, real_per_class=3, images_per_class_per_step=1)
CAPTURED = replace(OF, execution="captured")
ways = pytest.mark.parametrize("of", [OF, CAPTURED], ids=["eager", "captured"])


def written_out(
    weights: Params, key: Key, start: Params, steps: int, first: int, judged: tuple[int, ...]
) -> tuple[Tensor, Params]:
    """The hypergradient of free images by one graph, from the weights of a network, and its last weights."""
    of = setting(Standard())
    images = start["images"].clone().requires_grad_()
    recalled, network, batches = OF.drawn(of, {"images": images}, real(), key)
    w, v = dict(weights), {k: torch.zeros_like(p) for k, p in weights.items()}
    losses = []
    for t in range(steps):
        if t == first:
            w, v = ({k: p.detach() for k, p in part.items()} for part in (w, v))
        w = {k: p if p.requires_grad else p.requires_grad_() for k, p in w.items()}
        loss = cross_entropy(functional_call(network, w, (recalled["images"][batches.rows[t]],)), batches.labels[t])
        grads = torch.autograd.grad(loss, list(w.values()), create_graph=True)
        v = {k: 0.9 * v[k] + g for k, g in zip(w, grads, strict=True)}
        w = {k: p - 0.05 * v[k] for k, p in w.items()}
        if t + 1 in judged:
            losses.append(cross_entropy(functional_call(network, w, (batches.real,)), batches.real_labels))
    return torch.autograd.grad(torch.stack(losses).mean(), images)[0], {k: p.detach() for k, p in w.items()}


def fresh(key: Key) -> Params:
    return {k: p.detach() for k, p in fresh_network(setting(Standard()), key("network")).named_parameters()}


@ways
def test_a_window_ends_anywhere_and_gives_the_gradient_of_its_steps(of: BPTT) -> None:
    start, ends = memory(Standard()), set()
    for i in range(12):
        key = Key(i)
        grads, metrics = Windows(of=of, window=2).gradients(setting(Standard()), start, real(), key)
        end = int(metrics["window_end"])
        expected, _ = written_out(fresh(key), key, start, end, end - 2, (end,))
        assert relative_error(grads, {"images": expected}) < 1e-10
        ends.add(end)
    assert min(ends) >= 2 and max(ends) <= 6 and len(ends) >= 4


def test_a_window_at_the_end_is_plain_truncation_and_a_whole_one_is_bptt() -> None:
    what, start, key = setting(Addressing(bases=2)), memory(Addressing(bases=2)), Key(3)
    grads, metrics = Windows(of=OF, window=4, position="end").gradients(what, start, real(), key)
    assert int(metrics["window_end"]) == 6 and all(g.norm() > 0 for g in grads.values())
    whole = Windows(of=OF, window=6).gradients(what, start, real(), key)[0]
    assert relative_error(whole, OF.gradients(what, start, real(), key)[0]) < 1e-12
    assert relative_error(grads, whole) > 1e-3


@ways
def test_a_network_is_judged_along_the_way(of: BPTT) -> None:
    start, key = memory(Standard()), Key(5)
    objective = JudgedOften(of=of, times=3)
    grads, _ = objective.gradients(setting(Standard()), start, real(), key)
    assert objective.judged == (2, 4, 6)
    assert relative_error(grads, {"images": written_out(fresh(key), key, start, 6, 0, (2, 4, 6))[0]}) < 1e-10


@ways
def test_a_visit_goes_on_with_a_network_of_the_pool(of: BPTT) -> None:
    start, key = memory(Standard()), Key(1)
    pool = Pool(of=of, networks=3, oldest=20)
    kept = pool.begin(setting(Standard()), start, real(), Key(0))
    assert kept["ages"].tolist() == [0, 6, 13]
    before = {k: v.clone() for k, v in kept.items()}
    seen = set()
    for i in range(12):
        key = Key(i)
        grads, metrics, after = pool.gradients_after(setting(Standard()), start, real(), key, kept)
        (visited,) = [n for n in range(3) if any((after[k][n] != kept[k][n]).any() for k in kept)]
        age = int(kept["ages"][visited])
        weights = {k.removeprefix("weights "): v[visited] for k, v in kept.items() if k != "ages"}
        expected, last = written_out(weights, key, start, 6, 0, (6,))
        assert relative_error(grads, {"images": expected}) < 1e-10
        anew = age + 6 >= 20
        assert int(after["ages"][visited]) == (0 if anew else age + 6)
        if not anew:
            now = {k: after["weights " + k][visited] for k in last}
            assert relative_error(now, last) < 1e-12
        assert int(metrics["network_age"]) == int(after["ages"][visited])
        seen.add(anew)
        kept = after
    assert seen == {False, True}
    first = pool.begin(setting(Standard()), start, real(), Key(0))
    assert all(torch.equal(first[k], before[k]) for k in before)


# ---------------------------------------------------------------- a run that is stopped anywhere


@pytest.mark.parametrize(
    "objective",
    [Windows(of=OF, window=2), JudgedOften(of=OF, times=2), Pool(of=OF, networks=3, oldest=14)],
    ids=["windows", "judged_often", "pool"],
)
def test_stopped_and_resumed_it_ends_in_the_same_bits(objective: Objective) -> None:
    schedule = WarmUp(rise=3)
    optimizer = Averaged(of=Scheduled(of=Clipped(of=Adam(lr=0.1)), schedule=schedule, steps=8), decay=0.5)
    what: Any = setting(Standard())

    def go(stops: tuple[int, ...]) -> Params:
        state = begin(what, optimizer, 1, Key(0))
        state = replace(state, memory={k: v.double() for k, v in state.memory.items()})
        state = replace(state, optimizer_state=optimizer.init(state.memory))
        for i in range(8):
            if i in stops:
                state = from_tensors(i, {k: v.clone() for k, v in to_tensors(state).items()}, torch.device("cpu"))
            state = step(what, objective, optimizer, real(), state, Key(0)("outer"), None)
        return to_tensors(state)

    whole, stopped = go(()), go((1, 4, 5))
    assert whole.keys() == stopped.keys() and all(torch.equal(whole[k], stopped[k]) for k in whole)
    assert any(k.startswith("kept/") for k in whole) == isinstance(objective, Pool)


def test_a_network_that_diverged_leaves_the_pool() -> None:
    pool, start = Pool(of=OF, networks=2, oldest=100), memory(Standard())
    kept = pool.begin(setting(Standard()), start, real(), Key(0))
    kept = {k: v if k == "ages" else v.index_fill(0, torch.tensor([1]), torch.nan) for k, v in kept.items()}
    state = replace(begin(setting(Standard()), SGD, 1, Key(0)), memory=start, kept=kept)
    state = replace(state, optimizer_state=SGD.init(start))
    for _ in range(12):
        state = step(setting(Standard()), pool, SGD, real(), state, Key(0)("outer"), None, max_skipped=1)
    assert state.skipped == 1 and all(v.isfinite().all() for v in state.kept.values())


# ---------------------------------------------------------------- what gin gives them


@pytest.mark.parametrize("name", ["windows", "judged_often", "pool"])
def test_a_wrapped_objective_has_the_settings_of_the_scale_and_the_recipe(name: str) -> None:
    files = ["gin/fashion_mnist.gin", "gin/scale/cpu.gin"]
    short = ["objectives.windows.window = 5"] if name == "windows" else []
    (plain,), (wrapped,) = (
        resolve(files, [f"OBJECTIVE = @objectives.{objective}()", *more])
        for objective, more in (("bptt", []), (name, short))
    )
    of: Any = wrapped.experiment
    assert of.objective.of == plain.experiment.objective  # type: ignore[attr-defined]
    assert of.objective.of.inner_optimizer.lr == 0.03
    assert value_of(of.objective, "real_per_class") == 16
    assert with_values(of.objective, real_per_class=3).of.real_per_class == 3


def test_a_recipe_that_an_experiment_can_t_use_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--gin gin/recipe/fast.gin: this experiment uses none of its settings"):
        resolve(["gin/continual/permutations.gin", "gin/scale/short.gin", "gin/recipe/fast.gin"])


def test_the_paper_s_recipe_is_the_paper_s_at_a_small_scale_too() -> None:
    (run,) = resolve(["gin/fashion_mnist.gin", "gin/scale/cpu.gin", "gin/recipe/paper.gin"])
    of: Any = run.experiment
    assert of.objective.inner_steps == 150 and of.objective.inner_optimizer == SGDMomentum(lr=0.01)
    assert of.outer_optimizer == SGDMomentum(lr=0.1, momentum=0.5) and of.clip == 2.0 and of.start is None


# ---------------------------------------------------------------- refused


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"^Windows\.window must be at most 6, the inner steps, not 7$"):
        Windows(of=OF, window=7)
    with pytest.raises(UsageError, match=r"^JudgedOften\.times must be at most 6, the inner steps, not 7$"):
        JudgedOften(of=OF, times=7)
    with pytest.raises(UsageError, match="a schedule of 10 steps is shorter than its warm-up of 10; lower"):
        Scheduled(of=Adam(), schedule=WarmUp(rise=10), steps=10)
    with pytest.raises(UsageError, match=r"^Scheduled\.of must be another kind of optimizer than this"):
        Scheduled(of=Clipped(of=Scheduled(of=Adam())))
    with pytest.raises(UsageError, match=r"^Scheduled\.of must be averaged outside of this, not inside"):
        Scheduled(of=Averaged(of=Adam()))


@pytest.mark.parametrize("name", ["bptt", "windows", "judged_often", "pool"])
def test_objectives_keep_their_promises_for_memories_with_and_without_labels(name: str) -> None:
    findings = check("objectives", name)
    assert len(findings) > 12 and all(f.verdict == "kept" for f in findings), findings
