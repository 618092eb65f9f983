"""The hypergradient: exact for everything registered, the same whatever is kept, and no more kept than asked for."""

import math
import weakref
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import cross_entropy

from suite.architectures.alexnet import AlexNet
from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.architectures.resnet12 import ResNet12
from suite.architectures.timm_models import Timm
from suite.core.networks import require_unrollable
from suite.core.unroll import Hypergradient, InnerLoop, InnerLoss, Retention, hypergradient, hypergradient_by_full_graph
from suite.errors import UsageError
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.registry import inner_optimizers, parameterizations
from suite.types import ImageShape, Optimizer, Params, State
from tools import exactness
from tools.exactness import NETWORKS, long_row, short_row

OPTIMIZERS = inner_optimizers.names()


def numbers(*shape: int, name: str) -> torch.Tensor:
    return torch.randn(shape, generator=Key(0)(name).generator(), dtype=torch.float64)


# ---------------------------------------------------------------- exactness


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("parameterization", parameterizations.names())
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_hypergradient_is_exact(
    optimizer: str, parameterization: str, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of narrow networks, since exactness does not depend on their width; finite differences of ResNet-12's do."""
    monkeypatch.setattr(exactness, "WIDTH", 8 if network == "resnet12" else 4)
    row = short_row(optimizer, parameterization, network)
    assert row["against autograd"] < 1e-10
    if optimizer == "forward_only_momentum":
        assert row["against finite differences"] == "not its aim"
    else:
        assert row["against finite differences"] < 1e-5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_single_precision_stays_near_double(optimizer: str) -> None:
    """Adam divides by numbers as small as rounding errors, so its error is another one."""
    error = long_row(optimizer, 8)["against float64"]
    assert 0 < error < (0.1 if optimizer == "adam" else 1e-4)


# ---------------------------------------------------------------- retention


def inner(params: Params, inputs: Params, t: int) -> torch.Tensor:
    """A small network on another mini-batch at every step; takes its images from two inputs."""
    x = torch.cat([inputs["x"], inputs["more"].tanh()])[t % 3 :: 3]
    return cross_entropy(torch.tanh(x @ params["first"]) @ params["second"], torch.arange(len(x)) % 2)


def outer(params: Params) -> torch.Tensor:
    real = numbers(8, 4, name="real")
    return cross_entropy(torch.tanh(real @ params["first"]) @ params["second"], torch.arange(8) % 2)


def problem() -> tuple[Params, Params]:
    params = {"first": numbers(4, 5, name="first"), "second": numbers(5, 2, name="second")}
    return params, {"x": numbers(5, 4, name="x"), "more": numbers(4, 4, name="more")}


def initial() -> Params:
    return problem()[0]


def loop(optimizer: Optimizer, inner_loss: InnerLoss = inner) -> InnerLoop:
    return InnerLoop(inner_loss, optimizer, problem()[1])


def quick(name: str) -> Optimizer:
    optimizer: Any = inner_optimizers[name].build()
    return replace(optimizer, **({"lr": 0.05} if hasattr(optimizer, "lr") else {"of": SGDMomentum(lr=0.05)}))


def difference(one: Hypergradient, other: Hypergradient) -> float:
    assert list(one.gradients) == list(other.gradients)
    return max(
        float((a - b).norm() / b.norm()) for a, b in zip(one.gradients.values(), other.gradients.values(), strict=True)
    )


STEPS = 10


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_kept_does_not_change_the_hypergradient(optimizer: str) -> None:
    expected = hypergradient_by_full_graph(loop(quick(optimizer)), [outer], initial(), STEPS)
    assert all(g.norm() > 0 for g in expected.gradients.values())
    for graphs in (0, 2, STEPS, STEPS + 5):
        for stride in (1, 3, 7, STEPS, STEPS + 5):
            found = hypergradient(loop(quick(optimizer)), [outer], initial(), STEPS, Retention(graphs, stride))
            assert difference(found, expected) < 1e-12
            torch.testing.assert_close(found.loss, expected.loss, rtol=1e-14, atol=0)
            torch.testing.assert_close(found.inner_losses, expected.inner_losses, rtol=1e-14, atol=0)


def test_inner_losses_come_in_order_and_nothing_keeps_a_graph() -> None:
    found = hypergradient(loop(SGDMomentum()), [outer], initial(), STEPS)
    params, inputs = problem()
    assert found.inner_losses.shape == (STEPS,) and found.inner_losses[0] == inner(params, inputs, 0)
    assert not any(v.requires_grad for v in (found.loss, found.inner_losses, *found.gradients.values()))


def test_nothing_given_is_changed() -> None:
    params, inputs = problem()
    params = {k: nn.Parameter(v) for k, v in params.items()}
    given = [*params.values(), *inputs.values()]
    before = [v.detach().clone() for v in given]
    hypergradient(InnerLoop(inner, SGDMomentum(lr=0.5), inputs), [outer], dict(params), 4, Retention(1, 2))
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    assert all(v.grad is None for v in given) and not any(v.requires_grad for v in inputs.values())


def test_two_unrolls_agree_to_the_bit() -> None:
    one, other = (hypergradient(loop(SGDMomentum(lr=0.1)), [outer], initial(), 6, Retention(2, 2)) for _ in range(2))
    assert all(torch.equal(one.gradients[k], other.gradients[k]) for k in one.gradients)
    assert torch.equal(one.loss, other.loss)


@pytest.mark.parametrize(("graphs", "stride"), [(-1, 1), (0, 0), (0, -3)])
def test_impossible_retentions_are_refused(graphs: int, stride: int) -> None:
    with pytest.raises(UsageError, match=r"^Retention\.(graphs|stride) must be (at least|above) 0, not -?\d$"):
        Retention(graphs, stride)


@pytest.mark.parametrize("retention", [Retention(), Retention(STEPS)])
def test_an_outer_loss_in_parts_is_their_sum(retention: Retention) -> None:
    parts = [lambda params, s=s: s * outer({k: v * s for k, v in params.items()}) for s in (0.5, 1.0, 2.0)]

    def whole(params: Params) -> torch.Tensor:
        return torch.stack([part(params) for part in parts]).sum()

    expected = hypergradient(loop(SGDMomentum()), [whole], initial(), STEPS, retention)
    for method in (hypergradient, hypergradient_by_full_graph):
        found = method(loop(SGDMomentum()), parts, initial(), STEPS)
        assert difference(found, expected) < 1e-13
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-14, atol=0)


