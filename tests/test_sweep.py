"""Sweeps: a value is chosen on validation and run once more; and the gradients of an unroll, step by step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from board import measurement
from command_line import QUICK, Done, command, resolve, sets

from suite.config.resolve import Run
from suite.core.unroll import InnerLoop, Retention, hypergradient
from suite.errors import UsageError
from suite.experiments.charts import gradient_norms, sweep
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.runtime.selection import chosen

SWEEP = "run.axes = {'I/C': {'one': ['IMAGES_PER_CLASS = 1'], 'two': ['IMAGES_PER_CLASS = 2']}, 'bases': {'2': ['addressing.bases = 2'], '3': ['addressing.bases = 3']}}"  # noqa: E501
THEN = ["run.choose = 'bases'", "run.then = ['experiments.distillation.test = True', 'ITERATIONS = 1']"]
BLIND = "experiments.distillation.test = False"


def go(data_dir: Path, out: Path, *words: str) -> Done:
    place = ["--data-dir", data_dir, "--out", out, "--tracking-uri", "none"]
    return command(*QUICK, *sets(SWEEP, BLIND, *THEN, "NETWORKS = 1"), *words, *place)


@pytest.mark.slow
def test_the_best_on_validation_is_run_once_more_for_every_combination_of_the_others(
    data_dir: Path, tmp_path: Path
) -> None:
    done = go(data_dir, tmp_path, "--json")
    assert done.status == 0, done.err
    swept, last = done.record[:4], done.record[4:]
    assert len(last) == 2 and all("chosen" not in r["cell"] for r in swept)
    for made in last:
        same = [r for r in swept if r["cell"]["I/C"] == made["cell"]["I/C"]]
        watched = {r["cell"]["bases"]: r["measurements"][0]["mean"] for r in same}
        assert made["cell"]["chosen"] == "bases" and watched[made["cell"]["bases"]] == max(watched.values())
        assert made["scale"]["iterations"] == 1 and {f["split"] for f in made["measurements"]} == {"test", "validation"}
    assert all(f["split"] == "validation" for r in swept for f in r["measurements"])  # no test image chose anything
    assert "is best on validation" in done.err and (tmp_path / "quickstart" / "bases.png").is_file()
    again = go(data_dir, tmp_path, "--json")
    assert again.record == done.record and again.err.count("was done before") == 6


@pytest.mark.slow
def test_a_chosen_run_s_own_configuration_gives_it_again(data_dir: Path, tmp_path: Path) -> None:
    assert go(data_dir, tmp_path, "--only", "one").status == 0
    (record,) = [f for f in tmp_path.glob("*/*/result.json") if "chosen" in json.loads(f.read_text())["cell"]]
    (run,) = resolve([str(record.parent / "config.gin")])
    assert run.key == json.loads(record.read_text())["run_key"] and run.then is None


def records_of(runs: list[Run], values: list[float], split: str = "validation") -> list[dict[str, Any]]:
    return [{"measurements": [measurement("memory", split, [v])]} for v in values]


def test_the_mean_over_seeds_decides_and_every_seed_is_run(tmp_path: Path) -> None:
    runs = resolve(QUICK[1:4:2], [SWEEP, BLIND, *THEN, "SEEDS = [0, 1]"], only=["one"])
    assert [(r.cell["bases"], r.seed) for r in runs] == [("2", 0), ("2", 1), ("3", 0), ("3", 1)]
    (tmp_path / "quickstart").mkdir()
    picked = chosen(runs, records_of(runs, [90.0, 10.0, 60.0, 60.0]), tmp_path)
    assert [(r.cell["bases"], r.seed) for r in picked] == [("3", 0), ("3", 1)]
    with pytest.raises(UsageError, match="measured nothing on validation"):
        chosen(runs, records_of(runs, [1.0] * 4, split="test"), tmp_path)


def test_a_choice_of_what_is_no_axis_is_refused() -> None:
    with pytest.raises(UsageError, match=r"run.choose: no axis is called 'base'; did you mean 'bases'"):
        resolve(QUICK[1:4:2], [SWEEP, "run.choose = 'base'"])
    with pytest.raises(UsageError, match="nothing uses"):
        resolve(QUICK[1:4:2], [SWEEP, "run.choose = 'bases'", "run.then = ['NO_SUCH = 1']"])


# ---------------------------------------------------------------- gradients, step by step


def test_the_watch_sees_the_gradient_in_the_weights_of_every_step() -> None:
    """Against plain autograd from each state on, in float64."""
    w, x = {"w": torch.tensor([0.5, -1.0], dtype=torch.float64)}, {"x": torch.tensor([2.0, 0.3], dtype=torch.float64)}

    def inner(params: Any, inputs: Any, t: Any) -> torch.Tensor:
        return ((params["w"] * inputs["x"]).sin().sum() - 1) ** 2

    def outer(params: Any) -> torch.Tensor:
        return params["w"].cos().sum()

    optimizer, seen = NoMomentum(lr=0.1), {}
    loop = InnerLoop(inner, optimizer, x)
    hypergradient(loop, [outer], w, 4, Retention(), lambda t, bar: seen.update({t: bar["w"].clone()}))
    state, states = w, [w]
    for t in range(4):
        leaf = {"w": state["w"].clone().requires_grad_()}
        (g,) = torch.autograd.grad(inner(leaf, x, t), [leaf["w"]])
        state = {"w": state["w"] - 0.1 * g}
        states.append(state)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    for start, first in enumerate(states):
        leaf = {"w": first["w"].clone().requires_grad_()}
        now = leaf
        for t in range(start, 4):
            (g,) = torch.autograd.grad(inner(now, x, t), [now["w"]], create_graph=True)
            now = {"w": now["w"] - 0.1 * g}
        (expected,) = torch.autograd.grad(outer(now), [leaf["w"]])
        torch.testing.assert_close(seen[start], expected)


def test_norms_of_the_first_and_last_memory_are_in_the_record_and_drawn(data_dir: Path, tmp_path: Path) -> None:
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json"]
    done = command(*QUICK, *sets("experiments.distillation.gradient_norms = 2"), *place)
    assert done.status == 0, done.err
    norms = done.record["facts"]["gradient_norms"]
    assert set(norms) == {"at the start", "at the end"}
    assert all(len(unrolls) == 2 and all(len(line) == 4 for line in unrolls) for unrolls in norms.values())
    assert all(norm > 0 for unrolls in norms.values() for line in unrolls for norm in line)
    assert norms["at the start"] != norms["at the end"] and list(tmp_path.glob("*/*/figures/gradient_norms.png"))
    matching = sets("experiments.distillation.gradient_norms = 2", "OBJECTIVE = @objectives.distribution_matching()")
    refused = command(*QUICK, *matching, *place)
    assert refused.status == 2 and "unrolls nothing" in refused.complaint


def test_pictures_hold_what_overflowed_and_single_seeds(tmp_path: Path) -> None:
    gradient_norms({"at the start": [[1.0, None, 100.0]], "at the end": [[1.0, 2.0, 3.0]]}, tmp_path / "norms.png")
    sweep({"": [("4", 50.0, None), ("8", 60.0, 1.0)], "1 I/C": []}, "bases", tmp_path / "sweep.png")
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["parameterizations.addressing.bases", "addressing.bases"])
def test_a_number_given_by_hand_takes_the_place_of_the_sweep_and_of_its_choice(name: str) -> None:
    runs = resolve(["gin/bases.gin"], [f"{name} = 5"])
    assert [run.label for run in runs] == ["1 I/C seed 0", "10 I/C seed 0"]
    assert all("bases = 5" in run.config_text and run.choose is None and run.then is None for run in runs)
