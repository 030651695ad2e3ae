"""The one writer: batches, a full disk, a broken one, and a session that cannot be written."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import Stage
from moorage_daemon.log.committer import MAX_LOGS, RETRY_FULL
from moorage_daemon.store.model import Entry, Kind
from moorage_daemon.store.port import Change
from moorage_protocol.errors import RpcError, SessionState, StorageError
from moorage_protocol.moorage import Cause, Outcome, State
from tests.daemon.harness import GRACE, Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, Performance, saying
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.store.samples import seqs
from tests.daemon.twin import Client, PromptReply


pytestmark = pytest.mark.trio(run=simulated)


async def a_turn(
    daemon: Daemon, client: Client, text: str = "hello"
) -> tuple[str, PromptReply, Performance]:
    """A session whose turn waits for what the test says."""
    session = await client.new()
    reply = client.prompt(session, text)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    return session, reply, performance


async def talk(stage: Stage) -> None:
    """An agent that streams."""
    while True:
        await stage.say("x")
        await trio.sleep(0.1)


def written(daemon: Daemon, session: str) -> list[int]:
    """The numbers of a session's entries in the order they were committed."""
    return [
        entry.seq
        for commit in daemon.store.commits
        for change in commit
        if change.session == session
        for entry in change.entries
    ]


# ---- batches


async def test_a_commit_starts_at_once_and_what_comes_meanwhile_is_the_next(
    daemon: Daemon, client: Client
) -> None:
    sessions = [await client.new() for _ in range(3)]
    before = len(daemon.store.commits)
    daemon.store.hold()
    client.prompt(sessions[0])
    await wait_all_tasks_blocked()
    for session in sessions:
        client.prompt(session)
    await wait_all_tasks_blocked()
    assert daemon.store.tried == before + 1

    daemon.store.release()
    await wait_all_tasks_blocked()

    first, second = daemon.store.commits[before : before + 2]
    assert [change.session for change in first] == sessions[:1]
    assert sorted(change.session for change in second) == sorted(sessions)


async def test_what_somebody_waits_for_goes_before_what_is_streamed(
    daemon: Daemon, client: Client
) -> None:
    turns = [await a_turn(daemon, client) for _ in range(4)]
    daemon.store.hold()
    for _, _, performance in turns[:3]:
        performance.begin(saying("x" * 400_000))
    await wait_all_tasks_blocked()
    turns[3][2].finish()
    await wait_all_tasks_blocked()
    before = len(daemon.store.commits)

    daemon.store.release()
    await wait_all_tasks_blocked()

    held, following = daemon.store.commits[before : before + 2]
    assert turns[3][0] not in {change.session for change in held}
    assert turns[3][0] == following[0].session


async def test_what_somebody_waits_for_is_written_alone_and_output_in_small_batches(
    daemon: Daemon, client: Client
) -> None:
    streaming = [await a_turn(daemon, client) for _ in range(MAX_LOGS + 1)]
    waiting = [await client.new() for _ in range(3)]
    daemon.store.hold()
    client.prompt(waiting[0])
    await wait_all_tasks_blocked()
    for _, _, performance in streaming:
        performance.begin(saying("some output"))
    await wait_all_tasks_blocked()
    client.prompt(waiting[1])
    client.prompt(waiting[2])
    await wait_all_tasks_blocked()
    before = len(daemon.store.commits)

    daemon.store.release()
    await wait_all_tasks_blocked()

    commits = [[change.session for change in commit] for commit in daemon.store.commits[before:]]
    assert commits[:2] == [waiting[:1], waiting[1:]]
    assert [len(commit) for commit in commits[2:]] == [MAX_LOGS, 1]
    assert {*commits[2], *commits[3]} == {session for session, _, _ in streaming}


# ---- a full disk


