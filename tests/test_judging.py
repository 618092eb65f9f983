"""Somebody else's set is judged as ours would be: the same accuracies, a memory and a record like any other."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_sets
import numpy as np
import pytest
import scipy.fft
import torch
from command_line import Done, as_people_run_it, command, said, sets
from torch import Tensor

from leaderboard.records import read as read_records
from leaderboard.tables import tables
from suite import evaluate
from suite.architectures.mlp import MLP
from suite.datasets.digits import Digits
from suite.evaluation.comparison import Comparison
from suite.evaluation.protocol import Protocol
from suite.experiments.distillation import Distillation
from suite.experiments.judging import Judging
from suite.images import preprocess
from suite.keys import Key
from suite.memory import Memory, described
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard
from suite.runtime.record import invalid
from suite.types import Budget, Data

NETWORKS, EPOCHS = 2, 150
SMALL = sets(
    "ARCHITECTURE = @architectures.mlp()",
    "architectures.mlp.width = 16",
    f"NETWORKS = {NETWORKS}",
    f"EPOCHS = {EPOCHS}",
    "CONTROLS = []",
)
ROUNDING = 0.5
"""Percentage points: two of 451 test images."""


@pytest.fixture(scope="module")
def data(data_dir: Path) -> Data:
    return Digits().load(data_dir, Key(0), 0.0)


@pytest.fixture(scope="module")
def hard(data: Data) -> Memory:
    """A memory of ours: of each class the first two training images, and of them one that leaves [0, 1]."""
    rows = torch.cat([(data.train.labels == c).nonzero()[:2, 0] for c in range(10)])
    images = data.train.images[rows].unflatten(0, (10, 2))
    return memory(data, Standard(), {"images": images})


@pytest.fixture(scope="module")
def soft(data: Data, hard: Memory) -> Memory:
    """Likewise, with labels that were learned."""
    labels = torch.eye(10)[:, None].repeat(1, 2, 1) + 0.2 * torch.randn(10, 2, 10, generator=Key(3).generator())
    return memory(data, SoftLabels(of=Standard()), {"images": 1.3 * hard.tensors["images"], "labels": labels})


def memory(data: Data, parameterization: Any, tensors: dict[str, Tensor]) -> Memory:
    numbers = sum(tensor.numel() for tensor in tensors.values())
    experiment = Distillation(
        architecture=MLP(width=16), parameterization=parameterization, images_per_class=numbers / 640, validation=0.0,
        objective=Distillation().objective, controls=(),
    )  # fmt: skip
    about = {"dataset": "digits", "dataset_digest": data.digest, "class_names": list(data.info.class_names), "seed": 0}
    budget = Budget(numbers, numbers / 640, 2)
    whole = about | described(experiment, data.info.shape, data.transform, budget)
    return Memory(tensors, whole, data.transform)


def own_accuracies(of: Memory, data_dir: Path) -> list[float]:
    with as_people_run_it():
        found = of.evaluate(networks=NETWORKS, epochs=EPOCHS, data_dir=data_dir, progress=False, device="cpu")
    assert isinstance(found, Comparison) and found.mean() > 40  # far above chance, where all sets are alike
    return list(found.accuracies["memory"])


class Judged:
    """The command, in a folder of its own."""

    def __init__(self, out: Path, data_dir: Path) -> None:
        self.out = out
        self.place = ["--out", str(out), "--data-dir", str(data_dir), "--tracking-uri", "none", "--device", "cpu"]

    def said(self, *words: str | Path, small: bool = True) -> Done:
        return said(evaluate.main, [*map(str, words), *(SMALL if small else []), *self.place])

    def record(self, *words: str | Path) -> Any:
        done = self.said(*words, "--data-set", "digits", "--classes", "data-set", "--json")
        assert done.status == 0, done.err
        return done.record

    def memory(self) -> Memory:
        (file,) = self.out.glob("judging/*/memory.safetensors")
        return Memory.load(file)

    def complaint(self, *words: str | Path) -> str:
        done = self.said(*words)
        assert done.status in (1, 2) and "Traceback" not in done.err
        (line,) = [line for line in done.err.splitlines() if not line.startswith("[")]
        assert line.startswith("suite.evaluate: ")
        return line.removeprefix("suite.evaluate: ")


@pytest.fixture
def judged(tmp_path: Path, data_dir: Path) -> Judged:
    return Judged(tmp_path / "runs", data_dir)


def accuracies(record: Any) -> list[float]:
    (measured,) = [m for m in record["measurements"] if m["method"] == "memory"]
    return list(measured["values"])


def near(found: list[float], wanted: list[float]) -> bool:
    return bool(np.allclose(found, wanted, atol=ROUNDING))


# ---------------------------------------------------------------- there and back


HARD = {
    "dc": ["--space", "STANDARDIZED"],
    "dc old": ["--space", "standardized:data-set"],
    "mtt": ["--space", "pixels"],
    "fred": ["--space", "pixels"],
    "idc": ["--factor", "1"],
    "rat_bptt": ["--space", "zca:ZCA"],
    "image_folder": [],
    "kip": ["--space", "pixels"],
    "rcig": ["--space", "pixels"],
    "huggingface": ["--space", "standardized:data-set"],
}
"""By layout, the declarations of a hard-labelled set that is written in it."""


ENDINGS = {"kip": ".npz", "huggingface": ".parquet"}
"""Of the names of files."""


def write(layout: str, of: Memory, place: Path) -> Path:
    """The images and classes of a memory in another's layout, in the space that `HARD` declares for it."""
    split = of._recalled()
    pixels = preprocess.pixels_of(split.images, of.transform)  # type: ignore[arg-type]
    standardized = (pixels - 0.3) / 0.2
    one_hot = torch.eye(10)[split.labels]
    if layout.startswith("dc"):
        images = split.images if layout == "dc old" else standardized
        return foreign_sets.dc(place, [(images, split.labels)], {"ConvNet": [0.5, 0.7]}, old=layout == "dc old")
    if layout == "mtt":
        return foreign_sets.mtt(place, pixels, split.labels)
    if layout == "fred":
        frequencies = torch.from_numpy(scipy.fft.dctn(pixels.double().numpy(), axes=(2, 3)))
        return foreign_sets.fred(place, frequencies, torch.ones(pixels.shape), split.labels)
    if layout == "idc":
        return foreign_sets.idc(place, pixels, split.labels)
    if layout == "rat_bptt":
        matrix = torch.eye(64).double() + 0.1 * torch.ones(64, 64).double()
        np.savez(place.with_name("zca.npz"), whitening=matrix.numpy(), mean=np.full(64, 0.25))
        whitened = ((pixels.flatten(1).double() - 0.25) @ matrix.float().double()).float()
        return foreign_sets.rat_bptt(place, whitened)
    if layout == "kip":
        return foreign_sets.kip(place, pixels, one_hot - 0.1)
    if layout == "rcig":
        return foreign_sets.rcig(place, pixels, one_hot - 0.1)
    return of.export(place)


