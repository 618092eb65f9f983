"""The hypergradient of a tiny problem on this device, against plain autograd and finite differences, in float64."""

import time
from typing import Any

import torch

from suite.contracts.problem import Problem, finite_difference_error, relative_error
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.registry import load_components, parameterizations

STEPS, WIDTH = 5, 4
"""Inner steps and channels: exactness depends on neither, and time does."""

MOST_OFF = {"autograd": 1e-10, "finite differences": 1e-5}
"""Relative errors from which on a device computes something else. The table of docs/engine.md has 1e-14 and 1e-7."""


def self_test(device: torch.device) -> dict[str, Any]:
    """Relative errors of the gradient of a memory of bases through a ConvNet's inner loop, and the seconds they took.

    `tools.exactness` does the same for every combination of components, at length.
    """
    load_components()
    began, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(1)  # so small a problem is many times slower on several, where others are at work
    stored = parameterizations["addressing"].build(bases=2)
    sharp = Problem(SGDMomentum(), stored, "convnet", STEPS, width=WIDTH, device=device)
    smooth = Problem(SGDMomentum(), stored, "convnet", STEPS, width=WIDTH, activation="silu", device=device)
    errors = {
        "autograd": relative_error(sharp.gradient(), sharp.gradient_by_full_graph()),
        "finite differences": finite_difference_error(smooth),
    }
    torch.set_num_threads(threads)
    return {"device": str(device), "errors": errors, "seconds": round(time.monotonic() - began, 2)}


def problems(found: dict[str, Any]) -> list[str]:
    """What is wrong with the errors, in sentences."""
    return [
        f"the hypergradient on {found['device']} differs from {what} by {found['errors'][what]:.1e}, where {most:g} is "
        "the most; use another --device, and report this"
        for what, most in MOST_OFF.items()
        if not found["errors"][what] <= most  # NaN, too
    ]
