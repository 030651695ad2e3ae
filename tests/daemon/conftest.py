"""A running core for those tests that need no special one."""

from collections.abc import AsyncIterator

import pytest
import trio.testing

from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.twin import Client


@pytest.fixture
async def daemon(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Daemon]:
    """A core with the puppet as its agent, on a clock that jumps when nothing happens."""
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def client(daemon: Daemon) -> Client:
    """A client that has advertised moorage."""
    return await daemon.connect()
