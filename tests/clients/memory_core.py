"""The client library in front of the daemon's core, all in memory: the test cuts and restarts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from moorage_clients.client import CLOSE_PATIENCE, Client
from moorage_clients.connection import OnPermission
from moorage_clients.conversation import Conversation
from moorage_clients.errors import CannotConnect, ConnectionLost
from moorage_clients.links import Link
from moorage_clients.nursery import open_quiet_nursery
from tests.daemon.harness import Daemon
from tests.daemon.twin import Wire


class MemoryLink:
    """The client's end of a connection to the core."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._frames: list[bytes] = []

    async def receive(self) -> bytes:
        while not self._frames:
            try:
                self._frames = list(await self._wire.incoming.receive())
            except (trio.EndOfChannel, trio.ClosedResourceError):
                raise ConnectionLost("the connection broke") from None
        return self._frames.pop(0)

    async def send(self, frames: list[bytes]) -> None:
        try:
            await self._wire.outgoing.send(frames)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionLost("the connection broke") from None


class OldLink(MemoryLink):
    """The client's end of one to a core of an earlier version."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self._is_new = True

    async def receive(self) -> bytes:
        frame = await super().receive()
        assert not self._is_new or b'"secrets":true' in frame, "there is something to leave out"
        self._is_new = False
        return frame.replace(b'"secrets":true', b'"secrets":false')


@dataclass(eq=False)
class Core:
    """Where the client finds its daemon; None: there is none just now.

    `tries` are the times at which it was looked for. `told` is what `on_connection` was.
    """

    daemon: Daemon | None
    tries: list[float] = field(default_factory=list[float])
    told: list[str] = field(default_factory=list[str])
    is_deaf: bool = False  # takes connections and says nothing
    is_old: bool = False  # does not say that it knows secrets
    _wire: Wire | None = None

    @asynccontextmanager
    async def dial(self, address: str, token: str | None) -> AsyncGenerator[Link]:
        self.tries.append(trio.current_time())
        if self.daemon is None:
            raise CannotConnect(address, "no daemon is there")
        self._wire = self.daemon.wire()
        if self.is_deaf:
            await trio.sleep_forever()
        try:
            yield OldLink(self._wire) if self.is_old else MemoryLink(self._wire)
        finally:
            self._wire.close()

    def cut(self) -> None:
        """The connection ends; what was on its way is lost."""
        assert self._wire is not None
        self._wire.close()

    def tell(self, loss: ConnectionLost | None) -> None:
        self.told.append("back" if loss is None else "lost")


@asynccontextmanager
async def open_memory_client(
    core: Core, *, returns: bool = True, on_permission: OnPermission | None = None
) -> AsyncGenerator[Client]:
    """A client that has shaken hands with the core's daemon."""
    async with open_quiet_nursery() as nursery:
        conversation = Conversation(
            lambda: "memory:", nursery, None, "test", None, on_permission, core.tell, returns,
            core.dial,
        )  # fmt: skip
        client = Client(conversation)
        try:
            await client.reconnect()
            yield client
        finally:
            with trio.move_on_after(CLOSE_PATIENCE, shield=True):
                await client.aclose()
            nursery.cancel_scope.cancel()
