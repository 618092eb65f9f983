"""Published source files of data sets: downloaded once, verified whenever they are read.

Prepared images are stored apart from them, as `suite.storage.sealed` says. Nothing downloaded is ever executed.
"""

import contextlib
import hashlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from suite.errors import RunError, one_line
from suite.storage.files import sync_file, user_path
from suite.storage.plain_files import read_plain

DOWNLOAD_TIMEOUT = 60.0
"""Seconds without a byte after which a download is given up."""


def default_data_dir() -> Path:
    """The directory of the data sets: $SUITE_DATA_DIR, or ~/.cache/addressable-memory-suite where it is not set."""
    return user_path(os.environ.get("SUITE_DATA_DIR") or "~/.cache/addressable-memory-suite", "SUITE_DATA_DIR")


# ---------------------------------------------------------------- source files


OFFLINE = "downloading was not asked for"
"""Why a file is missing, where `download` is False."""


def missing(name: str, root: Path, looked_for: str, why: str) -> RunError:
    """The error for source files that are not there: names the data set, the directory and the command that helps."""
    return RunError(
        f"{name}: {looked_for} is not in {root} and {why}; put it there, or run "
        f"`python -m suite.datasets.prepare {name} --data-dir {root}` where there is a network"
    )


def altered(file: Path, expected: str, found: str) -> RunError:
    """The error for a source file whose bytes are not the published ones."""
    return RunError(
        f"{file} is not the published file (expected {expected}, found {found}); delete it and fetch it again"
    )


def download(name: str, root: Path, urls: list[str], md5: str, file: Path) -> None:
    """Fetch one published file to below `root` through torchvision: verified under another name, then renamed.

    Tries the addresses in turn. Raises RunError with what went wrong at each of them.
    """
    import torchvision.datasets.utils  # slow to import, and only a first run downloads

    part = file.with_name(file.name + ".part")
    failures = []
    for url in urls:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            with _timeout(DOWNLOAD_TIMEOUT):
                torchvision.datasets.utils.download_url(url, file.parent, part.name, md5)
            sync_file(part)
            part.replace(file)
            return
        except (OSError, RuntimeError, http.client.HTTPException) as error:  # a wrong MD5 is a RuntimeError there
            failures.append(f"{url}: {one_line(error)}")
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    raise missing(name, root, str(file.relative_to(root)), f"could not be downloaded ({'; '.join(failures)})")


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its connections without a time limit; lend them this one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


MOST_BYTES = 256 * 2**20
"""Of a source file, packed or not. The largest that was published, tiny-imagenet-200.zip, has 237 MiB."""


def is_there(file: Path) -> bool:
    """Whether something has the name of a source file, so that what is no file is told and not taken for missing."""
    return os.path.lexists(file)


def read_bytes(file: Path, most: int | None = None) -> bytes:
    """The whole of a source file, so that what is hashed is what is parsed; at most `most` bytes (`MOST_BYTES`).

    Raises RunError where it is larger, no plain file or can't be read.
    """
    try:
        return read_plain(file, MOST_BYTES if most is None else most, follow=True)
    except OSError as error:
        raise RunError(f"{file} can't be read ({one_line(error)}); mend it or fetch it again") from error


def read_verified(file: Path, md5: str) -> bytes:
    """The whole of a published file; RunError where its MD5 is another."""
    content = read_bytes(file)
    verify(file, content, md5)
    return content


def verify(file: Path, content: bytes, md5: str) -> None:
    """Raise RunError for content whose MD5, by which these data sets were published, is another."""
    content_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if content_md5 != md5:
        raise altered(file, f"MD5 {md5}", content_md5)