def test_the_bytes_allowed_decide_what_is_kept() -> None:
    """100 steps of state 2 and graph 10: all graphs cost 1,200, all states 210, and nothing is below every tenth."""
    expected = {
        5000: Retention(100),
        1200: Retention(100),
        1199: Retention(99),
        210: Retention(1),
        209: Retention(0, 2),
        60: Retention(0, 5),
        48: Retention(0, 10),
        1: Retention(0, 10),
    }
    for max_bytes, retention in expected.items():
        assert Retention.within(max_bytes, 100, state_bytes=2, graph_bytes=10) == retention, max_bytes
        assert max_bytes < 48 or retention.peak_bytes(100, 2, 10) <= max_bytes


# ---------------------------------------------------------------- memory

LONG = 24


def _pull(params: Params, inputs: Params, t: int) -> torch.Tensor:
    return (params["w"] - inputs["x"]).square().sum() * (1 + t % 3)


def _live_states(retention: Retention) -> int:
    """Most states of the inner loop that are in memory at the start of any inner loss."""
    seen: dict[int, StorageWeakRef] = {}
    most = 0

    def counting(params: Params, inputs: Params, t: int) -> torch.Tensor:
        nonlocal most
        seen[len(seen)] = StorageWeakRef(params["w"].untyped_storage())
        alive = {ref.cdata for ref in seen.values() if not ref.expired()}
        most = max(most, len(alive))
        return _pull(params, inputs, t)

    start, inputs = {"w": torch.zeros(9)}, {"x": torch.ones(1)}
    hypergradient(InnerLoop(counting, NoMomentum(), inputs), [lambda params: params["w"].sum()], start, LONG, retention)
    return most


def test_a_stride_keeps_fewer_states() -> None:
    """Every stride-th state, and those of the stretch that is run again: what the expected memory of a plan says."""
    for stride in (1, 2, 4, 5, 8, LONG):
        states = _live_states(Retention(0, stride))
        promised = math.ceil(LONG / stride) + stride - 1
        assert promised == Retention(0, stride).peak_bytes(LONG, 1, 0)
        assert states == promised - (LONG % stride > 0)  # the last stretch is the shorter one there


