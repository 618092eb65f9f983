"""What the leaderboard writes: tables in Markdown, and the files of the site."""

import re
import time
from pathlib import Path

import pytest
from board import GOOD, built, changed, contents, put, record, table_of
from command_line import REPOSITORY

from leaderboard import records
from leaderboard.markdown import fill, markdown
from leaderboard.tables import tables
from suite.errors import UsageError

# ---------------------------------------------------------------- Markdown


HOSTILE = "https://evil.example @someone $x$ <script>alert(1)</script> | **x** [a](javascript:b) `c`\n| d"


def test_hostile_names_stay_text_in_markdown() -> None:
    shown = markdown(table_of([record(HOSTILE)]))
    assert "<script" not in shown and not re.search(r"(?<!\\)\]\(", shown) and "**x**" not in shown
    lines = [line for line in shown.splitlines() if "alert" in line]
    heads = [line for line in shown.splitlines() if line.startswith("| data set")]
    assert len(lines) == len(heads) == 2  # the methods, and what they have over real images
    for line, head in zip(lines, heads, strict=True):
        assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", head))


def test_tables_stand_between_their_markers_and_the_rest_is_kept() -> None:
    text = "before\n<!-- components: begin -->\nold\n<!-- components: end -->\nafter\n"
    made = tables([records.Entry(record(), "here")], [])
    once = fill(text, made, "README")
    assert once.startswith("before\n<!-- components: begin -->\n") and once.endswith(
        "<!-- components: end -->\nafter\n"
    )
    assert "old" not in once and "81.0 ± " in once and "Reduced runs" in once
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
    assert len(contents(tmp_path / "two")) == len(contents(tmp_path / "one")) + 2
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


def test_hostile_records_inject_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = record(HOSTILE, name="../../" + HOSTILE, dataset=HOSTILE)
    made["environment"]["processor"] = made["config_text"] = made["scale"]["label"] = HOSTILE
    made["scale"]["reduced_by"] = made["environment"]["code"]["commit"] = [HOSTILE]
    made["measurements"][2]["method"] = '"><img src=x onerror=alert(1)>'
    run = put(tmp_path / "runs", made, folder="x")
    (run / "operative.gin").write_text(HOSTILE)
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")[0] == 0
    for name, data in contents(tmp_path / "site").items():
        if name.endswith(".html"):
            text = data.decode()
            assert text.count("<script") == 1 and "<img src=x" not in text and 'href="javascript' not in text, name
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "site"}


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


def test_time_grows_with_the_number_of_records_and_no_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tenth of ten thousand, full and reduced ones, in less than ten seconds of a processor."""
    for i in range(1000):
        put(tmp_path / "runs", record(("BPTT", "full")[i % 2], i // 2 % 5, reduced=i < 500, lr=i // 10))
    started = time.process_time()
    assert built(capsys, "--records", tmp_path / "runs", "--out", tmp_path / "site")[0] == 0
    assert time.process_time() - started < 10
    assert len(list((tmp_path / "site" / "runs").glob("*.html"))) == 1000
