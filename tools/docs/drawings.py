"""The drawings of the pages on concepts, as SVG made of numbers: `python -m tools.docs --drawings`.

Bases, matrices and images are those of a memory in the gallery. Colours are variables: a drawing by itself follows the
system's light or dark, and one that a page of the site contains follows the page.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape

from suite.errors import RunError
from tools.docs import streams

WIDTH = 760

MEMORY = "digits-1ipc-full"
"""In the gallery: 16 bases of 4x4 numbers and two addressing matrices, which recall digits of 8x8 pixels."""

LIGHT = {
    "ink": "#1f2328",
    "soft": "#59636e",
    "line": "#c3c9d0",
    "paper": "#ffffff",
    "blue": "#2a6fb0",
    "red": "#b5442b",
}
DARK = {"ink": "#e6e9ee", "soft": "#a7b0bb", "line": "#4a535e", "paper": "#1e2129", "blue": "#7fb4e8", "red": "#ef9178"}
"""Colours by what they are for, on a light and on a dark page."""

CLASSES = """
.drawing text{font:15px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}
.drawing .small{font-size:13px;fill:var(--soft)}
.drawing .strong{font-weight:600}
.drawing .mid{text-anchor:middle}
.drawing .end{text-anchor:end}
.drawing .box{fill:none;stroke:var(--line);stroke-width:1.5}
.drawing .chosen{fill:none;stroke:var(--blue);stroke-width:2.5}
.drawing .within{fill:var(--paper);font-size:13px;text-anchor:middle}
.drawing .way{fill:none;stroke:var(--soft);stroke-width:1.8}
.drawing .back{fill:none;stroke:var(--red);stroke-width:1.8;stroke-dasharray:6 4}
.drawing .blue{fill:var(--blue)}
.drawing .red{fill:var(--red)}
.drawing .frame{fill:none;stroke:var(--line);stroke-width:1}
.drawing .rest{fill:var(--line)}
.drawing .head{fill:var(--soft)}
.drawing .headback{fill:var(--red)}
"""


def drawings() -> dict[str, str]:
    """File -> SVG, of every drawing."""
    makers: dict[str, tuple[Callable[[], Iterable[str]], int, str]] = {
        "memory.svg": (
            memory,
            330,
            "A query picks a row of each addressing matrix; the row times the bases is an image",
        ),
        "budget.svg": (
            budget,
            260,
            "The same budget of 640 numbers as ten whole images, forty halved ones, and a memory",
        ),
        "loops.svg": (
            loops,
            330,
            "The inner loop trains a network on recalled images; the outer loop improves the memory",
        ),
        "streams.svg": (
            streams.parts,
            300,
            "Two streams of twenty tasks: mean test accuracy on the tasks so far, by method",
        ),
        "unroll.svg": (unroll, 290, "An unroll forward through inner steps, and the reverse sweep back to the images"),
    }
    return {name: svg("\n".join(parts()), height, told) for name, (parts, height, told) in makers.items()}


def svg(content: str, height: int, told: str) -> str:
    """A whole drawing, with both sets of colours."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    style = f".drawing{{{light}}}\n@media (prefers-color-scheme: dark){{.drawing{{{dark}}}}}{CLASSES}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 {WIDTH} {height}" role="img"'
    return f'{head} aria-label="{escape(told)}">\n<style>\n{style}</style>\n{content}\n</svg>\n'


def inline(text: str, told: str) -> str:
    """A drawing as a part of a page, whose style sheet has the colours and classes."""
    whole = re.sub(r"<style>.*?</style>\n", "", text, flags=re.DOTALL)
    return (
        f'<figure class="drawn" markdown="0">{" ".join(whole.split())}<figcaption>{escape(told)}</figcaption></figure>'
    )


