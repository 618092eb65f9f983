"""Back-propagation through time from several places of the training."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor

from suite.core.unroll import Window
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.registry import objectives
from suite.types import ClassRows, Params, Passes, Setting
from suite.validation import Above, require


@objectives.register("judged_often")
@dataclass(frozen=True)
class JudgedOften:
    """The outer loss averaged over several steps of the unroll, so that a memory is good at more than one length.

    loss = mean over i = 1, ..., n of l(w at step ceil(i T / n)), differentiated through all steps in one sweep.

    >>> import torch
    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 8, 8), 2, MLP(width=4), Standard(), "none", torch.device("cpu"))
    >>> memory = Standard().init(setting.shape, 2, 1, Key(0))
    >>> real = ClassRows.of(Split(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])), 2)
    >>> objective = JudgedOften(of=BPTT(inner_steps=5), times=2)
    >>> objective.judged, objective.gradients(setting, memory, real, Key(1))[0]["images"].shape
    ((3, 5), torch.Size([2, 1, 1, 8, 8]))
    """

    of: BPTT = field(default_factory=BPTT)
    """The unroll."""
    times: Annotated[int, Above(1)] = 3
    """n."""
    learns_labels: ClassVar[Literal[True]] = True
    """As `of` does."""

    def __post_init__(self) -> None:
        steps = self.of.inner_steps
        require(self, "times", self.times <= steps, f"at most {steps}, the inner steps")

    @property
    def inner_steps(self) -> int:
        """T."""
        return self.of.inner_steps

    @property
    def judged(self) -> tuple[int, ...]:
        """Numbers of steps after which the network is judged."""
        return tuple(math.ceil(i * self.inner_steps / self.times) for i in range(1, self.times + 1))

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """The hypergradient of the mean outer loss in the memory's tensors, and BPTT's metrics."""
        window = Window(0, self.judged)
        gradients, metrics, _ = self.of.through(setting, memory, real, key, self.inner_steps, window)
        return gradients, metrics

    def gradient_norms(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> list[float]:
        """Those of the unroll that is judged at its end."""
        return self.of.gradient_norms(setting, memory, real, key)

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Sizes of an outer step."""
        return self.of.plan(setting, per_class) | {"judged after": ", ".join(map(str, self.judged)) + " inner steps"}

    def work(self, setting: Setting, per_class: int) -> list[Passes]:
        """That of the unroll, and the other outer losses; none where that is not counted."""
        counted = self.of.work(setting, per_class)
        if not counted:
            return []
        *steps, outer = counted
        return [*steps, Passes(outer.kind, outer.images, outer.times * self.times, outer.captured)]
