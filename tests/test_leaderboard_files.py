"""What the leaderboard writes: tables in Markdown, and the files of the site."""

import csv
import io
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from board import GOOD, built, changed, contents, put, record, sealed, table_of
from command_line import REPOSITORY

from leaderboard import charts, records, site
from leaderboard.markdown import fill, markdown
from leaderboard.tables import tables
from suite.errors import UsageError, harmless
from suite.storage.files import sha256

# ---------------------------------------------------------------- Markdown


HOSTILE = "https://evil.example @someone $x$ <script>alert(1)</script> | **x** [a](javascript:b) `c`\n| d"


def test_hostile_names_stay_text_in_markdown() -> None:
    shown = markdown(table_of([record(f"\u202e\x1b[31m{HOSTILE}")]))
    assert not set(shown) & set("\u202e\x1b")
    assert "<script" not in shown and not re.search(r"(?<!\\)\]\(", shown) and "**x**" not in shown
    lines = [line for line in shown.splitlines() if "alert" in line]
    heads = [line for line in shown.splitlines() if line.startswith("| method")]
    assert len(lines) == len(heads) == 1
    for line, head in zip(lines, heads, strict=True):
        assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", head))


def test_tables_stand_between_their_markers_and_the_rest_is_kept() -> None:
    text = "before\n<!-- components: begin -->\nold\n<!-- components: end -->\nafter\n"
    made = tables([records.Entry(record(), "here")], [])
    once = fill(text, made, "README")
    assert once.startswith("before\n<!-- components: begin -->\n") and once.endswith(
        "<!-- components: end -->\nafter\n"
    )
    assert "old" not in once and "81.0 ± " in once and "(reduced: not ranked" in once
    assert fill(once, made, "README") == once


@pytest.mark.parametrize(
    "text",
    [
        "<!-- components: begin -->",
        "<!-- components: end --><!-- components: begin -->",
        "<!-- components: begin --><!-- momentum: end -->",
        "<!-- unheard: begin --><!-- unheard: end -->",
    ],
)
def test_broken_markers_get_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"README: .*marker"):
        fill(text, tables([], []), "README")


def test_the_repository_s_own_tables_are_what_its_records_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert built(capsys, "--check") == (0, "")
    text = (REPOSITORY / "leaderboard" / "README.md").read_text()
    assert all(f"<!-- {slug}: begin -->" in text for slug in ("components", "momentum", "transfer", "bases"))


def test_stale_tables_and_bad_records_fail_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "runs", GOOD)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- components: begin -->\n<!-- components: end -->\n")
    where = ["--records", tmp_path / "runs", "--readme", readme]
    status, err = built(capsys, *where, "--check")
    assert status == 1 and "stale" in err and "81.0" not in readme.read_text()
    assert built(capsys, *where)[0] == 0 and "81.0" in readme.read_text()
    assert built(capsys, *where, "--check") == (0, "")
    put(tmp_path / "runs", changed(GOOD, "schema", to=7), folder="bad")
    status, err = built(capsys, *where, "--check")
    assert status == 1 and "schema 7" in err and "are stale" not in err


# ---------------------------------------------------------------- the site's files


def test_same_records_same_bytes_whatever_was_there_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (2, 0, 1):
        put(tmp_path / "runs", record(seed=seed), pictures=seed == 0)
        put(tmp_path / "moved", record(seed=2 - seed), folder=f"run{seed}", pictures=seed == 2)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "one")[0] == 0
    put(tmp_path / "more", record("BPTT"))
    both = ["--records", tmp_path / "more", "--records", tmp_path / "moved"]
    assert built(capsys, *both, "--out", tmp_path / "two")[0] == 0
    assert len(contents(tmp_path / "two")) == len(contents(tmp_path / "one")) + 4
    assert built(capsys, "--records", tmp_path / "moved", "--out", tmp_path / "two")[0] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_rebuild_removes_its_own_pages_and_nothing_of_anybody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "runs", GOOD)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")[0] == 0
    others = [tmp_path / "site" / "CNAME", tmp_path / "site" / "runs" / "mlflow.db"]
    for file in others:
        file.write_text("mine")
    (tmp_path / "none").mkdir()
    assert built(capsys, "--records", tmp_path / "none", "--out", tmp_path / "site")[0] == 0
    assert not list((tmp_path / "site" / "runs").glob("*.html")) and all(f.read_text() == "mine" for f in others)


