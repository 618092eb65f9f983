"""Pictures: what a memory holds, in display space, and how it was learned. Same input, same PNG file.

A picture that can't be drawn is a sentence on the terminal, never the end of a run: what was measured is in its record.
"""

import math
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from suite.experiments.drawing import figure as new_figure
from suite.experiments.drawing import grid, picture, save, short, tiled
from suite.memory import Memory, cosine_similarities, with_colours
from suite.storage.files import make_directory
from suite.types import Session

SHOWN_PER_CLASS = 10

SHOWN_CLASSES = 20

SHOWN_NUMBERS = 20
"""A matrix of more rows is drawn without its numbers."""


def distillation(memory: Memory, norms: dict[str, list[list[float | None]]], session: Session) -> None:
    """Every plot of a distilled memory, in the run's `figures`: what it recalls and stores, and how it was learned."""
    folder = make_directory(session.directory / "figures")
    recalled_images(memory, folder / "recalled.png")
    if "bases" in memory.tensors:
        bases(memory, folder / "bases.png")
        coefficients(memory, folder / "coefficients.png")
        similarity(memory, folder / "similarity.png")
    if norms:
        gradient_norms(norms, folder / "gradient_norms.png")
    series = {"outer loss": "loss", "validation accuracy (%)": "validation_accuracy"}
    curves({title: session.history(metric) for title, metric in series.items()}, folder / "curves.png")


@picture
def recalled_images(memory: Memory, file: Path) -> None:
    """A row for each class (the first twenty), a column for each recalled image (the first ten)."""
    images, labels = memory.display()
    classes = range(min(len(memory.class_names), SHOWN_CLASSES))
    rows = [images[labels == c][:SHOWN_PER_CLASS] for c in classes]
    grid(torch.cat(rows), columns=len(rows[0]), file=file)


