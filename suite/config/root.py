"""What a gin file binds: `run` and `protocol`."""

from dataclasses import dataclass

import gin

from suite.errors import UsageError
from suite.evaluation.protocol import Protocol
from suite.types import Experiment
from suite.validation import checked, require


@gin.register("run", module="suite")
@checked
@dataclass(frozen=True)
class Root:
    """What a gin file describes: one experiment, its seeds, and the axes of a table if it is one."""

    experiment: Experiment
    """What is run, with all its components."""
    seeds: list[int]
    """One run for each."""
    name: str | None = None
    """Folder of the runs; None: named after the first gin file."""
    scale: str = "custom"
    """Label of how much of the paper's compute is used; set by the files of `gin/scale/`."""
    axes: dict[str, dict[str, list[str]]] | None = None
    """Axis -> label -> bindings; the cells of the table are all combinations of labels."""
    cell: dict[str, str] | None = None
    """Axis -> label of this run, where it is one cell of a table."""
    choose: str | None = None
    """The axis whose value is chosen on the validation split."""
    then: list[str] | None = None
    """Bindings under which the chosen cell is run once more."""

    def __post_init__(self) -> None:
        name = "runs" if self.name is None else self.name
        plain = not (name.startswith(".") or set(name) & {"/", "\0"} or not name) and len(name.encode()) <= 255
        require(self, "name", plain, "the name of a folder, without '/' and of 255 bytes at most")
        if not self.seeds:
            raise UsageError("SEEDS must hold at least one whole number, as in SEEDS = [0]")


gin.register("protocol", module="suite")(Protocol)
