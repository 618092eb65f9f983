"""How exact the hypergradient is: against plain autograd and finite differences, for everything that is registered.

    python -m tools.exactness [--json]

In float64, at 5 inner steps, for every inner optimizer x parameterization x (convnet, resnet12, mlp): the relative
error of the memory's gradient against one autograd graph through all steps, and against central finite differences
along a random direction (with a smooth activation: at a ReLU's kink no difference has a limit). In float32, at 150
steps on the ConvNet: the relative error against float64.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from suite.types import InnerOptimizer, Params

STEPS = 5
LONG_STEPS = 150
WIDTH = 16
"""Channels of the networks in the float64 rows: exactness does not depend on it, and time does."""

NETWORKS = ("convnet", "resnet12", "mlp")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.exactness", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument(
        "--long-steps", type=int, default=LONG_STEPS, help="inner steps of the float32 rows (%(default)s)"
    )
    options = parser.parse_args(arguments)
    rows = table(options.long_steps)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(f"{v:.1e}" if isinstance(v, float) else str(v) for v in row.values()) + " |")
    return 0


def table(long_steps: int = LONG_STEPS) -> list[dict[str, Any]]:
    """Every row of the exactness table."""
    from suite.registry import inner_optimizers, load_components, parameterizations

    load_components()
    rows: list[dict[str, Any]] = []
    for optimizer in inner_optimizers:
        for parameterization in parameterizations:
            for network in NETWORKS:
                rows.append(short_row(optimizer.name, parameterization.name, network))
    for optimizer in inner_optimizers:
        rows.append(long_row(optimizer.name, long_steps))
    return rows


def short_row(optimizer: str, parameterization: str, network: str) -> dict[str, Any]:
    """One combination in float64 at 5 steps: errors against autograd and against finite differences."""
    import torch

    sharp = Problem(optimizer, parameterization, network, STEPS, torch.float64)
    swept, value = sharp.swept()
    plain = sharp.by_full_graph()
    return {
        "optimizer": optimizer,
        "parameterization": parameterization,
        "network": network,
        "numbers": "float64",
        "steps": STEPS,
        "against autograd": relative_error(swept, plain),
        # Its gradient is not the derivative of anything: the momentum's part is left out on purpose.
        "against finite differences": "not its aim"
        if optimizer == "forward_only_momentum"
        else finite_difference_error(Problem(optimizer, parameterization, network, STEPS, torch.float64, "silu")),
        "against float64": "-",
        "outer loss": value,
    }


def finite_difference_error(problem: "Problem", directions: int = 1) -> float:
    """|central difference - slope| along random directions, relative to the slope: worst direction, best step.

    A large step errs by the curvature, a small one by rounding, and how curved the loss is differs from row to row.
    """
    import torch

    from suite.keys import Key

    swept, _ = problem.swept()
    worst = 0.0
    for direction in range(directions):
        key = Key(1)("direction", direction)
        v = {k: torch.randn(m.shape, generator=key(k).generator(), dtype=m.dtype) for k, m in problem.memory.items()}
        slope = sum(float((swept[k] * v[k]).sum()) for k in v)
        errors = []
        for eps in (1e-4, 1e-5, 1e-6):
            ahead = problem.value({k: m + eps * v[k] for k, m in problem.memory.items()})
            behind = problem.value({k: m - eps * v[k] for k, m in problem.memory.items()})
            errors.append(abs((ahead - behind) / (2 * eps) / slope - 1))
        worst = max(worst, min(errors))
    return worst


def long_row(optimizer: str, steps: int) -> dict[str, Any]:
    """The ConvNet at many steps in float32, judged by the same sweep in float64."""
    import torch

    exact, _ = Problem(optimizer, "standard", "convnet", steps, torch.float64).swept()
    rough, value = Problem(optimizer, "standard", "convnet", steps, torch.float32).swept()
    return {
        "optimizer": optimizer,
        "parameterization": "standard",
        "network": "convnet",
        "numbers": "float32",
        "steps": steps,
        "against autograd": "-",
        "against finite differences": "-",
        "against float64": relative_error(rough, exact),
        "outer loss": value,
    }


class Problem:
    """A small whole outer step on keyed random data: recall, unroll, outer loss, and the way back to the memory."""

    def __init__(
        self,
        optimizer: str,
        parameterization: str,
        network: str,
        steps: int,
        dtype: "torch.dtype",
        activation: str = "relu",
    ) -> None:
        import torch

        from suite.keys import Key, global_generators
        from suite.registry import architectures, inner_optimizers, parameterizations
        from suite.types import ImageShape

        key = Key(0)
        self.steps, self.dtype, self.classes = steps, dtype, 2
        shape = ImageShape(1, 16, 16)
        fields: dict[str, Any] = {"bases": 2} if parameterization == "addressing" else {}
        self.parameterization = parameterizations[parameterization].build(**fields)
        memory = self.parameterization.init(shape, self.classes, 1.02, key("memory"))
        self.memory: Params = {k: v.to(dtype) for k, v in memory.items()}
        with global_generators(key("network")):
            recipe = architectures[network].build(activation=activation, width=WIDTH if steps == STEPS else 128)
            self.network = recipe.build(shape, self.classes)
        self.params: Params = {k: v.detach().to(dtype) for k, v in self.network.named_parameters()}
        # Adam divides by tiny numbers; a larger eps keeps the loss smooth on the scale of a finite difference.
        settings: dict[str, Any] = (
            {"eps": 1e-3, "eps_root": 1e-6} if optimizer == "adam" and activation != "relu" else {}
        )
        self.optimizer: InnerOptimizer = inner_optimizers[optimizer].build(**settings)
        data = torch.randn(2 * self.classes, *self._size(shape), generator=key("real").generator(), dtype=torch.float64)
        self.real, self.real_labels = data.to(dtype), torch.arange(self.classes).repeat(2)

    @staticmethod
    def _size(shape: Any) -> tuple[int, int, int]:
        return shape.channels, shape.height, shape.width

    def _recall(self, memory: "Params") -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        images = self.parameterization.recall(memory, torch.arange(self.classes))
        return torch.flatten(images, 0, 1), torch.arange(self.classes).repeat_interleave(images.shape[1])

    def _losses(self, labels: "torch.Tensor") -> "tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]":
        from torch.func import functional_call
        from torch.nn.functional import cross_entropy

        def inner(params: "Params", inputs: "Params", t: int) -> "torch.Tensor":
            rows = slice(t % 2, None, 2) if len(labels) > 2 else slice(None)  # other mini-batches at odd steps
            return cross_entropy(functional_call(self.network, params, (inputs["images"][rows],)), labels[rows])

        def outer(params: "Params") -> "torch.Tensor":
            return cross_entropy(functional_call(self.network, params, (self.real,)), self.real_labels)

        return inner, outer

    def swept(self, graphs: int = 0, stride: int = 1) -> "tuple[Params, float]":
        """The memory's gradient by the engine, and the outer loss."""
        from suite.unroll import Retention, hypergradient

        return self._pulled_back(hypergradient, retention=Retention(graphs, stride))

    def by_full_graph(self) -> "Params":
        """The memory's gradient by plain autograd through everything at once."""
        from suite.unroll import hypergradient_by_full_graph

        return self._pulled_back(hypergradient_by_full_graph)[0]

    def value(self, memory: "Params") -> float:
        """The outer loss that this memory leads to."""
        from suite.unroll import hypergradient

        images, labels = self._recall(memory)
        inner, outer = self._losses(labels)
        return hypergradient(inner, outer, self.params, {"images": images}, self.optimizer, self.steps).loss.item()

    def _pulled_back(self, engine: "Callable[..., Any]", **settings: Any) -> "tuple[Params, float]":
        import torch

        leaves = {k: v.detach().requires_grad_() for k, v in self.memory.items()}
        images, labels = self._recall(leaves)
        inner, outer = self._losses(labels)
        inputs = {"images": images.detach()}
        found = engine(inner, outer, self.params, inputs, self.optimizer, self.steps, **settings)
        gradients = torch.autograd.grad(images, list(leaves.values()), found.gradients["images"])
        return dict(zip(leaves, gradients, strict=True)), found.loss.item()


def relative_error(found: "Params", reference: "Params") -> float:
    """|found - reference| / |reference| over all tensors together."""
    difference = sum(float((found[k].double() - reference[k].double()).square().sum()) for k in reference)
    size = sum(float(reference[k].double().square().sum()) for k in reference)
    return (difference / size) ** 0.5


if __name__ == "__main__":
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.exit(main())
