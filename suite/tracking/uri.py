"""Addresses of MLflow stores: the default, what is wrong with a given one, and how one is said without its password.

An address that is printed, stored or given to another process is a plain one. A password stays in memory, and in the
environment of the process that sends, under the names that MLflow itself reads.
"""

import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from suite.errors import UsageError

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
"""Schemes that MLflow takes, without the driver after '+'."""

WHOLE, USER, PASSWORD = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Environment variables of MLflow's: an address, and whom a server of it is to let in."""

SECRET_SETTINGS = re.compile(r"[?&][^=&]*(?:pass|pwd|secret|token|key|odbc_connect)[^=&]*=[^&]*", re.IGNORECASE)
"""Settings behind an address's '?' that hold a password, as in '?password=…'."""


MADE = "mlflow.db"
"""The database that is made beside runs."""


def default_uri(out: Path) -> str:
    """A database beside the runs. Raises UsageError for a path that can't stand in an address."""
    file = str((out / MADE).resolve())
    if set(file) & set("%?#"):
        raise UsageError(f"{file} can't be named as a database ('%', '?' or '#' in it); choose another --out")
    return f"sqlite:///{file}"


def whole_uri(uri: str) -> str:
    """The address of the same store from every working directory."""
    relative = uri.startswith("sqlite:///") and not uri.startswith("sqlite:////") and not uri.endswith(":memory:")
    return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}" if relative else uri


def check_uri(uri: str) -> None:
    """Raise UsageError for what can't be a store, or if MLflow is not installed; no store is contacted."""
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.split("+")[0] not in SCHEMES:
        raise UsageError(
            f"--tracking-uri: '{plain_uri(uri)}' is no tracking store; write http://HOST:PORT, "
            "sqlite:////PATH/mlflow.db, or none"
        )
    if scheme != "sqlite" and ("@" in rest.removeprefix("//").partition("/")[2] or not _port_is_a_number(uri)):
        raise UsageError(  # nothing of it is repeated: it can't be told what of it is a password
            "--tracking-uri: this address can't be read; in a name or a password write @ as %40, / as %2F, : as %3A, "
            "? as %3F and # as %23"
        )
    if importlib.util.find_spec("mlflow") is None:
        raise UsageError("MLflow is not installed; install it, or run with --tracking-uri none")


def _port_is_a_number(uri: str) -> bool:
    try:
        urlsplit(uri).port  # noqa: B018  # reading it is the check
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- passwords


def plain_uri(uri: str) -> str:
    """The address as it may be read by anybody: without a password, and of a server without a name, too.

    >>> plain_uri("https://alice:s3cret@host:5000/x"), plain_uri("postgresql://alice:s3cret@host/runs")
    ('https://host:5000/x', 'postgresql://alice@host/runs')
    """
    if uri.startswith("sqlite:"):
        return uri
    scheme, slashes, rest = uri.partition("//")
    name, at, host = rest.rpartition("@")
    if at:
        user = "" if scheme.startswith("http") else name.partition(":")[0]  # a token may stand in a name's place
        rest = f"{user}@{host}" if user else host
    where, mark, _ = rest.partition("?")
    settings = SECRET_SETTINGS.sub("", mark + rest.partition("?")[2]) if mark else ""
    return f"{scheme}{slashes}{where}{'?' + settings[1:] if settings else ''}"


def with_password(plain: str) -> str:
    """The address with the password of $MLFLOW_TRACKING_URI, if that is the same address."""
    whole = os.environ.get(WHOLE, "")
    return whole if plain_uri(whole) == plain else plain


def credentials(uri: str) -> dict[str, str]:
    """The environment that gives a process the password of an address whose plain form it is told."""
    if plain_uri(uri) == uri:
        return {}
    user, colon, password = urlsplit(uri).netloc.rpartition("@")[0].partition(":")
    if not uri.startswith("http") or not colon:
        return {WHOLE: uri}
    return {USER: unquote(user), PASSWORD: unquote(password)}


def hidden(text: str, uri: str) -> str:
    """A message of somebody else's about a store, without the password that is in the store's address."""
    text = text.replace(uri, plain_uri(uri))
    user, _, password = urlsplit(uri).netloc.rpartition("@")[0].partition(":")
    secrets = [password or user]
    secrets += [setting.partition("=")[2] for setting in SECRET_SETTINGS.findall(uri)]
    for form in {*secrets, *map(unquote, secrets)} - {""}:
        text = text.replace(form, "…")
    return text
