"""Compress-then-recall: the storage at every moment, the matrix, going on from any checkpoint, and what is refused."""

import json
import signal
import sys
import tempfile
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import as_people_run_it, command, killed_at, only_run, resolve, sets
from fake_session import FakeSession
from torch.nn.functional import avg_pool2d

from suite.architectures.mlp import MLP
from suite.core.outer_loop import NotFinite
from suite.datasets.digits import Digits
from suite.errors import UsageError
from suite.evaluation.evaluate import accuracy, evaluate
from suite.evaluation.protocol import Protocol
from suite.experiments.continual import metrics, presets
from suite.experiments.continual.absorbing import absorbed
from suite.experiments.continual.avalanche_strategies import AvalancheStrategy
from suite.experiments.continual.companions import with_finished, with_stand_ins
from suite.experiments.continual.compress_then_recall import CompressThenRecall
from suite.experiments.continual.one_pass import OfMemories
from suite.experiments.continual.online import Online
from suite.experiments.continual.reservoir import Reservoir
from suite.inner_optimizers.scheduled import Scheduled
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.factors import factors
from suite.parameterizations.standard import Standard
from suite.registry import describe
from suite.runtime.record import comparable
from suite.schedules.cosine import Cosine
from suite.streams.base import at_places
from suite.streams.class_splits import ClassSplits
from suite.streams.permutations import Permutations
from suite.streams.rotations import Rotations
from suite.types import ImageShape, Setting, Split

PLAIN = Digits()
SMALL = CompressThenRecall(
    stream=Permutations(of=PLAIN, number=3, samples_per_task=40),
    architecture=MLP(width=16, depth=1),
    parameterization=Addressing(bases=4),
    objective=BPTT(inner_steps=2, images_per_class_per_step=1),
    images_per_task=20,
    batch=10,
    replay=2,
    replay_batch=5,
    evaluation=Protocol(networks=2, epochs=3),
)


class Unfitted(Addressing):
    """Offers no start from images."""

    fitted = None  # type: ignore[assignment]


def session_in(data_dir: Path, seed: int = 0, **options: Any) -> FakeSession:
    return FakeSession(data_dir, Path(tempfile.mkdtemp(dir=data_dir)), seed, **options)


def run(experiment: CompressThenRecall, session: FakeSession) -> Any:
    with as_people_run_it():
        return experiment.run(session)  # type: ignore[arg-type]


def test_a_whole_stream_gives_the_matrix_and_its_measurements(data_dir: Path) -> None:
    session = session_in(data_dir)
    found = run(SMALL, session)
    assert len(session.lines) == len(found.facts["differs"]) > 1  # every known deviation is reported
    matrices = found.facts["matrices"]
    assert len(matrices) == 2 and all(len(r) == 3 and all(len(row) == 3 for row in r) for r in matrices)
    for r in matrices:
        assert [[value is not None for value in row] for row in r] == [[j <= i for j in range(3)] for i in range(3)]
    by = {m.quantity: m.values for m in found.measurements if m.method == "memory"}
    assert set(by) == {"RA", "LA", "BTI", "BWT", "forgetting"}
    assert by["RA"] == pytest.approx([metrics.retained(r) for r in matrices])
    assert by["RA"] == pytest.approx([a + b for a, b in zip(by["LA"], by["BTI"], strict=True)])
    assert found.facts["differs"] and len(found.facts["tasks"]) == 3


@pytest.mark.slow
def test_the_same_seed_gives_the_same_and_another_seed_another(data_dir: Path) -> None:
    first, again, other = (run(SMALL, session_in(data_dir, seed)) for seed in (0, 0, 1))
    assert first.facts["matrices"] == again.facts["matrices"] != other.facts["matrices"]


@pytest.mark.parametrize(
    ("stop_at", "options"), [(2, "none"), (6, "none"), (8, "none"), (18, "none"), (8, "all"), (2, "absorbed")]
)
def test_a_run_that_was_stopped_anywhere_goes_on_to_the_same_bits(stop_at: int, options: str, data_dir: Path) -> None:
    experiment = replace(SMALL, **OPTIONS[options])
    whole = session_in(data_dir)
    found = run(experiment, whole)
    first = session_in(data_dir, stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, first)
    assert first.saved is not None
    second = session_in(data_dir, before=first)
    gone_on = run(experiment, second)
    assert gone_on.facts == found.facts and gone_on.measurements == found.measurements
    assert min(second.logged, default=99) > first.saved[0] - 1  # nothing was done twice
    for name, value in whole.saved[1].items():
        assert torch.equal(value, second.saved[1][name]), name


def test_capacity_shrinks_by_a_task_s_share() -> None:
    many = replace(SMALL, stream=Permutations(of=PLAIN, number=20), images_per_task=10, parameterization=Standard())
    assert [many.capacity(t) for t in range(20)] == list(range(200, 0, -10))


