"""What a quarter of an hour on a GPU should tell, most valuable first: a line of JSON after every figure.

    python -m tools.gpu_check --out DIR [--seconds 555] [--device cuda] [--stages NAME ...]

machine       bandwidth, products of matrices, launches
correct       the captured unroll against the eager one, in float64
times         seconds of an outer step, eager and captured, in all precisions, with the peak of memory
kernels       what a captured outer step is made of
at_once       several memories in one process, as `suite.run --together` has them
evaluation    a memory's evaluation, and an epoch on 54,000 images
released      the paper's released code beside the engine, from a checkout (--reference)
run           a table of Fashion-MNIST, which goes on where it was (--runs), and is packed for the next stay
settings      what deterministic kernels cost

A stage that fails says so and the next one begins; a figure that was written stays, whatever comes after. Needs neither
MLflow nor a network. On a CPU, `--device cpu --small` runs the same stages at small sizes.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch

from suite.architectures.convnet import ConvNet
from suite.contracts.problem import relative_error
from suite.core.device import prepare_device
from suite.core.turns import by_turns, hand_over
from suite.errors import SuiteError
from suite.evaluation.evaluate import evaluate
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import train
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.clipped import Clipped
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.judged_often import JudgedOften
from suite.objectives.programs import forget_programs
from suite.objectives.windows import Windows
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard
from suite.runtime.environment import environment
from suite.types import ClassRows, ImageShape, Objective, Parameterization, Params, Setting, Split
from suite.validation import Above, number_option
from tools.contenders import ENGINE, PRECISIONS, Case, Contender, Double, outer_step

RUN_SECONDS, STOP_SECONDS = 90, 15
"""Given to the run at least, where there is time; and to its checkpoint."""


@dataclass(frozen=True)
class Check:
    """Where and at what size it measures, and until when."""

    out: Path
    """Folder of the figures."""
    device: torch.device
    """What is measured."""
    small: bool
    """Whether sizes are small, to try the stages."""
    reference: str
    """Folder of a checkout of the released code; '' for none."""
    data_dir: str
    """Folder of the data sets."""
    runs: Path
    """Packed runs of an earlier stay, which need not be there."""
    deadline: float
    """When the time is up, as `time.monotonic` counts."""
    began: float = field(default_factory=time.monotonic)
    """When it began."""

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.deadline - time.monotonic()

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def say(self, file: IO[str], what: str, **figures: Any) -> None:
        """Write one line, now."""
        line = json.dumps({"s": round(time.monotonic() - self.began, 1), "what": what} | figures)
        print(line, file=file, flush=True)
        print(line, flush=True)

    def wait(self) -> None:
        """Until the device is idle."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], repeats: int = 3) -> list[float]:
        """Of each call, the device's work included; at least one."""
        found: list[float] = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            found.append(round(time.perf_counter() - began, 6))
            if self.left < STOP_SECONDS:
                break
        return found

    def peak_mib(self, work: Callable[[], object]) -> int | None:
        """The peak of the device's memory during a call; None on a CPU."""
        if not self.cuda:
            work()
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        self.wait()
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20)


Say = Callable[..., None]
"""`Check.say` on the file of figures."""


def cases(check: Check) -> dict[str, Case]:
    """Outer steps on keyed noise, by name."""
    steps = 2 if check.small else 150
    fields: dict[str, Any] = {"steps": steps, "device": str(check.device)}
    if check.small:
        fields |= {"dataset": "digits", "real_per_class": 2}
    every: dict[str, dict[str, Any]] = {
        "convnet, 1 I/C": {"dataset": "cifar10"},
        "mlp, 10 I/C": {"dataset": "fashion_mnist", "architecture": "mlp", "images_per_class": 10, "real_per_class": 2},
        "convnet, 10 I/C": {"dataset": "cifar10", "images_per_class": 10},
        "addressing, 1 I/C": {"dataset": "cifar10", "parameterization": "addressing"},
        "resnet12, 1 I/C": {"dataset": "cifar10", "architecture": "resnet12"},
    }
    if check.small:
        del every["resnet12, 1 I/C"], every["convnet, 10 I/C"]
    return {name: Case(**(own | fields)) for name, own in every.items()}


# ---------------------------------------------------------------- stages


