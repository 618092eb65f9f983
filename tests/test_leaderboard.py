"""The leaderboard: what its figures say, which records it takes, how it ranks and compares, and what it writes."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board import changed, measurement, put, record
from command_line import QUICK, REPOSITORY, command
from scipy import stats

from leaderboard import build, collect, published, records, words
from leaderboard.markdown import fill, markdown
from leaderboard.statistics import estimate, paired
from leaderboard.tables import SPECS, Row, Table, tables
from suite.errors import UsageError

# ---------------------------------------------------------------- statistics


def test_the_two_kinds_of_spread_are_kept_apart() -> None:
    found = estimate({0: [70.0, 72.0], 1: [75.0, 77.0], 2: [74.0, 74.0]})
    assert found.mean == pytest.approx((71 + 76 + 74) / 3)
    assert found.spread_of_memories == pytest.approx(stats.tstd([71, 76, 74]))
    assert found.spread_of_networks == pytest.approx(((2 + 2 + 0) / 3) ** 0.5)
    low, high = stats.t.interval(0.95, 2, loc=found.mean, scale=stats.sem([71, 76, 74]))
    assert found.interval == pytest.approx((high - low) / 2) and found.interval_over == "memories"
    assert (found.memories, found.networks) == (3, 2)


def test_one_memory_has_an_interval_over_its_networks_and_one_value_has_none() -> None:
    found = estimate({4: [60.0, 61.0, 65.0]})
    low, high = stats.t.interval(0.95, 2, loc=62, scale=stats.sem([60, 61, 65]))
    assert found.interval == pytest.approx((high - low) / 2) and found.interval_over == "evaluation networks"
    assert found.spread_of_memories is None
    alone = estimate({4: [60.0]})
    assert alone.interval is None and alone.interval_over is None and words.accuracy(alone) == "60.0"


def test_a_comparison_is_paired_by_seed() -> None:
    # Far apart from seed to seed, always 2 to 3 points between the methods.
    found = paired({0: [40.0], 1: [60.0], 2: [80.0], 7: [1.0]}, {0: [42.0], 1: [63.0], 2: [82.5], 8: [99.0]})
    assert found is not None and found.seeds == 3 and found.mean == pytest.approx(2.5)
    low, high = stats.t.interval(0.95, 2, loc=2.5, scale=stats.sem([2, 3, 2.5]))
    assert found.interval == pytest.approx((high - low) / 2) and found.shown
    assert paired({0: [1.0]}, {1: [2.0]}) is None
    one = paired({0: [1.0]}, {0: [2.0]})
    assert one is not None and one.interval is None and not one.shown


# ---------------------------------------------------------------- printed figures


def test_every_printed_figure_has_a_source_and_every_source_is_used() -> None:
    known = published.sources()
    figures = published.published()
    assert {one.source for one in figures} == set(known)
    places = [
        (one.table, one.dataset, one.images_per_class, one.row, one.method, one.source, one.note) for one in figures
    ]
    assert len(places) == len(set(places))  # nothing twice
    assert {len([one for one in figures if one.table == name]) for name in ("momentum", "transfer")} == {6, 18}


@pytest.mark.parametrize(
    ("table", "dataset", "budget", "row", "method", "accuracy", "spread"),
    [
        ("components", "fashion_mnist", 1, "", "single-step GM", 70.5, 0.6),
        ("components", "cifar100", 10, "", "full", 42.9, 0.7),
        ("momentum", "cifar10", 10, "", "forward-only momentum", 57.4, 0.3),
        ("transfer", "cifar10", 1, "ResNet-12", "alexnet", 53.2, 0.8),
    ],
)
def test_figures_of_the_paper(
    table: str, dataset: str, budget: float, row: str, method: str, accuracy: float, spread: float
) -> None:
    (found,) = [
        one
        for one in published.published()
        if (one.table, one.dataset, one.images_per_class, one.row, one.method) == (table, dataset, budget, row, method)
    ]
    assert (found.accuracy, found.spread, found.source) == (accuracy, spread, "S")


@pytest.mark.parametrize(
    "line",
    [
        "components,mnist,1,,full,98.7,0.7,NOBODY,Table 3,",
        "components,mnist,1,,full,98.7,0.7,S,,",
        "unheard,mnist,1,,full,98.7,0.7,S,Table 3,",
        "components,mnist,1,,full,987,0.7,S,Table 3,",
        "components,mnist,1,,full,good,0.7,S,Table 3,",
        "components,mnist,1",
    ],
)
def test_a_printed_figure_without_a_source_is_refused(line: str, tmp_path: Path) -> None:
    head = "table,dataset,images_per_class,row,method,accuracy,spread,source,place,note\n"
    (tmp_path / "published.csv").write_text(head + line + "\n")
    with pytest.raises(UsageError, match=r"published.csv, line 2: "):
        published.published(tmp_path / "published.csv")


# ---------------------------------------------------------------- records

GOOD = record()
BAD: list[tuple[str, str | Callable[[], str], str]] = [
    ("a field is missing", lambda: json.dumps(changed(GOOD, "budget")), "'budget' is missing"),
    (
        "a field deep inside is missing",
        lambda: json.dumps(changed(GOOD, "scale", "reduced")),
        "'scale.reduced' is missing",
    ),
    ("a wrong type", lambda: json.dumps(changed(GOOD, "seed", to="three")), "'seed' is a str"),
    (
        "a wrong type inside",
        lambda: json.dumps(changed(GOOD, "scale", "reduced", to="no")),
        "'scale.reduced' is of a wrong",
    ),
    (
        "a method that is a list",
        lambda: json.dumps(changed(GOOD, "measurements", 0, "method", to=["x"])),
        "'measurements[0].method' is a list",
    ),
    (
        "a value that is true",
        lambda: json.dumps(changed(GOOD, "measurements", 0, "values", to=[True, 1])),
        "a list of numbers",
    ),
    ("an unknown schema", lambda: json.dumps(changed(GOOD, "schema", to=99)), "it has schema 99"),
    ("NaN", lambda: json.dumps(changed(GOOD, "cost", "seconds", to=float("nan"))), "it holds NaN"),
    ("infinity", lambda: json.dumps(GOOD).replace('"seed": 0', '"seed": 0, "x": 1e999'), "infinity"),
    ("a name twice", lambda: json.dumps(GOOD).replace('"seed": 0', '"seed": 0, "seed": 1'), "it says 'seed' twice"),
    ("more than all", lambda: json.dumps(record(test=(101.0, 80.0))), "not a percentage"),
    ("a key that is a path", lambda: json.dumps(changed(GOOD, "run_key", to="../../etc")), "'run_key' is not a key"),
    (
        "a cell of lists",
        lambda: json.dumps(changed(GOOD, "cell", "method", to=["a"])),
        "'cell' holds what is not a text",
    ),
    ("a surrogate", lambda: json.dumps(changed(GOOD, "facts", "dataset", to="\ud800")), "half of a character"),
    ("a surrogate for a name", lambda: json.dumps(changed(GOOD, "facts", "\udfff", to=1)), "half of a character"),
    ("a number without end", lambda: json.dumps(changed(GOOD, "cost", "seconds_per_iteration", to=10**400)), "64 bits"),
    (
        "a mean of something else",
        lambda: json.dumps(changed(GOOD, "measurements", 0, "mean", to=88.0)),
        "not that of its",
    ),
    (
        "a reason that is no list",
        lambda: json.dumps(changed(GOOD, "scale", "reduced_by", to="x")),
        "no list of texts",
    ),
    ("full with less", lambda: json.dumps(changed(GOOD, "scale", "reduced", to=False)), "calls itself full"),
    (
        "too much stored",
        lambda: json.dumps(changed(GOOD, "budget", "images_per_class", to=10.0)),
        "more than its budget",
    ),
    ("not an object", "[1]", "it is not a JSON object"),
    ("no JSON", "{", "not a record"),
    ("nothing", "", "not a record"),
    ("no text", "\udcff", "not a record"),
    ("nested without end", "[" * 100_000, "nested too deeply"),
]


def built(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """The command's status and what it said on stderr."""
    status = build.main([str(word) for word in words])
    return status, capsys.readouterr().err


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


