"""What a command will take: operations counted, at a machine's rates; added up once for what runs share; in words."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, command, resolve, sets
from torch import Tensor, nn

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.architectures.resnet12 import ResNet12
from suite.core.cpu_layers import PIECE
from suite.evaluation.evaluate import READ_BATCH, accuracy, read_batch
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train
from suite.experiments import rates as machine
from suite.experiments import timing
from suite.experiments.distillation import Distillation
from suite.experiments.operations import Operations, evaluation_network, operations
from suite.experiments.rates import Rates
from suite.experiments.timing import Pace
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.objectives.gradient_matching import GradientMatching
from suite.parameterizations.standard import Standard
from suite.runtime import estimate
from suite.runtime.durations import duration
from suite.types import (
    Architecture,
    ClassRows,
    Cost,
    Counted,
    ImageShape,
    Objective,
    Params,
    Passes,
    Priced,
    Setting,
    Split,
    Unrolled,
)

CPU = torch.device("cpu")
DIGITS, LARGE, COLOUR = ImageShape(1, 8, 8), ImageShape(1, 28, 28), ImageShape(3, 32, 32)


def setting(architecture: Architecture = MLP(), shape: ImageShape = DIGITS, classes: int = 10) -> Setting:  # noqa: B008
    return Setting(shape, classes, architecture, Standard(), "none", CPU)


def noise(what: Setting, images: int) -> Split:
    shape = (images, what.shape.channels, what.shape.height, what.shape.width)
    return Split(torch.randn(shape, generator=Key(0)("noise").generator()), torch.arange(images) % what.classes)


# ---------------------------------------------------------------- words


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
def test_a_duration_has_a_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (7840, "7840"),
        (122880000, "122,880,000"),
        ("mnist, 1x28x28, 10 classes, 60000 training images", "mnist, 1x28x28, 10 classes, 60,000 training images"),
        ("0.123456 of 50000", "0.123456 of 50,000"),
        ("deadbeef12345678", "deadbeef12345678"),
    ],
)
def test_long_numbers_have_commas(value: object, words: str) -> None:
    assert estimate.readable(value) == words


def test_memory_is_in_mib_or_gib() -> None:
    assert [estimate.size_words(mib) for mib in (137, 1023, 1382, 8366)] == [
        "137 MiB",
        "1023 MiB",
        "1.35 GiB",
        "8.17 GiB",
    ]


# ---------------------------------------------------------------- counting


def test_the_operations_of_a_pass_are_those_of_its_layers() -> None:
    """An MLP of 64-5-10: products of 64 x 5 and 5 x 10, forth and twice back, but for the images' gradient."""
    what = setting(MLP(width=5, depth=1))
    forward = operations(what, "forward", 3)
    assert forward.products == 3 * 2 * (64 * 5 + 5 * 10) and forward.convolutions == 0
    gradient = operations(what, "gradient", 3)
    assert gradient.products == forward.products + 3 * 2 * (64 * 5 + 2 * 5 * 10)
    step, unrolled = operations(what, "step", 3), operations(what, "unrolled", 3)
    assert step.products == gradient.products and step.calls > gradient.calls > forward.calls > 0
    assert unrolled.products > 2 * step.products and unrolled.calls > 2 * step.calls
    # The update reads and writes each of 385 weights several times, whatever the images.
    assert (
        step.bytes - gradient.bytes
        == operations(what, "step", 1).bytes - operations(what, "gradient", 1).bytes
        > 4 * 385
    )


def test_the_operations_of_a_convolution() -> None:
    """3 x 3 from 1 to 4 channels on 8 x 8 pixels, then 4 to 4 on 4 x 4; the head is a product."""
    what = setting(ConvNet(width=4))
    work = operations(what, "forward", 5)
    assert work.convolutions == 5 * 2 * 9 * (4 * 64 + 16 * 16) and work.products == 5 * 2 * 4 * 4 * 10
    # Nine passes' worth, less where the first layer needs no gradient in the images.
    assert 7 < operations(what, "unrolled", 5).convolutions / work.convolutions <= 9


def test_operations_are_linear_in_the_images() -> None:
    what = setting(ConvNet(width=4))
    for kind in ("forward", "gradient", "step", "unrolled"):
        one, two, many = (vars(operations(what, kind, n)) for n in (1, 2, 100))
        for name in one:
            assert many[name] == pytest.approx(one[name] + 99 * (two[name] - one[name]))


