"""Where the files of runs may go: not where a tracking server says, if it is a folder here or another host."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

OBJECT_STORES = {"s3", "gs", "wasbs", "abfss", "r2", "b2", "oss", "hdfs", "viewfs"}
"""Schemes of MLflow that lead to no file of this machine."""


def artifact_problem(place: str, uri: str, database: Path | None, out: Path) -> str | None:
    """What is wrong with the address `place` of a run's files, as the store at `uri` gives it; None: nothing.

    A server takes and gives files by its own protocol, from its own host, or in an object store, which asks for this
    user's own credentials. The database of an output directory keeps them in `out`; any other database was named by the
    user, and with it the place that it holds.

    >>> artifact_problem("mlflow-artifacts:/1/abc/artifacts", "http://host:5000", None, Path("runs"))
    >>> artifact_problem("file:///home/me/.ssh", "http://host:5000", None, Path("runs"))
    "the server would have them at 'file:///home/me/.ssh', which is not its own; start it with --serve-artifacts"
    """
    try:
        parts, own = urlsplit(place), urlsplit(uri)
    except ValueError:
        return f"{place!r} is no address"
    if own.scheme in ("http", "https"):
        by_its_protocol = parts.scheme == "mlflow-artifacts" and parts.netloc in ("", own.netloc)
        if (
            by_its_protocol
            or parts.scheme in OBJECT_STORES
            or (parts.scheme in ("http", "https") and parts.netloc == own.netloc)
        ):
            return None
        return f"the server would have them at {place!r}, which is not its own; start it with --serve-artifacts"
    if uri.startswith("databricks"):
        return None if parts.scheme == "dbfs" else f"{place!r} is no place of Databricks"
    if database is None or database.parent.resolve() != out.resolve():
        return None
    folder = Path(unquote(parts.path)) if parts.scheme in ("", "file") and not parts.netloc else None
    if folder is not None and folder.resolve().is_relative_to(out.resolve()):
        return None
    return f"the database would have them at {place!r}, which is not below {out}; move it away, and a new one is made"
