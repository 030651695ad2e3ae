"""Giving a part of a grant on: a child is never wider than its parent, on any axis."""

from msgspec.structs import replace

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.grant import AXES, Grant, Hop
from moorage_daemon.grants.guard import must_be_usable
from moorage_daemon.grants.limiter import is_narrower
from moorage_daemon.grants.moments import Moment
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_daemon.grants.rules import Allowlist
from moorage_protocol.grants import MIN_TIME, Budget, RateLimit


MAX_CHILDREN = 256  # of one grant, ended ones included


def carved(parent: Account, wish: Grant, now: Moment) -> Grant:
    """The child's grant out of what is free of the parent's; raises `Refused`.

    More tools, more credentials and more budget than the parent has are refused. Time, ceiling,
    depth and rate are cut to the parent's. An axis of the budget that is not asked for gets all
    that is free.
    """
    grant = parent.grant
    must_be_usable(parent, grant.agent, now)
    left = parent.milliseconds_left(now)
    if left < MIN_TIME * 1000:
        raise Refused(RefusalKind.EXPIRED, grant=parent.id, left=left)
    _must_be_delegable(parent, wish)
    return replace(
        wish,
        tools=grant.tools if wish.tools is None else wish.tools,
        budget=_share(parent, wish.budget),
        rate=_slower(grant.rate, wish.rate),
        time_limit=min(wish.time_limit, left),
        ceiling=min(grant.ceiling, wish.ceiling, key=lambda ceiling: ceiling.rank),
        depth=min(wish.depth, grant.depth - 1),
        chain=(*grant.chain, Hop(grant.agent, parent.id)),
    )


def _must_be_delegable(parent: Account, wish: Grant) -> None:
    grant = parent.grant
    agents = {grant.agent, *(hop.agent for hop in grant.chain)}
    widened = set(wish.credentials) - set(grant.credentials)
    problems = {
        "depth": grant.depth < 1,
        "cycle": wish.agent in agents,
        "children": len(parent.children) >= MAX_CHILDREN,
        "tools": not (wish.tools is None or parent.allowlist.includes(Allowlist(wish.tools))),
        "credentials": bool(widened),
    }
    for problem, is_so in problems.items():
        if is_so:
            raise Refused(RefusalKind.TOOL, grant=parent.id, agent=wish.agent, why=problem)


def _share(parent: Account, wish: Budget) -> Budget:
    return Budget(**{axis: _part(parent, axis, getattr(wish, axis)) for axis in AXES})


def _part(parent: Account, axis: str, asked: int | None) -> int | None:
    free = parent.free(axis)
    if free is None:
        return asked
    if asked is not None and asked > free:
        raise Refused(RefusalKind.BUDGET, grant=parent.id, axis=axis, free=free, asked=asked)
    return max(0, free) if asked is None else asked


def _slower(parent: RateLimit | None, wish: RateLimit | None) -> RateLimit | None:
    if parent is None or wish is None:
        return parent or wish
    return wish if is_narrower(wish, parent) else parent


def raised(account: Account, budget: Budget, time_limit: int | None, now: Moment) -> Grant:
    """The grant with more budget or time; raises `Refused`.

    An axis that is not named stays. What a child gets more its parent must have free, and its
    time ends with the parent's at the latest.
    """
    must_be_usable(account, account.grant.agent, now, may_be_paused=True)
    changes = {axis: _more(account, axis, getattr(budget, axis)) for axis in AXES}
    return replace(
        account.grant, budget=Budget(**changes), time_limit=_longer(account, time_limit, now)
    )


def _more(account: Account, axis: str, wished: int | None) -> int | None:
    had: int | None = getattr(account.grant.budget, axis)
    if wished is None or had is None:
        return had
    free = account.parent.free(axis) if account.parent is not None else None
    if free is not None and wished - had > free:
        raise Refused(RefusalKind.BUDGET, grant=account.id, axis=axis, free=free, asked=wished)
    return max(had, wished)


def _longer(account: Account, wished: int | None, now: Moment) -> int:
    had, parent = account.grant.time_limit, account.parent
    if wished is None or wished <= had:
        return had
    if parent is None:
        return wished
    most = account.spend.elapsed_at(now) + parent.milliseconds_left(now)
    return max(had, min(wished, most))
