"""What is said of a grant to whoever may know: what is left, what is nearly gone, how it went."""

import msgspec

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.grant import AXES
from moorage_daemon.grants.moments import Moment


NEARLY_GONE = 0.2  # of a limit; from there on there is a warning


class Summary(msgspec.Struct, frozen=True):
    """How a grant was used: `utilisation` is the part of its calls, None where they had no limit.

    `calls` are its own and those of all below it.
    """

    calls: int
    utilisation: float | None
    seconds: float
    refused: int


def warnings(account: Account, now: Moment) -> list[str]:
    """The axes, and "seconds", of which a fifth or less is left."""
    found: list[str] = []
    for axis in AXES:
        limit, free = getattr(account.grant.budget, axis), account.free(axis)
        if free is not None and free <= limit * NEARLY_GONE:
            found.append(axis)
    if account.milliseconds_left(now) <= account.grant.time_limit * NEARLY_GONE:
        found.append("seconds")
    return found


def summary(account: Account, now: Moment) -> Summary:
    """How it was used so far, or until it ended."""
    calls, limit = account.total.calls, account.grant.budget.calls
    elapsed = account.grant.time_limit - account.milliseconds_left(now)
    return Summary(
        calls=calls,
        utilisation=None if limit is None else round(calls / limit, 4) if limit else 1.0,
        seconds=round(elapsed / 1000, 3),
        refused=account.spend.refused,
    )
