"""New-classifier synthesis: what an episode may see, gradients through the extractor, going on, and what is refused."""

import json
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import as_people_run_it, command, killed_at, only_run, sets
from fake_session import FakeSession
from torch import Tensor

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.contracts.checks import check
from suite.contracts.problem import Problem, finite_difference_error, relative_error
from suite.controls.herding import Herding
from suite.controls.random_images import RandomImages
from suite.datasets.base import ImageSource
from suite.datasets.cifar import CIFAR100
from suite.datasets.digits import Digits
from suite.datasets.training_only import TrainingOnly
from suite.errors import UsageError
from suite.evaluation.protocol import Protocol
from suite.experiments.continual.compress_then_recall import CompressThenRecall
from suite.experiments.distillation import Distillation
from suite.experiments.learning import Series
from suite.experiments.synthesis import episode_measurement, episodic, extrapolation, image_recall, joined, summary
from suite.experiments.synthesis.episode_measurement import Pretrained
from suite.experiments.synthesis.episodes import all_images, draw_episode, of_classes, sample_classes, tasks_of
from suite.experiments.synthesis.episodic import STANDARDIZED_ON, EpisodicMemories
from suite.experiments.synthesis.extrapolation import Extrapolation
from suite.experiments.synthesis.image_recall import ImageRecall
from suite.images.preprocess import PREPROCESSINGS, fit, moved
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.inner_optimizers.slowed import Slowed
from suite.keys import Key
from suite.memory import Memory
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.image_queries import Asked, ImageQueries, addressed
from suite.parameterizations.standard import Standard
from suite.runtime.record import comparable
from suite.starts.class_means import ClassMeans
from suite.starts.real_images import RealImages
from suite.types import ClassRows, ImageShape, Objective, Setting, Split

SHORT = BPTT(inner_steps=2, images_per_class_per_step=2, real_per_class=4)
NETWORK = MLP(width=8, depth=1)
APART = Extrapolation(
    architecture=NETWORK,
    parameterization=Addressing(bases=4),
    objective=SHORT,
    images_per_class=3,
    iterations=2,
    episodes=4,
    bound_episodes=1,
    full_data_epochs=1,
    controls=(RandomImages(), Herding(epochs=0)),
    evaluation=Protocol(networks=1, epochs=2),
)
ASKED = ImageRecall(
    architecture=ConvNet(width=4),
    parameterization=ImageQueries(bases=6, matrices=3, extractor=ConvNet(width=4)),
    objective=SHORT,
    iterations=2,
    draws=2,
    backbone_epochs=1,
    backbone_augmentation="none",
    evaluation=Protocol(networks=1, epochs=2),
)


