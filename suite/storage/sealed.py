"""Tensors in sealed files: stored once, verified whenever they are opened.

A stored file is a safetensors file whose metadata holds what is known of it (`about`), the SHA-256 of every tensor and
a SHA-256 of both texts, so that no altered bit goes unseen. Nothing stored is ever executed."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from suite.errors import RunError
from suite.storage.files import disk_errors, json_sha256, sync_directory
from suite.storage.locks import locked
from suite.types import Params

About = dict[str, Any]
"""What is known of a stored file, as plain JSON."""


# ---------------------------------------------------------------- hashes


def digests(tensors: Params) -> dict[str, str]:
    """SHA-256 of every tensor: of its type and shape as a line of text, then of its bytes in row-major order."""
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter, so tensors are hashed side by side
        return dict(zip(tensors, pool.map(_sha256, tensors.values()), strict=True))


def digest(tensors: Params) -> str:
    """One SHA-256 for named tensors: that of the JSON text of their names and `digests`, in order of the names."""
    return json_sha256(digests(tensors))


def _sha256(tensor: Tensor) -> str:
    tensor = tensor.detach().cpu().contiguous()
    line = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n"
    found = hashlib.sha256(line.encode())
    if tensor.numel():
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


# ---------------------------------------------------------------- stored files


@dataclass(frozen=True, eq=False)
class Stored:
    """What a stored file holds: tensors, what is known of them, and their `digest`."""

    tensors: Params
    about: About
    digest: str


def stored(file: Path, build: Callable[[], tuple[Params, About]]) -> Stored:
    """What `file` holds, verified; built and written first where the file does not exist.

    However many processes ask at once, one builds and the others wait for it. Raises RunError for a file that is
    damaged and for a directory that can't be written; leaves no half-written file under the name.
    """
    if not os.path.exists(file):  # unlike Path.exists, False where there is no permission to look
        with locked(file.with_name(file.name + ".lock")):
            if not os.path.exists(file):  # another process may have built it while this one waited
                _write(file, *build())
    return _read(file)


def _write(file: Path, tensors: Params, about: About) -> None:
    """Write under another name, wait for the disk, and rename: the name never points at a half-written file."""
    texts = {"about": json.dumps(about), "sha256": json.dumps(digests(tensors))}
    part = file.with_name(file.name + ".part")
    with disk_errors(file):
        try:
            part.touch()
            mode = part.stat().st_mode  # what this user's files are like; safetensors would keep them to one user
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, texts | {"seal": json_sha256(texts)})
            part.chmod(mode)
            sync_file(part)
            part.replace(file)
            sync_directory(file.parent)
        except SafetensorError as error:  # how safetensors reports that the disk is full
            raise OSError(str(error)) from error
        finally:
            part.unlink(missing_ok=True)


def _read(file: Path) -> Stored:
    try:
        with safe_open(file, "pt") as opened:
            texts = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is not a dictionary)
    except OSError as error:
        raise RunError(f"{file} can't be read ({one_line(error)}); mend it, or delete it and run again") from error
    except SafetensorError as error:
        raise _damaged(file, str(error)) from error
    seal = texts.pop("seal", "")
    if set(texts) != {"about", "sha256"} or seal != json_sha256({k: texts[k] for k in ("about", "sha256")}):
        raise _damaged(file, "its description is not the one that was written")
    found = digests(tensors)
    if json.loads(texts["sha256"]) != found:
        raise _damaged(file, "its tensors are not the ones that were written")
    return Stored(tensors, json.loads(texts["about"]), json_sha256(found))


def sync_file(file: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _damaged(file: Path, why: str) -> RunError:
    return RunError(f"{file} is damaged ({one_line(why)}); delete it and run the same command again")


def one_line(thing: object) -> str:
    """An error of somebody else's on one line, with its type where it is one."""
    words = " ".join(str(thing).split())
    return f"{type(thing).__name__}: {words}" if isinstance(thing, BaseException) else words
