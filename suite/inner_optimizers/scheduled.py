"""Another optimizer whose steps grow or shrink over a run."""

from dataclasses import dataclass, field, replace

import torch

from suite.errors import UsageError
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.inner_optimizers.wrapping import require_order
from suite.registry import inner_optimizers
from suite.schedules.cosine import Cosine
from suite.types import Elementwise, Optimizer, Params, Schedule, State, over_steps
from suite.validation import PositiveInt

SLOT = "schedule"
"""Of the state, beside those of `of`."""


@inner_optimizers.register("scheduled")
@dataclass(frozen=True)
class Scheduled:
    """Another optimizer (`of`), each of whose steps is multiplied by a factor: w <- w + f(t) (w' - w), w' = of's step.

    For an optimizer whose step is proportional to its rate this is a schedule of the rate.

    >>> optimizer = Scheduled(of=SGDMomentum(lr=1.0, momentum=0.0), schedule=Cosine(), steps=2)
    >>> params, grads, state = {"w": torch.zeros(1)}, {"w": torch.ones(1)}, optimizer.init({"w": torch.zeros(1)})
    >>> for _ in range(2):
    ...     params, state = optimizer.step(params, grads, state)
    >>> params["w"]
    tensor([-1.5000])
    """

    of: Optimizer = field(default_factory=SGDMomentum)
    """Gives a step."""
    schedule: Schedule = field(default_factory=Cosine)
    """f."""
    steps: PositiveInt | None = 1000
    """T, over which the schedule runs; its last factor holds after them. None: all outer steps of a run."""

    def __post_init__(self) -> None:
        require_order(self)
        if self.steps is not None:
            self.schedule.factor(torch.zeros(()), self.steps)  # refuses too few steps

    def over(self, steps: int) -> Optimizer:
        """With so many steps where they are not given."""
        return replace(self, of=over_steps(self.of, steps), steps=self.steps or steps)

    @property
    def elementwise(self) -> bool:
        """As `of` is."""
        return isinstance(self.of, Elementwise) and self.of.elementwise

    def init(self, params: Params) -> State:
        """That of `of`, and t = 0."""
        t = torch.zeros_like(next(iter(params.values())).detach().reshape(-1)[0])
        return self.of.init(params) | {SLOT: {"t": t}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        """The parameters and the state after step t."""
        if self.steps is None:
            raise UsageError("scheduled.steps is None, which stands for the outer steps of a run; name a number here")
        t = state[SLOT]["t"].detach()
        factor = self.schedule.factor(t, self.steps)
        new, inner = self.of.step(params, grads, {slot: part for slot, part in state.items() if slot != SLOT})
        return {k: w + factor * (new[k] - w) for k, w in params.items()}, inner | {SLOT: {"t": t + 1}}
