"""All sessions: the heads of all are in memory, live objects only of those in use.

A session that nobody uses is a stored head and its last number; the first use makes it live
again, at once and without reading its log.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from moorage_daemon.ending import Ending
from moorage_daemon.identity import Principal, Verb, authorize, new_id
from moorage_daemon.log.committer import Committer
from moorage_daemon.log.kills import record_kill
from moorage_daemon.log.log import Log
from moorage_daemon.record import Record
from moorage_daemon.session import Killed, Session
from moorage_daemon.store.model import CompactionBody, Head, Kind, Life, StateBody, as_cost
from moorage_daemon.store.port import Stored, StoreError
from moorage_daemon.surroundings import Surroundings
from moorage_protocol.config import SessionConfig
from moorage_protocol.errors import NotFound, RpcError, Stopping, StorageError
from moorage_protocol.moorage import Access, Cause, DetachReason, LiveRow, Mode, Overrides, State


logger = logging.getLogger(__name__)

DRAIN_SLACK = 1.0  # seconds beyond the grace that closing waits: a verdict's commit and more


@dataclass(frozen=True)
class NewSession:
    """What a new session starts with; `cwd` is absolute."""

    principal: str
    owner: str
    agent: str
    mode: Mode
    cwd: str
    overrides: Overrides = field(default_factory=Overrides)
    labels: dict[str, str] = field(default_factory=dict[str, str])
    title: str | None = None
    parent: str | None = None
    config: SessionConfig = field(default_factory=SessionConfig)
    environment: dict[str, str] | None = None
    grant: str | None = None
    id: str = field(default_factory=new_id)


@dataclass(eq=False)
class Sessions:
    """The one list of sessions. Those that are `damaged` are only known by their ids, and why."""

    around: Surroundings
    committer: Committer
    live: dict[str, Session] = field(default_factory=dict[str, Session])
    parked: dict[str, Stored] = field(default_factory=dict[str, Stored])
    damaged: dict[str, str] = field(default_factory=dict[str, str])
    stopping: bool = False

    # ---- finding

    def find(
        self,
        session_id: str,
        principal: Principal,
        verb: Verb,
        access: Access | None = None,
        *,
        killed: bool = False,
        leaving: bool = False,
    ) -> Session:
        """The session, live, if that principal may do that with it now.

        A killed session is not found unless asked for: its log can still be read. Nor is one that
        is leaving the store, but by who only looks on: to them it is said that it is over.
        """
        head = self.head(session_id)
        if head is None:
            raise NotFound
        authorize(principal, head.principal, verb, access)
        if head.life is Life.KILLED and not killed:
            raise NotFound
        session = self._live(session_id)
        if session.is_leaving and verb is not Verb.WATCH and not (killed or leaving):
            raise NotFound  # it would write behind what is removed in this moment
        return session

    def head(self, session_id: str) -> Head | None:
        """What is known of a session without making it live; None for an unknown one."""
        session = self.live.get(session_id)
        if session is not None:
            return session.head
        stored = self.parked.get(session_id)
        return stored.head if stored is not None else None

    def _live(self, session_id: str) -> Session:
        session = self.live.get(session_id)
        if session is None:
            stored = self.parked[session_id]
            if stored.head.life is Life.KILLED:
                return self._made(stored)  # to be read: it does not come back
            session = self._open(stored)
        session.touch()
        return session

    def _open(self, stored: Stored, *, is_new: bool = False) -> Session:
        session = self._made(stored, is_new=is_new)
        self.parked.pop(session.id, None)
        self.live[session.id] = session
        return session

    def _made(self, stored: Stored, *, is_new: bool = False) -> Session:
        record = Record(stored.head, Log(stored, self.committer, is_new=is_new))
        if self.stopping:
            record.ends = DetachReason.SHUTDOWN
        return Session(record, self.around)

    # ---- creating

    def create(self, wanted: NewSession) -> Session:
        """A new session; it exists for others when its first entry is durable.

        Raises as `must_take_more` does.
        """
        self.must_take_more()
        now = self.committer.now()
        head = Head(
            id=wanted.id,
            principal=wanted.principal,
            owner=wanted.owner,
            agent=wanted.agent,
            mode=wanted.mode,
            cwd=wanted.cwd,
            created_at=now,
            updated_at=now,
            overrides=wanted.overrides,
            labels=wanted.labels,
            title=wanted.title,
            parent=wanted.parent,
            config=wanted.config,
            environment=wanted.environment,
            grant=wanted.grant,
        )
        session = self._open(Stored(head, 0), is_new=True)
        session.log.write_head(head)
        first = session.log.append(Kind.STATE, StateBody(state=Life.ACTIVE, by=wanted.owner))
        session.log.when_durable(first, lambda error: self._drop(session, error), patient=True)
        return session

    def must_take_more(self) -> None:
        """Raise `Stopping`, or `StorageError` while nothing new can be written."""
        if self.stopping:
            raise Stopping
        if self.committer.low:
            raise StorageError

    def adopt(self, stored: Stored) -> None:
        """Let a session be seen that was written without anybody looking."""
        self.parked[stored.head.id] = stored

    def _drop(self, session: Session, error: StorageError | None) -> None:
        if error is not None:
            self.live.pop(session.id, None)  # it never came to be
            session.ground.leave()

    # ---- ending

    def kill(self, session: Session, by: str, reason: str | None) -> tuple[Killed, Ending]:
        """Kill a session; see `Session.kill`. The ending is its record."""
        killed = session.kill(by, reason)
        logger.warning(
            "a session was killed",
            extra={"session": session.id, "by": by, "turns": len(killed.turns)},
        )
        body = StateBody(state=Life.KILLED, by=by, reason=reason)
        session.ending = self._begin(lambda: self._bury(session, body))
        return killed, session.ending

    async def until_recorded(self, ending: Ending) -> bool:
        """Wait for the record of a kill, at most the grace and a little; whether it holds."""
        with trio.move_on_after(self.around.rules.grace + DRAIN_SLACK):
            try:
                await ending.over()
            except RpcError:
                return False
            return True
        return False

    def close(self, session: Session, by: str) -> Ending:
        """Stop what runs at once; when the verdicts are durable the session is parked."""
        session.end(by, DetachReason.CLOSED, Cause.SESSION_REMOVED)
        return self._begin(lambda: self._put_away(session))

    def archive(self, session: Session, by: str) -> Ending:
        """Close a session and take it off the usual list."""
        if not session.head.archived:
            session.record.file(by, archived=True)
        return self.close(session, by)

    def delete(self, session: Session, by: str) -> Ending:
        """Stop what runs at once; then the session is removed with all that was stored of it."""
        session.end(by, DetachReason.CLOSED, Cause.SESSION_REMOVED)
        session.is_doomed = True
        session.ground.end(Cause.SESSION_REMOVED, by)
        return self._begin(lambda: self._remove(session))

    def discard(self, session_id: str) -> Ending:
        """Remove a session that cannot be read."""
        return self._begin(lambda: self._discard(session_id))

    async def _discard(self, session_id: str) -> None:
        await self.committer.delete(session_id)
        self.damaged.pop(session_id, None)

    def _begin(self, work: Callable[[], Awaitable[None]]) -> Ending:
        ending = Ending()
        self.around.sessions.start_soon(ending.bring_about, work)
        return ending

    async def _bury(self, session: Session, death: StateBody) -> None:
        """Put a killed session away once that is on record, however long it takes."""
        try:
            await self._put_away(session)
        except StorageError:
            stored = await record_kill(self.committer, session.id, death)
            if stored is not None:
                self._park(session, stored)

    async def _put_away(self, session: Session) -> None:
        await session.ended()
        self._park(session, Stored(session.head, session.log.durable, session.log.first))

    def _park(self, session: Session, stored: Stored) -> None:
        if self.live.get(session.id) is session and not session.is_doomed:
            del self.live[session.id]
            session.ground.leave()
            self.parked[session.id] = stored
            session.log.end_readers(session.log.durable)  # who came in the last moment, too

    async def _remove(self, session: Session) -> None:
        with suppress(StorageError):  # what cannot be written any more can be removed
            await session.ended()
        session.is_leaving = True
        with suppress(StorageError):  # what was written while that was waited for
            await session.ended()
        try:
            await self.committer.delete(session.id)
        except StoreError:
            logger.exception("a session cannot be removed", extra={"session": session.id})
            session.is_doomed = session.is_leaving = False
            await self._put_away(session)
            raise
        self.live.pop(session.id, None)
        self.parked.pop(session.id, None)
        session.ground.leave()
        session.log.end_readers(session.log.durable)

    # ---- what is kept too long

    def at_rest(self) -> list[Stored]:
        """The sessions in which nothing runs and that nobody follows."""
        live = [s for s in self.live.values() if s.log.exists and self._rests(s)]
        stored = [Stored(s.log.head, s.log.durable, s.log.first) for s in live]
        return [*self.parked.values(), *stored]

    def _rests(self, session: Session) -> bool:
        return not (session.is_busy or session.log.cursors or session.ends)

    def expire(self, session_id: str) -> Ending | None:
        """Remove a session if it is at rest; None if it is not, or not there."""
        if self.head(session_id) is None:
            return None
        live = self.live.get(session_id)
        if live is not None and not self._rests(live):
            return None
        logger.info("a session is removed: nobody used it", extra={"session": session_id})
        return self.delete(self._live(session_id), "retention")

    async def restate(self, session_id: str, summary: CompactionBody) -> None:
        """Have a summary stand in a new entry, durably, if the session is at rest and may go on.

        Raises `StorageError`.
        """
        head, live = self.head(session_id), self.live.get(session_id)
        if head is None or head.life is Life.KILLED or (live and not self._rests(live)):
            return
        session = self._live(session_id)
        await session.log.until(session.record.restate(summary))

    def begin_at(self, session_id: str, first: int) -> bool:
        """Let nobody read what is before entry `first`; False if the session is not at rest."""
        live, parked = self.live.get(session_id), self.parked.get(session_id)
        if live is not None and self._rests(live):
            live.log.first = first
        elif parked is not None:
            self.parked[session_id] = replace(parked, first=first)
        else:
            return False
        return True

    # ---- the end

    async def drain(self) -> None:
        """The daemon stops: every turn is cancelled and has its verdict, everybody is detached."""
        self.stopping = True
        async with trio.open_nursery() as nursery:
            for session in [*self.live.values()]:
                nursery.start_soon(self._drain_one, session)

    async def _drain_one(self, session: Session) -> None:
        try:
            session.end("daemon", DetachReason.SHUTDOWN, Cause.SHUTDOWN)
            await (session.ending.over() if session.ending is not None else session.ended())
        except RpcError:
            logger.exception("a session could not be closed", extra={"session": session.id})

    # ---- listing

    def rows(self, select: Callable[[Head], bool]) -> Iterator[LiveRow]:
        """The sessions selected, newest first, as told: nothing is loaded or changed."""
        live = [_told(session) for session in self.live.values() if session.log.exists]
        heads = [*live, *(stored.head for stored in self.parked.values())]
        chosen = [head for head in heads if select(head)]
        for head in sorted(chosen, key=lambda head: (-head.updated_at, head.id)):
            yield self.row(head)

    def row(self, head: Head) -> LiveRow:
        """One session as a row."""
        session = self.live.get(head.id)
        stored = self.parked.get(head.id)
        told = session.log.told if session is not None else None
        turn = told.turn if told is not None else None
        return LiveRow(
            session_id=head.id,
            agent=head.agent,
            owner=head.owner,
            principal=head.principal,
            mode=head.mode,
            cwd=head.cwd,
            state=session.state if session is not None else _at_rest(head),
            generation=head.generation,
            seq=session.log.durable if session else stored.seq if stored else 0,
            queued=len(told.queue) if told else 0,
            pending_permissions=len(told.asks) if told else 0,
            attached=len(session.log.cursors) if session else 0,
            created_at=head.created_at,
            updated_at=head.updated_at,
            title=head.title,
            started_at=turn.started_at if turn else None,
            model=head.overrides.model,
            cost=None if head.totals.micros is None else as_cost(head.totals.micros),
            killed=head.life is Life.KILLED,
            archived=head.archived,
        )

    def count_by_agent(self) -> dict[str, int]:
        """How many live sessions each agent has."""
        return dict(Counter(session.head.agent for session in self.live.values()))

    def supervisors(self) -> set[int]:
        """The pids under which tools run now."""
        return {pid for session in self.live.values() for pid in session.supervisors()}

    @property
    def running_turns(self) -> int:
        """How many turns run now."""
        return sum(session.turn is not None for session in self.live.values())


def _told(session: Session) -> Head:
    """The head as it is durable; only a kill shows before, as it holds before."""
    return replace(session.log.head, life=session.head.life)


def _at_rest(head: Head) -> State:
    match head.life:
        case Life.KILLED:
            return State.KILLED
        case Life.PAUSED:
            return State.PAUSED
        case Life.ACTIVE:
            return State.IDLE


@asynccontextmanager
async def open_sessions(
    around: Surroundings, committer: Committer, stored: list[Stored], damaged: dict[str, str]
) -> AsyncGenerator[Sessions]:
    """The sessions of a store. On leaving, every turn gets its verdict, within a bound."""
    parked = {item.head.id: item for item in stored}
    sessions = Sessions(around, committer, parked=parked, damaged=damaged)
    try:
        yield sessions
    finally:
        bound = around.rules.grace + DRAIN_SLACK
        with trio.move_on_after(bound, shield=True):
            await sessions.drain()
