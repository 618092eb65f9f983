"""The distillation experiment: what it validates, keeps, calls reduced, and measures only once."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, command, ended, resolve, sets, start
from fake_session import FakeSession

from suite.architectures.mlp import MLP
from suite.errors import RunError, UsageError
from suite.evaluation.cached import _AccuracyFile
from suite.evaluation.evaluate import accuracy
from suite.evaluation.protocol import Protocol
from suite.experiments.distillation import Distillation
from suite.experiments.learning import evenly_spaced
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.objectives.gradient_matching import GradientMatching
from suite.types import ClassRows, ImageShape, Params, Setting, Split

ABLATION, QUICKSTART = "gin/ablation_momentum.gin", "gin/quickstart.gin"


@pytest.mark.parametrize(("iterations", "points"), [(500, 3), (19, 10), (2, 1), (7, 7), (100, 25)])
def test_validation_points_are_as_many_as_asked_and_end_with_the_last(iterations: int, points: int) -> None:
    (run,) = resolve([QUICKSTART], [f"ITERATIONS = {iterations}", f"VALIDATION_POINTS = {points}"])
    experiment: Any = run.experiment
    at = [i for i in range(iterations + 1) if evenly_spaced(i, iterations, experiment.validation_points)]
    assert len(at) == points + 1 and at[0] == 0 and at[-1] == iterations
    assert max(b - a for a, b in pairwise(at)) <= -(-iterations // points)


@pytest.mark.parametrize(
    ("files", "bindings", "words"),
    [
        (["gin/shared/distillation.gin"], [], []),
        ([ABLATION], [], []),
        (["gin/shared/distillation.gin"], ["ITERATIONS = 49999"], ["49999 of 50000 iterations"]),
        ([QUICKSTART, "gin/scale/paper.gin"], [], ["inner_steps 30 of 150"]),
        (["gin/shared/distillation.gin"], ["EPOCHS = 299"], ["epochs 299 of 300"]),
        (["gin/shared/distillation.gin"], ["REAL_IMAGES = 8"], ["real_per_class 8 of 64"]),
        (["gin/shared/distillation.gin"], ["WIDTH = 32"], ["convnet width 32 of 128"]),
        (["gin/transfer.gin"], ["ALEXNET_WIDTH = 16"], ["alexnet width 16 of 128"]),
    ],
)
def test_whatever_is_less_than_the_paper_s_is_called_reduced(
    files: list[str], bindings: list[str], words: list[str]
) -> None:
    scale = resolve(files, bindings)[0].experiment._scale()  # type: ignore[attr-defined]
    assert scale["reduced"] == bool(words)
    assert all(any(word in said for said in scale["reduced_by"]) for word in words)


def test_a_binding_of_one_cell_is_no_mistake_when_another_is_picked() -> None:
    small = ["PARAMETERIZATION = @parameterizations.downsampled()", "parameterizations.downsampled.factor = 4"]
    axes = {"stored": {"free": ["PARAMETERIZATION = @parameterizations.standard()"], "small": small}}
    bindings = [f"run.axes = {axes!r}"]
    assert [run.label for run in resolve([QUICKSTART], bindings, only=["free"])] == ["free seed 0"]
    assert len(resolve([QUICKSTART], bindings)) == 2


def test_a_later_file_can_not_silently_lose_to_an_axis(tmp_path: Path) -> None:
    late = tmp_path / "late.gin"
    late.write_text("IMAGES_PER_CLASS = 50\n")
    with pytest.raises(UsageError, match=r"late.gin IMAGES_PER_CLASS: the table varies it .*--only"):
        resolve([ABLATION, str(late)])


def test_a_set_takes_the_place_of_the_axis_that_varies_it_alone() -> None:
    labels = [run.label for run in resolve([ABLATION], ["IMAGES_PER_CLASS = 3"])]
    assert labels == ["no momentum seed 0", "forward-only momentum seed 0", "full momentum seed 0"]
    components = "gin/ablation_components.gin"
    runs = resolve([components], ["DATASET = @datasets.digits()"], only=["10 I/C"])
    assert len(runs) == 5 and {run.experiment.dataset.info.name for run in runs} == {"digits"}  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"--set AUGMENTATION: the table varies it along its axis 'method'"):
        resolve([components], ["AUGMENTATION = 'none'"])


@pytest.mark.slow
def test_an_edited_method_is_another_run(tmp_path: Path) -> None:
    text = """
