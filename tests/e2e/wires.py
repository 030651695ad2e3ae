"""The tests' client on a real socket instead of one in memory."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from moorage_protocol.framing import Framed, LineFramer, join_lines
from moorage_protocol.rendezvous import open_address
from tests.daemon.twin import IN_FLIGHT, UNREAD, Client, Json, Wire


@asynccontextmanager
async def connect(
    path: Path, *, hello: Json | None = None, plain: bool = False
) -> AsyncGenerator[Client]:
    """A client that has said who it is; on leaving it goes without a word."""
    with open_address(path) as address:
        stream = await trio.open_unix_socket(address)
    to_daemon, from_client = trio.open_memory_channel[Sequence[Framed]](UNREAD)
    to_client, from_daemon = trio.open_memory_channel[list[bytes]](IN_FLIGHT)
    client = Client(Wire(to_daemon, from_daemon))
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(_write, stream, from_client)
        nursery.start_soon(_read, stream, to_client)
        nursery.start_soon(client.run)
        await client.initialize(None if plain else hello or {})
        yield client
        nursery.cancel_scope.cancel()


async def _write(
    stream: trio.SocketStream, frames: trio.MemoryReceiveChannel[Sequence[Framed]]
) -> None:
    async for sent in frames:
        await stream.send_all(join_lines([frame for frame in sent if isinstance(frame, bytes)]))


async def _read(stream: trio.SocketStream, frames: trio.MemorySendChannel[list[bytes]]) -> None:
    framer = LineFramer()
    async with frames:
        try:
            async for data in stream:
                received = framer.receive(bytes(data))
                await frames.send([frame for frame in received if isinstance(frame, bytes)])
        except trio.BrokenResourceError:
            return  # the daemon was killed