def test_a_run_that_is_stopped_while_it_evaluates_keeps_the_memory_that_it_compressed(data_dir: Path) -> None:
    class Stopped(FakeSession):
        """A session that a signal stops in the second evaluation."""

        evaluations = 0

        def pause(self) -> None:
            if len(self.logged) > 4:
                raise KeyboardInterrupt

    first = Stopped(data_dir, Path(tempfile.mkdtemp(dir=data_dir)), due=False)
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, first)
    assert first.saved[0] == 2 * SMALL.steps_per_task and len(first.saved[2]["matrix"]) == 1
    second, whole = session_in(data_dir, before=first), session_in(data_dir)
    outcome = run(SMALL, second)
    assert min(second.logged) > first.saved[0]  # no outer step is done twice
    assert outcome.facts["matrices"] == run(SMALL, whole).facts["matrices"]


def test_a_step_that_is_not_finite_leaves_the_state_before_it_to_go_on_from(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients, calls = BPTT.gradients, []

    def not_finite_in_the_third_batch(self: BPTT, *arguments: Any) -> Any:
        calls.append(1)
        grads, metrics = gradients(self, *arguments)
        return {k: g * float("nan") for k, g in grads.items()} if len(calls) == 6 else grads, metrics

    failed = session_in(data_dir, due=False)
    with monkeypatch.context() as broken:
        broken.setattr(BPTT, "gradients", not_finite_in_the_third_batch)
        with pytest.raises(NotFinite, match="outer step 6"):
            run(SMALL, failed)
    assert failed.saved[0] == 2 * SMALL.replay  # the batches before
    resumed, whole = session_in(data_dir, before=failed), session_in(data_dir)
    assert run(SMALL, resumed).facts["matrices"] == run(SMALL, whole).facts["matrices"]


OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "all": {"beside": 2, "stand_ins": 1, "absorbed": 20, "kept_networks": 2},
    "absorbed": {"absorbed": 40},
}
"""Of compress-then-recall, that are ours."""


