"""An exchange with a test at both of its ends: the test is the editor, and every daemon."""

import json
from dataclasses import dataclass, field
from typing import Any

from moorage_clients.bridge.exchange import Exchange
from moorage_clients.bridge.framing import Lines
from moorage_clients.bridge.outbox import Outbox
from moorage_clients.identity import Identity


Message = dict[str, Any]

INSTANCE = "bridge-1"
WELCOME: Message = {"tuiId": "me", "tuiSecret": "hush"}


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def drain(box: Outbox) -> list[Message]:
    """All messages of an outbox, as the other end would read them."""
    text, most = b"", 7 if box.size < 2**16 else 2**20
    while box:
        head = box.head(most)
        text += head
        box.wrote(len(head))
    return [json.loads(found) for found in text.splitlines()]


@dataclass(eq=False)
class MemoryIdentities:
    """Identities that outlive an exchange, and no test."""

    kept: dict[str, Identity] = field(default_factory=dict[str, Identity])

    def read(self, name: str) -> Identity | None:
        return self.kept.get(name)

    def keep(self, name: str, identity: Identity, instead_of: Identity | None) -> None:
        if self.kept.get(name) in (None, instead_of):
            self.kept[name] = identity


@dataclass(eq=False)
class Play:
    """What the test says for either side, and what either side gets."""

    identities: MemoryIdentities = field(default_factory=MemoryIdentities)
    exchange: Exchange = field(init=False)
    _from_daemon: Lines = field(init=False, default_factory=Lines)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.identities, INSTANCE)

    # ---- the editor

    def says(self, **message: Any) -> None:
        """The editor says a message."""
        self.exchange.from_editor(line(**message))

    def asks(self, request_id: Any, method: str, **params: Any) -> None:
        self.says(id=request_id, method=method, params=params)

    def notes(self, method: str, **params: Any) -> None:
        self.says(method=method, params=params)

    def prompts(self, request_id: Any, session: str = "s1") -> None:
        self.asks(request_id, "session/prompt", sessionId=session, prompt=[])

    def hears(self) -> list[Message]:
        """What the editor has been sent since it was looked at last."""
        return drain(self.exchange.to_editor)

    # ---- the daemon

    def gets(self) -> list[Message]:
        """What the daemon has been sent since it was looked at last."""
        return drain(self.exchange.to_daemon)

    def daemon(self, **message: Any) -> bool:
        """The daemon says a message; whether the exchange goes on with it."""
        return self.exchange.from_daemon(line(**message))

    def daemon_sends(self, data: bytes) -> None:
        """Bytes come from the daemon, whole frames or not."""
        for found in self._from_daemon.receive(data):
            assert isinstance(found, bytes)
            self.exchange.from_daemon(found)

    def update(self, session: str, seq: int) -> None:
        """The daemon tells an entry."""
        params = {"sessionId": session, "update": {}, "_meta": {"moorage": {"seq": seq}}}
        self.daemon(method="session/update", params=params)

    def creates(self, request_id: Any, session: str = "s1", seq: int = 1) -> None:
        """The editor asks for a session, the daemon gives it."""
        self.asks(request_id, "session/new", cwd="/")
        result = {"sessionId": session, "_meta": {"moorage": {"seq": seq}}}
        self.daemon(id=request_id, result=result)

    def welcomes(self, **moorage: Any) -> Message:
        """The daemon gets a greeting, which has to be all it gets, and answers; gives it."""
        [greeting] = self.gets()
        assert greeting["method"] == "initialize"
        result = {"protocolVersion": 1, "_meta": {"moorage": moorage}}
        assert self.daemon(id=greeting["id"], result=result)
        return greeting

    def takes_back(self, *seqs: int) -> list[Message]:
        """The daemon welcomes the editor again and lets it follow its sessions; gives how."""
        self.welcomes()
        attached: list[Message] = []
        while (found := self._next_attach()) is not None:
            attached.append(found["params"])
            self.daemon(id=found["id"], result={"seq": 99})
        return attached

    def _next_attach(self) -> Message | None:
        """The next attach of the exchange's own, if that is all the daemon is sent."""
        waiting = self.exchange.to_daemon.take_back()
        messages: list[Message] = [json.loads(found) for found in waiting]
        if [message.get("method") for message in messages] == ["_moorage/session/attach"]:
            return messages[0]
        for found in waiting:
            self.exchange.to_daemon.put(found)
        return None

    # ---- both

    def begins(self, *, moorage: Message | None = None, name: str = "zed") -> None:
        """The editor and its first daemon shake hands."""
        self.exchange.opened()
        meta = {} if moorage is None else {"_meta": {"moorage": moorage}}
        self.asks(0, "initialize", protocolVersion=1, clientInfo={"name": name}, **meta)
        self.welcomes(**WELCOME)
        self.hears()

    def cut(self) -> None:
        """The daemon has read everything, and its connection ends."""
        self.gets()
        self.exchange.lost()
        self._from_daemon = Lines()


def begun(**how: Any) -> Play:
    """A play whose editor has shaken hands over its first connection."""
    play = Play()
    play.begins(**how)
    return play
