"""What comes from somebody else runs no code: gin files, run directories, addresses, and words for the terminal."""

import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gin
import pytest
from command_line import QUICK, Done, command, only_run, resolve, sets
from gin import config as gin_config
from tqdm import tqdm

from suite import run, runs
from suite.errors import SuiteError, UsageError, harmless, report
from suite.registry import REGISTRIES, load_plugin
from suite.runtime.execute import directory_of
from suite.runtime.title import LONGEST_FOLDER
from suite.terminal import unbreakable_streams
from suite.tracking.store import Store
from suite.tracking.uri import (
    PASSWORD,
    USER,
    WHOLE,
    check_uri,
    credentials,
    default_uri,
    hidden,
    plain_uri,
    with_password,
)
from tools import bench, exactness, gpu_check, torture

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
    "a value nested too deeply": (INCLUDED + "SEEDS = " + "[" * 3000 + "]" * 3000 + "\n", ["nested too deep"]),
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


# ---------------------------------------------------------------- what is named on the command

REGISTERS = """
from dataclasses import dataclass
from suite.registry import schedules

@schedules.register("NAME")
@dataclass(frozen=True)
class Half:
    \"\"\"Half of the rate, always, as an example of a stranger's method.\"\"\"

    def factor(self, step: int, steps: int) -> float:
        return 0.5
"""


def test_a_module_that_the_command_names_may_be_imported(stranger: Path) -> None:
    (stranger / "evil_method.py").write_text(REGISTERS.replace("NAME", "half_a"))
    (stranger / "whole.gin").write_text("import evil_method\n" + INCLUDED + "include 'gin/scale/smoke.gin'\n")
    refused = dry(stranger / "whole.gin")
    assert refused.status == 2 and "--plugin evil_method" in refused.complaint
    assert load_plugin("evil_method") == "evil_method"
    (one,) = resolve([str(stranger / "whole.gin")])
    assert one.config_text.startswith("import evil_method\n")
    assert REGISTRIES["schedules"]["half_a"].origin.endswith("evil_method.py")


@pytest.mark.parametrize(
    ("plugin", "text", "words"),
    [
        ("evil_none", "", "there is no file evil_none, and no module of that name"),
        ("evil_none.part", "", "no module of that name"),
        ("evil_exits", "raise SystemExit(0)", "evil_exits failed to load (SystemExit: 0)"),
        ("evil_lines", "raise ValueError('one\\ntwo')", "failed to load (ValueError: one two)"),
        ("evil_needs", "import nothing_of_this_name", "failed to load (ModuleNotFoundError"),
        ("evil/", "", "evil/ is a folder; name a file in it"),
        ("", "", "there is no file"),
    ],
)
def test_a_module_that_can_t_be_a_plugin_is_one_sentence(plugin: str, text: str, words: str, stranger: Path) -> None:
    if text:
        (stranger / f"{plugin}.py").write_text(text)
    done = command("--plugin", plugin, "--list")
    assert done.status == 2 and words in done.complaint and not done.out


# ---------------------------------------------------------------- a folder of runs from somebody else

OPTIONS: dict[str, Any] = {
    "data_dir": "data", "device": "cpu", "tracking_uri": "none", "checkpoint_seconds": 60.0, "plugins": [],
}  # fmt: skip


