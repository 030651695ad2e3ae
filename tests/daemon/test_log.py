"""The log: durable before it is told, numbered without gaps, the same live and on replay."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.log.committer import ROOM_FOR_ALL, Committer
from moorage_daemon.log.cursor import Cursor
from moorage_daemon.log.log import MAX_JOINED, ROOM, TAIL, Log
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Entry, Kind, Life, StateBody
from moorage_daemon.store.port import Change, Stored
from moorage_protocol.moorage import State
from tests.daemon.harness import Daemon, now, simulated
from tests.daemon.puppet import saying
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.store.samples import a_head, all_entries
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

STATE = StateBody(Life.ACTIVE, "tui")
SAID = "agent_message_chunk"


@dataclass
class Desk:
    """Logs on a store that can be told to wait."""

    committer: Committer
    store: FaultyStore
    made: int = 0

    def log(self) -> Log:
        self.made += 1
        head = a_head(f"s{self.made}")
        log = Log(Stored(head, 0), self.committer, is_new=True)
        log.write_head(head)
        return log


@asynccontextmanager
async def open_desk() -> AsyncGenerator[Desk]:
    store = FaultyStore(MemoryStore())
    committer = Committer(store, patience=2.0, clock=now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        yield Desk(committer, store)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def desk() -> AsyncGenerator[Desk]:
    async with open_desk() as made:
        yield made


def say(log: Log, text: str, *, message: str = "m", generation: int = 1, kind: str = SAID) -> None:
    log.append_text(kind, text, message, generation)


def texts(entries: list[Entry]) -> list[str]:
    """The texts of message entries."""
    bodies: list[Json] = [msgspec.json.decode(entry.body) for entry in entries]
    return [body["content"]["text"] for body in bodies if "content" in body]


async def read(cursor: Cursor) -> list[Entry]:
    """All there is for a reader, from memory or from the store."""
    found: list[Entry] = []
    while cursor.behind:
        taken = cursor.take(2**16)
        found += await cursor.fetch(2**16) if taken is None else taken
    return found


# ---- commit, then tell


async def test_nothing_is_told_before_it_is_durable(desk: Desk) -> None:
    log, woken = desk.log(), list[int]()
    cursor = log.open_cursor(0, lambda: woken.append(log.durable))
    desk.store.hold()
    log.append(Kind.STATE, STATE)
    say(log, "hello")
    await wait_all_tasks_blocked()

    assert (log.seq, log.durable, log.told.seq) == (2, 0, 0)
    assert cursor.take(2**16) == []
    assert woken == []
    desk.store.release()
    await log.until(2)

    assert (log.durable, log.told.seq) == (2, 2)
    assert woken == [2]
    assert [entry.seq for entry in await read(cursor)] == [1, 2]


async def test_a_client_learns_nothing_while_the_disk_is_busy(
    daemon: Daemon, client: Client
) -> None:
    """No update, no answer, no snapshot and no list shows what a crash could take back."""
    session = await client.new()
    watcher = await daemon.connect()
    daemon.store.hold()
    told = len(client.messages)
    reply = client.prompt(session)
    client.start_new()
    patch = {"sessionId": session, "overrides": {"model": "m"}}
    client.start("session/configure", patch, dict[str, object])
    await wait_all_tasks_blocked()

    snapshot = await watcher.attach(session, afterSeq=0)
    [row] = (await watcher.live()).sessions

    assert len(client.messages) == told
    assert (snapshot.seq, snapshot.state, snapshot.queue) == (1, State.IDLE, [])
    assert (row.seq, row.state, row.queued) == (1, State.IDLE, 0)
    assert (row.generation, row.title, row.model) == (0, None, None)
    assert watcher.seqs(session) == [1]
    assert not daemon.puppet.performances
    daemon.store.release()
    (await daemon.puppet.next()).finish()
    await reply.result()


async def test_new_is_answered_when_the_session_is_durable(daemon: Daemon, client: Client) -> None:
    daemon.store.hold()
    reply = client.start_new()
    await wait_all_tasks_blocked()

    assert not reply.arrived.is_set()
    daemon.store.release()
    session = (await reply.result()).session_id
    assert [stored.head.id for stored in await daemon.store.list()] == [session]


async def test_configure_is_answered_when_it_is_durable(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    daemon.store.hold()
    reply = client.start(
        "session/configure",
        {"sessionId": session, "overrides": {"model": "m"}},
        dict[str, object],
    )
    await wait_all_tasks_blocked()
    assert not reply.arrived.is_set()

    daemon.store.release()
    await reply.result()

    stored = await daemon.store.load(session)
    assert stored is not None
    assert stored.head.overrides.model == "m"


async def test_what_was_told_is_in_the_image_of_the_disk(daemon: Daemon, client: Client) -> None:
    """At every moment what any client saw is a prefix of what a crash would leave."""
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    for number in range(20):
        performance.begin(saying(f"{number} "))
        await trio.lowlevel.checkpoint()
        seen = client.seqs(session)
        stored = await daemon.store.tip(session)
        assert stored is not None
        assert seen == list(range(2, len(seen) + 2))
        assert len(seen) + 1 <= stored


# ---- text


async def test_pieces_of_one_message_join_while_they_wait(desk: Desk) -> None:
    log = desk.log()
    for piece in ("one ", "two ", "three"):
        say(log, piece)
    await log.until(log.seq)

    assert log.seq == 1
    assert texts(await all_entries(desk.store, "s1")) == ["one two three"]


@pytest.mark.parametrize(
    "other",
    [{"message": "n"}, {"generation": 2}, {"kind": "agent_thought_chunk"}],
    ids=["message", "turn", "kind"],
)
async def test_only_text_of_the_same_message_joins(desk: Desk, other: Json) -> None:
    log = desk.log()
    say(log, "one")
    say(log, "two", **other)
    say(log, "three")
    await log.until(log.seq)

    assert texts(await all_entries(desk.store, "s1")) == ["one", "two", "three"]


async def test_text_does_not_join_over_another_entry(desk: Desk) -> None:
    log = desk.log()
    say(log, "one")
    log.append(Kind.STATE, STATE)
    say(log, "two")
    await log.until(log.seq)

    stored = await all_entries(desk.store, "s1")
    assert [entry.kind for entry in stored] == ["message", "state", "message"]


async def test_joined_text_stays_small(desk: Desk) -> None:
    log = desk.log()
    for _ in range(100):
        say(log, "x" * 1000)
    await log.until(log.seq)

    found = texts(await all_entries(desk.store, "s1"))
    assert "".join(found) == "x" * 100_000
    assert max(map(len, found)) <= MAX_JOINED


async def test_an_entry_in_a_commit_never_changes(desk: Desk) -> None:
    log = desk.log()
    cursor = log.open_cursor(0, lambda: None)
    desk.store.hold()
    say(log, "one")
    await wait_all_tasks_blocked()
    say(log, "two")
    say(log, "three")

    desk.store.release()
    await log.until(log.seq)

    assert log.seq == 2
    assert texts(await read(cursor)) == ["one", "twothree"]
    assert texts(await all_entries(desk.store, "s1")) == ["one", "twothree"]


async def test_one_long_text_is_several_messages_that_every_client_takes(
    daemon: Daemon, client: Client
) -> None:
    """Under 1 MiB each, also when every character is escaped; the test's client checks that."""
    session = await client.new()
    reply = client.prompt(session, "\x01" * 400_000)
    performance = await daemon.puppet.next()
    await performance.say("\x02" * 400_000)
    performance.finish()
    await reply.result()

    assert client.text(session) == "\x02" * 400_000
    other = await daemon.connect()
    await other.load(session)
    said = [
        p["update"]["content"]["text"]
        for p in other.of_session(session)
        if p.get("update", {}).get("sessionUpdate") == "user_message_chunk"
    ]
    assert "".join(said) == "\x01" * 400_000


