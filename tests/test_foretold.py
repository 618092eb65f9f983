"""Numbers without limits: one sentence at once, before anything is made, in the dry run too."""

import math
import sys
from pathlib import Path

import pytest
import torch
from command_line import command

from suite import api
from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.core import foretold
from suite.core.foretold import CPU, bytes_of, fresh_memory, network_numbers, require_room
from suite.errors import UsageError
from suite.keys import Key
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.image_queries import ImageQueries
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard
from suite.types import Architecture, ImageShape, Parameterization, Params

SHAPE = ImageShape(3, 16, 16)
MLP_GIN = "ARCHITECTURE = @architectures.mlp()"
MANY = ", ".join(f"'{i}': ['ITERATIONS = {i}']" for i in range(1, 11))
AXES = "run.axes = {" + ", ".join(f"'{axis}': {{{MANY}}}" for axis in "abcdef") + "}"

LIMITLESS: dict[str, tuple[list[str], str]] = {
    "a budget": (["IMAGES_PER_CLASS = 1e300"], "images_per_class must be at most 1e+36, not 1e+300"),
    "a smaller budget": (["IMAGES_PER_CLASS = 1e12"], "a memory of 1e+12 images per class takes"),
    "a budget of more than there is": (["IMAGES_PER_CLASS = 1e9"], "GiB of memory of cpu here; make it smaller"),
    "more images than can be counted": (["IMAGES_PER_CLASS = 1e30"], "a memory of 1e+30 images"),
    "a width": (["architectures.convnet.width = 1000000000"], "'convnet' takes more memory than can be counted"),
    "a smaller width": (["architectures.convnet.width = 1000000"], "a network 'convnet' takes"),
    "a width of 21 digits": (["architectures.convnet.width = 100000000000000000000"], "width must be at most 9,007"),
    "a wide MLP": ([MLP_GIN, "architectures.mlp.width = 10000000"], "a network 'mlp' takes"),
    "a width to transfer to": (
        ["TRANSFER = [@wide/architectures.mlp()]", "wide/architectures.mlp.width = 10000000"],
        "a network 'mlp' takes",
    ),
    "a depth": ([MLP_GIN, "architectures.mlp.depth = 1000000000"], "depth must be above 0 and at most 10,000"),
    "networks": (["NETWORKS = 1000000000"], "networks must be above 0 and at most 10,000"),
    "inner steps": (["INNER_STEPS = 1000000000000"], "inner_steps must be above 0 and at most 1,000,000"),
    "outer steps": ([f"ITERATIONS = 1{'0' * 300}"], "iterations must be at most 9,007,199,254,740,992"),
    "memory to keep graphs in": (["MEMORY_GIB = 1e300"], "memory_gib must be at most 1e+36"),
    "a rate": (["OUTER_LR = 1e300"], "lr must be at most 1e+36"),
    "seeds": ([f"SEEDS = {list(range(200_000))}"], "has 1,488,898 letters, at most 100,000 are read"),
    "cells": ([AXES], "the 1,000,000 cells of run.axes are 1,000,000 runs, and one command takes at most 10,000"),
    "lists in lists": ([f"SEEDS = {'[' * 500}{']' * 500}"], "nested too deep"),
    "dictionaries in dictionaries": ([f"ITERATIONS = {'{1:' * 500}1{'}' * 500}"], "nested too deep"),
    "blocks": (["architectures.convnet.depth = 10000"], "convnet halves the image 10000 times"),
    "brackets": ([f"ITERATIONS = {'(' * 9000}1{')' * 9000}"], "nested too deep"),
}


@pytest.mark.parametrize("dry", [True, False], ids=["dry", "run"])
@pytest.mark.parametrize(("bindings", "words"), LIMITLESS.values(), ids=LIMITLESS)
def test_a_number_without_limits_is_one_sentence_at_once(
    bindings: list[str], words: str, dry: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foretold, "bytes_of", lambda device: 2**33)
    lines = [part for binding in bindings for part in ("--set", binding)]
    files = ["--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin"]
    done = command(*files, *lines, "--out", tmp_path, "--tracking-uri", "none", "--device", "cpu", *["--dry-run"] * dry)
    assert done.status == 2 and words in done.complaint, done.complaint
    assert len(done.complaint) < 1000 and not list(tmp_path.rglob("*seed*"))


def test_seeds_times_cells_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["suite.config.resolve"], "MOST_RUNS", 5)  # its function has its name
    done = command("--gin", "gin/quickstart.gin", "--set", "SEEDS = [0, 1, 2, 3, 4, 5]", "--dry-run")
    assert done.status == 2 and "the 6 seeds of 1 cells are 6 runs" in done.complaint


def test_a_gin_file_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "long.gin").write_bytes(b"#" * (2**20 + 1))
    done = command("--gin", tmp_path / "long.gin", "--dry-run")
    assert done.status == 2 and "more than 1,048,576 bytes" in done.complaint


def test_the_python_face_refuses_it_too(data_dir: Path) -> None:
    with pytest.raises(UsageError, match=r"a memory of 1e\+12 images per class takes"):
        api.distil("digits", images_per_class=1e12, data_dir=data_dir, device="cpu", progress=False)


@pytest.mark.parametrize(
    "how",
    [Standard(), Addressing(), Addressing(bases=None), SoftLabels(of=Standard()), ImageQueries(bases=2, matrices=2)],
    ids=lambda how: type(how).__name__,
)
def test_a_foretold_memory_has_the_shapes_of_one_that_is_made(how: Parameterization) -> None:
    made, found = (
        make(SHAPE, 4, 3.0) for make in (lambda *size: how.init(*size, Key(0)), lambda *s: fresh_memory(how, *s))
    )
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in found.items()}


class Looks(Standard):
    """A memory that looks at its own numbers, which those without numbers have not."""

    def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
        """Positive ones alone."""
        images = super().init(shape, classes, images_per_class, key)["images"]
        return {"images": images.abs() if images.min().item() < 0 else images}


def test_a_memory_that_looks_at_its_numbers_is_made_where_there_is_room() -> None:
    assert fresh_memory(Looks(), SHAPE, 4, 2.0)["images"].min() >= 0
    with pytest.raises(UsageError, match=r"a memory of 1e\+10 images for each of 4 classes takes"):
        fresh_memory(Looks(), SHAPE, 4, 1e10)


@pytest.mark.parametrize(
    ("architecture", "numbers"), [(MLP(width=2, depth=1), 4 * 2 + 2 + 2 * 3 + 3), (ConvNet(width=10**9), math.inf)]
)
def test_a_network_s_numbers_are_counted_without_them(architecture: Architecture, numbers: float) -> None:
    shape = ImageShape(1, 2, 2) if isinstance(architecture, MLP) else SHAPE
    assert network_numbers(architecture, shape, 3) == numbers


def test_what_just_fits_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foretold, "bytes_of", lambda device: 4000)
    require_room("it", 1000, CPU)
    with pytest.raises(UsageError, match=r"it takes .* more than the .* of memory of cpu here"):
        require_room("it", 1001, CPU)
    assert bytes_of(torch.device("cpu")) > 2**28
