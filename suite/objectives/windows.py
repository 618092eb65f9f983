"""Truncated back-propagation through time, at random places of the training."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from suite.core.unroll import Window
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.registry import objectives
from suite.types import ClassRows, Params, Passes, Setting
from suite.validation import PositiveInt, require


@objectives.register("windows")
@dataclass(frozen=True)
class Windows:
    """Only the last W steps of an unroll are differentiated, which ends after W, ..., T steps, drawn anew each time.

    The network after N steps is judged, N drawn from W, ..., T by the outer step's key, and the gradient passes through
    steps N - W, ..., N - 1; the weights before them count as constants. A memory learns from all ages of a network at
    the cost of W differentiated steps. RaT-BPTT: Feng, Vedantam and Kempe, Embarrassingly Simple Dataset Distillation
    (2024), where T = 200 and W = 60. With `position` 'end', N = T: plain truncation.

    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 8, 8), 2, MLP(width=4), Standard(), "none", torch.device("cpu"))
    >>> memory = Standard().init(setting.shape, 2, 1, Key(0))
    >>> real = ClassRows.of(Split(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])), 2)
    >>> gradients, metrics = Windows(of=BPTT(inner_steps=6), window=2).gradients(setting, memory, real, Key(1))
    >>> gradients["images"].shape, sorted(metrics)
    (torch.Size([2, 1, 1, 8, 8]), ['inner_loss', 'inner_loss_first', 'loss', 'window_end'])
    """

    of: BPTT = field(default_factory=BPTT)
    """What is truncated; its `inner_steps` are T."""
    window: PositiveInt = 40
    """W."""
    position: Literal["random", "end"] = "random"
    """Where the window ends: anywhere, or after all steps."""
    learns_labels: ClassVar[Literal[True]] = True
    """As `of` does."""

    def __post_init__(self) -> None:
        steps = self.of.inner_steps
        in_pixels = self.of.first_layer == "pixels"
        require(self, "of", in_pixels, "bptt with first_layer 'pixels': the weights before a window are constants")
        require(self, "window", self.window <= steps, f"at most {steps}, the inner steps")

    @property
    def inner_steps(self) -> int:
        """T."""
        return self.of.inner_steps

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """The gradient through the window in the memory's tensors; BPTT's metrics, and N as `window_end`."""
        end, room = self.inner_steps, self.inner_steps - self.window
        if self.position == "random":
            end = self.window + int(torch.randint(room + 1, (), generator=key("window").generator()))
        window = Window(end - self.window)
        gradients, metrics, _ = self.of.through(setting, memory, real, key, end, window)
        return gradients, metrics | {"window_end": torch.full((), float(end), device=setting.device)}

    def gradient_norms(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> list[float]:
        """Those of the whole unroll."""
        return self.of.gradient_norms(setting, memory, real, key)

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Sizes of an outer step, with the memory that a window needs."""
        place = "anywhere among" if self.position == "random" else "at the end of"
        through = {"inner steps": f"{self.window} differentiated, {place} {self.inner_steps}"}
        return self._window().plan(setting, per_class) | through

    def work(self, setting: Setting, per_class: int) -> list[Passes]:
        """The steps before a window, on average, and the window."""
        before = (self.inner_steps - self.window) / (2 if self.position == "random" else 1)
        batch, _ = self.of.sizes(setting, per_class)
        return [
            Passes("step", batch, before, self.of.unrolls_captured(setting.device)),
            *self._window().work(setting, per_class),
        ]

    def _window(self) -> BPTT:
        return BPTT(**(vars(self.of) | {"inner_steps": self.window}))
