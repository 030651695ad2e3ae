"""The rate limit holds in every window, wherever it begins."""

import random

from moorage_daemon.grants.limiter import Recent, admit, is_narrower, wait_for
from moorage_protocol.grants import RateLimit


SCHEDULES = 3000


def busiest(times: list[tuple[int, int]], window: int) -> int:
    """The most calls in any window of so many milliseconds; its end does not belong to it."""
    return max(
        (sum(n for at, n in times if start <= at < start + window) for start, _ in times), default=0
    )


def a_schedule(random: random.Random) -> tuple[RateLimit, list[tuple[int, int]]]:
    """Moments, mostly in bursts, at which somebody asks for some calls."""
    limit = RateLimit(calls=random.randint(0, 12), per_seconds=random.choice([1, 2, 7, 10, 60]))
    window = limit.per_seconds * 1000
    at, asks = random.randint(0, window), list[tuple[int, int]]()
    for _ in range(random.randint(1, 60)):
        at += random.choice([0, 1, window // 60, window // 10, window - 1, window, window * 2])
        asks.append((at, random.choice([1, 1, 1, 2, 5])))
    return limit, asks


def test_no_window_of_any_schedule_holds_more_than_the_limit() -> None:
    draw = random.Random(5)
    reached = 0
    for _ in range(SCHEDULES):
        limit, asks = a_schedule(draw)
        recent: Recent = ()
        passed: list[tuple[int, int]] = []
        for at, count in asks:
            after = admit(limit, recent, at, count)
            if after is not None:
                recent = after
                passed.append((at, count))
        most = busiest(passed, limit.per_seconds * 1000)
        assert most <= limit.calls
        reached += most == limit.calls
    assert reached > SCHEDULES // 2  # it is a limit, not a wall


def test_fixed_window_would_have_been_caught() -> None:
    """The control: the same schedules against a limiter that starts afresh at each window."""
    draw = random.Random(5)
    for _ in range(SCHEDULES):
        limit, asks = a_schedule(draw)
        window, start, used = limit.per_seconds * 1000, 0, 0
        passed: list[tuple[int, int]] = []
        for at, count in asks:
            if at - start >= window:
                start, used = at - at % window, 0
            if used + count <= limit.calls:
                used += count
                passed.append((at, count))
        if busiest(passed, window) > limit.calls:
            return
    raise AssertionError("no schedule was hard enough")


def test_calls_are_admitted_again_a_sixtieth_after_the_window() -> None:
    limit = RateLimit(calls=2, per_seconds=60)
    recent = admit(limit, (), 0, 2)
    assert recent is not None

    assert admit(limit, recent, 60_000, 1) is None
    assert admit(limit, recent, 61_000, 2) is not None


def test_wait_is_as_long_as_it_says() -> None:
    draw = random.Random(7)
    for _ in range(500):
        limit, asks = a_schedule(draw)
        recent: Recent = ()
        for at, count in asks:
            wait = wait_for(limit, recent, at, count)
            after = admit(limit, recent, at, count)
            assert (wait == 0) is (after is not None)
            if wait:
                assert admit(limit, recent, at + wait, count) is not None
                assert admit(limit, recent, at + wait - 1, count) is None
            recent = recent if after is None else after


def test_batch_beyond_the_limit_never_fits() -> None:
    limit = RateLimit(calls=3)

    assert admit(limit, (), 10**9, 4) is None
    assert wait_for(limit, (), 10**9, 4) is None


def test_memory_stays_small() -> None:
    limit = RateLimit(calls=100_000, per_seconds=60)
    recent: Recent = ()
    for at in range(0, 600_000, 100):
        recent = admit(limit, recent, at, 1) or recent

    assert len(recent) <= 61


def test_limit_is_narrower_if_it_keeps_to_the_other_one() -> None:
    wide = RateLimit(calls=60, per_seconds=60)

    assert is_narrower(RateLimit(calls=60, per_seconds=60), wide)
    assert is_narrower(RateLimit(calls=60, per_seconds=600), wide)
    assert is_narrower(RateLimit(calls=1, per_seconds=1), wide)
    assert not is_narrower(RateLimit(calls=2, per_seconds=1), wide)
    assert not is_narrower(RateLimit(calls=61, per_seconds=86_400), wide)
