"""Inner optimizers: torch's own steps, pure, and differentiable exactly as far as each of them says."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from suite.core.unroll import Hypergradient, InnerLoop, hypergradient, hypergradient_by_full_graph
from suite.errors import UsageError
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.forward_only_momentum import ForwardOnlyMomentum
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.registry import inner_optimizers
from suite.types import Optimizer, Params, State

OPTIMIZERS = inner_optimizers.names()

TORCH: dict[str, Any] = {
    "adam": (
        Adam(lr=0.03, b1=0.8, b2=0.95, eps=1e-6, eps_root=0.0),
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "eps": 1e-6},
    ),
    "sgd_momentum": (SGDMomentum(lr=0.03, momentum=0.8), torch.optim.SGD, {"momentum": 0.8}),
    "forward_only_momentum": (ForwardOnlyMomentum(lr=0.03, momentum=0.8), torch.optim.SGD, {"momentum": 0.8}),
    "no_momentum": (NoMomentum(lr=0.03), torch.optim.SGD, {}),
}


def numbers(*shape: int, name: str) -> torch.Tensor:
    return torch.randn(shape, generator=Key(0)(name).generator(), dtype=torch.float64)


def weights() -> Params:
    return {"matrix": numbers(4, 3, name="matrix"), "bias": numbers(3, name="bias"), "scale": numbers(name="scale")}


def drawn_grads(step: int) -> Params:
    return {k: numbers(*v.shape, name=f"{k} {step}") for k, v in weights().items()}


def flat(params: Params, state: State) -> list[torch.Tensor]:
    return [*params.values(), *(v for part in state.values() for v in part.values())]


def trajectory(optimizer: Optimizer, steps: int = 6) -> list[tuple[Params, State]]:
    params, state = weights(), optimizer.init(weights())
    passed = []
    for step in range(steps):
        params, state = optimizer.step(params, drawn_grads(step), state)
        passed.append((params, state))
    return passed


@pytest.mark.parametrize("name", list(TORCH))
def test_steps_are_those_of_torch(name: str) -> None:
    ours, theirs, settings = TORCH[name]
    assert type(ours) is inner_optimizers[name].build
    leaves = [v.requires_grad_() for v in weights().values()]
    reference = theirs(leaves, lr=0.03, **settings)
    for step, (params, _) in enumerate(trajectory(ours)):
        for leaf, grad in zip(leaves, drawn_grads(step).values(), strict=True):
            leaf.grad = grad
        reference.step()
        for found, leaf in zip(params.values(), leaves, strict=True):
            torch.testing.assert_close(found, leaf.detach(), rtol=1e-13, atol=1e-13)


def test_the_default_root_of_adam_hardly_moves_its_steps() -> None:
    exact, rooted = trajectory(Adam(lr=0.03, eps_root=0.0))[-1][0], trajectory(Adam(lr=0.03))[-1][0]
    assert all((exact[k] - rooted[k]).abs().max() < 1e-7 for k in exact)


def test_forward_only_momentum_steps_as_momentum_does_to_the_bit() -> None:
    for (one, one_state), (other, other_state) in zip(
        trajectory(SGDMomentum()), trajectory(ForwardOnlyMomentum()), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(flat(one, one_state), flat(other, other_state), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_changes_nothing_it_is_given_and_repeats_to_the_bit(name: str) -> None:
    optimizer = inner_optimizers[name].build()
    params = weights()
    state = optimizer.init(params)
    for step in range(3):
        grads = drawn_grads(step)
        given = [*flat(params, state), *grads.values()]
        versions, values = [v._version for v in given], [v.clone() for v in given]
        found, again = optimizer.step(params, grads, state), optimizer.step(params, grads, state)
        assert [v._version for v in given] == versions
        assert all(torch.equal(a, b) for a, b in zip(given, values, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(flat(*found), flat(*again), strict=True))
        params, state = found


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_keeps_names_shapes_and_types(name: str, dtype: torch.dtype) -> None:
    optimizer = inner_optimizers[name].build()
    params = {k: v.to(dtype) for k, v in weights().items()}
    state = optimizer.init(params)
    after, after_state = optimizer.step(params, {k: v.to(dtype) for k, v in drawn_grads(0).items()}, state)

    def form(parts: State) -> dict:
        return {slot: {k: (v.shape, v.dtype) for k, v in part.items()} for slot, part in parts.items()}

    assert form({"w": after}) == form({"w": params}) and form(after_state) == form(state)
    assert all(v.dtype == dtype and not v.requires_grad for v in flat(after, after_state))
    assert all((after[k] != params[k]).any() for k in params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_detached_state_goes_on_with_the_same_values(name: str) -> None:
    """What truncation and checkpoints rely on: the state is nothing but tensors."""
    optimizer = inner_optimizers[name].build()
    leaves = {k: v.requires_grad_() for k, v in weights().items()}
    params, state = optimizer.step(leaves, drawn_grads(0), optimizer.init(leaves))
    cut = {slot: {k: v.detach().clone() for k, v in part.items()} for slot, part in state.items()}
    whole = optimizer.step(params, drawn_grads(1), state)
    resumed = optimizer.step({k: v.detach() for k, v in params.items()}, drawn_grads(1), cut)
    assert all(torch.equal(a, b) for a, b in zip(flat(*whole), flat(*resumed), strict=True))
    assert not any(v.requires_grad for v in flat(*resumed))


# ---------------------------------------------------------------- hypergradients


def quadratic(optimizer: Optimizer, steps: int = 7) -> torch.Tensor:
    """d (c.w_T) / dx for inner losses w'Hw/2 - x.w: their Hessian is constant, so is the way back of plain descent."""
    root, c = numbers(3, 3, name="root"), numbers(3, name="c")
    hessian = root @ root.T

    def inner(params: Params, inputs: Params, t: int) -> torch.Tensor:
        return params["w"] @ hessian @ params["w"] / 2 - inputs["x"] @ params["w"]

    start, inputs = {"w": numbers(3, name="w")}, {"x": numbers(3, name="x")}
    return hypergradient(InnerLoop(inner, optimizer, inputs), [lambda params: c @ params["w"]], start, steps).gradients[
        "x"
    ]


