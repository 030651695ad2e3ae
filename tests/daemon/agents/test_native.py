"""The native agent in a session: what its model is asked, what its user sees, how turns end."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.asking import wish_of
from moorage_daemon.agents.native import NativeAgent
from moorage_daemon.app import AppError, open_agents
from moorage_daemon.grants.grant import Amount
from moorage_daemon.provider_settings import Price
from moorage_daemon.providers.failures import (
    AuthFailed,
    BadAnswer,
    ProviderFailed,
    RateLimited,
    TooSlow,
    Unavailable,
)
from moorage_daemon.providers.port import Ending, Finished, Said, Thought, Usage
from moorage_protocol.acp import Cost, StopReason
from moorage_protocol.errors import TurnFailed
from moorage_protocol.grants import GrantStatus
from moorage_protocol.moorage import Cause, Outcome, TokenUsage
from moorage_protocol.views import UsageResult
from tests.daemon.harness import Daemon, open_daemon, simulated, some_settings
from tests.daemon.providers.memory import HELLO, SETTINGS, Act, MemoryProvider
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.twin import Client, prompt_params


pytestmark = pytest.mark.trio(run=simulated)

DONE = Finished(Ending.DONE)
BUSY = Unavailable("it answered 503", may_pass=True)


@dataclass
class Scene:
    """A daemon whose sessions are native, with two providers in memory."""

    daemon: Daemon
    client: Client
    one: MemoryProvider
    two: MemoryProvider

    def session(self, session: str) -> Any:
        return self.daemon.session(session)


@asynccontextmanager
async def open_scene(
    store: FaultyStore | None = None,
    one: MemoryProvider | None = None,
    **settings: Any,
) -> AsyncGenerator[Scene]:
    one, two = one or MemoryProvider(), MemoryProvider(replace(SETTINGS, model="large"))
    agent = NativeAgent({"one": one, "two": two}, "one")
    providers = {"one": one.settings, "two": two.settings}
    async with open_daemon(
        store,
        agents=(agent,),
        default_agent="native",
        providers=providers,
        default_provider="one",
        **settings,
    ) as daemon:
        yield Scene(daemon, await daemon.connect(), one, two)


async def told(client: Client, session: str, generation: int = 1) -> dict[str, Any]:
    """The verdict as its entry."""
    await client.until(lambda: generation in client.verdicts(session))
    return client.verdicts(session)[generation]


# ---- speaking


async def test_what_the_model_says_is_what_the_user_reads() -> None:
    async with open_scene() as scene:
        scene.one.plays([Thought("Hm."), Said("Hel"), Said("lo."), DONE])
        session = await scene.client.new()

        answer = await scene.client.prompt(session).result()

        assert answer.stop_reason is StopReason.END_TURN
        assert scene.client.text(session) == "Hello."
        assert "agent_thought_chunk" in scene.client.kinds(session)
        assert scene.one.said_to_it == [[("user", "hello")]]
        assert scene.one.open == 0


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending.DONE, StopReason.END_TURN),
        (Ending.TOO_LONG, StopReason.MAX_TOKENS),
        (Ending.REFUSED, StopReason.REFUSAL),
    ],
)
async def test_turn_stops_for_the_models_reason(ending: Ending, reason: StopReason) -> None:
    async with open_scene() as scene:
        scene.one.plays([Said("Well."), Finished(ending)])
        session = await scene.client.new()

        assert (await scene.client.prompt(session).result()).stop_reason is reason


async def test_cancelling_ends_the_request_and_keeps_what_was_said() -> None:
    async with open_scene() as scene:
        scene.one.plays([Said("Half an"), trio.Event()])
        session = await scene.client.new()
        reply = scene.client.prompt(session)
        await scene.client.until(lambda: scene.client.text(session) == "Half an")

        await scene.client.cancel(session)
        verdict = await reply.verdict()

        assert (verdict.outcome, verdict.cause) == (Outcome.CANCELLED, Cause.CLIENT_RPC)
        assert scene.one.open == 0
        assert scene.client.text(session) == "Half an"


# ---- the configuration


async def test_the_model_is_told_the_system_prompt_first_and_each_time() -> None:
    async with open_scene() as scene:
        scene.one.plays(HELLO, HELLO)
        session = await scene.client.new(config={"systemPrompt": "You are terse."})
        await scene.client.prompt(session, "one").result()
        await scene.client.prompt(session, "two").result()

        told = ("system", "You are terse.")
        first, second = scene.one.said_to_it
        assert first == [told, ("user", "one")]
        assert second == [told, ("user", "one"), ("assistant", "Hello."), ("user", "two")]


async def test_another_system_prompt_is_told_from_the_next_turn_on() -> None:
    async with open_scene() as scene:
        scene.one.plays(HELLO, HELLO)
        session = await scene.client.new()
        await scene.client.prompt(session, "one").result()
        params = {"sessionId": session, "config": {"systemPrompt": "Be brief."}}
        await scene.client.call("_moorage/session/config/set", params, dict[str, Any])
        await scene.client.prompt(session, "two").result()

        assert [said[0][0] for said in scene.one.said_to_it] == ["user", "system"]


@pytest.mark.parametrize(
    ("takes", "wanted", "size"),
    [(None, 40, 40), (1000, 40, 40), (40, 1000, 40), (40, None, 40)],
)
async def test_the_smaller_of_what_a_model_takes_and_the_session_wants_bounds_what_is_asked(
    takes: int | None, wanted: int | None, size: int
) -> None:
    usage = Finished(Ending.DONE, Usage(7, 3))
    provider = MemoryProvider(replace(SETTINGS, context_tokens=takes))
    async with open_scene(one=provider) as scene:
        scene.one.plays([Said("x" * 70), DONE], [Said("y"), usage])
        session = await scene.client.new(config={"maxContextLength": wanted})
        await scene.client.prompt(session, "one").result()
        await scene.client.prompt(session, "two").result()

        asked = "".join(text for _, text in scene.one.said_to_it[1])
        assert "two" in asked
        assert len(asked) <= 2 * size + len("[…]")
        updates = [p.get("update", {}) for p in scene.client.of_session(session)]
        [told] = [u for u in updates if u.get("sessionUpdate") == "usage_update"]
        assert (told["used"], told["size"]) == (10, size)


# ---- overrides


async def test_overrides_of_the_turn_say_which_model_answers() -> None:
    async with open_scene() as scene:
        session = await scene.client.new()
        await scene.client.prompt(session).result()
        await scene.client.configure(session, model="medium", temperature=0.5)
        await scene.client.prompt(session).result()
        await scene.client.configure(session, model_provider="two")
        await scene.client.prompt(session).result()

        asked = [(r.model, r.temperature) for r in (*scene.one.requests, *scene.two.requests)]
        assert asked == [("small", None), ("medium", 0.5), ("large", 0.5)]


async def test_providers_and_their_models_are_offered() -> None:
    provider = MemoryProvider(replace(SETTINGS, models=("medium", "small")))
    async with open_scene(one=provider) as scene:
        session = await scene.client.new()
        result = await scene.client.configure(session)
        offered = {o.id: [c.value for c in o.options] for o in result.config_options}
        assert offered["model"] == ["default", "small", "medium"]
        assert offered["model_provider"] == ["default", "one", "two"]

        result = await scene.client.configure(session, model_provider="two")

        offered = {o.id: [c.value for c in o.options] for o in result.config_options}
        assert offered["model"] == ["default", "large"]


async def test_provider_that_is_configured_no_more_fails_the_turn() -> None:
    async with open_scene() as scene:
        session = await scene.client.new()
        await scene.client.configure(session, model_provider="two")
        image = await scene.daemon.image()
    agent = NativeAgent({"one": MemoryProvider()}, "one")

    async with open_daemon(image, agents=(agent,)) as daemon:
        client = await daemon.connect()

        with pytest.raises(TurnFailed) as caught:
            await client.prompt(session).result()

    assert caught.value.kind == "provider_unavailable"


# ---- failing and trying again


@pytest.mark.parametrize(
    "failure",
    [AuthFailed("a"), RateLimited("b"), Unavailable("c"), BadAnswer("d"), TooSlow("e")],
    ids=lambda failure: type(failure).__name__,
)
async def test_failure_has_its_word_in_verdict_and_answer(failure: ProviderFailed) -> None:
    async with open_scene() as scene:
        scene.one.plays([failure])
        session = await scene.client.new()

        with pytest.raises(TurnFailed) as caught:
            await scene.client.prompt(session).result()

        assert caught.value.kind == failure.code
        verdict = await told(scene.client, session)
        assert (verdict["outcome"], verdict["code"]) == ("failed", failure.code)


async def test_failure_that_passes_is_tried_again_and_nobody_sees_it() -> None:
    async with open_scene() as scene:
        scene.one.plays([BUSY], [BUSY], HELLO)
        session = await scene.client.new()

        await scene.client.prompt(session).result()

        assert scene.client.text(session) == "Hello."
        assert len(scene.one.requests) == 3
        waits = [b - a for a, b in zip(scene.one.asked_at, scene.one.asked_at[1:], strict=False)]
        assert 0.5 <= waits[0] <= 0.7
        assert 1.0 <= waits[1] <= 1.3


async def test_failure_that_stays_ends_the_turn_within_its_time() -> None:
    async with open_scene() as scene:
        scene.one.plays([RateLimited("it answered 429", may_pass=True, retry_after=9)])
        session = await scene.client.new()
        began = trio.current_time()

        reply = scene.client.prompt(session)
        with trio.fail_after(60):
            await reply.arrived.wait()

        with pytest.raises(TurnFailed):
            await reply.result()

        assert trio.current_time() - began <= scene.one.settings.retry_seconds + 1
        assert len(scene.one.requests) == 4


@pytest.mark.parametrize("piece", [Said("Half an"), Thought("Hm.")])
async def test_what_was_begun_is_never_tried_again(piece: Act) -> None:
    async with open_scene() as scene:
        scene.one.plays([piece, BUSY], HELLO)
        session = await scene.client.new()

        with pytest.raises(TurnFailed):
            await scene.client.prompt(session).result()

        assert len(scene.one.requests) == 1


async def test_cancelling_ends_the_wait_before_the_next_try() -> None:
    async with open_scene() as scene:
        scene.one.plays([RateLimited("it answered 429", may_pass=True, retry_after=25)])
        session = await scene.client.new()
        reply = scene.client.prompt(session)
        await scene.client.until(lambda: len(scene.one.requests) == 1)
        began = trio.current_time()

        await scene.client.cancel(session)

        assert (await reply.verdict()).outcome is Outcome.CANCELLED
        assert trio.current_time() - began < 1


# ---- what was said before


async def test_earlier_turns_are_part_of_what_is_asked() -> None:
    async with open_scene() as scene:
        session = await scene.client.new()
        scene.one.plays([Said("I am "), Said("well."), DONE], HELLO)

        await scene.client.prompt(session, "How are you?").result()
        await scene.client.prompt(session, "Good.").result()

        assert scene.one.said_to_it[1] == [
            ("user", "How are you?"),
            ("assistant", "I am well."),
            ("user", "Good."),
        ]


async def test_turns_that_were_cut_count_with_what_there_is_of_them() -> None:
    async with open_scene() as scene:
        client = scene.client
        session = await client.new()
        scene.one.plays([Said("Half an"), trio.Event()], [AuthFailed("no")], HELLO)

        client.prompt(session, "one")
        await client.until(lambda: client.text(session) == "Half an")
        await client.cancel(session)
        with pytest.raises(TurnFailed):
            await client.prompt(session, "two").result()
        await client.prompt(session, "three").result()

        assert scene.one.said_to_it[-1] == [
            ("user", "one"),
            ("assistant", "Half an"),
            ("user", "two\n\nthree"),
        ]


async def test_prompt_that_never_began_was_not_said() -> None:
    async with open_scene() as scene:
        client = scene.client
        session = await client.new()
        release = trio.Event()
        scene.one.plays([release, *HELLO], HELLO)
        first = client.prompt(session, "one")
        await client.until(lambda: len(scene.one.requests) == 1)
        client.prompt(session, "two")
        assert await client.withdraw(session, 2)
        release.set()
        await first.result()

        await client.prompt(session, "three").result()

        assert ("user", "two") not in scene.one.said_to_it[-1]


async def test_restarted_daemon_knows_what_was_said() -> None:
    async with open_scene() as scene:
        session = await scene.client.new()
        await scene.client.prompt(session, "one").result()
        scene.one.plays([Said("Half an"), trio.Event()])
        scene.client.prompt(session, "two")
        await scene.client.until(lambda: scene.client.text(session).endswith("Half an"))
        image = await scene.daemon.image()

    async with open_scene(image) as scene:
        await scene.client.load(session)
        await scene.client.prompt(session, "three").result()

        assert scene.one.said_to_it == [
            [
                ("user", "one"),
                ("assistant", "Hello."),
                ("user", "two"),
                ("assistant", "Half an"),
                ("user", "three"),
            ]
        ]


async def test_session_that_was_closed_and_loaded_knows_what_was_said() -> None:
    async with open_scene() as scene:
        session = await scene.client.new()
        await scene.client.prompt(session, "one").result()

        await scene.client.close(session)
        await scene.client.load(session)
        await scene.client.prompt(session, "two").result()

        assert scene.one.said_to_it[-1] == [
            ("user", "one"),
            ("assistant", "Hello."),
            ("user", "two"),
        ]


async def test_models_context_bounds_what_it_is_told() -> None:
    async with open_scene(one=MemoryProvider(replace(SETTINGS, context_tokens=50))) as scene:
        session = await scene.client.new()
        for text in ("a" * 30, "b" * 30, "c" * 30):
            await scene.client.prompt(session, text).result()

        assert [text[0] for _, text in scene.one.said_to_it[-1]] == ["b", "H", "c"]


# ---- usage


async def test_usage_is_told_with_what_the_model_takes() -> None:
    async with open_scene(one=MemoryProvider(replace(SETTINGS, context_tokens=8192))) as scene:
        scene.one.plays([Said("Hi."), Finished(Ending.DONE, Usage(10, 3))])
        session = await scene.client.new()

        await scene.client.prompt(session).result()

        updates = [params.get("update", {}) for params in scene.client.of_session(session)]
        (usage,) = [u for u in updates if u.get("sessionUpdate") == "usage_update"]
        assert (usage["used"], usage["size"]) == (13, 8192)
        (turn,) = await scene.client.turns(session)
        assert turn.verdict is not None
        assert turn.verdict.usage == TokenUsage(input_tokens=10, output_tokens=3)


async def test_what_nobody_said_is_not_told() -> None:
    sized = MemoryProvider(replace(SETTINGS, context_tokens=8192))
    async with open_scene(one=sized) as scene:
        scene.one.plays(HELLO, [Said("Hi."), Finished(Ending.DONE, Usage(10, 3))])
        session = await scene.client.new()
        await scene.client.prompt(session).result()
        await scene.client.configure(session, model_provider="two")
        scene.two.plays([Said("Hi."), Finished(Ending.DONE, Usage(10, 3))])
        await scene.client.prompt(session).result()

        assert "usage_update" not in scene.client.kinds(session)
        first, second = await scene.client.turns(session)
        assert first.verdict is not None
        assert second.verdict is not None
        assert first.verdict.usage is None
        assert second.verdict.usage is not None


async def test_what_a_model_costs_is_counted_where_a_price_is_known() -> None:
    price = Price(input=2.0, output=10.0, cached=0.5)
    provider = MemoryProvider(replace(SETTINGS, prices={"small": price}))
    async with open_scene(one=provider) as scene:
        end = Finished(Ending.DONE, Usage(1000, 100, cache_read_tokens=400, reasoning_tokens=60))
        scene.one.plays([Said("Hi."), end])
        session = await scene.client.new()
        await scene.client.prompt(session).result()
        await scene.client.configure(session, model="unpriced")
        await scene.client.prompt(session).result()

        params = {"sessionId": session}
        usage = await scene.client.call("_moorage/session/usage", params, UsageResult)
        assert [(r.provider, r.model, r.micros) for r in usage.records] == [
            ("one", "small", 600 * 2 + 400 // 2 + 100 * 10),
            ("one", "unpriced", None),
        ]
        assert usage.cost == Cost(amount=0.0024)
        assert usage.tokens == TokenUsage(
            input_tokens=2000, output_tokens=200, cache_read_tokens=800, reasoning_tokens=120
        )


# ---- with and without it


async def test_session_without_its_agent_is_read_and_its_turns_fail() -> None:
    async with open_scene() as scene:
        session = await scene.client.new()
        await scene.client.prompt(session, "one").result()
        image = await scene.daemon.image()

    async with open_daemon(image) as daemon:
        client = await daemon.connect()
        await client.load(session)
        assert client.text(session) == "Hello."

        with pytest.raises(TurnFailed) as caught:
            await client.prompt(session, "two").result()

        assert caught.value.kind == "agent_lost"
        other = await client.new()
        client.prompt(other)
        assert (await daemon.puppet.next()).prompt.text == "hello"
        image = await daemon.image()

    async with open_scene(image) as scene:
        await scene.client.prompt(session, "three").result()

        assert scene.one.said_to_it[-1][-1] == ("user", "two\n\nthree")


async def test_native_agent_without_a_provider_does_not_start() -> None:
    settings = some_settings(default_agent="native", providers={}, default_provider=None)

    with pytest.raises(AppError, match=r"needs a provider: \[providers\.NAME\]"):
        async with open_agents(settings):
            pass


async def test_native_agent_is_there_when_a_provider_is() -> None:
    async with open_agents(some_settings(providers={}, default_provider=None)) as without:
        assert list(without) == ["scripted"]
    async with open_agents(some_settings()) as agents:
        assert list(agents) == ["scripted", "native"]


async def test_prompt_of_several_blocks_is_said_again_as_it_was() -> None:
    async with open_scene(one=MemoryProvider(replace(SETTINGS, context_tokens=10**6))) as scene:
        session = await scene.client.new()
        params = prompt_params(session, "Look at this:")
        resource = {"uri": "file:///a.txt", "text": "content of a"}
        params["prompt"] += [
            {"type": "resource", "resource": resource},
            {"type": "resource_link", "uri": "file:///b.txt", "name": "b"},
            {"type": "text", "text": "line\n" * 200_000},
        ]
        await scene.client.call("session/prompt", params, dict[str, Any])
        await scene.client.prompt(session, "And?").result()

        first, second = scene.one.said_to_it
        assert second[0] == first[0]
        assert first[0][1].startswith("Look at this:\ncontent of a\nfile:///b.txt\nline\n")


# ---- budgets


PRICED = replace(SETTINGS, prices={"small": Price(1.0, 2.0)})


async def on_budget(scene: Scene, **budget: int) -> tuple[str, Any]:
    """A session on a grant of its own, and that grant's spend when it is asked for."""
    session = await scene.client.new(grant={"tools": None, "budget": budget})
    [holding] = scene.daemon.app.desk.ledger.holdings.values()
    return session, holding.account