def test_copies_of_a_record_count_once_and_two_that_disagree_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a", GOOD)
    put(tmp_path / "b", changed(GOOD, "cost", "seconds_per_iteration", to=9.0))  # the same run, read twice
    found, complaints = records.read([tmp_path / "a", tmp_path / "b"])
    assert len(found) == 1 and complaints == []
    put(tmp_path / "c", record(test=(99.0, 99.0)))
    status, err = built(capsys, "--records", tmp_path / "a", "--records", tmp_path / "c", "--out", tmp_path / "site")
    assert status == 1 and "another record of the same run" in err and err.count("\n") == 1


def test_one_seed_under_two_keys_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "runs", record(test=(70.0,)), folder="a")
    put(tmp_path / "runs", changed(record(test=(90.0,)), "run_key", to="f" * 16), folder="b")
    status, err = built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")
    assert status == 1 and "the same settings and seed under another key" in err and err.count("\n") == 1
    assert "70.0" in (tmp_path / "site" / "components.html").read_text()


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
    assert status == 1 and "no plain file" in err and "it is a link" in err and err.count("\n") == 2
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
    assert [entry.record["seed"] for entry in found] == [5, 6] and "number 3: 'schema' is missing" in complaints[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--records", "nowhere", "--out", "site"], "there is no nowhere"),
        ([], "say where the site goes"),
        (["--records", ".", "--out", "taken"], "holds something else than a site"),
        (["--records", ".", "--readme", "missing.md"], "there is no file missing.md"),
        (["--records", "", "--out", "site"], "it is empty"),
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


def test_runs_of_a_tracker_are_shown_with_their_pictures(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command(*QUICK, "--data-dir", data_dir, "--out", tmp_path / "runs")
    assert done.status == 0, done.err
    capsys.readouterr()
    status, err = built(capsys, "--tracking-uri", f"sqlite:///{tmp_path}/runs/mlflow.db", "--out", tmp_path / "site")
    assert status == 0, err
    (page,) = (tmp_path / "site" / "runs").glob("*.html")
    assert "quickstart, seed 0" in page.read_text()
    assert (page.with_name(f"{page.stem}-recalled.png")).is_file()
    # The same run from its folder gives the same pages.
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "other")[0] == 0
    assert contents(tmp_path / "other") == contents(tmp_path / "site")


@pytest.mark.parametrize("uri", ["sqlite:////nowhere/mlflow.db", "http://127.0.0.1:9"])
def test_a_tracker_that_does_not_answer_gets_one_sentence_and_records_are_built(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "runs", GOOD)
    where = ["--tracking-uri", uri, "--records", tmp_path / "runs", "--out", tmp_path / "site"]
    status, err = built(capsys, *where)
    assert status == 1 and err.count("\n") == 1 and "tracking" in err
    before = contents(tmp_path / "site")
    assert sum(name.startswith("runs/") and name.endswith(".html") for name in before) == 1
    # Alone it leaves what was there.
    status, err = built(capsys, "--tracking-uri", uri, "--out", tmp_path / "site")
    assert status == 1 and "nothing was written" in err and contents(tmp_path / "site") == before
    assert not Path("/nowhere").exists()


# ---------------------------------------------------------------- tables


def table_of(made: list[dict[str, Any]], slug: str = "components", printed: bool = False) -> Table:
    entries = [records.Entry(one, "here") for one in made]
    assert [records.unfit(one) for one in made] == [None] * len(made)
    (found,) = [t for t in tables(entries, published.published() if printed else []) if t.spec.slug == slug]
    return found


def test_seeds_of_one_configuration_are_one_row_beside_the_printed_figure() -> None:
    made = [record("full", seed, (80.0 + seed, 82.0 + seed)) for seed in range(3)]
    (row,) = table_of(made, printed=True).measured
    assert row.test is not None and (row.test.memories, row.test.networks, row.test.mean) == (3, 2, 82.0)
    assert row.paper is not None and row.paper.accuracy == 88.5 and row.apart == pytest.approx(-6.5)
    assert row.validation is not None and row.validation.mean == 83.0
    assert set(row.controls) == {"random real images", "full data"} and row.reduced and row.rank is None


def test_other_settings_are_another_row() -> None:
    assert len(table_of([record(), record(seed=1), record(seed=0, iterations=300)]).measured) == 2


def test_printed_figures_that_nobody_ran_are_rows_of_their_own() -> None:
    whole = table_of([record()], printed=True)
    assert len(whole.rows) == 61 and sum(bool(row.runs) for row in whole.rows) == 1
    assert sum(len(row.published) for row in whole.rows) == 61


def test_reduced_runs_are_never_ranked_with_full_ones() -> None:
    made = [record("BPTT", reduced=False, test=(70.0,)), record("full", reduced=False, test=(75.0,))]
    made += [record("full", reduced=True, test=(99.0,)), record("BPTT+ds", budget=10, reduced=False, test=(60.0,))]
    ranks = {(r.method, r.images_per_class, r.reduced): r.rank for r in table_of(made).rows}
    assert ranks == {
        ("BPTT", 1, False): 2,
        ("full", 1, False): 1,
        ("full", 1, True): None,
        ("BPTT+ds", 10, False): 1,
    }


def test_only_rivals_that_were_judged_alike_are_ranked() -> None:
    other = {"evaluation": {"name": "mine"}}
    made = [record("full", reduced=False, test=(70.0,)), record("BPTT", reduced=False, test=(75.0,), **other)]
    made += [record("full", reduced=False, test=(99.0,), architecture={"is": "mlp"})]
    rows = table_of(made, printed=True).measured
    assert {row.method: row.rank for row in rows} == {"full": 1, "BPTT": 1, "full (mlp)": 1}
    assert [row.paper is not None for row in rows if row.method == "full (mlp)"] == [False]
    (row,) = table_of([record("AlexNet", name="transfer", axis="trained on", reduced=False)], "transfer").measured
    assert row.rank is None  # what is measured on one network is no rival of what is measured on another


def test_methods_of_different_kinds_are_compared_whatever_their_own_sizes() -> None:
    matching = {"objective": {"is": "gradient_matching", "real_per_class": 256}}
    unrolled = {"objective": {"is": "bptt", "real_per_class": 64, "inner_steps": 150}}
    made = [record("single-step GM", **matching), record("BPTT", **unrolled)]
    assert [(one.first, one.second) for one in table_of(made).comparisons] == [("single-step GM", "BPTT")]


def test_methods_come_in_the_paper_s_order_and_are_compared_with_the_one_before() -> None:
    made = [
        record(m, s, (v + s,)) for m, v in (("full", 80.0), ("BPTT", 70.0), ("single-step GM", 50.0)) for s in (0, 1)
    ]
    found = table_of(made)
    assert [row.method for row in found.rows] == ["single-step GM", "BPTT", "full"]
    assert [(c.first, c.second, c.test.mean, c.test.seeds) for c in found.comparisons] == [
        ("single-step GM", "BPTT", 20.0, 2),
        ("BPTT", "full", 10.0, 2),
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"reduced": False},
        {"budget": 10},
        {"dataset": "mnist"},
        {"evaluation": {"epochs": 7}},
        {"objective": {"is": "bptt", "inner_steps": 40}},
    ],
)
def test_only_what_was_run_under_equal_conditions_is_compared(other: dict[str, Any]) -> None:
    assert len(table_of([record("BPTT"), record("full")]).comparisons) == 1
    assert table_of([record("BPTT"), record("full", **other)]).comparisons == ()


