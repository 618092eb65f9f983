"""What commit f826854 wrote stays readable, and what it began goes on: run keys, runs and memories (`tests/kept/`).

Keys, and what was learned and measured before the stop, are held to the bit. What is computed after it is so on the
machine that made the files, and nearly the same on others, whose kernels add up in another order.
"""

import csv
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import REPOSITORY, Done, ask, command, ended, only_run, resolve, start
from safetensors.torch import load_file
from torch import Tensor

from suite.memory import Memory
from suite.runtime.record import label
from suite.runtime.record_schema import upgraded

KEPT = REPOSITORY / "tests" / "kept"
WHOLE, MEMORIES = KEPT / "whole", KEPT / "memories"
PLACE = ("--seed", "0", "--tracking-uri", "none", "--device", "cpu")
POINTS = 3.0
"""Percent by which an accuracy may differ on another machine: of an episode's hundred images a few are near ties."""
OF_THE_MACHINE = {"sha256", "memory_sha256", "dataset_digest", "classifier"}
"""Facts that hang on the last bits, or print them."""


@dataclass(frozen=True)
class Begun:
    """A run that was killed at a checkpoint."""

    name: str
    arguments: tuple[str, ...]

    @property
    def out(self) -> Path:
        return KEPT / "begun" / self.name

    @property
    def directory(self) -> Path:
        return only_run(self.out)

    @property
    def whole(self) -> Path:
        """The directory of the same run, done without a stop."""
        return WHOLE / self.directory.relative_to(self.out)

    @property
    def key(self) -> str:
        return str(json.loads((self.directory / "run.json").read_text())["key"])

    @property
    def _checkpoint(self) -> Path:
        (found,) = (self.directory / "checkpoints").iterdir()
        return found

    @property
    def step(self) -> int:
        return int(self._checkpoint.name.removeprefix("step-"))

    @property
    def state(self) -> Any:
        return json.loads((self._checkpoint / "state.json").read_text())["state"]

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        found = load_file(self._checkpoint / "tensors.safetensors")
        return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


QUICKSTART = "gin/quickstart.gin"


def as_of_now(arguments: list[str]) -> tuple[str, ...]:
    """The arguments under which a file has the settings that it had: the quickstart's recipe was the paper's."""
    at = arguments.index("--set") if "--set" in arguments else len(arguments)
    recipe = ["--gin", "gin/recipe/paper.gin"] if QUICKSTART in arguments else []
    return (*arguments[:at], *recipe, *arguments[at:])


LINES = re.findall(r"^begun (\w+) (.*)$", (KEPT / "README.md").read_text(), re.MULTILINE)
BEGUN = {name: Begun(name, as_of_now(shlex.split(line)[1:])) for name, line in LINES}


@dataclass(frozen=True)
class GoneOn:
    """What became of it."""

    done: Done
    out: Path

    @property
    def directory(self) -> Path:
        return only_run(self.out)

    @property
    def record(self) -> Any:
        return record(self.directory)


