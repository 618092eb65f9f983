"""The picture of recalled images beside real ones, with what each teaches: `python -m tools.docs --picture`.

Memories and accuracies are those of the gallery's records: nothing is typed in.
"""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from suite.datasets.sources import default_data_dir
from suite.keys import Key
from suite.storage.gallery import gallery
from tools.docs.pages import REPOSITORY

DATA_SET = "fashion_mnist"
MEMORIES = {
    "fashion_mnist-1ipc-bptt": "recalled, whole images",
    "fashion_mnist-1ipc-bptt_ds": "recalled, four halved images",
}
"""Memories of the gallery, and what their rows are called."""

TILE, GAP, LEFT, TOP = 84, 8, 236, 34
"""Pixels: of an image, between images, for a row's words and for the classes' names."""


def draw(to: Path, data_dir: Path | None = None) -> None:
    """Write the picture: a row of real images, and a row for each memory, with test accuracies at one budget."""
    from PIL import Image, ImageDraw

    names, rows = _real(default_data_dir() if data_dir is None else data_dir)
    told = [("random real images", *accuracy(next(iter(MEMORIES)), "random real images"))]
    for name, what in MEMORIES.items():
        rows.append(_recalled(name, len(names)))
        told.append((what, *accuracy(name, "memory")))
    size = (LEFT + len(names) * (TILE + GAP), TOP + len(rows) * (TILE + GAP))
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for c, name in enumerate(names):
        pen.text((LEFT + c * (TILE + GAP) + TILE / 2, TOP - 8), name, "#444444", _font(13), "ms")
    for r, (row, (what, mean, n)) in enumerate(zip(rows, told, strict=True)):
        top = TOP + r * (TILE + GAP)
        pen.text((8, top + 26), what, "#111111", _font(15), "ls")
        pen.text((8, top + 54), f"{mean:.1f}% on test", "#b5442b" if r == 0 else "#2a6fb0", _font(21), "ls")
        pen.text((8, top + 75), f"{n} networks", "#666666", _font(12), "ls")
        for c, image in enumerate(row):
            pixels = image.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
            tile = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)
            canvas.paste(tile, (LEFT + c * (TILE + GAP), top))
    canvas.save(to, optimize=True)


def accuracy(name: str, method: str) -> tuple[float, int]:
    """Mean test accuracy (%) of what was measured in the record of a gallery's memory, and over how many networks."""
    with (REPOSITORY / "leaderboard" / "gallery.csv").open() as file:
        (place,) = (row["record"] for row in csv.DictReader(file) if row["name"] == name)
    record: Any = json.loads((REPOSITORY / "leaderboard" / "records" / place / "result.json").read_text())
    (found,) = (
        one for one in record["measurements"] if (one["method"], one["split"], one["network"]) == (method, "test", "")
    )
    return found["mean"], found["n"]


def _real(data_dir: Path) -> tuple[tuple[str, ...], list[list[Float[Tensor, "h w"]]]]:
    """The names of the classes, and a row with a training image of each, drawn by a key."""
    from suite.registry import datasets, load_components

    load_components()
    dataset = datasets[DATA_SET].build()
    raw = dataset.prepare(data_dir).raw
    row = []
    for c in range(dataset.info.classes):
        images = raw.train_images[raw.train_labels == c]
        row.append(images[int(Key(0)("picture", c).permutation(len(images))[0]), 0] / 255)
    return dataset.info.class_names, [row]


def _recalled(name: str, classes: int) -> list[Float[Tensor, "h w"]]:
    """What a memory recalls for each class; several images of a class, four at most, as the quarters of one."""
    from suite.memory import Memory

    images, labels = Memory.load(gallery()[name]).display()
    row = []
    for c in range(classes):
        own = images[labels == c][:4, 0]
        row.append(own[0] if len(own) < 4 else torch.cat([torch.cat([*own[:2]], 1), torch.cat([*own[2:]], 1)]))
    return row


def _font(size: int) -> Any:
    """matplotlib's own face, which is there wherever the suite is."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
