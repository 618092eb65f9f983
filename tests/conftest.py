"""What every test gets: one thread (two busy processes of two threads run many times slower), and a clean gin."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gin
import pytest

from suite import registry
from suite.registry import REGISTRIES, Entry, load_components


@cache
def _load() -> None:
    import torch

    torch.set_num_threads(1)
    load_components()


def pytest_collectstart() -> None:
    """Load torch and all components in the processes that run tests; the one that hands tests out needs neither."""
    _load()


@pytest.fixture(autouse=True)
def _clean_gin() -> Iterator[None]:
    gin.clear_config(clear_constants=True)
    yield
    gin.clear_config(clear_constants=True)


SEEN: dict[str, dict[str, Entry]] = {kind: {} for kind in REGISTRIES}
"""By kind, all that any test registered: a file is loaded once in a process, and gin accepts a name once."""


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test or its plugin registers is gone after it."""
    for one in REGISTRIES.values():
        monkeypatch.setattr(one, "_entries", dict(one._entries))
    monkeypatch.setattr(registry, "_named_modules", set())
    monkeypatch.setattr(registry, "_named_files", {})
    yield
    for kind, one in REGISTRIES.items():
        SEEN[kind] |= one._entries


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data directory for all tests, so that a data set is prepared once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address can be opened."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("there is no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
