"""Sets on the Hugging Face Hub, which its own library fetches and keeps: `hf:USER/NAME`."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.errors import RunError, SuiteError, UsageError, one_line, printable
from suite.memory.sharing import HUB
from suite.storage.files import disk_errors

PLACE = re.compile(r"hf:([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([\w./ -]+?))?/?")
"""Repository, revision, and a folder in it."""


@contextmanager
def fetched(source: str) -> Iterator[tuple[Path, str]]:
    """A folder with the tables of a repository of data sets, and what a record calls it, with the commit.

    `source` is hf:USER/NAME, with @REVISION and /FOLDER where they are needed. Raises UsageError for another text, and
    RunError, with the command that fetches it, where it can't be had.
    """
    found = PLACE.fullmatch(source)
    if found is None or ".." in source:
        raise UsageError(
            f"{printable(source)[:200]}: a set on the Hub is {HUB}USER/NAME, {HUB}USER/NAME@REVISION or "
            f"{HUB}USER/NAME/FOLDER"
        )
    name, revision, folder = found[1], found[2], found[3] or ""
    snapshot = _snapshot(name, revision)
    tables = sorted((snapshot / folder).rglob("*.parquet"))
    if not tables:
        raise RunError(f"{printable(source)} has no tables of parquet; fetch its files, and name them with their --as")
    with tempfile.TemporaryDirectory(prefix="set-") as made:
        place = Path(made) / name.split("/")[1]
        for table in tables:  # the library's cache is made of links, which no importer follows
            copy = place / table.relative_to(snapshot / folder)
            with disk_errors(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(table, copy)
        inner = f"/{folder}" if folder else ""
        yield place, f"{HUB}{name}@{snapshot.name[:12]}{inner}"


def _snapshot(name: str, revision: str | None) -> Path:
    """The library's folder with the repository's tables of one commit."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"]))
    except SuiteError:
        raise
    except ImportError as error:
        raise RunError(
            f"{HUB}{name} needs the package huggingface_hub: pip install 'addressable-memory-suite[huggingface]'"
        ) from error
    except Exception as error:  # of the library's own, and of the network
        at = "" if revision is None else f" --revision {revision}"
        raise RunError(
            f"{HUB}{name} can't be had ({one_line(error)[:300]}); check its name; without a network, fetch it where "
            f"there is one, by `hf download {name} --repo-type dataset{at} --local-dir set`, and name that folder"
        ) from error
