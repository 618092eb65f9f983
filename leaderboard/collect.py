"""The command `python -m leaderboard.collect RUNS`: copies what is published of finished runs."""

import argparse
import shutil
import sys
from pathlib import Path

from leaderboard.build import OWN_RECORDS
from leaderboard.records import FIGURES, METRICS, OPERATIVE, RESULT, read
from leaderboard.site import PICTURES
from suite.errors import SuiteError
from suite.files import disk_errors


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(prog="python -m leaderboard.collect", description=__doc__, allow_abbrev=False)
    made.add_argument("runs", nargs="+", metavar="DIR", help="run folders, or folders of them")
    made.add_argument("--to", default=str(OWN_RECORDS), metavar="DIR", help="(default: the repository's records)")
    options = made.parse_args(arguments)
    try:
        entries, complaints = read([Path(place) for place in options.runs])
        for entry in entries:
            if entry.folder is not None:
                _copy(entry.folder, Path(options.to) / entry.folder.parent.name / entry.folder.name)
    except SuiteError as error:
        print(f"leaderboard.collect: {error}", file=sys.stderr)
        return error.status
    for complaint in complaints:
        print(f"leaderboard.collect: {complaint}", file=sys.stderr)
    print(f"{len(entries)} records in {options.to}")
    return 1 if complaints else 0


def _copy(folder: Path, to: Path) -> None:
    """What the leaderboard shows of a run, and no more: not its checkpoints, nor the paths in its `run.json`."""
    with disk_errors(to):
        for name in (RESULT, OPERATIVE, METRICS, *(f"{FIGURES}/{picture}.png" for picture in PICTURES)):
            if (folder / name).is_file():
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, to / name)


if __name__ == "__main__":
    sys.exit(main())
