"""`memory-suite`: every command under one name, the same as its module's own; quick to start; completed in a shell."""

import shutil
import subprocess
import sys
import tomllib

import pytest
from command_line import REPOSITORY, ended, start

import suite
from suite import __main__ as command
from suite.registry import REGISTRIES
from suite.storage.gin_files import gin_files

NAMES = list(command.COMMANDS)


def help_of(*words: str, module: str) -> str:
    done = ended(start(*words, "--help", code=["-m", module]))
    assert done.status == 0 and not done.err
    return done.out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_the_help_of_its_module(name: str) -> None:
    assert help_of(*name.split(), module="suite") == help_of(module=command.COMMANDS[name][0])


def test_arguments_and_exit_status_are_those_of_the_module(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert command.main(["run", "--gin", "gin/quickstrat.gin"]) == 2
    assert "suite.run: --gin: there is no file gin/quickstrat.gin; did you mean" in capsys.readouterr().err
    assert command.main(["runs", "list", "--out", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out
    assert command.main(["data", "digits", "--data-dir", str(tmp_path)]) == 0
    assert command.main(["leaderboard", "build", "--records", str(tmp_path / "none"), "--check"]) == 2
    with pytest.raises(SystemExit) as left:
        command.main(["sync", "--nothing"])
    assert left.value.code == 2


def test_help_names_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, summary) in command.COMMANDS.items():
        assert [line for line in lines if line.split("  ")[1:2] == [name] and line.endswith(summary)]
    assert max(map(len, lines)) < 100


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name a command; there are: run, sweep, evaluate, runs"),
        (["rnus"], "there is no command 'rnus'; did you mean 'runs'?"),
        (["leaderboard", "biuld"], "there is no command 'leaderboard biuld'; did you mean 'leaderboard build'?"),
        (["completion", "fish"], "completion: name a shell; there are: bash, zsh"),
        (["completion"], "completion: name a shell"),
    ],
)
def test_a_wrong_command_is_refused_in_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"memory-suite: {sentence}") and printed.count("\n") == 1


def test_the_version_stands_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"memory-suite {suite.__version__}\n"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "suite.__version__"}
    assert project["project"]["scripts"] == {"memory-suite": "suite.__main__:main"}


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["data", "--help"], ["doctor", "--help"], ["completion", "bash"]]
)
def test_what_computes_nothing_starts_without_torch(words: list[str]) -> None:
    program = f"""
import sys
from suite.__main__ import main
try:
    main({words!r})
finally:
    assert not {{"torch", "mlflow"}} & set(sys.modules)
"""
    done = ended(start(code=["-c", program]))
    assert done.status == 0 and done.out, done.err


# ---------------------------------------------------------------- completion


def completed(shell: str, line: str) -> list[str]:
    """What the script offers for the last word of a command line."""
    words = line.split(" ")
    program = f"""
{command.completion(shell)}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
_memory_suite
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    if shell == "zsh":
        program = "setopt ksh_arrays\n" + program
    done = subprocess.run([shell, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    offered = done.stdout.split()
    return (
        offered if shell == "bash" else [word for word in offered if word.startswith(words[-1])]
    )  # zsh filters itself


CASES = {
    "memory-suite ": [
        *("run", "sweep", "evaluate", "runs", "sync", "check", "memory", "data", "doctor", "leaderboard", "completion"),
        *("--help", "--version"),
    ],
    "memory-suite run": ["run", "runs"],
    "memory-suite run --fr": ["--fresh"],
    "memory-suite run --gin gin/sc": [file for file in gin_files() if file.startswith("gin/scale/")],
    "memory-suite run --gin gin/bases.gin --dry": ["--dry-run"],
    "memory-suite run --list inn": ["inner_optimizers"],
    "memory-suite run --out ": [],
    "memory-suite runs re": ["resume", "reap"],
    "memory-suite runs clean --y": ["--yes"],
    "memory-suite data fash": ["fashion_mnist"],
    "memory-suite data digits --off": ["--offline"],
    "memory-suite check --kind str": ["streams"],
    "memory-suite check li": [],
    "memory-suite leaderboard ": ["build", "serve", "collect"],
    "memory-suite leaderboard build --re": ["--records", "--readme"],
    "memory-suite leaderboard collect --r": [],
    "memory-suite completion ": ["bash", "zsh"],
}  # fmt: skip
"""A command line up to the cursor, and what completes its last word; none: the shell completes a file's name."""


@pytest.mark.parametrize("line", CASES)
def test_bash_completes(line: str) -> None:
    assert completed("bash", line) == CASES[line]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize("line", CASES)
def test_zsh_completes(line: str) -> None:
    assert completed("zsh", line) == CASES[line]


def test_completion_follows_the_parsers() -> None:
    """A new option, component kind or gin file is completed without any work here."""
    script = command.completion("bash")
    for module, _ in command.COMMANDS.values():
        for action in command.load(module).parser()._actions:
            assert all(option in script for option in action.option_strings)
    assert all(name in script for name in (*gin_files(), *REGISTRIES))
    assert "bashcompinit" in command.completion("zsh") and "bashcompinit" not in script


def test_python_m_suite_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "suite", "--version"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == f"memory-suite {suite.__version__}\n"


def test_a_command_that_ran_is_found_by_a_later_import() -> None:
    program = "from suite.__main__ import load\nload('suite.sync')\nimport suite.sync\nsuite.sync.main"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