def test_a_transfer_record_gives_a_row_for_every_network_it_was_measured_on() -> None:
    measured = [measurement("memory", "test", [60.0]), measurement("memory", "test", [50.0], network="alexnet")]
    made = record("ResNet-12", name="transfer", axis="trained on", dataset="cifar10", measurements=measured)
    made["config"]["architecture"] = {"is": "resnet12", "width": 16}
    rows = {row.method: row for row in table_of([made], "transfer", printed=True).measured}
    assert {m: (r.made_with, r.test.mean) for m, r in rows.items() if r.test} == {
        "resnet12": ("ResNet-12", 60.0),
        "alexnet": ("ResNet-12", 50.0),
    }
    assert rows["alexnet"].paper is not None and rows["alexnet"].paper.accuracy == 53.2


def test_a_sweep_is_ordered_by_number_and_its_chosen_run_is_marked() -> None:
    seen = [measurement("memory", "validation", [60.0])]
    made = [record(b, name="bases", axis="bases", measurements=seen, bases=b) for b in ("16", "4", "8")]
    last = record("8", name="bases", cell={"bases": "8", "chosen": "bases"}, bases="8 ")
    rows = table_of([*made, last], "bases").rows
    assert [(row.method, row.chosen, row.test is None) for row in rows] == [
        ("4", False, True),
        ("8", False, True),
        ("16", False, True),
        ("8", True, False),
    ]


