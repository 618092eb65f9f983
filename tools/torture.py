"""Kill a real run at many moments and compare its bits with an untouched run's; start many runs at once.

    python -m tools.torture --kills 100
    python -m tools.torture --kills 30 --experiment compress_then_recall
    python -m tools.torture --starts 20

--kills: a run on digits, tracked, is stopped again and again and started again by the same command, until it is done;
then another copy, until the number of stops is reached. A third of the stops come at a random moment: SIGKILL, with or
without the process that sends to the tracker, or a signal that asks (SIGINT, SIGTERM, SIGHUP), which must lead to exit
status 75. The others are SIGKILL inside a write of each kind (files, checkpoints, journal, renames, deletions, requests
to MLflow), which is left half-done. What the run says goes to a file, through `tee`, or to a stderr that is closed or
that nobody reads, by turns. Every copy must end as the untouched run: the same memory, record, metrics and pictures,
and every metric once in MLflow. --starts: eight runs start together in a fresh folder with a fresh store and fresh
data, as many times as asked.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.runtime.signals import end
from suite.validation import AtLeast, number_option

COMMON = ["--checkpoint-seconds", "0.3", "--json", "--set", "SCALE = 'torture'"]


def _command(file: str, *bindings: str, only: Sequence[str] = ()) -> list[str]:
    chosen = [word for cell in only for word in ("--only", cell)]
    sets = [word for binding in bindings for word in ("--set", binding)]
    return ["--gin", file, "--gin", "gin/scale/smoke.gin", *chosen, *COMMON, *sets]


ON_DIGITS = ("SEEDS = [0]", "DATASET = @datasets.digits()", "ARCHITECTURE = @architectures.mlp()", "ITERATIONS = 6")

RUNS = {
    "distillation": _command(
        "gin/quickstart.gin",
        *("ITERATIONS = 12", "INNER_STEPS = 5", "VALIDATION_POINTS = 3", "NETWORKS = 3"),
        *("EPOCHS = 10", "architectures.convnet.width = 32"),
        "experiments.distillation.clip = 1e-3",  # so that the gradient's norm shows in the bits
    ),
    "compress_then_recall": _command(
        "gin/continual/permutations.gin",
        *(*ON_DIGITS[:-1], "IMAGES_PER_TASK = 10"),
        only=["method=compress-then-recall"],
    ),
    "extrapolation": _command(
        "gin/synthesis/extrapolation.gin",
        *(*ON_DIGITS, "WAYS_PER_TASK = 2", "BASES_OF_10 = 16"),
        only=["budget=10 I/C", "addressing"],
    ),
    "image_recall": _command(
        "gin/synthesis/image_recall.gin",
        *(*ON_DIGITS, "BASES = 6", "EXTRACTOR = @architectures.mlp()"),
        only=["2-way"],
    ),
}
"""Small runs of digits with everything in them, by experiment: ten seconds or so each."""

WAYS = ("to a file", "through tee", "stderr closed", "stderr broken")
"""Where what a run says goes."""

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a run obeys at its next checkpoint."""

TRY_AGAIN = 75
"""The exit status of a run that a signal stopped."""

