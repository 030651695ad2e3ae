"""Sessions in a directory of files: for who wants to see, copy or back up one session.

One thread writes, another reads beside it, so a replay never waits behind commits. One process at
a time has the directory: the kernel's lock on a file in it says so, and ends with the process.
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from moorage_daemon.store.blobs import Blobs
from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.files.opening import SEGMENT, open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.handover import GilHandover
from moorage_daemon.store.port import (
    Blob,
    BlobPart,
    Change,
    Collected,
    Page,
    StoreBroken,
    Stored,
    StoreError,
    StoreFull,
    StoreUnreadable,
)
from moorage_daemon.store.reserve import Reserve
from moorage_daemon.store.worker import Worker, open_worker


T = TypeVar("T")

logger = logging.getLogger(__name__)

FORMAT = 1  # of the directory; a higher one is left alone
CLOSE_PATIENCE = 10.0  # seconds for the last jobs
SETTLE_PATIENCE = 2.0  # seconds to move the last lines; what is left moves after the next start

BLOBS = "blobs"

_LOCK = "lock"
_FORMAT = "store.json"
_RESERVE = "reserve"
_OURS = frozenset({_LOCK, _RESERVE, f"{_FORMAT}.new"})  # what a first start that died leaves


class _Format(msgspec.Struct):
    format: int


class FileStore:
    """The store in a directory; made by `open_files`.

    Shelf and reader belong to their threads: the loop only hands over jobs that use them.
    """

    name = "file"

    def __init__(
        self, disk: Disk, segment: int, writing: Worker, reading: Worker, blobs: Blobs
    ) -> None:
        self._disk = disk
        self._blobs = blobs
        self._segment = segment
        self._reserve = Reserve(disk.path / _RESERVE)
        self._writing = writing
        self._reading = reading
        self._may_read = trio.Lock()  # one read at a time, and none while all is reopened
        self._lock: File | None = None
        self._shelf: Shelf | None = None
        self._reader: Reader | None = None
        self._is_closed = False

    # ---- changes

    async def commit(self, changes: Sequence[Change]) -> None:
        """Write all changes or none; once handed over it is done, also if the wait is cancelled."""
        drafts = [drafted(change) for change in changes]
        await self._write(lambda shelf: shelf.commit(changes, drafts))

    async def delete(self, session: str) -> bool:
        """Remove all of a session, also one that cannot be read; False if there was none."""
        return await self._write(lambda shelf: shelf.remove(session))

    async def _write(self, job: Callable[[Shelf], T]) -> T:
        self._check_open()
        return await self._writing.run(
            lambda: job(self._open_shelf()), afterwards=self._settle_while_idle
        )

    def _open_shelf(self) -> Shelf:
        if self._shelf is None:
            raise StoreBroken(f"{self._disk.path} is not open")
        return self._shelf

    def _settle_while_idle(self) -> None:
        if self._shelf is not None:
            self._shelf.settle_some(lambda: self._writing.is_idle)

    # ---- reads

    async def list(self) -> list[Stored]:
        """All sessions, by id, without those that cannot be read."""
        return await self._write(lambda shelf: shelf.sessions())

    async def load(self, session: str) -> Stored | None:
        """One session, None if it does not exist."""

        def stored() -> Stored | None:
            standing = self._open_shelf().find(session)
            return None if standing is None else standing.stored()

        return await self._read(stored)

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
            lambda: self._open_reader().entries(session, after, limit, max_bytes, kinds)
        )

    async def tip(self, session: str) -> int | None:
        """The number of the last entry (0 for none), None for an unknown session."""

        def seq() -> int | None:
            tip = self._open_shelf().tip(session)
            return None if tip is None else tip.seq

        return await self._read(seq)

    async def health(self) -> None:
        """Write a file, sync it, rename it, remove it."""
        await self._write(lambda _: self._disk.put("health", b"well\n"))

    async def _read(self, job: Callable[[], T]) -> T:
        self._check_open()
        async with self._may_read:
            return await self._reading.run(job)

    def _open_reader(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._open_shelf())
        return self._reader

    # ---- blobs

    async def put_blob(
        self, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> Blob:
        """Keep bytes, durably, once."""
        self._check_open()
        return await self._blobs.put(chunks, max_bytes=max_bytes, sha256=sha256)

    async def get_blob(self, sha256: str, offset: int = 0, limit: int = 2**18) -> BlobPart | None:
        """At most `limit` bytes of a blob; None if there is none."""
        self._check_open()
        return await self._blobs.get(sha256, offset, limit)

    async def collect(self, grace: float) -> Collected:
        """Remove the blobs that no entry names and nobody used for a while."""
        self._check_open()
        unused = await self._blobs.unused(grace)
        if not unused:
            return Collected()
        unused -= await self._read(lambda: self._open_reader().named_aside())
        for session in await self._read(lambda: self._open_reader().sessions()):
            try:
                unused -= await self._named(session)
            except StoreUnreadable:
                logger.exception("no blob can be collected", extra={"session": session})
                return Collected()
        return await self._blobs.remove(unused, grace)

    async def _named(self, session: str) -> frozenset[str]:
        return await self._read(lambda: self._open_reader().named(session))

    # ---- the directory

    async def reopen(self) -> None:
        """Close every file and open them again; raises `StoreError` if that cannot be."""
        self._check_open()
        async with self._may_read:
            self._reader = None
            await self._writing.run(self._reopen, afterwards=self._settle_while_idle)

    def _reopen(self) -> None:
        had_fault = self._shelf is not None and self._shelf.fault is not None
        self._close_shelf()
        self._claim()
        try:
            self._shelf = open_shelf(self._disk, self._segment, had_fault=had_fault)
        except StoreFull:
            logger.warning("no space to open the store: freeing the reserve")
            if not self._reserve.release():
                raise
            self._shelf = open_shelf(self._disk, self._segment, had_fault=had_fault)
        self._reserve.restore()

    def _claim(self) -> None:
        """Make the directory this process's own; raises `StoreBroken` if it is another's."""
        if self._lock is not None:
            return
        lock = self._disk.create(_LOCK)
        try:
            if not self._disk.lock(lock):
                raise StoreBroken(f"{self._disk.path} is in use by another process")
            if not _has_format(self._disk):
                self._disk.put(_FORMAT, msgspec.json.encode(_Format(FORMAT)) + b"\n")
        except StoreError:
            self._disk.shut(lock)
            raise
        self._lock = lock

    def _close_shelf(self) -> None:
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            shelf.close()

    def release_reserve(self) -> bool:
        """Free the space kept back for verdicts and kills; False if there was none left."""
        return self._reserve.release()

    def restore_reserve(self) -> bool:
        """Take the reserve back if there is ample space again; whether it is held now."""
        return self._reserve.restore()

    async def aclose(self) -> None:
        """Finish what was handed over, move all lines into the journals, close every file."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        async with self._may_read:
            await self._blobs.close()
            await self._writing.run(self._finish)

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

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError


