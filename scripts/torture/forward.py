"""A port that leads to whichever daemon there is, as `ssh -L` does, and that can be cut.

A cut comes at any byte: so many more are let through, and then all connections end with RST.
"""

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import trio

from moorage_protocol.rendezvous import read_daemon


PIECE = 16 * 2**10  # bytes passed on at once
LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(eq=False)
class Forward:
    """Leads to the daemon of a state directory. `cuts` are those that ended a connection."""

    state: Path
    port: int = 0
    cuts: int = 0
    _open: set[trio.SocketStream] = field(default_factory=set[trio.SocketStream])
    _left: int | None = None  # bytes until the cut

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        """Take connections until cancelled; `port` is where, from the word on."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = int(listener.socket.getsockname()[1])
        task_status.started()
        await trio.serve_listeners(self._lead, [listener])

    async def _lead(self, near: trio.SocketStream) -> None:
        daemon = read_daemon(self.state)
        address = urlsplit(daemon.websocket or "") if daemon is not None else None
        if address is None or address.hostname is None or address.port is None:
            return
        with suppress(*LOST):
            async with near, await trio.open_tcp_stream(address.hostname, address.port) as far:
                self._open |= {near, far}
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pass, near, far, nursery.cancel_scope)
                        nursery.start_soon(self._pass, far, near, nursery.cancel_scope)
                finally:
                    self._open -= {near, far}

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        with suppress(*LOST):
            while data := await source.receive_some(PIECE):
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                await sink.send_all(data)
                if self._left == 0:
                    self._sever()
        both.cancel()

    def cut(self, after: int) -> None:
        """End all connections after so many more bytes."""
        self._left = after
        if not after:
            self._sever()

    def mend(self) -> None:
        """Let everything through from here on; a cut that did not come yet comes at once."""
        if self._left is not None:
            self._sever()

    def _sever(self) -> None:
        self._left = None
        self.cuts += bool(self._open)
        for stream in self._open:
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            stream.socket.close()
