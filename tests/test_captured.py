"""The captured hypergradient is the plain one at every call; on a GPU as CUDA graphs, too."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.contracts.problem import relative_error
from suite.core import captured
from suite.core.captured import CapturedHypergradient, CapturedSteps
from suite.core.unroll import Hypergradient, InnerLoop, Retention, hypergradient_by_full_graph
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.standard import Standard
from suite.registry import inner_optimizers
from suite.types import ClassRows, ImageShape, Optimizer, Params, Setting, Split, State
from tools.contenders import Double

STEPS, CLASSES = 7, 4
SHAPE = ImageShape(1, 8, 8)


def numbers(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=Key(0)(name).generator(), dtype=torch.float64)


def inner(params: Params, inputs: Params, t: int | Tensor) -> Tensor:
    """A small network on another mini-batch at every step."""
    rows = (torch.arange(3) + 2 * t) % 9
    x = torch.cat([inputs["x"], inputs["more"].tanh()]).index_select(0, rows)
    return cross_entropy(torch.tanh(x @ params["first"]) @ params["second"], rows % 2)


REAL = numbers(8, 4, name="real")


def outer(params: Params) -> Tensor:
    return cross_entropy(torch.tanh(REAL @ params["first"]) @ params["second"], torch.arange(8) % 2)


def problem(name: str = "") -> tuple[Params, Params]:
    params = {"first": numbers(4, 5, name=name + "first"), "second": numbers(5, 2, name=name + "second")}
    return params, {"x": numbers(5, 4, name=name + "x"), "more": numbers(4, 4, name=name + "more")}


def assert_equal(found: Hypergradient, expected: Hypergradient) -> None:
    assert all(g.norm() > 0 for g in expected.gradients.values())
    for k, g in expected.gradients.items():
        torch.testing.assert_close(found.gradients[k], g, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.inner_losses, expected.inner_losses, rtol=1e-13, atol=0)


def initial(name: str = "") -> Params:
    return problem(name)[0]


def loop(optimizer: Optimizer, name: str = "") -> InnerLoop:
    return InnerLoop(inner, optimizer, problem(name)[1])


def quick(name: str) -> Optimizer:
    optimizer: Any = inner_optimizers[name].build()
    return replace(optimizer, **({"lr": 0.05} if hasattr(optimizer, "lr") else {"of": SGDMomentum(lr=0.05)}))


def built(optimizer: Optimizer, name: str = "", graphs: int = 2) -> Callable[[str], Hypergradient]:
    """A captured unroll, called with a problem's name."""
    captured = CapturedHypergradient(loop(optimizer, name), [outer], initial(name), STEPS, Retention(graphs, 3))

    def call(name: str) -> Hypergradient:
        params, inputs = problem(name)
        return captured(params, optimizer.init(params), inputs)

    return call


@pytest.mark.parametrize("optimizer", inner_optimizers.names())
def test_it_is_the_hypergradient_call_after_call(optimizer: str) -> None:
    program = built(quick(optimizer), "first call")
    for name in ("one", "other", "one"):
        expected = hypergradient_by_full_graph(loop(quick(optimizer), name), [outer], initial(name), STEPS)
        assert_equal(program(name), expected)


def results(found: Hypergradient) -> list[Tensor]:
    return [found.loss, found.inner_losses, *found.gradients.values(), *found.params.values()]


class Unreplayed:
    """A graph that is not replayed."""

    def replay(self) -> None:
        """Nothing."""


