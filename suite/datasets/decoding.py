"""Pictures of any format and size as images of one shape: decoded, turned upright, resized and cut by Pillow."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from suite.datasets.base import ImageDataset
from suite.errors import RunError, one_line, report
from suite.storage.plain_files import open_plain
from suite.types import ImageShape
from suite.validation import Few, Fraction

Resize = Literal["crop", "stretch", "none"]
"""'crop': the largest centred part of the wanted proportions, scaled to the wanted size; 'stretch': the whole picture,
scaled in both directions; 'none': the picture must have the wanted size. Scaling is bicubic and antialiased."""

MANY = 2_000
"""Pictures that take so long to read that it is said."""

NAMED = 3
"""Of several pictures that can't be read, so many are named."""

MOST_PIXELS = 64_000_000
"""Of a picture before it is resized; more take gibibytes to decode, and Pillow warns of them."""

THREADS = 4
"""That decode at once; Pillow lets others work while it does."""


@dataclass(frozen=True)
class Shaping:
    """What every picture is made into."""

    shape: ImageShape
    """1 channel is luminance, 3 are red, green and blue."""
    resize: Resize
    """How a picture of another size comes to it."""

    def image(self, picture: Any) -> UInt8[Tensor, "c h w"]:
        """A picture of Pillow's as an image. Raises ValueError for one that can't be.

        The first frame of several; upright, where the picture says how it was held; without its transparency; 16 bits
        of a grey one are cut to 8.
        """
        from PIL import Image, ImageOps

        width, height = picture.size  # known before the pixels are decoded
        if width * height > MOST_PIXELS:
            raise ValueError(f"it says that it has {height:,}x{width:,} pixels; make it smaller")
        wide = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
        if picture.mode in ("F", "I") and not wide:
            raise ValueError(f"pixels of Pillow's mode '{picture.mode}' have no known range; save it with 8 or 16 bits")
        picture = ImageOps.exif_transpose(picture)
        if wide:
            picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        picture = picture.convert({1: "L", 3: "RGB"}[self.shape.channels])
        pixels = np.array(self._sized(picture), dtype=np.uint8).reshape(self.shape.height, self.shape.width, -1)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def _sized(self, picture: Any) -> Any:
        from PIL import Image

        wanted = self.shape.width, self.shape.height
        if picture.size == wanted:
            return picture
        if self.resize == "none":
            raise ValueError(f"it has {picture.height}x{picture.width} pixels, not {wanted[1]}x{wanted[0]}")
        width, height = picture.size
        box = (0.0, 0.0, float(width), float(height))
        if self.resize == "crop":
            scale = min(width / wanted[0], height / wanted[1])
            left, top = (width - scale * wanted[0]) / 2, (height - scale * wanted[1]) / 2
            right, bottom = left + scale * wanted[0], top + scale * wanted[1]
            # Rounding may lead out of the picture by a part of 10^15.
            box = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
        return picture.resize(wanted, Image.Resampling.BICUBIC, box)


@dataclass(frozen=True)
class Pictures(ImageDataset):
    """A data set of pictures of any size; subclasses say where they are, and which of them test."""

    height: Few = 32
    """Of the images, in pixels."""
    width: Few | None = None
    """Of the images, in pixels; None: as the height."""
    channels: Literal[1, 3] = 3
    """1 for grey images, 3 for colours."""
    resize: Resize = "crop"
    """How a picture of another size comes to this one (`suite.datasets.decoding.Resize`)."""
    test_share: Fraction = 0.2
    """Of each class, where nothing says which images test."""

    @property
    def shaping(self) -> Shaping:
        """What every picture is made into."""
        return Shaping(ImageShape(self.channels, self.height, self.width or self.height), self.resize)


def decoded_files(name: str, files: Sequence[Path], shaping: Shaping) -> UInt8[Tensor, "n c h w"]:
    """The images in these files, in their order. Raises RunError that names those that can't be read."""
    pictures = [partial(_opened, file, shaping) for file in files]
    return decoded(name, pictures, [str(file) for file in files], shaping.shape)


def decoded(
    name: str,
    pictures: Sequence[Callable[[], UInt8[Tensor, "c h w"]]],
    names: Sequence[str],
    shape: ImageShape,
    at_once: int = THREADS,
) -> UInt8[Tensor, "n c h w"]:
    """What these functions give, so many at once. Raises RunError that names those that fail."""
    if len(pictures) > MANY:
        report(f"[data] {name}: reading {len(pictures):,} pictures")
    images = torch.empty(len(pictures), shape.channels, shape.height, shape.width, dtype=torch.uint8)

    def read(row: int) -> str:
        try:
            images[row] = pictures[row]()
            return ""
        except Exception as error:  # decoders raise whatever a broken file leads them to
            return f"{names[row]} ({one_line(error)[:200]})"

    with ThreadPoolExecutor(at_once) as pool:
        failed = [what for what in pool.map(read, range(len(pictures))) if what]
    if failed:
        more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise RunError(
            f"{name}: {len(failed)} of {len(pictures)} pictures can't be read: {'; '.join(failed[:NAMED])}{more}; "
            "mend or remove them"
        )
    return images


def _opened(file: Path, shaping: Shaping) -> UInt8[Tensor, "c h w"]:
    from PIL import Image

    with open_plain(file, follow=True) as opened, Image.open(opened) as picture:
        return shaping.image(picture)