def machine(check: Check, say: Say) -> None:
    """What the hardware gives at best: copies, products of matrices, launches alone and in a graph."""
    say("versions", **environment(check.device))
    numbers = 2**16 if check.small else 2**28
    one = torch.randn(numbers, device=check.device)
    other = torch.empty_like(one)
    say("copy", terabytes_a_second=8 * numbers / min(check.seconds(lambda: other.copy_(one), 5)) / 1e12)
    side = 64 if check.small else 8192
    matrix = torch.randn(side, side, device=check.device)
    for tf32 in (False, True) if check.cuda else (False,):
        with _tf32(tf32):
            check.seconds(lambda: matrix @ matrix, 1)
            seconds = min(check.seconds(lambda: matrix @ matrix))
        say("product of matrices", tf32=tf32, teraflops=2 * side**3 / seconds / 1e12)
    if not check.cuda:
        return
    number, graph = torch.zeros(1, device=check.device), torch.cuda.CUDAGraph()

    def thousand() -> None:
        for _ in range(1000):
            number.add_(1)

    with torch.cuda.graph(graph):
        thousand()
    graph.replay()
    say("1000 launches", in_a_graph=min(check.seconds(graph.replay, 5)), alone=min(check.seconds(thousand, 5)))


def correct(check: Check, say: Say) -> None:
    """Captured against eager in float64, at two calls, with other draws in between."""
    for name, case in cases(check).items():
        short = replace(case, steps=min(case.steps, 10))
        with _saying(say, "captured against eager", case=name):
            plain, captured = (
                outer_step(short, replace(ENGINE, execution=how), double=True) for how in ("eager", "captured")
            )
            one, other, again, plain_again = plain(), captured(), captured(), plain()
            repeats = {"eager_repeats": _equal(one, plain_again), "captured_repeats": _equal(other, again)}
            say("captured against eager", case=name, error=relative_error(other, one), **repeats)
        forget_programs()
    for name, objective, way in _objectives(check):
        with _saying(say, "captured against eager", case=name):
            errors = [relative_error(*pair) for pair in _two_steps(check, objective, way)]
            say("captured against eager", case=name, error=max(errors))
        forget_programs()


def _objectives(check: Check) -> list[tuple[str, Objective, Parameterization]]:
    """What the cases of `cases` leave out: images that are gathered, windows, labels, states of other optimizers."""
    of = BPTT(inner_steps=6, images_per_class_per_step=2, real_per_class=8)
    fewer = replace(of, classes_per_step=6, memory_gib=1e-9)
    plain, adam = Standard(), replace(of, inner_optimizer=Adam(lr=0.01))
    return [
        ("images and classes drawn, steps recomputed", fewer, plain),
        ("windows", Windows(of=of, window=3), plain),
        ("judged often", JudgedOften(of=of, times=3), plain),
        ("labels", of, SoftLabels(plain)),
        ("adam", adam, plain),
        ("clipped", replace(of, inner_optimizer=Clipped(of=SGDMomentum())), plain),
    ]


def _two_steps(check: Check, objective: Any, way: Parameterization) -> Iterator[tuple[Params, Params]]:
    """Gradients of two outer steps with other draws, in float64: captured, and eager."""
    shape = ImageShape(1, 8, 8) if check.small else ImageShape(3, 32, 32)
    of = Setting(shape, 10, Double(ConvNet(width=8 if check.small else 128)), way, "none", check.device)
    memory = {k: v.to(check.device).double() for k, v in way.init(shape, 10, 4, Key(0)("memory")).items()}
    noise = torch.randn(160, shape.channels, shape.height, shape.width, generator=Key(0)("real").generator())
    real = ClassRows.of(Split(noise.double(), torch.arange(160) % 10).to(check.device), 10)
    ways = [objective, objective]
    for i, how in enumerate(("captured", "eager")):
        mode: dict[str, Any] = {"execution": how}
        ways[i] = replace(objective, **(mode if type(objective) is BPTT else {"of": replace(objective.of, **mode)}))
    for step in range(2):
        found, expected = (one.gradients(of, memory, real, Key(1)(step))[0] for one in ways)
        yield found, expected


