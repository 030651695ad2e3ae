"""What an editor and the daemon owe each other, over any number of connections to the daemon.

The rule: nobody waits for the dead. When a connection is lost, every request that went over it
is answered with an error and every question that came over it is withdrawn; what the daemon
cannot have read yet, and what the editor sends meanwhile, waits for the next connection. That
one begins with the editor's own `initialize`, so that the editor need not know.
No I/O happens here: lines come in, lines are put into the two outboxes.
"""

import json
import os
from collections import deque
from typing import cast

from moorage_clients.bridge import frames
from moorage_clients.bridge.frames import Frame, Kind, Refused, Taken
from moorage_clients.bridge.outbox import Outbox


MAX_WAITING = 1000  # frames that wait for a daemon; then requests are answered with an error
MAX_WAITING_BYTES = 16 * 2**20  # of them; two of the largest frames

INTERNAL_ERROR = -32603  # JSON-RPC 2.0, section 5.1; -32000 would open an editor's login screen
INVALID_REQUEST = -32600

HANDSHAKE = f"moorage-bridge-{os.getpid()}"  # the id of our own request; no editor's is like it
_HANDSHAKE_KEY = json.dumps(HANDSHAKE)
IDENTITY = ("tuiId", "tuiSecret")

LOST = "The moorage daemon went away before it answered. The session is kept: try again."
FULL = "No moorage daemon answers, and too many requests wait for one already."


class Exchange:
    """One editor's conversation with whichever daemon there is."""

    def __init__(self) -> None:
        self.to_editor = Outbox()
        self.to_daemon = Outbox()
        self.is_ready = False  # connected, and the daemon knows the editor
        self._open: dict[str, str | None] = {}  # requests the daemon has not answered: method
        self._asked: set[str] = set()  # requests of the daemon that the editor has not answered
        self._waiting: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._hello: Frame | None = None  # the `initialize` to begin the next connection with
        self._offered: dict[str, Frame] = {}  # the same, not answered yet
        self._identity: dict[str, object] = {}

    @property
    def wants_daemon(self) -> bool:
        """Whether something waits for a connection."""
        return bool(self._waiting)

    @property
    def is_settled(self) -> bool:
        """Whether everything that was said is delivered and answered."""
        return self.is_delivered and not (self._open or self.to_editor)

    @property
    def is_delivered(self) -> bool:
        """Whether the daemon has been given everything the editor said."""
        return not (self._waiting or self.to_daemon)

    def from_editor(self, line: Taken) -> None:
        """Take the editor's next line."""
        if isinstance(line, Refused):
            self._refuse("null", line.problem, INVALID_REQUEST, "invalid_request")
            return
        frame = frames.read(line)
        if frame.kind is Kind.RESPONSE and frame.id not in self._asked:
            return  # to a question that was withdrawn, perhaps by an earlier daemon
        if self.is_ready:
            self._send(frame)
        else:
            self._wait(frame)

    def _send(self, frame: Frame) -> None:
        if frame.kind is Kind.REQUEST and frame.id is not None:
            self._open[frame.id] = frame.method
            if frame.method == "initialize":
                self._offered[frame.id] = frame
        elif frame.kind is Kind.RESPONSE and frame.id is not None:
            self._asked.discard(frame.id)
        self.to_daemon.put(frame.data)

    def _wait(self, frame: Frame) -> None:
        size = self._waiting_bytes + len(frame.data)
        if len(self._waiting) < MAX_WAITING and size <= MAX_WAITING_BYTES:
            self._waiting.append(frame)
            self._waiting_bytes = size
        elif frame.kind is Kind.REQUEST:
            self._refuse(frame.id, FULL)

    def _refuse(
        self, key: str | None, text: str, code: int = INTERNAL_ERROR, kind: str = "daemon_lost"
    ) -> None:
        data = {"code": kind, "retryable": code == INTERNAL_ERROR}
        error = {"code": code, "message": text, "data": data}
        answer = {"jsonrpc": "2.0", "id": json.loads(key or "null"), "error": error}
        self.to_editor.put(_encode(answer))

    def from_daemon(self, line: bytes) -> bool:
        """Take the daemon's next line; False: it will not talk to this editor, so hang up."""
        frame = frames.read(line)
        match frame.kind:
            case Kind.RESPONSE if frame.id == _HANDSHAKE_KEY:
                return self._finish_handshake(frame)
            case Kind.RESPONSE if frame.id is not None:
                self._open.pop(frame.id, None)
                offered = self._offered.pop(frame.id, None)
                if offered is not None and frame.good:
                    self._hello = offered
                    self._remember_identity(frame.result)
            case Kind.REQUEST if frame.id is not None:
                self._asked.add(frame.id)
            case Kind.NOTIFICATION if frame.cancels is not None:
                self._asked.discard(frame.cancels)
            case _:
                pass
        self.to_editor.put(line)
        return True

    def opened(self) -> None:
        """A connection stands; call `from_daemon` with what it brings, `lost` when it ends."""
        if self._hello is None:
            self._begin()
            return
        params = self._with_identity(self._hello.params)
        request = {"jsonrpc": "2.0", "id": HANDSHAKE, "method": "initialize", "params": params}
        self.to_daemon.put(_encode(request))

    def _begin(self) -> None:
        self.is_ready = True
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        for frame in waiting:
            self._send(frame)

    def _finish_handshake(self, frame: Frame) -> bool:
        if frame.good:
            self._remember_identity(frame.result)
            self._begin()
        else:
            self._identity.clear()  # perhaps another daemon's; the next try goes without it
        return frame.good

    def _remember_identity(self, result: object) -> None:
        given = _member(_member(result, "_meta"), "moorage") or {}
        self._identity.update({name: given[name] for name in IDENTITY if name in given})

    def _with_identity(self, params: object) -> object:
        """The params of `initialize`; a client of moorage's own stays the terminal it was."""
        meta = _member(params, "_meta")
        ours = _member(meta, "moorage")
        if meta is None or ours is None or len(self._identity) < len(IDENTITY):
            return params
        meta = {**meta, "moorage": {**ours, **self._identity}}
        return {**cast("dict[str, object]", params), "_meta": meta}

    def lost(self) -> None:
        """The connection is gone: tell the editor what it no longer has to wait for."""
        self.is_ready = False
        unsent = [frames.read(line) for line in self.to_daemon.take_back()]
        unread = {frame.id for frame in unsent if frame.kind is Kind.REQUEST}
        for key in [key for key in self._open if key not in unread]:
            self._refuse(key, LOST)
        self._open.clear()
        self._offered.clear()
        for key in self._asked:
            params = {"requestId": json.loads(key)}
            note = {"jsonrpc": "2.0", "method": "$/cancel_request", "params": params}
            self.to_editor.put(_encode(note))
        self._asked.clear()
        self._wait_again(unsent)

    def _wait_again(self, unsent: list[Frame]) -> None:
        for frame in reversed(unsent):
            if frame.kind is not Kind.RESPONSE and frame.id != _HANDSHAKE_KEY:
                self._waiting.appendleft(frame)
                self._waiting_bytes += len(frame.data)

    def give_up(self, problem: str) -> None:
        """No daemon can be had: answer everything that waits for one."""
        while self._waiting:
            frame = self._waiting.popleft()
            if frame.kind is Kind.REQUEST:
                self._refuse(frame.id, problem)
        self._waiting_bytes = 0


def _encode(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _member(value: object, name: str) -> dict[str, object] | None:
    """The object that `value` holds under `name`; None if either is no object."""
    found = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    return cast("dict[str, object]", found) if isinstance(found, dict) else None
