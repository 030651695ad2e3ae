"""Grants as a client makes, uses and ends them: a gateway in front of agents that run elsewhere.

A grant belongs to the principal that made it. To anybody else but an operator it does not exist,
and neither does one whose agent is another.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import UNSET

from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.grant import BadGrant, Grant, bounded_time, make_grant
from moorage_daemon.grants.guard import MAX_BATCH, must_be_usable
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_daemon.grants.report import summary
from moorage_daemon.grants.rules import BadRule, read_call
from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Later, Now, Peer
from moorage_daemon.identity import Verb
from moorage_daemon.ledger.holding import Holding
from moorage_daemon.ledger.telling import detail, status
from moorage_protocol.acp import Empty
from moorage_protocol.errors import InvalidParams, NotPermitted
from moorage_protocol.grants import (
    AgentParams,
    CloseForAgentResult,
    CloseResult,
    CreateParams,
    GcResult,
    GrantDetail,
    GrantListParams,
    GrantListResult,
    GrantParams,
    GrantSummary,
    GrantWish,
    RaiseParams,
    SessionGrant,
    UseBatchParams,
    UseParams,
)
from moorage_protocol.moorage import Role


R = TypeVar("R")

PAGE_BYTES = 256 * 2**10  # of grants in one answer; a single one has some 20 KiB at most


def create(desk: Desk, peer: Peer, params: CreateParams) -> Answer:
    """Make a grant; answered when it is durable."""
    if peer.identity.principal.role is Role.OBSERVER:
        raise NotPermitted
    if params.agent is None:
        raise InvalidParams("Invalid params: agent is missing")
    session = None
    if params.session_id is not None:
        session = desk.sessions.find(params.session_id, peer.identity.principal, Verb.ACT)
    paused = session is not None and session.is_paused
    holding = made(desk, peer, params, params.agent, params.session_id, paused=paused)
    return AtSeq(holding.log, holding.log.seq, status(holding, desk.ledger.now()))


def made(
    desk: Desk,
    peer: Peer,
    wish: GrantWish,
    agent: str,
    session: str | None = None,
    *,
    paused: bool = False,
) -> Holding:
    """A new grant as it is wished for, out of its parent if one is named."""

    def make() -> Holding:
        parent = None if wish.parent is None else _find(desk, peer, wish.parent)
        identity = peer.identity
        return desk.ledger.open(
            identity.principal.name,
            identity.tui,
            _read(wish, agent),
            parent=parent,
            session=session,
            paused=paused,
        )

    return told(desk, make)


def ground_for(
    desk: Desk, peer: Peer, wish: SessionGrant | None, agent: str, session: str
) -> str | None:
    """The grant that a new session stands on: one that is there, or one made for it."""
    if wish is None:
        return None
    if wish.agent not in (None, agent):
        raise InvalidParams("Invalid params: _meta.moorage.grant.agent is not the session's agent")
    if wish.grant_id is None:
        return made(desk, peer, wish, agent, session).id
    if wish != SessionGrant(grant_id=wish.grant_id):
        raise InvalidParams("Invalid params: _meta.moorage.grant: grantId stands alone")
    grant_id = wish.grant_id

    def found() -> Holding:
        holding = _find(desk, peer, grant_id)
        must_be_usable(holding.account, agent, desk.ledger.now())
        return holding

    return told(desk, found).id


def _read(wish: GrantWish, agent: str) -> Grant:
    if wish.tools is UNSET:
        raise InvalidParams("Invalid params: tools is missing, null is any tool")
    try:
        return make_grant(
            agent=agent,
            tools=wish.tools,
            intent=wish.intent,
            credentials=wish.credentials,
            budget=wish.budget,
            rate=wish.rate,
            seconds=wish.time_limit_seconds,
            ceiling=wish.ceiling,
            depth=wish.depth,
        )
    except BadGrant as problem:
        raise InvalidParams(f"Invalid params: {problem}") from problem


def told(desk: Desk, work: Callable[[], R]) -> R:
    """What comes of it, or a refusal in few words; the rest is for the operator's log."""
    try:
        return work()
    except Refused as refusal:
        desk.ledger.tell(refusal)
        raise refusal.told from None


def _find(desk: Desk, peer: Peer, grant_id: str) -> Holding:
    """The grant, if it is the peer's principal's; raises `Refused`."""
    holding = desk.ledger.find(grant_id)
    principal = peer.identity.principal
    if holding.account.principal != principal.name and principal.role is not Role.OPERATOR:
        raise Refused(RefusalKind.NOT_FOUND, grant=grant_id, principal=principal.name)
    return holding


def _act_on(desk: Desk, peer: Peer, grant_id: str) -> Holding:
    """The same for those who may do more than look."""
    holding = _find(desk, peer, grant_id)
    if peer.identity.principal.role is Role.OBSERVER:
        raise NotPermitted
    return holding


# ---- use


