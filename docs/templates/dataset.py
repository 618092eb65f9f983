r"""Template of a data set: three shapes on noise, drawn here, so that no file is needed.

    python -m suite.check docs/templates/dataset.py --data-dir data
    python -m suite.run --plugin docs/templates/dataset.py --gin gin/quickstart.gin --gin gin/scale/smoke.gin \
        --set 'DATASET = @datasets.shapes()' --set 'IMAGES_PER_CLASS = 10' --set 'addressing.bases = None'
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from suite.datasets.base import ImageDataset, Raw
from suite.keys import Key
from suite.registry import datasets
from suite.types import DatasetInfo, ImageShape
from suite.validation import NonNegative


@datasets.register("shapes")  # its name in gin: @datasets.shapes()
@dataclass(frozen=True)
class Shapes(ImageDataset):  # brings the choice of a preprocessing, the validation split and the cache
    """Bars, columns and crosses of 1x16x16 pixels, at random places on noise.

    >>> Shapes().info.classes
    3
    """

    noise: NonNegative = 0.1
    """Standard deviation of the noise; pixels are from 0 to 1."""

    @property
    def info(self) -> DatasetInfo:
        """Shape, class names and sizes, known before any file is read."""
        return DatasetInfo("shapes", ImageShape(1, 16, 16), ("bar", "column", "cross"), 600, 150)

    def read(self, root: Path, download: bool) -> Raw:
        """The images, as bytes; read them from files below `root` here, with `suite.datasets.sources`."""
        # What is read here is cached until a field, this code or a file that a field names (a `Path`, a text with a
        # whole path, or the name of something below `root`) changes. Say which other files it depends on:
        # def files(self, root): return [root / "my_images"]
        parts = (self._part(size, Key(0)(name)) for name, size in (("train", 600), ("test", 150)))
        (train_images, train_labels), (test_images, test_labels) = parts
        return Raw(train_images, train_labels, test_images, test_labels, source="drawn by docs/templates/dataset.py")

    def _part(self, size: int, key: Key) -> tuple[torch.Tensor, torch.Tensor]:
        images = self.noise * torch.randn(size, 1, 16, 16, generator=key("noise").generator())
        labels, places = torch.arange(size) % 3, torch.randint(2, 14, (size, 2), generator=key("places").generator())
        for image, label, (row, column) in zip(images, labels.tolist(), places.tolist(), strict=True):
            if label != 1:
                image[:, row] += 1
            if label != 0:
                image[:, :, column] += 1
        return images.clamp(0, 1).mul(255).round().to(torch.uint8), labels
