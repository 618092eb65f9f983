"""What a run's numbers may depend on beside its configuration: versions, hardware and code."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # reading records needs no torch
    import torch

PACKAGES = ("torch", "torchvision", "timm", "gin-config", "mlflow", "scikit-learn", "numpy")
"""Packages whose versions are recorded."""


def environment(device: "torch.device") -> dict[str, Any]:
    """Versions, hardware and code state, as plain JSON; no host name and no path."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "suite": _version("addressable-memory-suite"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.system(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": gpu or device.type,
        "cuda": torch.version.cuda if gpu else None,
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "code": code_state(),
    }


def code_state() -> dict[str, Any]:
    """`commit` of the checkout the suite runs from, and whether a file of it `changed`; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("rev-parse", "--show-toplevel") != str(root):
        return {"commit": None, "changed": None}
    return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--untracked-files=no"))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
