"""The documentation as a site: pages made of the code hold all of it, links lead somewhere, drawings are the code's.

That MkDocs takes all pages without a warning is seen by `make docs`, which CI runs.
"""

import dataclasses
import json
import os
import re
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import REPOSITORY, as_people_run_it, said
from PIL import Image, ImageChops, ImageStat

import suite
from suite import api
from suite.__main__ import COMMANDS, load
from suite.architectures.mlp import MLP
from suite.errors import RunError
from suite.evaluation.protocol import PROTOCOLS, Protocol
from suite.registry import REGISTRIES
from suite.runtime import record_schema
from suite.storage.gin_files import gin_files
from tools.docs import __main__ as docs
from tools.docs import beside, drawings, notebooks, pages, reference
from tools.docs.links import broken_links


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The pages that are made of the code."""
    return reference.pages()


def test_every_component_is_there_with_every_field(made: dict[str, str]) -> None:
    for kind, registry in REGISTRIES.items():
        page = made[f"{kind}.md"]
        for entry in (entry for entry in registry if entry.origin.startswith("suite.")):
            _, head, rest = page.partition(f"\n## `{entry.name}` {{: #{entry.name} }}\n")
            assert head, (kind, entry.name)
            section = rest.partition("\n## ")[0]
            assert reference.prose(entry.summary) in section
            for field in dataclasses.fields(entry.build) if dataclasses.is_dataclass(entry.build) else ():
                (row,) = re.findall(rf"^\| `{field.name}` \| <code>.+</code> \| .+ \| (.+) \|$", section, re.MULTILINE)
                assert len(row) > 1, (entry.name, field.name)


def test_fields_that_a_parent_declares_have_their_meaning(made: dict[str, str]) -> None:
    digits = made["datasets.md"].partition("## `digits`")[2].partition("\n## ")[0]
    assert "| `zca_regularization` | <code>Positive</code> | <code>0.1</code> | Of the two ZCA kinds. |" in digits


def test_every_command_configuration_protocol_and_template_is_there(
    made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(reference.COLUMNS))
    for name, (module, _) in COMMANDS.items():
        assert f"\n## {name}\n" in made["commands.md"]
        assert load(module).parser().format_help().rstrip() in made["commands.md"]
    assert os.environ["COLUMNS"] == str(reference.COLUMNS)
    assert all(f"\n## {name} {{:" in made["gin.md"] for name in gin_files())
    assert (
        "| `OUTER_LR` | <code>0.05</code> | bases and coefficients both move; chosen on the validation split |"
        in made["gin.md"]
    )
    assert all(f"\n## {name}\n" in made["protocols.md"] for name in PROTOCOLS)
    templates = (REPOSITORY / "docs" / "templates").glob("*.py")
    assert all(file.read_text().rstrip() in made["templates.md"] for file in templates)
    assert all(f"\n## suite.{name}\n" in made["python.md"] for name in suite._HOMES)
    parts = [kind for name, kind in vars(record_schema).items() if name.endswith("Record")]
    keys = {key for kind in parts for key in kind.__annotations__}
    assert len(keys) > 60 and all(re.search(rf"^\| `{key}` \| .+ \| ..+ \|$", made["record.md"], re.M) for key in keys)
    assert "\n### Memory.train\n" in made["python.md"] and "\n## Setting\n" in made["types.md"]


def test_a_docstring_stays_what_it_says() -> None:
    assert reference.prose("a_b < *c* | `d_e < f`") == r"a\_b &lt; \*c\* \| `d_e < f`"
    assert reference.prose(">>> 1\n1\n\n    x = y") == "```pycon\n>>> 1\n1\n```\n\n```text\nx = y\n```"
    assert reference.cell("two\nlines, a | b") == r"two lines, a \| b"


def linked(text: str, source: str = "docs/x.md", name: str = "x.md") -> str:
    return pages.LINK.sub(lambda match: pages._link(match, REPOSITORY / source, name), text)


@pytest.mark.parametrize(
    ("source", "given", "wanted"),
    [
        ("docs/x.md", "[how](runs.md#the-tracker)", "[how](runs.md#the-tracker)"),
        ("docs/x.md", "[docs/runs.md](runs.md)", "[Runs that survive](runs.md)"),
        ("docs/x.md", "[all](../CONTRIBUTING.md)", "[all](contributing.md)"),
        ("docs/x.md", "[types](../suite/types.py)", "[types](reference/types.md)"),
        ("docs/x.md", "[sets](../suite/datasets)", "[sets](reference/datasets.md)"),
        ("docs/x.md", "[noise](templates/stream.py)", "[noise](reference/templates.md#stream)"),
        ("docs/x.md", "[code](../suite/keys.py)", "code"),
        ("docs/x.md", "[far](https://example.org/a#b)", "[far](https://example.org/a#b)"),
        (
            "CONTRIBUTING.md",
            "[docs/judging.md](docs/judging.md)",
            "[Distilled sets of others, judged as ours are](judging.md)",
        ),
        ("leaderboard/README.md", "[start](../README.md)", "[start](index.md)"),
    ],
)
def test_a_link_leads_to_the_same_on_the_site(source: str, given: str, wanted: str) -> None:
    assert linked(given, source) == wanted


def test_a_record_s_link_leads_to_its_file_on_the_leaderboard() -> None:
    text = (REPOSITORY / "leaderboard" / "README.md").read_text()
    link = re.findall(r"\[gin\]\(records/\S+?\)", text)[0]
    assert re.fullmatch(
        r"\[gin\]\(leaderboard/runs/[0-9a-f]{16}\.gin\)", linked(link, "leaderboard/README.md", "results.md")
    )


def test_a_page_keeps_its_code_and_its_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "REPOSITORY", tmp_path)
    (tmp_path / "y.py").write_text("")
    (tmp_path / "a.md").write_text("# A\n\nwords\n- one\n- two\n\n```\n[x](y.py)\n- no list\n```\n[x](y.py)\n")
    wanted = "# A\n\nwords\n\n- one\n- two\n\n```\n[x](y.py)\n- no list\n```\nx\n"
    assert pages.page(tmp_path / "a.md", "a.md") == wanted
    (tmp_path / "b.md").write_text("no heading, [x](gone.md)")
    with pytest.raises(RunError, match=r"there is no gone\.md; mend the link"):
        pages.page(tmp_path / "b.md", "b.md")
    with pytest.raises(RunError, match="has no heading"):
        pages.title(tmp_path / "b.md")


def test_a_drawing_is_a_part_of_its_page() -> None:
    text = pages.page(REPOSITORY / "docs" / "concepts.md", "concepts.md")
    assert text.count("<figure") == text.count("<svg") == 4 and "<style" not in text and "images/memory.svg" not in text
    assert "var(--ink)" in drawings.style_sheet() and "slate" in drawings.style_sheet()


def test_links_that_lead_nowhere_are_seen(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<h2 id="there">x</h2>')
    whole = (
        '<a href="b/">1</a><a href="b/index.html#there">2</a><a href="#own" id="own">3</a><a href="https://x.org">4</a>'
    )
    (tmp_path / "a.html").write_text(whole + '<link rel="canonical" href="https://x.org/a">')
    assert broken_links(tmp_path) == []
    bad = '<a href="c.html">1</a><a href="b/#gone">2</a><a href="#none">3</a><script src="https://x.org/y.js"></script>'
    (tmp_path / "a.html").write_text(bad)
    assert broken_links(tmp_path) == [
        "a.html: https://x.org/y.js is fetched from elsewhere",
        "a.html: c.html",
        "a.html: b/#gone (no such anchor)",
        "a.html: #none (no such anchor)",
    ]


def test_drawings_are_those_of_the_code() -> None:
    """But for shades of pixels, of which the last may differ from one machine to another."""
    made, files = drawings.drawings(), sorted(pages.IMAGES.glob("*.svg"))
    assert [file.name for file in files] == sorted(made)
    for file in files:
        here, there = (re.sub(r'<path fill="#\w+" d="\S+"/>', "", text) for text in (made[file.name], file.read_text()))
        assert here == there, f"{file.name} is stale: python -m tools.docs --drawings"
    assert made["memory.svg"].count("<path") > 300


@pytest.mark.slow
def test_the_picture_is_that_of_the_records(tmp_path: Path, data_dir: Path) -> None:
    assert beside.accuracy("fashion_mnist-1ipc-bptt", "memory") == (pytest.approx(76.35), 3)
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("Fashion-MNIST is not here")
    beside.draw(tmp_path / "new.png", data_dir)
    new, old = Image.open(tmp_path / "new.png"), Image.open(pages.IMAGES / "recalled.png")
    assert new.size == old.size
    tiles = (beside.LEFT, beside.TOP, *new.size)
    difference = ImageStat.Stat(ImageChops.difference(new.crop(tiles), old.crop(tiles))).mean
    assert max(difference) < 1, "docs/images/recalled.png is stale: python -m tools.docs --picture"


def test_another_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    done = said(docs.main, ["--out", str(tmp_path)])
    assert done.status == 2 and "holds something else than this site; name another folder" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    assert said(docs.main, []).status == 2
    docs.refuse_another(tmp_path / "new")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / docs.MADE).write_text("")
    docs.refuse_another(tmp_path / "old")


def test_every_page_has_its_place_in_the_menu(made: dict[str, str]) -> None:
    menu = re.findall(r"^ +- .+: (\S+\.md)$", (REPOSITORY / "docs" / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(menu) == sorted([*pages.pages(), *(f"reference/{name}" for name in made)])


@pytest.fixture
def small(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart in a second: two outer steps, an MLP, one network for an epoch; in an empty directory."""
    short = Protocol(networks=1, epochs=1)
    quick = replace(api.quickstart(), architecture=MLP(width=16), evaluation=short, full_data_epochs=0)
    monkeypatch.setenv("SUITE_DATA_DIR", str(data_dir))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROTOCOLS, "paper", short)
    monkeypatch.setattr(api, "quickstart", lambda: quick)
    monkeypatch.setattr(suite, "distil", partial(suite.distil, iterations=2))


