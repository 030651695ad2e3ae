"""Whole frames to and from a daemon, over its unix socket or its WebSocket.

A link knows nothing of what is in the frames. One task receives, one other sends: a cancelled
send leaves half a frame behind, so a link whose sender was cancelled is only good for closing.
"""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from moorage_clients.errors import CannotConnect, ConnectionLost
from moorage_protocol.framing import Framed, LineFramer, join_lines
from moorage_protocol.rendezvous import open_address


READ_BYTES = 64 * 2**10  # at once; a socket buffer holds little more


class Link(Protocol):
    """Frames in both directions; both methods raise `ConnectionLost` when there is no more."""

    async def receive(self) -> bytes:
        """The next frame."""
        ...

    async def send(self, frames: list[bytes]) -> None:
        """Send frames, in one write if the transport can."""
        ...


class LineLink:
    """One frame a line, over any byte stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._framer = LineFramer()
        self._frames: deque[Framed] = deque()

    async def receive(self) -> bytes:
        """The next frame."""
        while not self._frames:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionLost("the connection broke") from error
            if not data:
                raise ConnectionLost("the daemon closed the connection")
            self._frames.extend(self._framer.receive(bytes(data)))
        frame = self._frames.popleft()
        if not isinstance(frame, bytes):
            raise ConnectionLost("the daemon sent a frame beyond the limit")
        return frame

    async def send(self, frames: list[bytes]) -> None:
        """Send frames in one write."""
        try:
            await self._stream.send_all(join_lines(frames))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionLost("the connection broke") from error


@asynccontextmanager
async def open_link(address: str, token: str | None) -> AsyncGenerator[Link, None]:
    """Connect to `unix:PATH` or `ws://HOST:PORT/acp`; raises `CannotConnect`, `ValueError`."""
    if address.startswith("unix:"):
        async with await _open_unix(address) as stream:
            yield LineLink(stream)
    elif address.startswith(("ws://", "wss://")):
        from moorage_clients.websocket_link import open_websocket_link  # half a start-up's time

        async with open_websocket_link(address, token) as link:
            yield link
    else:
        raise ValueError(f"an address is unix:PATH or ws://HOST:PORT/acp, not {address!r}")


async def _open_unix(address: str) -> trio.SocketStream:
    try:
        with open_address(address.removeprefix("unix:")) as path:
            return await trio.open_unix_socket(path)
    except OSError as error:
        raise CannotConnect(address, error.strerror or "cannot connect") from error
