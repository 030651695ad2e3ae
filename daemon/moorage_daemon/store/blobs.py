"""Bytes by their SHA-256, in files: what durable stores keep beside their entries.

A blob is written to a draft, synced, and gets its name at the end, so what has a name is whole.
The same bytes are kept once. A blob that was put or read a while ago, and that no entry names, may
be collected; the while is for those who are about to name it. It is measured by a clock that
nobody sets, and does not outlast the process: whoever was about to is gone as well.
"""

import hashlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

import trio

from moorage_daemon.store.disk import DRAFT, Disk, File
from moorage_daemon.store.port import (
    MAX_BLOB,
    Blob,
    BlobMismatch,
    BlobPart,
    BlobTooLarge,
    Collected,
    Problem,
    StoreError,
    StoreUnreadable,
)
from moorage_daemon.store.worker import Worker


logger = logging.getLogger(__name__)

PIECE = 2**18  # bytes handed to the disk at once
LET_GO = 2.0  # seconds in which a draft that nobody wants any more is removed

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(name: str) -> bool:
    """Whether it can be the name of a blob."""
    return _DIGEST.fullmatch(name) is not None


class Blobs:
    """The blobs in the directory at `path`, which `opening` makes with the first of them.

    All files are touched in the worker's thread.
    """

    def __init__(self, path: Path, opening: Callable[[], Disk], worker: Worker) -> None:
        self._path = path
        self._opening = opening
        self._worker = worker
        self._disk: Disk | None = None
        self._used: dict[str, float] = {}  # when a blob was put or read last, by this process

    async def put(
        self, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None
    ) -> Blob:
        """Keep what comes, durably; see the port."""
        draft = _Draft(self._folder, f"{secrets.token_hex(8)}{DRAFT}")
        max_bytes = min(max_bytes, MAX_BLOB)
        try:
            size, waiting = 0, bytearray()
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise BlobTooLarge(f"more than {max_bytes} bytes")
                waiting += chunk
                if len(waiting) >= PIECE:
                    await self._worker.run(partial(draft.add, bytes(waiting)))
                    waiting.clear()
            await self._worker.run(partial(draft.add, bytes(waiting)))
            return await self._worker.run(lambda: self._finish(draft, sha256))
        finally:
            with trio.move_on_after(LET_GO, shield=True):
                await self._worker.run(draft.let_go)

    def _folder(self) -> Disk:
        if self._disk is None:
            disk = self._opening()
            try:
                self._sweep(disk)
                disk.sync_names()  # a process that was killed may have named a blob and no more
            except StoreError:
                disk.close()
                raise
            self._disk = disk
        return self._disk

    def _sweep(self, disk: Disk) -> None:
        for name in disk.names():
            if name.endswith(DRAFT):
                disk.remove(name)  # of a process that died over it

    def _finish(self, draft: "_Draft", expected: str | None) -> Blob:
        name = draft.digest.hexdigest()
        if expected is not None and name != expected:
            raise BlobMismatch(f"the bytes have the digest {name}, not {expected}")
        is_new = not self._has(name, draft.size)
        if is_new:
            draft.keep_as(name)
        self._used[name] = time.monotonic()
        return Blob(name, draft.size, is_new)

    def _has(self, name: str, size: int) -> bool:
        """Whether those very bytes are there, all of them: whoever brings them again may mend what
        the medium has spoilt. No blob is longer than `MAX_BLOB`, so that takes a moment.
        """
        try:
            if self._size(name) != size:
                return False
            if self._is_whole(name):
                return True
        except StoreError:
            logger.exception("a blob cannot be read: it is written anew")
            return False
        logger.error("a blob is damaged: it is written anew", extra={"blob": name})
        return False

    def _size(self, name: str) -> int | None:
        disk = self._there()
        file = disk.open(name) if disk is not None else None
        if disk is None or file is None:
            return None
        try:
            return disk.size(file)
        finally:
            disk.shut(file)

    def _there(self) -> Disk | None:
        """The directory, if there is one."""
        if self._disk is None and not self._path.is_dir():
            return None
        return self._folder()

    async def get(self, sha256: str, offset: int, limit: int) -> BlobPart | None:
        """A part of a blob; None if there is none of that digest."""
        return await self._worker.run(lambda: self._read(sha256, offset, limit))

    def _read(self, sha256: str, offset: int, limit: int) -> BlobPart | None:
        disk = self._there() if is_digest(sha256) else None
        file = disk.open(sha256) if disk is not None else None
        if disk is None or file is None:
            return None
        try:
            self._used[sha256] = time.monotonic()
            size = disk.size(file)
            return BlobPart(disk.read(file, offset, min(limit, max(0, size - offset))), size)
        finally:
            disk.shut(file)

    # ---- collecting

    async def unused(self, grace: float) -> set[str]:
        """The blobs that nobody put or read for so many seconds; all for a negative number."""
        return await self._worker.run(lambda: self._unused(grace))

    def _unused(self, grace: float) -> set[str]:
        since = time.monotonic() - grace
        self._used = {name: at for name, at in self._used.items() if at > since}
        disk = self._there()
        names = disk.names() if disk is not None else []
        return {name for name in names if is_digest(name) and name not in self._used}

    async def remove(self, names: Iterable[str], grace: float) -> Collected:
        """Remove these blobs, except those that somebody has put or read meanwhile."""
        return await self._worker.run(lambda: self._remove(names, grace))

    def _remove(self, names: Iterable[str], grace: float) -> Collected:
        blobs = size = 0
        disk = self._folder()
        for name in self._unused(grace).intersection(names):
            size += self._size(name) or 0
            blobs += disk.remove(name)
        if blobs:
            disk.sync_names()
        return Collected(blobs, size)

    # ---- checking

    async def check(
        self, named: Callable[[], Awaitable[frozenset[str]]]
    ) -> tuple[int, frozenset[str], list[Problem]]:
        """Compare every blob with its digest, and with what entries name.

        Gives how many there are, which are missing, and what is wrong with the others.
        """
        missing = await _known(named)
        present = await self.unused(-1)
        missing -= present
        if missing:  # a session may have been deleted meanwhile, and its blobs collected
            missing &= await _known(named)
        problems = [
            Problem(f"the blob {name} is damaged")
            for name in sorted(present)
            if not await self._worker.run(partial(self._is_whole, name))
        ]
        return len(present), missing, problems

    def _is_whole(self, name: str) -> bool:
        disk = self._folder()
        file = disk.open(name)
        if file is None:
            return True  # collected meanwhile
        digest = hashlib.sha256()
        try:
            for at in range(0, disk.size(file), PIECE):
                digest.update(disk.read(file, at, PIECE))
        finally:
            disk.shut(file)
        return digest.hexdigest() == name

    async def close(self) -> None:
        """Give up the directory."""
        await self._worker.run(self._shut)

    def _shut(self) -> None:
        disk, self._disk = self._disk, None
        if disk is not None:
            disk.close()


async def _known(named: Callable[[], Awaitable[frozenset[str]]]) -> frozenset[str]:
    try:
        return await named()
    except StoreUnreadable:
        return frozenset()  # a session that cannot be read is a problem of its own


class _Draft:
    """A blob that is being written; its file is there from the first `add` on."""

    def __init__(self, folder: Callable[[], Disk], name: str) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._folder = folder
        self._name = name
        self._file: File | None = None

    def add(self, data: bytes) -> None:
        """Write what comes next."""
        disk = self._folder()
        if self._file is None:
            self._file = disk.create(self._name)
        disk.write(self._file, self.size, data)
        self.digest.update(data)
        self.size += len(data)

    def keep_as(self, name: str) -> None:
        """Give it its name, durably."""
        disk = self._folder()
        assert self._file is not None
        disk.sync(self._file)
        disk.rename(self._name, name)
        disk.shut(self._file)
        self._file = None
        try:
            disk.sync_names()
        except StoreError:
            disk.remove(name)  # the next one must not take it for kept
            raise

    def let_go(self) -> None:
        """Remove what is left of it, if it was not kept."""
        if self._file is not None:
            disk = self._folder()
            disk.shut(self._file)
            self._file = None
            disk.remove(self._name)
