"""The blobs of a file: each comes behind the entry that names it, and is what its digest says.

A digest alone gives nobody bytes: a file has to bring all that it names, also what is there
already, which may be somebody else's. What a file says is missing is missing in its session from
then on, whoever else keeps those bytes, or comes to.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from moorage_daemon.store.port import MAX_BLOB, BlobMismatch, Store
from moorage_daemon.transfer.lines import BadLine, BlobRecord


MAX_LOST = 4096  # blobs of one file: the entry that names them fits a message
PIECE = 2**18  # bytes handed to the store at once
MAX_NOTED = 16  # of them by name


@dataclass(eq=False)
class Arriving:
    """The blobs that are still to come, and what has come of the first of them."""

    store: Store
    count: int = 0
    _lost: dict[str, None] = field(default_factory=dict[str, None])
    _came: set[str] = field(default_factory=set[str])
    _due: deque[str] = field(default_factory=deque[str])
    _said: int | None = None
    _held: bytearray = field(default_factory=bytearray)

    def expect(self, digests: Iterable[str], size: int | None = None) -> None:
        """An entry has named these; `size` is how long it says that each is, if it does."""
        self._said = size
        self._due.extend(sorted(digests))

    def must_be_done(self) -> None:
        """Raise `BadLine` if one is still missing."""
        if self._due:
            raise BadLine(f"the blob {self._due[0]} has to come first: an entry names it")

    @property
    def lost(self) -> tuple[str, ...]:
        """The digests of what never came."""
        return tuple(self._lost)

    def notes(self) -> list[str]:
        """What there is to say of it."""
        named = [f"the bytes of an artifact were lost before: {d}" for d in self.lost[:MAX_NOTED]]
        more = len(self._lost) - MAX_NOTED
        return [*named, f"and those of {more} more"] if more > 0 else named

    async def take(self, record: BlobRecord) -> None:
        """Take the next piece; raises `BadLine`, `StoreError`."""
        if not self._due or record.sha256 != self._due[0]:
            raise BadLine("the entry before it does not name this blob, or another comes first")
        if record.size > MAX_BLOB:
            raise BadLine(f"a blob has more than {MAX_BLOB} bytes")
        if record.missing:
            self._miss(record.sha256)
            return
        if self._said not in (None, record.size):
            raise BadLine(f"blob.size must be {self._said}: so says the entry before it")
        end = len(self._held) + len(record.data)
        if record.offset != len(self._held) or end > record.size:
            raise BadLine(f"blob.offset must be {len(self._held)}, within its size")
        self._held += record.data
        if end == record.size:
            await self._keep(record.sha256)
        elif not record.data:
            raise BadLine("blob.data is empty")

    async def _keep(self, digest: str) -> None:
        try:
            await self.store.put_blob(self._chunks(), max_bytes=MAX_BLOB, sha256=digest)
        except BlobMismatch as error:
            raise BadLine("the bytes of the blob are not those of its digest") from error
        self._came.add(digest)
        self._lost.pop(digest, None)
        self._next()

    async def _chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._held), PIECE):
            yield bytes(self._held[start : start + PIECE])

    def _miss(self, digest: str) -> None:
        if digest not in self._came:
            self._lost[digest] = None
        if len(self._lost) > MAX_LOST:
            raise BadLine(f"more than {MAX_LOST} blobs are missing: nothing much is left of it")
        self._next()

    def _next(self) -> None:
        self._due.popleft()
        self.count += 1
        self._held = bytearray()
