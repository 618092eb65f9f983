"""Another optimizer whose parameters are averaged over its steps."""

from dataclasses import dataclass, field, replace

import torch

from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.inner_optimizers.wrapping import require_order
from suite.registry import inner_optimizers
from suite.types import Elementwise, Optimizer, Params, State, over_steps
from suite.validation import Fraction

SLOT, WEIGHT = "average", "average weight"
"""Of the state, beside those of `of`."""


@inner_optimizers.register("averaged")
@dataclass(frozen=True)
class Averaged:
    """Another optimizer (`of`), and an exponential average of what its steps give: a <- d a + (1 - d) w, unbiased.

    The steps are those of `of`. Of a memory learned with it the average is judged and kept (`suite.types.Averaging`),
    where the last step's noise is smaller; RCIG does so with d = 0.99 (Loo et al., 2023).

    >>> optimizer = Averaged(of=SGDMomentum(lr=1.0, momentum=0.0), decay=0.5)
    >>> params, grads, state = {"w": torch.zeros(1)}, {"w": torch.ones(1)}, optimizer.init({"w": torch.zeros(1)})
    >>> for _ in range(2):
    ...     params, state = optimizer.step(params, grads, state)
    >>> params["w"], optimizer.average(params, state)["w"]  # (0.25 (-1) + 0.5 (-2)) / 0.75
    (tensor([-2.]), tensor([-1.6667]))
    """

    of: Optimizer = field(default_factory=SGDMomentum)
    """Takes the steps."""
    decay: Fraction = 0.99
    """d."""

    def __post_init__(self) -> None:
        require_order(self)

    def over(self, steps: int) -> Optimizer:
        """With `of` of so many steps."""
        return replace(self, of=over_steps(self.of, steps))

    @property
    def elementwise(self) -> bool:
        """As `of` is."""
        return isinstance(self.of, Elementwise) and self.of.elementwise

    def init(self, params: Params) -> State:
        """That of `of`, and an average of no weight."""
        zeros = {k: torch.zeros_like(v) for k, v in params.items()}
        weight = torch.zeros_like(next(iter(params.values())).detach().reshape(-1)[0])
        return self.of.init(params) | {SLOT: zeros, WEIGHT: {"sum": weight}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters of `of`, and the state with them in the average."""
        inner = {slot: part for slot, part in state.items() if slot not in (SLOT, WEIGHT)}
        params, inner = self.of.step(params, grads, inner)
        average = {k: self.decay * a.detach() + (1 - self.decay) * params[k].detach() for k, a in state[SLOT].items()}
        weight = self.decay * state[WEIGHT]["sum"].detach() + (1 - self.decay)
        return params, inner | {SLOT: average, WEIGHT: {"sum": weight}}

    def average(self, params: Params, state: State) -> Params:
        """The average so far; `params` before the first step."""
        weight = state[WEIGHT]["sum"]
        return {k: torch.where(weight > 0, a / weight.clamp(min=1e-30), params[k]) for k, a in state[SLOT].items()}