async def test_answer_may_be_as_long_as_the_grant_lasts() -> None:
    async with open_scene() as scene:
        scene.one.plays([Said("Hi."), Finished(Ending.DONE, Usage(5, 20))])
        session, account = await on_budget(scene, tokens=100)

        await scene.client.prompt(session).result()
        await scene.client.prompt(session).result()

        first, second = (request.max_tokens for request in scene.one.requests)
        assert first == 100 - account_of_words(scene, 0)
        assert second == 75 - account_of_words(scene, 1)
        assert (account.spend.tokens, account.spend.held_tokens) == (50, 0)


def account_of_words(scene: Scene, number: int) -> int:
    """Tokens that the request of that number counts as, before anybody has told."""
    return wish_of(scene.one.requests[number], scene.one.settings).asked


async def test_answer_may_be_as_long_as_the_money_lasts() -> None:
    async with open_scene(one=MemoryProvider(PRICED)) as scene:
        session, _ = await on_budget(scene, micros=100)

        await scene.client.prompt(session).result()

        [request] = scene.one.requests
        asked = wish_of(request, PRICED)
        assert request.max_tokens == (100 - asked.asked) // 2


async def test_answer_without_a_budget_is_bounded_by_nothing_of_ours() -> None:
    async with open_scene() as scene:
        session, _ = await on_budget(scene, calls=3)

        await scene.client.prompt(session).result()

        assert [request.max_tokens for request in scene.one.requests] == [None]


