"""Every extension point on one page: eight registries, and the decorator that fills them.

    @inner_optimizers.register("lion")
    @dataclass(frozen=True)
    class Lion: ...

makes `@inner_optimizers.lion()` usable in gin, listed by `python -m suite.run --list` and found by the contract checks.
What each kind of component must offer is written in `suite/types.py`.
"""

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import gin

from suite.errors import UsageError, one_line
from suite.storage.files import json_sha256, sha256
from suite.validation import checked, type_hints

if not hasattr(gin, "register"):  # else Python takes a folder `gin` of configurations for the package
    raise ModuleNotFoundError("the package gin-config is not installed", name="gin-config")

T = TypeVar("T", bound=Callable[..., Any])

ENTRY_POINTS = "addressable_memory_suite"
"""Group under which an installed package names its modules: importing them registers its methods."""


@dataclass(frozen=True)
class Entry:
    """One registered component."""

    name: str
    """What gin calls it, after its kind."""
    build: Callable[..., Any]
    """Its class, as a rule; called to build an instance."""
    summary: str
    """The first line of its docstring."""
    origin: str
    """The module or file it is defined in."""


class Registry:
    """Names of one kind of component. A name is taken once; unknown names are answered with the nearest.

    >>> load_components()
    >>> inner_optimizers["sgd_momentum"].build(lr=0.1)
    SGDMomentum(lr=0.1, momentum=0.9)
    >>> inner_optimizers["sgd"]
    Traceback (most recent call last):
    suite.errors.UsageError: no optimizer is called 'sgd'; there are: adam, averaged, clipped, ...
    """

    def __init__(self, kind: str, singular: str) -> None:
        """`kind` is gin's name of it; `singular` is what a sentence calls one component."""
        self.kind, self.singular = kind, singular
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make a frozen dataclass, or a function that makes one, available as `@<kind>.<name>()`.

        It is returned. A dataclass is checked from then on (`suite.validation.checked`): types and limits of its
        annotations hold for every instance, and its own `__post_init__` runs after them. Raises UsageError for a name
        that is taken or that gin can't write, and for a class whose settings could not be read: one of another kind.
        """

        def decorate(build: T) -> T:
            if not name.isidentifier():
                raise UsageError(f"{self.kind}: '{name}' can't be a name in gin; use letters, digits and underscores")
            if name in self._entries:
                raise UsageError(
                    f"{self.kind}.{name} is already registered by {self._entries[name].origin}; choose another name"
                )
            summary = (inspect.getdoc(build) or "").strip().split("\n")[0]
            if isinstance(build, type):
                if not is_dataclass(build):
                    raise UsageError(
                        f"{build.__name__} must be a frozen dataclass: write @dataclass(frozen=True) below "
                        f'@{self.kind}.register("{name}")'
                    )
                checked(build)
            self._entries[name] = Entry(name, build, summary, _origin(build))
            gin.register(name, module=self.kind)(build)
            return build

        return decorate

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise UsageError(self.unknown(name))
        return self._entries[name]

    def unknown(self, name: str) -> str:
        """The sentence for a name that nothing is registered under."""
        return f"no {self.singular} is called '{name}'; {suggestion(name, self.names())}"

    def __iter__(self) -> Iterator[Entry]:
        return (self._entries[name] for name in self.names())

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._entries)


MOST_LISTED = 30
"""Names that are listed beside the nearest one: of more, nobody finds one in a sentence."""


def suggestion(name: str, known: list[str]) -> str:
    """'did you mean …?' where something is near, and everything there is; a long list only where nothing is."""
    many = len(known) > MOST_LISTED
    meant = nearest(name, known, alike=0.7 if many else 0.6)  # of many, one is near by chance
    return meant.rstrip() if meant and many else f"{meant}there are: {', '.join(known)}"


def nearest(name: str, known: list[str], alike: float = 0.6) -> str:
    """'did you mean …? ' where something is near, else ''."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=alike)
    return f"did you mean '{near[0]}'? " if near else ""


