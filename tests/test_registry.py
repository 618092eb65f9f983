"""Registries: names are taken once, mistakes are answered with the nearest, and methods from outside work like ours."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, command, ended, only_run, sets, start

from suite import registry
from suite.errors import UsageError
from suite.objectives.bptt import BPTT
from suite.storage.files import sha256

PROMISED = {
    "datasets": [
        *("cifar10", "cifar100", "digits", "fashion_mnist", "huggingface", "image_folder", "mnist", "numpy"),
        *("some_classes", "svhn", "tiny_imagenet", "training_only"),
    ],
    "architectures": ["alexnet", "convnet", "mlp", "module", "resnet12", "strided_convnet", "timm"],
    "parameterizations": [
        *("addressing", "downsampled", "image_queries", "imported", "imported_labels", "soft_labels", "standard"),
    ],
    "inner_optimizers": [
        *("adam", "averaged", "clipped", "forward_only_momentum", "no_momentum", "scheduled", "sgd_momentum", "slowed"),
    ],
    "objectives": ["bptt", "distribution_matching", "gradient_matching", "judged_often", "pool", "windows"],
    "controls": ["herding", "k_center", "random_images"],
    "streams": ["class_splits", "permutations", "rotations"],
    "starts": ["class_means", "k_means", "real_images"],
    "schedules": ["constant", "cosine", "linear", "warm_up"],
    "experiments": [
        *("avalanche", "compress_then_recall", "distillation", "extrapolation", "image_recall", "judging", "online"),
    ],
}

OPTIMIZER = '''
"""A method from outside."""

from dataclasses import dataclass

import torch

from suite.registry import inner_optimizers


@inner_optimizers.register("NAME")
@dataclass(frozen=True)
class Normalised:
    """Steps of one length, whatever the gradient's."""

    lr: float = 0.1

    def init(self, params):
        return {}

    def step(self, params, grads, state):
        norm = torch.stack([g.norm() for g in grads.values()]).norm() + 1e-8
        return {k: w - self.lr * grads[k] / norm for k, w in params.items()}, {}
