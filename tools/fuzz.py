"""Damaged and forged files, many of every format: none may end in a traceback, a hang or growing memory.

    python -m tools.fuzz [--format NAME] [--mutations N] [--first I] [--out DIR] [--json]

The suite writes an example of each format, changes it (bytes, or what the file says, with its checksums put right
again), and reads it as a command does. A mutation is right if it is read, or refused in one sentence. Mutation I of a
format is always the same, so `--format NAME --first I --mutations 1` repeats a finding; `--out` keeps its file.
"""

import argparse
import contextlib
import copy
import csv
import ctypes
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import h5py
import msgpack
import numpy as np
import pyarrow
import torch
from pyarrow import parquet
from safetensors.torch import load, save

from leaderboard import build, published
from suite import config, run, runs
from suite.core.outer_loop import from_tensors
from suite.datasets.digits import Digits
from suite.datasets.mnist import read_idx
from suite.datasets.svhn import read_matlab
from suite.errors import SuiteError, UsageError, report
from suite.importers.base import FORMATS as FORMATS_OF_SETS
from suite.importers.base import ForeignSet, Reading
from suite.importers.declared import Declared, settle
from suite.memory import Memory
from suite.registry import load_components
from suite.runtime import run_directory
from suite.storage import checkpoint, sealed
from suite.storage.files import json_sha256, sha256, write_atomic
from suite.validation import AtLeast, number_option

CPU_SECONDS = 10
"""That one reading may take; most take milliseconds. The clock counts this process's work, whatever else is at work."""

MEBIBYTES = 256
"""By which the process's peak memory may grow in one reading; the examples have less than one."""

MOST_MEBIBYTES = 4096
"""That the process may ask for beyond what it has: what takes more is refused by the machine, and found."""

EXAMPLE = [
    *("--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin", "--set", "ARCHITECTURE = @architectures.mlp()"),
    *("--set", "architectures.mlp.width = 16", "--set", "FULL_DATA_EPOCHS = 0", "--set", "NETWORKS = 1"),
    *("--tracking-uri", "none", "--set", "SEEDS = [0, 1]"),
]
"""Two small runs: one to mutate, and a neighbour that must still be served."""

# ---------------------------------------------------------------- mutations


def changed_bytes(data: bytes, random: Random, words: Sequence[bytes] = ()) -> bytes:
    """One to four changes: a bit, a byte, a part that is lost, doubled or random, or one of `words`."""
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice((1, 1, 2, 4, 8, 64, 1024)))
        part = data[start:end]
        match random.randrange(6):
            case 0 if part:
                put = bytes([part[0] ^ 1 << random.randrange(8)]) + part[1:]
            case 1:
                put = bytes([random.choice((0, 1, 127, 128, 255))]) * len(part)
            case 2:
                put = part + part
            case 3:
                put = random.randbytes(len(part))
            case 4 if words:
                put = random.choice(words)
            case _:
                put = b""
        data = data[:start] + put + data[end:]
    return data


def changed_text(data: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    """One or two tokens of a text replaced by one of `words` or by another token, lost or doubled; or the bytes."""
    if random.random() < 0.2:
        return changed_bytes(data, random, words)
    tokens = re.findall(rb"\w+|\s|.", data, re.DOTALL)
    for _ in range(random.randint(1, 2)):
        at = random.randrange(len(tokens))
        tokens[at] = random.choice((random.choice(words), random.choice(tokens), b"", tokens[at] * 2))
    return b"".join(tokens)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 10**30, -0.5, 1e308, 1e-320, "", "x", "0", "nan", "x" * 70_000),
    *("\x1b[31m", "\0", "../../../../etc/passwd", "/dev/zero", "$\\foo$", "\u202e", "\U0001f600", "file:///"),
    *([], {}, [[]], [None], [1, "x"], {"is": "x"}, {"is": None}, {"": {}}, _nested(60), _nested(400), [0] * 50_000),
)
"""Values that no reader expects."""


