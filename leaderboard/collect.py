"""The command `python -m leaderboard.collect RUNS`: copies what is published of finished runs."""

import argparse
import sys
from pathlib import Path

from leaderboard.build import OWN_RECORDS
from leaderboard.records import FIGURES, METRICS, OPERATIVE, RESULT, Entry, read
from leaderboard.site import MEMORY_FILE, PICTURES
from suite import terminal
from suite.errors import SuiteError, UsageError, harmless, one_line
from suite.storage.files import disk_errors, make_directory, user_path


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(prog="python -m leaderboard.collect", description=__doc__, allow_abbrev=False)
    command.add_argument("runs", nargs="+", metavar="DIR", help="run folders, or folders of them")
    command.add_argument("--to", metavar="DIR", help="(default: the repository's records)")
    command.add_argument("--memories", action="store_true", help="copy the memories' files, too, for the gallery")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 1 something was left out, 2 usage error."""
    options = parser().parse_args(arguments)
    try:
        places = [user_path(place, "DIR") for place in options.runs]
        copied, complaints = _collect(places, _destination(options.to), options.memories)
    except SuiteError as error:
        print(f"leaderboard.collect: {error}", file=sys.stderr)
        return error.status
    for complaint in complaints:
        print(f"leaderboard.collect: {harmless(one_line(complaint))}", file=sys.stderr)
    print(f"{copied} record{'' if copied == 1 else 's'} copied to {_destination(options.to)}")
    return 1 if complaints else 0


def _destination(to: str | None) -> Path:
    """The folder that was named, or the repository's; an installed package has none of its own."""
    if to is None and not OWN_RECORDS.is_dir():
        raise UsageError("--to: name the folder that records go to; only a checkout has one of its own")
    return OWN_RECORDS if to is None else user_path(to, "--to")


def _collect(places: list[Path], to: Path, memories: bool) -> tuple[int, list[str]]:
    """Copy every run below the places; returns how many, and what is wrong with the others."""
    entries, complaints = read(places)
    copied = 0
    for entry in entries:
        if entry.folder is None:
            complaints.append(f"{entry.where}: it is a record without a run's folder, and was not copied")
            continue
        folder = entry.folder.resolve()
        beside = sorted(file.name for file in folder.glob("preprocessing-*.safetensors"))  # of a large whitening
        _copy(entry, to / folder.parent.name / folder.name, [MEMORY_FILE, *beside] if memories else [])
        copied += 1
    return copied, complaints


def _copy(entry: Entry, to: Path, also: list[str]) -> None:
    """What the leaderboard shows of a run, and no more: not its checkpoints, nor the paths in its `run.json`."""
    with disk_errors(to):
        for name in (RESULT, OPERATIVE, METRICS, *also, *(f"{FIGURES}/{picture}.png" for picture in PICTURES)):
            data = entry.read(name)
            if data is not None:
                make_directory((to / name).parent)
                (to / name).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
