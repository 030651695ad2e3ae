"""An editor behind an exchange, in front of a daemon that is all it is in life but for its bytes.

What is on its way in either direction can be lost at any frame, and the editor's account says
whether it has noticed.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_clients.bridge.exchange import Exchange
from moorage_clients.bridge.outbox import Outbox
from moorage_clients.bridge.places import Places
from moorage_daemon.store.model import UPDATE_KINDS
from tests.clients.bridge_play import INSTANCE, MemoryIdentities, Message, line
from tests.daemon.harness import Daemon
from tests.daemon.twin import Wire


@dataclass(eq=False)
class Editor:
    """A plain editor. `heard` is all that it was sent, `asked` the ids of its requests."""

    places: Places = field(default_factory=Places)
    heard: list[Message] = field(default_factory=list[Message])
    asked: list[int] = field(default_factory=list[int])
    exchange: Exchange = field(init=False)
    wire: Wire | None = None
    _may_read: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.read_on()
        self.exchange = Exchange(MemoryIdentities(), INSTANCE, self.places)

    # ---- the connection

    def connect(self, daemon: Daemon) -> None:
        """Connect to a daemon."""
        self.wire = daemon.wire()
        self.exchange.opened()
        daemon.clients.start_soon(self._receive, self.wire)
        self._flush()

    async def _receive(self, wire: Wire) -> None:
        try:
            async for frames in wire.incoming:
                await self._may_read.wait()
                if self.wire is not wire:
                    return
                for frame in frames:
                    assert self.exchange.from_daemon(frame)
                    self._flush()
        except trio.ClosedResourceError:
            pass

    def _flush(self) -> None:
        frames = _lines(self.exchange.to_daemon)
        if self.wire is not None and frames:
            self.wire.outgoing.send_nowait(frames)
        self.heard += [msgspec.json.decode(data) for data in _lines(self.exchange.to_editor)]

    def stop_reading(self) -> None:
        """Leave on its way what the daemon sends."""
        if self._may_read.is_set():
            self._may_read = trio.Event()

    def read_on(self) -> None:
        self._may_read.set()

    def lose(self) -> None:
        """The connection ends; what was on its way in either direction is lost."""
        wire, self.wire = self.wire, None
        self.read_on()
        if wire is not None:
            wire.close()
        self.exchange.lost()
        self._flush()

    # ---- what it says

    def says(self, **message: Any) -> None:
        self.exchange.from_editor(line(**message))
        self._flush()

    def asks(self, method: str, **params: Any) -> int:
        """Send a request; gives its id."""
        self.asked.append(len(self.asked))
        self.says(id=self.asked[-1], method=method, params=params)
        return self.asked[-1]

    def prompts(self, session: str, text: str = "hello") -> int:
        return self.asks(
            "session/prompt", sessionId=session, prompt=[{"type": "text", "text": text}]
        )

    async def new(self) -> str:
        """A new session."""
        answer = await self.answer(self.asks("session/new", cwd="/work", mcpServers=[]))
        session: str = answer["result"]["sessionId"]
        return session

    # ---- what it was told

    def answers(self, request_id: int) -> list[Message]:
        return [m for m in self.heard if m.get("id") == request_id and "method" not in m]

    async def answer(self, request_id: int) -> Message:
        """The answer to a request; there has to be one."""
        await wait_all_tasks_blocked()
        [answer] = self.answers(request_id)
        return answer

    def updates(self, session: str) -> list[Message]:
        """What was told of a session's log."""
        told = [m["params"] for m in self.heard if m.get("method") == "session/update"]
        return [p for p in told if p["sessionId"] == session and "_meta" in p]

    def text(self, session: str) -> str:
        """What the agent said."""
        chunks = [params["update"] for params in self.updates(session)]
        said = [c for c in chunks if c["sessionUpdate"] == "agent_message_chunk"]
        return "".join(chunk["content"]["text"] for chunk in said)

    async def problems(self, daemon: Daemon, sessions: list[str]) -> list[str]:
        """What this editor has noticed of all that was lost, beside cancelled turns."""
        wrong = [
            f"{message}"
            for message in self.heard
            if message.get("method", "session/update") not in EXPECTED or "error" in message
        ]
        counted = Counter(m["id"] for m in self.heard if "method" not in m)
        wrong += [f"{n} answers to {i}" for i in self.asked if (n := counted.pop(i, 0)) != 1]
        wrong += [f"an answer to {key}" for key in counted]
        for session in sessions:
            wrong += await self._compare(daemon, session)
        return wrong

    async def _compare(self, daemon: Daemon, session: str) -> list[str]:
        """What was told has to be the log, once and in order, without the editor's own words."""
        log = [e for e in await daemon.log(session) if e.kind in UPDATE_KINDS and not e.origin]
        told = [(p["_meta"]["moorage"]["seq"], p["update"]) for p in self.updates(session)]
        if told == [(entry.seq, msgspec.json.decode(entry.body)) for entry in log]:
            return []
        return [f"told {[seq for seq, _ in told]}, logged {[entry.seq for entry in log]}"]


EXPECTED = {"session/update", "session/request_permission", "$/cancel_request"}


def _lines(box: Outbox) -> list[bytes]:
    return box.take_back()


async def begun(daemon: Daemon, places: Places | None = None) -> Editor:
    """An editor that has shaken hands with its first daemon."""
    editor = Editor(Places() if places is None else places)
    editor.connect(daemon)
    editor.asks("initialize", protocolVersion=1, clientInfo={"name": "an editor", "version": "1"})
    await wait_all_tasks_blocked()
    return editor