def changed_json(value: Any, random: Random) -> Any:
    """A copy with one to three changes: a value that is odd, missing, renamed, doubled or another's."""
    value = json.loads(json.dumps(value))
    for _ in range(random.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(random.choice(ODD))
        held, at = random.choice(places)
        match random.randrange(5):
            case 0 | 1:
                held[at] = copy.deepcopy(random.choice(ODD))
            case 2:
                del held[at]
            case 3:
                held[at] = json.loads(json.dumps(_at(random.choice(places))))
            case _ if isinstance(held, dict):
                held[random.choice(("", "is", "x" * 300, str(at).upper()))] = held.pop(at)
            case _:
                held.append(held[at])
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) within a value."""
    for at, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, at
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def _at(place: tuple[Any, Any]) -> Any:
    held, at = place
    there = at < len(held) if isinstance(held, list) else at in held  # an earlier change may have removed it
    return held[at] if there else None


def changed_text_of_json(data: bytes, random: Random) -> bytes:
    """JSON text that is changed in what it says, or in its bytes."""
    if random.random() < 0.3:
        return changed_bytes(data, random, (b"NaN", b"-Infinity", b"1e999", b"[" * 9999, b"\xff", b'"'))
    return json.dumps(changed_json(json.loads(data), random)).encode()


# ---------------------------------------------------------------- formats


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    name: str
    """As `--format` has it."""
    file: Callable[[Path], Path]
    """Writes the example into a folder, and returns the file to mutate."""
    change: Callable[[bytes, Random], bytes]
    """One mutation of the file's bytes."""
    read: Callable[[Path], object]
    """Reads the mutated file as a command does. Raises SuiteError, which is a right answer."""


def _command(main: Callable[[list[str]], int], *words: object) -> str:
    """What a command says on stdout; SuiteError where it refuses in one sentence, AssertionError otherwise."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in words])
    said = err.getvalue()
    assert status in (0, 1, 2), f"exit status {status}"
    assert "Traceback" not in said + out.getvalue(), said
    assert "\x1b" not in said + out.getvalue(), f"letters that a terminal obeys: {said + out.getvalue()!r}"
    if status:
        assert said.strip(), f"exit status {status} without a word"
        raise (UsageError if status == UsageError.status else SuiteError)(said.splitlines()[-1])
    return out.getvalue()


def _run(seed: int) -> Callable[[Path], Path]:
    """The directory of one of the example's runs; they are made once, and copied."""

    def find(folder: Path) -> Path:
        (found,) = (folder / "runs").glob(f"*/*seed{seed}-*")
        return found

    return find


def _in_run(name: str) -> Callable[[Path], Path]:
    return lambda folder: _run(0)(folder) / name


def _read_memory(file: Path) -> None:
    memory = Memory.load(file)
    memory.recall()
    memory.display()
    assert repr(memory).isprintable(), repr(memory)
    memory._repr_html_()


def _changed_memory(data: bytes, random: Random) -> bytes:
    """The description or the tensors changed, sealed again; or the bytes."""
    kind = random.random()
    if kind < 0.2:
        return changed_bytes(data, random)
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if kind < 0.35:  # safetensors' own part
        header = changed_json(header, random)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body
    about, tensors = json.loads(header["__metadata__"]["suite"]), load(data)
    if kind < 0.8:
        about = changed_json(about, random)
    else:
        tensors = _changed_tensors(tensors, random)
    if isinstance(about, dict) and about.get("sha256"):
        about["sha256"] = json_sha256([sealed.digest(tensors), {k: v for k, v in about.items() if k != "sha256"}])
    return save(tensors, {"suite": json.dumps(about)})


def _changed_tensors(tensors: dict[str, torch.Tensor], random: Random) -> dict[str, torch.Tensor]:
    """One tensor of another type or shape, not finite, missing, or one too many."""
    name = random.choice(list(tensors))
    one = tensors[name]
    ways: tuple[Callable[[], torch.Tensor | None], ...] = (
        lambda: torch.full_like(one, random.choice((float("nan"), float("inf"), -1e38))),
        lambda: one.to(random.choice((torch.int64, torch.bool, torch.float16, torch.float64, torch.uint8))),
        lambda: one.to(torch.float8_e4m3fn),
        lambda: one.to(torch.complex64),
        lambda: one.transpose(0, -1).contiguous() if one.ndim > 1 else one[None, None],
        lambda: one[None],
        lambda: one.reshape(-1)[:0],
        lambda: torch.zeros(()),
        lambda: torch.cat([one, one]) if one.ndim else one,
        lambda: None,
    )
    new = random.choice(ways)()
    other = random.choice((name, name, f"{name}x", "memory/"))
    kept = {key: value for key, value in tensors.items() if key != name}
    return kept if new is None else kept | {other: new.clone()}


