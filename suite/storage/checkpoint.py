"""Checkpoints: what a run needs to resume, each in a directory that is whole or does not exist.

`checkpoints/step-00000120/` holds `tensors.safetensors`, `state.json` and, written last, `manifest.json` with the
SHA-256 of both and of itself. It is written under a temporary name, synced and renamed. Loading verifies before it
parses, and runs no code.
"""

import json
import math
import shutil
from collections.abc import Mapping
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
"""Version of the files' layout; no other is read."""

KEEP = 2
"""Newest checkpoints that are kept: one to resume from, and one in case it is damaged. The best is kept beside them."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after an iteration."""

    iteration: int
    """Iterations done."""
    tensors: Params
    """By name; their order is kept."""
    state: dict[str, Any]
    """Everything else, as plain JSON."""
    score: float | None = None
    """Accuracy on validation, if it was measured at this iteration."""


def write(directory: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint, then delete all but the newest and the best. Raises RunError; ValueError for NaN in `state`."""
    make_directory(directory)
    _write_whole(directory / _name(checkpoint.iteration), _contents(checkpoint))
    steps = _newest_first(directory)
    best = max(steps, key=_score)  # the newest of equals
    for old in steps[KEEP:]:
        if old != best or _score(best) == -math.inf:
            shutil.rmtree(old, ignore_errors=True)


def read_newest(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint (None if there never was one), and a sentence for each damaged one it renamed.

    Raises RunError if there are checkpoints and none is intact: a run never starts from zero without being asked to.
    """
    complaints: list[str] = []
    for path in _newest_first(directory):
        try:
            return _read(path), complaints
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError) as error:
            damaged = path.with_name(f"damaged-{path.name}")
            with disk_errors(damaged):
                shutil.rmtree(damaged, ignore_errors=True)
                path.rename(damaged)
            complaints.append(f"the checkpoint {path.name} is damaged ({error}); it was renamed to {damaged.name}")
        except OSError as error:  # the disk fails, not the checkpoint
            raise RunError(f"can't read {path} ({error.strerror or error}); run the same command again") from error
    earlier = sorted(path.name for path in directory.glob("damaged-step-*"))
    if earlier:  # renamed now, or by an earlier attempt
        raise RunError(
            f"no checkpoint in {directory} is intact ({'; '.join(complaints or earlier)}); start again with --fresh, "
            "which deletes nothing"
        )
    return None, complaints


def _name(iteration: int) -> str:
    return f"step-{iteration:08d}"


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def _score(path: Path) -> float:
    """A checkpoint's score on validation; minus infinity if it has none, or can't be read."""
    try:
        score = json.loads((path / "manifest.json").read_bytes())["score"]
        return -math.inf if score is None else float(score)
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf


def _contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files of a checkpoint, the manifest last."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.tensors.items()}
    # safetensors returns tensors in any order, and the last bits of sums over them depend on it
    state = canonical_json({"order": list(tensors), "state": checkpoint.state})
    contents = {"tensors.safetensors": save(tensors), "state.json": state.encode()}
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "iteration": checkpoint.iteration,
        "score": checkpoint.score,
        "sha256": {name: sha256(data) for name, data in contents.items()},
    }
    manifest["seal"] = json_sha256(manifest)
    return contents | {"manifest.json": canonical_json(manifest).encode()}


def _write_whole(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write a directory under a temporary name, sync it, and rename it; one of that name is replaced."""
    temporary, replaced = (target.with_name(f".{target.name}{end}") for end in (".tmp", ".before.tmp"))
    with disk_errors(target):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            for name, data in contents.items():
                write_synced(temporary / name, data)
            sync_directory(temporary)
            shutil.rmtree(replaced, ignore_errors=True)
            if target.exists():
                target.rename(replaced)
            temporary.rename(target)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_directory(target.parent)


def _read(path: Path) -> Checkpoint:
    """Raises OSError, or ValueError, KeyError and TypeError for a damaged checkpoint."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    if manifest["schema"] != SCHEMA:
        raise ValueError(f"it has schema {manifest['schema']}, and this version reads {SCHEMA}")
    seal = manifest.pop("seal")
    if json_sha256(manifest) != seal:
        raise ValueError("manifest.json was altered")
    if path.name != _name(manifest["iteration"]):
        raise ValueError(f"its manifest says step {manifest['iteration']}")
    contents = {name: (path / name).read_bytes() for name in manifest["sha256"]}
    for name, digest in manifest["sha256"].items():
        if sha256(contents[name]) != digest:
            raise ValueError(f"{name} was altered")
    tensors, state = load(contents["tensors.safetensors"]), json.loads(contents["state.json"])
    tensors = {name: tensors[name] for name in state["order"]}
    return Checkpoint(manifest["iteration"], tensors, state["state"], manifest["score"])
