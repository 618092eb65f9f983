"""What is released: workflows that run CI's own commands, images whose files are there, templates of issues."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from command_line import REPOSITORY

from suite import __version__
from suite.__main__ import COMMANDS

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DOCKERFILES = sorted((REPOSITORY / ".docker").glob("*.Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order, lines that go on joined and comments left out."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def faults(file: Path) -> list[str]:
    """What is wrong with a Dockerfile, as far as it can be seen without building it."""
    steps = instructions(file)
    names = [name for name, _ in steps]
    wrong = [f"unknown instruction {name}" for name in names if name not in KNOWN]
    wrong += [] if names and names[0] == "FROM" else ["it does not begin with FROM"]
    for name, rest in steps:
        if name == "FROM" and not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", rest):
            wrong.append(f"FROM {rest} has no version")
        if name == "COPY":
            *sources, target = rest.split()
            wrong += [f"COPY: there is no {source}" for source in sources if not (REPOSITORY / source).exists()]
            wrong += [f"COPY: {target} is no folder"] if len(sources) > 1 and not target.endswith("/") else []
        if name in ("ENTRYPOINT", "CMD") and not isinstance(json.loads(rest), list):
            wrong.append(f"{name} is no list of words")
        if name == "RUN" and "apt-get install" in rest and not ("apt-get update" in rest and "rm -rf /var/lib" in rest):
            wrong.append("apt-get install without update before, or with its lists left behind")
        if name == "RUN" and "pip install" in rest and "--no-cache-dir" not in rest:
            wrong.append("pip leaves its cache in the image")
    users = [rest for name, rest in steps if name == "USER"]
    wrong += [] if users and users[-1] != "root" else ["it runs as root"]
    return wrong


KNOWN = {"FROM", "ARG", "RUN", "COPY", "USER", "WORKDIR", "ENV", "ENTRYPOINT", "CMD"}
"""Instructions that these files need."""


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_a_dockerfile_is_sound_and_installs_what_the_package_is_made_of(file: Path) -> None:
    assert faults(file) == []
    steps = dict(instructions(file))
    copied = {s for name, rest in instructions(file) if name == "COPY" for s in rest.split()[:-1]}
    assert copied == {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "suite", "gin", "leaderboard"}
    assert json.loads(steps["ENTRYPOINT"]) == list(PROJECT["scripts"]) and json.loads(steps["CMD"])[0] in COMMANDS
    version = re.search(r"python:3\.(\d+)", steps["FROM"])
    assert version is not None and int(version[1]) >= int(PROJECT["requires-python"].removeprefix(">=3."))
    lowest = {one for one in PROJECT["dependencies"] if one.startswith(("torch>", "torchvision>"))}
    assert set(re.findall(r'"(torch\w*>=[\d.]+)"', file.read_text())) == lowest


def test_a_dockerfile_that_is_not_sound_is_seen(tmp_path: Path) -> None:
    assert [file.stem for file in DOCKERFILES] == ["cpu", "cuda"]
    (tmp_path / "Dockerfile").write_text(
        "FROM python\nADD x y\nCOPY nothing there\nRUN apt-get install gcc && pip install x\n"
    )
    assert faults(tmp_path / "Dockerfile") == [
        "unknown instruction ADD",
        "FROM python has no version",
        "COPY: there is no nothing",
        "apt-get install without update before, or with its lists left behind",
        "pip leaves its cache in the image",
        "it runs as root",
    ]


CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge calls otherwise."""


def of_conda(dependency: str) -> str:
    """A dependency as a recipe has it: 'torch>=2.11' is 'pytorch >=2.11'."""
    name, lowest = dependency.split(">=")
    return f"{CONDA.get(name, name)} >={lowest}"


