"""Types and limits of a configuration: declared in the annotation of a field, checked whenever an instance is built.

    @inner_optimizers.register("lion")
    @dataclass(frozen=True)
    class Lion:
        lr: Positive = 0.01
        momentum: Fraction = 0.9
        width: Annotated[int, Above(0), MultipleOf(2)] = 64
        depth: PositiveInt | None = None

`register` (and `checked`, for dataclasses without a registry) has `validate` run before the class's own
`__post_init__`, which is left for conditions between fields. Another limit is another subclass of `Limit`.
"""

import argparse
import difflib
import functools
import inspect
import math
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar, Union

from suite.errors import UsageError

# ---------------------------------------------------------------- limits


class Limit(ABC):
    """A condition on the value of one field, placed in its `Annotated` hint."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What a value must be, as the end of 'lr must be …'."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether a value, which has the type it is declared with, is within the limit."""


@dataclass(frozen=True)
class Above(Limit):
    """Greater than `low` and finite."""

    low: float
    """The bound."""

    @property
    def words(self) -> str:
        """'above 0'."""
        return f"above {self.low:g}"

    def holds(self, value: float) -> bool:
        """Whether low < value < infinity."""
        return self.low < value < math.inf


@dataclass(frozen=True)
class AtLeast(Limit):
    """`low` or greater, and finite."""

    low: float
    """The bound."""

    @property
    def words(self) -> str:
        """'at least 0'."""
        return f"at least {self.low:g}"

    def holds(self, value: float) -> bool:
        """Whether low <= value < infinity."""
        return self.low <= value < math.inf


@dataclass(frozen=True)
class Below(Limit):
    """Less than `high`, and finite."""

    high: float
    """The bound."""

    @property
    def words(self) -> str:
        """'below 1'."""
        return f"below {self.high:g}"

    def holds(self, value: float) -> bool:
        """Whether -infinity < value < high."""
        return -math.inf < value < self.high


@dataclass(frozen=True)
class AtMost(Limit):
    """`high` or less."""

    high: int
    """The bound."""

    @property
    def words(self) -> str:
        """'at most 10,000'."""
        return f"at most {self.high:,}"

    def holds(self, value: float) -> bool:
        """Whether value <= high."""
        return value <= self.high


@dataclass(frozen=True)
class MultipleOf(Limit):
    """A whole number of times `unit`."""

    unit: int
    """What divides the value."""

    @property
    def words(self) -> str:
        """'a multiple of 2'."""
        return f"a multiple of {self.unit}"

    def holds(self, value: int) -> bool:
        """Whether `unit` divides the value."""
        return value % self.unit == 0


@dataclass(frozen=True)
class OneOf(Limit):
    """One of a few names, which need not be known to the type checker (else `Literal`)."""

    names: tuple[str, ...]
    """All that are allowed."""

    @property
    def words(self) -> str:
        """'one of none, flip_rotate'."""
        return "one of " + ", ".join(self.names)

    def holds(self, value: str) -> bool:
        """Whether the value is one of the names."""
        return value in self.names


Positive = Annotated[float, Above(0)]
"""A finite number above 0."""

NonNegative = Annotated[float, AtLeast(0)]
"""A finite number, at least 0."""

Fraction = Annotated[float, AtLeast(0), Below(1)]
"""A number at least 0 and below 1."""

PositiveInt = Annotated[int, Above(0)]
"""A whole number above 0."""

NonNegativeInt = Annotated[int, AtLeast(0)]
"""A whole number, at least 0."""

Few = Annotated[int, Above(0), AtMost(10_000)]
"""A number of things that are made one by one before anything is measured: layers, networks, tasks."""

LARGEST, LARGEST_INT = 1e36, 2**53
"""What a number of a configuration is at most. float32 ends at 3e38, and whole numbers from here on are no floats."""


# ---------------------------------------------------------------- options of commands


def number_option(kind: type[int] | type[float], *limits: Limit) -> Callable[[str], Any]:
    """The `type` of an option of `argparse`: a finite number within the limits.

    >>> number_option(float, Above(0))("2.5")
    2.5
    """
    words = " and ".join(["a whole number" if kind is int else "a finite number", *(limit.words for limit in limits)])

    def read(text: str) -> Any:
        try:
            value = kind(text)
            if math.isfinite(value) and all(limit.holds(value) for limit in limits):
                return value
        except (ValueError, OverflowError):  # the second: a whole number beyond every float
            pass
        raise argparse.ArgumentTypeError(f"must be {words}, not '{text}'")

    return read


