"""Controls: what herding and k-center choose, and that the measurements of all of them are shared between runs."""

import json
from pathlib import Path

import pytest
import torch
from command_line import QUICK, command, sets

from suite.architectures.mlp import MLP
from suite.contracts.checks import check
from suite.controls.features import features
from suite.controls.herding import Herding, herded
from suite.controls.k_center import KCenter, centers
from suite.controls.random_images import RandomImages
from suite.keys import Key
from suite.parameterizations.standard import Standard
from suite.registry import controls
from suite.runtime.record import label
from suite.types import ClassRows, ImageShape, Setting, Split

LINE = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])  # of mean 3.2


@pytest.mark.parametrize("name", controls.names())
def test_every_control_keeps_its_promises(name: str) -> None:
    assert [f"{f.promise}: {f.detail}" for f in check("controls", name) if f.verdict == "broken"] == []


def test_herding_keeps_the_mean_of_those_chosen_near_the_mean_of_all() -> None:
    """3; then of (3 + x) / 2 the nearest to 3.2 is 2.5, of x = 2; then (5 + x) / 3 is 5 for 10, 2 for 1; …"""
    assert herded(LINE, 1).tolist() == [3]
    assert herded(LINE, 2).tolist() == [3, 2]
    chosen = herded(LINE, 5)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4] and chosen[:3].tolist() == [3, 2, 1]
    x = torch.randn(200, 5, generator=Key(0)("x").generator())
    few = herded(x, 10)
    assert (x[few].mean(0) - x.mean(0)).norm() < 0.3 * (x[:10].mean(0) - x.mean(0)).norm()
    assert len(set(few.tolist())) == 10


def test_k_center_goes_for_the_farthest() -> None:
    assert centers(LINE, 1).tolist() == [3]
    assert centers(LINE, 3).tolist() == [3, 4, 0]
    x = torch.randn(100, 3, generator=Key(1)("x").generator())
    chosen = centers(x, 12)
    cover = torch.cdist(x, x[chosen]).amin(1).max()
    assert cover <= torch.cdist(x[chosen], x[chosen]).fill_diagonal_(torch.inf).min() + 1e-5  # what greed guarantees
    assert len(set(chosen.tolist())) == 12


@pytest.fixture
def real() -> ClassRows:
    images = torch.randn(40, 1, 4, 4, generator=Key(2)("x").generator())
    return ClassRows.of(Split(images, torch.arange(40) % 4), 4)


@pytest.fixture
def setting() -> Setting:
    return Setting(ImageShape(1, 4, 4), 4, MLP(width=8, depth=1), Standard(), "none", torch.device("cpu"))


@pytest.mark.parametrize("control", [Herding(epochs=0), KCenter(epochs=0), Herding(epochs=2), KCenter(epochs=2)])
def test_a_selection_is_made_class_by_class_in_features(
    control: Herding | KCenter, setting: Setting, real: ClassRows
) -> None:
    chosen = control.choose(setting, real, 3, Key(3))(0)
    assert chosen.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    seen = features(setting, real, control.epochs, Key(3))
    assert seen.shape == (40, 16 if control.epochs == 0 else 8)
    pick = herded if isinstance(control, Herding) else centers
    for c in range(4):
        expected = real.split.images[real.rows[c][pick(seen[real.rows[c]], 3)]]
        assert torch.equal(chosen.images[3 * c : 3 * c + 3], expected)


def test_random_images_are_another_draw_for_every_network(setting: Setting, real: ClassRows) -> None:
    draw = RandomImages().choose(setting, real, 2, Key(4))
    assert torch.equal(draw(0).images, draw(0).images) and not torch.equal(draw(0).images, draw(1).images)


@pytest.mark.slow
def test_controls_are_measured_once_for_all_runs_with_the_same_data(data_dir: Path, tmp_path: Path) -> None:
    chosen = "CONTROLS = [@controls.random_images(), @controls.herding(), @controls.k_center()]"
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json"]
    words = [*QUICK, *sets(chosen, "controls.herding.epochs = 1", "controls.k_center.epochs = 0"), *place]
    first, second = command(*words), command(*words, *sets("ITERATIONS = 1"))
    assert first.status == 0, first.err
    assert all(f"evaluating {name}" in first.err for name in ("herding", "k-center", "random real images"))
    assert "evaluating the memory" in second.err and "evaluating herding" not in second.err
    names = ["memory", "memory", "random real images", "herding", "k-center"]
    assert [label(m) for m in first.record["measurements"]] == names
    kept = [[m for m in r["measurements"] if m["method"] != "memory"] for r in (first.record, second.record)]
    assert kept[0] == kept[1] and all(m["n"] == 2 for m in kept[0])
    more = command(*words, *sets("IMAGES_PER_CLASS = 2"))
    assert "evaluating herding" in more.err  # more images are another control


@pytest.mark.slow
def test_memories_are_measured_elsewhere_and_a_sweep_opens_no_test_images(data_dir: Path, tmp_path: Path) -> None:
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json"]
    where = sets(
        "TRANSFER = [@architectures.mlp(), @narrow/architectures.mlp(), @architectures.timm()]",
        "narrow/architectures.mlp.depth = 1",
        "architectures.timm.model = 'resnet10t'",
        "EPOCHS = 1",
    )
    done = command(*QUICK, *where, *place)
    assert done.status == 0, done.err
    tested = [(label(m), m["n"]) for m in done.record["measurements"] if m["split"] == "test"]
    assert tested == [("memory", 2), ("memory on mlp", 2), ("memory on resnet10t", 2), ("random real images", 2)]
    assert json.dumps(done.record["config"]).count("resnet10t") == 1
    sweep = command(*QUICK, *sets("experiments.distillation.test = False"), *place)
    assert sweep.status == 0, sweep.err
    assert [(label(m), m["split"]) for m in sweep.record["measurements"]] == [("memory", "validation")]
