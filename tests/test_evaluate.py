"""Evaluation: torch's own training loop, keyed, on as many networks as the protocol says."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.architectures.resnet12 import ResNet12
from suite.datasets.digits import Digits
from suite.errors import UsageError
from suite.evaluation.evaluate import accuracy, evaluate, evaluate_each, recalled
from suite.evaluation.protocol import PROTOCOLS, Protocol
from suite.evaluation.training import _is_per_image, group_of, group_size, train, train_group
from suite.keys import Key, global_generators
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.standard import Standard
from suite.types import Architecture, ImageShape, Setting, Split

SHAPE, CLASSES = ImageShape(1, 6, 6), 3


def setting(augmentation: str = "none", network: Architecture | None = None) -> Setting:
    recipe = MLP(width=8, depth=1) if network is None else network
    return Setting(SHAPE, CLASSES, recipe, Standard(), augmentation, torch.device("cpu"))


def small(**settings: Any) -> Protocol:
    return Protocol(**({"name": "small", "networks": 1, "epochs": 3, "batch": 4} | settings))


def noise(n: int = 10, seed: int = 0) -> Split:
    return Split(torch.randn(n, 1, 6, 6, generator=Key(seed)("noise").generator()), torch.arange(n) % CLASSES)


def separable(n: int = 60, seed: int = 0) -> Split:
    """A bright stripe whose place is the class, in a little noise."""
    split = noise(n, seed)
    images = split.images * 0.3
    for c in range(CLASSES):
        images[split.labels == c, :, 2 * c : 2 * c + 2] += 1
    return Split(images, split.labels)


@dataclass(frozen=True, eq=False)
class Noting:
    """An architecture whose networks write down what they are shown."""

    seen: list[Tensor] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)
    of: Architecture = field(default_factory=lambda: MLP(width=4, depth=1))

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        network = self.of.build(shape, classes)

        def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            self.seen.append(given[0].detach().clone())
            self.modes.append(module.training)

        network.register_forward_pre_hook(note)
        return network


# ---------------------------------------------------------------- protocol


def test_the_papers_protocol_is_the_default() -> None:
    paper = Protocol()
    assert (paper.networks, paper.epochs, paper.batch, paper.lr, paper.momentum) == (10, 300, 640, 0.01, 0.9)
    assert paper.augment and paper == PROTOCOLS["paper"]
    assert paper.label() == "paper-1" and not paper.reduced


def test_a_label_says_what_was_changed() -> None:
    changed = Protocol(networks=3, epochs=20)
    assert changed.label() == "paper-1, changed: networks 3 of 10, epochs 20 of 300" and changed.reduced
    assert Protocol(augment=False).label() == "paper-1, changed: augment False of True"
    assert Protocol(version=2).label() == "paper-2, changed: version 2 of 1"
    assert Protocol(augment=False).reduced and Protocol(lr=0.02).reduced and Protocol(version=2).reduced
    own = Protocol(name="mine", version=4, networks=3)
    assert own.label() == "mine-4" and own.reduced  # whatever is not the published one


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"networks": 0}, "Protocol.networks must be above 0"),
        ({"epochs": -1}, "Protocol.epochs must be above 0"),
        ({"batch": 0}, "Protocol.batch must be above 0"),
        ({"lr": 0.0}, "Protocol.lr must be above 0"),
        ({"momentum": 1.0}, "Protocol.momentum must be at least 0 and below 1"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(settings: dict, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Protocol(**settings)
    assert words in str(refused.value) and "\n" not in str(refused.value)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch", [10, 64])
def test_training_on_the_full_batch_is_plain_descent_written_by_hand(momentum: float, batch: int) -> None:
    key, data = Key(1), noise(10)
    trained = train(setting(), data, small(epochs=7, batch=batch, lr=0.1, momentum=momentum), key)
    with global_generators(key("network")):
        network = setting().architecture.build(SHAPE, CLASSES)
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    for _ in range(7):
        grads = torch.autograd.grad(cross_entropy(network(data.images), data.labels), list(network.parameters()))
        with torch.no_grad():
            for p, v, g in zip(network.parameters(), velocity, grads, strict=True):
                v.mul_(momentum).add_(g)
                p -= 0.1 * v
    for found, expected in zip(trained.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (10, 10), (10, 3), (3, 640), (8, 4)])
def test_every_epoch_shows_every_image_once_in_an_order_of_its_own(n: int, batch: int) -> None:
    numbered = Split(torch.arange(float(n)).view(n, 1, 1, 1).expand(n, 1, 6, 6).clone(), torch.arange(n) % CLASSES)
    noting = Noting()
    train(setting(network=noting), numbered, small(epochs=4, batch=batch), Key(0))
    steps = math.ceil(n / batch)
    assert len(noting.seen) == 4 * steps and all(noting.modes)
    assert [len(images) for images in noting.seen[:steps]] == [min(batch, n - first) for first in range(0, n, batch)]
    orders = [torch.cat(noting.seen[e * steps : (e + 1) * steps])[:, 0, 0, 0].int().tolist() for e in range(4)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert n == 3 or len({tuple(order) for order in orders}) == 4


@pytest.mark.slow
def test_separable_images_are_learned() -> None:
    accuracies = evaluate(
        setting(), lambda _: separable(), small(networks=3, epochs=30, lr=0.05), Key(0), {"test": separable(seed=1)}
    )
    assert all(value > 99 for value in accuracies["test"])


def test_labels_are_used_as_they_are_given() -> None:
    data = separable()
    turned = Split(data.images, (data.labels + 1) % CLASSES)
    accuracies = evaluate(setting(), lambda _: turned, small(epochs=30, lr=0.05), Key(0), {"test": data})
    assert accuracies["test"] == (0.0,)


def test_only_training_images_are_augmented_and_only_if_the_protocol_says_so() -> None:
    data, held_out = noise(8), noise(6, seed=1)
    for augment in (False, True):
        noting = Noting()
        what = setting("flip_rotate", noting)
        evaluate(what, lambda _: data, small(augment=augment, epochs=6, batch=8), Key(0), {"test": held_out})
        assert noting.modes == [True] * 6 + [False]
        assert torch.equal(noting.seen[-1], held_out.images)
        for shown in noting.seen[:-1]:
            untouched = [any(torch.equal(image, known) for known in data.images) for image in shown]
            assert all(untouched) if not augment else not all(untouched)
        if augment:
            first, second = (sorted(images.sum().item() for images in shown) for shown in noting.seen[:2])
            assert first != second  # drawn anew


def test_an_augmentation_is_drawn_for_each_image_of_a_batch() -> None:
    """Eight equal images are shown in several ways at once: flips by a coin for each, or angles of their own."""
    same = Split(noise(1).images.expand(8, -1, -1, -1).clone(), torch.arange(8) % CLASSES)
    noting = Noting()
    train(setting("flip_rotate", noting), same, small(epochs=8, batch=8), Key(0))
    ways = [len(torch.unique(shown, dim=0)) for shown in noting.seen]
    assert {2, 8} <= set(ways) and set(ways) <= {1, 2, 8}


def test_a_network_may_have_dropout_and_running_statistics() -> None:
    @dataclass(frozen=True)
    class Dropping:
        def build(self, shape: ImageShape, classes: int) -> nn.Module:
            return nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(shape.numel, classes))

    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        results.append(
            evaluate(
                setting(network=Dropping()), lambda _: noise(20), small(networks=2), Key(0), {"test": noise(200, 1)}
            )
        )
        assert torch.equal(torch.random.get_rng_state(), before)
    assert results[0] == results[1]


# ---------------------------------------------------------------- side by side, and in pieces


@dataclass(frozen=True)
class Double:
    """Another architecture in double precision, with a layer of its own if one is given."""

    of: Architecture
    first: nn.Module | None = None

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        network = self.of.build(shape, classes)
        return (network if self.first is None else nn.Sequential(self.first, network)).double()


def doubled(split: Split) -> Split:
    return Split(split.images.double(), split.labels)


def assert_same_weights(found: nn.Module, expected: nn.Module) -> None:
    names = dict(expected.named_parameters())
    assert set(names) == set(dict(found.named_parameters()))
    for name, weight in found.named_parameters():
        torch.testing.assert_close(weight, names[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "recipe",
    [MLP(width=6), ConvNet(width=4, depth=1), ConvNet(width=4, depth=1, norm="none", pooling="max"), ResNet12(width=2)],
    ids=["mlp", "convnet", "convnet without norm", "resnet12"],
)
def test_networks_trained_side_by_side_are_those_trained_one_by_one(recipe: Architecture) -> None:
    """Own starts, own orders, own augmentations, own images; the last mini-batch is smaller than the others."""
    what, protocol = setting("flip_rotate", Double(recipe)), small(epochs=6, batch=4)
    sets, keys = [doubled(noise(10, seed)) for seed in range(3)], [Key(0)("network", i) for i in range(3)]
    for found, data, key in zip(train_group(what, sets, protocol, keys), sets, keys, strict=True):
        with global_generators(key("network")):
            start = what.architecture.build(SHAPE, CLASSES)
        expected = train(what, data, protocol, key)
        assert_same_weights(found, expected)
        assert not torch.equal(list(found.parameters())[-1], list(start.parameters())[-1])


@pytest.mark.parametrize("recipe", [MLP(), ConvNet(width=32)], ids=["mlp", "convnet"])
def test_accuracies_side_by_side_and_one_by_one_agree_on_digits(recipe: Architecture, tmp_path: Any) -> None:
    """Within the tolerance that `Protocol` states."""
    info, data = Digits().info, Digits().load(tmp_path, Key(0), 0.1)
    what = Setting(info.shape, info.classes, recipe, Standard(), "none", torch.device("cpu"))
    rows = [torch.cat([(data.train.labels == c).nonzero()[i : i + 1, 0] for c in range(10)]) for i in range(3)]
    sets = [Split(data.train.images[r], data.train.labels[r]) for r in rows]
    protocol, key = Protocol(name="small", networks=3, epochs=100), Key(0)
    joined = train_group(what, sets, protocol, [key("network", i) for i in range(3)])
    found = [accuracy(network, data.test) for network in joined]
    alone = [accuracy(train(what, sets[i], protocol, key("network", i)), data.test) for i in range(3)]
    assert found == pytest.approx(alone, abs=1.0) and min(found) > 30
    assert len(set(found)) > 1


def test_a_step_of_all_networks_holds_no_more_images_than_the_batch_of_one_may() -> None:
    assert [group_size(setting(), n, Protocol()) for n in (1, 10, 100, 300, 640, 50_000)] == [640, 64, 6, 2, 1, 1]


class Mixing(nn.Module):
    """Not a layer that is known to treat images one by one."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_networks_that_draw_or_mix_images_are_trained_one_by_one() -> None:
    assert group_size(setting(), 4, Protocol()) > 1
    for layer in (nn.Dropout(0.5), nn.BatchNorm2d(1), nn.BatchNorm2d(1, track_running_stats=False), Mixing()):
        assert group_size(setting(network=Double(MLP(width=4), layer)), 4, Protocol()) == 1