@pytest.mark.parametrize("layout", HARD)
def test_a_memory_in_another_layout_is_worth_the_same(
    layout: str, hard: Memory, judged: Judged, data_dir: Path, tmp_path: Path
) -> None:
    name = layout.split()[0]
    place = write(layout, hard, tmp_path / f"set{ENDINGS.get(name, '')}")
    given = {"STANDARDIZED": "standardized:0.3/0.2", "zca:ZCA": f"zca:{tmp_path / 'zca.npz'}"}
    record = judged.record(place, "--as", name, *(given.get(word, word) for word in HARD[layout]))
    assert near(accuracies(record), own_accuracies(hard, data_dir))
    imported = judged.memory()
    assert torch.allclose(imported.recall()[0], hard.recall()[0], atol=0.02 if name == "image_folder" else 1e-4)
    assert near(own_accuracies(imported, data_dir), accuracies(record))
    beside = {"kip": 200, "rcig": 200, "fred": 10 * 64}.get(name, 0)  # labels, and the places of each class
    assert record["budget"]["stored_numbers"] == 20 * 64 + beside
    assert invalid(record) is None


@pytest.mark.parametrize("layout", ["datm", "mtt", "rat_bptt"])
def test_learned_labels_are_worth_the_same(
    layout: str, soft: Memory, judged: Judged, data_dir: Path, tmp_path: Path
) -> None:
    split, place = soft._recalled(), tmp_path / "set"
    probabilities = split.taught
    if layout == "datm":
        foreign_sets.mtt(place, split.images, probabilities.log() - 2, torch.tensor(0.01))
        words = ["--lr", "file"]
    elif layout == "mtt":
        foreign_sets.mtt(place, split.images, probabilities, 0.02)
        words = ["--labels", "probabilities", "--lr", "protocol"]
    else:
        foreign_sets.rat_bptt(place, split.images, 3 * probabilities)
        words = []
    record = judged.record(place, "--as", layout, "--space", "standardized:data-set", *words)
    assert near(accuracies(record), own_accuracies(soft, data_dir))
    rate = layout == "datm"
    assert record["budget"]["stored_numbers"] == 20 * (64 + 10) + rate
    assert record["config"]["evaluation"]["lr"] == pytest.approx(0.01)
    assert torch.allclose(judged.memory().dataset().tensors[1], probabilities, atol=1e-6)


