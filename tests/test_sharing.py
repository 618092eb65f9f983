"""Memories that travel: by way of a folder, a web address, and a hub that answers as Hugging Face's does."""

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import QUICK, Done, command, ended, only_run, said, start

from suite.errors import RunError
from suite.memory import Memory, sharing
from suite.storage.files import sha256


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a quick run."""
    out = tmp_path_factory.mktemp("sharing")
    done = command(*QUICK, "--data-dir", data_dir, "--out", out, "--tracking-uri", "none")
    assert done.status == 0, done.err
    return only_run(out)


@contextmanager
def served(handler: Any) -> Iterator[str]:
    """The address of a server of these answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def same(folder: Path, run: Path) -> None:
    """What was pulled is what was pushed."""
    for name in (sharing.FILE, sharing.RECORD, sharing.CONFIGURATION):
        assert (folder / name).read_bytes() == (run / name).read_bytes(), name


# ---------------------------------------------------------------- folders and web addresses


def test_a_folder_and_a_web_address_give_back_the_same_bytes(run: Path, tmp_path: Path) -> None:
    pushed = tmp_path / "pushed"
    assert said(sharing.main, ["push", str(run / "memory.safetensors"), str(pushed)]).status == 0
    same(pushed, run)
    assert said(sharing.main, ["pull", str(pushed), "--to", str(tmp_path / "one")]).status == 0
    same(tmp_path / "one", run)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with served(partial(Quiet, directory=tmp_path)) as address:
        for number, source in enumerate((f"{address}/pushed", f"{address}/pushed/memory.safetensors")):
            done = said(sharing.main, ["pull", source, "--to", str(tmp_path / f"web{number}")])
            assert done.status == 0 and "verified, and stored as" in done.out, done.err
            same(tmp_path / f"web{number}", run)
        gone = said(sharing.main, ["pull", f"{address}/nothing", "--to", str(tmp_path / "gone")])
    assert gone.status == 1 and "has no memory.safetensors" in gone.err and not (tmp_path / "gone").exists()