TOGETHER = 8
"""Runs of one start."""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in ("run", "sync"):
        return _instrumented(words)
    parser = argparse.ArgumentParser(prog="python -m tools.torture", description=(__doc__ or "").split("\n")[0])
    count = number_option(int, AtLeast(0))
    parser.add_argument("--kills", type=count, default=0, metavar="N")
    parser.add_argument(
        "--starts", type=count, default=0, metavar="N", help=f"times that {TOGETHER} runs start together"
    )
    parser.add_argument("--experiment", choices=RUNS, default="distillation", help="that is killed (%(default)s)")
    parser.add_argument(
        "--seed", type=number_option(int), default=0, help="decides the moments of the kills (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="keep everything here (default: a temporary folder)")
    options = parser.parse_args(words)
    if not options.kills and not options.starts:
        parser.error("give --kills N or --starts N")
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        good = True
        if options.kills:
            good &= kills(out, options.kills, options.seed, options.experiment)
        if options.starts:
            good &= starts(out, options.starts)
    return 0 if good else 1


# ---------------------------------------------------------------- killing


def kills(out: Path, n: int, seed: int, experiment: str = "distillation") -> bool:
    """Stop `n` times and print the outcome; whether every copy ended as the untouched run did."""
    chance = random.Random(seed)
    log = out / "events.txt"
    began = time.monotonic()
    start(out / "untouched", log, experiment).wait()
    seconds = time.monotonic() - began
    untouched, events = ended_as(out / "untouched"), Counter(log.read_text().split("\n")[:-1])
    print(f"untouched: {seconds:.0f} s, {sum(events.values())} events of {len(events)} kinds", flush=True)
    stops: Counter[str] = Counter()
    stops_by_way: Counter[str] = Counter()
    copies, wrong, starts = 0, 0, 0
    while sum(stops.values()) < n:
        place, copies = out / f"copy-{copies + 1}", copies + 1
        while True:
            way, starts, before = WAYS[starts % len(WAYS)], starts + 1, _attempts(place)
            fewest = min(stops[kind] for kind in events)
            kind = "" if chance.random() < 1 / 3 else chance.choice([k for k in sorted(events) if stops[k] == fewest])
            if sum(stops.values()) >= n:
                kind, process = "", start(place, log, experiment, way)
            elif kind:
                process = start(place, log, experiment, way, kind, 1 + int(events[kind] * chance.random() ** 3))
            else:
                process = start(place, log, experiment, way)
                kind = _stop_later(process, chance, seconds)
            status = process.wait()
            asked = kind.startswith("SIG")
            early = asked and _attempts(place) == before  # the command ended before the run had begun
            if status == -signal.SIGKILL or (asked and status == TRY_AGAIN) or (early and status != 0):
                stops[kind] += 1
                stops_by_way[way] += 1
            elif status != 0:
                print(f"{place}, {way}: exit status {status}\n{(place / 'output.txt').read_text()[-3000:]}")
                return False
            else:
                break
        unequal = differences(untouched, ended_as(place))
        wrong += bool(unequal)
        print(f"copy {copies}: {unequal or 'as the untouched run'} ({sum(stops.values())} stops)", flush=True)
        if not unequal:
            shutil.rmtree(place, ignore_errors=True)  # a sender whose run died may still be at work
    print("\n".join(f"{count:5} {kind}" for kind, count in sorted(stops.items(), key=lambda item: -item[1])))
    print("\n".join(f"{count:5} {way}" for way, count in stops_by_way.items()))
    never = sorted(set(events) - set(stops))
    print(f"never: {', '.join(never) or '-'}")
    print(f"{experiment}: {sum(stops.values())} stops, {copies} copies, {wrong} of them not as the untouched run")
    return wrong == 0


TEES: list["subprocess.Popen[bytes]"] = []
"""Those that may still be at work: each ends with the run that it listens to."""


def start(
    place: Path, log: Path, experiment: str, way: str = WAYS[0], kind: str = "", nth: int = 0
) -> "subprocess.Popen[bytes]":
    """Start the same command once more, killed at the nth event of a kind if one is named."""
    place.mkdir(parents=True, exist_ok=True)
    words = [*RUNS[experiment], "--out", str(place / "runs"), "--data-dir", str(place / "data")]
    command = [sys.executable, "-m", "tools.torture", "run", str(log), kind, str(nth), *words]
    how: dict[str, Any] = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "process_group": 0}
    with (place / "output.txt").open("ab") as output:
        match way:
            case "to a file":
                return subprocess.Popen(command, stdout=output, stderr=output, **how)
            case "stderr closed":
                return subprocess.Popen(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], stdout=output, **how)
            case "stderr broken":
                read, write = os.pipe()
                os.close(read)
                try:
                    return subprocess.Popen(command, stdout=output, stderr=write, **how)
                finally:
                    os.close(write)
            case _:  # a tee that a signal to the run's group ends first, as Ctrl-C does
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)
                tee = ["tee", "-a", str(place / "output.txt")]
                quiet: dict[str, Any] = {"stdin": process.stdout, "stdout": subprocess.DEVNULL}
                TEES[:] = [one for one in TEES if one.poll() is None]
                TEES.append(subprocess.Popen(tee, process_group=process.pid, **quiet))
                if process.stdout is not None:
                    process.stdout.close()
                return process


