"""Addresses of MLflow stores: the default, and what is wrong with a given one."""

import importlib.util
from pathlib import Path

from suite.errors import UsageError

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
"""Schemes that MLflow takes, without the driver after '+'."""


def default_uri(out: Path) -> str:
    """A database beside the runs. Raises UsageError for a path that can't stand in an address."""
    file = str((out / "mlflow.db").resolve())
    if set(file) & set("%?#"):
        raise UsageError(f"{file} can't be named as a database ('%', '?' or '#' in it); choose another --out")
    return f"sqlite:///{file}"


def whole_uri(uri: str) -> str:
    """The address of the same store from every working directory."""
    relative = uri.startswith("sqlite:///") and not uri.startswith("sqlite:////") and not uri.endswith(":memory:")
    return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}" if relative else uri


def check_uri(uri: str) -> None:
    """Raise UsageError for what can't be a store, or if MLflow is not installed; no store is contacted."""
    scheme, colon, _ = uri.partition(":")
    if not colon or scheme.split("+")[0] not in SCHEMES:
        raise UsageError(
            f"--tracking-uri: '{uri}' is no tracking store; write http://HOST:PORT, sqlite:////PATH/mlflow.db, or none"
        )
    if importlib.util.find_spec("mlflow") is None:
        raise UsageError("MLflow is not installed; install it, or run with --tracking-uri none")