def use(desk: Desk, peer: Peer, params: UseParams) -> Answer:
    """Charge one call; answered when the charge is durable."""
    return _use(desk, peer, params.grant_id, params.agent, [params.tool])


def use_batch(desk: Desk, peer: Peer, params: UseBatchParams) -> Answer:
    """Charge several calls, all of them or none."""
    return _use(desk, peer, params.grant_id, params.agent, params.tools)


def _use(desk: Desk, peer: Peer, grant_id: str, agent: str, tools: list[str]) -> Answer:
    if len(tools) > MAX_BATCH:
        raise InvalidParams(f"Invalid params: tools are more than {MAX_BATCH}")
    calls = [_call(tool) for tool in tools]

    def charge() -> AtSeq:
        holding = _act_on(desk, peer, grant_id)
        receipt = desk.ledger.charge(holding, agent, calls)
        return AtSeq(holding.log, receipt.seq, status(holding, desk.ledger.now()))

    return told(desk, charge)


def _call(tool: str) -> Call:
    try:
        return read_call(tool)
    except BadRule as problem:
        raise InvalidParams(f"Invalid params: {problem}") from problem


# ---- looking


def get(desk: Desk, peer: Peer, params: GrantParams) -> Answer:
    """All there is to say of a grant."""
    holding = told(desk, lambda: _find(desk, peer, params.grant_id))
    return Now(detail(holding, desk.ledger.now()))


def list_grants(desk: Desk, peer: Peer, params: GrantListParams) -> Answer:
    """The principal's grants, newest first, in pages; an operator sees those of all."""
    principal = peer.identity.principal
    sees_all = principal.role is Role.OPERATOR
    found = [
        holding
        for holding in desk.ledger.holdings.values()
        if (sees_all or holding.account.principal == principal.name)
        and params.agent in (None, holding.account.grant.agent)
    ]
    found.sort(key=_cursor, reverse=True)
    if params.cursor is not None:
        found = [holding for holding in found if _cursor(holding) < params.cursor]
    rows, room = list[GrantDetail](), PAGE_BYTES
    for holding in found:
        rows.append(detail(holding, desk.ledger.now()))
        room -= len(msgspec.json.encode(rows[-1]))
        if room < 0:
            break
    more = len(rows) < len(found)
    cursor = _cursor(found[len(rows) - 1]) if more else UNSET
    return Now(GrantListResult(grants=rows, next_cursor=cursor))


def _cursor(holding: Holding) -> str:
    """Where a grant stands in the list: it does not move, whatever becomes of it."""
    return f"{round(holding.head.created_at * 1000):016d}-{holding.id}"


# ---- changing and ending


def raise_limits(desk: Desk, peer: Peer, params: RaiseParams) -> Answer:
    """Give a grant more budget or time; operators only, and on record."""
    if peer.identity.principal.role is not Role.OPERATOR:
        raise NotPermitted
    try:
        seconds = params.time_limit_seconds
        limit = None if seconds is None else bounded_time(seconds)
    except BadGrant as problem:
        raise InvalidParams(f"Invalid params: {problem}") from problem

    def raise_() -> AtSeq:
        holding = _find(desk, peer, params.grant_id)
        seq = desk.ledger.raise_limits(holding, params.budget, limit, peer.identity.tui)
        return AtSeq(holding.log, seq, status(holding, desk.ledger.now()))

    return told(desk, raise_)


def close(desk: Desk, peer: Peer, params: GrantParams) -> Answer:
    """End a grant and all below it; answers how it was used."""

    def end() -> AtSeq:
        holding = _act_on(desk, peer, params.grant_id)
        seq = desk.ledger.close(holding, "closed", peer.identity.tui)
        found = summary(holding.account, desk.ledger.now())
        result = GrantSummary(
            calls=found.calls,
            utilisation=found.utilisation,
            seconds=found.seconds,
            refused=found.refused,
        )
        return AtSeq(holding.log, seq, CloseResult(summary=result))

    return told(desk, end)


def close_for_agent(desk: Desk, peer: Peer, params: AgentParams) -> Answer:
    """End all grants of an agent that is not to act any more; operators only."""
    if peer.identity.principal.role is not Role.OPERATOR:
        raise NotPermitted
    closed = desk.ledger.close_for_agent(params.agent, peer.identity.tui)
    result = CloseForAgentResult(closed=len(closed))

    async def recorded() -> CloseForAgentResult:
        for holding in closed:
            await holding.log.until(holding.log.seq)
        return result

    return Later(recorded, certain=True) if closed else Now(result)


def gc(desk: Desk, peer: Peer, params: Empty) -> Answer:
    """Remove the grants that ended long enough ago; operators only."""
    if peer.identity.principal.role is not Role.OPERATOR:
        raise NotPermitted

    async def remove() -> GcResult:
        desk.ledger.expire()
        return GcResult(removed=await desk.ledger.forget())

    return Later(remove)
