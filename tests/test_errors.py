"""Lines for the terminal: quoted messages, and lines that stay whole."""

import os
import subprocess
import sys

import pytest

from suite.errors import Interrupted, RunError, UsageError, first_line, one_line


def test_every_failure_has_its_exit_status() -> None:
    assert [kind.status for kind in (RunError, UsageError, Interrupted)] == [1, 2, 75]


@pytest.mark.parametrize(
    ("message", "first", "whole"),
    [
        (ValueError("a\n  b"), "a", "ValueError: a b"),
        ("\n a\tb \n", "a\tb", "a b"),
        (OSError(), "", "OSError: "),
    ],
)
def test_a_message_of_several_lines_is_quoted_on_one(message: object, first: str, whole: str) -> None:
    assert (first_line(message), one_line(message)) == (first, whole)


REPORTS = "import sys; from suite.errors import report; [report(sys.argv[1] * 40) for _ in range(2000)]"


def test_lines_of_several_processes_do_not_mix() -> None:
    """Without buffers, as in many containers, print() writes the end of a line apart from the line."""
    receiver, sender = os.pipe()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    processes = [subprocess.Popen([sys.executable, "-c", REPORTS, c], stderr=sender, env=environment) for c in "ab"]
    os.close(sender)
    with os.fdopen(receiver) as output:
        lines = output.read().splitlines()
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(lines) == ["a" * 40] * 2000 + ["b" * 40] * 2000
