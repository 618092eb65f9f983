"""Where the suite's own gin files lie: in `gin/` of the checkout, or in the installed package."""

from pathlib import Path

SUITE = Path(__file__).resolve().parents[1]

ROOT = SUITE / "packaged" if (SUITE / "packaged").is_dir() else SUITE.parent
"""The folder that holds `gin/`: of an installed package (pyproject.toml puts it there), else the checkout.

A file or an include is looked for in the working directory first, then here.
"""


def gin_files() -> list[str]:
    """The suite's own files as `--gin` names them, such as 'gin/quickstart.gin'."""
    return sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "gin").rglob("*.gin"))


def find(file: str) -> Path | None:
    """A gin file, from the working directory or else from `ROOT`; None if there is none."""
    return next((path for path in (Path(file), ROOT / file) if path.is_file()), None)
