"""The measurements: every contender computes the same gradient, and what is printed is what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.contracts import relative_error
from tools import bench
from tools.bench import FULL_GRAPH, Setting, contenders, engine, outer_step

SMALL = Setting("digits", steps=3, real_per_class=2)
DIGITS = ["--dataset", "digits", "--steps", "2", "--real-per-class", "1"]


def printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> Any:
    assert bench.main(words) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("parameterization", ["standard", "addressing"])
def test_contenders_compute_the_same_gradient(parameterization: str) -> None:
    setting = Setting("digits", parameterization=parameterization, images_per_class=2, bases=3, steps=3)
    engines = [engine(1.0), engine(1e-6), engine(1.0, "captured")]
    exact = outer_step(setting, engines[0], double=True)()
    for name in contenders(setting, engines):
        assert relative_error(outer_step(setting, name)(), exact) < 1e-3, name
    assert 1e-3 < relative_error(outer_step(setting, engine(1.0, precision="bfloat16"))(), exact) < 0.5


def test_a_contender_starts_from_the_same_inputs_at_every_call() -> None:
    for name in (engine(1.0), FULL_GRAPH):
        step = outer_step(SMALL, name)
        one, other = step(), step()
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_comparison_holds_every_repeat_and_the_errors(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["hypergradient", *DIGITS, "--memory", "1", "--repeats", "2", "--exact", "--json", "--without", "torchopt"]
    made = printed(capsys, words)
    ours, plain = made["rows"]
    assert (ours["contender"], plain["contender"]) == ("engine 1 GiB", FULL_GRAPH)
    assert len(ours["seconds"]) == 2 and min(ours["seconds"]) > 0
    assert plain["ratio"] == 1 and ours["ratio"] > 0 and ours["peak_mib"] >= 0
    assert 0 < ours["error"] < 1e-2 and 0 < plain["error"] < 1e-2
    assert made["environment"]["packages"] and made["setting"]["steps"] == 2


def test_a_table_names_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["hypergradient", *DIGITS, "--repeats", "1", "--no-peak"]) == 0
    out = capsys.readouterr().out
    assert "2 inner steps" in out and "| engine 8 GiB |" in out and "ratio to full graph" in out


def test_the_cost_of_a_step_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, ["cost", *DIGITS, "--json"])
    # Of a forward pass at 8x8: two convolutions of ten images and the head.
    passes = 2 * 10 * (9 * 128 * 64 + 9 * 128 * 128 * 16 + 512 * 10) / 1e6
    assert made["MFLOP of a forward pass"] == pytest.approx(passes, rel=1e-6)
    assert 8 < made["forward passes' worth an inner step"] < 9.5
    assert 0 < made["share of that"] < 1


def test_what_is_no_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["hypergradient", *DIGITS, "--reference", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "is no checkout of RememberThePast" in told and told.count("\n") == 1
