"""What every store promises.

A commit holds changes of many sessions and becomes durable as a whole or not at all; when it has
returned, no crash and no power cut takes it back. Entries of a session are numbered without gaps,
and the number is the version check: a change whose first entry is not the stored one's successor
is refused. Loaded objects are copies. Callers commit from one task; reads may run beside it. A
session whose stored head is of a newer schema can be read and deleted, and no commit changes it.

Creating is no call of its own but a flag of a change: so a new session's first entries are in the
same commit as its head, and share one fsync with whatever other sessions have to write.

A store that several daemons share would have each hold a lease, whose generation grows with every
holder. That store gets the generation when it is opened and compares it inside each commit, in
the same step as the numbers; a daemon that lost its lease gets `StoreBroken` from then on, and
its `reopen` fails. Nothing of that shows in the calls.

    StoreError
    ├── StoreFull           no space; nothing was written, the same commit may be tried again
    ├── StoreBroken         the medium failed; `reopen`, then compare `tip` before trying again
    ├── StoreConflict       the change does not fit what is stored; names the session
    │   └── StoreCapped     there are as many sessions as the change allows
    ├── StoreTooLarge       more came at once than can be read back; nothing was written
    ├── StoreUnreadable     a session exists and cannot be read; names the session
    ├── BlobTooLarge        more bytes came than were allowed; nothing was kept
    └── BlobMismatch        other bytes came than were announced; nothing was kept
"""

from collections.abc import AsyncIterable, Sequence
from typing import Protocol

from msgspec import Struct

from moorage_daemon.store.model import Entry, Head


MAX_BLOB = 32 * 2**20  # bytes: what is kept goes into a file and, held in memory, out of it again


class StoreError(Exception):
    """Something a store could not do; its text is for the daemon's log, never for a peer."""


class StoreFull(StoreError):
    """There is no space left."""


class StoreBroken(StoreError):
    """The medium or the file failed."""


class StoreConflict(StoreError):
    """A change does not continue what is stored."""

    def __init__(self, session: str, problem: str) -> None:
        super().__init__(f"session {session}: {problem}")
        self.session = session


class StoreCapped(StoreConflict):
    """A session more would be too many."""


class StoreTooLarge(StoreError):
    """A commit that could never be read back; most of it, or all, is of that session."""

    def __init__(self, session: str, problem: str) -> None:
        super().__init__(f"session {session}: {problem}")
        self.session = session


class StoreUnreadable(StoreError):
    """A stored session cannot be read."""

    def __init__(self, session: str, problem: str) -> None:
        super().__init__(f"session {session}: {problem}")
        self.session = session
        self.problem = problem


class BlobTooLarge(StoreError):
    """A blob is longer than it may be."""


class BlobMismatch(StoreError):
    """A blob has another digest than was said."""


class Change(Struct, frozen=True):
    """What a commit does to one session: entries to append, a head to write if it changed.

    `create` says that the session must not exist yet; then a head is given, and `cap` may say how
    many sessions the store may hold with it, of whatever kind. Its id may be any text.
    """

    session: str
    entries: tuple[Entry, ...] = ()
    head: Head | None = None
    create: bool = False
    cap: int | None = None


class Stored(Struct, frozen=True):
    """A stored session: its head, the numbers of its last entry and of the first one kept."""

    head: Head
    seq: int
    first: int = 1


class Page(Struct, frozen=True):
    """Consecutive entries; `more`: stored ones follow, `gap`: earlier ones were trimmed."""

    entries: list[Entry]
    more: bool = False
    gap: bool = False


class Blob(Struct, frozen=True):
    """Bytes that are kept, by the SHA-256 of all of them; not `is_new`: they were there already."""

    sha256: str
    size: int
    is_new: bool


class BlobPart(Struct, frozen=True):
    """A part of a blob, and the size of the whole."""

    data: bytes
    size: int


class Collected(Struct, frozen=True):
    """What was given back: so many blobs, and their bytes."""

    blobs: int = 0
    bytes: int = 0


class Missing(Struct, frozen=True):
    """A blob that is named and not there; no `sessions`: what names it is no session's entry."""

    sha256: str
    sessions: tuple[str, ...] = ()


class Problem(Struct, frozen=True):
    """Something that is wrong with what is stored, and the session it is about, if it is one.

    Whether a blob that is `missing` was ever here no store knows: `log.losses` finds out.
    """

    problem: str
    session: str | None = None
    missing: Missing | None = None