def test_the_rates_are_those_that_give_the_seconds() -> None:
    rates = Rates(calls=5e-6, convolutions=4e-12, products=8e-12, bytes=3e-11)
    works = {
        "calls": Operations(400, 2e5, 1e5, 3e5),
        "convolutions": Operations(100, 2e10, 1e7, 5e8),
        "products": Operations(40, 0, 1e9, 2e7),
        "bytes": Operations(130, 8e8, 1e6, 4e8),
    }
    solved = machine._solved({sort: (work, rates.seconds(work)) for sort, work in works.items()})
    for sort, rate in vars(rates).items():
        assert getattr(solved, sort) == pytest.approx(rate, rel=1e-3)
    noisy = machine._solved({sort: (work, 1e-3 if sort == "calls" else 1.0) for sort, work in works.items()})
    assert all(rate > 0 for rate in vars(noisy).values())


def test_evaluation_networks_pay_for_steps_and_images() -> None:
    pace = Pace(batch=640, step=1.0, image=0.01, read=0.001)
    assert pace.networks(2, 3, 700, 50) == pytest.approx(2 * (3 * (2 * 1.0 + 7.0) + 0.05))  # two batches of 640 at most
    together = replace(pace, side_by_side=True)  # 64 networks of ten images make one batch
    assert together.networks(64, 1, 10, 0) == pytest.approx(1.0 + 64 * 0.1)
    assert together.networks(65, 1, 10, 0) == pytest.approx(2.0 + 65 * 0.1)
    assert pace.train == pytest.approx(0.01 + 1 / 640)
    small = replace(pace, batch=100)
    assert small.networks(2, 3, 700, 50) == pytest.approx(2 * (3 * (7 * 1.0 + 7.0) + 0.05))
    assert replace(small, side_by_side=True).networks(65, 1, 10, 0) == pytest.approx(7.0 + 65 * 0.1)
    assert small.train == pytest.approx(0.01 + 1 / 100)


@pytest.mark.parametrize(
    ("file", "cells"),
    [
        ("quickstart", []),
        ("continual/rotations", ["compress-then-recall"]),
        ("continual/rotations", ["joint"]),
        ("synthesis/extrapolation", []),
        ("synthesis/image_recall", []),
    ],
)
def test_the_announced_cost_is_that_of_the_protocol_s_batch(
    file: str, cells: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "outer_step", lambda *parts: 0.0)  # which no protocol changes
    experiment: Any = resolve([f"gin/{file}.gin"], ["ARCHITECTURE = @architectures.mlp()"], only=cells)[0].experiment

    def seconds(batch: int) -> float:
        cost = replace(experiment, evaluation=replace(experiment.evaluation, batch=batch)).cost(CPU)
        return float(cost.own + sum(cost.shared.values()))

    assert seconds(1) > 1.5 * seconds(640)


def test_convolutional_networks_on_a_cpu_read_few_images_at_a_time() -> None:
    for what, batch in ((setting(ConvNet(width=4), LARGE), PIECE), (setting(), READ_BATCH)):
        assert read_batch(what, evaluation_network(what)) == batch
        pace = timing.pace(what, Protocol())
        reading = timing._evaluation_seconds(what, "forward", batch)
        assert pace.read == pytest.approx(reading / batch)


# ---------------------------------------------------------------- work that objectives count


def test_an_unroll_counts_its_steps_their_replays_and_the_outer_loss() -> None:
    objective = BPTT(inner_steps=150, images_per_class_per_step=32, real_per_class=64)
    assert isinstance(objective, Counted) and isinstance(objective, Unrolled)
    kept = objective.work(setting(), 7)  # seven images are all there are of a class
    assert kept == [Passes("step", 70, 0), Passes("unrolled", 70, 150), Passes("gradient", 40, 16)]
    tight = replace(objective, memory_gib=1e-6)  # a step is run forth, and between kept states once more
    again = tight.work(setting(), 7)[0]
    stride = tight._retention(setting(), nn.Linear(2, 2), 70, 150)[0].stride
    assert again.images == 70 and again.times == pytest.approx(150 * (2 - 1 / stride)) and stride > 1
    few = replace(objective, classes_per_step=4, execution="captured").work(setting(), 100)
    assert few[1] == Passes("unrolled", 4 * 32, 150, captured=True) and few[0].captured