# ---- readers


async def test_a_reader_gets_the_same_from_memory_and_from_the_store(desk: Desk) -> None:
    log = desk.log()
    quick = log.open_cursor(0, lambda: None)
    seen: list[Entry] = []
    for number in range(200):
        say(log, f"{number} " + "x" * 4000, message=str(number))
        await log.until(log.seq)
        taken = quick.take(2**16)
        assert taken, "a quick reader never needs the store"
        seen += taken
    slow = log.open_cursor(0, lambda: None)
    assert slow.take(2**16) is None, "that far back only the store has them"

    assert await read(slow) == seen == await all_entries(desk.store, "s1")


async def test_a_slow_reader_costs_no_memory(desk: Desk) -> None:
    """However far behind it is, the log keeps so many bytes of told entries and no more."""
    log = desk.log()
    slow = log.open_cursor(0, lambda: None)
    for number in range(100):
        say(log, "x" * 16_000, message=str(number))
        await log.until(log.seq)

    kept = [seq for seq in range(log.durable) if log.recent(seq, 1) is not None]

    assert len(kept) * 16_000 <= TAIL
    assert slow.seq == 0
    assert len(await read(slow)) == 100


async def test_without_readers_nothing_is_kept(desk: Desk) -> None:
    log = desk.log()
    cursor = log.open_cursor(0, lambda: None)
    for number in range(10):
        say(log, "x", message=str(number))
    await log.until(10)
    assert log.recent(5, 2**16) is not None

    cursor.close()

    assert log.recent(5, 2**16) is None
    assert log.recent(10, 2**16) == []


