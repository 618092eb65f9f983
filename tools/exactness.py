"""How exact the hypergradient is: against plain autograd and finite differences, for everything that is registered.

    python -m tools.exactness [--json] [--long-steps N] [--only OPTIMIZER]

In float64, after 5 inner steps, for every inner optimizer x parameterization x (convnet, resnet12, mlp): the relative
error of the memory's gradient against one autograd graph through all steps, and against central finite differences
along a random direction (with a smooth activation: at a ReLU's kink no difference has a limit). In float32, at 150
steps on the ConvNet: the relative error against float64.
"""

import argparse
import json
import os
import sys
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from suite.contracts.problem import CLASSES, SHAPE, Problem, finite_difference_error, relative_error
from suite.errors import SuiteError
from suite.keys import Key
from suite.parameterizations.image_queries import Asked
from suite.registry import architectures, inner_optimizers, load_components, parameterizations
from suite.types import Parameterization, Params
from suite.validation import AtLeast, number_option

STEPS = 5
WIDTH = 16
"""Channels of the networks in the float64 rows: exactness does not depend on it, and time does."""

FULL_METHOD = "downsampled addressing"
"""The paper's full method: bases stored at half resolution."""

LONG_STEPS = 150
LONG_WIDTH = 128
NETWORKS = ("convnet", "resnet12", "mlp")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.exactness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument(
        "--long-steps",
        type=number_option(int, AtLeast(1)),
        default=LONG_STEPS,
        help="steps of the float32 rows (%(default)s)",
    )
    parser.add_argument("--only", metavar="OPTIMIZER", help="only the rows of one inner optimizer")
    options = parser.parse_args(arguments)
    try:
        rows = table(options.long_steps, options.only)
    except SuiteError as error:
        print(f"tools.exactness: {error}", file=sys.stderr)
        return error.status
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(f"{v:.1e}" if isinstance(v, float) else str(v) for v in row.values()) + " |")
    return 0


def table(long_steps: int = LONG_STEPS, only: str | None = None) -> list[dict[str, Any]]:
    """Every row of the exactness table, or of one inner optimizer."""
    load_components()
    optimizers = [only] if only else inner_optimizers.names()
    stored = [*parameterizations.names(), FULL_METHOD]
    combinations = [(o, p, n) for o in optimizers for p in stored for n in NETWORKS]
    return [short_row(*names) for names in combinations] + [long_row(o, long_steps) for o in optimizers]


def short_row(optimizer: str, parameterization: str, network: str) -> dict[str, Any]:
    """One combination in float64 at 5 steps: errors against autograd and against finite differences."""
    recalls, build = _parameterization(parameterization), inner_optimizers[optimizer].build
    sharp = Problem(build(), recalls, network, STEPS, width=WIDTH)
    # Adam divides by tiny numbers; a larger eps keeps the loss smooth on the scale of a finite difference.
    calm = build(eps=1e-3, eps_root=1e-6) if optimizer == "adam" else build()
    smooth = Problem(calm, recalls, network, STEPS, width=WIDTH, activation="silu")
    # Forward-only momentum leaves a part of the derivative out on purpose.
    differs = optimizer == "forward_only_momentum"
    return _row(optimizer, parameterization, network, "float64", STEPS) | {
        "against autograd": relative_error(sharp.gradient(), sharp.gradient_by_full_graph()),
        "against finite differences": "not its aim" if differs else finite_difference_error(smooth),
    }


def long_row(optimizer: str, steps: int) -> dict[str, Any]:
    """The ConvNet at many steps in float32, compared with the same sweep in float64."""

    def gradient(dtype: torch.dtype) -> Params:
        components = inner_optimizers[optimizer].build(), parameterizations["standard"].build()
        return Problem(*components, "convnet", steps, width=LONG_WIDTH, dtype=dtype).gradient()

    error = relative_error(gradient(torch.float32), gradient(torch.float64))
    return _row(optimizer, "standard", "convnet", "float32", steps) | {"against float64": error}


def _parameterization(name: str) -> Parameterization:
    """A registered parameterization, or the full method, at a size that a small problem affords."""
    if name == FULL_METHOD:
        return parameterizations["downsampled"].build(of=parameterizations["addressing"].build(bases=7))
    if name == "image_queries":
        extractor = architectures["convnet"].build(width=4, activation="silu")
        by_image = parameterizations[name].build(bases=2, matrices=2, extractor=extractor)
        return Asked(by_image, _shots(), images_per_class=10.0)
    if name == "soft_labels":
        return parameterizations[name].build(of=parameterizations["standard"].build())
    return parameterizations[name].build(**({"bases": 2} if name == "addressing" else {}))


def _shots() -> Float[Tensor, "classes 2 channels height width"]:
    """Two images of each class of a `Problem`, for memories that are queried by images."""
    size = (CLASSES, 2, SHAPE.channels, SHAPE.height, SHAPE.width)
    return torch.randn(size, generator=Key(0)("shots").generator(), dtype=torch.float64)


def _row(optimizer: str, parameterization: str, network: str, numbers: str, steps: int) -> dict[str, Any]:
    """A row without its measurements."""
    return {
        "optimizer": optimizer,
        "parameterization": parameterization,
        "network": network,
        "numbers": numbers,
        "steps": steps,
        "against autograd": "-",
        "against finite differences": "-",
        "against float64": "-",
    }


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.exit(main())
