"""Inner optimizers: how a network is trained on recalled images, as pure functions of dictionaries of tensors.

`w` are the parameters, `g` the gradients, `b`, `m`, `v` what is carried from step to step. The outer loop uses the same
functions to train the memory.
"""

from suite.inner_optimizers import (
    adam,
    averaged,
    clipped,
    forward_only_momentum,
    no_momentum,
    scheduled,
    sgd_momentum,
    slowed,
)

__all__ = ["adam", "averaged", "clipped", "forward_only_momentum", "no_momentum", "scheduled", "sgd_momentum", "slowed"]
