"""Memories: what a budget affords, what is recalled from it, and where gradients go."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from command_line import as_people_run_it
from outer_steps import outer_states
from torch.nn.functional import interpolate, one_hot

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.core.outer_loop import OuterState, begin
from suite.errors import UsageError
from suite.experiments.distillation import Distillation
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.image_queries import ImageQueries
from suite.parameterizations.initial import uniform
from suite.parameterizations.standard import Standard
from suite.registry import parameterizations
from suite.types import ClassRows, ImageShape, Parameterization, Params, Setting, Split, query_kind

COLOUR, GREY = ImageShape(3, 32, 32), ImageShape(1, 28, 28)
TINY = ImageShape(2, 4, 6)


def stored(memory: Params) -> int:
    return sum(v.numel() for v in memory.values())


def double(memory: Params) -> Params:
    return {k: v.double() for k, v in memory.items()}


# ---------------------------------------------------------------- queries


def test_a_parameterization_is_queried_by_labels_unless_it_says_otherwise() -> None:
    @dataclass(frozen=True)
    class ByImages(Standard):
        query_kind = "images"

    assert [query_kind(p) for p in (Standard(), Addressing(), ByImages(), ImageQueries())] == [
        *("labels", "labels", "images", "images")
    ]
    with as_people_run_it(), pytest.raises(UsageError, match=r"parameterization must be queried by class label, not "):
        Distillation(parameterization=ByImages())


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("classes", "images_per_class", "bases", "factor", "recalled", "used"),
    [
        (10, 1, 16, 2, 115, 30_688),
        (100, 1, 64, 1, 17, 305_408),
        (100, 1, 64, 2, 40, 305_152),
        (5, 2, 8, 1, 153, 30_696),
        (5, 10, 43, 1, 100, 153_596),
        (5, 50, 215, 1, 100, 767_980),
    ],
)
def test_the_papers_budgets_recall_so_many_images(
    classes: int, images_per_class: float, bases: int, factor: int, recalled: int, used: int
) -> None:
    addressing: Parameterization = Addressing(bases=bases)
    ways = [Downsampled(of=addressing, factor=factor)] + ([addressing] if factor == 1 else [])
    for way in ways:
        assert way.per_class(COLOUR, classes, images_per_class) == recalled
        memory = way.init(COLOUR, classes, images_per_class, Key(0))
        assert stored(memory) == used <= images_per_class * classes * COLOUR.numel
        assert way.recall(memory, torch.tensor([classes - 1])).shape == (1, recalled, 3, 32, 32)


@pytest.mark.parametrize(("images_per_class", "factor", "recalled"), [(1, 2, 4), (10, 2, 40), (1, 4, 16), (0.25, 2, 1)])
def test_smaller_images_are_as_many_more(images_per_class: float, factor: int, recalled: int) -> None:
    way = Downsampled(factor=factor)
    assert way.per_class(COLOUR, 10, images_per_class) == recalled
    memory = way.init(COLOUR, 10, images_per_class, Key(0))
    assert stored(memory) == images_per_class * 10 * COLOUR.numel
    assert memory["images"].shape == (10, recalled, 3, 32 // factor, 32 // factor)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("shape", [ImageShape(3, 8, 8), ImageShape(1, 12, 10), ImageShape(1, 6, 6)])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("images_per_class", [0.5, 1, 1.75, 10])
def test_a_memory_never_stores_more_than_its_budget_nor_wastes_an_image(
    shape: ImageShape, classes: int, images_per_class: float, factor: int
) -> None:
    budget = images_per_class * classes * shape.numel
    for bases in (1, 2, 3, 7):
        way = Downsampled(of=Addressing(bases=bases), factor=factor)
        if bases * shape.numel / factor**2 + bases * classes > budget:
            with pytest.raises(UsageError, match="leave no room"):
                way.init(shape, classes, images_per_class, Key(0))
            continue
        memory = way.init(shape, classes, images_per_class, Key(0))
        assert budget - classes * bases < stored(memory) <= budget
        assert way.recall(memory, torch.tensor([0])).shape[1] == way.per_class(shape, classes, images_per_class)
    if images_per_class * factor**2 >= 1:
        free = Downsampled(of=Standard(), factor=factor)
        assert budget - classes * shape.numel / factor**2 < stored(free.init(shape, classes, images_per_class, Key(0)))
        assert stored(free.init(shape, classes, images_per_class, Key(0))) <= budget


def test_the_stored_numbers_are_counted_without_making_a_memory() -> None:
    for bases, matrices in ((3, 2), (7, 5)):
        addressing, shape = Addressing(bases=bases), ImageShape(3, 4, 5)
        stored = addressing.numbers(shape, 6, matrices)
        made = addressing.init(shape, 6, (stored + 0.5) / (6 * shape.numel), Key(0))
        assert stored == sum(v.numel() for v in made.values()) and len(made["matrices"]) == matrices
    with pytest.raises(UsageError, match=r"^addressing.bases must be a number"):
        Addressing(bases=None).numbers(shape, 6, 2)


def test_a_budget_that_is_no_whole_number_is_not_rounded_up() -> None:
    shape, images_per_class = ImageShape(1, 8, 8), 1.7
    memory = Addressing(bases=1).init(shape, 2, images_per_class, Key(0))
    assert stored(memory) <= images_per_class * 2 * shape.numel  # 217.6 numbers, and each image costs two


@pytest.mark.parametrize(("images_per_class", "recalled"), [(0.57, 37), (1.19, 99)])
def test_a_budget_that_is_a_whole_number_is_not_lost_to_rounding(images_per_class: float, recalled: int) -> None:
    """0.57 times 500 is a little less than 285 in floating point, and 285 is what 37 images need."""
    assert images_per_class * 5 * 100 < 100 + recalled * 5
    assert Addressing(bases=1).per_class(ImageShape(1, 10, 10), 5, images_per_class) == recalled


@pytest.mark.parametrize(
    ("shape", "classes", "images_per_class", "largest"),
    [(COLOUR, 10, 1, 9), (COLOUR, 100, 1, 96), (ImageShape(1, 8, 8), 10, 1, 8), (GREY, 2, 0.7, 1)],
)
def test_too_many_bases_are_refused_with_the_most_that_fit(
    shape: ImageShape, classes: int, images_per_class: float, largest: int
) -> None:
    assert Addressing(bases=largest).per_class(shape, classes, images_per_class) >= 1
    for bases in (largest + 1, 4 * largest):
        with pytest.raises(UsageError) as refused:
            Addressing(bases=bases).per_class(shape, classes, images_per_class)
        assert f"{bases} bases of {shape} leave no room" in str(refused.value)
        assert str(refused.value).endswith(f"at most {largest} bases fit") and "\n" not in str(refused.value)


def test_a_budget_below_one_basis_says_so() -> None:
    with pytest.raises(UsageError, match=r"not even one basis fits, so raise the budget$"):
        Addressing(bases=1).per_class(COLOUR, 10, 0.1)


def test_free_images_are_whole() -> None:
    assert Standard().per_class(COLOUR, 10, 3.9) == 3
    with pytest.raises(UsageError, match=r"must be at least 1, not 0\.5"):
        Standard().per_class(COLOUR, 10, 0.5)


@pytest.mark.parametrize("shape", [ImageShape(1, 7, 8), ImageShape(1, 8, 7)])
def test_a_factor_must_divide_both_sides(shape: ImageShape) -> None:
    with pytest.raises(UsageError, match="the factor must divide both sides"):
        Downsampled(factor=2).per_class(shape, 10, 1)


@pytest.mark.parametrize(
    ("build", "settings", "words"),
    [
        (Addressing, {"bases": 0}, "Addressing.bases must be above 0"),
        (Addressing, {"coefficient_penalty": -1.0}, "Addressing.coefficient_penalty must be at least 0"),
        (Downsampled, {"factor": 0}, "Downsampled.factor must be above 0"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(build: Any, settings: dict, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(**settings)
    assert words in str(refused.value) and "\n" not in str(refused.value)


# ---------------------------------------------------------------- recall


def test_recall_is_the_formula_in_plain_loops() -> None:
    classes, bases, query = 3, 2, torch.tensor([[0.5, -2.0, 0.25], [1.0, 0.0, 3.0]], dtype=torch.float64)
    way = Addressing(bases=bases)
    memory = double(way.init(TINY, classes, 1.2, Key(0)))
    images = way.recall(memory, query)
    r = way.per_class(TINY, classes, 1.2)
    assert images.shape == (2, r, 2, 4, 6) and r > 3
    for n in range(2):
        for i in range(r):
            expected = torch.zeros(2, 4, 6, dtype=torch.float64)
            for k in range(bases):
                coefficient = sum(float(query[n, q] * memory["matrices"][i, q, k]) for q in range(classes))
                expected += coefficient * memory["bases"][k]
            torch.testing.assert_close(images[n, i], expected, rtol=1e-13, atol=1e-14)
    coefficients = way.coefficients(memory, query)
    torch.testing.assert_close(torch.tensordot(coefficients, memory["bases"], 1), images, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("way", [Addressing(bases=2), Downsampled(of=Addressing(bases=3), factor=2)])
def test_a_class_number_is_its_one_hot_vector(way: Any) -> None:
    memory = double(way.init(TINY, 4, 2.0, Key(0)))
    wanted = torch.tensor([2, 0, 3, 2])
    by_number = way.recall(memory, wanted)
    torch.testing.assert_close(way.recall(memory, one_hot(wanted, 4).double()), by_number, rtol=1e-14, atol=1e-14)
    assert torch.equal(by_number[0], by_number[3]) and not torch.allclose(by_number[0], by_number[1])


def test_a_recalled_class_does_not_depend_on_the_others_asked_for() -> None:
    for way in (Standard(), Addressing(bases=2), Downsampled(of=Addressing(bases=2))):
        memory = double(way.init(TINY, 4, 2.0, Key(0)))
        everything = way.recall(memory, torch.arange(4))
        for c in range(4):
            torch.testing.assert_close(way.recall(memory, torch.tensor([c]))[0], everything[c], rtol=1e-13, atol=1e-14)


def test_free_images_are_recalled_as_they_are() -> None:
    memory = Standard().init(TINY, 3, 2, Key(0))
    recalled = Standard().recall(memory, torch.tensor([2, 0]))
    assert torch.equal(recalled[0], memory["images"][2]) and torch.equal(recalled[1], memory["images"][0])


def test_a_query_of_another_width_is_refused() -> None:
    way = Addressing(bases=2)
    with pytest.raises(UsageError, match=r"^this memory is addressed by vectors of 4, not 3$"):
        way.recall(way.init(TINY, 4, 2.0, Key(0)), torch.ones(1, 3))


def test_free_images_have_no_vector_queries() -> None:
    with pytest.raises(UsageError, match="by class number, not by a vector"):
        Standard().recall(Standard().init(TINY, 4, 1, Key(0)), torch.eye(4))


def test_upsampling_is_torchs_and_nests() -> None:
    shape, queries = ImageShape(2, 8, 8), torch.arange(3)
    once, twice = Downsampled(factor=2), Downsampled(of=Downsampled(factor=2), factor=2)
    small = once.init(shape, 3, 1, Key(0))["images"]
    assert small.shape == (3, 4, 2, 4, 4)
    expected = interpolate(small.flatten(0, 1), size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(once.recall({"images": small}, queries).flatten(0, 1), expected, rtol=1e-6, atol=1e-6)

    smaller = twice.init(shape, 3, 1, Key(0))["images"]
    assert smaller.shape == (3, 16, 2, 2, 2) and twice.per_class(shape, 3, 1) == 16
    between = interpolate(smaller.flatten(0, 1), size=(4, 4), mode="bilinear", align_corners=False)
    expected = interpolate(between, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(twice.recall({"images": smaller}, queries).flatten(0, 1), expected, rtol=1e-6, atol=1e-6)


def test_a_factor_of_one_changes_nothing() -> None:
    plain, wrapped = Addressing(bases=2), Downsampled(of=Addressing(bases=2), factor=1)
    memory = plain.init(TINY, 3, 2.0, Key(0))
    again = wrapped.init(TINY, 3, 2.0, Key(0))
    assert list(memory) == list(again) and all(torch.equal(memory[k], again[k]) for k in memory)
    torch.testing.assert_close(plain.recall(memory, torch.arange(3)), wrapped.recall(memory, torch.arange(3)))


@pytest.mark.parametrize("wrap", [False, True])
def test_gradients_reach_only_the_classes_that_were_asked_for(wrap: bool) -> None:
    inside = Addressing(bases=2)
    way: Any = Downsampled(of=inside) if wrap else inside
    leaves = {k: v.requires_grad_() for k, v in way.init(TINY, 4, 2.0, Key(0)).items()}
    way.recall(leaves, torch.tensor([3, 1])).square().sum().backward()
    matrices, bases = leaves["matrices"].grad, leaves["bases"].grad
    assert matrices is not None and bases is not None
    assert (matrices[:, [0, 2]] == 0).all() and (matrices[:, [1, 3]] != 0).all() and (bases != 0).all()

    free = Standard().init(TINY, 4, 2, Key(0))["images"].requires_grad_()
    Standard().recall({"images": free}, torch.tensor([3, 1])).square().sum().backward()
    assert free.grad is not None and (free.grad[[0, 2]] == 0).all() and (free.grad[[1, 3]] != 0).all()


# ---------------------------------------------------------------- first values


def test_first_values_fill_their_bounds() -> None:
    for rows, columns in ((500, 16), (16, 768)):
        bounds = {"kaiming": math.sqrt(6 / columns), "xavier": math.sqrt(6 / (rows + columns))}
        for init, bound in bounds.items():
            values = uniform(rows, columns, init, Key(0)("values"))  # type: ignore[arg-type]
            assert values.shape == (rows, columns) and values.abs().max() <= bound
            assert values.max() > 0.99 * bound and values.min() < -0.99 * bound
            assert abs(float(values.std()) / (bound / math.sqrt(3)) - 1) < 0.03
            assert abs(float(values.mean())) < 0.03 * bound


@pytest.mark.parametrize(("init", "coefficients", "pixels"), [("kaiming", 0.612, 0.0884), ("xavier", 0.072, 0.0875)])
def test_the_papers_memory_starts_within_the_bounds_of_its_table(init: Any, coefficients: float, pixels: float) -> None:
    """CIFAR10 at one image per class, 16 half-size bases: the table of coefficients is 1150 x 16, bases 16 x 768."""
    memory = Downsampled(of=Addressing(bases=16, initialization=init)).init(COLOUR, 10, 1, Key(0))
    assert memory["matrices"].shape == (115, 10, 16) and memory["bases"].shape == (16, 3, 16, 16)
    for tensor, bound in ((memory["matrices"], coefficients), (memory["bases"], pixels)):
        assert tensor.abs().max() == pytest.approx(bound, rel=0.01)


def test_free_images_start_from_normal_noise() -> None:
    images = Standard().init(COLOUR, 10, 2, Key(0))["images"]
    assert abs(images.mean()) < 0.02 and abs(images.std() - 1) < 0.02 and images.abs().max() > 3.5


@pytest.mark.parametrize("name", parameterizations.names())
def test_first_values_depend_on_the_key_alone(name: str) -> None:
    small: dict[str, Any] = {
        "addressing": {"bases": 4},
        "image_queries": {"bases": 4, "extractor": ConvNet(norm="none")},
    }
    labelled, budget = name.endswith("labels"), 2 if name == "imported_labels" else 1
    way = parameterizations[name].build(**small.get(name, {}))
    torch.manual_seed(1)
    one = way.init(COLOUR, 10, budget, Key(0)("memory"))
    torch.manual_seed(2)
    again, other = (way.init(COLOUR, 10, budget, Key(seed)("memory")) for seed in (0, 1))
    drawn = {k: not torch.equal(v, other[k]) for k, v in one.items()}
    assert all(drawn.values()) if not labelled else drawn.pop("labels") is False and all(drawn.values())
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert all(not v.requires_grad and v.is_contiguous() and v.dtype == torch.float32 for v in one.values())


def test_bases_and_matrices_are_drawn_apart() -> None:
    memory = Addressing(bases=4).init(ImageShape(1, 2, 2), 4, 20.0, Key(0))
    signs = [memory[k].flatten()[:16].sign() for k in ("bases", "matrices")]
    assert not torch.equal(*signs)


# ---------------------------------------------------------------- penalty


def test_a_penalty_is_the_mean_square_of_the_matrices() -> None:
    for way in (
        Addressing(bases=2, coefficient_penalty=0.3),
        Downsampled(of=Addressing(bases=2, coefficient_penalty=0.3)),
    ):
        memory = double(way.init(TINY, 3, 2.0, Key(0)))
        expected = 0.3 * sum(float(v) ** 2 for v in memory["matrices"].flatten()) / memory["matrices"].numel()
        assert float(way.penalty(memory)) == pytest.approx(expected, rel=1e-12)
    for way in (Addressing(bases=2), Standard(), Downsampled()):
        assert way.penalty(way.init(TINY, 3, 2, Key(0))) == 0


def _after(way: Parameterization, steps: int) -> list[OuterState]:
    shape, classes = ImageShape(1, 4, 4), 2
    setting = Setting(shape, classes, MLP(width=4), way, "none", torch.device("cpu"))
    pixels = torch.randn(6, 1, 4, 4, generator=Key(0)("pixels").generator())
    real = ClassRows.of(Split(pixels, torch.arange(6) % classes), classes)
    optimizer = NoMomentum(lr=0.5)
    start = begin(setting, optimizer, 1.0, Key(0))
    return [
        start,
        *outer_states(setting, BPTT(inner_steps=2), optimizer, real, start, Key(0), steps, max_grad_norm=None),
    ]


def test_a_penalty_pulls_at_the_matrices_while_a_memory_is_distilled() -> None:
    free, held = _after(Addressing(bases=1), 2), _after(Addressing(bases=1, coefficient_penalty=3.0), 2)
    start = free[0].memory["matrices"]
    assert torch.equal(start, held[0].memory["matrices"])
    pull = 0.5 * 3.0 * 2 * start / start.numel()  # what the penalty's gradient adds to the first step
    torch.testing.assert_close(free[1].memory["matrices"] - held[1].memory["matrices"], pull, rtol=1e-4, atol=1e-6)
    assert torch.equal(free[1].memory["bases"], held[1].memory["bases"])
    assert held[2].memory["matrices"].norm() < free[2].memory["matrices"].norm()
    assert not torch.equal(free[2].memory["bases"], held[2].memory["bases"])


def test_a_penalty_of_nothing_changes_no_bit() -> None:
    plain, zero = _after(Addressing(bases=1), 2), _after(Downsampled(of=Addressing(bases=1), factor=1), 2)
    assert all(torch.equal(plain[0].memory[k], zero[0].memory[k]) for k in plain[0].memory)
    assert all(torch.equal(plain[2].memory[k], _after(Addressing(bases=1), 2)[2].memory[k]) for k in plain[2].memory)
