"""Files that may come from somebody else: what is no plain file, too large or of another shape is one sentence."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from suite.errors import RunError
from suite.storage.journal import NAME, Journal, Point
from suite.storage.plain_files import MOST_BYTES_OF_STEPS, open_plain, parse_json, read_json, read_plain


@dataclass(frozen=True)
class Shape:
    """What the tests' files hold."""

    number: int
    rest: dict[str, Any]


GOOD = b'{"number": 1, "rest": {"deep": [[1.5]]}, "of a later version": 2}'


def test_a_file_of_the_shape_is_read(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_bytes(GOOD)
    assert read_json(file, Shape) == Shape(1, {"deep": [[1.5]]})


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "text for a number": (b'{"number": "1", "rest": {}}', "'number' is wrong: .*integer, not '1'"),
        "true for a number": (b'{"number": true, "rest": {}}', "'number' is wrong.* not True"),
        "a missing key": (b'{"number": 1}', "'rest' is missing"),
        "a list": (b"[]", "should be an object"),
        "not a number, deep": (b'{"number": 1, "rest": {"deep": [NaN]}}', "no JSON"),
        "infinity": (b'{"number": 1, "rest": {"deep": [-Infinity]}}', "no JSON"),
        "a number beyond all": (b'{"number": 1, "rest": {"deep": [1e999]}}', "no JSON"),
        "nested without end": (b"[" * 100_000, "recursion limit"),
        "nested deep where anything may be": (GOOD.replace(b"1.5", b"[" * 300 + b"]" * 300), "recursion limit"),
        "not UTF-8": (b'{"number": 1, "rest": {"\xff": 1}}', "no JSON"),
        "half a letter": (b'{"number": 1, "rest": {"\\ud800": 1}}', "no JSON"),
        "nothing": (b"", "no JSON"),
        "cut off": (GOOD[:-9], "no JSON"),
        "a number of 5,000 digits": (b'{"number": ' + b"9" * 5000 + b"}", "no JSON"),
        "letters that a terminal obeys": (b'{"number": "\\u001b[31m", "rest": {}}', r"not '\\x1b\[31m'$"),
        "a long text": (b'{"number": "' + b"x" * 9999 + b'", "rest": {}}', "not 'x{38}…$"),
    }.values(),
)
def test_json_of_another_shape_is_one_sentence_that_names_the_field(text: bytes, words: str) -> None:
    with pytest.raises(RunError, match=f"^one.json is damaged: .*{words}") as caught:
        parse_json(text, Shape, "one.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        one.bind(path.name)
        os.chdir(before)


@pytest.mark.parametrize(
    ("make", "words"),
    {
        "a pipe": (pipe, "is a pipe"),
        "a folder": (Path.mkdir, "is a folder"),
        "a socket": (listening, "can't read|a socket"),
        "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a link, which is not followed here"),
        "a link to nothing": (lambda path: path.symlink_to("nothing"), "is a link"),
        "a link to itself": (lambda path: path.symlink_to(path), "is a link"),
    }.values(),
)
def test_what_is_no_plain_file_is_refused_without_waiting(make: Any, words: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    with pytest.raises(RunError, match=words):
        open_plain(tmp_path / "it")


def test_a_link_that_a_user_typed_is_followed_to_plain_files_alone(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"content")
    (tmp_path / "link").symlink_to("it")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert read_plain(tmp_path / "link", 100, follow=True) == b"content"
    with pytest.raises(RunError, match="is a device, not a plain file"):
        read_plain(tmp_path / "zero", 100, follow=True)


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    file = tmp_path / "it"
    file.write_bytes(b"1234")
    assert read_plain(file, 4) == b"1234"
    with pytest.raises(RunError, match="more than 3 bytes"):
        read_plain(file, 3)


def test_a_run_of_a_million_steps_has_a_journal_that_is_read(tmp_path: Path) -> None:
    """What has more is refused: that must be no run of anybody's."""
    journal, names = Journal(tmp_path), ("loss", "gradient_norm", "memory_norm", "validation_accuracy")
    journal.begin("some", "one", {}, {})
    begun = (tmp_path / NAME).stat().st_size
    for step in range(100):
        points = [Point(name, 0.1234567890123456, 1_764_280_000_000, 900_000 + step) for name in names]
        journal.points(points, (900_000 + step, 1_000_000))
    each = ((tmp_path / NAME).stat().st_size - begun) / 100
    assert each > 100 and 1_000_000 * each < MOST_BYTES_OF_STEPS


def test_a_missing_file_is_the_callers_to_tell(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", Shape)