def test_what_a_graph_reads_by_address_is_held_as_long_as_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with buffers: once they are gone, a replay would read whatever lies there by then."""

    class Buffered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(()))

    def frozen(device: torch.device, work: Callable[[], Any], warm_up: Callable[[], object]) -> Any:
        graph: Any = Unreplayed()
        return captured.Replay(graph, work(), work)

    monkeypatch.setattr(captured, "capture", frozen)
    network = Buffered()
    held = weakref.ref(network.scale)
    way = quick("sgd_momentum")
    scaled = InnerLoop(lambda p, x, t, n=network: inner(p, x, t) * n.scale, way, problem("")[1])
    program = CapturedHypergradient(scaled, [outer], initial(), 2, Retention()), CapturedSteps(scaled, initial())
    del network, scaled
    assert held() is not None and len(program) == 2


def test_what_it_gives_is_not_overwritten_by_the_next_call() -> None:
    program = built(SGDMomentum())
    first = program("one")
    kept = [v.clone() for v in results(first)]
    program("other")
    assert all(torch.equal(a, b) for a, b in zip(kept, results(first), strict=True))


@dataclass(frozen=True)
class Previous:
    """Steps away from the weights of the step before, which it hands on as they are; and a slot it never changes."""

    def init(self, params: Params) -> State:
        return {"before": {k: v.clone() for k, v in params.items()}, "rate": {"lr": params["first"].new_tensor(0.2)}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        lr = state["rate"]["lr"]
        new = {k: 1.5 * w - 0.5 * state["before"][k] - lr * grads[k] for k, w in params.items()}
        return new, {"before": params, "rate": state["rate"]}


def test_a_state_that_holds_the_previous_weights_is_not_overwritten_by_the_next() -> None:
    assert_equal(built(Previous())(""), hypergradient_by_full_graph(loop(Previous()), [outer], initial(), STEPS))


@dataclass(frozen=True)
class Counting:
    """A state of whole numbers."""

    def init(self, params: Params) -> State:
        return {"count": {"t": torch.zeros((), dtype=torch.long)}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        t = state["count"]["t"] + 1
        return {k: w - 0.1 / t * grads[k] for k, w in params.items()}, {"count": {"t": t}}


def test_a_state_may_count_in_whole_numbers() -> None:
    expected = hypergradient_by_full_graph(loop(Counting()), [outer], initial(), STEPS)
    assert_equal(built(Counting(), graphs=STEPS)(""), expected)


@pytest.mark.parametrize("optimizer", [*inner_optimizers.names(), "previous"])
def test_steps_before_a_window_are_the_plain_ones(optimizer: str) -> None:
    way = Previous() if optimizer == "previous" else quick(optimizer)
    program = CapturedSteps(loop(way), initial())
    for steps in (3, 1, 5):
        params, inputs = problem("other")
        found, state, losses = program(params, inputs, steps)
        expected, expected_state = params, way.init(params)
        for t in range(steps):
            expected, expected_state, loss = InnerLoop(inner, way, inputs).step(expected, expected_state, t)
            torch.testing.assert_close(losses[t], loss, rtol=1e-13, atol=0)
        assert relative_error(found, expected) < 1e-13
        assert all(relative_error(state[slot], part) < 1e-13 for slot, part in expected_state.items())


# ---------------------------------------------------------------- in the objective


def gradients(execution: Any, recipe: Any, way: Any, calls: int, **fields: Any) -> list[Params]:
    setting = Setting(SHAPE, CLASSES, Double(recipe), way, "flip_rotate", torch.device("cpu"))
    memory = {k: v.double() for k, v in way.init(SHAPE, CLASSES, 3, Key(0)).items()}
    labels = torch.arange(40) % CLASSES
    real = ClassRows.of(Split(numbers(40, 1, 8, 8, name="real images"), labels), CLASSES)
    objective = BPTT(
        inner_steps=5, classes_per_step=3, images_per_class_per_step=2, real_per_class=5, execution=execution, **fields
    )
    found = []
    for step in range(calls):
        gradient, metrics = objective.gradients(setting, memory, real, Key(1)(step))
        found.append(gradient | {f"metric {k}": v for k, v in metrics.items()})
        memory = {k: v - 0.1 * gradient[k] for k, v in memory.items()}
    return found


@pytest.mark.parametrize("way", [Standard(), Addressing(bases=2)], ids=["standard", "addressing"])
@pytest.mark.parametrize("recipe", [MLP(width=5), ConvNet(width=4, depth=1)], ids=["mlp", "convnet"])
def test_captured_outer_steps_are_the_plain_ones(recipe: Any, way: Any) -> None:
    plain, captured = (gradients(execution, recipe, way, calls=3) for execution in ("eager", "captured"))
    for one, other in zip(captured, plain, strict=True):
        assert relative_error(one, other) < 1e-11


class _Capturing(TorchDispatchMode):
    """Refuses what a capture refuses: an operation that waits for a number of the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", inner_optimizers.names())
def test_no_step_waits_for_a_number_of_the_device(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No capture on a GPU succeeded at first: a sentence for an error that never came was made of t, a tensor there."""

    def text(_: Tensor, *format_spec: str) -> str:
        raise AssertionError("a tensor's numbers were asked for as text")

    program, steps = built(quick(optimizer)), CapturedSteps(loop(quick(optimizer)), initial())
    for name in ("__format__", "__repr__", "__str__"):  # torch's own pass by a dispatch mode
        monkeypatch.setattr(Tensor, name, text)
    with _Capturing():
        program("")
        steps(*problem(), 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_graphs_are_the_plain_steps() -> None:
    where = torch.device("cuda")
    setting = Setting(ImageShape(3, 32, 32), 10, ConvNet(), Standard(), "none", where)
    memory = {k: v.to(where) for k, v in Standard().init(setting.shape, 10, 1, Key(0)).items()}
    images = torch.randn(100, 3, 32, 32, generator=Key(2).generator())
    real = ClassRows.of(Split(images, torch.arange(100) % 10).to(where), 10)
    for step in range(2):
        plain, found = (
            BPTT(inner_steps=10, execution=how).gradients(setting, memory, real, Key(step))[0]  # type: ignore[arg-type]
            for how in ("eager", "captured")
        )
        assert found["images"].norm() > 0
        assert relative_error(found, plain) < 0.05
