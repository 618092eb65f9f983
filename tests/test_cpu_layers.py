"""The faster network is the same network: values, gradients and second derivatives, names and parameters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.architectures.alexnet import AlexNet
from suite.architectures.convnet import ConvNet
from suite.architectures.resnet12 import ResNet12
from suite.core.convolution import Conv2d
from suite.core.cpu_layers import CONVOLUTION, GroupNorm
from suite.core.layers import to_device
from suite.keys import Key, global_generators
from suite.types import ImageShape

CPU = torch.device("cpu")
CHANNELS = 6


def numbers(*shape: int, name: str) -> Tensor:
    return torch.randn(shape, generator=Key(0)(name).generator(), dtype=torch.float64)


def norms(groups: int) -> tuple[nn.GroupNorm, GroupNorm]:
    plain = nn.GroupNorm(groups, CHANNELS).double()
    with torch.no_grad():
        plain.weight.copy_(numbers(CHANNELS, name="weight"))
        plain.bias.copy_(numbers(CHANNELS, name="bias"))
    return plain, GroupNorm(plain)


def as_function(norm: nn.GroupNorm) -> Callable[..., Tensor]:
    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    return function


FEW = (2, CHANNELS, 3, 2)
"""Images for finite differences, whose cost goes with the square of the pixels."""


def inputs(norm: nn.GroupNorm, mean: float = 0.0, images: tuple[int, ...] = (3, CHANNELS, 4, 5)) -> list[Tensor]:
    x = numbers(*images, name="x") + mean
    return [v.detach().clone().requires_grad_() for v in (x, norm.weight, norm.bias)]


GROUPS = [1, 2, 3, CHANNELS]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_derivatives_are_those_of_torch(groups: int, layout: torch.memory_format) -> None:
    found = []
    for norm in norms(groups):
        x, weight, bias = inputs(norm, mean=1.0)
        y = as_function(norm)(x.contiguous(memory_format=layout), weight, bias)
        cotangent = torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()
        first = torch.autograd.grad((y.sin() * cotangent).sum(), (x, weight, bias), create_graph=True)
        # Each gradient with a weight of its own, so that all three of its cotangents are tried.
        mixed = torch.stack([(g.sin() * (i + 1)).sum() for i, g in enumerate(first)]).sum()
        found.append([y, *first, *torch.autograd.grad(mixed, (x, weight, bias))])
    for one, other in zip(*found, strict=True):
        assert other.norm() > 0
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("groups", GROUPS)
def test_both_derivatives_are_those_of_finite_differences(groups: int) -> None:
    norm = norms(groups)[1]
    assert torch.autograd.gradcheck(as_function(norm), inputs(norm, images=FEW))
    assert torch.autograd.gradgradcheck(as_function(norm), inputs(norm, images=FEW))


def test_a_third_derivative_is_refused_not_wrong() -> None:
    norm = norms(2)[1]
    x, weight, bias = inputs(norm)
    (first,) = torch.autograd.grad(as_function(norm)(x, weight, bias).sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.sin().sum(), x, create_graph=True)


def test_single_precision_is_as_good_as_torchs() -> None:
    """Judged by double precision, where the mean is ten times the deviation."""
    errors = []
    for norm in norms(CHANNELS):
        exact = second(norm, torch.float64)
        found = second(norm, torch.float32)
        errors.append([float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)])
    for plain, ours in zip(*errors, strict=True):
        assert 0 < ours < 4 * plain


def second(norm: nn.GroupNorm, dtype: torch.dtype) -> tuple[Tensor, ...]:
    leaves = [v.detach().to(dtype).requires_grad_() for v in inputs(norm, mean=10.0)]
    y = as_function(norm)(*leaves)
    weights = torch.arange(y.numel()).view_as(y).cos().to(dtype)
    first = torch.autograd.grad((y.square() * weights).sum(), leaves, create_graph=True)
    return torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves)


CONVOLUTIONS = {
    "ConvNet's": {},
    "strided, without bias": {"stride": 2, "bias": False},
    "in groups": {"groups": 3, "padding": 2},
    "dilated": {"dilation": (1, 2), "kernel_size": (3, 1)},
}


def convolutions(name: str) -> tuple[nn.Conv2d, Conv2d]:
    with global_generators(Key(0)):
        plain = nn.Conv2d(CHANNELS, 3, **({"kernel_size": 3, "padding": 1} | CONVOLUTIONS[name])).double()
    return plain, Conv2d(plain, CONVOLUTION)


def as_convolution(
    layer: nn.Conv2d, images: tuple[int, ...] = (2, CHANNELS, 6, 5)
) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The layer as a function of its images and parameters, and values of these."""
    names = [name for name, _ in layer.named_parameters()]
    leaves = [numbers(*images, name="x"), *layer.parameters()]

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return function, [v.detach().clone().requires_grad_() for v in leaves]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_both_derivatives_of_a_convolution_are_those_of_torch(name: str) -> None:
    found = []
    for layer in convolutions(name):
        function, leaves = as_convolution(layer)
        y = function(*leaves)
        cotangent = torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()
        first = torch.autograd.grad((y.sin() * cotangent).sum(), leaves, create_graph=True)
        # Each gradient with a weight of its own, so that all of its cotangents are tried; and each of them alone.
        kinds = [torch.stack([(g.sin() * (i + 1)).sum() for i, g in enumerate(first)]).sum()]
        kinds += [g.sin().sum() for g in first]
        seconds = [torch.autograd.grad(kind, leaves, retain_graph=True, materialize_grads=True) for kind in kinds]
        found.append([y, *first, *(v for second in seconds for v in second)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_both_derivatives_of_a_convolution_are_those_of_finite_differences(name: str) -> None:
    function, leaves = as_convolution(convolutions(name)[1], FEW)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_a_third_derivative_of_a_convolution_is_refused_not_wrong() -> None:
    function, leaves = as_convolution(convolutions("ConvNet's")[1])
    (first,) = torch.autograd.grad(function(*leaves).sin().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.sin().sum(), leaves[0], create_graph=True)


def test_an_unroll_stays_in_channels_last_layout() -> None:
    """With weights as an inner step leaves them, contiguous: outputs, their gradients and both second derivatives."""
    network = to_device(ConvNet(width=4).build(ImageShape(1, 16, 16), 3), CPU)
    weights = {name: w.detach().clone(memory_format=torch.contiguous_format) for name, w in network.named_parameters()}
    weights = {name: w.contiguous().requires_grad_() for name, w in weights.items()}
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
        y.register_hook(seen.append)  # called with its gradient, in both backward passes
        seen.append(y)

    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(keep)
    images = numbers(2, 1, 16, 16, name="images").float().requires_grad_()
    loss = torch.func.functional_call(network, weights, (images,)).square().sum()
    first = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), images)
    assert len(seen) == 3 * 3  # blocks, and an output, its gradient, and that of the second derivative
    assert all(v.is_contiguous(memory_format=torch.channels_last) for v in seen)
    assert not any(v.is_contiguous() for v in seen)


