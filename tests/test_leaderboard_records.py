"""Which records the leaderboard takes, of folders, files and trackers, and which it refuses in one sentence."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board import GOOD, built, changed, contents, measurement, put, record, sealed
from command_line import QUICK, command

from leaderboard import collect, records
from suite.core.outer_loop import PAPER_ITERATIONS
from suite.datasets.prepare import NAMES
from suite.evaluation.protocol import PROTOCOLS
from suite.registry import describe
from suite.runtime.record_schema import misshapen

# ---------------------------------------------------------------- what is refused


BAD: list[tuple[str, str | Callable[[], str], str]] = [
    ("a field is missing", lambda: json.dumps(changed(GOOD, "budget")), "'budget' is missing"),
    (
        "a field deep inside is missing",
        lambda: json.dumps(changed(GOOD, "scale", "reduced")),
        "'scale.reduced' is missing",
    ),
    (
        "a wrong type",
        lambda: json.dumps(changed(GOOD, "seed", to="three")),
        "'seed' is wrong: input should be a valid integer, not 'three'",
    ),
    (
        "a wrong type inside",
        lambda: json.dumps(changed(GOOD, "scale", "reduced", to="no")),
        "'scale.reduced' is wrong: input should be a valid boolean, not 'no'",
    ),
    (
        "a method that is a list",
        lambda: json.dumps(changed(GOOD, "measurements", 0, "method", to=["x"])),
        "'measurements[0].method' is wrong",
    ),
    (
        "a value that is true",
        lambda: json.dumps(changed(GOOD, "measurements", 0, "values", to=[True, 1])),
        "'measurements[0].values[0]' is wrong: input should be a valid number, not True",
    ),
    ("an unknown schema", lambda: json.dumps(changed(GOOD, "schema", to=99)), "it has schema 99"),
    ("NaN", lambda: json.dumps(changed(GOOD, "cost", "seconds", to=float("nan"))), "no JSON"),
    ("infinity", lambda: json.dumps(GOOD).replace('"seed": 0', '"seed": 0, "x": 1e999'), "no JSON (Out of range"),
    ("a name twice", lambda: json.dumps(GOOD).replace('"seed": 0', '"seed": 0, "seed": 1'), "it says 'seed' twice"),
    ("more than all", lambda: json.dumps(record(test=(101.0, 80.0))), "not a percentage"),
    ("a key that is a path", lambda: json.dumps(changed(GOOD, "run_key", to="../../etc")), "'run_key' is not that of"),
    (
        "a cell of lists",
        lambda: json.dumps(changed(GOOD, "cell", "method", to=["a"])),
        "'cell.method' is wrong: input should be a valid string",
    ),
    ("a surrogate", lambda: json.dumps(changed(GOOD, "facts", "dataset", to="\ud800")), "no JSON"),
    ("a surrogate for a name", lambda: json.dumps(changed(GOOD, "facts", "\udfff", to=1)), "no JSON"),
    ("a number without end", lambda: json.dumps(changed(GOOD, "cost", "seconds_per_iteration", to=10**400)), "64 bits"),
    (
        "a mean of something else",
        lambda: json.dumps(changed(GOOD, "measurements", 0, "mean", to=88.0)),
        "the mean of the measurement 'memory' is 88, and that of its values 81",
    ),
    (
        "a reason that is no list",
        lambda: json.dumps(changed(GOOD, "scale", "reduced_by", to="x")),
        "'scale.reduced_by' is wrong: input should be a valid list, not 'x'",
    ),
    ("full with less", lambda: json.dumps(changed(GOOD, "scale", "reduced", to=False)), "calls itself full"),
    (
        "too much stored",
        lambda: json.dumps(changed(GOOD, "budget", "images_per_class", to=10.0)),
        "more than its budget",
    ),
    ("not an object", "[1]", "it is not a JSON object"),
    ("no JSON", "{", "no JSON"),
    ("nothing", "", "no JSON"),
    ("no text", "\udcff", "no JSON"),
    ("nested without end", "[" * 100_000, "recursion limit"),
]


@pytest.mark.parametrize(("text", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_record_gets_one_sentence_and_the_good_ones_are_built(
    text: str | Callable[[], str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "runs", GOOD)
    bad = tmp_path / "runs" / "x" / "bad"
    bad.mkdir(parents=True)
    (bad / "result.json").write_text(text if isinstance(text, str) else text(), errors="surrogateescape")
    status, err = built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")
    assert status == 1 and err.count("\n") == 1 and said in err and str(bad / "result.json") in err
    assert len(list((tmp_path / "site" / "runs").glob("*.html"))) == 1


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    (changed(GOOD, "measurements", 0, "std", to=0.5), "deviation of the measurement 'memory' is 0.5, and that of its"),
    (
        changed(GOOD, "measurements", 3, "std", to=1.0),
        "deviation of the measurement 'full data' is 1.0, and that of its",
    ),
    (GOOD | {"measurements": [GOOD["measurements"][0] | {"std": None}]}, "is None, and that of its values 1.4"),
    (changed(GOOD, "measurements", 0, "values", 0, to=81.9), "the mean of the measurement 'memory'"),
    (changed(GOOD, "measurements", 0, "n", to=3), "has 2 values and n = 3"),
    (changed(GOOD, "config", "iterations", to=50_000), "'run_key' is not that of its 'config' and 'seed'"),
    (changed(GOOD, "config", "objective", "inner_steps", to=150), "'run_key' is not that of"),
    (changed(GOOD, "seed", to=1), "'run_key' is not that of"),
    (changed(GOOD, "run_key", to="0" * 16), "'run_key' is not that of"),
    (changed(GOOD, "config_text", to="import os"), "'config_text_sha256' is not that of its 'config_text'"),
    (changed(GOOD, "experiment", to="online"), "its 'experiment' is 'online', and its 'config' is of 'distillation'"),
    (changed(GOOD, "scale", "reduced_by", to=[]), "calls itself reduced, by nothing"),
    (changed(GOOD, "scale", "reduced", to=False), "calls itself full, and names what is less"),
    (
        changed(GOOD, "scale", to={"label": "x", "reduced": False, "iterations": 200, "paper_iterations": 50_000}),
        "full",
    ),
    (changed(GOOD, "scale", "paper_iterations", to=200), "gives the paper 200 iterations, which has 50000"),
    (changed(GOOD, "scale", "iterations", to=50_000), "has 50000 iterations, and its 'config' 200"),
    (changed(GOOD, "scale", "fraction", to=1.0), "200 of 50000 iterations as a fraction of 1"),
    (changed(GOOD, "scale", "iterations", to=-1), "'scale.iterations' is wrong"),
    (sealed(record(reduced=False, evaluation={"is": "Protocol", "name": "paper", "networks": 3})), "calls itself full"),
    (sealed(record(reduced=False, evaluation={"is": "Protocol", "name": "mine"})), "calls itself full"),
    (changed(GOOD, "facts", "dataset", to="mnist"), "its data set is 'mnist', and its 'config' names 'fashion_mnist'"),
    (changed(GOOD, "facts", "dataset_digest", to="0" * 64), "the digest of its images is not that of 'fashion_mnist'"),
    (changed(GOOD, "facts", "dataset_digest", to=records.DIGESTS["digits"]), "the digest of its images is that of"),
    (changed(GOOD, "budget", "images_per_class", to=-1.0), "'budget.images_per_class' is wrong"),
    (changed(GOOD, "budget", "stored_numbers", to=-1), "'budget.stored_numbers' is wrong"),
    (record(test=(-1.0, 50.0)), "holds what is not a percentage"),
    (record(test=(100.1,)), "holds what is not a percentage"),
    (record(measurements=[measurement("\x1b[31m\u202e" * 9, "test", [101.0])]), r"'\x1b[31m\u202e"),
]
"""Records that say two things, and what is said of them."""


@pytest.mark.parametrize(("made", "words"), CONTRADICTIONS, ids=[words[-40:] for _, words in CONTRADICTIONS])
def test_what_can_be_computed_anew_must_agree(made: dict[str, Any], words: str, tmp_path: Path) -> None:
    put(tmp_path, GOOD, folder="good")
    put(tmp_path, made, folder="x")
    found, complaints = records.read([tmp_path])
    assert len(found) == 1 and len(complaints) == 1
    assert words in complaints[0] and complaints[0].isprintable() and complaints[0].endswith("; it is left out")


def test_other_ways_to_be_reduced_or_full_are_none_of_contradictions() -> None:
    episodes = {"is": "Protocol", "name": "paper", "networks": 1}
    for made in (
        sealed(record(reduced=False)),
        sealed(record(reduced=False, ways=[2], evaluation=episodes)),  # how many networks an episode has is a choice
        sealed(record(reduced=False, source="1" * 16, evaluation={"name": "mine"})),
        changed(record(reduced=False), "scale", "paper_iterations"),
        changed(GOOD, "facts", "dataset_digest", to=records.DIGESTS["fashion_mnist"]),
        record(dataset="of a plugin"),
    ):
        assert misshapen(made) is None and records.unfit(made) is None


def test_what_the_check_knows_is_what_the_suite_has() -> None:
    described = describe(PROTOCOLS["paper"])
    assert {key: described[key] for key in described if key != "is"} == records.PROTOCOL
    assert records.PAPER_ITERATIONS == PAPER_ITERATIONS and set(records.DIGESTS) == set(NAMES)


def test_one_data_set_of_two_contents_is_reported(tmp_path: Path) -> None:
    settings = {"is": "of a plugin", "folder": "mine"}
    for seed, digest in enumerate(("a" * 64, "a" * 64, "b" * 64)):
        made = record(seed=seed, dataset="of a plugin")
        made["config"]["dataset"] = settings
        made["facts"]["dataset_digest"] = digest
        put(tmp_path, sealed(made), folder=str(seed))
    found, complaints = records.read([tmp_path])
    assert [entry.record["seed"] for entry in found] == [0, 1] and len(complaints) == 1
    assert "2/result.json: its data set is set as in" in complaints[0] and "gave other images" in complaints[0]


def zero(place: Path) -> None:
    place.symlink_to("/dev/zero")


def elsewhere(place: Path) -> None:
    place.with_name("elsewhere.json").write_text(json.dumps(record(seed=9)))
    place.symlink_to(place.with_name("elsewhere.json"))


def large(place: Path) -> None:
    place.touch()
    os.truncate(place, 2**40)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is a pipe"),
        (zero, "is a link"),
        (elsewhere, "is a link"),
        (lambda place: place.symlink_to("nowhere"), "is a link"),
        (large, "more than 67,108,864 bytes"),
    ],
    ids=["a pipe", "a device", "another record", "nothing", "1 TiB"],
)
def test_what_is_no_plain_file_is_a_sentence_and_the_good_ones_are_served(make, words, tmp_path: Path) -> None:
    put(tmp_path, GOOD, folder="good")
    bad = put(tmp_path, record(seed=1), folder="bad") / "result.json"
    bad.unlink()
    make(bad)
    found, complaints = records.read([tmp_path])
    assert [entry.record["seed"] for entry in found] == [0] and len(complaints) == 1
    assert str(bad) in complaints[0] and words in complaints[0] and complaints[0].isprintable()


def test_a_record_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    elsewhere(tmp_path / "mine.json")
    assert [entry.record["seed"] for entry in records.read([tmp_path / "mine.json"])[0]] == [9]


@pytest.mark.parametrize("name", ["figures", "figures/recalled.png", "metrics.csv", "operative.gin"])
def test_what_lies_behind_a_link_in_a_run_s_folder_is_not_published(name: str, tmp_path: Path, capsys: Any) -> None:
    run = put(tmp_path / "runs", GOOD, folder="x", pictures=True)
    private = tmp_path / "private"
    (run / name).rename(private)
    (run / name).symlink_to(private)
    if private.is_file() and private.suffix != ".png":
        private.write_bytes(private.read_bytes() + b"PRIVATE")
    built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")
    collect.main([str(run), "--to", str(tmp_path / "copy")])
    for place in (tmp_path / "site", tmp_path / "copy"):
        assert place.is_dir() and not any(b"PRIVATE" in data for data in contents(place).values())
        assert not name.startswith("figures") or not list(place.rglob("*.png"))


def test_names_of_folders_are_shown_as_text(tmp_path: Path, capsys: Any) -> None:
    put(tmp_path / "runs", changed(GOOD, "seed", to=1), folder="x\x1b[31m\n\u202ey")
    status, err = built(capsys, "--records", tmp_path / "runs", "--check", "--readme", Path("leaderboard/README.md"))
    assert status == 1 and err.count("\n") >= 1 and err.replace("\n", "").isprintable()


def test_copies_of_a_record_count_once_and_two_that_disagree_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a", GOOD)
    put(tmp_path / "b", changed(GOOD, "cost", "seconds_per_iteration", to=9.0))  # the same run, read twice
    found, complaints = records.read([tmp_path / "a", tmp_path / "b"])
    assert len(found) == 1 and complaints == []
    put(tmp_path / "c", record(test=(99.0, 99.0)))
    status, err = built(capsys, "--records", tmp_path / "a", "--records", tmp_path / "c", "--out", tmp_path / "site")
    assert status == 1 and "another record of the same run" in err and err.count("\n") == 1


def test_links_and_pipes_are_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text("of this machine")
    run = put(tmp_path / "runs", GOOD, pictures=True)
    (run / "operative.gin").unlink()
    (run / "operative.gin").symlink_to(tmp_path / "secret")
    piped = put(tmp_path / "runs", record(seed=1))
    (piped / "result.json").unlink()
    os.mkfifo(piped / "result.json")
    (tmp_path / "runs" / "elsewhere").symlink_to(tmp_path)
    status, err = built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")
    assert status == 1 and "is a pipe, not a plain file" in err and "it is a link" in err and err.count("\n") == 2
    assert not any(b"of this machine" in data for data in contents(tmp_path / "site").values())
    collect.main([str(run), "--to", str(tmp_path / "kept")])
    assert not list((tmp_path / "kept").rglob("operative.gin"))


def test_runs_set_aside_and_hidden_folders_are_not_read_and_a_file_of_records_is(tmp_path: Path) -> None:
    put(tmp_path / "runs", GOOD)
    put(tmp_path / "runs", record(seed=1), folder=f"seed1-{GOOD['run_key']}.old1")
    put(tmp_path / "runs" / ".hidden", record(seed=2))
    assert len(records.read([tmp_path / "runs"])[0]) == 1
    (tmp_path / "printed.json").write_text(json.dumps([record(seed=5), record(seed=6), {}]))
    found, complaints = records.read([tmp_path / "printed.json"])
    assert [entry.record["seed"] for entry in found] == [5, 6] and "number 3: its 'schema' is missing" in complaints[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--records", "nowhere", "--out", "site"], "there is no nowhere"),
        ([], "say where the site goes"),
        (["--records", ".", "--out", "taken"], "holds something else than a site"),
        (["--records", ".", "--readme", "missing.md"], "there is no file missing.md"),
        (["--records", "", "--out", "site"], "--records: it is empty"),
        (["--records", "~nobody-of-this-name", "--out", "site"], "--records: there is no home"),
        (["--records", ".", "--out", "~nobody-of-this-name/site"], "--out: there is no home"),
        (["--records", ".", "--readme", "binary.md"], "is not a text"),
        (["--tracking-uri", "what", "--out", "site"], "is no tracking store"),
    ],
)
def test_wrong_commands_get_one_sentence(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "binary.md").write_bytes(b"\xff")
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    status, err = built(capsys, *arguments)
    assert status == 2 and said in err and err.count("\n") == 1
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "years of work"


# ---------------------------------------------------------------- trackers


@pytest.mark.slow
def test_runs_of_a_tracker_are_shown_with_their_pictures(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command(*QUICK, "--data-dir", data_dir, "--out", tmp_path / "runs")
    assert done.status == 0, done.err
    capsys.readouterr()
    status, err = built(capsys, "--tracking-uri", f"sqlite:///{tmp_path}/runs/mlflow.db", "--out", tmp_path / "site")
    assert status == 0, err
    (page,) = (tmp_path / "site" / "runs").glob("*.html")
    assert "digits, 1 I/C, addressing mlp outer adam, seed 0" in page.read_text()
    assert (page.with_name(f"{page.stem}-recalled.png")).is_file()
    # The same run from its folder gives the same pages.
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "other")[0] == 0
    assert contents(tmp_path / "other") == contents(tmp_path / "site")


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["sqlite:////nowhere/mlflow.db", "http://127.0.0.1:9"])
def test_a_tracker_that_does_not_answer_gets_one_sentence_and_records_are_built(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "runs", GOOD)
    where = ["--tracking-uri", uri, "--records", tmp_path / "runs", "--out", tmp_path / "site"]
    status, err = built(capsys, *where)
    (line,) = [line for line in err.splitlines() if "has not answered for" not in line]
    assert status == 1 and "tracking" in line
    before = contents(tmp_path / "site")
    assert sum(name.startswith("runs/") and name.endswith(".html") for name in before) == 1
    # Alone it leaves what was there.
    status, err = built(capsys, "--tracking-uri", uri, "--out", tmp_path / "site")
    assert status == 1 and "nothing was written" in err and contents(tmp_path / "site") == before
    assert not Path("/nowhere").exists()


# ---------------------------------------------------------------- collecting


def test_collecting_takes_what_is_shown_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = put(tmp_path / "runs", GOOD, folder="seed0", pictures=True)
    for name in ("run.json", "journal.jsonl", "memory.safetensors"):
        (run / name).write_text("private")
    assert collect.main([str(tmp_path / "runs"), "--to", str(tmp_path / "kept")]) == 0
    kept = tmp_path / "kept" / "ablation_components" / "seed0"
    assert set(contents(kept)) == {"result.json", "operative.gin", "metrics.csv", "figures/recalled.png"}
    assert collect.main([str(tmp_path / "nowhere"), "--to", str(tmp_path / "kept")]) == 2
    assert "there is no" in capsys.readouterr().err
