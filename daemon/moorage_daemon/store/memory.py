"""Sessions in memory: the twin of the stores on disk, and a backend for a daemon without one.

Heads are kept encoded, so that nobody holds a part of what is stored; entries are immutable
through and through. It refuses what any store refuses, but it is never full and never fails.
"""

import hashlib
import time
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from moorage_daemon.store.model import Entry, Head
from moorage_daemon.store.naming import blobs_named
from moorage_daemon.store.port import (
    MAX_BLOB,
    Blob,
    BlobMismatch,
    BlobPart,
    BlobTooLarge,
    Change,
    Collected,
    Missing,
    Page,
    Problem,
    Report,
    Stored,
    problem_of,
)
from moorage_daemon.store.rules import Tip, advance, cut_page, fault_of, trimmed_to


@dataclass(slots=True)
class _Kept:
    """One session; entry `seq` lies at index `seq - first`."""

    head: bytes
    schema: int
    entries: list[Entry] = field(default_factory=list[Entry])
    first: int = 1

    @property
    def seq(self) -> int:
        return self.first + len(self.entries) - 1

    def stored(self) -> Stored:
        return Stored(msgspec.json.decode(self.head, type=Head), self.seq, self.first)


class MemoryStore:
    """A store that lasts as long as the object, `blobs` by digest among it; `clock` says how long
    ago one was used."""

    name = "memory"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[str, _Kept] = {}
        self.blobs: dict[str, bytes] = {}
        self._used: dict[str, float] = {}  # when each was put or read last
        self._holds_reserve = True
        self._is_closed = False

    async def commit(self, changes: Sequence[Change]) -> None:
        """Write all changes or none."""
        await self._enter()
        advance(changes, self._tip, lambda: len(self._sessions))
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        if change.head is not None:
            head = msgspec.json.encode(change.head)
            kept = self._sessions.setdefault(change.session, _Kept(head, change.head.schema))
            kept.head, kept.schema = head, change.head.schema
        self._sessions[change.session].entries.extend(change.entries)

    def _tip(self, session: str) -> Tip | None:
        kept = self._sessions.get(session)
        return None if kept is None else Tip(kept.seq, kept.schema)

    async def list(self) -> list[Stored]:
        """All sessions, by id."""
        await self._enter()
        return [kept.stored() for _, kept in sorted(self._sessions.items())]

    async def damaged(self) -> Sequence[Problem]:
        """None can be."""
        await self._enter()
        return []

    async def load(self, session: str) -> Stored | None:
        """One session, None if it does not exist."""
        await self._enter()
        kept = self._sessions.get(session)
        return None if kept is None else kept.stored()

    async def entries(
        self,
        session: str,
        after: int = 0,
        *,
        limit: int = 500,
        max_bytes: int = 2**18,
        kinds: frozenset[str] | None = None,
    ) -> Page:
        """Entries with `seq > after`, cut as the port says."""
        await self._enter()
        kept = self._sessions.get(session)
        if kept is None:
            return Page([])
        after = max(after, 0)
        tail = kept.entries[max(after + 1 - kept.first, 0) :]
        wanted = (entry for entry in tail if kinds is None or entry.kind in kinds)
        return cut_page(wanted, limit, max_bytes, gap=kept.first > after + 1)

    async def delete(self, session: str) -> bool:
        """Remove all of a session; False if there was none."""
        await self._enter()
        return self._sessions.pop(session, None) is not None

    async def trim(self, session: str, before: int) -> int:
        """Remove the entries with `seq < before`, but never the last one."""
        await self._enter()
        kept = self._sessions.get(session)
        if kept is None:
            return 0
        first = trimmed_to(session, Tip(kept.seq, kept.schema), kept.first, before)
        count = first - kept.first
        del kept.entries[:count]
        kept.first = first
        return count

    async def compact(self) -> int:
        """Nothing is kept that could be given back."""
        await self._enter()
        return 0

    async def check(self) -> Report:
        """Memory is whole; what was given may be no entry, what is named never have been there."""
        await self._enter()
        count = sum(len(kept.entries) for kept in self._sessions.values())
        absent: dict[str, list[str]] = {}
        for session, kept in sorted(self._sessions.items()):
            named = frozenset[str]().union(*map(blobs_named, kept.entries))
            for digest in named - self.blobs.keys():
                absent.setdefault(digest, []).append(session)
        missing = [Missing(digest, tuple(found)) for digest, found in sorted(absent.items())]
        problems = [*self._faults(), *map(problem_of, missing)]
        return Report(len(self._sessions), count, len(self.blobs), problems)

    def _faults(self) -> Iterator[Problem]:
        """The first entry of each session that cannot be told."""
        for session, kept in sorted(self._sessions.items()):
            faults = (fault_of(entry.seq, entry.body) for entry in kept.entries)
            if (fault := next(filter(None, faults), None)) is not None:
                yield Problem(fault, session)

    def free(self) -> int | None:
        """Memory has no end that anybody knows."""
        return None

    async def put_blob(
        self, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> Blob:
        """Keep bytes once."""
        await self._enter()
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > min(max_bytes, MAX_BLOB):
                raise BlobTooLarge(f"more than {min(max_bytes, MAX_BLOB)} bytes")
        name = hashlib.sha256(data).hexdigest()
        if sha256 not in (None, name):
            raise BlobMismatch(f"the bytes have the digest {name}, not {sha256}")
        is_new = name not in self.blobs
        self.blobs[name] = bytes(data)
        self._used[name] = self._clock()
        return Blob(name, len(data), is_new)

    async def get_blob(self, sha256: str, offset: int = 0, limit: int = 2**18) -> BlobPart | None:
        """At most `limit` bytes of a blob; None if there is none."""
        await self._enter()
        data = self.blobs.get(sha256)
        if data is None:
            return None
        self._used[sha256] = self._clock()
        return BlobPart(data[offset : offset + limit], len(data))

    async def collect(self, grace: float) -> Collected:
        """Remove the blobs that no entry names and nobody used for a while."""
        await self._enter()
        entries = (entry for kept in self._sessions.values() for entry in kept.entries)
        named = {digest for entry in entries for digest in blobs_named(entry)}
        since = self._clock() - grace
        unused = [name for name in self.blobs if name not in named and self._used[name] <= since]
        return Collected(len(unused), sum(len(self.blobs.pop(name)) for name in unused))

    async def tip(self, session: str) -> int | None:
        """The number of the last entry (0 for none), None for an unknown session."""
        await self._enter()
        tip = self._tip(session)
        return None if tip is None else tip.seq

    async def reopen(self) -> None:
        """Nothing was lost."""
        await self._enter()

    def release_reserve(self) -> bool:
        """Memory keeps nothing back, but answers as if it did."""
        held, self._holds_reserve = self._holds_reserve, False
        return held

    def restore_reserve(self) -> bool:
        """Always possible."""
        self._holds_reserve = True
        return True

    async def health(self) -> None:
        """Memory is well."""
        await self._enter()

    async def aclose(self) -> None:
        """Refuse all further use."""
        self._is_closed = True
        await trio.lowlevel.checkpoint()

    async def _enter(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint()
