"""A running core for those tests that need no special one."""

from collections.abc import AsyncIterator

import pytest

from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.twin import Client


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    """A core with the puppet as its agent."""
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def client(daemon: Daemon) -> Client:
    """A client that has advertised moorage."""
    return await daemon.connect()
