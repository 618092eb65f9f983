"""What a gin file describes."""

from dataclasses import dataclass

from suite.errors import UsageError
from suite.types import Experiment
from suite.validation import check_types, require


@dataclass(frozen=True)
class Root:
    """What a gin file describes: one experiment, the seeds to run it with, and the axes of its table if it is one."""

    experiment: Experiment
    seeds: list[int]
    name: str | None = None
    scale: str = "custom"
    axes: dict[str, dict[str, list[str]]] | None = None
    cell: dict[str, str] | None = None
    choose: str | None = None
    then: list[str] | None = None

    def __post_init__(self) -> None:
        check_types(self)
        plain = self.name is None or not (self.name.startswith(".") or set(self.name) & {"/", "\0"} or not self.name)
        require(self, "name", plain, "the name of a folder, without '/'")
        if not self.seeds:
            raise UsageError("SEEDS must hold at least one whole number, as in SEEDS = [0]")
