"""A session that is being written and that nobody sees before all of it is durable.

Its entries are committed as they come, so a file of any length takes little memory; its head says
that it is not complete, so what a crash leaves of it is removed by the next start.
"""

from contextlib import suppress
from dataclasses import dataclass, field

from msgspec.structs import replace

from moorage_daemon.log.agreement import Account
from moorage_daemon.log.log import Log
from moorage_daemon.log.recovery import mend
from moorage_daemon.sessions import Sessions
from moorage_daemon.store.model import Entry, Head, ImportedBody, Kind
from moorage_daemon.store.port import Stored
from moorage_protocol.errors import StorageError


@dataclass(eq=False)
class Landing:
    """The session of `head`, whose first entry is still to come."""

    sessions: Sessions
    head: Head
    account: Account = field(default_factory=Account)
    ahead: int = 0
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log(Stored(self.head, 0), self.sessions.committer, is_new=True)

    @property
    def next(self) -> int:
        """The number of the entry that comes next."""
        return self.log.seq + 1

    def add(self, kind: str, body: bytes, *, at: float, generation: int | None = None) -> None:
        """Write an entry; the first one brings the session about.

        What is dated in the future is of now: it would stand above all that is yet to come.
        """
        now = self.sessions.committer.now()
        self.ahead += at > now
        at = min(at, now)
        if self.log.seq == 0:
            self.log.write_head(replace(self.head, complete=False))
        seq = self.log.append(kind, body, generation=generation, at=at)
        self.account.take(Entry(seq, at, kind, body, generation))

    async def flush(self) -> None:
        """Wait until all of it is durable; raises `StorageError`."""
        await self.log.until(self.log.seq)

    async def complete(self, note: ImportedBody) -> ImportedBody:
        """End what is open, say where it came from, and let everybody see it.

        Gives what was said, with what there is to note of the entries.

        It is as new here as it comes: by the file's own time it could be too old to be kept at all,
        or never grow old.
        """
        await self.flush()
        head = replace(self.head, compacted=self.account.compacted)
        head, now = self.account.agreed(head), self.sessions.committer.now()
        change = mend(Stored(head, self.log.seq), self.log.told, now)
        for entry in change.entries:
            self.log.append(entry.kind, entry.body, generation=entry.generation)
        if self.ahead:
            ahead = f"{self.ahead} entries were of the future: they are of the moment of the import"
            note = replace(note, notes=(*note.notes, ahead))
        imported = self.log.append(Kind.IMPORTED, note)
        self.head = replace(
            head,
            open_turns=(),
            created_at=min(head.created_at, now),
            updated_at=now,
            imported=imported,
        )
        self.log.write_head(self.head)
        await self.flush()
        self.sessions.adopt(Stored(self.head, self.log.seq))
        return note

    async def discard(self) -> None:
        """Leave nothing of it; raises `StoreError`.

        What is not of this writing is not touched: a session that could not be read, and so was
        not known, may have the very id.
        """
        with suppress(StorageError):  # what is on its way to the disk first
            await self.flush()
        if self.log.exists:
            await self.sessions.committer.delete(self.head.id)
