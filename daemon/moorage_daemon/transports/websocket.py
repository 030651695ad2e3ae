"""The WebSocket `/acp`: one JSON object a text message, behind the gate.

Five properties of the library are worked around, each where it shows: its reader waits for a
blocked writer (so a client that does not read could not cancel), its keepalive cannot tell a slow
client from a dead one, frames behind a refused handshake keep its reader for ever, a client that
leaves in the instant of its handshake gets no answer to that, and its debug log prints credentials.
"""

import logging
import secrets
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import trio
from websockets.exceptions import ConnectionClosed, InvalidState
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.trio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from moorage_daemon.connection.transport import TransportClosed
from moorage_daemon.identity import Principal
from moorage_daemon.settings import WebsocketAddress
from moorage_daemon.transports.gate import SUBPROTOCOL, Gate
from moorage_daemon.transports.room import KEPT_LOCAL, MAX_STRANGERS, PatientListener, Room
from moorage_daemon.transports.writing import STALL, write_patiently
from moorage_protocol.framing import MAX_FRAME_BYTES, Framed


logger = logging.getLogger(__name__)

OPEN_TIMEOUT = 5.0  # seconds for the whole handshake: a stranger gets no more
CLOSE_TIMEOUT = 2.0  # seconds for the closing handshake
PING_EVERY = 5.0  # seconds without a word from the client before it is asked for one
PING_PATIENCE = 10.0  # seconds an asked client has
MAX_QUEUE = 16  # frames read ahead of the connection
MAX_UNSENT = 1000  # pongs that wait behind a blocked write; a client has one ping open, or a few
BACKLOG = 128
BODIES = {
    HTTPStatus.UNAUTHORIZED: "Credential required.\n",
    HTTPStatus.FORBIDDEN: "Origin not allowed.\n",
    HTTPStatus.NOT_FOUND: "Not found.\n",
    HTTPStatus.MISDIRECTED_REQUEST: "Host not served.\n",
    HTTPStatus.SERVICE_UNAVAILABLE: "Try again later.\n",
}


class Strangers:
    """Who is in its handshake: no more than `MAX_STRANGERS`, or those who wait are dropped."""

    def __init__(self) -> None:
        self._waiting: dict[ServerConnection, None] = {}  # in the order in which they came

    @asynccontextmanager
    async def one(self, channel: ServerConnection) -> AsyncGenerator[None]:
        """One stranger's handshake; the one that takes longest makes room for it."""
        if len(self._waiting) >= MAX_STRANGERS:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            await trio.aclose_forcefully(longest.stream)
        self._waiting[channel] = None
        try:
            yield
        finally:
            self._waiting.pop(channel, None)


class Channel(ServerConnection):
    """A server connection whose reader never writes once a connection has its own writer.

    `on_due` is that writer's wake-up; before and after it, the library writes for itself.
    `heard_at` is when the client last gave a sign of life, `asked_at` when it was asked for one
    and has not answered. `is_cut` says that a frame was not written to its end.
    """

    principal: Principal
    strangers: Strangers
    on_due: Callable[[], None] | None = None
    heard_at: float = 0.0
    asked_at: float | None = None
    is_cut: bool = False

    async def handshake(self, *how: Any, **settings: Any) -> None:
        """Shake hands, as one stranger of a few.

        A client may leave in the instant of its answer. The library closes such a stream at once;
        here its goodbye is answered first.
        """
        async with self.strangers.one(self):
            await super().handshake(*how, **settings)
        if self.state is State.CLOSING:
            with trio.move_on_after(CLOSE_TIMEOUT):
                await self.stream_closed.wait()

    def ask_for_life(self) -> bool:
        """Ping a silent client; False when it has been silent for too long.

        It is only judged by a ping that could leave this machine: while a write is under way the
        client is slow, not dead, and that write has a limit of its own.
        """
        now = trio.current_time()
        if self.send_lock.locked() or self.state is not State.OPEN or self.on_due is None:
            self.asked_at = None
        elif self.asked_at is not None:
            return now - self.asked_at < PING_PATIENCE
        elif now - self.heard_at >= PING_EVERY:
            self.asked_at = now
            self.protocol.send_ping(b"")
            self.on_due()
        return True

    async def send_data(self) -> None:
        """Send what the protocol has to say, or leave it to the one writer.

        The reader comes here with every piece it has read, so this is a sign of life as well:
        nobody can answer a ping in the middle of a long message.
        """
        self.heard_at, self.asked_at = trio.current_time(), None
        if self.on_due is None:
            await super().send_data()
        elif len(self.protocol.writes) > MAX_UNSENT:
            logger.warning("a client pings and does not read: closing it")
            await self.close_stream()
        elif self.protocol.writes:
            self.on_due()

    async def close_stream(self) -> None:
        """Close, and let a reader that was told to pause see that it is over."""
        await super().close_stream()
        if self.recv_flow_control is not None:
            self.resume_reading()

    async def flush(self) -> None:
        """Write what the protocol holds, in one piece; only the writer calls it."""
        async with self.send_lock:
            pieces = self.protocol.data_to_send()
            data = b"".join(pieces)
            stream = self.stream
            assert isinstance(stream, trio.SocketStream)
            if data:
                self.is_cut = True
                await write_patiently(stream.socket, data)
                self.is_cut = False
            if b"" in pieces:  # the protocol's sign for the end of the stream
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_eof()


