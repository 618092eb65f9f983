"""What a run needs to go on, in a directory that is whole or not there.

`checkpoints/step-00000120/` holds `tensors.safetensors`, `state.json` and, written last, `manifest.json` with the
SHA-256 of both and of itself. It is written under a temporary name, synced and renamed. Loading verifies before it
parses, and runs no code.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from suite.errors import RunError
from suite.storage.files import (
    canonical_json,
    disk_errors,
    json_sha256,
    make_directory,
    sha256,
    sync_directory,
    write_synced,
)
from suite.types import Params

SCHEMA = 2

KEEP = 2
"""Checkpoints kept: the newest, and one to fall back on; beside them the one that did best on validation."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors, and everything else as JSON."""

    iteration: int
    tensors: Params
    state: dict[str, Any]
    score: float | None = None
    """On validation, if it was measured at this iteration."""


def write(directory: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint, then drop all but the newest few and the best."""
    make_directory(directory)
    target = directory / f"step-{checkpoint.iteration:08d}"
    temporary = directory / f".{target.name}.tmp"
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.tensors.items()}
    # safetensors gives tensors back in any order, and sums over them depend on it
    state = canonical_json({"order": list(tensors), "state": checkpoint.state})
    contents = {"tensors.safetensors": save(tensors), "state.json": state.encode()}
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "iteration": checkpoint.iteration,
        "score": checkpoint.score,
        "sha256": {name: sha256(data) for name, data in contents.items()},
    }
    manifest["seal"] = json_sha256(manifest)
    with disk_errors(target):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            for name, data in (contents | {"manifest.json": canonical_json(manifest).encode()}).items():
                write_synced(temporary / name, data)
            sync_directory(temporary)
            before = directory / f".{target.name}.before.tmp"
            shutil.rmtree(before, ignore_errors=True)
            if target.exists():  # the same step again
                target.rename(before)
            temporary.rename(target)
            shutil.rmtree(before, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_directory(directory)
    steps = _steps(directory)
    best = max(steps, key=_score)  # the newest of equals
    for old in steps[KEEP:]:
        if old != best or _score(best) == -math.inf:
            shutil.rmtree(old, ignore_errors=True)


def read_newest(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and a sentence for each damaged one that was set aside.

    Raises RunError if there are checkpoints and none is whole: a run never starts from zero without being told to.
    """
    complaints: list[str] = []
    found = _steps(directory)
    for path in found:
        try:
            return _read(path), complaints
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError) as error:
            aside = path.with_name(f"damaged-{path.name}")
            with disk_errors(aside):
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
            complaints.append(f"the checkpoint {path.name} is damaged ({error}); it was set aside as {aside.name}")
        except OSError as error:  # the disk's trouble, not the checkpoint's
            raise RunError(f"can't read {path} ({error.strerror or error}); run the same command again") from error
    damaged = sorted(path.name for path in directory.glob("damaged-step-*"))
    if damaged:  # also those of an earlier try
        raise RunError(
            f"no checkpoint in {directory} is whole ({'; '.join(complaints or damaged)}); start anew with --fresh, "
            "which deletes nothing"
        )
    return None, complaints


def _steps(directory: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(directory.glob("step-*"), reverse=True)


def _score(path: Path) -> float:
    """A checkpoint's score on validation; minus infinity if it has none, or can't be read."""
    try:
        score = json.loads((path / "manifest.json").read_bytes())["score"]
        return -math.inf if score is None else float(score)
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf


def _read(path: Path) -> Checkpoint:
    manifest = json.loads((path / "manifest.json").read_bytes())
    if manifest["schema"] != SCHEMA:
        raise ValueError(f"it has schema {manifest['schema']}, and this version reads {SCHEMA}")
    seal = manifest.pop("seal")
    if json_sha256(manifest) != seal:
        raise ValueError("manifest.json was altered")
    if path.name != f"step-{manifest['iteration']:08d}":
        raise ValueError(f"its manifest says step {manifest['iteration']}")
    contents = {name: (path / name).read_bytes() for name in manifest["sha256"]}
    for name, digest in manifest["sha256"].items():
        if sha256(contents[name]) != digest:
            raise ValueError(f"{name} was altered")
    tensors, kept = load(contents["tensors.safetensors"]), json.loads(contents["state.json"])
    tensors = {name: tensors[name] for name in kept["order"]}
    return Checkpoint(manifest["iteration"], tensors, kept["state"], manifest["score"])