# ---------------------------------------------------------------- the check

C = TypeVar("C", bound=type)


def checked(cls: C) -> C:
    """Class decorator, above `@dataclass`: instances are validated when they are built, before `__post_init__` runs.

    >>> @checked
    ... @dataclass(frozen=True)
    ... class Step:
    ...     lr: Positive = 0.01
    >>> Step(lr=-1)
    Traceback (most recent call last):
    suite.errors.UsageError: Step.lr must be above 0, not -1
    """
    post_init = getattr(cls, "__post_init__", None)
    if post_init is not None:

        def __post_init__(self: Any) -> None:
            validate(self)
            post_init(self)

        cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
        return cls

    init = cls.__init__  # type: ignore[misc]  # a dataclass without __post_init__ never calls one that is added later

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        validate(self)

    __init__.__signature__ = inspect.signature(init)  # type: ignore[attr-defined]  # what gin takes the defaults from
    cls.__init__ = __init__  # type: ignore[misc]
    return cls


def validate(config: Any) -> None:
    """Refuse a dataclass with a field of another type than it is declared with, or beyond a limit of its annotation.

    Raises UsageError, which names the class, the field, what it must be and what it is.
    """
    kind: Any = type(config)
    for field in fields(config):
        value, hint = getattr(config, field.name), type_hints(kind, include_extras=True)[field.name]
        name = f"{kind.__name__}.{field.name}"
        if not _fits(value, hint):
            if isinstance(value, type):
                raise UsageError(f"{name} must be {_words(hint)}, not the class {value.__name__}; did you forget ()?")
            lacks = _lacks(value, hint)
            if lacks:
                raise UsageError(f"{name}: {lacks}")
            raise UsageError(f"{name} must be {_words(hint)}, not {_shown(value)} ({type(value).__name__})")
        broken = _broken(value, hint)
        if broken:
            raise UsageError(f"{name} must be {broken}, not {_shown(value)}{_nearest(value, hint)}")


def _shown(value: Any) -> str:
    """A value in a sentence; the beginning of a long one."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def require(config: Any, field: str, holds: bool, words: str) -> None:
    """For conditions between fields: `require(self, "ways", self.ways <= classes, f"at most {classes}, the classes")`.

    Raises UsageError where the condition does not hold.
    """
    if not holds:
        raise UsageError(f"{type(config).__name__}.{field} must be {words}, not {getattr(config, field)!r}")


def require_labels(config: Any, learned: bool = False) -> None:
    """Refuse a `parameterization` whose memory is queried by anything but class labels.

    And one that stores labels of its own, unless they are learned here.
    """
    from suite.types import Labelled, query_kind  # imports torch, which the registry need not wait for

    of = config.parameterization
    require(config, "parameterization", query_kind(of) == "labels", "queried by class label")
    words = (
        "one without labels of its own, which are learned in a distillation alone, by bptt or an objective around it"
    )
    require(config, "parameterization", learned or not isinstance(of, Labelled), words)


def require_no_teacher(config: Any) -> None:
    """Refuse an `evaluation` by labels of a teacher, which is trained on all images of one data set.

    And, for a stream, one whose loss is of all classes, since networks may be told the task.
    """
    by_class = config.evaluation.loss == "cross_entropy" and not config.evaluation.cut_mix
    if hasattr(config, "stream") and not by_class:
        raise UsageError(
            f"{type(config).__name__}.evaluation: protocol {config.evaluation.name} teaches all classes at once "
            "(CutMix, squared error), and networks of a stream may be told the task; choose another"
        )
    if config.evaluation.labels == "teacher":
        raise UsageError(
            f"{type(config).__name__}.evaluation: protocol {config.evaluation.name} teaches by a network that was "
            "trained on all training images, which distillation and suite.evaluate alone have; choose another"
        )


@functools.cache
def type_hints(cls: type, include_extras: bool = False) -> dict[str, Any]:
    """The types of a dataclass's fields; UsageError for one that only type checkers know."""
    try:
        return typing.get_type_hints(cls, include_extras=include_extras)
    except NameError as error:
        raise UsageError(
            f"{cls.__name__}: the type of a field is not there when it runs ({error}); import it outside TYPE_CHECKING"
        ) from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a hint, its limits aside."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return _fits(value, hint.__origin__)
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (tuple, list, Sequence):
        return isinstance(value, (list, tuple)) and all(_fits(v, typing.get_args(hint)[0]) for v in value)
    if origin is not None:
        return isinstance(value, origin)
    if isinstance(value, type):
        return False  # a reference without its parentheses gives the class
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def missing(thing: object, protocol: type) -> str:
    """What an instance lacks of a protocol, as a sentence: 'Normed has no method step(params, grads, state)'."""
    named = {name: member for name, member in vars(protocol).items() if not name.startswith("_")}
    lacks = [
        f"method {name}({', '.join(list(inspect.signature(member).parameters)[1:])})" if callable(member) else name
        for name, member in named.items()
        if not hasattr(thing, name)
    ]
    return f"{type(thing).__name__} has no {', no '.join(lacks)}" if lacks else ""


