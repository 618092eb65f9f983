"""Protocols of other benchmarks: each as published, exact, and side by side for one set."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, one_hot

from suite.architectures.mlp import MLP
from suite.config.resolve import resolve
from suite.datasets.digits import Digits
from suite.errors import UsageError
from suite.evaluate import PROBING
from suite.evaluation.attacks import attacked
from suite.evaluation.cached import CachedAccuracies
from suite.evaluation.descent import Descent
from suite.evaluation.evaluate import evaluate
from suite.evaluation.probes import CORRUPTIONS, Attacked, Corrupted, Probes
from suite.evaluation.protocol import PROTOCOLS, Protocol
from suite.evaluation.teacher import Teachers
from suite.evaluation.training import cut_mix, no_pause, train, train_group
from suite.experiments.continual.compress_then_recall import CompressThenRecall
from suite.experiments.continual.online import Online
from suite.experiments.synthesis.extrapolation import Extrapolation
from suite.experiments.synthesis.image_recall import ImageRecall
from suite.images import augment, preprocess
from suite.keys import Key
from suite.parameterizations.standard import Standard
from suite.runtime.protocol_matrix import matrix_of, scores_of
from suite.types import ClassRows, Data, ImageShape, Setting, Split, Transform

DEVICE = torch.device("cpu")


@pytest.fixture
def exact() -> Iterator[None]:
    """float64 everywhere, in networks that are built here, too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- as published


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_file_says_what_is_published(name: str) -> None:
    [run] = resolve(["gin/shared/judging.gin", f"gin/protocols/{name}.gin"], [], None)
    experiment: Any = run.experiment
    assert experiment.evaluation.settings() == PROTOCOLS[name].settings()
    assert experiment.evaluation.label() == f"{name}-1" and not experiment.evaluation.reduced
    text = Path(f"gin/protocols/{name}.gin").read_text()
    assert f"# With:     suite.evaluate FILE --as FORMAT --protocols {name};" in text


def test_every_protocol_has_a_file() -> None:
    assert {file.stem for file in Path("gin/protocols").glob("*.gin")} == {*PROTOCOLS, *PROBING}


def test_the_paper_s_protocol_is_described_as_before() -> None:
    before = {"name", "version", "networks", "epochs", "batch", "lr", "momentum", "augment"}
    assert Protocol().settings().keys() == before  # so run keys and kept accuracies stay


def test_what_is_changed_is_told() -> None:
    shorter = replace(PROTOCOLS["idc"], epochs=10, drops=[0.5])
    assert (
        shorter.label() == "idc-1, changed: epochs 10 of 1000, drops [0.5] of (0.6666666666666666, 0.8333333333333334)"
    )
    assert shorter.reduced and not replace(PROTOCOLS["idc"], drops=[2 / 3, 5 / 6]).reduced


