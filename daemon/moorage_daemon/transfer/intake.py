"""Reads one file: its lines as they come, into a session that exists when all of them were right.

A line that is not what it has to be ends it, by its number; nothing of the file stays. The file is
read in the order of its bytes, one part at a time, and no more of it is kept than one line.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from moorage_daemon.identity import is_id, new_id
from moorage_daemon.sessions import Sessions
from moorage_daemon.store.model import Head, ImportedBody
from moorage_daemon.transfer.a3s import A3sReading
from moorage_daemon.transfer.arriving import Arriving
from moorage_daemon.transfer.checking import checked, read_head, taken_over
from moorage_daemon.transfer.landing import Landing
from moorage_daemon.transfer.lines import (
    MAX_LINE,
    START,
    VERSION,
    BadLine,
    BlobRecord,
    EndRecord,
    EntryRecord,
    HeaderLine,
    Line,
    blobs_behind,
    chained,
    read,
    size_said,
)
from moorage_protocol.errors import InvalidParams
from moorage_protocol.transfer import Imported


BREATH = 64  # lines after which others run: some 500 µs


@dataclass(frozen=True)
class Importer:
    """Who brings a file, and whether the session keeps its id and the rules that allow calls."""

    principal: str
    owner: str
    keep_id: bool = False
    keep_allowed: bool = False
    agent: str = ""  # who answers in a session that names no agent of ours


class Reading(Protocol):
    """What one kind of file means, line by line; `read` and `finish` raise `BadLine`."""

    landing: Landing

    @property
    def blobs(self) -> int:
        """How many blobs came."""
        ...

    async def read(self, line: bytes) -> None:
        """Take the next line behind the first."""
        ...

    def finish(self) -> ImportedBody:
        """All lines were read: what is there to say about them?"""
        ...


class _First(Struct, frozen=True):
    """What kind of file it is."""

    moorage: str | UnsetType = UNSET
    a3s: str | UnsetType = UNSET


@dataclass(eq=False)
class Intake:
    """A file that is being read; `offset` bytes of it have come."""

    sessions: Sessions
    is_taken: Callable[[str], bool]
    importer: Importer
    offset: int = 0
    lines: int = 0
    touched: float = field(default_factory=trio.current_time)
    is_busy: bool = False
    _rest: bytearray = field(default_factory=bytearray)
    _reading: Reading | None = None

    async def take(self, data: bytes) -> None:
        """Read the next bytes; raises `InvalidParams`, `StorageError`."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if max((len(line) for line in (*lines, rest)), default=0) > MAX_LINE:
            raise self._bad(f"it has more than {MAX_LINE} bytes")
        for line in lines:
            self.lines += 1
            if self.lines % BREATH == 0:
                await trio.lowlevel.checkpoint()
            try:
                await self._take_line(bytes(line) + b"\n")
            except BadLine as problem:
                raise self._bad(str(problem)) from problem
        if self._reading is not None:
            await self._reading.landing.flush()

    def _bad(self, problem: str) -> InvalidParams:
        return InvalidParams(f"Invalid params: line {max(self.lines, 1)}: {problem}")

    async def _take_line(self, line: bytes) -> None:
        if self._reading is not None:
            return await self._reading.read(line)
        first = read(line, _First)
        if first.a3s == "session":
            who = self.importer
            if who.keep_id:
                raise BadLine("its id is none of moorage's: import it under a new one")
            self._reading = A3sReading(
                self.sessions,
                line,
                principal=who.principal,
                owner=who.owner,
                agent=who.agent,
                keep_allowed=who.keep_allowed,
            )
            return None
        if first.moorage != "session":
            raise BadLine("this is no session that was exported")
        self._reading = _OwnReading(self, line)
        return None

    async def finish(self) -> Imported:
        """The file has ended: let its session be seen."""
        reading = self._reading
        if reading is None or self._rest:
            raise self._bad("the file ends in the middle of it")
        try:
            note = reading.finish()
        except BadLine as problem:
            raise self._bad(str(problem)) from problem
        note = await reading.landing.complete(note)
        landed = reading.landing
        return Imported(
            session_id=landed.head.id,
            entries=landed.log.seq,
            blobs=reading.blobs,
            notes=list(note.notes),
        )

    async def discard(self) -> None:
        """Leave nothing of it."""
        if self._reading is not None:
            await self._reading.landing.discard()

    @property
    def session_id(self) -> str | None:
        """The id that the session will have; None while that is not known."""
        return None if self._reading is None else self._reading.landing.head.id


