"""The device of a run or a call of the library, set up for repeatable numbers."""

import ctypes
import os

import torch

from suite.core.launched import Place
from suite.errors import UsageError


def prepare_device(name: str | None, place: Place | None = None) -> torch.device:
    """The device of this name (None: a GPU if there is one), with deterministic kernels and full float32 precision.

    On a CPU, with as many threads as this process may use, or its part of them, unless $OMP_NUM_THREADS says how many.
    `place`: among the processes of one command, each of which has a GPU of its own. Raises UsageError.
    """
    _keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // (place.local_count if place else 1)))
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name is None else name)
    except RuntimeError as error:
        raise UsageError(f"--device: '{name}' is not a device; use cpu, cuda or cuda:1") from error
    if place is not None and device.type == "cuda":
        device = _own_gpu(device, place)
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"--device: there is no {device} on this machine; use cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(device.index or 0)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # kernels of no use
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    elif device.type != "cpu":
        raise UsageError(f"--device: '{name}' is not supported; use cpu, cuda or cuda:1")
    return device


def _own_gpu(device: torch.device, place: Place) -> torch.device:
    """The GPU of one of several processes. Raises UsageError where there are fewer, or a number was given."""
    gpus = torch.cuda.device_count()
    if device.index is not None or place.local_count > gpus:
        raise UsageError(
            f"--device: {place.local_count} processes need as many GPUs, and there are {gpus}; start fewer, and name "
            "none of them, or use cpu"
        )
    return torch.device("cuda", place.local)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt (malloc.h)."""


def _keep_freed_memory() -> None:
    """Have glibc's allocator keep what is freed, for what is allocated next; other allocators stay as they are.

    By default it gives tensors of 128 KiB and more back to the system and takes fresh pages for the next one. An unroll
    that frees and takes a gigabyte in every outer step spends a fifth of its time on them. The most that is in use at
    once stays the same. $MALLOC_TRIM_THRESHOLD_ and $MALLOC_MMAP_THRESHOLD_ come first where they are set.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that it takes
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        mallopt(M_TRIM_THRESHOLD, -1)  # never