def test_line_endings_of_a_readme_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "runs", GOOD)
    readme = tmp_path / "README.md"
    readme.write_bytes(b"a\r\n<!-- components: begin -->\r\n<!-- components: end -->\r\nb\r\n")
    assert built(capsys, "--records", tmp_path / "runs", "--readme", readme) == (0, "")
    text = readme.read_bytes()
    assert b"81.0" in text and text.count(b"\n") == text.count(b"\r\n")
    assert built(capsys, "--records", tmp_path / "runs", "--readme", readme, "--check") == (0, "")


NAMES = {
    "a script": "<script>alert(1)</script>",
    "a picture": '"><img src=x onerror=alert(1)>',
    "a link": "javascript:alert(1)",
    "a template": "{{ 7 * 7 }} {% include 'base.html' %}",
    "a terminal's escapes": "\x1b]0;title\x07\x1b[31m\x9b1m\0",
    "right to left": "\u202elluf\u2066\u200f",
    "100,000 letters": "x" * 100_000,
    "all": HOSTILE,
}
"""What a record may hold wherever it holds a text."""


def of_hostile(text: str) -> dict[str, Any]:
    """A record with a text in the place of every one of its own, but for its hashes."""
    made = record(text, name=text, dataset=text, axis=text)
    made["environment"] = {"device": text, "processor": text, "system": text, "code": {"commit": text, "changed": True}}
    made["config_text"] = made["scale"]["label"] = made["scale"]["protocol"] = made["facts"][text[:99]] = text
    made["scale"]["reduced_by"] = [text]
    for one in made["measurements"][1:]:
        one |= {key: text for key in ("method", "note", "over", "network", "episodes", "quantity")}
    return sealed(made)