def _origin(build: Callable[..., Any]) -> str:
    """Where a thing is defined, short enough for a list: the module if it is part of the suite, else its file."""
    module = getattr(build, "__module__", "") or "?"
    if module.split(".")[0] == "suite":
        return module
    try:
        file = inspect.getsourcefile(build)
    except (OSError, TypeError):  # a class of a notebook or of Python's prompt, which have no file
        file = None
    return file if file and not module.count(".") else module


datasets = Registry("datasets", "data set")
architectures = Registry("architectures", "architecture")
parameterizations = Registry("parameterizations", "parameterization")
inner_optimizers = Registry("inner_optimizers", "optimizer")
objectives = Registry("objectives", "objective")
controls = Registry("controls", "control")
streams = Registry("streams", "stream")
starts = Registry("starts", "start")
schedules = Registry("schedules", "schedule")
experiments = Registry("experiments", "experiment")

REGISTRIES = {
    registry.kind: registry
    for registry in (
        datasets,
        architectures,
        parameterizations,
        inner_optimizers,
        objectives,
        controls,
        streams,
        starts,
        schedules,
        experiments,
    )
}


def component(kind: str, given: Any) -> Any:
    """The component that a name stands for, with its default settings; what is no name is given back as it is."""
    if not isinstance(given, str):
        return given
    try:
        return REGISTRIES[kind][given].build()
    except TypeError as error:
        raise UsageError(f"{kind}.{given} can't be built by its name alone ({error}); pass an object") from error


def name_of(thing: object) -> str:
    """The registered name of an instance's class, or the class's own name for one that was never registered."""
    for registry in REGISTRIES.values():
        for entry in registry:
            if type(thing) is entry.build:
                return entry.name
    return type(thing).__name__


def describe(thing: Any) -> Any:
    """A configuration as plain data: a dataclass becomes {'is': its name, its fields}, ready for JSON and hashing.

    A whole number in a field for numbers becomes a float, so that 1 and 1.0 are one setting. A component from outside
    carries the hash of its source, so that an edited method is another method; so does one of the suite that runs code
    from outside, which has it as `outside_source`.

    >>> load_components()
    >>> describe(inner_optimizers["no_momentum"].build(lr=1))
    {'is': 'no_momentum', 'lr': 1.0}
    """
    if is_dataclass(thing) and not isinstance(thing, type):
        hints = type_hints(type(thing))
        values = {f.name: (_described(f, thing), hints[f.name]) for f in fields(thing) if not _is_left_out(f, thing)}
        numbers = {k: float(v) if type(v) is int and _takes_float(hint) else v for k, (v, hint) in values.items()}
        return {"is": name_of(thing)} | _source(thing) | {k: describe(v) for k, v in numbers.items()}
    if isinstance(thing, (list, tuple)):
        return [describe(value) for value in thing]
    if getattr(thing, "shape", None) == () and hasattr(thing, "item"):  # a number of numpy's or torch's
        return describe(thing.item())
    if isinstance(thing, float) and not math.isfinite(thing):
        raise UsageError(f"a setting is {thing}, which no record can hold; give a finite number")
    return thing


ADDED = {"added": True}
"""Metadata of a field that came later than runs that people keep: at its default it is left out of a description.

The default must do what was done before there was the field. Then a run's key, which hashes the description, stays what
it was: `window: int | None = field(default=None, metadata=ADDED)`."""


def described_as(**names: str) -> dict[str, dict[str, str]]:
    """Metadata of a field some of whose values are described as another, which does the same.

    A run's key, which hashes the description, is that of the other: `field(default="auto",
    metadata=described_as(auto="eager"))`.
    """
    return {"described as": names}


def _is_left_out(declared: Field[Any], thing: Any) -> bool:
    if not ADDED.items() <= declared.metadata.items():
        return False
    return bool(describe(getattr(thing, declared.name)) == describe(declared.default))


def parts(component: Any) -> Iterator[Any]:
    """A component and all that it is made of."""
    yield component
    if isinstance(component, (list, tuple)):
        inner: list[Any] = list(component)
    else:
        named = fields(component) if is_dataclass(component) and not isinstance(component, type) else ()
        inner = [getattr(component, field.name) for field in named]
    for part in inner:
        yield from parts(part)


def _described(declared: Field[Any], thing: Any) -> Any:
    value = getattr(thing, declared.name)
    others = declared.metadata.get("described as", {})
    return others.get(value, value) if isinstance(value, str) else value