def _checkpoint(folder: Path) -> Path:
    """A checkpoint's three files as one: packed, so that a mutation is of one file."""
    directory = max((_run(0)(folder) / "checkpoints").glob("step-*"))
    packed = folder / "checkpoint"
    packed.write_bytes(_packed({file.name: file.read_bytes() for file in sorted(directory.iterdir())}))
    return packed


def _packed(files: dict[str, bytes]) -> bytes:
    return json.dumps({name: data.hex() for name, data in files.items()}).encode()


def _unpacked(data: bytes) -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, text in json.loads(data).items()}


def _changed_checkpoint(data: bytes, random: Random) -> bytes:
    """One of the files changed, the sums and the seal put right."""
    files = _unpacked(data)
    manifest = json.loads(files["manifest.json"])
    kind = random.random()
    if kind < 0.2:
        name = random.choice(list(files))
        return _packed(files | {name: changed_bytes(files[name], random)})
    if kind < 0.5:
        files["state.json"] = json.dumps(changed_json(json.loads(files["state.json"]), random)).encode()
    elif kind < 0.65:
        files["tensors.safetensors"] = save(_changed_tensors(load(files["tensors.safetensors"]), random))
    elif kind < 0.75:
        files["tensors.safetensors"] = changed_bytes(files["tensors.safetensors"], random)
    manifest["sha256"] = {name: sha256(files[name]) for name in manifest["sha256"]}
    if kind >= 0.75:
        manifest = changed_json(manifest, random)
    if isinstance(manifest, dict):
        manifest["seal"] = json_sha256({k: v for k, v in manifest.items() if k != "seal"})
    return _packed(files | {"manifest.json": json.dumps(manifest).encode()})


def _read_checkpoint(file: Path) -> None:
    """Resume from it, where it is the only one."""
    directory = file.with_name("checkpoints")
    shutil.rmtree(directory, ignore_errors=True)
    files = _unpacked(file.read_bytes())
    iteration = _iteration(files["manifest.json"])
    (directory / iteration).mkdir(parents=True)
    for name, data in files.items():
        (directory / iteration / name).write_bytes(data)
    found, complaints = checkpoint.read_newest(directory)
    assert all("\n" not in line for line in complaints), complaints
    if found is not None:
        from_tensors(found.iteration, found.tensors, torch.device("cpu"))