def test_on_a_quadratic_forward_only_momentum_goes_back_as_plain_descent() -> None:
    forward_only = quadratic(ForwardOnlyMomentum(lr=0.05, momentum=0.9))
    torch.testing.assert_close(forward_only, quadratic(NoMomentum(lr=0.05)), rtol=1e-12, atol=0)
    full = quadratic(SGDMomentum(lr=0.05, momentum=0.9))
    assert full.norm() > 2 * forward_only.norm()


def test_on_a_quadratic_the_way_back_is_the_sum_in_closed_form() -> None:
    """w_T = ... + lr (1 + M + ... + M^(T-1)) x with M = 1 - lr H, so the gradient is that symmetric matrix times c."""
    root, c = numbers(3, 3, name="root"), numbers(3, name="c")
    m = torch.eye(3, dtype=torch.float64) - 0.05 * root @ root.T
    expected = 0.05 * sum((torch.linalg.matrix_power(m, t) @ c for t in range(7)), torch.zeros_like(c))
    torch.testing.assert_close(quadratic(NoMomentum(lr=0.05)), expected, rtol=1e-12, atol=0)


def curved(params: Params, inputs: Params, t: int) -> torch.Tensor:
    """A loss with a third derivative and another mini-batch at every step."""
    x = inputs["x"][t % 2 :: 2]
    hidden = torch.tanh(x @ params["first"])
    return cross_entropy(hidden @ params["second"], torch.arange(len(x)) % 2)


def judged(params: Params) -> torch.Tensor:
    return cross_entropy(
        torch.tanh(numbers(5, 3, name="real") @ params["first"]) @ params["second"], torch.arange(5) % 2
    )


def problem() -> tuple[Params, Params]:
    params = {"first": numbers(3, 4, name="first"), "second": numbers(4, 2, name="second")}
    return params, {"x": numbers(6, 3, name="x")}


def by_recursion(way: str, lr: float, momentum: float, steps: int) -> torch.Tensor:
    """The reverse sweep for gradient descent with momentum, derived by hand.

    Going back through w' = w - lr v', v' = momentum v + g: the velocity's cotangent takes -lr times the weight's, hands
    its share to the gradient g, and goes on times the momentum; 'forward only' drops it there.
    """
    params, inputs = problem()
    x = inputs["x"].requires_grad_()
    mu = 0.0 if way == "none" else momentum
    w = {k: v.requires_grad_() for k, v in params.items()}
    velocity = {k: torch.zeros_like(v) for k, v in w.items()}
    passed = []
    for t in range(steps):
        passed.append(w)
        grads = torch.autograd.grad(curved(w, {"x": x}, t), list(w.values()))
        velocity = {k: mu * velocity[k] + g for k, g in zip(w, grads, strict=True)}
        w = {k: (v - lr * velocity[k]).detach().requires_grad_() for k, v in w.items()}

    a = list(torch.autograd.grad(judged(w), list(w.values())))
    u = [torch.zeros_like(v) for v in a]
    total = torch.zeros_like(x)
    for t in reversed(range(steps)):
        w = passed[t]
        u = [u_k - lr * a_k for u_k, a_k in zip(u, a, strict=True)]
        grads = torch.autograd.grad(curved(w, {"x": x}, t), list(w.values()), create_graph=True)
        product = sum((g * u_k).sum() for g, u_k in zip(grads, u, strict=True))
        *to_w, to_x = torch.autograd.grad(product, [*w.values(), x])
        total += to_x
        a = [a_k + h for a_k, h in zip(a, to_w, strict=True)]
        u = [(mu if way == "full" else 0.0) * u_k for u_k in u]
    return total


