"""Sessions as a client sees them: new, load, resume, list, close, delete, kill."""

import base64
import binascii
import math
import os.path
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import msgspec
from msgspec import UNSET, to_builtins

from moorage_daemon.ending import Ending
from moorage_daemon.handlers.config import SetUp, check_parent, patched as set_up
from moorage_daemon.handlers.grants import ground_for
from moorage_daemon.handlers.options import config_options, session_modes
from moorage_daemon.handlers.overrides import patched
from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Later, Now, Peer
from moorage_daemon.handlers.servers import named_servers
from moorage_daemon.handlers.snapshot import info_updates, snapshot_updates
from moorage_daemon.identity import Identity, Verb, is_id
from moorage_daemon.log.render import iso
from moorage_daemon.session import Session
from moorage_daemon.sessions import NewSession
from moorage_daemon.store.model import MAX_PATH, Head, Life
from moorage_protocol.acp import (
    ArchiveFilter,
    CwdParams,
    Empty,
    ListParams,
    LoadParams,
    Meta,
    SessionParams,
)
from moorage_protocol.errors import InvalidParams, MethodNotFound, NotFound, NotPermitted
from moorage_protocol.moorage import (
    Access,
    Cause,
    DamagedRow,
    KillParams,
    KillResult,
    ListResult,
    LiveParams,
    LiveResult,
    LiveRow,
    LoadedMeta,
    LoadResult,
    NewMeta,
    NewParams,
    NewResult,
    NewResultMeta,
    Overrides,
    ReplayMeta,
    ReplayParams,
    Role,
    SessionInfo,
)


R = TypeVar("R", bound=msgspec.Struct)

LONGEST_PROBLEM = 300  # characters; the whole of it stands in the log of the daemon
MAX_ROWS = 1000  # of live sessions in one answer, the newest
PAGE = 100  # sessions in one answer to session/list
PAGE_BYTES = 512 * 2**10  # of rows: the answer stays under 1 MiB
MAX_REASON = 1000  # characters of a kill's reason that are kept


def new(desk: Desk, peer: Peer, params: NewParams) -> Answer:
    """Start a session; answered when its first entry is durable."""
    if peer.identity.principal.role is Role.OBSERVER:
        raise NotPermitted
    _check_directory(params)
    wish = params.meta.moorage if isinstance(params.meta.moorage, NewMeta) else NewMeta()
    agent = wish.agent or desk.default_agent
    if agent not in desk.agents:
        raise InvalidParams("Invalid params: agent is not configured")
    servers = named_servers(params.mcp_servers)
    identity = peer.identity
    wanted = NewSession(
        principal=identity.principal.name,
        owner=identity.tui,
        agent=agent,
        mode=wish.mode,
        cwd=os.path.normpath(params.cwd),
        overrides=patched(Overrides(), wish.overrides, desk.providers),
        environment=_lent(wish),
        **vars(_set_up(desk, identity.principal.name, wish)),
    )
    desk.sessions.must_take_more()  # a grant is made only for a session that will be
    grant = ground_for(desk, peer, wish.grant, agent, wanted.id)
    session = desk.sessions.create(replace(wanted, grant=grant))
    session.offer(servers)
    peer.attach_new(session)
    result = NewResult(
        session_id=session.id,
        modes=session_modes(session.head.posture),
        config_options=config_options(session.head.posture, session.head.overrides, desk.providers),
        meta=Meta(moorage=_founded(identity, session)),
    )
    return AtSeq(session.log, session.log.seq, result, snapshot_updates(desk, session))


def _set_up(desk: Desk, principal: str, wish: NewMeta) -> SetUp:
    if isinstance(wish.config.parent, str):
        check_parent(desk, wish.config.parent, principal)
    return set_up(SetUp(labels=wish.labels), wish.config)


def _lent(wish: NewMeta) -> dict[str, str] | None:
    return None if wish.environment is None else to_builtins(wish.environment)


