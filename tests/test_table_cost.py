"""What a table costs: rates that give what was measured, the work of each run once, and runs dealt to GPUs."""

import math
import random

import pytest
from command_line import resolve, said, sets

from suite.experiments.rates import Rates, at_rates, rates
from tools import table_cost
from tools.table_cost import CASES, CPU, foretold, main, makespan, measured, ratios, simulated, solved, work

SMALL = sets("DATASET = @datasets.digits()", "ARCHITECTURE = @architectures.mlp()", "FULL_DATA_EPOCHS = 2")[1::2]


def test_the_rates_give_the_outer_steps_that_they_are_solved_from() -> None:
    seconds = measured()
    captured, eager = (solved(seconds, form) for form in ("captured", "eager"))
    for case in ("convnet-1", "convnet-10"):
        assert captured.seconds(work(CASES[case])) == pytest.approx(seconds[case, "captured"])
    assert eager.seconds(work(CASES["convnet-1"])) == pytest.approx(seconds["convnet-1", "eager"])
    assert min(vars(captured).values()) > 0 and eager.calls > captured.calls


def test_within_a_block_all_is_foretold_at_other_rates() -> None:
    (run,) = resolve(["gin/quickstart.gin"], SMALL)
    here = run.experiment.cost(CPU)
    with at_rates(Rates(calls=1.0)):
        assert rates(CPU) == rates(CPU, plain=True) == Rates(calls=1.0)
        there = run.experiment.cost(CPU)
        assert there.step == round(there.step) > 100 * here.step  # a whole number of calls
    assert run.experiment.cost(CPU) == here and rates(CPU) != Rates(calls=1.0)


def test_outer_steps_are_captured_where_the_objective_is_and_shared_work_counts_once() -> None:
    axes = "run.axes = {'it': {'one': ['OUTER_LR = 0.1'], 'two': ['OUTER_LR = 0.2'], 'GM': ['OBJECTIVE = @objectives.gradient_matching()']}}"  # noqa: E501
    runs = resolve(["gin/quickstart.gin"], [*SMALL, axes, "ITERATIONS = 10"])
    captured, eager = Rates(calls=1.0), Rates(calls=3.0)
    one, two, matching = foretold(runs, captured, eager)
    with at_rates(eager):
        costs = [run.experiment.cost(CPU) for run in runs]
    shared = sum(costs[0].shared.values())
    assert shared > 0 and one.seconds - two.seconds == pytest.approx(shared)
    assert two.seconds == pytest.approx(costs[1].own - 10 * costs[1].step * 2 / 3)
    assert matching.seconds == pytest.approx(costs[2].own)
    assert "two" in two.name


def test_each_run_begins_as_soon_as_there_is_room() -> None:
    assert makespan([5, 1, 1, 1, 1, 1], 2) == 5 and makespan([1, 1, 1, 1, 1, 5], 2) == 7
    assert makespan([3.0], 8) == 3 and makespan([1.0, 2.0], 1) == 3


def test_simulations_repeat_and_spread_as_their_ratios_do() -> None:
    assert simulated([3, 3, 2, 2, 2], 2, lambda chance: 2.0, 3) == [14.0] * 3

    def drawn(chance: random.Random) -> float:
        return chance.choice([1.0, 3.0])

    once = simulated([1.0], 1, drawn, 200)
    assert once == simulated([1.0], 1, drawn, 200) == sorted(once)
    assert set(once) == {1.0, 3.0} and 60 < once.count(1.0) < 140
    assert table_cost.middle_and_range(list(range(1001))) == (500, 25, 975)


def test_the_records_say_how_long_seeds_of_a_cell_take() -> None:
    drawn = ratios()
    assert len(drawn) >= 100 and drawn == sorted(drawn) and drawn[len(drawn) // 2] == 1.0
    assert all(ratio > 0 and math.isfinite(ratio) for ratio in drawn)


def test_what_cannot_be_foretold_is_told() -> None:
    refused = said(main, ["--gin", "gin/continual/permutations.gin"])
    assert refused.status == 2 and "is no distillation, and nothing else is foretold here" in refused.err
    absent = said(main, ["--gin", "no.gin"])
    assert absent.status == 2 and "no.gin" in absent.err and "Traceback" not in absent.err
