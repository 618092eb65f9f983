"""The tape is what a CUDA graph is to a step, and the captured hypergradient is right on it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tape
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from suite.architectures.mlp import MLP
from suite.contracts.problem import relative_error
from suite.core import captured
from suite.core.captured import CapturedHypergradient
from suite.core.unroll import InnerLoop, Retention, hypergradient_by_full_graph
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.clipped import Clipped
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives import programs
from suite.objectives.bptt import BPTT
from suite.objectives.judged_often import JudgedOften
from suite.objectives.windows import Windows
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard
from suite.registry import inner_optimizers
from suite.types import ClassRows, ImageShape, Optimizer, Params, Setting, Split
from tools.contenders import Double

CPU = torch.device("cpu")


def numbers(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=Key(0)(name).generator(), dtype=torch.float64)


def test_a_replay_reads_and_writes_the_same_tensors() -> None:
    x, total = numbers(4, name="x"), torch.zeros((), dtype=torch.float64)

    def step() -> None:
        leaf = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(leaf.square().sum(), leaf)
        total.add_(g[1:].view(3).sum())

    replay = tape.capture(CPU, step, lambda: None)
    assert total == 0  # a capture runs nothing
    for name in ("one", "other"):
        x.copy_(numbers(4, name=name))
        total.zero_()
        replay()
        replay()
        torch.testing.assert_close(total, 4 * x[1:].sum())


def test_what_a_capture_makes_is_not_there_before_a_replay() -> None:
    x, made = torch.ones(3), list[Tensor]()

    def step() -> Tensor:
        made.append(x * 2)
        return made[-1]

    replay = tape.capture(CPU, step, lambda: None)
    assert made[-1].isnan().all()
    assert replay() is made[-1] and made[-1].tolist() == [2, 2, 2]


def test_a_number_of_python_s_stays_what_it_was() -> None:
    x, y = torch.ones(3), torch.zeros(3)
    factor = 1

    def step() -> None:
        y.copy_(x * factor)

    replay = tape.capture(CPU, step, lambda: None)
    factor = 5
    replay()
    assert y.tolist() == [1, 1, 1]  # not 5: a step may not do so


X, MASK = torch.ones(3), torch.tensor([True, False, True])
REFUSED: dict[str, tuple[str, Callable[[], object]]] = {
    "item": ("waits", lambda: X.sum().item()),
    "if": ("waits", lambda: bool(X.sum() > 2)),
    "nonzero": ("waits", lambda: X.nonzero()),
    "equal": ("waits", lambda: torch.equal(X, X)),
    "mask": ("waits", lambda: X[MASK]),
    "random": ("random", lambda: torch.randn(3)),
    "a permutation": ("random", lambda: Key(0).permutation(3)),
    "dropout": ("random", lambda: torch.nn.functional.dropout(X)),
    "a number of the host's": ("host", lambda: X + torch.tensor([1.0, 2.0, 3.0])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_graph_can_hold_is_refused(name: str) -> None:
    words, step = REFUSED[name]

    def in_capture() -> None:
        step()

    with pytest.raises(tape.RefusedInCaptureError, match=words):
        tape.capture(CPU, in_capture, lambda: None)


def test_rows_by_number_are_not() -> None:
    rows, y = torch.tensor([2, 0]), torch.zeros(2)
    replay = tape.capture(CPU, lambda: y.copy_(X[rows]), lambda: None)
    replay()
    assert y.tolist() == [1, 1]


# ---------------------------------------------------------------- the captured hypergradient

STEPS = 4
ROWS = torch.arange(6)
REAL, REAL_LABELS = numbers(8, 4, name="real"), torch.arange(8) % 2


def inner(params: Params, inputs: Params, t: int | Tensor) -> Tensor:
    """A small network on another mini-batch at every step."""
    rows = (ROWS[:3] + 2 * t) % 6
    x = inputs["x"].tanh().index_select(0, rows)
    return cross_entropy(torch.tanh(x @ params["first"]) @ params["second"], rows % 2)


def outer(params: Params) -> Tensor:
    return cross_entropy(torch.tanh(REAL @ params["first"]) @ params["second"], REAL_LABELS)


def problem(name: str) -> tuple[Params, Params]:
    params = {"first": numbers(4, 5, name=name + "first"), "second": numbers(5, 2, name=name + "second")}
    return params, {"x": numbers(6, 4, name=name + "x")}


def quick(name: str) -> Optimizer:
    optimizer: Any = inner_optimizers[name].build()
    return replace(optimizer, **({"lr": 0.05} if hasattr(optimizer, "lr") else {"of": SGDMomentum(lr=0.05)}))


RETENTIONS = [Retention(STEPS), Retention(1, 2)]


@pytest.mark.parametrize("retention", RETENTIONS, ids=str)
@pytest.mark.parametrize("name", inner_optimizers.names())
def test_the_captured_hypergradient_is_right_on_a_tape(
    name: str, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call after call with other numbers: all it reads and writes lies where it lay when it was captured."""
    monkeypatch.setattr(captured, "capture", tape.capture)
    optimizer = quick(name)
    params, inputs = problem("first call")
    program = CapturedHypergradient(InnerLoop(inner, optimizer, inputs), [outer], params, STEPS, retention)
    for call in ("one", "other", "one"):
        params, inputs = problem(call)
        found = program(params, optimizer.init(params), inputs)
        expected = hypergradient_by_full_graph(InnerLoop(inner, optimizer, inputs), [outer], params, STEPS)
        assert expected.gradients["x"].norm() > 0
        for one, other in ((found.gradients["x"], expected.gradients["x"]), (found.loss, expected.loss)):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(found.inner_losses, expected.inner_losses, rtol=1e-13, atol=0)
        for k, w in found.params.items():
            torch.testing.assert_close(w, expected.params[k], rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------- objectives


SHAPE, CLASSES = ImageShape(1, 8, 8), 3
OF = BPTT(inner_steps=5, images_per_class_per_step=1, real_per_class=3)
OBJECTIVES: dict[str, tuple[Any, Any]] = {
    "bptt": (OF, Standard()),
    "bptt, all images shown": (replace(OF, images_per_class_per_step=9), Standard()),
    "bptt, recomputed": (replace(OF, memory_gib=1e-9), Standard()),
    "bptt, labels": (OF, SoftLabels(Standard())),
    "bptt, clipped": (replace(OF, inner_optimizer=Clipped(of=SGDMomentum(lr=0.05))), Standard()),
    "bptt, adam": (replace(OF, inner_optimizer=Adam(lr=0.01)), Standard()),
    "windows": (Windows(of=OF, window=2), Standard()),
    "judged often": (JudgedOften(of=OF, times=3), Standard()),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_gives_its_gradients_on_a_tape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outer step after outer step, each with other draws, with weights in a row where the optimizer allows it."""
    monkeypatch.setattr(captured, "capture", tape.capture)
    monkeypatch.setattr(programs, "_kept", programs._Kept())
    plain, way = OBJECTIVES[name]
    taped: dict[str, Any] = {"execution": "captured"}
    on_tape = replace(plain, **(taped if plain.__class__ is BPTT else {"of": replace(plain.of, **taped)}))
    setting = Setting(SHAPE, CLASSES, Double(MLP(width=5)), way, "none", CPU)
    memory = {k: v.double() for k, v in way.init(SHAPE, CLASSES, 2, Key(0)).items()}
    real = ClassRows.of(Split(numbers(12, 1, 8, 8, name="real images"), torch.arange(12) % CLASSES), CLASSES)
    for step in range(3):
        expected, metrics = plain.gradients(setting, memory, real, Key(1)(step))
        found, found_metrics = on_tape.gradients(setting, memory, real, Key(1)(step))
        assert all(g.norm() > 0 for g in expected.values())
        assert relative_error(found, expected) < 1e-11
        assert relative_error(found_metrics, metrics) < 1e-12
        memory = {k: v - 0.1 * expected[k] for k, v in memory.items()}
