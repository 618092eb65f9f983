"""The command `python -m leaderboard.serve [RUNS]`: the pages of your runs in a browser, built anew as runs finish.

Exit status: 0 ended by Ctrl-C, 1 the pages can't be built, 2 usage error.
"""

import argparse
import errno
import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from leaderboard.build import build
from leaderboard.records import MAX_BYTES, RESULT
from leaderboard.site import SIGN
from suite import terminal
from suite.errors import RunError, SuiteError, UsageError, harmless, one_line
from suite.runtime.run_directory import is_set_aside
from suite.storage.files import user_path
from suite.storage.plain_files import read_plain

ADDRESS, PORT = "127.0.0.1", 8000
"""Where pages are served: to this machine alone."""

HOSTS = (ADDRESS, "localhost")
"""Names that a request may call this server by. A page from elsewhere whose name was made to lead here has another."""

SECONDS = 1.0
"""Between looks at the runs, at the least."""

RELOAD = "/.reload.js"
"""Where an open page finds its script. No file of a site begins with a dot."""

SCRIPT = b"""const seen = document.currentScript.dataset.page;
setInterval(async () => {
  const answer = await fetch(location.pathname, {method: "HEAD", cache: "no-store"}).catch(() => null);
  if (answer && answer.ok && answer.headers.get("ETag") !== seen) location.reload();
}, 1000);
"""
"""Loads an open page again once its file is another."""

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "gin": "text/plain; charset=utf-8",
}
"""What files are, by how their names end."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="python -m leaderboard.serve",
        description="Show the pages of your runs in a browser, and build them anew as runs finish.",
        allow_abbrev=False,
    )
    add = options.add_argument
    add("runs", nargs="?", default="runs", metavar="RUNS", help="the folder that suite.run wrote to (default: runs)")
    add("--port", type=int, default=PORT, metavar="N", help=f"(default: {PORT}; 0: any that is free)")
    add("--out", metavar="DIR", help="keep the site there (default: a temporary folder)")
    return options


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Run the command until Ctrl-C; returns its exit status, after one sentence on stderr for what went wrong."""
    options = parser().parse_args(arguments)
    try:
        runs = user_path(options.runs, "RUNS")
        if not runs.is_dir():
            raise UsageError(f"RUNS: there is no folder {runs}; name the one that suite.run wrote to with --out")
        with tempfile.TemporaryDirectory() as place:
            out = user_path(options.out, "--out").absolute() if options.out else Path(place) / "site"
            with _serving(Site(runs, out), options.port) as server:
                _watch(server)
    except SuiteError as error:
        _say(error)
        return error.status
    except KeyboardInterrupt:
        _say("stopped")
    return 0


