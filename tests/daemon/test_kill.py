"""Ending sessions: kill, which always wins and is final, close, which puts away, and delete."""

import pytest
import trio
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import Stage, StageClosed
from moorage_daemon.handlers.starting import MAX_OPEN_REQUESTS
from moorage_daemon.log.kills import LONGEST_PAUSE
from moorage_daemon.settings import ClosePolicy
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Entry, Kind, Life
from moorage_daemon.store.port import Change
from moorage_daemon.tools.port import Bench, NotBegun, Report
from moorage_protocol import jsonrpc
from moorage_protocol.acp import Empty
from moorage_protocol.errors import (
    MethodNotFound,
    NotFound,
    Overloaded,
    RpcError,
    SessionState,
    StorageError,
)
from moorage_protocol.moorage import Cause, KillResult, Outcome, RespondOutcome, State
from tests.daemon.harness import GRACE, Daemon, open_daemon, simulated
from tests.daemon.puppet import Act, Lever, LeverArguments, saying
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.twin import Client, prompt_params


pytestmark = pytest.mark.trio(run=simulated)


def detached(client: Client, session: str) -> list[str]:
    """Why the client was told that a session is over for it."""
    return [
        message["params"]["reason"]
        for message in client.messages
        if message.get("method") == "_moorage/session/detached"
        and message["params"]["sessionId"] == session
    ]


async def told_of_the_end(client: Client, session: str) -> None:
    """Wait for that word."""
    await client.until(lambda: bool(detached(client, session)))


# ---- kill


async def test_a_kill_says_what_it_hit_and_is_on_record(daemon: Daemon, client: Client) -> None:
    operator = await daemon.connect()
    session = await client.new()
    client.prompt(session, "one")
    client.prompt(session, "two")
    (await daemon.puppet.next()).begin(Lever(holds=True).call())
    await wait_all_tasks_blocked()

    result = await operator.kill(session, "it drifts")

    assert result == KillResult(
        killed=True, cause=Cause.ADMIN_KILL, turns=[1, 2], processes=1, durable=True
    )
    states = [entry for entry in await operator.entries(session) if entry["kind"] == "state"]
    assert (states[-1]["state"], states[-1]["by"], states[-1]["reason"]) == (
        "killed",
        operator.tui,
        "it drifts",
    )


async def test_a_kill_is_idempotent(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await client.kill(session)
    before = await daemon.log(session)

    again = await client.kill(session)

    assert not again.killed
    assert await daemon.log(session) == before


async def test_behaviour_7_a_kill_ends_the_running_and_all_waiting_turns(
    daemon: Daemon, client: Client
) -> None:
    """Four ends, all told, all `admin_kill`, also to who only watches; nothing runs afterwards."""
    watcher = await daemon.connect()
    session = await client.new()
    await watcher.attach(session, access="observer")
    replies = [client.prompt(session, text) for text in "abcd"]
    performance = await daemon.puppet.next()
    performance.begin(saying("still talking"))
    await wait_all_tasks_blocked()

    await client.kill(session)

    for reply in replies:
        told = await reply.verdict()
        assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.ADMIN_KILL)
    for seer in (client, watcher):
        await told_of_the_end(seer, session)
        assert sorted(seer.verdicts(session)) == [1, 2, 3, 4]
        assert detached(seer, session) == ["killed"]
        assert seer.seqs(session)[-1] == len(await daemon.log(session))
    await wait_all_tasks_blocked()
    assert len(daemon.puppet.performances) == 1


async def test_all_ends_are_told_also_when_the_agent_takes_its_time(
    daemon: Daemon, client: Client
) -> None:
    """The verdicts of waiting turns come first; readers still get that of the running one."""
    session = await client.new()
    replies = [client.prompt(session, text) for text in "abcd"]
    (await daemon.puppet.next()).dig_in()
    await wait_all_tasks_blocked()

    result = await client.kill(session)

    assert result.durable
    assert [(await reply.verdict()).generation for reply in replies] == [1, 2, 3, 4]
    assert sorted(client.verdicts(session)) == [1, 2, 3, 4]
    assert client.verdicts(session)[1]["forced"]
    assert detached(client, session) == ["killed"]
    answer = replies[0].place
    verdict = next(
        place
        for place, message in enumerate(client.messages)
        if message.get("params", {}).get("kind") == "verdict"
        and message["params"]["generation"] == 1
    )
    assert verdict < answer, "all updates of a turn precede its answer"


