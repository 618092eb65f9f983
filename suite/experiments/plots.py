"""Pictures of memories: what they recall and store, in display space. Same input, same PNG file.

A picture that can't be drawn is a sentence on the terminal, never the end of a run: what was measured is in its record.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from suite.core.outer_loop import PAPER_ITERATIONS
from suite.experiments import charts, stages
from suite.experiments.drawing import figure as new_figure
from suite.experiments.drawing import grid, picture, save, short
from suite.memory import Memory, cosine_similarities
from suite.storage.files import make_directory
from suite.types import Session

SHOWN_PER_CLASS, SHOWN_CLASSES = 10, 20
"""At most so many images of a class, and classes or tasks, are in a picture."""

SHOWN_BASES = 100
"""At most so many bases are in a picture."""

SHOWN_TICKS = 50
"""Names along an axis; of more classes every second is named, or every third."""

SIGNED = "cividis"
"""Colours of numbers with a sign: printed in grey, the larger is still the lighter."""


def distillation(memory: Memory, norms: dict[str, list[list[float | None]]], session: Session) -> None:
    """Every plot of a distilled memory, in the run's `figures`: what it recalls and stores, and how it was learned."""
    folder = make_directory(session.directory / "figures")
    recalled_images(memory, folder / "recalled.png")
    stages.stages(memory, session.directory / stages.FOLDER, folder / "stages.png")
    if "bases" in memory.tensors:
        bases(memory, folder / "bases.png")
        coefficients(memory, folder / "coefficients.png")
        similarity(memory, folder / "similarity.png")
    if norms:
        charts.gradient_norms(norms, folder / "gradient_norms.png")
    series = {"outer loss": "loss", "validation accuracy (%)": "validation_accuracy"}
    charts.curves({title: session.history(metric) for title, metric in series.items()}, folder / "curves.png")


@picture
def recalled_images(memory: Memory, file: Path) -> None:
    """A row for each class (the first twenty) with its name, a column for each recalled image (the first ten)."""
    images, labels = memory.display()
    names = memory.class_names[:SHOWN_CLASSES]
    rows = [images[labels == c] for c in range(len(names))]
    each, shown = len(rows[0]), min(len(rows[0]), SHOWN_PER_CLASS)
    caption = f"{_about(memory)}; {_of(len(names), len(memory.class_names), 'classes')}"
    caption += f", {_of(shown, each, 'images')} of each"
    grid([("", torch.cat([row[:shown] for row in rows]))], len(rows), file, names, caption)


def _about(memory: Memory) -> str:
    """The memory's data set, what it stores, and how long it was learned."""
    about, numbers = memory.about, sum(tensor.numel() for tensor in memory.tensors.values())
    text = f"{about.get('dataset', 'a memory')}: {numbers:,} numbers"
    if "budget" in about:
        text += f" ({about['budget']['images_per_class']:.3g} images per class)"
    if "iteration" in about:
        text += f", {about['iteration']:,} outer steps (the paper: {PAPER_ITERATIONS:,})"
    return text


def _of(shown: int, whole: int, what: str) -> str:
    """'10 classes', or '20 of 100 classes'."""
    return f"{whole} {what}" if shown == whole else f"{shown} of {whole} {what}"


