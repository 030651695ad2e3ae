"""What is done when nobody asks: removing what is kept longer than was wanted, and what is left
over from what was removed.

Old turns are cut off whole, and only where nothing runs and nobody follows: a log begins with a
prompt again, and everybody who comes is told that it does not begin with the first. What a user
allowed for the whole of a session goes with the turn in which it was asked; the summary that models
are told instead of its first turns is written anew at the end.
"""

import logging
from dataclasses import dataclass, field

import msgspec
import trio

from moorage_daemon.retention import Retention
from moorage_daemon.sessions import Sessions
from moorage_daemon.store.model import (
    SCHEMA,
    CompactionBody,
    Entry,
    Kind,
    PromptBody,
    UnreadableBody,
    read_body,
)
from moorage_daemon.store.port import Collected, Store, Stored, StoreError
from moorage_protocol.errors import RpcError, StorageError


logger = logging.getLogger(__name__)

FIRST = 60.0  # seconds after the start: who starts a daemon wants something else of it
EVERY = 3600.0
GRACE = 3600.0  # seconds in which a blob may be named after it was put; an upload takes minutes
SLACK = 1.1  # a log is cut when it is a tenth too long: each cut writes what stays anew
JUMP = 366 * 86400.0  # seconds; a clock so far beyond the last use of anything was set wrongly

NOTHING = Collected()

_COMPACTIONS = frozenset({Kind.COMPACTION})
_PROMPTS = frozenset({Kind.PROMPT})


class Cleaned(msgspec.Struct, frozen=True):
    """What a round of housekeeping removed. `freed` are bytes beside those of blobs."""

    expired: int = 0
    trimmed: int = 0
    collected: Collected = NOTHING
    freed: int = 0


@dataclass(eq=False)
class Housekeeping:
    """Rounds of cleaning, one at a time."""

    sessions: Sessions
    store: Store
    retention: Retention
    _round: trio.Lock = field(default_factory=trio.Lock)

    async def run(self) -> None:
        """Clean up now and then, and after sessions were removed what they alone had named."""
        pause = FIRST
        while True:
            with trio.move_on_after(pause) as waiting:
                await self.sessions.committer.removal()
            try:
                if waiting.cancelled_caught:
                    await self.clean()
                else:
                    await self.collect()
            except StoreError:
                logger.exception("housekeeping failed: it is tried again later")
            pause = EVERY

    async def collect(self) -> Collected:
        """Remove blobs that nobody names any more."""
        async with self._round:
            return await self.store.collect(GRACE)

    async def clean(self) -> Cleaned:
        """Do all of it; raises `StoreError`."""
        async with self._round:
            expired = await self._expire()
            trimmed = await self._trim()
            collected = await self.store.collect(GRACE)
            freed = await self.store.compact()
        cleaned = Cleaned(expired, trimmed, collected, freed)
        if cleaned != Cleaned():
            logger.info("cleaned up", extra={"expired": expired, "trimmed": trimmed})
        return cleaned

    # ---- whole sessions

    async def _expire(self) -> int:
        """Remove the sessions that nobody has used for so many days; gives how many."""
        if not self.retention.days:
            return 0
        resting = self.sessions.at_rest()
        now = self.sessions.committer.now()
        newest = max((stored.head.updated_at for stored in resting), default=now)
        if now - newest > JUMP:
            logger.warning("no session was used for a year by this clock: none is removed for it")
            return 0
        since = now - self.retention.days * 86400
        old = [stored.head.id for stored in resting if stored.head.updated_at < since]
        return sum([await self._expired(session) for session in old])

    async def _expired(self, session: str) -> bool:
        ending = self.sessions.expire(session)
        if ending is None:
            return False
        try:
            await ending.over()
        except RpcError:
            logger.exception("an old session cannot be removed", extra={"session": session})
            return False
        return True

    # ---- long logs

    async def _trim(self) -> int:
        """Cut the logs that are too long; gives how many entries went."""
        keep = self.retention.max_entries
        if not keep:
            return 0
        resting = self.sessions.at_rest()
        long = [s for s in resting if _length(s) > keep * SLACK and s.head.schema <= SCHEMA]
        return sum([await self._trimmed(stored, keep) for stored in long])

    async def _trimmed(self, stored: Stored, keep: int) -> int:
        session = stored.head.id
        try:
            first = await self._start(stored, keep)
            if first <= stored.first:
                return 0
            await self._keep_summary(stored, first)
            if not self.sessions.begin_at(session, first):
                return 0
            return await self.store.trim(session, first)
        except (StoreError, StorageError):
            logger.exception("a log cannot be trimmed", extra={"session": session})
            return 0

    async def _keep_summary(self, stored: Stored, first: int) -> None:
        """What models are told instead of the turns that go must not go with them."""
        session, at = stored.head.id, stored.head.compacted
        if not 0 < at < first:
            return
        page = await self.store.entries(session, at - 1, limit=1, kinds=_COMPACTIONS)
        for entry in page.entries:
            try:
                await self.sessions.restate(session, read_body(entry, CompactionBody))
            except UnreadableBody:
                logger.exception("a summary cannot be read: it goes", extra={"session": session})

    async def _start(self, stored: Stored, keep: int) -> int:
        """Where the log may begin: with a turn that found nothing running before it.

        The first such turn of the entries that are kept, else the last one before them.
        """
        wanted = stored.seq - keep + 1
        later = await self._starts(stored.head.id, wanted - 1, stored.seq, most=1)
        found = later or await self._starts(stored.head.id, stored.first - 1, wanted)
        return found[-1] if found else stored.first

    async def _starts(
        self, session: str, after: int, end: int, *, most: int | None = None
    ) -> list[int]:
        """The entries beyond `after` and up to `end` with which a turn began at once."""
        found: list[int] = []
        more = True
        while more and after < end and (most is None or len(found) < most):
            page = await self.store.entries(session, after, kinds=_PROMPTS)
            found += [e.seq for e in page.entries if e.seq <= end and _starts_at_once(e)]
            after = page.entries[-1].seq if page.entries else end
            more = page.more
        return found[:most]


def _length(stored: Stored) -> int:
    return stored.seq - stored.first + 1


def _starts_at_once(entry: Entry) -> bool:
    try:
        return read_body(entry, PromptBody).position == 0
    except UnreadableBody:  # of a newer version: nobody knows where a turn begins
        return False