def test_matching_counts_every_class_and_its_training() -> None:
    objective = GradientMatching(real_per_class=256, images_per_class_per_step=2, stages=11, steps_per_stage=4)
    assert objective.work(setting(classes=20), 3) == [
        Passes("gradient", 256, 20),
        Passes("unrolled", 2, 20),
        Passes("step", 60, 20),  # five stages of four steps on average
    ]
    assert objective.work(setting(classes=200), 3)[2].images == 256
    assert not isinstance(objective, Unrolled)
    assert DistributionMatching(real_per_class=100).work(setting(), 7) == [
        Passes("forward", 100, 10),
        Passes("gradient", 7, 10),
    ]


def test_an_objective_that_counts_nothing_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    @dataclass(frozen=True)
    class Outside:
        def gradients(
            self, setting: Setting, memory: Params, real: ClassRows, key: Key
        ) -> tuple[Params, dict[str, Tensor]]:
            steps.append(len(real.draw([0], 16, key)))
            return memory, {"loss": torch.zeros(())}

        def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(timing, "least_seconds", lambda do, device: do() and 0.25)
    assert timing.outer_step(setting(), Outside(), 1, 1) == timing.outer_step(setting(), Outside(), 1, 1) == 0.25
    assert steps == [16]
    timing.outer_step(setting(classes=5), Outside(), 1, 1)
    assert len(steps) == 2


# ---------------------------------------------------------------- against measured times

NETWORKS: dict[str, tuple[Architecture, ImageShape]] = {
    "convnet-16 digits": (ConvNet(width=16), DIGITS),
    "convnet-128 digits": (ConvNet(width=128), DIGITS),
    "mlp digits": (MLP(), DIGITS),
    "mlp 28x28": (MLP(), LARGE),
    "convnet-16 28x28": (ConvNet(width=16), LARGE),
    "convnet-32 28x28": (ConvNet(width=32), LARGE),
    "convnet-128 28x28": (ConvNet(width=128), LARGE),
    "resnet12-8 32x32": (ResNet12(width=8), COLOUR),
}


def measured(do: Callable[[], object]) -> float:
    """Seconds at work: of one call, or the less of two where it is so short that what the first sets up shows."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < 2 and seconds[0] < 0.2):
        started = time.process_time()
        do()
        seconds.append(time.process_time() - started)
    return min(seconds)


TRIES = 4
"""Of a comparison with a clock, each with the machine's rates measured anew: other processes come and go."""


def within_one_try(holds: Callable[[], str]) -> None:
    """Pass if one of the tries finds nothing wrong."""
    wrong = []
    for _ in range(TRIES):
        for cache in (machine._rates, timing._paces):
            cache.clear()
        wrong.append(holds())
        if not wrong[-1]:
            return
    pytest.fail("; ".join(wrong))


def ratios(what: Setting) -> dict[str, float]:
    """Estimated over measured seconds of reading, of training steps, and of outer steps of each objective."""
    real, memory = ClassRows.of(noise(what, 320), 10), what.parameterization.init(what.shape, 10, 2, Key(0))
    network = train(what, noise(what, 10), Protocol(networks=1, epochs=1), Key(0))
    test = noise(what, 200)
    seconds = measured(lambda: accuracy(network, test, read_batch(what, network), what))
    found = {"reading": 200 * timing.pace(what, Protocol()).read / seconds}
    for images in (10, 64):
        data, protocol = noise(what, images), Protocol(networks=1, epochs=4)
        seconds = measured(lambda data=data, protocol=protocol: train(what, data, protocol, Key(0))) / 4
        found[f"a step on {images}"] = timing.sgd_step(what, images) / seconds
    objectives: list[Objective] = [
        BPTT(inner_steps=3, real_per_class=8),
        BPTT(inner_steps=3, real_per_class=8, memory_gib=1e-6),
        GradientMatching(real_per_class=16),
        DistributionMatching(real_per_class=32),
    ]
    for objective in objectives:
        seconds = measured(lambda objective=objective: objective.gradients(what, memory, real, Key(0)))
        found[str(objective)] = timing.outer_step(what, objective, 2, 2) / seconds
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_estimates_are_near_what_is_measured(name: str) -> None:
    """Training, measuring and outer steps: within a factor of three each, and of two on the average."""
    what = setting(*NETWORKS[name])

    def holds() -> str:
        found = ratios(what)
        mean = math.exp(sum(map(math.log, found.values())) / len(found))
        near = all(1 / 3 < ratio < 3 for ratio in found.values()) and 1 / 2 < mean < 2
        return "" if near else f"mean {mean:.2f} of {found}"

    within_one_try(holds)


