"""Whether this process is one of several that a launcher started for one command (`torchrun`). Imports no torch."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from suite.errors import UsageError


@dataclass(frozen=True)
class Place:
    """A process's place among those of its command."""

    rank: int
    """Its number, from 0."""
    count: int
    """Processes in all, on all machines."""
    local: int
    """Its number on its machine."""
    local_count: int
    """Processes on its machine."""


def launched(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that torchrun's variables name; None for a process alone, which one of one is, too.

    $RANK and $WORLD_SIZE, and with them $LOCAL_RANK and $LOCAL_WORLD_SIZE, which are the same on one machine. Raises
    UsageError for a place that can't be.

    >>> meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    >>> launched({"RANK": "1", "WORLD_SIZE": "4"} | meet), launched({"RANK": "0", "WORLD_SIZE": "1"}), launched({})
    (Place(rank=1, count=4, local=1, local_count=4), None, None)
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    rank, count = environment["RANK"], environment["WORLD_SIZE"]
    words = rank, count, environment.get("LOCAL_RANK", rank), environment.get("LOCAL_WORLD_SIZE", count)
    if not all(word.isdecimal() for word in words) or not int(rank) < int(count) or not int(words[2]) < int(words[3]):
        raise UsageError(
            f"$RANK, $WORLD_SIZE, $LOCAL_RANK and $LOCAL_WORLD_SIZE are {', '.join(words)}, which is no place among "
            "several processes; start with torchrun, or unset them for a process alone"
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if int(count) > 1 and missing:
        raise UsageError(
            f"$RANK and $WORLD_SIZE say that this process is one of {count}, and ${missing[0]}, where they meet, is "
            "not set; start with torchrun, or unset both for a process alone"
        )
    return Place(*map(int, words)) if int(count) > 1 else None


def is_follower() -> bool:
    """Whether the process is one of several and not the first of them, which speaks and writes for all."""
    try:
        place = launched()
    except UsageError:
        return False
    return place is not None and place.rank > 0


def is_beside_the_first() -> bool:
    """Whether all processes of the command are on one machine, so that what one can't do the first can't either."""
    try:
        place = launched()
    except UsageError:
        return True
    return place is None or place.local_count == place.count


def in_turn(rollouts: int) -> int:
    """How many of so many rollouts this process does, one after the other."""
    place = launched()
    return rollouts if place is None else math.ceil(rollouts / place.count)