def _lacks(value: Any, hint: Any) -> str:
    """What an object that has some methods of the kind of component that is asked for lacks of them; '' for others."""
    from suite.types import COMPONENTS  # as above

    asked = [kind for kind, protocol in COMPONENTS.items() if protocol in (hint, *typing.get_args(hint))]
    whole = [kind for kind, protocol in COMPONENTS.items() if not missing(value, protocol)]
    if isinstance(value, type) or len(asked) != 1 or whole:  # a class, or a component of another kind
        return ""
    members = [name for name in vars(COMPONENTS[asked[0]]) if not name.startswith("_")]
    lacks = missing(value, COMPONENTS[asked[0]]) if any(hasattr(value, name) for name in members) else ""
    return f"{lacks}, which all of {asked[0]} have" if lacks else ""


def _broken(value: Any, hint: Any) -> str:
    """What a value of the right type must be beyond that, where a limit of the hint does not hold; '' where all do."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = _limits(hint)
        if all(limit.holds(value) for limit in limits):
            return f"at most {LARGEST_INT:,}" if hint.__origin__ is int and value > LARGEST_INT else _too_large(value)
        return "finite" if value == math.inf else " and ".join(limit.words for limit in limits)
    if origin in (Union, types.UnionType):
        reasons = [_broken(value, choice) for choice in args if _fits(value, choice)]
        if not all(reasons):
            return ""
        return reasons[0] + (", or None" if type(None) in args else "")
    if origin in (tuple, list, Sequence):
        return next((f"a list, each {reason}" for v in value if (reason := _broken(v, args[0]))), "")
    return _too_large(value) if hint is float else ""


def _too_large(value: Any) -> str:
    """Of a finite number: infinity and NaN are refused where a configuration is described."""
    too_large = isinstance(value, float) and math.isfinite(value) and abs(value) > LARGEST
    return f"at most {LARGEST:g}" if too_large else ""


def _limits(hint: Any) -> list[Limit]:
    return [limit for limit in getattr(hint, "__metadata__", ()) if isinstance(limit, Limit)]


def _nearest(value: Any, hint: Any) -> str:
    """'; did you mean …?' for a name that is near one of the names it may be."""
    names = [name for limit in _limits(hint) if isinstance(limit, OneOf) for name in limit.names]
    near = difflib.get_close_matches(value, names, n=1) if names else []
    return f"; did you mean '{near[0]}'?" if near else ""


def _words(hint: Any) -> str:
    """A type as the end of 'lr must be …'."""
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text in quotes",
        bool: "True or False",
        type(None): "None",
    }
    if typing.get_origin(hint) is Annotated:
        return _words(hint.__origin__)
    if hint in names:
        return names[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin in (tuple, list, Sequence):
        return f"a list, each {_words(args[0])}"
    return f"a reference to one such as @{_gin_name(hint)}()" if isinstance(hint, type) else str(hint)


def _gin_name(cls: type) -> str:
    """What gin calls instances of a class: `kind.NAME` for a kind of component and for a class of that kind."""
    from suite.types import COMPONENTS  # as above

    for kind, protocol in COMPONENTS.items():
        if all(hasattr(cls, member) for member in vars(protocol) if not member.startswith("_")):
            return f"{kind}.NAME"
    return cls.__name__.lower()
