"""A WebSocket listener without a daemon behind it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from moorage_daemon.identity import LOCAL, Principal
from moorage_daemon.settings import WebsocketAddress
from moorage_daemon.transports.gate import Gate, token_check
from moorage_daemon.transports.room import Room
from moorage_daemon.transports.websocket import WebSocketTransport, open_websocket
from moorage_protocol.moorage import Role
from tests.daemon.harness import Daemon
from tests.daemon.transports.raw import RawClient, dial, handshake


TOKEN = "t0-secret_" * 5
PAGE = "https://good.example"
OWNER = Principal(LOCAL, Role.OPERATOR)
BEARER = ("Authorization", f"Bearer {TOKEN}")

Serve = Callable[[WebSocketTransport, Principal], Awaitable[None]]


def gate_for(port: int) -> Gate:
    """The gate of the tests' listeners."""
    return Gate(port, token_check(TOKEN, OWNER), allowed_origins=(PAGE,))


@dataclass(eq=False)
class Listener:
    """Where a listener listens, and what it was asked to serve."""

    port: int = 0
    served: list[Principal] = field(default_factory=list[Principal])

    @asynccontextmanager
    async def connect(self, *lines: tuple[str, str]) -> AsyncGenerator[RawClient]:
        """A client that is through the gate."""
        async with dial(self.port) as client:
            await client.send(handshake(self.port, [BEARER, *lines]))
            assert (await client.answer()).status == 101
            yield client


@pytest.fixture
def sockets_clock() -> trio.testing.MockClock:
    """A clock that jumps when nothing happens, on this machine's sockets neither: those need a
    moment of real time to tell."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def listen_for(daemon: Daemon) -> AsyncGenerator[Listener]:
    """Let WebSocket clients in to a running core."""
    address = WebsocketAddress("127.0.0.1", 0)
    async with open_websocket(address, gate_for, daemon.app.serve, Room(1000)) as port:
        yield Listener(port)


Open = Callable[[Serve], AbstractAsyncContextManager[Listener]]


@pytest.fixture
def open_listener() -> Open:
    """Listen, and serve whoever is let in."""

    @asynccontextmanager
    async def listening(serve: Serve) -> AsyncGenerator[Listener]:
        listener = Listener()

        async def note_and_serve(transport: WebSocketTransport, principal: Principal) -> None:
            listener.served.append(principal)
            await serve(transport, principal)

        address = WebsocketAddress("127.0.0.1", 0)
        async with open_websocket(address, gate_for, note_and_serve, Room(1000)) as port:
            listener.port = port
            yield listener

    return listening
