"""A gateway that only knows JSON: it asks over a socket, and keeps every byte that it is told."""

import json
import socket
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from websockets.sync.client import ClientConnection, connect

from tests.e2e.daemons import DaemonProcess


PATIENCE = 20.0  # seconds until an answer, on a busy machine

Json = dict[str, Any]


class Wire(Protocol):
    """Whole frames, in both directions."""

    def send(self, frame: bytes) -> None: ...

    def receive(self) -> bytes: ...


class UnixWire:
    """A frame a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")

    def send(self, frame: bytes) -> None:
        self._file.write(frame + b"\n")
        self._file.flush()

    def receive(self) -> bytes:
        return self._file.readline().removesuffix(b"\n")


class WebsocketWire:
    """A frame a text message."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def send(self, frame: bytes) -> None:
        self._connection.send(frame.decode())

    def receive(self) -> bytes:
        frame = self._connection.recv(PATIENCE)
        assert isinstance(frame, str)
        return frame.encode()


@dataclass(frozen=True)
class Told:
    """An answer: the very bytes, and what they say."""

    frame: bytes
    message: Json

    @property
    def result(self) -> Json:
        found: Json = self.message["result"]
        return found

    @property
    def error(self) -> Json:
        found: Json = self.message["error"]
        return found


@dataclass(eq=False)
class Line:
    """A connection that has said who it is."""

    wire: Wire
    _sent: int = 0
    frames: list[bytes] = field(default_factory=list[bytes])

    def ask(self, method: str, **params: Any) -> Told:
        """One request and its answer; what comes before that is kept in `frames`."""
        self._sent += 1
        return self.ask_as(self._sent, method, params)

    def ask_as(self, request: int, method: str, params: Json) -> Told:
        """The same under an id of ours, which no open request may have."""
        message = {"jsonrpc": "2.0", "id": request, "method": method, "params": params}
        self.wire.send(json.dumps(message).encode())
        while True:
            self.frames.append(self.wire.receive())
            answer: Json = json.loads(self.frames[-1])
            if "method" not in answer:
                assert answer["id"] == request
                return Told(self.frames[-1], answer)

    def grant(self, **wish: Any) -> str:
        usual: Json = {"agent": "reader", "tools": ["read_file"]}
        return str(self.ask("_moorage/grant/create", **(usual | wish)).result["grantId"])

    def use(self, grant: str, tool: str = "read_file", agent: str = "reader") -> Told:
        return self.ask("_moorage/grant/use", grantId=grant, agent=agent, tool=tool)


@contextmanager
def over_unix(daemon: DaemonProcess) -> Generator[Line]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(daemon.unix))
        line = Line(UnixWire(connection))
        line.ask("initialize", protocolVersion=1)
        yield line


@contextmanager
def over_websocket(
    daemon: DaemonProcess, token: str | None = None, *, advertises: bool = False
) -> Generator[Line]:
    """With the daemon's own token, or another; a line that `advertises` moorage is served more."""
    headers = {"Authorization": f"Bearer {token or daemon.token}"}
    with connect(daemon.websocket, additional_headers=headers, compression=None) as connection:
        line = Line(WebsocketWire(connection))
        line.ask("initialize", protocolVersion=1, _meta={"moorage": {}} if advertises else {})
        yield line


Dial = Callable[[DaemonProcess], AbstractContextManager[Line]]
WIRES: dict[str, Dial] = {"unix": over_unix, "websocket": over_websocket}