def times(check: Check, say: Say) -> None:
    """Seconds of an outer step in each way of running it."""
    for name, case in cases(check).items():
        precisions = PRECISIONS if check.cuda else ("float32",)
        ways = [("eager", "float32"), *(("captured", precision) for precision in precisions)]
        for execution, precision in ways:
            if check.left < 40:
                return
            contender = Contender("engine", execution=execution, precision=precision)  # type: ignore[arg-type]
            with _saying(say, "outer step", case=name, execution=execution, precision=precision):
                step = outer_step(case, contender)
                began = time.perf_counter()
                peak = check.peak_mib(step)
                first = round(time.perf_counter() - began, 2)
                row = {"seconds": check.seconds(step), "first": first, "peak_mib": peak}
                say("outer step", case=name, execution=execution, precision=precision, **row)
            _free(check)


def kernels(check: Check, say: Say) -> None:
    """The ten kernels that a captured outer step spends most time in, and how much of the clock all take."""
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if check.cuda else ProfilerActivity.CPU
    for name, case in list(cases(check).items())[: 1 if check.small else 3]:
        if check.left < 40:
            return
        with _saying(say, "kernels", case=name):
            step = outer_step(case, replace(ENGINE, execution="captured"))
            step()
            wall = statistics.median(check.seconds(step))
            with profile(activities=[activity]) as seen:
                step()
                check.wait()
            events = [(_microseconds(e, check), e.count, e.key[:80]) for e in seen.key_averages()]
            events = sorted((e for e in events if e[0] > 0), reverse=True)
            busy, launches = sum(e[0] for e in events) / 1e6, sum(e[1] for e in events)
            say("kernels", case=name, wall=wall, busy=round(busy, 4), launches=launches, most=events[:10])
        _free(check)


def at_once(check: Check, say: Say) -> None:
    """Seconds in which each of several memories takes an outer step, each with a graph and a stream of its own."""
    steps = 2 if check.small else 5

    def memory(case: Case) -> float:
        step = outer_step(case, replace(ENGINE, execution="captured"))
        began = 0.0
        for number in range(1 + steps):
            gradients = step()
            hand_over()
            float(sum(g.sum() for g in gradients.values()))
            began = time.perf_counter() if number == 0 else began  # the first captures
        return (time.perf_counter() - began) / steps

    for name, case in list(cases(check).items())[:2]:
        for number in (1, 2, 4, 6):
            if check.left < 40:
                return
            with _saying(say, "memories at once", case=name, memories=number):
                ended = by_turns([partial(memory, case)] * number, number, check.device)
                seconds = round(max(end.result() for end in ended), 5)  # the first one's, beside whom all are at work
                say("memories at once", case=name, memories=number, seconds=seconds)
            _free(check)


def evaluation(check: Check, say: Say) -> None:
    """The evaluation of ten images, and an epoch of one network on the whole of Fashion-MNIST's size."""
    shape = ImageShape(1, 8, 8) if check.small else ImageShape(1, 28, 28)
    network = ConvNet(width=8) if check.small else ConvNet()
    of = Setting(shape, 10, network, Standard(), "flip_rotate", check.device)

    def images(number: int) -> Split:
        noise = torch.randn(number, shape.channels, shape.height, shape.width, generator=Key(0)("images").generator())
        return Split(noise, torch.arange(number) % 10).to(check.device)

    protocol = Protocol(networks=2, epochs=2) if check.small else Protocol()
    few, test = images(10), images(100 if check.small else 10_000)
    seconds = check.seconds(lambda: evaluate(of, lambda _: few, protocol, Key(0), {"test": test}), 1)
    say("evaluation of 10 images", networks=protocol.networks, epochs=protocol.epochs, seconds=seconds)
    many = images(640 if check.small else 54_000)
    epoch = replace(protocol, epochs=1)
    say("an epoch", images=len(many.labels), seconds=check.seconds(lambda: train(of, many, epoch, Key(0)), 2))


def released(check: Check, say: Say) -> None:
    """The released code beside the engine, eager and captured, on the same inputs."""
    if not check.reference:
        say("released code", skipped="no --reference")
        return
    for dataset in ("cifar10", "fashion_mnist"):
        words = ["hypergradient", "--dataset", dataset, "--device", str(check.device), "--repeats", "2", "--no-peak"]
        words += ["--without", "full graph", "--json", "--execution", "eager", "captured"]
        words += ["--reference", check.reference, "--steps", "2" if check.small else "150"]
        done = _command("tools.bench", words, max(20.0, check.left - 10))
        if done.returncode:
            say("released code", dataset=dataset, failed=done.stderr[-600:])
            continue
        rows = [{k: row[k] for k in ("contender", "seconds", "ratio")} for row in json.loads(done.stdout)["rows"]]
        say("released code", dataset=dataset, rows=rows)


