"""After a crash: every turn that was cut gets its verdict before anybody is served.

Nothing runs again by itself. A tool that was started and has no result may or may not have done
its work: it is recorded as unknown, for the user to judge. All of it is one commit.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from moorage_daemon.log.agreement import Account
from moorage_daemon.log.told import Told
from moorage_daemon.store.model import (
    SCHEMA,
    UPDATE_KINDS,
    AnswerBody,
    Entry,
    Kind,
    ResultBody,
    VerdictBody,
    encode_body,
)
from moorage_daemon.store.port import Change, Store, Stored, StoreError, StoreFull
from moorage_protocol.acp import StopReason, Text, ToolCallStatus, ToolCallUpdate, ToolContent
from moorage_protocol.moorage import Cause, Outcome, ToolCallCounts


logger = logging.getLogger(__name__)

_FOLDED = frozenset(Kind) - UPDATE_KINDS


class Cut(msgspec.Struct, frozen=True):
    """What ended turns that had no verdict; `event` begins the sentences that say so."""

    cause: Cause
    by: str
    event: str


RESTART = Cut(Cause.DAEMON_RESTART, "daemon", "The daemon was restarted")


async def recover(store: Store, now: Callable[[], float]) -> list[Stored]:
    """All stored sessions, none of them with an open turn; raises `StoreError`.

    A session whose log is damaged gets its verdicts if it takes any, and stops no other. Where a
    head that names open turns disagrees with its log, the log counts: no turn has two verdicts.
    """
    found = {stored.head.id: stored for stored in await _complete(store)}
    cut = [s for s in found.values() if s.head.open_turns and s.head.schema <= SCHEMA]
    written = await _write(store, [await mended(store, stored, now()) for stored in cut])
    if written:
        logger.warning("turns were cut by a restart", extra={"sessions": len(written)})
    for change in written:
        assert change.head is not None
        seq = change.entries[-1].seq if change.entries else found[change.session].seq
        found[change.session] = replace(found[change.session], head=change.head, seq=seq)
    return list(found.values())


async def _complete(store: Store) -> list[Stored]:
    """The sessions, without those that were never wholly written out of a file."""
    listed = await store.list()
    for stored in listed:
        if not stored.head.complete:
            logger.warning("an import was cut: removing it", extra={"session": stored.head.id})
            await store.delete(stored.head.id)
    return [stored for stored in listed if stored.head.complete]


async def _write(store: Store, changes: list[Change]) -> list[Change]:
    """Write the changes at once, or each alone if one of them cannot be; gives the written ones."""
    if not changes:
        return []
    try:
        await _commit(store, changes)
    except StoreFull:
        raise
    except StoreError:
        logger.exception("cut turns cannot all be recorded: session by session")
        await store.reopen()
        written = [change for change in changes if await _is_written(store, change)]
        await store.health()  # it is the sessions and not the medium
        return written
    return changes


async def _is_written(store: Store, change: Change) -> bool:
    try:
        if not change.entries or await store.tip(change.session) != change.entries[-1].seq:
            await _commit(store, [change])
    except StoreFull:
        raise
    except StoreError:
        logger.exception("a cut turn cannot be recorded", extra={"session": change.session})
        return False
    return True


async def _commit(store: Store, changes: list[Change]) -> None:
    try:
        await store.commit(changes)
    except StoreFull:
        if not store.release_reserve():
            raise
        await store.commit(changes)


async def mended(store: Store, stored: Stored, now: float, cut: Cut = RESTART) -> Change:
    """What ends the turns that have no verdict in what is stored of a session."""
    told, account = await _fold(store, stored)
    return mend(Stored(account.agreed(stored.head), stored.seq), told, now, cut)


def mend(stored: Stored, told: Told, now: float, cut: Cut = RESTART) -> Change:
    """What ends the turns that a head names as open, and all that is open in them."""
    entries = _Entries(stored.seq, now)
    for call, ask in told.asks.items():
        body = AnswerBody(tool_call_id=call, outcome="cancelled")
        entries.add(Kind.ANSWER, body, ask.generation)
        entries.close_call(call, ask.generation, f"{cut.event}.", "cancelled")
    for call, intent in told.intents.items():
        text = f"{cut.event} while this ran: whether it was done is not known."
        entries.close_call(call, intent.generation, text, "unknown_outcome")
    for generation in stored.head.open_turns:
        entries.add(Kind.VERDICT, _verdict(told, generation, cut), generation)
    head = replace(stored.head, open_turns=(), updated_at=now)
    return Change(head.id, tuple(entries.written), head)


async def _fold(store: Store, stored: Stored) -> tuple[Told, Account]:
    told, account = Told.at_rest(stored.head, 0), Account()
    more = True
    try:
        while more:
            page = await store.entries(stored.head.id, told.seq, kinds=_FOLDED)
            account.is_whole &= not page.gap
            for entry in page.entries:
                told.apply(entry)
                account.take(entry)
            more = page.more
    except StoreError:
        logger.exception("a log cannot be read to its end", extra={"session": stored.head.id})
        account.is_whole = False
    return told, account


def _verdict(told: Told, generation: int, cut: Cut) -> VerdictBody:
    unknown = sum(intent.generation == generation for intent in told.intents.values())
    return VerdictBody(
        outcome=Outcome.CANCELLED,
        cause=cut.cause,
        by=cut.by,
        stop_reason=StopReason.CANCELLED,
        tool_calls=ToolCallCounts(unknown=unknown),
    )


@dataclass
class _Entries:
    """Entries that continue a log at `seq`."""

    seq: int
    now: float
    written: list[Entry] = field(default_factory=list[Entry])

    def add(self, kind: Kind, body: msgspec.Struct, generation: int) -> None:
        self.seq += 1
        self.written.append(Entry(self.seq, self.now, kind, encode_body(body), generation))

    def close_call(self, call: str, generation: int, text: str, status: str) -> None:
        shown = ToolCallUpdate(
            tool_call_id=call,
            status=ToolCallStatus.FAILED,
            content=[ToolContent(content=Text(text=text))],
        )
        self.add(Kind.TOOL, shown, generation)
        self.add(Kind.RESULT, ResultBody(tool_call_id=call, status=status), generation)
