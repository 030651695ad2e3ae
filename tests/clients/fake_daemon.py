"""A daemon's end of a unix socket that says what a test tells it to say."""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from moorage_protocol import __version__, rendezvous


Message = dict[str, Any]


@dataclass(eq=False)
class Visitor:
    """One connection to the fake daemon, a conversation for the test to hold."""

    stream: trio.SocketStream
    _buffer: bytes = b""
    seen: list[Message] = field(default_factory=list[Message])

    async def receive(self) -> Message:
        """The next message of the client; raises EOFError when it hung up."""
        while b"\n" not in self._buffer:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        self.seen.append(json.loads(line))
        return self.seen[-1]

    async def expect(self, method: str) -> Message:
        """The next message, which has to be of that method."""
        message = await self.receive()
        assert message.get("method") == method, message
        return message

    async def send(self, **message: Any) -> None:
        await self.send_raw(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def send_raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, request: Message, result: Any = None) -> None:
        await self.send(id=request["id"], result={} if result is None else result)

    async def refuse(self, request: Message, code: int, message: str, kind: str) -> None:
        data = {"code": kind, "retryable": False}
        await self.send(id=request["id"], error={"code": code, "message": message, "data": data})

    async def greet(self, **moorage: Any) -> Message:
        """Take the client's `initialize` and answer it as a daemon would."""
        request = await self.expect("initialize")
        await self.answer(request, welcome(**moorage))
        return request

    async def hang_up(self) -> None:
        await self.stream.aclose()


def welcome(**moorage: Any) -> Message:
    """The result of `initialize`, with fields of `_meta.moorage` to change."""
    ours: Message = {
        "tuiId": "tui-1",
        "principal": "local",
        "role": "operator",
        "daemon": {"version": __version__, "pid": os.getpid(), "node": "here"},
        "limits": {"maxFrameBytes": 8388608, "maxOpenRequests": 64},
        "methods": [],
        **moorage,
    }
    return {
        "protocolVersion": 1,
        "agentCapabilities": {"loadSession": True},
        "agentInfo": {"name": "moorage", "version": "0"},
        "authMethods": [],
        "_meta": {"moorage": ours},
    }


@dataclass(eq=False)
class FakeDaemon:
    """Listens where the state directory says; the test takes its visitors one by one."""

    state_dir: Path
    listener: trio.SocketListener
    visitors: list[Visitor] = field(default_factory=list[Visitor])

    @property
    def address(self) -> str:
        return f"unix:{self.state_dir / rendezvous.SOCKET_NAME}"

    async def accept(self) -> Visitor:
        self.visitors.append(Visitor(await self.listener.accept()))
        return self.visitors[-1]


@asynccontextmanager
async def open_fake_daemon(state_dir: Path) -> AsyncGenerator[FakeDaemon, None]:
    """Stand up a fake daemon in `state_dir`; clients find it as they find a real one."""
    state_dir.mkdir(mode=0o700, exist_ok=True)
    path = state_dir / rendezvous.SOCKET_NAME
    path.unlink(missing_ok=True)
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    note = {"pid": os.getpid(), "websocket": None, "unix": str(path)}
    (state_dir / rendezvous.DAEMON_NAME).write_text(json.dumps(note))
    async with trio.SocketListener(listening) as listener:
        fake = FakeDaemon(state_dir, listener)
        try:
            yield fake
        finally:
            for visitor in fake.visitors:
                visitor.stream.socket.close()
            (state_dir / rendezvous.DAEMON_NAME).unlink(missing_ok=True)
