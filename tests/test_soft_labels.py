"""Learned labels: paid for, learned by the exact gradient, taught by every network, kept in the file, never ignored."""

import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, as_people_run_it, command, killed_at, only_run, sets
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.contracts.problem import Problem, finite_difference_error, relative_error
from suite.core.outer_loop import begin
from suite.core.unroll import through_recall
from suite.errors import UsageError
from suite.evaluation.evaluate import accuracy, recalled
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train, train_group
from suite.experiments.continual.compress_then_recall import CompressThenRecall
from suite.experiments.distillation import Distillation
from suite.experiments.synthesis.extrapolation import Extrapolation
from suite.images import augment
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.memory import Memory
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.objectives.gradient_matching import GradientMatching
from suite.objectives.judged_often import JudgedOften
from suite.objectives.pool import Pool
from suite.objectives.windows import Windows
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.image_queries import ImageQueries
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard
from suite.starts.class_means import ClassMeans
from suite.types import Architecture, ClassRows, ImageShape, Parameterization, Params, Setting, Split

SHAPE, CLASSES = ImageShape(1, 8, 8), 5


@dataclass(frozen=True)
class Double:
    """Another architecture in double precision."""

    of: Architecture

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        return self.of.build(shape, classes).double()


@dataclass(frozen=True)
class Certain:
    """A parameterization whose labels are the stored values themselves, which are one-hot at the start."""

    of: SoftLabels

    def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
        return self.of.per_class(shape, classes, images_per_class)

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        return self.of.init(shape, classes, images_per_class, key)

    def recall(self, memory: Params, queries: Tensor) -> Tensor:
        return self.of.recall(memory, queries)

    def labels(self, memory: Params, queries: Tensor) -> Tensor:
        return memory["labels"][queries]

    def penalty(self, memory: Params) -> Tensor:
        return self.of.penalty(memory)


def setting(way: Parameterization, augmentation: str = "none", network: Architecture | None = None) -> Setting:
    network = Double(ConvNet(width=4)) if network is None else network
    return Setting(SHAPE, CLASSES, network, way, augmentation, torch.device("cpu"))


def real(each: int = 6) -> ClassRows:
    generator = Key(0)("pixels").generator()
    pixels = torch.randn(CLASSES * each, 1, 8, 8, generator=generator, dtype=torch.float64)
    return ClassRows.of(Split(pixels, torch.arange(CLASSES * each) % CLASSES), CLASSES)


def learned(way: Parameterization, images_per_class: float = 4.0) -> Params:
    """A memory whose labels are no longer those of the start."""
    memory = {k: v.double() for k, v in way.init(SHAPE, CLASSES, images_per_class, Key(0)("memory")).items()}
    noise = torch.randn(memory["labels"].shape, generator=Key(0)("labels").generator(), dtype=torch.float64)
    return memory | {"labels": memory["labels"] + 0.5 * noise}


# ---------------------------------------------------------------- budget and start