def test_a_memory_of_ours_needs_no_declaration(soft: Memory, judged: Judged, data_dir: Path, tmp_path: Path) -> None:
    soft.save(tmp_path / "memory.safetensors")
    done = judged.said(tmp_path / "memory.safetensors", "--as", "memory", "--json")
    assert done.status == 0, done.err
    assert accuracies(done.record) == own_accuracies(soft, data_dir)
    assert done.record["budget"]["stored_numbers"] == 20 * 74
    file = tmp_path / "memory.safetensors"
    assert "says that itself" in judged.complaint(file, "--as", "memory", "--space", "pixels")
    assert "leave it out" in judged.complaint(file, "--as", "memory", "--data-set", "mnist")


def test_protocols_stand_side_by_side_whole_and_taken_apart(soft: Memory, judged: Judged, tmp_path: Path) -> None:
    soft.save(tmp_path / "memory.safetensors")
    words = [tmp_path / "memory.safetensors", "--as", "memory", "--protocols", "dd_ranking", "dd_ranking_soft", "paper"]
    small = [
        *SMALL,
        *sets("CONTROLS = [@controls.random_images()]", "FULL_DATA_EPOCHS = 1", "FULL_DATA_NETWORKS = 1", "EPOCHS = 6"),
        *sets("suite.protocol.teacher_epochs = 1"),
    ]
    done = judged.said(*words, "--apart", *small, small=False)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("protocol "))
    table = [line.split() for line in lines[start + 1 :]]
    assert [line[0] for line in table[:5]] == ["dd_ranking"] * 2 + ["dd_ranking_soft"] * 2 + ["paper"]
    parts = [" ".join(line[1:4]) for line in table[1:6:2]]  # digits have no augmentation of their own
    assert [part.startswith("without augmentation") for part in parts] == [True, True, False]
    assert parts[2] == "without its labels"
    assert "DD-Ranking, soft labels: HLR" in done.out and ", ARS " in done.out
    entries, complaints = read_records([judged.out])
    cells = [entry.record["cell"] for entry in entries]
    assert not complaints and len(cells) == 6
    assert {"set": "soft_labels mlp, seed 0", "protocol": "paper", "without": "its labels"} in cells
    protocols = {entry.record["scale"]["protocol"].split(",")[0] for entry in entries}
    assert protocols == {"dd_ranking-1", "dd_ranking_soft-1", "paper-1"}
    by_cell = {
        (cell["protocol"], cell.get("without")): entry.record for cell, entry in zip(cells, entries, strict=True)
    }
    assert accuracies(by_cell["paper", None]) != accuracies(by_cell["paper", "its labels"])
    table_page = next(table for table in tables(entries, []) if table.page.slug == "protocols")
    assert {row.method for row in table_page.rows} >= {
        "soft_labels mlp, seed 0, paper",
        "soft_labels mlp, seed 0, paper, without its labels",
    }