'''


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """Modules that a test imports are gone after it."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("suite_plugin_", "outside_")):
            del sys.modules[name]


def plugin(directory: Path, name: str, text: str = OPTIMIZER) -> Path:
    file = directory / f"{name}_file.py"
    file.write_text(text.replace("NAME", name))
    return file


# ---------------------------------------------------------------- names


def test_a_name_that_is_not_there_is_refused_in_plain_words() -> None:
    for kind, word in {
        "datasets": "data set",
        "inner_optimizers": "optimizer",
        "architectures": "architecture",
    }.items():
        with pytest.raises(UsageError, match=rf"^no {word} is called 'nothing'; .*there are: "):
            registry.REGISTRIES[kind]["nothing"]


def test_the_suite_registers_what_it_promises() -> None:
    own = {
        kind: [entry.name for entry in entries if entry.origin.startswith("suite.")]
        for kind, entries in registry.REGISTRIES.items()
    }
    assert own == PROMISED


def test_every_name_has_a_line_of_description_and_an_origin() -> None:
    for entries in registry.REGISTRIES.values():
        for entry in entries:
            assert 20 < len(entry.summary) <= 120 and entry.summary.endswith("."), (entry.name, entry.summary)
            assert entry.origin


def test_a_name_that_is_taken_is_refused_and_says_by_whom() -> None:
    with pytest.raises(UsageError, match=r"inner_optimizers\.adam .*suite\.inner_optimizers\.adam"):

        @registry.inner_optimizers.register("adam")
        class Other:
            """Another."""

    assert registry.inner_optimizers["adam"].origin == "suite.inner_optimizers.adam"


def test_a_class_of_a_notebook_which_has_no_file_is_registered() -> None:
    space: dict[str, Any] = {"__name__": "a_notebook"}
    exec("from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine:\n    'Written in a cell.'\n", space)
    registry.objectives.register("mine")(space["Mine"])
    entry = registry.objectives["mine"]
    assert (entry.origin, entry.summary) == ("a_notebook", "Written in a cell.")


def test_a_plain_object_that_a_function_makes_is_refused_where_it_is_used(tmp_path: Path) -> None:
    makes = "@inner_optimizers.register('made')\ndef made():\n    return Normalised()\n"
    text = OPTIMIZER.replace("@dataclass(frozen=True)\n", "").replace('@inner_optimizers.register("NAME")\n', "")
    file = plugin(tmp_path, "made", f"{text}\n{makes}")
    done = command(*QUICK, "--plugin", file, *sets("INNER_OPTIMIZER = @inner_optimizers.made()"), "--dry-run")
    assert done.status == 2 and "Normalised" in done.complaint and "each a frozen dataclass" in done.complaint


@pytest.mark.parametrize("name", ["two words", "9lives", "a-b", ""])
def test_a_name_that_gin_cannot_write_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="letters, digits and underscores"):
        registry.datasets.register(name)(type("Other", (), {}))


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("datasets", "cifr10", "cifar10"),
        ("architectures", "conv_net", "convnet"),
        ("parameterizations", "adressing", "addressing"),
        ("inner_optimizers", "sgd_momentun", "sgd_momentum"),
        ("objectives", "bpt", "bptt"),
        ("experiments", "distilation", "distillation"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(kind: str, name: str, near: str) -> None:
    with pytest.raises(UsageError) as error:
        registry.REGISTRIES[kind][name]
    assert f"'{name}'" in str(error.value) and f"did you mean '{near}'?" in str(error.value)
    assert all(one in str(error.value) for one in PROMISED[kind])


# ---------------------------------------------------------------- --list


def test_list_shows_every_name_its_description_and_its_origin() -> None:
    done = command("--list")
    assert done.status == 0 and not done.err
    for kind, entries in registry.REGISTRIES.items():
        assert kind in done.out.splitlines()
        for entry in entries:
            lines = [line for line in done.out.splitlines() if line.split()[:1] == [entry.name]]
            assert any(entry.summary in line and entry.origin in line for line in lines)


def test_list_of_one_kind_and_as_json() -> None:
    assert "mlp" in command("--list", "architectures").out and "digits" not in command("--list", "architectures").out
    rows = json.loads(command("--list", "--json").out)
    assert {kind: [row[0] for row in rows[kind] if row[2].startswith("suite.")] for kind in rows} == PROMISED
    assert command("--list", "architecture").complaint.count("did you mean 'architectures'?") == 1


# ---------------------------------------------------------------- methods from outside


def test_a_plugin_file_is_listed_and_runs(tmp_path: Path, data_dir: Path) -> None:
    file = plugin(tmp_path, "normalised_a")
    listed = command("--plugin", file, "--list", "inner_optimizers")
    assert f"({file})" in listed.out and "Steps of one length" in listed.out
    bindings = sets("INNER_OPTIMIZER = @inner_optimizers.normalised_a()", "inner_optimizers.normalised_a.lr = 0.5")
    arguments = [*QUICK, *bindings, "--plugin", file, "--data-dir", data_dir, "--tracking-uri", "none", "--json"]
    done = command(*arguments, "--out", tmp_path / "runs")
    assert done.status == 0, done.err
    source = sha256(Path(file).read_bytes())[:16]  # an edited method is another method
    found = done.record["config"]["objective"]["inner_optimizer"]
    assert found == {"is": "normalised_a", "lr": 0.5, "source": source}
    typed = command(*arguments, *sets("inner_optimizers.normalised_a.lr = 'x'"), "--out", tmp_path / "runs")
    assert typed.status == 2 and "Normalised.lr must be a number" in typed.complaint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import a_module_that_is_not_there\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        (OPTIMIZER.replace("NAME", "adam"), "already registered by suite.inner_optimizers.adam"),
        (
            OPTIMIZER.replace("@dataclass(frozen=True)\n", ""),
            'must be a frozen dataclass: write @dataclass(frozen=True) below @inner_optimizers.register("broken")',
        ),
    ],
    ids=["syntax", "import", "error", "duplicate", "plain class"],
)
def test_a_broken_plugin_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = plugin(tmp_path, "broken", text)
    for _ in range(2):  # and is not taken for loaded the second time
        done = command("--plugin", file, "--list")
        assert done.status == 2 and words in done.complaint
    assert not done.out


def test_a_plugin_that_is_not_there_or_not_python(tmp_path: Path) -> None:
    assert "there is no file" in command("--plugin", tmp_path / "none.py", "--list").complaint
    (tmp_path / "notes.txt").write_text("notes")
    assert "not a Python file" in command("--plugin", tmp_path / "notes.txt", "--list").complaint


def install(directory: Path, text: str) -> None:
    """A package that is installed in `directory`, as pip would leave it."""
    (directory / "outside_methods.py").write_text(text)
    about = directory / "outside_methods-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-methods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\nmethods = outside_methods\n")


@pytest.mark.slow
def test_an_installed_package_is_found_by_its_entry_point_and_runs(tmp_path: Path, data_dir: Path) -> None:
    install(tmp_path, OPTIMIZER.replace("NAME", "normalised_b"))
    process = start(
        *QUICK,
        *sets("INNER_OPTIMIZER = @inner_optimizers.normalised_b()"),
        *("--data-dir", data_dir, "--out", tmp_path / "runs", "--tracking-uri", "none", "--json"),
        env={"PYTHONPATH": str(tmp_path)},
    )
    done = ended(process)
    assert done.status == 0, done.err
    assert done.record["config"]["objective"]["inner_optimizer"]["is"] == "normalised_b"
    assert (only_run(tmp_path / "runs") / "memory.safetensors").is_file()


def test_an_installed_package_that_is_broken_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "raise RuntimeError('half an installation')\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = command("--list")
    assert done.status == 2
    assert all(words in done.complaint for words in ("methods = outside_methods", "half an installation", "uninstall"))


@pytest.mark.slow
def test_a_short_name_used_by_two_kinds_leaves_the_suite_s_files_working(tmp_path: Path) -> None:
    text = OPTIMIZER.replace("NAME", "addressing")  # there is a parameterization of this name
    done = ended(start(*QUICK, "--dry-run", "--plugin", plugin(tmp_path, "twin", text)))
    assert done.status == 0, done.err


def test_a_value_described_as_another_has_its_run_key() -> None:
    assert registry.describe(BPTT()) == registry.describe(BPTT(execution="eager"))
    assert registry.describe(BPTT()) != registry.describe(BPTT(execution="captured"))


def test_without_gin_config_one_sentence_says_so() -> None:
    """Python then finds the folder of configurations under the package's name."""
    code = "import sys, types; sys.modules['gin'] = types.ModuleType('gin'); import suite.registry"
    done = ended(start(code=["-c", code]))
    assert done.status == 1 and "ModuleNotFoundError: the package gin-config is not installed" in done.err
