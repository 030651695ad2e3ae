"""A reader's place in a log.

An attachment is a cursor and not a queue: nothing is buffered for a reader, so a slow one is
late and never wrong, and costs the same memory as a fast one.
"""

from collections.abc import Callable
from typing import Protocol

from moorage_daemon.store.model import Entry
from moorage_daemon.store.port import Page


class Readable(Protocol):
    """What a cursor reads from."""

    @property
    def durable(self) -> int:
        """The number of the last entry that may be told."""
        ...

    def recent(self, after: int, max_bytes: int) -> list[Entry] | None:
        """Entries beyond `after` from memory; None when they are no longer there."""
        ...

    async def stored(self, after: int, max_bytes: int) -> Page:
        """Entries beyond `after` from the store."""
        ...

    def release(self, cursor: "Cursor") -> None:
        """Forget a cursor."""
        ...

    def moved(self) -> None:
        """A cursor moved on: what all have read may go."""
        ...


class Cursor:
    """The last entry a reader was given, `seq`, and how to wake it when there is more.

    `end` is set when the log's session ends for its readers: after that entry nothing follows.
    """

    __slots__ = ("_log", "end", "seq", "wake")

    def __init__(self, log: Readable, seq: int, wake: Callable[[], None]) -> None:
        self._log = log
        self.seq = seq
        self.wake = wake
        self.end: int | None = None

    @property
    def behind(self) -> bool:
        """Whether there are entries to read."""
        return self.seq < self._log.durable

    @property
    def at_end(self) -> bool:
        """Whether the last entry there will be was read."""
        return self.end is not None and self.seq >= self.end

    def take(self, max_bytes: int) -> list[Entry] | None:
        """The next entries, at least one if `behind`; None when only the store has them."""
        if not self.behind:
            return []
        entries = self._log.recent(self.seq, max_bytes)
        return None if entries is None else self._passed(entries)

    async def fetch(self, max_bytes: int) -> list[Entry]:
        """The next entries from the store."""
        page = await self._log.stored(self.seq, max_bytes)
        return self._passed(page.entries)

    def _passed(self, entries: list[Entry]) -> list[Entry]:
        if entries:
            self.seq = entries[-1].seq
            self._log.moved()
        return entries

    def close(self) -> None:
        """Stop reading; idempotent."""
        self._log.release(self)