def _takes_float(hint: Any) -> bool:
    return hint is float or (float in typing.get_args(hint) and int not in typing.get_args(hint))


def _source(thing: Any) -> dict[str, str]:
    kind = type(thing)
    if kind.__module__.split(".")[0] == "suite":
        runs = getattr(thing, "outside_source", None)
        return {} if runs is None else {"source": runs}
    try:
        return {"source": sha256(Path(inspect.getfile(kind)).read_bytes())[:16]}
    except (OSError, TypeError):  # made without a file, in an interpreter
        return {}


def fingerprint(thing: Any) -> str:
    """SHA-256 of a configuration: equal for equal settings, whatever file they came from.

    Raises UsageError for settings that no record can hold, such as a component that is no dataclass.
    """
    try:
        return json_sha256(describe(thing))
    except TypeError as error:
        raise UsageError(
            f"a setting can't be recorded ({error}); give numbers, texts, lists and components, each a frozen dataclass"
        ) from error


def load_components() -> None:
    """Import every component of the suite, and the methods of installed packages that name an entry point."""
    for kind in REGISTRIES:
        importlib.import_module(f"suite.{kind}")
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # somebody else's code: say whose it is, whatever it raised
            raise UsageError(
                f"the installed package's entry point '{point.name} = {point.value}' failed to load "
                f"({one_line(error)}); mend or uninstall it"
            ) from error


_named_modules: set[str] = set()
"""The modules that were given to `load_plugin`: those that gin files may import."""


_named_files: dict[str, set[str]] = {}
"""By their names without '.py', the files that were given to `load_plugin`: what Python calls their modules."""


def is_named_module(name: str) -> bool:
    """Whether somebody named this module as a plugin, so that a gin file may import it."""
    return name in _named_modules


def plugin_module(name: str) -> ModuleType:
    """A module that somebody named as a plugin: by its dotted name, of a file by its name without '.py'.

    Nothing is imported for a name. Raises UsageError for a module that nobody named, and for a name of several.
    """
    meant = [*([name] if name in _named_modules else []), *_named_files.get(name, ())]
    if len(meant) > 1:
        raise UsageError(f"--plugin: several modules are called '{name}'; give one of them another name")
    if not meant:
        raise UsageError(
            f"the module {name} is none that this command names, and a configuration runs no code of its own; if you "
            f"trust it, name it: --plugin {name}.py, with its folder, or --plugin {name} where it is installed"
        )
    return sys.modules[meant[0]]


def load_plugin(given: str | Path, option: str = "--plugin: ") -> str:
    """Run outside Python code, which registers its methods: a file, or a module by its dotted name.

    What was already loaded is left alone. Returns what names it from every working directory. Raises UsageError, which
    begins with the option that named it.
    """
    module = str(given)
    if Path(given).is_file() or not all(part.isidentifier() for part in module.split(".")):
        return _load_file(given, option)
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"{option}there is no file {given}, and no module of that name") from error
        raise _failed(given, error, option) from error
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # whatever somebody else's module raises is said, and ends the command
        raise _failed(given, error, option) from error
    _named_modules.add(module)
    return module


def _failed(plugin: str | Path, error: BaseException, option: str) -> UsageError:
    """Somebody else's code: say whose it is, whatever it raised."""
    return UsageError(f"{option}{plugin} failed to load ({one_line(error)})")


def _load_file(file: str | Path, option: str) -> str:
    path = Path(file).resolve()
    name = f"suite_plugin_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"  # two files may share a stem
    if name not in sys.modules or getattr(sys.modules[name], "__file__", None) != str(path):
        _run_file(file, path, name, option)
    _named_files.setdefault(path.stem, set()).add(name)
    return str(path)


def _run_file(file: str | Path, path: Path, name: str, option: str) -> None:
    """Run a file as the module of this name. Raises UsageError."""
    if file and path.is_dir():
        raise UsageError(f"{option}{file} is a folder; name a file in it")
    if not path.is_file():
        raise UsageError(f"{option}there is no file {file}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{option}{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UsageError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:  # likewise
        del sys.modules[name]
        raise _failed(file, error, option) from error
