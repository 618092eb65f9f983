"""Records: right statistics, nothing that is not valid, and nothing of the machine's owner."""

import copy
import getpass
import json
import math
import os
import socket
import statistics as reference
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.errors import RunError
from suite.runtime import environment
from suite.runtime import record as records
from suite.runtime.record_schema import MeasuredRecord, Record
from suite.storage.files import canonical_json, sha256
from suite.types import Budget, Measurement, Outcome

MEASUREMENTS = (
    Measurement("memory", "test", (50.0, 60.0, 73.0), "evaluation networks"),
    Measurement("memory", "validation", (51.0, 61.0, 70.0), "evaluation networks"),
    Measurement("full data", "test", (90.0,), "evaluation networks", note="1210 images"),
)


def outcome(measurements: tuple[Measurement, ...] = MEASUREMENTS, **scale: Any) -> Outcome:
    return Outcome(
        measurements,
        Budget(624, 0.975, 4),
        {"reduced": True} | scale,
        {"dataset": "digits"},
        {"evaluation_seconds": 1.0},
    )


def made(found: Outcome | None = None) -> dict[str, Any]:
    return records.record(
        found or outcome(),
        experiment="distillation",
        name="quickstart",
        cell={"momentum": "full"},
        seed=3,
        run_key="0123456789abcdef",
        config={"is": "distillation", "iterations": 2},
        config_text="ITERATIONS = 2\n",
        scale_label="smoke",
        device=torch.device("cpu"),
        cost={"seconds": 2.0},
    )


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize("values", [(1.0, 2.0), (50.0, 60.0, 73.0), (7.0, 7.0, 7.0, 7.0), (99.99, 0.01, 33.3, 12.5)])
def test_mean_and_sample_standard_deviation(values: tuple[float, ...]) -> None:
    found = records.statistics(Measurement("memory", "test", values, "evaluation networks"))
    assert found["mean"] == pytest.approx(reference.mean(values))
    assert found["std"] == pytest.approx(reference.stdev(values))  # n - 1, not n
    assert found["n"] == len(values) and found["values"] == list(values)


def test_a_deviation_that_another_python_rounded_otherwise_is_not_called_altered() -> None:
    """Of ten equal values, Python 3.11 makes a deviation of 1.9e-15 where later ones make 0."""
    text = {"config_text": "", "config_text_sha256": sha256(b"")}
    values = [10.0] * 10  # whose deviation is 0 for every Python
    measured = {"method": "memory", "quantity": "accuracy", "network": "", "episodes": "", "values": values, "n": 10}
    measured |= {"mean": values[0]}
    assert [records.altered({"measurements": [measured | {"std": std}]} | text) for std in (0.0, 1.87e-15)] == [
        None,
        None,
    ]
    for std in (0.1, None):
        assert "are not those of its values" in str(records.altered({"measurements": [measured | {"std": std}]} | text))


def test_one_value_has_no_spread() -> None:
    found = records.statistics(Measurement("memory", "test", (42.0,), "evaluation networks"))
    assert found["std"] is None and found["mean"] == 42.0 and found["n"] == 1


def test_the_table_shows_each_row_with_its_spread_and_marks_what_is_reduced() -> None:
    shown = records.table([made()])
    memory, full = shown.splitlines()[2:]
    assert all(words in memory for words in ("61.0 ± 11.5", "60.7 ± 9.5", "624 numbers", "smoke (reduced)", "[full]"))
    assert "90.0 " in full and "±" not in full and "1210 images" in full
    whole = records.table([made(outcome(reduced=False))])
    assert "(reduced)" not in whole


# ---------------------------------------------------------------- the record


def test_a_record_is_valid_plain_json_that_comes_back() -> None:
    record = made()
    assert records.invalid(record) is None and set(record) == set(Record.__annotations__)
    back = json.loads(records.dumps(record))
    assert back == record and records.invalid(back) is None
    assert record["scale"]["label"] == "smoke" and record["cost"] == {"evaluation_seconds": 1.0, "seconds": 2.0}