class _OwnReading:
    """A file that `export` wrote."""

    def __init__(self, intake: Intake, line: bytes) -> None:
        header = read(line, HeaderLine)
        if header.version != VERSION:
            raise BadLine(f"version is {header.version}, this daemon knows {VERSION}")
        self._importer = intake.importer
        self._notes: list[str] = []
        self._digest = chained(START, line)
        self._header = header
        self._said = read_head(header)
        self._entries = 0
        self._skipped = 0
        self._is_over = False
        self._arriving = Arriving(intake.sessions.committer.store)
        self.landing = Landing(intake.sessions, self._head(intake))

    def _head(self, intake: Intake) -> Head:
        importer = intake.importer
        taken = taken_over(self._said, self._notes, keep_allowed=importer.keep_allowed)
        session = claimed_id(taken.id, intake.is_taken) if importer.keep_id else new_id()
        return replace(taken, id=session, principal=importer.principal, owner=importer.owner)

    @property
    def blobs(self) -> int:
        """How many came."""
        return self._arriving.count

    async def read(self, line: bytes) -> None:
        """Take the next line."""
        if self._is_over:
            raise BadLine("nothing may follow the last line")
        match read(line, Line):
            case Line(blob=BlobRecord() as blob):
                await self._arriving.take(blob)
            case Line(entry=EntryRecord() as entry):
                self._take_entry(entry)
            case Line(end=EndRecord() as end):
                self._end(end)
            case _:
                raise BadLine("it is neither an entry, nor of a blob, nor the end")
        self._digest = chained(self._digest, line)

    def _take_entry(self, record: EntryRecord) -> None:
        self._arriving.must_be_done()
        if self._entries == 0:
            self._skipped = record.seq - 1  # of a log whose beginning was trimmed
        body = checked(record, self.landing.next + self._skipped)
        self.landing.add(record.kind, body, at=record.at, generation=record.generation)
        self._arriving.expect(blobs_behind(record.kind, body), size_said(record.kind, body))
        self._entries += 1

    def _end(self, end: EndRecord) -> None:
        self._arriving.must_be_done()
        if end.blobs != self.blobs:
            raise BadLine(f"there are {self.blobs} blobs, and not as many as it says")
        if end.entries != self._entries or self.landing.log.seq + self._skipped != self._header.seq:
            raise BadLine(f"there are {self._entries} entries, and not as many as it says")
        if end.sha256 != self._digest:
            raise BadLine("the lines before it are not those that were written: bad checksum")
        self._is_over = True

    def finish(self) -> ImportedBody:
        """All lines were read."""
        if not self._is_over:
            raise BadLine("the file is cut: its last line is missing")
        if self._skipped:
            self._notes.append(f"entries up to {self._skipped} had been trimmed")
            self.landing.account.is_whole = False
        return ImportedBody(
            source="moorage",
            former_id=self._said.id,
            by=self._importer.owner,
            notes=(*self._notes, *self._arriving.notes()),
            lost=self._arriving.lost,
        )


def claimed_id(session: str, is_taken: Callable[[str], bool]) -> str:
    """The id that a session is to keep; raises `BadLine` if it cannot."""
    if not is_id(session):
        raise BadLine("its id is none of moorage's: import it under a new one")
    if is_taken(session):
        raise BadLine("a session of that id is there: nothing is overwritten")
    return session
