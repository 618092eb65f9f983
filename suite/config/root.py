"""What a gin file describes."""

from dataclasses import dataclass
from pathlib import Path

from suite.errors import UsageError
from suite.types import Experiment
from suite.validation import checked, require

ROOT = Path(__file__).resolve().parents[2]
"""Where `gin/` lies; includes are found from here, whatever the working directory."""


@checked
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
        plain = self.name is None or not (self.name.startswith(".") or set(self.name) & {"/", "\0"} or not self.name)
        require(self, "name", plain, "the name of a folder, without '/'")
        if not self.seeds:
            raise UsageError("SEEDS must hold at least one whole number, as in SEEDS = [0]")
