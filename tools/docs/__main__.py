"""The documentation as a site that needs no network: `python -m tools.docs --out site`, or `make docs`.

The pages are `docs/*.md`, CONTRIBUTING, CHANGELOG, the leaderboard's README and `tests/faults.md`; the reference is
made of docstrings, parsers and gin files; the leaderboard is built inside. MkDocs with its theme Material makes HTML of
them, since the pages are Markdown that GitHub shows, too, and the theme brings its icons and its search with it. Every
warning is an error, and so is a link or an anchor that leads nowhere. Exit status: 0 done, 1 failed, 2 usage error.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from suite import terminal
from suite.errors import RunError, SuiteError, UsageError, report
from suite.storage.files import make_directory, user_path, write_atomic
from tools.docs import beside, drawings, notebooks, pages, reference
from tools.docs.links import broken_links
from tools.docs.pages import REPOSITORY

MADE = ".made-by-tools-docs"
"""A file of a site that may be replaced."""


def main(arguments: list[str] | None = None) -> int:
    """Build the site, or draw the pictures of its pages; returns the exit status."""
    command = argparse.ArgumentParser(prog="python -m tools.docs", description=(__doc__ or "").split("\n")[0])
    command.add_argument("--out", metavar="DIR", help="write the site there")
    command.add_argument("--drawings", action="store_true", help="write the drawings to docs/images")
    command.add_argument(
        "--picture", action="store_true", help="write docs/images/recalled.png, which needs Fashion-MNIST"
    )
    options = command.parse_args(arguments)
    try:
        if options.picture:
            beside.draw(make_directory(pages.IMAGES) / "recalled.png")
        if options.drawings:
            for name, text in drawings.drawings().items():
                write_atomic(make_directory(pages.IMAGES) / name, text.encode())
        if options.out:
            out = user_path(options.out, "--out").absolute()
            refuse_another(out)
            with tempfile.TemporaryDirectory() as place:
                count = build(Path(place), out)
            print(f"{count} pages: {out / 'index.html'}")
        elif not (options.drawings or options.picture):
            raise UsageError("say where the site goes, as in --out site")
    except SuiteError as error:
        report(f"tools.docs: {error}")
        return error.status
    return 0


def refuse_another(out: Path) -> None:
    """Raise UsageError for a folder that holds something else than a site of this command, or than the leaderboard."""
    inside = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if (not out.is_dir() and out.exists()) or (inside and MADE not in inside and inside != {"leaderboard"}):
        raise UsageError(f"--out: {out} holds something else than this site; name another folder")


def build(place: Path, out: Path) -> int:
    """Gather everything in `place` and make a site of it in `out`; returns the number of pages. Raises RunError."""
    stage(place / "docs")
    shutil.copy(REPOSITORY / "docs" / "mkdocs.yml", place)
    run_mkdocs(place)
    made = place / "site"
    if wrong := broken_links(made):
        raise RunError(f"{len(wrong)} links lead nowhere: {'; '.join(wrong[:10])}")
    (made / MADE).write_text("")
    if out.exists():
        shutil.rmtree(out)
    make_directory(out.parent)
    shutil.move(made, out)
    return len(list((place / "docs").rglob("*.md")))


def stage(to: Path) -> None:
    """Write all pages, pictures, templates and the leaderboard as MkDocs takes them. Raises RunError."""
    from leaderboard.build import OWN_RECORDS
    from leaderboard.build import build as build_leaderboard

    shutil.copytree(REPOSITORY / "docs" / "images", to / "images")
    style = (REPOSITORY / "docs" / "site.css").read_text()
    (to / "style.css").write_text(f"{drawings.style_sheet()}\n{style}")
    shutil.copy(REPOSITORY / "leaderboard" / "assets" / "icon.svg", to / "images" / "icon.svg")
    shutil.copy(REPOSITORY / "LICENSE", to / "license.txt")
    _, complaints = build_leaderboard([OWN_RECORDS], to / "leaderboard")
    if complaints:
        raise RunError("; ".join(complaints))
    for file in pages.TUTORIALS:
        write_atomic(
            make_directory(to / "tutorials") / f"{file.stem}.ipynb", notebooks.as_notebook(file.read_text()).encode()
        )
    texts = {**pages.pages(), **{f"reference/{name}": text for name, text in reference.pages().items()}}
    for name, text in texts.items():
        make_directory((to / name).parent)
        (to / name).write_text(text)


def run_mkdocs(place: Path) -> None:
    """Give the command of MkDocs; RunError with what it says if it warns or fails, or if it is not installed."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(place / "mkdocs.yml")]
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(words, cwd=place, env=os.environ | quiet, capture_output=True, text=True)
    if "No module named mkdocs" in done.stderr:
        raise RunError("MkDocs is not installed; pip install -e '.[docs]'")
    if done.returncode:
        raise RunError(f"mkdocs: {' / '.join((done.stdout + done.stderr).strip().splitlines()[:12])}")


if __name__ == "__main__":
    sys.exit(terminal.command(main)())
