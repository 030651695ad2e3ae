"""The WebSocket form of a link: one frame, one text message (RFC 6455).

Pings are the daemon's: a client that is late in reading cannot see the answer to a ping of its
own behind all that waits, and would take a good connection for a dead one.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.trio.client import ClientConnection, connect

from moorage_clients.errors import CannotConnect, ConnectionLost
from moorage_protocol.framing import MAX_FRAME_BYTES


CLOSE_PATIENCE = 2  # seconds for the other side's half of a closing handshake

REFUSALS = {
    401: "the daemon does not accept the token",
    403: "the daemon does not accept this origin",
    421: "the daemon does not go by that name and port: forward the same port, or allow it",
}


# At DEBUG websockets logs the headers of the handshake, and in them the token.
_log = logging.getLogger("moorage_clients.websocket")
_log.setLevel(logging.INFO)


class _Connect(connect):
    """Goes where the address says and nowhere else: no daemon sends anybody on."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """No redirect is one to follow."""
        return exc


class WebsocketLink:
    """One frame a text message."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        """The next frame."""
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise ConnectionLost(_reason(error)) from error

    async def send(self, frames: list[bytes]) -> None:
        """Send frames, one message each."""
        try:
            for frame in frames:
                await self._connection.send(frame, text=True)
        except ConnectionClosed as error:
            raise ConnectionLost(_reason(error)) from error


def _reason(error: ConnectionClosed) -> str:
    if error.rcvd is None:
        return "the connection broke"
    return f"the daemon closed the connection ({error.rcvd.code})"


@asynccontextmanager
async def open_websocket_link(
    address: str, token: str | None
) -> AsyncGenerator[WebsocketLink, None]:
    """Connect to ws://HOST:PORT/acp; raises `CannotConnect`."""
    connecting = _Connect(
        address,
        additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
        compression=None,  # on one machine it costs more than it saves
        proxy=None,  # a daemon is never behind what HTTP_PROXY names
        open_timeout=None,  # callers set their own deadline
        ping_interval=None,
        close_timeout=CLOSE_PATIENCE,
        max_size=MAX_FRAME_BYTES,
        logger=_log,
    )
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(connecting)
        except InvalidStatus as error:
            status = error.response.status_code
            problem = REFUSALS.get(status, f"no moorage daemon is there (HTTP status {status})")
            raise CannotConnect(address, problem) from error
        except (InvalidHandshake, OSError) as error:
            raise CannotConnect(address, "no moorage daemon answers there") from error
        yield WebsocketLink(connection)