def test_a_record_of_no_table_is_among_the_others_and_none_is_lost() -> None:
    made = [record(), record(name="my_method", cell={}), record(name="fashion_mnist", cell={"a": "b"})]
    entries = [records.Entry(one, "here") for one in made]
    found = {t.spec.slug: [row.method for row in t.measured] for t in tables(entries, [])}
    assert found["others"] == ["fashion_mnist, b", "my_method"] and found["components"] == ["full"]


# ---------------------------------------------------------------- Markdown

HOSTILE = "https://evil.example @someone $x$ <script>alert(1)</script> | **x** [a](javascript:b) `c`\n| d"


def test_hostile_names_stay_text_in_markdown() -> None:
    shown = markdown(table_of([record(HOSTILE)]))
    assert "<script" not in shown and not re.search(r"(?<!\\)\]\(", shown) and "**x**" not in shown
    (line,) = [line for line in shown.splitlines() if "alert" in line]
    (head,) = [line for line in shown.splitlines() if line.startswith("| data set")]
    assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", head))


def test_tables_stand_between_their_markers_and_the_rest_is_kept() -> None:
    text = "before\n<!-- components: begin -->\nold\n<!-- components: end -->\nafter\n"
    made = tables([records.Entry(record(), "here")], [])
    once = fill(text, made, "README")
    assert once.startswith("before\n<!-- components: begin -->\n") and once.endswith(
        "<!-- components: end -->\nafter\n"
    )
    assert "old" not in once and "81.0 ± " in once and "Reduced runs" in once
    assert fill(once, made, "README") == once


