"""The Python face: `suite.distil` is the command by another name, and a memory can be judged and looked at."""

import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from command_line import QUICK, as_people_run_it, command, ended, only_run, resolve, sets, start
from torch import nn

import suite
from suite.api import quickstart, run_of
from suite.architectures.mlp import MLP
from suite.config.to_gin import gin_text
from suite.controls.random_images import RandomImages
from suite.datasets.digits import Digits
from suite.errors import RunError, UsageError
from suite.evaluation.evaluate import accuracy
from suite.evaluation.protocol import Protocol
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory, load
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.standard import Standard
from suite.runtime import session
from suite.storage.files import sha256
from suite.types import Split

SHORT = Protocol(networks=2, epochs=2)
SETTINGS: dict[str, Any] = {
    "architecture": MLP(width=16),
    "objective": BPTT(
        inner_optimizer=SGDMomentum(lr=0.03),
        inner_steps=3,
        classes_per_step=10,
        images_per_class_per_step=2,
        real_per_class=20,
    ),
    "iterations": 2,
    "evaluation": SHORT,
    "validation_points": 1,
    "full_data_epochs": 0,
    "full_data_networks": 1,
}
"""Those of `command_line.QUICK`, but that the start is k-means and test images stay closed."""


def distil(data_dir: Path, **settings: Any) -> Memory:
    """The quick memory."""
    with as_people_run_it():
        return suite.distil("digits", data_dir=data_dir, **SETTINGS | settings)


