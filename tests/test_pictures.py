"""Pictures: one that can't be drawn takes nothing with it, and what is drawn shows names and channels as they are."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from board import measurement, record
from fake_session import FakeSession
from PIL import Image
from torch.nn.functional import pad

from suite.architectures.mlp import MLP
from suite.core.outer_loop import OuterState
from suite.errors import RunError, UsageError
from suite.experiments import charts, drawing, plots, stages
from suite.images import preprocess
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory, with_colours
from suite.parameterizations.addressing import Addressing
from suite.registry import describe
from suite.runtime import pictures
from suite.types import Data, DatasetInfo, ImageShape, Setting, Split


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


def stage(memory: Memory, folder: Path, iteration: int) -> None:
    """Keep a memory as that of a step, as a run does."""
    setting = Setting(
        memory.shape, len(memory.class_names), MLP(), memory.parameterization, "none", torch.device("cpu")
    )
    shape, none = memory.about["shape"], torch.zeros(0, dtype=torch.int64)
    empty = Split(torch.zeros(0, *shape), none)
    data = Data(
        DatasetInfo("digits", memory.shape, memory.class_names, 1, 1), empty, empty, empty, memory.transform, ""
    )
    state = OuterState(iteration, memory.tensors, {}, {})
    stages.keep(FakeSession(folder, folder), setting, data, SGDMomentum(), state, 10)


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
            assert drawn.mode == ("RGB" if channels == 3 else "L")
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


# ---------------------------------------------------------------- what is in a picture


def drawn(file: Path) -> torch.Tensor:
    """A PNG file's pixels."""
    with Image.open(file) as image:
        assert image.mode in ("RGB", "L")
        return torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)


