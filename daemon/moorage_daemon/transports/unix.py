"""The unix socket: JSON-RPC for this user's own programs.

The directory keeps other users out and the kernel says who connected; that is the credential. A
program that a tool started is turned away, so that a tool cannot answer its own questions.
"""

import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from moorage_daemon.connection.transport import TransportClosed
from moorage_daemon.processes.ancestry import is_descendant
from moorage_daemon.transports.room import RETRY, Door, Room
from moorage_daemon.transports.writing import write_patiently
from moorage_protocol import jsonrpc
from moorage_protocol.errors import Overloaded
from moorage_protocol.framing import Framed, StreamFramer, join_lines
from moorage_protocol.rendezvous import open_address


logger = logging.getLogger(__name__)

READ_BYTES = 64 * 2**10
BACKLOG = 128
TOO_MANY = join_lines([jsonrpc.encode_error(None, Overloaded("Too many clients at once"))])
_CREDENTIALS = struct.Struct("3i")


class SocketTransport:
    """Frames on a stream socket, framed as its first byte says."""

    name = "unix"

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self._framer = StreamFramer()

    async def receive(self) -> Sequence[Framed]:
        """The next frames; raises `TransportClosed` at the end."""
        while True:
            try:
                data = await self._socket.recv(READ_BYTES)
            except OSError as error:
                raise TransportClosed from error
            if not data:
                raise TransportClosed
            frames = self._framer.receive(data)
            if frames:
                return frames

    async def send(self, messages: Sequence[bytes]) -> None:
        """Write messages in the client's own framing."""
        if messages:
            await write_patiently(self._socket, self._framer.join(messages))

    def on_due(self, wake: Callable[[], None]) -> None:
        """This transport never has anything of its own to send."""

    async def aclose(self) -> None:
        """Close the socket."""
        self._socket.close()


def bind(path: Path) -> trio.socket.SocketType:
    """A listening socket at `path`, for this user only."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with open_address(path) as address:
        sock.bind(address)
    path.chmod(0o600)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return trio.socket.from_stdlib_socket(sock)


async def serve_unix(
    listener: trio.socket.SocketType,
    serve: Callable[[SocketTransport], Awaitable[None]],
    tools: Callable[[], Collection[int]],
    room: Room,
) -> None:
    """Accept clients until the listener is closed, serve them until cancelled.

    `tools` are the pids of the tool supervisors.
    """
    door = Door()
    async with trio.open_nursery() as nursery:
        while True:
            try:
                sock, _ = await door.next(listener.accept)
            except trio.ClosedResourceError:
                return
            if not _is_welcome(sock, tools(), door):
                sock.close()
            elif not room.has_place():
                await _turn_away(sock)
            else:
                nursery.start_soon(_serve_one, sock, serve, room)


async def _turn_away(sock: trio.socket.SocketType) -> None:
    """Say that there are too many clients, and close. An empty buffer takes it at once."""
    with sock, suppress(OSError), trio.move_on_after(RETRY):
        await sock.send(TOO_MANY)


async def _serve_one(
    sock: trio.socket.SocketType,
    serve: Callable[[SocketTransport], Awaitable[None]],
    room: Room,
) -> None:
    try:
        with room.place():
            await serve(SocketTransport(sock))
    except Exception:
        logger.exception("a connection broke")  # and no other one with it
    finally:
        sock.close()


def _is_welcome(sock: trio.socket.SocketType, tools: Collection[int], door: Door) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # other systems: the directory's mode alone keeps others out
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    if uid != os.geteuid():
        logger.warning("another user's program was turned away", extra={"uid": uid})
        return False
    try:
        is_of_a_tool = is_descendant(pid, tools)
    except OSError as error:  # the client has the last descriptor, so nobody can look
        door.say(error)
        return False
    if is_of_a_tool:
        logger.warning("a tool's program was turned away", extra={"pid": pid})
    return not is_of_a_tool
