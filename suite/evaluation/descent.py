"""The optimizers that train evaluation networks, in place and without torch.optim, whose import takes two seconds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from suite.evaluation.protocol import Protocol

SECOND_DECAY, EPSILON = 0.999, 1e-8
"""Of Adam: the decay of the mean of squared gradients, and what is added to its root."""


class Descent:
    """A protocol's optimizer for some weights, over so many steps, to the bits of torch.optim's SGD, Adam and AdamW.

    SGD:   g <- g + d w;  v <- m v + g;  w <- w - r v, with the rate r of the step, momentum m and weight decay d.
    Adam:  g <- g + d w (AdamW: w <- (1 - r d) w);  u <- m u + (1 - m) g;  q <- b q + (1 - b) g²;
           w <- w - r û / (√q̂ + ε), where û and q̂ are without the bias of their start at zero.
    """

    def __init__(self, protocol: Protocol, weights: Sequence[Tensor], steps: int) -> None:
        self._protocol, self._weights, self._steps = protocol, weights, steps
        self._first = [torch.zeros_like(w) for w in weights]
        self._second = [torch.zeros_like(w) for w in weights] if protocol.optimizer != "sgd" else []
        self._taken = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Change the weights in place; one without a gradient stays."""
        protocol, rate = self._protocol, self._protocol.rate(self._taken, self._steps)
        self._taken += 1
        for i, (w, gradient) in enumerate(zip(self._weights, gradients, strict=True)):
            if gradient is None:
                continue
            if protocol.weight_decay and protocol.optimizer == "adamw":
                w.mul_(1 - rate * protocol.weight_decay)
            elif protocol.weight_decay:
                gradient = gradient.add(w, alpha=protocol.weight_decay)
            if protocol.optimizer == "sgd":
                self._first[i].mul_(protocol.momentum).add_(gradient)
                w.sub_(self._first[i], alpha=rate)
            else:
                self._first[i].lerp_(gradient, 1 - protocol.momentum)
                self._second[i].mul_(SECOND_DECAY).addcmul_(gradient, gradient, value=1 - SECOND_DECAY)
                root = (self._second[i].sqrt() / (1 - SECOND_DECAY**self._taken) ** 0.5).add_(EPSILON)
                w.addcdiv_(self._first[i], root, value=-rate / (1 - protocol.momentum**self._taken))
