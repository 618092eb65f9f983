"""What a command will cost: foretold from small pieces, added up once for what is shared, and told in words."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from command_line import QUICK, command, resolve, sets

from suite.architectures.mlp import MLP
from suite.experiments import timing
from suite.experiments.distillation import Distillation
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.objectives.gradient_matching import GradientMatching
from suite.parameterizations.standard import Standard
from suite.runtime import estimate
from suite.runtime.durations import duration
from suite.types import Cost, ImageShape, Setting

CPU = torch.device("cpu")
TASK = Setting(ImageShape(1, 8, 8), 10, MLP(), Standard(), "none", CPU)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "about 0.4 seconds"),
        (119, "about 120 seconds"),
        (125, "about 2.1 minutes"),
        (3 * 3600, "about 3 hours"),
        (5 * 86400, "about 5 days"),
        (40 * 86400, "about 5.7 weeks"),
    ],
)
def test_durations_are_told_in_a_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("pace", [1e-4, 1.0], ids=["measured whole", "measured on few images"])
def test_an_unroll_s_time_is_linear_in_its_steps_and_images(pace: float) -> None:
    asked: list[BPTT] = []

    def measured(
        of: BPTT, classes: int
    ) -> float:  # a machine that takes `pace` for an image of a step, and half for a real one
        asked.append(of)
        return pace * (of.inner_steps * 10 * of.images_per_class_per_step + 5 * of.real_per_class)

    objective = BPTT(inner_steps=150, images_per_class_per_step=32, real_per_class=64, execution="compiled")
    expected = pace * (150 * 10 * 7 + 5 * 64)  # seven images are all there are of a class
    assert objective.seconds(TASK, 7, measured) == pytest.approx(expected)
    assert all(one.inner_steps <= 3 and one.execution == "eager" for one in asked)
    largest = max(one.real_per_class for one in asked)
    assert largest == (64 if pace < 1 else 1)


@pytest.mark.parametrize("pace", [1e-5, 1.0])
def test_the_time_of_matching_is_linear_in_real_images(pace: float) -> None:
    gm = GradientMatching(real_per_class=256, stages=11, steps_per_stage=4)
    many = replace(TASK, classes=200)
    for setting, classes in ((TASK, 10), (many, 200)):
        found = gm.seconds(
            setting, 3, lambda of, n: pace * n * (5 * min(of.images_per_class_per_step, 3) + of.real_per_class)
        )
        trained = 5 * 4 * min(256, 3 * classes)  # five stages of four steps on average
        assert found == pytest.approx(pace * (classes * (15 + 256) + trained))
        dm = DistributionMatching(real_per_class=100)
        assert dm.seconds(setting, 1, lambda of, n: pace * n * (7 + of.real_per_class)) == pytest.approx(
            pace * classes * 107
        )


@dataclass(frozen=True)
class Silent:
    """An experiment that can't tell what it costs."""

    def plan(self) -> dict[str, Any]:
        return {}

    def run(self, session: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Foretold(Silent):
    """An experiment that knows what it costs."""

    own: float = 0
    shared: tuple[tuple[str, float], ...] = ()

    def cost(self, device: torch.device) -> Cost:
        return Cost(self.own, dict(self.shared), 0.1)


def runs(*experiments: Any, **changes: Any) -> list[Any]:
    (run,) = resolve(QUICK[1:4:2])
    return [replace(run, experiment=one, **changes) for one in experiments]


def total(found: list[Any]) -> float | None:
    return estimate.total(found, estimate.costs(found, CPU), CPU)


def test_shared_work_counts_once_for_a_seed_and_a_choice_adds_its_runs() -> None:
    one, two = runs(Foretold(10, (("full", 100), ("random", 1))), Foretold(20, (("full", 100),)))
    assert total([one, two]) == 10 + 20 + 100 + 1
    (other_seed,) = runs(Foretold(5, (("full", 100),)), seed=7)
    assert total([one, two, other_seed]) == 131 + 105
    (last,) = runs(Foretold(1000))
    swept = [*runs(Foretold(1), cell={"bases": "4"}, choose="bases", then=last)]
    swept += runs(Foretold(2), cell={"bases": "8"}, choose="bases", then=last)
    assert total(swept) == 1 + 2 + 1000
    assert total(runs(Silent())) is None  # an experiment need not be able to tell


def test_what_takes_weeks_is_said_and_a_scale_that_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: dict[str, float] = {"paper": 1e7, "short": 2e5, "cpu": 3000.0, "smoke": 1.0}
    monkeypatch.setattr(Distillation, "cost", lambda of, device: Cost(seconds[_scale(of)], {}, 1.0))
    files = ["gin/shared/distillation.gin"]
    assert estimate.advice(1e5, files, [], None, [], CPU) is None
    said = estimate.advice(1e7, files, [], None, [], CPU)
    assert said is not None and "about 17 weeks" in said and "gin/scale/cpu.gin it takes about 50 minutes" in said
    seconds["cpu"] = seconds["smoke"] = 1e6
    assert "no smaller scale fits a day" in str(estimate.advice(1e7, files, [], None, [], CPU))


def _scale(of: Any) -> str:
    return {50_000: "paper", 2000: "short", 200: "cpu", 2: "smoke"}[of.iterations]


def test_a_dry_run_and_a_start_say_what_it_will_take(data_dir: Any, tmp_path: Any) -> None:
    planned = command(*QUICK, "--dry-run", "--device", "cpu")
    assert planned.status == 0 and "expected time here" in planned.out and "seconds an outer step" in planned.out
    assert "together about" in planned.out and "1 thread" in planned.out
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none"]
    done = command(*QUICK, *place)
    assert done.status == 0 and "[cost] 1 run, about" in done.err and "MiB of memory" in done.err
    again = command(*QUICK, *place)
    assert "[cost]" not in again.err  # everything was done before


def test_long_work_is_advised_against_before_it_starts() -> None:
    done = command(
        "--gin", "gin/ablation_momentum.gin", *sets("DATASET = @datasets.digits()"), "--only", "1 I/C",
        "--only", "full momentum", *sets("ITERATIONS = 50000000", "EPOCHS = 1", "FULL_DATA_EPOCHS = 0"),
        *sets("ARCHITECTURE = @architectures.mlp()", "architectures.mlp.width = 16"), "--dry-run", "--device", "cpu",
    )  # fmt: skip
    assert done.status == 0 and "on this machine (cpu, 1 thread)" in done.out and "this would take about" in done.out


def test_a_rehearsal_is_near_what_a_run_takes(data_dir: Any, tmp_path: Any) -> None:
    """Within a factor of five, since these machines are shared."""
    slower = sets("ITERATIONS = 40", "INNER_STEPS = 30", "VALIDATION_POINTS = 0")
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json"]
    timing._seconds.cache_clear()
    done = command(*QUICK, *slower, *place)
    (run,) = resolve([w for w in QUICK if w.endswith(".gin")], [w for w in (*QUICK, *slower) if " = " in w])
    step = run.experiment.cost(CPU).step  # type: ignore[attr-defined]
    assert 0.2 < step / done.record["cost"]["seconds_per_iteration"] < 5


def test_a_method_that_can_not_be_rehearsed_still_runs(
    data_dir: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(of: Any, device: Any) -> Cost:
        raise ValueError("no made-up images, please\nat all")

    monkeypatch.setattr(Distillation, "cost", broken)
    done = command(*QUICK, "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none")
    assert done.status == 0 and "[cost] can't be foretold (ValueError: no made-up images, please" in done.err
