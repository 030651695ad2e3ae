"""Trying again: seldom, not for long, and as the provider asks."""

import pytest
import trio

from moorage_daemon.providers.failures import BadAnswer, RateLimited, Unavailable
from moorage_daemon.providers.patience import MAX_TRIES, Patience


PASSING = Unavailable("it answered 503", may_pass=True)


async def waits(patience: Patience, failure: Exception) -> list[float]:
    """The waits until there is none, waited for."""
    assert isinstance(failure, Unavailable | RateLimited | BadAnswer)
    found: list[float] = []
    while (wait := patience.wait_after(failure)) is not None:
        found.append(wait)
        await trio.sleep(wait)
    return found


async def test_waits_double_and_end(autojump_clock: trio.abc.Clock) -> None:
    found = await waits(Patience(30), PASSING)

    assert len(found) == MAX_TRIES - 1
    for wait, least in zip(found, (0.5, 1, 2), strict=True):
        assert least <= wait <= least * 1.25


async def test_no_wait_ends_beyond_the_time_given(autojump_clock: trio.abc.Clock) -> None:
    began = trio.current_time()

    found = await waits(Patience(2), PASSING)

    assert len(found) == 2
    assert trio.current_time() - began <= 2


async def test_what_took_long_is_not_tried_again(autojump_clock: trio.abc.Clock) -> None:
    patience = Patience(30)
    await trio.sleep(30)

    assert patience.wait_after(PASSING) is None


@pytest.mark.parametrize("failure", [BadAnswer("no"), RateLimited("no credit")])
async def test_what_does_not_pass_is_not_tried_again(failure: Exception) -> None:
    assert await waits(Patience(30), failure) == []


async def test_provider_is_left_alone_as_long_as_it_asks(autojump_clock: trio.abc.Clock) -> None:
    failure = RateLimited("it answered 429", may_pass=True, retry_after=10)

    assert await waits(Patience(30), failure) == [10, 10, 10]


async def test_provider_that_asks_for_more_than_there_is_is_not_asked_again() -> None:
    failure = RateLimited("it answered 429", may_pass=True, retry_after=31)

    assert Patience(30).wait_after(failure) is None


async def test_provider_that_wants_to_be_asked_at_once_is_not(
    autojump_clock: trio.abc.Clock,
) -> None:
    failure = RateLimited("it answered 429", may_pass=True, retry_after=0)

    assert (await waits(Patience(30), failure))[0] >= 0.5