async def test_a_reader_takes_at_most_so_many_bytes_and_at_least_one_entry(desk: Desk) -> None:
    log = desk.log()
    cursor = log.open_cursor(0, lambda: None)
    for number in range(10):
        say(log, "x" * 1000, message=str(number))
    await log.until(10)

    assert len(cursor.take(1) or []) == 1
    assert 1 < len(cursor.take(3000) or []) < 9


async def test_a_store_that_is_ahead_of_the_fold_is_not_told_early(desk: Desk) -> None:
    """A reader that asks the store in the instant of a commit gets what was folded."""
    log = desk.log()
    log.append(Kind.STATE, STATE)
    await log.until(1)
    ahead = (Entry(2, 0.0, Kind.STATE, b"{}"), Entry(3, 0.0, Kind.STATE, b"{}"))
    await desk.store.inner.commit([Change("s1", ahead)])

    page = await log.stored(0, 2**16)

    assert [entry.seq for entry in page.entries] == [1]


@pytest.mark.parametrize("plain", [False, True])
async def test_replay_sends_entries_as_they_were_sent_live(
    daemon: Daemon, client: Client, plain: bool
) -> None:
    live = await daemon.connect(plain=plain)
    session = await client.new()
    await live.load(session)
    before = len(live.of_session(session)) if plain else 1
    reply = client.prompt(session, "tell me")
    performance = await daemon.puppet.next()
    for number in range(50):
        performance.begin(saying(f"{number} "))
        if number % 7 == 0:
            await wait_all_tasks_blocked()
    performance.finish()
    await reply.result()
    await wait_all_tasks_blocked()
    replayed = await daemon.connect(plain=plain)

    await replayed.load(session)

    entries = [p for p in replayed.of_session(session) if _numbered(p)]
    assert entries == [p for p in live.of_session(session) if _numbered(p)]
    assert len(entries) > before
    assert replayed.text(session) == "".join(f"{number} " for number in range(50))


def _numbered(params: Json) -> bool:
    return "seq" in params or "seq" in params.get("_meta", {}).get("moorage", {})


# ---- room


async def test_an_agent_waits_while_too_much_of_its_session_is_not_durable(desk: Desk) -> None:
    log = desk.log()
    desk.store.hold()
    say(log, "x" * ROOM)
    with trio.fail_after(1):
        await log.room()
    say(log, "y")

    with trio.move_on_after(10) as waited:
        await log.room()

    assert waited.cancelled_caught, "the wait can be cancelled"
    desk.store.release()
    with trio.fail_after(1):
        await log.room()


async def test_agents_wait_while_too_much_of_all_sessions_is_not_durable(desk: Desk) -> None:
    desk.store.hold()
    logs = [desk.log() for _ in range(9)]
    for log in logs:
        say(log, "x" * (ROOM_FOR_ALL // 9))
    for log in logs:
        with trio.fail_after(1):
            await log.room()
    say(logs[0], "y" * 9)

    for log in logs:
        with trio.move_on_after(1) as waited:
            await log.room()
        assert waited.cancelled_caught

    desk.store.release()
    for log in logs:
        with trio.fail_after(1):
            await log.room()


async def test_verdicts_questions_and_kills_never_wait_for_room(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    daemon.store.hold()
    performance.begin(saying("x" * (ROOM + 1)))
    await wait_all_tasks_blocked()
    at = daemon.session(session).log.seq

    client.start_kill(session)
    await wait_all_tasks_blocked()

    log = daemon.session(session).log
    assert performance.was_cancelled
    assert log.seq == at + 2, "state and verdict are written"
    daemon.store.release()
    await client.until(lambda: 1 in client.verdicts(session))


async def test_a_session_with_too_much_at_once_stops_and_takes_no_other_with_it(
    desk: Desk,
) -> None:
    logs = [desk.log() for _ in range(5)]
    await wait_all_tasks_blocked()
    desk.store.most = 1000
    desk.store.hold()
    for log in logs:
        log.append(Kind.ARTIFACT, b'{"x":"%b"}' % (b"x" * (2000 if log is logs[3] else 400)))

    desk.store.release()
    await wait_all_tasks_blocked()

    assert [log.failed for log in logs] == [False, False, False, True, False]
    assert [log.durable for log in logs] == [1, 1, 1, 0, 1]
    assert desk.store.reopened == 0, "the medium is well"
    assert desk.committer.is_well
