"""What a client is told of a session: updates, and the entries of its log that are none.

Every numbered message stands for one entry. A kind of update that this version does not know is
kept as it came: a newer daemon is no reason to stop listening.
"""

from typing import TypeVar

import msgspec
from msgspec import Raw

from moorage_protocol import lenient
from moorage_protocol.acp import AgentMessageChunk, Meta, SessionUpdate, Shape, Text
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import EntryMark


T = TypeVar("T")


class Unknown(msgspec.Struct, frozen=True):
    """An update of a kind this version does not know, as JSON text."""

    raw: Raw


class Update(msgspec.Struct, frozen=True):
    """A `session/update`. `seq` is None for the state of something, told at an attach."""

    session_id: str
    update: SessionUpdate | Unknown
    seq: int | None = None
    generation: int | None = None

    @property
    def text(self) -> str | None:
        """What the agent says with it; None if this is no text of the agent's."""
        match self.update:
            case AgentMessageChunk(content=Text(text=text)):
                return text
            case _:
                return None


class LogEntry(msgspec.Struct, frozen=True):
    """An entry without a form in the Agent Client Protocol: admission, ask, answer, verdict …"""

    session_id: str
    seq: int
    kind: str
    raw: Raw
    generation: int | None = None

    def read(self, shape: type[T]) -> T:
        """The entry's own fields; raises `InvalidParams` if it is of another shape."""
        return lenient.decode(self.raw, shape)


Message = Update | LogEntry


# ---- the entries that clients read, by kind


class Admission(Shape, frozen=True):
    """Kind "prompt": a turn was admitted; `position` 0 starts at once.

    One that was `paused` waits for the session to go on.
    """

    by: str
    position: int
    prompt_id: str | None = None
    text: str = ""
    paused: bool = False


class Asked(Shape, frozen=True):
    """Kind "ask"."""

    tool_call_id: str
    title: str
    expires_at: float | None = None


class Answered(Shape, frozen=True):
    """Kind "answer": `outcome` is selected, cancelled or timed_out."""

    tool_call_id: str
    outcome: str
    option_id: str | None = None
    by: str | None = None


class OwnWords(Shape, frozen=True):
    """Kind "message", told in this form to the client that said it."""

    update: Raw


# ---- from the wire


class _UpdateParams(Shape, frozen=True):
    session_id: str
    update: SessionUpdate
    meta: Meta[EntryMark] = msgspec.field(name="_meta", default=Meta[EntryMark]())


class _UnknownParams(Shape, frozen=True):
    session_id: str
    update: Raw
    meta: Meta[EntryMark] = msgspec.field(name="_meta", default=Meta[EntryMark]())


class _EntryParams(Shape, frozen=True):
    session_id: str
    seq: int
    kind: str
    generation: int | None = None


def read_update(params: Raw) -> Update:
    """Read the params of `session/update`; raises `InvalidParams`."""
    try:
        known = lenient.decode(params, _UpdateParams)
    except InvalidParams:
        found = lenient.decode(params, _UnknownParams)
        return _update(found.session_id, Unknown(Raw(bytes(found.update))), found.meta)
    return _update(known.session_id, known.update, known.meta)


def _update(session_id: str, update: SessionUpdate | Unknown, meta: Meta[EntryMark]) -> Update:
    mark = meta.moorage
    if not isinstance(mark, EntryMark):
        return Update(session_id, update)
    return Update(session_id, update, mark.seq, mark.generation)


def read_entry(params: Raw) -> LogEntry:
    """Read the params of `_moorage/session/entry`; raises `InvalidParams`."""
    found = lenient.decode(params, _EntryParams)
    raw = Raw(bytes(params))
    return LogEntry(found.session_id, found.seq, found.kind, raw, found.generation)
