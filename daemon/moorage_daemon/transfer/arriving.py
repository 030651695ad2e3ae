"""The blobs of a file: each comes behind the entry that names it, and is what its digest says.

A digest alone gives nobody bytes: a file has to bring all that it names, also what is there
already, which may be somebody else's.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from moorage_daemon.store.port import BlobMismatch, Store
from moorage_daemon.transfer.lines import BadLine, BlobRecord


MAX_BLOB = 32 * 2**20  # bytes, in memory until all of it has come


@dataclass(eq=False)
class Arriving:
    """The blobs that are still to come, and what has come of the first of them."""

    store: Store
    count: int = 0
    _due: deque[str] = field(default_factory=deque[str])
    _pieces: list[bytes] = field(default_factory=list[bytes])
    _size: int = 0

    def expect(self, digests: Iterable[str]) -> None:
        """An entry has named these."""
        self._due.extend(sorted(digests))

    def must_be_done(self) -> None:
        """Raise `BadLine` if one is still missing."""
        if self._due:
            raise BadLine(f"the blob {self._due[0]} has to come first: an entry names it")

    async def take(self, record: BlobRecord) -> str | None:
        """Take the next piece; gives what there is to note. Raises `BadLine`, `StoreError`."""
        if not self._due or record.sha256 != self._due[0]:
            raise BadLine("the entry before it does not name this blob, or another comes first")
        if record.size > MAX_BLOB:
            raise BadLine(f"a blob has more than {MAX_BLOB} bytes")
        if record.missing:
            return await self._miss(record.sha256)
        end = self._size + len(record.data)
        if record.offset != self._size or end > record.size:
            raise BadLine(f"blob.offset must be {self._size}, within its size")
        self._pieces.append(record.data)
        self._size = end
        if end == record.size:
            await self._keep(record.sha256)
        elif not record.data:
            raise BadLine("blob.data is empty")
        return None

    async def _keep(self, digest: str) -> None:
        try:
            await self.store.put_blob(self._chunks(), max_bytes=MAX_BLOB, sha256=digest)
        except BlobMismatch as error:
            raise BadLine("the bytes of the blob are not those of its digest") from error
        self._next()

    async def _chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def _miss(self, digest: str) -> str:
        if await self.store.get_blob(digest, 0, 0) is not None:
            raise BadLine("the bytes of a blob are missing, and here somebody else has some")
        self._next()
        return f"the bytes of an artifact were lost before: {digest}"

    def _next(self) -> None:
        self._due.popleft()
        self.count += 1
        self._pieces, self._size = [], 0
