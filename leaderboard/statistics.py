"""What a row's figures say: two kinds of spread, a 95% interval that names its kind, and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

from scipy.special import stdtrit

Kind = Literal["memories", "streams", "evaluation networks", "episodes"]


@dataclass(frozen=True)
class Estimate:
    """A mean in percent with its spread over memories (one for each seed) and over the networks that judge one memory.

    `interval` is half of the 95% interval of the mean by Student's t: over memories if there are several, since another
    memory is what a reader would make; else over the networks of the only one; None for a single value.
    """

    mean: float
    memories: int
    networks: int
    spread_of_memories: float | None
    spread_of_networks: float | None
    interval: float | None
    interval_over: Kind | None
    seeds: Kind = "memories"
    """What every seed makes anew."""
    within: Kind = "evaluation networks"
    """What a seed has several values of."""


@dataclass(frozen=True)
class Difference:
    """The mean of (second - first) over the seeds that both have, and half of its 95% interval (paired, by t)."""

    mean: float
    seeds: int
    interval: float | None

    @property
    def shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and abs(self.mean) > self.interval


def estimate(
    values: Mapping[int, Sequence[float]], seeds: Kind = "memories", within: Kind = "evaluation networks"
) -> Estimate:
    """Of each seed's values, one for each of `within` (of its memory); `seeds` says what a seed makes.

    The spread of memories is the sample standard deviation of the seeds' means (it holds what is left of the networks'
    spread); that of networks is pooled, the root of the mean variance within a seed.
    """
    means = [fmean(own) for own in values.values()]
    variances = [stdev(own) ** 2 for own in values.values() if len(own) > 1]
    of_memories = stdev(means) if len(means) > 1 else None
    of_networks = math.sqrt(fmean(variances)) if variances else None
    networks = max(len(own) for own in values.values())
    interval: float | None = None
    over: Kind | None = None
    if of_memories is not None:
        interval, over = half_interval(of_memories, len(means)), seeds
    elif of_networks is not None:
        interval, over = half_interval(of_networks, networks), within
    return Estimate(fmean(means), len(means), networks, of_memories, of_networks, interval, over, seeds, within)


def paired(first: Mapping[int, Sequence[float]], second: Mapping[int, Sequence[float]]) -> Difference | None:
    """The difference on shared seeds; None if there are none."""
    shared = sorted(set(first) & set(second))
    if not shared:
        return None
    apart = [fmean(second[seed]) - fmean(first[seed]) for seed in shared]
    interval = half_interval(stdev(apart), len(apart)) if len(apart) > 1 else None
    return Difference(fmean(apart), len(apart), interval)


def stdev(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1), by floats: `statistics.stdev` works in fractions, fifty times slower."""
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def half_interval(spread: float, n: int) -> float:
    """t(0.975, n - 1) s / sqrt(n)."""
    return _quantile(n - 1) * spread / math.sqrt(n)


@lru_cache
def _quantile(freedom: int) -> float:
    return float(stdtrit(freedom, 0.975))
