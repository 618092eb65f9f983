"""Starts from data: what a memory recalls at first is made of training images, within the budget, by the key alone."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import QUICK, command, only_run, sets
from safetensors.torch import load_file
from sklearn.cluster import KMeans as Clustering
from torch import Tensor

from suite.architectures.mlp import MLP
from suite.controls.herding import Herding, herded
from suite.core.outer_loop import begin
from suite.errors import UsageError
from suite.experiments import learning
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.image_queries import ImageQueries
from suite.parameterizations.standard import Standard
from suite.registry import starts
from suite.starts.class_means import ClassMeans
from suite.starts.k_means import KMeans
from suite.starts.real_images import RealImages
from suite.types import ClassRows, ImageShape, Parameterization, Params, Setting, Split, Start

SHAPE, CLASSES, EACH = ImageShape(1, 8, 8), 3, 12
LABELS = torch.arange(CLASSES * EACH) % CLASSES


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    """Classes of different means, so that a start that mixes them is seen."""
    drawn = torch.randn(CLASSES * EACH, 1, 8, 8, generator=Key(0)("images").generator(), dtype=torch.float64)
    return (drawn + 3 * LABELS[:, None, None, None]).to(dtype)


REAL = ClassRows.of(Split(images(), LABELS), CLASSES)
PARAMETERIZATIONS: dict[str, Parameterization] = {
    "standard": Standard(),
    "halved": Downsampled(of=Standard()),
    "addressing": Addressing(bases=4),
    "halved addressing": Downsampled(of=Addressing(bases=8)),
}


def setting(parameterization: Parameterization) -> Setting:
    return Setting(SHAPE, CLASSES, MLP(width=4), parameterization, "none", torch.device("cpu"))


def started(parameterization: Parameterization, start: Start | None, images_per_class: float = 2) -> Params:
    of = setting(parameterization)
    return begin(of, SGDMomentum(), images_per_class, Key(1), start, REAL).memory


def recalled(parameterization: Parameterization, memory: Params) -> Tensor:
    return parameterization.recall(memory, torch.arange(CLASSES))


# ---------------------------------------------------------------- every start in every memory


@pytest.mark.parametrize("way", PARAMETERIZATIONS)
@pytest.mark.parametrize("start", starts.names())
def test_a_start_keeps_the_budget_and_repeats_to_the_bit(start: str, way: str) -> None:
    parameterization, component = PARAMETERIZATIONS[way], starts[start].build()
    memory, again = (started(parameterization, component) for _ in range(2))
    noise = started(parameterization, None)
    assert {k: v.shape for k, v in memory.items()} == {k: v.shape for k, v in noise.items()}
    assert all(torch.equal(memory[k], again[k]) for k in memory)
    means = recalled(parameterization, memory).flatten(1).mean(1)
    torch.testing.assert_close(means, torch.tensor([0.0, 3.0, 6.0]), rtol=0, atol=0.6)  # of its own class each


@pytest.mark.parametrize("start", starts.names())
def test_more_images_than_a_class_has_are_refused(start: str) -> None:
    with pytest.raises(UsageError, match=rf"{start} can't .* 12 training images.*; lower the budget, or start"):
        starts[start].build().images(setting(Standard()), REAL, EACH + 1, Key(0))


# ---------------------------------------------------------------- what each of them is


def test_class_means_are_means_of_equal_parts_of_a_class() -> None:
    (one,) = ClassMeans().images(setting(Standard()), REAL, 1, Key(0)).unbind(1)
    by_class = torch.stack([REAL.split.images[c == LABELS] for c in range(CLASSES)])
    torch.testing.assert_close(one, by_class.mean(1))
    parts = ClassMeans().images(setting(Standard()), REAL, 3, Key(0))
    torch.testing.assert_close(parts.mean(1), by_class.mean(1))  # every image is in one of three parts of four
    assert all((parts[c, i] - parts[c, j]).norm() > 0.1 for c in range(CLASSES) for i in range(3) for j in range(i))


def test_centroids_are_those_of_scikit_learn() -> None:
    found = KMeans(attempts=3).images(setting(Standard()), REAL, 2, Key(0))
    for c in range(CLASSES):
        x = REAL.split.images[c == LABELS].flatten(1).double()
        inertia = torch.cdist(x, found[c].flatten(1).double()).min(1).values.square().sum()
        best = Clustering(2, n_init=50, random_state=0).fit(x.numpy()).inertia_
        assert best <= float(inertia) * (1 + 1e-6) and float(inertia) < 1.2 * best
    few = KMeans(images_per_class=4).images(setting(Standard()), REAL, 4, Key(0))
    rows = {tuple(x.flatten().tolist()) for x in REAL.split.images}
    assert all(tuple(x.flatten().tolist()) in rows for x in few.flatten(0, 1))  # each its own centroid


def test_real_images_are_the_control_s() -> None:
    found = RealImages(control=Herding(epochs=0)).images(setting(Standard()), REAL, 3, Key(0))
    for c in range(CLASSES):
        of_class = REAL.split.images[c == LABELS]
        assert torch.equal(found[c], of_class[herded(of_class.flatten(1), 3)])


# ---------------------------------------------------------------- what each memory makes of them


def test_addressing_recalls_the_nearest_images_of_its_rank() -> None:
    """Eckart and Young: no other matrix of rank K is nearer in squares than the cut singular values' decomposition."""
    way, wanted = Addressing(bases=4), torch.randn(CLASSES, 5, 1, 8, 8, generator=Key(2).generator())
    memory = {"bases": torch.randn(4, 1, 8, 8), "matrices": torch.randn(5, CLASSES, 4)}
    found = recalled(way, way.fitted(memory, wanted))
    lost = torch.linalg.svdvals(wanted.flatten(0, 1).flatten(1).double())[4:].square().sum()
    torch.testing.assert_close((found - wanted).square().sum().double(), lost, rtol=1e-4, atol=0)


