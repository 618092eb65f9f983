"""Quantities of continual learning, from the matrix of accuracies and of nothing else.

R[i][j] is the accuracy in percent on task j after task i was learned, None where it was not measured.
"""

from collections.abc import Sequence
from statistics import fmean

Row = list[float | None]
"""Accuracies in percent on each task after one of them was learned; None where not measured."""

Matrix = list[Row]
"""R: a row after each task."""


def retained(r: Matrix) -> float:
    """RA = (1/T) sum over j of R[T, j]. ValueError if the last row is not whole."""
    return fmean(_last(r))


def learning(r: Matrix) -> float:
    """LA = (1/T) sum over j of R[j, j] (MER). ValueError if the diagonal is not whole."""
    return fmean(_diagonal(r))


def interference(r: Matrix) -> float:
    """BTI = (1/T) sum over j of R[T, j] - R[j, j]; the last term is 0 and counts (GEM's and La-MAML's divisor)."""
    return fmean(last - own for last, own in zip(_last(r), _diagonal(r), strict=True))


def backward_transfer(r: Matrix) -> float | None:
    """BWT = (1/(T-1)) sum over j < T of R[T, j] - R[j, j]; None for a single task."""
    return interference(r) * len(r) / (len(r) - 1) if len(r) > 1 else None


def forgetting(r: Matrix) -> float | None:
    """(1/(T-1)) sum over j < T of (max over i of R[i, j]) - R[T, j]; None for one task, or if a part is missing."""
    rows = [_whole(row[: i + 1]) for i, row in enumerate(r)]
    if len(r) < 2 or any(row is None for row in rows):
        return None
    last = _last(r)
    best = [max(row[j] for row in rows if row is not None and j < len(row)) for j in range(len(r) - 1)]
    return fmean(most - now for most, now in zip(best, last, strict=False))


def curve(r: Matrix) -> list[float | None]:
    """After each task the mean accuracy on all tasks seen so far, where all were measured."""
    rows = [_whole(row[: i + 1]) for i, row in enumerate(r)]
    return [fmean(row) if row is not None else None for row in rows]


def _whole(row: Sequence[float | None]) -> list[float] | None:
    found = [value for value in row if value is not None]
    return found if len(found) == len(row) else None


def _last(r: Matrix) -> list[float]:
    last = _whole(r[-1])
    if last is None or len(last) != len(r):
        raise ValueError("the accuracies after the last task must be measured on every task")
    return last


def _diagonal(r: Matrix) -> list[float]:
    own = _whole([row[j] for j, row in enumerate(r)])
    if own is None:
        raise ValueError("every task must be measured after it was learned")
    return own
