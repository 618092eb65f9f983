"""The measurements: every contender computes the same gradient, and what is printed is what was measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.contracts.problem import relative_error
from tools import bench
from tools.contenders import FULL_GRAPH, Case, Contender, contenders, outer_step

ENGINE = Contender("engine", gib=1.0)
SMALL = Case("digits", steps=3, real_per_class=2)
DIGITS = ["--dataset", "digits", "--steps", "2", "--real-per-class", "1"]


def printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> Any:
    assert bench.main(words) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", ["standard", "addressing"])
def test_contenders_compute_the_same_gradient(parameterization: str) -> None:
    # Of addressing four images a class, each of six bases: more bases are fewer images, and less to compute.
    case = Case("digits", parameterization=parameterization, images_per_class=1, bases=6, steps=3, real_per_class=4)
    engines = [ENGINE, replace(ENGINE, gib=1e-6), replace(ENGINE, execution="captured")]
    exact = outer_step(case, engines[0], double=True)()
    for contender in contenders(case, engines):
        assert relative_error(outer_step(case, contender)(), exact) < 1e-3, contender.name
    halved = replace(ENGINE, precision="bfloat16")
    assert 1e-3 < relative_error(outer_step(case, halved)(), exact) < 0.5


def test_a_contender_starts_from_the_same_inputs_at_every_call() -> None:
    for contender in (ENGINE, FULL_GRAPH):
        step = outer_step(SMALL, contender)
        one, other = step(), step()
        assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_a_comparison_holds_every_repeat_and_the_errors(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["hypergradient", *DIGITS, "--memory", "1", "--repeats", "2", "--exact", "--json", "--without", "torchopt"]
    made = printed(capsys, words)
    ours, plain = made["rows"]
    assert (ours["contender"], plain["contender"]) == ("engine 1 GiB", "full graph")
    assert len(ours["seconds"]) == 2 and min(ours["seconds"]) > 0
    assert plain["ratio"] == 1 and ours["ratio"] > 0 and ours["peak_mib"] >= 0
    assert 0 < ours["error"] < 1e-2 and 0 < plain["error"] < 1e-2
    assert made["environment"]["packages"] and made["setting"]["steps"] == 2


def test_a_contender_that_does_not_fit_is_left_out_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(case: Case, contender: Contender, double: bool = False) -> Any:
        def failing() -> Any:
            raise torch.OutOfMemoryError

        return failing if contender == FULL_GRAPH else outer_step(case, contender, double)

    monkeypatch.setattr(bench, "outer_step", step)
    assert bench.main(["hypergradient", *DIGITS, "--repeats", "1", "--no-peak"]) == 0
    said = capsys.readouterr()
    assert "left out: full graph" in said.err and "| engine 8 GiB |" in said.out and "| full graph |" not in said.out


def test_a_table_names_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["hypergradient", *DIGITS, "--repeats", "1", "--no-peak"]) == 0
    out = capsys.readouterr().out
    assert "2 inner steps" in out and "| engine 8 GiB |" in out and "ratio to full graph" in out


@pytest.mark.slow
def test_the_cost_of_a_step_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, ["cost", *DIGITS, "--json"])
    # Of a forward pass at 8x8: two convolutions of ten images and the head.
    passes = 2 * 10 * (9 * 128 * 64 + 9 * 128 * 128 * 16 + 512 * 10) / 1e6
    assert made["MFLOP of a forward pass"] == pytest.approx(passes, rel=1e-6)
    assert 8 < made["forward passes' worth an inner step"] < 9.5
    assert 0 < made["share of that"] < 1


def test_what_is_no_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["hypergradient", *DIGITS, "--reference", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "is no checkout of RememberThePast" in message and message.count("\n") == 1


@pytest.mark.slow
def test_what_upkeep_costs_is_measured_on_whole_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measure, warmed = bench._run_seconds, iter((True, True, False, False))  # each way once before it counts
    monkeypatch.setattr(bench, "_run_seconds", lambda words: (0.0, 0.0) if next(warmed) else measure(words))
    small = tmp_path / "small.gin"
    lines = ["ARCHITECTURE = @architectures.mlp()", "FULL_DATA_EPOCHS = 0", "START = None"]
    small.write_text("include 'gin/scale/smoke.gin'\n" + "\n".join(lines) + "\n")
    made = printed(capsys, ["upkeep", "--iterations", "1", "--repeats", "1", "--gin", str(small), "--json"])
    for seconds in (made["seconds"], made["processor_seconds"]):
        assert {name: len(values) for name, values in seconds.items()} == {"as it is": 1, "bare": 1}
        assert min(seconds["as it is"] + seconds["bare"]) > 0.5
    # Nothing was saved and nothing sent: MLflow's import alone takes longer than the rest of so small a run's upkeep.
    assert made["processor_seconds"]["as it is"][0] > made["processor_seconds"]["bare"][0]


# ---------------------------------------------------------------- all of it, on a GPU


def test_an_mlp_s_first_layer_is_compared_in_both_of_its_places(capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--dataset",
        "digits",
        "--architecture",
        "mlp",
        "--depth",
        "1",
        "--parameterization",
        "addressing",
        "--bases",
        "4",
    ]
    words = ["--steps", "3", "--real-per-class", "2", "--repeats", "1", "--first-layer", "pixels", "span", "--exact"]
    made = printed(
        capsys, ["hypergradient", *small, *words, "--no-peak", "--without", "full graph", "torchopt", "--json"]
    )
    assert [row["contender"] for row in made["rows"]] == ["engine 8 GiB", "engine 8 GiB span"]
    assert all(0 < row["error"] < 1e-4 for row in made["rows"])
    assert made["rows"][0]["error"] != made["rows"][1]["error"]  # other sums, so other last bits
