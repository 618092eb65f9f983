"""The device of a run, set up for repeatable numbers, and its peak use of bytes."""

import os
import resource
from contextlib import suppress
from pathlib import Path

import torch

from suite.errors import UsageError


def prepare_device(name: str | None) -> torch.device:
    """The device of this name (None: a GPU if there is one), with deterministic kernels and full float32 precision.

    On a CPU, with as many threads as this process may use, unless $OMP_NUM_THREADS says how many. Raises UsageError.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"--device: '{name}' is not a device; use cpu, cuda or cuda:1") from error
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"--device: there is no {device} on this machine; use cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    elif device.type != "cpu":
        raise UsageError(f"--device: '{name}' is not supported; use cpu, cuda or cuda:1")
    return device


def reset_peak(device: torch.device) -> None:
    """Forget the most bytes in use so far, so that a run's peak is not that of an earlier run of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # on Linux alone; elsewhere the peak is that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: torch.device) -> dict[str, float]:
    """The most MiB in use since `reset_peak`, under its name in the record: on a GPU, or of the whole process."""
    if device.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    try:
        status = Path("/proc/self/status").read_text()
        kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
    except (OSError, StopIteration, ValueError, IndexError):
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"process_peak_memory_mib": kib / 1024}
