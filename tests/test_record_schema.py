"""Records of schema 1 are read as schema 2, those of schema 2 as they are, and those of no known schema not at all."""

import copy
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from board import GOOD, built, changed, contents, measurement, put, record
from command_line import QUICK, REPOSITORY, command, only_run

from leaderboard import collect, records
from suite.errors import UsageError
from suite.experiments.continual.avalanche_strategies import AvalancheStrategy
from suite.experiments.continual.online import Online
from suite.runtime.record import dumps, invalid, label
from suite.runtime.record_schema import (
    SCHEMA,
    STREAM_METHODS_1,
    BudgetRecord,
    MeasuredRecord,
    Record,
    misshapen,
    upgraded,
)
from suite.types import Budget, Measurement

KEPT = REPOSITORY / "tests" / "kept" / "schema1"
PLACES = (KEPT, REPOSITORY / "tests" / "kept" / "whole", REPOSITORY / "leaderboard" / "records")
WRITTEN = [file for place in PLACES for file in sorted(place.rglob("result.json"))]
OLD = [file for file in WRITTEN if json.loads(file.read_text())["schema"] == 1]
"""Files of schema 1, as the suite wrote them."""


def old(name: str, folder: str) -> dict[str, Any]:
    """A record as the suite once wrote it; those of the leaderboard are replaced, these never."""
    return json.loads((KEPT / name / folder / "result.json").read_text())


def fields(name: str, folder: str) -> dict[tuple[str, str, str, str, str], int]:
    """Method, quantity, network, episodes and split of every measurement, upgraded, and its number of values."""
    keys = ("method", "quantity", "network", "episodes", "split")
    upgraded_record = upgraded(old(name, folder))
    measured = {tuple(m[key] for key in keys): m["n"] for m in upgraded_record["measurements"]}
    assert len(measured) == len(upgraded_record["measurements"])  # the fields tell all of them apart
    return measured  # type: ignore[return-value]


# ---------------------------------------------------------------- schema 1, experiment by experiment


def test_a_distillation_with_transfer_has_the_networks_it_was_measured_on() -> None:
    test = {
        ("memory", "accuracy", "", "", "test"),
        ("memory", "accuracy", "resnet12", "", "test"),
        ("memory", "accuracy", "convnet", "", "test"),
    }
    validation = {(*key[:4], "validation") for key in test}
    controls = {("random real images", "accuracy", "", "", "test"), ("full data", "accuracy", "", "", "test")}
    assert fields("transfer", "1-i-c-alexnet-seed0-d41f522cc26cf487").keys() == test | validation | controls


@pytest.mark.parametrize(
    ("folder", "method", "quantities"),
    [
        ("compress-then-recall-seed0-0be47b3af9e772bc", "memory", {"RA", "LA", "BTI", "BWT", "forgetting"}),
        ("er-seed0-5244c77069eb10de", "ER", {"RA", "LA", "BTI", "BWT", "forgetting"}),
        ("naive-seed0-a8eccf8345a685cb", "naive", {"RA", "LA", "BTI", "BWT", "forgetting"}),
        ("joint-seed0-f9711e6598cd98b4", "joint", {"RA"}),
        ("a-gem-avalanche-seed0-4affcd56f5e5a63b", "A-GEM (Avalanche)", {"RA", "LA", "BTI", "BWT", "forgetting"}),
    ],
)
def test_a_stream_has_its_method_and_quantities(folder: str, method: str, quantities: set[str]) -> None:
    assert fields("permutations", folder).keys() == {(method, quantity, "", "", "test") for quantity in quantities}


def test_an_extrapolation_has_its_kind_of_episodes() -> None:
    measured = fields("extrapolation", "10-i-c-addressing-seed0-b46d8bedc3b16ceb")
    methods = ("memory", "random real images", "memory, episodes of the bounds", "oracle memory", "full data")
    assert list(measured) == [(method, "accuracy", "", "2-way", "test") for method in methods]
    assert list(measured.values()) == [100] * 5


def test_image_recall_has_its_shots_and_baselines() -> None:
    measured = fields("image_recall", "asked-with-images-2-way-seed0-76451345ad5d7c51")
    methods = {"memory", "classify-then-recall", "recall by true label", "random real images", "fine-tuned classifier",
               "nearest neighbour (cosine)", "nearest neighbour (L2)", "nearest class mean", "linear probe",
               "full-data classifier"}  # fmt: skip
    episodes = ("2-way, 1 shot", "2-way, 5 shots")
    assert measured.keys() == {(method, "accuracy", "", kind, "test") for method in methods for kind in episodes}


@pytest.mark.parametrize("file", OLD, ids=lambda file: file.parent.name)
def test_every_old_record_keeps_its_numbers_and_its_names_for_people(file: Path) -> None:
    before = json.loads(file.read_text())
    given = copy.deepcopy(before)
    after = upgraded(given)
    assert before["schema"] == 1 and given == before  # the argument is not touched
    assert after["schema"] == SCHEMA and misshapen(after) is None and upgraded(after) == after
    assert [label(m) for m in after["measurements"]] == [figure["name"] for figure in before["figures"]]
    for key in ("split", "values", "mean", "std", "n", "over", "note"):
        assert [m[key] for m in after["measurements"]] == [figure[key] for figure in before["figures"]]
    assert all(set(m) == set(MeasuredRecord.__annotations__) for m in after["measurements"])
    assert set(after) == set(Record.__annotations__)
    untouched = set(after) - {"schema", "measurements", "cost"}
    assert {key: after[key] for key in untouched} == {key: before[key] for key in untouched}
    renamed = {"last_attempt_seconds": "last_sitting_seconds", "attempts": "sittings"}
    assert {renamed.get(key, key): value for key, value in after["cost"].items()} == before["cost"]