@pytest.fixture
def asked(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[list[str]]]]:
    """`suite.runs resume` of two runs, one of somebody else: its status, and the commands that it would have run."""
    given: list[list[str]] = []
    monkeypatch.setattr(run, "main", lambda arguments: given.append(arguments) or 0)
    monkeypatch.delenv(WHOLE, raising=False)

    def ask(options: dict[str, Any], *words: str) -> tuple[int, list[list[str]]]:
        for name, own in (("a", options), ("b", {})):
            directory = stranger / "out" / "some" / f"{name}-seed0-0123456789abcdef"
            directory.mkdir(parents=True)
            about = {"cell": {}, "config": {}, "environment": {}, "options": OPTIONS | own, "mixed": [], "key": "k"}
            about |= {"name": "some", "label": name, "seed": 0, "scale": "smoke"}
            (directory / "config.gin").write_text("")
            (directory / "run.json").write_text(json.dumps(about))
        return runs.main(["resume", "--out", str(stranger / "out"), *words]), given

    return ask


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plugins": ["evil_module.py"]}, "--plugin evil_module.py"),
        ({"plugins": ["evil_module.py", "/else where/b.py"]}, "--plugin evil_module.py --plugin '/else where/b.py'"),
        ({"plugins": ["evil_module"]}, "--plugin evil_module"),
        ({"tracking_uri": "http://somebody:5000"}, "--tracking-uri http://somebody:5000, or none"),
        ({"tracking_uri": "http://a:s3cret@somebody"}, "--tracking-uri http://somebody, or none"),
        ({"tracking_uri": "sqlite:////else/where.db"}, "--tracking-uri sqlite:////else/where.db, or none"),
    ],
)
def test_a_folder_s_code_and_tracker_are_named_again_or_left_alone(
    options: dict[str, Any], words: str, asked: Any, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, given = asked(options)
    said = capsys.readouterr().err
    assert status == 2 and words in said and len(said.splitlines()) == 1 and "s3cret" not in said
    assert len(given) == 1 and "b-seed0" in str(given) and "evil" not in str(given)  # the other run is served
    assert not ran(stranger)


@pytest.mark.parametrize(
    ("options", "words", "passed"),
    [
        ({"plugins": ["/gone/mine.py"]}, ["--plugin", "mine.py"], "--plugin=mine.py"),
        ({"tracking_uri": "http://own"}, ["--tracking-uri", "http://own"], "--tracking-uri=http://own"),
        ({"tracking_uri": "http://own"}, ["--tracking-uri", "none"], "--tracking-uri=none"),
        ({"data_dir": "--plugin=evil_module.py"}, [], "--data-dir=--plugin=evil_module.py"),
        ({"device": "--fresh"}, [], "--device=--fresh"),
    ],
)
def test_what_is_named_again_is_passed_on(options: Any, words: list[str], passed: str, asked: Any) -> None:
    status, given = asked(options, *words)
    assert status == 0 and len(given) == 2 and passed in given[0]


def test_the_environment_names_a_tracker_too(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WHOLE, "http://alice:s3cret@own:5000")
    status, given = asked({"tracking_uri": "http://own:5000"})
    assert status == 0 and "--tracking-uri=http://own:5000" in given[0]


def test_a_database_below_the_folder_needs_no_naming(asked: Any, stranger: Path) -> None:
    status, given = asked({"tracking_uri": default_uri(stranger / "out")})
    assert status == 0 and len(given) == 2


@pytest.mark.parametrize(
    ("before", "still_there", "status"),
    [
        ("gone", "", 0),  # mv
        ("copied", "some/a-seed0-0123456789abcdef", 0),  # cp, or another way to the same folder
        ("another", "some", 2),
        ("another", "else", 2),
    ],
)
def test_a_database_moves_with_its_output_folder(
    before: str, still_there: str, status: int, asked: Any, stranger: Path, tmp_path: Path
) -> None:
    if still_there:
        (tmp_path / before / still_there).mkdir(parents=True)
    found, given = asked({"tracking_uri": default_uri(tmp_path / before)})
    assert found == status and len(given) == (1 if status else 2)
    assert status or f"--tracking-uri={default_uri(stranger / 'out')}" in given[0]


def test_a_database_of_another_name_is_a_tracker_that_somebody_chose(asked: Any, tmp_path: Path) -> None:
    assert asked({"tracking_uri": f"sqlite:///{tmp_path}/gone/chosen.db"})[0] == 2


# ---------------------------------------------------------------- passwords


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("http://host:5000", None),
        ("sqlite:////home/a@b/pass?word.db", None),
        ("postgresql://alice@host/runs?sslmode=require", None),
        ("http://alice:s3cret@host:5000/x", "http://host:5000/x"),
        ("https://s3cret@host", "https://host"),
        ("http://alice:s3%40cret@host", "http://host"),
        ("http://alice:@s3cret@host", "http://host"),
        ("postgresql://alice:s3cret@host/runs", "postgresql://alice@host/runs"),
        ("postgresql+psycopg2://alice:s3cret@host:5432/runs", "postgresql+psycopg2://alice@host:5432/runs"),
        ("postgresql://host/runs?user=a&password=s3cret&sslmode=x", "postgresql://host/runs?user=a&sslmode=x"),
        ("mysql+pymysql://host/runs?passwd=s3cret", "mysql+pymysql://host/runs"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Ds3cret", "mssql+pyodbc:///"),
        ("http://host/?token=s3cret", "http://host/"),
    ],
)
def test_an_address_is_said_without_its_password(uri: str, plain: str | None, tmp_path: Path) -> None:
    assert plain_uri(uri) == (plain or uri) and plain_uri(plain_uri(uri)) == plain_uri(uri)
    assert "cret" not in hidden(f"no answer of {uri}: {unquote(uri)}", uri) or plain is None
    assert bool(credentials(uri)) == (plain is not None)
    store = Store(uri, tmp_path)
    assert store.uri == (plain or uri)