def affordable(of: Any, shape: ImageShape, classes: int, budget: int) -> int:
    """Images for each class by the sum of what they take, their labels included."""
    if isinstance(of, Downsampled):
        shape = ImageShape(shape.channels, shape.height // 2, shape.width // 2)
        of = of.of
    if isinstance(of, Standard):
        return budget // (classes * (shape.numel + classes))
    return (budget - of.bases * shape.numel) // (classes * (of.bases + classes))


@pytest.mark.parametrize(
    "of", [Standard(), Addressing(bases=3), Addressing(bases=12), Downsampled(), Downsampled(Addressing(5))]
)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_are_paid_out_of_the_budget_and_none_of_it_is_wasted(of: Any, classes: int) -> None:
    shape, soft = ImageShape(3, 8, 8), SoftLabels(of)
    for images_per_class in (1.57, 2.0, 2.58, 7.3, 50.0):
        budget = int(images_per_class * classes * shape.numel)
        each = affordable(of, shape, classes, budget)
        if each < 1:
            with pytest.raises(UsageError, match="leave no room for an addressing matrix"):
                soft.per_class(shape, classes, images_per_class)
            continue
        memory = soft.init(shape, classes, images_per_class, Key(0))
        assert sum(v.numel() for v in memory.values()) <= budget
        assert soft.per_class(shape, classes, images_per_class) == each
        assert memory["labels"].shape == (classes, each, classes)
        assert soft.recall(memory, torch.tensor([1])).shape == (1, each, 3, 8, 8)


def test_where_bases_follow_from_the_budget_it_is_kept_too() -> None:
    for images_per_class in (0.5, 1.0, 1.3, 2.0, 4.9):
        memory = SoftLabels(Addressing(bases=None)).init(ImageShape(3, 8, 8), 10, images_per_class, Key(0))
        assert 0.85 < sum(v.numel() for v in memory.values()) / (images_per_class * 10 * 192) <= 1


LEAST = [(Standard(), 1.0, 1.16), (Downsampled(), 0.25, 0.41), (Addressing(bases=6), 0.7, 0.85)]
"""For one image of 8x8 in each of ten classes: the budget without labels, and with them."""


@pytest.mark.parametrize(("of", "without", "needed"), LEAST)
def test_a_budget_without_room_for_a_label_names_one_that_has(of: Any, without: float, needed: float) -> None:
    soft = SoftLabels(of)
    with pytest.raises(
        UsageError, match=rf"label of 10 numbers .* raise images_per_class to {needed:g}, or "
    ) as refused:
        soft.per_class(SHAPE, 10, without)
    assert "\n" not in str(refused.value)
    assert soft.per_class(SHAPE, 10, needed) == 1
    with pytest.raises(UsageError, match="raise images_per_class"):
        soft.init(SHAPE, 10, needed - 0.011, Key(0))
    with pytest.raises(UsageError, match=r"standard stores whole images|no room for an addressing matrix"):
        soft.per_class(SHAPE, 10, without - 0.011)


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_a_label_starts_at_its_class_with_the_confidence_that_was_asked_for(classes: int) -> None:
    for confidence in (0.6, 0.9, 0.99):
        soft = SoftLabels(Standard(), confidence)
        memory = soft.init(ImageShape(3, 16, 16), classes, 2.6, Key(0))
        labels = soft.labels(memory, torch.arange(classes))
        own = labels[torch.arange(classes), :, torch.arange(classes)]
        torch.testing.assert_close(own, torch.full((classes, 2), confidence))
        torch.testing.assert_close(labels.sum(-1), torch.ones(classes, 2))
        others = labels[0, 0, 1:]
        torch.testing.assert_close(others, torch.full((classes - 1,), (1 - confidence) / (classes - 1)))


def test_a_start_from_images_goes_through_and_leaves_the_labels() -> None:
    what = setting(SoftLabels(Standard()))
    images = ClassRows.of(Split(real().split.images.float(), real().split.labels), CLASSES)
    memory = begin(what, SGDMomentum(), 2.3, Key(0), ClassMeans(), images).memory
    expected = ClassMeans().images(what, images, 2, Key(0)("start"))
    assert torch.equal(memory["images"], expected)
    assert torch.equal(memory["labels"], torch.eye(CLASSES)[:, None].repeat(1, 2, 1))

    @dataclass(frozen=True)
    class Unstarted:
        per_class, init, recall, penalty = Standard.per_class, Standard.init, Standard.recall, Standard.penalty

    with pytest.raises(UsageError, match=r"offers no start from images"):
        begin(setting(SoftLabels(Unstarted())), SGDMomentum(), 2.3, Key(0), ClassMeans(), images)


def test_the_penalty_is_that_of_what_is_labelled() -> None:
    soft = SoftLabels(Addressing(bases=2, coefficient_penalty=0.3))
    memory = learned(soft)
    assert soft.penalty(memory) == soft.of.penalty(memory) > 0


# ---------------------------------------------------------------- the gradient

WAYS: list[Any] = [SoftLabels(Standard()), SoftLabels(Downsampled(of=Addressing(bases=3)), confidence=0.8)]


def written_out(what: Setting, start: Params, images: ClassRows, key: Key, classes: int, each: int) -> Params:
    """Four steps of descent with momentum 0.9 at rate 0.05 in one graph of everything, labels included."""
    chosen = sorted(key("classes").permutation(CLASSES)[:classes].tolist()) if classes < CLASSES else range(CLASSES)
    operation = augment.draw(what.augmentation, key("augmentation"))
    way: Any = what.parameterization
    leaves = {k: v.clone().requires_grad_() for k, v in start.items()}
    shown = {c: way.recall(leaves, torch.tensor([c]))[0] for c in chosen}
    scale = torch.tensor(way.confidence * (CLASSES - 1) / (1 - way.confidence)).double().log()
    available = len(shown[chosen[0]])
    draws = key("inner").subsets(4 * classes, available, min(each, available))
    with global_generators(key("network")):
        network = what.architecture.build(SHAPE, CLASSES)
    names, w = [name for name, _ in network.named_parameters()], list(network.parameters())
    velocity = [torch.zeros_like(v) for v in w]
    for t in range(4):
        rows = [(c, r) for i, c in enumerate(chosen) for r in draws[t * classes + i].tolist()]
        batch = operation(torch.stack([shown[c][r] for c, r in rows]))
        logs = functional_call(network, dict(zip(names, w, strict=True)), (batch,)).log_softmax(1)
        values = torch.stack([scale * leaves["labels"][c, r] for c, r in rows]).exp()
        loss = -(values / values.sum(1, keepdim=True) * logs).sum(1).mean()
        grads = torch.autograd.grad(loss, w, create_graph=True)
        velocity = [0.9 * v + g for v, g in zip(velocity, grads, strict=True)]
        w = [w_k - 0.05 * v for w_k, v in zip(w, velocity, strict=True)]
    outer = images.draw(list(chosen), 3, key("real"))
    scores = functional_call(network, dict(zip(names, w, strict=True)), (operation(outer.images),))
    found = torch.autograd.grad(cross_entropy(scores, outer.labels), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("execution", ["eager", "captured"])
@pytest.mark.parametrize("way", WAYS, ids=["standard", "downsampled addressing"])
@pytest.mark.parametrize(("classes", "each"), [(5, 100), (3, 2)])
def test_the_gradient_in_images_and_labels_is_that_of_one_graph(
    way: Any, classes: int, each: int, execution: Any
) -> None:
    what, start = setting(way, "flip_rotate"), learned(way)
    sizes = {"inner_steps": 4, "classes_per_step": classes, "images_per_class_per_step": each, "real_per_class": 3}
    objective = BPTT(SGDMomentum(lr=0.05), **sizes, memory_gib=1e-4, execution=execution)
    for key in (Key(3)(0), Key(3)(1)):
        gradients, metrics = objective.gradients(what, start, real(), key)
        expected = written_out(what, start, real(), key, classes, each)
        assert list(gradients) == list(start) and "labels" in gradients
        for name in start:
            assert expected[name].norm() > 0
            torch.testing.assert_close(gradients[name], expected[name], rtol=1e-9, atol=1e-13)
        assert not any(v.requires_grad for v in (*gradients.values(), *metrics.values()))


@pytest.mark.parametrize("optimizer", [SGDMomentum(lr=0.05), Adam(eps=1e-3, eps_root=1e-6)], ids=["sgd", "adam"])
@pytest.mark.parametrize("of", [Standard(), Addressing(bases=1)], ids=["standard", "addressing"])
def test_the_hypergradient_is_that_of_autograd_and_of_finite_differences(of: Parameterization, optimizer: Any) -> None:
    problem = Problem(optimizer, SoftLabels(of), "mlp", 4, width=16, activation="silu")
    assert set(problem.memory) > {"labels"}
    assert relative_error(problem.gradient(), problem.gradient_by_full_graph()) < 1e-10
    assert finite_difference_error(problem) < 1e-5


@pytest.mark.parametrize("part", ["images", "labels"])
def test_each_part_of_an_outer_step_s_gradient_is_its_loss_s_finite_difference(part: str) -> None:
    way = SoftLabels(Standard())
    what, start, key = setting(way, "flip_rotate", Double(ConvNet(width=4, activation="silu"))), learned(way), Key(4)
    objective = BPTT(SGDMomentum(lr=0.05), inner_steps=4, images_per_class_per_step=2)
    v = torch.randn(start[part].shape, generator=Key(5).generator(), dtype=torch.float64)
    ahead, behind = (
        objective.gradients(what, start | {part: start[part] + step * v}, real(), key)[1]["loss"]
        for step in (1e-5, -1e-5)
    )
    derivative = (objective.gradients(what, start, real(), key)[0][part] * v).sum()
    assert float((ahead - behind) / 2e-5 / derivative) == pytest.approx(1, abs=1e-6)


def test_labels_that_are_certain_teach_what_classes_teach() -> None:
    way = SoftLabels(Standard())
    start = {k: v.double() for k, v in way.init(SHAPE, CLASSES, 4.0, Key(0)).items()}
    objective = BPTT(inner_steps=4, images_per_class_per_step=2)
    certain, _ = objective.gradients(setting(Certain(way)), start, real(), Key(1))
    hard, _ = objective.gradients(setting(Standard()), {"images": start["images"]}, real(), Key(1))
    torch.testing.assert_close(certain["images"], hard["images"], rtol=1e-10, atol=1e-14)
    assert certain["labels"].norm() > 0


def test_programs_with_and_without_labels_are_told_apart() -> None:
    way, objective = SoftLabels(Standard()), BPTT(inner_steps=3, execution="captured")
    start = learned(way)
    ways: list[tuple[Parameterization, Params]] = [(way, start), (Standard(), {"images": start["images"]})]
    for which, memory in [*ways, *ways]:
        found, _ = objective.gradients(setting(which), memory, real(), Key(1))
        plain, _ = replace(objective, execution="eager").gradients(setting(which), memory, real(), Key(1))
        assert relative_error(found, plain) < 1e-11


def test_objectives_around_bptt_learn_labels_too() -> None:
    way, plain = SoftLabels(Standard()), BPTT(inner_steps=4)
    given = setting(way), learned(way), real(), Key(1)
    whole, _ = Windows(plain, window=4).gradients(*given)
    assert relative_error(whole, plain.gradients(*given)[0]) < 1e-12
    for other in (JudgedOften(plain, times=2), Pool(plain, networks=2, oldest=6)):
        assert other.learns_labels and other.gradients(*given)[0]["labels"].norm() > 0


def test_gradient_norms_are_those_of_training_on_the_labels() -> None:
    way, objective = SoftLabels(Standard()), BPTT(inner_steps=3)
    start = learned(way)
    soft = objective.gradient_norms(setting(way), start, real(), Key(0))
    hard = objective.gradient_norms(setting(Standard()), {"images": start["images"]}, real(), Key(0))
    assert len(soft) == 4 and all(a != b for a, b in zip(soft, hard, strict=True))


def test_labels_that_an_objective_leaves_out_are_named() -> None:
    way = SoftLabels(Standard())
    leaves = {k: v.requires_grad_() for k, v in learned(way).items()}
    images = way.recall(leaves, torch.arange(CLASSES))
    with pytest.raises(UsageError, match="'labels' takes no part in what is recalled"):
        through_recall({"images": images}, leaves, {"images": torch.ones_like(images)})


# ---------------------------------------------------------------- evaluation

SMALL = Protocol(name="small", networks=3, epochs=3, batch=4, lr=0.1)


def taught() -> tuple[Setting, Split]:
    what = setting(SoftLabels(Standard()), "flip_rotate", Double(MLP(width=8, depth=1)))
    return what, recalled(what, learned(what.parameterization, 2.3))


def weights(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict().values())


def test_what_is_recalled_has_the_labels_as_targets() -> None:
    what, split = taught()
    soft: Any = what.parameterization
    memory = learned(soft, 2.3)
    assert split.targets is not None and torch.equal(split.taught, split.targets)
    assert torch.equal(split.targets, soft.labels(memory, torch.arange(CLASSES)).flatten(0, 1))
    assert split.labels.tolist() == sorted([*range(CLASSES)] * 2)
    hard = recalled(setting(Standard()), {"images": memory["images"]})
    assert hard.targets is None and hard.taught is hard.labels and torch.equal(hard.images, split.images)


def test_networks_learn_the_targets_step_by_step() -> None:
    what, split = taught()
    key = Key(7)
    trained = train(what, split, SMALL, key)
    with global_generators(key("network")):
        network = what.architecture.build(SHAPE, CLASSES)
    assert split.targets is not None
    velocity = [torch.zeros_like(w) for w in network.parameters()]
    for epoch in range(3):
        order = key("order", epoch).permutation(len(split))
        for first in range(0, len(split), 4):
            rows = order[first : first + 4]
            images = augment.draw("flip_rotate", key("augmentation", epoch, first), len(rows))(split.images[rows])
            loss = -(split.targets[rows] * network(images).log_softmax(1)).sum(1).mean()
            grads = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for w, v, g in zip(network.parameters(), velocity, grads, strict=True):
                    v.mul_(0.9).add_(g)
                    w -= 0.1 * v
    for found, expected in zip(weights(trained), weights(network), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_networks_side_by_side_learn_what_each_learns_alone() -> None:
    what, split = taught()
    keys = [Key(i) for i in range(3)]
    for network, key in zip(train_group(what, [split] * 3, SMALL, keys), keys, strict=True):
        for found, expected in zip(weights(network), weights(train(what, split, SMALL, key)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_certain_targets_teach_what_labels_teach_and_accuracy_is_by_labels() -> None:
    what, split = taught()
    certain = replace(split, targets=one_hot(split.labels, CLASSES).double())
    networks = [train(what, data, SMALL, Key(0)) for data in (certain, replace(split, targets=None))]
    for found, expected in zip(*map(weights, networks), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    turned = replace(split, targets=split.targets.flip(1) if split.targets is not None else None)
    assert accuracy(networks[0], turned) == accuracy(networks[0], split)


def test_targets_go_with_their_images() -> None:
    _, split = taught()
    assert split.targets is not None
    rows = torch.tensor([7, 0, 3])
    for chosen in (split.at(rows), split.to(torch.device("cpu")).at(rows)):
        assert chosen.targets is not None and torch.equal(chosen.targets, split.targets[rows])
        assert torch.equal(chosen.labels, split.labels[rows])
    renumbered = split.relabelled([4, 1])
    assert renumbered.targets is not None and torch.equal(renumbered.targets, split.targets[:, [4, 1]])
    assert renumbered.labels.tolist() == [-1, -1, 1, 1, -1, -1, -1, -1, 0, 0]


# ---------------------------------------------------------------- refusals

SENTENCE = (
    "parameterization must be one without labels of its own, which are learned in a distillation alone, by bptt or"
)


SOFT = SoftLabels(Standard())


def outer_step(objective: Any) -> Any:
    return objective.gradients(setting(SOFT), learned(SOFT), real(), Key(0))


REFUSED: list[tuple[str, Any]] = [
    ("Distillation", lambda: Distillation(parameterization=SOFT, objective=GradientMatching())),
    ("Distillation", lambda: Distillation(parameterization=SOFT, objective=DistributionMatching())),
    ("CompressThenRecall", lambda: CompressThenRecall(parameterization=SOFT)),
    ("Extrapolation", lambda: Extrapolation(parameterization=SOFT)),
    ("Setting", lambda: outer_step(GradientMatching())),
    ("Setting", lambda: outer_step(DistributionMatching())),
    ("Setting", lambda: recalled(replace(setting(SOFT), groups=torch.arange(CLASSES)), learned(SOFT))),
]


@pytest.mark.parametrize(("where", "use"), REFUSED)
def test_labels_that_would_not_be_used_are_refused_before_the_first_step(where: str, use: Any) -> None:
    with as_people_run_it(), pytest.raises(UsageError, match=f"^{where}.{SENTENCE}") as refused:
        use()
    assert "\n" not in str(refused.value)


def test_labels_lie_around_everything_else_and_once() -> None:
    soft = SoftLabels(Standard())
    with pytest.raises(UsageError, match=r"^Downsampled.of must be without labels, which go around it: soft_labels"):
        Downsampled(of=soft)
    with pytest.raises(UsageError, match=r"^SoftLabels.of must be one without labels of its own, not SoftLabels"):
        SoftLabels(of=soft)
    with pytest.raises(UsageError, match=r"^SoftLabels.of must be queried by class label, not ImageQueries"):
        SoftLabels(of=ImageQueries())
    for confidence in (0.5, 1.0):
        with pytest.raises(UsageError, match=r"confidence must be above 0\.5 and below 1"):
            SoftLabels(of=Standard(), confidence=confidence)


# ---------------------------------------------------------------- runs and files

LINE = [
    *QUICK,
    *sets("PARAMETERIZATION = @parameterizations.soft_labels()", "ITERATIONS = 5", "NETWORKS = 2", "EPOCHS = 3"),
    *sets("parameterizations.soft_labels.of = @parameterizations.addressing()"),
    *("--tracking-uri", "none", "--checkpoint-seconds", "0"),
]


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    done = command(*LINE, "--data-dir", data_dir, "--out", out)
    assert done.status == 0, done.err
    return only_run(out)


def test_a_run_counts_the_labels_and_learns_them(whole: Path) -> None:
    memory, record = Memory.load(whole / "memory.safetensors"), json.loads((whole / "result.json").read_text())
    each = (640 - 6 * 64) // (10 * (6 + 10))
    assert record["budget"] == memory.about["budget"]
    assert record["budget"]["recalled_per_class"] == each == 1
    assert record["budget"]["stored_numbers"] == 6 * 64 + each * 10 * (6 + 10)
    labels = memory.tensors["labels"]
    assert labels.shape == (10, each, 10)
    assert not torch.equal(labels, torch.eye(10)[:, None])


def test_a_memory_s_file_gives_images_with_probabilities_and_is_evaluated_on_them(whole: Path, data_dir: Path) -> None:
    memory, record = Memory.load(whole / "memory.safetensors"), json.loads((whole / "result.json").read_text())
    soft: Any = memory.parameterization
    assert soft == SoftLabels(Addressing(bases=6))
    images, classes = memory.recall()
    assert classes.tolist() == [*range(10)] and len(memory.display()[0]) == 10
    ((batch, labels),) = DataLoader(memory.dataset(), batch_size=16)
    assert torch.equal(batch, images)
    assert torch.equal(labels, soft.labels(memory.tensors, torch.arange(10)).flatten(0, 1))
    torch.testing.assert_close(labels.sum(1), torch.ones(10))
    assert cross_entropy(torch.zeros(10, 10), labels) == pytest.approx(torch.tensor(10.0).log())
    figures = {m["method"]: tuple(m["values"]) for m in record["measurements"] if m["split"] == "test"}
    assert memory.evaluate(networks=2, epochs=3, data_dir=data_dir, progress=False).accuracies == figures


def test_a_run_that_was_killed_goes_on_to_the_same_bits(whole: Path, data_dir: Path, tmp_path: Path) -> None:
    line = [*LINE, "--data-dir", str(data_dir), "--out", str(tmp_path)]
    assert killed_at(line, 3).status == -signal.SIGKILL
    after = command(*line)
    assert after.status == 0 and "step 3" in after.err, after.err
    files = [directory / "memory.safetensors" for directory in (whole, only_run(tmp_path))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_objective_that_would_not_learn_them_is_a_usage_error(data_dir: Path, tmp_path: Path) -> None:
    other = sets("OBJECTIVE = @objectives.gradient_matching()")
    done = command(*LINE, *other, "--data-dir", data_dir, "--out", tmp_path)
    assert done.status == 2 and f"Distillation.{SENTENCE}" in done.complaint
