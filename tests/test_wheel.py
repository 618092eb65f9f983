"""A wheel, installed into a fresh environment, does from an empty folder what the checkout does."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from command_line import REPOSITORY, sets

import suite
from suite.storage.gin_files import gin_files

pytestmark = pytest.mark.slow

SMOKE = [
    *("--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin"),
    *sets("ARCHITECTURE = @architectures.mlp()", "FULL_DATA_EPOCHS = 0"),
]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "suite", "leaderboard", "gin", "tools", "tests")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since a build leaves folders behind where the sources are."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(sources, tmp_path_factory.mktemp("wheel"))


def built(sources: Path, to: Path) -> Path:
    """The wheel of a folder of sources, or of an sdist."""
    pip(["wheel", str(sources), "--no-deps", "--no-build-isolation", "--wheel-dir", str(to)])
    (file,) = to.glob("*.whl")
    return file


def pip(words: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Installation:
    """An environment with the wheel in it, and an empty folder to give commands in."""

    def __init__(self, wheel: Path, place: Path) -> None:
        """The packages that the suite needs are those of this interpreter; its editable install is not seen there."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
        self.bin, self.folder = place / "venv" / "bin", place / "empty"
        self.folder.mkdir()
        self.python = str(self.bin / "python")
        pip(["--python", self.python, "install", "--no-deps", "--no-index", str(wheel)])
        (packages,) = (place / "venv" / "lib").glob("*/site-packages")
        self.packages = packages
        (packages / "heavy.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def module(self, name: str, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(self.python, "-m", name, *words, status=status)


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    place = Installation(wheel, tmp_path_factory.mktemp("installation"))
    imported = place.run(place.python, "-c", "import suite, leaderboard; print(suite.__file__, leaderboard.__file__)")
    assert all(Path(file).is_relative_to(place.packages) for file in imported.stdout.split())
    return place


@pytest.fixture(scope="module")
def ran(installation: Installation, data_dir: Path) -> Installation:
    """With a run done in the folder, by gin files that include others of the wheel."""
    words = [*SMOKE, "--data-dir", str(data_dir), "--tracking-uri", "none"]
    done = installation.module("suite.run", *words, "--json")
    assert json.loads(done.stdout)["scale"]["label"] == "smoke"
    return installation


def test_what_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    information = f"addressable_memory_suite-{suite.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"suite", "leaderboard", information}
    assert {f"suite/packaged/{file}" for file in gin_files()} == {n for n in names if n.endswith(".gin")}
    assert {"suite/py.typed", f"{information}/licenses/LICENSE", "leaderboard/published.csv"} <= set(names)
    for folder in ("templates", "assets"):
        files = {f"leaderboard/{folder}/{file.name}" for file in (REPOSITORY / "leaderboard" / folder).iterdir()}
        assert files and files <= set(names)
    modules = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "suite").rglob("*.py")}
    assert modules <= set(names)
    assert not [name for name in names if name.startswith("leaderboard/records/")]
    assert wheel.stat().st_size < 2**20


def test_an_sdist_makes_the_same_wheel(sources: Path, wheel: Path, tmp_path: Path) -> None:
    """Without git, as all of this is: a version from tags would not be known here."""
    assert not (sources / ".git").exists()
    shutil.rmtree(sources / "build", ignore_errors=True)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=sources, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert sdist.name == f"addressable_memory_suite-{suite.__version__}.tar.gz"
    again = built(sdist, tmp_path / "wheel")
    one, other = (
        {info.filename: info.CRC for info in zipfile.ZipFile(file).infolist() if not info.filename.endswith("RECORD")}
        for file in (wheel, again)
    )
    assert one == other


def test_the_doctor_finds_no_problem(ran: Installation, data_dir: Path) -> None:
    done = ran.module("suite.doctor", "--data-dir", str(data_dir), "--tracking-uri", "none")
    assert f"suite         {suite.__version__}\n" in done.stdout and "no problem found" in done.stdout
    assert "1 finished" in done.stdout and "ready: digits" in done.stdout


