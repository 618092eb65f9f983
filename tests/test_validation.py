"""Types and limits of configurations: declared in annotations, checked when an instance is built."""

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, make_dataclass, replace
from typing import Annotated, Any, Literal

import pytest
from command_line import as_people_run_it

from suite import registry
from suite.architectures.alexnet import AlexNet
from suite.architectures.convnet import ConvNet
from suite.datasets.some_classes import SomeClasses
from suite.datasets.training_only import TrainingOnly
from suite.errors import UsageError
from suite.evaluation.protocol import Protocol
from suite.experiments.continual.compress_then_recall import CompressThenRecall
from suite.experiments.distillation import Distillation
from suite.experiments.synthesis.image_recall import ImageRecall
from suite.inner_optimizers.adam import Adam
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import fingerprint
from suite.streams.class_splits import ClassSplits
from suite.streams.permutations import Permutations
from suite.types import COMPONENTS
from suite.validation import (
    Above,
    Below,
    Fraction,
    Limit,
    MultipleOf,
    NonNegative,
    NonNegativeInt,
    OneOf,
    Positive,
    PositiveInt,
    checked,
    validate,
)

INF, NAN = math.inf, math.nan


@checked
@dataclass(frozen=True)
class Settings:
    """One field of every kind."""

    positive: Positive = 1.0
    non_negative: NonNegative = 0.0
    fraction: Fraction = 0.5
    inside: Annotated[float, Above(0), Below(1)] = 0.5
    count: PositiveInt = 1
    epochs: NonNegativeInt = 0
    even: Annotated[int, Above(0), MultipleOf(2)] = 2
    depth: PositiveInt | None = None
    sizes: Sequence[PositiveInt] = (1,)
    name: Annotated[str, OneOf(("none", "flip_rotate"))] = "none"
    free: float = 0.0
    choice: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"positive": 1},  # a whole number is a number
        {"positive": 5e-324, "non_negative": 0, "fraction": 0, "inside": 0.999},
        {"count": 2**53, "epochs": 0, "even": 4, "depth": 3},
        {"sizes": [3, 1]},
        {"sizes": ()},
        {"name": "flip_rotate", "choice": "b"},
        {"free": INF},  # a field without a limit takes what its type takes
    ],
)
def test_what_fits_is_built(values: dict[str, Any]) -> None:
    settings = Settings(**values)
    assert all(getattr(settings, name) == value for name, value in values.items())
    validate(settings)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("positive", 0.0, "must be above 0, not 0.0"),
        ("positive", -1, "must be above 0, not -1"),
        ("positive", NAN, "must be above 0, not nan"),
        ("positive", INF, "must be finite, not inf"),
        ("positive", True, "must be a number, not True (bool)"),
        ("positive", "1", "must be a number, not '1' (str)"),
        ("positive", None, "must be a number, not None (NoneType)"),
        ("non_negative", -1e-12, "must be at least 0, not -1e-12"),
        ("non_negative", NAN, "must be at least 0, not nan"),
        ("non_negative", INF, "must be finite, not inf"),
        ("fraction", 1.0, "must be at least 0 and below 1, not 1.0"),
        ("fraction", -0.1, "must be at least 0 and below 1, not -0.1"),
        ("fraction", NAN, "must be at least 0 and below 1, not nan"),
        ("inside", 0, "must be above 0 and below 1, not 0"),
        ("count", 0, "must be above 0, not 0"),
        ("count", 2.0, "must be a whole number, not 2.0 (float)"),
        ("count", True, "must be a whole number, not True (bool)"),
        ("epochs", -1, "must be at least 0, not -1"),
        ("even", 3, "must be above 0 and a multiple of 2, not 3"),
        ("depth", 0, "must be above 0, or None, not 0"),
        ("depth", 1.5, "must be a whole number or None, not 1.5 (float)"),
        ("sizes", (2, 0), "must be a list, each above 0, not (2, 0)"),
        ("sizes", 2, "must be a list, each a whole number, not 2 (int)"),
        ("name", "flip-rotate", "must be one of none, flip_rotate, not 'flip-rotate'; did you mean 'flip_rotate'?"),
        ("name", "xyz", "must be one of none, flip_rotate, not 'xyz'"),
        ("choice", "c", "must be one of 'a', 'b', not 'c' (str)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        Settings(**{field: value})
    assert str(error.value) == f"Settings.{field} {sentence}"
    with pytest.raises(UsageError, match=f"^Settings.{field} "):
        replace(Settings(), **{field: value})


def test_a_limit_of_one_s_own_is_a_subclass() -> None:
    class Prime(Limit):
        words = "a prime number"

        def holds(self, value: int) -> bool:
            return value > 1 and all(value % d for d in range(2, value))

    @checked
    @dataclass(frozen=True)
    class Lagged:
        lag: Annotated[int, "documentation for readers, not a limit", Prime()]

    assert Lagged(7).lag == 7
    with pytest.raises(UsageError, match=r"^Lagged\.lag must be a prime number, not 9$"):
        Lagged(9)


@pytest.mark.parametrize("kind", COMPONENTS)
def test_the_error_of_a_component_s_field_says_how_gin_refers_to_one(kind: str) -> None:
    cls = make_dataclass("Of", [("part", COMPONENTS[kind]), ("more", Sequence[COMPONENTS[kind]], ())], frozen=True)  # type: ignore[misc]
    with pytest.raises(UsageError) as error:
        validate(cls("digits"))
    assert str(error.value) == f"Of.part must be a reference to one such as @{kind}.NAME(), not 'digits' (str)"
    component = next(iter(registry.REGISTRIES[kind])).build
    forgotten = rf"@{kind}\.NAME\(\), not the class {component.__name__}; did you forget \(\)\?$"
    with pytest.raises(UsageError, match=forgotten):
        validate(cls(component))  # a reference without its parentheses
    validate(cls(component(), [component()]))
    with pytest.raises(UsageError, match=rf"^Of\.more must be a list, each a reference to one such as @{kind}\.NAME"):
        validate(cls(component(), ["digits"]))


def test_the_registries_are_the_kinds_of_component() -> None:
    assert registry.REGISTRIES.keys() == COMPONENTS.keys()


def test_a_field_for_one_class_names_its_kind_or_the_class() -> None:
    with (
        as_people_run_it(),
        pytest.raises(UsageError, match=r"parameterization must .* such as @parameterizations\.NAME"),
    ):
        ImageRecall(parameterization=Addressing())  # type: ignore[arg-type]
    with (
        as_people_run_it(),
        pytest.raises(UsageError, match=r"SomeClasses\.of must .* such as @datasets\.NAME\(\), not 1"),
    ):
        SomeClasses(of=1)  # type: ignore[arg-type]
    with (
        as_people_run_it(),
        pytest.raises(UsageError, match=r"Distillation\.evaluation must .* such as @protocol\(\), not 'paper'"),
    ):
        Distillation(evaluation="paper")  # type: ignore[arg-type]


# ---------------------------------------------------------------- when it runs


def test_a_class_s_own_conditions_come_after_its_types_and_limits() -> None:
    seen = []

    @checked
    @dataclass(frozen=True)
    class Interval:
        low: Positive
        high: Positive

        def __post_init__(self) -> None:
            seen.append(self)
            assert self.low < self.high  # would raise TypeError for a text

    assert seen == [Interval(1, 2)]
    with pytest.raises(UsageError, match=r"Interval\.high must be a number"):
        Interval(1, "2")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"Interval\.low must be above 0"):
        Interval(-1, 2)
    assert len(seen) == 1


