"""What the leaderboard's numbers say, and how it joins, orders, ranks and compares rows."""

from pathlib import Path
from typing import Any

import pytest
from board import measurement, record, sealed, table_of
from command_line import REPOSITORY
from scipy import stats

from leaderboard import charts, format, front, published, records
from leaderboard.lines import Line, apart, parts
from leaderboard.markdown import markdown
from leaderboard.pages import PAGES, STREAM_FILES
from leaderboard.rows import Row
from leaderboard.tables import tables
from suite.errors import UsageError
from suite.runtime.record_statistics import estimate, paired

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
    assert alone.interval is None and alone.interval_over is None and format.accuracy(alone) == "60.0"


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
        *(
            f"components,mnist,{budget},,full,98.7,0.7,S,Table 3,"
            for budget in ("nan", "inf", "-1", "0", "1e3", "0x1", "1_0", "٣")
        ),
        *(f"components,mnist,1,,full,{number},0.7,S,Table 3," for number in ("nan", "-0.1", "100.1", "", "1e1", " 9")),
        *(f"components,mnist,1,,full,98.7,{spread},S,Table 3," for spread in ("nan", "inf", "-0.7", "101", "±1")),
        'components,mnist,1,,full,98.7,0.7,S,"Table 3,',
        'components,mnist,1,,full,98.7,0.7,S,"Table"3,',
        f"components,mnist,1,,full,98.7,0.7,S,Table 3,{'x' * 200_000}",
        f"components,mnist,1,,full,98.7,0.7,S,Table 3,{'x' * 2_000}",
        f"components,mnist,1,,full,98.7,0.7,S,Table 3,{',' * 100_000}",
        "components,mnist,1,,full,98.7,0.7,S,Table 3,\x1b[31m",
        'components,mnist,1,,full,98.7,0.7,S,Table 3,"a\nb"',
        "components,,1,,full,98.7,0.7,S,Table 3,",
        "components,mnist,1,,,98.7,0.7,S,Table 3,",
    ],
    ids=lambda line: line[:60],
)
def test_a_printed_figure_without_a_source_is_refused(line: str, tmp_path: Path) -> None:
    head = "table,dataset,images_per_class,row,method,accuracy,spread,source,place,note\n"
    (tmp_path / "published.csv").write_text(head + line + "\n")
    with pytest.raises(UsageError, match=r"published.csv, line 2: ") as error:
        published.published(tmp_path / "published.csv")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400 and str(error.value).isprintable()


HEAD, ROW = (
    "table,dataset,images_per_class,row,method,accuracy,spread,source,place,note\n",
    "components,mnist,1,,full,98.7,,S,T,\n",
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEAD + ROW + "\n" + ROW.replace("98.7", "99.9"), r"line 4: it is the number of line 2 once more"),
        (HEAD + ROW + ROW.replace("full", '"full\n'), r"line 3: it can't be read"),
        (HEAD.replace("note", "note," + "x," * 100_000), r"line 1: its 100011 columns must be table,dataset"),
        (HEAD.replace("spread", "accuracy"), r"line 1: its 10 columns must be"),
        ("", r"line 1|no number"),
        ("\xff", r"not a text of UTF-8"),
        ("x" * 2**21, r"more than 1,048,576 bytes"),
    ],
    ids=["twice", "no end", "columns", "a column twice", "nothing", "no text", "large"],
)
def test_a_file_of_printed_figures_that_is_none_is_one_sentence(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "published.csv"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=words) as error:
        published.published(file)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


# ---------------------------------------------------------------- tables


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
    other = {"evaluation": {"name": "mine"}, "source": "of another experiment, with a protocol of its own"}
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
    assert [(one.first.method, one.row.method) for one in table_of(made).comparisons] == [("single-step GM", "BPTT")]


def test_methods_come_in_the_paper_s_order_and_are_compared_with_the_one_before() -> None:
    made = [
        record(m, s, (v + s,)) for m, v in (("full", 80.0), ("BPTT", 70.0), ("single-step GM", 50.0)) for s in (0, 1)
    ]
    found = table_of(made)
    assert [row.method for row in found.rows] == ["single-step GM", "BPTT", "full"]
    assert [(c.first.method, c.row.method, c.test.mean, c.test.seeds) for c in found.comparisons] == [
        ("single-step GM", "BPTT", 20.0, 2),
        ("BPTT", "full", 10.0, 2),
    ]