@pytest.mark.parametrize("options", ["none", "all"])
@pytest.mark.parametrize("stream", [Permutations, Rotations])
def test_storage_never_exceeds_the_budget(
    stream: Any, options: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every moment of the stream: real images kept and finished memories together."""
    stored: list[int] = []
    original = Reservoir.add

    def watched(self: Any, items: Any, key: Key) -> Any:
        made = original(self, items, key)
        stored.append(len(made.kept))
        assert len(made.kept) <= made.capacity
        return made

    monkeypatch.setattr(Reservoir, "add", watched)
    experiment = replace(SMALL, stream=stream(of=PLAIN, number=3, samples_per_task=100), **OPTIONS[options])
    found = run(experiment, session_in(data_dir))
    calls = {"none": (11, 11, 11), "all": (9, 9, 9)}[options]  # what was absorbed before, at once
    ends = list(accumulate(calls))
    assert len(stored) == ends[2]
    assert [max(stored[i - n : i]) for i, n in zip(ends, calls, strict=True)] == [60, 40, 20]
    assert found.facts["most_stored_numbers"] <= found.facts["storage_numbers"] == 60 * 64
    assert found.budget.stored_numbers == 3 * found.facts["working_numbers"] <= 60 * 64
    assert found.facts["working_numbers"] <= 20 * 64  # the memory being learned, beside the storage


@pytest.mark.parametrize(
    ("shape", "classes", "bases", "downsampled", "images", "per_class", "numbers"),
    [
        (ImageShape(1, 28, 28), 10, 24, True, 10, 13, 7824),
        (ImageShape(1, 28, 28), 10, 8, False, 10, 19, 7792),
        (ImageShape(3, 32, 32), 5, 24, True, 10, 102, 30_672),
    ],
)
def test_recalled_images_of_the_paper_s_budgets(
    shape: ImageShape, classes: int, bases: int, downsampled: bool, images: int, per_class: int, numbers: int
) -> None:
    plain = Addressing(bases=bases)
    of = Downsampled(of=plain) if downsampled else plain
    assert of.per_class(shape, classes, images / classes) == per_class
    memory = of.init(shape, classes, images / classes, Key(0))
    assert sum(v.numel() for v in memory.values()) == numbers


def test_a_sparse_matrix_has_the_diagonal_and_the_last_row(data_dir: Path) -> None:
    found = run(replace(SMALL, whole_matrix=False), session_in(data_dir))
    known = [[value is not None for value in row] for row in found.facts["matrices"][0]]
    assert known == [[True, False, False], [False, True, False], [True, True, True]]
    assert {m.quantity for m in found.measurements} == {"RA", "LA", "BTI", "BWT"}


def test_classes_of_other_tasks_are_masked_where_the_task_is_known(data_dir: Path) -> None:
    splits = ClassSplits(of=PLAIN, number=2, classes_per_task=3, samples_per_task=40)
    learner = replace(SMALL, stream=splits, parameterization=Addressing(bases=2), images_per_task=12)
    found = run(learner, session_in(data_dir))
    assert found.facts["matrices"][0][1][0] is not None
    # A network whose every score is highest for class 5 is right about its own task's classes alone.
    network = torch.nn.Linear(64, 6)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([1.0, 0, 0, 0, 0, 9]))
    network = torch.nn.Sequential(torch.nn.Flatten(), network)
    images = Split(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 5]))
    task = Setting(ImageShape(1, 8, 8), 6, MLP(), Standard(), "none", torch.device("cpu"))
    assert accuracy(network, images, setting=task) == 25.0
    grouped = replace(task, groups=torch.tensor([0, 0, 0, 1, 1, 1]))
    assert accuracy(network, images, setting=grouped) == 75.0


def test_masked_training_moves_only_the_outputs_of_its_own_group() -> None:
    """Images of group 0 alone: the head's rows of group 1 stay as they were drawn."""
    task = Setting(
        ImageShape(1, 8, 8), 6, MLP(width=8, depth=1), Standard(), "none", torch.device("cpu"),
        torch.tensor([0, 0, 0, 1, 1, 1]),
    )  # fmt: skip
    from suite.evaluation.training import train

    data = Split(torch.randn(30, 1, 8, 8, generator=Key(0).generator()), torch.arange(30) % 3)
    fresh, trained = (train(task, data, Protocol(networks=1, epochs=e, lr=0.5), Key(3)) for e in (1, 9))
    heads = [list(network.parameters())[-2] for network in (fresh, trained)]
    assert torch.equal(heads[0][3:], heads[1][3:]) and not torch.equal(heads[0][:3], heads[1][:3])
    found = evaluate(task, lambda n: data, Protocol(networks=2, epochs=2), Key(0), {"test": data})
    assert all(0 <= value <= 100 for value in found["test"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images_per_task": 0.5}, "images_per_task must be at least 1"),
        ({"images_per_task": 4, "parameterization": Addressing(bases=40)}, "40 bases of 1x8x8 leave no room"),
        ({"replay": 0}, "replay must be above 0"),
        ({"batch": 0}, "batch must be above 0"),
    ],
)
def test_what_can_not_be_is_refused_in_one_sentence(changes: dict[str, Any], said: str) -> None:
    with as_people_run_it(), pytest.raises(UsageError, match=said) as error:
        replace(SMALL, **changes)
    assert "\n" not in str(error.value)


def test_less_than_the_published_benchmark_is_called_reduced(data_dir: Path) -> None:
    scale = run(replace(SMALL, evaluation=Protocol(networks=1)), session_in(data_dir)).scale
    assert scale["reduced"] and scale["reduced_by"][:5] == [
        "inner steps 2 of 100", "width 16 of 256", "tasks 3 of 20", "images of a task 40 of 1000",
        "updates for a batch 2 of 20",
    ]  # fmt: skip
    whole = CompressThenRecall(parameterization=Addressing(bases=8), objective=BPTT(inner_steps=100))
    assert presets.reduced_by(whole, whole.replay) == []  # the paper's sizes are its defaults
    many = Permutations(number=100, samples_per_task=200)
    less = replace(whole, stream=many, images_per_task=5, parameterization=Addressing(bases=4), preset="paper_many")
    assert presets.reduced_by(less, 20) == ["images of a task 200 of 1000", "stored images of a task 5 of 10"]
    assert presets.reduced_by(replace(less, preset="lamaml_many"), 20) == []
    assert run(replace(ONLINE, evaluation=Protocol(networks=1)), session_in(data_dir)).scale["reduced"]


@pytest.mark.slow
def test_networks_of_the_inner_loop_may_learn_stand_ins_for_other_tasks(data_dir: Path) -> None:
    among = replace(SMALL, stand_ins=2)
    plain, found = (session_in(data_dir), session_in(data_dir))
    run(SMALL, plain)
    outcome = run(among, found)
    assert not torch.equal(plain.saved[1]["bank/0/bases"], found.saved[1]["bank/0/bases"])
    assert outcome.budget == run(SMALL, session_in(data_dir)).budget  # stand-ins are stored nowhere
    assert "stand-ins for other tasks" in outcome.facts["differs"][-1] and "stand-ins" not in str(
        presets.deviations(SMALL)
    )
    cut = session_in(data_dir, stop_at=18)
    with pytest.raises(KeyboardInterrupt):
        run(among, cut)
    again = session_in(data_dir, before=cut)
    run(among, again)
    assert all(torch.equal(value, again.saved[1][name]) for name, value in found.saved[1].items())
    splits = ClassSplits(of=PLAIN, number=2, classes_per_task=3, samples_per_task=40)
    with as_people_run_it(), pytest.raises(UsageError, match="stand_ins must be 0 for a stream whose law makes no"):
        replace(among, stream=splits, parameterization=Addressing(bases=2))


def test_networks_learn_finished_memories_beside_a_new_one(data_dir: Path) -> None:
    own, shape = Addressing(bases=3), ImageShape(1, 8, 8)
    setting = Setting(shape, 4, MLP(), own, "none", torch.device("cpu"))
    finished = [own.init(shape, 4, 10, Key(i)) for i in range(4)]
    beside = with_finished(with_stand_ins(setting, Permutations(of=PLAIN), 1, Key(7)), finished, 2, Key(8))
    memory, each, classes = own.init(shape, 4, 10, Key(9)), own.per_class(shape, 4, 10), torch.arange(4)
    both = beside.parameterization
    leaves = {k: v.requires_grad_() for k, v in memory.items()}
    images = both.recall(leaves, classes)
    assert images.shape[1] == both.per_class(shape, 4, 10) == 4 * each
    drawn = [finished[i] for i in Key(8).permutation(4)[:2].tolist()]
    assert torch.equal(images[:, 2 * each :], torch.cat([own.recall(other, classes) for other in drawn], 1))
    coefficients, bases = factors(both, leaves, classes)
    assert torch.allclose(torch.einsum("nrk,kchw->nrchw", coefficients, bases), images, atol=1e-5)
    assert not torch.autograd.grad(images[:, 2 * each :].sum(), leaves["bases"], allow_unused=True)[0].any()

    among = replace(SMALL, beside=2)
    plain, found = session_in(data_dir), session_in(data_dir)
    run(SMALL, plain)
    outcome = run(among, found)
    same = [torch.equal(plain.saved[1][f"bank/{t}/bases"], found.saved[1][f"bank/{t}/bases"]) for t in range(3)]
    assert same == [True, False, False]  # the first has none beside it
    assert "finished memories beside" in outcome.facts["differs"][-1]
    splits = ClassSplits(of=PLAIN, number=2, classes_per_task=3, samples_per_task=40)
    with as_people_run_it(), pytest.raises(UsageError, match="beside must be 0 for a stream whose tasks have classes"):
        replace(among, stream=splits, parameterization=Addressing(bases=2))


def test_networks_that_are_kept_learn_each_task_beside_the_memories_of_those_before(data_dir: Path) -> None:
    experiment = replace(SMALL, kept_networks=2)
    found, alone = run(experiment, session_in(data_dir)), run(SMALL, session_in(data_dir))
    by = {(m.method, m.quantity): m for m in found.measurements}
    assert {quantity for method, quantity in by if method == "memory, network kept"} == {
        "RA",
        "LA",
        "BTI",
        "BWT",
        "forgetting",
    }
    assert (
        by["memory", "RA"].values == alone.measurements[0].values and len(by["memory, network kept", "RA"].values) == 2
    )
    assert "kept_matrices" not in alone.facts and not [m for m in alone.measurements if "kept" in m.method]

    class Stopped(FakeSession):
        """A session that a signal stops after the first of the kept networks."""

        def checkpoint(self, iteration: int, tensors: Any, state: Any, score: float | None = None) -> None:
            super().checkpoint(iteration, tensors, state, score)
            if "kept" in state:
                raise KeyboardInterrupt

    first = Stopped(data_dir, Path(tempfile.mkdtemp(dir=data_dir)))
    with pytest.raises(KeyboardInterrupt):
        run(experiment, first)
    second = session_in(data_dir, before=first)
    assert len(first.saved[2]["kept"]) == 1 and run(experiment, second).measurements == found.measurements
    assert not second.logged

    # The first task has no memory behind it: until its end such a network is one of naive training.
    replay = OfMemories((torch.tensor([7, 8, 9]), torch.tensor([10])), 2)
    assert not len(replay.draw(0, Key(0))) and set(replay.draw(1, Key(0)).tolist()) < {7, 8, 9}
    assert set(torch.cat([replay.draw(2, Key(i)) for i in range(20)]).tolist()) == {7, 8, 9, 10}


def test_a_memory_absorbs_what_comes_in_within_its_own_room() -> None:
    """With r images of a class, those of the last r of each class remain, as far as the bases span them."""
    shape, classes = ImageShape(1, 8, 8), 3
    images, labels = torch.randn(60, 1, 8, 8, generator=Key(1).generator()), torch.arange(60) % classes
    batches = [Split(*parts) for parts in zip(images.split(10), labels.split(10), strict=True)]
    for whole in (Standard(), Addressing(bases=20)):  # room for whatever is shown
        setting = Setting(shape, classes, MLP(), whole, "none", torch.device("cpu"))
        memory = whole.init(shape, classes, 10, Key(2))
        each = whole.per_class(shape, classes, 10)
        made = absorbed(setting, memory, batches, Key(3))
        assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in memory.items()}
        again = absorbed(setting, memory, batches, Key(3))
        assert all(torch.equal(made[k], again[k]) for k in made)
        if isinstance(whole, Standard):
            last = torch.stack([images[labels == c][-each:] for c in range(classes)])
            first = torch.tensor([20 % each])  # the place after the newest
            assert torch.allclose(whole.recall(made, torch.arange(classes)).roll(-int(first), 1), last, atol=1e-5)
    # Halved images are absorbed as they are stored: without a blur from one batch to the next.
    halved, small = Downsampled(of=Standard()), avg_pool2d(images, 2)
    setting = Setting(shape, classes, MLP(), halved, "none", torch.device("cpu"))
    made = absorbed(setting, halved.init(shape, classes, 5, Key(2)), batches, Key(3))["images"]
    assert torch.allclose(made.flatten(0, 1).sort(0).values, small.sort(0).values, atol=1e-5)  # 20 of each class
    # Other places hold combinations: of the class, or of what there is.
    only = [Split(images[:3], torch.tensor([1, 1, 2]))]
    setting = Setting(shape, classes, MLP(), Standard(), "none", torch.device("cpu"))
    made = absorbed(setting, Standard().init(shape, classes, 5, Key(2)), only, Key(3))
    nothing, one, two = Standard().recall(made, torch.arange(classes))
    assert torch.equal(one[:2], images[:2]) and torch.allclose(two, images[2:3], atol=1e-6)
    between = (one[2:] - images[1]).flatten(1) @ torch.linalg.pinv((images[0] - images[1]).flatten()[None])
    assert ((between > -1e-5) & (between < 1 + 1e-5)).all() and len(between.unique()) == 3
    assert (
        nothing.flatten(1) - (nothing.flatten(1) @ torch.linalg.pinv(span := images[:3].flatten(1))) @ span
    ).norm() < 1e-4