async def test_a_batch_that_finds_no_space_stays_first_and_is_tried_again(
    daemon: Daemon, client: Client
) -> None:
    session, reply, performance = await a_turn(daemon, client)
    daemon.store.fill()
    tried, seen = daemon.store.tried, client.seqs(session)
    performance.begin(saying("one"))
    await trio.sleep(10 * RETRY_FULL + RETRY_FULL / 2)

    assert daemon.store.tried == tried + 11
    assert client.seqs(session) == seen, "nothing of it is told"
    daemon.store.make_room()
    await trio.sleep(RETRY_FULL)
    performance.begin(saying("two"))
    performance.finish()
    await reply.result()

    numbers = written(daemon, session)
    assert numbers == list(range(1, len(numbers) + 1))
    assert client.text(session) == "onetwo"


async def test_prompt_new_and_configure_are_refused_at_once_while_the_disk_is_full(
    daemon: Daemon, client: Client
) -> None:
    session, _, performance = await a_turn(daemon, client)
    daemon.store.fill()
    performance.begin(saying("one"))
    await wait_all_tasks_blocked()
    head, start = daemon.session(session).head, trio.current_time()

    for refused in (
        client.prompt(session).result,
        client.new,
        lambda: client.configure(session, model="m"),
    ):
        with pytest.raises(StorageError) as caught:
            await refused()
        assert caught.value.code == -31007
        assert caught.value.retryable

    assert trio.current_time() == start
    assert daemon.session(session).head == head
    assert not (await client.status()).store.healthy
    assert await client.listed() == [session]


async def test_verdicts_and_kills_use_the_reserve_and_output_does_not(
    daemon: Daemon, client: Client
) -> None:
    session, reply, performance = await a_turn(daemon, client)
    other, _, _ = await a_turn(daemon, client)
    daemon.store.fill(reserve=4)
    before = len(daemon.store.commits)
    performance.begin(saying("one"))
    await trio.sleep(1)
    assert len(daemon.store.commits) == before, "output waits for real space"

    await client.cancel(session)
    told = await reply.verdict()
    result = await client.kill(other)

    assert told.cause is Cause.CLIENT_RPC
    assert result.durable
    assert written(daemon, session)[-1] == client.seqs(session)[-1]
    with pytest.raises(StorageError):
        await client.prompt(session).result()


async def test_agents_wait_in_emit_while_the_disk_is_full_and_go_on_when_it_is_not(
    daemon: Daemon, client: Client
) -> None:
    session, reply, performance = await a_turn(daemon, client)
    daemon.store.fill()
    await performance.say("one ")
    await wait_all_tasks_blocked()
    said = performance.begin(saying("two"))
    await trio.sleep(GRACE / 2)
    assert not said.is_set()

    daemon.store.make_room()
    with trio.fail_after(1):
        await said.wait()

    performance.finish()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED
    assert client.text(session) == "one two"


async def test_within_a_second_of_new_space_everything_is_served_again(
    daemon: Daemon, client: Client
) -> None:
    session, reply, performance = await a_turn(daemon, client)
    daemon.store.fill()
    performance.begin(talk)
    await trio.sleep(60)
    with pytest.raises(StorageError):
        await reply.result()

    daemon.store.make_room()
    await trio.sleep(1)

    assert (await client.status()).store.healthy
    again = client.prompt(session, "again")
    other = await client.new()
    (await daemon.puppet.next()).finish()
    assert (await again.verdict()).outcome is Outcome.COMPLETED
    assert sorted(await client.listed()) == sorted([session, other])


