"""Another optimizer that takes shorter steps with some of the tensors."""

from dataclasses import dataclass, field, replace

import torch

from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.inner_optimizers.wrapping import require_order
from suite.registry import inner_optimizers
from suite.types import Optimizer, Params, State, over_steps
from suite.validation import NonNegative


@inner_optimizers.register("slowed")
@dataclass(frozen=True)
class Slowed:
    """Another optimizer (`of`), whose steps are multiplied by `factor` in tensors whose names begin with `part`.

    There w <- w + factor (w' - w), where w' is what `of` makes of w; 0 leaves them as they are. Adam moves all numbers
    at one rate, and the weights of an extractor that was trained before bear a smaller one than images do.

    >>> optimizer = Slowed(of=SGDMomentum(lr=1.0, momentum=0.0), part="extractor.", factor=0.5)
    >>> params = {"bases": torch.zeros(1), "extractor.weight": torch.zeros(1)}
    >>> grads = {name: torch.ones(1) for name in params}
    >>> optimizer.step(params, grads, optimizer.init(params))[0]
    {'bases': tensor([-1.]), 'extractor.weight': tensor([-0.5000])}
    """

    of: Optimizer = field(default_factory=SGDMomentum)
    """Takes the step."""
    part: str = "extractor."
    """What the names of these tensors begin with."""
    factor: NonNegative = 0.1
    """Of their steps."""

    def __post_init__(self) -> None:
        require_order(self)

    def over(self, steps: int) -> Optimizer:
        """With `of` of so many steps."""
        return replace(self, of=over_steps(self.of, steps))

    def init(self, params: Params) -> State:
        """That of `of`."""
        return self.of.init(params)

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters and the state after a step."""
        stepped, state = self.of.step(params, grads, state)
        return {
            k: torch.lerp(params[k], w, self.factor) if k.startswith(self.part) else w for k, w in stepped.items()
        }, state