@pytest.mark.parametrize(
    ("protocol", "rates"),
    [
        (Protocol(lr=2.0), {0: 2, 99: 2}),
        (Protocol(lr=2.0, drops=(0.5, 0.8), drop=0.1), {49: 2, 50: 0.2, 79: 0.2, 80: 0.02}),
        (Protocol(lr=2.0, cosine=1.0), {0: 2, 50: 1, 75: 1 - math.sqrt(0.5)}),
        (Protocol(lr=2.0, cosine=0.5), {0: 2, 50: 1 + math.sqrt(0.5), 100: 1}),  # ends halfway down
        (Protocol(lr=2.0, cosine=1.0, lowest=0.25, warm_up=0.2), {0: 0, 5: 0.5, 20: 2, 60: 1.25, 100: 0.5}),
    ],
)
def test_rates(protocol: Protocol, rates: dict[int, float]) -> None:
    assert {step: protocol.rate(step, 100) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_steps_are_those_of_torch_to_the_bit(optimizer: str, weight_decay: float) -> None:
    generator = Key(1).generator()
    start = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    protocol = Protocol(optimizer=optimizer, lr=0.125, weight_decay=weight_decay, drops=(0.5,), drop=0.5)
    ours, theirs = ([w.clone() for w in start] for _ in range(2))
    kinds: Any = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    of_kind = {"momentum": 0.9} if optimizer == "sgd" else {"betas": (0.9, 0.999)}
    reference = kinds[optimizer](theirs, lr=0.125, weight_decay=weight_decay, foreach=False, **of_kind)
    schedule = torch.optim.lr_scheduler.StepLR(reference, 5, 0.5)
    descent = Descent(protocol, ours, 10)
    for _ in range(10):
        gradients = [torch.randn(w.shape, generator=generator) for w in start]
        for w, gradient in zip(theirs, gradients, strict=True):
            w.grad = gradient.clone()
        descent.step(gradients)
        reference.step()
        schedule.step()
    assert all(one.equal(other) for one, other in zip(ours, theirs, strict=True))
    assert not ours[0].equal(start[0])


# ---------------------------------------------------------------- training


def setting(augmentation: str = "flip_rotate") -> Setting:
    return Setting(ImageShape(1, 8, 8), 3, MLP(width=8), Standard(), augmentation, DEVICE)


def images(n: int = 12, targets: bool = False) -> Split:
    shown = torch.randn(n, 1, 8, 8, generator=Key(7).generator())
    soft = torch.softmax(torch.randn(n, 3, generator=Key(8).generator()), 1) if targets else None
    return Split(shown, torch.arange(n) % 3, soft)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_networks_side_by_side_are_those_one_by_one(name: str, targets: bool) -> None:
    protocol = replace(PROTOCOLS[name], epochs=4, batch=5)
    keys = [Key(0)("network", i) for i in range(3)]
    teachers = Teachers(images(30), protocol, Key(0), no_pause)
    taught = teachers.taught(lambda number: images(targets=targets), setting())
    sets = [taught(i) for i in range(3)]
    together = train_group(setting(), sets, protocol, keys)
    for network, data, key in zip(together, sets, keys, strict=True):
        alone = train(setting(), data, protocol, key)
        for a, b in zip(network.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("exact")
def test_one_step_of_squared_error_is_its_gradient() -> None:
    protocol = Protocol(epochs=1, batch=12, lr=0.5, augment=False, loss="squared_error")
    data, key = images(), Key(3)
    before = train(setting(), data, replace(protocol, lr=1e-30), key)
    weights = dict(before.named_parameters())
    logits = before(data.images)
    loss = (logits - (one_hot(data.labels, 3) - 1 / 3)).square().sum(1).mean() / 2
    gradients = torch.autograd.grad(loss, list(weights.values()))
    after = train(setting(), data, protocol, key)
    for w, gradient, new in zip(weights.values(), gradients, after.parameters(), strict=True):
        torch.testing.assert_close(new, w - 0.5 * gradient, rtol=0, atol=1e-12)


def test_class_labels_in_place_of_stored_ones() -> None:
    protocol, key = Protocol(epochs=3, batch=4), Key(0)
    stored, classes = (train(setting(), images(targets=t), protocol, key) for t in (True, False))
    told = train(setting(), images(targets=True), replace(protocol, labels="class"), key)
    weights = [torch.cat([w.detach().flatten() for w in n.parameters()]) for n in (stored, classes, told)]
    assert weights[1].equal(weights[2]) and not weights[0].equal(weights[2])


class Known(nn.Module):
    """Its logits are three pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, :3]


def test_a_teacher_sees_what_the_student_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol, asked = replace(PROTOCOLS["dd_ranking_soft"], teacher_epochs=7), []

    def trained(of: Any, real: Split, by: Protocol, *_: Any) -> nn.Module:
        asked.append((len(real), by.epochs, by.name))
        return Known()

    monkeypatch.setattr("suite.evaluation.teacher.train", trained)
    teachers = Teachers(images(30), protocol, Key(0), no_pause)
    taught = teachers.taught(lambda number: images(), setting())
    assert not asked  # trained when the first set is asked for what it says
    shown = replace(taught(0), images=images().images.flip(-1))
    assert shown.told().targets is not None and shown.at(torch.tensor([0])).teacher is not None
    torch.testing.assert_close(shown.told().targets, shown.images[:, 0, 0, :3].softmax(1))
    taught(1).told()
    assert asked == [(30, 7, "paper")]
    wider = replace(setting(), architecture=MLP(width=9))  # another architecture has a teacher of its own
    teachers.taught(lambda number: images(), wider)(0).told()
    taught(1).told()
    assert len(asked) == 2


def test_without_a_teacher_a_sentence() -> None:
    with pytest.raises(UsageError, match="protocol dd_ranking_soft teaches by a network that was trained on all"):
        evaluate(setting(), lambda number: images(), PROTOCOLS["dd_ranking_soft"], Key(0), {"test": images()})
    for experiment in (CompressThenRecall, Online, Extrapolation, ImageRecall):
        with pytest.raises(UsageError, match=r"evaluation: protocol dd_ranking_soft teaches .* choose another"):
            experiment(evaluation=PROTOCOLS["dd_ranking_soft"]).plan()
    assert PROTOCOLS["dd_ranking_soft"].without_teacher().labels == "class"


@pytest.mark.parametrize("name", ["frepo", "idc"])
def test_losses_of_all_classes_are_refused_where_networks_are_told_the_task(name: str) -> None:
    told = replace(setting(), groups=torch.tensor([0, 0, 1]))
    with pytest.raises(UsageError, match=f"protocol {name} teaches all classes at once"):
        evaluate(told, lambda number: images(), PROTOCOLS[name], Key(0), {"test": images()})
    with pytest.raises(UsageError, match=f"evaluation: protocol {name} teaches all classes at once"):
        CompressThenRecall(evaluation=PROTOCOLS[name])


# ---------------------------------------------------------------- CutMix and DSA


def test_cut_mix_gives_as_much_label_as_pixels() -> None:
    batch = Split(torch.arange(6.0)[:, None, None, None].expand(6, 1, 10, 14).contiguous(), torch.arange(6))
    seen = set()
    for number in range(40):
        mixed = cut_mix(batch, 1.0, 6, Key(number))
        assert mixed.targets is not None and mixed.labels.equal(batch.labels)
        for i in range(6):
            share = torch.stack([(mixed.images[i] == j).double().mean() for j in range(6)])
            torch.testing.assert_close(mixed.targets[i].double(), share, rtol=0, atol=1e-6)
        own = torch.arange(6.0)[:, None, None, None]
        seen |= {float(row) for row in (mixed.images != own).double().mean((1, 2, 3))}
    assert len(seen) > 20 and max(seen) > 0.6  # of all sizes


def test_cut_mix_mixes_stored_labels_and_as_often_as_it_is_told() -> None:
    soft = replace(images(targets=True), labels=torch.zeros(12, dtype=torch.long))
    mixed = [cut_mix(soft, 0.5, 3, Key(number)) for number in range(200)]
    unchanged = sum(one.images is soft.images for one in mixed)
    assert 70 < unchanged < 130
    for one in mixed:
        assert one.targets is not None
        torch.testing.assert_close(one.targets.sum(1), torch.ones(12))
    assert cut_mix(soft, 0.0, 3, Key(0)) is soft


def operation(name: str, x: Tensor, drawn: Tensor) -> Tensor:
    return augment._dsa(x, operation=name, drawn=drawn)


@pytest.mark.parametrize("shape", [(8, 8), (9, 14)])
def test_operations_of_dsa_are_those_published(shape: tuple[int, int]) -> None:
    height, width = shape
    generator = Key(5).generator()
    x = torch.randn(4, 3, height, width, dtype=torch.float64, generator=generator)
    drawn = torch.rand(3, 4, dtype=torch.float64, generator=generator)
    across, along = 1 / 1.2 + drawn[:2] * (1.2 - 1 / 1.2)
    zero = torch.zeros_like(across)
    theta = torch.stack([torch.stack([across, zero, zero], 1), torch.stack([zero, along, zero], 1)], 1)
    scaled = grid_sample(x, affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    torch.testing.assert_close(operation("scale", x, drawn), scaled)
    for i in range(4):
        moved = operation("crop", x, drawn)[i]
        far = [int(size * 0.125 + 0.5) for size in shape]
        down, right = (int(float(drawn[k, i]) * (2 * far[k] + 1)) - far[k] for k in range(2))
        rows, columns = (
            range(max(0, -down), min(height, height - down)),
            range(max(0, -right), min(width, width - right)),
        )
        wanted = torch.zeros_like(moved)
        for row in rows:
            for column in columns:
                wanted[:, row, column] = x[i, :, row + down, column + right]
        torch.testing.assert_close(moved, wanted)
    coloured, (light, saturation, contrast) = operation("colour", x, drawn), drawn[..., None, None, None]
    expected = x + light - 0.5
    grey = expected.mean(1, keepdim=True)
    expected = grey + 2 * saturation * (expected - grey)
    level = expected.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(coloured, level + (contrast + 0.5) * (expected - level))


def test_what_is_cut_out_is_half_as_high_and_wide() -> None:
    x, sizes = torch.ones(500, 1, 8, 12), set()
    cut = operation("cutout", x, torch.rand(3, 500, dtype=torch.float64, generator=Key(0).generator()))
    for one in cut[:, 0] == 0:
        rows, columns = one.any(1).nonzero()[:, 0], one.any(0).nonzero()[:, 0]
        assert one.sum() == len(rows) * len(columns)  # a rectangle
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (4, 6) and min(sizes)[0] == 2  # at an edge less


@pytest.mark.parametrize("name", augment.DSA)
def test_dsa_draws_one_operation_for_a_batch_and_numbers_for_each_image(name: str) -> None:
    x = torch.randn(1, 1, 8, 8, generator=Key(2).generator()).expand(6, 1, 8, 8)
    drawn = [augment.draw(name, Key(number), 6) for number in range(60)]
    found = {of.keywords["operation"] for of in drawn}  # type: ignore[attr-defined]
    assert found == set(augment.DSA[name])
    varied = set()
    for of in drawn:
        y = of(x)
        assert y.shape == x.shape and y.equal(of(x))
        if len({tuple(one.flatten().tolist()) for one in y}) > 1:
            varied.add(of.keywords["operation"])  # type: ignore[attr-defined]
    assert varied == found
    shared = augment.draw(name, Key(1))
    assert all(one.equal(shared(x)[0]) for one in shared(x))


@pytest.mark.parametrize("name", ["colour", "crop", "cutout", "flip", "scale", "rotate"])
def test_operations_are_differentiable(name: str) -> None:
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=Key(1).generator(), requires_grad=True)
    drawn = torch.rand(3, 2, dtype=torch.float64, generator=Key(2).generator())
    assert torch.autograd.gradcheck(lambda images: operation(name, images, drawn), x)


@pytest.mark.parametrize(
    ("name", "own", "wanted"),
    [
        ("paper", "crop_flip", "crop_flip"),
        ("dc_bench", "crop_flip", "none"),
        ("dc_bench_dsa", "flip_rotate", "dsa"),
        ("dc_bench_dsa", "none", "dsa_unflipped"),  # digits must not be mirrored
        ("idc", "none", "dsa_unflipped_uncut"),
        ("rat_bptt", "none", "flip_rotate"),
    ],
)
def test_augmentations_of_protocols(name: str, own: str, wanted: str) -> None:
    assert PROTOCOLS[name].augmentation_of(own) == wanted
    assert replace(PROTOCOLS[name], augment=False).augmentation_of(own) == "none"


# ---------------------------------------------------------------- the matrix


def record(protocol: str, values: Mapping[str, float], without: str = "", seed: int = 0) -> dict[str, Any]:
    measured = [
        {"method": m, "quantity": "accuracy", "network": "", "episodes": "", "split": "test", "values": [v - 1, v + 1]}
        for m, v in values.items()
    ]
    cell = {"set": "a file", "protocol": protocol} | ({"without": without} if without else {})
    return {"seed": seed, "cell": cell, "measurements": measured}


def test_the_matrix_has_a_row_for_each_protocol_and_part() -> None:
    both = {"memory": 70.0, "random real images": 50.0}
    records = [
        record("paper", both),
        record("paper", {"memory": 74.0, "random real images": 50.0}, seed=1),
        record("idc", both, without="augmentation"),
        record("idc", {"memory": 61.0}, without="its rate"),
    ]
    head, *rows = matrix_of(records)
    assert head == ("protocol", "", "the set", "random real images", "difference")
    assert rows[0] == ("paper", "", "72.0 ± 25.4", "50.0 ± 0.0", "+22.0 ± 25.4")  # t(1) = 12.7, deviation 2.83
    assert rows[1] == ("idc", "without augmentation", "70.0 ± 12.7", "50.0 ± 12.7", "+20.0")  # over its two networks
    assert rows[2] == ("idc", "without its rate", "61.0 ± 12.7", "-", "")


def test_a_part_of_a_protocol_with_probes_has_a_row_for_each() -> None:
    whole = record("robustness", {"memory": 70.0}, without="augmentation")
    blurred = whole["measurements"][0] | {"episodes": "blur"}
    _, *rows = matrix_of([whole | {"measurements": [*whole["measurements"], blurred]}])
    assert [row[1] for row in rows] == ["without augmentation", "without augmentation, under blur"]


def test_scores_are_dd_ranking_s() -> None:
    chance = {"random real images": 50.0}
    hard = record("dd_ranking", chance | {"memory": 60.0, "full data": 90.0})
    soft = record("dd_ranking_soft", chance | {"memory": 75.0})
    plain = record("dd_ranking_soft", chance | {"memory": 65.0}, without="augmentation")
    scores = scores_of([hard, soft, plain])
    assert (scores.hlr, scores.ior) == pytest.approx((30.0, 25.0))

    def squashed(a: float) -> float:
        return 100 * (math.exp(a) - math.exp(-1)) / (math.exp(1) - math.exp(-1))

    assert scores.lrs == pytest.approx(squashed(0.5 * 0.25 - 0.5 * 0.30))
    assert scores.ars == pytest.approx(squashed(0.5 * 0.25 + 0.5 * 0.15))
    alone = scores_of([hard])
    assert alone.ior == pytest.approx(10.0) and alone.ars is None
    assert scores_of([record("paper", chance)]).ior is None


def test_losses_of_probabilities_are_cross_entropy() -> None:
    """A batch that CutMix mixed is taught λ times one label and 1 - λ times the other, as CutMix defines its loss."""
    logits, labels = torch.randn(2, 3, generator=Key(0).generator()), torch.tensor([0, 2])
    mixed = 0.7 * one_hot(labels, 3) + 0.3 * one_hot(labels.flip(0), 3)
    wanted = 0.7 * cross_entropy(logits, labels) + 0.3 * cross_entropy(logits, labels.flip(0))
    torch.testing.assert_close(cross_entropy(logits, mixed), wanted)


# ---------------------------------------------------------------- probes: corruptions, attacks, membership


def some_data(n: int = 40) -> Data:
    pixels = torch.rand(n, 1, 8, 8, generator=Key(1).generator())
    transform = preprocess.fit("standardize", pixels, 0.1)
    labels = torch.arange(n) % 3
    train, test = (Split(transform.apply(x), labels) for x in (pixels, pixels.flip(-1)))
    return Data(replace(Digits().info, class_names=("a", "b", "c")), train, train, test, transform, "digest")


def probes(*names: str, data: Data | None = None) -> Probes:
    data = data or some_data()
    return Probes(names, data, ClassRows.of(data.train, 3), Key(5))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_of_pixels_and_repeat(name: str) -> None:
    data = some_data()
    made = [probes(name, data=data).made()[name] for _ in range(2)]
    changed = [data.transform.display(one.split.images) for one in made if isinstance(one, Corrupted)]
    assert changed[0].equal(changed[1])
    pixels = data.transform.display(data.test.images)
    assert not torch.allclose(changed[0], pixels, atol=1e-2) and 0 <= changed[0].min() <= changed[0].max() <= 1
    assert (changed[0] - pixels).abs().mean() < 0.35  # still the same images


class Brightness(nn.Module):
    """Two classes: whether the first pixel is above a half, after the preprocessing of `some_data` is undone."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform, self.weight = transform, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        first = self.transform.tensors()["std"] * x[:, 0, 0, :1] + self.transform.tensors()["mean"] - 0.5
        return self.weight * torch.cat([-first, first, -9 + 0 * first], 1)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_attacks_move_what_decides_by_the_largest_change(name: str) -> None:
    data = some_data()
    network = Brightness(data.transform)
    pixels = data.transform.display(data.test.images)
    labels = (pixels[:, 0, 0, 0] > 0.5).long()
    data = replace(data, test=replace(data.test, labels=labels))
    probe = probes(name, data=data).made()[name]
    assert isinstance(probe, Attacked) and len(probe) == 40
    changed = data.transform.display(attacked(probe, network, 7, setting()).images)
    before = data.transform.display(probe.split.images)
    moved = (changed - before)[:, 0, 0, 0]
    sign = torch.where(probe.split.labels == 1, -1.0, 1.0)
    assert (changed - before).abs().max() <= 8 / 255 + 1e-5
    wanted = (before[:, 0, 0, 0] + sign * 8 / 255).clamp(0, 1) - before[:, 0, 0, 0]
    torch.testing.assert_close(moved, wanted, rtol=0, atol=1e-4)
    safe = ((pixels[:, 0, 0, 0] - 0.5).abs() > 8 / 255).double().mean() * 100
    assert probe.percent(network, 7, setting()) == pytest.approx(float(safe))
    again = attacked(probe, network, 7, setting())
    assert again.images.equal(attacked(probe, network, 7, setting()).images)  # one key, one start


def test_attacks_pass_a_whitening() -> None:
    data = some_data()
    pixels = data.transform.display(data.train.images)
    transform = preprocess.fit("zca_feature", pixels, 0.1)
    whitened = Split(transform.apply(pixels), data.train.labels)
    data = replace(data, train=whitened, test=whitened, transform=transform)
    probe, network = probes("fgsm", data=data).made()["fgsm"], MLP(width=8).build(ImageShape(1, 8, 8), 3)
    assert isinstance(probe, Attacked)
    changed = transform.display(attacked(probe, network, 16, setting()).images)
    moved = (changed - transform.display(probe.split.images)).abs()
    assert moved.max() <= 8 / 255 + 1e-4 and (moved > 7 / 255).float().mean() > 0.8


class Memorized(nn.Module):
    """Knows the class of the images it is given; else says class 0 without being sure."""

    def __init__(self, known: Split) -> None:
        super().__init__()
        self.known, self.weight = known, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        same = (x[:, None] == self.known.images[None]).flatten(2).all(2)
        return 5.0 * self.weight * torch.stack([(same & (self.known.labels == c)).any(1).float() for c in range(3)], 1)


def test_membership_is_the_area_under_the_curve() -> None:
    data = some_data()
    of = probes("membership", data=data).made()["membership"]
    assert len(of) == 80 and not of.counted
    assert of.percent(Memorized(data.train), 16, setting()) == 100.0
    assert of.percent(Memorized(data.test), 16, setting()) == 0.0
    half = data.train.at(torch.arange(20))
    assert of.percent(Memorized(half), 16, setting()) == pytest.approx(75.0)  # 1/2 certain, 1/2 of a coin


def test_probes_that_cannot_be_made_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = some_data()
    whitened = replace(data, transform=preprocess.fit("zca_image", data.transform.display(data.train.images), 0.1))
    whitened = replace(whitened, test=replace(data.test, images=whitened.transform.apply(data.test.images.sigmoid())))
    probes("membership", data=whitened).require()
    with pytest.raises(UsageError, match="'zca_image' keeps no brightness and contrast, so pixels can't be had"):
        probes("blur", data=whitened).require()
    monkeypatch.setattr("suite.evaluation.attacks.find_spec", lambda name: None)
    probes("blur").require()
    with pytest.raises(UsageError, match=r"pip install -e '\.\[robustness\]'"):
        probes("blur", "pgd").require()


def test_accuracies_under_probes_are_kept_and_believed(tmp_path: Path) -> None:
    data = some_data()
    made = probes("noise", "membership", data=data).made()
    splits = {"test": data.test} | {f"test under {name}": probe for name, probe in made.items()}
    cached = CachedAccuracies(tmp_path, splits, Key(0))
    protocol = Protocol(networks=2, epochs=2, batch=8)
    first, second = (
        cached.evaluate("it", setting(), lambda n: images(), 12, protocol, {"of": "a test"}) for _ in range(2)
    )
    assert first == second and set(first) == set(splits)
    assert 0 < first["test under membership"][0] < 100
