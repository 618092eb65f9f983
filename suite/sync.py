"""Send to a tracker what runs had to tell and it has not heard: `python -m suite.sync [RUNS]`.

Every run below RUNS, or one run's directory. Nothing is sent twice, so it may be called at any time and again, also
beside runs at work: on a cluster whose nodes have no network, run there and sync from the login node.
"""

import argparse
import os
import select
import signal
import sys
from pathlib import Path

from suite.errors import Interrupted, RunError, SuiteError, UsageError
from suite.runtime.run_directory import ABOUT, journal_directories, mark_dead
from suite.storage.journal import read
from suite.tracking.store import Store
from suite.tracking.uri import check_uri, default_uri, whole_uri

RETRY_SECONDS = 10.0


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(prog="python -m suite.sync", description=(__doc__ or "").split("\n")[0])
    command.add_argument("runs", nargs="?", default="runs", metavar="RUNS", help="where runs are kept (%(default)s)")
    command.add_argument("--tracking-uri", metavar="U", help="MLflow store or server (default: a database in RUNS)")
    command.add_argument("--follow", action="store_true", help="send for the directories named on stdin, until it ends")
    return command


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    runs = Path(options.runs)
    try:
        out = runs.resolve().parent.parent if (runs / ABOUT).is_file() else runs
        uri = whole_uri(options.tracking_uri or default_uri(out))
        check_uri(uri)
        store = Store(uri, out)
        return _follow(store) if options.follow else _once(store, runs)
    except SuiteError as error:
        print(f"suite.sync: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"suite.sync: {runs} can't be used: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("suite.sync: stopped; nothing was lost, give the command again", file=sys.stderr)
        return Interrupted.status


def _once(store: Store, out: Path) -> int:
    directories = journal_directories(out)
    if not directories:
        raise UsageError(f"{out} holds no runs; name the folder that --out named")
    store.connect()
    failed = 0
    for directory in directories:
        try:
            if mark_dead(directory):
                print(f"{directory}: was killed hard; marked so")
            if read(directory)[0]:
                store.send(directory)
        except RunError as error:
            failed += 1
            print(f"suite.sync: {directory}: {error}", file=sys.stderr)
    print(f"{store.uri} has heard everything of {len(directories) - failed} runs and tables of {len(directories)}")
    return 1 if failed else 0


def _follow(store: Store) -> int:
    """Send what stdin names, again and again while the store does not answer; at its end mark what died, and end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the run, whose end is told by that of stdin
    os.nice(10)
    seen: set[Path] = set()
    pending: dict[Path, None] = {}
    rest, ended, troubled = b"", False, False
    while not ended:
        ready, _, _ = select.select([0], [], [], RETRY_SECONDS if pending else None)
        if ready:
            data = os.read(0, 1 << 16)
            ended = not data
            *lines, rest = (rest + data).split(b"\0")
            pending |= dict.fromkeys(Path(os.fsdecode(line)) for line in lines)
            seen |= pending.keys()
        if ended:
            pending |= {directory: None for directory in seen if _died(directory)}
        for directory in list(pending):
            try:
                store.send(directory)
                del pending[directory]
            except RunError as error:
                pending[directory] = pending.pop(directory)  # the others first, the next time
                if not troubled:  # once for every outage
                    told = "runs go on; what they have to tell is kept, and sent later"
                    print(f"[tracking] {error}; {told}", file=sys.stderr, flush=True)
                troubled = True
                if not ended:  # at the end there is no next time
                    break
        troubled = troubled and bool(pending)
    return 1 if pending else 0


def _died(directory: Path) -> bool:
    try:
        return mark_dead(directory, patience=1.0)
    except RunError:  # no room to say so: the next command that sees it does
        return False


if __name__ == "__main__":
    sys.exit(main())
