"""Pictures: one that can't be drawn takes nothing with it, and what is drawn shows names and channels as they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import pad

from suite.errors import RunError, UsageError
from suite.experiments import charts, drawing, plots
from suite.images import preprocess
from suite.keys import Key
from suite.memory import Memory, with_colours
from suite.parameterizations.addressing import Addressing
from suite.registry import describe
from suite.types import ImageShape


def memory(channels: int = 1, names: tuple[str, ...] = ("a", "b"), **about: Any) -> Memory:
    shape, how = ImageShape(channels, 8, 8), Addressing(bases=2)
    pixels = torch.randint(0, 256, (40, channels, 8, 8), generator=Key(0).generator()).to(torch.uint8)
    transform = preprocess.fit("standardize", pixels, 0.1)
    facts = {
        "dataset": "made up",
        "class_names": list(names),
        "shape": [channels, 8, 8],
        "preprocessing": transform.describe(),
        "preprocessing_stored": bool(transform.tensors()),
        "parameterization": describe(how),
    }
    return Memory(how.init(shape, len(names), 4.0, Key(1)), facts | about, transform)


MATHEMATICS = [r"$\foo_0$", "US$ 1 to $ 2", r"\frac{1}{0}", "$", "$$", r"$\left($", "a^b_c", "\\", "%d", "línea\nnueva"]


@pytest.mark.parametrize("name", [*MATHEMATICS, "x" * 500])
def test_every_name_is_shown_as_it_is(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    of = memory(names=(name, "b"))
    plots.coefficients(of, tmp_path / "coefficients.png")
    plots.similarity(of, tmp_path / "similarity.png")
    charts.sweep({name: [(name, 1.0, None)]}, name, 1, tmp_path / "sweep.png")
    plots.cases([(name, torch.rand(2, 1, 8, 8, generator=Key(0).generator()))], tmp_path / "cases.png")
    assert len(list(tmp_path.glob("*.png"))) == 4 and capsys.readouterr().err == ""


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_images_of_any_number_of_channels_are_drawn_without_transparency(tmp_path: Path, channels: int) -> None:
    of = memory(channels)
    plots.recalled_images(of, tmp_path / "recalled.png")
    plots.bases(of, tmp_path / "bases.png")
    for name in ("recalled", "bases"):
        with Image.open(tmp_path / f"{name}.png") as drawn:
            assert drawn.mode == "RGB"
    assert of._repr_png_() is not None
    if channels in (1, 3):
        assert of.export(tmp_path / "png").is_dir()
    else:
        with pytest.raises(UsageError, match=f"images of {channels} channels can't be exported as PNG files"):
            of.export(tmp_path / "png")
        assert not (tmp_path / "png").exists()


def test_channels_that_are_no_colours_stand_side_by_side() -> None:
    images = torch.arange(2 * 2 * 3 * 4, dtype=torch.float32).view(2, 2, 3, 4)
    shown = with_colours(images)
    assert shown.shape == (2, 1, 3, 8)
    assert torch.equal(shown[1, 0, :, 4:], images[1, 1])
    colours = torch.zeros(1, 3, 2, 2)
    assert with_colours(colours) is colours


def test_a_picture_that_fails_is_one_sentence_and_the_next_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Memory) -> Any:
        raise torch.linalg.LinAlgError("the matrix\nis singular")

    of = memory()
    monkeypatch.setattr(Memory, "display", broken)
    plots.recalled_images(of, tmp_path / "recalled.png")
    plots.coefficients(of, tmp_path / "coefficients.png")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'recalled_images' can't be drawn" in said and "the matrix is singular" in said
    assert [file.name for file in tmp_path.glob("*.png")] == ["coefficients.png"]


def test_what_can_not_be_turned_back_into_pixels_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A matrix without an inverse, and a preprocessing that is not there: the run is done, without this picture."""
    of = memory()
    monkeypatch.setattr(type(of.transform), "display", lambda *_: torch.linalg.inv(torch.zeros(2, 2)))
    for transform, words in ((of.transform, "inver"), (None, "belongs beside the memory's file")):
        plots.recalled_images(Memory(of.tensors, of.about, transform), tmp_path / "recalled.png")
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "'recalled_images' can't be drawn" in said and words in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["数字", "한국", "🙂", "\U00010400", "\x00", "\x1b[31m"])
def test_letters_that_no_font_has_are_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots.similarity(memory(names=(name, "b")), tmp_path / "similarity.png")
    said = capsys.readouterr().err
    assert (tmp_path / "similarity.png").is_file() and said.count("\n") <= 1
    assert not said or said.startswith("[picture] similarity.png is not as it should be (Glyph")


def test_a_disk_that_fails_is_no_matter_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(drawing, "write_atomic", full)
    with pytest.raises(RunError, match="the disk is full"):
        plots.recalled_images(memory(), tmp_path / "recalled.png")


@pytest.mark.parametrize(("n", "channels", "columns", "line"), [(6, 3, 3, 2), (7, 1, 3, 1), (2, 1, 5, 2), (5, 3, 1, 1)])
def test_images_side_by_side_are_those_of_torchvision(n: int, channels: int, columns: int, line: int) -> None:
    from torchvision.utils import make_grid

    images = torch.rand(n, channels, 4, 5, generator=Key(0).generator())
    expected = make_grid(images, nrow=columns, padding=line, pad_value=1.0)
    assert torch.equal(drawing.tiled(images, columns, line), expected)


def test_a_single_image_has_lines_around_it() -> None:
    assert torch.equal(drawing.tiled(torch.zeros(1, 3, 2, 2), 1, 1)[0], 1 - pad(torch.ones(2, 2), (1, 1, 1, 1)))