def _founded(identity: Identity, session: Session) -> NewResultMeta:
    if not identity.advertised:
        return NewResultMeta(seq=session.log.seq)
    head = session.head
    return NewResultMeta(
        seq=session.log.seq, owner=identity.tui, mode=head.mode, parked=[], grant_id=head.grant
    )


def _check_directory(params: CwdParams) -> None:
    if not params.cwd.startswith("/") or "\0" in params.cwd:
        raise InvalidParams("Invalid params: cwd must be an absolute path")
    if len(params.cwd.encode()) > MAX_PATH:
        raise InvalidParams(f"Invalid params: cwd is longer than {MAX_PATH} bytes")
    if params.additional_directories:
        raise InvalidParams("Invalid params: additionalDirectories is not supported")


def load(desk: Desk, peer: Peer, params: ReplayParams) -> Answer:
    """Replay all of a session, then answer, then go on live (Agent Client Protocol)."""
    wish = params.meta.moorage if isinstance(params.meta.moorage, ReplayMeta) else ReplayMeta()
    if wish.after_seq < 0:
        raise InvalidParams("Invalid params: _meta.moorage.afterSeq")
    session = _found(desk, peer, params)
    head = session.log.seq
    peer.attach(session, max(wish.after_seq, session.log.first - 1), Access.CONTROLLER)
    result, then = _loaded(desk, peer, session), snapshot_updates(desk, session)
    return AtSeq(session.log, head, result, then, is_replay=True)


def resume(desk: Desk, peer: Peer, params: LoadParams) -> Answer:
    """Attach to a session without its history."""
    session = _found(desk, peer, params)
    peer.attach(session, None, Access.CONTROLLER)
    then = (*snapshot_updates(desk, session), *info_updates(session))
    return Now(_loaded(desk, peer, session), then)


def _found(desk: Desk, peer: Peer, params: LoadParams) -> Session:
    _check_directory(params)
    servers = named_servers(params.mcp_servers)
    session = _find(desk, peer, params.session_id, Verb.ACT, leaving=True)
    session.offer(servers)
    return session


def _loaded(desk: Desk, peer: Peer, session: Session) -> LoadResult:
    cwd = session.head.cwd if peer.identity.advertised else None
    return LoadResult(
        modes=session_modes(session.head.posture),
        config_options=config_options(session.head.posture, session.head.overrides, desk.providers),
        meta=Meta(moorage=LoadedMeta(seq=session.log.durable, cwd=cwd)),
    )


def _find(
    desk: Desk,
    peer: Peer,
    session_id: str,
    verb: Verb,
    *,
    killed: bool = False,
    leaving: bool = False,
) -> Session:
    access = peer.access_to(session_id)
    return desk.sessions.find(
        session_id, peer.identity.principal, verb, access, killed=killed, leaving=leaving
    )


# ---- listing


def list_sessions(desk: Desk, peer: Peer, params: ListParams) -> Answer:
    """The principal's sessions, newest first, in pages; nothing is loaded or changed."""
    mine, advertised = peer.identity.principal.name, peer.identity.advertised
    filing = _filter(params.archived)

    def select(head: Head) -> bool:
        shown = advertised or head.life is not Life.KILLED
        filed = filing in (ArchiveFilter.INCLUDE, _FILED[head.archived])
        return shown and filed and head.principal == mine and params.cwd in (None, head.cwd)

    rows = list(desk.sessions.rows(select))
    start = _start(params.cursor, rows)
    page = _fitting(_info(row, advertised=advertised) for row in rows[start : start + PAGE])
    end = start + len(page)
    return Now(
        ListResult(sessions=page, next_cursor=_cursor(rows[end - 1]) if end < len(rows) else UNSET)
    )


_FILED = {False: ArchiveFilter.EXCLUDE, True: ArchiveFilter.ONLY}


def _filter(archived: str | None) -> ArchiveFilter:
    try:
        return ArchiveFilter(archived or ArchiveFilter.EXCLUDE)
    except ValueError:
        raise InvalidParams("Invalid params: archived") from None