def test_the_second_derivative_s_own_output_is_channels_last_too() -> None:
    """Of grey images, whose layout says nothing: the cotangent of g follows that of the weights' gradient."""
    layer = to_device(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)), CPU)[0]
    images = numbers(2, 1, 8, 8, name="images").float()
    g = torch.ones(2, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    (gw,) = torch.autograd.grad(layer(images), layer.weight, g, create_graph=True)
    (d_g,) = torch.autograd.grad(gw, g, torch.ones(4, 1, 3, 3))
    assert d_g.is_contiguous(memory_format=torch.channels_last) and not d_g.is_contiguous()


@pytest.mark.parametrize("recipe", [ConvNet(width=4), ConvNet(width=4, norm="layer"), ResNet12(width=4), AlexNet()])
def test_a_network_keeps_its_names_values_and_outputs(recipe: Any) -> None:
    def build() -> nn.Module:
        with global_generators(Key(0)):
            return recipe.build(ImageShape(3, 16, 16), 5).double()

    plain, made = build(), to_device(build(), CPU)
    assert any(isinstance(part, GroupNorm) for part in made.modules())
    assert [k for k, _ in plain.named_parameters()] == [k for k, _ in made.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), made.parameters(), strict=True))
    assert list(plain.state_dict()) == list(made.state_dict())
    x = numbers(2, 3, 16, 16, name="images")
    torch.testing.assert_close(made(x), plain(x), rtol=1e-12, atol=1e-12)


def test_what_it_has_no_twin_for_stays() -> None:
    parts = nn.Sequential(nn.BatchNorm2d(2), nn.GroupNorm(1, 2, affine=False), nn.LayerNorm(4))
    assert [type(part) for part in to_device(parts, CPU)] == [nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm]
    made = to_device(nn.Sequential(nn.GroupNorm(1, 2)), CPU)
    flat = torch.randn(3, 2, generator=Key(0).generator())
    torch.testing.assert_close(made(flat), nn.GroupNorm(1, 2)(flat))
    parts = nn.Sequential(nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, 1, 1, padding_mode="reflect"))
    assert {type(part) for part in to_device(parts, CPU)} == {nn.Conv2d}
    hooked = nn.Conv2d(2, 2, 3)
    hooked.register_forward_hook(lambda *_: None)
    for layer in (nn.utils.spectral_norm(nn.Conv2d(2, 2, 3)), hooked):
        assert to_device(nn.Sequential(layer), CPU)[0] is layer
    plain = nn.Conv2d(2, 2, 3)
    image = torch.randn(2, 5, 5, generator=Key(0).generator())
    torch.testing.assert_close(Conv2d(plain, CONVOLUTION)(image), plain(image))


def test_elsewhere_than_on_a_cpu_a_network_is_only_moved() -> None:
    made = to_device(nn.Sequential(nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2)), torch.device("meta"))
    assert [type(part) for part in made] == [nn.Conv2d, nn.GroupNorm] and made[0].weight.is_meta
    assert made[0].weight.is_contiguous()
