"""A running core for those tests that need no special one."""

from collections.abc import AsyncIterator

import pytest

from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.twin import Client


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a module's choice of runner beat the one that trio mode puts nearer to each test."""
    for item in items:
        if any(mark.kwargs.get("run") is simulated for mark in item.iter_markers("trio")):
            item.add_marker(pytest.mark.trio(run=simulated), append=False)


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    """A core with the puppet as its agent."""
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def client(daemon: Daemon) -> Client:
    """A client that has advertised moorage."""
    return await daemon.connect()
