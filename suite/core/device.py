"""The device of a run or a call of the library, set up for repeatable numbers."""

import os

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
        torch.cuda.set_device(device.index or 0)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # kernels of no use
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    elif device.type != "cpu":
        raise UsageError(f"--device: '{name}' is not supported; use cpu, cuda or cuda:1")
    return device
