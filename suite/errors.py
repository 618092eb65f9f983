"""Expected failures, each one sentence that says what, where and what to do; and lines for the terminal."""

import re
import sys


class SuiteError(Exception):
    """An expected failure; `status` is the exit status of the command that meets it."""

    status = 1


class UsageError(SuiteError):
    """The command or the configuration asks for something that can't be done (status 2)."""

    status = 2


class RunError(SuiteError):
    """A well-formed run failed (status 1): data, disk, network or numbers."""


class Interrupted(SuiteError):
    """A signal stopped the run at a checkpoint; the same command resumes it (status 75: try again)."""

    status = 75


class Left(SuiteError):
    """Another process of the same command has ended, and has said why; `status` is its exit status."""

    def __init__(self, rank: int, status: int) -> None:
        """`rank`: of that process."""
        super().__init__(f"rank {rank} ended with status {status}; what it said is above")
        self.status = status


# ---------------------------------------------------------------- lines


def first_line(message: object) -> str:
    """The first line of an error's message, to be quoted in a sentence."""
    return str(message).strip().split("\n")[0]


def one_line(message: object) -> str:
    """The whole message on one line; that of an exception with its type before it."""
    words = " ".join(str(message).split())
    return f"{type(message).__name__}: {words}" if isinstance(message, BaseException) else words


def harmless(text: str) -> str:
    """The text with every letter that a terminal would obey written as an escape, such as \\x1b; line ends stay."""
    return OBEYED.sub(lambda letter: letter[0].encode("unicode_escape").decode(), text)


OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters but tab and line feed, other ends of lines, those that turn the direction of
writing, and halves of letters, of which a folder's name that is no text is made."""


def printable(text: str) -> str:
    """Likewise on one line: ends of lines and tabs are escapes, too.

    >>> printable("a" + chr(27) + "[31m") == "a" + chr(92) + "x1b[31m"
    True
    """
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")


def report(line: str) -> None:
    """Print one line to stderr in a single write, so that lines of several processes do not mix.

    It may quote what somebody else wrote: names of folders, texts of files, messages of plugins and servers.
    """
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()
