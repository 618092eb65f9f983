"""Memories that travel: to a Hugging Face repository or a folder, and from there, from a folder or from a web address.

    python -m suite.memory push runs/quickstart/.../memory.safetensors hf:me/digits-memory
    python -m suite.memory pull hf:me/digits-memory --to mine
    python -m suite.memory export mine/memory.safetensors images.npz

What is pushed is the memory's file and what belongs beside it, the record and the configuration of its run, the images
as a table that the Hub's viewer shows, a picture, and a card that says how to use it. What is pulled is verified by the
seal in the memory's file, and by the hash in the record that lies beside it.
"""

import argparse
import http.client
import json
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict

from suite import terminal
from suite.errors import Interrupted, RunError, SuiteError, UsageError, one_line, printable, report
from suite.storage.files import disk_errors, make_directory, sha256, user_path, write_atomic
from suite.storage.gallery import file_of
from suite.storage.plain_files import parse_json, read_plain

if TYPE_CHECKING:
    from suite.memory import Memory

FILE, RECORD, CONFIGURATION, CARD = "memory.safetensors", "result.json", "config.gin", "README.md"
TABLE, PICTURE = "data/train-00000-of-00001.parquet", "recalled.png"

MOST_BYTES = 2**31
"""Of a file that is fetched from a web address."""

SECONDS = 60.0
"""Without a byte, after which a web address is given up."""

