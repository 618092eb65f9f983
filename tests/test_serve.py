"""The pages of runs at one command: served to this machine alone, built anew and loaded again as runs finish."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from board import put, record
from command_line import Done, ended, said, start

from leaderboard import serve
from leaderboard.serve import Server, Site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def asked(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode(errors="replace")
    finally:
        connection.close()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    put(tmp_path / "runs", record("full", 0, (80.0, 82.0)), pictures=True)
    return tmp_path / "runs"


@pytest.fixture
def server(runs: Path, tmp_path: Path) -> Iterator[Server]:
    """At work, with a built site."""
    made = Server(Site(runs, tmp_path / "site"), 0)
    made.site.update()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


# ---------------------------------------------------------------- what is served


def test_a_served_page_has_the_script_and_the_built_one_has_not(server: Server, tmp_path: Path) -> None:
    built = (tmp_path / "site" / "index.html").read_text()
    for path in ("/", "/index.html", "/index.html?budget=1#rows"):
        status, headers, text = asked(server.server_port, path)
        assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
        (line,) = [line for line in text.split("\n") if serve.RELOAD in line]
        assert text.replace(f"{line}\n", "") == built and headers["ETag"] in line
    assert not [file for file in (tmp_path / "site").rglob("*") if file.is_file() and b"reload.js" in file.read_bytes()]
    status, headers, text = asked(server.server_port, serve.RELOAD)
    assert status == 200 and headers["Content-Type"].startswith("text/javascript") and "location.reload()" in text


def test_every_file_of_the_site_is_served_as_it_is(server: Server, tmp_path: Path) -> None:
    kinds = set()
    for file in sorted((tmp_path / "site").rglob("*")):
        name = str(file.relative_to(tmp_path / "site"))
        if file.is_dir() or name.startswith("."):
            continue
        status, headers, text = asked(server.server_port, f"/{name}")
        kinds.add(headers["Content-Type"])
        assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
        if file.suffix != ".html":
            assert text == file.read_bytes().decode(errors="replace")
    assert {"text/css; charset=utf-8", "image/png", "image/svg+xml", "text/plain; charset=utf-8"} <= kinds


@pytest.mark.parametrize(
    "path",
    [
        "/../runs/ablation_components/0/result.json", "/%2e%2e/secret", "/..%2fsecret", "//etc/passwd", "/etc/passwd",
        "/.made-by-leaderboard-build", "/runs", "/runs/", "/secret", "/index.html/", "/%00",
        "/%ff",
    ],
)  # fmt: skip
def test_no_other_file_is_served(path: str, server: Server, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "site"):  # beside the site, and in its folder but not of the build
        (place / "secret").write_text("a secret")
    status, _, text = asked(server.server_port, path)
    assert status == 404 and text == "There is no such page.\n"


def test_a_link_in_the_place_of_a_page_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "site" / "style.css").unlink()
    (tmp_path / "site" / "style.css").symlink_to(tmp_path / "secret")
    assert asked(server.server_port, "/style.css")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "10.0.0.1"])
def test_a_request_by_another_name_is_refused(host: str, server: Server) -> None:
    """A page of elsewhere can have its own name lead to this machine, and would then read what is served."""
    status, headers, text = asked(server.server_port, "/", Host=host)
    assert status == 403 and text == "This server answers to 127.0.0.1 and localhost alone.\n"
    assert "ETag" not in headers and asked(server.server_port, serve.RELOAD, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.1:8000"])
def test_its_own_names_are_answered_at_any_port(host: str, server: Server) -> None:
    assert asked(server.server_port, "/", Host=host)[0] == 200


def test_it_listens_on_this_machine_alone_and_answers_no_other_method(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert asked(server.server_port, "/", "POST")[0] == asked(server.server_port, "/", "PUT")[0] == 501
    status, headers, text = asked(server.server_port, "/", "HEAD")
    assert status == 200 and text == "" and int(headers["Content-Length"]) > 1000


def test_a_browser_that_goes_away_is_no_matter(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.server_port)) as half:
            half.send(b"GET / HT")
            half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends in a reset
    assert asked(server.server_port, "/")[0] == 200 and capsys.readouterr().err == ""


def test_the_tag_of_a_page_changes_when_the_page_does(server: Server, runs: Path) -> None:
    def tags() -> list[str]:
        return [
            asked(server.server_port, f"/{page}.html", "HEAD")[1]["ETag"] for page in ("index", "components", "bases")
        ]

    before = tags()
    server.site.update()
    assert tags() == before
    put(runs, record("full", 1, (81.0, 83.0)))
    server.site.update()
    index, components, bases = tags()
    assert index != before[0] and components != before[1] and bases == before[2]


# ---------------------------------------------------------------- the records


def test_records_are_found_as_the_leaderboard_finds_them(runs: Path) -> None:
    (first,) = serve.records_of(runs)
    other = put(runs, record("full", 1))
    put(runs, record("full", 2), folder=".hidden")
    put(runs, record("full", 3), folder="1-0123456789abcdef.old1")
    (other / "deeper").mkdir()
    (other / "deeper" / "result.json").touch()
    before = serve.records_of(runs)
    assert set(before) == {first, str(other / "result.json")}
    (other / "result.json").write_text("{}")
    assert serve.records_of(runs).keys() == before.keys() and serve.records_of(runs) != before
    assert serve.records_of(runs / "none") == {}


def test_a_bad_record_is_said_once_and_the_rest_is_shown(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = put(runs, record("full", 1)) / "result.json"
    bad.write_text("{")
    site = Site(runs, tmp_path / "site")
    for expected in (1, 0):
        site.update()
        err = capsys.readouterr().err
        assert err.count("it is left out") == err.count(str(bad)) == expected and "Traceback" not in err
        assert f"leaderboard.serve: 1 run of {runs}\n" in err
    assert sum(name.startswith("runs/") and name.endswith(".html") for name in site.names) == 1
    bad.write_text(json.dumps(record("full", 1)))
    site.update()
    assert f"2 runs of {runs}" in capsys.readouterr().err


def test_a_folder_without_records_is_said_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    site = Site(tmp_path / "runs", tmp_path / "site")
    site.update()
    assert f"there is no finished run in {tmp_path / 'runs'} yet" in capsys.readouterr().err
    assert b"<h1>" in (site.read("index.html") or b"")


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{tmp}/none"], "RUNS: there is no folder {tmp}/none; name the one that suite.run wrote to with --out"),
        (["{tmp}/runs/ablation_components/x"], "RUNS: there is no folder"),
        ([""], "RUNS: it is empty; name a folder"),
        (["{tmp}/runs", "--port", "70000"], "--port: there is no port 70000; name one from 0 to 65535"),
        (["{tmp}/runs", "--port", "-1"], "--port: there is no port -1"),
        (["{tmp}/runs", "--port", "{taken}"], "--port: {taken} is taken; name another, or 0 for any that is free"),
        (["{tmp}/runs", "--port", "0", "--out", "{tmp}"], "--out: {tmp} holds something else than a site"),
    ],
)
def test_what_can_not_be_served_is_one_sentence(words: list[str], sentence: str, runs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        known = {"tmp": str(tmp_path), "taken": str(other.getsockname()[1])}
        done = said(serve.main, [word.format(**known) for word in words])
    assert done.status == 2 and done.err.count("\n") == 1 and done.out == ""
    assert done.err.startswith(f"leaderboard.serve: {sentence.format(**known)}")


@contextmanager
def started(runs: Path, *words: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The command as a process of its own, and its port."""
    process = start(runs, "--port", "0", *words, code=["-m", "leaderboard.serve"])
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:") and line.endswith("/ (Ctrl-C ends it)\n"), line
        yield process, int(line.split(":")[2].split("/")[0])
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def stopped(process: "subprocess.Popen[str]") -> Done:
    process.send_signal(signal.SIGINT)
    return ended(process)


