"""One grant of a running daemon: how it stands, where that is recorded, and who relies on it."""

from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.holds import Hold
from moorage_daemon.ledger.records import record_of
from moorage_daemon.log.log import Log
from moorage_daemon.store.model import Head
from moorage_protocol.moorage import Cause


class Stander(Protocol):
    """A session that stands on a grant."""

    @property
    def id(self) -> str:
        """The session's."""
        ...

    def lose_ground(self, cause: Cause) -> None:
        """The grant has ended, or what delegated it has stopped: so have the turns that use it."""
        ...


@dataclass(eq=False)
class Holding:
    """A grant. `head` is ahead of what is durable, as the account is.

    `session` is the one it was made for, if it was for one: it ends with that.
    """

    account: Account
    head: Head
    log: Log
    standers: set[Stander] = field(default_factory=set[Stander])
    _noted: int = field(init=False)  # refusals, as they were last written

    def __post_init__(self) -> None:
        self._noted = self.account.spend.refused

    @property
    def id(self) -> str:
        """The grant's."""
        return self.account.id

    @property
    def session(self) -> str | None:
        """The session it was made for."""
        return self.head.record.session if self.head.record is not None else None

    def is_for(self, session_id: str) -> bool:
        """Whether it was made for that session."""
        return self.session == session_id

    @property
    def cause(self) -> Cause:
        """What the turns that used it are stopped for, now that it has ended.

        A grant that was closed, or could not be recorded, is gone as a session is that was closed.
        """
        ended = self.account.ended
        try:
            return Cause(ended.cause) if ended is not None else Cause.SESSION_REMOVED
        except ValueError:
            return Cause.SESSION_REMOVED

    def write_head(self) -> None:
        """Have it recorded how the account stands now."""
        self._noted = self.account.spend.refused
        record = record_of(self.account, self.session)
        self.head = replace(self.head, updated_at=self.log.writes.now(), record=record)
        self.log.write_head(self.head)

    def note_refusals(self) -> None:
        """Have the count of refusals written, if there were some since the head was."""
        if self.account.spend.refused != self._noted:
            self.write_head()


@dataclass(eq=False)
class Held:
    """What is held for an answer, and with which entry."""

    holding: Holding
    hold: Hold
    seq: int
    is_settled: bool = False

    async def durable(self) -> None:
        """Wait until it holds; raises `StorageError`."""
        await self.holding.log.until(self.seq)


@dataclass(eq=False)
class Receipt:
    """Calls that were charged, and with which entry."""

    holding: Holding
    calls: int
    seq: int

    async def durable(self) -> None:
        """Wait until the charge holds; raises `StorageError`, and then it was given back."""
        await self.holding.log.until(self.seq)