def _attempts(place: Path) -> int:
    """How many processes began or resumed the run, as its journal says."""
    return sum(journal.read_bytes().count(b'"status":"RUNNING"') for journal in place.glob("runs/*/*/journal.jsonl"))


def _stop_later(process: "subprocess.Popen[bytes]", chance: random.Random, seconds: float) -> str:
    """Stop a process at a random moment within `seconds`, if it is still at work then; returns the way's name."""
    asked, sender_too = chance.choice((None, None, *ASKING)), chance.random() < 0.5
    try:
        process.wait(timeout=chance.uniform(0, seconds))
    except subprocess.TimeoutExpired:
        with suppress(FileNotFoundError, ProcessLookupError):
            if asked is not None:
                os.killpg(process.pid, asked)
            else:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                process.kill()
                for child in children if sender_too else []:
                    os.kill(int(child), signal.SIGKILL)
    return "a random moment" if asked is None else f"{asked.name} at a random moment"


def ended_as(place: Path) -> dict[str, Any]:
    """What must be the same however often a run was killed: hashes of its files, its record, the tracker's content."""
    from suite.runtime.record import comparable
    from suite.storage.files import sha256

    (directory,) = [p.parent for p in (place / "runs").glob("*/*/result.json")]
    record = json.loads((directory / "result.json").read_text())
    files = [directory / name for name in ("memory.safetensors", "metrics.csv", "config.gin")]
    files += sorted(directory.glob("figures/*"))
    hashes = {str(file.relative_to(directory)): sha256(file.read_bytes()) for file in files if file.exists()}
    return hashes | {"record": comparable(record), "tracked": tracked(place / "runs")}


