"""What is kept longer than was wanted goes by itself, and nothing else does."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.app import OWNER
from moorage_daemon.housekeeping import EVERY, FIRST, GRACE
from moorage_daemon.identity import Principal
from moorage_daemon.retention import Retention
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.port import Change
from moorage_protocol.acp import Empty
from moorage_protocol.errors import CursorExpired, NotPermitted, StorageError
from moorage_protocol.moorage import Role
from moorage_protocol.upkeep import StoreCheckResult, StoreGcResult, StoreHealthResult
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.store.samples import a_head, an_entry, creation, in_chunks, raw, seqs
from tests.daemon.twin import Client


pytestmark = pytest.mark.trio(run=simulated)

DAY = 86400.0


async def a_long_session(daemon: Daemon, client: Client, turns: int) -> str:
    """A session with so many turns, of which each is some six entries."""
    session = await client.new()
    for number in range(1, turns + 1):
        await exchange(daemon, client, session, f"answer {number}\n")
    return session


async def exchange(daemon: Daemon, client: Client, session: str, *answer: str) -> None:
    """A turn, whose answer is so many entries."""
    reply = client.prompt(session, "a question")
    performance = await daemon.puppet.next()
    for piece in answer:
        await performance.say(piece)
        await wait_all_tasks_blocked()
    performance.finish()
    await reply.verdict()


async def gc(client: Client) -> StoreGcResult:
    return await client.call("_moorage/store/gc", {}, StoreGcResult)


# ---- whole sessions


async def test_a_session_that_nobody_uses_is_removed_after_its_days() -> None:
    async with open_daemon(retention=Retention(days=30)) as daemon:
        client = await daemon.connect()
        old, young = await client.new(), await client.new()
        await client.close(old)
        await trio.sleep(29 * DAY)
        await exchange(daemon, client, young, "still used")
        await client.close(young)
        assert set(await client.listed()) == {old, young}

        await trio.sleep(2 * DAY)

        assert await client.listed() == [young]
        assert await daemon.store.load(old) is None


async def test_sessions_that_run_or_are_followed_are_spared() -> None:
    async with open_daemon(retention=Retention(days=1)) as daemon:
        client = await daemon.connect()
        followed, running = await client.new(), await client.new()
        client.prompt(running, "hello")
        await daemon.puppet.next()
        await client.detach(running)
        await trio.sleep(10 * DAY)

        assert set(await client.listed()) == {followed, running}
        await client.detach(followed)
        await trio.sleep(EVERY)
        assert await client.listed() == [running]


async def test_everything_is_kept_where_nothing_else_was_said(
    daemon: Daemon, client: Client
) -> None:
    session = await a_long_session(daemon, client, 30)
    await client.close(session)

    await trio.sleep(400 * DAY)

    assert await client.listed() == [session]
    assert seqs(await daemon.log(session))[0] == 1


async def test_a_clock_that_is_years_ahead_removes_nothing() -> None:
    store = FaultyStore(MemoryStore())
    await store.commit([creation("s1"), creation("s2")])  # used in 1970, and by no daemon since
    async with open_daemon(store, retention=Retention(days=30)) as daemon:
        await trio.sleep(10 * EVERY)

        assert len(daemon.sessions.parked) == 2


# ---- long logs


async def test_a_long_log_is_cut_at_the_beginning_of_a_turn() -> None:
    async with open_daemon(retention=Retention(max_entries=30)) as daemon:
        client = await daemon.connect()
        session = await a_long_session(daemon, client, 20)
        await client.detach(session)
        before = await daemon.log(session)

        await trio.sleep(FIRST + 1)

        left = (await daemon.store.entries(session)).entries
        assert 20 < len(left) <= 30
        assert left == before[-len(left) :]
        assert left[0].kind == "prompt"
        assert (await client.entries(session))[0]["seq"] == left[0].seq


async def test_whoever_asks_for_what_was_cut_is_told_and_whoever_loads_gets_the_rest() -> None:
    async with open_daemon(retention=Retention(max_entries=30)) as daemon:
        client = await daemon.connect()
        session = await a_long_session(daemon, client, 20)
        await client.close(session)
        await gc(client)
        first = (await daemon.store.entries(session)).entries[0].seq

        with pytest.raises(CursorExpired):
            await client.attach(session, afterSeq=first - 2)
        other = await daemon.connect()
        await other.load(session)
        await other.attach(session, afterSeq=first - 1)
        await exchange(daemon, other, session, "goes on")

        assert other.seqs(session)[0] == first
        assert "answer 20" in other.text(session)
        assert "answer 1\n" not in other.text(session)
        assert "goes on" in other.text(session)


async def test_what_was_cut_stays_cut_after_a_restart() -> None:
    async with open_daemon(retention=Retention(max_entries=30)) as daemon:
        client = await daemon.connect()
        session = await a_long_session(daemon, client, 20)
        await client.close(session)
        await gc(client)
        store = daemon.store

    async with open_daemon(FaultyStore(store.inner)) as daemon:
        client = await daemon.connect()
        with pytest.raises(CursorExpired):
            await client.attach(session, afterSeq=0)
        await client.load(session)
        await exchange(daemon, client, session, "goes on")


async def test_one_turn_that_is_longer_than_all_that_is_kept_stays_whole() -> None:
    async with open_daemon(retention=Retention(max_entries=5)) as daemon:
        client = await daemon.connect()
        session = await a_long_session(daemon, client, 3)
        await exchange(daemon, client, session, *(f"{number}" for number in range(20)))
        await client.detach(session)

        await gc(client)

        left = (await daemon.store.entries(session)).entries
        assert left[0].kind == "prompt"
        assert {entry.generation for entry in left} == {4}


async def test_a_log_is_not_cut_while_a_turn_runs_or_somebody_reads() -> None:
    async with open_daemon(retention=Retention(max_entries=10)) as daemon:
        client = await daemon.connect()
        session = await a_long_session(daemon, client, 10)
        await gc(client)
        assert seqs(await daemon.log(session))[0] == 1  # it is followed

        await client.detach(session)
        client.prompt(session, "runs")
        await daemon.puppet.next()
        await client.detach(session)
        assert (await gc(client)).trimmed_entries == 0


async def test_a_session_of_a_newer_version_is_never_cut() -> None:
    store = FaultyStore(MemoryStore())
    log = tuple(an_entry(seq, kind="prompt", body=raw({"position": 0})) for seq in range(1, 99))
    await store.commit([Change("s1", log, a_head("s1", schema=2), create=True)])
    async with open_daemon(store, retention=Retention(max_entries=10)) as daemon:
        client = await daemon.connect()

        assert (await gc(client)).trimmed_entries == 0


# ---- blobs


async def test_blobs_go_soon_after_the_session_that_named_them() -> None:
    async with open_daemon(FaultyStore(MemoryStore(trio.current_time))) as daemon:
        client = await daemon.connect()
        session = await client.new()
        named = await daemon.store.put_blob(in_chunks(b"some"), max_bytes=10)
        log = daemon.session(session).log
        log.append("of-tomorrow", raw({"sha256": named.sha256}))
        await log.until(log.seq)
        await trio.sleep(GRACE)
        recent = await daemon.store.put_blob(in_chunks(b"about to be named"), max_bytes=20)

        await client.delete(session)
        await wait_all_tasks_blocked()

        assert await daemon.store.get_blob(named.sha256) is None
        assert await daemon.store.get_blob(recent.sha256) is not None


# ---- what an operator asks


async def test_an_operator_may_look_at_the_store_and_nobody_else(daemon: Daemon) -> None:
    owner = await daemon.connect(Principal("other", Role.OWNER))
    for method in ("health", "check", "gc"):
        with pytest.raises(NotPermitted):
            await owner.call(f"_moorage/store/{method}", {}, Empty)

    operator = await daemon.connect(OWNER)
    session = await operator.new()
    daemon.store.left = 2**40
    health = await operator.call("_moorage/store/health", {}, StoreHealthResult)
    check = await operator.call("_moorage/store/check", {}, StoreCheckResult)

    assert health == StoreHealthResult("memory", True, 2**40, 64 * 2**20, False, 0)
    assert (check.sessions, check.entries, check.problems) == (1, 1, [])
    assert await gc(operator) == StoreGcResult(0, 0, 0, 0, 0)
    assert await operator.listed() == [session]


async def test_a_store_that_fails_says_so_and_tells_no_path(daemon: Daemon) -> None:
    client = await daemon.connect()
    daemon.store.fill()

    health = await client.call("_moorage/store/health", {}, StoreHealthResult)

    assert not health.healthy
    assert not (await client.status()).store.healthy


async def test_asking_for_the_status_writes_nothing(daemon: Daemon, client: Client) -> None:
    for _ in range(10):
        assert (await client.status()).store.healthy
    assert (daemon.store.tried, daemon.store.proved) == (0, 0)

    await client.call("_moorage/store/health", {}, StoreHealthResult)
    assert daemon.store.proved == 1


async def test_a_session_that_cannot_be_read_is_counted_and_the_operators_to_remove() -> None:
    store = FaultyStore(MemoryStore())
    await store.commit([creation("s1", 2), creation("s2", 2)])
    store.unreadable.add("s1")
    async with open_daemon(store) as daemon:
        owner = await daemon.connect(Principal("other", Role.OWNER))
        client = await daemon.connect()
        assert (await client.status()).store.damaged == 1
        assert await client.listed() == ["s2"]

        await owner.delete("s1")
        assert (await client.status()).store.damaged == 1
        await client.delete("s1")

        assert (await client.status()).store.damaged == 0
        assert await store.inner.load("s1") is None


async def test_a_deletion_on_a_full_disk_takes_some_of_the_reserve(
    daemon: Daemon, client: Client
) -> None:
    first, second = await client.new(), await client.new()
    daemon.store.fill(reserve=1)

    await client.delete(first)
    with pytest.raises(StorageError):
        await client.delete(second)

    assert await client.listed() == [second]
    assert await daemon.store.inner.load(first) is None
