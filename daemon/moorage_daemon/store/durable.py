"""What stores on disk have in common: threads of their own, blobs in files, a reserve."""

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from moorage_daemon.store.blobs import Blobs
from moorage_daemon.store.disk import free_space
from moorage_daemon.store.handover import GilHandover
from moorage_daemon.store.port import (
    Blob,
    BlobPart,
    Collected,
    Missing,
    Report,
    StoreUnreadable,
    problem_of,
)
from moorage_daemon.store.reserve import Reserve
from moorage_daemon.store.worker import Worker, open_worker


logger = logging.getLogger(__name__)


class Threads(msgspec.Struct, frozen=True):
    """One writes, one reads beside it, so that a replay never waits behind commits; the third
    does what takes long: it moves blobs, and looks at everything when it is asked to."""

    writing: Worker
    reading: Worker
    moving: Worker


@asynccontextmanager
async def open_threads() -> AsyncGenerator[Threads]:
    """The threads, which get their turns however busy the loop is."""
    async with (
        open_worker("store-writing") as writing,
        open_worker("store-reading") as reading,
        open_worker("store-moving") as moving,
    ):
        handover = GilHandover(writing, reading, moving)
        trio.lowlevel.add_instrument(handover)
        try:
            yield Threads(writing, reading, moving)
        finally:
            trio.lowlevel.remove_instrument(handover)


class DurableStore(ABC):
    """A store in the directory `folder`, without all that knows of sessions."""

    def __init__(self, folder: Path, threads: Threads, reserve: Reserve, blobs: Blobs) -> None:
        self._folder = folder
        self._threads = threads
        self._reserve = reserve
        self._blobs = blobs
        self._may_read = trio.Lock()  # one read at a time, and none while all is reopened
        self._is_closed = False

    @abstractmethod
    async def _named(self) -> frozenset[str]:
        """All blobs that entries name; raises `StoreUnreadable` if nobody can know."""

    @abstractmethod
    async def _missing(self, digests: frozenset[str]) -> Sequence[Missing]:
        """Who names these blobs, by digest."""

    @abstractmethod
    async def _checked(self) -> Report:
        """What is wrong with the sessions; blobs count for nothing."""

    @abstractmethod
    async def _close(self) -> None:
        """Finish what was handed over, then close everything."""

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
        try:
            named = await self._named()
        except StoreUnreadable:
            logger.exception("no blob can be collected")
            return Collected()
        return await self._blobs.remove(unused - named, grace)

    # ---- the whole

    async def check(self) -> Report:
        """Look at everything that is stored, beside all other work."""
        self._check_open()
        found = await self._checked()
        blobs, missing, problems = await self._blobs.check(self._named)
        absent = map(problem_of, await self._missing(missing)) if missing else ()
        problems = [*found.problems, *absent, *problems]
        return Report(found.sessions, found.entries, blobs, problems, found.notes)

    def free(self) -> int | None:
        """Bytes of free space on the disk."""
        return free_space(self._folder)

    def release_reserve(self) -> bool:
        """Free the space kept back for verdicts and kills; False if there was none left."""
        return self._reserve.release()

    def restore_reserve(self) -> bool:
        """Take the reserve back if there is ample space again; whether it is held now."""
        return self._reserve.restore()

    async def aclose(self) -> None:
        """Finish what was handed over, then close everything; idempotent."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        async with self._may_read:
            await self._blobs.close()
            await self._close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError
