"""A relay's surroundings in one process, without a thread: its editor, daemons, and the time.

Whenever the relay waits, a moment passes and the world does its next step. So a scenario is a
generator: what it yields has to become true before it goes on. The relay itself is the real one,
on real pipes and sockets.
"""

import fcntl
import json
import os
import select
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from moorage_clients.bridge.exchange import Exchange
from moorage_clients.bridge.framing import Headers, Lines
from moorage_clients.bridge.relay import Relay
from moorage_clients.bridge.search import Search
from tests.clients.bridge_play import INSTANCE, MemoryIdentities, Message


MOMENT = 0.05  # seconds that pass at most while the relay waits
END = 1000.0  # seconds; a scenario that takes longer hangs

Scenario = Generator[Callable[[], bool], None, None]


@dataclass(eq=False)
class Daemon:
    """The daemon's end of one connection. Who wants to follow a session again is let, at once."""

    socket: socket.socket
    got: list[Message] = field(default_factory=list[Message])
    is_quick: bool = True
    _lines: Lines = field(default_factory=Lines)

    def read(self) -> None:
        """Take what the relay has sent."""
        try:
            while data := self.socket.recv(2**16):
                for found in self._lines.receive(data):
                    self._take(json.loads(_whole(found)))
        except BlockingIOError:
            pass

    def _take(self, message: Message) -> None:
        self.got.append(message)
        if message.get("method") == "_moorage/session/attach" and self.is_quick:
            self.send(id=message["id"], result={"seq": 1})

    def has(self, method: str) -> bool:
        """Whether it has been asked that."""
        self.read()
        return any(message.get("method") == method for message in self.got)

    def last(self, method: str) -> Message:
        return [message for message in self.got if message.get("method") == method][-1]

    def send(self, **message: Any) -> None:
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def answer(self, method: str, result: Any = None) -> None:
        self.send(id=self.last(method)["id"], result={} if result is None else result)

    def die(self) -> None:
        self.socket.close()


class Waiting:
    """A `select.poll` on the world's time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._poll = select.poll()

    def register(self, fd: int | socket.socket, eventmask: int, /) -> None:
        self._poll.register(fd, eventmask)

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        ready = self._poll.poll(0)
        if not ready:
            self._world.pass_time(END if timeout is None else timeout / 1000)
        return ready


class World:
    """`is_up` says whether a daemon can be had; each connection is one of `daemons`."""

    def __init__(self, *, by_header: bool = False) -> None:
        self.now = 0.0
        self.is_up = True
        self.is_heard = True  # the relay, by its editor
        self.daemons: list[Daemon] = []
        self.heard: list[tuple[float, Message]] = []
        self._by_header = by_header
        self._frames: Lines | Headers = Headers() if by_header else Lines()
        self._relay_in, self._editor_out = os.pipe()
        self._editor_in, self._relay_out = os.pipe()
        fcntl.fcntl(self._editor_out, fcntl.F_SETPIPE_SZ, 2**20)
        os.set_blocking(self._editor_in, False)
        self._scenario: Scenario = iter(())  # type: ignore[assignment]
        self._waits_for: Callable[[], bool] = lambda: True
        self._open = True

    # ---- running

    def run(self, scenario: Callable[["World"], Scenario]) -> None:
        """Let the relay run until the editor is gone, while the scenario happens."""
        self._scenario = scenario(self)
        exchange = Exchange(MemoryIdentities(), INSTANCE)
        search = Search(self, self.now)
        try:
            Relay(
                exchange, search, self._relay_in, self._relay_out, lambda: self.now, self._poll
            ).run()
            self._hear()
        finally:
            self.leave()
            for daemon in self.daemons:
                daemon.die()
            for descriptor in (self._relay_in, self._relay_out, self._editor_in):
                os.close(descriptor)

    def _poll(self) -> "Waiting":
        return Waiting(self)

    def pass_time(self, seconds: float) -> None:
        """The relay waits for that long, if nothing happens; the world's next step happens."""
        self.now += min(seconds, MOMENT)
        assert self.now < END, "the scenario hangs"
        self._hear()
        if self._waits_for():
            try:
                self._waits_for = next(self._scenario)
            except StopIteration:
                self.leave()
                self._waits_for = lambda: False

    # ---- the daemon's side, as the search sees it

    def dial(self) -> socket.socket | None:
        if not self.is_up:
            return None
        here, there = socket.socketpair()
        here.setblocking(False)
        there.setblocking(False)
        self.daemons.append(Daemon(there))
        return here

    def start(self) -> "World":
        return self

    def attempt(self) -> socket.socket | None:
        return self.dial()

    def close(self) -> None:
        """There is nothing to give up."""

    def reap(self) -> bool:
        return False

    @property
    def daemon(self) -> Daemon:
        """The other end of the present connection."""
        return self.daemons[-1]

    # ---- the editor's side

    def say(self, **message: Any) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        head = b"Content-Length: %d\r\n\r\n" % len(data) if self._by_header else b""
        os.write(self._editor_out, head + data + (b"" if self._by_header else b"\n"))

    def leave(self) -> None:
        """The editor closes its end."""
        if self._open:
            self._open = False
            os.close(self._editor_out)

    def _hear(self) -> None:
        try:
            while self.is_heard and (data := os.read(self._editor_in, 2**16)):
                frames = self._frames.receive(data)
                self.heard += [(self.now, json.loads(_whole(found))) for found in frames]
        except BlockingIOError:
            pass

    def answers(self, request_id: Any) -> list[tuple[float, Message]]:
        """The answers to a request, each with its time."""
        return [(at, m) for at, m in self.heard if m.get("id") == request_id and "method" not in m]

    # ---- what a scenario waits for

    def has_answer(self, request_id: Any) -> Callable[[], bool]:
        return lambda: bool(self.answers(request_id))

    def asked(self, method: str) -> Callable[[], bool]:
        """The present daemon has been asked that."""
        return lambda: bool(self.daemons) and self.daemon.has(method)

    def past(self, at: float) -> Callable[[], bool]:
        return lambda: self.now >= at

    def begins(self) -> Scenario:
        """The editor and its first daemon shake hands."""
        self.say(id=0, method="initialize", params={"protocolVersion": 1})
        yield from self.greets()
        yield self.has_answer(0)

    def greets(self) -> Scenario:
        """The present daemon is told who the editor is."""
        yield self.asked("initialize")
        self.daemon.answer("initialize", {"protocolVersion": 1})

    def connected(self, number: int) -> Callable[[], bool]:
        """The relay has found that many daemons by now."""
        return lambda: len(self.daemons) >= number


def _whole(frame: object) -> bytes:
    assert isinstance(frame, bytes)
    return frame