def test_a_checked_class_is_otherwise_the_class_it_was() -> None:
    assert Settings.__name__ == "Settings" and Settings(2.0) == Settings(positive=2) != Settings()
    with pytest.raises(FrozenInstanceError):
        Settings().count = 2  # type: ignore[misc]
    assert inspect.getfullargspec(Settings).args[1:3] == ["positive", "non_negative"]
    assert inspect.getfullargspec(Settings.__init__).defaults[:2] == (1.0, 0.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'coun'"):
        Settings(coun=2)  # type: ignore[call-arg]


def test_registering_a_dataclass_has_its_limits_checked() -> None:
    @registry.inner_optimizers.register("half_of_one")
    @dataclass(frozen=True)
    class Half:
        """A method from outside, with a limit and without a __post_init__."""

        lr: Positive = 0.01

    @registry.inner_optimizers.register("half_of_another")
    @dataclass(frozen=True)
    class Narrower(Half):
        """A registered subclass of a registered class, with a limit of its own."""

        momentum: Fraction = 0.5

    assert registry.inner_optimizers["half_of_one"].build is Half and Half(1) == Half(1.0)
    for refused, sentence in (
        (lambda: Half(0), "Half.lr must be above 0, not 0"),
        (lambda: Narrower(0), "Narrower.lr must be above 0, not 0"),
        (lambda: Narrower(1, 1), "Narrower.momentum must be at least 0 and below 1, not 1"),
    ):
        with pytest.raises(UsageError, match=f"^{re.escape(sentence)}$"):
            refused()


def test_registering_leaves_what_is_no_dataclass_alone() -> None:
    @registry.inner_optimizers.register("of_a_function")
    def build(lr: float = 0.0) -> Adam:
        """Adam, by a function."""
        return Adam(lr=lr)

    assert registry.inner_optimizers["of_a_function"].build is build
    with pytest.raises(UsageError, match=r"Adam\.lr must be above 0"):
        build()


# ---------------------------------------------------------------- the suite's own


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Protocol(epochs=0), "Protocol.epochs must be above 0, not 0"),
        (lambda: Protocol(lr=INF), "Protocol.lr must be finite, not inf"),
        (lambda: AlexNet(width=7), "AlexNet.width must be above 0 and a multiple of 2, not 7"),
        (lambda: TrainingOnly(fraction=1.0), "TrainingOnly.fraction must be above 0 and below 1, not 1.0"),
        (lambda: BPTT(classes_per_step=1), "BPTT.classes_per_step must be above 1, or None, not 1"),
        (lambda: ClassSplits(left_out=1.0), "ClassSplits.left_out must be at least 0 and below 1, not 1.0"),
        (lambda: Distillation(clip=0.0), "Distillation.clip must be above 0, or None, not 0.0"),
        (lambda: Distillation(images_per_class=NAN), "Distillation.images_per_class must be above 0, not nan"),
        (lambda: CompressThenRecall(stand_ins=-1), "CompressThenRecall.stand_ins must be at least 0, not -1"),
        (lambda: ImageRecall(shots=(1, 0)), "ImageRecall.shots must be a list, each above 0, not (1, 0)"),
    ],
)
def test_the_suite_s_limits_are_in_its_annotations(build: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        build()
    assert str(error.value) == sentence


def test_limits_change_no_fingerprint() -> None:
    """The first digits of what commit f826854 gave, before limits were in the annotations: run keys hold them."""
    known = {
        Distillation(): "ebb7e78a839cffa9",
        Distillation(images_per_class=10, clip=None): "8fb9f951a8e15f03",
        Distillation(images_per_class=10, clip=2): "2054261a6cd208a1",
        CompressThenRecall(): "6fc19ab4617df695",
        ImageRecall(): "25ceb52bdfbcfe11",
        BPTT(): "cfac2c0d555deca0",
        Protocol(): "b7d371868b4c7103",
        Addressing(bases=5): "05c1b48404298452",
        Addressing(bases=None, coefficient_penalty=1): "a58f379840145915",
        ConvNet(depth=2): "b17861f8c3a0a406",
        Adam(lr=1): "7d3e83c4a6818a24",
        Permutations(): "62d9e89f13d1f65a",
    }
    assert {config: fingerprint(config)[:16] for config in known} == known
    assert fingerprint(Adam(lr=1)) == fingerprint(Adam(lr=1.0))
