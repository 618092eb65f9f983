"""Send to a tracker what it lacks of the journals of runs: `python -m suite.sync [RUNS]`.

Of every run below RUNS, or of one run's directory. Nothing is sent twice, so the command can be given at any time and
again, also while runs are at work: on a cluster whose nodes have no network, run there and sync from the login node.
"""

import argparse
import os
import select
import signal
import sys
from pathlib import Path

from suite import terminal
from suite.errors import Interrupted, RunError, SuiteError, UsageError, printable, report
from suite.runtime.run_directory import ABOUT, journal_directories, links_left_out, mark_dead
from suite.storage.files import user_path
from suite.storage.journal import read
from suite.tracking.store import Misplaced, NoAnswer, Store
from suite.tracking.uri import check_uri, default_uri, whole_uri

RETRY_SECONDS = 10.0
"""Between two tries while a store does not answer."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(prog="python -m suite.sync", description=(__doc__ or "").split("\n")[0])
    command.add_argument("runs", nargs="?", default="runs", metavar="RUNS", help="where runs are kept (%(default)s)")
    command.add_argument("--tracking-uri", metavar="U", help="MLflow store or server (default: a database in RUNS)")
    command.add_argument("--follow", action="store_true", help="send for the directories named on stdin, until it ends")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    runs = Path(options.runs)
    try:
        runs = user_path(options.runs, "RUNS")
        out = runs.resolve().parent.parent if (runs / ABOUT).is_file() else runs
        uri = default_uri(out) if options.tracking_uri is None else whole_uri(options.tracking_uri)
        check_uri(uri)
        store = Store(uri, out)
        return _follow(store) if options.follow else _send_all(store, runs)
    except SuiteError as error:
        report(f"suite.sync: {error}")
        return error.status
    except OSError as error:
        report(f"suite.sync: {runs} can't be used: {error.strerror or error}")
        return RunError.status
    except KeyboardInterrupt:
        report("suite.sync: stopped; nothing was lost, give the command again")
        return Interrupted.status


def _send_all(store: Store, out: Path) -> int:
    directories, left_out = journal_directories(out), links_left_out(out)
    if left_out:
        report(f"suite.sync: {left_out}")
    if not directories:
        raise UsageError(f"{out} holds no runs; name the folder that --out named")
    store.connect()
    sent = 0
    for directory in directories:
        try:
            if mark_dead(directory):
                print(printable(f"{directory}: was killed; marked as KILLED"))
            if read(directory)[0]:
                store.send(directory)
            sent += 1
        except RunError as error:
            report(f"suite.sync: {directory}: {error}")
            if isinstance(error, NoAnswer):
                report("suite.sync: what comes after it was not tried; nothing was lost, give the command again")
                break
    print(f"{store.uri} has everything of {sent} runs and tables of {len(directories)}")
    return 0 if sent == len(directories) else RunError.status


def _follow(store: Store) -> int:
    """Send for the directories that stdin names, with retries while the store does not answer.

    stdin ends with the run's process. Then runs that died are marked, everything is tried once more, and the exit
    status says whether all was sent.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the run, and the end of stdin for this process
    os.nice(10)
    seen: set[Path] = set()
    pending: dict[Path, None] = {}
    misplaced: set[Path] = set()
    partial, ended, outage = b"", False, False
    while not ended:
        readable, _, _ = select.select([0], [], [], RETRY_SECONDS if pending else None)
        if readable:
            data = os.read(0, 1 << 16)
            ended = not data
            *names, partial = (partial + data).split(b"\0")
            pending |= dict.fromkeys(Path(os.fsdecode(name)) for name in names)
            seen |= pending.keys()
        if ended:
            pending |= {directory: None for directory in seen if _died(directory)}
        outage = _send_pending(store, pending, misplaced, outage, try_all=ended)
    return RunError.status if pending or misplaced else 0


def _send_pending(store: Store, pending: dict[Path, None], misplaced: set[Path], outage: bool, try_all: bool) -> bool:
    """Send for each directory and take it off `pending`; returns whether the store is out of reach.

    Of a directory in `misplaced`, the store does not take the files; that is said once, and is no outage.
    The first failure of an outage is reported. It ends the round, unless there is no later one (`try_all`).
    """
    for directory in list(pending):
        try:
            store.send(directory)
            del pending[directory]
            misplaced.discard(directory)
        except Misplaced as error:
            if directory not in misplaced:
                report(f"[tracking] {error}")
            del pending[directory]
            misplaced.add(directory)
        except RunError as error:
            pending[directory] = pending.pop(directory)  # the next round begins with another one
            if not outage:
                report(f"[tracking] {error}; runs continue, and what is missing there is sent later")
            outage = True
            if not try_all:
                break
    return outage and bool(pending)


def _died(directory: Path) -> bool:
    """Mark a run that died; whether it did."""
    try:
        return mark_dead(directory, patience=1.0)
    except RunError:  # no room to write it: the next command that sees the run does
        return False


if __name__ == "__main__":
    sys.exit(main())
