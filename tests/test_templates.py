"""The templates of docs/templates: each is accepted by the checks, its example holds, and its printed command runs."""

import ast
import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import REPOSITORY, command, sets
from fake_session import FakeSession

from suite import registry
from suite.contracts import check
from suite.registry import Entry, load_plugin

FILES = sorted((REPOSITORY / "docs" / "templates").glob("*.py"))
KINDS = {
    "control": "controls",
    "dataset": "datasets",
    "experiment": "experiments",
    "inner_optimizer": "inner_optimizers",
    "objective": "objectives",
    "parameterization": "parameterizations",
    "stream": "streams",
}
"""The kind of component that each file registers."""

SMALL = ["ARCHITECTURE = @architectures.mlp()", "architectures.mlp.width = 16"]
"""Added to a printed command, unless its experiment has no such macro."""

_registered: dict[str, dict[str, Entry]] = {}
"""By kind, what the files register; kept, since gin accepts a name once in a process."""


@pytest.fixture(autouse=True)
def templates(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, Entry]]]:
    """The components of all files, by kind, registered for one test."""
    before = {kind: dict(known._entries) for kind, known in registry.REGISTRIES.items()}
    for kind, known in registry.REGISTRIES.items():
        monkeypatch.setattr(known, "_entries", before[kind] | _registered.get(kind, {}))
    for file in FILES:
        load_plugin(file)
    for kind, known in registry.REGISTRIES.items():
        _registered[kind] = {name: entry for name, entry in known._entries.items() if name not in before[kind]}
    yield _registered


def printed(file: Path, module: str) -> list[str]:
    """The arguments of the command that a template's docstring prints for a module."""
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    (line,) = re.findall(rf"python -m suite\.{module} ((?:.*\\\n)*.*)", text)
    return shlex.split(line.replace("\\\n", " "))


def test_contributing_names_each_of_them() -> None:
    assert {file.stem for file in FILES} == set(KINDS)
    assert all(f"`docs/templates/{stem}.py`" in (REPOSITORY / "CONTRIBUTING.md").read_text() for stem in KINDS)


@pytest.mark.parametrize("stem", KINDS)
def test_it_registers_one_component_that_keeps_every_promise(
    stem: str, templates: dict[str, dict[str, Entry]], tmp_path: Path
) -> None:
    (name,) = templates[KINDS[stem]]
    findings = check(KINDS[stem], name, tmp_path)
    assert len(findings) >= 3
    assert [finding for finding in findings if finding.verdict != "kept"] == []


@pytest.mark.parametrize("stem", KINDS)
def test_it_documents_every_field_and_shows_an_example_that_holds(
    stem: str, templates: dict[str, dict[str, Entry]], capsys: pytest.CaptureFixture[str]
) -> None:
    ((name, entry),) = templates[KINDS[stem]].items()
    file = REPOSITORY / "docs" / "templates" / f"{stem}.py"
    (node,) = [part for part in ast.parse(file.read_text()).body if isinstance(part, ast.ClassDef)]
    for part, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(part, ast.AnnAssign):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), ast.unparse(part)
    names = vars(__import__(entry.build.__module__))
    example = doctest.DocTestParser().get_doctest(entry.build.__doc__ or "", names, name, str(file), 0)
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("stem", KINDS)
def test_its_printed_commands_are_right(stem: str, data_dir: Path, tmp_path: Path) -> None:
    """The run as printed, with a small network and other places."""
    file = REPOSITORY / "docs" / "templates" / f"{stem}.py"
    assert printed(file, "check")[0] == f"docs/templates/{stem}.py"
    small = [] if stem == "experiment" else sets(*SMALL)
    done = command(
        *printed(file, "run"), *small, "--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none", "--json"
    )
    assert done.status == 0, done.err
    records = [done.record] if isinstance(done.record, dict) else done.record
    for record in records:
        assert record["scale"]["label"] == "smoke" and record["measurements"]
    assert any(name in str(records) for name in _registered[KINDS[stem]])


def test_the_experiment_resumes_to_the_same_bits(
    templates: dict[str, dict[str, Entry]], data_dir: Path, tmp_path: Path
) -> None:
    ((_, entry),) = templates["experiments"].items()
    whole, interrupted = FakeSession(data_dir, tmp_path), FakeSession(data_dir, tmp_path, stop_at=2)
    outcome = entry.build(iterations=4).run(whole)
    with pytest.raises(KeyboardInterrupt):
        entry.build(iterations=4).run(interrupted)
    resumed = FakeSession(data_dir, tmp_path, before=interrupted)
    again = entry.build(iterations=4).run(resumed)
    assert again.measurements == outcome.measurements and again.budget == outcome.budget
    assert whole.saved[1].keys() == resumed.saved[1].keys()
    assert all(torch.equal(tensor, resumed.saved[1][name]) for name, tensor in whole.saved[1].items())
