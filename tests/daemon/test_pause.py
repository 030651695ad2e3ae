"""A paused session: no turn starts, the one that runs ends, prompts wait, and the rest works."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.identity import Principal
from moorage_daemon.store.model import Entry, Life
from moorage_protocol.acp import Empty
from moorage_protocol.errors import (
    GrantRefused,
    NotFound,
    NotPermitted,
    QueueFull,
    SessionState,
    StorageError,
)
from moorage_protocol.moorage import (
    CancelOutcome,
    Cause,
    KillResult,
    Outcome,
    PauseResult,
    Role,
    State,
)
from tests.acp.shapes import objections
from tests.daemon.harness import GRACE, Daemon, open_daemon, simulated
from tests.daemon.ledger.test_grants import ask, create, use
from tests.daemon.puppet import Lever
from tests.daemon.test_ground import standing, turn
from tests.daemon.transfer.files import exported, imported
from tests.daemon.twin import Client, Json, Reply


pytestmark = pytest.mark.trio(run=simulated)

SOMEBODY = Principal("somebody", Role.OWNER)
WATCHER = Principal("local", Role.OBSERVER)


def start_pause(client: Client, session: str) -> Reply[PauseResult]:
    return client.start("_moorage/session/pause", {"sessionId": session}, PauseResult)


def start_resume(client: Client, session: str) -> Reply[PauseResult]:
    return client.start("_moorage/session/resume", {"sessionId": session}, PauseResult)


async def pause(client: Client, session: str) -> State:
    return (await start_pause(client, session).result()).state


async def resume(client: Client, session: str) -> State:
    return (await start_resume(client, session).result()).state


def states(log: list[Entry]) -> list[str]:
    return [entry.kind for entry in log if entry.kind in ("state", "begin", "verdict")]


# ---- what it holds back


async def test_prompt_to_a_paused_session_waits_and_runs_when_it_goes_on(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()

    assert await pause(client, session) is State.PAUSED
    reply = client.prompt(session, "later")
    await wait_all_tasks_blocked()
    assert not daemon.puppet.performances
    assert client.of_kind("prompt")[-1]["paused"] is True
    assert client.of_kind("prompt")[-1]["position"] == 1

    assert await resume(client, session) is State.RUNNING
    performance = await daemon.puppet.next()
    assert performance.prompt.text == "later"
    performance.finish()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED
    assert states(await daemon.log(session)) == ["state", "state", "state", "begin", "verdict"]


@pytest.mark.parametrize("shows_notices", [False, True])
async def test_editor_that_prompts_a_paused_session_is_told_and_no_history_has_it(
    daemon: Daemon, client: Client, shows_notices: bool
) -> None:
    capabilities: Json = {"session": {"notices": {} if shows_notices else None}}
    editor = await daemon.connect(plain=True, capabilities=capabilities)
    session = await editor.new()
    await pause(client, session)

    reply = editor.prompt(session, "later")
    await wait_all_tasks_blocked()

    told = editor.of_session(session)[-1]
    words = (
        "The session is paused",
        f"This prompt waits until it is resumed: moorage resume {session}",
    )
    assert "_meta" not in told, "no entry of the log"
    if shows_notices:
        assert told["update"] == {
            "sessionUpdate": "notice",
            "severity": "warning",
            "title": words[0],
            "description": words[1],
        }
    else:
        assert editor.text(session) == f"{words[0]}. {words[1]}\n"
        assert objections(editor) == []
    await client.load(session)
    assert client.text(session) == ""
    await resume(client, session)
    (await daemon.puppet.next()).finish()
    assert (await reply.result()).stop_reason == "end_turn"


async def test_that_a_session_is_paused_is_told_when_the_prompt_is_durable_and_to_no_one_else(
    daemon: Daemon, client: Client
) -> None:
    editor = await daemon.connect(plain=True)
    watcher = await daemon.connect(plain=True)
    session = await editor.new()
    await watcher.resume(session)
    running = editor.prompt(session, "runs")
    performance = await daemon.puppet.next()
    await pause(client, session)
    daemon.store.hold()
    client.prompt(session, "waits")
    editor.prompt(session, "waits, too")
    await wait_all_tasks_blocked()
    assert editor.text(session) == ""

    daemon.store.release()
    await wait_all_tasks_blocked()

    assert editor.text(session).count("The session is paused") == 1
    assert (watcher.text(session), client.text(session)) == ("", "")
    performance.finish()
    assert (await running.result()).stop_reason == "end_turn"


async def test_turn_that_runs_ends_and_the_next_one_waits(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    first, second = client.prompt(session, "runs"), client.prompt(session, "waits")
    performance = await daemon.puppet.next()

    await pause(client, session)
    await performance.say("still here")
    lever = Lever()
    await performance.do(lever.call())
    performance.finish()
    assert (await first.verdict()).outcome is Outcome.COMPLETED
    await wait_all_tasks_blocked()

    assert lever.pulled == ["A"]
    assert len(daemon.puppet.performances) == 1
    assert not second.arrived.is_set()
    assert not daemon.sessions.around.sessions.child_tasks, "nobody conducts what does not run"
    await resume(client, session)
    (await daemon.puppet.next()).finish()
    assert (await second.verdict()).generation == 2


async def test_what_waits_starts_in_its_order_and_one_at_a_time(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await pause(client, session)
    replies = [client.prompt(session, text) for text in "abc"]

    await resume(client, session)

    for text, reply in zip("abc", replies, strict=True):
        performance = await daemon.puppet.next()
        await wait_all_tasks_blocked()
        assert performance.prompt.text == text
        assert [p for p in daemon.puppet.performances if not p.is_over] == [performance]
        performance.finish()
        await reply.verdict()


async def test_resume_in_mid_turn_starts_no_second_one(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    client.prompt(session, "waits")
    performance = await daemon.puppet.next()

    await pause(client, session)
    assert await resume(client, session) is State.RUNNING
    await wait_all_tasks_blocked()
    assert len(daemon.puppet.performances) == 1

    performance.finish()
    assert (await daemon.puppet.next()).prompt.text == "waits"


async def test_full_queue_of_a_paused_session_takes_no_more() -> None:
    async with open_daemon(prompt_queue=2) as daemon:
        client = await daemon.connect()
        session = await client.new()
        await pause(client, session)
        replies = [client.prompt(session, text) for text in "ab"]
        await wait_all_tasks_blocked()

        with pytest.raises(QueueFull):
            await client.prompt(session, "c").result()

        assert not any(reply.arrived.is_set() for reply in replies)


async def test_prompt_that_does_not_want_to_wait_is_refused_as_paused(client: Client) -> None:
    session = await client.new()
    await pause(client, session)

    with pytest.raises(SessionState) as refused:
        await client.prompt(session, onBusy="refuse").result()

    assert (refused.value.code, refused.value.kind) == (-31005, "session_state")


async def test_prompt_that_supersedes_ends_what_waits_and_waits_itself(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    performance = await daemon.puppet.next()
    await pause(client, session)
    old = client.prompt(session, "old")

    new = client.prompt(session, "new", onBusy="supersede")

    assert (await old.verdict()).cause is Cause.SUPERSEDED
    await wait_all_tasks_blocked()
    assert performance.was_cancelled
    assert len(daemon.puppet.performances) == 1
    await resume(client, session)
    assert (await daemon.puppet.next()).prompt.text == "new"
    assert not new.arrived.is_set()


# ---- what it does not


async def test_turns_of_a_paused_session_are_cancelled_and_withdrawn_at_once(
    client: Client, daemon: Daemon
) -> None:
    session = await client.new()
    await pause(client, session)
    replies = [client.prompt(session, text) for text in "abc"]
    await wait_all_tasks_blocked()

    assert await client.withdraw(session, 2)
    assert (await client.cancel(session, generation=3)).outcome is CancelOutcome.FIRED
    assert (await client.cancel(session, scope="queued")).outcome is CancelOutcome.FIRED

    for reply in replies:
        assert (await reply.verdict()).cause is Cause.CLIENT_RPC
    assert await resume(client, session) is State.IDLE
    assert not daemon.puppet.performances


async def test_kill_of_a_paused_session_is_immediate_and_final(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await pause(client, session)
    reply = client.prompt(session)
    await wait_all_tasks_blocked()

    killed = await client.kill(session)

    assert (killed.killed, killed.turns, killed.durable) == (True, [1], True)
    assert (await reply.verdict()).cause is Cause.ADMIN_KILL
    for start in (start_pause, start_resume):
        with pytest.raises(NotFound):
            await start(client, session).result()


async def test_close_of_a_paused_session_ends_what_waits_and_keeps_it_paused(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await pause(client, session)
    reply = client.prompt(session, "first")
    await wait_all_tasks_blocked()

    await client.close(session)

    assert (await reply.verdict()).cause is Cause.SESSION_REMOVED
    assert session in daemon.sessions.parked
    row = next(daemon.sessions.rows(lambda head: head.id == session))
    assert row.state is State.PAUSED
    later = client.prompt(session, "second")
    await wait_all_tasks_blocked()
    assert not daemon.puppet.performances
    await resume(client, session)
    (await daemon.puppet.next()).finish()
    await later.verdict()


async def test_paused_session_can_be_deleted(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await pause(client, session)
    reply = client.prompt(session)
    await wait_all_tasks_blocked()

    await client.delete(session)

    assert (await reply.verdict()).cause is Cause.SESSION_REMOVED
    assert await daemon.log(session) == []


# ---- twice, and where it does not fit


async def test_pause_and_resume_twice_answer_the_same_and_record_it_once(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()

    assert await resume(client, session) is State.IDLE
    assert [await pause(client, session) for _ in range(2)] == 2 * [State.PAUSED]
    assert [await resume(client, session) for _ in range(2)] == 2 * [State.IDLE]

    log = await daemon.log(session)
    assert [b'"paused"' in entry.body for entry in log] == [False, True, False]


async def test_second_pause_is_not_answered_before_the_first_one_is_durable(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    other = await daemon.connect()
    daemon.store.hold()
    first = start_pause(client, session)
    await wait_all_tasks_blocked()

    second = start_pause(other, session)
    await wait_all_tasks_blocked()
    assert not second.arrived.is_set()

    daemon.store.release()
    assert (await first.result(), await second.result()) == 2 * (PauseResult(State.PAUSED),)


@pytest.mark.parametrize("start", [start_pause, start_resume])
async def test_session_that_is_not_there_or_is_anothers_cannot_be_paused(
    daemon: Daemon, client: Client, start: Callable[[Client, str], Reply[PauseResult]]
) -> None:
    other = await daemon.connect(SOMEBODY)
    session = await client.new()

    answers: list[Json] = []
    for wanted in (session, "a" * 26):
        reply = start(other, wanted)
        with pytest.raises(NotFound):
            await reply.result()
        answers.append(other.messages[-1]["error"])

    assert answers[0] == answers[1]


async def test_observers_pause_nothing_and_operators_everything(
    daemon: Daemon, client: Client
) -> None:
    theirs = await daemon.connect(SOMEBODY)
    session = await theirs.new()
    watcher = await daemon.connect(WATCHER)
    mine = await client.new()

    assert await pause(client, session) is State.PAUSED
    assert await resume(client, session) is State.IDLE
    for start in (start_pause, start_resume):
        with pytest.raises(NotPermitted):
            await start(watcher, mine).result()
    await theirs.detach(session)
    await theirs.attach(session, access="observer")
    with pytest.raises(NotPermitted):
        await pause(theirs, session)


async def test_session_whose_log_failed_cannot_be_paused(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    daemon.store.break_next(times=2)
    with pytest.raises(StorageError):
        await client.prompt(session).result()

    for start in (start_pause, start_resume):
        with pytest.raises(SessionState) as refused:
            await start(client, session).result()
        assert refused.value.code == -31005


async def test_pause_that_was_not_written_is_not_acknowledged(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    daemon.store.fill()
    await wait_all_tasks_blocked()

    with pytest.raises(StorageError):
        await pause(client, session)

    daemon.store.make_room()


# ---- what is told


async def test_state_is_told_wherever_a_session_is(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    client.prompt(session, "waits")
    performance = await daemon.puppet.next()
    other = await daemon.connect()

    await pause(client, session)

    snapshot = await other.attach(session)
    assert snapshot.state is State.PAUSED
    assert (snapshot.turn and snapshot.turn.generation, len(snapshot.queue)) == (1, 1)
    [row] = (await client.live()).sessions
    assert (row.state, row.started_at is not None, row.queued) == (State.PAUSED, True, 1)
    told = client.of_kind("state")[-1]
    assert (told["state"], told["by"]) == ("paused", client.tui)
    performance.finish()
    await client.until(lambda: 1 in client.verdicts(session))
    assert (await other.attach(session)).state is State.PAUSED
    assert await resume(client, session) is State.RUNNING
    assert (await other.attach(session)).state is State.RUNNING


async def test_question_of_the_last_turn_is_still_put_and_answered(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    done = performance.begin(lambda stage: stage.ask("may I?"))
    question = await client.question()

    await pause(client, session)
    other = await daemon.connect()
    assert len((await other.attach(session)).pending_permissions) == 1
    assert await resume(client, session) is State.REQUIRES_ACTION
    await pause(client, session)
    client.choose(question)

    await done.wait()


async def test_resume_that_was_answered_is_told_behind_its_entry(client: Client) -> None:
    session = await client.new()
    await pause(client, session)

    reply = start_resume(client, session)
    await reply.result()

    told = [m for m in client.messages[: reply.place] if m.get("method", "").endswith("/entry")]
    assert (told[-1]["params"]["kind"], told[-1]["params"]["state"]) == ("state", "active")


async def test_the_methods_are_advertised(daemon: Daemon) -> None:
    client = daemon.dial()
    await client.initialize({})

    told = client.messages[0]["result"]
    for methods in (
        told["_meta"]["moorage"]["methods"],
        told["agentCapabilities"]["_meta"]["moorage"]["methods"],
    ):
        assert {"_moorage/session/pause", "_moorage/session/resume"} <= {*methods}


# ---- restarts


async def test_paused_session_is_paused_after_a_restart_and_what_waited_has_its_verdict(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    await daemon.puppet.next()
    await pause(client, session)
    client.prompt(session, "waits")
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as again:
        after = await again.connect()
        verdicts = [turn.verdict for turn in await after.turns(session)]
        assert [v and v.cause for v in verdicts] == 2 * [Cause.DAEMON_RESTART]
        assert (await after.attach(session)).state is State.PAUSED
        reply = after.prompt(session, "new")
        await wait_all_tasks_blocked()
        assert not again.puppet.performances
        assert await resume(after, session) is State.RUNNING
        (await again.puppet.next()).finish()
        assert (await reply.verdict()).generation == 3


async def test_daemon_that_stops_ends_what_waits_in_a_paused_session() -> None:
    async with open_daemon() as daemon:
        client = await daemon.connect()
        session = await client.new()
        await pause(client, session)
        client.prompt(session)
        await wait_all_tasks_blocked()
        store = daemon.store

    async with open_daemon(store) as again:
        after = await again.connect()
        [turn] = await after.turns(session)
        assert turn.verdict is not None
        assert turn.verdict.cause is Cause.SHUTDOWN
        head = again.sessions.head(session)
        assert head is not None
        assert head.life is Life.PAUSED


async def test_crash_before_the_pause_is_durable_leaves_the_session_as_it_was(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    daemon.store.hold()
    reply = start_pause(client, session)
    await wait_all_tasks_blocked()
    image = await daemon.image()
    assert not reply.arrived.is_set()
    daemon.store.release()

    assert (await reply.result()).state is State.PAUSED
    async with open_daemon(image) as again:
        head = again.sessions.head(session)
        assert head is not None
        assert head.life is Life.ACTIVE


async def test_session_that_nobody_uses_is_at_rest_also_when_paused_but_not_if_a_prompt_waits(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await pause(client, session)
    await client.detach(session)
    await wait_all_tasks_blocked()
    assert [stored.head.id for stored in daemon.sessions.at_rest()] == [session]

    other = await daemon.connect()
    other.prompt(session)
    await wait_all_tasks_blocked()
    await other.detach(session)
    await wait_all_tasks_blocked()

    assert daemon.sessions.at_rest() == []


# ---- races: what came first counts


async def test_prompt_ahead_of_a_pause_in_one_packet_runs(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    prompt, _ = client.prompt_frame(session, "first")
    params = {"sessionId": session}
    held, pausing = client.frame("_moorage/session/pause", params, PauseResult)

    client.post(prompt, held)
    await pausing.result()
    await wait_all_tasks_blocked()

    assert [p.prompt.text for p in daemon.puppet.performances] == ["first"]


async def test_prompt_behind_a_pause_in_one_packet_does_not(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    prompt, _ = client.prompt_frame(session, "first")
    params = {"sessionId": session}
    held, pausing = client.frame("_moorage/session/pause", params, PauseResult)

    client.post(held, prompt)
    await pausing.result()
    await wait_all_tasks_blocked()

    assert not daemon.puppet.performances


@pytest.mark.parametrize("method", ["_moorage/session/pause", "_moorage/session/resume"])
async def test_kill_in_one_packet_with_it_wins_whichever_comes_first(
    daemon: Daemon, client: Client, method: str
) -> None:
    for kill_is_first in (True, False):
        session = await client.new()
        await pause(client, session)
        waiting = client.prompt(session)
        await wait_all_tasks_blocked()
        params = {"sessionId": session}
        held, holding = client.frame(method, params, PauseResult)
        end, killing = client.frame("session/kill", params, KillResult)

        client.post(*((end, held) if kill_is_first else (held, end)))

        assert (await killing.result()).killed
        assert (await waiting.verdict()).cause is Cause.ADMIN_KILL
        if kill_is_first:
            with pytest.raises(NotFound):
                await holding.result()
        head = daemon.sessions.head(session)
        assert head is not None
        assert head.life is Life.KILLED
        assert not daemon.puppet.performances or daemon.puppet.performances[-1].was_cancelled


async def test_close_in_one_packet_behind_a_resume_lets_nothing_run_on(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await pause(client, session)
    replies = [client.prompt(session, text) for text in "ab"]
    await wait_all_tasks_blocked()
    params = {"sessionId": session}
    on, going = client.frame("_moorage/session/resume", params, PauseResult)
    end, closing = client.frame("session/close", params, Empty)

    client.post(on, end)
    await closing.result()

    assert (await going.result()).state is State.RUNNING
    causes = [(await reply.verdict()).cause for reply in replies]
    assert causes == 2 * [Cause.SESSION_REMOVED]
    assert not daemon.puppet.performances
    assert session in daemon.sessions.parked


async def test_resume_between_a_verdict_and_its_durability_starts_one_turn(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    client.prompt(session, "waits")
    performance = await daemon.puppet.next()
    await pause(client, session)
    daemon.store.hold()
    performance.finish()
    await wait_all_tasks_blocked()

    reply = start_resume(client, session)
    await wait_all_tasks_blocked()
    assert len(daemon.puppet.performances) == 1
    daemon.store.release()

    assert (await reply.result()).state is State.RUNNING
    assert (await daemon.puppet.next()).prompt.text == "waits"
    await wait_all_tasks_blocked()
    assert len(daemon.sessions.around.sessions.child_tasks) == 1


async def test_pause_between_a_verdict_and_its_durability_holds_the_next_turn(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    client.prompt(session, "waits")
    performance = await daemon.puppet.next()
    daemon.store.hold()
    performance.finish()
    await wait_all_tasks_blocked()

    reply = start_pause(client, session)
    daemon.store.release()
    await reply.result()
    await wait_all_tasks_blocked()

    assert len(daemon.puppet.performances) == 1


async def test_session_that_is_being_closed_is_neither_paused_nor_resumed(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    performance.dig_in()
    closing = client.start_close(session)
    await wait_all_tasks_blocked()

    for start in (start_pause, start_resume):
        with pytest.raises(SessionState):
            await start(client, session).result()

    with trio.fail_after(GRACE * 2):
        await closing.result()


# ---- the grants that were made for it


async def test_grant_of_a_paused_session_is_of_no_use_to_others_until_it_goes_on(
    daemon: Daemon, client: Client
) -> None:
    session, grant = await standing(daemon, client, tools=["read_file"])
    await pause(client, session)

    with pytest.raises(GrantRefused) as refused:
        await use(client, grant, agent="puppet")
    assert (refused.value.message, refused.value.kind) == ("session paused", "paused")
    assert refused.value.retryable
    assert (await ask(client, "get", grantId=grant))["paused"] is True
    with pytest.raises(GrantRefused) as wrong:
        await use(client, grant, agent="another")
    assert wrong.value.kind == "not_found", "whose it is comes first"

    await resume(client, session)
    await use(client, grant, agent="puppet")
    assert (await ask(client, "get", grantId=grant))["paused"] is False
    assert (await ask(client, "get", grantId=grant))["used"] | {"seconds": 0} == {
        "calls": 1,
        "tokens": 0,
        "micros": 0,
        "seconds": 0,
        "refused": 2,
    }


async def test_turn_of_a_paused_session_goes_on_within_its_grant(
    daemon: Daemon, client: Client
) -> None:
    """Also where the call was decided before and starts behind the pause."""
    session, grant = await standing(daemon, client, tools=None, budget={"calls": 2})
    lever, asking = Lever(), Lever(asks=True)
    pull = await turn(daemon, client, session)
    pull.start(asking)
    question = await client.question()

    await pause(client, session)
    client.choose(question)
    await pull.call(lever)
    verdict = await pull.end()

    assert (verdict.outcome, pull.refusals) == (Outcome.COMPLETED, [])
    assert (lever.pulled, asking.pulled) == (["A"], ["A"])
    assert (await ask(client, "get", grantId=grant))["used"]["calls"] == 2


async def test_prompts_of_a_paused_session_with_a_grant_wait_like_any_other(
    daemon: Daemon, client: Client
) -> None:
    session, _ = await standing(daemon, client, tools=None)
    await pause(client, session)
    reply = client.prompt(session)
    await wait_all_tasks_blocked()
    assert not reply.arrived.is_set()

    await resume(client, session)

    (await daemon.puppet.next()).finish()
    await reply.verdict()


async def test_session_on_the_grant_of_a_paused_one_is_refused_in_its_words(
    daemon: Daemon, client: Client
) -> None:
    owner, grant = await standing(daemon, client, tools=None)
    other = await client.new(grant={"grantId": grant})
    lever = Lever()
    pull = await turn(daemon, client, other)

    await pause(client, owner)
    await pull.call(lever)
    assert pull.refusals == ["session paused"]
    with pytest.raises(GrantRefused) as prompted:
        await client.prompt(other).result()
    assert prompted.value.kind == "paused"
    with pytest.raises(GrantRefused):
        await client.new(grant={"grantId": grant})

    await resume(client, owner)
    await pull.call(lever)
    assert lever.pulled == ["A"]
    await pull.end()


async def test_grant_that_was_made_for_no_session_is_used_on(
    daemon: Daemon, client: Client
) -> None:
    grant = await create(client, agent="puppet")
    session = await client.new(grant={"grantId": grant})

    await pause(client, session)

    await use(client, grant, agent="puppet")


async def test_what_a_paused_session_delegated_goes_on(daemon: Daemon, client: Client) -> None:
    session, grant = await standing(daemon, client, tools=["read_file"])
    child = await create(client, agent="helper", tools=["read_file"], parent=grant)

    await pause(client, session)

    await use(client, child, agent="helper")


async def test_grant_of_a_paused_session_is_raised_and_closed_and_not_delegated(
    daemon: Daemon, client: Client
) -> None:
    """Pause, look, give more, go on; but a way around the pause is none of it."""
    session, grant = await standing(daemon, client, tools=["read_file"], budget={"calls": 1})
    await pause(client, session)

    with pytest.raises(GrantRefused) as refused:
        await create(client, agent="helper", tools=["read_file"], parent=grant)
    assert refused.value.kind == "paused"
    raised = await ask(client, "raise", grantId=grant, budget={"calls": 9})
    assert (raised["revision"], raised["remaining"]["calls"]) == (2, 9)

    await resume(client, session)
    await use(client, grant, agent="puppet")
    await pause(client, session)
    assert (await ask(client, "close", grantId=grant))["summary"]["calls"] == 1


async def test_grant_made_for_a_paused_session_is_paused_from_the_start(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await pause(client, session)

    grant = await create(client, sessionId=session)

    with pytest.raises(GrantRefused) as refused:
        await use(client, grant)
    assert refused.value.kind == "paused"
    await resume(client, session)
    await use(client, grant)


async def test_grant_of_a_paused_session_is_paused_after_a_restart(
    daemon: Daemon, client: Client
) -> None:
    session, grant = await standing(daemon, client, tools=["read_file"])
    await pause(client, session)

    async with open_daemon(await daemon.image()) as again:
        after = await again.connect()
        with pytest.raises(GrantRefused) as refused:
            await use(after, grant, agent="puppet")
        assert refused.value.kind == "paused"
        await resume(after, session)
        await use(after, grant, agent="puppet")


async def test_queue_of_a_paused_session_ends_with_its_grant(
    daemon: Daemon, client: Client
) -> None:
    session, grant = await standing(daemon, client, tools=None)
    await pause(client, session)
    reply = client.prompt(session)
    await wait_all_tasks_blocked()

    await ask(client, "close", grantId=grant)

    assert (await reply.verdict()).cause is Cause.SESSION_REMOVED


# ---- files


async def test_session_that_was_paused_comes_out_of_a_file_paused(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await pause(client, session)

    copy = (await imported(client, await exported(client, session))).session_id

    assert (await client.attach(copy)).state is State.PAUSED
    assert await resume(client, copy) is State.IDLE