@picture
def bases(memory: Memory, file: Path) -> None:
    """Every basis in display space, each stretched to the whole range, since only their combinations are images."""
    held = memory.tensors["bases"]
    whitened = memory.about["preprocessing"]["name"].startswith("zca")
    shape = (memory.shape.channels, memory.shape.height, memory.shape.width)
    if memory.transform is not None and whitened and tuple(held.shape[1:]) == shape:
        held = memory.transform.display(held)
    grid(stretched(held), columns=math.ceil(math.sqrt(len(held))), file=file)


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
    shown = axes.imshow(table.numpy(), aspect="auto", cmap="RdBu", vmin=-bound, vmax=bound, interpolation="nearest")
    each = matrices.shape[0]
    if len(memory.class_names) <= SHOWN_CLASSES:
        axes.set_yticks([each * (c + 0.5) - 0.5 for c in range(len(memory.class_names))], short(memory.class_names))
    axes.set_xlabel("basis")
    axes.set_title(f"coefficients, {each} images per class")
    figure.colorbar(shown)
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
    shown = axes.imshow(like.numpy(), cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    if len(groups) > 1:
        edges = [sum(len(own) for _, own in groups[:i]) for i in range(len(groups) + 1)]
        middles = [(a + b - 1) / 2 for a, b in pairwise(edges)]
        labels = [name for name, _ in groups]
        for edge in edges[1:-1]:
            axes.axhline(edge - 0.5, color="black", linewidth=0.4)
            axes.axvline(edge - 0.5, color="black", linewidth=0.4)
    else:
        middles, labels = list(range(len(names))), list(names)
    axes.set_xticks(middles, short(labels), rotation=90, fontsize=6)
    axes.set_yticks(middles, short(labels), fontsize=6)
    axes.set_title("cosine similarity of coefficients")
    figure.colorbar(shown)
    save(figure, file)


@picture
def gradient_norms(norms: dict[str, list[list[float | None]]], file: Path) -> None:
    """The norm of d outer loss / d w_t back through an unroll, a line for each unroll and a colour for each memory."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for i, (when, unrolls) in enumerate(norms.items()):
        for j, line in enumerate(unrolls):
            shown = [math.nan if norm is None else norm for norm in line]
            axes.plot(shown, color=f"C{i}", alpha=0.7, linewidth=1, label=when if j == 0 else None)
    axes.set_yscale("log")
    axes.set_xlabel("inner step t")
    axes.set_ylabel("norm of d outer loss / d w_t")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, file)


@picture
def accuracy_matrix(matrices: list[list[list[float | None]]], file: Path) -> None:
    """R[i, j], the accuracy on task j after task i, as a heat map: the mean over networks, blank where not measured."""
    tasks = len(matrices[0])
    shown = torch.full((tasks, tasks), math.nan, dtype=torch.float64)
    for i in range(tasks):
        for j in range(tasks):
            found = [value for r in matrices if (value := r[i][j]) is not None]
            if found:
                shown[i, j] = sum(found) / len(found)
    figure = new_figure(6, 5)
    axes = figure.subplots()
    drawn = axes.imshow(shown.numpy(), cmap="viridis", vmin=0, vmax=100, interpolation="nearest")
    if tasks <= SHOWN_NUMBERS:
        for i, j in (~shown.isnan()).nonzero().tolist():
            value = float(shown[i, j])
            colour = "white" if value < 60 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    every = max(1, tasks // 10)
    places = list(range(0, tasks, every))
    axes.set_xticks(places, [str(p + 1) for p in places])
    axes.set_yticks(places, [str(p + 1) for p in places])
    axes.set_xlabel("measured on task")
    axes.set_ylabel("after task")
    axes.set_title("accuracy (%)")
    figure.colorbar(drawn)
    save(figure, file)


@picture
def after_each_task(curves: list[list[float]], file: Path) -> None:
    """The mean accuracy on all tasks seen so far after each task, a line for each network."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for curve in curves:
        axes.plot(range(1, len(curve) + 1), curve, marker=".", alpha=0.8)
    axes.set_xlabel("after task")
    axes.set_ylabel("mean accuracy on tasks so far (%)")
    axes.grid(alpha=0.3)
    save(figure, file)


@picture
def task_by_task(memories: list[Memory], file: Path) -> None:
    """A row for each task's memory (the first twenty), the first image recalled for each class (the first ten)."""
    rows = []
    for memory in memories[:SHOWN_CLASSES]:
        images, labels = memory.display()
        rows += [images[labels == c][:1] for c in range(min(len(memory.class_names), SHOWN_PER_CLASS))]
    grid(torch.cat(rows), columns=min(len(memories[0].class_names), SHOWN_PER_CLASS), file=file)


@picture
def cases(shown: list[tuple[str, Float[Tensor, "n c h w"]]], file: Path) -> None:
    """A row for each case with its label: first the image that was observed, then those that it recalled."""
    rows = [tiled(with_colours(images), len(images), line=1) for _, images in shown]
    whole = torch.cat(rows, 1).clamp(0, 1).permute(1, 2, 0)
    each = whole.shape[0] / len(rows)
    figure = new_figure(10, 0.4 + 8.5 * whole.shape[0] / whole.shape[1])
    axes = figure.subplots()
    axes.imshow(whole.numpy(), interpolation="nearest")
    axes.set_yticks([each * (i + 0.5) for i in range(len(rows))], short([label for label, _ in shown]))
    width = whole.shape[1] / len(shown[0][1])
    axes.set_xticks([width / 2, width * 1.5], ["shot", "recalled"])
    axes.axvline(width, color="red")
    axes.tick_params(length=0)
    save(figure, file)


@picture
def sweep(curves: dict[str, list[tuple[str, float, float | None]]], axis: str, file: Path) -> None:
    """Validation accuracy along an axis of a table, a curve for each combination of the others (paper, figure 1)."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for name, points in curves.items():
        places = list(range(len(points)))
        spread = [0.0 if s is None else s for _, _, s in points]
        axes.errorbar(
            places, [mean for _, mean, _ in points], yerr=spread, marker=".", capsize=2, label=short([name])[0] or None
        )
        axes.set_xticks(places, short([label for label, _, _ in points]))
    axes.set_xlabel(short([axis])[0])
    axes.set_ylabel("validation accuracy (%)")
    axes.grid(alpha=0.3)
    if any(curves):
        axes.legend()
    save(figure, file)


@picture
def curves(series: dict[str, list[tuple[int, float]]], file: Path) -> None:
    """One panel for each quantity over the outer iterations; a quantity without points is left out."""
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return
    figure = new_figure(5 * len(drawn), 3.5)
    for axes, (name, points) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        axes.plot([x for x, _ in points], [y for _, y in points], marker="." if len(points) < 30 else None)
        axes.set_xlabel("outer iteration")
        axes.set_title(name)
        axes.grid(alpha=0.3)
    save(figure, file)