@pytest.fixture(scope="module")
def gone_on(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Callable[[str], GoneOn]:
    """A copy of a begun run, gone on with by the command that began it; once for all tests."""

    @cache
    def go_on(name: str) -> GoneOn:
        out = copied(BEGUN[name].out, tmp_path_factory.mktemp(name))
        return GoneOn(command(*BEGUN[name].arguments, *PLACE, "--data-dir", data_dir, "--out", out), out)

    return go_on


def copied(directory: Path, to: Path) -> Path:
    return Path(shutil.copytree(directory, to / "runs"))


def record(directory: Path) -> Any:
    return json.loads((directory / "result.json").read_text())


def values(of: Any) -> dict[tuple[str, str], list[float]]:
    """What a record of either schema measured."""
    return {(label(measured), measured["split"]): measured["values"] for measured in upgraded(of)["measurements"]}


def rows(directory: Path) -> list[tuple[int, str, float]]:
    """Everything that was logged: iteration, metric, value."""
    _, *lines = csv.reader((directory / "metrics.csv").read_text().splitlines())
    return [(int(iteration), metric, float(value)) for iteration, metric, value in lines]


def memories(directory: Path) -> dict[str, dict[str, Tensor]]:
    files = [*directory.glob("memory.safetensors"), *directory.glob("memories/*.safetensors")]
    return {str(file.relative_to(directory)): Memory.load(file).tensors for file in files}


def machine() -> dict[str, str]:
    cpu = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    fields = dict(line.replace("\t", "").split(": ", 1) for line in cpu.split("\n") if ": " in line)
    about = {"processor": fields["model name"], "flags": hashlib.sha256(fields["flags"].encode()).hexdigest()[:16]}
    about["kernels"] = torch.backends.cpu.get_cpu_capability()
    return about | {name: version(name) for name in ("torch", "numpy", "scikit-learn")}


def same_machine() -> bool:
    try:
        return machine() == json.loads((KEPT / "machine.json").read_text())
    except (OSError, KeyError):  # not Linux, or a processor that tells less
        return False


# ---------------------------------------------------------------- begun runs

NEXT = {
    "distillation": "4/5",
    "compress_then_recall": "14/24, task 2",
    "replay": "4/6, network 2",
    "extrapolation": "6/14, task 3",
    "extrapolation_in_episodes": "2/3, episodes of 5-way",
    "image_recall": "4/4, asked with labels",
    "image_recall_in_episodes": "4/5, episodes of 2-way, 1 shot",
}
"""What is done first after the stop; of the run that was stopped in its evaluation nothing that is counted."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BEGUN)
def test_a_begun_run_is_found_and_goes_on_where_it_was_stopped(name: str, gone_on: Callable[[str], GoneOn]) -> None:
    begun, after = BEGUN[name], gone_on(name)
    assert after.done.status == 0, after.done.err
    assert f"resuming from the checkpoint of step {begun.step}\n" in after.done.err
    assert after.directory.relative_to(after.out) == begun.directory.relative_to(begun.out)
    assert after.record["run_key"] == begun.key == begun.directory.name.rpartition("-")[2]
    counted = re.findall(r"^\[.*?\] (\d+/\d+.*)$", after.done.err, re.MULTILINE)
    assert counted[:1] == [] if name not in NEXT else counted[0].startswith(NEXT[name])


@pytest.mark.parametrize("name", BEGUN)
def test_what_was_logged_before_the_stop_stays_and_every_later_point_is_added(
    name: str, gone_on: Callable[[str], GoneOn]
) -> None:
    before = [(iteration, metric, value) for metric, value, _, iteration in BEGUN[name].state["metrics"]]
    after = rows(gone_on(name).directory)
    assert after[: len(before)] == before
    assert [row[:2] for row in after] == [row[:2] for row in rows(BEGUN[name].whole)]


LEARNED = [
    ("compress_then_recall", "bank/0/", "memories/task-001.safetensors"),
    ("extrapolation", "task 1: ", "memories/task-001.safetensors"),
    ("extrapolation", "task 2: ", "memories/task-002.safetensors"),
    ("extrapolation_in_episodes", "task 5: ", "memories/task-005.safetensors"),
    ("image_recall", "asked with images: ", "memory.safetensors"),
    ("image_recall_in_episodes", "asked with images: ", "memory.safetensors"),
    ("evaluation", "memory/", "memory.safetensors"),
]


@pytest.mark.parametrize(("name", "prefix", "file"), LEARNED)
def test_a_memory_that_was_learned_before_the_stop_is_not_learned_again(
    name: str, prefix: str, file: str, gone_on: Callable[[str], GoneOn]
) -> None:
    before, after = BEGUN[name].tensors(prefix), memories(gone_on(name).directory)[file]
    assert before and before.keys() == after.keys()
    assert all(torch.equal(value, after[tensor]) for tensor, value in before.items())


@pytest.mark.parametrize("name", ["extrapolation_in_episodes", "image_recall_in_episodes"])
def test_an_episode_that_was_measured_before_the_stop_is_not_measured_again(
    name: str, gone_on: Callable[[str], GoneOn]
) -> None:
    measured = BEGUN[name].state["experiment"]["measured"]
    after = {kind: found for (kind, _), found in values(gone_on(name).record).items()}
    assert measured
    for kind, episodes in measured.items():
        assert [one["memory"] for one in map(dict, episodes)] == after[f"{kind}: memory"][: len(episodes)]
        for e, episode in enumerate(map(dict, episodes)):
            common = {what: value for what, value in episode.items() if f"{kind}: {what}" in after}
            assert {what: after[f"{kind}: {what}"][e] for what in common} == common


def test_a_network_that_was_through_the_stream_before_the_stop_is_not_trained_again(
    gone_on: Callable[[str], GoneOn],
) -> None:
    (matrix,) = BEGUN["replay"].state["experiment"]["matrices"]
    after = gone_on("replay")
    assert after.record["facts"]["matrices"][0] == matrix and "network 1" not in after.done.err


def test_a_network_that_was_evaluated_before_the_stop_is_not_evaluated_again(gone_on: Callable[[str], GoneOn]) -> None:
    after = gone_on("evaluation")
    kept = [json.loads(file.read_text()) for file in (BEGUN["evaluation"].directory / ".evaluation").iterdir()]
    before = {one["about"]["network"]: one["accuracy"] for one in kept}
    for split in ("test", "validation"):
        assert values(after.record)["memory", split] == [before[network][split] for network in (0, 1)]
    assert "evaluating random real images" in after.done.err and "evaluating the memory" not in after.done.err


@pytest.mark.parametrize("name", BEGUN)
def test_a_begun_run_comes_to_what_it_came_to_without_the_stop(name: str, gone_on: Callable[[str], GoneOn]) -> None:
    after, whole = gone_on(name).directory, BEGUN[name].whole
    one, two = record(after), record(whole)
    for part in ("experiment", "cell", "seed", "config", "budget", "scale"):
        assert one[part] == two[part], part
    learned, wanted = memories(after), memories(whole)
    assert {file: own.keys() for file, own in learned.items()} == {file: own.keys() for file, own in wanted.items()}
    if same_machine():
        assert values(one) == values(two) and one["facts"] == two["facts"] and rows(after) == rows(whole)
        assert all(torch.equal(learned[file][k], v) for file, own in wanted.items() for k, v in own.items())
        return
    assert values(one) == {what: pytest.approx(v, abs=POINTS) for what, v in values(two).items()}
    assert_near(one["facts"], two["facts"])
    for (_, metric, value), (_, _, expected) in zip(rows(after), rows(whole), strict=True):
        assert value == pytest.approx(expected, rel=1e-3, abs=POINTS if "accuracy" in metric else 1e-5), metric
    for file, own in wanted.items():
        for k, v in own.items():
            assert torch.allclose(learned[file][k], v, rtol=1e-3, atol=1e-4), (file, k)


def assert_near(one: Any, two: Any) -> None:
    """Two facts as two machines may tell them."""
    if isinstance(two, dict):
        assert one.keys() == two.keys()
        for name in two.keys() - OF_THE_MACHINE:
            assert_near(one[name], two[name])
    elif isinstance(two, list):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_near(a, b)
    elif isinstance(two, float):
        assert one == pytest.approx(two, rel=1e-3, abs=POINTS)
    else:
        assert one == two


@pytest.mark.slow
def test_a_begun_run_is_listed_and_resumed_from_what_its_directory_says(tmp_path: Path, data_dir: Path) -> None:
    begun = BEGUN["distillation"]
    out = copied(begun.out, tmp_path)
    about = only_run(out) / "run.json"
    about.write_text(about.read_text().replace('"data_dir": "data"', f'"data_dir": {json.dumps(str(data_dir))}'))
    listed = ask("list", "--json", "--out", out)
    (row,) = json.loads(listed.out)
    assert (row["state"], row["done"], row["total"]) == ("killed", 3, 5) and row["validation"] > 0
    done = ended(start("resume", "--out", out, code=["-m", "suite.runs"]))
    assert done.status == 0 and "resuming from the checkpoint of step 3\n" in done.err, done.err
    assert record(only_run(out))["run_key"] == begun.key


# ---------------------------------------------------------------- finished runs

FINISHED = {begun.whole: begun for begun in BEGUN.values()}


@pytest.mark.parametrize("begun", FINISHED.values(), ids=lambda begun: begun.name)
def test_a_finished_run_is_read_back(begun: Begun, tmp_path: Path, data_dir: Path) -> None:
    out = copied(WHOLE, tmp_path)
    done = command(*begun.arguments, *PLACE, "--data-dir", data_dir, "--out", out, "--json")
    assert done.status == 0 and "was done before" in done.err and "resuming" not in done.err, done.err
    before = record(begun.whole)
    assert done.record["run_key"] == before["run_key"] == begun.key
    assert values(done.record) == values(before) and done.record["facts"] == before["facts"]
    table = command(*begun.arguments, *PLACE, "--data-dir", data_dir, "--out", out)
    controls = [what for what, split in values(before) if split == "test" and what != "memory"]  # called by its method
    assert table.status == 0 and "test (95% interval)" in table.out and all(what in table.out for what in controls)


def test_the_text_in_a_run_s_directory_gives_that_run() -> None:
    texts = sorted(KEPT.rglob("config.gin"))
    assert len(texts) == len(BEGUN) + len(FINISHED)
    for text in texts:
        (run,) = resolve([str(text)])
        assert text.parent.name.endswith(f"-{run.key}"), text


# ---------------------------------------------------------------- memories

RECALLED = json.loads((MEMORIES / "recalled.json").read_text())


def assert_numbers(images: Tensor, kept: dict[str, Any]) -> None:
    assert list(images.shape) == kept["shape"]
    assert torch.allclose(images.flatten()[::97], torch.tensor(kept["every 97th"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["standard", "addressing", "downsampled", "beside"])
def test_a_memory_recalls_what_it_recalled(name: str) -> None:
    memory, kept = Memory.load(MEMORIES / f"{name}.safetensors"), RECALLED[name]
    images, labels = memory.recall()
    assert_numbers(images, kept["recall"])
    assert labels.bincount().tolist() == kept["of each class"]
    assert memory.class_names == tuple("0123456789") and memory.about["dataset"] == "digits"
    assert_numbers(memory.display()[0], kept["display"])


def test_a_memory_that_is_asked_with_images_recalls_what_it_recalled() -> None:
    memory = Memory.load(MEMORIES / "image_queries.safetensors")
    asked = torch.linspace(-1, 1, 3 * 64).view(3, 1, 8, 8)
    with torch.no_grad():
        images = memory.parameterization.recall(memory.tensors, asked)
    assert_numbers(images, RECALLED["image_queries"]["recall"])


def test_a_preprocessing_lies_beside_its_memory_and_is_missed_for_display_alone(tmp_path: Path) -> None:
    (matrix,) = MEMORIES.glob("preprocessing-*.safetensors")
    assert Memory.load(MEMORIES / "beside.safetensors").transform is not None
    alone = Memory.load(shutil.copy(MEMORIES / "beside.safetensors", tmp_path))
    assert alone.transform is None and len(alone.recall()[0]) == RECALLED["beside"]["recall"]["shape"][0]
    shutil.copy(matrix, tmp_path)
    assert Memory.load(tmp_path / "beside.safetensors").transform is not None


# ---------------------------------------------------------------- run keys

# 'may change' holds the files on streams that are to be others' settings: `rotations_star`, `permutations_star` and
# `many` are subclasses with other defaults, and `cifar100` names a stream for any data set. A stream's name is in the
# key. They are kept for whoever looks for such a run, and not held.
KEYS = json.loads((KEPT / "keys.json").read_text())["held"]
LATER = json.loads((KEPT / "later_keys.json").read_text())
"""Of cells and files that came after that commit."""


def settings_are_others(line: str) -> bool:
    """Whether a file of this line has got another recipe since: the quickstart, and everything at the scale `cpu`."""
    return QUICKSTART in line or line.endswith("gin/scale/cpu.gin")


@pytest.mark.parametrize("line", [line for line in {**KEYS, **LATER} if not settings_are_others(line)])
def test_run_keys_are_what_they_were(line: str) -> None:
    runs = resolve(line.split())
    runs += [run.then for run in runs if run.then is not None]
    assert {run.label: run.key for run in runs} == KEYS.get(line, {}) | LATER.get(line, {})


# ---------------------------------------------------------------- the files themselves


def test_nothing_kept_names_a_place_of_the_machine_that_made_it() -> None:
    for part in ("begun", "whole", "memories"):
        for file in (KEPT / part).rglob("*"):
            if file.is_file():
                assert not re.search(rb"/(tmp|work|home|root|Users)/", file.read_bytes()), file
