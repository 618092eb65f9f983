"""Two hundred mutations of every format: each is read, or refused in one sentence (`tools/fuzz.py`)."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from command_line import as_people_run_it

from suite.errors import RunError
from tools import fuzz


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    with as_people_run_it():
        fuzz.examples(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", fuzz.FORMATS, ids=lambda form: form.name)
def test_no_mutation_ends_in_a_traceback_a_hang_or_growth(form: fuzz.Format, whole: Path) -> None:
    with as_people_run_it():
        tried = fuzz.trial(form, whole, range(200))
    assert tried.findings == ()
    assert (
        tried.refused > 20 or form.name == "site"
    )  # mutations do damage; of a site's list wrong lines are passed over
    assert tried.read > 0  # and not only damage that is seen at once


# ---------------------------------------------------------------- the tool itself


def untouched(folder: Path) -> Path:
    (folder / "it").write_bytes(b"example")
    return folder / "it"


def once_mutated(do: Callable[[], object]) -> Callable[[Path], object]:
    """A reader that reads the example, and does this for mutations."""
    return lambda file: None if file.read_bytes() == b"example" else do()


def many_lines() -> None:
    raise RunError("one\ntwo")


def endless() -> None:
    while True:
        pass


HELD: list[bytes | bytearray] = []


def test_memory_that_the_process_had_freed_hides_no_growth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker that had freed 256 MiB met the same reading with memory at hand: its peak did not move."""
    monkeypatch.setattr(fuzz, "MEBIBYTES", 20)
    (tmp_path / "examples").mkdir()
    freed = [bytes([i % 256]) * 100_000 for i in range(500)]  # too small for pages of their own
    on_top = bytes(100_000)
    del freed
    take = once_mutated(lambda: [bytes([1]) * 100_000 for _ in range(500)])
    tried = fuzz.trial(
        fuzz.Format("it", untouched, lambda data, random: b"mutated", take), tmp_path / "examples", range(1)
    )
    assert "memory grew by" in tried.findings[0].what and on_top


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda: {}["key"], "KeyError: 'key' (test_fuzz.py, line"),
        (lambda: exit(3), "SystemExit: 3"),
        (many_lines, "more than one line"),
        (endless, "seconds"),
        (lambda: HELD.append(bytearray(2**28)), "memory grew by 2"),
    ],
)
def test_what_ends_wrongly_is_found_and_kept(
    do: Callable[[], object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 0.5)
    monkeypatch.setattr(fuzz, "MEBIBYTES", 100)
    (tmp_path / "examples").mkdir()
    form = fuzz.Format("it", untouched, lambda data, random: b"mutated", once_mutated(do))
    tried = fuzz.trial(form, tmp_path / "examples", range(5, 6), keep=tmp_path / "kept")
    HELD.clear()
    (found,) = tried.findings
    assert found.number == 5 and words in found.what
    assert (tmp_path / "kept" / "it-5").read_bytes() == b"mutated"


def test_a_refusal_in_one_sentence_is_right(tmp_path: Path) -> None:
    def refuse() -> None:
        raise RunError("the file is damaged; fetch it again")

    form = fuzz.Format("it", untouched, lambda data, random: b"mutated", once_mutated(refuse))
    tried = fuzz.trial(form, tmp_path, range(3))
    assert (tried.refused, tried.read, tried.findings) == (3, 0, ())


def test_a_mutation_is_always_the_same() -> None:
    one, again, other = (fuzz.changed_bytes(bytes(99), Random(seed)) for seed in ("gin 1", "gin 1", "gin 2"))
    assert one == again != other


def test_changed_json_is_json_and_leaves_what_it_was_given() -> None:
    given = {"a": [1, {"b": None}], "c": "text"}
    odd = json.dumps(fuzz.ODD)
    changed = [fuzz.changed_json(given, Random(i)) for i in range(200)]
    assert given == {"a": [1, {"b": None}], "c": "text"}
    assert all(json.loads(json.dumps(one)) == one for one in changed)
    assert json.dumps(fuzz.ODD) == odd  # a value that was put in is changed in its copy
    assert sum(one != given for one in changed) > 150
