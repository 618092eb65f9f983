"""Augmentations: equal to torch's own sampling, drawn by the key alone, differentiable twice."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import affine_grid, grid_sample

from suite.errors import UsageError
from suite.images.augment import AUGMENTATIONS, PADDING, crop, draw, flip, rotate
from suite.keys import Key


def pictures(n: int = 5, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, channels, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def torch_rotate(images: torch.Tensor, radians: torch.Tensor) -> torch.Tensor:
    """Bilinear sampling on a turned grid of square images."""
    radians = radians.to(images).expand(len(images))
    zero = torch.zeros_like(radians)
    rows = [torch.stack([radians.cos(), -radians.sin(), zero], 1), torch.stack([radians.sin(), radians.cos(), zero], 1)]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def draws(name: str, count: int, n: int | None = None) -> list:
    return [draw(name, Key(0)("test", step), n) for step in range(count)]


def angle_of(operation) -> torch.Tensor:
    return operation.keywords["radians"]


@pytest.mark.parametrize("size", [7, 8, 32])
@pytest.mark.parametrize("degrees", [-15.0, -0.1, 0.0, 7.3, 15.0, 45.0, 90.0])
def test_rotation_samples_as_torch_does(size: int, degrees: float) -> None:
    images, radians = pictures(size=size), torch.tensor([math.radians(degrees)], dtype=torch.float64)
    torch.testing.assert_close(rotate(images, radians), torch_rotate(images, radians), rtol=0, atol=1e-10)


def test_rotation_takes_an_angle_for_each_image_and_float32() -> None:
    images, radians = pictures(), torch.linspace(-0.26, 0.26, 5, dtype=torch.float64)
    turned = rotate(images, radians)
    torch.testing.assert_close(turned, torch_rotate(images, radians), rtol=0, atol=1e-12)
    torch.testing.assert_close(rotate(images.float(), radians), turned.float(), rtol=0, atol=1e-5)
    assert not torch.allclose(turned[0], rotate(images, radians[4:])[0])


def test_rotation_keeps_the_centre_and_fills_corners_with_zeros() -> None:
    images = torch.ones(1, 1, 9, 9, dtype=torch.float64)
    turned = rotate(images, torch.tensor([math.radians(15)], dtype=torch.float64))[0, 0]
    assert turned[4, 4] == 1 and abs(turned[3:6, 3:6] - 1).max() < 1e-12 and turned[0, 0] < 0.5


@pytest.mark.parametrize("shared", [True, False])
def test_rotation_has_two_derivatives(shared: bool) -> None:
    images = pictures(2, 1, 4).requires_grad_()
    radians = torch.tensor([0.2] if shared else [0.2, -0.13], dtype=torch.float64)

    def curved(x: torch.Tensor) -> torch.Tensor:
        return rotate(x.sin(), radians)

    assert gradcheck(curved, images) and gradgradcheck(curved, images)


def test_flip_has_two_derivatives() -> None:
    images = pictures(2, 1, 3).requires_grad_()
    assert gradcheck(lambda x: flip(x.sin(), torch.tensor([True])), images)
    assert gradgradcheck(lambda x: flip(x.sin(), torch.tensor([True])), images)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, on a first jvp
def test_rotation_works_under_function_transforms() -> None:
    images, radians = pictures(2, 1, 4), torch.tensor([0.2], dtype=torch.float64)
    weights = pictures(2, 1, 4).cos()
    given = torch.func.grad(lambda x: (rotate(x, radians) * weights).sum())(images)
    torch.testing.assert_close((given * images).sum(), (rotate(images, radians) * weights).sum())
    _, pushed = torch.func.jvp(lambda x: rotate(x, radians), (images,), (weights,))
    torch.testing.assert_close(pushed, rotate(weights, radians))


def test_a_shared_draw_does_the_same_to_every_image_of_any_batch() -> None:
    for operation in draws("flip_rotate", 12):
        one, many = pictures(1), pictures(1).expand(6, -1, -1, -1)
        assert all(torch.equal(image, operation(one)[0]) for image in operation(many))


def test_half_of_the_draws_rotate_and_half_of_the_flips_flip() -> None:
    images = pictures(1, 1, 4)
    operations = draws("flip_rotate", 2000)
    turning = [operation for operation in operations if operation.func is rotate]
    flipping = [operation for operation in operations if operation.func is flip]
    flipped = sum(not torch.equal(operation(images), images) for operation in flipping)
    assert len(turning) + len(flipping) == 2000 and abs(len(turning) - 1000) < 100  # 4.5 standard deviations
    assert abs(flipped / len(flipping) - 0.5) < 0.075
    assert all(
        torch.equal(operation(images), images) or torch.equal(operation(images), images.flip(-1))
        for operation in flipping
    )

    degrees = torch.rad2deg(torch.cat([angle_of(operation) for operation in turning]))
    assert degrees.abs().max() <= 15 and degrees.min() < -14 and degrees.max() > 14
    assert abs(degrees.mean()) < 1.5 and abs(degrees.std() - 30 / math.sqrt(12)) < 0.6


def test_a_batch_draw_has_one_operation_and_a_parameter_for_each_image() -> None:
    operations = draws("flip_rotate", 40, n=64)
    images = pictures(1).expand(64, -1, -1, -1)
    for operation in operations:
        changed = operation(images)
        if operation.func is rotate:
            assert len(angle_of(operation).unique()) == 64
        else:
            flipped = [torch.equal(image, images[0].flip(-1)) for image in changed]
            assert 0 < sum(flipped) < 64 and all(
                torch.equal(i, images[0]) for i, f in zip(changed, flipped, strict=True) if not f
            )
    assert {operation.func for operation in operations} == {rotate, flip}


@pytest.mark.parametrize("n", [None, 5])
def test_draws_depend_on_the_key_alone(n: int | None) -> None:
    images = pictures()
    torch.manual_seed(1)
    first = [operation(images) for operation in draws("flip_rotate", 20, n)]
    torch.manual_seed(2)
    again = [operation(images) for operation in draws("flip_rotate", 20, n)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(first[0], other) for other in first)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draw("flip_rotate", Key(0), 4)(pictures(4))
    assert torch.equal(before, torch.random.get_rng_state())


def test_none_changes_nothing() -> None:
    images = pictures()
    assert draw("none", Key(0))(images) is images and draw("none", Key(0), 5)(images) is images


def test_an_unknown_augmentation_is_answered_with_the_nearest() -> None:
    assert AUGMENTATIONS[:3] == ("none", "flip_rotate", "crop_flip")
    with pytest.raises(UsageError, match="did you mean 'flip_rotate'"):
        draw("flip_rotat", Key(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_gives_the_same_images_and_repeatable_gradients() -> None:
    images = pictures(20, 3, 32, torch.float32)
    for operation in draws("flip_rotate", 8) + draws("flip_rotate", 8, n=20):
        on_device = images.cuda().requires_grad_()
        torch.testing.assert_close(operation(on_device).cpu(), operation(images), rtol=0, atol=1e-5)
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            gradients = [torch.autograd.grad(operation(on_device).square().sum(), on_device)[0] for _ in range(3)]
        finally:
            torch.use_deterministic_algorithms(before)
        assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_a_crop_shows_the_image_moved_by_whole_pixels_with_zeros_beside() -> None:
    images = torch.arange(1.0, 1 + 2 * 9).view(2, 1, 3, 3)
    same = crop(images, torch.tensor([PADDING]), torch.tensor([PADDING]))
    assert torch.equal(same, images)
    moved = crop(images, torch.tensor([PADDING + 1, 0]), torch.tensor([PADDING - 1, 0]))
    assert torch.equal(moved[0, 0], torch.tensor([[0.0, 4, 5], [0, 7, 8], [0, 0, 0]]))
    assert not moved[1].any()  # four pixels up and to the left of an image of three: zeros alone


def test_crops_and_flips_are_drawn_for_each_image_and_take_every_place() -> None:
    images = torch.zeros(4000, 1, 9, 9)
    images[:, 0, 4, 4] = 1
    found = draw("crop_flip", Key(0), len(images))(images).flatten(2).argmax(2)[:, 0]
    counts = found.bincount(minlength=81)
    assert (counts > 0).all() and counts.max() < 100  # 49 on average
    one = draw("crop_flip", Key(0))(images)
    assert (one == one[:1]).all()
    plain = torch.arange(9.0).view(1, 1, 3, 3)
    seen = {tuple(draw("crop_flip", Key(i))(plain).flatten().tolist()) for i in range(400)}
    assert tuple(plain.flatten().tolist()) in seen and tuple(plain.flip(-1).flatten().tolist()) in seen
