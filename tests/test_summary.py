"""What a command prints of its runs: a row for each method, its controls once, and differences that are paired."""

from typing import Any

import pytest
from board import measurement

from suite.runtime.summary import summary


def made(cell: dict[str, str], seed: int, *measurements: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {
        "name": "table",
        "cell": cell,
        "seed": seed,
        "measurements": list(measurements),
        "config": {"dataset": {"is": "digits"}} | config,
        "budget": {"stored_numbers": 1640},
        "scale": {"label": "cpu", "reduced": True},
    }


def memory(*values: float, split: str = "test", **fields: Any) -> dict[str, Any]:
    return measurement("memory", split, list(values), **fields)


def real(*values: float) -> dict[str, Any]:
    return measurement("random real images", "test", list(values), note="1 real images per class")


THREE = [
    made(
        {"images": "1 I/C", "method": method},
        seed,
        memory(*values),
        memory(50, split="validation"),
        real(40, 44 + seed),
    )
    for method, seeds in {"plain": [(50, 52), (54, 56), (49, 51)], "full": [(60, 62), (65, 67), (61, 63)]}.items()
    for seed, values in enumerate(seeds)
]


def rows(text: str) -> list[list[str]]:
    return [[part.strip() for part in line.split("  ") if part.strip()] for line in text.splitlines()]


def test_a_method_has_one_row_and_its_control_stands_once() -> None:
    header, _, plain, full, control, *_ = rows(summary(THREE))
    assert header == ["method", "test (95% interval)", "validation", "n", "budget"]
    # means 51, 55, 50: mean 52, s = sqrt(7), t(0.975, 2) = 4.303
    assert plain == ["plain", "52.0 ± 6.6", "50.0 ± 0.0", "3 x 2", "1,640 numbers"]
    assert full[:2] == ["full", "63.0 ± 6.6"]
    assert control == ["random real images", "42.5 ± 1.2", "-", "3 x 2", "1 real images per class"]
    assert summary(THREE).count("cpu (reduced)") == 1 and "scale: cpu (reduced)" in summary(THREE)
    assert summary(THREE).count("random real images") == 3  # its row, and a difference of each method


def test_a_scale_stands_in_each_row_where_it_is_not_the_same() -> None:
    other = made({"method": "long"}, 0, memory(60)) | {"scale": {"label": "paper", "reduced": False}}
    text = summary([made({"method": "short"}, 0, memory(50)), other])
    assert [row[-1] for row in rows(text)] == ["scale", *rows(text)[1], "cpu (reduced)", "paper"]


def test_of_few_methods_each_is_compared_with_each() -> None:
    """Of three, the third was compared with the second alone."""
    few = [made({"m": m}, s, memory(50 + s)) for m in "abcd" for s in (0, 1)]
    more = [made({"m": m}, s, memory(50 + s)) for m in "abcde" for s in (0, 1)]
    over = [[row[0] for row in rows(summary(cells)) if row and " over " in row[0]] for cells in (few, more)]
    assert over[0] == ["b over a", "c over a", "c over b", "d over a", "d over b", "d over c"]
    assert over[1] == ["b over a", "c over b", "d over c", "e over d"]


def test_differences_are_paired_by_seed() -> None:
    *_, over_real, full_over_real, full_over_plain = rows(summary(THREE))
    assert over_real == ["plain over random real images", "+9.5 ± 6.9", "3"]
    assert full_over_real[0] == "full over random real images"
    assert full_over_plain == ["full over plain", "+11.0 ± 2.5", "3"]


def test_what_no_interval_tells_apart_is_called_so() -> None:
    alike = [made({"method": m}, s, memory(50 + (s if m == "a" else -s))) for m in "ab" for s in (0, 1, 2)]
    assert rows(summary(alike))[-1] == ["b over a", "-2.0 ± 5.0, not told apart", "3"]


def test_of_one_seed_the_interval_is_over_networks_and_nothing_is_compared() -> None:
    text = summary([made({}, 0, memory(50, 60, 70), real(40, 41))])
    assert "60.0 ± 24.8" in text and "1 x 3" in text and "difference" not in text
    assert rows(text)[2][0] == "digits"


def test_data_sets_do_not_share_controls_and_are_not_compared() -> None:
    both = [
        made({"data": name}, seed, memory(50 + seed), real(40 + seed), dataset={"is": name})
        for name in ("digits", "mnist")
        for seed in (0, 1)
    ]
    text = summary(both)
    assert text.count("1 real images per class") == 2 and "mnist over digits" not in text
    (one, other) = (line for line in text.splitlines() if "random real images" in line and "per class" in line)
    assert one.startswith("digits") and other.startswith("mnist")


def test_the_run_of_a_chosen_cell_is_a_row_of_its_own() -> None:
    swept = [made({"bases": b}, 0, memory(v, split="validation"), memory(v - 1)) for b, v in (("4", 50), ("8", 60))]
    chosen = made({"bases": "8", "chosen": "bases"}, 0, memory(69))
    names = {row[0]: row[1] for row in rows(summary([*swept, chosen]))[2:-1]}
    assert names == {"4": "49.0", "8": "59.0", "8, bases": "69.0"}


@pytest.mark.parametrize("setting", ["augmentation", "evaluation", "architecture"])
def test_controls_of_other_settings_are_not_merged(setting: str) -> None:
    cells = [
        made({"m": m}, s, memory(60 + s), real(v + s), **{setting: m})
        for m, v in (("a", 40), ("b", 50))
        for s in (0, 1)
    ]
    assert [row[2].split(" ")[0] for row in rows(summary(cells))[4:6]] == ["40.5", "50.5"]


def test_what_is_a_method_s_own_is_not_taken_for_another_s_though_it_has_a_note() -> None:
    oracles = [measurement("oracle", "test", [v], note="the same") for v in (70.0, 80.0)]
    oracle = [made({"m": m}, 0, memory(60), own) for m, own in zip("ab", oracles, strict=True)]
    assert [row[:3] for row in rows(summary(oracle))[4:6]] == [["a", "oracle", "70.0"], ["b", "oracle", "80.0"]]


def test_differences_say_on_which_network_or_episodes() -> None:
    cells = [
        made({"m": m}, s, memory(60 + s + d), memory(50 + s + d, network="alexnet"), memory(40 + s, episodes="2-way"))
        for m, d in (("a", 0), ("b", 2))
        for s in (0, 1)
    ]
    over = [row[0] for row in rows(summary(cells)) if row and " over " in row[0]]
    assert over == ["b over a", "b over a (alexnet)", "b over a (2-way)"]


def test_a_cell_that_was_only_validated_has_a_row() -> None:
    text = summary([made({"bases": "4"}, 0, memory(50, split="validation")), made({"bases": "8"}, 0, memory(60))])
    assert rows(text)[2][:3] == ["4", "-", "50.0"]


@pytest.mark.parametrize("quantity", ["RA"])
def test_methods_of_a_stream_are_compared_by_their_accuracy_after_all_tasks(quantity: str) -> None:
    streams = [
        made(
            {"method": m},
            s,
            measurement(m, "test", [v + s], quantity=quantity),
            measurement(m, "test", [s], quantity="LA"),
        )
        for m, v in (("ER", 50), ("memory replay", 60))
        for s in (0, 1)
    ]
    text = summary(streams)
    assert rows(text)[-1] == ["memory replay over ER", "+10.0 ± 0.0", "2"]