def test_old_records_of_every_experiment_are_read() -> None:
    experiments = {"distillation", "extrapolation", "image_recall", "online", "avalanche", "compress_then_recall"}
    assert {json.loads(file.read_text())["experiment"] for file in OLD} == experiments


def test_a_note_that_schema_1_did_not_have_is_empty() -> None:
    before = old("permutations", "er-seed0-5244c77069eb10de")
    for figure in before["figures"]:
        del figure["note"]
    assert misshapen(before) is None and {m["note"] for m in upgraded(before)["measurements"]} == {""}


def test_experiments_on_streams_call_their_methods_as_old_records_are_read() -> None:
    def settings(experiment: type) -> tuple[Any, ...]:
        return get_args(get_type_hints(experiment)["method"])

    for name, experiment in (("online", Online), ("avalanche", AvalancheStrategy)):
        for method in set(settings(experiment)) - {"der", "scr"}:  # which came later
            assert STREAM_METHODS_1.get((name, method), method) == experiment(method=method).method_label  # type: ignore[attr-defined]


# ---------------------------------------------------------------- schema 2


def test_a_record_of_schema_2_comes_back_as_it_is() -> None:
    fields = {"network": "alexnet", "episodes": "2-way", "quantity": "RA", "note": "10 images"}
    made = record(measurements=[measurement("ER", "test", [1.0, 2.0], **fields)])
    back = json.loads(dumps(made))
    assert back == made and invalid(back) is None and upgraded(back) is back


def test_the_schema_has_the_fields_of_what_experiments_return() -> None:
    assert set(MeasuredRecord.__annotations__) == set(Measurement.__dataclass_fields__) | {"mean", "std", "n"}
    assert set(BudgetRecord.__annotations__) == set(Budget.__dataclass_fields__)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "memory"),
        ({"network": "resnet10t"}, "memory on resnet10t"),
        ({"episodes": "5-way, 1 shot"}, "5-way, 1 shot: memory"),
        ({"quantity": "forgetting"}, "forgetting"),
        ({"quantity": "right labels", "episodes": "2-way"}, "2-way: right labels"),
    ],
)
def test_the_name_for_people_is_composed_of_the_fields(fields: dict[str, str], text: str) -> None:
    assert label(measurement("memory", "test", [1.0], **fields)) == text


def test_a_method_named_like_another_s_name_for_people_is_not_parsed() -> None:
    """What schema 1 could not say: names that look like others are methods of their own."""
    odd = [measurement(name, "test", [50.0]) for name in ("memory on alexnet", "RA", "2-way: memory")]
    made = record(measurements=[measurement("memory", "test", [60.0]), *odd])
    entry = records.Entry(made, "here")
    assert entry.values(records.OF_MEMORY, "test") == [60.0]
    assert [one.method for one in entry.measurements] == ["memory", "memory on alexnet", "RA", "2-way: memory"]
    assert all(one.quantity == "accuracy" and one.network == one.episodes == "" for one in entry.measurements)


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize("schema", [0, 3, 99])
def test_an_unknown_schema_is_refused_in_one_sentence(schema: int) -> None:
    words = f"it has schema {schema}, and this version reads 1 and 2"
    assert misshapen(changed(GOOD, "schema", to=schema)) == words


def test_a_finished_run_of_an_unknown_schema_is_refused_in_one_sentence(data_dir: Path, tmp_path: Path) -> None:
    words = [*QUICK, "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none"]
    assert command(*words).status == 0
    file = only_run(tmp_path) / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 3}))
    done = command(*words)
    assert done.status == 1 and "it has schema 3, and this version reads 1 and 2" in done.complaint
    assert "--fresh" in done.complaint and "\n" not in done.complaint.strip()


def test_a_run_in_both_schemas_is_one_run_and_its_file_is_copied_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = old("extrapolation", "10-i-c-addressing-seed0-b46d8bedc3b16ceb")
    folder = put(tmp_path / "old", before)
    put(tmp_path / "new", upgraded(before))
    entries, complaints = records.read([tmp_path / "old", tmp_path / "new"])
    assert complaints == [] and len(entries) == 1 and entries[0].record["schema"] == SCHEMA
    for schema in ("old", "new"):
        status, err = built(capsys, "--records", tmp_path / schema, "--out", tmp_path / "sites" / schema)
        assert (status, err) == (0, "")
    assert contents(tmp_path / "sites" / "old") == contents(tmp_path / "sites" / "new")
    assert collect.main([str(tmp_path / "old"), "--to", str(tmp_path / "copies")]) == 0
    (copied,) = (tmp_path / "copies").rglob("result.json")
    assert copied.read_bytes() == (folder / "result.json").read_bytes()


def test_an_installed_leaderboard_without_records_of_its_own_asks_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("build", "collect"):
        monkeypatch.setattr(f"leaderboard.{module}.OWN_RECORDS", tmp_path / "nowhere")
    put(tmp_path / "runs", GOOD)
    assert collect.main([str(tmp_path / "runs")]) == UsageError.status
    assert "name the folder that records go to" in capsys.readouterr().err and not (tmp_path / "nowhere").exists()
    status, err = built(capsys, "--out", tmp_path / "site")
    assert status == UsageError.status and "has no records of its own" in err and not (tmp_path / "site").exists()
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