def test_a_run_finds_its_gin_files(ran: Installation) -> None:
    assert len(list(ran.folder.glob("runs/quickstart/*/memory.safetensors"))) == 1


def test_a_file_of_the_working_directory_comes_first(installation: Installation, data_dir: Path) -> None:
    own = installation.folder / "gin" / "scale"
    own.mkdir(parents=True)
    text = (REPOSITORY / "gin" / "scale" / "smoke.gin").read_text()
    (own / "smoke.gin").write_text(text.replace("ITERATIONS = 2", "ITERATIONS = 7"))
    (installation.folder / "mine.gin").write_text("include 'gin/quickstart.gin'\ninclude 'gin/scale/smoke.gin'\n")
    try:
        plan = json.loads(installation.module("suite.run", "--gin", "mine.gin", "--dry-run", "--json").stdout)
        assert plan[0]["outer iterations"].startswith("7 ")
    finally:
        shutil.rmtree(installation.folder / "gin")
        (installation.folder / "mine.gin").unlink()
    wrong = installation.module("suite.run", "--gin", "gin/quickstrat.gin", status=2)
    assert "did you mean 'gin/quickstart.gin'?" in wrong.stderr
    unlike = installation.module("suite.run", "--gin", "zzz.gin", status=2)
    assert "gin/scale/smoke.gin" in unlike.stderr  # all of the package's


def test_the_list_and_the_version(installation: Installation) -> None:
    shown = installation.module("suite.run", "--list", "datasets").stdout
    assert "digits" in shown and "(suite.datasets.digits)" in shown
    command = str(installation.bin / "memory-suite")
    assert installation.run(command, "--version").stdout == f"memory-suite {suite.__version__}\n"
    assert "gin/scale/smoke.gin" in installation.run(command, "completion", "bash").stdout
    metadata = "from importlib.metadata import version; print(version('addressable-memory-suite'))"
    assert installation.run(installation.python, "-c", metadata).stdout == f"{suite.__version__}\n"


def test_the_printed_method_is_checked(installation: Installation) -> None:
    page = (REPOSITORY / "docs" / "add-a-method.md").read_text()
    (method,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Lion" in b]
    (installation.folder / "lion.py").write_text(method)
    assert "every promise is kept" in installation.module("suite.check", "lion.py").stdout


def test_the_leaderboard_is_built_of_runs(ran: Installation) -> None:
    ran.module("leaderboard.build", "--records", "runs", "--out", "site")
    assert (ran.folder / "site" / "index.html").is_file() and list((ran.folder / "site").rglob("*.css"))
    ran.module("leaderboard.collect", "runs", "--to", "collected")
    assert list((ran.folder / "collected").rglob("result.json"))
    for words, sentence in (
        (["leaderboard.build", "--out", "other"], "--records: an installed package has no records of its own"),
        (["leaderboard.collect", "runs"], "--to: name the folder that records go to"),
    ):
        refused = ran.module(*words, status=2).stderr
        assert sentence in refused and refused.count("\n") == 1
    assert not (ran.folder / "other").exists()


def test_data_is_prepared_and_python_distils(ran: Installation, data_dir: Path) -> None:
    printed = ran.run(str(ran.bin / "memory-suite"), "data", "digits", "--data-dir", str(data_dir)).stdout
    assert printed.startswith("digits: 1346 training")
    program = f"""
import suite
from suite.evaluation.protocol import Protocol
print(suite.distil("digits", architecture="mlp", objective="distribution_matching", iterations=1,
                   evaluation=Protocol(networks=1, epochs=1), data_dir={str(data_dir)!r}, progress=False))
"""
    assert ran.run(ran.python, "-c", program).stdout.startswith("Memory(digits, addressing, 624 numbers")
