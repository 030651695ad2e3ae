"""What a session took, made and verified, read out of its log; of a killed one too."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct

from moorage_daemon.handlers.port import Answer, Desk, Later, Peer
from moorage_daemon.identity import Verb
from moorage_daemon.log.losses import lost_of
from moorage_daemon.log.views import (
    Rows,
    artifact_of,
    artifact_rows,
    context_of,
    cost_rows,
    place_of,
    report_rows,
    trace_rows,
)
from moorage_daemon.session import Session
from moorage_daemon.store.model import as_cost
from moorage_protocol.errors import InvalidParams, NotFound
from moorage_protocol.views import (
    MAX_PIECE,
    ArtifactParams,
    ArtifactResult,
    ArtifactsResult,
    PageParams,
    ReportsResult,
    TracesResult,
    UsageResult,
)


R = TypeVar("R")

PAGE_LIMIT = 1000  # rows in one answer


def usage(desk: Desk, peer: Peer, params: PageParams) -> Answer:
    """The sums, and the records they are made of."""
    session = _find(desk, peer, params)

    async def work() -> UsageResult:
        head = session.log.head
        store = session.around.store
        page = await cost_rows(store, session.id, after=params.after, limit=params.limit)
        micros = head.totals.micros
        return UsageResult(
            context=context_of(head),
            tokens=head.totals.tokens,
            cost=None if micros is None else as_cost(micros),
            records=page.rows,
            next=page.next,
        )

    return Later(work)


def reports(desk: Desk, peer: Peer, params: PageParams) -> Answer:
    """The verification reports."""
    return _page(desk, peer, params, report_rows, ReportsResult)


def traces(desk: Desk, peer: Peer, params: PageParams) -> Answer:
    """How the tool calls ended."""
    return _page(desk, peer, params, trace_rows, TracesResult)


def artifacts(desk: Desk, peer: Peer, params: PageParams) -> Answer:
    """What the turns made."""
    return _page(desk, peer, params, artifact_rows, ArtifactsResult)


def artifact(desk: Desk, peer: Peer, params: ArtifactParams) -> Answer:
    """A part of an artifact; one of a session that is not there is not there either."""
    if params.offset < 0 or not 0 <= params.limit <= MAX_PIECE:
        raise InvalidParams(f"Invalid params: limit must be from 0 to {MAX_PIECE}")
    place = place_of(params.uri)
    if place is None:
        raise NotFound
    session_id, seq = place
    principal = peer.identity.principal
    session = desk.sessions.find(session_id, principal, Verb.WATCH, killed=True)

    async def work() -> ArtifactResult:
        store = session.around.store
        row = await artifact_of(store, session.id, seq)
        lost = await lost_of(store, session.log.head)
        if row is None or lost.covers(seq, row.sha256):
            raise NotFound
        part = await store.get_blob(row.sha256, params.offset, params.limit)
        if part is None:
            raise NotFound
        return ArtifactResult(data=part.data, size=part.size)

    return Later(work)


def _page(
    desk: Desk,
    peer: Peer,
    params: PageParams,
    read: Callable[..., Awaitable[Rows[R]]],
    answer: Callable[[list[R], int | None], Struct],
) -> Answer:
    """One page of the rows that `read` finds, and where the next one begins."""
    session = _find(desk, peer, params)

    async def work() -> Struct:
        store = session.around.store
        page = await read(store, session.id, after=params.after, limit=params.limit)
        return answer(page.rows, page.next)

    return Later(work)


def _find(desk: Desk, peer: Peer, params: PageParams) -> Session:
    session = desk.sessions.find(
        params.session_id, peer.identity.principal, Verb.WATCH, killed=True
    )
    if params.after < 0 or not 1 <= params.limit <= PAGE_LIMIT:
        raise InvalidParams(f"Invalid params: limit must be from 1 to {PAGE_LIMIT}")
    return session
