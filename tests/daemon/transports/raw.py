"""A WebSocket client that keeps no rule: it sends the bytes a test wants and shows what came.

Frames as RFC 6455, section 5.2 has them; the mask is all zeros, so a payload can be read in a
packet dump.
"""

import struct
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import trio

from moorage_protocol import jsonrpc


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PATIENCE = 30  # seconds

Json = dict[str, Any]
Lines = Iterable[tuple[str, str]]


class Unusual(TypedDict, total=False):
    """How a handshake differs from the one it should be."""

    path: str
    host: str | None
    method: str
    upgrade: bool
    version: str


@dataclass(frozen=True)
class Answer:
    """The answer to a handshake."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Frame:
    """One frame from the server."""

    opcode: int
    payload: bytes
    final: bool = True
    reserved: int = 0

    @property
    def code(self) -> int:
        """The code of a close frame."""
        return int.from_bytes(self.payload[:2], "big")


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True, masked: bool = True) -> bytes:
    """One frame as a client writes it."""
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        length = bytes([mask | len(payload)])
    elif len(payload) < 2**16:
        length = struct.pack("!BH", mask | 126, len(payload))
    else:
        length = struct.pack("!BQ", mask | 127, len(payload))
    return bytes([(0x80 if final else 0) | opcode]) + length + bytes(4 if masked else 0) + payload


def handshake(
    port: int,
    lines: Lines = (),
    *,
    path: str = "/acp",
    host: str | None = "",
    method: str = "GET",
    upgrade: bool = True,
    version: str = "13",
) -> bytes:
    """A request to upgrade; `host` is this machine by default, None leaves it out."""
    head = [f"{method} {path} HTTP/1.1"]
    if host is not None:
        head.append(f"Host: {host or f'127.0.0.1:{port}'}")
    if upgrade:
        head += [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Sec-WebSocket-Version: {version}",
        ]
    head += [f"{name}: {value}" for name, value in lines]
    return "\r\n".join([*head, "", ""]).encode("iso-8859-1")


class RawClient:
    """A connection; `stream` is its socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()
        self._asked = 0

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> Answer:
        """The head and the body of the server's answer."""
        while b"\r\n\r\n" not in self._buffer:
            assert await self._read(), "closed without an answer"
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        self._buffer = bytearray(rest)
        body = await self._take(length)
        assert body is not None
        return Answer(int(first.split()[1]), headers, body)

    async def say(self, method: str, params: object, request_id: int | None = None) -> None:
        """Send a message: a request, or without an id a notification."""
        if request_id is None:
            message = jsonrpc.encode_notification(method, params)
        else:
            message = jsonrpc.encode_request(request_id, method, params)
        await self.send(frame(message))

    async def hear(self) -> Json:
        """The next message."""
        received = await self.frame()
        assert received is not None, "closed"
        assert received.opcode == TEXT, received
        message: Json = msgspec.json.decode(received.payload)
        return message

    async def answer_to(self, request_id: int) -> Json:
        """The answer to a request, whatever is told before it."""
        while (message := await self.hear()).get("id") != request_id or "method" in message:
            pass
        return message

    async def call(self, method: str, params: object) -> Json:
        """Send a request and wait for its result."""
        self._asked += 1
        await self.say(method, params, self._asked)
        answer = await self.answer_to(self._asked)
        assert "result" in answer, answer
        result: Json = answer["result"]
        return result

    async def introduce(self) -> None:
        """The first thing a client says; this one knows moorage."""
        await self.call("initialize", {"protocolVersion": 1, "_meta": {"moorage": {}}})

    async def new(self) -> str:
        """A new session."""
        session: str = (await self.call("session/new", {"cwd": "/work"}))["sessionId"]
        return session

    async def frame(self, *, patience: float = PATIENCE) -> Frame | None:
        """The next frame; None at the end of the stream."""
        start = await self._take(2, patience)
        if start is None:
            return None
        length = start[1]
        assert length < 128, "a server masks nothing"
        if length == 126:
            length = int.from_bytes(await self._all(2), "big")
        elif length == 127:
            length = int.from_bytes(await self._all(8), "big")
        payload = await self._all(length)
        return Frame(start[0] & 0x0F, payload, bool(start[0] & 0x80), start[0] >> 4 & 0x07)

    async def frames(self) -> list[Frame]:
        """All frames up to the end of the stream."""
        found: list[Frame] = []
        while (received := await self.frame()) is not None:
            found.append(received)
        return found

    async def rest(self) -> bytes:
        """All bytes up to the end of the stream."""
        while await self._read():
            pass
        return bytes(self._buffer)

    async def close_code(self) -> int:
        """The code the server closes with; 1006 if it goes without a word (RFC 6455, 7.1.5)."""
        closing = [frame for frame in await self.frames() if frame.opcode == CLOSE]
        return closing[0].code if closing else 1006

    async def _all(self, count: int) -> bytes:
        data = await self._take(count)
        assert data is not None, "the stream ends in the middle of a frame"
        return data

    async def _take(self, count: int, patience: float = PATIENCE) -> bytes | None:
        while len(self._buffer) < count:
            if not await self._read(patience):
                return None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _read(self, patience: float = PATIENCE) -> bool:
        with trio.fail_after(patience):
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
        self._buffer += data
        return bool(data)

    async def drop(self) -> None:
        """Go without a word."""
        await trio.aclose_forcefully(self.stream)


@asynccontextmanager
async def dial(port: int) -> AsyncGenerator[RawClient]:
    """A connection that has not said anything; on leaving it goes without a word."""
    client = RawClient(await trio.open_tcp_stream("127.0.0.1", port))
    try:
        yield client
    finally:
        await client.drop()


async def ask(port: int, request: bytes) -> Answer:
    """One request and its answer."""
    async with dial(port) as client:
        await client.send(request)
        return await client.answer()