@picture
def bases(memory: Memory, file: Path) -> None:
    """The first bases in display space, each stretched to the whole range, since only their combinations are images."""
    held = memory.tensors["bases"]
    whitened = memory.about["preprocessing"]["name"].startswith("zca")
    shape = (memory.shape.channels, memory.shape.height, memory.shape.width)
    if memory.transform is not None and whitened and tuple(held.shape[1:]) == shape:
        held = memory.transform.display(held)
    shown = stretched(held[:SHOWN_BASES])
    caption = f"{_of(len(shown), len(held), 'bases')} of {_about(memory)}; each stretched to the whole range"
    rows = -(-len(shown) // math.ceil(math.sqrt(len(shown))))
    grid([("", shown)], rows, file, caption=caption)


def stretched(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each image's own range as [0, 1], for what is far from pixels."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)


@picture
def coefficients(memory: Memory, file: Path) -> None:
    """The addressing matrices: a row for each recalled image, class by class, a column for each basis."""
    matrices = memory.tensors["matrices"]  # r, classes, bases
    table = torch.flatten(matrices.transpose(0, 1), 0, 1)
    figure = new_figure(6, 6)
    axes = figure.subplots()
    bound = float(table.abs().max()) or 1.0
    shown = axes.imshow(table.numpy(), aspect="auto", cmap=SIGNED, vmin=-bound, vmax=bound, interpolation="nearest")
    each = matrices.shape[0]
    if len(memory.class_names) <= SHOWN_CLASSES:
        axes.set_yticks([each * (c + 0.5) - 0.5 for c in range(len(memory.class_names))], short(memory.class_names))
    axes.set_xlabel("basis")
    axes.set_ylabel(f"recalled image, {each} of each class")
    axes.set_title(f"coefficients of {len(table)} images, {table.shape[1]} bases")
    figure.colorbar(shown, label="coefficient")
    save(figure, file)


@picture
def similarity(memory: Memory, file: Path) -> None:
    """Cosine similarity of the coefficients of all classes, ordered and marked by superclass (paper, figure 2)."""
    names = memory.class_names
    groups = [(name, list(own)) for name, own in memory.about.get("superclasses", [])] or [("", list(names))]
    order = [names.index(name) for _, own in groups for name in own]
    like = cosine_similarities(memory.tensors["matrices"])[order][:, order]
    figure = new_figure(7, 6)
    axes = figure.subplots()
    shown = axes.imshow(like.numpy(), cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
    if len(groups) > 1:
        edges = [sum(len(own) for _, own in groups[:i]) for i in range(len(groups) + 1)]
        middles = [(a + b - 1) / 2 for a, b in pairwise(edges)]
        labels = [name for name, _ in groups]
        for edge in edges[1:-1]:
            axes.axhline(edge - 0.5, color="black", linewidth=0.4)
            axes.axvline(edge - 0.5, color="black", linewidth=0.4)
    else:
        every = -(-len(names) // SHOWN_TICKS)
        middles, labels = list(range(0, len(names), every)), list(names[::every])
    axes.set_xticks(middles, short(labels), rotation=90, fontsize=6)
    axes.set_yticks(middles, short(labels), fontsize=6)
    axes.set_title(f"{len(names)} classes: how alike their coefficients are")
    figure.colorbar(shown, label="cosine similarity")
    save(figure, file)


@picture
def task_by_task(memories: Sequence[Memory], file: Path) -> None:
    """A row for each task's memory (the first twenty), the first image recalled for each class (the first ten).

    Classes that all tasks have are named above, others beside their task.
    """
    shown = memories[:SHOWN_CLASSES]
    names = [memory.class_names[:SHOWN_PER_CLASS] for memory in shown]
    rows = []
    for memory, own in zip(shown, names, strict=True):
        images, labels = memory.display()
        rows.append(torch.cat([images[labels == c][:1] for c in range(len(own))]))
    tasks = [f"task {t}" for t in range(1, len(shown) + 1)]
    sizes = _of(len(shown), len(memories), "tasks"), _of(len(names[0]), len(memories[0].class_names), "classes")
    caption = f"{_about(memories[0])} for each task; {' of '.join(sizes)}, one image of each"
    if len(set(names)) == 1:
        blocks = [(name, torch.stack([row[c] for row in rows])) for c, name in enumerate(names[0])]
        grid(blocks, len(rows), file, tasks, caption)
    else:
        named = [f"{task}: {', '.join(own)}" for task, own in zip(tasks, names, strict=True)]
        grid([("", torch.cat(rows))], len(rows), file, named, caption)


@picture
def cases(shown: Sequence[tuple[str, Float[Tensor, "n c h w"]]], file: Path) -> None:
    """A row for each case with its label: first the image that was observed, then those that it recalled."""
    shots, recalled = zip(*((images[:1], images[1:]) for _, images in shown), strict=True)
    columns = min(len(recalled[0]), SHOWN_PER_CLASS)
    blocks = [("shot", torch.cat(shots)), ("recalled", torch.cat([images[:columns] for images in recalled]))]
    caption = f"{_of(columns, len(recalled[0]), 'recalled images')} of each shot, each stretched to the whole range; "
    caption += "the percentage of the class's other test images that are labelled rightly"
    grid(blocks, len(shown), file, [label for label, _ in shown], caption)
