"""README and docs say what is true: every command in them runs here, and their examples work as printed."""

import importlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import foreign_sets
import numpy as np
import pytest
import torch
from command_line import REPOSITORY, Done, ended, said, start
from PIL import Image
from playwright.sync_api import sync_playwright
from test_own_data import photos
from test_structure import LAYERS

from leaderboard import build, serve
from suite import api
from suite.architectures.mlp import MLP
from suite.evaluation.probes import PROBES
from suite.evaluation.protocol import PROTOCOLS, Protocol
from suite.objectives.distribution_matching import DistributionMatching
from suite.run import main, parser

DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "leaderboard/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
TEMPLATES = REPOSITORY / "docs" / "templates"
TRACKED = ["--gin", "gin/scale/smoke.gin", "--set", "ARCHITECTURE = @architectures.mlp()"]
SMOKE = [*TRACKED, "--tracking-uri", "none"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def ordered_commands() -> list[str]:
    """Every line of every bash block, comments taken off."""
    lines = [
        line for document in DOCUMENTS for block in blocks(document.read_text(), "bash") for line in block.split("\n")
    ]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def commands() -> list[str]:
    """The same, each once and sorted."""
    return sorted(set(ordered_commands()))


def test_every_command_is_one_that_a_test_here_runs() -> None:
    tested = (
        "python -m mlflow ui ",
        "make demo",
        "make test",
        "python -m suite.run ",
        "python -m suite.check ",
        "python -m suite.doctor",
        "python -m suite.evaluate ",
        "python -m suite.runs",
        "python -m suite.sweep ",
        "python -m suite.sync runs",
        "python -m tools.",
        "python -m leaderboard.",
        "torchrun ",
    )
    assert commands()
    assert [line for line in commands() if not line.startswith(tested)] == []


def example(text: str) -> str:
    """The Python block of a document that holds a text."""
    (block,) = {b for document in DOCUMENTS for b in blocks(document.read_text(), "python") if text in b}
    return block


@pytest.fixture
def lion(tmp_path: Path) -> Path:
    """The README's example of a method, in a file as its text says."""
    method = example("class Lion")
    assert len(method.strip().split("\n")) < 30
    (tmp_path / "lion.py").write_text(method)
    return tmp_path / "lion.py"


def run(command: list[str], where: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=where, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, capture_output=True, text=True
    )


def give(line: str, *more: str) -> Done:
    """A printed command in this process, where a new one would mostly import: that each module is a command is seen in
    tests/test_command.py, and whole commands in processes of their own are `quickstart` and `test_a_printed_plugin`."""
    python, flag, module, *words = shlex.split(line)
    assert (python, flag) == ("python", "-m")
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):  # a package
        found = importlib.import_module(f"{module}.__main__")
    return said(found.main, [*words, *more])


RUNS = [line for line in commands() if line.startswith("python -m suite.run ")]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in RUNS if "--plugin" not in line])
def test_run_commands(line: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, at smoke scale and in an empty directory."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")  # that some of them name
    planned = "fashion_mnist" in line and not Path("/usr/share/datasets/fashion-mnist").exists()
    own = SMOKE[2:] if "ARCHITECTURE" not in line else ["--tracking-uri", "none"]
    fewer = ["--set", "ABSORBED = 10"] if "recipe/streams.gin" in line else []  # than a task has images at that scale
    done = give(line, *SMOKE[:2], *own, *fewer, "--data-dir", str(data_dir), *(["--dry-run"] if planned else []))
    assert done.status == 0, done.err
    assert ("nothing was started" if planned or "--dry-run" in line else "test (95% interval)") in done.out


@pytest.mark.slow
def test_a_printed_plugin_is_run(lion: Path, data_dir: Path) -> None:
    """As printed, in a directory with nothing but what the README names."""
    (line,) = [line for line in RUNS if "--plugin lion.py" in line and "mine.gin" not in line]
    done = run([sys.executable, *shlex.split(line)[1:], *SMOKE, "--data-dir", str(data_dir)], lion.parent)
    assert done.returncode == 0, done.stderr
    assert "test (95% interval)" in done.stdout