@pytest.mark.parametrize("budget", [{"tokens": 3}, {"micros": 1000}])
async def test_model_is_not_asked_where_no_answer_is_left_or_nobody_knows_what_it_costs(
    budget: dict[str, int],
) -> None:
    async with open_scene() as scene:
        session, account = await on_budget(scene, **budget)

        verdict = await scene.client.prompt(session).verdict()

        assert (verdict.cause, verdict.stop) == (Cause.BUDGET, next(iter(budget)))
        assert scene.one.requests == []
        assert account.spend.used == Amount()


async def test_try_that_failed_takes_nothing() -> None:
    async with open_scene() as scene:
        scene.one.plays([BUSY], [Said("Hi."), Finished(Ending.DONE, Usage(5, 20))])
        session, account = await on_budget(scene, tokens=100)

        await scene.client.prompt(session).result()

        first, second = scene.one.requests
        assert first.max_tokens == second.max_tokens
        assert (account.spend.tokens, account.spend.held_tokens) == (25, 0)


async def test_answer_that_is_cut_off_takes_what_was_asked_and_heard() -> None:
    async with open_scene() as scene:
        scene.one.plays([Said("Half an answer, in 32 characters"), trio.Event()])
        session, account = await on_budget(scene, tokens=100)
        reply = scene.client.prompt(session)
        await scene.client.until(lambda: "characters" in scene.client.text(session))
        held = account.spend.held_tokens

        await scene.client.cancel(session)
        await reply.verdict()

        asked = account_of_words(scene, 0)
        assert held == 100
        assert (account.spend.tokens, account.spend.held_tokens) == (asked + 8, 0)