def _iteration(manifest: bytes) -> str:
    """The name of the folder that a manifest says it has."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f"step-{json.loads(manifest)['iteration']:08d}"
    return "step-00000002"


def _changed_journal(data: bytes, random: Random) -> bytes:
    """A line changed in what it says, its checksum put right; or lines lost, doubled or of other bytes."""
    lines = data.splitlines(keepends=True)
    at = random.randrange(len(lines))
    if random.random() < 0.25:
        return changed_bytes(data, random)
    if random.random() < 0.2:
        del lines[at]
        return b"".join(lines + lines[:at])
    entry = changed_json(json.loads(lines[at].partition(b" ")[2]), random)
    text = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    lines[at] = b"%08x %s\n" % (zlib.crc32(text), text)
    return b"".join(lines)


def _list_runs(file: Path) -> None:
    """`suite.runs list`: whatever one run holds, its neighbour is listed."""
    out = file.parent.parent.parent
    words = _command(runs.main, "list", "--out", out)
    assert _run(1)(out.parent).name in words, words
    json.loads(_command(runs.main, "list", "--json", "--out", out))


def _read_about(file: Path) -> None:
    _list_runs(file)
    run_directory.read_about(file.parent)


def _read_journal(file: Path) -> None:
    (file.parent / "result.json").unlink(missing_ok=True)  # else the journal says nothing of the state
    _list_runs(file)
    _command(runs.main, "reap", "--out", file.parent.parent.parent)


GIN_WORDS = (
    *(b"@", b"%", b"()", b"[", b"]", b"{", b"}", b"'", b'"', b"\\\n", b"=", b".", b"/", b"#", b"\t", b"\0", b"\xff"),
    *(b"include 'gin/quickstart.gin'\n", b"import os\n", b"from os import path\n", b"None", b"1e999", b"10**9"),
    *(b"\nSEEDS = [0]\n", b"\nrun.axes = {'a': {'b': ['EPOCHS = 1']}}\n", b"@os.system('true')", b"\xef\xbb\xbf"),
    *(b"@datasets.digits()", b"%gin.REQUIRED", b"-1", b"1" * 400, b"[" * 500, b"OUTER_LR", b"\r\n", b"\xe2\x80\xae"),
)


def _gin(folder: Path) -> Path:
    file = folder / "own.gin"
    file.write_text(
        "include 'gin/quickstart.gin'\ninclude 'gin/scale/smoke.gin'\n"
        "ARCHITECTURE = @architectures.mlp()\narchitectures.mlp.width = 16\nOUTER_LR = 0.1\n"
        "run.axes = {'momentum': {'none': ['INNER_OPTIMIZER = @inner_optimizers.no_momentum()']}}\n"
    )
    return file


def _read_gin(file: Path) -> None:
    config.resolve([str(file)], [])


def _idx(folder: Path) -> Path:
    file = folder / "images-idx3-ubyte"
    file.write_bytes(b"\0\0\x08\x03" + struct.pack(">III", 5, 4, 4) + bytes(range(80)))
    return file


def _mat(folder: Path) -> Path:
    from scipy.io import savemat

    file = folder / "train_32x32.mat"
    pixels = (torch.arange(32 * 32 * 3 * 2) % 256).to(torch.uint8).reshape(32, 32, 3, 2)
    savemat(file, {"X": pixels.numpy(), "y": torch.tensor([[1], [10]], dtype=torch.uint8).numpy()})
    return file


def _site(folder: Path) -> Path:
    _build_site(folder / "site" / build.site.SIGN)
    return folder / "site" / build.site.SIGN


def _build_site(sign: Path) -> None:
    outside = sign.parent.parent / "outside.txt"
    outside.write_text("of somebody else")
    build.site.write(sign.parent, [], published.sources())
    assert outside.read_text() == "of somebody else"


def _csv(folder: Path) -> Path:
    file = folder / "published.csv"
    file.write_bytes(
        (Path(published.__file__).parent / "published.csv").read_bytes()[:2000].rpartition(b"\n")[0] + b"\n"
    )
    return file


def _read_csv(file: Path) -> None:
    for number in published.published(file):
        assert 0 <= number.accuracy <= 100 and (number.spread is None or 0 <= number.spread <= 100), number


SET_IMAGES, SET_CLASSES = torch.linspace(0, 1, 640).reshape(10, 1, 8, 8), torch.arange(10)
"""A distilled set of digits, one image for each class."""


def _set(layout: str) -> Callable[[Path], Path]:
    """The set in a layout of somebody else's."""

    def make(folder: Path) -> Path:
        file, last = folder / f"set of {layout}", SET_IMAGES.permute(0, 2, 3, 1).contiguous().numpy()
        labels = torch.eye(10).numpy()
        if layout == "idc":
            torch.save([SET_IMAGES, SET_CLASSES], file)
        elif layout == "dc":  # as torch wrote before 1.6
            accuracies = {"ConvNet": [np.float64(0.5)]}
            whole = {"data": [[SET_IMAGES, SET_CLASSES]], "accs_all_exps": accuracies}
            torch.save(whole, file, _use_new_zipfile_serialization=False)
        elif layout == "ddif":
            layers = {"net.0.linear": (3, 2), "last_layer.linear": (1, 3)}
            field = {f"{k}.weight": torch.ones(size) for k, size in layers.items()}
            field |= {f"{k}.bias": torch.ones(size[0]) for k, size in layers.items()}
            torch.save({"nf": [field] * 10, "label": SET_CLASSES, "syn_lr": torch.tensor(0.01)}, file)
        elif layout == "kip":
            with file.open("wb") as opened:
                np.savez(opened, images=last, labels=labels)
        elif layout == "rat_bptt":
            with h5py.File(file, "w") as opened:
                opened["data"], opened["label"] = SET_IMAGES.flatten(1).numpy(), labels
        elif layout == "huggingface":
            columns = {"pixel_values": SET_IMAGES.tolist(), "label": SET_CLASSES.tolist()}
            parquet.write_table(pyarrow.table(columns), file)
        else:
            arrays = {"x_proto": last, "y_proto": labels}
            packed = {k: msgpack.packb([list(v.shape), v.dtype.name, v.tobytes()]) for k, v in arrays.items()}
            file.write_bytes(msgpack.packb({"params": {k: msgpack.ExtType(1, v) for k, v in packed.items()}}))
        return file

    return make