def test_a_method_stands_beside_the_baselines_of_its_own_runs_paired_by_seed() -> None:
    def of_seed(seed: int, memory: float, herding: float) -> dict[str, Any]:
        measured = [measurement("memory", "test", [memory]), measurement("herding", "test", [herding, herding + 2])]
        return record("BPTT", seed, measurements=[*measured, measurement("full data", "test", [90.0])])

    without = record("BPTT", 2, measurements=[measurement("memory", "test", [99.0])])
    (row,) = table_of([of_seed(0, 70.0, 59.0), of_seed(1, 76.0, 69.0), without]).measured
    behind = row.controls["herding"].behind
    assert behind is not None and (behind.mean, behind.seeds) == (8.0, 2)  # 10 and 6
    assert behind.interval == pytest.approx(12.7062 * 8**0.5 / 2**0.5, rel=1e-4)


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


def test_methods_with_outer_rates_of_their_own_are_compared() -> None:
    rates = [{"outer_optimizer": {"is": "adam", "lr": lr}} for lr in (0.1, 0.03)]
    made = [record(method, **rate) for method, rate in zip(("BPTT", "full"), rates, strict=True)]
    assert [(one.first.method, one.row.method) for one in table_of(made).comparisons] == [("BPTT", "full")]


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
    made = [record(b, name="bases", axis="bases", measurements=seen) for b in ("16", "4", "8")]
    last = record("8", name="bases", cell={"bases": "8", "chosen": "bases"})
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
    found = {t.page.slug: [row.method for row in t.measured] for t in tables(entries, [])}
    assert found["others"] == ["b", "full"] and found["components"] == ["full"]


def test_rows_keep_what_they_are_made_of() -> None:
    (row,) = table_of([record(seed=3)]).measured
    assert (
        isinstance(row, Row) and row.first["seed"] == 3 and format.rate(row) == "2" and "1,000" in format.peak_mib(row)
    )
    assert format.scale(row) == "cpu, 200 of 50,000 iterations" and format.hardware(row) == "A Processor, 1 thread"


# ---------------------------------------------------------------- streams and episodes


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
    assert [(c.first.method, c.row.method, c.test.mean) for c in found.comparisons] == [
        ("naive", "ER", 15.0), ("ER", "compress-then-recall", 7.0), ("compress-then-recall", "joint", 13.0),
    ]  # fmt: skip
    text = markdown(found)
    assert "3 streams × 2" in text and "63.5 ± 2.5" in text and "| +7.0 ± 0.0 to ER |" in text
    other = [
        r | {"config": r["config"] | {"stream": {"is": "rotations"}}} for r in made if "naive" not in str(r["cell"])
    ]
    assert len(table_of([*made[:6], *other], "continual").comparisons) == 3  # nothing across streams


def test_every_file_of_continual_learning_has_its_table() -> None:
    files = {file.stem for file in (REPOSITORY / "gin" / "continual").glob("*.gin")} - {
        "with_avalanche",
        "with_avalanche_one_head",
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
    assert [row.controls["random real images"].test.mean for row in found.rows] == [72.0, 72.0, 52.0, 52.0]
    assert [(c.first.method, c.row.method, c.test.mean) for c in found.comparisons] == [
        ("standard", "addressing", 6.0)
    ] * 2
    text = markdown(found)
    assert "**Fashion-MNIST, 1 I/C, 2-way**" in text and "84.0 ± 9.9" in text and "1 memory × 3" in text
    assert "| random real images, control | 52.0 ± 25.4 | 1 memory × 2 |" in text
    assert "+6.0 to standard; +12.0 to random real images" in text
    several = table_of([*made, episodes_record("addressing", 1, [82.0, 86.0, 90.0])], "extrapolation")
    assert {row.test.interval_over for row in several.rows if row.method == "addressing" and row.test} == {"memories"}
    assert "| random real images, control | 52.0 ± 0.0 | 2 memories × 2 |" in markdown(several)


def test_what_one_run_measured_in_the_same_episodes_is_paired_by_episode() -> None:
    memory, real = [80.0, 84.0, 88.0], [70.0, 75.0, 77.0]

    def of(seed: int, method: str = "addressing") -> dict[str, Any]:
        measured = [
            measurement(name, "test", values, "episodes", episodes="2-way")
            for name, values in (("memory", memory), ("random real images", real), ("full data", [90.0, 92.0]))
        ]
        return episodes_record(method, seed, memory) | {"measurements": measured}

    table = table_of([of(0)], "extrapolation")
    (part,) = parts(table)
    lines = {line.title: line for line in part.lines}
    found = apart(lines["addressing"], lines["random real images"])
    assert found is not None and found.interval == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem([10, 9, 11]))
    assert (found.text, found.words) == ("+10.0 ± 2.5", "better, 3 shared episodes")
    assert "+10.0 ± 2.5 to random real images" in markdown(table)
    whole = apart(lines["addressing"], lines["full data"])  # measured in fewer episodes
    assert whole is not None and (whole.text, whole.words) == ("-7.0", "no interval, 1 shared seed")
    (part,) = parts(table_of([of(0), of(0, "standard")], "extrapolation"))
    rows = [line for line in part.lines if not line.control]
    other = apart(rows[0], rows[1])  # of another run, whose episodes nobody compared with these
    assert other is not None and other.words == "no interval, 1 shared seed"
    (real_images,) = [line for line in part.lines if line.title == "random real images"]  # once for both rows
    for row in rows:
        found, own = apart(row, real_images), row.row.controls["random real images"].behind
        assert found is not None and own is not None and (found.mean, found.interval) == (own.mean, own.interval)
        assert found.episodes == own.episodes == 3
    (part,) = parts(table_of([of(0), of(1)], "extrapolation"))
    several = apart(part.lines[0], part.lines[1])
    assert several is not None and several.words == "better, 2 shared seeds"


