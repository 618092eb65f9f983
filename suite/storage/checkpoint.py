"""Checkpoints: what a run needs to resume, each in a directory that is whole or does not exist.

`checkpoints/step-00000120/` holds `tensors.safetensors`, `state.json` and, written last, `manifest.json` with the
SHA-256 of both and of itself. It is written under a temporary name, synced and renamed. Loading verifies before it
parses, and runs no code.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AllowInfNan, Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from typing_extensions import TypedDict

from suite.errors import RunError, one_line
from suite.storage.files import (
    canonical_json,
    disk_errors,
    json_sha256,
    make_directory,
    sha256,
    sync_directory,
    write_synced,
)
from suite.storage.plain_files import MOST_BYTES_OF_STEPS, Damaged, parse_json, read_json, read_plain
from suite.types import Params

SCHEMA = 2
"""Version of the files' layout; no other is read."""

MOST_BYTES = 64 * 2**30
"""Of a checkpoint's tensors."""

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
        except (Damaged, FileNotFoundError) as error:
            damaged = path.with_name(f"damaged-{path.name}")
            with disk_errors(damaged):
                shutil.rmtree(damaged, ignore_errors=True)
                path.rename(damaged)
            complaints.append(f"the checkpoint {path.name} is damaged ({error}); it was renamed to {damaged.name}")
    earlier = sorted(path.name for path in directory.glob("damaged-step-*"))
    if earlier:  # renamed now, or by an earlier attempt
        raise RunError(
            f"no checkpoint in {directory} is intact ({'; '.join(complaints or earlier)}); start again with --fresh, "
            "which deletes nothing"
        )
    return None, complaints


def packed(checkpoint: Checkpoint | None) -> tuple[bytes, bytes]:
    """What another process makes a checkpoint of, by `unpacked`: two texts of bytes, empty for None."""
    if checkpoint is None:
        return b"", b""
    contents = _contents(checkpoint)
    state = json.dumps([checkpoint.iteration, json.loads(contents["state.json"])])
    return state.encode(), contents["tensors.safetensors"]


def unpacked(state: bytes, tensors: bytes) -> Checkpoint | None:
    """The inverse of `packed`."""
    if not state:
        return None
    (iteration, whole), named = json.loads(state), load(tensors)
    return Checkpoint(iteration, {name: named[name] for name in whole["order"]}, whole["state"])


def _name(iteration: int) -> str:
    return f"step-{iteration:08d}"


def _newest_first(directory: Path) -> list[Path]:
    """By number: the names of steps of more than eight digits are not in the order of the alphabet."""
    steps = [path for path in directory.glob("step-*") if re.fullmatch("step-[0-9]{8,18}", path.name)]
    return sorted(steps, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _score(path: Path) -> float:
    """A checkpoint's score on validation; minus infinity if it has none, or can't be read."""
    try:
        score = _manifest(path)["score"]
        return -math.inf if score is None else float(score)
    except (FileNotFoundError, RunError):
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


# ---------------------------------------------------------------- reading

_Digests = TypedDict("_Digests", {"tensors.safetensors": str, "state.json": str})
"""SHA-256 of a checkpoint's two files; a manifest that names others names nothing that is read."""


class _Manifest(TypedDict):
    schema: int
    iteration: Annotated[int, Field(ge=0, lt=10**18)]
    score: Annotated[int | float, AllowInfNan(False)] | None
    sha256: _Digests
    seal: str


class _State(TypedDict):
    order: list[str]
    state: dict[str, Any]


def _read(path: Path) -> Checkpoint:
    """Raises Damaged or FileNotFoundError for a damaged checkpoint, and RunError where the disk fails."""
    if path.is_symlink() or not path.is_dir():
        raise Damaged("it is no folder of this run")
    manifest = _manifest(path)
    if path.name != _name(manifest["iteration"]):
        raise Damaged(f"its manifest says step {manifest['iteration']}")
    tensor_bytes = _verified(path / "tensors.safetensors", manifest, MOST_BYTES)
    state = parse_json(_verified(path / "state.json", manifest, MOST_BYTES_OF_STEPS), _State, "its state.json")
    try:
        tensors = load(tensor_bytes)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"its tensors are none ({one_line(error)})") from error
    if sorted(tensors) != sorted(state["order"]):
        raise Damaged("its state.json names other tensors than there are")
    return Checkpoint(
        manifest["iteration"], {name: tensors[name] for name in state["order"]}, state["state"], manifest["score"]
    )


def _manifest(path: Path) -> _Manifest:
    """The manifest of a checkpoint. Raises as `_read`."""
    manifest = read_json(path / "manifest.json", _Manifest)
    if manifest["schema"] != SCHEMA:
        raise Damaged(f"it has schema {manifest['schema']}, and this version reads {SCHEMA}")
    if json_sha256({key: value for key, value in manifest.items() if key != "seal"}) != manifest["seal"]:
        raise Damaged("manifest.json was altered")
    return manifest


def _verified(file: Path, manifest: _Manifest, most_bytes: int) -> bytes:
    """The content of a file that has the sum of the manifest. Raises as `_read`."""
    content = read_plain(file, most_bytes)
    if sha256(content) != manifest["sha256"][file.name]:  # type: ignore[literal-required]
        raise Damaged(f"{file.name} was altered")
    return content