@pytest.mark.parametrize(
    "text",
    [
        "<!-- components: begin -->",
        "<!-- components: end --><!-- components: begin -->",
        "<!-- components: begin --><!-- momentum: end -->",
        "<!-- unheard: begin --><!-- unheard: end -->",
    ],
)
def test_broken_markers_get_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"README: .*marker"):
        fill(text, tables([], []), "README")


def test_the_repository_s_own_tables_are_what_its_records_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert built(capsys, "--check") == (0, "")
    text = (REPOSITORY / "leaderboard" / "README.md").read_text()
    assert all(f"<!-- {slug}: begin -->" in text for slug in ("components", "momentum", "transfer", "bases"))


def test_stale_tables_and_bad_records_fail_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "runs", GOOD)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- components: begin -->\n<!-- components: end -->\n")
    where = ["--records", tmp_path / "runs", "--readme", readme]
    status, err = built(capsys, *where, "--check")
    assert status == 1 and "stale" in err and "81.0" not in readme.read_text()
    assert built(capsys, *where)[0] == 0 and "81.0" in readme.read_text()
    assert built(capsys, *where, "--check") == (0, "")
    put(tmp_path / "runs", changed(GOOD, "schema", to=7), folder="bad")
    status, err = built(capsys, *where, "--check")
    assert status == 1 and "schema 7" in err and "are stale" not in err


# ---------------------------------------------------------------- the site's files


def contents(site: Path) -> dict[str, bytes]:
    return {str(p.relative_to(site)): p.read_bytes() for p in sorted(site.rglob("*")) if p.is_file()}


def test_same_records_same_bytes_whatever_was_there_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (2, 0, 1):
        put(tmp_path / "runs", record(seed=seed), pictures=seed == 0)
        put(tmp_path / "moved", record(seed=2 - seed), folder=f"run{seed}", pictures=seed == 2)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "one")[0] == 0
    put(tmp_path / "more", record("BPTT"))
    both = ["--records", tmp_path / "more", "--records", tmp_path / "moved"]
    assert built(capsys, *both, "--out", tmp_path / "two")[0] == 0
    assert len(contents(tmp_path / "two")) == len(contents(tmp_path / "one")) + 2
    assert built(capsys, "--records", tmp_path / "moved", "--out", tmp_path / "two")[0] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_rebuild_removes_its_own_pages_and_nothing_of_anybody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "runs", GOOD)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")[0] == 0
    others = [tmp_path / "site" / "CNAME", tmp_path / "site" / "runs" / "mlflow.db"]
    for file in others:
        file.write_text("mine")
    (tmp_path / "none").mkdir()
    assert built(capsys, "--records", tmp_path / "none", "--out", tmp_path / "site")[0] == 0
    assert not list((tmp_path / "site" / "runs").glob("*.html")) and all(f.read_text() == "mine" for f in others)


