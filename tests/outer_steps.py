"""The outer loop as the tests run it: a state after every step."""

from collections.abc import Iterator

from suite.core.outer_loop import OuterState, step
from suite.keys import Key
from suite.types import ClassRows, Objective, Optimizer, Setting


def outer_states(
    setting: Setting,
    objective: Objective,
    optimizer: Optimizer,
    real: ClassRows,
    state: OuterState,
    key: Key,
    iterations: int,
    max_grad_norm: float | None,
    max_skipped: int = 0,
) -> Iterator[OuterState]:
    """The state after every outer step from `state` up to iteration `iterations`."""
    while state.iteration < iterations:
        state = step(setting, objective, optimizer, real, state, key, max_grad_norm, max_skipped)
        yield state
