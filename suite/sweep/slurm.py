"""A job array of Slurm, as a script to read and to submit: one task for each unit."""

import math
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from suite.errors import Interrupted, RunError, UsageError, report
from suite.storage.files import delete, make_directory, sha256, write_atomic
from suite.sweep.units import Unit

WARNING_SECONDS = 120
"""Between Slurm's signal and the end of a task's time."""

SCRIPT = """#!/bin/bash
# Made by python -m suite.sweep --on slurm. {each}, and is
# requeued when one stops at a checkpoint before its time is up. Give the sweep's command again to see what is left.
# Slurm refuses an array whose last index reaches its MaxArraySize (scontrol show config){checked}.
#SBATCH --job-name={name}
#SBATCH --array=1-{tasks}{limit}
#SBATCH --output="{logs}/%A_%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{warning}
{options}
asked= runs=() task="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
stop() {{ trap : USR1; kill -USR1 $(jobs -pr) 2>/dev/null; }}  # once: a second signal ends a run before its checkpoint
trap asked=yes USR1
trap : TERM  # runs hear it by themselves, where all processes get it
if [ -e {cancelled} ]; then
  echo "this sweep was cancelled; give its command again" >&2
  exit {again}
fi
first=$(( (SLURM_ARRAY_TASK_ID - 1) * {together} + 1 ))
mapfile -t commands < <(sed -n "$first,$((first + {together} - 1))p" {commands})
[ "${{#commands[@]}}" != 0 ] || exit 1
for command in "${{commands[@]}}"; do
  bash -c "exec $command" &
  runs+=("$!")
done
trap 'asked=yes; stop' USR1
[ -z "$asked" ] || stop
status=0
for run in "${{runs[@]}}"; do
  wait "$run"
  while kill -0 "$run" 2>/dev/null; do wait "$run"; done  # a signal ends a wait, and not the run
  wait "$run"
  ended=$?
  if [ "$status" != {again} ] && [ "$ended" != 0 ]; then status=$ended; fi
done
if [ "$status" = {again} ] && [ ! -e {cancelled} ]; then
  # of a task that scancel ended Slurm says something else
  [ -z "$asked" ] && [ "$(squeue --noheader --jobs="$task" --format=%T)" != RUNNING ] || scontrol requeue "$task"
fi
exit "$status"
"""


def largest_array() -> int | None:
    """The most tasks that an array from 1 may have, as `scontrol` tells where there is one; None: unknown."""
    try:
        told = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", told.stdout, re.MULTILINE)
    return max(1, int(size[1]) - 1) if size else None  # the largest index is one less than the size


def check_options(options: Sequence[str]) -> None:
    """Raise UsageError unless each is one option of sbatch in its long form, and none that the sweep sets itself."""
    for option in options:
        name = re.split(r"[=\s]", option.removeprefix("--"), maxsplit=1)[0]
        own = name != "" and any(each.startswith(name) for each in OWN)  # sbatch takes the beginning of a name
        if own or not _is_one_option(option):
            why = "the sweep sets that itself" if own else "it must be an option of sbatch such as --time=02:00:00"
            raise UsageError(f"--slurm {option!r}: {why}")


def _is_one_option(option: str) -> bool:
    """Whether sbatch would read it as one, and not find another behind a blank."""
    if re.fullmatch(r"--[a-z][a-z0-9-]*(=.*)?", option) is None:
        return False
    try:
        return not any(word.startswith("-") for word in shlex.split(option)[1:])
    except ValueError:  # a quotation without an end
        return False


CANCELLED = "cancelled"
"""A file in a sweep's folder: tasks of its arrays that see it begin nothing and are not requeued."""

OWN = ("array", "output", "signal", "requeue", "no-requeue", "job-name", "open-mode")
"""Options of sbatch that the sweep sets itself."""


def write_array(
    folder: Path,
    name: str,
    units: Sequence[Unit],
    at_once: int | None,
    options: Sequence[str],
    together: int = 1,
    others: Sequence[Unit] = (),
) -> Path:
    """Write a script and its commands for these units, and return the script: others for other units.

    So an array that was submitted keeps its commands. `at_once`: tasks at a time, None: as Slurm likes. `options`: of
    sbatch in their long form, such as '--time=02:00:00'. `together`: units of a task, each a process of its own with a
    log of its own. Raises UsageError for an option that is none or the sweep's own, and RunError while any of `others`,
    the table's, is at work for an array that was cancelled: it would be requeued beside the new one.
    """
    check_options(options)
    if (folder / CANCELLED).exists() and any(unit.state == "running" for unit in others):
        raise RunError(
            f"runs of the cancelled array in {folder} are on their way to a checkpoint; give the command again once "
            "--status shows none running"
        )
    most = largest_array()
    if most is not None and len(units) > most * together:  # the rest is left for the next array, the shortest runs
        rest = len(units) - most * together
        report(f"[sweep] this Slurm takes arrays of {most} tasks; the other {rest} runs are left for now")
        units = units[: most * together]
    logs = make_directory(folder / "logs")
    lines = [shlex.join(unit.command) for unit in units]
    if together > 1:
        own = (shlex.quote(str(logs / f"{unit.directory.name}.log")) for unit in units)
        lines = [f"{line} >>{log} 2>&1" for line, log in zip(lines, own, strict=True)]
    text = "".join(f"{line}\n" for line in lines)
    commands = folder / f"commands-{sha256(text.encode())[:12]}.txt"
    script = SCRIPT.format(
        name=re.sub(r"[^A-Za-z0-9_.-]+", "-", f"sweep-{name}"),
        checked="; that of this one does not"
        if most is not None
        else ", which nobody could look up where this was made",
        each="Each task of the array does one line of the file of commands"
        if together == 1
        else f"Each task of the array does {together} lines of the file of commands at once",
        tasks=math.ceil(len(units) / together),
        together=together,
        cancelled=shlex.quote(str(folder / CANCELLED)),
        limit="" if at_once is None else f"%{at_once}",
        logs=str(logs).replace("%", "%%"),
        warning=WARNING_SECONDS,
        options="\n".join(f"#SBATCH {option}" for option in options),
        commands=shlex.quote(str(commands)),
        again=Interrupted.status,
    )
    for unit in units:
        unit.write()
    delete(folder / CANCELLED)
    write_atomic(commands, text.encode())
    file = folder / f"array-{sha256((text + script).encode())[:12]}.sbatch"
    write_atomic(file, script.encode())
    return file
