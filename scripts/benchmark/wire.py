"""Clients that cost next to nothing, so that what is measured is the daemon."""

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


Json = dict[str, Any]
READ_BYTES = 2**20


class Stream(Protocol):
    """Carries whole messages to and from an agent."""

    def send(self, message: bytes) -> None:
        """Send one message."""
        ...

    def receive(self) -> bytes:
        """The next message; raises EOFError at the end."""
        ...


class Lines:
    """Messages as lines, over a socket or a pair of pipes."""

    def __init__(self, read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
        self._read, self._write = read, write
        self._buffer = b""
        self._lines: list[bytes] = []

    def send(self, message: bytes) -> None:
        """Send one line."""
        self._write(message + b"\n")

    def receive(self) -> bytes:
        """The next line."""
        while not self._lines:
            data = self._read()
            if not data:
                raise EOFError
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._lines = lines[::-1]
        return self._lines.pop()


class WebSocket:
    """Text messages over a WebSocket; masked with zeros, which costs nothing and is allowed."""

    def __init__(self, url: str, token: str) -> None:
        host, _, path = url.removeprefix("ws://").partition("/")
        name, _, port = host.rpartition(":")
        self.socket = socket.create_connection((name, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self.socket.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(head.decode(errors="replace"))
        self._buffer = bytearray(rest)

    def _fill(self) -> None:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise EOFError
        self._buffer += data

    def send(self, message: bytes) -> None:
        """Send one text message."""
        size = len(message)
        if size < 126:
            head = struct.pack("!BB", 0x81, 0x80 | size)
        elif size < 2**16:
            head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
        self.socket.sendall(head + b"\0\0\0\0" + message)

    def receive(self) -> bytes:
        """The next text message; control frames are skipped."""
        while True:
            kind, payload = self._frame()
            if kind == 1:
                return payload

    def _frame(self) -> tuple[int, bytes]:
        while len(self._buffer) < 10 and not self._is_whole():
            self._fill()
        size, start = self._buffer[1] & 127, 2
        if size == 126:
            size, start = struct.unpack_from("!H", self._buffer, 2)[0], 4
        elif size == 127:
            size, start = struct.unpack_from("!Q", self._buffer, 2)[0], 10
        while len(self._buffer) < start + size:
            self._fill()
        kind = self._buffer[0] & 15
        payload = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        return kind, payload

    def _is_whole(self) -> bool:
        if len(self._buffer) < 2:
            return False
        size = self._buffer[1] & 127
        return size < 126 and len(self._buffer) >= 2 + size


def unix_stream(path: str) -> tuple[Lines, socket.socket]:
    """A stream over a unix socket, and the socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return Lines(lambda: sock.recv(READ_BYTES), sock.sendall), sock


def process_stream(process: subprocess.Popen[bytes]) -> Lines:
    """A stream over a process's standard input and output."""
    assert process.stdin is not None
    assert process.stdout is not None
    out, into = process.stdout.fileno(), process.stdin.fileno()
    return Lines(lambda: os.read(out, READ_BYTES), lambda data: _write_all(into, data))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class Agent:
    """An ACP client: one call at a time."""

    def __init__(self, stream: Stream, *, moorage: bool = False) -> None:
        self.stream = stream
        self._id = 0
        params: Json = {"protocolVersion": 1, "clientCapabilities": {}}
        if moorage:
            params["_meta"] = {"moorage": {}}
        self.call("initialize", params)

    def start(self, method: str, params: Json) -> int:
        """Send a request; gives its id."""
        self._id += 1
        message = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self.stream.send(json.dumps(message).encode())
        return self._id

    def notify(self, method: str, params: Json) -> None:
        """Send a notification."""
        self.stream.send(
            json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()
        )

    def finish(self, request: int, each: Callable[[bytes], object] | None = None) -> Json:
        """Read to the answer of a request; `each` sees what comes before it."""
        mark = b'"id":%d,' % request
        while True:
            raw = self.stream.receive()
            if mark in raw.replace(b": ", b":") and b'"method"' not in raw:
                answer: Json = json.loads(raw)
                if "error" in answer:
                    raise RuntimeError(str(answer["error"]))
                result: Json = answer["result"]
                return result
            if each is not None:
                each(raw)

    def call(self, method: str, params: Json) -> Json:
        """A request and its answer."""
        return self.finish(self.start(method, params))

    def new_session(self, cwd: Path) -> str:
        """A new session's id."""
        answer = self.call("session/new", {"cwd": str(cwd), "mcpServers": []})
        return str(answer["sessionId"])

    def start_prompt(self, session: str, text: str) -> int:
        """Send a prompt."""
        prompt = [{"type": "text", "text": text}]
        return self.start("session/prompt", {"sessionId": session, "prompt": prompt})

    def prompt(
        self, session: str, text: str, each: Callable[[bytes], object] | None = None
    ) -> Json:
        """A whole turn."""
        return self.finish(self.start_prompt(session, text), each)