def _read_set(layout: str) -> Callable[[Path], None]:
    form, info = FORMATS_OF_SETS[layout], Digits().info
    said = Declared(
        None if form.space else "standardized:0/1" if form.waves else "pixels",
        lr="file" if form.waves else None,
        classes="data-set",
        factor=1 if form.tiles else None,
    )

    def read(file: Path) -> None:
        found = form.read(file, Reading(info, None, (30.0, 10.0)))
        assert isinstance(found, ForeignSet)
        settle(file, form, found, said, info)

    return read


def _read_record(file: Path) -> None:
    _command(build.main, "--records", file.parent, "--check")


FORMATS = (
    Format("memory", _in_run("memory.safetensors"), _changed_memory, _read_memory),
    Format("checkpoint", _checkpoint, _changed_checkpoint, _read_checkpoint),
    Format("journal", _in_run("journal.jsonl"), _changed_journal, _read_journal),
    Format("record", _in_run("result.json"), changed_text_of_json, _read_record),
    Format("run.json", _in_run("run.json"), changed_text_of_json, _read_about),
    Format("gin", _gin, lambda data, random: changed_text(data, random, GIN_WORDS), _read_gin),
    Format("idx", _idx, changed_bytes, lambda file: read_idx(file.read_bytes(), file)),
    Format("mat", _mat, changed_bytes, lambda file: read_matlab(file.read_bytes(), file)),
    Format(
        "site",
        _site,
        lambda data, random: changed_bytes(
            data, random, (b"../outside.txt\n", b"\n", b"\0", b"/\n", b"runs\n", b".\n")
        ),
        _build_site,
    ),
    Format(
        "published.csv",
        _csv,
        lambda data, random: changed_text(data, random, (b"nan", b"-inf", b",", b'"', b"\n", b"x" * 200_000, b"1e9")),
        _read_csv,
    ),
    *(
        Format(f"set of {layout}", _set(layout), changed_bytes, _read_set(layout))
        for layout in ("idc", "dc", "ddif", "kip", "rat_bptt", "rcig", "huggingface")
    ),
)

# ---------------------------------------------------------------- trials


@dataclass(frozen=True)
class Finding:
    """A mutation that ended wrongly."""

    format: str
    """Its name."""
    number: int
    """Of the mutation."""
    what: str
    """The error, or which limit was passed."""


@dataclass(frozen=True)
class Tried:
    """What became of a format's mutations."""

    format: str
    """Its name."""
    mutations: int
    """How many were tried."""
    read: int
    """Read as if nothing were wrong."""
    refused: int
    """Refused in one sentence."""
    findings: tuple[Finding, ...]
    """Those that ended wrongly."""
    slowest_cpu_seconds: float
    """Of one mutation."""
    grown_mebibytes: float
    """The most by which one reading's peak was above what the process had before it."""