@pytest.mark.slow
def test_a_dry_run_of_the_largest_table_runs_no_outer_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ninety cells of the paper's size, in seconds at work, from anywhere and without data."""

    def refused(*arguments: Any) -> Any:
        raise AssertionError("an outer step was run")

    for objective in (BPTT, GradientMatching, DistributionMatching):
        monkeypatch.setattr(objective, "gradients", refused)
    monkeypatch.chdir(tmp_path)
    places = ["--data-dir", tmp_path / "no-data", "--out", tmp_path / "runs"]
    started = time.process_time()
    done = command("--gin", "gin/ablation_components.gin", "--dry-run", "--device", "cpu", *places)
    assert done.status == 0 and not done.err and "90 runs; nothing was started" in done.out
    assert done.out.count("expected time here") == 90
    assert not list(tmp_path.iterdir())
    assert time.process_time() - started < 40  # some 7 without the tests' type checks


@dataclass(frozen=True)
class Silent:
    """An experiment without an estimate."""

    def plan(self) -> dict[str, Any]:
        return {}

    def run(self, session: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Known(Silent):
    """An experiment with an estimate."""

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
    one, two = runs(Known(10, (("full", 100), ("random", 1))), Known(20, (("full", 100),)))
    assert total([one, two]) == 10 + 20 + 100 + 1
    (other_seed,) = runs(Known(5, (("full", 100),)), seed=7)
    assert total([one, two, other_seed]) == 131 + 105
    (last,) = runs(Known(1000))
    swept = [*runs(Known(1), cell={"bases": "4"}, choose="bases", then=last)]
    swept += runs(Known(2), cell={"bases": "8"}, choose="bases", then=last)
    assert total(swept) == 1 + 2 + 1000
    assert total(runs(Silent())) is None  # an experiment need not have an estimate
    assert not isinstance(Silent(), Priced) and isinstance(Known(), Priced)


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
    return {50_000: "paper", 2000: "short", 300: "cpu", 2: "smoke"}[of.iterations]


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


@pytest.mark.slow
def test_an_estimate_is_near_what_a_run_takes(data_dir: Any, tmp_path: Any) -> None:
    slower = sets("ITERATIONS = 40", "INNER_STEPS = 30", "VALIDATION_POINTS = 0")
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json", "--fresh"]
    (run,) = resolve([w for w in QUICK if w.endswith(".gin")], [w for w in (*QUICK, *slower) if " = " in w])

    def holds() -> str:
        seconds = command(*QUICK, *slower, *place).record["cost"]["seconds_per_iteration"]
        ratio = run.experiment.cost(CPU).step / seconds  # type: ignore[attr-defined]
        return "" if 0.2 < ratio < 5 else f"estimated over measured: {ratio:.2f}"

    within_one_try(holds)


def test_a_method_without_an_estimate_still_runs(data_dir: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(of: Any, device: Any) -> Cost:
        raise ValueError("no made-up images, please\nat all")

    monkeypatch.setattr(Distillation, "cost", broken)
    done = command(*QUICK, "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none")
    assert done.status == 0 and "[cost] no estimate (ValueError: no made-up images, please" in done.err


def test_json_of_a_dry_run_keeps_plain_numbers() -> None:
    done = command("--gin", "gin/fashion_mnist.gin", "--dry-run", "--json", "--device", "cpu")
    plan = done.record[0]
    assert plan["expected seconds"] > 0 and plan["of an outer step"] > 0
    assert isinstance(plan["expected memory of one unroll (MiB)"], int)
    assert "50,000" not in done.out and "60000 training images" in plan["data set"]
    words = command("--gin", "gin/fashion_mnist.gin", "--dry-run", "--device", "cpu").out
    assert "60,000 training images" in words and "iB\n" in words and "(MiB)" not in words
