"""Cancelling: at every point of a turn's way, by every way to say it, and when it is too late."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_protocol import jsonrpc
from moorage_protocol.acp import StopReason
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import CancelOutcome, CancelResult, Cause, Outcome, Verdict
from tests.daemon.harness import Daemon, simulated
from tests.daemon.puppet import Lever, saying
from tests.daemon.twin import Client, PromptReply, cancel_params


pytestmark = pytest.mark.trio(run=simulated)


async def verdicts(client: Client, session: str) -> list[Verdict]:
    """How the turns ended, in their order; all of them have."""
    found = [turn.verdict for turn in await client.turns(session)]
    assert None not in found
    return [verdict for verdict in found if verdict is not None]


# ---- at every point where a turn waits


LEVER_ASKS, LEVER_HOLDS = Lever(asks=True), Lever(holds=True)


async def _before_the_prompt_is_durable(daemon: Daemon, client: Client, session: str) -> None:
    """The store holds already: nothing more is needed."""


async def _while_the_agent_works(daemon: Daemon, client: Client, session: str) -> None:
    await daemon.puppet.next()


async def _while_output_waits_for_room(daemon: Daemon, client: Client, session: str) -> None:
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()
    performance.begin(saying("x" * 2**21))


async def _while_a_question_is_open(daemon: Daemon, client: Client, session: str) -> None:
    (await daemon.puppet.next()).begin(Lever(asks=True).call())
    await client.question()


async def _while_the_intent_is_written(daemon: Daemon, client: Client, session: str) -> None:
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()
    performance.begin(Lever().call())


async def _while_a_tool_runs(daemon: Daemon, client: Client, session: str) -> None:
    (await daemon.puppet.next()).begin(Lever(holds=True).call())


PLACES: list[Callable[[Daemon, Client, str], Awaitable[None]]] = [
    _before_the_prompt_is_durable,
    _while_the_agent_works,
    _while_output_waits_for_room,
    _while_a_question_is_open,
    _while_the_intent_is_written,
    _while_a_tool_runs,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__[1:])
async def test_a_turn_can_be_cancelled_wherever_it_waits(
    daemon: Daemon, client: Client, place: Callable[[Daemon, Client, str], Awaitable[None]]
) -> None:
    """The agent is out at once, disk or no disk, the verdict is the one and only one, and the
    session goes on."""
    session = await client.new()
    if place is _before_the_prompt_is_durable:
        daemon.store.hold()
    reply = client.prompt(session, "first")
    await place(daemon, client, session)
    await wait_all_tasks_blocked()
    asked_at = trio.current_time()

    outcome = await client.cancel(session)
    await wait_all_tasks_blocked()

    assert outcome == CancelResult(outcome=CancelOutcome.FIRED, generation=1)
    assert all(performance.was_cancelled for performance in daemon.puppet.performances)
    daemon.store.release()
    told = await reply.verdict()
    assert (told.outcome, told.cause, told.also_requested) == (
        Outcome.CANCELLED,
        Cause.CLIENT_RPC,
        [],
    )
    assert trio.current_time() == asked_at
    [verdict] = await verdicts(client, session)
    assert not verdict.forced
    assert verdict.by == client.tui
    following = client.prompt(session, "second")
    while (performance := await daemon.puppet.next()).prompt.text != "second":
        pass
    performance.finish()
    assert (await following.verdict()).outcome is Outcome.COMPLETED


async def test_a_prompt_that_is_cancelled_before_it_is_durable_never_reaches_the_agent(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    daemon.store.hold()
    reply = client.prompt(session)
    await wait_all_tasks_blocked()

    await client.cancel(session)
    daemon.store.release()
    await reply.result()

    assert not daemon.puppet.performances


async def test_a_tool_whose_intent_was_not_durable_in_time_never_starts(
    daemon: Daemon, client: Client
) -> None:
    lever = Lever()
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()
    performance.begin(lever.call())
    await wait_all_tasks_blocked()

    await client.cancel(session)
    daemon.store.release()
    await reply.result()

    assert lever.pulled == []
    results = [p for p in client.of_session(session) if p.get("kind") == "result"]
    assert [result["status"] for result in results] == ["cancelled"]


async def test_a_running_tool_is_cancelled_and_its_processes_are_killed(
    daemon: Daemon, client: Client
) -> None:
    lever = Lever(holds=True)
    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).begin(lever.call())
    await wait_all_tasks_blocked()

    await client.cancel(session)
    await reply.result()

    assert lever.pulled == ["A"]
    [verdict] = await verdicts(client, session)
    assert verdict.tool_calls.cancelled == 1
    updates = [p["update"] for p in client.of_session(session) if "update" in p]
    calls = [u["status"] for u in updates if u["sessionUpdate"].startswith("tool_call")]
    assert calls == ["pending", "in_progress", "failed"]


async def test_what_was_said_before_a_cancel_stays(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await performance.say("one ")
    performance.begin(saying("two"))
    await wait_all_tasks_blocked()

    await client.cancel(session)
    await reply.result()

    assert client.text(session) == "one two"


# ---- the numbered behaviours


async def test_behaviour_1_a_cancel_of_an_idle_session_leaves_no_trace(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    before = await daemon.log(session)

    assert await client.cancel(session) == CancelResult(outcome=CancelOutcome.IDLE)

    assert await daemon.log(session) == before
    reply = client.prompt(session)
    (await daemon.puppet.next()).finish()
    assert (await reply.verdict()).cause is None
    [verdict] = await verdicts(client, session)
    assert (verdict.outcome, verdict.cause) == (Outcome.COMPLETED, None)
    assert not verdict.cancel_lost


async def test_behaviour_2_prompt_and_cancel_in_one_write_never_reach_the_agent(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    prompt, answered = client.prompt_frame(session)
    cancel = jsonrpc.encode_notification("session/cancel", cancel_params(session))

    client.post(prompt, cancel)

    told = await answered.verdict()
    assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.CLIENT_RPC)
    assert not daemon.puppet.performances


async def test_behaviour_3_a_cancel_that_comes_too_late_does_not_hit_the_next_turn(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "N")
    following = client.prompt(session, "N+1")
    (await daemon.puppet.next()).finish()
    running = await daemon.puppet.next()

    late = await client.cancel(session, generation=1)

    assert late == CancelResult(outcome=CancelOutcome.STALE, generation=1)
    await wait_all_tasks_blocked()
    assert not running.was_cancelled
    running.finish()
    assert (await following.verdict()).cause is None


async def test_behaviour_4_the_first_cause_stays_when_a_kill_follows(
    daemon: Daemon, client: Client
) -> None:
    operator = await daemon.connect()
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    performance.dig_in()
    await wait_all_tasks_blocked()
    await client.cancel(session)

    killed = operator.start_kill(session)
    await wait_all_tasks_blocked()
    performance.released.set()

    assert (await killed.result()).turns == [1]
    told = await reply.verdict()
    assert told.cause is Cause.CLIENT_RPC
    [also] = told.also_requested
    assert (also.cause, also.by) == (Cause.ADMIN_KILL, operator.tui)
    [verdict] = await verdicts(client, session)
    assert (verdict.cause, verdict.by) == (Cause.CLIENT_RPC, client.tui)
    assert client.kinds(session).count("verdict") == 1
    assert await client.listed() == [session]
    assert (await client.status()).sessions.live == 0


async def test_behaviour_6_a_cancel_that_the_agent_outran_is_lost(
    daemon: Daemon, client: Client
) -> None:
    """The agent returned before its cancellation could reach it: completed, and it says so."""
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    performance.shrug()
    await wait_all_tasks_blocked()

    outcome = await client.cancel(session)
    performance.released.set()

    assert outcome.outcome is CancelOutcome.FIRED
    told = await reply.verdict()
    assert (await reply.result()).stop_reason == "end_turn"
    assert (told.outcome, told.cause, told.cancel_lost) == (Outcome.COMPLETED, None, True)
    [verdict] = await verdicts(client, session)
    assert (verdict.outcome, verdict.cause, verdict.cancel_lost) == (Outcome.COMPLETED, None, True)


async def three_turns(daemon: Daemon, client: Client, session: str) -> list[PromptReply]:
    """One runs, two wait."""
    replies = [client.prompt(session, text) for text in ("one", "two", "three")]
    await daemon.puppet.next()
    await wait_all_tasks_blocked()
    return replies


async def test_behaviour_8_scope_current_lets_the_next_turn_start(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    replies = await three_turns(daemon, client, session)

    result = await client.cancel(session, scope="current")

    assert result.generation == 1
    assert (await replies[0].verdict()).cause is Cause.CLIENT_RPC
    for text in ("two", "three"):
        performance = await daemon.puppet.next()
        assert performance.prompt.text == text
        performance.finish()
    assert [(await reply.verdict()).cause for reply in replies[1:]] == [None, None]


async def test_behaviour_8_scope_all_lets_none_start_and_ends_each(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    replies = await three_turns(daemon, client, session)

    await client.cancel(session, scope="all")

    for reply in replies:
        assert (await reply.verdict()).cause is Cause.CLIENT_RPC
    await wait_all_tasks_blocked()
    assert len(daemon.puppet.performances) == 1
    assert sorted(client.verdicts(session)) == [1, 2, 3]


async def test_scope_queued_spares_the_running_turn(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    replies = await three_turns(daemon, client, session)

    await client.cancel(session, scope="queued")

    for reply in replies[1:]:
        assert (await reply.verdict()).cause is Cause.CLIENT_RPC
    [performance] = daemon.puppet.performances
    assert not performance.was_cancelled
    performance.finish()
    assert (await replies[0].verdict()).outcome is Outcome.COMPLETED


async def test_behaviour_10_while_its_verdict_is_written_a_turn_is_over_and_the_session_busy(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()
    performance.finish()
    await wait_all_tasks_blocked()

    for wish in ({}, {"generation": 1}, {"scope": "all"}):
        result = await client.cancel(session, **wish)
        assert result == CancelResult(outcome=CancelOutcome.FINISHED, generation=1)

    assert daemon.session(session).is_busy
    assert not reply.arrived.is_set()
    daemon.store.release()
    told = await reply.verdict()
    assert (told.outcome, told.cancel_lost) == (Outcome.COMPLETED, False)
    assert not daemon.session(session).is_busy


# ---- ways to say it


async def test_a_cancel_request_of_the_prompt_cancels_its_turn(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    running, waiting = client.prompt(session, "runs"), client.prompt(session, "waits")
    performance = await daemon.puppet.next()

    client.notify("$/cancel_request", {"requestId": waiting.id})
    assert (await waiting.verdict()).cause is Cause.CLIENT_RPC
    assert not performance.was_cancelled
    client.notify("$/cancel_request", {"requestId": running.id})

    assert (await running.verdict()).cause is Cause.CLIENT_RPC
    client.notify("$/cancel_request", {"requestId": running.id})
    client.notify("$/cancel_request", {"requestId": "never was"})
    assert (await client.cancel(session)).outcome is CancelOutcome.IDLE


async def test_without_a_wish_a_client_stops_what_it_prompted_and_nothing_else(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    session = await client.new()
    first = client.prompt(session, "mine")
    await daemon.puppet.next()
    second = other.prompt(session, "the other's")
    third = client.prompt(session, "mine too")
    await wait_all_tasks_blocked()

    client.notify("session/cancel", cancel_params(session))

    assert (await first.verdict()).cause is Cause.CLIENT_RPC
    assert (await third.verdict()).cause is Cause.CLIENT_RPC
    performance = await daemon.puppet.next()
    assert performance.prompt.text == "the other's"
    performance.finish()
    assert (await second.verdict()).cause is None


async def test_without_a_wish_a_client_that_prompted_nothing_stops_the_running_turn(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    session = await client.new()
    replies = await three_turns(daemon, client, session)

    result = await other.cancel(session)

    assert (result.outcome, result.generation) == (CancelOutcome.FIRED, 1)
    assert (await replies[0].verdict()).cause is Cause.CLIENT_RPC
    assert (await daemon.puppet.next()).prompt.text == "two"
    [first] = [turn.verdict for turn in await client.turns(session) if turn.generation == 1]
    assert first is not None
    assert first.by == other.tui


async def test_a_generation_names_a_turn_running_waiting_or_over(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    replies = await three_turns(daemon, client, session)

    assert (await client.cancel(session, generation=3)).outcome is CancelOutcome.FIRED
    assert (await replies[2].verdict()).generation == 3
    assert (await client.cancel(session, generation=3)).outcome is CancelOutcome.FINISHED
    assert (await client.cancel(session, generation=1)).outcome is CancelOutcome.FIRED
    running = await daemon.puppet.next()
    assert running.prompt.text == "two"
    assert (await client.cancel(session, generation=1)).outcome is CancelOutcome.STALE
    running.dig_in()
    await wait_all_tasks_blocked()
    assert (await client.cancel(session, generation=2)).outcome is CancelOutcome.FIRED
    assert (await client.cancel(session, generation=2)).outcome is CancelOutcome.ALREADY
    running.released.set()
    await replies[1].result()
    assert (await client.cancel(session, generation=2)).outcome is CancelOutcome.STALE
    assert (await client.cancel(session, generation=3)).outcome is CancelOutcome.FINISHED


async def test_a_turn_that_was_withdrawn_before_a_later_one_is_finished_and_not_stale(
    daemon: Daemon, client: Client
) -> None:
    """Stale is what is older than the running turn; this one is younger."""
    session = await client.new()
    await three_turns(daemon, client, session)
    assert await client.withdraw(session, 2)

    assert (await client.cancel(session, generation=2)).outcome is CancelOutcome.FINISHED


@pytest.mark.parametrize("generation", [-1, 0, 4, 2**40])
async def test_a_generation_that_never_was_is_refused(
    daemon: Daemon, client: Client, generation: int
) -> None:
    session = await client.new()
    await three_turns(daemon, client, session)

    with pytest.raises(InvalidParams):
        await client.cancel(session, generation=generation)

    assert not daemon.puppet.performances[0].was_cancelled


async def test_a_plain_client_is_told_no_more_than_that_it_was_cancelled(daemon: Daemon) -> None:
    plain = await daemon.connect(plain=True)
    session = await plain.new()
    reply = plain.prompt(session)
    await daemon.puppet.next()

    plain.notify("session/cancel", cancel_params(session))
    result = await reply.result()

    assert plain.messages[reply.place]["result"] == {"stopReason": "cancelled"}
    assert result.stop_reason is StopReason.CANCELLED


async def test_later_requests_to_stop_are_noted_beside_the_first(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    session = await client.new()
    reply = client.prompt(session, timeoutSeconds=1)
    performance = await daemon.puppet.next()
    performance.dig_in()
    await trio.sleep(1)
    await wait_all_tasks_blocked()

    await client.cancel(session)
    await trio.sleep(0.5)
    await other.cancel(session)
    performance.released.set()

    told = await reply.verdict()
    assert told.cause is Cause.TURN_TIMEOUT
    assert [also.by for also in told.also_requested] == [client.tui, other.tui]
    assert told.also_requested[1].at - told.also_requested[0].at == pytest.approx(0.5)


async def test_many_cancels_at_once_end_a_turn_once(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    await daemon.puppet.next()
    cancels = [client.frame("session/cancel", cancel_params(session), CancelResult)]
    cancels += [
        client.frame("session/cancel", cancel_params(session), CancelResult) for _ in range(9)
    ]

    client.post(*(frame for frame, _ in cancels))

    outcomes = [(await answer.result()).outcome for _, answer in cancels]
    assert outcomes == [CancelOutcome.FIRED] + [CancelOutcome.ALREADY] * 9
    assert len((await reply.verdict()).also_requested) == 9
    assert client.kinds(session).count("verdict") == 1
