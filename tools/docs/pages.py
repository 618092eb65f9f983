"""The pages of the repository as the site shows them: links lead within it, and drawings are a part of the page."""

import os
import re
from functools import cache
from pathlib import Path

from leaderboard import records
from suite.errors import RunError
from suite.registry import REGISTRIES
from tools.docs import drawings, notebooks

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "docs" / "images"

TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.py"))

ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "leaderboard/README.md": "results.md",
    "tests/faults.md": "faults.md",
}
"""Pages that lie outside `docs/`, and their names on the site."""

MADE = {
    "gin": "gin",
    "docs/templates": "templates",
    "suite/api.py": "python",
    "suite/evaluation/protocol.py": "protocols",
    "suite/runtime/record_schema.py": "record",
    "suite/types.py": "types",
    **{f"suite/{kind}": kind for kind in REGISTRIES},
}
"""Folders and files of code, and the pages below `reference/` that are made of them."""

NAMES = (
    ELSEWHERE | {"README.md": "index.md", "LICENSE": "license.txt"} | {k: f"reference/{v}.md" for k, v in MADE.items()}
)
"""Of what pages link to outside `docs/`, the names on the site."""

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s#]*)(#[^()\s]*)?\)")


def pages() -> dict[str, str]:
    """Name on the site -> text, of every page that is written by hand."""
    own = {f"docs/{file.name}": file.name for file in sorted((REPOSITORY / "docs").glob("*.md"))}
    lessons = {f"tutorials/{file.stem}.md": notebooks.as_page(file.read_text(), file.stem) for file in TUTORIALS}
    return {name: page(REPOSITORY / source, name) for source, name in {**own, **ELSEWHERE}.items()} | lessons


def page(source: Path, name: str) -> str:
    """The text of a page: its links, lists and drawings as the site needs them. Raises RunError."""
    lines: list[str] = []
    code = False
    for line in source.read_text().split("\n"):
        if line.startswith("```"):
            code = not code
        if not code:
            line = LINK.sub(lambda match: _link(match, source, name), line)
            if re.match(r"(?:[-*]|\d+\.) ", line) and lines and re.match(r"\S", lines[-1]) and not _is_item(lines[-1]):
                lines.append("")  # else Markdown in Python takes the list for a part of the paragraph
        lines.append(line)
    return "\n".join(lines)


def _is_item(line: str) -> bool:
    return re.match(r"(?:[-*]|\d+\.) ", line) is not None


def title(file: Path) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", file.read_text(), re.MULTILINE)
    if found is None:
        raise RunError(f"{file} has no heading; give it one, as in '# Runs that survive'")
    return found[1]


@cache
def _identity(folder: Path) -> str:
    """What the leaderboard's site calls the record in a folder."""
    (entry,), _ = records.read([folder])
    return entry.identity


def _link(match: re.Match[str], source: Path, name: str) -> str:
    """A link as it leads on the site; the bare text for a file that the site has not. RunError where there is none."""
    image, text, path, anchor = match[1], match[2], match[3], match[4] or ""
    if "://" in path or path.startswith("mailto:") or not path:
        return match[0]
    file = Path(os.path.normpath(source.parent / path))
    if not file.exists():
        raise RunError(f"{source}: there is no {path}; mend the link")
    within = file.relative_to(REPOSITORY).as_posix()
    if image and file.parent == IMAGES and file.suffix == ".svg":
        return drawings.inline(file.read_text(), text)
    if within.startswith("leaderboard/records/") and file.name == "operative.gin":
        target = f"leaderboard/runs/{_identity(file.parent)}.gin"
    elif within in NAMES:
        target = NAMES[within]
    elif within.startswith("docs/tutorials/"):
        target = f"tutorials/{file.stem}.md"
    elif within.startswith("docs/templates/"):
        target, anchor = "reference/templates.md", f"#{file.stem}"
    elif within.startswith("docs/") and file.is_file():
        target = within.removeprefix("docs/")
    else:
        return text
    if file.suffix == ".md" and re.fullmatch(r"[\w./-]+\.md", text):
        text = title(file) if within != "README.md" else "Start"
    return f"{image}[{text}]({os.path.relpath(target, Path(name).parent)}{anchor})"
