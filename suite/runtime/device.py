"""The most bytes that a run had in use on its device."""

import resource
from contextlib import suppress
from pathlib import Path

import torch


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
