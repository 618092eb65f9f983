"""A memory at its start, half way and at its end, in one picture.

What is shown of the first two is kept in the run's `.stages` when the memory is there, before any checkpoint of a later
step. So a run that was stopped draws the same picture as one that was not, and checkpoints hold nothing more.
"""

from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors.torch import load, save
from torch import Tensor

from suite.core.outer_loop import OuterState, judged
from suite.errors import RunError
from suite.experiments.drawing import grid, picture
from suite.memory import Memory
from suite.storage.files import make_directory, write_atomic
from suite.storage.plain_files import read_plain
from suite.types import Data, Optimizer, Session, Setting

FOLDER = ".stages"
"""In the run's directory: a file for each stage before the last, named by its outer step."""

SHOWN_CLASSES, SHOWN_PER_CLASS = 10, 3
"""At most so many classes, and images of each at each stage."""

MOST_BYTES = 2**28
"""Of a stage's file."""

Pixels = UInt8[Tensor, "classes each c h w"]
"""What is shown of one stage."""


def keep(
    session: Session, setting: Setting, data: Data, optimizer: Optimizer, state: OuterState, iterations: int
) -> None:
    """Keep what is shown of the memory, if it is at its start or half way through all `iterations`.

    Raises RunError where the run's directory is another process's by now. Nothing in a process that does not write.
    """
    if session.leads and state.iteration in (0, iterations // 2):
        session.still_held()
        _keep_stage(session, setting, data, optimizer, state)


@picture
def _keep_stage(session: Session, setting: Setting, data: Data, optimizer: Optimizer, state: OuterState) -> None:
    classes = torch.arange(min(setting.classes, SHOWN_CLASSES), device=setting.device)
    with torch.no_grad():
        images = setting.parameterization.recall(judged(optimizer, state), classes)[:, :SHOWN_PER_CLASS].cpu()
    pixels = _pixels(data.transform.display(torch.flatten(images, 0, 1)), images.shape[1])
    write_atomic(make_directory(session.directory / FOLDER) / _name(state.iteration), save({"images": pixels}))


@picture
def stages(memory: Memory, folder: Path, file: Path) -> None:
    """A row for each class (the first ten), and beside each other what it recalls (three images) at each stage.

    `memory` is that of the last step, and `folder` has what was kept of those before.
    """
    if "iterations" not in memory.about:  # it was learned elsewhere
        return
    last, names = memory.about["iterations"], memory.class_names[:SHOWN_CLASSES]
    images, labels = memory.display()
    each = min(SHOWN_PER_CLASS, int((labels == 0).sum()))
    end = _pixels(torch.cat([images[labels == c][:each] for c in range(len(names))]), each)
    kept = {step: _kept(folder / _name(step), end) for step in sorted({0, last // 2})}
    shown = {step: pixels for step, pixels in kept.items() if pixels is not None} | {last: end}
    if len(shown) == 1:  # a run that an earlier version began
        return
    titles = {last // 2: "half", 0: "start", last: "end"}
    caption = f"{memory.about['dataset']}: recalled after {', '.join(f'{step:,}' for step in shown)} outer steps"
    whole = len(memory.class_names)
    caption += f"; {len(names)} of {whole} classes" if len(names) < whole else ""
    caption += f"; {each} of {int((labels == 0).sum())} images of each" if each == SHOWN_PER_CLASS else ""
    blocks = [(titles[step], torch.flatten(pixels, 0, 1) / 255) for step, pixels in shown.items()]
    grid(blocks, len(names), file, names, caption)


def _name(step: int) -> str:
    return f"{step}.safetensors"


def _pixels(images: Tensor, each: int) -> Pixels:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).unflatten(0, (-1, each))


def _kept(file: Path, like: Pixels) -> Pixels | None:
    """What was kept at a stage, of the shape of these images; None where nothing was."""
    try:
        images = load(read_plain(file, MOST_BYTES))["images"]
    except FileNotFoundError:
        return None
    except RunError as error:  # what is wrong with the file takes the picture alone
        raise ValueError(str(error)) from error
    if (images.shape, images.dtype) != (like.shape, like.dtype):
        raise ValueError(f"{file} holds no images of the run")
    return images
