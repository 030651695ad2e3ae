"""What a journal's frames hold: heads and entries, as JSON.

A body that is a JSON object stands in it as it is; any other, which no entry of ours has, is kept
as base64, so that every body comes back byte for byte.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Raw, Struct

from moorage_daemon.store.model import SCHEMA, Entry
from moorage_daemon.store.port import Change
from moorage_daemon.store.rules import check_id


PIECE = 2**16  # bytes of entries in one frame, about: a page of entries reads little beside them

_NONE = Raw(b"")


class _Line(Struct, frozen=True, omit_defaults=True, gc=False):
    """An entry; it has a `body` or `data`, never both."""

    seq: int
    at: float
    kind: str
    generation: int | None = None
    origin: str | None = None
    body: Raw = _NONE
    data: bytes | None = None


class Place(Struct, frozen=True, gc=False):
    """Where in a session's log a frame stands.

    `version` grows by one with each frame; `seq` is the number of the last entry up to here,
    `first` that of the first one that was not trimmed. The newest head up to here stands in the
    frame that begins at `head_at`, or in this one.
    """

    version: int
    seq: int
    first: int = 1
    head_at: int = 0


class Piece(Place, frozen=True, gc=False):
    """A frame of a journal."""

    head: Raw = _NONE
    entries: list[_Line] = []

    def found(self) -> list[Entry]:
        """Its entries."""
        return [
            Entry(
                line.seq,
                line.at,
                line.kind,
                bytes(line.body) if line.data is None else line.data,
                line.generation,
                line.origin,
            )
            for line in self.entries
        ]


class _HeadSchema(Struct):
    """What must be known of a head of any version."""

    schema: int = 1


_NUMBERS = re.compile(rb'\{"version":([0-9]+),"seq":([0-9]+),')

PLACE = msgspec.json.Decoder(Place)
PIECES = msgspec.json.Decoder(Piece)

_HEAD_SCHEMA = msgspec.json.Decoder(_HeadSchema)
_RAW = msgspec.json.Decoder(Raw)
_LINES = msgspec.json.Encoder()


def schema_of(head: bytes) -> int:
    """The schema of a head of any version; raises `msgspec.DecodeError`."""
    return _HEAD_SCHEMA.decode(head).schema


def numbers_of(payload: bytes) -> tuple[int, int]:
    """A frame's version, and the number of the last entry up to it.

    They stand in front, and the rest is not looked at. Raises `msgspec.DecodeError`.
    """
    found = _NUMBERS.match(payload)
    if found is None:
        raise msgspec.DecodeError("a frame does not begin with its numbers")
    return int(found[1]), int(found[2])


class Draft(Struct, frozen=True):
    """A change as it will be written: the head if it has one, and its entries in pieces.

    Each piece is the number of its last entry and the JSON of the list of its entries.
    """

    session: str
    schema: int
    head: bytes
    pieces: list[tuple[int, bytes]]


def drafted(change: Change) -> Draft:
    """A change, encoded; raises `StoreConflict` for an id that cannot be."""
    check_id(change.session)
    head = b"" if change.head is None else msgspec.json.encode(change.head)
    schema = SCHEMA if change.head is None else change.head.schema
    return Draft(change.session, schema, head, list(in_pieces(change.entries)))


def in_pieces(entries: Iterable[Entry]) -> Iterator[tuple[int, bytes]]:
    """Entries as JSON, about as many in each piece as a frame is to hold."""
    lines: list[_Line] = []
    size = 0
    for entry in entries:
        lines.append(_line(entry))
        size += len(entry.body)
        if size >= PIECE:
            yield entry.seq, _LINES.encode(lines)
            lines, size = [], 0
    if lines:
        yield lines[-1].seq, _LINES.encode(lines)


def _line(entry: Entry) -> _Line:
    embeds = _embeds(entry.body)
    return _Line(
        entry.seq,
        entry.at,
        entry.kind,
        entry.generation,
        entry.origin,
        Raw(entry.body) if embeds else _NONE,
        None if embeds else entry.body,
    )


def _embeds(body: bytes) -> bool:
    """Whether it is a JSON object on one line, and nothing around it."""
    if not (body.startswith(b"{") and body.endswith(b"}")) or b"\n" in body:
        return False
    try:
        _RAW.decode(body)
        return body.isascii() or bool(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def payload_of(place: Place, head: bytes, entries: bytes) -> bytes:
    """The JSON of a frame; `entries` is that of a list, or nothing."""
    parts = [b'{"version":%d,"seq":%d' % (place.version, place.seq)]
    if place.first != 1:
        parts.append(b'"first":%d' % place.first)
    parts.append(b'"head":%b' % head if head else b'"head_at":%d' % place.head_at)
    if entries:
        parts.append(b'"entries":%b' % entries)
    return b",".join(parts) + b"}"
