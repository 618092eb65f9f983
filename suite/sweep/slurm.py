"""A job array of Slurm, as a script to read and to submit: one task for each unit."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from suite.errors import Interrupted, UsageError
from suite.storage.files import write_atomic
from suite.sweep.units import Unit

WARNING_SECONDS = 120
"""Between Slurm's signal and the end of a task's time."""

SCRIPT = """#!/bin/bash
# Made by python -m suite.sweep --on slurm. Each task of the array does one line of commands.txt, and is requeued when
# it stops at a checkpoint: at the end of its time, or when it is preempted. Give the sweep's command again to see what
# is left.
#SBATCH --job-name={name}
#SBATCH --array=1-{tasks}{limit}
#SBATCH --output={logs}/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{warning}
{options}
command=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {commands})
bash -c "exec $command" &
run=$!
trap 'kill -USR1 $run' USR1 TERM
while kill -0 $run 2>/dev/null; do wait $run; done  # a signal ends a wait, and not the run
wait $run
status=$?
if [ "$status" = {again} ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""


def write_array(folder: Path, name: str, units: Sequence[Unit], at_once: int | None, options: Sequence[str]) -> Path:
    """Write `array.sbatch` and `commands.txt` for these units, and return the script.

    `at_once`: tasks at a time, None: as Slurm likes. `options`: of sbatch, such as '--time=02:00:00'. Raises UsageError
    for an option that is none, or that the sweep decides itself.
    """
    for option in options:
        own = option.partition("=")[0] in ("--array", "--output", "--signal", "--requeue", "--job-name", "--open-mode")
        if not option.startswith("-") or "\n" in option or own:
            why = "the sweep sets that itself" if own else "it must be an option of sbatch, such as --time=02:00:00"
            raise UsageError(f"--slurm {option!r}: {why}")
    commands = folder / "commands.txt"
    text = "".join(f"{shlex.join(unit.command)}\n" for unit in units)
    script = SCRIPT.format(
        name=re.sub(r"[^A-Za-z0-9_.-]+", "-", f"sweep-{name}"),
        tasks=len(units),
        limit="" if at_once is None else f"%{at_once}",
        logs=folder / "logs",
        warning=WARNING_SECONDS,
        options="\n".join(f"#SBATCH {option}" for option in options),
        commands=shlex.quote(str(commands)),
        again=Interrupted.status,
    )
    write_atomic(commands, text.encode())
    (folder / "logs").mkdir(exist_ok=True)
    write_atomic(folder / "array.sbatch", script.encode())
    return folder / "array.sbatch"
