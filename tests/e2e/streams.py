"""A client of the daemon at its lowest: a socket, and both ways to frame what goes over it.

Blocking, with a limit on every wait: there is nothing beside it that would have to go on.
"""

import json
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.daemons import PATIENCE, environment


Json = dict[str, Any]


class Framing(ABC):
    """How messages are told apart; written from the rules, not with the product's code."""

    @abstractmethod
    def pack(self, frame: bytes) -> bytes: ...

    @abstractmethod
    def take(self, buffer: bytearray) -> bytes | None:
        """Take the first whole message out of `buffer`, if it holds one."""


class Lines(Framing):
    """A message a line."""

    def pack(self, frame: bytes) -> bytes:
        return frame + b"\n"

    def take(self, buffer: bytearray) -> bytes | None:
        line, end, rest = buffer.partition(b"\n")
        if not end:
            return None
        buffer[:] = rest
        return bytes(line)


class Headers(Framing):
    """A message behind its length."""

    def pack(self, frame: bytes) -> bytes:
        return b"Content-Length: %d\r\n\r\n%b" % (len(frame), frame)

    def take(self, buffer: bytearray) -> bytes | None:
        header, end, rest = buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        name, _, length = header.partition(b": ")
        assert name == b"Content-Length", header
        if len(rest) < int(length):
            return None
        buffer[:] = rest[int(length) :]
        return bytes(rest[: int(length)])


@dataclass(eq=False)
class Stream:
    """One connection."""

    socket: socket.socket
    framing: Framing
    _buffer: bytearray = field(default_factory=bytearray)
    _asked: int = 0

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def say(self, frame: bytes) -> None:
        """Send one frame, whatever is in it."""
        self.send(self.framing.pack(frame))

    def hear(self) -> Json | None:
        """The next message; None at the end. Whatever comes has to be JSON."""
        while (frame := self.framing.take(self._buffer)) is None:
            data = self.socket.recv(2**20)
            if not data:
                assert not self._buffer, "the stream ends in the middle of a frame"
                return None
            self._buffer += data
        message: Json = json.loads(frame)
        assert message["jsonrpc"] == "2.0"
        return message

    def rest(self) -> list[Json]:
        """All messages up to the end."""
        return list(iter(self.hear, None))

    def call(self, method: str, **params: Any) -> Json:
        """Send a request and wait for the answer to it, result or error."""
        self._asked += 1
        request = {"jsonrpc": "2.0", "id": f"#{self._asked}", "method": method, "params": params}
        self.say(json.dumps(request).encode())
        while (message := self.hear()) is not None:
            if message.get("id") == request["id"]:
                return message
        raise AssertionError("closed")

    def introduce(self) -> Json:
        """The first thing a client says; this one knows moorage."""
        result: Json = self.call("initialize", protocolVersion=1, _meta={"moorage": {}})["result"]
        return result

    def end(self) -> None:
        """Have no more to say."""
        self.socket.shutdown(socket.SHUT_WR)


@contextmanager
def over_unix(path: Path, framing: Framing) -> Generator[Stream]:
    """A connection to a daemon's socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        yield Stream(sock, framing)


@dataclass(eq=False)
class Alone:
    """A daemon of one client, as its child; `stream` is both its standard input and output."""

    process: subprocess.Popen[str]
    stream: Stream

    def left(self) -> tuple[int, str]:
        """Wait for its end; gives the exit code and all that it wrote to standard error."""
        errors = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, errors


@contextmanager
def over_stdio(
    framing: Framing, *flags: str, program: tuple[str, ...] = ("-m", "moorage_daemon", "--stdio")
) -> Generator[Alone]:
    """Start such a daemon; on leaving it is killed, if it is still there."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(PATIENCE)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, *program, *flags],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                env=environment(),
                text=True,
            )
        with process:
            try:
                yield Alone(process, Stream(ours, framing))
            finally:
                process.kill()
