"""Back-propagation through time, against the same outer step written out with one graph of everything."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.core import cpu_layers
from suite.core.networks import fresh_network
from suite.errors import UsageError
from suite.images import augment
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.objectives.bptt import BPTT
from suite.objectives.footprint import FIXED
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.standard import Standard
from suite.types import Architecture, ClassRows, ImageShape, Parameterization, Params, Setting, Split

SHAPE, CLASSES = ImageShape(1, 8, 8), 5
EACH = 6
"""Real images of every class."""


@dataclass(frozen=True)
class Double:
    """Another architecture in double precision."""

    of: Architecture

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        return self.of.build(shape, classes).double()


def setting(way: Parameterization, augmentation: str = "none") -> Setting:
    return Setting(SHAPE, CLASSES, Double(ConvNet(width=4)), way, augmentation, torch.device("cpu"))


def real() -> ClassRows:
    generator = Key(0)("pixels").generator()
    pixels = torch.randn(CLASSES * EACH, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randperm(CLASSES * EACH, generator=generator) % CLASSES
    return ClassRows.of(Split(pixels, labels), CLASSES)


def memory(way: Parameterization, images_per_class: float = 1.5) -> Params:
    return {k: v.double() for k, v in way.init(SHAPE, CLASSES, images_per_class, Key(0)("memory")).items()}


def written_out(
    what: Setting, start: Params, images: ClassRows, key: Key, steps: int, classes: int, each: int, real_each: int
) -> tuple[Params, float]:
    """One outer step of gradient descent with momentum 0.9 at rate 0.05, as plainly as it can be said."""
    chosen = sorted(key("classes").permutation(CLASSES)[:classes].tolist()) if classes < CLASSES else range(CLASSES)
    operation = augment.draw(what.augmentation, key("augmentation"))
    leaves = {k: v.clone().requires_grad_() for k, v in start.items()}
    recalled = {c: what.parameterization.recall(leaves, torch.tensor([c]))[0] for c in chosen}
    available = len(recalled[chosen[0]])
    draws = key("inner").subsets(steps * classes, available, min(each, available))

    with global_generators(key("network")):
        network = what.architecture.build(SHAPE, CLASSES)
    w: list[Tensor] = list(network.parameters())
    names = [name for name, _ in network.named_parameters()]
    velocity = [torch.zeros_like(v) for v in w]
    for t in range(steps):
        batch, labels = [], []
        for i, c in enumerate(chosen):
            rows = draws[t * classes + i].tolist()
            assert len(set(rows)) == len(rows) == min(each, available)
            batch += [recalled[c][row] for row in rows]
            labels += [c] * len(rows)
        scores = functional_call(network, dict(zip(names, w, strict=True)), (operation(torch.stack(batch)),))
        grads = torch.autograd.grad(cross_entropy(scores, torch.tensor(labels)), w, create_graph=True)
        velocity = [0.9 * v + g for v, g in zip(velocity, grads, strict=True)]
        w = [w_k - 0.05 * v for w_k, v in zip(w, velocity, strict=True)]

    shown, truth = [], []
    for c in chosen:
        rows = [i for i, label in enumerate(images.split.labels.tolist()) if label == c]
        order = key("real")(c).permutation(len(rows)).tolist()[:real_each]
        shown += [images.split.images[rows[i]] for i in order]
        truth += [c] * len(order)
    scores = functional_call(network, dict(zip(names, w, strict=True)), (operation(torch.stack(shown)),))
    loss = cross_entropy(scores, torch.tensor(truth))
    found = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, found, strict=True)), loss.item()


WAYS: list[Any] = [
    Standard(),
    Addressing(bases=2),
    Downsampled(of=Addressing(bases=3)),
]


@pytest.mark.parametrize("augmentation", ["none", "flip_rotate"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
@pytest.mark.parametrize(("classes", "each"), [(5, 100), (5, 2), (2, 100), (3, 2)])
def test_the_gradient_is_that_of_the_step_written_out(way: Any, augmentation: str, classes: int, each: int) -> None:
    what, start = setting(way, augmentation), memory(way, 3.0)
    objective = BPTT(
        SGDMomentum(lr=0.05),
        inner_steps=4,
        classes_per_step=classes,
        images_per_class_per_step=each,
        real_per_class=3,
        memory_gib=1e-4,
    )
    for key in (Key(3)(0), Key(3)(1)):
        gradients, metrics = objective.gradients(what, start, real(), key)
        expected, loss = written_out(what, start, real(), key, 4, classes, each, real_each=3)
        assert list(gradients) == list(start)
        for name in start:
            assert expected[name].norm() > 0
            torch.testing.assert_close(gradients[name], expected[name], rtol=1e-10, atol=1e-14)
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-12)
        assert not any(v.requires_grad for v in (*gradients.values(), *metrics.values()))


def test_both_operations_of_the_augmentation_were_drawn_above() -> None:
    operations = [augment.draw("flip_rotate", Key(3)(step)("augmentation")) for step in (0, 1)]
    assert {operation.func for operation in operations} == {augment.flip, augment.rotate}  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_classes_that_were_not_drawn_have_no_gradient(way: Any) -> None:
    seen = set()
    for step in range(6):
        key = Key(0)(step)
        objective = BPTT(inner_steps=2, classes_per_step=2)
        gradients, _ = objective.gradients(setting(way), memory(way), real(), key)
        per_class = gradients["images"] if "images" in gradients else gradients["matrices"].transpose(0, 1)
        moved = {c for c in range(CLASSES) if per_class[c].abs().sum() > 0}
        assert len(moved) == 2
        seen |= moved
    assert seen == set(range(CLASSES))


def test_more_classes_than_there_are_means_all() -> None:
    for each in (None, CLASSES, 100):
        gradients, _ = BPTT(inner_steps=2, classes_per_step=each).gradients(
            setting(Standard()), memory(Standard()), real(), Key(0)
        )
        assert all(gradients["images"][c].abs().sum() > 0 for c in range(CLASSES))


def test_fewer_real_images_than_asked_for_are_all_used() -> None:
    what, start = setting(Standard()), memory(Standard())
    enough, more = (
        BPTT(inner_steps=2, real_per_class=n).gradients(what, start, real(), Key(0))[0]["images"] for n in (EACH, 1000)
    )
    assert torch.equal(enough, more)


def test_every_inner_step_draws_images_anew_and_another_outer_step_another_network() -> None:
    way = Standard()
    start = {"images": torch.arange(CLASSES * 8.0).double().view(CLASSES, 8, 1, 1, 1).expand(-1, -1, 1, 8, 8).clone()}
    batches: list[list[int]] = []
    networks: list[Tensor] = []

    @dataclass(frozen=True)
    class Noting:
        def build(self, shape: ImageShape, classes: int) -> nn.Module:
            network = MLP(width=3).build(shape, classes).double()

            def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
                batches.append(given[0].detach()[:, 0, 0, 0].int().tolist())

            network.register_forward_pre_hook(note)
            networks.append(next(network.parameters()).detach().clone())
            return network

    what = replace(setting(way), architecture=Noting())
    objective = BPTT(inner_steps=5, images_per_class_per_step=3, real_per_class=1)
    objective.plan(what, 8)  # a step's graph is measured once, on networks of its own
    batches.clear()
    networks.clear()
    for step in range(2):
        objective.gradients(what, start, real(), Key(0)(step))
    inner = batches[:5] + batches[6:11]  # the sixth is the outer loss
    assert all([image // 8 for image in batch] == sorted([*range(CLASSES)] * 3) for batch in inner)
    assert all(len(set(batch)) == len(batch) for batch in inner)
    assert len({tuple(batch) for batch in inner}) == 10
    drawn = {image for batch in inner for image in batch}
    assert len(drawn) == CLASSES * 8  # thirty draws of 3 of 8 for each class leave nothing out
    assert len(networks) == 2 and not torch.equal(*networks)


def test_a_step_depends_on_its_key_alone_and_changes_nothing_it_is_given() -> None:
    way = Addressing(bases=2)
    start, images = memory(way), real()
    before = {k: v.clone() for k, v in start.items()}
    torch.manual_seed(1)
    one, metrics = BPTT(inner_steps=3).gradients(setting(way, "flip_rotate"), start, images, Key(0)("a"))
    torch.manual_seed(2)
    again, metrics_again = BPTT(inner_steps=3).gradients(setting(way, "flip_rotate"), start, images, Key(0)("a"))
    other, _ = BPTT(inner_steps=3).gradients(setting(way, "flip_rotate"), start, images, Key(0)("b"))
    assert all(torch.equal(one[k], again[k]) and not torch.equal(one[k], other[k]) for k in one)
    assert set(metrics) == {"loss", "inner_loss", "inner_loss_first"}
    assert all(torch.equal(metrics[k], metrics_again[k]) for k in metrics)
    assert all(torch.equal(start[k], before[k]) and not start[k].requires_grad for k in start)


def test_memory_changes_nothing_but_the_work() -> None:
    way = Addressing(bases=2)
    plain, _ = BPTT(inner_steps=5).gradients(setting(way), memory(way), real(), Key(0))
    kept = set()
    for gib in (1e-9, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 1.0):
        objective = BPTT(inner_steps=5, memory_gib=gib)
        kept.add(objective.plan(setting(way), 4)["inner steps whose graphs are kept"])
        found, _ = objective.gradients(setting(way), memory(way), real(), Key(0))
        for k in plain:
            torch.testing.assert_close(found[k], plain[k], rtol=1e-12, atol=1e-16)
    assert len(kept) > 2


def test_following_the_gradient_lowers_the_loss() -> None:
    way, key = Standard(), Key(0)
    what, start = setting(way), memory(way)
    objective = BPTT(SGDMomentum(lr=0.05), inner_steps=5)
    gradients, before = objective.gradients(what, start, real(), key)
    size = float(gradients["images"].norm())
    step = {"images": start["images"] - 1e-3 / size * gradients["images"]}
    _, after = objective.gradients(what, step, real(), key)
    fall = float(before["loss"] - after["loss"])
    assert fall == pytest.approx(1e-3 * size, rel=0.05)


# ---------------------------------------------------------------- networks and settings


def test_a_network_that_can_not_be_unrolled_is_refused_by_its_name() -> None:
    what = replace(setting(Standard()), architecture=ConvNet(width=4, norm="batch"))
    with pytest.raises(UsageError, match=r"^convnet keeps running statistics"):
        fresh_network(what, Key(0))
    with pytest.raises(UsageError, match=r"^convnet keeps running statistics"):
        BPTT().plan(what, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inner_steps": 0}, "BPTT.inner_steps must be above 0"),
        ({"classes_per_step": 1}, "BPTT.classes_per_step must be above 1, or None"),
        ({"images_per_class_per_step": 0}, "BPTT.images_per_class_per_step must be above 0"),
        ({"real_per_class": 0}, "BPTT.real_per_class must be above 0"),
        ({"memory_gib": 0}, "BPTT.memory_gib must be above 0"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(settings: dict, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        BPTT(**settings)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_precision_is_a_choice_whose_error_shows() -> None:
    what = replace(setting(Standard()), architecture=ConvNet(width=16))
    start = {k: v.float() for k, v in memory(Standard()).items()}
    images = real().split
    some = ClassRows.of(Split(images.images.float(), images.labels), CLASSES)
    plain, low = (
        BPTT(inner_steps=5, precision=precision).gradients(what, start, some, Key(0))[0]["images"]
        for precision in ("float32", "bfloat16")
    )
    assert plain.dtype == low.dtype == torch.float32
    assert 1e-4 < float((plain - low).norm() / plain.norm()) < 0.5
    with pytest.raises(UsageError, match="'tf32' is a GPU's"):
        BPTT(precision="tf32").gradients(what, start, some, Key(0))
    with pytest.raises(UsageError, match="'tf32' is a GPU's"):
        BPTT(precision="tf32").gradient_norms(what, start, some, Key(0))


@pytest.mark.parametrize("execution", ["eager", "captured"])
def test_gradient_norms_are_those_of_the_same_unroll(execution: Any) -> None:
    """With every graph kept, with none, and where the outer steps are programs."""
    what, start = setting(Standard(), "flip_rotate"), memory(Standard(), 2.0)
    plain = BPTT(inner_steps=3, classes_per_step=2)
    norms = replace(plain, execution=execution).gradient_norms(what, start, real(), Key(0))
    assert len(norms) == 4 and norms == plain.gradient_norms(what, start, real(), Key(0))
    assert norms == replace(plain, memory_gib=1e-6).gradient_norms(what, start, real(), Key(0))


# ---------------------------------------------------------------- plan

WIDE = MLP(width=512, depth=1)


def _plan(**settings: Any) -> dict[str, Any]:
    what = Setting(ImageShape(1, 28, 28), 10, WIDE, Standard(), "none", torch.device("cpu"))
    return BPTT(**settings).plan(what, 40)


def _expected(**settings: Any) -> float:
    return _plan(**settings)["expected memory of one unroll (MiB)"]


def test_a_plan_counts_what_a_step_will_use() -> None:
    plan = _plan(inner_steps=7, classes_per_step=4, real_per_class=9)
    assert plan["inner steps"] == 7 and plan["inner batch"] == 4 * 32
    assert plan["real images in the outer loss"] == 4 * 9
    assert plan["network parameters"] == 784 * 512 + 512 + 512 * 10 + 10
    assert _plan(images_per_class_per_step=100)["inner batch"] == 10 * 40  # forty are recalled
    assert _plan(classes_per_step=100)["inner batch"] == 10 * 32


def test_the_expected_memory_keeps_to_what_is_allowed() -> None:
    """Down to the least that any stride needs: about two square roots of the steps' states, and one graph."""
    for gib in (8.0, 1.0, 0.5, 0.3, 0.1):
        # A process's own memory and the outer loss's piece come on top.
        assert _expected(inner_steps=150, memory_gib=gib) <= 1024 * gib + FIXED / 2**20 + 5
    assert _plan(inner_steps=150, memory_gib=8.0)["inner steps whose graphs are kept"] == 150
    least = _expected(inner_steps=150, memory_gib=1e-6) - FIXED / 2**20
    assert 24 * _state_mib() <= least < 30 * _state_mib()


