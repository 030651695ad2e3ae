"""Sessions in a directory of files: for who wants to see, copy or back up one session.

One process at a time has the directory: the kernel's lock on a file in it says so, and ends with
the process.
"""

import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import trio

from moorage_daemon.store.blobs import Blobs
from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.durable import DurableStore, Threads, open_threads
from moorage_daemon.store.files.copying import Copy, Progress
from moorage_daemon.store.files.directory import BLOBS, RESERVE, claim
from moorage_daemon.store.files.opening import JOURNALS, SEGMENT, open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.handover import Breather
from moorage_daemon.store.port import (
    Change,
    Missing,
    Page,
    Problem,
    Report,
    StoreBroken,
    Stored,
    StoreError,
    StoreFull,
    StoreUnreadable,
)
from moorage_daemon.store.reserve import Reserve


T = TypeVar("T")

logger = logging.getLogger(__name__)

CLOSE_PATIENCE = 10.0  # seconds for the last jobs
SETTLE_PATIENCE = 2.0  # seconds to move the last lines; what is left moves after the next start
LET_GO_PATIENCE = 2.0  # seconds to remove half a copy; the next start removes it as well
AT_ONCE = 200  # sessions looked at before somebody else may read


class FileStore(DurableStore):
    """The store in a directory; made by `open_files`.

    Shelf and reader belong to their threads: the loop only hands over jobs that use them.
    """

    name = "file"

    def __init__(self, disk: Disk, segment: int, threads: Threads) -> None:
        blobs = Blobs(disk.path / BLOBS, partial(disk.folder, BLOBS), threads.moving)
        super().__init__(disk.path, threads, Reserve(disk.path / RESERVE), blobs)
        self._disk = disk
        self._segment = segment
        self._lock: File | None = None
        self._shelf: Shelf | None = None
        self._reader: Reader | None = None
        self._may_copy = trio.Lock()  # one journal at a time is copied anew

    # ---- changes

    async def commit(self, changes: Sequence[Change]) -> None:
        """Write all changes or none; once handed over it is done, also if the wait is cancelled."""
        drafts = [drafted(change) for change in changes]
        await self._write(lambda shelf: shelf.commit(changes, drafts))

    async def delete(self, session: str) -> bool:
        """Remove all of a session, also one that cannot be read; False if there was none."""
        return await self._write(lambda shelf: shelf.remove(session))

    async def trim(self, session: str, before: int) -> int:
        """Remove the entries with `seq < before`, but never the last one."""
        copy = await self._copied(lambda shelf: shelf.begin_trim(session, before))
        return 0 if copy is None else copy.trimmed

    async def compact(self) -> int:
        """Copy journals anew that consist for the most part of heads that count no more."""
        given = 0
        for session in await self._sessions():
            try:
                given += await self._compacted(session)
            except StoreUnreadable:
                logger.exception("a journal cannot be copied anew")
        return given

    async def _compacted(self, session: str) -> int:
        if not await self._read(lambda reader: reader.is_wasteful(session)):
            return 0
        copy = await self._copied(lambda shelf: shelf.begin_rewrite(session))
        return 0 if copy is None else copy.given

    async def _copied(self, begin: Callable[[Shelf], Copy | None]) -> Copy | None:
        """Have a journal copied anew; gives the copy that took its place, if there was any."""
        async with self._may_copy:
            while (copy := await self._write(begin)) is not None:
                try:
                    await self._carry_out(copy)
                finally:
                    await self._let_go(copy)
                if copy.progress is Progress.PLACED:
                    break
            return copy

    async def _carry_out(self, copy: Copy) -> None:
        """Copy while others commit, until it has taken the journal's place or never will."""
        while copy.progress is Progress.GOING:
            try:
                while copy.left > 0:
                    self._check_open()
                    await self._threads.moving.run(lambda: self._go_on(copy))
                await self._write(lambda shelf: shelf.place(copy))
            except StoreUnreadable:
                if await self._write(lambda shelf: shelf.has_source(copy)):
                    raise
                return

    def _go_on(self, copy: Copy) -> None:
        with self._journals() as folder:
            copy.go_on(folder, Breather().breathe)

    async def _let_go(self, copy: Copy) -> None:
        """Give up what the copy has no use for."""
        try:
            with trio.move_on_after(LET_GO_PATIENCE, shield=True):
                await self._threads.moving.run(lambda: self._release(copy))
        except StoreError:
            logger.exception("half a copy is left until the next start")

    def _release(self, copy: Copy) -> None:
        with self._journals() as folder:
            copy.release(folder)

    @contextmanager
    def _journals(self) -> Generator[Disk]:
        """The folder of the journals, for a thread that does not have the shelf's own."""
        folder = self._disk.folder(JOURNALS)
        try:
            yield folder
        finally:
            folder.close()

    async def _write(self, job: Callable[[Shelf], T]) -> T:
        self._check_open()
        return await self._threads.writing.run(
            lambda: job(self._open_shelf()), afterwards=self._settle_while_idle
        )

    def _open_shelf(self) -> Shelf:
        if self._shelf is None:
            raise StoreBroken(f"{self._disk.path} is not open")
        return self._shelf

    def _settle_while_idle(self) -> None:
        if self._shelf is not None:
            self._shelf.settle_some(lambda: self._threads.writing.is_idle)

    # ---- reads

    async def list(self) -> list[Stored]:
        """All sessions, by id, without those that cannot be read."""
        return await self._write(lambda shelf: shelf.sessions())

    async def damaged(self) -> Sequence[Problem]:
        """The sessions that cannot be read."""
        return await self._write(lambda shelf: shelf.problems())

    async def load(self, session: str) -> Stored | None:
        """One session, None if it does not exist."""
        return await self._read(lambda reader: reader.load(session))

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
        return await self._read(
            lambda reader: reader.entries(session, after, limit, max_bytes, kinds)
        )

    async def tip(self, session: str) -> int | None:
        """The number of the last entry (0 for none), None for an unknown session."""
        return await self._read(lambda reader: reader.tip(session))

    async def health(self) -> None:
        """Write a file, sync it, rename it, read it, remove it."""
        await self._write(lambda _: self._disk.prove("health"))

    async def _read(self, job: Callable[[Reader], T]) -> T:
        self._check_open()
        async with self._may_read:
            return await self._threads.reading.run(lambda: job(self._open_reader()))

    def _open_reader(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._open_shelf())
        return self._reader

    # ---- looking through everything

    async def _named(self) -> frozenset[str]:
        named = await self._read(lambda reader: reader.named_aside())
        sessions = await self._sessions()
        for start in range(0, len(sessions), AT_ONCE):
            named |= await self._named_by(sessions[start : start + AT_ONCE])
        return named

    async def _named_by(self, sessions: Sequence[str]) -> frozenset[str]:
        return await self._read(lambda reader: reader.named(sessions))

    async def _missing(self, digests: frozenset[str]) -> Sequence[Missing]:
        aside = await self._read(lambda reader: reader.named_aside())
        found: dict[str, list[str]] = {digest: [] for digest in digests - aside}
        for session in await self._sessions():
            for digest in found.keys() & await self._named_by([session]):
                found[digest].append(session)
        return [Missing(digest, tuple(found.get(digest, ()))) for digest in sorted(digests)]

    async def _sessions(self) -> Sequence[str]:
        return await self._read(lambda reader: reader.sessions())

    async def _checked(self) -> Report:
        entries, problems = 0, list(await self._read(lambda reader: reader.leftovers()))
        sessions = await self._sessions()
        for session in sessions:
            try:
                entries += await self._verified(session)
            except StoreUnreadable as error:
                problems.append(Problem(error.problem, session))
        notes = await self._read(lambda reader: reader.notes())
        return Report(len(sessions), entries, 0, problems, notes)

    async def _verified(self, session: str) -> int:
        return await self._read(lambda reader: reader.verify(session))

    # ---- the directory

    async def reopen(self) -> None:
        """Close every file and open them again; raises `StoreError` if that cannot be."""
        self._check_open()
        async with self._may_read:
            self._reader = None
            await self._threads.writing.run(self._reopen, afterwards=self._settle_while_idle)

    def _reopen(self) -> None:
        had_fault = self._shelf is not None and self._shelf.fault is not None
        self._close_shelf()
        if self._lock is None:
            self._lock = claim(self._disk)
        try:
            self._shelf = open_shelf(self._disk, self._segment, had_fault=had_fault)
        except StoreFull:
            logger.warning("no space to open the store: freeing the reserve")
            if not self._reserve.release():
                raise
            self._shelf = open_shelf(self._disk, self._segment, had_fault=had_fault)
        self._reserve.restore()

    def _close_shelf(self) -> None:
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            shelf.close()

    async def _close(self) -> None:
        async with self._may_copy:
            await self._threads.writing.run(self._finish)

    def _finish(self) -> None:
        if self._shelf is not None and self._shelf.fault is None:
            try:
                deadline = time.monotonic() + SETTLE_PATIENCE
                self._shelf.settle_all(lambda: time.monotonic() > deadline)
            except StoreError:
                logger.exception("the last commits stay in their log until the next start")
        self._close_shelf()
        if self._lock is not None:
            self._disk.shut(self._lock)
            self._lock = None
        self._disk.close()


@asynccontextmanager
async def open_files(disk: Disk, segment: int = SEGMENT) -> AsyncGenerator[FileStore]:
    """The store in a directory, which is this store's from here on.

    `segment` is how many bytes of commits are on their way into the journals. Raises `StoreError`
    if the store cannot be opened.
    """
    async with open_threads() as threads:
        store = FileStore(disk, segment, threads)
        try:
            await store.reopen()
            yield store
        finally:
            with trio.move_on_after(CLOSE_PATIENCE, shield=True):
                await store.aclose()