class _TooLong(BaseException):
    """No error that a reader may catch."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLong


def trial(form: Format, whole: Path, numbers: range, keep: Path | None = None) -> Tried:
    """Read the mutations of one format, in a copy of the folder of `examples`.

    Files of those that end wrongly are kept in `keep`.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(whole, Path(place) / "files"))
        return _trial(form, form.file(folder), numbers, keep)


def _trial(form: Format, file: Path, numbers: range, keep: Path | None) -> Tried:
    original = file.read_bytes()
    form.read(file)  # the example itself is right
    before = signal.signal(signal.SIGPROF, _stop)
    reads, slowest, grown, findings = 0, 0.0, 0.0, []
    try:
        for number in numbers:
            data = form.change(original, Random(f"{form.name} {number}"))
            file.write_bytes(data)
            _forget_peak()
            peak, began = _peak(), time.process_time()
            refused, wrong = False, None
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            try:
                form.read(file)
            except SuiteError as error:
                refused, wrong = True, f"more than one line: {error}" if "\n" in str(error) else None
            except _TooLong:
                wrong = f"more than {CPU_SECONDS} seconds"
            except BaseException as error:  # what a reader lets out, SystemExit too, is what is looked for
                wrong = _where(error)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - began)
            grown = max(grown, growth := _peak() - peak)
            if wrong is None and growth > MEBIBYTES:
                wrong = f"memory grew by {growth:.0f} MiB"
            reads += int(wrong is None and not refused)
            if wrong is not None:
                findings.append(Finding(form.name, number, wrong))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    write_atomic(keep / f"{form.name}-{number}", data)
    finally:
        signal.signal(signal.SIGPROF, before)
    refusals = len(numbers) - reads - len(findings)
    return Tried(form.name, len(numbers), reads, refusals, tuple(findings), slowest, grown)


def _peak() -> float:
    """The process's peak memory in MiB since the last `_forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _forget_peak() -> None:
    """Let the peak be what the process holds now: what it had before, also as freed memory, would hide a reading's."""
    with contextlib.suppress(AttributeError, OSError):  # an allocator other than glibc's
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _where(error: BaseException) -> str:
    """An error and the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}, line {last.lineno})"


def examples(folder: Path) -> None:
    """Two finished runs in `folder`/runs. Raises SuiteError."""
    _command(run.main, *EXAMPLE, "--out", folder / "runs", "--data-dir", folder / "data")


# ---------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=(__doc__ or "").split("\n")[0])
    names = [form.name for form in FORMATS]
    parser.add_argument("--format", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument(
        "--mutations", type=number_option(int, AtLeast(1)), default=1000, help="of each format (%(default)s)"
    )
    parser.add_argument(
        "--first",
        type=number_option(int, AtLeast(0)),
        default=0,
        metavar="I",
        help="number of the first one (%(default)s)",
    )
    parser.add_argument("--out", metavar="DIR", help="keep the files that were found there")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options = parser.parse_args(arguments)
    load_components()
    _limit_memory()
    tried = []
    with tempfile.TemporaryDirectory() as place:
        try:
            examples(Path(place))
        except SuiteError as error:
            report(f"tools.fuzz: {error}")
            return error.status
        for form in FORMATS:
            if form.name in (options.format or names):
                numbers = range(options.first, options.first + options.mutations)
                tried.append(trial(form, Path(place), numbers, Path(options.out) if options.out else None))
                report(_row(tried[-1]))
    if options.json:
        print(json.dumps([asdict(one) for one in tried], indent=1))
    else:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([(f.format, f.number, f.what) for one in tried for f in one.findings])
    return int(any(one.findings for one in tried))


def _row(one: Tried) -> str:
    cost = f"slowest {one.slowest_cpu_seconds:.2f} s, memory grew by {one.grown_mebibytes:.0f} MiB"
    counts = f"{one.mutations:,} mutations, {one.read:,} read, {one.refused:,} refused, {len(one.findings)} found"
    return f"{one.format}: {counts}; {cost}"


def _limit_memory() -> None:
    """Have the machine refuse this process more than MOST_MEBIBYTES beyond what it has."""
    used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line)
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + MOST_MEBIBYTES * 2**20, resource.RLIM_INFINITY))


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.exit(main())
