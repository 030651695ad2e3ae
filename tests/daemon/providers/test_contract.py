"""What every provider promises: the one over HTTP, and its twin in memory."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from moorage_daemon.providers.failures import AuthFailed
from moorage_daemon.providers.openai import open_openai
from moorage_daemon.providers.port import (
    Ending,
    Finished,
    Message,
    Piece,
    Provider,
    Request,
    Role,
    Said,
    Thought,
)
from tests.daemon.providers.fake import Play, chunk, open_fake, refusing, streaming
from tests.daemon.providers.faults import hang_mid_stream
from tests.daemon.providers.memory import Act, MemoryProvider


REQUEST = Request("small", [Message(Role.USER, "Hello")])


@dataclass(frozen=True)
class Case:
    """The same behaviour for both."""

    over_http: Play
    in_memory: tuple[Act, ...]


TALKS = Case(
    streaming(chunk(reasoning="Hm."), chunk("a"), chunk("b"), chunk(finish="length")),
    (Thought("Hm."), Said("a"), Said("b"), Finished(Ending.TOO_LONG)),
)
REFUSES = Case(refusing(401), (AuthFailed("no"),))
HANGS = Case(hang_mid_stream, (Said("Half an"), trio.Event()))

Opening = Callable[[Case], AbstractAsyncContextManager[tuple[Provider, Callable[[], int]]]]


@asynccontextmanager
async def over_http(case: Case) -> AsyncGenerator[tuple[Provider, Callable[[], int]]]:
    async with open_fake(case.over_http) as fake:
        async with open_openai("one", fake.settings()) as provider:
            yield provider, lambda: fake.open


@asynccontextmanager
async def in_memory(case: Case) -> AsyncGenerator[tuple[Provider, Callable[[], int]]]:
    provider = MemoryProvider()
    provider.plays(case.in_memory)
    yield provider, lambda: provider.open


@pytest.fixture(params=[over_http, in_memory], ids=lambda opening: opening.__name__)
def opening(request: pytest.FixtureRequest) -> Opening:
    found: Opening = request.param
    return found


async def heard(provider: Provider) -> list[Piece]:
    async with provider.stream(REQUEST) as pieces:
        return [piece async for piece in pieces]


async def closed(count: Callable[[], int]) -> None:
    with trio.fail_after(5):
        while count():
            await trio.lowlevel.checkpoint()


async def test_pieces_come_in_order_and_end_with_one_end(opening: Opening) -> None:
    async with opening(TALKS) as (provider, _):
        for _ in range(2):
            assert await heard(provider) == [
                Thought("Hm."),
                Said("a"),
                Said("b"),
                Finished(Ending.TOO_LONG),
            ]


async def test_failure_is_raised_and_the_next_request_is_free_of_it(opening: Opening) -> None:
    async with opening(REFUSES) as (provider, _):
        for _ in range(2):
            with pytest.raises(AuthFailed):
                await heard(provider)


async def test_leaving_early_lets_go(opening: Opening) -> None:
    async with opening(HANGS) as (provider, count):
        async with provider.stream(REQUEST) as pieces:
            assert await anext(pieces) == Said("Half an")
            assert count() == 1

        await closed(count)


async def test_being_cancelled_lets_go(opening: Opening) -> None:
    async with opening(HANGS) as (provider, count):
        begun = trio.Event()

        async def listen() -> None:
            async with provider.stream(REQUEST) as pieces:
                async for _ in pieces:
                    begun.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await begun.wait()
            nursery.cancel_scope.cancel()

        await closed(count)


async def test_many_are_answered_at_once(opening: Opening) -> None:
    answers: list[list[Piece]] = []

    async with opening(TALKS) as (provider, _):

        async def listen() -> None:
            answers.append(await heard(provider))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(listen)

    assert len(answers) == 20
    assert all(answer == answers[0] for answer in answers)
