"""Addresses of MLflow stores: the default one, and what is wrong with a given one."""

import importlib.util
from pathlib import Path

from suite.errors import UsageError

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def default_uri(out: Path) -> str:
    """A database beside the runs."""
    file = str((out / "mlflow.db").resolve())
    if set(file) & set("%?#"):
        raise UsageError(f"{file} can't be named as a database ('%', '?' or '#' in it); choose another --out")
    return f"sqlite:///{file}"


def whole_uri(uri: str) -> str:
    """A store's URI that means the same in every working directory."""
    relative = uri.startswith("sqlite:///") and not uri.startswith("sqlite:////") and not uri.endswith(":memory:")
    return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}" if relative else uri


def check_uri(uri: str) -> None:
    """Raise UsageError, without asking anybody, for what can't be a store, or if MLflow is not there."""
    scheme, found, _ = uri.partition(":")
    if not found or scheme.split("+")[0] not in SCHEMES:
        raise UsageError(
            f"--tracking-uri: '{uri}' is no tracking store; write http://HOST:PORT, sqlite:////PATH/mlflow.db, or none"
        )
    if importlib.util.find_spec("mlflow") is None:
        raise UsageError("MLflow is not installed; install it, or run with --tracking-uri none")