def _say(sentence: object) -> None:
    print(f"leaderboard.serve: {harmless(one_line(str(sentence)))}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the site


@dataclass
class Site:
    """The built pages of a folder of runs. Nobody reads a file while a build is writing."""

    runs: Path
    """The folder of runs."""
    out: Path
    """The folder of the site."""
    names: frozenset[str] = frozenset()
    """Files of the last build."""
    complaints: frozenset[str] = frozenset()
    """What was wrong at the last build."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by who builds or reads."""

    def update(self) -> None:
        """Build the site anew, and say how many runs it has and what is wrong that was not before. Raises RunError."""
        with self.lock:
            try:
                runs, complaints = build([self.runs], self.out)
            except OSError as error:
                raise RunError(
                    f"{error.filename or self.out}: {error.strerror or error}; name another --out"
                ) from error
            self.names = frozenset(read_plain(self.out / SIGN, MAX_BYTES).decode().split("\n"))
        for complaint in complaints:
            if complaint not in self.complaints:
                _say(complaint)
        self.complaints = frozenset(complaints)
        if runs:
            _say(f"{runs} run{'' if runs == 1 else 's'} of {self.runs}")
        else:
            _say(f"there is no finished run in {self.runs} yet; the pages show each once it is there")

    def read(self, name: str) -> bytes | None:
        """A file of the last build; None for any other."""
        with self.lock:
            if name not in self.names:
                return None
            try:
                return read_plain(self.out / name, MAX_BYTES)
            except (FileNotFoundError, RunError):  # somebody else was at the folder
                return None


def records_of(runs: Path) -> dict[str, tuple[int, int, int]]:
    """Every finished record below a folder, with what changes when it does."""
    found = {}
    for folder, below, names in os.walk(runs):
        below[:] = [name for name in below if not name.startswith(".") and not is_set_aside(Path(name))]
        if RESULT in names:
            below.clear()
            try:
                about = os.lstat(file := f"{folder}/{RESULT}")
            except OSError:  # it is gone
                continue
            found[file] = about.st_mtime_ns, about.st_size, about.st_ino
    return found


def _watch(server: "Server") -> None:
    """Build the site, and again whenever a record was added, changed or removed; for ever."""
    site = server.site
    before = records_of(site.runs)
    site.update()
    print(f"http://{ADDRESS}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
    while True:
        began = time.monotonic()
        now = records_of(site.runs)
        took = time.monotonic() - began
        if now != before:
            before = now
            try:
                site.update()
            except SuiteError as error:
                _say(error)
        time.sleep(max(SECONDS, 9 * took))  # a tenth of a core, however many runs there are


# ---------------------------------------------------------------- the server


class Server(ThreadingHTTPServer):
    """Serves a site to this machine."""

    daemon_threads = True

    def __init__(self, site: Site, port: int) -> None:
        """Listens at once. Raises OSError and OverflowError."""
        super().__init__((ADDRESS, port), _Answer)
        self.site = site

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the middle of an answer is no matter; anything else is one sentence."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            _say(f"a request failed ({type(error).__name__}: {error})")


@contextmanager
def _serving(site: Site, port: int) -> Iterator[Server]:
    """A server at work within the block. Raises UsageError where there can be none."""
    try:
        server = Server(site, port)
    except OverflowError as error:
        raise UsageError(f"--port: there is no port {port}; name one from 0 to 65535") from error
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is taken" if taken else f"can't be listened to ({error.strerror})"
        raise UsageError(f"--port: {port} {why}; name another, or 0 for any that is free") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Answer(BaseHTTPRequestHandler):
    """One answer."""

    server: Server
    timeout = 30

    def do_GET(self) -> None:
        """A file of the site; a page with the script that loads it again."""
        self._answer(*self._found())

    do_HEAD = do_GET

    def _found(self) -> tuple[HTTPStatus, str, bytes, str]:
        """Status, type, content, and the tag that changes when the file does."""
        if not self._is_called_by_its_name():
            text = f"This server answers to {' and '.join(HOSTS)} alone.\n"
            return HTTPStatus.FORBIDDEN, TYPES["gin"], text.encode(), ""
        path = unquote(urlsplit(self.path).path)
        if path == RELOAD:
            return HTTPStatus.OK, TYPES["js"], SCRIPT, ""
        name = path.removeprefix("/") or "index.html"
        data = self.server.site.read(name)
        if data is None:
            return HTTPStatus.NOT_FOUND, TYPES["gin"], b"There is no such page.\n", ""
        kind = TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if kind == TYPES["html"]:
            script = f"<script src=\"{RELOAD}\" data-page='{tag}' defer></script>\n"
            data = data.replace(b"</body>", script.encode() + b"</body>")
        return HTTPStatus.OK, kind, data, tag

    def _is_called_by_its_name(self) -> bool:
        try:
            return urlsplit(f"//{self.headers.get('Host', '')}").hostname in HOSTS
        except ValueError:
            return False

    def _answer(self, status: HTTPStatus, kind: str, data: bytes, tag: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """A line for each request would hide what is said of runs."""


if __name__ == "__main__":
    sys.exit(main())