def lesson(stem: str, **smaller: str) -> dict[str, Any]:
    """What is there after every cell of a tutorial, with other values for what it sets, as ITERATIONS="10"."""
    (file,) = [file for file in pages.TUTORIALS if file.stem == stem]
    space: dict[str, Any] = {"__name__": stem}
    text = file.read_text()
    for name, value in smaller.items():
        text, found = re.subn(rf"\b{name}( ?= ?)(?:\[[^]]*\]|\d+)", rf"{name}\g<1>{value}", text)
        assert found == 1, name
    with as_people_run_it():
        for kind, words in notebooks.cells(text):
            if kind == "code":
                exec(compile(words, file.name, "exec"), space)
    return space


@pytest.mark.slow
def test_the_tutorial_that_looks_at_a_memory(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    after = lesson("distil_and_look")
    printed = capsys.readouterr().out
    assert "Memory(digits, addressing, 624 numbers" in printed and "40 images of 1x8x8, 4 for each class" in printed
    assert after["images"].shape == (40, 1, 8, 8) and "random real images" in repr(after["accuracies"])
    assert float(printed.split("largest difference: ")[1].split()[0]) < 1e-6


@pytest.mark.slow
def test_the_tutorial_that_writes_an_inner_optimizer(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    after = lesson("inner_optimizer")
    assert after["stepped"]["w"].item() == pytest.approx(0.62) and after["error"] < 1e-12
    assert capsys.readouterr().out.count("random real images") == 2


@pytest.mark.slow
def test_the_tutorial_that_reproduces_a_table(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Forward only trains as full momentum does, by another gradient; of the table, the step that the text believes."""
    after = lesson("momentum", ITERATIONS="30", SEEDS="[0]", NETWORKS="1")
    printed = capsys.readouterr().out
    full, forward_only = re.findall(r"^(?:SGD|ForwardOnly)Momentum (\S+)$", printed, re.MULTILINE)
    assert full == forward_only and float(full) == pytest.approx(1 - 0.01 * 2 * (1 + 1.9 + 2.71))
    assert 0.2 < after["cosine"] < 0.9
    means = {row: after["mean"](by_seed.values()) for row, by_seed in after["accuracies"].items()}
    assert means["no momentum"] + 0.5 < min(means["forward-only momentum"], means["full momentum"])
    assert all(f"{row:22} {mean:.1f}  mean {mean:.1f}" in printed for row, mean in means.items())


@pytest.mark.slow
def test_the_tutorial_that_writes_an_objective(small: None) -> None:
    after = lesson("objective", iterations="60")
    assert after["off"][1.0] < 0.6 * after["off"][0.0]
    assert {finding.verdict for finding in after["findings"]} == {"kept"} and len(after["findings"]) > 5
    assert all("random real images" in repr(accuracies) for accuracies in after["worth"].values())


@pytest.mark.slow
def test_the_tutorial_that_writes_a_stream(small: None) -> None:
    after = lesson("stream")
    assert after["rows"].shape == (4 * 8, 10 * 8) and after["knows"][0] > 90 and max(after["knows"][1:]) < 60
    assert {finding.verdict for finding in after["findings"]} == {"kept"} and len(after["findings"]) > 5


@pytest.mark.slow
def test_the_tutorial_that_compares_a_stream_with_replay(small: None) -> None:
    """What the text says of it: a naive network forgets, and how many updates replay has decides who is ahead."""
    after = lesson("replay", TASKS="3", SAMPLES="100", ABSORBED="50", NETWORKS="1")
    matrices, stored = after["matrices"], after["stored"]
    assert {matrix.shape for matrix in matrices.values()} == {(3, 3)} and len(matrices) == 5
    assert stored["compress-then-recall"] == stored["absorbed alone"] <= stored["ER, updates 1"] == 60 * 64
    retained = {name: matrix[-1].mean() for name, matrix in matrices.items()}
    naive = matrices["naive, updates 10"]
    assert naive[-1, 0] < naive[0, 0] - 10 and retained["naive, updates 10"] < retained["compress-then-recall"] - 5
    assert retained["ER, updates 1"] < min(retained["compress-then-recall"], retained["ER, updates 10"]) - 10


@pytest.mark.slow
def test_the_tutorial_that_judges_a_set(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    after = lesson("judge", NETWORKS="2")
    printed = capsys.readouterr()
    assert after["refused"] == 2 and "suite.evaluate: --space: 'dc' does not say" in printed.err
    assert re.search(r"^printed by its authors +99\.0 ", printed.out, re.MULTILINE)
    assert max(after["accuracies"].values()) < 80 and set(after["accuracies"]) == {"memory", "random real images"}
    assert float((after["recalled"] - after["images"]).abs().max()) < 1e-5
    assert after["of_class"].tolist() == list(range(10))


@pytest.mark.slow
def test_the_tutorial_that_trains_a_network_on_a_memory(small: None) -> None:
    after = lesson("own_network")
    assert after["right"] > 87 and after["by_hand"] > 80 and after["right"] > after["unprepared"]


def test_figures_that_tutorials_quote_are_the_leaderboard_s() -> None:
    quoted = {
        "momentum": ("85.9, 91.5 and 92.2",),
        "replay": ("2.1 ± 1.4 points above replay", "9.0 ± 2.3", "1.7 ± 1.4"),
        "own_network": ("92.0",),
    }
    results = " ".join((REPOSITORY / "leaderboard" / "README.md").read_text().split())
    assert "| `digits-1ipc-bptt` | 92.0 |" in results
    for stem, figures in quoted.items():
        words = (REPOSITORY / "docs" / "tutorials" / f"{stem}.py").read_text().replace("\n# ", " ")
        assert all(figure in words and figure in results for figure in figures), stem


def test_a_tutorial_is_a_page_and_a_notebook() -> None:
    menu = (REPOSITORY / "docs" / "mkdocs.yml").read_text()
    assert sorted(re.findall(r"tutorials/(\w+)\.md", menu)) == [file.stem for file in pages.TUTORIALS]
    for file in pages.TUTORIALS:
        text = file.read_text()
        read = json.loads(notebooks.as_notebook(text))
        assert [(cell["cell_type"], "".join(cell["source"])) for cell in read["cells"]] == notebooks.cells(text)
        code = [words for kind, words in notebooks.cells(text) if kind == "code"]
        page = pages.pages()[f"tutorials/{file.stem}.md"]
        assert page.startswith("# ") and f"({file.stem}.ipynb)" in page and all(words in page for words in code)
        assert sum(len(words.split()) for words in code) > 60


def test_the_citation_has_the_version() -> None:
    text = (REPOSITORY / ".github" / "CITATION.cff").read_text()
    assert f"\nversion: {suite.__version__}\n" in text
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f"\nlicense: {project['license']}\n" in text