async def test_a_killed_session_accepts_nothing_from_its_agent_from_that_tick_on(
    daemon: Daemon, client: Client
) -> None:
    lever = Lever()
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    performance.dig_in()
    await wait_all_tasks_blocked()
    live = daemon.session(session)

    daemon.sessions.kill(live, "tui", None)

    at_kill = live.log.seq
    acts: list[Act] = [saying("more"), lambda stage: stage.ask("may I?"), lever.call()]
    for act in acts:
        with pytest.raises(StageClosed):
            await act(performance.stage)
    assert live.log.seq == at_kill
    performance.released.set()
    await wait_all_tasks_blocked()
    assert [entry.kind for entry in (await daemon.log(session))[at_kill:]] == ["verdict"]
    assert lever.pulled == []


async def test_a_tool_does_not_start_after_a_kill_even_when_its_intent_was_durable(
    daemon: Daemon, client: Client
) -> None:
    """The kill comes between the commit of the intent and the task that waits for it."""
    lever = Lever()
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    live = daemon.session(session)
    daemon.store.hold()
    performance.begin(lever.call())
    await wait_all_tasks_blocked()

    def kill(_: object) -> None:
        daemon.sessions.kill(live, "tui", None)

    live.log.when_durable(live.log.seq, kill)

    daemon.store.release()
    await told_of_the_end(client, session)

    kinds = [entry.kind for entry in await daemon.log(session)]
    assert kinds.index("intent") < len(kinds) - 1 - kinds[::-1].index("state")
    assert lever.pulled == []
    results = [p for p in client.of_session(session) if p.get("kind") == "result"]
    assert [result["status"] for result in results] == ["cancelled"]


async def test_a_tool_start_reads_the_state_again(daemon: Daemon, client: Client) -> None:
    """The state alone decides, whatever else of a kill has been done by then."""
    lever = Lever()
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    live = daemon.session(session)

    live.record.head = replace(live.head, life=Life.KILLED)
    performance.begin(lever.call())
    await wait_all_tasks_blocked()

    assert performance.is_over
    assert lever.pulled == []


async def test_a_kill_needs_neither_the_agent_nor_the_disk(daemon: Daemon, client: Client) -> None:
    """In memory it holds at once; the answer comes after the grace and says `durable: false`."""
    lever = Lever(holds=True)
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    performance.begin(lever.call())
    await wait_all_tasks_blocked()
    daemon.store.hold()
    start = trio.current_time()

    killing = client.start_kill(session)
    await wait_all_tasks_blocked()

    assert lever.cranks[0].kills == 1
    assert performance.was_cancelled
    with pytest.raises(NotFound):
        await client.prompt(session).result()
    result = await killing.result()
    assert (result.killed, result.durable) == (True, False)
    assert GRACE <= trio.current_time() - start <= GRACE + 1
    daemon.store.release()
    await wait_all_tasks_blocked()
    assert (await daemon.log(session))[-1].kind == "verdict"
    assert (await client.status()).sessions.live == 0


async def test_a_kill_of_the_killer_s_connection_changes_nothing(
    daemon: Daemon, client: Client
) -> None:
    """Who asked may go: the session is killed, recorded, and put away all the same."""
    operator = await daemon.connect()
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    performance.dig_in()
    await wait_all_tasks_blocked()

    operator.start_kill(session)
    await wait_all_tasks_blocked()
    operator.leave()
    await trio.sleep(GRACE + 1)

    assert (await client.status()).sessions.live == 0
    [turn] = await client.turns(session)
    assert turn.verdict is not None
    assert turn.verdict.cause is Cause.ADMIN_KILL