def until(what: Callable[[], bool]) -> None:
    """Wait until it is so; for no longer than any machine takes."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.2)
    pytest.fail("it did not become so in two minutes")


def test_a_record_that_is_added_changed_or_removed_is_seen_and_ctrl_c_ends_it(runs: Path, tmp_path: Path) -> None:
    with started(runs, "--out", str(tmp_path / "site")) as (process, port):

        def shows(*names: str) -> bool:
            text = asked(port, "/components.html")[2]
            return all((name in text) == (name in names) for name in ("zebra", "walrus"))

        other = put(runs, record("zebra"))
        until(lambda: shows("zebra"))
        fresh = other / "result.json.new"
        fresh.write_text(json.dumps(record("walrus")))
        os.replace(fresh, other / "result.json")
        until(lambda: shows("walrus"))
        shutil.rmtree(other)
        until(lambda: shows())
        shutil.rmtree(runs / "ablation_components")
        until(lambda: "0 runs here" in asked(port, "/")[2] and "1 runs here" not in asked(port, "/")[2])
        done = stopped(process)
    assert done.status == 0 and "Traceback" not in done.err and done.err.endswith("leaderboard.serve: stopped\n")
    assert done.err.count(f"1 run of {runs}") == 2 and done.err.count(f"2 runs of {runs}") == 2
    assert f"there is no finished run in {runs} yet" in done.err
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_temporary_site_is_gone_at_the_end(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with started(runs) as (process, port):
        assert asked(port, "/")[0] == 200 and list((tmp_path / "temporary").iterdir())
        assert stopped(process).status == 0
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; CI installs one (apt-get install chromium)")
def test_an_open_page_shows_a_run_that_finishes(runs: Path) -> None:
    from playwright.sync_api import sync_playwright

    with started(runs) as (process, port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/components.html#rows")
        page.evaluate("window.mine = true")
        assert "zebra" not in page.inner_text("main")
        put(runs, record("zebra"))
        page.locator("main", has_text="zebra").wait_for(timeout=120_000)
        assert page.evaluate("window.mine") is None and page.url.endswith("/components.html#rows")
        page.evaluate("window.mine = true")
        put(runs, record("4", 0, name="bases", axis="bases", bases="4"))
        until(lambda: "1 runs here" in asked(port, "/")[2])
        page.wait_for_timeout(3000)
        assert page.evaluate("window.mine")  # a page that is as it was is not loaded again
        assert trouble == []
        browser.close()
        assert stopped(process).status == 0