def test_protocols_that_are_not_there_are_named(soft: Memory, judged: Judged, tmp_path: Path) -> None:
    soft.save(tmp_path / "memory.safetensors")
    words = [tmp_path / "memory.safetensors", "--as", "memory"]
    assert judged.complaint(*words, "--protocols", "idd").startswith(
        "--protocols: there is no 'idd'; did you mean 'idc'? "
    )
    assert judged.complaint(*words, "--apart") == "--apart takes protocols apart: name them, such as --protocols paper"


# ---------------------------------------------------------------- the record


def test_the_record_says_what_the_file_is_and_what_was_done(
    hard: Memory, judged: Judged, tmp_path: Path, data_dir: Path
) -> None:
    place = write("dc", hard, tmp_path / "res.pt")
    words = [place, "--as", "dc", "--data-set", "digits", "--classes", "data-set", "--space", "standardized:0.3/0.2"]
    done = judged.said(*words, "--printed", "41.6")
    assert done.status == 0, done.err
    assert "printed by its authors" in done.out and "41.6" in done.out
    assert "in the file, ConvNet" in done.out and "60.0 ± 14.1" in done.out
    (folder,) = (judged.out / "judging").glob("*seed0*")
    record = json.loads((folder / "result.json").read_text())
    source = record["facts"]["imported"]
    assert source["printed"] == 41.6 and source["accuracies"]["ConvNet"]["n"] == 2
    assert source["file"] == "res.pt" and len(source["sha256"]) == 64 and source["space"] == "standardized:0.3/0.2"
    assert source["pixels_outside"]["least"] >= -1e-6 and source["pixels_outside"]["largest"] <= 1 + 1e-6
    assert str(tmp_path) not in json.dumps(record)
    assert record["scale"]["reduced"] and (folder / "figures" / "recalled.png").is_file()
    entries, complaints = read_records([judged.out])
    assert not complaints and [entry.record["experiment"] for entry in entries] == ["judging"]
    again = command("--gin", folder / "config.gin", *judged.place, "--json")
    assert again.status == 0 and "was done before" in again.err  # the same run, to its key
    assert again.record["config"] == record["config"]
    assert judged.memory().about["parameterization"]["is"] == "imported"


def test_a_rate_of_the_file_is_the_protocol_s_and_is_counted(hard: Memory, judged: Judged, tmp_path: Path) -> None:
    split = hard._recalled()
    folder = foreign_sets.mtt(tmp_path / "set", split.images, split.labels, torch.tensor(0.05))
    record = judged.record(folder, "--as", "mtt", "--space", "standardized:data-set", "--lr", "file")
    assert record["config"]["evaluation"]["lr"] == float(torch.tensor(0.05))
    assert record["budget"]["stored_numbers"] == 20 * 64 + 1
    assert "lr 0.05" in record["scale"]["protocol"] and record["scale"]["reduced"]


def test_a_rate_of_sgd_goes_into_no_protocol_with_adam(hard: Memory, judged: Judged, tmp_path: Path) -> None:
    split = hard._recalled()
    folder = foreign_sets.mtt(tmp_path / "set", split.images, split.labels, torch.tensor(0.05))
    words = [folder, "--as", "mtt", "--space", "standardized:data-set", "--lr", "file", "--data-set", "digits"]
    done = judged.said(*words, "--classes", "data-set", "--protocols", "frepo", "dc_bench", "--dry-run", "--json")
    assert done.status == 0, done.err
    adam, sgd = json.loads(done.out)
    assert "lr" not in adam["evaluation"] and "lr 0.05" in sgd["evaluation"]


def test_tiles_are_judged_enlarged_and_paid_for_small(hard: Memory, judged: Judged, tmp_path: Path) -> None:
    split = hard._recalled()
    pixels = preprocess.pixels_of(split.images, hard.transform)  # type: ignore[arg-type]
    file = foreign_sets.idc(tmp_path / "data.pt", pixels, split.labels)
    record = judged.record(file, "--as", "idc", "--factor", "2")
    assert record["budget"] == {"stored_numbers": 1280, "images_per_class": 2.0, "recalled_per_class": 8}
    images, labels = judged.memory().recall()
    assert images.shape == (80, 1, 8, 8) and labels.bincount().tolist() == [8] * 10
    judged.memory().export(tmp_path / "png")
    assert len(list((tmp_path / "png").rglob("*.png"))) == 80