def test_the_same_again_is_comparable_whatever_it_cost() -> None:
    one, two = made(), made()
    two["cost"] = {"seconds": 99.0}
    assert one != two and records.comparable(one) == records.comparable(two)
    assert records.dumps(one) == records.dumps(made())


def broken(change: Callable[[dict[str, Any]], Any]) -> Any:
    record = copy.deepcopy(made())
    changed = change(record)
    return record if changed is None else changed


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    **{
        f"no {key}": ((lambda r, key=key: r.pop(key) and None), f"'{key}' is missing") for key in Record.__annotations__
    },
    "a list": (lambda r: [r], "not a JSON object"),
    "seed as a text": (lambda r: r.update(seed="3"), "'seed'"),
    "seed as a truth": (lambda r: r.update(seed=True), "'seed'"),
    "another schema": (lambda r: r.update(schema=3), "schema 3"),
    "measurements no list": (lambda r: r.update(measurements={}), "'measurements' is wrong"),
    "a measurement no object": (lambda r: r["measurements"].append(3), "'measurements[3]' is wrong"),
    **{
        f"a measurement without {key}": (
            (lambda r, key=key: r["measurements"][1].__delitem__(key)),
            f"'measurements[1].{key}' is missing",
        )
        for key in MeasuredRecord.__annotations__
    },
    "no values": (lambda r: r["measurements"][0].update(values=[], n=0), "at least 1 item"),
    "n is another": (lambda r: r["measurements"][0].update(n=4), "n = 4"),
    "values no list": (lambda r: r["measurements"][0].update(values=5, n=1), "'measurements[0].values' is wrong"),
    "a value no number": (
        lambda r: r["measurements"][0].update(values=["a", "b", "c"]),
        "'measurements[0].values[0]' is wrong: input should be a valid number, not 'a'",
    ),
    "NaN": (lambda r: r["measurements"][0].update(mean=math.nan), "NaN"),
    "infinity deep down": (lambda r: r["facts"].update(a=[{"b": math.inf}]), "NaN or infinity"),
    "no JSON": (lambda r: r["facts"].update(path=Path("/tmp")), ""),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_record_is_reported_in_words(what: str) -> None:
    change, words = BROKEN[what]
    problem = records.invalid(broken(change))
    assert problem is not None and words in problem and "\n" not in problem


def test_an_experiment_that_finds_nan_gets_no_record() -> None:
    with pytest.raises(RunError, match="NaN"):
        made(outcome((Measurement("memory", "test", (math.nan,), "evaluation networks"),)))


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError):
        canonical_json({"a": math.nan})


# ---------------------------------------------------------------- what it does not say


def test_a_record_holds_no_host_name_no_user_and_no_path() -> None:
    surroundings = environment.environment(torch.device("cpu"))
    text = json.dumps(surroundings)
    for secret in (socket.gethostname(), os.getcwd(), str(Path.home()), str(Path(records.__file__).parent)):
        assert len(secret) < 4 or secret not in text
    assert getpass.getuser() not in json.loads(text).values()

    def strings(tree: Any) -> list[str]:
        if isinstance(tree, dict):
            return [s for v in tree.values() for s in strings(v)]
        if isinstance(tree, list):
            return [s for v in tree for s in strings(v)]
        return [tree] if isinstance(tree, str) else []

    assert not [s for s in strings(made()) if s.startswith("/") or "/home/" in s or "/tmp/" in s]


def test_the_state_of_the_code_is_that_of_the_suite_s_own_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    (tmp_path / "suite" / "runtime").mkdir(parents=True)
    source = tmp_path / "suite" / "runtime" / "environment.py"
    source.write_text("one")
    monkeypatch.setattr(environment, "__file__", str(source))
    assert environment.code_state() == {"commit": None, "changed": None}
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert environment.code_state() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "notes.txt").write_text("not tracked")
    assert environment.code_state()["changed"] is False
    source.write_text("two")
    assert environment.code_state()["changed"] is True
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "suite" / "deeper" / "still" / "environment.py"))
    assert environment.code_state() == {"commit": None, "changed": None}  # a checkout of something else around it
