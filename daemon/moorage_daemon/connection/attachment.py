"""One session as one client follows it.

The client gets a contiguous range of the log, in order, each entry once. Answers that stand in
the log's order leave behind the entry they belong to; questions are put when their entry passes
and taken back when the answer's does.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from moorage_daemon.connection.lending import Call
from moorage_daemon.log.cursor import Cursor
from moorage_daemon.log.render import message_for
from moorage_daemon.session import Session
from moorage_daemon.store.model import AnswerBody, AskBody, Entry, Kind
from moorage_protocol.acp import Shape
from moorage_protocol.errors import RpcError
from moorage_protocol.jsonrpc import RequestId, encode_error, encode_notification
from moorage_protocol.moorage import Access, Detached, DetachReason
from moorage_protocol.peer import Peer


class Asked(msgspec.Struct, frozen=True):
    """A permission request that was sent: which question it is about."""

    session: Session
    tool_call_id: str


Token = Asked | Call  # what an answer of the client is about


class _Answer(msgspec.Struct, frozen=True):
    """What stands behind an entry; `replay` is the request that asked for all up to there."""

    frames: Sequence[bytes]
    replay: RequestId | msgspec.UnsetType


class _Permission(Shape, frozen=True):
    session_id: str
    tool_call: msgspec.Raw
    options: list[msgspec.Raw]


@dataclass(eq=False)
class Attachment:
    """`live_from` is the end of what is replayed: words of `origin` behind it are not echoed."""

    session: Session
    cursor: Cursor
    access: Access
    live_from: int
    connection: str
    tui: str
    origin: str
    moorage: bool
    peer: Peer[Token]
    asked: dict[str, int] = field(default_factory=dict[str, int])  # tool call -> request id
    _answers: list[tuple[int, int, _Answer]] = field(default_factory=list[tuple[int, int, _Answer]])
    _answered: int = 0

    def answer_at(
        self,
        seq: int,
        frames: Sequence[bytes],
        replay: RequestId | msgspec.UnsetType = msgspec.UNSET,
    ) -> None:
        """Send these behind entry `seq`, or an error if the entries up to it cannot be read and
        they are what the request `replay` asked for."""
        self._answered += 1
        heapq.heappush(self._answers, (seq, self._answered, _Answer(frames, replay)))

    def render(self, entries: list[Entry], out: list[bytes]) -> None:
        """Write entries, and what stands in their order, behind what is in `out`."""
        for entry in entries:
            own = entry.origin == self.origin and entry.seq > self.live_from
            message = message_for(self.session.id, entry, moorage=self.moorage, own=own)
            if message is not None:
                out.append(message)
            if entry.kind == Kind.ASK:
                self._ask(msgspec.json.decode(entry.body, type=AskBody), out)
            elif entry.kind == Kind.ANSWER:
                self._retract(msgspec.json.decode(entry.body, type=AnswerBody), out)
            self._release(entry.seq, out)

    def _release(self, seq: int, out: list[bytes]) -> None:
        while self._answers and self._answers[0][0] <= seq:
            out.extend(heapq.heappop(self._answers)[2].frames)

    def _leftover(self) -> list[bytes]:
        """The answers whose entries this client does not wait for any more."""
        return [frame for _, _, answer in sorted(self._answers) for frame in answer.frames]

    # ---- questions

    def ask_open(self, out: list[bytes]) -> None:
        """Put the questions that are open and lie behind the cursor."""
        for ask in self.session.log.told.asks.values():
            if ask.seq <= self.cursor.seq:
                self._ask(ask.body, out)

    def _ask(self, body: AskBody, out: list[bytes]) -> None:
        if self.access is not Access.CONTROLLER or body.tool_call_id in self.asked:
            return
        if self.session.asks.asking(body.tool_call_id, self.connection, self.tui) is None:
            return
        params = _Permission(
            session_id=self.session.id, tool_call=body.tool_call, options=body.options
        )
        token = Asked(self.session, body.tool_call_id)
        request, frame = self.peer.request("session/request_permission", params, token)
        self.asked[body.tool_call_id] = request
        out.append(frame)

    def _retract(self, body: AnswerBody, out: list[bytes]) -> None:
        request = self.asked.pop(body.tool_call_id, None)
        frame = self.peer.retract(request) if request is not None else None
        if frame is not None:
            out.append(frame)

    # ---- the end

    def ending(self) -> bytes | None:
        """The word that the session is over for this client; None while it is not."""
        return self._detached() if self.cursor.at_end else None

    def _detached(self) -> bytes:
        reason = self.session.ends or DetachReason.CLOSED
        told = Detached(session_id=self.session.id, seq=self.cursor.seq, reason=reason)
        return encode_notification("_moorage/session/detached", told)

    def withdraw(self) -> list[bytes]:
        """Ask this client no more, gives the frames that tell it; others are still asked."""
        frames: list[bytes] = []
        for tool_call_id, request in self.asked.items():
            self.session.asks.withdraw(tool_call_id, self.connection)
            frame = self.peer.retract(request)
            frames += [frame] if frame is not None else []
        self.asked.clear()
        return frames

    def fail(self, error: RpcError) -> list[bytes]:
        """The log cannot be read on: follow it no longer; gives what tells the client so."""
        self._answers = [(seq, n, _failed(answer, error)) for seq, n, answer in self._answers]
        frames = self.close()
        return [*frames, self._detached()] if self.moorage else frames

    def close(self) -> list[bytes]:
        """Follow the session no longer; gives what the client is still to be told."""
        self.cursor.close()
        return [*self.withdraw(), *self._leftover()]


def _failed(answer: _Answer, error: RpcError) -> _Answer:
    if answer.replay is msgspec.UNSET:
        return answer  # what it says has happened, whoever can read of it
    return _Answer((encode_error(answer.replay, error),), answer.replay)