def pictures(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


# ---------------------------------------------------------------- episodes


def test_tasks_are_disjoint_and_hold_every_class() -> None:
    assert tasks_of(Digits().info, 2, "slices", Key(0)) == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
    info = CIFAR100().info
    for cut in ("slices", "superclasses", "random"):
        tasks = tasks_of(info, 5, cut, Key(0))
        assert len(tasks) == 20 and sorted(c for own in tasks for c in own) == list(range(100))
    assert (
        tasks_of(info, 5, "random", Key(0))
        == tasks_of(info, 5, "random", Key(0))
        != tasks_of(info, 5, "random", Key(1))
    )
    groups = {name: group for group, own in info.superclasses for name in own}
    assert all(
        len({groups[info.class_names[c]] for c in own}) == 1 for own in tasks_of(info, 5, "superclasses", Key(0))
    )


def test_the_classes_of_an_episode_are_of_different_tasks_and_all_are_drawn() -> None:
    tasks, seen = tasks_of(Digits().info, 2, "slices", Key(0)), Counter[int]()
    for e in range(200):
        episode = sample_classes(tasks, 3, Key(e))
        assert len({t for t, _ in episode}) == 3
        seen.update(tasks[t][place] for t, place in episode)
    assert set(seen) == set(range(10)) and min(seen.values()) > 30  # 60 expected of each, with a spread of about 6.5


def test_shots_are_left_out_of_what_is_scored_and_nothing_else_is(data_dir: Path) -> None:
    rows = ClassRows.of(Digits().load(data_dir, Key(0), 0.0).test, 10)
    episode = draw_episode(rows, (7, 2), 5, Key(0))
    assert episode.support.labels.tolist() == [0] * 5 + [1] * 5 and len(episode.support) + len(
        all_images(episode.query)
    ) == len(all_images(of_classes(rows, (7, 2))))
    first, rest, whole = (
        pictures(episode.support),
        pictures(all_images(episode.query)),
        pictures(all_images(of_classes(rows, (7, 2)))),
    )
    assert not first & rest and first | rest == whole
    sevens = rows.split.images[rows.rows[7]]
    assert pictures(Split(episode.support.images[:5], episode.support.labels[:5])) <= pictures(
        Split(sevens, torch.arange(len(sevens)))
    )
    again, other = draw_episode(rows, (7, 2), 5, Key(0)), draw_episode(rows, (7, 2), 5, Key(1))
    assert torch.equal(episode.support.images, again.support.images) and not torch.equal(
        episode.support.images, other.support.images
    )


# ---------------------------------------------------------------- leakage


def test_extrapolation_trains_on_training_images_and_scores_test_images_of_classes_that_never_met(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Digits().load(data_dir, Key(0), 0.0)
    train, test = pictures(data.train), pictures(data.test)
    scored: list[dict[str, Split]] = []
    learned: list[ClassRows] = []
    evaluate, step = joined.evaluate, extrapolation.step

    def watched(setting: Any, training: Any, protocol: Any, key: Any, splits: Any, pause: Any) -> Any:
        scored.append({"train": training(0), **splits})
        return evaluate(setting, training, protocol, key, splits, pause)

    def watching(setting: Any, objective: Any, optimizer: Any, real: ClassRows, *others: Any, **more: Any) -> Any:
        learned.append(real)
        return step(setting, objective, optimizer, real, *others, **more)

    monkeypatch.setattr(joined, "evaluate", watched)
    monkeypatch.setattr(extrapolation, "step", watching)
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    outcome = APART.run(session)
    tasks = [set(own) for own in outcome.facts["tasks"]]
    for kind, episodes in outcome.facts["episodes"].items():
        for classes in episodes:
            names = {str(c) for c in classes}
            assert len(classes) == int(kind[0]) and all(len(own & names) <= 1 for own in tasks)
    assert train & test == set()
    used = [pictures(all_images(real)) for real in learned]
    assert all(own <= train for own in used)
    by_task = [pictures(all_images(of_classes(ClassRows.of(data.train, 10), (2 * t, 2 * t + 1)))) for t in range(5)]
    assert [used.count(own) for own in by_task] == [2] * 5  # two outer steps each, on its own classes alone
    assert scored and all(pictures(one["test"]) <= test for one in scored)
    for one in scored:
        assert not pictures(one["train"]) & test


@pytest.mark.slow
def test_shots_are_never_scored_and_the_memory_never_sees_a_test_image(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Digits().load(data_dir, Key(0), 0.0)
    train, test = pictures(data.train), pictures(data.test)
    evaluate, step, draw = episode_measurement.evaluate, episodic.step, image_recall.draw_episode
    scored: list[set[bytes]] = []
    shots: list[set[bytes]] = []

    def watched(setting: Any, training: Any, protocol: Any, key: Any, splits: Any, pause: Any) -> Any:
        scored.append(set().union(*(pictures(split) for split in splits.values())))
        assert not scored[-1] & shots[-1] and scored[-1] <= test and not scored[-1] & pictures(training(0))
        return evaluate(setting, training, protocol, key, splits, pause)

    def showing(*arguments: Any) -> Any:
        episode = draw(*arguments)
        shots.append(pictures(episode.support))
        return episode

    def watching(setting: Any, objective: Any, optimizer: Any, real: ClassRows, *others: Any, **more: Any) -> Any:
        rest = pictures(all_images(real))
        assert rest <= train and not rest & shots[-1] and shots[-1] <= train
        return step(setting, objective, optimizer, real, *others, **more)

    monkeypatch.setattr(episode_measurement, "evaluate", watched)
    monkeypatch.setattr(episodic, "step", watching)
    for module in (episodic, image_recall):  # episodes of training, and of measuring
        monkeypatch.setattr(module, "draw_episode", showing)
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    outcome = ASKED.run(session)
    assert len(scored) == 5 * 2 * 10  # networks, numbers of shots, episodes of each
    assert {"memory", "classify-then-recall", "recall by true label", "linear probe", "nearest class mean"} <= {
        measured.method for measured in outcome.measurements
    }
    assert all(m.over == "episodes" and len(m.values) == 10 for m in outcome.measurements)
    one_shot = {m.method: m.values for m in outcome.measurements if m.episodes == "2-way, 1 shot"}
    assert one_shot["nearest class mean"] == one_shot["nearest neighbour (L2)"]


# ---------------------------------------------------------------- the parameterization


def test_an_image_recalls_its_features_times_matrices_times_bases() -> None:
    shape, own = ImageShape(1, 16, 16), ImageQueries(bases=5, matrices=3, extractor=ConvNet(width=4), dimension=None)
    memory = own.init(shape, 2, 10, Key(0))
    x = torch.randn(2, 1, 16, 16, generator=Key(1).generator())
    features = own.features(memory, x)
    assert features.shape == (2, 4)
    for n in range(2):
        for j in range(3):
            wanted = features[n] @ memory["matrices"][j] @ memory["bases"].flatten(1)
            assert torch.allclose(own.recall(memory, x)[n, j].flatten(), wanted, atol=1e-5)
    assert addressed(memory)[0] == own.numbers(shape) == 5 * 256 + 3 * 4 * 5
    assert addressed(memory)[1] == sum(v.numel() for k, v in memory.items() if k.startswith("extractor.body"))
    projected = replace(own, dimension=7)
    assert projected.features(projected.init(shape, 2, 10, Key(0)), x).shape == (2, 7)


def test_the_published_sizes() -> None:
    shape = CIFAR100().info.shape
    assert ImageQueries().numbers(shape) == 64 * 3072 + 16 * 100 * 64 == 299_008 < 307_200  # within 1 image per class
    averaged = ImageQueries(dimension=None)
    assert averaged.numbers(shape) == 64 * 3072 + 16 * 128 * 64 == 327_680
    with pytest.raises(UsageError, match=r"327680 numbers and the budget has 307200; raise images_per_class to 1\.07"):
        averaged.per_class(shape, 100, 1)


def test_averages_behind_an_instance_norm_hardly_tell_classes_apart(data_dir: Path) -> None:
    """Which is why a query is a projection by default: the share of its square that differs between classes."""
    train = Digits().load(data_dir, Key(0), 0.0).train
    x, labels = train.images[:200], train.labels[:200]

    def share(dimension: int | None) -> float:
        own = ImageQueries(bases=4, matrices=2, extractor=ConvNet(width=8), dimension=dimension)
        features = own.features(own.init(ImageShape(1, 8, 8), 10, 100, Key(0)), x)
        means = torch.stack([features[labels == c].mean(0) for c in range(10)])
        return float((means - features.mean(0)).square().sum(1).mean() / features.mean(0).square().sum())

    assert share(None) < 0.002 and share(8) > 0.05


@pytest.mark.parametrize("dimension", [None, 5])
def test_standardised_features_start_with_mean_zero_and_deviation_one(data_dir: Path, dimension: int | None) -> None:
    """Exactly, on the training images drawn for it; and then even averages tell classes apart."""
    extractor = ConvNet(width=8)
    own = ImageQueries(bases=4, matrices=2, extractor=extractor, dimension=dimension, standardized=True)
    data = Digits().load(data_dir, Key(0), 0.0)
    experiment = replace(ASKED, parameterization=own)
    memories = EpisodicMemories.of(experiment, torch.device("cpu"))
    rows = ClassRows.of(data.train, 10)
    memory = memories.begin(Key(0), rows).memory
    seen = rows.draw(list(range(10)), STANDARDIZED_ON, Key(0)("features"))
    features = own.features(memory, seen.images)
    assert features.mean(0).abs().max() < 1e-2
    assert torch.allclose(features.std(0, correction=0), torch.ones(features.shape[1]), atol=1e-2)
    means = torch.stack([features[seen.labels == c].mean(0) for c in range(10)])
    assert float(means.square().sum(1).mean() / features.square().sum(1).mean()) > 0.05

    plain, d = replace(own, standardized=False), features.shape[1]
    assert addressed(memory)[0] == plain.numbers(ImageShape(1, 8, 8))  # the budget stays
    apart = addressed(memory)[1] - addressed(plain.init(ImageShape(1, 8, 8), 10, 100, Key(0)))[1]
    assert apart == 2 * d
    assert {k: v.shape for k, v in memories.begin(Key(0)).memory.items()} == {k: v.shape for k, v in memory.items()}
    again = memories.begin(Key(0), rows).memory
    assert all(torch.equal(v, again[k]) for k, v in memory.items())


def test_a_start_recalls_a_mean_of_the_classes_images_by_the_probabilities_of_a_classifier(data_dir: Path) -> None:
    """Exactly, where there are as many bases as images, in the budget as it was; by labels it recalls the images."""
    own = ImageQueries(bases=20, matrices=2, extractor=MLP(width=8, depth=1), dimension=12, softmax=True)
    memories = EpisodicMemories.of(replace(ASKED, parameterization=own, start=RealImages()), torch.device("cpu"))
    rows = ClassRows.of(Digits().load(data_dir, Key(0), 0.0).train, 10)
    classifier = MLP(width=8, depth=1).build(ImageShape(1, 8, 8), 12)
    images = memories.images_of_start(RealImages(), rows, Key(0)("start"))
    memory = memories.begin(Key(0), rows, classifier, images).memory
    shapes = {name: v.shape for name, v in own.init(ImageShape(1, 8, 8), 10, 100, Key(0)).items()}
    assert {name: v.shape for name, v in memory.items()} == shapes
    again = memories.begin(Key(0), rows, classifier, images).memory
    assert all(torch.equal(v, again[name]) for name, v in memory.items())

    x = rows.split.images[:5]
    drawn = RealImages().images(replace(memories.setting, classes=10), rows, 2, Key(0)("start"))
    assert torch.equal(images, drawn)
    with torch.no_grad():
        p = classifier(x).softmax(1)
        wanted = torch.einsum("nc,crxhw->nrxhw", p[:, :10], images)
        assert p[:, 10:].min() > 0  # outputs of no class recall nothing
        torch.testing.assert_close(own.recall(memory, x), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="needs a trained extractor"):
        memories.begin(Key(0), rows)


def test_what_a_start_can_not_be_made_of_is_refused_in_one_sentence() -> None:
    own = ImageQueries(bases=4, matrices=2, extractor=MLP(width=8, depth=1), dimension=5, softmax=True)
    memory, images = own.init(ImageShape(1, 8, 8), 10, 100, Key(0)), torch.zeros(5, 2, 1, 8, 8)
    classifier = dict(MLP(width=8, depth=1).build(ImageShape(1, 8, 8), 5).named_parameters())
    assert set(own.taught(memory, classifier, images)) == set(memory)
    refused: list[tuple[ImageQueries, Any, Tensor, str]] = [
        (replace(own, softmax=False), classifier, images, "softmax = True"),
        (replace(own, standardized=True), classifier, images, "standardized = False"),
        (own, classifier, torch.zeros(6, 2, 1, 8, 8), "must be 6, the classes, or more, not 5"),
        (own, {}, images, "needs a classifier of image_queries.extractor"),
        (own, classifier | {"head.bias": torch.zeros(6)}, images, "needs a classifier of image_queries.extractor"),
    ]
    for how, weights, shown, said in refused:
        with pytest.raises(UsageError, match=said):
            how.taught(memory, weights, shown)


@pytest.mark.slow
def test_with_a_start_both_memories_of_a_run_begin_with_the_images_of_classes(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what teaches the extractor are the training images, augmented as the classifier's are."""
    own = ImageQueries(bases=10, matrices=1, extractor=MLP(width=8, depth=1), dimension=10, softmax=True)
    experiment = replace(ASKED, parameterization=own, start=RealImages(), iterations=1, draws=1)
    begun: dict[str, dict[str, Tensor]] = {}
    trained: list[tuple[Any, set[bytes]]] = []
    learn, train = Series.learn, episode_measurement.train

    def learning(series: Any, name: str, optimizer: Any, start: Any, *others: Any) -> Any:
        begun[name] = start().memory
        begun["extractor"] = series.tensors["extractor"]
        return learn(series, name, optimizer, start, *others)

    def training(setting: Any, images: Split, *others: Any) -> Any:
        trained.append((setting, pictures(images)))
        return train(setting, images, *others)

    monkeypatch.setattr(Series, "learn", learning)
    monkeypatch.setattr(episode_measurement, "train", training)
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    experiment.run(session)
    data = Digits().load(data_dir, Key(0), 0.0)
    rows, memories = ClassRows.of(data.train, 10), EpisodicMemories.of(experiment, torch.device("cpu"))
    images = memories.images_of_start(RealImages(), rows, session.key("start"))  # drawn at random; the same for both
    network = MLP(width=8, depth=1).build(ImageShape(1, 8, 8), 10)
    network.load_state_dict(begun["extractor"])
    x = data.train.images[:5]
    with torch.no_grad():
        wanted = torch.einsum("nc,crxhw->nrxhw", network(x).softmax(1), images)
        torch.testing.assert_close(own.recall(begun["asked with images"], x), wanted, rtol=1e-4, atol=1e-4)
        by_label = Addressing(10).recall(begun["asked with labels"], torch.arange(10))
        torch.testing.assert_close(by_label, images, rtol=1e-4, atol=1e-4)
    extractor, classifier = trained[0][0], trained[1][0]
    assert extractor.architecture == own.extractor != classifier.architecture and extractor.classes == 10
    assert extractor.augmentation == classifier.augmentation == experiment.backbone_augmentation != "default"
    assert trained[0][1] == trained[1][1] == pictures(data.train) and not trained[0][1] & pictures(data.test)


def test_a_start_that_can_not_be_made_is_refused_before_the_extractor_is_trained(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training(*anything: Any) -> Any:
        raise AssertionError("an extractor was trained")

    monkeypatch.setattr(episode_measurement, "train", training)
    own = ImageQueries(bases=10, matrices=500, extractor=MLP(width=8, depth=1), dimension=10, softmax=True)
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    with pytest.raises(UsageError, match="class_means can't start 500 images of class 0"):
        replace(ASKED, parameterization=own, start=ClassMeans()).run(session)


def test_an_extractor_may_have_a_rate_of_its_own() -> None:
    params = {"bases": torch.ones(2), "extractor.head.weight": torch.ones(2)}
    grads = {name: torch.tensor([1.0, -3.0]) for name in params}
    whole = Adam(lr=0.1).step(params, grads, Adam(lr=0.1).init(params))[0]
    for factor in (0.0, 0.25, 1.0):
        slowed = Slowed(of=Adam(lr=0.1), factor=factor)
        after, state = slowed.step(params, grads, slowed.init(params))
        assert torch.equal(after["bases"], whole["bases"]) and set(state) == set(Adam(lr=0.1).init(params))
        wanted = 1 + factor * (whole["extractor.head.weight"] - 1)
        torch.testing.assert_close(after["extractor.head.weight"], wanted)


def test_a_feature_that_is_always_the_same_is_not_divided_by_nothing() -> None:
    own = ImageQueries(bases=2, matrices=1, extractor=ConvNet(width=4), dimension=None, standardized=True)
    memory = own.init(ImageShape(1, 8, 8), 2, 10, Key(0))
    same = own.standardize(memory, torch.zeros(3, 1, 8, 8))
    assert all(bool(v.isfinite().all()) for v in same.values())


@pytest.mark.parametrize("softmax", [False, True])
def test_the_hypergradient_through_the_extractor_is_plain_autograd_s_and_that_of_finite_differences(
    softmax: bool,
) -> None:
    shots = torch.randn(2, 2, 1, 16, 16, generator=Key(0).generator(), dtype=torch.float64)
    extractor = ConvNet(width=4, depth=2, activation="silu")
    own = ImageQueries(bases=4, matrices=2, extractor=extractor, softmax=softmax)
    problem = Problem(SGDMomentum(lr=0.05), Asked(own, shots, 20.0), "mlp", 4, width=16, activation="silu")
    found = problem.gradient()
    assert {"bases", "matrices", "extractor.body.0.weight"} <= set(found)
    assert all(float(g.norm()) > 0 for name, g in found.items() if not name.endswith("bias"))
    assert relative_error(found, problem.gradient_by_full_graph()) < 1e-10
    assert finite_difference_error(problem) < 1e-4


@pytest.mark.slow
def test_an_outer_step_changes_the_extractor_and_every_shot_counts(data_dir: Path, tmp_path: Path) -> None:
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    ASKED.run(session)
    memory = Memory.load(tmp_path / "memory.safetensors")
    start = EpisodicMemories.of(ASKED, torch.device("cpu")).begin(Key(0)("memory")).memory
    assert set(start) == set(memory.tensors)
    assert all(
        not torch.equal(start[name], memory.tensors[name]) for name in ("bases", "matrices", "extractor.body.0.weight")
    )
    x = torch.randn(2, 1, 8, 8, generator=Key(0).generator())
    images = memory.parameterization.recall(memory.tensors, x)
    assert images.shape == (2, 3, 1, 8, 8) and not torch.allclose(images[0], images[1])


def test_every_shot_counts() -> None:
    own, shape = ASKED.parameterization, ImageShape(1, 8, 8)
    memory = own.init(shape, 2, 20, Key(0))
    shots = torch.randn(2, 2, 1, 8, 8, generator=Key(1).generator())
    images = Asked(own, shots).recall(memory, torch.arange(2))
    assert images.shape == (2, 6, 1, 8, 8)
    for i in range(2):
        assert torch.allclose(images[i], own.recall(memory, shots[i]).flatten(0, 1), atol=1e-6)
    assert not torch.allclose(images[:, :3], images[:, 3:])


def test_the_contract_is_kept_and_an_extractor_that_mixes_images_is_refused() -> None:
    findings = check("parameterizations", "image_queries")
    assert len(findings) > 5 and all(finding.verdict == "kept" for finding in findings), findings
    mixing = ImageQueries(bases=4, matrices=2, extractor=ConvNet(width=4, norm="batch"))
    with pytest.raises(UsageError, match="must treat images one by one"):
        mixing.init(ImageShape(1, 16, 16), 2, 10, Key(0))


@pytest.mark.parametrize("experiment", [APART, Distillation(), CompressThenRecall()])
def test_memories_that_are_asked_with_images_are_for_recall_with_images(experiment: Any) -> None:
    with as_people_run_it(), pytest.raises(UsageError, match="parameterization must be queried by class label"):
        replace(experiment, parameterization=ImageQueries())


def test_an_oracle_has_as_many_bases_for_each_class() -> None:
    task = Extrapolation(parameterization=Addressing(bases=43), ways_per_task=5, images_per_class=100, ways=(2,))
    assert [task.setting(torch.device("cpu"), n).parameterization.bases for n in (5, 2)] == [43, 17]  # type: ignore[attr-defined]


@pytest.mark.parametrize("objective", [DistributionMatching(real_per_class=4), SHORT])
def test_matching_alone_asks_nothing_of_a_class_s_partners(objective: Objective) -> None:
    shape, labels = ImageShape(1, 8, 8), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    setting = Setting(shape, 2, NETWORK, Standard(), "none", torch.device("cpu"))
    memory = Standard().init(shape, 2, 2, Key(0))
    images = torch.randn(8, 1, 8, 8, generator=Key(1).generator())
    partner = torch.cat([images[:4], torch.randn(4, 1, 8, 8, generator=Key(2).generator())])
    of_class_0 = []
    for real in (images, partner):
        given, _ = objective.gradients(setting, memory, ClassRows.of(Split(real, labels), 2), Key(3))
        of_class_0.append(given["images"][0])
    assert torch.equal(*of_class_0) == isinstance(objective, DistributionMatching)


def test_less_than_published_is_called_reduced() -> None:
    whole = ImageRecall(dataset=CIFAR100(), ways=5)
    assert summary.reduced_by(whole) == []
    assert summary.reduced_by(replace(whole, draws=2)) == ["draws 2 of 10"]
    assert summary.reduced_by(replace(whole, evaluation=Protocol(networks=1, lr=0.1)))
    assert "epochs 2 of 300" in str(summary.reduced_by(APART))


def test_a_classifier_is_tuned_from_its_weights_with_a_fresh_head() -> None:
    shape = ImageShape(1, 8, 8)
    weights = {k: v.detach() + 1 for k, v in NETWORK.build(shape, 10).named_parameters()}
    tuned = dict(Pretrained(NETWORK, weights).build(shape, 2).named_parameters())
    assert all(torch.equal(tuned[k], weights[k]) for k in tuned if not k.startswith("head"))
    assert tuned["head.weight"].shape[0] == 2


# ---------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("dataset", [Digits(), TrainingOnly(of=Digits())])
def test_memories_of_their_own_preprocessing_meet_in_the_common_one(
    dataset: ImageSource, data_dir: Path, tmp_path: Path
) -> None:
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    own = replace(APART, dataset=dataset, preprocessing_of="each task", bound_episodes=0, ways=(2,))
    assert own.run(session).facts["preprocessing_of"] == "each task"
    means = {Memory.load(file).transform.describe()["sha256"] for file in (tmp_path / "memories").iterdir()}  # type: ignore[union-attr]
    assert len(means) == 5
    data = dataset.load(data_dir, Key(0), 0.0)
    space = own._space(session, data, (0, 1))
    memory = own.parameterization.init(data.info.shape, 2, 3, Key(0))
    images = replace(own._joined(session), memories=[memory])._recalled(0, 1)
    before = own.parameterization.recall(memory, torch.tensor([1]))[0]
    assert torch.equal(images, moved(before, space.transform, data.transform)) and not torch.equal(images, before)


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_images_are_taken_from_one_preprocessing_to_another_as_if_they_had_had_it_from_the_start(name: str) -> None:
    pixels = torch.randint(0, 256, (60, 3, 4, 4), generator=Key(0).generator()).to(torch.uint8)
    first, then = fit(name, pixels[:30], 0.1), fit(name, pixels[30:] // 2, 0.1)
    assert torch.allclose(moved(first.apply(pixels), first, then), then.apply(pixels), atol=1e-4)
    assert torch.allclose(moved(first.apply(pixels) * 3, first, first), first.apply(pixels) * 3, atol=1e-3)


def test_images_are_not_taken_between_preprocessings_of_two_kinds() -> None:
    pixels = torch.randint(0, 256, (60, 3, 4, 4), generator=Key(0).generator()).to(torch.uint8)
    one, other = fit("standardize", pixels, 0.1), fit("zca_image", pixels, 0.1)
    with pytest.raises(UsageError, match="can't be taken to 'zca_image'"):
        moved(one.apply(pixels), one, other)


# ---------------------------------------------------------------- the command

HERE = ["--gin", "gin/scale/smoke.gin", "--seed", "0", "--tracking-uri", "none"]
HERE += sets("DATASET = @datasets.digits()", "ARCHITECTURE = @architectures.mlp()", "architectures.mlp.width = 8")
EXTRAPOLATION = ["--gin", "gin/synthesis/extrapolation.gin", *HERE, "--only", "budget=10 I/C", "--only", "addressing"]
EXTRAPOLATION += sets("WAYS_PER_TASK = 2", "BASES_OF_10 = 16")
IMAGE_RECALL = ["--gin", "gin/synthesis/image_recall.gin", *HERE, "--only", "2-way"]
IMAGE_RECALL += sets("BASES = 6", "EXTRACTOR = @architectures.mlp()")
STARTED = [*IMAGE_RECALL, "--gin", "gin/recipe/recall.gin"]

REFUSED = {
    "more ways than tasks": ([*EXTRAPOLATION, *sets("WAYS = (6,)")], "there are 5; choose 2 to 5 ways"),
    "tasks that leave classes over": ([*EXTRAPOLATION, *sets("WAYS_PER_TASK = 3")], "can't be cut into tasks of 3"),
    "too many bases": ([*EXTRAPOLATION, *sets("BASES_OF_10 = 43")], "43 bases of 1x8x8 leave no room"),
    "no superclasses": ([*EXTRAPOLATION, *sets("CUT = 'superclasses'")], "has no superclasses of 2 classes each"),
    "more bounds than episodes": ([*EXTRAPOLATION, *sets("BOUND_EPISODES = 9")], "from 0 to 3, the episodes"),
    "more shots than images": ([*IMAGE_RECALL, *sets("SHOTS = (60,)")], "shots must be below"),
    "a start for features": ([*STARTED, *sets("parameterizations.image_queries.softmax = False")], "with softmax"),
    "a start of fewer outputs than classes": (
        [*STARTED, *sets("DIMENSION = 9")],
        "whose dimension is 10, the classes, or more",
    ),
    "a start of means of maps": ([*STARTED, *sets("DIMENSION = None")], "whose dimension is 10, the classes, or more"),
    "a start of standardized features": (
        [*STARTED, *sets("parameterizations.image_queries.standardized = True")],
        "not standardized",
    ),
    "no shot": ([*IMAGE_RECALL, *sets("SHOTS = (0,)")], "shots must be a list, each above 0"),
    "more ways than classes": (
        [*IMAGE_RECALL, *sets("experiments.image_recall.ways = 11")],
        "ways must be from 2 to 10",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_is_answered_in_one_sentence(case: str, data_dir: Path, tmp_path: Path) -> None:
    line, said = REFUSED[case]
    with as_people_run_it():
        done = command(*line, "--data-dir", data_dir, "--out", tmp_path)
    assert done.status == 2 and said in done.complaint and not list(tmp_path.glob("*/*/result.json"))


def test_a_query_of_the_wrong_size_is_refused_in_one_sentence() -> None:
    own = ImageQueries(bases=4, matrices=2, extractor=ConvNet(width=4))
    memory = own.init(ImageShape(1, 16, 16), 2, 10, Key(0))
    for queries, said in ((torch.zeros(2, 3, 32, 32), "images of 3x32x32"), (torch.arange(2), "class numbers")):
        with as_people_run_it(), pytest.raises(UsageError, match=f"queried by images of 1x16x16, not by {said}"):
            own.recall(memory, queries)


@pytest.mark.slow
@pytest.mark.parametrize(("line", "steps"), [(EXTRAPOLATION, (5, 17)), (IMAGE_RECALL, (3, 6)), (STARTED, (0, 3))])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    line: list[str], steps: tuple[int, int], data_dir: Path, tmp_path: Path
) -> None:
    line = [*line, "--data-dir", str(data_dir), "--checkpoint-seconds", "0"]
    whole = command(*line, "--out", tmp_path / "whole")
    assert whole.status == 0, whole.err
    for at in steps:
        cut = tmp_path / f"cut-{at}"
        assert killed_at([*line, "--out", str(cut)], at).status == -signal.SIGKILL
        after = command(*line, "--out", cut)
        assert after.status == 0 and f"step {at}" in after.err, after.err
        assert_same_bits(only_run(tmp_path / "whole"), only_run(cut))


def assert_same_bits(one: Path, two: Path) -> None:
    records = [comparable(json.loads((place / "result.json").read_text())) for place in (one, two)]
    assert records[0] == records[1]
    for file in sorted(one.rglob("*.safetensors")):
        if "checkpoints" not in file.parts:
            assert file.read_bytes() == (two / file.relative_to(one)).read_bytes()
