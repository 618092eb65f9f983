"""First values of a memory's tensors."""

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor, rand

from suite.keys import Key

Init = Literal["kaiming", "xavier"]
"""Names of initialisations, see `uniform`."""


def uniform(rows: int, columns: int, init: Init, key: Key) -> Float[Tensor, "rows columns"]:
    """A uniform matrix: Kaiming, |x| < sqrt(6 / columns) (paper, A.1), or Xavier, |x| < sqrt(6 / (rows + columns))."""
    bound = math.sqrt(6 / columns) if init == "kaiming" else math.sqrt(6 / (rows + columns))
    return (rand(rows, columns, generator=key.generator()) * 2 - 1) * bound