from dataclasses import dataclass
from suite.registry import inner_optimizers
@inner_optimizers.register("edited")
@dataclass(frozen=True)
class Edited:
    \"\"\"A method under work.\"\"\"
    def init(self, params): return {}
    def step(self, params, grads, state): return {k: w - RATE * grads[k] for k, w in params.items()}, {}
"""
    edited = tmp_path / "edited.py"
    words = [*QUICK, *sets("INNER_OPTIMIZER = @inner_optimizers.edited()"), "--plugin", str(edited), "--dry-run"]
    # A process loads a file once, so that each edit has its own; all are forks of one, which has imported the rest.
    program = f"""
import os, sys
import suite.config.resolve, suite.runtime.execute
from suite.registry import load_components
from suite.run import main
load_components()
for rate in ("0.1", "0.2", "0.1"):
    with open({str(edited)!r}, "w") as file:
        file.write({text!r}.replace("RATE", rate))
    child = os.fork()
    if child == 0:
        sys.exit(main({[*words, "--json"]!r}))
    assert os.waitpid(child, 0)[1] == 0
    print("next", flush=True)
"""
    done = ended(start(code=["-c", program]))
    assert done.status == 0, done.err
    first, other, again = (json.loads(plan)[0]["key"] for plan in done.out.split("next\n")[:-1])
    assert first == again != other


def test_a_plan_counts_what_a_memory_stores_and_makes_equal_memories_once() -> None:
    made: list[float] = []

    @dataclass(frozen=True)
    class Sparse:
        """How much is stored only the draw tells."""

        kept: list[float]  # which makes it one that can not be hashed

        def per_class(self, shape: ImageShape, classes: int, images_per_class: float) -> int:
            return 1

        def init(self, shape: ImageShape, classes: int, images_per_class: float, key: Key) -> Params:
            drawn = torch.rand(classes, shape.numel, generator=key.generator())
            values = drawn[drawn < self.kept[0]]  # whose size tensors without values do not have
            made.append(images_per_class)
            return {"values": values}

        def recall(self, memory: Params, queries: Any) -> torch.Tensor:
            raise NotImplementedError

        def penalty(self, memory: Params) -> torch.Tensor:
            raise NotImplementedError

    def budget(kept: float, **changes: Any) -> str:
        return str(Distillation(parameterization=Sparse([kept]), **changes).plan()["budget"])

    drawn = torch.rand(10, 64, generator=Key(0)("memory").generator())
    assert budget(0.5).startswith(f"{int((drawn < 0.5).sum())} numbers (")
    assert budget(0.5, iterations=7, objective=GradientMatching()) == budget(0.5) and made == [1]
    assert budget(0.2).startswith(f"{int((drawn < 0.2).sum())} numbers (")
    budget(0.5, images_per_class=2)
    assert made == [1, 1, 2]


def test_a_network_that_diverged_labels_nothing() -> None:
    split = Split(torch.ones(4, 1, 2, 2), torch.zeros(4, dtype=torch.long))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    with torch.no_grad():
        network[1].weight.fill_(float("nan"))
    assert accuracy(network, split) == 0.0


def test_what_was_evaluated_is_not_evaluated_again(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that ends in the evaluation leaves every finished network's accuracies to the next."""
    arguments = [*QUICK, "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none"]

    def breaks(*_: object, **__: object) -> None:
        raise RunError("the lights went out")

    with monkeypatch.context() as broken:
        broken.setattr("suite.experiments.plots.recalled_images", breaks)
        assert command(*arguments).status == 1
    again = command(*arguments, "--json")
    assert again.status == 0 and "evaluating" not in again.err
    fresh = command(*arguments, "--json", "--fresh")
    assert "evaluating" in fresh.err and fresh.record["measurements"] == again.record["measurements"]