def tracked(out: Path) -> dict[str, Any]:
    """What the store beside the runs holds: states, parameters, artifacts, and every row of every metric."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{(out / 'mlflow.db').resolve()}")
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        content: dict[str, Any] = {}
        for i, run in enumerate(runs):
            metrics = {
                name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
                if not name.startswith("cost/")  # it differs from one run to the next
            }
            artifacts = sorted(a.path for a in client.list_artifacts(run.info.run_id) if a.path != "failure.txt")
            content[f"run {i}"] = [run.info.status, run.data.params, metrics, artifacts]
    return content


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two nested values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in {**a, **b} for d in differences(a.get(k), b.get(k), f"{where}/{k}")]
    return [] if a == b else [f"{where}: {str(a)[:200]} and {str(b)[:200]}"]


# ---------------------------------------------------------------- in the process that is killed


@dataclass
class Death:
    """Kills the process at the nth event of a kind; without a kind, writes every event to the log."""

    log: Path
    """File of all events."""
    kind: str
    """Empty: none."""
    nth: int
    """From 1."""
    parent: int = 0
    """Process that is killed as well; 0: none."""
    seen: int = 0
    """Events of the kind so far."""

    def comes(self, kind: str) -> bool:
        """Count an event; whether it is the one to be killed at."""
        if not self.kind:
            with self.log.open("a") as file:
                file.write(kind + "\n")
        self.seen += kind == self.kind
        return kind == self.kind and self.seen == self.nth

    def at(self, kind: str) -> None:
        """Kill the process if this is the event."""
        if self.comes(kind):
            self.now()

    def now(self) -> None:
        """Kill the process, and its parent if that is named."""
        if self.parent and os.getppid() == self.parent:
            os.kill(self.parent, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _instrumented(words: list[str]) -> int:
    """`suite.run` or `suite.sync`, killed at the event that the first words name."""
    from suite.storage import files
    from suite.tracking import sender

    which, log, kind, nth, *rest = words
    death = Death(Path(log), kind, int(nth), parent=os.getppid() if which == "sync" else 0)
    _tear_writes(death, files)
    if which == "sync":
        from suite import sync

        _tear_mlflow(death)
        return sync.main(rest)

    from suite import run
    from suite.evaluation import training
    from suite.objectives.bptt import BPTT
    from suite.storage import checkpoint, journal, sealed

    checkpoint.write_synced = files.write_synced
    journal.append_synced = files.append_synced
    _before(death, sealed, "save_file", "data set written")
    _before(death, BPTT, "gradients", "inner loop")
    _before(death, training, "_batches", "training for evaluation")
    theirs = not kind or "mlflow" in kind or ".sending" in kind
    sender.COMMAND = [sys.executable, "-m", "tools.torture", "sync", log, kind if theirs else "-", nth]
    return run.main(rest)


def _name(path: Path) -> str:
    """What a file or folder is, whatever its number or hash."""
    name = re.sub(r"^\.|\.\d+\.tmp$|\.tmp$", "", path.name)
    folders = (".evaluation", ".stages", "controls", "figures", ".sending")
    folder = f"{path.parent.name}/" if path.parent.name in folders else ""
    return folder + re.sub(r"[0-9a-f]{16,}|\d{4,}", "N", name)


def _tear_writes(death: Death, files: Any) -> None:
    """Let the process be killed in a write, before and after a rename, and in a deletion."""
    write, append, remove = files.write_synced, files.append_synced, shutil.rmtree

    def torn_write(path: Path, data: bytes) -> None:
        if death.comes(f"write {_name(path)}"):
            path.write_bytes(data[: len(data) // 2])
            death.now()
        write(path, data)

    def torn_append(path: Path, data: bytes) -> None:
        if death.comes(f"append {_name(path)}"):
            with path.open("ab") as file:
                file.write(data[: len(data) // 2])
            death.now()
        append(path, data)
        death.at(f"after append {_name(path)}")

    def torn_rmtree(path: Any, *arguments: Any, **more: Any) -> None:
        if Path(path).is_dir() and death.comes(f"delete {_name(Path(path))}"):
            next(p for p in Path(path).rglob("*") if p.is_file()).unlink()
            death.now()
        remove(path, *arguments, **more)

    def torn_rename(name: str) -> None:
        rename: Callable[..., Path] = getattr(Path, name)

        def torn(self: Path, target: Any) -> Path:
            death.at(f"before rename {_name(Path(target))}")
            moved = rename(self, target)
            death.at(f"after rename {_name(Path(target))}")
            return moved

        setattr(Path, name, torn)

    files.write_synced, files.append_synced = torn_write, torn_append
    setattr(shutil, "rmtree", torn_rmtree)  # noqa: B010 (its type has more than a function's)
    torn_rename("rename")
    torn_rename("replace")


def _tear_mlflow(death: Death) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient
    for name in ("create_experiment", "create_run", "log_batch", "log_artifact", "update_run", "set_terminated"):
        _before(death, MlflowClient, name, f"mlflow {name}")


def _before(death: Death, owner: Any, name: str, kind: str) -> None:
    """Let the process be killed before or after a call of a function."""
    call = getattr(owner, name)

    def watched(*arguments: Any, **more: Any) -> Any:
        death.at(f"{kind}, before")
        value = call(*arguments, **more)
        death.at(f"{kind}, after")
        return value

    setattr(owner, name, watched)


# ---------------------------------------------------------------- starting together


def starts(out: Path, times: int) -> bool:
    """Whether eight runs that start together in an empty folder all finish, `times` times."""
    failed = 0
    for i in range(times):
        place = out / f"together-{i}"
        words = [*RUNS["distillation"], "--set", "ITERATIONS = 1", "--set", "EPOCHS = 1", "--out", str(place / "runs")]
        command = [sys.executable, "-m", "suite.run", *words, "--data-dir", str(place / "data"), "--seed"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        began = [subprocess.Popen([*command, str(s)], env=environment, **quiet) for s in range(TOGETHER)]
        ends = [(process.communicate()[1], process.returncode) for process in began]
        states = [run[0] for run in tracked(place / "runs").values()]
        bad = [output for output, status in ends if status != 0]
        if bad or states != ["FINISHED"] * TOGETHER:
            failed += 1
            print(f"start {i + 1}: {len(bad)} failed, MLflow has {states}\n{''.join(bad)[-2000:]}", flush=True)
        else:
            shutil.rmtree(place, ignore_errors=True)
    print(f"{times} times {TOGETHER} runs started together: {failed} times something failed")
    return failed == 0


if __name__ == "__main__":
    end(main())
