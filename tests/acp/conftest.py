"""Clients as the Agent Client Protocol knows them: they say nothing of moorage."""

from collections.abc import AsyncIterator

import pytest

from moorage_daemon.agents.scripted import ScriptedAgent
from tests.acp.raw import RawClient
from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.twin import Client


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    """A core with the puppet as its agent, and the scripted one for who asks for it."""
    async with open_daemon(agents=(ScriptedAgent(),)) as running:
        yield running


@pytest.fixture
async def scripted() -> AsyncIterator[Daemon]:
    """A core with the scripted agent, which uses real files and processes."""
    async with open_daemon(agents=(ScriptedAgent(),), default_agent="scripted") as running:
        yield running


@pytest.fixture
async def client(daemon: Daemon) -> Client:
    """A plain client that has initialized."""
    return await daemon.connect(plain=True)


@pytest.fixture
async def raw(daemon: Daemon) -> RawClient:
    """A client that sends any bytes, and has initialized."""
    raw = RawClient(daemon.wire())
    daemon.clients.start_soon(raw.run)
    await raw.initialize()
    return raw