def test_line_endings_of_a_readme_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "runs", GOOD)
    readme = tmp_path / "README.md"
    readme.write_bytes(b"a\r\n<!-- components: begin -->\r\n<!-- components: end -->\r\nb\r\n")
    assert built(capsys, "--records", tmp_path / "runs", "--readme", readme) == (0, "")
    text = readme.read_bytes()
    assert b"81.0" in text and text.count(b"\n") == text.count(b"\r\n")
    assert built(capsys, "--records", tmp_path / "runs", "--readme", readme, "--check") == (0, "")


def test_hostile_records_inject_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = record(HOSTILE, name="../../" + HOSTILE, dataset=HOSTILE)
    made["environment"]["processor"] = made["config_text"] = made["scale"]["label"] = HOSTILE
    made["scale"]["reduced_by"] = made["environment"]["code"]["commit"] = [HOSTILE]
    made["measurements"][2]["method"] = '"><img src=x onerror=alert(1)>'
    run = put(tmp_path / "runs", made, folder="x")
    (run / "operative.gin").write_text(HOSTILE)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")[0] == 0
    for name, data in contents(tmp_path / "site").items():
        if name.endswith(".html"):
            text = data.decode()
            assert text.count("<script") == 1 and "<img src=x" not in text and 'href="javascript' not in text, name
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "site"}


def test_what_lies_in_a_run_s_folder_and_can_not_be_read_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put(tmp_path / "runs", GOOD, pictures=True)
    (run / "metrics.csv").write_bytes(b"\xff\x00 not a table")
    (run / "operative.gin").write_bytes(b"\xff")
    (run / "figures" / "recalled.png").write_text("<svg onload=alert(1)>")
    (run / "figures" / "bases.png").mkdir()
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    assert not list((tmp_path / "site").rglob("*.png"))