def test_an_evaluation_that_is_stopped_half_way_ends_in_the_same_record(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured is read back, and only what is missing is measured: here all but the first network."""
    arguments = [*QUICK, "--data-dir", data_dir, "--tracking-uri", "none", "--json"]
    whole = command(*arguments, "--out", tmp_path / "whole")
    write, written = _AccuracyFile.write, []

    def writes_once(kept: _AccuracyFile, accuracies: dict[str, float]) -> None:
        if written:
            raise RunError("the lights went out")
        written.append(kept.path)
        write(kept, accuracies)

    arguments += ["--out", tmp_path / "halves"]
    with monkeypatch.context() as broken:
        broken.setattr(_AccuracyFile, "write", writes_once)
        assert command(*arguments).status == 1
    kept = written[0].read_bytes()
    again = command(*arguments)
    assert again.status == 0 and written[0].read_bytes() == kept
    assert "the memory: network 2" in again.err and "1/2" not in again.err
    for one, other in zip(whole.record["measurements"], again.record["measurements"], strict=True):
        assert one["method"] == other["method"] and one["values"] == other["values"]


def test_outer_steps_that_were_left_out_are_counted_in_the_record(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = BPTT.gradients

    def bad_at_the_second(self: BPTT, setting: Setting, memory: Params, real: ClassRows, key: Key) -> Any:
        found, metrics = gradients(self, setting, memory, real, key)
        factor = float("nan") if key.path[-1] == 1 else 1.0
        return {k: g * factor for k, g in found.items()}, metrics

    monkeypatch.setattr(BPTT, "gradients", bad_at_the_second)
    arguments = [*QUICK, *sets("ITERATIONS = 4", "NETWORKS = 1"), "--data-dir", data_dir, "--tracking-uri", "none"]
    stopped = command(*arguments, "--out", tmp_path)
    assert stopped.status == 1 and "outer step 2: hypergradient_norm" in stopped.complaint
    assert "the memory of step 1 is kept" in stopped.complaint and list(tmp_path.glob("*/*/checkpoints/step-*1"))
    allowed = [*arguments, *sets("experiments.distillation.skip_not_finite = 1"), "--json", "--out", tmp_path]
    done = command(*allowed)
    assert done.status == 0 and done.record["facts"]["skipped_outer_steps"] == 1
    (directory,) = [p.parent for p in tmp_path.glob("*/*/result.json")]
    rows = (directory / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows if row.split(",")[1] == "loss"] == ["1", "3", "4"]


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_run_that_was_stopped_draws_the_stages_of_one_that_was_not(
    stop_at: int, data_dir: Path, tmp_path: Path
) -> None:
    """Before, at and after half of its steps; what is kept for the picture is in no checkpoint."""
    experiment = Distillation(
        architecture=MLP(width=16), objective=DistributionMatching(), iterations=4, validation_points=0,
        evaluation=Protocol(networks=1, epochs=1), full_data_epochs=0, controls=(),
    )  # fmt: skip
    whole = FakeSession(data_dir, tmp_path / "whole")
    experiment.run(whole)
    stopped = FakeSession(data_dir, tmp_path / "stopped", stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(stopped)
    kept = {file.name for file in (tmp_path / "stopped" / ".stages").iterdir()}
    assert kept == {"0.safetensors"} | ({"2.safetensors"} if stop_at >= 2 else set())
    assert {name.split("/")[0] for name in stopped.saved[1]} == {"memory", "state"}
    experiment.run(FakeSession(data_dir, tmp_path / "stopped", before=stopped))
    names = ("figures/stages.png", ".stages/0.safetensors", ".stages/2.safetensors")
    first, second = ([(tmp_path / run / name).read_bytes() for name in names] for run in ("whole", "stopped"))
    assert first == second and first[1] != first[2]
