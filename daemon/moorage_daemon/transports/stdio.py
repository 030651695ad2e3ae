"""Standard input and output as one client: a daemon that an editor starts for itself alone.

Nothing but the protocol is ever on standard output: its descriptor is taken over, and whatever
else would write there goes to standard error.
"""

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from moorage_daemon.connection.transport import TransportClosed
from moorage_protocol.framing import Framed, StreamFramer


READ_BYTES = 64 * 2**10


class StdioTransport:
    """Frames on a pair of descriptors.

    `over` is set at the end of the input. The other end still reads then, and is owed the end of
    its turns: the conversation goes on until whoever serves it ends it.
    """

    name = "stdio"

    def __init__(self, source: trio.lowlevel.FdStream, sink: trio.lowlevel.FdStream) -> None:
        self.over = trio.Event()
        self._source, self._sink = source, sink
        self._framer = StreamFramer()

    async def receive(self) -> Sequence[Framed]:
        """The next frames; waits for ever behind the end of the input."""
        while True:
            frames = self._framer.receive(await self._read())
            if frames:
                return frames

    async def _read(self) -> bytes:
        try:
            data = await self._source.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.over.set()
            await trio.sleep_forever()
        return bytes(data)

    async def send(self, messages: Sequence[bytes]) -> None:
        """Write messages in the client's own framing."""
        try:
            await self._sink.send_all(self._framer.join(messages))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise TransportClosed from error

    def on_due(self, wake: Callable[[], None]) -> None:
        """This transport never has anything of its own to send."""

    async def aclose(self) -> None:
        """Close both ends."""
        await self._source.aclose()
        await self._sink.aclose()


@asynccontextmanager
async def open_stdio() -> AsyncGenerator[StdioTransport]:
    """Take standard input and output over for the protocol."""
    source, sink = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    async with trio.lowlevel.FdStream(source) as incoming, trio.lowlevel.FdStream(sink) as outgoing:
        yield StdioTransport(incoming, outgoing)
