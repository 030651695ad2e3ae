"""Writing to a socket that may be slow and must not be dead."""

import trio

from moorage_daemon.connection.transport import TransportClosed


STALL = 60.0  # seconds in which a write must move at least one byte
PIECE = 64 * 2**10  # bytes offered at once: more would only be copied for nothing


async def write_patiently(sock: trio.socket.SocketType, data: bytes) -> None:
    """Write all of `data`, however slowly the other end takes it.

    Raises `TransportClosed` when the socket breaks, or moves nothing for `STALL` seconds. After
    a cancelled write the stream is cut in the middle: nothing may be written behind it.
    """
    rest = memoryview(data)
    while rest:
        with trio.move_on_after(STALL) as patience:
            try:
                sent = await sock.send(rest[:PIECE])
            except (OSError, trio.ClosedResourceError) as error:  # or its reader closed it
                raise TransportClosed from error
            rest = rest[sent:]
        if patience.cancelled_caught:
            raise TransportClosed