@pytest.fixture(scope="module")
def out(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the quick run was done in Python, test images and all."""
    place = tmp_path_factory.mktemp("python")
    distil(data_dir, directory=place, test=True)
    return place


@pytest.fixture(scope="module")
def memory(out: Path) -> Memory:
    return suite.load(only_run(out) / "memory.safetensors")


def refusal(**settings: Any) -> str:
    """The sentence for settings that can't be."""
    with as_people_run_it(), pytest.raises(UsageError) as error:
        suite.distil(**{"dataset": "digits"} | settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- a network of one's own


@pytest.mark.slow
def test_one_s_own_network_reaches_what_the_protocol_s_networks_reach(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Centroids of digits, which teach about 75%; a network of the protocol's architecture that a user has built."""
    how, wide = Protocol(networks=5, epochs=100), MLP(width=64)
    memory = distil(data_dir, parameterization=Standard(), evaluation=how, architecture=wide)
    measured = memory.evaluate(how, data_dir=data_dir, controls=[], progress=False)
    assert measured.std() is not None
    data = Digits().load(data_dir, Key(memory.about["seed"])("data"), 0.1)
    raw = Digits().prepare(data_dir).raw
    found = []
    for seed in range(5):
        torch.manual_seed(seed)
        network = wide.build(memory.shape, 10)
        memory.train(network, seed=seed, device="cpu")
        images = memory.preprocess(raw.test_images.float() / 255)
        torch.testing.assert_close(images, data.test.images)
        found.append(accuracy(network, Split(images, raw.test_labels)))
    reached, spread = sum(found) / 5, max(2 * (measured.std() or 0), 3.0)
    assert abs(reached - measured.mean()) < spread, (found, measured)
    said = capsys.readouterr().err
    assert "training on 10 images of 1x8x8, preprocessed by 'standardize': 100 epochs" in said
    assert not network.training


def test_training_repeats_by_its_seed_and_takes_what_is_given(memory: Memory) -> None:
    def trained(seed: int = 0, **settings: Any) -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        return memory.train(network, seed=seed, device="cpu", progress=False, **settings).get_parameter("2.weight")

    assert trained().equal(trained()) and not trained().equal(trained(seed=1))
    assert not trained().equal(trained(epochs=5))
    assert trained(protocol=Protocol(epochs=5)).equal(trained(epochs=5))


class Tuple(nn.Linear):
    def __init__(self) -> None:
        super().__init__(64, 10)

    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images.flatten(1)), 0


class Picky(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("224 pixels please")


class TwoHeads(Tuple):
    """Of which one is of training alone."""

    def forward(self, images: torch.Tensor) -> Any:
        scores = super().forward(images)[0]
        return torch.cat([scores, scores], 1) if self.training else scores


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), r"gives \(2, 7\) for 2 images, and must give logits \(2, 10\)"),
        (nn.Conv2d(3, 10, 3), "does not take images of 1x8x8"),
        (Tuple(), "gives tuple for 2 images"),
        (Picky(), "does not take images of 1x8x8: ValueError: 224 pixels please"),
        (TwoHeads(), r"gives \(2, 20\) for 2 images"),
        (nn.Flatten(0), r"gives \(128,\) for 2 images"),
    ],
)
def test_a_network_that_does_not_fit_is_a_sentence(memory: Memory, network: nn.Module, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        memory.train(network, device="cpu")


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (torch.full((2, 1, 8, 8), 16.0), "of type float32 from 16 to 16 were given"),
        (torch.full((2, 1, 8, 8), 255, dtype=torch.int64), "of type int64 from 255 to 255"),
        (torch.full((2, 1, 8, 8), -0.1), "from -0.1 to -0.1"),
        (torch.full((2, 1, 8, 8), torch.nan), "from nan to nan"),
        (torch.zeros(8, 8), r"images of shape \(8, 8\) were given, and must be \(n, 1, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8), "images of shape"),
    ],
)
def test_pixels_of_another_range_are_refused(memory: Memory, pixels: torch.Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        memory.preprocess(pixels)


# ---------------------------------------------------------------- the command by another name


@pytest.mark.slow
def test_the_same_bits_and_key_as_the_command(out: Path, data_dir: Path, tmp_path: Path) -> None:
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json"]
    done = command(*QUICK, *sets("START = @starts.k_means()"), *place)
    assert done.status == 0, done.err
    here, there = only_run(out), only_run(tmp_path)
    assert here.name == there.name == f"digits-1-ic-addressing-mlp-fast-recipe-seed0-{done.record['run_key']}"
    files = [sha256((directory / "memory.safetensors").read_bytes()) for directory in (here, there)]
    assert files[0] == files[1]
    record = json.loads((here / "result.json").read_text())
    assert record["measurements"] == done.record["measurements"] and record["config"] == done.record["config"]


def test_what_is_left_out_is_the_quickstart_s() -> None:
    (run,) = resolve(["gin/quickstart.gin"], ["experiments.distillation.test = False"])
    assert run_of(quickstart(), 0).key == run.key
    assert "150 outer steps" in (suite.distil.__doc__ or "") and "6 bases" in (suite.distil.__doc__ or "")


def test_a_name_stands_for_a_component_and_an_object_is_taken_as_it_is(data_dir: Path) -> None:
    by_name = distil(data_dir, architecture="mlp", parameterization="standard", controls=["random_images"], seed=3)
    settings = {"architecture": MLP(), "parameterization": Standard(), "controls": (RandomImages(),), "seed": 3}
    with as_people_run_it():
        by_object = suite.distil(Digits(), data_dir=data_dir, **SETTINGS | settings)
    assert by_name.about == by_object.about and by_name.about["seed"] == 3
    assert all(torch.equal(by_name.tensors[k], by_object.tensors[k]) for k in by_name.tensors)


def test_the_inner_optimizer_is_that_of_the_objective(data_dir: Path) -> None:
    memory = distil(data_dir, inner_optimizer=Adam(lr=0.002), outer_optimizer="adam", iterations=1)
    config = memory.about["config"]
    assert config["objective"]["inner_optimizer"]["is"] == "adam" and config["objective"]["inner_steps"] == 3
    assert config["objective"]["inner_optimizer"]["lr"] == 0.002 and config["outer_optimizer"]["is"] == "adam"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iteratons": 3}, "distil() has no keyword 'iteratons'; did you mean 'iterations'?"),
        ({"dataset": "digitz"}, "did you mean 'digits'?"),
        ({"architecture": "convnett"}, "did you mean 'convnet'?"),
        ({"controls": ["herdin"]}, "did you mean 'herding'?"),
        ({"evaluation": "papers"}, "no protocol is called 'papers'; there are: paper"),
        ({"iterations": 0}, "iterations must be above 0"),
        ({"images_per_class": "one"}, "images_per_class must be a number"),
        ({"objective": "distribution_matching", "inner_optimizer": "adam"}, "DistributionMatching has none"),
        ({"inner_optimizer": "sgd"}, "no optimizer is called 'sgd'"),
        ({"parameterization": Addressing(bases=100)}, "at most"),
        ({"device": "gpu"}, "'gpu' is not a device"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_refused_in_one_sentence(settings: dict[str, Any], words: str, data_dir: Path) -> None:
    assert words in refusal(data_dir=data_dir, **settings)


def test_a_parameterization_that_nobody_registered_is_refused_before_the_run() -> None:
    class Unregistered(Standard):
        """A method without a name."""

    with as_people_run_it(), pytest.raises(RunError, match=r"no parameterization is called 'Unregistered'"):
        suite.distil("digits", parameterization=Unregistered())


# ---------------------------------------------------------------- what it leaves


def test_with_a_directory_the_run_is_kept_and_read_back(
    out: Path, memory: Memory, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    again = distil(data_dir, directory=out, test=True)
    assert "was done before" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before
    assert again.about == memory.about


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bits(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = {"iterations": 4, "validation_points": 2}
    whole = distil(data_dir, **longer)
    progress = session.RunSession.progress

    def interrupted(self: session.RunSession, iteration: int, total: int, words: str) -> None:
        progress(self, iteration, total, words)
        if iteration == 3:
            raise KeyboardInterrupt  # as Ctrl-C in a notebook

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(session.RunSession, "progress", interrupted)
        distil(data_dir, directory=tmp_path, **longer)
    capsys.readouterr()
    resumed = distil(data_dir, directory=tmp_path, **longer)
    assert "resuming from the checkpoint of step 2" in capsys.readouterr().err
    assert all(torch.equal(resumed.tensors[k], whole.tensors[k]) for k in whole.tensors)


def test_without_a_directory_nothing_is_left(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    distil(data_dir, progress=False)  # the data set's cache is there from now on
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    distil(data_dir, progress=False)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_progress_is_printed_unless_it_is_not_wanted(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distil(data_dir)
    assert "2/2" in capsys.readouterr().err


def test_a_notebook_has_a_bar(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", stream)
    distil(data_dir)
    assert re.search(r"seed 0: +100%\|.*\| 2/2 \[", stream.getvalue())


def test_the_kept_text_repeats_the_run(out: Path, data_dir: Path, tmp_path: Path) -> None:
    """So `suite.runs resume` goes on with it, and the leaderboard's command is true."""
    text = only_run(out) / "config.gin"
    done = command("--gin", text, "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none")
    assert done.status == 0, done.err
    assert only_run(tmp_path).relative_to(tmp_path) == only_run(out).relative_to(out)


FILES = ["gin/ablation_components.gin", "gin/ablation_adam.gin", "gin/transfer.gin", "gin/continual/permutations.gin"]


@pytest.mark.parametrize("file", [*FILES, "gin/synthesis/image_recall.gin"])
def test_any_experiment_is_written_as_gin_that_describes_it(file: str, tmp_path: Path) -> None:
    for run in resolve([file])[:3]:
        (tmp_path / "written.gin").write_text(gin_text(run.experiment, run.name, run.seed))
        (again,) = resolve([str(tmp_path / "written.gin")])
        assert again.key == run.key and again.name == run.name


def test_a_part_that_has_no_name_is_said_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(MLP):
        """Not registered."""

    run = run_of(quickstart().__class__(architecture=Other()), 0)
    assert run.config_text.startswith("# Made in Python") and "Other is not registered" in run.config_text


@pytest.mark.slow
def test_neither_mlflow_nor_a_gin_file_is_needed(data_dir: Path, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["mlflow"] = None
import gin
def refused(*given, **names):
    raise AssertionError("a gin file was parsed")
gin.parse_config_file = gin.parse_config = refused
import suite
from suite.evaluation.protocol import Protocol
memory = suite.distil("digits", architecture="mlp", iterations=1, evaluation=Protocol(networks=1, epochs=1),
                      objective="distribution_matching", data_dir={str(data_dir)!r}, progress=False)
print(memory.evaluate(networks=1, epochs=1, data_dir={str(data_dir)!r}, progress=False).mean() > 0)
"""
    done = ended(start(code=["-c", program], cwd=tmp_path))
    assert done.status == 0 and done.out == "True\n" and not done.err, done.err
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- the package


def test_import_loads_nothing_but_the_suite() -> None:
    """So it takes no time."""
    program = """
import sys
before = set(sys.modules)
import suite
print({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
"""
    done = ended(start(code=["-c", program]))
    assert done.out == "{'suite'}\n", done


def test_the_package_offers_its_names() -> None:
    assert {"Memory", "distil", "load", "__version__"} <= set(dir(suite))
    assert suite.Memory is Memory and suite.load is load
    with pytest.raises(AttributeError, match="module 'suite' has no attribute 'distill'"):
        suite.distill  # noqa: B018


# ---------------------------------------------------------------- judged


def test_evaluate_gives_the_accuracies_of_the_record(
    out: Path, memory: Memory, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((only_run(out) / "result.json").read_text())
    figures = {f["method"]: tuple(f["values"]) for f in record["measurements"] if f["split"] == "test"}
    comparison = memory.evaluate(SHORT, data_dir=data_dir)
    assert comparison.accuracies == figures and list(figures) == ["memory", "random real images"]
    assert comparison.mean() == pytest.approx(sum(figures["memory"]) / 2) and comparison.std() is not None
    printed = capsys.readouterr().err
    assert printed == "evaluating memory: 2 networks\nevaluating random real images: 2 networks\n"
    assert memory.evaluate(networks=2, epochs=2, data_dir=data_dir, progress=False).accuracies == figures
    assert not capsys.readouterr().err


def test_evaluate_takes_other_controls_and_another_network(memory: Memory, data_dir: Path) -> None:
    comparison = memory.evaluate(
        networks=1, epochs=1, controls=["herding", RandomImages()], architecture="mlp", data_dir=data_dir
    )
    assert list(comparison.accuracies) == ["memory", "herding", "random real images"]
    alone = memory.evaluate(networks=1, epochs=1, controls=(), architecture=MLP(width=16), data_dir=data_dir)
    assert list(alone.accuracies) == ["memory"] and alone.std() is None
    assert alone.accuracies["memory"] != comparison.accuracies["memory"]


def test_a_comparison_is_a_table(memory: Memory, data_dir: Path) -> None:
    comparison = memory.evaluate(networks=2, epochs=1, data_dir=data_dir)
    title, first, second = repr(comparison).splitlines()
    assert title.endswith("paper-1, changed: networks 2 of 10, epochs 1 of 300")
    assert re.fullmatch(r"memory              \d+\.\d ± \d+\.\d", first)
    assert second.startswith("random real images  ")
    assert comparison._repr_html_().count("<tr>") == 2 and "<td>memory</td>" in comparison._repr_html_()


def test_evaluate_refuses_what_it_can_not_judge(memory: Memory, data_dir: Path, tmp_path: Path) -> None:
    def sentence(other: Memory, **options: Any) -> str:
        with as_people_run_it(), pytest.raises((RunError, UsageError)) as error:
            other.evaluate(**{"data_dir": data_dir} | options)
        assert "\n" not in str(error.value)
        return str(error.value)

    about = memory.about
    other = Memory(memory.tensors, about | {"dataset_digest": "0" * 64}, memory.transform)
    assert "is not the data that the memory was distilled from" in sentence(other)
    other = Memory(memory.tensors, about | {"config": {"is": "online"}}, memory.transform)
    assert "this one is of online" in sentence(other)
    other = Memory(memory.tensors, {k: v for k, v in about.items() if k != "config"}, memory.transform)
    assert "this one is of none that it names" in sentence(other)
    assert "no protocol is called 'papre'" in sentence(memory, protocol="papre")
    assert "did you mean 'herding'" in sentence(memory, controls=["herdin"])
    assert "networks must be above 0" in sentence(memory, networks=0)
    assert "'gpu' is not a device" in sentence(memory, device="gpu")


def test_evaluate_sets_a_gpu_up_as_a_run_does(memory: Memory, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic kernels and no TF32; on a machine without a GPU the data set is what is refused after that."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    other = Memory(memory.tensors, memory.about | {"dataset_digest": "0" * 64}, memory.transform)
    before = _switches()
    try:
        _switch(False, True, True, True)
        with as_people_run_it(), pytest.raises(RunError, match="is not the data"):
            other.evaluate(data_dir=data_dir, device="cuda")
        assert list(_switches().values()) == [True, False, False, False]
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        _switch(**before)


def _switches() -> dict[str, bool]:
    """The process's switches for repeatable numbers on a GPU."""
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
        "products_in_tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def _switch(deterministic: bool, benchmark: bool, convolutions_in_tf32: bool, products_in_tf32: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.allow_tf32 = convolutions_in_tf32
    torch.backends.cuda.matmul.allow_tf32 = products_in_tf32


# ---------------------------------------------------------------- looked at


def test_a_memory_says_what_it_is_in_one_line(memory: Memory) -> None:
    assert repr(memory) == "Memory(digits, addressing, 624 numbers (0.975 I/C), 40 images of 1x8x8, iteration 2 of 2)"


def test_a_notebook_shows_the_recalled_images(memory: Memory) -> None:
    png = memory._repr_png_()
    assert png is not None
    with PIL.Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG" and picture.size == (4 * 60, 10 * 60)  # 8 pixels and a line around, sixfold
        pixels = torch.from_numpy(np.array(picture.convert("L")))
    assert (pixels[:6] == 255).all() and (pixels[:, :6] == 255).all()
    first = memory.display()[0][0, 0].mul(255).round()
    assert torch.equal(pixels[6:54:6, 6:54:6], first.to(pixels.dtype))
    shown = memory._repr_html_()
    assert shown.startswith("<code>Memory(digits") and 'src="data:image/png;base64,' in shown


def test_a_memory_that_can_not_be_shown_is_still_named(memory: Memory) -> None:
    blind = Memory(memory.tensors, memory.about, None)
    assert blind._repr_png_() is None and blind._repr_html_() == f"<code>{blind!r}</code>"


def test_a_bare_description_has_a_repr(memory: Memory) -> None:
    about = {k: memory.about[k] for k in ("class_names", "shape", "parameterization", "preprocessing")}
    bare = Memory(memory.tensors, about, memory.transform)
    assert repr(bare) == "Memory(?, addressing, 624 numbers, images of 1x8x8)"
