"""What a row's values say: two kinds of spread, a 95% interval that names its kind, and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

Kind = Literal["memories", "streams", "evaluation networks", "episodes"]
"""What values are spread over."""


@dataclass(frozen=True)
class Estimate:
    """A mean in percent with its spread over seeds (a memory or stream each) and over the values of each seed.

    `interval` is over memories if there are several, since another memory is what a reader would make; else over the
    networks of the only one.
    """

    mean: float
    """Of the seeds' means."""
    memories: int
    """The number of seeds."""
    networks: int
    """The number of values of a seed, at the most."""
    spread_of_memories: float | None
    """Sample standard deviation of the seeds' means; None for one seed."""
    spread_of_networks: float | None
    """Pooled standard deviation within seeds; None where each has one value."""
    interval: float | None
    """Half of the 95% interval of the mean by Student's t; None for a single value."""
    interval_over: Kind | None
    """What the interval is over."""
    seeds: Kind = "memories"
    """What every seed makes anew."""
    within: Kind = "evaluation networks"
    """What a seed has several values of."""


@dataclass(frozen=True)
class Difference:
    """The mean of (second - first) over the seeds that both have, or over the episodes of the only one."""

    mean: float
    """In points."""
    seeds: int
    """The number of shared seeds."""
    interval: float | None
    """Half of its 95% interval, paired, by Student's t; None for a single pair."""
    episodes: int = 0
    """The number of pairs where these are episodes of one seed; 0 where they are seeds."""

    @property
    def shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and abs(self.mean) > self.interval


def estimate(
    values: Mapping[int, Sequence[float]], seeds: Kind = "memories", within: Kind = "evaluation networks"
) -> Estimate:
    """The estimate of values by seed, one for each of `within`; `seeds` names what a seed makes anew.

    The spread of memories is the sample standard deviation of the seeds' means (it holds what is left of the networks'
    spread); that of networks is pooled, the root of the mean variance within a seed.

    >>> estimate({0: [70.0, 72.0], 1: [75.0, 77.0]}).mean
    73.5
    """
    means = [fmean(of_seed) for of_seed in values.values()]
    variances = [stdev(of_seed) ** 2 for of_seed in values.values() if len(of_seed) > 1]
    of_memories = stdev(means) if len(means) > 1 else None
    of_networks = math.sqrt(fmean(variances)) if variances else None
    networks = max(len(of_seed) for of_seed in values.values())
    interval: float | None = None
    over: Kind | None = None
    if of_memories is not None:
        interval, over = half_interval(of_memories, len(means)), seeds
    elif of_networks is not None:
        interval, over = half_interval(of_networks, networks), within
    return Estimate(fmean(means), len(means), networks, of_memories, of_networks, interval, over, seeds, within)


def paired(
    first: Mapping[int, Sequence[float]], second: Mapping[int, Sequence[float]], by_episode: bool = False
) -> Difference | None:
    """The difference of the seeds' means on shared seeds; None if there are none.

    `by_episode`: a seed's values were measured in the same episodes, in order, where they are as many. Where one seed
    is shared, the interval is then over its episodes; over seeds wherever there are several, as in `estimate`.

    >>> paired({0: [40.0], 1: [60.0]}, {0: [42.0], 1: [62.0], 2: [99.0]}).mean
    2.0
    """
    shared = sorted(set(first) & set(second))
    if not shared:
        return None
    differences = [fmean(second[seed]) - fmean(first[seed]) for seed in shared]
    pairs, episodes = differences, 0
    if by_episode and len(shared) == 1:
        values, others = second[shared[0]], first[shared[0]]
        if 1 < len(values) == len(others):
            pairs, episodes = [v - o for v, o in zip(values, others, strict=True)], len(values)
    interval = half_interval(stdev(pairs), len(pairs)) if len(pairs) > 1 else None
    return Difference(fmean(differences), len(differences), interval, episodes)


def stdev(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1), by floats: `statistics.stdev` works in fractions, fifty times slower."""
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def half_interval(spread: float, n: int) -> float:
    """t(0.975, n - 1) s / sqrt(n)."""
    return _quantile(n - 1) * spread / math.sqrt(n)


@lru_cache
def _quantile(freedom: int) -> float:
    """t(0.975, freedom)."""
    from scipy.special import stdtrit  # its import takes a tenth of a second, which a command's start need not

    return float(stdtrit(freedom, 0.975))
