"""A client's end of the wire, at its lowest: sockets and framing, no line of the product's.

A link can be cut at any byte, and reads no more than it is told to.
"""

import base64
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import trio


READ_BYTES = 256 * 2**10
WEBSOCKET_TEXT, WEBSOCKET_CLOSE, WEBSOCKET_PING, WEBSOCKET_PONG = 1, 8, 9, 10


class Carrier(StrEnum):
    """How a client reaches the daemon."""

    UNIX = "unix"
    WEBSOCKET = "websocket"


class Gone(Exception):
    """The connection is over."""


@dataclass(frozen=True)
class Address:
    """Where a daemon is."""

    unix: str
    websocket: str
    token: str


# ---- framing


class Framing(Protocol):
    """Turns bytes into messages and back."""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now."""
        ...

    def pack(self, message: bytes) -> bytes:
        """A message as bytes."""
        ...

    def replies(self) -> bytes:
        """What the other end has to be told at once."""
        ...


@dataclass(eq=False)
class Lines:
    """One JSON object a line."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Whole lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def pack(self, message: bytes) -> bytes:
        """A line."""
        return message + b"\n"

    def replies(self) -> bytes:
        """Lines need none."""
        return b""


@dataclass(eq=False)
class Headers:
    """A message behind how long it is, as the language server protocol has it."""

    _buffer: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Whole messages; raises `Gone` for what is framed otherwise."""
        self._buffer += data
        found: list[bytes] = []
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return found
            name, _, length = head.partition(b":")
            if name.lower() != b"content-length" or not length.strip().isdigit():
                raise Gone(f"no header: {head[:80]!r}")
            size = int(length)
            if len(rest) < size:
                return found
            found.append(rest[:size])
            self._buffer = rest[size:]

    def pack(self, message: bytes) -> bytes:
        """The message behind its header."""
        return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)

    def replies(self) -> bytes:
        """Headers need none."""
        return b""


@dataclass(eq=False)
class Frames:
    """RFC 6455 from the client's side; a frame is a message, as the daemon never splits one."""

    _buffer: bytearray = field(default_factory=bytearray)
    _replies: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[bytes]:
        """Whole text messages; pings are answered by `replies`."""
        self._buffer += data
        found: list[bytes] = []
        at = 0
        while (frame := self._frame(at)) is not None:
            kind, payload, at = frame
            if kind == WEBSOCKET_TEXT:
                found.append(payload)
            elif kind == WEBSOCKET_PING:
                self._replies += _masked(WEBSOCKET_PONG, payload)
            elif kind == WEBSOCKET_CLOSE:
                raise Gone("the daemon closed the WebSocket")
        del self._buffer[:at]
        return found

    def _frame(self, at: int) -> tuple[int, bytes, int] | None:
        if len(self._buffer) < at + 2:
            return None
        size, start = self._buffer[at + 1] & 127, at + 2
        if size > 125:
            form = "!H" if size == 126 else "!Q"
            if len(self._buffer) < start + struct.calcsize(form):
                return None
            (size,) = struct.unpack_from(form, self._buffer, start)
            start += struct.calcsize(form)
        end = start + size
        if len(self._buffer) < end:
            return None
        return self._buffer[at] & 15, bytes(self._buffer[start:end]), end

    def pack(self, message: bytes) -> bytes:
        """A masked text frame."""
        return _masked(WEBSOCKET_TEXT, message)

    def replies(self) -> bytes:
        """Pongs."""
        replies, self._replies = bytes(self._replies), bytearray()
        return replies


def _masked(kind: int, payload: bytes) -> bytes:
    """A frame masked with zeros, which is allowed and changes nothing."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | kind, 0x80 | size)
    elif size < 2**16:
        head = struct.pack("!BBH", 0x80 | kind, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | kind, 0x80 | 127, size)
    return head + bytes(4) + payload


# ---- links


@dataclass(eq=False)
class Link:
    """A connected socket and its framing."""

    socket: trio.socket.SocketType
    framing: Framing
    budget: int | None = None  # bytes to read before it cuts itself
    last_words: bytes = b""  # sent as they are before the cut
    _may_write: trio.Lock = field(default_factory=trio.Lock)

    async def send(self, message: bytes) -> None:
        """Send one message; raises `Gone`."""
        await self._write(self.framing.pack(message))

    async def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        async with self._may_write:
            while rest:
                try:
                    rest = rest[await self.socket.send(rest) :]
                except (OSError, trio.ClosedResourceError) as error:
                    raise Gone from error

    async def receive(self) -> list[bytes]:
        """Read once; gives the messages that are whole. Raises `Gone`."""
        if self.budget == 0:
            await self._write(self.last_words)
            self.cut()
            raise Gone("cut")
        try:
            data = await self.socket.recv(min(self.budget or READ_BYTES, READ_BYTES))
        except (OSError, trio.ClosedResourceError) as error:
            raise Gone from error
        if not data:
            raise Gone("end of stream")
        if self.budget is not None:
            self.budget -= len(data)
        messages = self.framing.feed(data)
        if replies := self.framing.replies():
            await self._write(replies)
        return messages

    def cut(self) -> None:
        """End the connection without a word: over TCP with RST, bytes on their way are lost."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


async def open_link(
    address: Address,
    carrier: Carrier,
    *,
    receive_buffer: int | None = None,
    framing: Framing | None = None,
) -> Link:
    """Connect; `receive_buffer` is the kernel's, in bytes, `framing` the unix socket's."""
    family = socket.AF_UNIX if carrier is Carrier.UNIX else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        if carrier is Carrier.UNIX:
            await sock.connect(address.unix)
            return Link(sock, framing or Lines())
        return await _upgrade(sock, address)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise Gone from error
        raise


async def _upgrade(sock: trio.socket.SocketType, address: Address) -> Link:
    host, _, path = address.websocket.removeprefix("ws://").partition("/")
    name, _, port = host.rpartition(":")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await sock.connect((name, int(port)))
    framing = Frames()
    link = Link(sock, framing)
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET /{path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        f"Authorization: Bearer {address.token}",
    )
    await sock.send("\r\n".join((*head, "", "")).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        byte = await sock.recv(1)  # the daemon says nothing behind the head before it is asked
        if not byte:
            raise Gone(answer.decode(errors="replace"))
        answer += byte
    if b" 101 " not in answer.partition(b"\r\n")[0]:
        raise Gone(answer.decode(errors="replace"))
    return link