class Parsed(HTMLParser):
    """What a page loads and where it leads, its script and style, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("what", NAMES)
def test_texts_of_a_record_are_text_on_every_page(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = NAMES[what]
    run = put(tmp_path / "runs", GOOD, folder="x", pictures=True)
    (run / "result.json").write_text(json.dumps([of_hostile(text)]))
    (run / "operative.gin").write_text(text)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    pages = {file: Parsed(file.read_text()) for file in (tmp_path / "site").rglob("*.html")}
    for file, page in pages.items():
        assert page.tags.count("script") == 1 and not {"style", "iframe", "object", "embed", "base"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]
        for name, value in page.attributes:
            if name in ("src", "href", "action", "srcset", "poster", "data", "formaction") and not value.startswith(
                "#"
            ):
                place = (file.parent / value.split("#")[0]).resolve()
                assert place.is_file() and place.is_relative_to(tmp_path / "site"), value
        policies = [value for _, value in page.attributes if value.startswith("default-src 'self'")]
        assert policies == ["default-src 'self'; base-uri 'none'; form-action 'none'"]
        assert not set(file.read_text()) & set("\x1b\x07\x9b\0\u202e\u2066\u200f")
    (page,) = [page for file, page in pages.items() if file.parent.name == "runs"]
    shown = harmless(text)
    assert page.text.count(shown.strip()) >= 10 and (
        what not in ("a script", "a link", "100,000 letters") or shown == text
    )
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "site"}


def test_style_and_script_load_nothing() -> None:
    for name in ("style.css", "script.js", "icon.svg"):
        text = (site.HERE / "assets" / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"url\((?!#)|@import|https?://|fetch|XMLHttp|innerHTML|setAttribute\(.style", text), name


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: file.symlink_to(file.parent.parent / "private")])
@pytest.mark.parametrize("name", ["index.html", "style.css", ".made-by-leaderboard-build"])
def test_what_is_in_the_way_of_a_page_is_neither_waited_for_nor_written_through(
    name: str, make: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "runs", GOOD)
    (tmp_path / "private").write_text("mine")
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    (tmp_path / "site" / name).unlink()
    make(tmp_path / "site" / name)
    status, err = built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")
    assert status in (1, 2) and err.count("\n") == 1 and (tmp_path / "private").read_text() == "mine"


def test_a_site_of_a_stranger_has_nothing_else_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "runs", GOOD)
    (tmp_path / "site").mkdir()
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "mine.txt").write_text("mine")
    (tmp_path / "site" / "link").symlink_to(tmp_path / "private")
    (tmp_path / "site" / ".made-by-leaderboard-build").write_text("link/mine.txt\n../private/mine.txt\n\0\n")
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    assert (tmp_path / "private" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "iteration,metric,value\n" + "x" * 200_000,
        "iteration,metric,value\n0,loss," + "9" * 200_000,
        "iteration,metric,value\n0" + ",loss" * 100_000,
        "iteration,metric,value\n0,loss,1e308\n1,loss,-1e308\n2,loss,nan\n3,loss,inf\n",
        "iteration,metric,value\n1e308,loss,1\n-1e308,loss,2\n1e-320,loss,5e-324\n",
        "\0" * 1000,
        "",
    ],
    ids=["a field", "a number", "columns", "numbers without end", "iterations without end", "nothing", "empty"],
)
def test_curves_that_are_none_are_left_out(text: str) -> None:
    for one in charts.curves(text):
        places = [float(place) for series in one.series for place in series.line.replace(",", " ").split()]
        assert places and all(map(math.isfinite, places))
        assert all(math.isfinite(point.x + point.y) for series in one.series for point in series.points)


def test_what_lies_in_a_run_s_folder_and_can_not_be_read_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put(tmp_path / "runs", GOOD, pictures=True)
    (run / "metrics.csv").write_bytes(b"\xff\x00 not a table")
    (run / "operative.gin").write_bytes(b"\xff")
    (run / "figures" / "recalled.png").write_text("<svg onload=alert(1)>")
    (run / "figures" / "bases.png").mkdir()
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    assert not list((tmp_path / "site").rglob("*.png"))


def rows_in(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_tables_and_records_can_be_downloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, other = b"a memory", b"another"
    for seed, held in ((0, memory), (1, other)):
        made = record("=full", seed, (80.0 + seed, 82.0 + seed))
        made["facts"]["memory_sha256"] = sha256(memory)
        run = put(tmp_path / "runs", sealed(made), pictures=True)
        (run / "memory.safetensors").write_bytes(held)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    site = tmp_path / "site"
    lines, table = json.loads((site / "components.json").read_text()), rows_in(site / "components.csv")
    assert [one["kind"] for one in lines[:3]] == ["run", "control", "control"] and len(lines) == len(table) == 3 + 61
    assert (lines[0]["method"], table[0]["method"]) == ("=full", "'=full")  # no formula in a spreadsheet
    assert (lines[0]["test_mean"], lines[0]["seeds"], lines[0]["means"]) == (81.5, "0 1", "81 82")
    assert float(table[0]["test_mean"]) == 81.5 and list(table[0]) == list(lines[0])
    printed = [one for one in lines if one["kind"] == "printed" and one["data_set"] == "cifar100"]
    assert printed and all(one["printed"] and one["source"].startswith("S, ") for one in printed)
    (with_memory,) = site.rglob("*.safetensors")  # the other is not the one that its record names
    assert with_memory.read_bytes() == memory
    page = with_memory.with_suffix(".html").read_text()
    assert f'href="{with_memory.name}" download' in page and "seed 1</a>" in page
    assert json.loads(with_memory.with_suffix(".json").read_text())["seed"] == 0
    values = rows_in(with_memory.with_suffix(".csv"))
    assert [(one["method"], one["value"]) for one in values[:2]] == [("memory", "80.0"), ("memory", "82.0")]
    assert len(values) == 7


def test_a_run_s_title_says_what_it_is_of_and_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = record("full", 3)
    made["cost"]["finished_at"] = 86_400 * 364.5
    put(tmp_path / "runs", made)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    (page,) = (tmp_path / "site" / "runs").glob("*.html")
    assert "<title>Fashion-MNIST, 1 I/C, full, seed 3 (1970-12-31)" in page.read_text()


def test_a_run_s_page_names_some_of_many_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page for each of 150 seeds named the other 149: the work grew with the square of their number."""
    for seed in range(25):
        put(tmp_path / "runs", record("full", seed))
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site") == (0, "")
    page = next((tmp_path / "site" / "runs").glob("*.html")).read_text()
    assert len(re.findall(r">seed \d+</a>", page)) == site.MOST_SEEDS and "and 4 more." in page


def test_the_work_grows_with_the_number_of_records_and_no_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls of functions are counted: unlike seconds, they are the same on every machine, and beside any other work."""
    calls = {}
    for number in (20, 40, 80):
        place = tmp_path / str(number)
        for i in range(number):
            put(place / "runs", record(("BPTT", "full")[i % 2], i // 2 % 5, reduced=i < number // 2, lr=i // 10))
        counted = itertools.count()
        sys.setprofile(lambda frame, event, argument, counted=counted: next(counted) and None)
        try:
            assert built(capsys, "--records", place / "runs", "--out", place / "site")[0] == 0
        finally:
            sys.setprofile(None)
        calls[number] = next(counted)
        assert len(list((place / "site" / "runs").glob("*.html"))) == number
    assert calls[80] - calls[40] < 2.2 * (calls[40] - calls[20]), calls
