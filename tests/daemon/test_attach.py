"""Following a session: from any number, once and in order, over every way to come and go."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_protocol import jsonrpc
from moorage_protocol.errors import InvalidParams, NotFound, StorageError
from moorage_protocol.moorage import Access, Outcome, Snapshot, State
from tests.daemon.harness import Daemon, simulated
from tests.daemon.puppet import saying
from tests.daemon.twin import Client, Json, prompt_params


pytestmark = pytest.mark.trio(run=simulated)


async def a_history(daemon: Daemon, client: Client, pieces: int = 5) -> str:
    """A session with one turn behind it."""
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    for number in range(pieces):
        await performance.say(f"{number} ")
        await wait_all_tasks_blocked()
    performance.finish()
    await reply.result()
    return session


# ---- from where


async def test_without_a_number_only_new_entries_come(daemon: Daemon, client: Client) -> None:
    session = await a_history(daemon, client)
    other = await daemon.connect()
    head = len(await daemon.log(session))

    snapshot = await other.attach(session)
    client.prompt(session)
    await other.until(lambda: "begin" in other.kinds(session))

    assert snapshot.seq == head
    assert other.seqs(session)[0] == head + 1


@pytest.mark.parametrize("after", [0, 1, 4, 10_000])
async def test_from_a_number_on_come_all_later_entries(
    daemon: Daemon, client: Client, after: int
) -> None:
    """Beyond the head counts as the head."""
    session = await a_history(daemon, client)
    head = len(await daemon.log(session))
    other = await daemon.connect()

    await other.attach(session, afterSeq=after)
    await wait_all_tasks_blocked()

    assert other.seqs(session) == list(range(min(after, head) + 1, head + 1))


async def test_a_negative_number_is_refused(daemon: Daemon, client: Client) -> None:
    session = await client.new()

    with pytest.raises(InvalidParams):
        await client.attach(session, afterSeq=-1)


async def test_attaching_again_moves_the_cursor_back_and_never_forward(
    daemon: Daemon, client: Client
) -> None:
    """Behaviour 19: a client that found a gap asks again; nobody is cancelled for it."""
    session = await a_history(daemon, client)
    head = len(await daemon.log(session))
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    first = client.seqs(session)

    await client.attach(session, afterSeq=3)
    await wait_all_tasks_blocked()
    again = client.seqs(session)[len(first) :]
    await client.attach(session, afterSeq=10_000)
    await client.attach(session)
    await wait_all_tasks_blocked()

    assert again == list(range(4, first[-1] + 1))
    assert len(client.seqs(session)) == len(first) + len(again)
    assert not performance.was_cancelled
    performance.finish()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED
    assert client.seqs(session)[-1] > head


@pytest.mark.parametrize("wish", [{}, {"afterSeq": 10_000}])
async def test_a_late_client_that_attaches_again_skips_nothing(
    daemon: Daemon, client: Client, wish: Json
) -> None:
    session = await client.new()
    late = await daemon.connect()
    await late.attach(session, afterSeq=0)
    late.stop_reading()
    client.prompt(session)
    performance = await daemon.puppet.next()
    for number in range(20):
        await performance.say(f"{number} ")
        await wait_all_tasks_blocked()

    late.start("_moorage/session/attach", {"sessionId": session, **wish}, Snapshot)
    await wait_all_tasks_blocked()
    late.read_on()
    await wait_all_tasks_blocked()

    assert late.seqs(session) == list(range(1, len(await daemon.log(session)) + 1))


async def test_a_snapshot_and_what_follows_fit_together(daemon: Daemon, client: Client) -> None:
    """Whatever the instant: the entries before the snapshot are in it, the others follow."""
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    watchers: list[tuple[Client, Snapshot]] = []
    for number in range(30):
        performance.begin(saying(f"{number} "))
        watcher = await daemon.connect()
        watchers.append((watcher, await watcher.attach(session)))
    performance.finish()
    await wait_all_tasks_blocked()

    head = len(await daemon.log(session))
    for watcher, snapshot in watchers:
        assert watcher.seqs(session) == list(range(snapshot.seq + 1, head + 1))


async def test_the_snapshot_shows_turn_queue_and_access(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    client.prompt(session, "waits", promptId="p")
    await daemon.puppet.next()
    await wait_all_tasks_blocked()
    other = await daemon.connect()

    snapshot = await other.attach(session, access="observer")

    assert (snapshot.state, snapshot.access, snapshot.attached) == (
        State.RUNNING,
        Access.OBSERVER,
        2,
    )
    assert snapshot.turn
    assert snapshot.turn.generation == 1
    [queued] = snapshot.queue
    assert (queued.generation, queued.position, queued.prompt_id) == (2, 1, "p")


# ---- coming back


@pytest.mark.parametrize("seen", [1, 3, 5, 8])
async def test_behaviour_17_who_was_away_gets_what_it_missed_then_the_rest_then_the_end(
    daemon: Daemon, seen: int
) -> None:
    leaving, staying = await daemon.connect(), await daemon.connect()
    session = await leaving.new()
    await staying.attach(session, afterSeq=0)
    leaving.prompt(session, "long")
    performance = await daemon.puppet.next()
    for number in range(10):
        await performance.say(f"{number} ")
        await wait_all_tasks_blocked()
        if len(leaving.seqs(session)) >= seen:
            leaving.leave()
    await trio.sleep(60)
    assert not performance.was_cancelled
    last = leaving.seqs(session)[-1]

    again = await daemon.connect()
    await again.attach(session, afterSeq=last)
    await performance.say("live ")
    performance.finish()
    await again.until(lambda: 1 in again.verdicts(session))
    await staying.until(lambda: 1 in staying.verdicts(session))

    head = len(await daemon.log(session))
    assert leaving.seqs(session) + again.seqs(session) == list(range(2, head + 1))
    assert leaving.text(session) + again.text(session) == staying.text(session)
    assert again.kinds(session)[-1] == "verdict"
    assert again.kinds(session).count("verdict") == 1


async def test_a_prompt_whose_client_went_away_runs_to_its_end(
    daemon: Daemon, client: Client
) -> None:
    """And its promptId finds the answer from another connection."""
    leaving = await daemon.connect()
    session = await leaving.new()
    leaving.prompt(session, promptId="p")
    performance = await daemon.puppet.next()
    leaving.leave()
    await wait_all_tasks_blocked()

    again = client.prompt(session, promptId="p")
    performance.finish()

    assert (await again.verdict()).outcome is Outcome.COMPLETED
    assert len(daemon.puppet.performances) == 1


async def test_a_waiting_prompt_whose_client_went_away_still_runs(
    daemon: Daemon, client: Client
) -> None:
    leaving = await daemon.connect()
    session = await client.new()
    client.prompt(session, "first")
    await wait_all_tasks_blocked()
    leaving.prompt(session, "second")
    await wait_all_tasks_blocked()

    leaving.leave()
    (await daemon.puppet.next()).finish()

    assert (await daemon.puppet.next()).prompt.text == "second"


async def test_the_last_frames_of_a_client_that_stops_sending_are_answered(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    params = {"sessionId": session, "after": 0}
    reply = client.start("_moorage/session/entries", params, dict[str, object])

    client.wire.outgoing.close()
    with trio.fail_after(5):
        await reply.arrived.wait()


# ---- who sees what


async def test_a_plain_client_gets_what_the_agent_client_protocol_knows(daemon: Daemon) -> None:
    """No entries of ours; the numbers stand on every update all the same."""
    plain = await daemon.connect(plain=True)
    session = await a_history(daemon, plain)

    assert set(plain.kinds(session)) == {"agent_message_chunk", "session_info_update"}
    assert plain.text(session) == "0 1 2 3 4 "
    assert plain.seqs(session) == sorted(set(plain.seqs(session)))
    methods = {message.get("method") for message in plain.messages}
    assert methods == {None, "session/update"}
    await plain.load(session)
    assert "user_message_chunk" in plain.kinds(session), "on replay its own words, too"


async def test_a_client_that_knows_moorage_gets_a_message_for_every_number(
    daemon: Daemon, client: Client
) -> None:
    session = await a_history(daemon, client)

    head = len(await daemon.log(session))
    assert client.seqs(session) == list(range(2, head + 1))
    assert client.kinds(session)[:3] == ["prompt", "user_message_chunk", "begin"]


async def test_the_user_sees_its_own_words_once_and_others_as_an_update(
    daemon: Daemon, client: Client
) -> None:
    """The client that typed them has drawn them: to it they come as an entry."""
    other = await daemon.connect()
    session = await client.new()
    await other.attach(session)
    client.prompt(session, "my words")
    await daemon.puppet.next()
    await wait_all_tasks_blocked()

    methods = [
        [m["method"] for m in seer.messages if "my words" in str(m) and "user_message" in str(m)]
        for seer in (client, other)
    ]

    assert methods == [["_moorage/session/entry"], ["session/update"]]


async def test_sessions_do_not_mix(daemon: Daemon, client: Client) -> None:
    other = await daemon.connect()
    mine, theirs = await client.new(), await other.new()
    client.prompt(mine)
    other.prompt(theirs)
    for _ in range(2):
        performance = await daemon.puppet.next()
        await performance.say(performance.prompt.text)
    await wait_all_tasks_blocked()

    assert client.of_session(theirs) == other.of_session(mine) == []


# ---- leaving


async def test_detach_stops_the_entries_and_nothing_else(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await client.detach(session)
    before = client.seqs(session)

    await performance.say("unseen")
    performance.finish()
    told = await reply.verdict()

    assert told.outcome is Outcome.COMPLETED
    assert client.seqs(session) == before
    await client.detach(session)
    await client.detach("ghost")
    await client.attach(session, afterSeq=before[-1])
    await wait_all_tasks_blocked()
    assert client.seqs(session) == list(range(2, len(await daemon.log(session)) + 1))


async def test_an_answer_that_waited_for_the_log_goes_out_when_its_client_detaches(
    daemon: Daemon, client: Client
) -> None:
    session = await a_history(daemon, client, pieces=50)
    other = await daemon.connect()
    load, loaded = other.frame(
        "session/load", {"sessionId": session, "cwd": "/w", "mcpServers": []}, dict[str, object]
    )
    detach = jsonrpc.encode_notification("_moorage/session/detach", {"sessionId": session})

    other.post(load, detach)

    await loaded.result()
    assert other.seqs(session) == []


async def test_what_is_attached_is_counted_and_no_more_than_that(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    others = [await daemon.connect() for _ in range(3)]
    for other in others:
        await other.attach(session)
        await other.attach(session, afterSeq=0)
    assert (await client.live()).sessions[0].attached == 4

    others[0].leave()
    await others[1].detach(session)
    await wait_all_tasks_blocked()

    assert (await client.live()).sessions[0].attached == 2


# ---- slow and stuck


async def test_a_client_that_does_not_read_slows_nobody_and_misses_nothing(
    daemon: Daemon, client: Client
) -> None:
    """Behaviour 15: the turn ends, others see it; later the slow one gets all of it, in order."""
    session = await client.new()
    slow = await daemon.connect()
    await slow.attach(session, afterSeq=0)
    slow.stop_reading()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    for number in range(400):
        await performance.say(f"{number} " + "x" * 4000)
        await wait_all_tasks_blocked()
    performance.finish()
    start = trio.current_time()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED
    assert trio.current_time() == start

    slow.read_on()
    await slow.until(lambda: 1 in slow.verdicts(session))

    assert slow.seqs(session) == list(range(1, len(await daemon.log(session)) + 1))
    assert slow.text(session) == client.text(session)


async def test_behaviour_16_a_kill_and_its_own_cancel_work_while_a_client_does_not_read(
    daemon: Daemon, client: Client
) -> None:
    sessions = [await client.new() for _ in range(2)]
    replies = [client.prompt(session) for session in sessions]
    performances = [await daemon.puppet.next() for _ in sessions]
    client.stop_reading()
    for performance in performances:
        for number in range(200):
            await performance.say(f"{number} " + "x" * 4000)
            await wait_all_tasks_blocked()
    operator = await daemon.connect()
    start = trio.current_time()

    client.notify("session/cancel", {"sessionId": sessions[0]})
    killed = await operator.kill(sessions[1])
    await wait_all_tasks_blocked()

    assert killed.durable
    assert all(performance.was_cancelled for performance in performances)
    assert trio.current_time() == start
    client.read_on()
    for reply in replies:
        assert (await reply.verdict()).outcome is Outcome.CANCELLED


async def test_a_client_that_lets_its_answers_pile_up_is_closed(
    daemon: Daemon, client: Client
) -> None:
    """Its sessions go on without it."""
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    client.stop_reading()

    unknown = jsonrpc.encode_request(None, "no/such/method", {})
    with pytest.raises(trio.BrokenResourceError):
        await _send_on_and_on(client, unknown)
    client.read_on()
    await client.until(lambda: client.gone)

    assert not performance.was_cancelled
    assert (await (await daemon.connect()).status()).connections == 1


async def _send_on_and_on(client: Client, frame: bytes) -> None:
    for _ in range(20):
        client.post(*[frame] * 250)
        await wait_all_tasks_blocked()


async def test_a_replay_is_not_held_up_by_a_session_that_always_has_more(
    daemon: Daemon, client: Client
) -> None:
    quiet, busy = await client.new(), await client.new()
    slow = await daemon.connect()
    await slow.attach(busy)
    slow.stop_reading()
    client.prompt(busy)
    performance = await daemon.puppet.next()
    for number in range(400):
        await performance.say(f"{number} " + "x" * 4000)
        await wait_all_tasks_blocked()

    loaded = slow.start_load(quiet)
    slow.read_on()
    await loaded.result()
    arrived = len(slow.seqs(busy))
    performance.finish()
    await slow.until(lambda: 1 in slow.verdicts(busy))

    assert arrived < len(slow.seqs(busy)) / 2


async def test_a_session_that_was_put_away_while_its_log_was_read_is_followed_again(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    slow = await daemon.connect()
    daemon.store.hold_reads()
    await slow.attach(session, afterSeq=0)
    await wait_all_tasks_blocked()
    await client.close(session)

    loaded = slow.start_load(session)
    await wait_all_tasks_blocked()
    daemon.store.release_reads()
    await loaded.result()
    client.prompt(session)
    (await daemon.puppet.next()).finish()
    await slow.until(lambda: 1 in slow.verdicts(session))

    assert slow.seqs(session) == list(range(1, len(await daemon.log(session)) + 1))


@pytest.mark.parametrize("has_entries", [False, True])
async def test_a_log_that_cannot_be_read_ends_the_replay_with_an_error_and_nothing_else(
    daemon: Daemon, client: Client, *, has_entries: bool
) -> None:
    damaged, sound = await client.new(), await client.new()
    reader = await daemon.connect()
    await reader.attach(sound)
    (daemon.store.garbled if has_entries else daemon.store.unreadable).add(damaged)

    with pytest.raises(StorageError):
        await reader.load(damaged)
    with pytest.raises(StorageError):
        await reader.entries(damaged)
    client.prompt(sound)
    (await daemon.puppet.next()).finish()
    await reader.until(lambda: 1 in reader.verdicts(sound))

    told = [m["params"] for m in reader.messages if m.get("method") == "_moorage/session/detached"]
    assert told == [{"sessionId": damaged, "seq": 0, "reason": "closed"}]


async def test_a_session_that_was_never_there_is_not_made_by_asking(
    daemon: Daemon, client: Client
) -> None:
    for ask in (client.attach, client.load, client.resume, client.entries, client.turns):
        with pytest.raises(NotFound):
            await ask("ghost")
    client.notify("session/prompt", prompt_params("ghost"))
    client.notify("session/cancel", {"sessionId": "ghost"})
    await client.detach("ghost")
    await wait_all_tasks_blocked()

    assert not daemon.sessions.live
    assert not daemon.sessions.parked
    assert await daemon.store.list() == []


async def test_load_of_a_session_that_is_deleted_meanwhile_is_answered(
    daemon: Daemon, client: Client
) -> None:
    session = await a_history(daemon, client)
    reader = await daemon.connect()
    await wait_all_tasks_blocked()
    daemon.store.hold_reads()
    load = reader.start_load(session)
    await wait_all_tasks_blocked()

    await client.delete(session)
    daemon.store.release_reads()

    with trio.fail_after(60), pytest.raises(NotFound):
        await load.result()
    assert (await reader.status()).sessions.live == 0