def test_absorbed_images_have_no_outer_steps(data_dir: Path) -> None:
    experiment, session = replace(SMALL, absorbed=20), session_in(data_dir)
    found = run(experiment, session)
    assert experiment.steps_per_task == SMALL.steps_per_task // 2 and found.scale["iterations"] == 12
    assert "absorb the first 20 images" in found.facts["differs"][-1]
    scheduled = Scheduled(of=SGDMomentum(), schedule=Cosine())  # has no steps to go over
    alone = run(replace(SMALL, absorbed=40, outer_optimizer=scheduled), whole := session_in(data_dir))
    assert alone.scale["iterations"] == 0 and not whole.logged and "seconds_per_iteration" not in alone.cost
    assert len(alone.facts["matrices"][0]) == 3 and alone.budget == found.budget
    assert alone.facts["most_stored_numbers"] == alone.budget.stored_numbers  # all memories, and no image
    assert "outer steps of a task 0 of 8" in presets.reduced_by(replace(SMALL, absorbed=40), 2)
    for change, why in (
        ({"absorbed": 15}, "whole batches of 10, or all 40"),
        ({"absorbed": 50}, "whole batches of 10, or all 40"),
        ({"absorbed": 20, "parameterization": Unfitted()}, "0 for a parameterization that"),
    ):
        with as_people_run_it(), pytest.raises(UsageError, match=f"absorbed must be {why}"):
            replace(SMALL, **change)


