"""Whatever is wrong with what a command is given: one sentence, the right exit status, and never a traceback."""

import errno
import itertools
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from command_line import QUICK, REPOSITORY, TABLE, Done, command, ended, main, only_run, said, sets, start

from suite import check
from suite.datasets.sources import default_data_dir
from suite.memory import Memory
from suite.registry import REGISTRIES, describe
from suite.runtime import session
from suite.storage.files import user_path

UNTRACKED = ["--tracking-uri", "none"]


@dataclass(frozen=True)
class Place:
    """Where a case works: an output directory, a data directory of its own and the shared one, pytest's patches."""

    out: Path
    own_data: Path
    data: Path
    patch: pytest.MonkeyPatch

    def quick(self, *more: str | Path) -> Done:
        return command(*QUICK, *UNTRACKED, "--data-dir", self.data, "--out", self.out, *more)

    def own(self, *more: str | Path) -> Done:
        return command(*QUICK, *UNTRACKED, "--data-dir", self.own_data, "--out", self.out, *more)


@pytest.fixture
def place(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("there is no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return Place(tmp_path / "out", tmp_path / "data", data_dir, monkeypatch)


# ---------------------------------------------------------------- data


def missing_data(place: Place) -> Done:
    return place.own(*sets("DATASET = @datasets.cifar10()"))


def missing_tiny_imagenet(place: Place) -> Done:
    return place.own(*sets("DATASET = @datasets.tiny_imagenet()"))


def damaged_source(place: Place) -> Done:
    place.own_data.mkdir()
    (place.own_data / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b" + bytes(1000))
    return place.own(*sets("DATASET = @datasets.cifar10()"))


def damaged_cache(change: Callable[[bytes], bytes]) -> Callable[[Place], Done]:
    def case(place: Place) -> Done:
        cache = place.own_data / "cache"
        cache.mkdir(parents=True)
        place.quick()  # so that there is one to take
        (source,) = (place.data / "cache").glob("digits-*.safetensors")
        (cache / source.name).write_bytes(change(source.read_bytes()))
        return place.own("--seed", "1")

    return case


def flipped(content: bytes) -> bytes:
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


def data_directory_is_a_file(place: Place) -> Done:
    place.own_data.write_text("in the way")
    return place.own()


def damaged_control(place: Place) -> Done:
    control = sets("FULL_DATA_EPOCHS = 1", "NETWORKS = 1")
    assert place.quick(*control).status == 0
    for kept in (place.out / "cache" / "controls").glob("*.json"):
        kept.write_text(kept.read_text()[:-20])
    return place.quick(*control, "--fresh")


# ---------------------------------------------------------------- disk


def out_is_a_file(place: Place) -> Done:
    place.out.write_text("in the way")
    return place.quick()


def run_is_a_file(place: Place) -> Done:
    assert place.quick().status == 0
    directory = only_run(place.out)
    directory.rename(place.out / "elsewhere")
    directory.write_text("in the way")
    return place.quick()


def out_is_on_no_file_system(place: Place) -> Done:
    return command(*QUICK, *UNTRACKED, "--data-dir", place.data, "--out", "/proc/no/such/place")


def full_disk(nth: int) -> Callable[[Place], Done]:
    """From the n-th file on there is no room."""

    def case(place: Place) -> Done:
        place.quick("--seed", "9")  # the data set is there
        calls = 0
        fsync = os.fsync

        def full(handle: int) -> None:
            nonlocal calls
            calls += 1
            if calls >= nth:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        place.patch.setattr(os, "fsync", full)
        done = place.quick()
        place.patch.setattr(os, "fsync", fsync)
        return done

    return case


# ---------------------------------------------------------------- numbers


def not_finite(*bindings: str) -> Callable[[Place], Done]:
    return lambda place: place.quick(*sets(*bindings))


# ---------------------------------------------------------------- earlier runs


def damaged_record(text: str) -> Callable[[Place], Done]:
    def case(place: Place) -> Done:
        assert place.quick(*sets("NETWORKS = 1")).status == 0
        (only_run(place.out) / "result.json").write_text(text)
        return place.quick(*sets("NETWORKS = 1"))

    return case


def damaged_checkpoints(place: Place) -> Done:
    assert place.quick().status == 0
    directory = only_run(place.out)
    (directory / "result.json").unlink()
    for manifest in directory.glob("checkpoints/*/manifest.json"):
        manifest.write_bytes(b"")
    return place.quick()


def interrupted(place: Place) -> Done:
    progress = session.RunSession.progress

    def went(self: session.RunSession, iteration: int, total: int, words: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        progress(self, iteration, total, words)

    place.patch.setattr(session.RunSession, "progress", went)
    return place.quick(*sets("ITERATIONS = 1"))


def interrupted_before_the_first_run(place: Place) -> Done:
    import suite.registry

    def interrupt() -> None:
        raise KeyboardInterrupt

    place.patch.setattr(suite.registry, "load_components", interrupt)
    return place.quick()


# ---------------------------------------------------------------- the table

TIMM = ["--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin", *sets("ARCHITECTURE = @architectures.timm()")]
BATCH_NORM = ["resnet18 keeps running statistics", "'instance'"]
ELSEWHERE = sets("TRANSFER = [@a/architectures.timm()]", "a/architectures.timm.norm = 'group'")


def elsewhere(model: str, *more: str) -> Callable[[Place], Done]:
    return lambda p: p.quick(*ELSEWHERE, *sets(f"a/architectures.timm.model = '{model}'"), *more)


def files(contents: dict[str, str], *arguments: str) -> Callable[[Place], Done]:
    """A dry run after these files are written; '{}' in an argument stands for their folder."""

    def case(place: Place) -> Done:
        place.own_data.mkdir()
        for name, text in contents.items():
            (place.own_data / name).write_text(text)
        return place.quick(*(a.replace("{}", str(place.own_data)) for a in arguments), "--dry-run")

    return case


OWN = """
from __future__ import annotations
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
import numpy as np
from suite.registry import inner_optimizers
if TYPE_CHECKING:
    from numbers import Number

@inner_optimizers.register("own")
@dataclass(frozen=True)
class Own:
    lr: FIELD
    def init(self, params): return {}
    def step(self, params, grads, state): return {k: w - 0.1 * grads[k] for k, w in params.items()}, state
"""
USED = ("--plugin", "{}/own.py", *sets("INNER_OPTIMIZER = @inner_optimizers.own()"))
NUMBERS = itertools.count()


def own(declared: str) -> Callable[[Place], Done]:
    """A plugin whose optimizer has one field, so declared, used in a dry run."""
    name = f"own_{next(NUMBERS)}"  # a name is registered once
    code = OWN.replace("FIELD", declared).replace('"own"', f'"{name}"')
    return files({"own.py": code}, *(word.replace("optimizers.own(", f"optimizers.{name}(") for word in USED))


INCLUDES = {
    "a.gin": "include '{}/b.gin'\n",
    "b.gin": "include '{}/a.gin'\n",
}


def circle(place: Place) -> Done:
    contents = {name: text.replace("{}", str(place.own_data)) for name, text in INCLUDES.items()}
    return files(contents, "--gin", "{}/a.gin")(place)


TEXTS = ["run.axes must look like", "'10', not 10"]
CHOSEN = sets("run.choose = 'momentum'", f"run.axes = {TABLE!r}", "experiments.distillation.validation = 0.0")
FILES = (1, 3, 5, 7, 12, 15)
CASES: dict[str, tuple[Callable[[Place], Done], int, list[str]]] = {
    # what: (the command, its exit status, words of its one line)
    "no configuration": (lambda p: command(), 2, ["--gin gin/quickstart.gin"]),
    "missing gin file": (lambda p: command("--gin", "gin/quick.gin"), 2, ["no file gin/quick.gin", "quickstart.gin"]),
    "unknown data set": (lambda p: p.quick(*sets("DATASET = @datasets.digit()")), 2, ["did you mean 'digits'"]),
    "unknown macro": (lambda p: p.quick(*sets("EPOCH = 3")), 2, ["did you mean EPOCHS"]),
    "wrong type": (lambda p: p.quick(*sets("EPOCHS = 'x'")), 2, ["Protocol.epochs", "whole number"]),
    "out of range": (lambda p: p.quick(*sets("NETWORKS = 0")), 2, ["Protocol.networks", "above 0"]),
    "unknown kind to list": (lambda p: command("--list", "dataset"), 2, ["did you mean 'datasets'"]),
    "missing plugin": (lambda p: p.quick("--plugin", "none.py"), 2, ["no file none.py"]),
    "cell of no table": (lambda p: p.quick("--only", "a=b"), 2, ["no cell is 'a=b'", "no cells"]),
    "impossible budget": (lambda p: p.quick(*sets("addressing.bases = 64")), 2, ["64 bases", "at most 8 bases fit"]),
    "factor that does not divide": (
        lambda p: p.quick(
            *sets("PARAMETERIZATION = @parameterizations.downsampled()", "parameterizations.downsampled.factor = 3")
        ),
        2,
        ["1/3", "must divide"],
    ),
    "images too small for the network": (
        lambda p: command(*TIMM[:4], *sets("architectures.convnet.depth = 5"), "--dry-run"),
        2,
        ["convnet"],
    ),
    "batch norm in a dry run": (lambda p: command(*TIMM, *sets("timm.model = 'resnet18'"), "--dry-run"), 2, BATCH_NORM),
    "batch norm": (
        lambda p: command(*TIMM, *sets("timm.model = 'resnet18'"), *UNTRACKED, "--data-dir", p.data, "--out", p.out),
        2,
        BATCH_NORM,
    ),
    "unknown timm model": (
        lambda p: command(*TIMM, *sets("timm.model = 'resnet_18'"), "--dry-run"),
        2,
        ["resnet_18"],
    ),
    "transfer to a model that is none": (elsewhere("resnet_18"), 2, ["resnet_18"]),
    "transfer to a model that is none, in a dry run": (elsewhere("resnet_18", "--dry-run"), 2, ["resnet_18"]),
    "transfer to a model of larger images": (elsewhere("inception_v3"), 2, ["can't be used on images of 1x8x8"]),
    "transfer to a model of one size": (elsewhere("vit_tiny_patch16_224"), 2, ["vit_tiny", "1x8x8"]),
    "a choice without validation images": (lambda p: p.quick(*CHOSEN), 2, ["run.choose", "sets none aside"]),
    "files that include each other": (circle, 2, ["a.gin", "includes itself"]),
    "a file that includes itself": (files({"a.gin": "include 'a.gin'"}, "--gin", "{}/a.gin"), 2, ["a.gin"]),
    "an import that raises": (files({"a.gin": "import suite.nothing"}, "--gin", "{}/a.gin"), 2, ["a.gin", "nothing"]),
    "an include in a binding": (lambda p: p.quick(*sets("include 'gin/lr=0.1.gin'")), 2, ["--set", "lr=0.1.gin"]),
    "an import in a binding": (lambda p: p.quick(*sets("import nosuch # =")), 2, ["--set", "nosuch"]),
    "an infinite rate": (lambda p: p.quick(*sets("OUTER_LR = 1e999"), "--dry-run"), 2, ["inf", "finite"]),
    "an infinite budget": (lambda p: p.quick(*sets("IMAGES_PER_CLASS = 1e999"), "--dry-run"), 2, ["inf", "finite"]),
    "an infinite clip": (lambda p: p.quick(*sets("CLIP = 1e999"), "--dry-run"), 2, ["inf", "finite"]),
    "labels of numbers": (lambda p: p.quick(*sets("run.axes = {'ic': {1: ['EPOCHS = 1']}}")), 2, TEXTS),
    "bindings of numbers": (lambda p: p.quick(*sets("run.axes = {'ic': {'a': [1]}}")), 2, TEXTS),
    "an axis of a number": (lambda p: p.quick(*sets("run.axes = {1: {'a': ['EPOCHS = 1']}}")), 2, TEXTS),
    "a plugin that ends all": (
        files({"own.py": "import sys; sys.exit(0)"}, *USED),
        2,
        ["own.py", "SystemExit"],
    ),
    "a plugin that raises three lines": (
        files({"own.py": "raise ValueError('one\\ntwo\\nthree')"}, *USED),
        2,
        ["own.py", "ValueError: one two three"],
    ),
    "a plugin that is no Python": (files({"own.py": "def"}, *USED), 2, ["own.py", "SyntaxError"]),
    "a field of a type for checkers": (own("Number = 1"), 2, ["Own", "Number", "TYPE_CHECKING"]),
    "a field of a type that is nowhere": (own("Nothing = 1"), 2, ["Own", "Nothing"]),
    "a field of infinity": (own("Any = float('inf')"), 2, ["inf", "finite"]),
    "a home of nobody": (lambda p: p.quick("--data-dir", "~nobody-of-this-name/x"), 2, ["--data-dir", "no home"]),
    "an output in a home of nobody": (lambda p: p.quick("--out", "~nobody-of-this-name/x"), 2, ["--out", "no home"]),
    "no such device": (lambda p: p.quick("--device", "gpu"), 2, ["'gpu' is not a device"]),
    "device of another maker": (lambda p: p.quick("--device", "mps"), 2, ["'mps'", "cpu, cuda"]),
    "device that is not there": (lambda p: p.quick("--device", "cuda:99"), 2, ["no cuda:99", "use cpu"]),
    "missing data": (missing_data, 1, ["cifar10", "cifar-10", "suite.datasets.prepare cifar10"]),
    "missing data of another set": (missing_tiny_imagenet, 1, ["tiny_imagenet", "suite.datasets.prepare"]),
    "damaged source": (damaged_source, 1, ["cifar-10-python.tar.gz"]),
    "truncated cache": (damaged_cache(lambda content: content[:-7]), 1, ["digits-", "is damaged", "delete it"]),
    "emptied cache": (damaged_cache(lambda content: b""), 1, ["digits-", "is damaged", "delete it"]),
    "altered cache": (damaged_cache(flipped), 1, ["digits-", "is damaged", "delete it"]),
    "data directory is a file": (data_directory_is_a_file, 1, ["can't write", "data"]),
    "damaged control": (damaged_control, 1, ["controls", ".json"]),
    "out is a file": (out_is_a_file, 1, ["can't write", "out", "choose another place"]),
    "out is nowhere": (out_is_on_no_file_system, 1, ["can't write", "/proc/no"]),
    "a file in the way of the run": (run_is_a_file, 1, ["can't write", "seed0-"]),
    **{
        f"full disk from file {n}": (full_disk(n), 1, ["No space left", "free some room"]) for n in (1, 3, 5, 7, 12, 15)
    },
    "NaN from the outer rate": (not_finite("OUTER_LR = 1e30"), 1, ["outer step", "NaN or infinite", "is kept in"]),
    "NaN in the first step": (
        not_finite("inner_optimizers.sgd_momentum.lr = 1e30", "OUTER_LR = 1.0"),
        1,
        ["outer step 1", "loss", "memory of step 0 is kept"],
    ),
    "record that is no JSON": (damaged_record("{"), 1, ["result.json", "--fresh"]),
    "record of something else": (damaged_record('{"a": 1}'), 1, ["result.json", "'schema' is missing", "--fresh"]),
    "emptied record": (damaged_record(""), 1, ["result.json", "--fresh"]),
    "all checkpoints damaged": (damaged_checkpoints, 1, ["step-00000002", "--fresh"]),
    "interrupted": (interrupted, 75, ["SIGINT", "resumes"]),
    "interrupted at once": (interrupted_before_the_first_run, 75, ["nothing was lost"]),
}


QUESTIONS = dict(
    re.findall(r"<!-- case: (.+?) -->\n\*\*.+\*\*\n\n```text\n(.+)\n```", (REPOSITORY / "docs/faq.md").read_text())
)
"""Case -> the sentence that the page of questions answers, with … for what differs from one machine to the next."""


def test_every_question_is_about_a_case() -> None:
    text = (REPOSITORY / "docs/faq.md").read_text()
    assert len(QUESTIONS) == text.count("```text") >= 15 and set(QUESTIONS) <= set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("what", CASES)
def test_it_is_one_sentence_and_the_right_status(what: str, place: Place) -> None:
    case, status, words = CASES[what]
    done = case(place)
    complaint = done.complaint
    assert done.status == status, complaint
    asked = re.escape(QUESTIONS.get(what, "…")).replace("…", ".*")
    assert re.fullmatch(asked, complaint), f"docs/faq.md has another sentence than: {complaint}"
    assert all(word in complaint for word in words), complaint
    assert len(complaint) > 30 and not done.out
    if place.out.is_dir():
        assert not list(place.out.rglob("*.tmp"))


@pytest.mark.parametrize("arguments", [["--sed", "3"], ["--seed", "one"], ["--gin"], ["--drys"]])
def test_options_that_are_none_are_refused_in_the_usual_way(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As every command built on argparse: what can be asked, then what is wrong."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    output = capsys.readouterr().err
    assert output.startswith("usage: python -m suite.run") and arguments[0] in output.splitlines()[-1]


def test_after_nan_the_last_good_memory_is_there_and_the_metrics_name_no_nan(place: Place) -> None:
    """The rate overshoots so far that some step after the first gives no number."""
    done = place.quick(*sets("OUTER_LR = 1e30", "ITERATIONS = 9"))
    assert done.status == 1
    step = int(done.complaint.split("outer step ")[1].split(":")[0])
    assert 1 <= step <= 9 and f"the memory of step {step - 1} is kept" in done.complaint
    memory = Memory.load(only_run(place.out) / "memory.safetensors")
    assert all(torch.isfinite(v).all() for v in memory.tensors.values())
    again = place.quick(*sets("OUTER_LR = 1e30", "ITERATIONS = 9"))  # it goes on, to the same end
    assert again.status == 1 and f"outer step {step}:" in again.complaint


@pytest.mark.slow
def test_after_a_full_disk_the_same_command_goes_on(place: Place) -> None:
    done = full_disk(8)(place)
    assert done.status == 1 and "No space left" in done.complaint
    assert place.quick().status == 0
    clean = command(*QUICK, *UNTRACKED, "--data-dir", place.data, "--out", place.out / "clean")
    assert clean.status == 0
    directories = [p for p in place.out.glob("**/*seed0-*") if p.is_dir()]
    memories = {(p / "memory.safetensors").read_bytes() for p in directories}
    assert len(directories) == 2 and len(memories) == 1


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/no/such/place/mlflow.db"])
def test_a_tracking_store_that_does_not_answer_costs_no_run(uri: str, place: Place) -> None:
    done = ended(start(*QUICK, "--data-dir", place.data, "--out", place.out, "--tracking-uri", uri))
    assert done.status == 0 and "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("[tracking] ")]
    assert any(f"the tracking store {uri} did not" in line for line in lines[:-1])
    assert "python" in lines[-1] and f"-m suite.sync {place.out} --tracking-uri {uri}" in lines[-1]


@pytest.mark.parametrize("uri", ["nonsense://somewhere", "mlruns", "", "sqlite"])
def test_what_can_not_be_a_tracking_store_is_refused_before_anything_starts(uri: str, place: Place) -> None:
    done = command(*QUICK, "--data-dir", place.data, "--out", place.out, "--tracking-uri", uri)
    assert done.status == 2 and f"'{uri}' is no tracking store" in done.complaint and "none" in done.complaint


@pytest.mark.parametrize("content", [None, b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_memory_file_that_is_none(content: bytes | None, tmp_path: Path) -> None:
    """In Python, since memories are read there."""
    from suite.errors import RunError

    file = tmp_path / "memory.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RunError) as error:
        Memory.load(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("declared", ["Any = np.float32(0.1)", "Any = np.int64(3)", "bool = True"])
def test_a_plugin_s_numbers_may_be_of_numpy(declared: str, place: Place) -> None:
    done = own(declared)(place)
    assert done.status == 0, done.err


def test_two_plugins_of_one_stem_are_two(place: Place, tmp_path: Path) -> None:
    code = OWN.replace("FIELD", "float = 0.1")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(code.replace('"own"', f'"own_{name}"') + f"# {name}\n")
    plugins = [word for name in ("one", "two") for word in ("--plugin", str(tmp_path / name / "mine.py"))]
    digests = []
    for name in ("one", "two"):
        done = place.quick(*plugins, *sets(f"INNER_OPTIMIZER = @inner_optimizers.own_{name}()"), "--dry-run")
        assert done.status == 0, done.err
        (kind,) = {type(entry.build()) for entry in REGISTRIES["inner_optimizers"] if entry.name == f"own_{name}"}
        digests.append(describe(kind())["source"])
    assert digests[0] != digests[1]


LABELLED = """
from dataclasses import dataclass
from typing import ClassVar
import torch
from suite.registry import controls
from suite.types import Split

@controls.register("labelled")
@dataclass(frozen=True)
class Labelled:
    \"\"\"The first images of every class.\"\"\"
    label: ClassVar[str] = "first images (no draw), k=1"
    over: ClassVar[str] = "evaluation networks"
    def choose(self, setting, real, each, key):
        rows = torch.cat([r[:each] for r in real.rows])
        return lambda network: Split(real.split.images[rows], real.split.labels[rows])
"""


def test_the_check_of_a_method_says_where_a_tracker_is_told_another_name(tmp_path: Path) -> None:
    (tmp_path / "labelled.py").write_text(LABELLED)
    done = said(check.main, [str(tmp_path / "labelled.py")])
    assert done.status == 0 and "note   a tracker is told another name" in done.out, done.out + done.err
    assert "another name" not in said(check.main, ["--kind", "controls", "--name", "herding"]).out


@pytest.mark.parametrize(("kind", "unnamed"), [("datasets", 3), ("architectures", 1)])
def test_every_component_of_a_kind_is_checked_though_some_have_no_default(kind: str, unnamed: int) -> None:
    done = said(check.main, ["--kind", kind])
    assert done.status == 0 and "every promise is kept" in done.out
    assert done.out.count("it was not tried, since it has no default") == unnamed


def test_a_home_is_meant_where_a_shell_left_it(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_data_dir() == tmp_path / "home" / ".cache" / "addressable-memory-suite"
    monkeypatch.setenv("SUITE_DATA_DIR", "~/images")
    assert default_data_dir() == tmp_path / "home" / "images"
    assert user_path("~/runs", "--out") == tmp_path / "home" / "runs"