def test_the_card_and_the_table_show_what_is_inside(run: Path, tmp_path: Path) -> None:
    sharing.push(run / "memory.safetensors", str(tmp_path / "pushed"), licence="cc0-1.0")
    text = (tmp_path / "pushed" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert 'license: "cc0-1.0"' in head and "dataset-distillation" in head
    record = json.loads((run / "result.json").read_text())
    (measured,) = [m for m in record["measurements"] if m["method"] == "memory" and m["split"] == "test"]
    assert f"| memory | {measured['mean']:.1f} | {measured['n']} |" in body and "memory.train(network)" in body
    assert (tmp_path / "pushed" / "recalled.png").read_bytes().startswith(b"\x89PNG")
    library = pytest.importorskip("datasets")
    rows = library.load_dataset("parquet", data_files=str(tmp_path / "pushed" / sharing.TABLE), split="train",
                                cache_dir=str(tmp_path / "cache"))  # fmt: skip
    images, labels = Memory.load(run / "memory.safetensors").display()
    assert rows["label"][:] == labels.tolist() and rows.features["label"].names == list("0123456789")
    shown = torch.from_numpy(np.array(rows[3]["image"]))
    assert shown.equal(images[3, 0].mul(255).round().long())


def test_what_was_tampered_with_is_refused_and_nothing_is_stored(run: Path, tmp_path: Path) -> None:
    pushed = tmp_path / "pushed"
    sharing.push(run / "memory.safetensors", str(pushed))
    whole = (pushed / sharing.FILE).read_bytes()
    (pushed / sharing.FILE).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = said(sharing.main, ["pull", str(pushed), "--to", str(tmp_path / "here")])
    assert done.status == 1 and not (tmp_path / "here").exists(), done
    (pushed / sharing.FILE).write_bytes(whole)
    record = json.loads((pushed / sharing.RECORD).read_text())
    record["facts"]["memory_sha256"] = "0" * 64
    (pushed / sharing.RECORD).write_text(json.dumps(record))
    with pytest.raises(RunError, match="not the one that its record measured"):
        sharing.pull(str(pushed), tmp_path / "here")
    for nonsense in ("[]", "{", '{"facts": []}', "[" * 100_000, '{"facts": {}, "measurements": [1]}'):
        (pushed / sharing.RECORD).write_text(nonsense)
        with pytest.raises(RunError, match=r"the result.json beside .* is damaged"):
            sharing.pull(str(pushed), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_what_is_there_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "memory.safetensors").write_bytes(b"mine")
    done = said(sharing.main, ["pull", str(run), "--to", str(tmp_path)])
    assert done.status == 2 and "memory.safetensors is there, and is another one" in done.err
    for name in ("config.gin", "result.json"):
        mine = tmp_path / f"with {name}" / name
        mine.parent.mkdir()
        mine.write_text("mine")
        done = said(sharing.main, ["pull", str(run), "--to", str(mine.parent)])
        assert done.status == 2 and f"{name} is there, and is another one" in done.err
        assert [file.name for file in mine.parent.iterdir()] == [name] and mine.read_text() == "mine"
    done = said(sharing.main, ["push", str(run / "memory.safetensors"), str(tmp_path)])
    assert done.status == 2 and "is not empty" in done.err
    assert (tmp_path / "memory.safetensors").read_bytes() == b"mine"
    shutil.copy(run / "result.json", tmp_path)
    done = said(sharing.main, ["push", "nothing", "hf:me/it"])
    assert done.status == 1 and "no memory of that name" in done.err


def test_the_file_that_is_named_is_the_one_that_is_pulled(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "memory.safetensors", tmp_path / "other.safetensors")
    (tmp_path / "memory.safetensors").write_bytes(b"another")
    done = said(sharing.main, ["pull", str(tmp_path / "other.safetensors"), "--to", str(tmp_path / "here")])
    assert done.status == 0, done.err
    assert (tmp_path / "here" / "memory.safetensors").read_bytes() == (run / "memory.safetensors").read_bytes()


@pytest.mark.parametrize("address", ["http://a b/x", "http://[x/", "https://nobody.invalid/x", "http://127.0.0.1:1/x"])
def test_an_address_that_leads_nowhere_is_a_sentence(address: str, tmp_path: Path) -> None:
    done = said(sharing.main, ["pull", address, "--to", str(tmp_path / "here")])
    assert done.status == 1 and done.err.count("\n") == 1 and "can't be fetched" in done.err
    refused = said(sharing.main, ["pull", str(tmp_path), "--revision", "main"])
    assert refused.status == 2 and "--revision is of a Hugging Face repository" in refused.err


# ---------------------------------------------------------------- a hub


class Hub(BaseHTTPRequestHandler):
    """As much of Hugging Face's hub as a push and a pull ask of it; a repository is a dictionary."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    refuses = False
    COMMIT = "c0ffee" + "0" * 34

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refuses:
            self.answer({"error": "you may not write here"}, 403)
        elif self.path.endswith("/repos/create"):
            self.answer({"url": f"http://{self.headers['Host']}/datasets/me/it", "name": "me/it"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            there = f"http://{self.headers['Host']}/datasets/me/it/commit/{self.COMMIT}"
            self.answer({"commitOid": self.COMMIT, "commitUrl": there, "success": True})
        else:
            self.answer({"errors": [], "warnings": []})  # of the card's head

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            name = self.path.split("/resolve/")[1].split("/", 1)[1].split("?")[0]
            if name not in self.files:
                self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=self.COMMIT)
                return
            tag = hashlib.sha256(self.files[name]).hexdigest()
            self.answer(self.files[name], ETag=f'"{tag}"', X_Repo_Commit=self.COMMIT)
        elif not self.files:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        else:
            self.answer({"sha": self.COMMIT, "id": "me/it", "private": False, "siblings": []})

    do_HEAD = do_GET


SEVERAL = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from suite.memory.__main__ import main
for words in json.loads(sys.argv[1]):
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(words)
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def by_the_hub(address: str, home: Path, *commands: Sequence[str | Path]) -> list[Done]:
    """What several commands say, in a process of its own, which knows this hub alone."""
    own = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": "hf_x", "HF_HUB_DISABLE_XET": "1"}
    own |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    given = json.dumps([[str(word) for word in words] for words in commands])
    ran = ended(start(given, code=["-c", SEVERAL], env=own))
    assert ran.status == 0, ran.err
    return [Done(*json.loads(line)) for line in ran.out.splitlines()]


@pytest.mark.slow
def test_a_memory_is_pushed_to_a_hub_and_pulled_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    Hub.files = {}
    push = ["push", run / "memory.safetensors", "hf:me/it"]
    with served(Hub) as address:
        pushed, pulled, again, secret = by_the_hub(
            address,
            tmp_path / "home",
            push,
            ["pull", "hf:me/it", "--to", tmp_path / "here"],
            push,
            [*push, "--private"],
        )
        assert pushed.status == 0, pushed.err
        assert sha256(Hub.files["memory.safetensors"]) == sha256((run / "memory.safetensors").read_bytes())
        assert {"README.md", "result.json", "config.gin", sharing.TABLE, "recalled.png"} <= set(Hub.files)
        assert pulled.status == 0 and "Memory(digits" in pulled.out, pulled.err
        same(tmp_path / "here", run)
        assert again.status == 2 and "me/it has a memory; name a repository of its own" in again.err
        assert secret.status == 2 and "is there, and public" in secret.err
        Hub.files["memory.safetensors"] = Hub.files["memory.safetensors"][:-1] + b"?"
        pull = ["pull", "hf:me/it", "--to", tmp_path / "tampered"]
        (other,) = by_the_hub(address, tmp_path / "other", pull)
        assert other.status == 1 and not (tmp_path / "tampered").exists()
        Hub.files, Hub.refuses = {}, True
        (refused,) = by_the_hub(address, tmp_path / "home", push)
        Hub.refuses = False
    assert refused.status == 1 and "Hugging Face, me/it:" in refused.err and "log in" in refused.err