def test_stand_ins_are_the_memory_s_images_as_other_tasks_and_pass_its_gradient() -> None:
    own, shape, stream = Addressing(bases=3), ImageShape(1, 8, 8), Permutations(of=PLAIN)
    setting = Setting(shape, 4, MLP(), own, "none", torch.device("cpu"))
    both = with_stand_ins(setting, stream, 2, Key(7)).parameterization
    memory, each, classes = own.init(shape, 4, 10, Key(3)), own.per_class(shape, 4, 10), torch.arange(4)
    assert both.per_class(shape, 4, 10) == 3 * each
    images, alone, some = both.recall(memory, classes), own.recall(memory, classes), torch.tensor([2, 0])
    assert torch.equal(images[:, :each], alone)
    for i in (0, 1):
        order = Key(7)(i).permutation(64)
        assert torch.equal(images[:, (i + 1) * each : (i + 2) * each].flatten(2), alone.flatten(2)[:, :, order])
    assert torch.equal(both.recall(memory, some), images[some])
    leaves = {k: v.requires_grad_() for k, v in memory.items()}
    grads = torch.autograd.grad(both.recall(leaves, classes).sum(), list(leaves.values()))
    expected = torch.autograd.grad(own.recall(leaves, classes).sum(), list(leaves.values()))
    assert all(torch.allclose(a, 3 * b, rtol=1e-4, atol=1e-4) for a, b in zip(grads, expected, strict=True))


