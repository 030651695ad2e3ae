"""The stores that every promise is checked on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage_daemon.store.disk import Disk
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.port import Store
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store.backends import BACKENDS, DURABLE, Backend
from tests.daemon.store.faulty import FaultyStore


@pytest.fixture(params=["memory", "file", "sqlite", "wrapped"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each kind; "wrapped" is the tests' own, while it is told nothing."""
    if request.param == "sqlite":
        async with open_sqlite(tmp_path / "sessions.db") as sqlite:
            yield sqlite
    elif request.param == "file":
        (tmp_path / "store").mkdir()
        async with open_files(Disk(tmp_path / "store")) as files:
            yield files
    elif request.param == "wrapped":
        yield FaultyStore(MemoryStore())
    else:
        yield MemoryStore()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each backend as a daemon opens it."""
    return Backend(request.param, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each backend that outlives a daemon."""
    return Backend(request.param, tmp_path)
