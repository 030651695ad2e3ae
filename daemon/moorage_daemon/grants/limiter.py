"""The rate limit: never more than so many calls in any window, wherever it begins.

The window is cut into sixty steps, and a call counts until every window that could hold it has
passed. So a call may have to wait a sixtieth of the window longer than it strictly would, and the
memory stays small. Not taken: a fixed window, through whose edge twice the number goes, and a
leaking bucket, which lets a burst on top.
"""

from moorage_protocol.grants import RateLimit


STEPS = 60
Recent = tuple[tuple[int, int], ...]  # how many calls in which steps, oldest first


def admit(limit: RateLimit, recent: Recent, elapsed: int, count: int) -> Recent | None:
    """The memory after `count` calls at `elapsed` milliseconds; None if they are too many."""
    step = _step(limit, elapsed)
    live = tuple(item for item in recent if item[0] >= step - STEPS)
    if sum(calls for _, calls in live) + count > limit.calls:
        return None
    if live and live[-1][0] == step:
        return (*live[:-1], (step, live[-1][1] + count))
    return (*live, (step, count))


def wait_for(limit: RateLimit, recent: Recent, elapsed: int, count: int) -> int | None:
    """Milliseconds until so many calls are admitted; None if they never are."""
    if count > limit.calls:
        return None
    step = _step(limit, elapsed)
    live = [item for item in recent if item[0] >= step - STEPS]
    excess = sum(calls for _, calls in live) + count - limit.calls
    free_at = step
    for index, calls in live:
        if excess <= 0:
            break
        excess -= calls
        free_at = index + STEPS + 1
    if free_at == step:
        return 0
    return -(-free_at * limit.per_seconds * 1000 // STEPS) - elapsed


def is_narrower(limit: RateLimit, than: RateLimit) -> bool:
    """Whether whoever keeps to `limit` keeps to the other one as well."""
    windows = -(-than.per_seconds // limit.per_seconds)
    return limit.calls * windows <= than.calls


def _step(limit: RateLimit, elapsed: int) -> int:
    return elapsed * STEPS // (limit.per_seconds * 1000)