@pytest.mark.parametrize("reserve", [0, 100])
@pytest.mark.parametrize(
    "place", ["before it is durable", "in emit", "at an intent", "at its verdict", "in the queue"]
)
async def test_every_pending_prompt_is_answered_within_the_grace(
    daemon: Daemon, client: Client, place: str, reserve: int
) -> None:
    """With -31007 if need be; and when space returns, each turn has its one verdict."""
    session = await client.new()
    if place == "before it is durable":
        daemon.store.hold()
        reply = client.prompt(session)
        await wait_all_tasks_blocked()
        daemon.store.fill(reserve=reserve)
        daemon.store.release()
    else:
        reply = client.prompt(session)
        performance = await daemon.puppet.next()
        await wait_all_tasks_blocked()
        if place == "in the queue":
            reply = client.prompt(session, "waits")
            await wait_all_tasks_blocked()
        daemon.store.fill(reserve=reserve)
        if place == "at an intent":
            performance.begin(Lever().call())
        elif place == "at its verdict":
            performance.finish()
        else:
            performance.begin(talk)
    start = trio.current_time()

    with trio.fail_after(GRACE + 1):
        await reply.arrived.wait()

    if place == "at its verdict" and reserve:
        await reply.result()
    else:
        with pytest.raises(StorageError):
            await reply.result()
    assert trio.current_time() - start <= GRACE + 2 * RETRY_FULL
    daemon.store.make_room()
    await trio.sleep(1)
    turns = await client.turns(session)
    assert all(turn.verdict is not None for turn in turns)
    assert not daemon.session(session).is_busy
    again = client.prompt(session, "again")
    while (following := await daemon.puppet.next()).prompt.text != "again":
        pass
    following.finish()
    assert (await again.verdict()).outcome is Outcome.COMPLETED


async def test_all_waiting_prompts_are_answered_together_when_the_disk_is_full(
    daemon: Daemon, client: Client
) -> None:
    """Not one grace after the other."""
    session, first, performance = await a_turn(daemon, client)
    replies = [first, *(client.prompt(session, f"waits {number}") for number in range(5))]
    await wait_all_tasks_blocked()
    daemon.store.fill(reserve=100)
    performance.begin(talk)

    with trio.fail_after(GRACE + 1):
        for reply in replies:
            await reply.arrived.wait()

    assert len(daemon.puppet.performances) == 1


async def test_a_prompt_that_waits_is_not_started_on_a_full_disk(
    daemon: Daemon, client: Client
) -> None:
    """The verdict before it fits into the reserve; a new turn would not."""
    session, first, performance = await a_turn(daemon, client)
    waiting = client.prompt(session, "waits")
    await wait_all_tasks_blocked()
    daemon.store.fill(reserve=100)
    start = trio.current_time()
    performance.finish()

    assert (await first.verdict()).outcome is Outcome.COMPLETED
    with pytest.raises(StorageError):
        await waiting.result()

    assert trio.current_time() == start
    assert len(daemon.puppet.performances) == 1


async def test_a_disk_that_stays_nearly_full_holds_nobody_up(
    daemon: Daemon, client: Client
) -> None:
    """The reserve let its output through, and there is no room to take the reserve back."""
    session, reply, performance = await a_turn(daemon, client)
    other, _, _ = await a_turn(daemon, client)
    daemon.store.fill(reserve=100)
    performance.begin(talk)
    await wait_all_tasks_blocked()
    await client.cancel(other)

    with trio.fail_after(GRACE + 1), pytest.raises(StorageError):
        await reply.result()

    assert client.text(session)
    assert not daemon.session(session).is_busy


async def test_a_daemon_whose_disk_stays_full_stops_in_time() -> None:
    store = FaultyStore((await _memory()).inner)
    async with open_daemon(store, mends=False) as daemon:
        client = await daemon.connect()
        _, reply, performance = await a_turn(daemon, client)
        store.fill()
        performance.begin(saying("one"))
        await wait_all_tasks_blocked()
        start = trio.current_time()

    assert trio.current_time() - start < 3 * GRACE + 6
    assert reply.arrived.is_set()
    store.make_room()
    async with open_daemon(store) as restarted:
        [session] = await (await restarted.connect()).listed()
        [turn] = await (await restarted.connect()).turns(session)
        assert turn.verdict is not None
        assert turn.verdict.cause is Cause.DAEMON_RESTART


async def _memory() -> FaultyStore:
    async with open_daemon() as daemon:
        return daemon.store


