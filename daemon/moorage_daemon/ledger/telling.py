"""What is told of a grant on the wire, to those whose it is."""

from msgspec.structs import asdict

from moorage_daemon.grants.account import Account, remaining
from moorage_daemon.grants.moments import Moment
from moorage_daemon.grants.report import warnings
from moorage_daemon.ledger.holding import Holding
from moorage_protocol.grants import Budget, GrantDetail, GrantStatus, Remaining, Used


def status(holding: Holding, now: Moment) -> GrantStatus:
    """How it stands."""
    account = holding.account
    return GrantStatus(
        grant_id=account.id,
        revision=account.revision,
        state=account.state(now),
        remaining=_remaining(account, now),
        warnings=warnings(account, now),
    )


def _remaining(account: Account, now: Moment) -> Remaining:
    seconds = max(0, account.milliseconds_left(now)) / 1000
    return Remaining(seconds=seconds, **asdict(remaining(account)))


def detail(holding: Holding, now: Moment) -> GrantDetail:
    """All there is to say."""
    account, head = holding.account, holding.head
    grant, spend, ended = account.grant, account.spend, account.ended
    return GrantDetail(
        **asdict(status(holding, now)),
        agent=grant.agent,
        intent=grant.intent,
        tools=grant.tools,
        credentials=grant.credentials,
        budget=grant.budget,
        rate=grant.rate,
        time_limit_seconds=grant.time_limit / 1000,
        ceiling=grant.ceiling,
        depth=grant.depth,
        chain=[hop.grant for hop in grant.chain],
        session_id=holding.session,
        paused=account.paused,
        used=Used(
            calls=spend.calls,
            tokens=spend.tokens,
            micros=spend.micros,
            seconds=(grant.time_limit - account.milliseconds_left(now)) / 1000,
            refused=spend.refused,
        ),
        given=Budget(**asdict(account.given)),
        created_at=head.created_at,
        ended_at=ended.at if ended is not None else None,
        cause=ended.cause if ended is not None else None,
    )
