"""Where the files of runs may go: not where a tracking server says, if it is a folder here or another host."""

from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

OBJECT_STORES = {"s3", "gs", "wasbs", "abfss", "r2", "b2", "oss", "hdfs", "viewfs"}
"""Schemes of MLflow that lead to no file of this machine."""

OF_DATABRICKS = OBJECT_STORES | {"dbfs", "uc"}
"""Schemes of what Databricks keeps, by itself or in the object store of its cloud."""

PORTS = {"http": 80, "https": 443}
"""Of addresses that name none."""


def artifact_problem(place: str, uri: str, database: Path | None, out: Path) -> str | None:
    """What is wrong with the address `place` of a run's files, as the store at `uri` gives it; None: nothing.

    A server takes and gives files by its own protocol, from its own host, or in an object store, which asks for this
    user's own credentials. The database of an output directory keeps them in `out`; any other database was named by the
    user, and with it the place that it holds.

    >>> artifact_problem("mlflow-artifacts:/1/abc/artifacts", "http://host:5000", None, Path("runs"))
    >>> artifact_problem("file:///home/me/.ssh", "http://host:5000", None, Path("runs"))
    "the server would have them at 'file:///home/me/.ssh', which is not its own; start it with --serve-artifacts and \
take a new experiment (another run.name), since one keeps the place that it was made with"
    """
    try:
        parts, own = urlsplit(place), urlsplit(uri)
        same_server = parts.scheme in ("mlflow-artifacts", *PORTS) and _server(parts, own) == _server(own, own)
    except ValueError:
        return f"{place!r} is no address"
    if own.scheme in PORTS:
        by_its_protocol = parts.scheme == "mlflow-artifacts" and not parts.netloc
        if by_its_protocol or same_server or parts.scheme in OBJECT_STORES:
            return None
        return (
            f"the server would have them at {place!r}, which is not its own; start it with --serve-artifacts and take "
            "a new experiment (another run.name), since one keeps the place that it was made with"
        )
    if uri.startswith("databricks"):
        return None if parts.scheme in OF_DATABRICKS else f"{place!r} is no place of Databricks"
    if database is None or database.parent.resolve() != out.resolve():
        return None
    folder = Path(unquote(parts.path)) if parts.scheme in ("", "file") and not parts.netloc else None
    if folder is not None and folder.resolve().is_relative_to(out.resolve()):
        return None
    return (
        f"the database would have them at {place!r}, which is not below {out}; move {database} away, and a new one is "
        "made"
    )


def _server(address: SplitResult, own: SplitResult) -> tuple[str, str | None, int | None]:
    """Whose address it is: user, host and port. What names no scheme of the web has that of the tracking server."""
    scheme = address.scheme if address.scheme in PORTS else own.scheme
    return address.netloc.rpartition("@")[0], address.hostname, address.port or PORTS.get(scheme)
