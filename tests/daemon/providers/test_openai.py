"""A provider over a real socket: what it sends, whom it believes, and that it lets go at once."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from moorage_daemon.provider_settings import BadProvider
from moorage_daemon.providers.failures import AuthFailed, ProviderFailed, TooSlow
from moorage_daemon.providers.openai import LINGER, MAX_STREAMS, OpenAIProvider, open_openai
from moorage_daemon.providers.port import (
    Ending,
    Finished,
    Message,
    Piece,
    Request,
    Role,
    Said,
    Usage,
)
from tests.daemon.providers.fake import (
    FakeProvider,
    Play,
    Visit,
    chunk,
    open_fake,
    refusing,
    saying,
    streaming,
)
from tests.daemon.providers.faults import FAULTS, Fault, hang, hang_after_headers, hang_mid_stream


REQUEST = Request("small", [Message(Role.USER, "Hello")])
CANARY = "sk-canary-0123456789"


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    """A provider that says hello until a test tells it otherwise."""
    async with open_fake() as fake:
        yield fake


async def heard(provider: OpenAIProvider, request: Request = REQUEST) -> list[Piece]:
    async with provider.stream(request) as pieces:
        return [piece async for piece in pieces]


# ---- what is sent


async def test_request_goes_where_the_settings_say(fake: FakeProvider) -> None:
    async with open_openai("one", fake.settings()) as provider:
        await heard(provider)

    (visit,) = fake.visits
    assert visit.target == "/v1/chat/completions"
    assert visit.body["messages"] == [{"role": "user", "content": "Hello"}]
    assert visit.headers["accept-encoding"] == "identity"
    assert visit.headers["user-agent"].startswith("moorage/")
    assert "authorization" not in visit.headers


async def test_key_is_sent_as_it_is_when_it_is_sent(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", "old")
    async with open_openai("one", fake.settings(api_key_env="CANARY_KEY")) as provider:
        await heard(provider)
        monkeypatch.setenv("CANARY_KEY", "new")
        await heard(provider)

    sent = [visit.headers["authorization"] for visit in fake.visits]
    assert sent == ["Bearer old", "Bearer new"]


async def test_provider_whose_key_is_missing_is_not_asked(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CANARY_KEY", raising=False)
    async with open_openai("one", fake.settings(api_key_env="CANARY_KEY")) as provider:
        with pytest.raises(AuthFailed):
            await heard(provider)

    assert fake.connections == 0


async def test_environment_has_no_say_in_where_requests_go(
    fake: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with open_fake() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")

        async with open_openai("one", fake.settings()) as provider:
            await heard(provider)

        assert proxy.connections == 0
    assert "authorization" not in fake.visits[0].headers


async def test_proxy_of_the_settings_is_used() -> None:
    async with open_fake() as proxy:
        settings = proxy.settings(
            base_url="http://model.example.org/v1", proxy=f"http://127.0.0.1:{proxy.port}"
        )
        async with open_openai("one", settings) as provider:
            await heard(provider)

        (visit,) = proxy.visits
        assert visit.target == "http://model.example.org/v1/chat/completions"


async def test_provider_cannot_mark_its_visitors(fake: FakeProvider) -> None:
    async def marking(visit: Visit) -> None:
        await visit.head(set_cookie="mark=1; Path=/")
        await visit.event(chunk("a", finish="stop"))
        await visit.end()

    fake.plays.extend([marking, marking])
    fake.plays.popleft()
    async with open_openai("one", fake.settings()) as provider:
        await heard(provider)
        await heard(provider)

    assert all("cookie" not in visit.headers for visit in fake.visits)


async def test_server_that_cannot_count_is_asked_without_and_only_once_more(
    fake: FakeProvider,
) -> None:
    refusal = refusing(422, {"detail": [{"loc": ["body", "stream_options"], "msg": "extra"}]})
    fake.plays.appendleft(refusal)
    async with open_openai("one", fake.settings()) as provider:
        first = await heard(provider)
        await heard(provider)

    assert first == [Said("Hello."), Finished(Ending.DONE)]
    assert ["stream_options" in body for body in fake.asked] == [True, False, False]


async def test_model_that_insists_on_another_name_for_the_bound_is_asked_with_that(
    fake: FakeProvider,
) -> None:
    told = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    fake.plays.appendleft(refusing(400, {"error": {"message": told}}))
    async with open_openai("one", fake.settings()) as provider:
        for _ in range(2):
            async with provider.stream(replace(REQUEST, max_tokens=7)) as pieces:
                _ = [piece async for piece in pieces]

    names = [sorted(name for name in body if name.startswith("max_")) for body in fake.asked]
    assert names == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


async def test_refusal_for_another_reason_is_one(fake: FakeProvider) -> None:
    fake.plays.appendleft(refusing(422, {"detail": "temperature"}))
    async with open_openai("one", fake.settings()) as provider:
        with pytest.raises(ProviderFailed):
            await heard(provider)

    assert len(fake.visits) == 1


async def test_usage_is_told_where_the_server_tells_it() -> None:
    async with open_fake(saying("a", "b", tokens=(7, 2))) as fake:
        async with open_openai("one", fake.settings()) as provider:
            assert await heard(provider) == [
                Said("a"),
                Said("b"),
                Finished(Ending.DONE, Usage(7, 2)),
            ]


async def test_address_that_is_none_is_refused_before_anything_starts(fake: FakeProvider) -> None:
    with pytest.raises(BadProvider, match=r"providers\.one: its address"):
        async with open_openai("one", fake.settings(base_url="http://256.1.1.1/v1")):
            pass


# ---- connections


async def test_turns_one_after_the_other_share_a_connection(fake: FakeProvider) -> None:
    async with open_openai("one", fake.settings()) as provider:
        for _ in range(5):
            await heard(provider)

        assert (fake.connections, fake.open) == (1, 1)
    await fake.until(lambda: fake.open == 0)


async def test_refusal_leaves_the_connection_to_the_next_turn(fake: FakeProvider) -> None:
    fake.plays.appendleft(refusing(401))
    async with open_openai("one", fake.settings()) as provider:
        with pytest.raises(AuthFailed):
            await heard(provider)
        await heard(provider)

        assert fake.connections == 1


async def test_connection_that_the_server_has_closed_is_not_used(fake: FakeProvider) -> None:
    async def once(visit: Visit) -> None:
        await saying("Bye.")(visit)
        visit.close()

    fake.plays.appendleft(once)
    async with open_openai("one", fake.settings()) as provider:
        await heard(provider)
        await fake.until(lambda: fake.open == 0)

        assert (await heard(provider))[0] == Said("Hello.")


STAGES: dict[str, Play] = {
    "before the headers": hang,
    "after the headers": hang_after_headers,
    "mid stream": hang_mid_stream,
}


@pytest.mark.parametrize("where", STAGES)
async def test_cancelling_closes_the_connection_at_once(where: str) -> None:
    async with open_fake(STAGES[where]) as fake:
        async with open_openai("one", fake.settings()) as provider:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(heard, provider)
                await fake.until(lambda: len(fake.visits) == 1)
                nursery.cancel_scope.cancel()

            await fake.until(lambda: fake.open == 0)


async def test_cancelling_while_encryption_is_agreed_closes_the_connection() -> None:
    connected, closed = trio.Event(), trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        connected.set()
        while await stream.receive_some():
            pass
        closed.set()

    async with trio.open_nursery() as outer:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        outer.start_soon(trio.serve_listeners, silent, [listener])
        address = f"https://127.0.0.1:{listener.socket.getsockname()[1]}"
        settings = FakeProvider().settings(base_url=address)
        with trio.fail_after(5):
            async with open_openai("one", settings) as provider:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(heard, provider)
                    await connected.wait()
                    nursery.cancel_scope.cancel()
                await closed.wait()
        outer.cancel_scope.cancel()


async def test_caller_that_leaves_early_closes_the_connection() -> None:
    async with open_fake(hang_mid_stream) as fake:
        async with open_openai("one", fake.settings()) as provider:
            async with provider.stream(REQUEST) as pieces:
                assert await anext(pieces) == Said("Half an")

            await fake.until(lambda: fake.open == 0)


async def test_caller_that_breaks_closes_the_connection() -> None:
    async with open_fake(hang_mid_stream) as fake:
        async with open_openai("one", fake.settings()) as provider:

            async def caller() -> None:
                async with provider.stream(REQUEST) as pieces:
                    async for _ in pieces:
                        raise RuntimeError("of the caller")

            with pytest.raises(RuntimeError, match="of the caller"):
                await caller()

            await fake.until(lambda: fake.open == 0)


async def test_more_turns_than_connections_wait_and_none_fails() -> None:
    ended = 0
    async with open_fake(hang_mid_stream) as fake:

        async def turn(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            nonlocal ended
            with trio.CancelScope() as scope:
                task_status.started(scope)
                await heard(provider)
            ended += 1

        async with open_openai("one", fake.settings()) as provider, trio.open_nursery() as nursery:
            scopes = [await nursery.start(turn) for _ in range(MAX_STREAMS + 1)]
            await fake.until(lambda: len(fake.visits) == MAX_STREAMS)
            assert (fake.open, ended) == (MAX_STREAMS, 0)

            scopes[0].cancel()
            await fake.until(lambda: len(fake.visits) == MAX_STREAMS + 1)

            nursery.cancel_scope.cancel()
        await fake.until(lambda: fake.open == 0)


# ---- deadlines


async def test_time_that_the_caller_takes_does_not_count(mock_clock: MockClock) -> None:
    async with open_fake(streaming(chunk("a"), chunk("b"), chunk("c"))) as fake:
        async with open_openai("one", fake.settings()) as provider:
            async with provider.stream(REQUEST) as pieces:
                said: list[Piece] = []
                async for piece in pieces:
                    said.append(piece)
                    mock_clock.jump(1000)

    assert said == [Said("a"), Said("b"), Said("c"), Finished(Ending.DONE)]


async def test_each_piece_has_a_deadline_of_its_own(mock_clock: MockClock) -> None:
    released = [trio.Event(), trio.Event()]

    async def slow(visit: Visit) -> None:
        await visit.head()
        for text, event in zip("ab", released, strict=True):
            await visit.event(chunk(text))
            await event.wait()
        await visit.until_closed()

    async with open_fake(slow) as fake:
        settings = fake.settings(first_token_seconds=10, silence_seconds=100)
        async with open_openai("one", settings) as provider:
            async with provider.stream(REQUEST) as pieces:
                assert await anext(pieces) == Said("a")
                mock_clock.jump(90)
                released[0].set()
                assert await anext(pieces) == Said("b")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_jump_when_waiting, mock_clock, 101)
                    with pytest.raises(TooSlow):
                        await anext(pieces)


async def _jump_when_waiting(clock: MockClock, seconds: float) -> None:
    await wait_all_tasks_blocked()
    clock.jump(seconds)


async def test_complete_answer_does_not_wait_for_its_end_for_long(mock_clock: MockClock) -> None:
    async def without_end(visit: Visit) -> None:
        await visit.head()
        await visit.event(chunk("All.", finish="stop"))
        await visit.until_closed()

    async with open_fake(without_end) as fake:
        async with open_openai("one", fake.settings()) as provider:
            async with provider.stream(REQUEST) as pieces:
                assert await anext(pieces) == Said("All.")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_jump_when_waiting, mock_clock, LINGER + 0.1)
                    assert await anext(pieces) == Finished(Ending.DONE)


# ---- keys and errors


def _reachable(error: BaseException) -> list[BaseException]:
    """The error and all that hangs on it."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        next_one = waiting.pop()
        if next_one is not None and next_one not in found:
            found.append(next_one)
            waiting += [next_one.__cause__, next_one.__context__]
    return found


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.code], ids=lambda fault: fault.name)
async def test_failure_carries_neither_key_nor_request(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(open_fake(*([fault.play] if fault.play else [])))
        settings = fake.settings(api_key_env="CANARY_KEY", **fault.settings)
        if fault.play is None:
            settings = fake.settings(api_key_env="CANARY_KEY", base_url="http://127.0.0.1:1/v1")
        provider = await stack.enter_async_context(open_openai("one", settings))

        with pytest.raises(ProviderFailed) as caught:
            await heard(provider)

    for error in _reachable(caught.value):
        assert not isinstance(error, httpx.HTTPError)
        assert CANARY not in f"{error!r} {vars(error)!r}"