def test_several_notes_of_one_control_say_of_which_data_set_they_are() -> None:
    def of(dataset: str, note: str) -> dict[str, Any]:
        return record("BPTT", dataset=dataset, measurements=[
            measurement("memory", "test", [60.0]), measurement("full data", "test", [90.0]) | {"note": note},
        ])  # fmt: skip

    several = table_of([of("fashion_mnist", "1 epoch"), of("digits", "30 epochs")]).measured
    assert format.notes(several) == [("Full data, Fashion-MNIST", "1 epoch"), ("Full data, digits", "30 epochs")]
    assert format.notes(several[:1]) == [("Full data", "1 epoch")]


def test_a_difference_that_rounds_to_zero_has_one_sign() -> None:
    assert [format.points(value) for value in (-0.04, 0.04, -0.06, -10.04)] == ["+0.0", "+0.0", "-0.1", "-10.0"]


# ---------------------------------------------------------------- lines of a page, and any two of them


def test_a_part_has_its_rows_then_each_control_once() -> None:
    made = [record(method, seed, (60.0 + i + seed,)) for i, method in enumerate(("BPTT", "full")) for seed in (0, 1)]
    (part,) = parts(table_of([*made, record("digital", name="other")]))
    assert part.title == "Fashion-MNIST, 1 I/C" and part.reduced
    lines = [(line.title, line.control, line.best) for line in part.lines]
    assert lines == [("BPTT", False, False), ("full", False, True), ("random real images", True, False),
                     ("full data", True, False)]  # fmt: skip
    assert [line.means for line in part.lines] == [{0: 60, 1: 61}, {0: 61, 1: 62}, {0: 51, 1: 51}, {0: 90, 1: 90}]
    assert len({line.anchor for line in part.lines}) == 4


def test_controls_of_other_values_are_other_lines_and_seeds_are_put_together() -> None:
    def of(method: str, seed: int, herding: float, **more: Any) -> dict[str, Any]:
        measured = [measurement("memory", "test", [60.0]), measurement("herding", "test", [herding])]
        return record(method, seed, measurements=measured, **more)

    made = [of("BPTT", 0, 50.0), of("BPTT", 1, 51.0), of("full", 1, 51.2), of("full", 2, 52.0), of("none", 0, 55.0)]
    (part,) = parts(table_of(made))
    controls = [line.means for line in part.lines if line.control]
    assert controls == [{0: 50.0, 1: 51.0, 2: 52.0}, {0: 55.0}]
    assert [line.name for line in part.lines if line.control] == [
        "herding, beside BPTT and 1 other",
        "herding, beside none",
    ]
    (part,) = parts(table_of(made[:4]))
    assert [line.name for line in part.lines if line.control] == ["herding"]


def test_rows_of_one_name_say_what_differs() -> None:
    rates = [{"outer_optimizer": {"is": "adam", "lr": lr}, "iterations": n} for lr, n in ((0.1, 200), (0.03, 300))]
    table = table_of([record("BPTT", **rates[0]), record("BPTT", **rates[1]), record("full", **rates[0])])
    (part,) = parts(table)
    told = {line.name for line in part.lines if not line.control}
    assert told == {"BPTT, iterations 200, lr 0.1", "BPTT, iterations 300, lr 0.03", "full"}
    shown = markdown(table)
    assert all(f"| {name} " in shown for name in told) and "to BPTT, iterations 200, lr 0.1; " in shown
    many = [record("BPTT", **{f"setting_{i}": value for i in range(5)}) for value in (1, 2)]
    (part,) = parts(table_of(many))
    assert {line.differs for line in part.lines if not line.control} == {
        f"setting 0 {v}, setting 1 {v} and 3 other settings" for v in (1, 2)
    }