def _state_mib() -> float:
    """Weights and momentum, in single precision."""
    return 2 * 4 * (784 * 512 + 512 + 512 * 10 + 10) / 2**20


def test_the_expected_memory_knows_of_the_optimizers_state_and_of_the_batch() -> None:
    grown = _expected(inner_optimizer=Adam(), inner_steps=100) - _expected(inner_steps=100)
    assert grown == pytest.approx(100 * _state_mib() / 2, rel=0.01, abs=1)  # one slot more
    assert _expected(images_per_class_per_step=40) > _expected(images_per_class_per_step=1)


def test_a_step_s_graph_is_measured_once_for_networks_that_are_equal() -> None:
    built: list[Any] = []

    @dataclass(frozen=True)
    class Counted:
        widths: list[int]  # which makes it one that can not be hashed

        def build(self, shape: ImageShape, classes: int) -> nn.Module:
            built.append((self.widths, shape))
            return MLP(width=self.widths[0]).build(shape, classes)

    def builds(widths: list[int], way: Parameterization, **changes: Any) -> int:
        built.clear()
        BPTT().plan(replace(setting(way), architecture=Counted(widths), **changes), 1)
        return len(built)

    assert builds([7], Standard()) == 3  # the network itself, and a step on one image and on two
    assert builds([7], Addressing(), augmentation="flip_rotate") == 1
    assert builds([8], Standard()) == builds([7], Standard(), shape=ImageShape(1, 9, 9)) == 3
    assert builds([7], Standard()) == 1


@pytest.mark.parametrize("network", [WIDE, ConvNet(width=32)])
def test_more_memory_keeps_more_graphs(network: Architecture) -> None:
    what = Setting(ImageShape(1, 28, 28), 10, network, Standard(), "none", torch.device("cpu"))
    plans = [BPTT(inner_steps=40, memory_gib=gib).plan(what, 2) for gib in (0.01, 0.1, 0.2, 0.3, 4, 8)]
    kept = [plan["inner steps whose graphs are kept"] for plan in plans]
    assert kept == sorted(kept) and kept[0] < kept[-1] == kept[-2] == 40


def test_images_of_the_outer_loss_are_judged_in_pieces_to_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Standard()
    found = []
    for piece in (1, 7, 1000):
        monkeypatch.setattr(cpu_layers, "PIECE", piece)
        found.append(BPTT(inner_steps=2).gradients(setting(way), memory(way), real(), Key(0)))
    for gradients, metrics in found[1:]:
        torch.testing.assert_close(gradients["images"], found[0][0]["images"], rtol=1e-12, atol=1e-16)
        assert float(metrics["loss"]) == pytest.approx(float(found[0][1]["loss"]), rel=1e-13)
