"""`suite.doctor`: what it says is so, what is wrong is named, it changes nothing and shows no home."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import REPOSITORY, Done, said

from suite.contracts.problem import Problem
from suite.datasets.prepare import NAMES
from suite.datasets.prepare import main as prepare
from suite.doctor import __main__ as doctor
from suite.doctor import installed, places, self_test


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """The self-test on the CPU, once for all tests here."""
    return self_test.self_test(torch.device("cpu"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: dict[str, Any]) -> Path:
    """An empty home with nothing prepared, and no second self-test."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SUITE_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(self_test, "self_test", lambda device: measured)
    return tmp_path / "home"


def look(*words: str) -> Done:
    return said(doctor.main, list(words))


def test_the_hypergradient_is_exact_here(measured: dict[str, Any]) -> None:
    assert self_test.problems(measured) == [] and measured["device"] == "cpu"
    assert 0 <= measured["errors"]["autograd"] < 1e-12 and 0 < measured["errors"]["finite differences"] < 1e-6


def test_a_hypergradient_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.undo()
    exact = Problem.gradient
    monkeypatch.setattr(Problem, "gradient", lambda self: {k: 1.001 * v for k, v in exact(self).items()})
    found = self_test.self_test(torch.device("cpu"))
    monkeypatch.setattr(self_test, "self_test", lambda device: found)
    done = look("--tracking-uri", "none")
    assert done.status == 1
    wrong = [line for line in done.out.splitlines() if line.startswith("PROBLEM")]
    assert len(wrong) == 2 and all("the hypergradient on cpu differs from" in line for line in wrong)
    assert "by 1.0e-03, where 1e-10 is the most" in wrong[0]
    assert self_test.problems({"device": "cpu", "errors": dict.fromkeys(self_test.MOST_OFF, float("nan"))})


def test_nothing_is_changed_and_no_home_is_shown(home: Path) -> None:
    done = look("--out", "~/runs")
    assert done.status == 0 and done.out.splitlines()[-1].split(maxsplit=1)[1] == "no problem found"
    assert not list(home.iterdir()) and not list(home.parent.glob("runs"))
    assert str(home) not in done.out and "~/runs: not there yet" in done.out
    assert "~/.cache/addressable-memory-suite: not there yet" in done.out
    assert max(map(len, done.out.splitlines())) < 700 and "\t" not in done.out


def test_the_data_sets_are_those_that_are_prepared(home: Path) -> None:
    before = json.loads(look("--json", "--data-dir", "~/data", "--tracking-uri", "none").out)
    assert before["data_sets"] == dict.fromkeys(NAMES, False)
    assert said(prepare, ["digits", "--data-dir", "~/data"]).status == 0
    done = look("--data-dir", "~/data", "--tracking-uri", "none")
    (line,) = [line for line in done.out.splitlines() if line.startswith("data sets")]
    others = " ".join(name for name in NAMES if name != "digits")
    assert line.endswith(f"ready: digits; for the others: python -m suite.datasets.prepare {others} --data-dir ~/data")
    after = json.loads(look("--json", "--data-dir", "~/data", "--tracking-uri", "none").out)
    assert [name for name, ready in after["data_sets"].items() if ready] == ["digits"]
    assert after["data"]["cache_mib"] > 0 and after["problems"] == []


def test_runs_are_counted_by_their_states(home: Path) -> None:
    for name, files in {"a": ["run.json", "result.json"], "b": ["run.json"]}.items():
        (home / "runs" / "table" / name).mkdir(parents=True)
        for file in files:
            (home / "runs" / "table" / name / file).write_bytes(bytes(2**19))
    runs = json.loads(look("--json", "--out", "~/runs", "--tracking-uri", "none").out)["runs"]
    assert runs["states"] == {"finished": 1, "killed": 1} and runs["mib"] == 1.5 and runs["place"] == "~/runs"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tracking-uri", "nonsense://x"], "'nonsense://x' is no tracking store"),
        (["--tracking-uri", "sqlite:////proc/no/mlflow.db"], "there is no folder /proc/no"),
        (["--out", "~/file/runs", "--tracking-uri", "none"], "~/file/runs can't be written; choose another --out"),
    ],
)
def test_what_is_wrong_is_named(words: list[str], sentence: str, home: Path) -> None:
    (home / "file").write_text("in the way")
    done = look(*words)
    assert done.status == 1 and done.err == ""
    (line,) = [line for line in done.out.splitlines() if line.startswith("PROBLEM")]
    assert sentence in line and "no problem" not in done.out


def test_little_room_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "ROOM_GIB", 1e9)
    done = look("--out", "~/runs", "--tracking-uri", "none")
    assert done.status == 1 and "GiB are free; free some room or choose another --out" in done.out


@pytest.mark.parametrize("words", [["--device", "gpu"], ["--data-dir", ""], ["--out", "~nobody-of-this-name/x"]])
def test_a_wrong_option_is_one_sentence(words: list[str], home: Path) -> None:
    done = look(*words)
    assert done.status == 2 and done.out == "" and done.err.startswith("suite.doctor: --") and done.err.count("\n") == 1


def test_a_package_that_is_missing_or_old_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch>=2.11", "numpy>=999", "nothing-of-this-name>=1.0", 'pytest>=8; extra == "test"']
    monkeypatch.setattr(installed, "requires", lambda package: asked)
    found = json.loads(look("--json").out)
    assert found["problems"] == [
        f"numpy is {found['packages']['numpy']}, below 999; pip install 'numpy>=999'",
        "the package nothing-of-this-name is missing; pip install 'nothing-of-this-name>=1.0'",
    ]
    assert "self_test" not in found and "pytest" not in found["packages"]
    done = look()
    assert done.status == 1 and "not looked at the rest, which needs nothing-of-this-name" in done.out


def test_optional_parts_are_those_of_the_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(installed.OPTIONAL) == set(project["optional-dependencies"]) - {"test", "docs"}
    named = {need.name for need in installed.needs()}
    assert named <= {one.split(">=")[0] for one in project["dependencies"]} and "torch" in named
    monkeypatch.setitem(installed.OPTIONAL, "avalanche", ("no_module_of_this_name", ""))
    done = look("--tracking-uri", "none")
    assert done.status == 0
    assert "avalanche is missing: pip install 'addressable-memory-suite[avalanche]'" in done.out


def test_a_home_is_the_whole_name_of_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann/")
    assert places.homely("/home/ann/x and /home/anna/y") == "~/x and /home/anna/y"
    assert places.homely(Path("/home/ann")) == "~"
    monkeypatch.setenv("HOME", "/")
    assert places.homely("/data") == "/data"
