"""The wire form of an entry: one entry, one message.

Updates go to every client as the `session/update` they are. What has no such form goes to
clients that advertised moorage, as `_moorage/session/entry`; so those get a message for every
number, and the others get exactly what the Agent Client Protocol knows.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from moorage_daemon.store.model import UPDATE_KINDS, Entry, Kind, PromptBody
from moorage_daemon.store.port import StoreUnreadable
from moorage_daemon.store.rules import fault_of
from moorage_protocol.acp import Meta, Shape
from moorage_protocol.jsonrpc import encode, encode_notification
from moorage_protocol.moorage import EntryMark


class _Update(Shape, frozen=True):
    session_id: str
    update: msgspec.Raw
    meta: Meta[EntryMark] = msgspec.field(name="_meta", default=Meta[EntryMark]())


_prefix = b'{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"%b","update":'
_suffix = b',"_meta":{"moorage":{"seq":%d}}}}'
_suffix_of_turn = b',"_meta":{"moorage":{"seq":%d,"generation":%d}}}}'

LONG_PROMPT = 256 * 2**10  # bytes of an admission; its turn has the prompt as messages


def check_bodies(session_id: str, entries: Iterable[Entry]) -> None:
    """Raise `StoreUnreadable` if one cannot be told: not every medium knows what it was given."""
    for entry in entries:
        if (fault := fault_of(entry.seq, entry.body)) is not None:
            raise StoreUnreadable(session_id, fault)


def iso(seconds: float) -> str:
    """A time as the Agent Client Protocol writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def update_message(session_id: str, entry: Entry) -> bytes:
    """An update entry as `session/update`; spliced, as this is every streamed chunk's way."""
    mark = (
        _suffix % entry.seq
        if entry.generation is None
        else _suffix_of_turn % (entry.seq, entry.generation)
    )
    return (_prefix % session_id.encode()) + entry.body + mark


def snapshot_message(session_id: str, update: msgspec.Struct) -> bytes:
    """An update that is no entry: the state of something when a client attaches."""
    return encode_notification(
        "session/update", _Update(session_id=session_id, update=msgspec.Raw(encode(update)))
    )


def entry_message(session_id: str, entry: Entry) -> bytes:
    """An entry as `_moorage/session/entry`."""
    return b"".join((
        b'{"jsonrpc":"2.0","method":"_moorage/session/entry","params":{"sessionId":"',
        session_id.encode(), b'",', entry_fields(entry)[1:], b"}",
    ))  # fmt: skip


def entry_object(entry: Entry) -> msgspec.Raw:
    """An entry as an item of a list of entries."""
    return msgspec.Raw(entry_fields(entry, at=True))


def entry_fields(entry: Entry, *, at: bool = False) -> bytes:
    """`{seq, at?, generation?, kind, …}` with the body's fields, or the body under `update`."""
    body = _fitting(entry)
    stamp = b'"at":%b,' % encode(entry.at) if at else b""
    turn = b'"generation":%d,' % entry.generation if entry.generation is not None else b""
    start = b'{"seq":%d,%b%b"kind":%b' % (entry.seq, stamp, turn, encode(entry.kind))
    if entry.kind in UPDATE_KINDS:
        return start + b',"update":' + body + b"}"
    return start + (b"," + body[1:] if len(body) > 2 else b"}")


def _fitting(entry: Entry) -> bytes:
    """The body as it fits a message: the blocks of a long waiting prompt stay behind."""
    if entry.kind == Kind.PROMPT and len(entry.body) > LONG_PROMPT:
        body = msgspec.json.decode(entry.body, type=PromptBody)
        return encode(replace(body, content=None))
    return entry.body


def message_for(session_id: str, entry: Entry, *, moorage: bool, own: bool) -> bytes | None:
    """The message that tells one client of an entry, None if it is not for that client.

    `own` says that the entry repeats what this very client just sent: it is not drawn twice.
    """
    if entry.kind in UPDATE_KINDS and not own:
        return update_message(session_id, entry)
    return entry_message(session_id, entry) if moorage else None