@pytest.mark.parametrize(("device", "expected"), [("cpu", 1), ("cuda", 160)])
def test_on_a_cpu_networks_with_convolutions_are_trained_one_by_one(
    device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "suite.evaluation.training._fresh_network",
        lambda setting: setting.architecture.build(setting.shape, setting.classes),
    )
    what = Setting(SHAPE, CLASSES, ConvNet(width=2, depth=1), Standard(), "none", torch.device(device))
    assert group_size(what, 4, Protocol()) == expected


@pytest.mark.parametrize("images", [2, 20])
def test_how_large_a_group_may_be_is_found_once_for_all_networks(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[None] = []
    monkeypatch.setattr(
        "suite.evaluation.training._is_per_image", lambda network: built.append(None) or _is_per_image(network)
    )
    protocol = small(networks=10, epochs=1, batch=4)
    evaluate(setting(), lambda _: noise(images), protocol, Key(0), {"test": noise()})
    assert len(built) == 1


def test_networks_are_trained_with_their_group_whichever_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run that was stopped during its evaluation would continue with other last bits."""
    protocol, key, data = small(networks=10, batch=64, epochs=2), Key(0)("evaluation"), noise(20)
    size = group_size(setting(), len(data), protocol)
    assert [list(group_of(i, size, protocol.networks)) for i in (0, 4, 9)] == [[0, 1, 2], [3, 4, 5], [9]]
    weights: list[dict[str, Tensor]] = []

    def recording(*arguments: Any) -> list[nn.Module]:
        networks = train_group(*arguments)
        weights.append(dict(networks[0].named_parameters()))
        return networks

    monkeypatch.setattr("suite.evaluation.evaluate.train_group", recording)
    splits = {"test": noise(200, 1)}
    every = list(evaluate_each(setting(), lambda _: data, protocol, key, range(10), splits))
    some = list(evaluate_each(setting(), lambda _: data, protocol, key, [1, 4, 5, 9], splits))
    assert some == [every[i] for i in (1, 4, 5, 9)]
    groups, groups_of_some = weights[:4], [weights[i] for i in (4, 5, 6)]
    for i, group in zip((0, 1, 3), groups_of_some, strict=True):
        assert all(torch.equal(groups[i][k], group[k]) for k in group)


def test_sets_of_several_sizes_are_trained_one_by_one() -> None:
    what, sets, keys = setting(network=Double(MLP(width=4))), [doubled(noise(n)) for n in (5, 9)], [Key(0), Key(1)]
    for found, data, key in zip(train_group(what, sets, small(), keys), sets, keys, strict=True):
        assert_same_weights(found, train(what, data, small(), key))


def large(n: int, seed: int = 0) -> Split:
    pixels = torch.randn(n, 1, 16, 16, generator=Key(seed)("large").generator(), dtype=torch.float64)
    return Split(pixels, torch.arange(n) % CLASSES)


@pytest.mark.parametrize("n", [10, 7, 13])
def test_pieces_and_fast_layers_train_as_the_whole_batch_does(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Double(ConvNet(width=3, depth=2))
    shape = ImageShape(1, 16, 16)
    what = Setting(shape, CLASSES, recipe, Standard(), "flip_rotate", torch.device("cpu"))
    with monkeypatch.context() as whole:
        whole.setattr("suite.evaluation.training.bound_by_convolutions", lambda *_: False)
        expected = train(what, large(n), small(batch=7), Key(0))
    monkeypatch.setattr("suite.evaluation.training.PIECE", 3)
    assert_same_weights(train(what, large(n), small(batch=7), Key(0)), expected)


@pytest.mark.parametrize(("norm", "shown"), [("instance", [3, 3, 1]), ("batch", [7])])
def test_a_batch_goes_in_pieces_only_where_images_are_treated_one_by_one(
    norm: Any, shown: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suite.evaluation.training.PIECE", 3)
    noting = Noting(of=Double(ConvNet(width=2, depth=1, norm=norm)))
    what = Setting(ImageShape(1, 16, 16), CLASSES, noting, Standard(), "none", torch.device("cpu"))
    train(what, large(7), small(epochs=1, batch=7), Key(0))
    assert [len(images) for images in noting.seen] == shown


class Stopped(Exception):
    pass


@pytest.mark.parametrize("networks", [1, 3])
def test_a_pause_comes_with_every_epoch_and_may_stop(networks: int) -> None:
    paused: list[int] = []

    def pause() -> None:
        paused.append(0)
        if len(paused) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(setting(), lambda _: noise(2), small(networks=networks, epochs=10), Key(0), {"test": noise()}, pause)
    paused = [0] * 3
    evaluate(setting(), lambda _: noise(4), small(networks=networks, epochs=10), Key(0), {"test": noise()}, pause)
    assert len(paused) == 3 + 10 * networks  # a batch of four images each: one by one


def test_missing_networks_have_the_accuracies_that_they_have_among_all() -> None:
    what, protocol, splits = setting("flip_rotate"), small(networks=5, batch=20), {"test": noise(300, 1)}

    def evaluated(numbers: list[int]) -> list[Any]:
        return list(evaluate_each(what, lambda i: noise(6, i), protocol, Key(0), numbers, splits))  # type: ignore[arg-type]

    everyone = evaluated([0, 1, 2, 3, 4])
    for numbers in ([3, 4], [1], [0, 2, 4]):
        assert [one["test"] for one in evaluated(numbers)] == pytest.approx(
            [everyone[i]["test"] for i in numbers], abs=1.0
        )


def test_every_network_is_evaluated_before_the_next_is_trained() -> None:
    """Where networks are trained one by one, none waits for another: an interruption loses one at the most."""
    numbers: list[int] = []

    def training_set(i: int) -> Split:
        numbers.append(i)
        return noise(4)

    found = evaluate_each(setting(), training_set, small(), Key(0), range(3), {"test": noise()})
    for i in range(3):
        next(found)
        assert numbers == list(range(i + 1))


# ---------------------------------------------------------------- accuracies


def test_every_network_has_a_training_set_and_a_start_of_its_own() -> None:
    numbers: list[int] = []

    def training_set(network: int) -> Split:
        numbers.append(network)
        return noise(6)

    splits: Any = {"test": noise(300, 1), "validation": noise(100, 2)}
    accuracies = evaluate(setting(), training_set, small(networks=5), Key(0), splits)
    assert numbers == [0, 1, 2, 3, 4] and set(accuracies) == {"test", "validation"}
    assert len(accuracies["test"]) == len(accuracies["validation"]) == 5
    assert len(set(accuracies["test"])) > 1  # spread
    assert all(0 <= value <= 100 for values in accuracies.values() for value in values)


def test_accuracies_depend_on_the_key_alone_and_networks_do_not_depend_on_their_number() -> None:
    def evaluated(networks: int, key: Key) -> tuple[float, ...]:
        return evaluate(
            setting("flip_rotate"), lambda _: noise(6), small(networks=networks), key, {"test": noise(300, 1)}
        )["test"]

    torch.manual_seed(1)
    five = evaluated(5, Key(0))
    torch.manual_seed(2)
    assert evaluated(5, Key(0)) == five and evaluated(2, Key(0)) == five[:2]
    assert evaluated(5, Key(1)) != five


class Table(nn.Module):
    """Scores that are read off the images: the first pixels are the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return self.scale * x[:, 0, 0, :CLASSES]


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 500])
def test_accuracy_is_the_share_of_right_labels(batch: int) -> None:
    scored = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    labels = torch.tensor([0, 1, 2, 1, 1, 0, 2])
    images = torch.zeros(7, 1, 6, 6)
    images[torch.arange(7), 0, 0, scored] = 1.0
    assert accuracy(Table(), Split(images, labels), batch) == pytest.approx(100 * 4 / 7, rel=1e-15)
    assert accuracy(Table(), Split(images, scored), batch) == 100
    assert accuracy(Table(), Split(images, (scored + 1) % CLASSES), batch) == 0


@pytest.mark.parametrize("way", [Standard(), Addressing(bases=2)])
def test_everything_is_recalled_class_by_class_with_its_label(way: Any) -> None:
    what = Setting(SHAPE, CLASSES, ConvNet(width=2), way, "none", torch.device("cpu"))
    memory = way.init(SHAPE, CLASSES, 2.0, Key(0))
    split = recalled(what, {k: v.requires_grad_() for k, v in memory.items()})
    per_class = way.per_class(SHAPE, CLASSES, 2.0)
    assert split.labels.tolist() == [c for c in range(CLASSES) for _ in range(per_class)]
    for c in range(CLASSES):
        torch.testing.assert_close(split.images[split.labels == c], way.recall(memory, torch.tensor([c]))[0].detach())
    assert not split.images.requires_grad
