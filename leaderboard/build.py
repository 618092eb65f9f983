"""The command: `python -m leaderboard.build --out DIR`.

Exit status: 0 done, 1 a record was bad (the good ones are built) or the tables are stale, 2 usage error.
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from leaderboard import markdown, published, records, site
from leaderboard.tables import Table, tables
from suite import terminal
from suite.errors import RunError, SuiteError, UsageError, harmless, one_line
from suite.storage.files import make_directory, user_path, write_atomic
from suite.tracking.uri import plain_uri

HERE = Path(__file__).resolve().parent
OWN_RECORDS, README = HERE / "records", HERE / "README.md"
"""The repository's records, and the file with its tables; an installed package has neither."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="python -m leaderboard.build",
        description="Make the leaderboard's pages and tables of result records and published numbers.",
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--records", action="append", default=[], metavar="DIR", help="run folders (default: the repository's records)")
    add("--tracking-uri", metavar="U", help="MLflow store or server whose finished runs are shown as well")
    add("--out", metavar="DIR", help="write the site there")
    add("--readme", metavar="FILE", help="put tables between its markers (default: leaderboard/README.md, own records)")
    add("--check", action="store_true", help="write nothing; fail if a record is bad or the README's tables are stale")
    return options


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status, after one sentence on stderr for each thing that went wrong."""
    options = parser().parse_args(arguments)
    gc.disable()  # nothing that is made here goes before the end, and looking for what does costs a fifth of the time
    try:
        with tempfile.TemporaryDirectory() as place:
            return _build(options, make_directory(Path(place) / "downloads"))
    except SuiteError as error:
        print(f"leaderboard.build: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("leaderboard.build: stopped; the same command makes the rest", file=sys.stderr)
        return 130
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"leaderboard.build: {place}{error.strerror or error}; name another place", file=sys.stderr)
        return 2
    finally:
        gc.enable()


def build(places: Sequence[Path], out: Path) -> tuple[int, list[str]]:
    """Write the site of the records below these places; returns how many runs have pages, and what is wrong.

    Raises UsageError for a place that is not there and for a folder that holds something else than a site, and OSError.
    """
    entries, complaints = records.read(places)
    sources = published.sources()
    make_directory(out.parent)
    return site.write(out, tables(entries, published.published(known=sources)), sources), complaints


def _build(options: argparse.Namespace, downloads: Path) -> int:
    if not options.out and not options.check and not options.readme:
        raise UsageError("say where the site goes, as in --out site, or use --check")
    elsewhere = bool(options.records) or options.tracking_uri is not None
    repository = not elsewhere and OWN_RECORDS.is_dir()
    if not elsewhere and not repository:
        raise UsageError("--records: an installed package has no records of its own; name a folder of runs")
    entries, complaints = _entries(options, downloads, repository)
    sources = published.sources()
    every = tables(entries, published.published(known=sources))
    readme = user_path(options.readme, "--readme") if options.readme else README if repository else None
    text, filled = _filled(readme, every) if readme is not None else ("", "")
    if options.check:
        if filled != text:
            complaints.append(f"{readme}: its tables are stale; run python -m leaderboard.build --readme {readme}")
    else:
        if options.out:
            out = user_path(options.out, "--out").absolute()
            make_directory(out.parent)
            runs = site.write(out, every, sources)
            print(f"{runs} run{'' if runs == 1 else 's'}: {out / 'index.html'}")
        if filled != text and readme is not None:
            write_atomic(readme, filled.encode())
    for complaint in complaints:
        print(f"leaderboard.build: {harmless(one_line(complaint))}", file=sys.stderr)
    return 1 if complaints else 0


def _entries(options: argparse.Namespace, downloads: Path, repository: bool) -> tuple[list[records.Entry], list[str]]:
    """The records of all places, the tracker's among them, and what is wrong."""
    places = [OWN_RECORDS] if repository else [user_path(place, "--records") for place in options.records]
    complaints = []
    if options.tracking_uri is not None:
        places.append(downloads)
        try:
            _download(options.tracking_uri, downloads)
        except RunError as error:
            if not options.records and not any(downloads.iterdir()):
                raise RunError(f"{error}; nothing was written") from error
            complaints.append(str(error))
    entries, bad = records.read(places)
    told = f"{plain_uri(options.tracking_uri or '')}, run "
    return entries, complaints + [text.replace(f"{downloads}/", told) for text in bad]


def _filled(readme: Path, every: tuple[Table, ...]) -> tuple[str, str]:
    """The file's text as it is and as it should be, line endings unchanged."""
    if not readme.is_file():
        raise UsageError(f"--readme: there is no file {readme}")
    try:
        text = readme.read_bytes().decode()
    except ValueError as error:
        raise UsageError(f"--readme: {readme} is not a text ({error})") from error
    plain = text.replace("\r\n", "\n")
    filled = markdown.fill(plain, every, str(readme))
    return text, filled.replace("\n", "\r\n") if plain != text else filled


def _download(uri: str, folder: Path) -> None:
    """Put what is shown of a tracker's finished runs below the folder."""
    from suite.tracking.store import Store
    from suite.tracking.uri import check_uri, whole_uri

    check_uri(uri)
    names = (records.RESULT, records.OPERATIVE, records.METRICS, records.FIGURES, site.MEMORY_FILE)
    for _ in Store(whole_uri(uri), folder.parent).download(names, folder):
        pass


if __name__ == "__main__":
    sys.exit(main())