def test_time_grows_with_the_number_of_records_and_no_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tenth of ten thousand, full and reduced ones, in less than ten seconds even where others are at work."""
    for i in range(1000):
        put(tmp_path / "runs", record(("BPTT", "full")[i % 2], i // 2 % 5, reduced=i < 500, lr=i // 10))
    started = time.monotonic()
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")[0] == 0
    assert time.monotonic() - started < 10
    assert len(list((tmp_path / "site" / "runs").glob("*.html"))) == 1000


def test_collecting_takes_what_is_shown_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = put(tmp_path / "runs", GOOD, folder="seed0", pictures=True)
    for name in ("run.json", "journal.jsonl", "memory.safetensors"):
        (run / name).write_text("private")
    assert collect.main([str(tmp_path / "runs"), "--to", str(tmp_path / "kept")]) == 0
    kept = tmp_path / "kept" / "ablation_components" / "seed0"
    assert set(contents(kept)) == {"result.json", "operative.gin", "metrics.csv", "figures/recalled.png"}
    assert collect.main([str(tmp_path / "nowhere"), "--to", str(tmp_path / "kept")]) == 2
    assert "there is no" in capsys.readouterr().err


def test_rows_keep_what_they_are_made_of() -> None:
    (row,) = table_of([record(seed=3)]).measured
    assert isinstance(row, Row) and row.first["seed"] == 3 and words.rate(row) == "2" and "1,000" in words.memory(row)
    assert words.scale(row) == "cpu, 200 of 50,000 iterations" and words.hardware(row) == "A Processor, 1 thread"


def stream_record(method: str, seed: int, values: tuple[float, float], *, stored: int = 78_400) -> dict[str, Any]:
    """A run of continual learning: another experiment for a baseline, with another storage."""
    measured = [
        measurement(method, "test", [v, v + 1], quantity=quantity)
        for quantity, v in zip(("RA", "LA"), values, strict=True)
    ]
    made = record(method, seed, name="permutations", dataset="permutations of digits", measurements=measured)
    made["config"] = {
        "is": "online" if method in ("naive", "ER") else method,
        "stream": {"is": "permutations"},
        "evaluation": {"networks": 2},
        "updates" if method == "ER" else "replay": 3,
        "method": method,
    }
    made["budget"] |= {"stored_numbers": stored, "images_per_class": stored / 7840}
    return made


def test_methods_on_a_stream_are_compared_though_they_are_other_experiments() -> None:
    values = {"joint": (75.0, 70.0), "naive": (40.0, 71.0), "compress-then-recall": (62.0, 66.0), "ER": (55.0, 70.0)}
    stored = {"naive": 0, "joint": 0}
    made = [
        stream_record(m, s, (ra + s, la), stored=stored.get(m, 78_400))
        for m, (ra, la) in values.items()
        for s in (0, 1, 2)
    ]
    found = table_of(made, "continual")
    assert [row.method for row in found.rows] == ["naive", "ER", "compress-then-recall", "joint"]
    assert [row.test.mean for row in found.rows if row.test] == [41.5, 56.5, 63.5, 76.5]
    assert [row.images_per_class for row in found.rows] == [0, 10, 10, 0] and found.controls == ("LA",)
    assert {row.test.interval_over for row in found.rows if row.test} == {"streams"}
    assert [(c.first, c.second, c.test.mean) for c in found.comparisons] == [
        ("naive", "ER", 15.0), ("ER", "compress-then-recall", 7.0), ("compress-then-recall", "joint", 13.0),
    ]  # fmt: skip
    text = markdown(found)
    assert "3 streams × 2" in text and "63.5 ± 2.5" in text and re.search(r"\| validation \| LA \|", text)
    other = [
        r | {"config": r["config"] | {"stream": {"is": "rotations"}}} for r in made if "naive" not in str(r["cell"])
    ]
    assert len(table_of([*made[:6], *other], "continual").comparisons) == 3  # nothing across streams


def test_every_file_of_continual_learning_has_its_table() -> None:
    from leaderboard.tables import STREAM_FILES

    files = {file.stem for file in (REPOSITORY / "gin" / "continual").glob("*.gin")} - {
        "with_avalanche",
        "with_stand_ins",
    }
    assert files == set(STREAM_FILES)


def episodes_record(method: str, seed: int, memory: list[float], **more: Any) -> dict[str, Any]:
    """A run of task extrapolation: accuracies over episodes, of two ways and of five."""
    measured = [
        measurement(name, "test", [v + apart for v in values], "episodes", episodes=kind)
        for kind, apart in (("2-way", 0.0), ("5-way", -20.0))
        for name, values in (("memory", memory), ("full data", [90.0, 92.0]), ("random real images", [70.0, 74.0]))
    ]
    made = record(method, seed, name="extrapolation", measurements=measured, **more)
    made["cell"] = {"budget": "10 I/C", "method": method}
    return made


def test_every_kind_of_episode_has_a_row_with_its_own_controls_and_interval() -> None:
    made = [episodes_record("addressing", 0, [80.0, 84.0, 88.0]), episodes_record("standard", 0, [76.0, 77.0, 81.0])]
    found = table_of(made, "extrapolation")
    assert [(row.made_with, row.method) for row in found.rows] == [
        ("2-way", "standard"), ("2-way", "addressing"), ("5-way", "standard"), ("5-way", "addressing"),
    ]  # fmt: skip
    assert [row.test.mean for row in found.rows if row.test] == [78.0, 84.0, 58.0, 64.0]
    assert {row.test.interval_over for row in found.rows if row.test} == {"episodes"}
    assert found.controls == ("random real images", "full data")
    assert [row.controls["random real images"].mean for row in found.rows] == [72.0, 72.0, 52.0, 52.0]
    assert [(c.first, c.second, c.test.mean) for c in found.comparisons] == [("standard", "addressing", 6.0)] * 2
    text = markdown(found)
    assert (
        "| episodes | method |" in text
        and "84.0 ± 9.9" in text
        and "52.0 ± 25.4 (n = 2)" in text
        and "1 memory × 3" in text
        and "| addressing over standard, 2-way |" in text
    )
    several = table_of([*made, episodes_record("addressing", 1, [82.0, 86.0, 90.0])], "extrapolation")
    assert {row.test.interval_over for row in several.rows if row.method == "addressing" and row.test} == {"memories"}
    assert "(n = 2 × 2)" in markdown(several)


def test_every_file_of_synthesis_has_its_table() -> None:
    files = {file.stem for file in (REPOSITORY / "gin" / "synthesis").glob("*.gin")}
    assert files == {name for spec in SPECS if spec.episodes for name in spec.experiments}