class WebSocketTransport:
    """Frames as text messages."""

    name = "websocket"

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def receive(self) -> Sequence[Framed]:
        """The next message; binary ones are ignored."""
        while True:
            try:
                message = await self._channel.recv()
            except ConnectionClosed as error:
                raise TransportClosed from error
            if isinstance(message, str):
                return [message.encode()]

    async def send(self, messages: Sequence[bytes]) -> None:
        """Write messages, and whatever the protocol has to say beside them, at once."""
        try:
            for message in messages:
                self._channel.protocol.send_text(message)
        except InvalidState as error:
            await self._channel.flush()
            raise TransportClosed from error
        await self._channel.flush()

    def on_due(self, wake: Callable[[], None]) -> None:
        """From here on the connection's writer writes everything."""
        self._channel.on_due = wake

    async def aclose(self) -> None:
        """Close with the closing handshake, within a bound."""
        self._channel.on_due = None
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self._channel.aclose()


Serve = Callable[[WebSocketTransport, Principal], Awaitable[None]]


@dataclass(eq=False)
class _Clients:
    """The clients of one listener, and how each of them is ended."""

    serve: Serve
    room: Room
    strangers: Strangers = field(default_factory=Strangers)
    open: dict[Channel, trio.CancelScope] = field(default_factory=dict[Channel, trio.CancelScope])

    def meet(self, *arguments: Any, **settings: Any) -> Channel:
        """A client that has not shown anything yet."""
        channel = Channel(*arguments, **settings)
        channel.strangers = self.strangers
        return channel

    def admit(self, gate: Gate, channel: ServerConnection, request: Request) -> Response | None:
        """Ask the gate; who may come in is told if there is no room."""
        found = gate.check(request.path, request.headers)
        if isinstance(found, Principal) and not self.room.has_place(keep=KEPT_LOCAL):
            found = HTTPStatus.SERVICE_UNAVAILABLE
        if isinstance(found, HTTPStatus):
            return channel.respond(found, BODIES[found])
        assert isinstance(channel, Channel)
        channel.principal = found
        return None

    async def handle(self, channel: ServerConnection) -> None:
        """Serve one client; nothing that must outlive it runs in this task."""
        assert isinstance(channel, Channel)
        _tune(channel)
        _forget_handshake(channel)
        channel.heard_at = trio.current_time()
        try:
            with self.room.place(), trio.CancelScope() as self.open[channel]:
                await self.serve(WebSocketTransport(channel), channel.principal)
        finally:
            del self.open[channel]
            channel.on_due = None
            if channel.is_cut:  # nothing can be said behind half a frame
                await trio.aclose_forcefully(channel.stream)

    async def keep_alive(self) -> None:
        """Find the clients that vanished without a word. One task for all: an idle client
        costs memory for as long as it stays."""
        while True:
            await trio.sleep(PING_EVERY)
            for channel, scope in list(self.open.items()):
                if not channel.ask_for_life():
                    logger.info("a client gave no sign of life")
                    scope.cancel()


@asynccontextmanager
async def open_websocket(
    address: WebsocketAddress, gate_for: Callable[[int], Gate], serve_client: Serve, room: Room
) -> AsyncGenerator[int]:
    """Listen; gives the port. On leaving the clients get a closing handshake, within a bound."""
    _hush(logging.getLogger("websockets.server"))
    listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=BACKLOG)
    port: int = listeners[0].socket.getsockname()[1]
    clients = _Clients(serve_client, room)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.keep_alive)
        server: Server = await nursery.start(
            partial(
                serve,
                clients.handle,
                listeners=[cast("trio.SocketListener", PatientListener(it)) for it in listeners],
                compression=None,
                create_connection=cast("type[Channel]", clients.meet),
                process_request=partial(clients.admit, gate_for(port)),
                process_response=_name,
                select_subprotocol=_select,
                server_header=None,
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=None,
                max_size=MAX_FRAME_BYTES,
                max_queue=MAX_QUEUE,
            )
        )
        try:
            yield port
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT + 1, shield=True):
                await server.aclose()
            nursery.cancel_scope.cancel()


def _name(_channel: ServerConnection, _request: Request, response: Response) -> None:
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        response.headers["Acp-Connection-Id"] = secrets.token_hex(16)


def _select(_channel: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _hush(library: logging.Logger) -> None:
    """Its debug log shows credentials, so it is never at that level."""
    if library.getEffectiveLevel() < logging.INFO:
        library.setLevel(logging.INFO)


def _forget_handshake(channel: Channel) -> None:
    """Empty what the library keeps: the token, and a sixth of what an idle client costs.

    The request itself has to stay: without one it takes what it hears next for a request.
    """
    assert channel.request is not None
    channel.request.headers.clear()
    channel.response = None


def _tune(channel: Channel) -> None:
    """Find a vanished machine while data is on its way; the kernel knows first."""
    stream = channel.stream
    if isinstance(stream, trio.SocketStream) and hasattr(socket, "TCP_USER_TIMEOUT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL * 1000))
