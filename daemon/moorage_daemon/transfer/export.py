"""A session as a file, one part after the other.

Nothing is kept between two parts: what is needed to go on stands in the cursor. The first part
takes the head and the last number in the same instant, and no later entry is written, so the file
is the session as it was then, whatever happens meanwhile.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import astuple, dataclass, replace

import msgspec
from msgspec import Raw

from moorage_daemon.log.log import Log
from moorage_daemon.log.losses import Lost, lost_of
from moorage_daemon.store.model import Entry, Head
from moorage_daemon.store.port import MAX_BLOB, Store
from moorage_daemon.transfer.lines import (
    START,
    VERSION,
    BlobRecord,
    EndRecord,
    EntryRecord,
    HeaderLine,
    Line,
    blobs_behind,
    chained,
    write,
)
from moorage_protocol.errors import CursorExpired, InvalidParams
from moorage_protocol.transfer import MAX_PART, ExportResult


PIECE = 2**18  # bytes of a blob in one line

_CURSOR = re.compile(r"(?:[0-9]{1,16}\.){6}[0-9a-f]{64}")


@dataclass(frozen=True)
class Place:
    """How far a file was given.

    Of the entries up to `upto`, those up to `after`, `count` of them; of the blobs of the last of
    them `pieces` lines, `blobs` in all; and `offset` bytes of the line behind these. `digest` is
    the checksum of the whole lines.
    """

    upto: int
    after: int = 0
    count: int = 0
    pieces: int = 0
    blobs: int = 0
    offset: int = 0
    digest: str = START

    def __str__(self) -> str:
        return ".".join(map(str, astuple(self)))

    def behind(self, line: bytes, **changes: int) -> "Place":
        """The place behind one more whole line."""
        return replace(self, offset=0, digest=chained(self.digest, line), **changes)


def _place(cursor: str) -> Place:
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidParams("Invalid params: cursor")
    *numbers, digest = cursor.split(".")
    upto, after, count, pieces, blobs, offset = map(int, numbers)
    return Place(upto, after, count, pieces, blobs, offset, digest)


async def first_part(store: Store, log: Log, now: float) -> ExportResult:
    """The beginning of the file of a session that is there."""
    header = _header(log.head, log.durable, now)
    place = Place(upto=log.durable, digest=chained(START, header))
    return await _part(store, log.head, place, header)


async def next_part(store: Store, log: Log, cursor: str) -> ExportResult:
    """What follows; raises `InvalidParams`, and `CursorExpired` if it was trimmed meanwhile."""
    return await _part(store, log.head, _place(cursor), b"")


def _header(head: Head, seq: int, now: float) -> bytes:
    raw = Raw(msgspec.json.encode(head))
    return write(HeaderLine("session", VERSION, raw, seq, exported=now))


async def _part(store: Store, head: Head, place: Place, begun: bytes) -> ExportResult:
    """As many lines as fit behind what has begun, the last one maybe cut."""
    part = bytearray(begun)
    blobs = _Blobs(store, await lost_of(store, head))
    async with aclosing(_lines(blobs, head.id, place)) as lines:
        async for line, behind in lines:
            end = place.offset + MAX_PART - len(part)
            part += line[place.offset : end]
            if end < len(line):
                return ExportResult(data=bytes(part), next=str(replace(place, offset=end)))
            place = behind
    return ExportResult(data=bytes(part))


async def _lines(
    blobs: "_Blobs", session: str, place: Place
) -> AsyncGenerator[tuple[bytes, Place]]:
    """The lines from there on, each with the place behind it."""
    store = blobs.store
    if place.after:
        page = await store.entries(session, place.after - 1, limit=1)
        for entry in page.entries:
            async with aclosing(blobs.lines(entry, place)) as lines:
                async for line, behind in lines:
                    place = behind
                    yield line, place
    while place.after < place.upto:
        page = await store.entries(session, place.after, max_bytes=MAX_PART)
        if (page.gap and place.after) or not page.entries:
            raise CursorExpired
        for entry in page.entries:
            if entry.seq > place.upto:
                break
            line = write(Line(entry=EntryRecord.of(entry)))
            place = place.behind(line, after=entry.seq, count=place.count + 1, pieces=0)
            yield line, place
            async with aclosing(blobs.lines(entry, place)) as lines:
                async for line, behind in lines:
                    place = behind
                    yield line, place
    yield write(Line(end=EndRecord(place.count, place.blobs, place.digest))), place


@dataclass(frozen=True)
class _Blobs:
    """The blobs of one session, as far as they are its own."""

    store: Store
    lost: Lost

    async def lines(self, entry: Entry, place: Place) -> AsyncGenerator[tuple[bytes, Place]]:
        """The lines of the blobs that go with an entry, without those that were given."""
        number = 0
        for digest in sorted(blobs_behind(entry.kind, entry.body)):
            size = await self._size(entry.seq, digest)
            for start in range(0, max(size or 0, 1), PIECE):
                number += 1
                if number <= place.pieces:
                    continue
                part = await self.store.get_blob(digest, start, PIECE) if size else None
                data = b"" if part is None else part.data
                record = BlobRecord(digest, size or 0, start, data, missing=size is None)
                line = write(Line(blob=record))
                is_last = start + PIECE >= (size or 0)
                place = place.behind(line, pieces=number, blobs=place.blobs + is_last)
                yield line, place

    async def _size(self, seq: int, digest: str) -> int | None:
        """Bytes of a blob; None if that entry has none, or more than anybody could bring in."""
        if self.lost.covers(seq, digest):
            return None
        found = await self.store.get_blob(digest, 0, 0)
        return None if found is None or found.size > MAX_BLOB else found.size