def test_the_environment_gives_the_password_of_the_same_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WHOLE, "postgresql://alice:s3cret@host/runs")
    assert with_password("postgresql://alice@host/runs") == "postgresql://alice:s3cret@host/runs"
    for other in ("postgresql://alice@elsewhere/runs", "postgresql://bob@host/runs", "http://host"):
        assert with_password(other) == other


@pytest.mark.parametrize(
    "uri", ["http://alice:s3/cret@host", "http://alice:s3cret@host:x", "postgresql://a:s3#cret@h/d"]
)
def test_an_address_whose_password_can_t_be_told_is_refused_unsaid(uri: str) -> None:
    with pytest.raises(UsageError, match="write @ as %40") as error:
        check_uri(uri)
    assert "cret" not in str(error.value)


def test_no_address_that_is_none_says_a_password() -> None:
    with pytest.raises(UsageError, match="'ftp://alice@host' is no tracking store"):
        check_uri("ftp://alice:s3cret@host")


@pytest.mark.slow
def test_a_password_is_nowhere_but_in_the_sender_s_environment(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that sends writes down what it was told and where."""
    told = tmp_path / "told.json"
    script = f"import json, os, sys; json.dump([sys.argv, dict(os.environ)], open({str(told)!r}, 'w')); sys.exit(1)"
    monkeypatch.setattr("suite.tracking.sender.COMMAND", [sys.executable, "-c", script])
    out = tmp_path / "out"
    done = command(*QUICK, "--data-dir", data_dir, "--out", out, "--tracking-uri", "http://alice:s3cret@127.0.0.1:9")
    assert done.status == 0 and "--tracking-uri http://127.0.0.1:9" in done.err, done.err
    assert "s3cret" not in done.out + done.err and "alice" not in done.out + done.err
    assert not [file for file in out.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]
    arguments, environment = json.loads(told.read_text())
    assert "s3cret" not in str(arguments) and environment[PASSWORD] == "s3cret" and environment[USER] == "alice"
    assert '"tracking_uri": "http://127.0.0.1:9"' in (only_run(out) / "run.json").read_text()


# ---------------------------------------------------------------- words for the terminal

BOLD = "\x1b[1m\x1b]0;title\x07"
COMMANDS = [BOLD, "\x9b2J", "\x08\x08", "\r", "\u202eabc", "\u2028", "\x00", "\x7f", "a\x0bb\x0c"]


@pytest.mark.parametrize("text", COMMANDS)
def test_a_stranger_s_text_is_printed_without_commands(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(letter.isprintable() for letter in harmless(text))
    with unbreakable_streams():
        print(f"before {text} after")
        report(f"before {text} after\nand more")
    out, err = capsys.readouterr()
    assert harmless(out) == out and "\r" not in out and out.startswith("before ") and out.count("\n") == 1
    assert harmless(err) == err and "\r" not in err and err.count("\n") == 1


@pytest.mark.parametrize("text", ["plain", "± é 日本語 🙂", "two\nlines\tand a tab", "می‌خواهم"])
def test_other_letters_stay(text: str) -> None:
    assert harmless(text) == text


def test_a_bar_returns_to_its_line_and_commands_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with unbreakable_streams():
        bar = tqdm(total=2, desc=f"cell {BOLD}", file=sys.stderr, ncols=60, mininterval=0)
        bar.update()
        bar.write("a line", file=sys.stderr)
        bar.close()
    said = stream.getvalue()
    assert "\r" in said and "\x1b" not in said and "\x07" not in said and "\\x1b[1m" in said


STRANGE = """
from dataclasses import dataclass
from suite.registry import inner_optimizers

@inner_optimizers.register("NAME")
@dataclass(frozen=True)
class Strange:
    \"\"\"A method that ends the process.\"\"\"

    lr: float = 0.1

    def __post_init__(self):
        BUILD

    def init(self, params):
        return {}

    def step(self, params, grads, state):
        RUN
        return params, state
"""
NAMES = itertools.count()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "run", "status", "words"),
    [
        ("raise SystemExit(0)", "pass", 2, ["ends the process (sys.exit(0))"]),
        ("raise AttributeError('one\\ntwo \\x1b[1m')", "pass", 2, ["AttributeError: one"]),
        ("pass", "raise SystemExit(0)", 1, ["failed (SystemExit: 0)", "failure.txt"]),
        ("pass", "raise LookupError('\\x1b]0;title\\x07')", 1, ["LookupError: \\x1b]0;title\\x07", "failure.txt"]),
    ],
)
def test_a_method_that_ends_the_process_ends_one_run(
    build: str, run: str, status: int, words: list[str], tmp_path: Path, data_dir: Path
) -> None:
    name = f"strange_{next(NAMES)}"
    (tmp_path / "strange.py").write_text(STRANGE.replace("NAME", name).replace("BUILD", build).replace("RUN", run))
    own = ["--plugin", tmp_path / "strange.py", *sets(f"INNER_OPTIMIZER = @inner_optimizers.{name}()")]
    done = command(*QUICK, *own, "--data-dir", data_dir, "--out", tmp_path / "out", "--tracking-uri", "none")
    assert done.status == status and all(word in done.complaint for word in words), done.err
    assert "\x1b" not in done.err


# ---------------------------------------------------------------- texts and numbers of a command


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xef\xbb\xbfEPOCHS = 1\n", None),
        (b"\xef\xbb\xbf# a head\r\nEPOCHS = 1\r\n", None),
        (b"EPOCHS = 1\n\xef\xbb\xbfNETWORKS = 1\n", ["line 2", "can't be seen (U+FEFF)"]),
        ("EPOCHS\u200b = 1\n".encode(), ["line 1", "(U+200B)"]),
        ("EPOCHS =\u00a01\n".encode(), ["line 1", "(U+00A0)"]),
        ("SCALE = ‘x’\n".encode(), ["line 1", "word processor's"]),
        ("EPOCHS = 1\n".encode("utf-16"), ["in UTF-16; save it in UTF-8"]),
        (b"SCALE = 'caf\xe9'\n", ["in no UTF-8"]),
        (b"EPOCHS = 1\x00\n", ["mine.gin"]),
        (b"# " + b"x" * 2**20, ["mine.gin", "bytes"]),
    ],
)
def test_letters_of_a_gin_file(data: bytes, words: list[str] | None, tmp_path: Path) -> None:
    (tmp_path / "mine.gin").write_bytes(data)
    files = ["gin/quickstart.gin", str(tmp_path / "mine.gin")]
    if words is None:
        assert [one.experiment.evaluation.epochs for one in resolve(files)] == [1]
        return
    with pytest.raises(SuiteError) as error:
        resolve(files)
    assert all(word in str(error.value) for word in words), str(error.value)


PARSERS: dict[str, Callable[[list[str]], Any]] = {
    "run": run.parser().parse_args,
    "bench": bench.parser().parse_args,
    "torture": torture.main,
    "exactness": exactness.main,
    "gpu_check": gpu_check.main,
}
NUMBERS = [
    *(("run", ["--checkpoint-seconds", value]) for value in ("nan", "-5", "inf", "1e999", "", "soon")),
    *(("run", ["--seed", value]) for value in ("1.5", "nan", "", "9" * 400, "9" * 5000)),
    *(("bench", ["accuracy", "--images-per-class", value]) for value in ("nan", "0", "-1", "inf")),
    *(("bench", ["accuracy", "--seconds", value]) for value in ("nan", "0", "inf")),
    *(
        ("bench", ["accuracy", name, value])
        for name in ("--seeds", "--points", "--steps")
        for value in ("0", "-1", "x")
    ),
    ("bench", ["accuracy", "--target", "nan"]),
    *(("bench", [name, "--memory", "nan"]) for name in ("hypergradient", "memory", "cost")),
    *(("bench", ["hypergradient", name, "0"]) for name in ("--repeats", "--steps", "--bases", "--images-per-class")),
    ("bench", ["upkeep", "--iterations", "-3"]),
    ("gpu_check", ["--out", "x", "--seconds", "nan"]),
    ("torture", ["--kills", "-1"]),
    ("torture", ["--starts", "1.5"]),
    ("exactness", ["--long-steps", "0"]),
]


@pytest.mark.parametrize(("what", "words"), NUMBERS, ids=lambda words: " ".join(words)[:60])
def test_a_number_that_is_none_or_beyond_its_limits_is_refused(
    what: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        PARSERS[what](words)
    said = capsys.readouterr().err
    assert end.value.code == 2 and f"argument {words[-2]}: must be a" in said, said[-300:]


@pytest.mark.parametrize("option", ["--device", "--out", "--data-dir", "--tracking-uri", "--only", "--gin"])
def test_an_empty_text_is_no_default(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*QUICK, "--out", tmp_path / "out", option, "")
    assert done.status == 2 and len(done.complaint) > 20
    assert not list(tmp_path.rglob("run.json"))


# ---------------------------------------------------------------- cells


def test_cells_that_are_not_picked_are_not_judged() -> None:
    stream, wrong = "gin/continual/rotations.gin", ["IMAGES_PER_TASK = 3"]
    assert {one.cell["method"] for one in resolve([stream], wrong, only=["ER"])} == {"ER"}
    with pytest.raises(UsageError, match=r"^cell 'method=compress-then-recall': .* at most 11 bases fit"):
        resolve([stream], wrong)
    with pytest.raises(UsageError, match="did you mean IMAGES_PER_TASK"):
        resolve([stream], ["IMAGES_PER_TASKS = 3"], only=["ER"])


def test_a_long_cell_has_a_folder_that_every_file_system_takes() -> None:
    axes = {f"axis {i}": {f"{'a long label ' * 6}{i}": [f"{name} = 2"]} for i, name in enumerate(LONG)}
    (one,) = resolve(["gin/quickstart.gin"], [f"run.axes = {axes!r}"])
    (short,) = resolve(["gin/quickstart.gin"], [f"{name} = 2" for name in LONG])
    long, plain = (directory_of(run, Path("out")).name for run in (one, short))
    assert len(long) == LONGEST_FOLDER and long.endswith(f"-seed0-{one.key}")
    assert (one.key, plain) == (short.key, f"digits-1-ic-addressing-fast-recipe-seed0-{short.key}")
    (far,) = resolve(["gin/quickstart.gin"], seed=10**300)
    assert len(directory_of(far, Path("out")).name) < 100
    with pytest.raises(UsageError, match="255 bytes"):
        resolve(["gin/quickstart.gin"], [f"run.name = {'é' * 128!r}"])


LONG = ("EPOCHS", "NETWORKS", "ITERATIONS", "INNER_STEPS")
