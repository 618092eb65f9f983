"""Packages: those that the suite needs, and the optional parts with the command that installs them."""

import importlib.util
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

PACKAGE = "addressable-memory-suite"

OPTIONAL = {
    "avalanche": ("avalanche", "Avalanche's methods on the suite's streams"),
    "huggingface": ("datasets", "data sets and memories of the Hugging Face Hub, tables in parquet"),
    "importers": ("h5py", "distilled sets of others in HDF5 and flax's checkpoints"),
    "ray": ("ray", "sweeps over several machines"),
    "robustness": ("art", "attacks on networks that a memory taught"),
    "submitit": ("submitit", "sweeps as jobs of Slurm, from Python"),
}
"""Of every extra that a user may want: a module that is there with it, and what it is for."""


@dataclass(frozen=True)
class Need:
    """A package that the suite cannot do without."""

    name: str
    """As pip knows it."""
    at_least: str
    """The lowest version that serves; '' for any."""
    found: str | None
    """The installed version; None: it is not there."""

    @property
    def problem(self) -> str | None:
        """What is wrong in one sentence, with what to do; None: nothing."""
        if self.found is None:
            return f"the package {self.name} is missing; pip install '{self.name}>={self.at_least}'"
        if numbers(self.found) < numbers(self.at_least):
            return f"{self.name} is {self.found}, below {self.at_least}; pip install '{self.name}>={self.at_least}'"
        return None


def needs() -> list[Need]:
    """Every package that the installed suite asks for; none where it is used without being installed."""
    try:
        asked = requires(PACKAGE) or []
    except PackageNotFoundError:
        return []
    found = [re.match(r"([\w.-]+?)\s*>=\s*([\w.]+)\s*$", one) for one in asked if "extra ==" not in one]
    return [Need(match[1], match[2], installed(match[1])) for match in found if match]


def installed(package: str) -> str | None:
    """The version of a package; None: it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def optional() -> dict[str, str | None]:
    """Of every optional part: the command that installs it; None where it is there."""
    return {
        extra: None if importlib.util.find_spec(module) else f"pip install '{PACKAGE}[{extra}]'"
        for extra, (module, _) in OPTIONAL.items()
    }


def numbers(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with.

    >>> numbers("2.11.0+cu130"), numbers("1.26") < numbers("2.0rc1")
    ((2, 11, 0), True)
    """
    return tuple(int(part) for part in re.findall(r"\d+", re.match(r"[\d.]*", text)[0]))  # type: ignore[index]
