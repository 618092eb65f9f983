"""Counted operations of a network's passes over images, which are linear in the images: from two small batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from suite.core import trees
from suite.core.layers import to_device
from suite.core.networks import fresh_network, network_identity
from suite.core.unroll import InnerLoop, pull_back
from suite.evaluation.training import bound_by_convolutions
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key, global_generators
from suite.types import Params, Setting

Kind = Literal["forward", "gradient", "step", "unrolled"]
"""The kinds of passes, as `suite.types.Passes` says."""

FEW, MORE = 2, 4
"""Images of the two batches that are counted. More than one, since batch norm refuses a single one."""


@dataclass(frozen=True)
class Operations:
    """Counted operations."""

    calls: float = 0.0
    """Operators that do work: views and empty tensors are free."""
    convolutions: float = 0.0
    """Floating point operations of convolutions."""
    products: float = 0.0
    """Floating point operations of products of matrices, and of attention."""
    bytes: float = 0.0
    """Of every operand of every operator, read or written."""

    def plus(self, other: "Operations", times: float = 1.0) -> "Operations":
        """Both together, the other so many times."""
        mine, others = vars(self), vars(other)
        return Operations(**{name: mine[name] + times * others[name] for name in mine})


FREE = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
"""Operators that move no numbers, beside views."""


class _Counter(TorchDispatchMode):
    """Adds up the operations of everything that is run in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.total = Operations()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing that is counted is compiled; torch's guard against it imports the compiler, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils.flop_counter import flop_registry  # which imports a compiler where there is one

        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if func.is_view or name in FREE:
            return result
        formula = flop_registry.get(func.overloadpacket)
        flops = formula(*args, **kwargs, out_val=result) if formula else 0
        convolutions, products = (flops, 0) if "convolution" in name else (0, flops)
        operands = [v for v in tree_leaves((args, kwargs, result)) if isinstance(v, Tensor)]
        size = sum(v.numel() * v.element_size() for v in operands)
        self.total = self.total.plus(Operations(1, convolutions, products, size))
        return result


_counts: dict[tuple[object, ...], tuple[Operations, Operations]] = {}
"""By network, kind of pass and use: the operations of a pass whatever its images, and those of each image."""


def operations(setting: Setting, kind: Kind, images: float, in_evaluation: bool = False) -> Operations:
    """Operations of one pass over so many images by a network of the inner loop, or of the evaluation."""
    identity = (*network_identity(setting), kind, in_evaluation)
    if identity not in _counts:
        module = evaluation_network(setting) if in_evaluation else fresh_network(setting, Key(0))
        few, more = (_counted(network_pass(module, setting, kind, n)) for n in (FEW, MORE))
        each = Operations().plus(more, 1 / (MORE - FEW)).plus(few, -1 / (MORE - FEW))
        _counts[identity] = few.plus(each, -FEW), each
    fixed, each = _counts[identity]
    return fixed.plus(each, images)


def _counted(run: Callable[[], object]) -> Operations:
    with _Counter() as counter:
        run()
    return counter.total


def evaluation_network(setting: Setting) -> nn.Module:
    """A network as the evaluation trains it."""
    with global_generators(Key(0)):
        network = setting.architecture.build(setting.shape, setting.classes).to(setting.device).train()
    return to_device(network, setting.device) if bound_by_convolutions(setting, network) else network


def network_pass(network: nn.Module, setting: Setting, kind: Kind, images: int) -> Callable[[], object]:
    """One pass over noise; its steps are those of gradient descent with momentum."""
    optimizer = SGDMomentum()
    params = trees.detached(dict(network.named_parameters()))
    state = optimizer.init(params)
    shape = (images, setting.shape.channels, setting.shape.height, setting.shape.width)
    inputs = {"images": torch.randn(shape, generator=Key(0)("timing").generator()).to(next(iter(params.values())))}
    labels = torch.zeros(images, dtype=torch.long, device=setting.device)

    def loss(params: Params, inputs: Params = inputs, t: int | Tensor = 0) -> Tensor:
        return cross_entropy(functional_call(network, params, (inputs["images"],)), labels)

    def forward() -> object:
        with torch.no_grad():
            return loss(params)

    def gradient() -> Params:
        leaves = trees.leaves(params)
        grads = torch.autograd.grad(loss(leaves), list(leaves.values()), allow_unused=True)
        return {k: g for k, g in zip(leaves, grads, strict=True) if g is not None}

    def step() -> object:
        grads = gradient()
        with torch.no_grad():
            return optimizer.step({k: params[k] for k in grads}, grads, state)

    def unrolled() -> object:
        segment = InnerLoop(loss, optimizer, inputs).record(params, state, [0])
        return pull_back(segment, params, state, inputs)

    return {"forward": forward, "gradient": gradient, "step": step, "unrolled": unrolled}[kind]