def _live_saved(retention: Retention) -> int:
    """Most tensors that autograd's graphs hold at any one time."""

    class Box:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

    boxes: weakref.WeakSet[Box] = weakref.WeakSet()
    most = 0

    def pack(tensor: torch.Tensor) -> Box:
        nonlocal most
        box = Box(tensor)
        boxes.add(box)
        most = max(most, len(boxes))
        return box

    start, inputs = {"w": torch.zeros(3)}, {"x": torch.ones(1)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        hypergradient(
            InnerLoop(_pull, NoMomentum(), inputs), [lambda params: params["w"].sum()], start, LONG, retention
        )
    return most


def test_only_as_many_graphs_live_as_are_asked_for() -> None:
    one = _live_saved(Retention(0, 1))
    assert one > 0 and one == _live_saved(Retention(0, 6)) == _live_saved(Retention(1, 1))
    assert 1.5 * one < _live_saved(Retention(4, 6)) <= 4 * one
    assert LONG / 3 * one < _live_saved(Retention(LONG, 1)) <= LONG * one


def _calls(retention: Retention) -> list[int]:
    """The inner steps in the order in which they are computed."""
    calls: list[int] = []

    def noting(params: Params, inputs: Params, t: int) -> torch.Tensor:
        calls.append(t)
        return inner(params, inputs, t)

    hypergradient(loop(NoMomentum(), noting), [outer], initial(), 6, retention)
    return calls


def test_steps_are_replayed_only_as_far_as_needed() -> None:
    forth = [0, 1, 2, 3, 4, 5]
    assert _calls(Retention(6, 1)) == forth
    assert _calls(Retention(2, 1)) == [*forth, 3, 2, 1, 0]
    assert _calls(Retention(0, 1)) == [*forth, *forth[::-1]]
    assert _calls(Retention(0, 3)) == [*forth, 3, 4, 5, 4, 3, 0, 1, 2, 1, 0]


# ---------------------------------------------------------------- small truths


def test_one_step_is_the_analytic_gradient() -> None:
    """w1 = w0 - lr (w0 - x), so the gradient of |w1 - y|²/2 in x is lr (w1 - y)."""
    w, x, y = numbers(4, name="w"), numbers(4, name="x"), numbers(4, name="y")
    found = hypergradient(
        InnerLoop(
            lambda params, inputs, t: (params["w"] - inputs["x"]).square().sum() / 2, NoMomentum(lr=0.3), {"x": x}
        ),
        [lambda params: (params["w"] - y).square().sum() / 2],
        {"w": w},
        1,
    )
    after = w - 0.3 * (w - x)
    torch.testing.assert_close(found.gradients["x"], 0.3 * (after - y), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(found.loss, (after - y).square().sum() / 2, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.inner_losses, ((w - x).square().sum() / 2)[None], rtol=1e-14, atol=0)


@dataclass(frozen=True)
class Odd:
    """Heavy-ball with a slot that is carried but never read, one that is never changed, and names in another order."""

    def init(self, params: Params) -> State:
        zeros = {k: torch.zeros_like(v) for k, v in params.items()}
        return {"speed": zeros, "ignored": dict(zeros), "rate": {"lr": next(iter(params.values())).new_tensor(0.2)}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        speed = {k: 0.5 * state["speed"][k] + grads[k] * params[k].cos() for k in sorted(params, reverse=True)}
        new = {k: params[k] - state["rate"]["lr"] * speed[k] for k in speed}
        return new, {"ignored": {k: 2 * g for k, g in grads.items()}, "speed": speed, "rate": state["rate"]}


@pytest.mark.parametrize("retention", [Retention(), Retention(2, 3), Retention(9, 1)])
def test_an_optimizer_with_an_odd_state_is_differentiated_like_any_other(retention: Retention) -> None:
    expected = hypergradient_by_full_graph(loop(Odd()), [outer], initial(), 6)
    found = hypergradient(loop(Odd()), [outer], initial(), 6, retention)
    assert difference(found, expected) < 1e-12


# ---------------------------------------------------------------- refusals


def _refusal(inner_loss: Any, outer_loss: Any, optimizer: Optimizer, retention: Retention) -> str:
    with pytest.raises(UsageError) as refused:
        hypergradient(loop(optimizer, inner_loss), [outer_loss], initial(), 3, retention)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("retention", [Retention(), Retention(3, 1), Retention(0, 2)])
def test_whatever_takes_no_part_is_refused_by_name(retention: Retention) -> None:
    def without_second(params: Params, inputs: Params, t: int) -> torch.Tensor:
        return (inputs["x"] @ params["first"]).square().mean() + inputs["more"].sum()

    def without_more(params: Params, inputs: Params, t: int) -> torch.Tensor:
        return inner(params, inputs | {"more": torch.zeros_like(inputs["more"])}, t)

    message = _refusal(without_second, outer, SGDMomentum(), retention)
    assert message.startswith("the parameter 'second' takes no part in the inner loss")
    message = _refusal(without_more, outer, SGDMomentum(), retention)
    assert message.startswith("'more' takes no part in the inner step")
    message = _refusal(inner, lambda params: params["first"].square().sum(), SGDMomentum(), retention)
    assert message.startswith("the parameter 'second' takes no part in the outer loss")


@dataclass(frozen=True)
class Deaf:
    """Takes the gradients' values but cuts them off from the images."""

    def init(self, params: Params) -> State:
        return {}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        return {k: w - 0.1 * grads[k].detach() for k, w in params.items()}, {}


@pytest.mark.parametrize("retention", [Retention(), Retention(3, 1)])
def test_an_optimizer_that_cuts_its_gradients_off_is_refused(retention: Retention) -> None:
    message = _refusal(inner, outer, Deaf(), retention)
    assert (
        message.startswith("'x' takes no part in the inner step") and "optimizer's step uses the gradients" in message
    )


SMALL = ImageShape(3, 32, 32)


@pytest.mark.parametrize("recipe", [ConvNet(norm="batch", width=4), Timm("resnet18", "as_is")])
def test_running_statistics_are_refused(recipe: Any) -> None:
    network = recipe.build(SMALL, 2)
    with pytest.raises(UsageError, match=r"^thing keeps running statistics in '.+'.*'instance', 'group' or 'layer'"):
        require_unrollable(network, "thing")


def test_dropout_is_refused_unless_it_drops_nothing() -> None:
    for drops in (nn.Dropout(0.1), nn.Dropout2d(0.5), nn.AlphaDropout(0.2)):
        with pytest.raises(UsageError, match=r"^thing uses dropout in '1'"):
            require_unrollable(nn.Sequential(nn.Linear(2, 2), drops), "thing")
    require_unrollable(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)), "thing")


def test_stochastic_depth_is_refused_unless_it_drops_nothing() -> None:
    """timm's swin and others drop whole residual branches by default, anew at every replay."""
    require_unrollable(nn.Sequential(nn.Linear(2, 2), DropPath(0.0)), "thing")
    with pytest.raises(UsageError, match=r"^thing "):
        require_unrollable(nn.Sequential(nn.Linear(2, 2), DropPath(0.1)), "thing")


@pytest.mark.parametrize(
    "recipe",
    [
        ConvNet(width=4),
        *(ConvNet(width=4, norm=norm) for norm in ("group", "layer", "none")),
        AlexNet(),
        ResNet12(width=4),
        MLP(width=4),
        Timm("resnet18", "group"),
        Timm("vit_tiny_patch16_224"),
    ],
)
def test_everything_else_is_accepted(recipe: Any) -> None:
    require_unrollable(recipe.build(SMALL, 2), "thing")


def test_a_whole_network_is_trained_as_torch_trains_it() -> None:
    """The forward half of the sweep against torch.optim.SGD and .backward() on the same network."""
    with global_generators(Key(0)("network")):
        network = ConvNet(width=4).build(ImageShape(1, 8, 8), 2).double()
    images, labels = numbers(6, 1, 8, 8, name="images"), torch.arange(6) % 2

    def inner_loss(params: Params, inputs: Params, t: int) -> torch.Tensor:
        return cross_entropy(functional_call(network, params, (inputs["x"],)), labels)

    found = hypergradient(
        InnerLoop(inner_loss, SGDMomentum(lr=0.1, momentum=0.9), {"x": images}),
        [lambda params: cross_entropy(functional_call(network, params, (images.flip(0),)), labels)],
        dict(network.named_parameters()),
        5,
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for expected in found.inner_losses:
        optimizer.zero_grad()
        loss = cross_entropy(network(images), labels)
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(cross_entropy(network(images.flip(0)), labels).detach(), found.loss, rtol=1e-12, atol=0)