def test_another_task_of_a_stream_is_its_law_and_passes_gradients() -> None:
    images, black = torch.rand(3, 2, 8, 8, generator=Key(0).generator()), torch.zeros(2)
    permuted = at_places(images, Permutations(of=PLAIN).shown(Key(1)), black)
    assert torch.equal(permuted.flatten(2).sort().values, images.flatten(2).sort().values)
    turned = at_places(images.requires_grad_(), Rotations(of=PLAIN).shown(Key(1)), black)
    assert turned.shape == images.shape and not torch.equal(turned, images)
    (grad,) = torch.autograd.grad(turned.sum(), images)
    assert float(grad.sum()) > 0
    assert not torch.equal(turned, at_places(images, Rotations(of=PLAIN).shown(Key(2)), black))


def test_the_plan_says_how_much_is_done_and_what_differs() -> None:
    plan = SMALL.plan()
    assert plan["outer steps"] == "8 a task, 24 in all" and plan["differs (1)"]
    assert describe(SMALL)["is"] == "compress_then_recall"


# ---------------------------------------------------------------- baselines

ONLINE = Online(
    stream=Permutations(of=PLAIN, number=3, samples_per_task=200),
    architecture=MLP(width=32, depth=1),
    optimizer=SGDMomentum(lr=0.05, momentum=0.9),
    images_per_task=20,
    evaluation=Protocol(networks=2, epochs=60, batch=20),
)


@pytest.fixture(scope="module")
def baselines(data_dir: Path) -> dict[str, Any]:
    return {m: run(replace(ONLINE, method=m), session_in(data_dir)) for m in ("naive", "replay", "joint")}


def mean(found: Any, quantity: str) -> float:
    (values,) = [m.values for m in found.measurements if m.quantity == quantity]
    return sum(values) / len(values)


def test_replay_forgets_less_than_naive_and_joint_training_is_the_upper_bound(baselines: dict[str, Any]) -> None:
    naive, replay, joint = (mean(baselines[m], "RA") for m in ("naive", "replay", "joint"))
    assert naive < replay < joint
    assert mean(baselines["replay"], "forgetting") < mean(baselines["naive"], "forgetting")
    assert [m.quantity for m in baselines["joint"].measurements] == ["RA"]  # it has no diagonal
    methods = {setting: {m.method for m in found.measurements} for setting, found in baselines.items()}
    assert methods == {"naive": {"naive"}, "replay": {"ER"}, "joint": {"joint"}}
    assert baselines["naive"].budget.stored_numbers == 0 and baselines["replay"].budget.stored_numbers == 60 * 64