def run(check: Check, say: Say) -> None:
    """Fashion-MNIST at 1 image per class, from where it was; what it has reached is packed for the next stay."""
    packed = check.out / "runs.tar.gz"
    if check.runs.is_file():
        with tarfile.open(check.runs) as tar:
            tar.extractall(check.out.parent / "gpu-runs", filter="data")
    table = ["--gin", "gin/ablation_components.gin", "--only", "data set=fashion_mnist", "--only", "1 I/C"]
    words = ["--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin"] if check.small else table
    words += ["--set", "SEEDS = [0]", "--device", str(check.device), "--tracking-uri", "none"]
    words += ["--out", str(check.out.parent / "gpu-runs"), "--data-dir", check.data_dir]
    with (check.out / "run.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "suite.run", *words], stderr=log, stdout=log)
        try:
            process.wait(timeout=max(5.0, min(check.left - 2 * STOP_SECONDS, RUN_SECONDS)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(check.out.parent / "gpu-runs", arcname=".", filter=lambda item: None if "cache" in item.name else item)
    say("run", status=process.returncode, tail=(check.out / "run.log").read_text()[-1500:])


def settings(check: Check, say: Say) -> None:
    """Seconds of a captured outer step with and without deterministic kernels."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        for label, deterministic, tuned in (("as it is", True, False), ("any", False, False), ("tuned", False, True)):
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = tuned
            for name in list(cases(check))[: 1 if check.small else 3]:
                if check.left < 40:
                    return
                with _saying(say, "deterministic kernels", case=name, label=label):
                    step = outer_step(cases(check)[name], replace(ENGINE, execution="captured"))
                    step()
                    say("deterministic kernels", case=name, label=label, seconds=check.seconds(step, 2))
                _free(check)
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


_IN_ORDER = machine, correct, times, kernels, at_once, evaluation, released, run, settings
STAGES = {stage.__name__: stage for stage in _IN_ORDER}
"""In order."""


# ---------------------------------------------------------------- parts


@contextmanager
def _saying(say: Say, what: str, **about: Any) -> Iterator[None]:
    """A figure that fails is said, and does not end its stage."""
    try:
        yield
    except Exception as error:  # whatever it is, the next figure is worth having
        say(what, **about, failed=f"{type(error).__name__}: {error}"[:600])
        traceback.print_exc(file=sys.stderr)


@contextmanager
def _tf32(wanted: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _microseconds(event: Any, check: Check) -> float:
    return float(event.self_device_time_total if check.cuda else event.self_cpu_time_total)


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[k], other[k]) for k in one)


def _free(check: Check) -> None:
    """Of the device's memory, what programs and the allocator keep."""
    forget_programs()
    if check.cuda:
        torch.cuda.empty_cache()


def _command(module: str, words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", "the time was up")


# ---------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--seconds", type=number_option(float, Above(0)), default=555.0, help="for all stages (555)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="NAME")
    parser.add_argument("--reference", default="", metavar="CHECKOUT", help="of the released code")
    parser.add_argument("--data-dir", default=os.environ.get("SUITE_DATA_DIR", "data"), help="of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, default=Path("runs.tar.gz"), help="packed runs of an earlier stay")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the stages")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        device = prepare_device(options.device)
    except SuiteError as error:
        print(f"tools.gpu_check: {error}", file=sys.stderr)
        return error.status
    options.out.mkdir(parents=True, exist_ok=True)
    where = options.out, device, options.small, options.reference, options.data_dir, options.runs
    check = Check(*where, began + options.seconds, began)
    with (options.out / "gpu_check.jsonl").open("a") as file:

        def say(what: str, **figures: Any) -> None:
            check.say(file, what, **figures)

        for name in options.stages:
            if check.left < 2 * STOP_SECONDS:
                say("no time", stage=name)
                continue
            stage_began = time.monotonic()
            with _saying(say, "stage", name=name):
                STAGES[name](check, say)
                say("stage", name=name, took=round(time.monotonic() - stage_began, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