def test_the_recipe_of_conda_forge_is_the_package() -> None:
    recipe = yaml.safe_load((REPOSITORY / ".conda" / "recipe.yaml").read_text())
    needs, build = recipe["requirements"], tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]
    assert needs["run"] == ["python >=${{ python_min }}", *map(of_conda, PROJECT["dependencies"])]
    assert needs["host"] == ["python ${{ python_min }}.*", "pip", *map(of_conda, build["requires"])]
    assert recipe["context"] == {"version": __version__, "python_min": PROJECT["requires-python"].removeprefix(">=")}
    assert recipe["package"] == {"name": PROJECT["name"], "version": "${{ version }}"}
    scripts = [f"{name} = {where}" for name, where in PROJECT["scripts"].items()]
    assert recipe["build"]["noarch"] == "python" and recipe["build"]["python"]["entry_points"] == scripts
    about = {key: PROJECT[key] for key in ("license", "license-files", "description")}
    assert list(recipe["about"].values()) == [about["description"], about["license"], *about["license-files"]]


def test_the_recipe_of_conda_forge_tries_what_ci_tries() -> None:
    recipe = yaml.safe_load((REPOSITORY / ".conda" / "recipe.yaml").read_text())
    packages = (REPOSITORY / ".ci" / "packages").read_text()
    (tried,) = [one["script"] for one in recipe["tests"] if "script" in one]
    written = re.findall(r'venv/bin/(?:memory-suite" |python" -m suite\.)(.+)$', packages, re.MULTILINE)
    assert tried == [f"memory-suite {words}" for words in written] and len(tried) == 3


def test_the_workflow_runs_ci_on_every_python_and_the_oldest_and_newest_torch() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"] and matrix["torch"] == ["newest"]
    assert matrix["include"] == [{"python": "3.11", "torch": "oldest"}]
    assert f">={matrix['python'][0]}" == PROJECT["requires-python"]
    for job, command in (("test", ".ci/run"), ("packages", ".ci/packages")):
        assert jobs[job]["steps"][-1] == {"run": command}
        assert (REPOSITORY / command).stat().st_mode & 0o111


def test_the_oldest_torch_is_read_from_the_project(tmp_path: Path) -> None:
    """By the workflow's own line."""
    steps = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]["steps"]
    (script,) = [step["run"] for step in steps if "PIP_CONSTRAINT" in step.get("run", "")]
    env = {"PATH": "/usr/bin:/bin", "RUNNER_TEMP": str(tmp_path), "GITHUB_ENV": str(tmp_path / "env")}
    subprocess.run(["bash", "-ec", script], cwd=REPOSITORY, env=env, check=True, capture_output=True)
    lowest = [
        one.replace(">=", "==") + ".*" for one in PROJECT["dependencies"] if one.startswith(("torch>", "torchvision>"))
    ]
    assert (tmp_path / "oldest.txt").read_text().split() == lowest and len(lowest) == 2
    assert (tmp_path / "env").read_text() == f"PIP_CONSTRAINT={tmp_path / 'oldest.txt'}\n"


def test_the_templates_of_issues_ask_for_what_is_needed() -> None:
    folder = REPOSITORY / ".github" / "ISSUE_TEMPLATE"
    read = {file.stem: yaml.safe_load(file.read_text()) for file in folder.glob("*.yml")}
    assert set(read) == {"config", "fault", "method"}
    for name in ("fault", "method"):
        ids = [part["id"] for part in read[name]["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids)) and read[name]["name"] and read[name]["description"]
    asked = {part["id"]: part for part in read["fault"]["body"] if "id" in part}
    assert "`python -m suite.doctor`" in asked["doctor"]["attributes"]["label"]
    assert asked["doctor"]["validations"]["required"] and asked["command"]["validations"]["required"]
    assert "`python -m suite.runs list RUN`" in asked["run"]["attributes"]["label"]


def test_paths_that_these_files_name_are_there() -> None:
    files = [*REPOSITORY.glob(".github/**/*.*"), *DOCKERFILES, *(REPOSITORY / ".ci").iterdir()]
    named = {
        (file.name, path)
        for file in files
        for path in re.findall(r"\b(?:docs|tools|gin)/[\w/]+\.\w+", file.read_text())
    }
    assert len(named) > 4
    assert [(name, path) for name, path in named if not (REPOSITORY / path).is_file()] == []