def problem_of(missing: Missing) -> Problem:
    """How a check tells of it."""
    return Problem(f"the blob {missing.sha256} is missing", missing=missing)


class Report(Struct, frozen=True):
    """What a check found; a store without problems is whole.

    The `notes` are of what a person may look at and remove: nothing is wrong with what is stored.
    """

    sessions: int
    entries: int
    blobs: int
    problems: list[Problem]
    notes: list[str] = []


class Store(Protocol):
    """Durable storage of sessions.

    All coroutines may raise `StoreError`, and `trio.ClosedResourceError` after `aclose`.
    """

    @property
    def name(self) -> str:
        """The backend's name, as `status` shows it."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Write all changes or none; `StoreTooLarge` for more than the store can keep at once.

        Not to be cancelled half way: a commit whose wait is cancelled may be written all the
        same, so callers shield it or never cancel the task that commits.
        """
        ...

    async def list(self) -> list[Stored]:
        """All sessions, by id. One that cannot be read is left out; see `damaged`."""
        ...

    async def damaged(self) -> Sequence[Problem]:
        """The sessions that are there and cannot be read, as they were when they were listed last.

        They stay as they are until they are deleted. Damage among entries is not seen here.
        """
        ...

    async def load(self, session: str) -> Stored | None:
        """One session; None only when it truly does not exist."""
        ...

    async def entries(
        self,
        session: str,
        after: int = 0,
        *,
        limit: int = 500,
        max_bytes: int = 2**18,
        kinds: frozenset[str] | None = None,
    ) -> Page:
        """Entries with `seq > after`, in order: at most `limit` of them, and no more once their
        bodies exceed `max_bytes` (so always at least one if there is one).

        With `kinds`, entries of other kinds are passed over and count for nothing, `more` neither.
        An unknown session has no entries.
        """
        ...

    async def delete(self, session: str) -> bool:
        """Remove all of a session, also of one that cannot be read; False if there was none.

        Blobs that it alone named go with the next `collect`.
        """
        ...

    async def trim(self, session: str, before: int) -> int:
        """Remove the entries with `seq < before`, durably; gives how many.

        The last entry always stays, and so no number is ever given twice. Where the pages begin
        then is a gap (`Page.gap`). An unknown session has nothing to trim; raises `StoreConflict`
        for one of a newer schema.
        """
        ...

    async def compact(self) -> int:
        """Give back space that holds nothing any more; gives how many bytes.

        Commits go on meanwhile.
        """
        ...

    async def check(self) -> Report:
        """Look at everything that is stored, byte for byte; commits go on meanwhile."""
        ...

    def free(self) -> int | None:
        """Bytes of free space where it is stored, None if that means nothing.

        Asks the system, and only once for a call.
        """
        ...

    async def put_blob(
        self, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> Blob:
        """Keep bytes, durably, once; `sha256` is what they must have, if it is known.

        No store keeps more than `MAX_BLOB`, whatever `max_bytes` says.

        Whoever wants to keep them commits an entry that names them (`naming`) within the grace of
        `collect`. Nothing is kept when the wait is cancelled or `chunks` raises.
        """
        ...

    async def get_blob(self, sha256: str, offset: int = 0, limit: int = 2**18) -> BlobPart | None:
        """At most `limit` bytes of a blob; None if there is none of that digest."""
        ...

    async def collect(self, grace: float) -> Collected:
        """Remove the blobs that no entry names, and that nobody put or read for `grace` seconds.

        While a session cannot be read nobody knows what it names, and no blob is removed.
        """
        ...

    async def tip(self, session: str) -> int | None:
        """The number of the last stored entry (0 for none), None for an unknown session."""
        ...

    async def reopen(self) -> None:
        """Give up every handle and open the medium again; after `StoreBroken`."""
        ...

    def release_reserve(self) -> bool:
        """Free the space kept back for verdicts and kills; False if there was none left."""
        ...

    def restore_reserve(self) -> bool:
        """Take the reserve back if there is ample space again; whether it is held now.

        Ample is more than a commit needs: on a disk that stays nearly full, commits may succeed
        while this is still False.
        """
        ...

    async def health(self) -> None:
        """Return if the store can be written and read back, with every step that it takes."""
        ...

    async def aclose(self) -> None:
        """Finish what was handed over, then close; idempotent."""
        ...
