"""Files that `torch.save` wrote, read without letting them call anything: the one place where one is opened.

torch's own reader for weights takes tensors and plain containers apart by itself. Beside them it is given stand-ins for
what pickled numpy numbers ask for, and every other name in a file is refused before anything is called.
"""

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from suite.errors import one_line
from suite.importers.base import content, refused


class _NumberType:
    """Stands for `numpy.dtype` in a file: the type of one number, by its code."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"[iuf][1248]|b1", code)):
            raise ValueError("it asks for a type of numpy's that is no number")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        """What follows its code in a file: of it the byte order is taken."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


def _number(kind: _NumberType, data: bytes) -> float:
    """Stands for numpy's function that makes one number of its bytes."""
    if not isinstance(kind, _NumberType):
        raise ValueError("it asks for a number of no type")
    return float(np.frombuffer(data, np.dtype(kind.order + kind.code), count=1)[0])


ALLOWED = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_NumberType, "numpy.dtype"),
    _NumberType,
]
"""The names that files of distilled sets ask for beside torch's own, and what they get."""


def load(path: Path) -> Any:
    """What a file of torch's holds: tensors on the CPU, numbers, texts, and containers of these.

    Both of torch's layouts are read, zip archives and the plain pickles of before 1.6. Raises RunError for anything
    else, and for an archive that is larger unpacked.
    """
    data = content(path)
    _require_unpacked(path, data)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # torch's words on a damaged file; what it refuses is said here
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle's own bytes choose what goes wrong
        raise refused(path, _why(error)) from error


def _require_unpacked(path: Path, data: bytes) -> None:
    """Raise RunError for an archive that is damaged, or larger unpacked."""
    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # of a library that is given a stranger's bytes
        raise refused(path, one_line(error)) from error
    if unpacked > len(data):  # torch stores members as they are
        raise refused(path, f"it unpacks to {unpacked:,} bytes from {len(data):,}, which torch.save never writes")


def _why(error: Exception) -> str:
    """What torch refused, in a few words."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked:
        return f"it asks for {asked[1]}, which no distilled set needs, and which might run code"
    return one_line(str(error).replace("Weights only load failed.", ""))[:200] or type(error).__name__
