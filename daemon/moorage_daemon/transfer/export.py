"""A session as a file, one part after the other.

Nothing is kept between two parts: what is needed to go on stands in the cursor. The first part
takes the head and the last number in the same instant, and no later entry is written, so the file
is the session as it was then, whatever happens meanwhile.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

import msgspec
from msgspec import Raw

from moorage_daemon.log.log import Log
from moorage_daemon.store.model import Head
from moorage_daemon.store.port import Store
from moorage_daemon.transfer.lines import (
    START,
    VERSION,
    EndRecord,
    EntryRecord,
    HeaderLine,
    Line,
    chained,
    write,
)
from moorage_protocol.errors import CursorExpired, InvalidParams
from moorage_protocol.transfer import MAX_PART, ExportResult


_CURSOR = re.compile(r"([0-9]{1,16})\.([0-9]{1,16})\.([0-9]{1,16})\.([0-9]{1,9})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Place:
    """How far a file was given.

    Of the entries up to `upto`, those up to `after`, `count` of them, and `offset` bytes of the
    line behind them; `digest` is the checksum of the whole lines.
    """

    upto: int
    after: int = 0
    count: int = 0
    offset: int = 0
    digest: str = START

    def __str__(self) -> str:
        return f"{self.upto}.{self.after}.{self.count}.{self.offset}.{self.digest}"


def _place(cursor: str) -> Place:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidParams("Invalid params: cursor")
    upto, after, count, offset = map(int, found.groups()[:4])
    return Place(upto, after, count, offset, found[5])


async def first_part(store: Store, log: Log, now: float) -> ExportResult:
    """The beginning of the file of a session that is there."""
    header = _header(log.head, log.durable, now)
    place = Place(upto=log.durable, digest=chained(START, header))
    return await _part(store, log.session_id, place, header)


async def next_part(store: Store, session: str, cursor: str) -> ExportResult:
    """What follows; raises `InvalidParams`, and `CursorExpired` if it was trimmed meanwhile."""
    return await _part(store, session, _place(cursor), b"")


def _header(head: Head, seq: int, now: float) -> bytes:
    raw = Raw(msgspec.json.encode(head))
    return write(HeaderLine("session", VERSION, raw, seq, exported=now))


async def _part(store: Store, session: str, place: Place, begun: bytes) -> ExportResult:
    """As many lines as fit behind what has begun, the last one maybe cut."""
    part = bytearray(begun)
    async with aclosing(_lines(store, session, place)) as lines:
        async for line, behind in lines:
            end = place.offset + MAX_PART - len(part)
            part += line[place.offset : end]
            if end < len(line):
                return ExportResult(data=bytes(part), next=str(replace(place, offset=end)))
            place = behind
    return ExportResult(data=bytes(part))


async def _lines(store: Store, session: str, place: Place) -> AsyncGenerator[tuple[bytes, Place]]:
    """The lines from there on, each with the place behind it."""
    while place.after < place.upto:
        page = await store.entries(session, place.after, max_bytes=MAX_PART)
        if (page.gap and place.after) or not page.entries:
            raise CursorExpired
        for entry in page.entries:
            if entry.seq > place.upto:
                break
            line = write(Line(entry=EntryRecord.of(entry)))
            digest = chained(place.digest, line)
            place = Place(place.upto, entry.seq, place.count + 1, digest=digest)
            yield line, place
    yield write(Line(end=EndRecord(place.count, 0, place.digest))), place
