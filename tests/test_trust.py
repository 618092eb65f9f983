"""What comes from somebody else runs no code: gin files, run directories, addresses, and words for the terminal."""

import sys
from collections.abc import Iterator
from pathlib import Path

import gin
import pytest
from command_line import Done, command
from gin import config as gin_config

INCLUDED = "include 'gin/quickstart.gin'\n"
EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of somebody else's, the working directory: modules that say that they ran, found as `python -m` does."""
    (tmp_path / "evil").mkdir()
    for file in ("evil/__init__.py", "evil_module.py", "evil/inner.py"):
        (tmp_path / file).write_text(EVIL)
    (tmp_path / "evil" / "part.gin").write_text("EPOCHS = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("evil")]:
        del sys.modules[name]


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another package may have told gin about."""

    def thing(x: int = 1) -> int:
        raise AssertionError("somebody called it")

    monkeypatch.setattr(gin_config, "_REGISTRY", gin_config._REGISTRY.copy())
    gin.register("thing", module="other.package")(thing)
    gin.external_configurable(lambda: thing(), name="posing", module="datasets")


def ran(folder: Path) -> bool:
    return any(folder.rglob("ran"))


DYNAMIC = "from __gin__ import dynamic_registration\n"
ATTACKS = {
    # what: (the gin file, words of the refusal)
    "import": ("import evil_module\n" + INCLUDED, ["line 1", "imports the module evil_module", "--plugin evil_module"]),
    "import after the rest": (INCLUDED + "\nimport evil_module\n", ["line 3", "--plugin evil_module"]),
    "import of a part": ("import evil.inner\n" + INCLUDED, ["--plugin evil.inner"]),
    "import from": ("from evil import inner\n" + INCLUDED, ["--plugin evil.inner"]),
    "import under another name": ("import evil_module as numbers\n" + INCLUDED, ["--plugin evil_module"]),
    "import of the system": ("import os\n" + INCLUDED, ["--plugin os"]),
    "import of the suite": ("import suite.__main__\n" + INCLUDED, ["--plugin suite.__main__"]),
    "import by an include": ("include 'imports.gin'\n" + INCLUDED, ["imports.gin, line 2", "--plugin evil_module"]),
    "dynamic registration": (DYNAMIC + INCLUDED, ["dynamic registration", "@datasets.digits()"]),
    "dynamic registration and a call": (
        DYNAMIC + "import os\n" + INCLUDED + "DATASET = @os.getcwd()\n",
        ["dynamic registration"],
    ),
    "another feature of gin": ("from __gin__ import nothing\n" + INCLUDED, ["dynamic registration"]),
    "include by a package": ("include 'evil/other/part.gin'\n" + INCLUDED, ["line 1", "no such file"]),
    "include by a dotted package": ("include 'evil.inner/part.gin'\n" + INCLUDED, ["no such file"]),
    "include of what is no gin": ("include '/etc/passwd'\n" + INCLUDED, ["line 1", "/etc/passwd", "end in .gin"]),
    "include of a device": ("include '/dev/zero'\n", ["end in .gin"]),
    "include of a folder": ("include 'folder.gin'\n", ["folder.gin", "no such file"]),
    "a reference to Python": (INCLUDED + "DATASET = @os.system()\n", ["os.system"]),
    "a reference to a builtin": (INCLUDED + "DATASET = @eval()\n", ["eval"]),
    "a reference to the suite's own": (INCLUDED + "DATASET = @suite.registry.load_plugin()\n", ["load_plugin"]),
    "a reference in a list": (INCLUDED + "SEEDS = [@os.getpid()]\n", ["os.getpid"]),
    "a reference in a key": (INCLUDED + "run.axes = {@os.getcwd(): {}}\n", ["os.getcwd"]),
    "a singleton": (
        INCLUDED + "one/gin.singleton.constructor = @datasets.digits\nDATASET = @one/gin.singleton()\n",
        ["line 3", "no component is called 'gin.singleton'"],
    ),
    "a configurable of another package": (INCLUDED + "DATASET = @other.package.thing()\n", ["'other.package.thing'"]),
    "a configurable that looks like ours": (INCLUDED + "DATASET = @datasets.posing()\n", ["'datasets.posing'"]),
    "a block of another package": (INCLUDED + "other.package.thing:\n  x = 2\n", ["is called 'other.package.thing'"]),
    "the whole run once more": (INCLUDED + "run.experiment = @run()\n", ["no component is called 'run'"]),
    "a value to be given": (INCLUDED + "EPOCHS = %gin.REQUIRED\n", ["line 2", "%gin.REQUIRED stands for a value"]),
    "a value to be given, by its short name": (INCLUDED + "EPOCHS = %REQUIRED\n", ["stands for a value"]),
    "a value to be given, as a call": (INCLUDED + "EPOCHS = @gin.REQUIRED/gin.constant()\n", ["stands for a value"]),
    "macros that refer to each other": (INCLUDED + "EPOCHS = %A\nA = %B\nB = %A\n", ["refers to itself"]),
    "a value nested too deeply": (INCLUDED + "SEEDS = " + "[" * 3000 + "]" * 3000 + "\n", ["nested too deeply"]),
    "bindings of a cell": (
        INCLUDED + "run.axes = {'a': {'x': ['EPOCHS = 1\\nimport evil_module'], 'y': ['EPOCHS = 2']}}\n",
        ["--plugin evil_module"],
    ),
    "an include in a cell": (
        INCLUDED + "run.axes = {'a': {'x': ['include \"imports.gin\" # ='], 'y': ['EPOCHS = 2']}}\n",
        ["--plugin evil_module"],
    ),
    "bindings of what is chosen": (
        INCLUDED + "run.axes = {'a': {'x': ['EPOCHS = 1'], 'y': ['EPOCHS = 2']}}\nrun.choose = 'a'\n"
        "run.then = ['NETWORKS = 1\\nimport evil_module']\n",
        ["--plugin evil_module"],
    ),
}  # fmt: skip


def dry(file: Path, *more: str | Path) -> Done:
    return command("--gin", file, "--dry-run", *more)


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("what", ATTACKS)
def test_a_gin_file_runs_no_code(what: str, stranger: Path) -> None:
    text, words = ATTACKS[what]
    (stranger / "imports.gin").write_text("\nimport evil_module\n")
    (stranger / "folder.gin").mkdir()
    (stranger / "attack.gin").write_text(text)
    done = dry(stranger / "attack.gin")
    assert done.status == 2 and not done.out and not ran(stranger)
    assert all(word in done.complaint for word in words), done.complaint
    assert not any(name.startswith("evil") for name in sys.modules)