def test_any_two_lines_are_compared_paired_where_seeds_are_shared_and_else_by_welch() -> None:
    def line(means: dict[int, float]) -> Line:
        return Line(row, "", tested={seed: [value] for seed, value in means.items()})

    (row,) = table_of([record()]).measured
    one = apart(line({0: 42.0, 1: 63.0, 2: 82.5}), line({0: 40.0, 1: 60.0, 2: 80.0}))
    assert one is not None and (one.seeds, one.words) == (3, "better, 3 shared seeds")
    assert one.interval == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem([2, 3, 2.5]))
    a, b = [70.0, 71.0, 72.5, 70.2], [70.1, 73.0, 76.0]
    other = apart(line(dict(enumerate(a))), line({7 + i: value for i, value in enumerate(b)}))
    assert other is not None and other.seeds == 0 and other.words == "not told apart, not paired"
    freedom = stats.ttest_ind(a, b, equal_var=False).df
    error = (stats.sem(a) ** 2 + stats.sem(b) ** 2) ** 0.5
    assert other.interval == pytest.approx(stats.t.ppf(0.975, int(freedom)) * error)
    single = apart(line({0: 50.0}), line({0: 52.0, 1: 53.0}))
    assert single is not None and (single.mean, single.interval, single.words) == (
        -2,
        None,
        "no interval, 1 shared seed",
    )
    assert apart(line({}), line({0: 1.0})) is None


def test_the_front_page_has_the_best_of_full_runs_and_of_several_memories() -> None:
    made = [record("BPTT", s, (70.0 + s,), reduced=False) for s in (0, 1, 2)]
    made += [record("full", 0, (79.0,), reduced=False), record("full", 0, (95.0,))]
    every = tables([records.Entry(sealed(one), "here") for one in made], published.published())
    (field,) = front.fields(every, {table.page.slug: parts(table) for table in every})
    (best,) = field.bests
    assert (best.line.title, best.bars.bars[0].amount.text) == ("BPTT", "71.0 ± 2.5")
    assert [bar.amount.kind for bar in best.bars.bars] == ["memory", "random", "whole"]
    assert best.behind[0] == "+20.0 ± 2.5 to random real images (better, 3 shared seeds)"
    kinds = {mark.result.kind for mark in field.plots[0].marks}
    assert kinds == {"full", "reduced", "printed"} and field.plots[0].across == "stored numbers"
    printed = [one for one in field.plots[0].best if one.kind == "printed"]
    assert printed[0].cost == 7840 and printed[0].accuracy == max(
        one.accuracy for one in published.published()
        if one.dataset == "fashion_mnist" and one.images_per_class == 1 and one.table != "transfer"
    )  # fmt: skip


def test_runs_that_no_table_names_are_called_as_their_commands_called_them() -> None:
    """Three commands that differed in the inner optimizer were all called by their file, "quickstart"."""
    inner = {"is": "bptt", "inner_steps": 20}
    named = [
        record("addressing", name=name, cell=cell, objective=inner | {"inner_optimizer": {"is": optimizer, "lr": 0.1}})
        for optimizer, name, cell in (
            ("sgd_momentum", "quickstart", {}), ("lion", "quickstart", {}),
            ("lion", "mine", {}), ("adam", "mine", {"images per class": "1 I/C", "inner optimizer": "Adam"}),
        )
    ]  # fmt: skip
    (part,) = parts(table_of(named, "others"))
    lines = {(line.title, line.differs) for line in part.lines if not line.control}
    assert lines == {("addressing", ""), ("addressing lion", "quickstart"), ("addressing lion", "mine"), ("Adam", "")}


def test_a_plot_along_costs_has_numbers_at_its_axis_and_is_not_drawn_of_one_cost() -> None:
    """Of runs that took 48, 62 and 70 seconds the axis said 50 alone, and of equal storage nothing."""

    def results(*costs: float) -> list[charts.Result]:
        return [charts.Result(cost, 80.0 + i, 1.0, "", "reduced", "") for i, cost in enumerate(costs)]

    for costs in ((48, 62, 70), (7552, 7840), (1, 9), (3, 900), (640, 6400), (1, 1e9)):
        drawn = charts.plot("", "", results(*costs))
        assert drawn is not None and 2 <= len(drawn.x_ticks) <= 12, costs
    assert charts.plot("", "", results(624, 624, 624)) is None


def test_every_file_of_synthesis_has_its_table() -> None:
    files = {file.stem for file in (REPOSITORY / "gin" / "synthesis").glob("*.gin")}
    assert files == {name for page in PAGES if page.episodes for name in page.names}