@pytest.mark.slow
def test_a_printed_table_of_two_methods_is_run(lion: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [block for block in blocks((REPOSITORY / "docs" / "add-a-method.md").read_text(), "text")]
    (lion.parent / "mine.gin").write_text(text)
    monkeypatch.chdir(lion.parent)
    for line in [line for line in RUNS if "--gin mine.gin" in line]:
        done = give(line, *SMOKE, "--data-dir", str(data_dir))
        assert done.status == 0, done.err
        assert (
            "6 runs; nothing was started" in done.out
            if "--dry-run" in line
            else "Lion over SGD with momentum" in done.out
        )


@pytest.mark.slow
def test_a_network_of_one_s_own_is_run(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, in a directory with nothing but the file that the page shows."""
    (tmp_path / "mynets.py").write_text(example("class SmallNet"))
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in RUNS if "--plugin mynets.py" in line]
    done = give(line, "--tracking-uri", "none", "--data-dir", str(data_dir))
    assert done.status == 0, done.err
    assert "test (95% interval)" in done.out
    assert len([line for line in RUNS if "--plugin" in line]) == 4


DIES_ONCE = """
import os, signal
from suite.core.ranks import Ranks
gathered = Ranks.gathered
def dies(self, own, step):
    if step == 1 and self.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return gathered(self, own, step)
Ranks.gathered = dies
"""
"""A plugin that kills the second rank in its second outer step, until it was started again."""


@pytest.mark.slow
def test_the_printed_ranks_share_a_run_whose_rank_is_killed(data_dir: Path, tmp_path: Path) -> None:
    """As printed, at smoke scale: torchrun starts all again, and they go on; with what bits is in test_ranks.py."""
    (line,) = [line for line in commands() if line.startswith("torchrun ")]
    launcher, words = shlex.split(line.removeprefix("torchrun ").replace(" -m suite.run ", " '' ")), []
    launcher, words = launcher[: launcher.index("")], launcher[launcher.index("") + 1 :]
    words += [*SMOKE, "--data-dir", str(data_dir), "--checkpoint-seconds", "0"]
    (tmp_path / "dies.py").write_text(DIES_ONCE)
    several = [*launcher, "-m", "suite.run", *words, "--plugin", "dies.py"]
    done = run([sys.executable, "-m", "torch.distributed.run", *several], tmp_path, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    assert "resuming from the checkpoint of step 1" in done.stderr
    (record,) = tmp_path.glob("runs/*/*/result.json")
    cost = json.loads(record.read_text())["cost"]
    assert (cost["rollouts"], cost["ranks"], cost["attempts"]) == (4, 2, 2)


@pytest.fixture(scope="module")
def quickstart(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory where the first command of the README was given, and what it printed."""
    place = tmp_path_factory.mktemp("quickstart")
    words = ["-m", "suite.run", "--gin", "gin/quickstart.gin", *TRACKED, "--data-dir", str(data_dir)]
    done = run([sys.executable, *words], place)
    assert done.returncode == 0, done.stderr
    return place, done.stdout


@pytest.fixture
def made(quickstart: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    shutil.copytree(quickstart[0], tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    return tmp_path / "made"


SETS = [line for line in commands() if line.startswith("python -m suite.evaluate ")]


@pytest.fixture(scope="module")
def sets_of_others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that docs/judging.md names, in the layouts of their authors."""
    place, c10 = tmp_path_factory.mktemp("sets"), torch.arange(10)
    cifar, fashion = torch.rand(10, 3, 32, 32), torch.rand(10, 1, 28, 28)
    foreign_sets.dc(place / "res_DC_FashionMNIST_ConvNet_1ipc.pt", [(fashion, c10)] * 2, {"ConvNet": [0.7, 0.7]})
    foreign_sets.mtt(place / "mtt", cifar, c10, torch.tensor(0.02))
    foreign_sets.mtt(place / "datm", cifar, 5 * torch.eye(10), torch.tensor(0.02))
    foreign_sets.fred(place / "fred", cifar, torch.ones(10, 3, 32, 32), c10)
    foreign_sets.haba(place / "haba", cifar, torch.nn.ModuleList([foreign_sets.Hallucinator(3, 3, 32)]))
    fields = [foreign_sets.SineField(3) for _ in range(10)]
    foreign_sets.ddif(place / "DDiF_TM_1ipc#synset_best.pt", fields, c10, torch.tensor(0.02))
    foreign_sets.idc(place / "data_2000.pt", cifar, c10)
    foreign_sets.rat_bptt(place / "IPC_10.h5", cifar)
    foreign_sets.rcig(place / "checkpoint_15000", cifar, torch.eye(10))
    foreign_sets.kip(place / "kip.npz", cifar, torch.eye(10))
    foreign_sets.hugging_face(place / "tables" / "train.parquet", c10, image=cifar)
    np.savez(place / "whitening.npz", whitening=np.eye(3072, dtype="float32"), mean=np.zeros(3072, "float32"))
    for c in range(200):
        (place / "syn_data" / f"{c:05}").mkdir(parents=True)
        Image.new("RGB", (64, 64), (c, 0, 0)).save(place / "syn_data" / f"{c:05}" / "0.jpg")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in SETS if "--as memory" not in line])
def test_sets_of_others_are_read_and_planned(
    line: str, sets_of_others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed, but for the data sets, which few machines have; that sets are judged is in tests/test_judging.py."""
    monkeypatch.chdir(sets_of_others)
    done = give(line, "--dry-run", "--out", str(tmp_path))
    assert done.status == 0, done.err
    assert "nothing was started" in done.out


@pytest.mark.slow
def test_a_memory_is_judged_again(made: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (memory,) = (made / "runs").glob("*/*/memory.safetensors")
    monkeypatch.chdir(memory.parent)
    once, by_all, probed = [line for line in SETS if "--as memory" in line]
    done = give(once, *SMOKE, "--data-dir", str(data_dir))
    assert done.status == 0, done.err
    assert "ours, protocol paper-1, changed" in done.out
    done = give(by_all, *SMOKE, "--data-dir", str(data_dir))
    assert done.status == 0, done.err
    assert {line.split()[0] for line in done.out.splitlines() if "±" in line} >= set(PROTOCOLS)
    done = give(probed, *SMOKE, "--data-dir", str(data_dir))
    assert done.status == 0, done.err
    assert all(f"under {name}" in done.out for name in PROBES if name != "membership")
    assert "area under the ROC curve" in done.out


@pytest.mark.slow
def test_the_commands_of_sweeps(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, in order: a table is done, looked at, cancelled, and its other seeds are written for Slurm."""
    monkeypatch.setenv("SUITE_DATA_DIR", str(data_dir))
    lines = [line for line in ordered_commands() if line.startswith("python -m suite.sweep ")]
    given = [give(line, "--out", str(tmp_path), "--tracking-uri", "none") for line in lines]
    done, status, cancelled, array = given
    assert [each.status for each in given] == [0] * 4, [each.err for each in given]
    assert "full momentum" in done.out and "3 finished" in status.out and "nothing is at work" in cancelled.out
    assert "6 of 6 runs are left; submit them with" in array.out
    (script,) = tmp_path.glob("*/*/array-*.sbatch")
    assert "#SBATCH --gres=gpu:1" in script.read_text()


@pytest.mark.slow
def test_the_commands_of_what_a_table_costs() -> None:
    """As printed, with fewer simulations: as many GPUs and runs as the page says."""
    lines = [line for line in ordered_commands() if line.startswith("python -m tools.table_cost ")]
    whole, packed = (give(line, "--simulations", "20") for line in lines)
    assert whole.status == packed.status == 0, whole.err + packed.err
    assert "| all (90) |" in whole.out and "| all (30) |" in packed.out
    assert re.findall(r"^\| (\d+) \|", whole.out, re.MULTILINE) == ["1", "8", "16", "64"]
    page = (REPOSITORY / "docs" / "what-a-table-costs.md").read_text()
    head = [line for line in whole.out.splitlines() if line.startswith("| GPUs |")]
    assert len(head) == 1 and head[0] in page


@pytest.mark.slow
def test_the_commands_that_look_after_runs(made: Path) -> None:
    """As printed, in a directory where a run was made that no store knows."""
    (made / "runs" / "mlflow.db").unlink()
    lines = [line for line in commands() if line.startswith(("python -m suite.runs", "python -m suite.sync"))]
    assert len(lines) == 5
    for line in lines:
        done = give(line)
        assert done.status == 0 and done.out, line + done.err


@pytest.mark.slow
def test_the_commands_of_the_leaderboard(made: Path) -> None:
    """As printed, where a run was made; what would write into the repository's own records writes elsewhere."""
    served = "python -m leaderboard.serve"  # it ends by Ctrl-C alone: below
    lines = [line for line in commands() if line.startswith("python -m leaderboard.") and not line.startswith(served)]
    assert len(lines) == 5
    for line in lines:
        elsewhere = ["--to", "kept"] if "collect" in line else []
        if line.endswith("--out site") and "runs" not in line:
            elsewhere = ["--readme", "tables.md"]
            (made / "tables.md").write_text("")
        done = give(line, *elsewhere)
        assert done.status == 0, line + done.err
    assert (made / "site" / "index.html").is_file() and list((made / "kept").rglob("result.json"))


@pytest.mark.slow
def test_the_command_that_serves_the_leaderboard(made: Path) -> None:
    """As printed, at a port that is free, until Ctrl-C."""
    lines = [line for line in commands() if line.startswith("python -m leaderboard.serve")]
    assert len(lines) == 1
    process = start(*shlex.split(lines[0])[3:], "--port", "0", cwd=made, code=["-m", "leaderboard.serve"])
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    with urllib.request.urlopen(address, timeout=60) as page:
        assert b"1 runs here" in page.read()
    process.send_signal(signal.SIGINT)
    assert ended(process).status == 0


@pytest.mark.slow
def test_the_printed_methods_pass_their_check(lion: Path) -> None:
    """The README's, as printed, and the templates that documents name."""
    for file, component in (("lion.py", "inner_optimizers.lion"), (TEMPLATES / "stream.py", "streams.noise")):
        done = run([sys.executable, "-m", "suite.check", str(file)], lion.parent)
        assert done.returncode == 0, done.stdout + done.stderr
        assert component in done.stdout and "every promise is kept" in done.stdout


def test_printed_options_exist() -> None:
    known = {option for action in parser()._actions for option in action.option_strings}
    known |= {
        option for other in (build, serve) for action in other.parser()._actions for option in action.option_strings
    }
    text = (REPOSITORY / "docs" / "reproduce.md").read_text() + (REPOSITORY / "docs" / "compare.md").read_text()
    named = set(re.findall(r"--[a-z][a-z-]*", text))
    assert named - known <= {"--backend-store-uri"}
    assert {option for option in parser()._option_string_actions if len(option) > 2} - named == {"--help"}


def test_the_readme_is_a_screen_and_a_half_and_its_results_are_the_leaderboard_s() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    table = re.findall(r"\d+\.\d ± \d+\.\d", text[text.index("## Results") : text.index("## Reproduce")])
    assert len(table) == 20
    assert [
        figure for figure in table if f"| {figure} |" not in (REPOSITORY / "leaderboard" / "README.md").read_text()
    ] == []


@pytest.mark.slow
def test_the_command_that_an_issue_report_needs(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = give("python -m suite.doctor", "--data-dir", str(data_dir))
    assert done.status == 0 and "no problem found" in done.out, done.out


def test_every_path_that_a_document_names_is_there() -> None:
    """Modules, folders and links, so that a move can't leave a stale path behind."""
    stale = []
    for document in DOCUMENTS:
        text = document.read_text()
        paths = re.findall(r"`((?:suite|docs|gin|tests|tools|leaderboard)/[\w/.]+)`", text)
        links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", text) if "://" not in link]
        stale += [path for path in paths if not (REPOSITORY / path).exists()]
        stale += [link for link in links if not (document.parent / link).exists()]
        named = re.findall(r"`(suite(?:\.[a-z_]+)+)", text)
        stale += [name for name in named if not is_module_or_part(name)]
    assert stale == []


def test_every_definition_that_contributing_names_is_in_its_file() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`(\w+)`(?: in| of)\s+`([\w/]+\.py)`", text)
    assert len(named) >= 6
    for name, file in named:
        assert re.search(rf"^(?:def |class )?{name}\b", (REPOSITORY / file).read_text(), re.MULTILINE), (name, file)


def is_module_or_part(name: str) -> bool:
    """Whether a dotted name is a module of the suite, or something in one."""
    if name in ("suite.protocol", "suite.resumable"):  # a name in gin, a tag in MLflow
        return True
    path = REPOSITORY.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module, _, part = name.rpartition(".")
    return hasattr(importlib.import_module(module), part)


def test_contributing_lists_the_rooms_as_they_are() -> None:
    """The table's rows are the layers of the test of imports, in their order."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    table = text[text.index("| room |") : text.index("`leaderboard/` reads")]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()[2:] if line]
    row_of = {name: i for i, row in enumerate(rows) for name in row}
    assert set(row_of) == {name for layer in LAYERS for name in layer}
    places = [row_of[name] for layer in LAYERS for name in layer]
    assert places == sorted(places)


def test_the_tour_of_contributing_has_six_files() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    tour = re.findall(r"^(\d)\. `(suite/[\w/]+\.py)`", text, re.MULTILINE)
    assert [number for number, _ in tour] == list("123456") and all((REPOSITORY / file).is_file() for _, file in tour)


def test_three_lines_train_a_network(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--gin", "gin/quickstart.gin", *SMOKE, "--data-dir", str(data_dir), "--out", str(tmp_path / "runs")]
    assert main(arguments) == 0
    (memory,) = (tmp_path / "runs").rglob("memory.safetensors")
    monkeypatch.chdir(memory.parent)
    space: dict[str, object] = {"torch": torch}
    exec(example("Memory.load"), space)
    images, labels = next(iter(space["loader"]))  # type: ignore[call-overload]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    assert images.shape[1:] == (1, 8, 8)


def test_the_lines_of_the_readme_read_a_memory_of_the_gallery() -> None:
    space: dict[str, Any] = {}
    exec(example('memory = suite.load("digits-1ipc-full")\nloader'), space)
    images, labels = next(iter(space["loader"]))
    assert images.shape[1:] == (1, 8, 8) and len(images) == len(labels)


@pytest.mark.slow
def test_the_lines_in_python_distil_and_evaluate(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, at a size that takes seconds."""
    monkeypatch.setenv("SUITE_DATA_DIR", str(data_dir))
    short = Protocol(networks=1, epochs=1)
    monkeypatch.setitem(PROTOCOLS, "paper", short)
    small = replace(api.quickstart(), architecture=MLP(width=16), evaluation=short)
    monkeypatch.setattr(api, "quickstart", lambda: replace(small, objective=DistributionMatching()))
    space: dict[str, object] = {}
    exec(example('suite.distil("digits", images').replace("memory.evaluate()", "accuracies = memory.evaluate()"), space)
    assert repr(space["memory"]).startswith("Memory(digits, addressing, 624 numbers")
    assert "random real images  " in repr(space["accuracies"])


def test_one_s_own_images_are_distilled_as_printed(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUITE_DATA_DIR", str(data_dir))
    small = replace(
        api.quickstart(), architecture=MLP(width=16), iterations=2, evaluation=Protocol(networks=2, epochs=2)
    )
    monkeypatch.setattr(api, "quickstart", lambda: replace(small, objective=DistributionMatching(), full_data_epochs=0))
    pairs = [(torch.full((3, 32, 32), row / 60), row % 3) for row in range(60)]
    space: dict[str, object] = {"train": pairs, "test": pairs[:6]}
    exec(example("from_torch(").replace("images_per_class=1", "images_per_class=1, iterations=2"), space)
    assert repr(space["memory"]).startswith("Memory(photos (arrays), standard, ")


def test_one_s_own_network_is_taken_as_printed(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynets.py").write_text(example("class SmallNet"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUITE_DATA_DIR", str(data_dir))
    small = replace(api.quickstart(), objective=DistributionMatching(), full_data_epochs=0)
    monkeypatch.setattr(api, "quickstart", lambda: replace(small, evaluation=Protocol(networks=1, epochs=1)))
    space: dict[str, Any] = {}
    exec(example("load_plugin(").replace('distil("digits"', 'distil("digits", iterations=2'), space)
    assert space["memory"].about["architecture"]["model"] == "mynets:SmallNet"


def test_the_printed_stream_is_a_benchmark_of_avalanche(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", str(data_dir))
    exec(example("to_avalanche("), {})
    assert capsys.readouterr().out.split("\n")[:5] == [f"{t} 200" for t in range(5)]


@pytest.mark.slow
def test_tools_run(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The long tables are made by hand; here the same commands at a size that takes seconds."""
    from suite.datasets import prepare
    from tools import bench, exactness

    monkeypatch.setattr(exactness, "WIDTH", 4)
    monkeypatch.setattr(exactness, "LONG_WIDTH", 8)
    monkeypatch.setattr(bench, "Case", partial(bench.Case, dataset="digits", real_per_class=2))
    assert exactness.main(["--long-steps", "2", "--only", "no_momentum"]) == 0
    assert bench.main(["memory", "--steps", "2", "--memory", "1"]) == 0
    assert prepare.main(["digits", "--data-dir", str(data_dir)]) == 0
    printed = capsys.readouterr().out
    assert "against autograd" in printed and "promised" in printed and "digits" in printed


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def look_at_runs(address: str) -> None:
    """The page shows the quickstart's run, and the run's page its table and its recalled images."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)  # however busy the machine is
        page.goto(address)
        page.get_by_role("columnheader", name="test_accuracy/memory", exact=True).first.wait_for()
        page.wait_for_url(re.compile("orderByKey=tags.*runName"))  # seeds of a method stand together
        page.get_by_role("link", name="digits 1 I/C addressing mlp fast recipe, seed 0").click()
        page.get_by_role("heading", name="digits 1 I/C addressing mlp fast recipe, seed 0").wait_for()
        page.get_by_role("cell", name="random real images").wait_for()
        shown = "image => image.complete && image.naturalWidth > 0"
        page.wait_for_function(f"[...document.querySelectorAll('img[src*=recalled]')].some({shown})")
        browser.close()


@pytest.mark.slow
def test_the_interface_opens(quickstart: tuple[Path, str], tmp_path: Path) -> None:
    """The lines that a run ends with start MLflow's pages, and open the one of training runs, with this run in it."""
    (line,) = [line for line in quickstart[1].split("\n") if line.startswith("compare runs: ")]
    (address,) = re.findall(r"^then open: +http://127\.0\.0\.1:5000/(#/experiments/\d+/runs\S+)$", quickstart[1], re.M)
    command = shlex.split(line.removeprefix("compare runs: "))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, **quiet)
    try:
        for _ in range(1800):  # however busy the machine is
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    assert b"mlflow" in page.read().lower()
                    break
            except OSError:
                assert server.poll() is None, "the interface stopped"
                time.sleep(0.5)
        else:
            pytest.fail("the interface did not answer in a quarter of an hour")
        if CHROMIUM is not None:
            look_at_runs(f"http://127.0.0.1:{port}/{address}")
    finally:
        os.killpg(
            server.pid, signal.SIGKILL
        )  # with its children; to end by itself it would wait for the browser's last
        server.wait()


def test_make_offers_what_the_readme_names() -> None:
    """CI runs `make test`, which runs this, and `make demo`; here: they are there, and start what they should."""
    targets = {"demo": "suite.run --gin gin/quickstart.gin", "test": "pytest", "quick": "not slow and not services"}
    for target, words in targets.items():
        done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0 and words in done.stdout
    assert "make demo" in (REPOSITORY / ".ci" / "run").read_text()
