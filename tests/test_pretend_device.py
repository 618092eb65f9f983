"""All runs on a pretend GPU: no device is mixed up, figures are those of the CPU, and the host seldom waits or copies.

The pretend device changes torch for a whole process, so each test here has a process of its own for all its cases.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gin
import pretend_device
import pytest
import torch
from command_line import REPOSITORY, command, ended, start
from pretend_device import Counts, MixedDevicesError, counted
from test_gin_files import FILES, line
from torch import Tensor

from suite import run as run_module
from suite.architectures.convnet import ConvNet
from suite.contracts.problem import relative_error
from suite.core import device as device_module
from suite.core.outer_loop import OuterState, step
from suite.doctor import self_test
from suite.experiments import learning
from suite.experiments.continual import compressing
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.objectives.distribution_matching import DistributionMatching
from suite.objectives.gradient_matching import GradientMatching
from suite.objectives.judged_often import JudgedOften
from suite.objectives.pool import Pool
from suite.objectives.windows import Windows
from suite.parameterizations.addressing import Addressing
from suite.registry import load_components
from suite.types import ClassRows, ImageShape, Objective, Setting, Split
from tools.contenders import Double

# ---------------------------------------------------------------- what happens in a process of its own


def prepared() -> torch.device:
    """The pretend device, which commands know as 'pretend'."""
    load_components()
    torch.set_num_threads(1)
    pretended, real = pretend_device.install(), device_module.prepare_device
    device_module.prepare_device = lambda name, *place: pretended if name == "pretend" else real(name, *place)
    return pretended


def narrow_networks() -> None:
    """Have ConvNets of eight channels, to save time: which tensors meet is the same."""
    build = ConvNet.build
    ConvNet.build = lambda self, *given: build(replace(self, width=min(self.width, 8)), *given)  # type: ignore[method-assign]


def refused() -> dict[str, bool]:
    """Whether the pretend device refuses what a GPU refuses."""
    here, there = torch.ones(3), torch.ones(3).to("pretend")
    tried: dict[str, Callable[[], object]] = {
        "a sum": lambda: here + there,
        "a product": lambda: there @ here,
        "rows by the device": lambda: here[there.long()],
        "a row written": lambda: there.index_copy_(0, torch.tensor([1]), there[:1]),
    }
    found = {}
    for name, call in tried.items():
        try:
            call()
        except MixedDevicesError:
            found[name] = True
        else:
            found[name] = False
    return found


def counted_at_all() -> dict[str, Any]:
    """What some operations count as."""
    given = torch.ones(3).to("pretend")
    found = {}
    for name, call in {
        "item": lambda: given.sum().item(),
        "list": lambda: given.tolist(),
        "mask": lambda: given[given > 0],
        "to host": lambda: given.cpu(),
        "from host": lambda: torch.ones(3).to("pretend"),
        "new tensor": lambda: torch.tensor(1.0, device="pretend"),
        "index from host": lambda: given[torch.tensor([1, 2])],
        "nothing": lambda: torch.arange(3, device="pretend") * 2.0 + given,
    }.items():
        with counted() as counts:
            call()
        found[name] = counts.per_step(1)
    return found


SHORT = BPTT(inner_steps=3, real_per_class=4)
OBJECTIVES: dict[str, tuple[Objective, str]] = {
    "bptt": (SHORT, "none"),
    "bptt, rotated": (SHORT, "flip_rotate"),
    "bptt, captured": (replace(SHORT, execution="captured"), "none"),
    "gradient matching": (GradientMatching(real_per_class=4), "flip_rotate"),
    "distribution matching": (DistributionMatching(real_per_class=4), "flip_rotate"),
    "windows": (Windows(of=SHORT, window=2), "flip_rotate"),
    "judged often": (JudgedOften(of=SHORT), "none"),
    "pool": (Pool(of=SHORT, networks=2, oldest=9), "none"),
}
STEPS = 3


def outer_steps(name: str, where: torch.device) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """What the host does in an outer step, after a first; and how the memory differs after each."""
    objective, augmentation = OBJECTIVES[name]
    shape, classes = ImageShape(1, 8, 8), 3
    setting = Setting(shape, classes, Double(ConvNet(width=3, depth=2)), Addressing(bases=3), augmentation, where)
    memory = {k: v.double().to(where) for k, v in setting.parameterization.init(shape, classes, 2, Key(0)).items()}
    images = torch.randn(24, 1, 8, 8, generator=Key(1).generator(), dtype=torch.float64)
    real = ClassRows.of(Split(images, torch.arange(24) % classes).to(where), classes)
    optimizer = SGDMomentum(lr=0.1)
    state = OuterState(0, memory, optimizer.init(memory), {})
    memories, counts, begun = [], Counts(), {k: v.cpu() for k, v in memory.items()}
    for i in range(1 + STEPS):
        with counted() as these:
            state = step(setting, objective, optimizer, real, state, Key(2), 2.0)
        if i > 0:  # the first step plans and builds
            counts.add(these)
        memories.append({k: v.cpu() - begun[k] for k, v in state.memory.items()})
    return counts.per_step(STEPS), memories


def objectives() -> dict[str, Any]:
    """For each objective what the host does in an outer step, and the error of the memory against the CPU's."""
    where, found = prepared(), {}
    for name in OBJECTIVES:
        counts, memories = outer_steps(name, where)
        _, expected = outer_steps(name, torch.device("cpu"))
        errors = [relative_error(one, other) for one, other in zip(memories, expected, strict=True)]
        found[name] = counts | {"error": max(errors)}
    found["permutations"] = compressed("permutations", "--only", "method=compress-then-recall")
    found["with_stand_ins"] = compressed("with_stand_ins")
    recipe = ("--gin", "gin/recipe/streams.gin", "--set", "ABSORBED = 100", "--only", "method=compress-then-recall")
    found["permutations, fast recipe"] = compressed("permutations", *recipe)
    looked = {"doctor": self_test.self_test(where)}
    return {"objectives": found, "refused": refused(), "counted": counted_at_all(), **looked}