async def test_a_crash_on_a_full_disk_loses_nothing_that_was_told(
    daemon: Daemon, client: Client
) -> None:
    session, _, performance = await a_turn(daemon, client)
    await performance.say("told")
    await wait_all_tasks_blocked()
    daemon.store.fill()
    performance.begin(saying("never told"))
    await trio.sleep(1)

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        await other.load(session)
        assert other.seqs(session)[: len(client.seqs(session)) + 1] == [1, *client.seqs(session)]
        assert other.text(session) == client.text(session) == "told"


# ---- a broken medium


@pytest.mark.parametrize("is_written", [False, True])
async def test_after_a_failure_everything_is_written_exactly_once(
    daemon: Daemon, client: Client, is_written: bool
) -> None:
    """The store is opened anew and asked what it has before anything is written twice."""
    session, reply, performance = await a_turn(daemon, client)
    daemon.store.break_next(written=is_written)

    await performance.say("one")
    performance.finish()
    told = await reply.verdict()

    assert daemon.store.reopened == 1
    assert told.outcome is Outcome.COMPLETED
    assert client.text(session) == "one"
    log = await daemon.log(session)
    assert seqs(log) == list(range(1, len(log) + 1))
    assert client.seqs(session) == seqs(log)[1:]


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_new_session_survives_a_failure_of_its_first_commit(
    daemon: Daemon, client: Client, is_written: bool
) -> None:
    daemon.store.break_next(written=is_written)

    session = await client.new()

    assert [stored.head.id for stored in await daemon.store.list()] == [session]
    assert seqs(await daemon.log(session)) == [1]


async def test_a_failure_that_lasts_stops_the_sessions_it_hit_and_no_other(
    daemon: Daemon, client: Client
) -> None:
    """They say so; their prompts are answered; what was told of them can still be read."""
    other, unhurt, _ = await a_turn(daemon, client)
    session, reply, performance = await a_turn(daemon, client)
    waiting = client.prompt(session, "waits")
    await wait_all_tasks_blocked()
    before = client.seqs(session)
    daemon.store.break_next(times=2)
    performance.begin(saying("lost"))

    for answer in (reply, waiting):
        with trio.fail_after(GRACE + 1), pytest.raises(StorageError):
            await answer.result()

    assert performance.is_over
    assert client.seqs(session) == before
    rows = {row.session_id: row for row in (await client.live()).sessions}
    assert rows[session].state is State.STORAGE_FAILED
    assert rows[other].state is State.RUNNING
    with pytest.raises(SessionState):
        await client.prompt(session).result()
    with pytest.raises(SessionState):
        await client.configure(session, model="m")
    assert [entry["seq"] for entry in await client.entries(session)] == [1, *before]
    assert (await client.kill(session)).durable
    daemon.puppet.performances[0].finish()
    assert (await unhurt.verdict()).outcome is Outcome.COMPLETED


async def test_the_status_tells_of_a_failed_write_until_one_succeeds(
    daemon: Daemon, client: Client
) -> None:
    _, _, performance = await a_turn(daemon, client)
    assert (await client.status()).store.healthy
    daemon.store.break_next(times=2)
    performance.begin(saying("lost"))
    await wait_all_tasks_blocked()
    assert not (await client.status()).store.healthy

    await client.new()

    assert (await client.status()).store.healthy


async def test_the_status_tells_of_a_store_that_cannot_be_opened_anew(
    daemon: Daemon, client: Client
) -> None:
    _, _, performance = await a_turn(daemon, client)
    daemon.store.break_next()
    daemon.store.fail_reopen()
    performance.begin(saying("lost"))
    await wait_all_tasks_blocked()

    assert not (await client.status()).store.healthy


async def test_a_silent_turn_of_a_session_that_cannot_be_written_is_ended(
    daemon: Daemon, client: Client
) -> None:
    """Its agent may say nothing for hours: the prompt is answered within the grace."""
    lever = Lever(holds=True)
    session, reply, performance = await a_turn(daemon, client)
    performance.begin(lever.call())
    await wait_all_tasks_blocked()
    daemon.store.break_next(times=2)
    await _disturb(client, session)

    with trio.fail_after(GRACE + 1), pytest.raises(StorageError):
        await reply.result()

    assert performance.was_cancelled
    assert not daemon.session(session).is_busy


