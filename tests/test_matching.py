"""Gradient and distribution matching: what they measure, and their gradients against finite differences."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.contracts.checks import check
from suite.core.networks import fresh_network
from suite.errors import UsageError
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.objectives.gradient_matching import GradientMatching, layerwise_distance
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.standard import Standard
from suite.registry import name_of
from suite.types import Architecture, ClassRows, ImageShape, Objective, Parameterization, Params, Setting, Split

SHAPE, CLASSES = ImageShape(1, 8, 8), 3
PARAMETERIZATIONS = {
    "standard": Standard(),
    "addressing": Addressing(bases=2),
    "downsampled": Downsampled(of=Addressing(bases=3)),
}


@dataclass(frozen=True)
class Double:
    """An architecture in float64."""

    of: Architecture

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        return self.of.build(shape, classes).double()


def setting(recalls: Parameterization, network: Architecture | None = None) -> Setting:
    smooth = ConvNet(width=4, activation="silu") if network is None else network
    return Setting(SHAPE, CLASSES, Double(smooth), recalls, "flip_rotate", torch.device("cpu"))


def memory_of(what: Setting) -> Params:
    made = what.parameterization.init(SHAPE, CLASSES, 2, Key(3)("memory"))
    return {k: v.double() for k, v in made.items()}


def real() -> ClassRows:
    pixels = torch.randn(30, 1, 8, 8, generator=Key(0)("pixels").generator(), dtype=torch.float64)
    return ClassRows.of(Split(pixels, torch.arange(30) % CLASSES), CLASSES)


OBJECTIVES: dict[str, Objective] = {
    "gradients": GradientMatching(real_per_class=5),
    "gradients of a trained network": GradientMatching(real_per_class=5, stages=3, steps_per_stage=2),
    "distributions": DistributionMatching(real_per_class=5),
}
UNTRAINED = ("gradients", "distributions")
"""Whose loss depends on the memory through nothing but what is differentiated."""


@pytest.mark.parametrize("recalls", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", UNTRAINED)
def test_the_gradient_is_that_of_the_loss(name: str, recalls: str) -> None:
    """Against central differences along a random direction."""
    what, objective = setting(PARAMETERIZATIONS[recalls]), OBJECTIVES[name]
    memory, rows, key = memory_of(what), real(), Key(1)
    found, metrics = objective.gradients(what, memory, rows, key)
    direction = {k: torch.randn(v.shape, generator=key(k).generator(), dtype=v.dtype) for k, v in memory.items()}
    eps = 1e-5

    def loss(sign: float) -> float:
        moved = {k: v + sign * eps * direction[k] for k, v in memory.items()}
        return float(objective.gradients(what, moved, rows, key)[1]["loss"])

    derivative = sum(float((found[k] * direction[k]).sum()) for k in memory)
    assert derivative == pytest.approx((loss(1) - loss(-1)) / (2 * eps), rel=1e-6)
    assert float(metrics["loss"]) > 0 and abs(derivative) > 1e-3


def test_gradient_matching_is_the_published_distance() -> None:
    """Written down at once for all classes, with plain layers: no class by class, no rewritten normalisation."""
    what, objective = setting(Standard(), ConvNet(width=3)), GradientMatching(real_per_class=4)
    what = replace(what, augmentation="none")
    memory, rows, key = memory_of(what), real(), Key(2)
    network = fresh_network(what, key("network"), replace_layers=False)
    leaves = {k: v.clone().requires_grad_() for k, v in memory.items()}
    images = what.parameterization.recall(leaves, torch.arange(CLASSES))
    total = torch.zeros((), dtype=torch.float64)
    for c in range(CLASSES):
        batch = rows.draw([c], 4, key("real"))
        gradients = []
        for x in (batch.images, images[c]):
            loss = cross_entropy(network(x), torch.full((len(x),), c))
            grads = torch.autograd.grad(loss, [*network.parameters()], create_graph=True)
            named = zip(network.named_parameters(), grads, strict=True)
            gradients.append({n: g for (n, p), g in named if p.dim() > 1})
        for n in gradients[0]:
            one, other = (g[n].reshape(len(g[n]), -1) for g in gradients)
            for a, b in zip(one.detach(), other, strict=True):
                total = total + 1 - (a @ b) / (a.norm() * b.norm() + 1e-6)
    wanted = torch.autograd.grad(total, [*leaves.values()])
    found, metrics = objective.gradients(what, memory, rows, key)
    torch.testing.assert_close(metrics["loss"], total.detach())
    for k, w in zip(leaves, wanted, strict=True):
        torch.testing.assert_close(found[k], w)


def test_the_distance_counts_rows_that_point_elsewhere() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    assert float(layerwise_distance([a], [a])) == pytest.approx(0, abs=1e-5)
    assert float(layerwise_distance([a], [7 * a])) == pytest.approx(0, abs=1e-5)
    assert float(layerwise_distance([a], [-a])) == pytest.approx(6, abs=1e-5)
    assert float(layerwise_distance([a, a[:1]], [torch.zeros_like(a), a[:1]])) == pytest.approx(3, abs=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_matching_comes_nearer_step_by_step(name: str) -> None:
    what, objective = setting(Standard()), OBJECTIVES[name]
    memory, rows, key = memory_of(what), real(), Key(4)
    losses = []
    for _ in range(30):
        found, metrics = objective.gradients(what, memory, rows, key)
        losses.append(float(metrics["loss"]))
        memory = {k: v - 0.2 * found[k] for k, v in memory.items()}
    assert losses[-1] < 0.8 * losses[0], losses


def test_a_network_is_trained_for_as_many_stages_as_are_drawn() -> None:
    """What depends on the key alone: 0 to stages - 1, all of them now and then; and training changes the gradient."""
    what, rows = setting(Standard(), MLP(width=4, depth=1)), real()
    memory = memory_of(what)
    steps: list[int] = []

    @dataclass(frozen=True)
    class Counted(SGDMomentum):
        def step(self, *arguments: Any) -> Any:
            steps[-1] += 1
            return super().step(*arguments)

    objective = GradientMatching(real_per_class=2, stages=3, steps_per_stage=4, inner_optimizer=Counted())
    for i in range(30):
        steps.append(0)
        objective.gradients(what, memory, rows, Key(i))
    assert set(steps) == {0, 4, 8}
    trained = next(i for i, n in enumerate(steps) if n == 8)
    fresh = replace(objective, stages=1)
    one, other = (o.gradients(what, memory, rows, Key(trained))[0] for o in (objective, fresh))
    assert any(not torch.allclose(one[k], other[k]) for k in memory)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_so_many_real_images_are_looked_at(name: str) -> None:
    """Rows that the key does not draw may hold anything."""
    what, objective, rows, key = setting(Standard()), OBJECTIVES[name], real(), Key(5)
    drawn = torch.cat([rows.rows[c][key("real")(c).permutation(len(rows.rows[c]))[:5]] for c in range(CLASSES)])
    spoiled = rows.split.images.clone()
    rest = torch.ones(len(spoiled), dtype=torch.bool)
    rest[drawn] = False
    spoiled[rest] = float("nan")
    other = ClassRows.of(Split(spoiled, rows.split.labels), CLASSES)
    memory = memory_of(what)
    one, two = (objective.gradients(what, memory, r, key)[0] for r in (rows, other))
    assert all(torch.equal(one[k], two[k]) for k in memory)


@dataclass(frozen=True)
class Forgetful(Standard):
    """Recalls with a tensor left out, or with all of them detached."""

    detached: bool = False

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        return super().init(shape, classes, images_per_class, key) | {"more": torch.zeros(2)}

    def recall(self, memory: Params, queries: Tensor) -> Tensor:
        return super().recall({k: v.detach() if self.detached else v for k, v in memory.items()}, queries)


@pytest.mark.parametrize(("recalls", "tensor"), [(Forgetful(), "more"), (Forgetful(detached=True), "images")])
@pytest.mark.parametrize("objective", [*OBJECTIVES.values(), BPTT(inner_steps=2, real_per_class=2)], ids=name_of)
def test_a_tensor_that_is_never_learned_is_refused(objective: Objective, recalls: Forgetful, tensor: str) -> None:
    what = setting(recalls)
    with pytest.raises(UsageError, match=f"the memory's '{tensor}' takes no part in what is recalled"):
        objective.gradients(what, memory_of(what), real(), Key(0))


def test_the_contract_names_a_tensor_that_is_never_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Standard.init

    def with_one_more(self: Standard, *arguments: Any) -> Params:
        return made(self, *arguments) | {"more": torch.zeros(2)}

    promise = "every tensor takes part in what is recalled"
    assert next(f.verdict for f in check("parameterizations", "standard") if f.promise == promise) == "kept"
    monkeypatch.setattr(Standard, "init", with_one_more)
    found = next(f for f in check("parameterizations", "standard") if f.promise == promise)
    assert (found.verdict, found.detail) == ("broken", "more")
