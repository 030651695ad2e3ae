"""Whether a call, or a batch of calls, is within a grant.

The questions are always asked in the same order, and the first that fails is the answer: whose
grant it is, whether it was closed, has expired or is paused, its budget, its tools, its rate.
So nobody who may not use a grant learns anything else about it, and an exhausted one does not
tell which tools it knew. A batch is one question: all of it is permitted, or none.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.calls import Call
from moorage_daemon.grants.grant import Spend
from moorage_daemon.grants.limiter import admit, wait_for
from moorage_daemon.grants.moments import Moment
from moorage_daemon.grants.refusals import RefusalKind, Refused
from moorage_protocol.grants import GrantState


MAX_BATCH = 1000  # calls


class Charge(msgspec.Struct, frozen=True):
    """What permitted calls cost: new spends, of the grant and of those above whose rate counts."""

    spends: tuple[tuple[Account, Spend], ...] = ()

    def apply(self) -> None:
        """Put it down."""
        for account, spend in self.spends:
            account.take(spend)


def decide(
    account: Account,
    agent: str,
    calls: Sequence[Call],
    now: Moment,
    *,
    may_be_paused: bool = False,
) -> Charge:
    """What the calls cost; raises `Refused`. Nothing is changed either way.

    A call counts against every grant above as well: its tools and its rate, and their time.
    Nothing (an empty batch) costs nothing, also where nothing is left. `may_be_paused` is
    as for `must_be_usable`.
    """
    must_be_usable(account, agent, now, may_be_paused=may_be_paused)
    if not calls:
        return Charge()
    _must_be_within_budget(account, len(calls))
    _must_be_on_the_list(account, calls)
    return Charge(tuple(_rated(account, len(calls), now)))


def must_be_usable(
    account: Account, agent: str, now: Moment, *, may_be_paused: bool = False
) -> None:
    """Raise `Refused` unless it is that agent's grant and permits anything now.

    While the session that it was made for is paused nobody else may use it or delegate of it.
    `may_be_paused` is for that session, whose turn runs to its end as if nothing had happened, and
    for who changes the grant meanwhile.
    """
    if agent != account.grant.agent:
        raise Refused(
            RefusalKind.AGENT_MISMATCH,
            grant=account.id,
            expected=account.grant.agent,
            actual=agent,
        )
    worst = account.state(now)
    above = account.parent
    while above is not None:
        worst = max(worst, above.state(now), key=_ENDS.index)
        above = above.parent
    if worst is not GrantState.ACTIVE:
        raise Refused(_KINDS[worst], grant=account.id, elapsed=account.spend.elapsed_at(now))
    if account.paused and not may_be_paused:
        raise Refused(RefusalKind.PAUSED, grant=account.id)


_ENDS = (GrantState.ACTIVE, GrantState.EXPIRED, GrantState.CLOSED)
_KINDS = {GrantState.CLOSED: RefusalKind.CLOSED, GrantState.EXPIRED: RefusalKind.EXPIRED}


def _must_be_within_budget(account: Account, count: int) -> None:
    free = account.free("calls")
    axis = "calls" if free is not None and count > free else account.exhausted()
    if axis is not None:
        raise Refused(
            RefusalKind.BUDGET,
            grant=account.id,
            axis=axis,
            limit=getattr(account.grant.budget, axis),
            used=getattr(account.spend, axis),
            given=getattr(account.given, axis),
            asked=count,
        )


def _must_be_on_the_list(account: Account, calls: Sequence[Call]) -> None:
    each: Account | None = account
    while each is not None:
        for call in calls:
            if not each.allowlist.permits(call):
                raise Refused(
                    RefusalKind.TOOL, grant=account.id, tool=call.tool, about=call.subject
                )
        each = each.parent


def _rated(account: Account, count: int, now: Moment) -> list[tuple[Account, Spend]]:
    spends: list[tuple[Account, Spend]] = []
    for each in (account, *account.above()):
        limit, spend = each.grant.rate, each.spend
        is_own = each is account
        if limit is None and not is_own:
            continue
        elapsed = spend.elapsed_at(now)
        recent = spend.recent if limit is None else admit(limit, spend.recent, elapsed, count)
        if recent is None:
            assert limit is not None
            raise Refused(
                RefusalKind.RATE,
                grant=account.id,
                limit=limit.calls,
                per_seconds=limit.per_seconds,
                asked=count,
                retry_in=wait_for(limit, spend.recent, elapsed, count),
            )
        spends.append((each, _spent(spend, count if is_own else 0, recent, elapsed, now)))
    return spends


def _spent(
    spend: Spend, count: int, recent: tuple[tuple[int, int], ...], elapsed: int, now: Moment
) -> Spend:
    return Spend(
        at=now,
        elapsed=elapsed,
        calls=spend.calls + count,
        tokens=spend.tokens,
        micros=spend.micros,
        refused=spend.refused,
        recent=recent,
        held_tokens=spend.held_tokens,
        held_micros=spend.held_micros,
    )


def refunded(spend: Spend, calls: int) -> Spend:
    """The spend without calls that never started; the rate remembers them all the same."""
    return replace(spend, calls=max(0, spend.calls - calls))