def style_sheet() -> str:
    """Classes and colours of drawings in pages, which follow the page's own light or dark."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return f".drawing{{{light}}}\n[data-md-color-scheme=slate] .drawing{{{dark}}}{CLASSES}"


# ---------------------------------------------------------------- parts


def words(x: float, y: float, text: str, kind: str = "") -> str:
    """A line of text with its baseline at y."""
    return f'<text x="{x:g}" y="{y:g}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{escape(text)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str = "box", corner: float = 6) -> str:
    """A rectangle."""
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner:g}"/>'


def arrow(points: Sequence[tuple[float, float]], kind: str = "way") -> str:
    """A line through points, with a head at its last."""
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    (x0, y0), (x, y) = points[-2:]
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    tip = [(x, y), (x - 8 * dx + 4.5 * dy, y - 8 * dy + 4.5 * dx), (x - 8 * dx - 4.5 * dy, y - 8 * dy - 4.5 * dx)]
    head = " ".join(f"{a:g},{b:g}" for a, b in tip)
    name = "headback" if kind == "back" else "head"
    return f'<polyline class="{kind}" points="{line}"/><polygon class="{name}" points="{head}"/>'


def picture(rows: Sequence[Sequence[float]], x: float, y: float, pixel: float, high: float | None = None) -> str:
    """An image from 0 to 1 in 24 shades of grey, one path for each shade; `high` of pixels that are not square."""
    high = pixel if high is None else high
    shades: dict[int, list[str]] = {}
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            corner = f"M{x + j * pixel:g} {y + i * high:g}h{pixel:g}v{high:g}h{-pixel:g}z"
            shades.setdefault(round(min(max(value, 0.0), 1.0) * 23) * 255 // 23, []).append(corner)
    paths = [
        f'<path fill="#{shade:02x}{shade:02x}{shade:02x}" d="{"".join(at)}"/>' for shade, at in sorted(shades.items())
    ]
    frame = box(x - 0.5, y - 0.5, len(rows[0]) * pixel + 1, len(rows) * high + 1, "frame", 0)
    return f'<g shape-rendering="crispEdges">{"".join(paths)}</g>{frame}'


def stretched(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """The same image with 0 as its smallest value and 1 as its largest."""
    lowest, highest = min(map(min, rows)), max(map(max, rows))
    return [[(value - lowest) / (highest - lowest) for value in row] for row in rows]


# ---------------------------------------------------------------- the drawings


def memory() -> Iterable[str]:
    """Query, matrices, bases, recalled images: of the memory in the gallery, class '3'."""
    import suite

    learned, wanted = suite.load(MEMORY), 3
    bases, matrices = learned.tensors["bases"][:, 0], learned.tensors["matrices"]
    images, labels = learned.display()
    recalled = images[labels == wanted][:, 0]
    if len(recalled) != len(matrices):
        raise RunError(f"the gallery's {MEMORY} recalls {len(recalled)} images of a class by {len(matrices)} matrices")
    yield words(58, 30, "query q", "strong mid")
    yield words(58, 50, "the class “3”", "small mid")
    for c in range(10):
        yield box(44, 66 + 20 * c, 28, 18, "blue" if c == wanted else "box", 2) + words(
            36, 80 + 20 * c, str(c), "small end"
        )
    most = float(matrices.abs().max())
    for i, matrix in enumerate(matrices):
        left = 128 + 134 * i
        yield words(left + 56, 30, f"matrix A{'₁₂'[i]}", "strong mid") + words(left + 56, 50, "10 × 16", "small mid")
        grey = (0.5 + 0.5 * matrix / most).tolist()
        for c, row in enumerate(grey):
            yield picture([row], left, 66 + 20 * c, 7, 18)
        yield box(left - 3, 63 + 20 * wanted, 118, 24, "chosen", 3)
    yield arrow([(76, 75 + 20 * wanted), (122, 75 + 20 * wanted)])
    yield words(405, 168, "×", "strong mid")
    yield words(506, 30, "bases B", "strong mid") + words(506, 50, "16 × 4 × 4, halved in size", "small mid")
    for k, basis in enumerate(bases):
        yield picture(stretched(basis.tolist()), 424 + 43 * (k % 4), 66 + 50 * (k // 4), 9)
    yield arrow([(602, 160), (640, 160)])
    yield words(694, 30, "recalled", "strong mid") + words(694, 50, "qᵀA₁B, qᵀA₂B", "small mid")
    for i, image in enumerate(recalled.tolist()):
        yield picture(image, 654, 70 + 104 * i, 10)
    numbers = learned.tensors["bases"].numel() + matrices.numel()
    yield words(
        16, 305, f"Stored: {bases.numel()} numbers of bases and 2 × 10 × 16 of matrices, {numbers} of 640.", "small"
    )
    yield words(16, 324, "All classes share the bases; a class is a row in each matrix.", "small")


def budget() -> Iterable[str]:
    """Three ways to spend the 640 numbers of one 8x8 image for each of ten classes."""
    ways = (
        ("images as they are", "10 images of 64", [("64 numbers each", 640, "blue")], "1 image of a class"),
        ("halved images", "40 images of 16", [("16 numbers each", 640, "blue")], "4 of a class, enlarged"),
        ("an addressable memory", "16 bases, 2 matrices", [("bases 256", 256, "blue"), ("matrices 320", 320, "red")],
         "2 images of a class; by sums of bases"),
    )  # fmt: skip
    yield words(
        16, 28, "One image per class (I/C) of ten classes with 8 × 8 pixels is a budget of 640 numbers:", "strong"
    )
    for row, (name, stored, pieces, gives) in enumerate(ways):
        top, left = 52 + 66 * row, 228.0
        yield words(16, top + 20, name, "strong") + words(16, top + 40, stored, "small")
        yield box(left, top + 4, 320, 30, "rest", 3)
        for label, size, colour in pieces:
            yield box(left, top + 4, size / 2, 30, colour, 3)
            yield words(left + size / 4, top + 24, label, "within")
            left += size / 2
        lines = gives.split("; ")
        yield from (words(564, top + 24 + 18 * k - 9 * (len(lines) - 1), line, "small") for k, line in enumerate(lines))


def loops() -> Iterable[str]:
    """What the two loops do, and what goes from one to the other."""
    yield box(16, 40, 150, 250) + words(91, 66, "memory", "strong mid") + words(91, 88, "bases, matrices", "small mid")
    yield words(91, 160, "the only thing", "small mid") + words(91, 178, "that is learned", "small mid")
    yield words(91, 196, "and kept", "small mid")
    yield arrow([(166, 90), (256, 90)]) + words(211, 80, "recall", "small mid")
    yield box(258, 40, 238, 140) + words(377, 66, "inner loop", "strong mid")
    yield words(377, 90, "a fresh network is trained", "small mid")
    yield words(377, 108, "on the recalled images,", "small mid") + words(377, 126, "step by step", "small mid")
    yield arrow([(330, 138), (330, 164), (424, 164), (424, 140)]) + words(377, 156, "T steps", "small mid")
    yield arrow([(496, 90), (588, 90)]) + words(542, 80, "network", "small mid")
    yield box(590, 40, 154, 140) + words(667, 66, "outer loss", "strong mid")
    yield words(667, 90, "of that network", "small mid") + words(667, 108, "on real training", "small mid")
    yield words(667, 126, "images", "small mid")
    yield arrow([(667, 180), (667, 250), (168, 250)], "back")
    yield words(418, 240, "hypergradient: through the inner loop, back to the memory", "small mid")
    yield words(418, 274, "outer loop: a step of the memory, then another network", "small mid")
    yield words(
        16,
        318,
        "Test images are looked at once, at the end, by other networks that are trained on the memory alone.",
        "small",
    )


def unroll() -> Iterable[str]:
    """Inner steps in a row, the sweep back, and what of it is kept."""
    centres = [120, 280, 440, 600]
    yield words(16, 28, "forward: weights after each inner step", "strong")
    for i, (x, label) in enumerate(zip(centres, ("w₀", "w₁", "w₂", "w₃"), strict=True)):
        yield box(x - 30, 50, 60, 46) + words(x, 79, label, "mid")
        if i:
            yield arrow([(centres[i - 1] + 30, 73), (x - 32, 73)])
            yield (
                arrow([(x - 80, 170), (x - 80, 85)])
                + box(x - 108, 172, 56, 34)
                + words(x - 80, 194, "images", "small mid")
            )
    yield (
        words(200, 62, "step", "small mid") + words(360, 62, "step", "small mid") + words(520, 62, "step", "small mid")
    )
    yield arrow([(630, 73), (684, 73)]) + words(718, 70, "outer", "mid") + words(718, 88, "loss", "mid")
    yield arrow([(718, 96), (718, 132), (100, 132)], "back")
    for x in centres[1:]:
        yield arrow([(x - 66, 132), (x - 66, 170)], "back")
    yield words(16, 130, "reverse", "strong")
    yield words(
        16,
        238,
        "The sweep back takes the derivative of one step at a time. What reaches the recalled images in all steps is",
        "small",
    )
    yield words(
        16,
        257,
        "summed, and goes through recall once, to the memory. Graphs of as many of the last steps are kept as",
        "small",
    )
    yield words(
        16,
        276,
        "MEMORY_GIB affords; earlier steps are computed again from their states. The gradient is the same.",
        "small",
    )