class Stubborn(Lever):
    """A lever that hears no cancellation, and says in the end that it was never pulled."""

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        with trio.CancelScope(shield=True):
            await self.release.wait()
        raise NotBegun("It was stuck.")


async def test_tool_that_says_after_the_verdict_that_it_never_began_changes_nothing(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    lever = Stubborn(holds=True)
    performance.begin(lever.call())
    await wait_all_tasks_blocked()
    client.start_cancel(session)
    await trio.sleep(GRACE + 1)
    entries = await client.entries(session)

    lever.release.set()
    await wait_all_tasks_blocked()

    assert performance.is_over
    assert entries[-1]["kind"] == "verdict"
    assert await client.entries(session) == entries


async def test_a_kill_that_is_given_up_on_has_killed(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).dig_in()
    await wait_all_tasks_blocked()
    killing = client.start_kill(session)

    client.notify("$/cancel_request", {"requestId": killing.id})

    with pytest.raises(RpcError) as caught:
        await killing.result()
    assert caught.value.code == -32800
    await trio.sleep(GRACE + 1)
    assert (await client.status()).sessions.live == 0
    assert not (await client.kill(session)).killed


async def test_behaviour_5_a_kill_that_races_a_natural_end_leaves_one_verdict(
    daemon: Daemon, client: Client
) -> None:
    """Whichever comes first: the kill is in the verdict, or the turn was complete before it."""
    for kill_first in (True, False):
        session = await client.new()
        reply = client.prompt(session)
        performance = await daemon.puppet.next()

        if kill_first:
            killing = client.start_kill(session)
            performance.finish()
        else:
            performance.finish()
            killing = client.start_kill(session)

        told = await reply.verdict()
        assert (await killing.result()).killed
        await told_of_the_end(client, session)
        assert client.kinds(session).count("verdict") == 1
        assert (told.cause is Cause.ADMIN_KILL) == (told.outcome is Outcome.CANCELLED)
        [turn] = await client.turns(session)
        assert turn.verdict is not None
        assert turn.verdict.cause == told.cause


async def test_a_kill_while_the_verdict_is_written_changes_no_verdict(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()
    performance.finish()
    await wait_all_tasks_blocked()

    killing = client.start_kill(session)
    await wait_all_tasks_blocked()
    daemon.store.release()

    assert (await killing.result()).turns == []
    assert (await reply.verdict()).outcome is Outcome.COMPLETED
    await told_of_the_end(client, session)
    assert [entry.kind for entry in await daemon.log(session)][-2:] == ["verdict", "state"]


async def test_a_kill_counts_only_the_turns_it_hit(daemon: Daemon, client: Client) -> None:
    """One was cancelled before, and its verdict is on its way to the disk."""
    session = await client.new()
    client.prompt(session)
    await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()
    await client.cancel(session)
    await wait_all_tasks_blocked()

    killing = client.start_kill(session)
    await wait_all_tasks_blocked()
    daemon.store.release()

    assert (await killing.result()).turns == []


async def test_behaviour_27_a_kill_beats_the_prompt_and_the_load_of_a_parked_session(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await client.close(session)
    assert daemon.sessions.parked.keys() == {session}
    load, loaded = client.frame(
        "session/load", {"sessionId": session, "cwd": "/work", "mcpServers": []}, dict[str, object]
    )
    prompt, prompted = client.prompt_frame(session)
    kill, killed = client.frame("session/kill", {"sessionId": session}, KillResult)

    client.post(load, prompt, kill)

    assert (await killed.result()).turns == [1]
    assert (await prompted.verdict()).cause is Cause.ADMIN_KILL
    await loaded.result()
    assert not daemon.puppet.performances
    assert (await client.status()).sessions.live == 0
    with pytest.raises(NotFound):
        await client.load(session)


async def test_a_killed_session_is_not_found_by_any_verb_and_can_be_read(
    daemon: Daemon, client: Client
) -> None:
    """Its log, its turns and its removal are all that is left of it, before and after a restart;
    reading brings nothing of it back."""
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await performance.say("famous last words")
    await client.kill(session)
    await reply.result()

    async with open_daemon(await daemon.image()) as restarted:
        for host in (daemon, restarted):
            reader = await host.connect()
            for refused in (
                reader.prompt(session).result,
                lambda reader=reader: reader.load(session),
                lambda reader=reader: reader.resume(session),
                lambda reader=reader: reader.attach(session),
                lambda reader=reader: reader.cancel(session),
                lambda reader=reader: reader.close(session),
                lambda reader=reader: reader.configure(session, model="m"),
                lambda reader=reader: reader.withdraw(session, 1),
                lambda reader=reader: reader.respond(session, "call-1-1"),
            ):
                with pytest.raises(NotFound):
                    await refused()
            assert not (await reader.kill(session)).killed
            kinds = [entry["kind"] for entry in await reader.entries(session)]
            assert kinds == ["state", "prompt", "message", "begin", "message", "state", "verdict"]
            assert len(await reader.turns(session)) == 1
            assert (await reader.status()).sessions.live == 0
            assert await reader.listed() == [session]
            assert await (await host.connect(plain=True)).listed() == []
        await reader.delete(session)
        assert await reader.listed() == []
        with pytest.raises(NotFound):
            await reader.entries(session)
        assert await restarted.store.list() == []


async def test_an_open_question_of_a_killed_session_is_over(daemon: Daemon, client: Client) -> None:
    lever = Lever(asks=True)
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).begin(lever.call())
    question = await client.question()
    live = daemon.session(session)

    await client.kill(session)
    client.choose(question)
    await wait_all_tasks_blocked()

    assert question.id in client.retracted
    assert live.asks.select(question.call, "allow", "tui") is RespondOutcome.EXPIRED
    assert lever.pulled == []
    answers = [p for p in client.of_session(session) if p.get("kind") == "answer"]
    assert [answer["outcome"] for answer in answers] == ["cancelled"]


async def test_a_question_is_over_at_the_kill_whatever_its_agent_does(
    daemon: Daemon, client: Client
) -> None:
    async def ask_and_ignore(stage: Stage) -> None:
        with trio.move_on_after(10 * GRACE, shield=True):
            await stage.ask("may I?")
            await performance.released.wait()

    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    performance.begin(ask_and_ignore)
    question = await client.question()

    client.start_kill(session)
    await wait_all_tasks_blocked()

    assert client.retracted == [question.id]
    assert not performance.is_over
    performance.released.set()


async def test_a_kill_of_one_session_is_nothing_to_another(daemon: Daemon, client: Client) -> None:
    doomed, other = await client.new(), await client.new()
    client.prompt(doomed)
    await daemon.puppet.next()
    reply = client.prompt(other)
    performance = await daemon.puppet.next()

    await client.kill(doomed)
    performance.finish()

    assert (await reply.verdict()).outcome is Outcome.COMPLETED


async def test_a_kill_is_answered_however_much_else_its_connection_waits_for(
    daemon: Daemon, client: Client
) -> None:
    busy, session = await client.new(), await client.new()
    client.prompt(busy)
    (await daemon.puppet.next()).dig_in()
    for _ in range(MAX_OPEN_REQUESTS):
        client.start_close(busy)
    with pytest.raises(Overloaded):
        await client.call("_moorage/store/health", {}, Empty)

    result = await client.kill(session)

    assert (result.killed, result.durable) == (True, True)


# ---- kill, where the session's log has failed


async def failed(daemon: Daemon, client: Client) -> str:
    """A session that cannot be written any more; its turn had begun."""
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.break_next(times=2)
    performance.begin(saying("lost"))
    with pytest.raises(StorageError):
        await reply.result()
    assert daemon.session(session).state is State.STORAGE_FAILED
    return session


async def is_killed_on_record(daemon: Daemon, session: str) -> bool:
    """Whether the next daemon finds it killed, its turn ended by that, and its log whole."""
    async with open_daemon(await daemon.image()) as restarted:
        log = await restarted.log(session)
        assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
        head = restarted.sessions.head(session)
        assert head is not None
        if head.life is not Life.KILLED:
            return False
        reader = await restarted.connect()
        with pytest.raises(NotFound):
            await reader.load(session)
        [turn] = await reader.turns(session)
        assert turn.verdict is not None
        assert turn.verdict.cause is Cause.ADMIN_KILL
        states = [entry for entry in await reader.entries(session) if entry["kind"] == "state"]
        assert states[-1]["reason"] == "it drifts"
        return True


async def test_a_kill_of_a_session_that_cannot_be_written_is_on_record_as_soon_as_the_store_works(
    daemon: Daemon, client: Client
) -> None:
    session = await failed(daemon, client)

    result = await client.kill(session, "it drifts")

    assert result.durable
    assert await is_killed_on_record(daemon, session)
    assert (await client.status()).sessions.live == 0
    assert [entry["kind"] for entry in await client.entries(session)][-2:] == ["state", "verdict"]
    assert not (await client.kill(session)).killed


async def test_a_kill_is_repeated_until_it_holds_however_long_the_store_is_broken(
    daemon: Daemon, client: Client
) -> None:
    """It holds in memory meanwhile, and whoever asked has an answer within the grace."""
    session = await failed(daemon, client)
    daemon.store.break_next(times=100)
    start = trio.current_time()

    result = await client.kill(session, "it drifts")

    assert (result.killed, result.durable) == (True, False)
    assert GRACE <= trio.current_time() - start <= GRACE + 1
    with pytest.raises(NotFound):
        await client.prompt(session).result()
    assert not await is_killed_on_record(daemon, session)
    await trio.sleep(100 * LONGEST_PAUSE)
    assert await is_killed_on_record(daemon, session)


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_kill_whose_own_record_is_lost_with_the_log_is_written_anew(
    daemon: Daemon, client: Client, is_written: bool
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.fail_reopen()
    daemon.store.break_next(written=is_written)

    result = await client.kill(session, "it drifts")

    assert result.durable
    with pytest.raises(StorageError):
        await reply.result()
    assert await is_killed_on_record(daemon, session)


async def test_a_kill_of_a_session_that_somebody_else_wrote_to_is_on_record(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    await daemon.puppet.next()
    await wait_all_tasks_blocked()
    tip = await daemon.store.tip(session)
    assert tip is not None
    stolen = Entry(tip + 1, 0.0, Kind.STATE, b'{"state":"active","by":"thief"}')
    await daemon.store.inner.commit([Change(session, (stolen,))])

    assert (await client.kill(session, "it drifts")).durable

    assert await is_killed_on_record(daemon, session)


async def test_a_daemon_that_stops_waits_the_grace_for_the_record_of_a_kill() -> None:
    store = FaultyStore(MemoryStore())
    async with open_daemon(store) as daemon:
        client = await daemon.connect()
        session = await failed(daemon, client)
        store.break_next(times=4)
        client.start_kill(session)
        await wait_all_tasks_blocked()

    stored = await store.load(session)
    assert stored is not None
    assert stored.head.life is Life.KILLED


async def test_a_killed_session_that_cannot_be_written_can_be_deleted(
    daemon: Daemon, client: Client
) -> None:
    session = await failed(daemon, client)
    daemon.store.break_next(times=8)
    await client.kill(session)

    await client.delete(session)
    await trio.sleep(10 * LONGEST_PAUSE)

    assert await daemon.store.list() == []
    assert (await client.status()).sessions.live == 0
    assert await client.listed() == []


# ---- close


async def test_behaviour_11_close_cancels_waits_for_the_verdict_and_serves_others_meanwhile(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    performance.dig_in()
    await wait_all_tasks_blocked()

    closing = client.start_close(session)
    await wait_all_tasks_blocked()

    assert (await client.status()).turns == 1
    assert not closing.arrived.is_set()
    performance.released.set()
    await closing.result()
    told = await reply.verdict()
    assert (told.outcome, told.cause) == (Outcome.CANCELLED, Cause.SESSION_REMOVED)
    assert reply.place < closing.place
    assert detached(client, session) == ["closed"]
    assert daemon.sessions.parked.keys() == {session}


async def test_close_is_bounded_by_the_grace(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).dig_in()
    await wait_all_tasks_blocked()
    start = trio.current_time()

    await client.close(session)

    assert trio.current_time() - start == pytest.approx(GRACE)


async def test_a_close_ends_waiting_turns_and_everybody_is_told_all_ends(
    daemon: Daemon, client: Client
) -> None:
    watcher = await daemon.connect()
    session = await client.new()
    await watcher.attach(session)
    replies = [client.prompt(session, text) for text in "abc"]
    (await daemon.puppet.next()).dig_in()
    await wait_all_tasks_blocked()

    await client.close(session)

    causes = [(await reply.verdict()).cause for reply in replies]
    assert causes == [Cause.SESSION_REMOVED] * 3
    assert sorted(watcher.verdicts(session)) == sorted(client.verdicts(session)) == [1, 2, 3]
    assert len(daemon.puppet.performances) == 1


@pytest.mark.parametrize("way", ["load", "resume", "prompt", "attach"])
async def test_a_closed_session_comes_back_on_use_as_it_was(
    daemon: Daemon, client: Client, way: str
) -> None:
    session = await client.new(overrides={"model": "m"}, labels={"a": "b"})
    reply = client.prompt(session, "before")
    (await daemon.puppet.next()).finish()
    await reply.result()
    head = daemon.session(session).head
    await client.close(session)
    other = await daemon.connect()

    if way == "prompt":
        other.prompt(session, "after")
    else:
        await getattr(other, way)(session)

    await wait_all_tasks_blocked()
    assert daemon.session(session).head.overrides == head.overrides
    assert daemon.session(session).head.cwd == "/work"
    if way != "prompt":
        other.prompt(session, "after")
    performance = await daemon.puppet.next()
    assert (performance.prompt.text, performance.stage.overrides.model) == ("after", "m")
    assert daemon.session(session).head.generation == 2


async def test_a_closed_session_is_loaded_with_all_of_its_history(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session, "before")
    performance = await daemon.puppet.next()
    await performance.say("answer")
    performance.finish()
    await reply.result()
    await client.close(session)
    other = await daemon.connect()

    await other.load(session)

    assert other.seqs(session) == list(range(1, len(await daemon.log(session)) + 1))
    assert other.text(session) == "answer"


async def test_a_close_whose_client_goes_away_is_finished_all_the_same(
    daemon: Daemon, client: Client
) -> None:
    closer = await daemon.connect()
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).dig_in()
    await wait_all_tasks_blocked()

    closer.start_close(session)
    await wait_all_tasks_blocked()
    closer.leave()
    await trio.sleep(GRACE + 1)

    reply = client.prompt(session, "again")
    (await daemon.puppet.next()).finish()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED


@pytest.mark.parametrize("ending", ["session/close", "session/delete"])
async def test_who_attaches_in_the_last_moment_is_told_that_it_is_over(
    daemon: Daemon, client: Client, ending: str
) -> None:
    """All turns have ended, and the last entry is on its way to the disk."""
    other = await daemon.connect()
    session = await client.new()
    daemon.store.hold()
    patch = {"sessionId": session, "overrides": {"model": "m"}}
    client.start("session/configure", patch, dict[str, object])
    done = client.start(ending, {"sessionId": session}, dict[str, object])
    await wait_all_tasks_blocked()
    await other.attach(session)

    daemon.store.release()
    await done.result()
    await told_of_the_end(other, session)

    assert detached(other, session) == ["closed"]
    if ending == "session/close":
        reply = other.prompt(session)
        (await daemon.puppet.next()).finish()
        assert (await reply.verdict()).outcome is Outcome.COMPLETED


async def test_frames_behind_a_close_find_the_session_closing(
    daemon: Daemon, client: Client
) -> None:
    """In the order of the wire: no prompt slips in between a close and what it does."""
    session = await client.new()
    close, closed = client.frame("session/close", {"sessionId": session}, dict[str, object])
    prompt, prompted = client.prompt_frame(session)

    client.post(close, prompt)

    await closed.result()
    with pytest.raises(SessionState):
        await prompted.result()
    assert not daemon.puppet.performances


async def test_close_is_not_offered_to_plain_clients_unless_the_settings_say_so() -> None:
    for policy, is_served in ((ClosePolicy.DETACH, False), (ClosePolicy.CLOSE, True)):
        async with open_daemon(close_policy=policy) as daemon:
            plain = await daemon.connect(plain=True)
            session = await plain.new()
            capabilities = plain.messages[0]["result"]["agentCapabilities"]["sessionCapabilities"]
            assert ("close" in capabilities) is is_served

            if is_served:
                await plain.close(session)
            else:
                with pytest.raises(MethodNotFound):
                    await plain.close(session)
                assert daemon.session(session).state is State.IDLE


# ---- delete


async def test_a_deleted_session_leaves_nothing(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()

    await client.delete(session)

    assert performance.was_cancelled
    assert (await reply.verdict()).cause is Cause.SESSION_REMOVED
    assert await daemon.store.list() == []
    assert not daemon.sessions.live
    assert not daemon.sessions.parked
    assert await client.listed() == []
    for refused in (client.load, client.attach, client.entries, client.turns):
        with pytest.raises(NotFound):
            await refused(session)
    await client.delete(session)


async def test_a_delete_whose_client_goes_away_is_finished_all_the_same(
    daemon: Daemon, client: Client
) -> None:
    remover = await daemon.connect()
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).dig_in()
    await wait_all_tasks_blocked()

    remover.start("session/delete", {"sessionId": session}, dict[str, object])
    await wait_all_tasks_blocked()
    remover.leave()
    await trio.sleep(GRACE + 1)

    assert await daemon.store.list() == []
    assert daemon.sessions.live == {}


async def test_nothing_is_written_to_a_session_that_is_being_deleted(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    delete, deleted = client.frame("session/delete", {"sessionId": session}, dict[str, object])
    configure, configured = client.frame(
        "session/configure", {"sessionId": session, "overrides": {}}, dict[str, object]
    )

    client.post(delete, configure)

    await deleted.result()
    with pytest.raises(RpcError):
        await configured.result()
    await wait_all_tasks_blocked()
    assert await daemon.store.list() == []


async def test_a_prompt_behind_a_delete_is_refused(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    delete, deleted = client.frame("session/delete", {"sessionId": session}, dict[str, object])
    prompt = jsonrpc.encode_request(99, "session/prompt", prompt_params(session))

    client.post(delete, prompt.replace(b'"id":99', b'"id":null'))

    await deleted.result()
    await wait_all_tasks_blocked()
    assert not daemon.puppet.performances


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("session/kill", {}),
        ("session/set_title", {"title": "t"}),
        ("session/configure", {"overrides": {"model": "m"}}),
    ],
)
async def test_nothing_is_written_behind_a_session_that_is_leaving_the_store(
    daemon: Daemon,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    method: str,
    params: dict[str, object],
) -> None:
    session = await client.new()
    daemon.store.hold()
    deleted = client.start("session/delete", {"sessionId": session}, dict[str, object])
    await wait_all_tasks_blocked()

    late = client.start(method, {"sessionId": session, **params}, dict[str, object])
    await wait_all_tasks_blocked()
    daemon.store.release()
    await deleted.result()
    await wait_all_tasks_blocked()

    if method == "session/kill":
        assert (await late.result())["killed"] is False
    else:
        with pytest.raises(NotFound):
            await late.result()
    assert [line for line in caplog.messages if "does not fit" in line] == []
    assert await daemon.store.load(session) is None


async def test_who_loads_a_session_that_is_being_closed_and_deleted_is_told_that_it_is_over(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    session = await client.new()
    daemon.store.hold()
    closed = client.start_close(session)
    deleted = client.start("session/delete", {"sessionId": session}, dict[str, object])
    await closed.result()
    await wait_all_tasks_blocked()

    loaded = other.start_load(session)
    await wait_all_tasks_blocked()
    daemon.store.release()
    await deleted.result()

    await loaded.result()
    await other.until(
        lambda: "_moorage/session/detached" in [m.get("method") for m in other.messages]
    )
    assert not daemon.sessions.live
    assert not daemon.sessions.parked
