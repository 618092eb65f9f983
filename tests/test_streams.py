"""Streams of tasks: what makes each task, the same bits from the same seed, and what is refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import REPOSITORY, as_people_run_it, resolve
from scipy import stats

from suite.contracts.checks import check
from suite.datasets.digits import Digits
from suite.datasets.mnist import MNIST
from suite.datasets.some_classes import SomeClasses
from suite.errors import RunError, UsageError
from suite.experiments.continual import metrics
from suite.experiments.continual.reservoir import Reservoir
from suite.keys import Key
from suite.registry import Entry, streams
from suite.streams import rotations
from suite.streams.base import at_places
from suite.streams.class_splits import ClassSplits
from suite.streams.permutations import Permutations
from suite.streams.rotations import Rotations
from suite.types import Split, Stream, StreamTask

PLAIN = Digits(preprocessing="none")
SMALL = (
    Rotations(of=PLAIN, number=3, samples_per_task=50),
    Rotations(of=PLAIN, number=3, samples_per_task=50, law="steps"),
    Permutations(of=PLAIN, number=3, samples_per_task=50),
    Permutations(of=PLAIN, number=3, samples_per_task=50, first="identity"),
    ClassSplits(of=PLAIN, number=3, classes_per_task=3, samples_per_task=50, preprocessing="none"),
)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 12)])
def test_another_rotation_is_torchvision_s_with_the_corners_mean_as_black(shape: tuple[int, int, int]) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate

    images = torch.randn(4, *shape, generator=Key(0).generator()).requires_grad_()
    for i in range(20):
        angle = torch.rand((), generator=Key(i).generator(), dtype=torch.float64).item() * 360 - 180
        black = images.detach()[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean((0, 2)).tolist()
        expected = rotate(images, angle, InterpolationMode.NEAREST, fill=black)
        turned = at_places(images, rotations._places(*shape[1:], angle), torch.tensor(black))
        assert torch.equal(turned, expected)
        one, other = (torch.autograd.grad(y.sin().sum(), images)[0] for y in (turned, expected))
        torch.testing.assert_close(one, other)
        assert Rotations(of=PLAIN).shown(Key(i)).equal(rotations._places(8, 8, angle))


def built(stream: Stream, data_dir: Path, seed: int = 0) -> list[StreamTask]:
    return list(stream.tasks(data_dir, Key(seed)("stream")))


def same(one: Split, other: Split) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_streams_have_the_paper_s_sizes_by_default() -> None:
    sizes = {entry.name: entry.build().info for entry in streams}
    assert {name: (i.tasks, i.samples_per_task, i.outputs, i.task_known) for name, i in sizes.items()} == {
        "rotations": (20, 1000, 10, False),
        "permutations": (20, 1000, 10, False),
        "class_splits": (20, 2250, 100, True),
    }
    assert isinstance(Permutations().of, MNIST) and Permutations().preprocessing == "none"


def test_the_six_benchmarks_are_files_with_the_paper_s_sizes() -> None:
    names = ("rotations", "permutations", "many", "cifar100", "rotations_star", "permutations_star")
    experiments: dict[str, Any] = {
        name: resolve([f"gin/continual/{name}.gin"], ["SEEDS = [0]"])[0].experiment for name in names
    }
    sizes = {name: experiment.stream.info for name, experiment in experiments.items()}
    assert {name: (i.tasks, i.samples_per_task, i.task_known) for name, i in sizes.items()} == {
        "rotations": (20, 1000, False),
        "permutations": (20, 1000, False),
        "many": (100, 1000, False),
        "cifar100": (20, 2250, True),
        "rotations_star": (20, 60_000, False),
        "permutations_star": (20, 60_000, False),
    }
    assert sizes["cifar100"].outputs == 100 and sizes["rotations"].outputs == 10
    assert all(info.differs for info in sizes.values())  # every deviation is printed
    assert [info.name for info in sizes.values()] == [
        *("rotations of mnist", "permutations of mnist", "permutations of mnist", "class splits of cifar100"),
        *("rotations_star of mnist", "permutations_star of mnist"),
    ]


@pytest.mark.parametrize("stream", SMALL, ids=lambda s: s.info.name)
def test_a_stream_is_a_function_of_its_seed(stream: Stream, data_dir: Path) -> None:
    first, again, other = (built(stream, data_dir, seed) for seed in (0, 0, 1))
    assert len(first) == stream.info.tasks
    for one, two in zip(first, again, strict=True):
        assert same(one.train, two.train) and same(one.test, two.test) and one.made_by == two.made_by
    assert not any(same(one.train, two.train) for one, two in zip(first, other, strict=True))
    for task in first:
        assert len(task.train) == stream.info.samples_per_task
        shape = stream.info.shape
        assert task.train.images.shape[1:] == (shape.channels, shape.height, shape.width)
        assert set(task.train.labels.tolist()) <= set(task.classes) >= set(task.test.labels.tolist())
        assert max(task.classes) < stream.info.outputs


def test_angles_lie_in_their_bins_and_ascend() -> None:
    for seed in range(20):
        key = Key(seed)
        for t in range(20):
            assert 9 * t <= Rotations().angle(t, key) < 9 * (t + 1)
            assert 10 * t <= Rotations(law="steps").angle(t, key) <= 10 * (t + 1)
    assert len({Rotations().angle(3, Key(seed)) for seed in range(20)}) == 20


def test_images_are_turned_counter_clockwise_to_the_nearest_pixel(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setattr(Rotations, "angle", lambda self, task, key: 90.0 * task)
    stream = Rotations(of=PLAIN, number=3, samples_per_task=20)
    plain, quarter, half = built(stream, data_dir)
    assert torch.equal(quarter.test.images, plain.test.images.rot90(1, (2, 3)))  # rot90 is counter-clockwise
    assert torch.equal(half.test.images, plain.test.images.rot90(2, (2, 3)))
    assert plain.test.images.min() >= 0 and plain.test.images.max() <= 1
    monkeypatch.setattr(Rotations, "angle", lambda self, task, key: 45.0)
    (turned, *_) = built(stream, data_dir)
    assert torch.equal(turned.test.images[:, :, 0, 0], torch.zeros(len(turned.test), 1))  # corners come from outside
    assert set(turned.test.images.unique().tolist()) <= set(plain.test.images.unique().tolist())


@pytest.mark.parametrize(
    "stream", [Permutations(of=PLAIN, number=4), Permutations(of=PLAIN, number=4, first="identity")]
)
def test_permutations_are_bijections_and_differ(stream: Permutations, data_dir: Path) -> None:
    orders = [stream.order(t, Key(0)) for t in range(4)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(64))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    identity = torch.equal(orders[0], torch.arange(64))
    assert identity == (stream.first == "identity")


def test_a_permuted_image_is_the_same_pixels_in_the_task_s_order(data_dir: Path) -> None:
    stream = Permutations(of=PLAIN, number=2, samples_per_task=30)
    data = PLAIN.load(data_dir, Key(0)("stream")("data"), 0.0)
    for t, task in enumerate(built(stream, data_dir)):
        order = stream.order(t, Key(0)("stream"))
        assert torch.equal(task.test.images.flatten(2), data.test.images.flatten(2)[:, :, order])
        assert torch.equal(task.test.labels, data.test.labels)


def test_class_splits_are_disjoint_and_complete(data_dir: Path) -> None:
    stream = ClassSplits(of=PLAIN, number=5, classes_per_task=2, samples_per_task=100, preprocessing="none")
    tasks = built(stream, data_dir)
    assert [c for task in tasks for c in task.classes] == list(range(10))
    names = [name for task in tasks for name in task.made_by["classes"]]
    assert sorted(names) == sorted(PLAIN.info.class_names)
    data = PLAIN.load(data_dir, Key(0)("stream")("data"), 0.1)
    assert sum(len(task.test) for task in tasks) == len(data.test)
    for task in tasks:  # a label is a place in the order: the images behind it are of the class of that name
        for c, name in zip(task.classes, task.made_by["classes"], strict=True):
            own = data.test.images[data.test.labels == PLAIN.info.class_names.index(name)]
            assert torch.equal(task.test.images[task.test.labels == c], own)


def test_what_can_not_be_is_refused_in_one_sentence(data_dir: Path) -> None:
    with as_people_run_it():
        with pytest.raises(UsageError, match="4 tasks of 3 classes need 12 classes, and digits has 10"):
            ClassSplits(of=PLAIN, number=4, classes_per_task=3, preprocessing="none")
        with pytest.raises(UsageError, match="number must be above 0"):
            Rotations(of=PLAIN, number=0)
        with pytest.raises(UsageError, match="law"):
            Rotations(of=PLAIN, law="spirals")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="classes_per_task must be above 1"):
            ClassSplits(of=PLAIN, classes_per_task=1, preprocessing="none")
    with pytest.raises(RunError, match=r"needs 100000 training images and has .* lower samples_per_task"):
        built(Permutations(of=PLAIN, samples_per_task=100_000), data_dir)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").exists(), reason="Fashion-MNIST is not here")
def test_a_stream_of_larger_images(data_dir: Path) -> None:
    from suite.datasets.mnist import FashionMNIST

    tasks = built(Rotations(of=FashionMNIST(), number=2), data_dir)
    assert tasks[0].train.images.shape == (1000, 1, 28, 28) and len(tasks[1].test) == 10_000


# ---------------------------------------------------------------- the reservoir


def test_the_reservoir_holds_all_until_it_is_full_and_never_more() -> None:
    held = Reservoir.empty(5)
    for n in range(0, 30, 3):
        held = held.add(torch.arange(n, n + 3), Key(0))
        assert held.seen == n + 3 and len(held.kept) == min(5, n + 3) and len(set(held.kept.tolist())) == len(held.kept)
        if n + 3 <= 5:
            assert held.kept.tolist() == list(range(n + 3))
    assert len(Reservoir.empty(0).add(torch.arange(9), Key(0)).kept) == 0


@pytest.mark.slow
def test_every_item_seen_is_kept_equally_often() -> None:
    """Chi-square over 4,000 reservoirs of 5 of 20 items, of one seed each; the threshold is passed once in 1,000."""
    counts: Counter[int] = Counter()
    for seed in range(4000):
        counts.update(Reservoir.empty(5).add(torch.arange(20), Key(seed)).kept.tolist())
    statistic = sum((counts[i] - 1000) ** 2 / 1000 for i in range(20))
    assert statistic / (1 - 5 / 20) < stats.chi2.ppf(0.999, 19)  # drawn without replacement, counts vary less


def test_a_reservoir_goes_on_from_anywhere_to_the_same_slots() -> None:
    whole = Reservoir.empty(7).add(torch.arange(100), Key(3))
    parts = Reservoir.empty(7)
    for n in range(0, 100, 10):
        parts = Reservoir(parts.capacity, parts.seen, parts.kept.clone()).add(torch.arange(n, n + 10), Key(3))
    assert torch.equal(whole.kept, parts.kept)
    assert not torch.equal(whole.kept, Reservoir.empty(7).add(torch.arange(100), Key(4)).kept)


def test_draws_from_a_reservoir_are_without_replacement() -> None:
    held = Reservoir.empty(10).add(torch.arange(50), Key(0))
    drawn = held.draw(4, Key(1)).tolist()
    assert len(set(drawn)) == 4 and set(drawn) <= set(held.kept.tolist())
    assert sorted(held.draw(99, Key(1)).tolist()) == sorted(held.kept.tolist())


# ---------------------------------------------------------------- figures

R = [[90.0, 10.0, 20.0], [80.0, 95.0, 30.0], [85.0, 70.0, 99.0]]


def test_figures_of_continual_learning() -> None:
    assert metrics.retained(R) == pytest.approx((85 + 70 + 99) / 3)
    assert metrics.learning(R) == pytest.approx((90 + 95 + 99) / 3)
    assert metrics.interference(R) == pytest.approx((-5 - 25 + 0) / 3)
    assert metrics.backward_transfer(R) == pytest.approx((-5 - 25) / 2)
    assert metrics.forgetting(R) == pytest.approx(((90 - 85) + (95 - 70)) / 2)
    assert metrics.curve(R) == pytest.approx([90, 87.5, (85 + 70 + 99) / 3])


@pytest.mark.parametrize("seed", range(10))
def test_retained_is_learned_plus_interference_and_the_two_divisors_agree(seed: int) -> None:
    n = 2 + seed
    r = (100 * torch.rand(n, n, generator=torch.Generator().manual_seed(seed))).tolist()
    assert metrics.retained(r) == pytest.approx(metrics.learning(r) + metrics.interference(r))
    transfer = metrics.backward_transfer(r)
    assert transfer is not None and metrics.interference(r) == pytest.approx(transfer * (n - 1) / n)
    forgotten = metrics.forgetting(r)
    assert forgotten is not None and forgotten >= -transfer - 1e-9  # the best is at least what was first learned


def test_the_last_row_and_the_diagonal_are_enough_for_all_but_forgetting() -> None:
    sparse = [[90.0, None, None], [None, 95.0, None], R[2]]
    assert metrics.interference(sparse) == pytest.approx(metrics.interference(R))
    assert metrics.forgetting(sparse) is None and metrics.curve(sparse)[1] is None
    with pytest.raises(ValueError, match="after the last task"):
        metrics.retained([[90.0, None], [None, 95.0]])
    with pytest.raises(ValueError, match="after it was learned"):
        metrics.learning([[None, None], [80.0, 95.0]])
    assert metrics.backward_transfer([[50.0]]) is None and metrics.forgetting([[50.0]]) is None


def test_streams_know_nothing_of_memories() -> None:
    text = "".join(file.read_text() for file in (REPOSITORY / "suite" / "streams").glob("*.py"))
    assert "suite.memory" not in text and "suite.objectives" not in text


@pytest.mark.parametrize("entry", list(streams), ids=lambda entry: entry.name)
def test_every_stream_keeps_its_promises(entry: Entry, data_dir: Path) -> None:
    assert [f for f in check("streams", entry.name, data_dir) if f.verdict != "kept"] == []


def test_a_stream_that_breaks_its_promises_is_reported(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    def fixed(self: Permutations, task: int, key: Key) -> torch.Tensor:
        return torch.zeros(64, dtype=torch.int64)

    monkeypatch.setattr(Permutations, "order", fixed)
    monkeypatch.setattr("suite.streams.permutations.draw", lambda split, samples, key, name: split)
    broken = {f.promise for f in check("streams", "permutations", data_dir) if f.verdict == "broken"}
    assert broken == {"its tasks have as many images as it says", "another key gives other tasks"}


def test_a_stream_chooses_the_preprocessing_and_turns_in_black_corners(data_dir: Path) -> None:
    stream = Rotations(of=Digits(preprocessing="zca_image"), number=2, samples_per_task=30, preprocessing="standardize")
    own, turned = Digits().load(data_dir, Key(0)("stream")("data"), 0.0), built(stream, data_dir)
    assert turned[0].transform.describe() == own.transform.describe()
    black = own.transform.apply(torch.zeros(1, 1, 8, 8))[0, 0, 0, 0]
    corners = turned[0].test.images[:, 0, 0, 0]  # at 45 degrees or so every corner comes from outside
    angle = turned[0].made_by["angle"]
    assert 0 < angle < 90 and torch.equal(corners, black.expand_as(corners)) == (15 < angle < 75)
    whole = Digits(preprocessing="zca_image").load(data_dir, Key(0)("stream")("data"), 0.0)
    kept = built(replace(stream, preprocessing=None), data_dir)[0]
    assert kept.transform.describe() == whole.transform.describe()
    few = SomeClasses(of=Digits(preprocessing="zca_image"), classes=(1, 2, 3))
    of_few = built(Permutations(of=few, number=2, samples_per_task=30), data_dir)[0]  # type: ignore[arg-type]
    assert of_few.transform.name == "none" and of_few.class_names == ("1", "2", "3")
