"""Architectures: counted by hand, fitted to the image, and differentiable twice."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from suite.architectures.alexnet import AlexNet
from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.architectures.module import Module
from suite.architectures.resnet12 import ResNet12
from suite.architectures.strided_convnet import StridedConvNet
from suite.architectures.timm_models import Timm
from suite.core.foretold import network_numbers
from suite.core.networks import require_unrollable
from suite.errors import UsageError
from suite.keys import Key, global_generators
from suite.registry import architectures
from suite.types import ImageShape

COLOUR, GREY, SMALL = ImageShape(3, 32, 32), ImageShape(1, 28, 28), ImageShape(1, 8, 8)


def built(recipe: Any, shape: ImageShape = COLOUR, classes: int = 10) -> Any:
    with global_generators(Key(0)("network")):
        return recipe.build(shape, classes)


def images(shape: ImageShape, n: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    size = (n, shape.channels, shape.height, shape.width)
    return torch.randn(size, generator=Key(0)("images").generator(), dtype=dtype)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# ---------------------------------------------------------------- sizes


def convolution(before: int, after: int, kernel: int, bias: bool = True) -> int:
    return before * after * kernel**2 + (after if bias else 0)


def linear(before: int, after: int) -> int:
    return before * after + after


def convnet(channels: int, depth: int, side: int, classes: int, width: int = 128) -> int:
    blocks = convolution(channels, width, 3) + (depth - 1) * convolution(width, width, 3) + depth * 2 * width
    return blocks + linear(width * side**2, classes)


def resnet12(channels: int, classes: int, convolutions: int) -> int:
    total, before = convolution(channels, 64, 3, bias=False) + 2 * 64, 64
    for after in (64, 128, 256, 512):
        total += convolution(before, after, 3, bias=False) + (convolutions - 1) * convolution(
            after, after, 3, bias=False
        )
        total += convolutions * 2 * after
        total += 0 if before == after else convolution(before, after, 1, bias=False) + 2 * after
        before = after
    return total + linear(512 * 4 * 4, classes)


def strided(channels: int, flat: int, width: int, classes: int) -> int:
    convolutions = convolution(channels, width, 3) + 2 * convolution(width, width, 3)
    return convolutions + linear(flat, 2 * width) + linear(2 * width, 2 * width) + linear(2 * width, classes)


def alexnet(channels: int, classes: int) -> int:
    layers = [(channels, 128, 5), (128, 192, 5), (192, 256, 3), (256, 192, 3), (192, 192, 3)]
    return sum(convolution(*layer) + 2 * layer[1] for layer in layers) + linear(192 * 4 * 4, classes)


@pytest.mark.parametrize(
    ("recipe", "shape", "classes", "expected"),
    [
        (ConvNet(), COLOUR, 10, 320_010),
        (ConvNet(), COLOUR, 100, convnet(3, 3, 4, 100)),
        (ConvNet(), GREY, 10, convnet(1, 3, 4, 10)),
        (ConvNet(), ImageShape(3, 64, 64), 200, convnet(3, 4, 4, 200)),
        (ConvNet(), ImageShape(3, 84, 84), 5, convnet(3, 4, 5, 5)),
        (ConvNet(), SMALL, 10, convnet(1, 2, 2, 10)),
        (ConvNet(width=7, depth=1), SMALL, 3, convnet(1, 1, 4, 3, width=7)),
        (ConvNet(norm="none"), COLOUR, 10, 320_010 - 3 * 2 * 128),
        (ResNet12(), COLOUR, 10, resnet12(3, 10, 2)),
        (ResNet12(convolutions=3), COLOUR, 10, resnet12(3, 10, 3)),
        (AlexNet(), COLOUR, 10, alexnet(3, 10)),
        (AlexNet(), GREY, 10, alexnet(1, 10)),
        (MLP(), COLOUR, 10, linear(3072, 256) + linear(256, 256) + linear(256, 10)),
        (MLP(width=100, depth=1), GREY, 10, linear(784, 100) + linear(100, 10)),
        (StridedConvNet(), COLOUR, 100, strided(3, 2560, 160, 100)),
        (StridedConvNet(width=8), SMALL, 4, strided(1, 8, 8, 4)),
    ],
)
def test_parameters_are_as_many_as_counted_by_hand(recipe: Any, shape: ImageShape, classes: int, expected: int) -> None:
    assert count(built(recipe, shape, classes)) == expected
    assert convnet(3, 3, 4, 10) == 320_010


@pytest.mark.parametrize(
    ("recipe", "shape", "features"),
    [
        (ConvNet(), COLOUR, 2048),
        (ConvNet(), GREY, 2048),
        (ConvNet(), ImageShape(3, 64, 64), 2048),
        (ConvNet(), ImageShape(1, 63, 63), 128 * 7 * 7),
        (ConvNet(), ImageShape(1, 16, 16), 128 * 2 * 2),
        (ConvNet(), ImageShape(1, 15, 15), 128 * 3 * 3),
        (ConvNet(), SMALL, 128 * 2 * 2),
        (ConvNet(pooling="max", activation_first=True), COLOUR, 2048),
        (ResNet12(), COLOUR, 8192),
        (ResNet12(), SMALL, 512 * 2 * 2),
        (AlexNet(), COLOUR, 3072),
        (AlexNet(), GREY, 3072),
        (MLP(), GREY, 256),
        (Timm("resnet18", "group"), COLOUR, 512),
        (Timm("vit_tiny_patch16_224"), COLOUR, 192),
    ],
)
def test_scores_are_the_head_of_the_features(recipe: Any, shape: ImageShape, features: int) -> None:
    network, x = built(recipe, shape, 7).eval(), images(shape)
    seen = network.features(x)
    assert seen.shape == (2, features) and network(x).shape == (2, 7)
    head = network.model.get_classifier() if isinstance(recipe, Timm) else network.head
    torch.testing.assert_close(network(x), head(seen))


def test_images_of_28_pixels_become_32() -> None:
    """Two rings of zeros around the image, and the same convolutions on them, give the same scores."""
    for recipe, same in ((ConvNet(width=8), 1), (AlexNet(), 2)):
        grown, plain = built(recipe, GREY), built(recipe, ImageShape(1, 32, 32))
        plain.load_state_dict(grown.state_dict())
        assert grown.body[0].padding == (same + 2, same + 2) and plain.body[0].padding == (same, same)
        x = images(GREY)
        torch.testing.assert_close(grown(x), plain(nn.functional.pad(x, (2, 2, 2, 2))))


@pytest.mark.parametrize(
    ("recipe", "shape", "words"),
    [
        (ConvNet(), ImageShape(1, 3, 3), "convnet halves the image 2 times, too often for images of 3x3"),
        (ConvNet(depth=6), COLOUR, "convnet halves the image 6 times, too often for images of 32x32"),
        (ConvNet(), ImageShape(1, 32, 4), "convnet halves the image 3 times, too often for images of 32x4"),
        (AlexNet(), ImageShape(3, 7, 7), "alexnet halves the image 3 times, too often for images of 7x7"),
    ],
)
def test_images_that_are_too_small_are_refused_in_one_sentence(recipe: Any, shape: ImageShape, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        recipe.build(shape, 10)
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("build", "settings", "words"),
    [
        (ConvNet, {"width": 0}, "ConvNet.width must be above 0"),
        (ConvNet, {"depth": 0}, "ConvNet.depth must be above 0 and at most 10,000, or None"),
        (ResNet12, {"convolutions": 0}, "ResNet12.convolutions must be above 0"),
        (MLP, {"depth": -1}, "MLP.depth must be above 0"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(build: Any, settings: dict, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(**settings)
    assert words in str(refused.value) and "\n" not in str(refused.value)


# ---------------------------------------------------------------- layers


def test_blocks_come_in_the_order_asked_for() -> None:
    def kinds(recipe: ConvNet) -> list[type]:
        return [type(layer) for layer in built(recipe, SMALL).body[:4]]

    assert kinds(ConvNet(width=4)) == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d]
    assert kinds(ConvNet(width=4, activation_first=True)) == [nn.Conv2d, nn.ReLU, nn.GroupNorm, nn.AvgPool2d]
    assert kinds(ConvNet(width=4, norm="batch", pooling="max")) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]


def test_alexnet_pools_after_its_first_second_and_fifth_convolution() -> None:
    body = built(AlexNet()).body
    assert [type(layer) for layer in body[:4]] == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d]
    marks = {nn.Conv2d: "c", nn.AvgPool2d: "p"}
    assert "".join(marks.get(type(layer), "") for layer in body) == "cpcpcccp"


def test_the_stages_of_resnet12_halve_the_image_as_long_as_there_is_something_to_halve() -> None:
    def sides(side: int) -> list[int]:
        network, x = built(ResNet12(width=4), ImageShape(3, side, side)), images(ImageShape(3, side, side))
        found = []
        for layer in network.body:
            x = layer(x)
            found.append(x.shape[-1])
        return found[2:]

    assert sides(32) == [32, 32, 16, 8, 4] and sides(8) == [8, 8, 4, 2, 2] and sides(28) == [28, 28, 14, 7, 3]


def test_the_norm_is_torchs_instance_norm() -> None:
    layer = built(ConvNet(width=6), SMALL).body[1]
    x = images(ImageShape(6, 8, 8))
    torch.testing.assert_close(layer(x), nn.InstanceNorm2d(6)(x), rtol=1e-5, atol=1e-5)
    assert (layer.weight == 1).all() and (layer.bias == 0).all()


@pytest.mark.parametrize("recipe", [ConvNet(width=4), ResNet12(width=4), AlexNet(), MLP(width=4)])
def test_an_image_is_scored_alike_alone_or_among_others(recipe: Any) -> None:
    network, x = built(recipe, ImageShape(3, 16, 16)), images(ImageShape(3, 16, 16), 5)
    torch.testing.assert_close(network(x)[3:4], network(x[3:4]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        *((build(), shape) for build in (ConvNet, ResNet12, MLP) for shape in (COLOUR, GREY, SMALL)),
        *((AlexNet(), shape) for shape in (COLOUR, GREY)),
        *((Timm("resnet18", norm), COLOUR) for norm in ("instance", "group", "layer")),
        (Timm("vit_tiny_patch16_224"), COLOUR),
    ],
)
def test_scores_depend_on_the_image(recipe: Any, shape: ImageShape) -> None:
    """A network that can't see its images learns nothing, and the hypergradient through it is zero, in silence.

    An architecture may refuse such a combination instead.
    """
    try:
        network = built(recipe, shape)
    except UsageError:
        return
    x = images(shape, 4).requires_grad_()
    scores = network(x)
    assert (scores[1:] - scores[0]).detach().abs().max() > 1e-3
    assert torch.autograd.grad(scores[:, 0].sum(), x)[0].norm() > 1e-3


# ---------------------------------------------------------------- derivatives

TINY: list[Any] = [
    ConvNet(width=2, activation="silu"),
    ConvNet(width=2, norm="layer", activation="sigmoid"),
    ConvNet(width=2, norm="group", activation="elu", activation_first=True),
    ResNet12(width=2, activation="silu"),
    AlexNet(activation="silu"),
    MLP(width=3, activation="silu"),
    MLP(width=3),
    StridedConvNet(width=2, activation="silu"),
    Timm("vit_tiny_patch16_224"),
    Timm("resnet18", "group"),
    Module("torchvision.models:resnet18", norm="group"),
]


@pytest.mark.parametrize("recipe", TINY, ids=repr)
def test_derivatives_of_two_orders_are_those_of_finite_differences(recipe: Any) -> None:
    """In the images, and in the parameters where they are few."""
    shape = COLOUR if isinstance(recipe, (Timm, Module)) else SMALL
    network = built(recipe, shape, 2).double().eval()
    x = images(shape, 2, torch.float64).requires_grad_()
    weights = dict(network.named_parameters())
    few = {k: v.detach().requires_grad_() for k, v in weights.items()} if count(network) < 20_000 else {}

    def smooth(x: Tensor, *tensors: Tensor) -> Tensor:
        params = dict(zip(few, tensors, strict=True))
        return functional_call(network, params, (x,)).log_softmax(1)[:, 0]

    given = (x, *few.values())
    assert gradcheck(smooth, given, fast_mode=True) and gradgradcheck(smooth, given, fast_mode=True)


def test_every_architecture_of_the_suite_is_checked_above() -> None:
    ours = {entry.build for entry in architectures if entry.origin.startswith("suite.")}
    assert ours == {type(recipe) for recipe in TINY}


# ---------------------------------------------------------------- timm


def test_an_unknown_timm_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^timm has no model 'resnet81'; did you mean 'resnet\d+'\?") as refused:
        Timm("resnet81").build(COLOUR, 10)
    assert len(str(refused.value)) < 200 and "\n" not in str(refused.value)


@pytest.mark.parametrize("norm", ["instance", "group", "layer"])
@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small_050"])
def test_replacing_the_norm_of_timm_leaves_no_running_statistics(model: str, norm: Any) -> None:
    shape = ImageShape(3, 64, 64)  # at 32 pixels the last maps have one pixel, of which instance norm leaves nothing
    before, after = built(Timm(model), shape), built(Timm(model, norm), shape)
    assert any(isinstance(part, nn.BatchNorm2d) for part in before.modules())
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in after.modules())
    assert not any("running" in name for name, _ in after.named_buffers())
    assert count(after) == count(before)
    with pytest.raises(UsageError, match="keeps running statistics"):
        require_unrollable(before, "timm")


def test_replacing_the_norm_keeps_what_timm_fused_into_it() -> None:
    """mobilenet's batch norms carry the activation with them; with it gone the network would be nearly linear."""
    before, after = built(Timm("mobilenetv3_small_050")), built(Timm("mobilenetv3_small_050", "group"))

    def activations(network: nn.Module) -> list[type]:
        return [type(part) for part in network.modules() if isinstance(part, (nn.ReLU, nn.Hardswish))]

    fused = [part.act for part in before.modules() if hasattr(part, "act") and isinstance(part, nn.BatchNorm2d)]
    assert any(isinstance(act, nn.Hardswish) for act in fused)
    assert activations(after) == activations(before)


def test_numbers_of_a_large_timm_model_are_counted_without_them() -> None:
    """They were counted as none, and one of billions was made before it could be refused."""
    assert 80e6 < network_numbers(Timm("vit_base_patch16_224"), ImageShape(3, 32, 32), 10) < 90e6


def test_timm_models_are_built_for_the_images_at_hand() -> None:
    transformer = built(Timm("vit_tiny_patch16_224"), ImageShape(1, 48, 32), 7).eval()
    assert transformer(images(ImageShape(1, 48, 32))).shape == (2, 7)
    assert transformer.model.patch_embed.num_patches == 6
    assert built(Timm("resnet18"), GREY, 7).eval()(images(GREY)).shape == (2, 7)


@pytest.mark.parametrize("recipe", [ConvNet(width=4), ResNet12(width=4), MLP(width=4), Timm("vit_tiny_patch16_224")])
def test_a_network_depends_on_the_lent_generator_alone(recipe: Any) -> None:
    torch.manual_seed(1)
    one = built(recipe)
    torch.manual_seed(2)
    again = built(recipe)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    with global_generators(Key(1)("network")):
        other = recipe.build(COLOUR, 10)
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
