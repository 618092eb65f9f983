"""A GPU's layers are torch's: values, both derivatives, whole hypergradients. Its kernels run here by an interpreter.

Triton reads TRITON_INTERPRET when it is imported, so all that runs a kernel is computed by one process of its own.
"""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from command_line import REPOSITORY, ended, start
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.architectures.alexnet import AlexNet
from suite.architectures.convnet import ConvNet
from suite.architectures.resnet12 import ResNet12
from suite.contracts.problem import relative_error
from suite.core import gpu_layers
from suite.core.convolution import Conv2d
from suite.core.gpu_layers import CONVOLUTION, Fused, norm_relu_pool
from suite.core.layers import replace_for_gpu, to_device
from suite.core.unroll import Hypergradient, InnerLoop, Retention, hypergradient
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.types import ImageShape, Params

EPS = 1e-5


def numbers(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=Key(0)(name).generator(), dtype=torch.float64)


# ---------------------------------------------------------------- what the process with the interpreter computes


def plain(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    y = torch.nn.functional.group_norm(x, x.shape[1], weight, bias, eps)
    return torch.nn.functional.avg_pool2d(y.relu(), 2)


def images() -> dict[str, Tensor]:
    constant = numbers(2, 3, 1, 1, name="constant").expand(2, 3, 4, 4).clone()
    return {
        "wide": numbers(3, 2, 4, 6, name="wide"),
        "not a power of two of squares": numbers(1, 3, 10, 6, name="many"),
        "one square": numbers(2, 3, 2, 2, name="square") + 3,
        "channels last": numbers(2, 3, 4, 4, name="last").contiguous(memory_format=torch.channels_last),
        "without variance": constant,
        "zeros": torch.zeros(2, 3, 4, 4, dtype=torch.float64),
    }


def derivatives(function: Any, x: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
    """y; its gradients in x, the scale and the shift; and those of a function of these, in the gradient of y too."""
    n, channels, height, width = x.shape
    g = numbers(n, channels, height // 2, width // 2, name="g").to(x.dtype)
    leaves = [v.detach().clone().requires_grad_() for v in (x, scale, shift, g)]
    y = function(*leaves[:3], EPS)
    first = torch.autograd.grad((y.sin() * leaves[3]).sum(), leaves[:3], create_graph=True)
    # Each gradient with weights of its own, so that all three of its cotangents are tried.
    mixed = torch.stack([(v.sin() * numbers(*v.shape, name=f"{i}").to(v)).sum() for i, v in enumerate(first)]).sum()
    return [y.detach(), *(v.detach() for v in first), *torch.autograd.grad(mixed, leaves)]


def worst(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference of two tensors, of those above 1 as a part of their norm."""
    return max(float((a.double() - b).norm() / b.norm().clamp(min=1)) for a, b in zip(one, other, strict=True))


def errors_of_derivatives() -> Iterator[tuple[str, float]]:
    for name, x in images().items():
        channels = x.shape[1]
        scale, shift = 1 + numbers(channels, name="scale") / 2, numbers(channels, name="shift")
        if name == "zeros":
            shift = torch.zeros_like(shift)  # the norm gives exactly 0, ReLU's kink
        found, expected = (derivatives(f, x, scale, shift) for f in (norm_relu_pool, plain))
        yield name, worst(found, expected)


def errors_in_float32() -> dict[str, float]:
    """Against float64, where the mean is ten times the deviation: of the kernels, and of torch's own layers."""
    x = numbers(2, 3, 8, 8, name="single") + 10
    given = x.float(), 1 + numbers(3, name="scale").float() / 2, numbers(3, name="shift").float()
    exact = derivatives(plain, *(v.double() for v in given))
    return {
        "ours": worst(derivatives(norm_relu_pool, *given), exact),
        "torch": worst(derivatives(plain, *given), exact),
    }


@dataclass(frozen=True)
class Case:
    """A network whose layers are replaced, and how often an unroll of it runs the fused function."""

    recipe: Any
    shape: ImageShape
    fused: int


CASES = {
    "ConvNet": Case(ConvNet(width=3, depth=2), ImageShape(3, 8, 8), 2),
    "of one block, grey, wider than high": Case(ConvNet(width=3, depth=1), ImageShape(1, 8, 12), 1),
    "of three blocks, the last of 3x3 pixels": Case(ConvNet(width=2, depth=3), ImageShape(3, 12, 12), 2),
    "of an odd size": Case(ConvNet(width=3, depth=2), ImageShape(1, 9, 9), 1),
    "28 pixels, padded to 32": Case(ConvNet(width=2, depth=1), ImageShape(1, 28, 28), 1),
    "layer norm": Case(ConvNet(width=3, depth=2, norm="layer"), ImageShape(1, 8, 8), 0),
    "ReLU first": Case(ConvNet(width=3, depth=2, activation_first=True), ImageShape(1, 8, 8), 0),
}
STEPS = 2


def hypergradient_of(case: Case, replaced: bool) -> Hypergradient:
    shape, n = case.shape, 2
    with global_generators(Key(0)):
        network = case.recipe.build(shape, 2).double()
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.add_(0.1 * numbers(*p.shape, name=name))
    if replaced:
        replace_for_gpu(network, fused=True)
    recalled, real = (numbers(n, shape.channels, shape.height, shape.width, name=name) for name in ("inner", "outer"))
    labels = torch.arange(n) % 2

    def inner(params: Params, inputs: Params, t: int | Tensor) -> Tensor:
        return cross_entropy(functional_call(network, params, (inputs["images"],)), labels)

    def outer(params: Params) -> Tensor:
        return cross_entropy(functional_call(network, params, (real,)), labels)

    loop = InnerLoop(inner, SGDMomentum(lr=0.05), {"images": recalled})
    retention = Retention(graphs=STEPS)  # nothing is run twice
    return hypergradient(loop, [outer], dict(network.named_parameters()), STEPS, retention)


def errors_of_hypergradients() -> Iterator[tuple[str, float]]:
    calls = 0
    fused = gpu_layers.norm_relu_pool

    def counted(*given: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return fused(*given)

    gpu_layers.norm_relu_pool = counted
    for name, case in CASES.items():
        calls = 0
        expected = hypergradient_of(case, replaced=False)
        found = hypergradient_of(case, replaced=True)
        assert calls == case.fused * (STEPS + 1), (name, calls)  # of every step, and of the outer loss
        yield name, relative_error(found.gradients, expected.gradients)


def third_derivative() -> str:
    x, ones = numbers(1, 2, 4, 4, name="x").requires_grad_(), torch.ones(2, dtype=torch.float64)
    (first,) = torch.autograd.grad(norm_relu_pool(x, ones, ones, EPS).sin().sum(), x, create_graph=True)
    try:
        torch.autograd.grad(first.sin().sum(), x, create_graph=True)
    except RuntimeError as error:
        return str(error)
    return ""


def everything() -> dict[str, Any]:
    """Computed by a process with the interpreter, in which no run has started yet."""
    importlib.import_module("suite.run")
    started = [name for name in ("triton", "torch._dynamo", "torchvision") if name in sys.modules]
    return {
        "imported at the start": started,
        "derivatives": dict(errors_of_derivatives()),
        "float32": errors_in_float32(),
        "hypergradients": dict(errors_of_hypergradients()),
        "third": third_derivative(),
    }


def test_the_kernels_are_torch_s_layers_in_both_derivatives_and_in_hypergradients() -> None:
    pytest.importorskip("triton")
    code = "import json, test_gpu_layers as cases; print(json.dumps(cases.everything()))"
    paths = f"{REPOSITORY / 'tests'}"
    done = ended(start(code=["-c", code], env={"TRITON_INTERPRET": "1", "PYTHONPATH": paths}))
    assert done.status == 0, done.err[-3000:]
    found = json.loads(done.out.splitlines()[-1])
    assert found["imported at the start"] == []
    assert set(found["derivatives"]) == set(images()) and set(found["hypergradients"]) == set(CASES)
    assert all(error < 1e-11 for error in found["derivatives"].values()), found
    assert all(error < 1e-11 for error in found["hypergradients"].values()), found
    assert found["float32"]["ours"] < 4 * found["float32"]["torch"], found
    assert "third derivative" in found["third"]


# ---------------------------------------------------------------- what is replaced, and what stays


def small(recipe: Any, shape: ImageShape | None = None) -> nn.Module:
    with global_generators(Key(0)):
        network: nn.Module = recipe.build(shape or ImageShape(3, 16, 16), 5).double()
    return network


@pytest.mark.parametrize("recipe", [ConvNet(width=4), ResNet12(width=4), AlexNet()])
def test_a_network_keeps_its_names_and_parameters(recipe: Any) -> None:
    network, made = small(recipe), small(recipe)
    replace_for_gpu(made, fused=True)
    assert any(isinstance(part, Conv2d) for part in made.modules())
    assert any(isinstance(part, Fused) for part in made.modules()) != isinstance(recipe, ResNet12)
    assert [k for k, _ in network.named_parameters()] == [k for k, _ in made.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), made.parameters(), strict=True))
    assert list(network.state_dict()) == list(made.state_dict())


def test_without_triton_only_convolutions_are_replaced() -> None:
    made = small(ConvNet(width=4))
    replace_for_gpu(made, fused=False)
    assert {type(part) for part in made.body} == {Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d}
    assert type(made.body) is nn.Sequential


def block(**changed: nn.Module) -> nn.Sequential:
    parts = {"norm": nn.GroupNorm(2, 2), "activation": nn.ReLU(), "pool": nn.AvgPool2d(2)} | changed
    return nn.Sequential(*parts.values()).double()


def with_hook(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda *_: None)
    return layer


class Own(nn.ReLU):
    """Of somebody else, who may have changed it."""


OTHERS = {
    "norm": [nn.GroupNorm(1, 2), nn.GroupNorm(2, 2, affine=False), with_hook(nn.GroupNorm(2, 2))],
    "activation": [nn.SiLU(), Own(), with_hook(nn.ReLU())],
    "pool": [
        nn.MaxPool2d(2),
        nn.AvgPool2d(3),
        nn.AvgPool2d(2, stride=1),
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d(2, divisor_override=3),
    ],
}


@pytest.mark.parametrize(("part", "layer"), [(part, layer) for part, layers in OTHERS.items() for layer in layers])
def test_other_layers_in_a_row_stay(part: str, layer: nn.Module) -> None:
    made = block(**{part: layer})
    replace_for_gpu(made, fused=True)
    assert type(made) is nn.Sequential


GIVEN = {
    "an odd height": numbers(1, 2, 5, 4, name="odd"),
    "an odd width": numbers(1, 2, 4, 5, name="odd"),
    "signals, not images": numbers(3, 2, 4, name="signals"),
    "no image": numbers(0, 2, 4, 4, name="none"),
    "larger than a program holds": numbers(1, 2, 2, gpu_layers.MOST_PIXELS // 2 + 2, name="large"),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_the_kernels_do_not_take_goes_through_torch_s_layers(name: str) -> None:
    made = block()
    expected = made(GIVEN[name])
    replace_for_gpu(made, fused=True)
    assert type(made) is Fused and torch.equal(made(GIVEN[name]), expected)


def test_half_precision_goes_through_torch_s_layers() -> None:
    made, x = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), *block()).float(), numbers(1, 2, 4, 4, name="half").float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = made(x)
        replace_for_gpu(made, fused=True)
        assert torch.equal(made(x), expected)


def test_a_hook_that_comes_later_is_heard() -> None:
    made = block()
    replace_for_gpu(made, fused=True)
    heard: list[Tensor] = []
    made[1].register_forward_hook(lambda module, given, y: heard.append(y))
    made(numbers(1, 2, 4, 4, name="x"))
    assert len(heard) == 1


@pytest.mark.parametrize(
    "fields", [{}, {"groups": 3, "bias": False}, {"stride": 2, "padding": 2}, {"dilation": (1, 2)}]
)
def test_convolutions_are_torch_s_in_both_derivatives(fields: Any) -> None:
    with global_generators(Key(0)):
        layer = nn.Conv2d(6, 3, 3, **fields).double()
    found = []
    for made in (Conv2d(layer, CONVOLUTION), layer):
        leaves = [numbers(2, 6, 7, 5, name="x").requires_grad_(), *layer.parameters()]
        y = made(leaves[0])
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        mixed = torch.stack([(v.sin() * (i + 1)).sum() for i, v in enumerate(first)]).sum()
        found.append([y, *first, *torch.autograd.grad(mixed, leaves)])
    for one, other in zip(*found, strict=True):
        assert other.norm() > 0
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


COMPILED = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from suite.core import triton_kernels

made = {}
for kernel in (triton_kernels._forward, triton_kernels._backward, triton_kernels._second):
    fixed = {"C": 128, "H": 14, "W": 14, "E": 1e-5, "B": 64}
    names = kernel.arg_names
    types = {name: "constexpr" if name in fixed else "*fp32" for name in names}
    constants = {(names.index(name),): value for name, value in fixed.items() if name in names}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    made[kernel.__name__] = len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"])
print(json.dumps(made))
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu() -> None:
    """Which needs none: the interpreter takes what the compiler may refuse."""
    pytest.importorskip("triton")
    done = ended(start(code=["-c", COMPILED], env={"TRITON_INTERPRET": "0"}))
    assert done.status == 0, done.err[-3000:]
    made = json.loads(done.out.splitlines()[-1])
    assert set(made) == {"_forward", "_backward", "_second"} and all(size > 1000 for size in made.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_a_network_is_torch_s_own(name: str) -> None:
    case, where = CASES[name], torch.device("cuda")
    x = numbers(4, case.shape.channels, case.shape.height, case.shape.width, name="x").to(where)
    found = []
    for replaced in (True, False):
        network = to_device(small(case.recipe, case.shape), where, replaced)
        leaves = [x.clone().requires_grad_(), *network.parameters()]
        first = torch.autograd.grad(network(leaves[0]).sin().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(torch.stack([v.sin().sum() for v in first]).sum(), leaves, allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
