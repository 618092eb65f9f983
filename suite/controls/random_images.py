"""Real images drawn at random."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from suite.keys import Key
from suite.registry import controls
from suite.types import ClassRows, Setting, Split


@controls.register("random_images")
@dataclass(frozen=True)
class RandomImages:
    """Real images of every class at random, drawn anew for each network.

    >>> import torch
    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape
    >>> setting = Setting(ImageShape(1, 8, 8), 2, MLP(), Standard(), "none", torch.device("cpu"))
    >>> real = ClassRows.of(Split(torch.zeros(6, 1, 8, 8), torch.tensor([0, 1, 0, 1, 0, 1])), classes=2)
    >>> RandomImages().choose(setting, real, each=2, key=Key(0))(0).labels
    tensor([0, 0, 1, 1])
    """

    label: ClassVar[str] = "random real images"
    """Its name in tables."""
    over: ClassVar[str] = "evaluation networks, each with its own draw of images"
    """What its accuracies are spread over."""

    def choose(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Callable[[int], Split]:
        """A draw of `each` images of every class for each network's number, by the key."""
        return lambda network: real.draw(list(range(setting.classes)), each, key(self.label, network))
