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
    """Real images of every class at random, drawn anew for each network."""

    label: ClassVar[str] = "random real images"
    over: ClassVar[str] = "evaluation networks, each with its own draw of images"

    def choose(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Callable[[int], Split]:
        return lambda network: real.draw(list(range(setting.classes)), each, key(self.label, network))
