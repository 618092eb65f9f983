"""Tensors in sealed files: written once, verified at every reading.

A sealed file is a safetensors file whose metadata holds three texts: a description (`about`), the SHA-256 of every
tensor, and the SHA-256 of both, so that no changed bit goes unnoticed. Reading one runs no code.
"""

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

from suite.errors import RunError, one_line
from suite.storage.files import disk_errors, json_sha256, sync_directory, sync_file
from suite.storage.locks import locked
from suite.storage.plain_files import open_plain
from suite.types import Params

About = dict[str, Any]
"""Description of a sealed file, as plain JSON."""


# ---------------------------------------------------------------- hashes


def digests(tensors: Params) -> dict[str, str]:
    """SHA-256 of every tensor: of its type and shape as a line of text, then of its bytes in row-major order."""
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter's lock, so tensors are hashed in parallel
        return dict(zip(tensors, pool.map(_sha256, tensors.values()), strict=True))


def digest(tensors: Params) -> str:
    """One SHA-256 for named tensors: that of the JSON text of their names and `digests`, in order of the names."""
    return json_sha256(digests(tensors))


def _sha256(tensor: Tensor) -> str:
    tensor = tensor.detach().cpu().contiguous()
    line = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n"
    content = hashlib.sha256(line.encode())
    if tensor.numel():
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


# ---------------------------------------------------------------- files


@dataclass(frozen=True, eq=False)
class Stored:
    """The verified content of a sealed file."""

    tensors: Params
    """By name."""
    about: About
    """The description."""
    digest: str
    """`digest` of the tensors."""


def stored(file: Path, build: Callable[[], tuple[Params, About]]) -> Stored:
    """The content of `file`, verified; built and written first where the file does not exist.

    Of processes that call this at once, one builds and the others wait for it, and say so. Raises RunError for a
    damaged file and for a directory that can't be written; leaves no partial file under the name.
    """
    if not os.path.exists(file):  # unlike Path.exists, False where there is no permission to look
        with locked(file.with_name(file.name + ".lock")):
            if not os.path.exists(file):  # another process may have built it while this one waited
                _write(file, *build())
    return _read(file)


def read_safetensors(file: Path) -> tuple[Params, dict[str, str]]:
    """Tensors and metadata of any safetensors file, not verified. Raises OSError and SafetensorError."""
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is not a dictionary)
        return tensors, opened.metadata() or {}


def _write(file: Path, tensors: Params, about: About) -> None:
    """Write under another name, wait for the disk, and rename: the name never points at a partial file."""
    texts = {"about": json.dumps(about), "sha256": json.dumps(digests(tensors))}
    part = file.with_name(file.name + ".part")
    with disk_errors(file):
        try:
            part.unlink(missing_ok=True)  # what a process left that died, or a pipe
            part.touch()
            mode = part.stat().st_mode  # this user's default; safetensors would permit the user alone
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
        open_plain(file, follow=True).close()  # else a pipe would be waited for
        tensors, texts = read_safetensors(file)
    except OSError as error:
        raise RunError(f"{file} can't be read ({one_line(error)}); mend it, or delete it and run again") from error
    except SafetensorError as error:
        raise _damaged(file, str(error)) from error
    seal = texts.pop("seal", "")
    if set(texts) != {"about", "sha256"} or seal != json_sha256({k: texts[k] for k in ("about", "sha256")}):
        raise _damaged(file, "its description is not the one that was written")
    computed = digests(tensors)
    if json.loads(texts["sha256"]) != computed:
        raise _damaged(file, "its tensors are not the ones that were written")
    return Stored(tensors, json.loads(texts["about"]), json_sha256(computed))


def _damaged(file: Path, why: str) -> RunError:
    return RunError(f"{file} is damaged ({one_line(why)}); delete it and run the same command again")
