"""The device of a run, set so that its figures are repeatable, and its peak memory."""

import os
import resource
from contextlib import suppress
from pathlib import Path

import torch

from suite.errors import UsageError


def prepare_device(name: str | None) -> torch.device:
    """The device, with everything set that makes its figures repeatable; threads as many as this process may use."""
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


def reset_peak_memory(device: torch.device) -> None:
    """Begin anew to watch the most memory in use, so that a run's peak is not that of what was done before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # Linux alone; elsewhere a peak is the whole process's
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> dict[str, float]:
    """MiB at the most in use during the run: on a GPU, or by the whole process."""
    if device.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    try:
        status = Path("/proc/self/status").read_text()
        kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
    except (OSError, StopIteration, ValueError, IndexError):
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"process_peak_memory_mib": kib / 1024}
