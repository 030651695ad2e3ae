"""Turns from a prompt to a verdict: order, queue, limits, prompt ids, and agents that break."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import AgentFailed, Stage, StageClosed
from moorage_protocol.acp import Empty, StopReason
from moorage_protocol.errors import (
    Busy,
    InvalidParams,
    NotFound,
    QueueFull,
    RpcError,
    TurnFailed,
)
from moorage_protocol.moorage import Cause, Outcome, State, Verdict
from tests.daemon.harness import GRACE, Daemon, open_daemon, simulated
from tests.daemon.puppet import Act, Lever, Puppet, saying
from tests.daemon.twin import Client, Json, prompt_params


pytestmark = pytest.mark.trio(run=simulated)


async def verdict(client: Client, session: str, generation: int) -> Verdict:
    """How a turn ended, from its record."""
    turns = {turn.generation: turn for turn in await client.turns(session)}
    found = turns[generation].verdict
    assert found is not None
    return found


# ---- one after the other


async def test_turns_of_a_session_run_one_after_the_other(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    replies = [client.prompt(session, text) for text in "abc"]

    for text in "abc":
        performance = await daemon.puppet.next()
        await wait_all_tasks_blocked()
        assert performance.prompt.text == text
        assert len([p for p in daemon.puppet.performances if not p.is_over]) == 1
        performance.finish()

    told = [await reply.verdict() for reply in replies]
    assert [answer.generation for answer in told] == [1, 2, 3]
    assert [reply.place for reply in replies] == sorted(reply.place for reply in replies)


async def test_sessions_run_side_by_side(daemon: Daemon, client: Client) -> None:
    sessions = [await client.new() for _ in range(3)]

    for session in sessions:
        client.prompt(session)
    for _ in sessions:
        await daemon.puppet.next()

    assert (await client.status()).turns == 3


async def test_the_verdict_is_durable_before_the_next_turn_begins(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "one")
    client.prompt(session, "two")
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()

    performance.finish()
    await wait_all_tasks_blocked()

    assert len(daemon.puppet.performances) == 1
    assert daemon.session(session).is_busy
    daemon.store.release()
    await daemon.puppet.next()
    kinds = [entry.kind for entry in await daemon.log(session)]
    assert kinds.index("verdict") < len(kinds) - 1 - kinds[::-1].index("begin")


async def test_all_updates_of_a_turn_precede_its_answer(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    for piece in "abc":
        performance.begin(saying(piece))
    performance.finish()

    answer = await reply.verdict()

    before = client.messages[: reply.place]
    said = [m for m in before if m.get("method") == "_moorage/session/entry"]
    assert said[-1]["params"]["kind"] == "verdict"
    assert said[-1]["params"]["generation"] == answer.generation
    assert client.text(session) == "abc"


async def test_behaviour_18_two_clients_see_the_same_and_the_same_end(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    session = await client.new()
    await other.attach(session, afterSeq=0)

    reply = client.prompt(session, "tell both")
    performance = await daemon.puppet.next()
    await performance.say("one ")
    await performance.say("two")
    performance.finish()
    await reply.result()
    await other.until(lambda: 1 in other.verdicts(session))

    assert client.text(session) == other.text(session) == "one two"
    assert other.seqs(session) == list(range(1, other.seqs(session)[-1] + 1))
    assert client.seqs(session) == other.seqs(session)[1:], "the first entry is the answer to new"
    assert client.verdicts(session) == other.verdicts(session)


# ---- the queue


async def test_a_prompt_in_a_full_queue_is_refused_and_changes_nothing() -> None:
    async with open_daemon(prompt_queue=2) as daemon:
        client = await daemon.connect()
        session = await client.new()
        for text in ("runs", "waits", "waits too"):
            client.prompt(session, text)
        await wait_all_tasks_blocked()
        head = daemon.session(session).head

        with pytest.raises(QueueFull):
            await client.prompt(session, "too many").result()

        assert daemon.session(session).head == head
        assert [turn.generation for turn in await client.turns(session)] == [1, 2, 3]


async def test_on_busy_refuse_is_refused_only_while_busy(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    first = client.prompt(session, onBusy="refuse")

    with pytest.raises(Busy):
        await client.prompt(session, onBusy="refuse").result()

    (await daemon.puppet.next()).finish()
    await first.result()
    second = client.prompt(session, onBusy="refuse")
    (await daemon.puppet.next()).finish()
    assert (await second.verdict()).generation == 2


async def test_supersede_cancels_the_running_and_all_waiting_turns_and_is_next(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    old = [client.prompt(session, text) for text in ("one", "two", "three")]
    await daemon.puppet.next()

    newest = client.prompt(session, "newest", onBusy="supersede")
    performance = await daemon.puppet.next()
    performance.finish()

    assert performance.prompt.text == "newest"
    for reply in old:
        told = await reply.verdict()
        assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.SUPERSEDED)
    assert (await newest.verdict()).outcome is Outcome.COMPLETED
    assert len(daemon.puppet.performances) == 2


async def test_supersede_in_a_full_queue_is_admitted() -> None:
    async with open_daemon(prompt_queue=1) as daemon:
        client = await daemon.connect()
        session = await client.new()
        client.prompt(session, "one")
        client.prompt(session, "two")
        await daemon.puppet.next()

        newest = client.prompt(session, "newest", onBusy="supersede")
        (await daemon.puppet.next()).finish()

        assert (await newest.verdict()).outcome is Outcome.COMPLETED


async def test_behaviour_30_a_queued_prompt_is_announced_runs_later_and_can_be_withdrawn(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "long")
    kept, withdrawn = client.prompt(session, "kept"), client.prompt(session, "withdrawn")
    long = await daemon.puppet.next()
    await client.until(lambda: client.kinds(session).count("prompt") == 3)
    positions = [p["position"] for p in client.of_session(session) if p.get("kind") == "prompt"]
    assert positions == [0, 1, 2]

    assert await client.withdraw(session, 3)
    assert (await withdrawn.verdict()).cause is Cause.CLIENT_RPC
    assert [turn.generation for turn in (await client.attach(session)).queue] == [2]
    await trio.sleep(600)
    assert not await client.withdraw(session, 3), "it has its verdict"
    assert not await client.withdraw(session, 1), "it runs"
    assert not await client.withdraw(session, 9), "it never was"
    long.finish()
    (await daemon.puppet.next()).finish()

    assert (await kept.verdict()).outcome is Outcome.COMPLETED
    assert [p.prompt.text for p in daemon.puppet.performances] == ["long", "kept"]


async def test_the_place_of_a_withdrawn_prompt_is_free() -> None:
    async with open_daemon(prompt_queue=1) as daemon:
        client = await daemon.connect()
        session = await client.new()
        client.prompt(session, "runs")
        client.prompt(session, "waits")

        assert await client.withdraw(session, 2)
        reply = client.prompt(session, "instead")
        (await daemon.puppet.next()).finish()
        (await daemon.puppet.next()).finish()

        assert (await reply.verdict()).generation == 3


# ---- prompts that are refused, and prompts that are not answered


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
async def test_behaviour_29_a_blank_prompt_is_refused_and_is_no_turn(
    daemon: Daemon, client: Client, text: str
) -> None:
    session = await client.new()

    with pytest.raises(InvalidParams):
        await client.prompt(session, text).result()

    await wait_all_tasks_blocked()
    assert [entry.kind for entry in await daemon.log(session)] == ["state"]
    assert await client.turns(session) == []


async def test_behaviour_29_every_refused_prompt_says_why_and_ends_nothing(
    daemon: Daemon, client: Client
) -> None:
    session, killed = await client.new(), await client.new()
    await client.kill(killed)
    image = {"sessionId": session, "prompt": [{"type": "image", "data": "", "mimeType": "a/b"}]}

    for refused, error in (
        (client.start("session/prompt", image, Empty), InvalidParams),
        (client.prompt(killed), NotFound),
        (client.prompt("ghost"), NotFound),
        (client.prompt(session, timeoutSeconds=0), InvalidParams),
        (client.prompt(session, promptId=""), InvalidParams),
        (client.prompt(session, onBusy="whatever"), InvalidParams),
    ):
        with pytest.raises(error) as caught:
            await refused.result()
        assert caught.value.message

    assert client.verdicts(session) == client.verdicts(killed) == {}
    assert not daemon.puppet.performances


async def test_behaviour_29_a_prompt_sent_as_a_notification_has_one_end_like_any_other(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.notify("session/prompt", prompt_params(session, "nobody waits"))
    (await daemon.puppet.next()).finish()

    await client.until(lambda: 1 in client.verdicts(session))

    assert client.kinds(session).count("verdict") == 1


# ---- prompt ids


async def test_a_prompt_id_that_runs_gives_the_same_turn(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    first = client.prompt(session, promptId="p")
    performance = await daemon.puppet.next()

    again = client.prompt(session, promptId="p")
    performance.finish()

    assert await first.verdict() == await again.verdict()
    assert len(daemon.puppet.performances) == 1


async def test_a_prompt_id_that_waits_gives_the_same_turn_from_any_client(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    session = await client.new()
    client.prompt(session, "runs")
    first = client.prompt(session, "waits", promptId="p")
    await wait_all_tasks_blocked()

    again = other.prompt(session, "waits", promptId="p")
    (await daemon.puppet.next()).finish()
    (await daemon.puppet.next()).finish()

    assert (await first.verdict()).generation == (await again.verdict()).generation == 2
    assert len(await client.turns(session)) == 2


async def test_a_prompt_id_that_has_ended_gets_its_answer_again(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    first = client.prompt(session, promptId="p")
    (await daemon.puppet.next()).finish(StopReason.MAX_TOKENS)
    told = await first.result()

    again = await client.prompt(session, promptId="p").result()

    assert again == told
    assert len(daemon.puppet.performances) == 1


async def test_a_prompt_id_of_a_failed_turn_fails_again_and_runs_nothing(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    first = client.prompt(session, promptId="p")
    (await daemon.puppet.next()).fail(AgentFailed("provider_rate", "slow down"))

    for reply in (first, client.prompt(session, promptId="p")):
        with pytest.raises(TurnFailed) as caught:
            await reply.result()
        assert caught.value.kind == "provider_rate"
    assert len(daemon.puppet.performances) == 1


async def test_a_prompt_id_whose_verdict_is_not_durable_yet_is_answered_when_it_is(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    client.prompt(session, "waits", promptId="p")
    await wait_all_tasks_blocked()
    daemon.store.hold()
    withdrawing = client.start_cancel(session, generation=2)
    again = client.prompt(session, "waits", promptId="p")
    await wait_all_tasks_blocked()

    daemon.store.release()

    assert (await withdrawing.result()).outcome == "fired"
    told = await again.verdict()
    assert (told.generation, told.cause) == (2, Cause.CLIENT_RPC)


async def test_a_prompt_id_with_another_body_is_refused(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session, "this", promptId="p")

    with pytest.raises(InvalidParams):
        await client.prompt(session, "that", promptId="p").result()

    await daemon.puppet.next()
    assert len(await client.turns(session)) == 1


async def test_a_prompt_id_belongs_to_its_session(daemon: Daemon, client: Client) -> None:
    for text in ("this", "that"):
        session = await client.new()
        client.prompt(session, text, promptId="p")
        assert (await daemon.puppet.next()).prompt.text == text


async def test_a_prompt_id_is_known_after_a_restart(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    first = client.prompt(session, promptId="p")
    (await daemon.puppet.next()).finish()
    told = await first.verdict()

    async with open_daemon(await daemon.image()) as restarted:
        again = await (await restarted.connect()).prompt(session, promptId="p").verdict()

        assert again == told
        assert not restarted.puppet.performances


async def test_the_prompt_id_of_a_cut_turn_is_answered_after_a_restart_and_not_run(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, promptId="p")
    await daemon.puppet.next()

    async with open_daemon(await daemon.image()) as restarted:
        again = await (await restarted.connect()).prompt(session, promptId="p").verdict()

        assert again.cause is Cause.DAEMON_RESTART
        assert not restarted.puppet.performances


async def test_no_prompt_that_is_not_answered_is_ever_forgotten(
    daemon: Daemon, client: Client
) -> None:
    """With the default queue full, the one that runs is still known."""
    session = await client.new()
    for number in range(33):
        client.prompt(session, promptId=f"p{number}")
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()

    again = client.prompt(session, promptId="p0")
    performance.finish()

    assert (await again.verdict()).generation == 1


# ---- limits of time


async def test_a_turn_that_takes_too_long_is_stopped_with_that_cause(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    start = trio.current_time()
    reply = client.prompt(session, timeoutSeconds=3)
    await daemon.puppet.next()

    told = await reply.verdict()

    assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.TURN_TIMEOUT)
    assert trio.current_time() - start == pytest.approx(3)


@pytest.mark.parametrize(("wish", "expected"), [(None, 4), (2, 2), (9, 4)])
async def test_the_setting_limits_every_turn_and_a_prompt_may_only_want_less(
    wish: float | None, expected: float
) -> None:
    async with open_daemon(turn_timeout_seconds=4) as daemon:
        client = await daemon.connect()
        session = await client.new()
        wishes: Json = {"timeoutSeconds": wish} if wish else {}
        reply = client.prompt(session, **wishes)

        assert (await reply.verdict()).cause is Cause.TURN_TIMEOUT

        assert trio.current_time() == pytest.approx(expected)


async def test_the_time_in_the_queue_does_not_count(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session, "first")
    reply = client.prompt(session, "second", timeoutSeconds=1)
    first = await daemon.puppet.next()
    await trio.sleep(3)
    first.finish()
    performance = await daemon.puppet.next()

    performance.finish()

    assert (await reply.verdict()).outcome is Outcome.COMPLETED


async def test_behaviour_39_a_silent_tool_of_ten_minutes_is_left_alone(
    daemon: Daemon, client: Client
) -> None:
    lever = Lever(holds=True)
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    performance.begin(lever.call())

    await trio.sleep(600)

    assert not performance.was_cancelled
    assert lever.cranks[0].kills == 0
    lever.release.set()
    performance.finish()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED


# ---- agents that break or do not stop


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AgentFailed("provider_auth", "who are you"), "provider_auth"),
        (RuntimeError("a bug at /home/user/secret.py"), "internal"),
        (ExceptionGroup("several", [ValueError("one")]), "internal"),
    ],
)
async def test_behaviour_38_an_agent_that_raises_fails_its_turn_and_nothing_else(
    daemon: Daemon, client: Client, error: Exception, code: str
) -> None:
    session = await client.new()
    reply = client.prompt(session, "breaks")
    following = client.prompt(session, "goes on")
    (await daemon.puppet.next()).fail(error)

    with pytest.raises(TurnFailed) as caught:
        await reply.result()

    assert caught.value.kind == code
    assert "secret.py" not in str(client.messages)
    assert (await verdict(client, session, 1)).code == code
    (await daemon.puppet.next()).finish()
    assert (await following.verdict()).outcome is Outcome.COMPLETED
    await wait_all_tasks_blocked()
    assert daemon.session(session).state is State.IDLE
    assert sorted(client.verdicts(session)) == [1, 2]


class BrokenLever(Lever):
    """A tool with a bug."""

    async def run(self, *_: object) -> object:  # type: ignore[override]  # it never returns
        raise ZeroDivisionError


async def test_behaviour_38_a_tool_that_raises_fails_the_turn_and_has_a_result(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).begin(BrokenLever().call())

    with pytest.raises(TurnFailed):
        await reply.result()

    results = [p for p in client.of_session(session) if p.get("kind") == "result"]
    assert [(r["status"], r["code"]) for r in results] == [("failed", "tool")]
    assert (await verdict(client, session, 1)).tool_calls.failed == 1


async def test_an_agent_whose_own_tasks_break_while_it_is_cancelled_is_cancelled(
    daemon: Daemon, client: Client
) -> None:
    async def break_on_cancel() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while unwinding")

    async def act(_: Stage) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(break_on_cancel)

    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).begin(act)
    await wait_all_tasks_blocked()

    await client.cancel(session)

    told = await reply.verdict()
    assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.CLIENT_RPC)


async def test_behaviour_32_an_agent_that_ignores_its_cancellation_is_left_behind(
    daemon: Daemon, client: Client
) -> None:
    """After the grace: a forced verdict, its processes killed, its tool call closed, and the
    session takes the next prompt; whatever the old agent still does is lost on it."""
    lever = Lever()
    session = await client.new()
    reply = client.prompt(session, "ignores")

    async def pull_and_ignore(stage: Stage) -> None:
        with trio.CancelScope(shield=True):
            await lever.call()(stage)

    stubborn = await daemon.puppet.next()
    lever.release = stubborn.released
    stubborn.begin(pull_and_ignore)
    await wait_all_tasks_blocked()
    asked_at = trio.current_time()
    await client.cancel(session)

    told = await reply.verdict()

    assert trio.current_time() - asked_at == pytest.approx(GRACE)
    assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.CLIENT_RPC)
    assert (await verdict(client, session, 1)).forced
    assert lever.cranks[0].kills == 1
    results = [p for p in client.of_session(session) if p.get("kind") == "result"]
    assert [r["status"] for r in results] == ["cancelled"]
    following = client.prompt(session, "next")
    (await daemon.puppet.next()).finish()
    assert (await following.verdict()).outcome is Outcome.COMPLETED
    before = len(await daemon.log(session))
    stubborn.released.set()
    await wait_all_tasks_blocked()
    assert stubborn.is_over
    assert len(await daemon.log(session)) == before


async def test_what_an_abandoned_agent_does_is_refused(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    stubborn = await daemon.puppet.next()
    stubborn.dig_in()
    await wait_all_tasks_blocked()
    await client.cancel(session)
    await reply.result()
    lever, before = Lever(), len(await daemon.log(session))

    acts: list[Act] = [
        saying("still here"),
        lambda stage: stage.think("hm"),
        lambda stage: stage.plan([]),
        lambda stage: stage.ask("may I?"),
        lever.call(),
    ]
    for act in acts:
        with pytest.raises(StageClosed):
            await act(stubborn.stage)

    await wait_all_tasks_blocked()
    assert lever.pulled == []
    assert len(await daemon.log(session)) == before


async def test_an_agent_that_says_it_was_cancelled_when_nobody_asked_has_failed(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).finish(StopReason.CANCELLED)

    with pytest.raises(RpcError) as caught:
        await reply.result()

    assert caught.value.kind == "agent_failed"


# ---- the end of the daemon


async def test_a_daemon_that_stops_gives_every_turn_its_verdict() -> None:
    """Behaviour 33: running and waiting ones, durable, told, and not again after a restart."""
    async with open_daemon() as daemon:
        client = await daemon.connect()
        session = await client.new()
        replies = [client.prompt(session), client.prompt(session)]
        await daemon.puppet.next()
        await wait_all_tasks_blocked()
    store = daemon.store

    for reply in replies:
        assert (await reply.verdict()).cause is Cause.SHUTDOWN
    detached = [m["params"] for m in client.messages if m.get("method", "").endswith("detached")]
    assert [(d["sessionId"], d["reason"]) for d in detached] == [(session, "shutdown")]
    assert detached[0]["seq"] == client.seqs(session)[-1]
    async with open_daemon(store) as restarted:
        again = await restarted.connect()
        causes = [turn.verdict and turn.verdict.cause for turn in await again.turns(session)]
        assert causes == [Cause.SHUTDOWN, Cause.SHUTDOWN]


async def test_a_daemon_with_an_agent_that_ignores_the_end_stops_all_the_same() -> None:
    async with open_daemon() as daemon:
        client = await daemon.connect()
        session = await client.new()
        reply = client.prompt(session)
        (await daemon.puppet.next()).dig_in()
        await wait_all_tasks_blocked()
        stopped_at = trio.current_time()

    assert (await reply.verdict()).cause is Cause.SHUTDOWN
    [abandoned_at] = daemon.abandoned
    assert abandoned_at - stopped_at < GRACE + 1


class Nameless(Puppet):
    """An agent that cannot even be named once its turn is judged."""

    is_broken = False

    def __getattribute__(self, attribute: str) -> object:
        if attribute == "name" and type(self).is_broken:
            raise ZeroDivisionError
        return super().__getattribute__(attribute)


async def test_behaviour_38_a_turn_that_cannot_be_judged_has_a_verdict_all_the_same() -> None:
    """A bug on our own side of the turn: the cause counts, and the session goes on."""
    nameless = Nameless("nameless")
    async with open_daemon(agents=(nameless,)) as daemon:
        client = await daemon.connect()
        session = await client.new(agent="nameless")
        reply = client.prompt(session)
        performance = await nameless.next()
        performance.dig_in()
        await wait_all_tasks_blocked()
        Nameless.is_broken = True
        await client.cancel(session)

        told = await reply.verdict()

        Nameless.is_broken = False
        assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.CLIENT_RPC)
        with pytest.raises(StageClosed):
            await performance.stage.say("still here")
        following = client.prompt(session)
        (await nameless.next()).finish()
        assert (await following.verdict()).outcome is Outcome.COMPLETED
        performance.released.set()
