"""How pictures are made: a failure is a sentence, words are shown as they are, and equal input gives an equal file."""

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from suite.errors import RunError, one_line, report
from suite.memory import NotShown, with_colours
from suite.storage.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

SCALE = 96
"""Pixels of the longer side of one image in a grid, at the least."""

LONGEST_LABEL = 40
"""Letters of a class's name beside a picture; what is longer is cut."""


def picture(draw: Callable[P, None]) -> Callable[P, None]:
    """A function that draws, whose failures are said and not raised, but for those of the disk.

    Words in the picture are shown as they are: a '$' begins no formula.
    """

    @functools.wraps(draw)
    def attempted(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            from matplotlib import rc_context

            with rc_context({"text.parse_math": False}):
                draw(*args, **kwargs)
        except RunError as error:
            if not isinstance(error, NotShown):  # it is the disk's
                raise
            _say(draw.__name__, str(error))
        except Exception as error:  # whatever libraries of pictures, fonts and linear algebra raise
            _say(draw.__name__, one_line(error))

    return attempted


def _say(name: str, why: str) -> None:
    report(f"[picture] '{name}' can't be drawn ({why}); what was measured is not touched")


def grid(images: Float[Tensor, "n c h w"], columns: int, file: Path) -> None:
    """Images in rows of so many columns, enlarged, as a PNG file."""
    from PIL import Image

    images = with_colours(images)
    factor = max(1, SCALE // max(images.shape[-2:]))
    large = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    pixels = (tiled(large, columns, line=2).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, format="png")
    write_atomic(file, buffer.getvalue())


def tiled(images: Float[Tensor, "n c h w"], columns: int, line: int) -> Float[Tensor, "3 height width"]:
    """Images in rows of so many columns, as one of three channels, with white lines of so many pixels around each.

    The same as torchvision's `make_grid`, whose import takes longer than a small run's steps.
    """
    n, _, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    framed = pad(images.expand(-1, 3, -1, -1), (line, 0, line, 0), value=1.0)
    blank = framed.new_ones(rows * columns - n, *framed.shape[1:])
    whole = torch.cat([framed, blank]).unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    return pad(whole.reshape(3, rows * (height + line), columns * (width + line)), (0, line, 0, line), value=1.0)


def short(labels: Sequence[str]) -> list[str]:
    """Labels of at most `LONGEST_LABEL` letters, on one line."""
    flat = [" ".join(label.split()) for label in labels]
    return [label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…" for label in flat]


def figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, without a window or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", file: Path) -> None:
    """The figure as a PNG file, the same bytes for the same figure; what the library warns of is one sentence."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as warned:  # such as letters that no font here has
        warnings.simplefilter("always")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(file, buffer.getvalue())
    if warned:
        more = f" and {len(warned) - 1} more" if len(warned) > 1 else ""
        report(f"[picture] {file.name} is not as it should be ({one_line(str(warned[0].message))}{more})")