def compressed(stem: str, *more: str) -> dict[str, Any]:
    """What the host does in an outer step of compress-then-recall, logged once."""
    learn, counts, steps = learning.learn, Counts(), 0

    def counting(session: Any, state: Any, one: Any, iterations: int, *others: Any) -> Any:
        nonlocal steps
        steps += iterations
        with counted() as these:
            after = learn(session, state, one, iterations, *others)
        counts.add(these)
        return after

    compressing.learn = counting  # type: ignore[attr-defined]
    logged, learning.LOGGED_POINTS = learning.LOGGED_POINTS, 1  # type: ignore[attr-defined]
    (file,) = (file for file in FILES if file.stem == stem)
    with tempfile.TemporaryDirectory() as out:
        done = on_the_device(file, Path(out), "--set", "SAMPLES = 200", "--set", "REPLAY = 2", *more)
    compressing.learn, learning.LOGGED_POINTS = learn, logged  # type: ignore[attr-defined]
    assert done.status == 0, done.err
    return counts.per_step(steps)


def on_the_device(file: Path, out: Path, *more: str) -> Any:
    gin.clear_config(clear_constants=True)
    place = ["--data-dir", out / "data", "--out", out, "--tracking-uri", "none", "--device", "pretend"]
    return command(*(line(file, "Smoke") or []), *more, *place)


PARTS = 2
"""Processes that share the smoke commands, so that those who run tests side by side have equal work."""


def commands(part: int) -> dict[str, str]:
    """What went wrong in the smoke command of each file of one of the PARTS.

    Nothing is foretold: it takes a third of the time, and an error in it is no error of the command.
    """
    prepared()
    narrow_networks()
    run_module._announce = lambda *_given: None  # type: ignore[assignment]
    found = {}
    with tempfile.TemporaryDirectory() as out:
        for file in [file for file in FILES if line(file, "Smoke")][part::PARTS]:
            done = on_the_device(file, Path(out))
            found[file.stem] = "" if done.status == 0 else done.err[-1000:]
            if file.stem == "image_recall":
                done = on_the_device(file, Path(out), "--gin", "gin/recipe/recall.gin", "--set", "DIMENSION = 10")
                found["image_recall, fast recipe"] = "" if done.status == 0 else done.err[-1000:]
    return found


def in_its_own_process(call: str) -> Any:
    code = f"import json, test_pretend_device as cases; print(json.dumps(cases.{call}))"
    done = ended(start(code=["-c", code], env={"PYTHONPATH": str(REPOSITORY / "tests")}))
    assert done.status == 0, done.err[-3000:]
    return json.loads(done.out.splitlines()[-1])


# ---------------------------------------------------------------- the tests


MOST = {
    "bptt": (1, 2),
    "bptt, rotated": (1, 2),
    "bptt, captured": (1, 2),
    "gradient matching": (1, 2),
    "distribution matching": (1, 2),
    "windows": (1, 2),
    "judged often": (1, 2),
    "pool": (2, 3),
    "permutations": (1.1, 3),
    "with_stand_ins": (1.1, 4),
    "permutations, fast recipe": (1.1, 3),
}
"""Waits of the host and copies from it in an outer step, by objective or file; a pool draws a network now and then."""


@pytest.mark.slow
def test_outer_steps_wait_and_copy_seldom_and_give_the_cpu_s_memories() -> None:
    found = in_its_own_process("objectives()")
    assert set(found["objectives"]) == set(MOST)
    assert found["doctor"]["device"].startswith("pretend") and self_test.problems(found["doctor"]) == []
    for name, of in found["objectives"].items():
        most_waits, most_copies = MOST[name]
        assert of["waits"] <= most_waits and of["copies"] <= most_copies, (name, of)
        assert of.get("error", 0) < 1e-12, (name, of)
    assert all(found["refused"].values()), found["refused"]
    counted_as = {name: (of["waits"], of["copies"]) for name, of in found["counted"].items()}
    once = dict.fromkeys(["item", "list", "mask", "to host"], (1, 0))
    once |= dict.fromkeys(["from host", "new tensor", "index from host"], (0, 1))
    assert counted_as == once | {"nothing": (0, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_smoke_command_runs_on_the_device(part: int) -> None:
    found = in_its_own_process(f"commands({part})")
    assert len(found) >= 20 // PARTS
    assert not any(found.values()), found