async def test_answer_that_a_crash_cut_off_counts_as_long_as_it_could_be() -> None:
    async with open_scene() as scene:
        scene.one.plays([Said("Half"), trio.Event()])
        session, _ = await on_budget(scene, tokens=100)
        scene.client.prompt(session)
        await scene.client.until(lambda: scene.client.text(session) == "Half")
        image = await scene.daemon.image()

        async with open_scene(image) as again:
            [holding] = again.daemon.app.desk.ledger.holdings.values()
            assert (holding.account.spend.tokens, holding.account.spend.held_tokens) == (100, 0)


async def test_answers_of_two_sessions_on_one_grant_wait_for_what_the_other_leaves() -> None:
    async with open_scene() as scene:
        gate = trio.Event()
        usual = Finished(Ending.DONE, Usage(5, 20))
        scene.one.plays([gate, Said("Hi."), usual], [Said("Hi."), usual])
        first, account = await on_budget(scene, tokens=100)
        second = await scene.client.new(grant={"grantId": account.id})

        replies = [scene.client.prompt(session) for session in (first, second)]
        await wait_all_tasks_blocked()
        asked_at_once = len(scene.one.requests)
        gate.set()
        for reply in replies:
            await reply.result()

        assert (asked_at_once, len(scene.one.requests)) == (1, 2)
        assert account.spend.tokens == 50


async def test_answer_that_waits_for_what_another_leaves_goes_on_when_the_grant_is_raised() -> None:
    async with open_scene() as scene:
        usual = Finished(Ending.DONE, Usage(5, 20))
        scene.one.plays([trio.Event(), usual], [Said("Hi."), usual])
        first, account = await on_budget(scene, tokens=100)
        second = await scene.client.new(grant={"grantId": account.id})
        scene.client.prompt(first)
        await wait_all_tasks_blocked()
        reply = scene.client.prompt(second)
        await wait_all_tasks_blocked()
        assert len(scene.one.requests) == 1

        params = {"grantId": account.id, "budget": {"tokens": 10**6}}
        await scene.client.call("_moorage/grant/raise", params, GrantStatus)

        await reply.result()
        assert scene.client.text(second) == "Hi."
