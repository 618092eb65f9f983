"""How pictures are made: a failure is a sentence, words are shown as they are, and equal input gives an equal file."""

import functools
import io
import textwrap
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
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

P = ParamSpec("P")

SCALE = 96
"""Pixels of the longer side of one image in a grid, at the least."""

LONGEST_LABEL = 40
"""Letters of a class's name beside a picture; what is longer is cut."""

DPI = 120
"""Pixels of an inch."""

POINTS, LINE, LETTER = 8, 17, 7
"""Of words around a grid: their size, and the pixels of a line and, at most on average, of a letter."""

GAP, NARROWEST = 10, 320
"""Pixels between parts of a grid, and of the narrowest picture, which has room for a caption."""

Block = tuple[str, Float[Tensor, "n c h w"]]
"""A heading, which may be empty, and the images below it."""


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


def grid(blocks: Sequence[Block], rows: int, file: Path, labels: Sequence[str] = (), caption: str = "") -> None:
    """Blocks of images side by side, enlarged, as a PNG file: a label before each row, a caption below.

    The images of every block are in so many rows. Headings, labels and the caption are broken into lines.
    """
    parts = [_enlarged(images, -(-len(images) // rows), LINE if labels else 0) for _, images in blocks]
    figure, height = _bare_figure(), parts[0].shape[1]
    pitch = height // rows

    def words(text: str, pixels: int, lines: int) -> "Text":
        return figure.text(0, 0, _broken(text, pixels, lines), transform=None, fontsize=POINTS)

    beside = [words(label, LONGEST_LABEL * LETTER // 2, max(1, pitch // LINE)) for label in labels]
    above = [words(heading, part.shape[2], 3) for (heading, _), part in zip(blocks, parts, strict=True)]
    left = max(map(_width, beside), default=0) + GAP if labels else 0
    top = max(LINE * (text.get_text().count("\n") + 1) + GAP // 2 if text.get_text() else 0 for text in above)
    width = max(left + sum(part.shape[2] + GAP for part in parts) - GAP, NARROWEST if caption else 0)
    below = words(caption, width, 6)
    bottom = LINE * (below.get_text().count("\n") + 1) + GAP // 2 if caption else 0
    figure.set_size_inches(width / DPI, (top + height + bottom) / DPI)
    for i, text in enumerate(beside):
        text.set(x=left - GAP // 2, y=bottom + height - (i + 0.5) * pitch, ha="right", va="center")
    x = left
    for text, part in zip(above, parts, strict=True):
        text.set(x=x + part.shape[2] / 2, y=bottom + height + LINE / 4, ha="center", va="bottom")
        figure.figimage((part * 255).round().to(torch.uint8).permute(1, 2, 0).numpy(), x, bottom)
        x += part.shape[2] + GAP
    below.set(x=2, y=bottom - GAP // 2, va="top")
    save(figure, file)


def _enlarged(images: Float[Tensor, "n c h w"], columns: int, least: int) -> Float[Tensor, "3 height width"]:
    """Images in rows, each enlarged by a whole factor, in rows of at least so many pixels."""
    images = with_colours(images)
    factor = max(1, SCALE // max(images.shape[-2:]))
    large = images.clamp(0, 1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    large = pad(large, (0, 0, 0, max(0, least - large.shape[2])), value=1.0)
    return tiled(large, columns, line=2)


def _broken(text: str, pixels: int, lines: int) -> str:
    """Words in at most so many lines of so many pixels; what is left over is cut."""
    letters = max(4, pixels // LETTER)
    return "\n".join(textwrap.wrap(" ".join(text.split()), letters, max_lines=lines, placeholder="…"))


def _width(text: "Text") -> int:
    """Pixels; what the font lacks is said when the text is drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(text.get_window_extent().width) + 1


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
    """An empty figure of so many inches, without a window or global state, whose parts make room for each other."""
    made = _bare_figure()
    made.set_size_inches(width, height)
    made.set_layout_engine("constrained")
    return made


def _bare_figure() -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(dpi=DPI)
    FigureCanvasAgg(made)
    return made


def save(figure: "Figure", file: Path) -> None:
    """The figure as a PNG file, the same bytes for the same figure; what the library warns of is one sentence."""
    from PIL import Image

    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as warned:  # such as letters that no font here has
        warnings.simplefilter("always")
        figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    raw = torch.frombuffer(bytearray(figure.canvas.buffer_rgba()), dtype=torch.uint8)  # type: ignore[attr-defined]
    pixels = raw.view(height, width, 4)[:, :, :3]
    grey = torch.equal(pixels, pixels[:, :, :1].expand_as(pixels))  # half as many bytes
    Image.fromarray(pixels[:, :, 0 if grey else slice(3)].numpy()).save(buffer, "png", optimize=True)
    write_atomic(file, buffer.getvalue())
    if warned:
        more = f" and {len(warned) - 1} more" if len(warned) > 1 else ""
        report(f"[picture] {file.name} is not as it should be ({one_line(str(warned[0].message))}{more})")