@pytest.mark.parametrize("size", [8, 28, 64, 200])
def test_images_are_enlarged_by_a_whole_factor_and_words_stand_beside_them(size: int, tmp_path: Path) -> None:
    image = torch.linspace(0.2, 0.6, size * size).view(1, 1, size, size)
    labels = ["a", "a long name of a class, in several lines"]
    plain = image.expand(4, -1, -1, -1)
    drawing.grid([("left", plain), ("right", plain)], 2, tmp_path / "grid.png", labels, "a caption below")
    pixels, factor = drawn(tmp_path / "grid.png"), max(1, 96 // size)
    first = (image[0, 0] * 255).round().to(torch.uint8).repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    found = pixels[:, :, 0].unfold(0, first.shape[0], 1).unfold(1, first.shape[1], 1)
    corners = (found[:, :, 0, 0] == first[0, 0]) & (found[:, :, -1, -1] == first[-1, -1])
    places = [(y, x) for y, x in corners.nonzero().tolist() if torch.equal(found[y, x], first)]
    assert len(places) == 8  # two rows of two columns, twice
    top, left = min(y for y, _ in places), min(x for _, x in places)
    bottom = max(y for y, _ in places) + first.shape[0]
    words = (pixels < 100).all(2)
    assert words[:top].any() and words[bottom:].any() and words[top:bottom, :left].any()
    edge = [words[0], words[-1], words[:, 0], words[:, -1]]
    assert not any(line.any() for line in edge)  # no word is cut


@pytest.mark.parametrize("names", [("cat", "dog"), tuple(f"class {i}" for i in range(100))])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_names_of_classes_stand_beside_what_is_recalled(
    names: tuple[str, ...], channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(plots, "grid", lambda *words: given.append(words))
    of = memory(channels, names, budget={"images_per_class": 0.5}, iteration=7, iterations=7)
    plots.recalled_images(of, tmp_path / "recalled.png")
    ((((heading, images),), rows, _, labels, caption),) = given
    shown = min(len(names), 20)
    assert heading == "" and rows == shown and labels == names[:shown]
    each = int(len(images) / shown)
    first, classes = of.display()
    assert torch.equal(images[each], first[classes == 1][0])
    assert "(0.5 images per class), 7 outer steps (the paper: 50,000)" in caption
    assert ("20 of 100 classes" if len(names) == 100 else "2 classes") in caption


def test_tasks_have_their_classes_above_or_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(plots, "grid", lambda *words: given.append(words))
    plots.task_by_task([memory(), memory()], tmp_path / "same.png")
    plots.task_by_task([memory(), memory(names=("c", "d"))], tmp_path / "other.png")
    (blocks, rows, _, labels, _), (together, _, _, own, _) = given
    assert [heading for heading, _ in blocks] == ["a", "b"] and rows == 2 and labels == ["task 1", "task 2"]
    assert len(together) == 1 and own == ["task 1: a, b", "task 2: c, d"]


def test_the_stages_of_a_memory_stand_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = memory(iteration=10, iterations=10), memory(iteration=10, iterations=10)
    for iteration in range(10):
        stage(
            Memory({k: v * iteration for k, v in begun.tensors.items()}, begun.about, begun.transform),
            tmp_path,
            iteration,
        )
    folder = tmp_path / stages.FOLDER
    assert {file.name for file in folder.iterdir()} == {"0.safetensors", "5.safetensors"}
    given: list[Any] = []
    with monkeypatch.context() as looked:
        looked.setattr(stages, "grid", lambda *words: given.append(words))
        stages.stages(ended, folder, tmp_path / "stages.png")
    ((blocks, rows, _, names, caption),) = given
    assert [heading for heading, _ in blocks] == ["start", "half", "end"] and (rows, names) == (2, ("a", "b"))
    assert "after 0, 5, 10 outer steps" in caption
    images, labels = ended.display()
    each = len(blocks[2][1]) // 2
    expected = torch.cat([images[labels == c][:each] for c in (0, 1)]).clamp(0, 1)
    assert torch.equal(blocks[2][1], (expected * 255).round() / 255)
    assert blocks[0][1].std() == 0 < blocks[1][1].std()  # a memory of zeros recalls the mean
    stages.stages(ended, folder, tmp_path / "stages.png")
    assert drawn(tmp_path / "stages.png").shape[1] > 300


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_damaged_stage_takes_its_picture_alone(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = memory(iteration=10, iterations=10)
    stage(of, tmp_path, 0)
    file = tmp_path / stages.FOLDER / "0.safetensors"
    if content is None:
        file.unlink()
        file.symlink_to("/etc/passwd")
    else:
        file.write_bytes(content)
    stages.stages(of, file.parent, tmp_path / "stages.png")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'stages' can't be drawn" in said and not (tmp_path / "stages.png").exists()


def test_a_run_without_stages_has_no_picture_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages.stages(memory(iteration=10, iterations=10), tmp_path, tmp_path / "stages.png")
    assert not list(tmp_path.iterdir()) and capsys.readouterr().err == ""


# ---------------------------------------------------------------- charts of records


def episodes(method: str, values: list[float], note: str = "") -> dict[str, Any]:
    return measurement(method, "test", values, "episodes", episodes="2-way", note=note)


def bars_of(records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, place: Path) -> tuple[Any, str]:
    """What would be drawn of records."""
    given: list[Any] = []
    with monkeypatch.context() as looked:
        looked.setattr(charts, "accuracy_bars", lambda *words: given.append(words))
        pictures.of_table(records, place) if len(records) > 1 else pictures.of_run(records[0], place)
    ((panels, title, _),) = given
    return panels, title


def test_bars_have_the_mean_and_interval_of_each_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = episodes("random real images", [70.0, 80.0, 90.0], "drawn anew")
    one = record("addressing", 0, measurements=[episodes("memory", [50.0, 54.0, 58.0]), beside])
    panels, title = bars_of([one], monkeypatch, tmp_path)
    half = 4.302653 * 4.0 / 3**0.5  # t(0.975, 2)
    assert list(panels) == ["2-way"] and list(panels["2-way"]) == ["memory", "random real images"]
    assert panels["2-way"]["memory"] == charts.Bar(54.0, pytest.approx(half, rel=1e-5), "3")
    assert title == "cpu (reduced); 95% intervals over episodes; n = episodes"
    records = [one]
    for method, seed, value in (("addressing", 1, 60.0), ("standard", 0, 40.0), ("standard", 1, 42.0)):
        measured = [
            episodes("memory", [value] * 3),
            beside | ({"values": [71.0] * 3, "mean": 71.0, "std": 0.0} if seed else {}),
        ]
        records.append(record(method, seed, measurements=measured))
    panels, title = bars_of(records, monkeypatch, tmp_path)
    assert list(panels["2-way"]) == ["addressing", "standard", "random real images"]
    assert panels["2-way"]["addressing"] == charts.Bar(
        57.0, pytest.approx(12.7062 * 18**0.5 / 2**0.5, rel=1e-5), "2 × 3"
    )
    assert "over memories" in title and "n = memories × episodes" in title
    pictures.of_run(one, tmp_path / "run")
    assert drawn(tmp_path / "run" / "figures" / "accuracies.png").shape[0] > 100


def streamed(method: str, seed: int, *matrices: list[list[float | None]]) -> dict[str, Any]:
    made = record(method, seed, measurements=[measurement(method, "test", [50.0], quantity="RA")])
    made["facts"] |= {"dataset": "permutations of digits", "matrices": list(matrices)}
    return made


def test_methods_of_a_stream_share_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        streamed("naive", 0, [[80.0, None], [60.0, 70.0]], [[90.0, None], [50.0, 80.0]]),
        streamed("naive", 1, [[75.0, None], [60.0, 90.0]], [[85.0, None], [40.0, 80.0]]),
        streamed("joint", 0, [[None, None], [88.0, 90.0]]),
    ]
    given: list[Any] = []
    with monkeypatch.context() as looked:
        looked.setattr(charts, "methods_after_each_task", lambda *words: given.append(words))
        pictures.of_table(records, tmp_path)
    ((panels, _),) = given
    ((title, methods),) = panels.items()
    assert title == "permutations of digits; cpu (reduced); 95% intervals"
    assert list(methods) == ["naive (2 streams × 2 networks)", "joint (1 stream × 1 network)"]
    naive, joint = methods.values()
    assert [mean for mean, _ in naive] == [82.5, 66.25] and all(half > 0 for _, half in naive)
    assert joint == [None, (89.0, None)]
    pictures.of_table(records, tmp_path)
    assert drawn(tmp_path / "after-each-task.png").shape[1] > 500
    assert "all methods in one picture: " in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["after-each-task.png"]


def test_a_record_that_can_not_be_drawn_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = streamed("naive", 0)
    odd["facts"]["matrices"] = [["no numbers"]]
    pictures.of_table([odd, odd], tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("[picture] '_after_each_task' can't be drawn")


def test_the_axis_of_norms_has_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no formula, which words in pictures are never read as."""
    kept: list[Any] = []
    monkeypatch.setattr(charts, "save", lambda figure, file: kept.append(figure))
    charts.gradient_norms({"at the start": [[0.001, None, 10.0]]}, tmp_path / "norms.png")
    kept[0].canvas.draw()
    ticks = [text.get_text() for text in kept[0].axes[0].get_yticklabels(which="both")]
    assert "0.01" in ticks and not any("$" in text for text in ticks)


@pytest.mark.parametrize("classes", [2, 20, 100, 200])
def test_names_along_an_axis_do_not_overlap(classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, file: kept.append(figure))
    of = memory(names=tuple(f"class {i}" for i in range(classes)))
    plots.similarity(of, tmp_path / "similarity.png")
    plots.coefficients(of, tmp_path / "coefficients.png")
    for figure in kept:
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels() if text.get_text()]
        spans = sorted((box.y0, box.y1) for box in boxes)
        assert all(before[1] <= after[0] + 1 for before, after in pairwise(spans))