def test_a_baseline_s_networks_are_functions_of_the_seed_and_go_on(data_dir: Path, baselines: dict[str, Any]) -> None:
    first = session_in(data_dir, stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        run(ONLINE, first)
    gone_on = run(ONLINE, session_in(data_dir, before=first))
    assert gone_on.facts["matrices"] == baselines["replay"].facts["matrices"]
    one, two = gone_on.facts["matrices"]
    assert one != two


def test_more_replay_memory_than_images_is_no_fault_and_wrong_numbers_are(data_dir: Path) -> None:
    assert run(replace(ONLINE, images_per_task=3000), session_in(data_dir)).facts["matrices"]
    with as_people_run_it(), pytest.raises(UsageError, match="updates must be above 0"):
        replace(ONLINE, updates=0)
    assert "steps" in ONLINE.plan()


# ---------------------------------------------------------------- files, estimated times, configuration


def test_every_task_s_memory_is_a_file_that_recalls_what_was_measured(data_dir: Path) -> None:
    session = session_in(data_dir)
    run(SMALL, session)
    files = sorted((session.directory / "memories").iterdir())
    assert [file.name for file in files] == ["task-001.safetensors", "task-002.safetensors", "task-003.safetensors"]
    for t, file in enumerate(files):
        memory = Memory.load(file)
        assert memory.about["task"] == t + 1 and memory.about["made_by"]["permutation_sha256"]
        images, labels = memory.recall()
        assert images.shape[1:] == (1, 8, 8) and labels.bincount().tolist() == [25] * 10
        assert torch.equal(memory.tensors["bases"], session.saved[1][f"bank/{t}/bases"])
    pictures = {file.name for file in (session.directory / "figures").iterdir()}
    assert pictures == {"matrix.png", "after_each_task.png", "recalled.png"}


def test_times_are_estimated(data_dir: Path) -> None:
    for experiment in (SMALL, ONLINE, replace(ONLINE, method="joint")):
        cost, less = experiment.cost(torch.device("cpu")), replace(experiment, evaluation=Protocol(networks=1))
        assert cost.own > 0 and cost.step > 0
        assert less.cost(torch.device("cpu")).own > 0
    twice = replace(ONLINE, updates=2).cost(torch.device("cpu"))
    assert twice.own > ONLINE.cost(torch.device("cpu")).own


@pytest.mark.parametrize(
    ("name", "preset", "bases", "downsampled", "recalled"),
    [
        ("rotations", "paper", 24, True, 13),
        ("permutations", "paper", 8, False, 19),
        ("many", "paper_many", 8, False, 19),
        ("cifar100", "paper", 24, True, 102),
        ("rotations_star", "paper_star", 24, True, 13),
        ("permutations_star", "paper_star", 8, False, 19),
        ("rotations_lamaml", "lamaml", 24, True, 13),
        ("permutations_lamaml", "lamaml", 8, False, 19),
        ("many_lamaml", "lamaml_many", 4, False, 19),
        ("cifar100_lamaml", "lamaml", 24, True, 102),
        ("rotations_star_kcl", "kcl", None, True, None),
        ("permutations_star_kcl", "kcl", None, False, None),
    ],
)
def test_every_file_has_the_published_sizes(
    name: str, preset: str, bases: int | None, downsampled: bool, recalled: int | None
) -> None:
    runs = resolve([f"gin/continual/{name}.gin"], ["SEEDS = [0]"])
    assert [one.cell["method"] for one in runs] == ["naive", "ER", "compress-then-recall", "joint"]
    ours: Any = next(one.experiment for one in runs if isinstance(one.experiment, CompressThenRecall))
    stream = describe(ours.stream)["is"]
    published = presets.PRESETS[preset, stream]  # type: ignore[index]
    info = ours.stream.info
    assert (info.tasks, info.samples_per_task) == (published.tasks, published.samples_per_task)
    assert (ours.images_per_task, ours.replay, ours.batch) == (published.images_per_task, published.replay, 10)
    assert presets.reduced_by(ours, ours.replay) == [] and ours.preset == preset
    of = ours.parameterization.of if downsampled else ours.parameterization
    assert isinstance(ours.parameterization, Downsampled) == downsampled and of.bases == bases
    if recalled is not None:
        assert ours.plan()["recalled images per class and task"] == recalled
    outer = describe(ours)["outer_optimizer"]
    assert (outer["lr"], outer["momentum"]) == (0.1, 0.5)
    assert all(one.experiment.plan()["differs (2)"] for one in runs)


def test_a_scale_s_macros_serve_every_kind_of_experiment_and_others_are_mistakes() -> None:
    assert resolve(["gin/continual/many.gin", "gin/scale/smoke.gin"], ["SEEDS = [0]"])[0].scale == "smoke"
    with pytest.raises(UsageError, match="nothing uses the macro FULL_DATA_EPOCHS"):
        resolve(["gin/continual/many.gin"], ["FULL_DATA_EPOCHS = 3"])


# ---------------------------------------------------------------- from the command line

LINE = ["--gin", "gin/continual/permutations.gin", "--gin", "gin/scale/smoke.gin", "--tracking-uri", "none"]
DIGITS = sets("DATASET = @datasets.digits()", "SEEDS = [0]")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["IMAGES_PER_TASK = 5"], "8 bases of 1x8x8 leave no room"),
        (["SAMPLES = 5000"], "a task needs 5000 training images and has 1346; lower samples_per_task"),
        (["TASKS = 0"], "Permutations.number must be above 0"),
        (["IMAGES_PER_TASK = 0"], "images_per_task must be at least 1"),
        (["IMAGES_PER_TASK = 0.5"], "images_per_task must be at least 1"),
        (
            ["PRESET = 'mine'"],
            "preset must be one of 'paper', 'paper_many', 'paper_star', 'lamaml', 'lamaml_many', 'kcl'",
        ),
    ],
)
def test_a_command_that_can_not_be_is_answered_in_one_sentence(
    given: list[str], said: str, data_dir: Path, tmp_path: Path
) -> None:
    done = command(
        *LINE, *DIGITS, *sets(*given), "--only", "compress-then-recall", "--out", tmp_path, "--data-dir", data_dir
    )
    assert done.status in (1, 2) and said in done.complaint


def test_more_tasks_than_classes_allow_are_refused() -> None:
    line = ["--gin", "gin/continual/cifar100.gin", *sets("DATASET = @datasets.fashion_mnist()", "TASKS = 3")]
    done = command(*line, "--dry-run")
    assert done.status == 2 and "3 tasks of 5 classes need 15 classes, and fashion_mnist has 10" in done.complaint


@pytest.mark.slow
def test_a_run_that_was_killed_in_task_three_goes_on_to_the_same_bits(data_dir: Path, tmp_path: Path) -> None:
    line = [*LINE, *DIGITS, *sets("TASKS = 4", "EPOCHS = 5", "NETWORKS = 1", "REPLAY = 2"), "--data-dir", str(data_dir)]
    line += ["--only", "compress-then-recall", "--checkpoint-seconds", "0"]
    whole = command(*line, "--out", tmp_path / "whole")
    assert whole.status == 0, whole.err
    killed = killed_at([*line, "--out", str(tmp_path / "cut")], 20)  # eight outer steps a task
    assert killed.status == -signal.SIGKILL
    after = command(*line, "--out", tmp_path / "cut")
    assert after.status == 0 and "step 20" in after.err, after.err
    one, two = (only_run(tmp_path / name) for name in ("whole", "cut"))
    records = [comparable(json.loads((place / "result.json").read_text())) for place in (one, two)]
    assert records[0] == records[1]
    for file in sorted((one / "memories").iterdir()):
        assert file.read_bytes() == (two / "memories" / file.name).read_bytes()