def _fitting(rows: Iterable[R]) -> list[R]:
    """The first rows that fit into one answer."""
    fitting: list[R] = []
    room = PAGE_BYTES
    for row in rows:
        room -= len(msgspec.json.encode(row))
        if room < 0 and fitting:
            break
        fitting.append(row)
    return fitting


def _cursor(row: LiveRow) -> str:
    return base64.urlsafe_b64encode(f"{row.updated_at!r} {row.session_id}".encode()).decode()


def _start(cursor: str | None, rows: list[LiveRow]) -> int:
    """Where the page begins: behind the place the cursor names, whatever has moved since."""
    if cursor is None:
        return 0
    try:
        updated, _, session_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        place = (-float(updated), session_id)
    except (ValueError, binascii.Error):
        raise InvalidParams("Invalid params: cursor") from None
    if not is_id(session_id) or not math.isfinite(place[0]):
        raise InvalidParams("Invalid params: cursor")
    return sum((-row.updated_at, row.session_id) <= place for row in rows)


def _info(row: LiveRow, *, advertised: bool) -> SessionInfo:
    return SessionInfo(
        session_id=row.session_id,
        cwd=row.cwd,
        title=row.title,
        updated_at=iso(row.updated_at),
        archived=row.archived,
        meta=Meta(moorage=row) if advertised else UNSET,
    )


def live(desk: Desk, peer: Peer, params: LiveParams) -> Answer:
    """The sessions that are in memory; `all` for those of every principal, to operators."""
    mine = peer.identity.principal.name
    is_operator = peer.identity.principal.role is Role.OPERATOR
    if params.all and not is_operator:
        raise NotPermitted
    rows = desk.sessions.rows(
        lambda head: head.id in desk.sessions.live and (params.all or head.principal == mine)
    )
    return Now(
        LiveResult(
            sessions=_fitting(islice(rows, MAX_ROWS)),
            damaged=_fitting(islice(_damaged(desk), MAX_ROWS)) if is_operator else [],
        )
    )


def _damaged(desk: Desk) -> Iterator[DamagedRow]:
    for session, problem in sorted(desk.sessions.damaged.items()):
        yield DamagedRow(session_id=session, problem=problem[:LONGEST_PROBLEM])


# ---- ending


def close(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Stop what runs, wait for the verdict, put the session away; it can be loaded again."""
    if not (desk.close_is_served_to_all or peer.identity.advertised):
        raise MethodNotFound
    session = _find(desk, peer, params.session_id, Verb.ACT)
    return done_when(desk.sessions.close(session, peer.identity.tui))


def delete(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Remove a session; one that is not there counts as removed (Agent Client Protocol).

    Of one that cannot be read nobody knows whose it is: it is the operator's to remove.
    """
    try:
        session = _find(desk, peer, params.session_id, Verb.ACT, killed=True)
    except NotFound:
        is_operator = peer.identity.principal.role is Role.OPERATOR
        if is_operator and params.session_id in desk.sessions.damaged:
            return done_when(desk.sessions.discard(params.session_id))
        return Now(Empty())
    return done_when(desk.sessions.delete(session, peer.identity.tui))


def done_when(ending: Ending) -> Later:
    """The answer that says no more than that it is done."""

    async def work() -> Empty:
        await ending.over()
        return Empty()

    return Later(work)


def kill(desk: Desk, peer: Peer, params: KillParams) -> Answer:
    """End a session for ever; answered after its last verdict, or the grace."""
    try:
        session = _find(desk, peer, params.session_id, Verb.KILL)
    except NotFound:
        return Now(KillResult(killed=False))
    reason = params.reason[:MAX_REASON] if params.reason is not None else None
    killed, ending = desk.sessions.kill(session, peer.identity.tui, reason)

    async def work() -> KillResult:
        durable = await desk.sessions.until_recorded(ending)
        return KillResult(
            killed=True,
            cause=Cause.ADMIN_KILL,
            turns=sorted(turn.generation for turn in killed.turns),
            processes=killed.processes,
            durable=durable,
        )

    return Later(work, has_acted=True)