def _has_format(disk: Disk) -> bool:
    """Whether the directory is one of ours; False for a fresh one, `StoreBroken` for others."""
    found = disk.fetch(_FORMAT)
    if found is None:
        if set(disk.names()) - _OURS:
            raise StoreBroken(f"{disk.path} holds files of something else")
        return False
    try:
        stored = msgspec.json.decode(found, type=_Format).format
    except msgspec.DecodeError as error:
        raise StoreBroken(f"{disk.path / _FORMAT} cannot be read: {error}") from error
    if stored > FORMAT:
        raise StoreBroken(
            f"{disk.path} was written by a newer version: its format is {stored}, "
            f"this version knows {FORMAT}"
        )
    return True


def inspect(path: Path) -> None:
    """Raise the `StoreError` with which the directory could not be opened, if any."""
    disk = Disk(path)
    try:
        _has_format(disk)
    finally:
        disk.close()


@asynccontextmanager
async def open_files(disk: Disk, segment: int = SEGMENT) -> AsyncGenerator[FileStore]:
    """The store in a directory, which is this store's from here on.

    `segment` is how many bytes of commits are on their way into the journals. Raises `StoreError`
    if the store cannot be opened.
    """
    async with (
        open_worker("store-writing") as writing,
        open_worker("store-reading") as reading,
        open_worker("store-blobs") as moving,
    ):
        blobs = Blobs(disk.path / BLOBS, partial(disk.folder, BLOBS), moving)
        store = FileStore(disk, segment, writing, reading, blobs)
        handover = GilHandover(writing, reading, moving)
        trio.lowlevel.add_instrument(handover)
        try:
            await store.reopen()
            yield store
        finally:
            with trio.move_on_after(CLOSE_PATIENCE, shield=True):
                await store.aclose()
            trio.lowlevel.remove_instrument(handover)