# ---------------------------------------------------------------- Avalanche


def test_avalanche_sees_our_tasks(data_dir: Path) -> None:
    from suite.avalanche import to_avalanche

    for stream in (SMALL.stream, ClassSplits(of=PLAIN, number=2, classes_per_task=3, samples_per_task=40)):
        made = to_avalanche(stream, data_dir, seed=3)
        ours = list(stream.tasks(data_dir, Key(3)("stream")))
        for name in ("train", "test"):
            experiences = list(getattr(made, f"{name}_stream"))
            assert len(experiences) == len(ours)
            for t, (experience, task) in enumerate(zip(experiences, ours, strict=True)):
                split = getattr(task, name)
                known = t if stream.info.task_known else 0
                assert experience.task_labels == [known] and experience.classes_in_this_experience == set(task.classes)
                for i in (0, len(split) - 1):
                    image, label, where = experience.dataset[i]
                    assert torch.equal(image, split.images[i]) and (label, where) == (int(split.labels[i]), known)
                assert len(experience.dataset) == len(split)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["naive", "er", "agem", "mer", "der", "scr"])
def test_avalanche_s_strategies_learn_our_stream_and_are_functions_of_the_seed(method: Any, data_dir: Path) -> None:
    learner = AvalancheStrategy(
        stream=Permutations(of=PLAIN, number=2, samples_per_task=200, preprocessing="standardize"),
        architecture=MLP(width=32, depth=1),
        method=method,
        images_per_task=20,
        lr=0.1 if method == "mer" else 0.05,
        momentum=0.0 if method == "mer" else 0.9,
        evaluation=Protocol(networks=2),
    )
    found = run(learner, session_in(data_dir))  # type: ignore[arg-type]
    first, second = found.facts["matrices"]
    assert first != second and first[0][0] > 25 and first[0][1] is None
    images = {"naive": 0, "der": 34}.get(method, 40)  # 34 images of 64 pixels and 10 logits: 2,516 numbers
    assert learner.stored_images == images
    assert found.budget.stored_numbers == images * (74 if method == "der" else 64) <= 2 * 20 * 64
    assert found.budget.images_per_class == found.budget.stored_numbers / 640
    before = session_in(data_dir, stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        run(learner, before)  # type: ignore[arg-type]
    again = run(learner, session_in(data_dir, before=before))  # type: ignore[arg-type]
    assert again.facts["matrices"] == found.facts["matrices"]


def test_what_has_one_head_takes_no_stream_of_several() -> None:
    several = ClassSplits(of=PLAIN, number=2, classes_per_task=3, samples_per_task=40)
    with pytest.raises(UsageError, match="method must be naive, er, agem or mer where a test image's task is known"):
        AvalancheStrategy(stream=several, method="der")
    one = Permutations(of=PLAIN, number=2, samples_per_task=200)
    with pytest.raises(UsageError, match="images_per_task must be enough for an image of each class"):
        AvalancheStrategy(stream=one, method="scr", images_per_task=4)


@pytest.mark.slow
def test_what_avalanche_stores_is_what_is_counted(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from suite import avalanche

    made, strategy = [], avalanche.strategy
    monkeypatch.setattr(avalanche, "strategy", lambda *a, **kw: made.append(strategy(*a, **kw)) or made[-1])
    stream = Permutations(of=PLAIN, number=2, samples_per_task=60)
    for method in ("der", "scr"):
        learner = AvalancheStrategy(
            stream=stream,
            architecture=MLP(width=16, depth=1),
            method=method,
            images_per_task=6,
            evaluation=Protocol(networks=1),
        )
        run(learner, session_in(data_dir))  # type: ignore[arg-type]
        policy = made[-1].storage_policy if method == "der" else made[-1].replay_plugin.storage_policy
        assert 0 < len(policy.buffer) <= learner.stored_images
    means, model = made[-1].model.eval_classifier.class_means, made[-1].model
    stored = {int(d.targets[0]): torch.stack([d[i][0] for i in range(len(d))]) for d in policy.buffer_datasets}
    for label, images in stored.items():
        features = torch.nn.functional.normalize(model.feature_extractor(images), dim=1).mean(0)
        torch.testing.assert_close(means[label], features / features.norm(), rtol=1e-4, atol=1e-5)


def test_avalanche_is_asked_for_where_it_is_missing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from suite.avalanche import to_avalanche

    for name in [name for name in sys.modules if name.split(".")[0] == "avalanche"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "avalanche", None)
    with pytest.raises(UsageError, match=r"pip install 'addressable-memory-suite\[avalanche\]'"):
        to_avalanche(SMALL.stream, data_dir)