HUB = "hf:"
"""Before the name of a repository of data on the Hugging Face Hub."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(prog="python -m suite.memory", description=(__doc__ or "").split("\n")[0])
    commands = command.add_subparsers(dest="command", required=True)
    push = commands.add_parser("push", help="send a memory to a Hugging Face repository or a folder")
    push.add_argument("memory", metavar="MEMORY", help="a memory's file, or its name in the gallery")
    push.add_argument("to", metavar="TO", help="hf:USER/NAME, or a folder that is new or empty")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--licence", default="mit", metavar="L", help="of the card, by the Hub's name (%(default)s)")
    pull = commands.add_parser("pull", help="fetch a memory, and verify it")
    pull.add_argument("source", metavar="FROM", help="hf:USER/NAME, a folder, or an address of http or https")
    pull.add_argument("--to", default=".", metavar="DIR", help="folder that it is stored in (the working directory)")
    pull.add_argument("--revision", metavar="R", help="of a Hugging Face repository: a commit, a tag or a branch")
    export = commands.add_parser("export", help="write the recalled images for other programs")
    export.add_argument("memory", metavar="MEMORY", help="a memory's file, or its name in the gallery")
    export.add_argument("to", metavar="TO", help="a file .npz or .parquet, or a folder for PNG files")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)

    from suite.memory import Memory  # after parsing, so that --help need not wait for torch

    try:
        if options.command == "push":
            print(f"pushed to {push(file_of(options.memory), options.to, options.private, options.licence)}")
        elif options.command == "export":
            print(f"exported to {Memory.load(file_of(options.memory)).export(user_path(options.to, 'TO'))}")
        else:
            file = pull(options.source, user_path(options.to, "--to"), options.revision)
            print(f"{Memory.load(file)!r}\nverified, and stored as {file}")
        return 0
    except SuiteError as error:
        report(f"suite.memory: {error}")
        return error.status
    except KeyboardInterrupt:
        report("suite.memory: stopped; give the command again")
        return Interrupted.status


# ---------------------------------------------------------------- there


def push(file: Path, to: str, private: bool = False, licence: str = "mit") -> str:
    """Send a memory, and what belongs to it, to `hf:USER/NAME` or to a folder; returns where it is.

    Raises RunError for a memory that is damaged, a record beside it that is another memory's, and a Hub that refuses.
    """
    from suite.memory import Memory

    memory = Memory.load(file)
    with tempfile.TemporaryDirectory(prefix="memory-") as made:
        folder = Path(made)
        for name, content in contents(memory, file, to, licence).items():
            make_directory((folder / name).parent)
            (folder / name).write_bytes(content)
        if to.startswith(HUB):
            return _to_hub(folder, to.removeprefix(HUB), private)
        target = user_path(to, "TO")
        with disk_errors(target):
            if target.is_dir() and any(target.iterdir()):
                raise UsageError(f"{target} is not empty; name a new folder")
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                place = target / one.relative_to(folder)
                make_directory(place.parent)
                write_atomic(place, one.read_bytes())
        return str(target)


def contents(memory: "Memory", file: Path, to: str, licence: str) -> dict[str, bytes]:
    """What is pushed: content by name."""
    from suite.memory import beside
    from suite.memory.exporting import as_table

    found = {FILE: read_plain(file, MOST_BYTES, follow=True)}
    for name in (beside(memory), RECORD, CONFIGURATION):
        if name is not None and (file.parent / name).is_file():
            found[name] = read_plain(file.parent / name, MOST_BYTES)
    record = _record(found.get(RECORD), file)
    _refuse_another(record, found[FILE], f"{file.parent / RECORD} is the record of another memory; move it away")
    png = memory._repr_png_()
    found |= {} if png is None else {PICTURE: png}
    found[TABLE] = as_table(memory)
    found[CARD] = card(memory, record, to, licence, found).encode()
    return found


def card(memory: "Memory", record: "_Record", name: str, licence: str, there: Collection[str]) -> str:
    """The repository's page: what the Hub reads of it, how to use the memory, and what was measured.

    `name`: where it is pushed to; `there`: names of the other files.
    """
    is_hub, picture = name.startswith(HUB), PICTURE in there
    beside_it = [one for one in (CONFIGURATION, RECORD) if one in there]
    about, numbers = memory.about, sum(tensor.numel() for tensor in memory.tensors.values())
    budget = about.get("budget", {}).get("images_per_class")
    tags = ["dataset-distillation", "addressable-memory", *([] if budget is None else [f"ipc-{budget:.3g}"])]
    head = {
        "license": licence,
        "tags": tags,
        "task_categories": ["image-classification"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    rows = [
        f"| {printable(m['method'])} | {m['mean']:.1f} | {m['n']} |"
        for m in record["measurements"]
        if (m["split"], m["quantity"]) == ("test", "accuracy")
    ]
    # YAML takes JSON, so that no name of a stranger can be more than a text.
    lines = [
        "---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", "",
        f"# A distilled memory of {printable(str(about.get('dataset', '?')))}", "",
        f"{numbers:,} stored numbers, from which {len(memory.recall()[1])} images of {memory.shape} are recalled that "
        "train a new network in seconds.", "",
        *(["![recalled images](recalled.png)", ""] if picture else []),
        "```python", "import suite  # pip install addressable-memory-suite", "",
        f'memory = suite.load("{FILE}")' + (f"  # after: python -m suite.memory pull {name}" if is_hub else ""),
        "memory.train(network)  # yours; memory.preprocess(pixels) makes what it takes", "```", "",
        *(["| what trained the networks | test accuracy (%) | n |", "| --- | --- | --- |", *rows, ""] if rows else []),
        *([f"Beside it: {', '.join(f'`{one}`' for one in beside_it)}.", ""] if beside_it else []),
    ]  # fmt: skip
    return "\n".join(lines)


def _to_hub(folder: Path, name: str, private: bool) -> str:
    def send() -> str:
        from huggingface_hub import HfApi

        hub = HfApi()
        if hub.repo_exists(name, repo_type="dataset"):
            if private and not hub.repo_info(name, repo_type="dataset").private:
                raise UsageError(f"--private: {name} is there, and public; change that on its page, or name another")
            if hub.file_exists(name, FILE, repo_type="dataset"):
                raise UsageError(f"{name} has a memory; name a repository of its own, or delete that one on its page")
        hub.create_repo(name, repo_type="dataset", private=private or None, exist_ok=True)
        sent = hub.upload_folder(repo_id=name, folder_path=folder, repo_type="dataset", commit_message="A memory")
        return str(sent.commit_url)

    return _asked(send, name, "log in with `hf auth login`, as one who may write there")


# ---------------------------------------------------------------- and back


def pull(source: str, to: Path, revision: str | None = None) -> Path:
    """Fetch a memory from `hf:USER/NAME`, a folder or a web address into a folder, verified; returns its file.

    Raises RunError for what is not there, and for a memory that is damaged or not the one of the record beside it, of
    which nothing is stored; UsageError where the folder holds another memory.
    """
    from suite.memory import Memory

    found = _fetched(source, revision)
    record = _record(found.get(RECORD), printable(source))
    _refuse_another(record, found[FILE], f"{printable(source)}: its memory is not the one that its record measured")
    with tempfile.TemporaryDirectory(prefix="memory-") as made:
        for name, content in found.items():
            (Path(made) / name).write_bytes(content)
        Memory.load(Path(made) / FILE)  # raises where it is damaged
    with disk_errors(to):
        for name, content in found.items():
            if (to / name).exists() and (to / name).read_bytes() != content:
                raise UsageError(f"{to / name} is there, and is another one; name another folder, by --to")
    make_directory(to)
    for name, content in found.items():
        write_atomic(to / name, content)
    return to / FILE


def _fetched(source: str, revision: str | None) -> dict[str, bytes]:
    """The memory, and what is there of what belongs to it; content by name."""
    from suite.memory import Memory, beside

    if revision is not None and not source.startswith(HUB):
        raise UsageError("--revision is of a Hugging Face repository, hf:USER/NAME; leave it out")
    if source.startswith(HUB):
        read = _of_hub(source.removeprefix(HUB), revision)
    elif source.startswith(("http://", "https://")):
        read = _of_web(source)
    else:
        place = user_path(source, "FROM")
        folder = place.parent if place.is_file() else place

        def read(name: str) -> bytes | None:
            file = place if name == FILE and place.is_file() else folder / name
            return read_plain(file, MOST_BYTES, follow=True) if file.exists() else None

    memory = read(FILE)
    if memory is None:
        raise RunError(f"{source} has no {FILE}")
    found = {FILE: memory}
    with tempfile.TemporaryDirectory(prefix="memory-") as made:
        (Path(made) / FILE).write_bytes(memory)
        extra = beside(Memory.load(Path(made) / FILE))
    for name in (extra, RECORD, CONFIGURATION):
        content = None if name is None else read(name)
        found |= {} if name is None or content is None else {name: content}
    return found


def _of_hub(name: str, revision: str | None) -> Callable[[str], bytes | None]:
    def read(file: str) -> bytes | None:
        def fetch() -> bytes | None:
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError

            try:
                place = hf_hub_download(name, file, repo_type="dataset", revision=revision)
            except EntryNotFoundError:
                return None
            return read_plain(Path(place), MOST_BYTES, follow=True)

        return _asked(fetch, name, "check its name, and log in with `hf auth login` if it is private")

    return read


def _of_web(address: str) -> Callable[[str], bytes | None]:
    """Files beside each other: the address is that of the memory's file, or of the folder that has it."""
    is_file = address.split("?")[0].endswith(".safetensors")
    base = address.split("?")[0].rsplit("/", 1)[0] if is_file else address.rstrip("/")

    def read(file: str) -> bytes | None:
        place = address if file == FILE and is_file else f"{base}/{file}"
        try:
            with urllib.request.urlopen(place, timeout=SECONDS) as answer:
                content: bytes = answer.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            if error.code == 404 or (
                error.code in (403, 410) and file != FILE
            ):  # some stores say so of what is not there
                return None
            raise RunError(f"{printable(place)} can't be fetched: {error.code} {one_line(error.reason)}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RunError(f"{printable(place)} can't be fetched: {one_line(error)}") from error
        if len(content) > MOST_BYTES:
            raise RunError(f"{printable(place)} has more than {MOST_BYTES:,} bytes, which no memory has")
        return content

    return read


def _asked(ask: Callable[[], Any], name: str, help_words: str) -> Any:
    """What the Hub answers. Raises RunError with what it says instead."""
    try:
        return ask()
    except SuiteError:
        raise
    except Exception as error:  # of the library's own, and of the network
        raise RunError(f"Hugging Face, {printable(name)}: {one_line(error)[:300]}; {help_words}") from error


class _Facts(TypedDict):
    memory_sha256: NotRequired[str]


class _Measured(TypedDict):
    method: str
    split: str
    quantity: str
    mean: float
    n: int


class _Record(TypedDict):
    """What is used of a record here."""

    facts: _Facts
    measurements: list[_Measured]


def _record(content: bytes | None, where: object) -> _Record:
    """The record; an empty one where there is none. Raises RunError for what is no record."""
    if content is None:
        return {"facts": {}, "measurements": []}
    return parse_json(content, _Record, f"the {RECORD} beside {where}")


def _refuse_another(record: _Record, memory: bytes, sentence: str) -> None:
    """Raise RunError for a record that measured another memory."""
    if record["facts"].get("memory_sha256", "") not in ("", sha256(memory)):
        raise RunError(sentence)
