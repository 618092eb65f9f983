r"""Template of a control: real images that a memory of the same budget must beat.

    python -m suite.check docs/templates/control.py
    python -m suite.run --plugin docs/templates/control.py --gin gin/quickstart.gin --gin gin/scale/smoke.gin \
        --set 'CONTROLS = [@controls.random_images(), @controls.nearest_to_mean()]'
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from suite.controls.features import features, select
from suite.keys import Key
from suite.registry import controls
from suite.types import ClassRows, Setting, Split
from suite.validation import NonNegativeInt


@controls.register("nearest_to_mean")  # its name in gin: @controls.nearest_to_mean()
@dataclass(frozen=True)
class NearestToMean:
    """The real images of each class that are nearest to the class's mean, in features.

    >>> NearestToMean().label
    'nearest to the mean'
    """

    epochs: NonNegativeInt = 0
    """Of the training of the network whose features are used; 0 selects in pixels (`SelectsInFeatures`)."""
    label: ClassVar[str] = "nearest to the mean"
    """Its name in tables. A ClassVar is no setting: gin can't change it, and run keys don't depend on it."""
    over: ClassVar[str] = "evaluation networks"
    """What its accuracies are spread over; all networks share one selection."""

    def choose(self, setting: Setting, real: ClassRows, each: int, key: Key) -> Callable[[int], Split]:
        """For each evaluation network's number its images, `each` of every class; a function of the key."""

        def nearest(x: Tensor, k: int) -> Tensor:
            return (x - x.mean(0)).square().sum(1).argsort()[:k]

        chosen = select(real, features(setting, real, self.epochs, key), each, nearest)
        return lambda network: chosen