@pytest.mark.parametrize(
    ("way", "optimizer"),
    [
        ("full", SGDMomentum(lr=0.3, momentum=0.7)),
        ("forward only", ForwardOnlyMomentum(lr=0.3, momentum=0.7)),
        ("none", NoMomentum(lr=0.3)),
    ],
)
def test_the_three_arms_of_the_momentum_table_are_the_recursions_written_by_hand(
    way: str, optimizer: Optimizer
) -> None:
    expected = by_recursion(way, 0.3, 0.7, steps=6)
    start, inputs = problem()
    found = hypergradient(InnerLoop(curved, optimizer, inputs), [judged], start, 6).gradients["x"]
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)


def test_the_three_arms_differ() -> None:
    ways = [by_recursion(way, 0.3, 0.7, steps=6) for way in ("full", "forward only", "none")]
    for i, one in enumerate(ways):
        assert all((one - other).norm() > 0.01 * one.norm() for other in ways[:i])
    first, after_one = by_recursion("full", 0.3, 0.7, 1), by_recursion("forward only", 0.3, 0.7, 1)
    torch.testing.assert_close(first, after_one)  # one step carries nothing on


@pytest.mark.parametrize("engine", [hypergradient, hypergradient_by_full_graph])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_unit_that_is_dead_leaves_the_hypergradient_finite(name: str, engine: Any) -> None:
    found = _with_a_dead_unit(inner_optimizers[name].build(), engine).gradients["x"]
    assert found.isfinite().all() and found.norm() > 0


@pytest.mark.parametrize("engine", [hypergradient, hypergradient_by_full_graph])
def test_without_a_root_the_dead_unit_makes_adam_fail(engine: Any) -> None:
    """Shows that the test above can fail: the derivative of a root at zero is infinite."""
    found = _with_a_dead_unit(Adam(eps_root=0.0), engine)
    assert found.loss.isfinite() and found.gradients["x"].isnan().any()


def _with_a_dead_unit(optimizer: Optimizer, engine: Any) -> Hypergradient:
    """Two hidden units, of which the second is off for every image: its gradient is zero, but computed from them."""

    def scores(params: Params, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ params["first"] + params["shift"]) @ params["second"]

    def inner(params: Params, inputs: Params, t: int) -> torch.Tensor:
        return cross_entropy(scores(params, inputs["x"]), torch.arange(4) % 2)

    def outer(params: Params) -> torch.Tensor:
        return cross_entropy(scores(params, numbers(4, 3, name="real")), torch.arange(4) % 2)

    params = {
        "first": numbers(3, 2, name="first"),
        "shift": torch.tensor([3.0, -100.0], dtype=torch.float64),
        "second": numbers(2, 2, name="second"),
    }
    inputs = {"x": numbers(4, 3, name="x")}
    leaf = {k: v.requires_grad_() for k, v in params.items()}
    grad = torch.autograd.grad(inner(leaf, inputs, 0), leaf["first"])[0]
    assert (grad[:, 1] == 0).all() and (grad[:, 0] != 0).all()
    return engine(InnerLoop(inner, optimizer, inputs), [outer], params, 3)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("build", "settings", "words"),
    [
        (SGDMomentum, {"lr": 0.0}, "SGDMomentum.lr must be above 0, not 0.0"),
        (SGDMomentum, {"momentum": 1.0}, "SGDMomentum.momentum must be at least 0 and below 1, not 1.0"),
        (SGDMomentum, {"momentum": -0.1}, "SGDMomentum.momentum must be at least 0 and below 1"),
        (ForwardOnlyMomentum, {"lr": -1.0}, "ForwardOnlyMomentum.lr must be above 0"),
        (ForwardOnlyMomentum, {"momentum": 1.5}, "ForwardOnlyMomentum.momentum must be at least 0 and below 1"),
        (NoMomentum, {"lr": 0.0}, "NoMomentum.lr must be above 0"),
        (Adam, {"lr": 0.0}, "Adam.lr must be above 0"),
        (Adam, {"b1": 1.0}, "Adam.b1 must be at least 0 and below 1"),
        (Adam, {"b2": -0.5}, "Adam.b2 must be at least 0 and below 1"),
        (Adam, {"eps": 0.0}, "Adam.eps must be above 0"),
        (Adam, {"eps_root": -1e-12}, "Adam.eps_root must be at least 0"),
        (Adam, {"lr": float("nan")}, "Adam.lr must be above 0, not nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(build: Any, settings: dict, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(**settings)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_defaults_that_work(name: str) -> None:
    for params, state in trajectory(inner_optimizers[name].build()):
        assert all(v.isfinite().all() for v in flat(params, state))