async def test_nobody_waits_for_an_agent_that_ignores_the_loss_of_its_log(
    daemon: Daemon, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    session, reply, performance = await a_turn(daemon, client)
    performance.dig_in()
    await wait_all_tasks_blocked()
    daemon.store.break_next(times=2)
    start = trio.current_time()
    await _disturb(client, session)

    with pytest.raises(StorageError):
        await reply.result()

    assert trio.current_time() == start
    assert "a turn could not be conducted" not in caplog.text
    performance.released.set()


async def _disturb(client: Client, session: str) -> None:
    """Write something to a session's log."""
    with pytest.raises(RpcError):
        await client.configure(session, model="m")


async def test_a_store_that_cannot_be_opened_again_fails_what_waits_for_it(
    daemon: Daemon, client: Client
) -> None:
    """And is used again as soon as it works: other sessions go on."""
    session, reply, performance = await a_turn(daemon, client)
    daemon.store.break_next()
    daemon.store.fail_reopen()

    performance.begin(saying("lost"))

    with trio.fail_after(GRACE + 1), pytest.raises(StorageError):
        await reply.result()
    assert (await client.live()).sessions[0].state is State.STORAGE_FAILED
    other, again, following = await a_turn(daemon, client)
    following.finish()
    assert (await again.verdict()).outcome is Outcome.COMPLETED
    assert other != session


async def test_a_new_session_that_cannot_be_written_is_answered_and_is_not_there(
    daemon: Daemon, client: Client
) -> None:
    daemon.store.break_next(times=2)

    with pytest.raises(StorageError):
        await client.new()

    assert await daemon.store.list() == []
    assert await client.listed() == []
    assert not daemon.sessions.live


async def test_one_session_that_conflicts_fails_alone(daemon: Daemon, client: Client) -> None:
    """Another writer took its next number; the other session of that batch is written."""
    session, reply, performance = await a_turn(daemon, client)
    other, unhurt, following = await a_turn(daemon, client)
    tip = await daemon.store.tip(session)
    assert tip is not None
    stolen = Entry(tip + 1, 0.0, Kind.STATE, b'{"state":"active","by":"thief"}')
    daemon.store.hold()
    client.prompt(other, "fills the batch")
    await wait_all_tasks_blocked()
    performance.begin(saying("one"))
    performance.begin(saying("two"))
    following.begin(saying("three"))
    following.finish()
    await wait_all_tasks_blocked()
    await daemon.store.inner.commit([Change(session, (stolen,))])

    daemon.store.release()

    assert (await unhurt.verdict()).outcome is Outcome.COMPLETED
    assert client.text(other) == "three"
    with trio.fail_after(GRACE + 1), pytest.raises(StorageError):
        await reply.result()
    rows = {row.session_id: row.state for row in (await client.live()).sessions}
    assert rows[session] is State.STORAGE_FAILED
    assert rows[other] is State.RUNNING


async def test_a_session_that_cannot_be_written_can_be_deleted(
    daemon: Daemon, client: Client
) -> None:
    session, _, performance = await a_turn(daemon, client)
    daemon.store.break_next(times=2)
    performance.begin(saying("lost"))
    await wait_all_tasks_blocked()

    await client.delete(session)

    assert await daemon.store.list() == []


async def test_a_session_that_could_not_be_written_is_whole_after_a_restart(
    daemon: Daemon, client: Client
) -> None:
    session, _, performance = await a_turn(daemon, client)
    daemon.store.break_next(times=2)
    performance.begin(saying("lost"))
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        [turn] = await other.turns(session)
        assert turn.verdict is not None
        assert turn.verdict.cause is Cause.DAEMON_RESTART
        reply = other.prompt(session)
        (await restarted.puppet.next()).finish()
        assert (await reply.verdict()).outcome is Outcome.COMPLETED