def test_both_factors_have_entries_of_one_size() -> None:
    way = Addressing(bases=4)
    memory = started(way, KMeans())
    sizes = [memory[k].square().mean().sqrt() for k in ("bases", "matrices")]
    torch.testing.assert_close(sizes[0], sizes[1], rtol=1e-4, atol=0)


def test_bases_beyond_the_rank_of_the_images_stay_and_learn() -> None:
    way = Addressing(bases=6)
    memory = started(way, None, 4)
    wanted = (
        torch.ones(CLASSES, memory["matrices"].shape[0], 1, 8, 8) * torch.arange(1.0, 4.0)[:, None, None, None, None]
    )
    fitted = way.fitted(memory, wanted)
    torch.testing.assert_close(recalled(way, fitted), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(fitted["bases"][1:], memory["bases"][1:]) and not fitted["matrices"][:, :, 1:].any()
    leaves = {k: v.requires_grad_() for k, v in fitted.items()}
    (grad,) = torch.autograd.grad(recalled(way, leaves).square().sum(), leaves["matrices"])
    assert grad[:, :, 1:].abs().min() > 0


def test_halved_images_hold_the_mean_of_the_pixels_they_stand_for() -> None:
    way, wanted = Downsampled(of=Standard()), torch.randn(CLASSES, 8, 1, 8, 8, generator=Key(2).generator())
    (memory,) = [way.fitted(started(way, None), wanted)]
    torch.testing.assert_close(memory["images"][1, 2, 0, 3, 0], wanted[1, 2, 0, 6:8, 0:2].mean())


# ---------------------------------------------------------------- refused


@dataclass(frozen=True)
class Fixed(Standard):
    """Gives more images than it stores."""

    def fitted(self, memory: Params, images: Tensor) -> Params:
        return {"images": torch.cat([images, images], 1)}


def test_a_start_that_a_memory_does_not_offer_is_refused() -> None:
    sentence = r"image_queries offers no start from images \(`fitted`\)"
    with pytest.raises(UsageError, match=sentence):
        started(ImageQueries(bases=2, matrices=1, extractor=MLP(width=4), dimension=2), KMeans(), 2)
    with pytest.raises(UsageError, match=sentence):
        started(Downsampled(of=ImageQueries(bases=2, matrices=1, extractor=MLP(width=4), dimension=2)), KMeans(), 2)
    with pytest.raises(UsageError, match="which would change the budget"):
        started(Fixed(), ClassMeans())


# ---------------------------------------------------------------- a run of the fast recipe


def test_a_run_keeps_the_average_and_counts_its_start(data_dir: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The memory in the file is the average that the optimizer keeps, not that of the last step."""
    clock = [0.0]
    monkeypatch.setattr(learning, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow(self: KMeans, setting: Setting, real: ClassRows, each: int, key: Key) -> Tensor:
        clock[0] += 1000.0
        return ClassMeans().images(setting, real, each, key)

    monkeypatch.setattr(KMeans, "images", slow)
    place = ("--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json")
    done = command(*QUICK, *sets("START = @starts.k_means()", "ITERATIONS = 4"), *place)
    assert done.status == 0, done.err
    directory = only_run(tmp_path)
    (last,) = [d for d in (directory / "checkpoints").iterdir() if d.name == "step-00000004"]
    state, kept = load_file(last / "tensors.safetensors"), Memory.load(directory / "memory.safetensors").tensors
    for name, tensor in kept.items():
        average = state[f"state/average/{name}"] / state["state/average weight/sum"]
        torch.testing.assert_close(tensor, average, rtol=1e-5, atol=1e-6)
        assert (tensor - state[f"memory/{name}"]).norm() > 1e-3
    assert done.record["cost"]["distillation_seconds"] == 1000.0
