"""Sessions in one SQLite file: the default store.

Each thread has a connection of its own. One process at a time has the file: what another one
commits would never be told. Not taken: writing in the loop under `synchronous=NORMAL` with an
fsync in a thread; it starves the same way, and a power cut takes acknowledged commits silently.
"""

import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from moorage_daemon.store.blobs import Blobs
from moorage_daemon.store.checking import check_database
from moorage_daemon.store.database import claim, lock, open_readable, open_writable
from moorage_daemon.store.disk import Disk, made
from moorage_daemon.store.durable import DurableStore, Threads, open_threads
from moorage_daemon.store.port import (
    Change,
    Collected,
    Missing,
    Page,
    Problem,
    Report,
    StoreBroken,
    Stored,
    StoreError,
    StoreFull,
)
from moorage_daemon.store.reading import Reader
from moorage_daemon.store.reserve import Reserve
from moorage_daemon.store.wal import keep_if_damaged, kept
from moorage_daemon.store.writing import Writer, blob_names, entry_rows


T = TypeVar("T")

logger = logging.getLogger(__name__)

FREED = 256  # pages in one transaction: few enough to pass between two commits unnoticed
TRIMMED = 64  # entries removed at once: commits wait as long
CLOSE_PATIENCE = 10.0  # seconds for the last jobs and the last checkpoint


class SqliteStore(DurableStore):
    """The store in the file at `path`; made by `open_sqlite`.

    Writer and reader belong to their threads: the loop only hands over jobs that use them.
    """

    name = "sqlite"

    def __init__(self, path: Path, threads: Threads) -> None:
        folder = path.with_name(f"{path.name}-blobs")
        blobs = Blobs(folder, partial(made, folder), threads.moving)
        reserve = Reserve(path.with_name(f"{path.name}-reserve"))
        super().__init__(path.parent, threads, reserve, blobs)
        self._path = path
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._is_alone = False  # no room for a second connection: the writer's serves for both
        self._lock: int | None = None
        self._marks = 0

    # ---- changes

    async def commit(self, changes: Sequence[Change]) -> None:
        """Write all changes or none; once handed over it is done, also if the wait is cancelled."""
        rows, names = entry_rows(changes), blob_names(changes)
        await self._write(lambda writer: writer.commit(changes, rows, names))

    async def delete(self, session: str) -> bool:
        """Remove all of a session; False if there was none."""
        return await self._write(lambda writer: writer.delete(session))

    async def trim(self, session: str, before: int) -> int:
        """Remove the entries with `seq < before`, but never the last one, some at a time between
        commits."""
        removed = 0
        while piece := await self._write(lambda writer: writer.trim(session, before, TRIMMED)):
            removed += piece
        return removed

    async def compact(self) -> int:
        """Give back the free pages at the end of the file, some at a time between commits."""
        given = 0
        while piece := await self._write(lambda writer: writer.compact(FREED)):
            given += piece
        return given

    async def _write(self, job: Callable[[Writer], T]) -> T:
        self._check_open()
        return await self._threads.writing.run(
            lambda: job(self._open_writer()), afterwards=self._move_wal_if_due
        )

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise StoreBroken(f"{self._path} is not open")
        return self._writer

    def _move_wal_if_due(self) -> None:
        if self._writer is not None:
            self._writer.checkpoint_if_due()

    async def collect(self, grace: float) -> Collected:
        """Remove the blobs that no entry names; none while a damaged log may name some."""
        self._check_open()
        if await self._threads.moving.run(lambda: kept(self._path)):
            logger.error("no blob can be collected while a damaged log is kept")
            return Collected()
        return await super().collect(grace)

    # ---- reads

    async def list(self) -> list[Stored]:
        """All sessions, by id, without those that cannot be read."""
        return await self._read(lambda reader: reader.sessions())

    async def damaged(self) -> Sequence[Problem]:
        """The sessions that cannot be read."""
        return await self._read(lambda reader: reader.damaged())

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
        """Write a number and read it back through the other connection; then a file beside it."""
        self._marks += 1
        mark = self._marks
        await self._write(lambda writer: writer.mark(mark))
        found = await self._read(lambda reader: reader.marked())
        if (
            not isinstance(found, int) or found < mark
        ):  # who asks meanwhile may have written a later one
            raise StoreBroken(f"{self._path}: wrote {mark}, read {found}")
        await self._threads.writing.run(self._prove)

    def _prove(self) -> None:
        disk = Disk(self._path.parent, is_ours=False)
        try:
            disk.prove(f"{self._path.name}-health")
        finally:
            disk.close()

    async def _checked(self) -> Report:
        found = await self._threads.moving.run(lambda: check_database(self._path))
        problems = await self._threads.moving.run(lambda: kept(self._path))
        return msgspec.structs.replace(found, problems=[*problems, *found.problems])

    async def _named(self) -> frozenset[str]:
        return await self._read(lambda reader: reader.named())

    async def _missing(self, digests: frozenset[str]) -> Sequence[Missing]:
        return await self._read(lambda reader: reader.naming(digests))

    async def _read(self, job: Callable[[Reader], T]) -> T:
        self._check_open()
        async with self._may_read:
            worker = self._threads.writing if self._is_alone else self._threads.reading
            return await worker.run(lambda: job(self._open_reader()))

    def _open_reader(self) -> Reader:
        if self._is_alone:
            return Reader(self._open_writer().connection)
        if self._reader is None:
            self._reader = Reader(open_readable(self._path))
        return self._reader

    # ---- the file

    async def reopen(self) -> None:
        """Close every handle and open the file again; raises `StoreError` if it cannot be."""
        self._check_open()
        async with self._may_read:
            await self._threads.reading.run(self._close_reader)
            await self._threads.writing.run(self._reopen_writer)

    def _reopen_writer(self) -> None:
        had_fault = self._writer is not None and self._writer.fault is not None
        self._close_writer()
        if self._lock is None:
            self._lock = lock(self._path)
        writer = self._best_writer()
        try:
            # What recovery found in the WAL may never have reached the medium: after a crash it
            # was not synced yet, after a failed fsync its pages count as clean. Moved into the
            # database it is written anew, so that nothing is told that a power cut still takes.
            keep_if_damaged(self._path, writer.checkpoint())
        except StoreFull:
            if had_fault:
                writer.close()
                raise
            logger.warning("no space to move the write-ahead log into the database")
        except StoreError:
            writer.close()
            raise
        self._writer = writer
        self._reserve.restore()

    def _best_writer(self) -> Writer:
        """The file open for writing, on a full disk by whatever means are left."""
        self._path = claim(self._path)
        self._is_alone = False
        try:
            return Writer(open_writable(self._path))
        except StoreFull:
            logger.warning("no space to open the store: freeing the reserve")
            self._reserve.release()
        try:
            return Writer(open_writable(self._path))
        except StoreFull:
            logger.warning("no space to open the store: opening it without shared memory")
        self._is_alone = True
        return Writer(open_writable(self._path, alone=True))

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    async def _close(self) -> None:
        await self._threads.reading.run(self._close_reader)
        await self._threads.writing.run(self._give_up)

    def _give_up(self) -> None:
        self._close_writer()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncGenerator[SqliteStore]:
    """The store in the file at `path`, made if it is missing; its directory must exist.

    Raises `StoreError` if it cannot be opened. Beside the file lie others, whose names
    begin with its own.
    """
    async with open_threads() as threads:
        store = SqliteStore(path, threads)
        try:
            await store.reopen()
            yield store
        finally:
            with trio.move_on_after(CLOSE_PATIENCE, shield=True):
                await store.aclose()
