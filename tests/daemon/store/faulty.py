"""A store that fails, waits or is full when a test says so, around one that does not."""

from collections.abc import AsyncIterable, Sequence

import trio
from msgspec.structs import replace

from moorage_daemon.store.port import (
    Blob,
    BlobPart,
    Change,
    Collected,
    Page,
    Problem,
    Report,
    Store,
    StoreBroken,
    StoreConflict,
    Stored,
    StoreError,
    StoreFull,
    StoreTooLarge,
    StoreUnreadable,
)


class FaultyStore:
    """Passes everything on to `inner` until it is told otherwise.

    `commits` are the commits that were written, in order, and `tried` counts all of them.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.name = inner.name
        self.commits: list[tuple[Change, ...]] = []
        self.tried = 0
        self.reopened = 0
        self.proved = 0  # times that somebody asked for its health
        self.unreadable: set[str] = set()  # sessions whose load and entries fail
        self.left: int | None = None  # bytes of free space, as far as anybody knows
        self.unreadable_entries: set[str] = set()  # sessions of which only the head can be read
        self.garbled: set[str] = set()  # sessions whose entries have bodies that are no JSON
        self.refused: set[str] = set()  # sessions that take no commit
        self.most: int | None = None  # bytes of entry bodies that one commit takes
        self._faults: list[tuple[Exception, bool]] = []
        self._reopen_faults: list[StoreError] = []
        self._gate: trio.Event | None = None
        self._read_gate: trio.Event | None = None
        self._is_full = False
        self._reserve = 0
        self._spare = 0

    # ---- what a test says

    def fail_next(self, error: Exception, *, times: int = 1, written: bool = False) -> None:
        """Raise `error` from the next commits; if `written`, after they have been written."""
        self._faults += [(error, written)] * times

    def break_next(self, *, times: int = 1, written: bool = False) -> None:
        """The medium fails under the next commits."""
        self.fail_next(StoreBroken("broken by the test"), times=times, written=written)

    def fail_reopen(self, *, times: int = 1) -> None:
        """The next attempts to reopen fail."""
        self._reopen_faults += [StoreBroken("still broken by the test")] * times

    def fill(self, *, reserve: int = 0) -> None:
        """No space from now on; after `release_reserve`, enough for `reserve` commits."""
        self._is_full = True
        self._reserve = reserve
        self._spare = 0

    def make_room(self) -> None:
        """There is space again."""
        self._is_full = False

    def hold(self) -> None:
        """Let commits and removals wait, before anything is written, until `release`."""
        if self._gate is None:
            self._gate = trio.Event()

    def release(self) -> None:
        """Let the waiting commits go on."""
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    def hold_reads(self) -> None:
        """Let reads of entries wait, before anything is read, until `release_reads`."""
        self._read_gate = trio.Event()

    def release_reads(self) -> None:
        """Let the waiting reads go on."""
        if self._read_gate is not None:
            self._read_gate.set()
            self._read_gate = None

    # ---- the store

    def _must_fit(self, changes: Sequence[Change]) -> None:
        sizes = {c.session: sum(len(entry.body) for entry in c.entries) for c in changes}
        if self.most is not None and sum(sizes.values()) > self.most:
            raise StoreTooLarge(max(sizes, key=lambda s: sizes[s]), "too large for the test")

    async def commit(self, changes: Sequence[Change]) -> None:
        self.tried += 1
        if self._gate is not None:
            await self._gate.wait()
        error, is_written = self._faults.pop(0) if self._faults else (None, False)
        if error is not None and not is_written:
            raise error
        for change in changes:
            if change.session in self.refused:
                raise StoreConflict(change.session, "refused by the test")
        self._must_fit(changes)
        self._take_space()
        await self.inner.commit(changes)
        self.commits.append(tuple(changes))
        if error is not None:
            raise error

    def _take_space(self) -> None:
        if self._is_full:
            if self._spare == 0:
                raise StoreFull("filled by the test")
            self._spare -= 1

    async def list(self) -> list[Stored]:
        return [stored for stored in await self.inner.list() if self._is_readable(stored.head.id)]

    async def load(self, session: str) -> Stored | None:
        self._check_readable(session)
        return await self.inner.load(session)

    async def entries(
        self,
        session: str,
        after: int = 0,
        *,
        limit: int = 500,
        max_bytes: int = 2**18,
        kinds: frozenset[str] | None = None,
    ) -> Page:
        if self._read_gate is not None:
            await self._read_gate.wait()
        self._check_readable(session)
        if session in self.unreadable_entries:
            raise StoreUnreadable(session, "its entries were made unreadable by the test")
        page = await self.inner.entries(
            session, after, limit=limit, max_bytes=max_bytes, kinds=kinds
        )
        if session not in self.garbled:
            return page
        return replace(page, entries=[replace(entry, body=b"{{") for entry in page.entries])

    async def delete(self, session: str) -> bool:
        if self._gate is not None:
            await self._gate.wait()
        self._take_space()
        return await self.inner.delete(session)

    async def damaged(self) -> Sequence[Problem]:
        found = [Problem("made unreadable by the test", session) for session in self.unreadable]
        return [*await self.inner.damaged(), *found]

    async def trim(self, session: str, before: int) -> int:
        self._take_space()
        return await self.inner.trim(session, before)

    async def compact(self) -> int:
        return await self.inner.compact()

    async def check(self) -> Report:
        return await self.inner.check()

    def free(self) -> int | None:
        return self.left

    async def put_blob(
        self, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> Blob:
        self._take_space()
        return await self.inner.put_blob(chunks, max_bytes=max_bytes, sha256=sha256)

    async def get_blob(self, sha256: str, offset: int = 0, limit: int = 2**18) -> BlobPart | None:
        return await self.inner.get_blob(sha256, offset, limit)

    async def collect(self, grace: float) -> Collected:
        return await self.inner.collect(grace)

    async def tip(self, session: str) -> int | None:
        return await self.inner.tip(session)

    async def reopen(self) -> None:
        self.reopened += 1
        if self._reopen_faults:
            raise self._reopen_faults.pop(0)
        await self.inner.reopen()

    def release_reserve(self) -> bool:
        if self._is_full:
            self._spare, self._reserve = self._spare + self._reserve, 0
        return self.inner.release_reserve()

    def restore_reserve(self) -> bool:
        return not self._is_full and self.inner.restore_reserve()

    async def health(self) -> None:
        self.proved += 1
        if self._faults:
            raise self._faults.pop(0)[0]
        self._take_space()
        await self.inner.health()

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _is_readable(self, session: str) -> bool:
        return session not in self.unreadable

    def _check_readable(self, session: str) -> None:
        if not self._is_readable(session):
            raise StoreUnreadable(session, "made unreadable by the test")
