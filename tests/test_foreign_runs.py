"""Run directories that come from somebody else, or were damaged: a sentence for each, and the good ones are served."""

import json
import os
import shutil
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, Done, ask, command, ended, only_run, said, sets, start
from safetensors.torch import save

from suite import sync, terminal
from suite.errors import RunError, UsageError, report
from suite.runtime import session
from suite.runtime.run_directory import OWN, about, mark_finished, read_about, run_directories
from suite.runtime.signals import Stop, as_interrupts
from suite.storage import checkpoint
from suite.storage.checkpoint import Checkpoint, read_newest, write
from suite.storage.files import (
    append_synced,
    canonical_json,
    json_sha256,
    remove_leftovers,
    sha256,
    user_path,
    write_synced,
)
from suite.storage.journal import NAME, Journal, Point, read
from suite.storage.plain_files import plain_below, refuse_links
from suite.tracking.store import Store

KEPT = Path(__file__).parent / "kept" / "begun" / "distillation" / "quickstart"


def synced(out: Path) -> Done:
    """`python -m suite.sync` in this process, to a store that takes everything."""
    store = Store("http://host", out)
    store.connect, store.send = lambda: None, lambda *_: "there"  # type: ignore[method-assign]
    return said(sync._send_all, store, out)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A run that was begun, in an output directory."""
    (kept,) = KEPT.iterdir()
    return Path(shutil.copytree(kept, tmp_path / "out" / "quickstart" / kept.name))


@pytest.fixture
def bad(good: Path) -> Path:
    """Another one beside it, to be spoilt. It comes first in the list."""
    return Path(shutil.copytree(good, good.with_name("a-bad-one")))


def one_sentence(done: Done, *words: str) -> None:
    assert done.status == 1 and done.err.count("\n") == 1 and "\x1b" not in done.err, done.err
    assert all(word in done.err for word in words), done.err


# ---------------------------------------------------------------- journals

ID = "0" * 32
TIME = 1_700_000_000_000
WRONG_ENTRIES: list[tuple[Any, str]] = [
    ({"is": "status"}, "status.time"),
    ({"is": "status", "time": TIME, "hard": False}, "status.status"),
    ({"is": "status", "time": TIME, "status": "DONE", "hard": False}, "status.status"),
    ({"is": "status", "time": TIME, "status": ["RUNNING"], "hard": False}, "status.status"),
    ({"is": "status", "time": "now", "status": "RUNNING", "hard": False}, "status.time"),
    ({"is": "status", "time": TIME, "status": "RUNNING", "hard": 1}, "status.hard"),
    ({"is": "metrics", "time": TIME, "points": [[1, 2]]}, "metrics.points"),
    ({"is": "metrics", "time": TIME, "points": [["loss", "low", 1, 1]]}, "metrics.points"),
    ({"is": "metrics", "time": TIME, "points": [["loss", 0.5, 1, -1]]}, "metrics.points"),
    ({"is": "metrics", "time": TIME, "points": [["loss", 0.5, 1, 2**64]]}, "metrics.points"),
    ({"is": "metrics", "time": TIME, "points": 7}, "metrics.points"),
    ({"is": "progress", "time": TIME, "done": None, "total": 5}, "progress.done"),
    (
        {"is": "run", "time": TIME, "id": "' OR 1=1", "experiment": "", "name": "", "tags": {}, "parameters": {}},
        "run.id",
    ),
    (
        {"is": "run", "time": TIME, "id": ID, "experiment": 1, "name": "", "tags": {}, "parameters": {}},
        "run.experiment",
    ),
    ({"is": "run", "time": TIME, "id": ID, "experiment": "", "name": "", "tags": [], "parameters": {}}, "run.tags"),
    ({"is": "artifact", "time": TIME, "file": "../../secret"}, "artifact.file"),
    ({"is": "artifact", "time": TIME, "file": "/etc/passwd"}, "artifact.file"),
    ({"is": "artifact", "time": TIME, "file": ""}, "artifact.file"),
    ({"is": "artifact", "time": TIME}, "artifact.file"),
    ({"is": "parent", "time": TIME, "journal": "../../../elsewhere/.table-1"}, "parent.journal"),
    ({"is": "parent", "time": TIME, "journal": "/tmp/.table-1"}, "parent.journal"),
    ({"is": "parent", "time": TIME, "journal": "../another-run"}, "parent.journal"),
    ({"is": "dataset", "time": TIME, "name": "digits", "digest": 7, "images": {}}, "dataset.digest"),
    ({"is": "dataset", "time": TIME, "name": "digits", "digest": "", "images": {"train": -1}}, "dataset.images"),
    ({"is": "description", "time": TIME, "text": "", "pictures": ["../../secret"]}, "description.pictures"),
    ({"is": "description", "time": TIME, "text": []}, "description.text"),
    ({"is": "\x1b[31mred"}, "is damaged"),
    ({"is": ["status"]}, "is damaged"),
    ({"no": "kind"}, "is damaged"),
    ([], "is damaged"),
    (7, "is damaged"),
]


def add_line(directory: Path, text: bytes) -> None:
    with (directory / NAME).open("ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(text), text))


@pytest.mark.parametrize(("entry", "field"), WRONG_ENTRIES)
def test_a_line_of_another_shape_is_a_sentence_and_the_others_are_listed(
    entry: Any, field: str, good: Path, bad: Path
) -> None:
    add_line(bad, json.dumps(entry).encode())
    for opened in (read, Journal):
        with pytest.raises(RunError, match=f"{NAME} is damaged: "):
            opened(bad)
    done = ask("--out", good.parent.parent)
    one_sentence(done, NAME, field, "a-bad-one")
    assert good.name in done.out and "3/5" in done.out and "a-bad-one" not in done.out


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"is": ' + b"[" * 300, b"", b"{", b"NaN", b'{"is": "\xff"}'])
def test_a_line_that_is_no_json_is_a_sentence(text: bytes, bad: Path) -> None:
    add_line(bad, text)
    with pytest.raises(RunError, match=f"{NAME} is damaged") as caught:
        read(bad)
    assert len(str(caught.value)) < 400


def test_no_line_breaks_out_of_its_place(bad: Path) -> None:
    before = read(bad)[0]
    add_line(bad, b'{"is":"status","status":"RUNNING","hard":false,"time":1},{"is":"nothing"}')
    with pytest.raises(RunError):
        read(bad)
    assert len(before) > 2


def test_every_action_serves_the_good_run_beside_a_bad_one(
    good: Path, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_line(bad, b'{"is":"status"}')
    resumed: list[str] = []
    monkeypatch.setattr("suite.run.main", lambda words: resumed.append(" ".join(words)) or 0)
    done = ask("resume", "--out", good.parent.parent)
    one_sentence(done, NAME)
    assert len(resumed) == 1 and good.name in resumed[0]
    one_sentence(ask("reap", "--out", good.parent.parent), NAME)
    assert ask("clean", "--yes", "--out", good.parent.parent).status == 0


# ---------------------------------------------------------------- run.json

WRONG_ABOUTS: list[tuple[str, Any, str]] = [
    ("options", {}, "options"),
    ("options", None, "options"),
    ("cell", {"a": 1}, "cell.a"),
    ("mixed", ["a", 2], "mixed"),
    ("seed", "0", "seed"),
    ("config", [], "config"),
    ("key", None, "key"),
    ("environment", "here", "environment"),
]


@pytest.mark.parametrize(("key", "value", "field"), WRONG_ABOUTS)
def test_a_run_json_of_another_shape_names_the_field(key: str, value: Any, field: str, good: Path, bad: Path) -> None:
    content = json.loads((bad / "run.json").read_text())
    (bad / "run.json").write_text(json.dumps(content | {key: value}))
    assert about(bad) is None
    done = ask("resume", bad.name, "--out", good.parent.parent)
    one_sentence(done, "run.json is damaged", f"'{field}")


@pytest.mark.parametrize("option", ["data_dir", "device"])
def test_an_option_in_run_json_stays_a_value(option: str, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads((good / "run.json").read_text())
    content["options"][option] = "--fresh"
    (good / "run.json").write_text(json.dumps(content))
    given: list[str] = []
    monkeypatch.setattr("suite.run.main", lambda words: given.extend(words) or 0)
    assert ask("resume", "--out", good.parent.parent).status == 0
    assert "--fresh" not in given and f"--{option.replace('_', '-')}=--fresh" in given


DEEP = "[" * 100_000 + "]" * 100_000


def test_a_neighbour_s_run_json_is_no_reason_not_to_start(good: Path, bad: Path) -> None:
    (bad / "run.json").write_text('{"options": ' + DEEP + "}")
    assert about(bad) is None and about(good) is not None
    with pytest.raises(RunError, match=r"run.json is damaged: .*recursion limit"):
        read_about(bad)


# ---------------------------------------------------------------- no plain files


def pipe(file: Path) -> None:
    os.mkfifo(file)


def endless(file: Path) -> None:
    file.symlink_to("/dev/zero")


def elsewhere(file: Path) -> None:
    """A link to a file of somebody else, who wants it as it is."""
    private = file.parent.parent.parent.parent / "private"
    private.write_bytes(b"mine\n")
    file.symlink_to(private)


def folder(file: Path) -> None:
    file.mkdir()


def socket(file: Path) -> None:
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as one:
        before = Path.cwd()
        os.chdir(file.parent)  # a socket's address is short
        try:
            one.bind(file.name)
        finally:
            os.chdir(before)


@pytest.mark.parametrize("spoil", [pipe, endless, elsewhere, folder, socket])
@pytest.mark.parametrize("name", [NAME, "run.json", ".lock"])
def test_what_is_no_plain_file_is_named_and_left_as_it_is(
    name: str, spoil: Callable[[Path], None], good: Path, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suite.run.main", lambda words: 0)
    (bad / name).unlink(missing_ok=True)
    spoil(bad / name)
    for action in ("list", "resume", "reap"):
        done = ask(action, *([bad.name] if action == "resume" else []), "--out", good.parent.parent)
        assert "Traceback" not in done.err and (done.status == 0 or str(bad / name) in done.err or bad.name in done.err)
        assert action != "list" or good.name in done.out
    private = good.parent.parent.parent / "private"
    assert not private.exists() or private.read_bytes() == b"mine\n"


@pytest.mark.parametrize("spoil", [pipe, endless, elsewhere])
@pytest.mark.parametrize(
    "name", [NAME, "result.json", "figures/a.png", "checkpoints/step-00000001", "memory.safetensors"]
)
def test_a_run_does_not_begin_where_something_leads_elsewhere(
    name: str, spoil: Callable[[Path], None], bad: Path
) -> None:
    refuse_links(bad, OWN)
    (bad / name).unlink(missing_ok=True)
    (bad / name).parent.mkdir(exist_ok=True)
    spoil(bad / name)
    with pytest.raises(RunError, match=f"{name} is a (link|pipe), which has no place in a run's folder"):
        refuse_links(bad, OWN)


@pytest.mark.parametrize("spoil", [pipe, endless, elsewhere])
@pytest.mark.parametrize("name", [".#config.gin", "notes", "figures/.#a.png", "mine/data", "tensorboard"])
def test_what_a_run_neither_reads_nor_writes_is_left_alone(name: str, spoil: Callable[[Path], None], bad: Path) -> None:
    """Emacs makes a link beside a file that is being edited."""
    (bad / name).parent.mkdir(exist_ok=True)
    spoil(bad / name)
    refuse_links(bad, OWN)
    assert os.path.lexists(bad / name)


def test_every_name_that_a_run_uses_is_one_that_is_looked_at(good: Path) -> None:
    assert {path.name for path in good.iterdir()} <= set(OWN)


@pytest.mark.parametrize("ask_for", [lambda out: ask("list", "--out", out), synced])
def test_folders_that_are_links_are_named_in_one_line(ask_for: Any, good: Path, tmp_path: Path) -> None:
    out = tmp_path / "linked"
    shutil.copytree(good, out / "table" / good.name)
    for name in ("a", "table/b", "cache", "table/c", "d"):
        (out / name).symlink_to(good.parent)
    (out / "file").symlink_to(good / "run.json")
    err = ask_for(out).err
    assert f"links in {out} are not followed: a, d, table/b and 1 more; name the folder where they lead" in err
    assert "links in" not in ask_for(good.parent.parent).err and "links in" not in ask_for(good).err


@pytest.mark.parametrize("what", ["figures", "checkpoints", ".sending", "", ".."])
def test_a_run_does_not_write_through_a_linked_folder(what: str, data_dir: Path, tmp_path: Path) -> None:
    arguments = [*QUICK, *sets("NETWORKS = 1", "VALIDATION_POINTS = 0", "ITERATIONS = 1")]
    arguments += ["--data-dir", str(data_dir), "--out", str(tmp_path / "out"), "--tracking-uri", "none"]
    key = json.loads(command(*arguments, "--dry-run", "--json").out)
    key = (key[0] if isinstance(key, list) else key)["key"]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".x.tmp").touch()
    runs = tmp_path / "out" / "quickstart"
    link = runs if what == ".." else runs / f"anything-seed0-{key}" / what
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    done = command(*arguments)
    assert done.status == 1 and "is a link, which" in done.complaint
    assert [file.name for file in outside.iterdir()] == [".x.tmp"]


def test_nothing_is_written_or_deleted_through_a_link(tmp_path: Path) -> None:
    place, outside = tmp_path / "run", tmp_path / "outside"
    for made in (place, outside):
        made.mkdir()
        (made / ".x.tmp").write_bytes(b"x")
    (place / "figures").symlink_to(outside)
    (place / ".y.tmp").symlink_to(outside)
    (place / "file").symlink_to(outside / ".x.tmp")
    remove_leftovers(place)
    assert sorted(os.listdir(place)) == ["figures", "file"] and os.listdir(outside) == [".x.tmp"]
    with pytest.raises(RunError):
        append_synced(place / "file", b"more")
    with pytest.raises(OSError, match="symbolic links"):
        write_synced(place / "file", b"more")
    assert (outside / ".x.tmp").read_bytes() == b"x"


def test_links_in_an_output_directory_are_no_runs_and_nothing_is_cleaned_behind_them(
    good: Path, tmp_path: Path
) -> None:
    (good / "result.json").write_text("{}")
    foreign = tmp_path / "foreign"
    (foreign / "table").mkdir(parents=True)
    (foreign / "quickstart").symlink_to(good.parent)
    (foreign / "table" / good.name).symlink_to(good)
    (foreign / "table" / f"{good.name}.old1").symlink_to(good)
    assert run_directories(foreign) == []
    done = ask("clean", "--yes", "--out", foreign)
    assert done.status == 0 and done.out == "0.0 MiB deleted\n" and any((good / "checkpoints").iterdir())
    shutil.move(good / "checkpoints", tmp_path / "others")
    (good / "checkpoints").symlink_to(tmp_path / "others")
    assert ask("clean", "--yes", "--out", good.parent.parent).status == 0
    assert not (good / "checkpoints").is_symlink() and any((tmp_path / "others").iterdir())


def test_links_are_no_artifacts(good: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "secret.png").touch()
    (good / "linked.csv").symlink_to(tmp_path / "secrets" / "secret.png")
    (good / "figures").symlink_to(tmp_path / "secrets")
    mark_finished(good, Journal(good))
    names = {entry["file"] for entry in read(good)[0] if entry["is"] == "artifact"}
    assert names == {"config.gin", "operative.gin"}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "", ".", "a/../../x", "figures/secret.png", "linked", "folder"]
)
def test_a_name_that_leads_out_of_a_folder_is_no_file_of_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    place = tmp_path / "run"
    (place / "folder").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    (place / "figures").symlink_to(tmp_path)
    (place / "linked").symlink_to(tmp_path / "x")
    with pytest.raises(RunError):
        plain_below(place, name)
    with pytest.raises(FileNotFoundError):
        plain_below(place, "absent")


def test_what_others_wrote_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report("a\x1b[2J\r\x07\nb\u202e ü 字")
    assert capsys.readouterr().err == "a\\x1b[2J\\r\\x07\\nb\\u202e ü 字\n"


@pytest.mark.parametrize("name", [b"a\xff", b"a\x1b[31m", "grün 字".encode(), b"a\nb"])
def test_folders_of_any_name_are_listed_on_a_line_of_their_own(name: bytes, good: Path) -> None:
    os.rename(os.fsencode(good), os.path.join(os.fsencode(good.parent), name))
    done = ask("--out", good.parent.parent)
    assert done.status == 0 and done.out.count("\n") == 2 and "\x1b" not in done.out
    done.out.encode()


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """The checkpoints of steps 1 and 2."""
    for step in (1, 2):
        write(tmp_path / "run" / "checkpoints", Checkpoint(step, {"a": torch.full((2,), float(step))}, {"x": step}))
    return tmp_path / "run" / "checkpoints"


def sealed_anew(step: Path, **changes: Any) -> None:
    """The manifest with other content, and the seal of that."""
    manifest = json.loads((step / "manifest.json").read_text()) | changes
    manifest["sha256"] = manifest["sha256"] | {
        name: sha256((step / name).read_bytes()) for name in ("tensors.safetensors", "state.json")
    }
    manifest.pop("seal")
    manifest["seal"] = json_sha256(manifest)
    (step / "manifest.json").write_text(canonical_json(manifest))


def outside_file(step: Path) -> None:
    outside = step.parent.parent.parent / "outside"
    outside.write_bytes((step / "tensors.safetensors").read_bytes())
    sealed_anew(step, sha256={"../../../outside": sha256(outside.read_bytes())})


def garbage(step: Path) -> None:
    (step / "tensors.safetensors").write_bytes(b"\xff" * 100)
    sealed_anew(step)


def long_header(step: Path) -> None:
    (step / "tensors.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    sealed_anew(step)


def other_names(step: Path) -> None:
    (step / "tensors.safetensors").write_bytes(save({"b": torch.zeros(1)}))
    sealed_anew(step)


def state_of_a_list(step: Path) -> None:
    (step / "state.json").write_text("[]")
    sealed_anew(step)


def deep_state(step: Path) -> None:
    (step / "state.json").write_text('{"order": ["a"], "state": ' + DEEP + "}")
    sealed_anew(step)


def linked_tensors(step: Path) -> None:
    (step / "tensors.safetensors").rename(step.parent.parent / "t")
    (step / "tensors.safetensors").symlink_to(step.parent.parent / "t")


def linked_step(step: Path) -> None:
    step.rename(step.parent.parent / "elsewhere")
    step.symlink_to(step.parent.parent / "elsewhere")


def a_pipe(step: Path) -> None:
    (step / "state.json").unlink()
    os.mkfifo(step / "state.json")


def score_of_words(step: Path) -> None:
    sealed_anew(step, score="high")


def no_number(step: Path) -> None:
    sealed_anew(step, iteration="2")


HOSTILE = [
    outside_file, garbage, long_header, other_names, state_of_a_list, deep_state, linked_tensors, linked_step, a_pipe,
    score_of_words, no_number,
]  # fmt: skip


@pytest.mark.parametrize("spoil", HOSTILE)
def test_a_checkpoint_that_lies_is_set_aside(spoil: Callable[[Path], None], steps: Path) -> None:
    spoil(steps / "step-00000002")
    newest, complaints = read_newest(steps)
    assert newest is not None and newest.iteration == 1
    assert len(complaints) == 1 and "\n" not in complaints[0] and len(complaints[0]) < 500


def test_a_disk_that_can_not_be_read_is_no_damage(steps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise RunError("can't read it (Input/output error)")

    monkeypatch.setattr(checkpoint, "read_plain", fails)
    with pytest.raises(RunError, match="Input/output error"):
        read_newest(steps)
    assert not list(steps.glob("damaged-*"))


def test_steps_of_any_number_of_digits_are_in_order(tmp_path: Path) -> None:
    for step in (99_999_998, 99_999_999, 100_000_000, 100_000_001, 2_000_000_000):
        write(tmp_path, Checkpoint(step, {"a": torch.zeros(1)}, {}))
        newest, _ = read_newest(tmp_path)
        assert newest is not None and newest.iteration == step
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "step-1").touch()
    assert read_newest(tmp_path)[1] == []


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ({}, "experiment"),
        ({"experiment": [], "metrics": []}, "experiment"),
        ({"experiment": {}, "metrics": [["loss"]]}, "metrics"),
        ({"experiment": {}, "metrics": [[1, 2.0, 3, 4]]}, "metrics"),
    ],
)
def test_a_state_that_is_no_run_s_names_the_field(state: dict[str, Any], field: str, tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", Checkpoint(3, {"a": torch.zeros(1)}, state))
    one = session.RunSession(
        seed=0, device=torch.device("cpu"), directory=tmp_path, data_dir=tmp_path, cache_dir=tmp_path,
        journal=Journal(tmp_path), notify=lambda: None, stop=Stop(), still_held=lambda: None, label="run",
        checkpoint_seconds=60.0,
    )  # fmt: skip
    with pytest.raises(RunError, match=f"the state of step 3 is damaged: its '{field}"):
        one.restore()


# ---------------------------------------------------------------- under a run at work


@pytest.mark.parametrize("what", ["folder", "lock", "replaced"])
def test_a_run_whose_place_was_taken_stops_and_writes_nothing_more(
    what: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, left = session.RunSession.progress, []

    def went(self: session.RunSession, iteration: int, total: int, words: str) -> None:
        if iteration == 2 and not left:
            if what == "folder":
                shutil.rmtree(tmp_path / "out")
            else:
                (self.directory / ".lock").unlink()
            if what == "replaced":
                (self.directory / ".lock").touch()
            left.append({p: p.read_bytes() for p in self.directory.rglob("*") if p.is_file()})
        progress(self, iteration, total, words)

    monkeypatch.setattr(session.RunSession, "progress", went)
    settings = sets("ITERATIONS = 4", "NETWORKS = 1", "VALIDATION_POINTS = 0")
    place = ["--data-dir", data_dir, "--out", tmp_path / "out", "--tracking-uri", "none", "--checkpoint-seconds", "0"]
    done = command(*QUICK, *settings, *place)
    assert done.status == 1 and "was deleted or replaced while a run was at work there" in done.complaint
    if what == "folder":
        assert not (tmp_path / "out").exists()
    else:
        now = {p: p.read_bytes() for p in only_run(tmp_path / "out").rglob("*") if p.is_file()}
        assert [now] == left


def test_time_on_a_cpu_that_is_up_stops_a_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says so every second from then on, also while the process ends."""
    before = signal.getsignal(signal.SIGXCPU)
    stop = Stop()
    try:
        with stop.listening():
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGXCPU)
            assert stop.signal == signal.SIGXCPU
        os.kill(os.getpid(), signal.SIGXCPU)
    finally:
        signal.signal(signal.SIGXCPU, before)
    with Stop().listening():
        pass
    assert signal.getsignal(signal.SIGXCPU) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_a_signal_outside_a_run_is_heard_as_ctrl_c_is(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # whatever a shell had ignored
    try:
        with pytest.raises(KeyboardInterrupt), as_interrupts():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert signal.getsignal(number) == signal.SIG_DFL
        with as_interrupts():
            signal.signal(number, signal.SIG_IGN)  # as Stop leaves the one that comes again
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.slow
def test_a_signal_after_the_last_run_ends_the_command_in_order(tmp_path: Path) -> None:
    """While the tracker takes the rest; and while Python ends, when nothing is left to stop."""
    waiting = """
import os, signal, sys, time
from suite import run
from suite.runtime.signals import end
from suite.tracking.sender import Sender
def close(self, patience):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
Sender.close = close
end(run.main(sys.argv[1:]))
"""
    line = [
        *("--gin", "gin/quickstart.gin", "--gin", "gin/scale/smoke.gin", "--tracking-uri", "none", "--out", tmp_path),
        *sets("ARCHITECTURE = @architectures.mlp()", "FULL_DATA_EPOCHS = 0"),
    ]
    stopped = ended(start(*line, code=["-c", waiting]))
    assert stopped.status == 75 and "nothing was lost" in stopped.err
    assert list(tmp_path.rglob("result.json"))
    late = "import atexit, os, signal; from suite.runtime.signals import end; "
    late += "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM)); end(0)"
    assert ended(start(code=["-c", late])).status == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files"), ImportError("failed to map")])
def test_a_limit_of_the_machine_is_a_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise error

    assert terminal.command(main)() == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and type(error).__name__ in said


@pytest.mark.parametrize("option", ["--out", "--data-dir"])
def test_a_folder_whose_name_is_no_text_is_refused_by_its_option(option: str) -> None:
    with pytest.raises(UsageError, match=rf"{option}: runs.* is no text in UTF-8"):
        user_path(os.fsdecode(b"runs\xff"), option)


def test_metrics_of_a_deleted_run_make_no_new_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.begin("a", "b", {}, {})
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunError, match="No such file"):
        journal.points([Point("loss", 1.0, 1, 1)])
    assert not (tmp_path / "run").exists()