def test_a_whitened_data_set_is_judged_whitened(hard: Memory, judged: Judged, tmp_path: Path) -> None:
    split = hard._recalled()
    pixels = preprocess.pixels_of(split.images, hard.transform)  # type: ignore[arg-type]
    file = foreign_sets.idc(tmp_path / "data.pt", pixels, split.labels)
    whitened = sets('datasets.digits.preprocessing = "zca_image"')
    judged.record(file, "--as", "idc", "--factor", "1", *whitened)
    assert judged.memory().about["preprocessing"]["name"] == "zca_image"
    words = [file, "--as", "idc", "--factor", "2", "--data-set", "digits", "--classes", "data-set", *whitened]
    assert "tiles can't be whitened" in judged.complaint(*words)
    rows = foreign_sets.rat_bptt(tmp_path / "set.h5", judged.memory().recall()[0])
    words = [rows, "--as", "rat_bptt", "--data-set", "digits", "--classes", "data-set", "--space", "zca_image:0.1"]
    assert "no brightness and contrast" in judged.complaint(*words)
    done = judged.said(*words, "--json", *whitened)
    assert done.status == 0 and done.record["facts"]["imported"]["conversion"] == "kept as they are"


# ---------------------------------------------------------------- the command


def test_what_is_missing_is_asked_for(judged: Judged, hard: Memory, tmp_path: Path) -> None:
    file = write("dc", hard, tmp_path / "res.pt")
    assert judged.complaint(file).startswith("--as: say what the file is; there are: datm, dc, ")
    assert "did you mean 'idc'" in judged.complaint(file, "--as", "icd")
    assert judged.complaint(file, "--as", "dc").startswith("--data-set: ")
    assert "did you mean 'digits'" in judged.complaint(file, "--as", "dc", "--data-set", "digit")
    assert judged.complaint(file, "--as", "dc", "--data-set", "digits").startswith("--space: ")
    assert "there is no" in judged.complaint(tmp_path / "none", "--as", "dc", "--data-set", "digits")
    assert not list(judged.out.glob("judging/*"))


def test_a_plan_needs_no_data(judged: Judged, hard: Memory, tmp_path: Path) -> None:
    file = write("mtt", hard, tmp_path / "set")
    words = [file, "--as", "mtt", "--data-set", "@datasets.digits()", "--classes", "data-set", "--space", "pixels"]
    done = judged.said(*words, "--dry-run")
    assert done.status == 0 and "1280 numbers (2 images per class)" in done.out and "nothing was started" in done.out


def test_a_set_that_is_not_there_or_was_altered_is_not_judged(judged: Judged, hard: Memory, tmp_path: Path) -> None:
    file = write("mtt", hard, tmp_path / "set")
    words = [file, "--as", "mtt", "--data-set", "digits", "--classes", "data-set", "--space", "pixels"]
    assert judged.said(*words).status == 0
    (folder,) = (judged.out / "judging").glob("*seed0*")
    (kept,) = (judged.out / "cache" / "imported").glob("*.safetensors")
    other = kept.read_bytes()
    again = ["--gin", folder / "config.gin", "--fresh", *judged.place]
    kept.write_bytes(other[:-4] + b"\x00\x00\x80\x3f")
    assert "is damaged" in command(*again).complaint
    kept.unlink()
    assert "was not imported" in command(*again).complaint


def test_an_experiment_without_a_set_says_so(tmp_path: Path, data_dir: Path) -> None:
    done = command(
        *("--gin", "gin/shared/judging.gin", "--gin", "gin/scale/smoke.gin"), *SMALL,
        *("--out", tmp_path, "--data-dir", data_dir, "--tracking-uri", "none"),
    )  # fmt: skip
    assert done.status == 1 and "was not imported" in done.complaint


def test_what_is_less_than_the_paper_s_is_called_reduced() -> None:
    assert not Judging()._scale()["reduced"]
    narrow = replace(Judging(), evaluation=Protocol(lr=0.02))
    assert narrow._scale()["reduced_by"] == ["paper-1, changed: lr 0.02 of 0.01"]
