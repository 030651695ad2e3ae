"""After a crash: every cut turn has one verdict before anybody is served; nothing runs again."""

import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.log.agreement import Account
from moorage_daemon.log.recovery import recover
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Entry, Kind, Life
from moorage_daemon.store.port import Change, StoreBroken, StoreConflict, StoreFull
from moorage_protocol.moorage import Cause, Outcome, State
from tests.daemon.harness import Daemon, now, open_daemon, simulated
from tests.daemon.puppet import Lever, saying
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.store.samples import a_head, all_entries, raw, seqs
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)


async def test_behaviour_34_after_a_crash_all_that_was_told_is_there_and_the_turn_is_over(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "a question")
    performance = await daemon.puppet.next()
    await performance.say("half an ans")
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        [turn] = await other.turns(session)
        await other.load(session)

        assert turn.verdict is not None
        assert (turn.verdict.outcome, turn.verdict.cause, turn.verdict.by) == (
            Outcome.CANCELLED,
            Cause.DAEMON_RESTART,
            "daemon",
        )
        assert other.seqs(session)[: len(client.seqs(session)) + 1] == [1, *client.seqs(session)]
        assert other.text(session) == "half an ans"
        assert "a question" in str(other.of_session(session))
        assert not restarted.puppet.performances


async def test_waiting_turns_are_cut_too_and_all_of_it_is_one_commit(
    daemon: Daemon, client: Client
) -> None:
    sessions = [await client.new() for _ in range(3)]
    for session in sessions[:2]:
        for text in ("runs", "waits", "waits too"):
            client.prompt(session, text)
        await daemon.puppet.next()
    await wait_all_tasks_blocked()
    image = await daemon.image()

    async with open_daemon(image) as restarted:
        other = await restarted.connect()
        await wait_all_tasks_blocked()

        [commit] = image.commits
        assert {change.session for change in commit} == set(sessions[:2])
        for session in sessions[:2]:
            causes = [turn.verdict and turn.verdict.cause for turn in await other.turns(session)]
            assert causes == [Cause.DAEMON_RESTART] * 3
        assert await other.turns(sessions[2]) == []


async def test_a_session_takes_the_next_prompt_with_the_next_generation(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    client.prompt(session)
    await daemon.puppet.next()
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        reply = other.prompt(session)
        (await restarted.puppet.next()).finish()

        assert (await reply.verdict()).generation == 3
        assert seqs(await restarted.log(session)) == list(
            range(1, len(await restarted.log(session)) + 1)
        )


async def test_a_tool_that_was_started_has_an_unknown_outcome_and_is_not_started_again(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    await performance.do(Lever().call("done"))
    performance.begin(Lever(holds=True).call("cut"))
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        entries = await other.entries(session)
        [turn] = await other.turns(session)

        results = [(e["toolCallId"], e["status"]) for e in entries if e["kind"] == "result"]
        assert results == [("call-1-1", "completed"), ("call-1-2", "unknown_outcome")]
        last = [e["update"] for e in entries if e["kind"] == "tool"][-1]
        assert (last["toolCallId"], last["status"]) == ("call-1-2", "failed")
        assert turn.verdict is not None
        assert turn.verdict.tool_calls.unknown == 1
        assert entries[-1]["kind"] == "verdict"
        assert not restarted.puppet.performances


async def test_an_open_question_is_closed_and_nobody_is_asked_again(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).begin(Lever(asks=True).call())
    await client.question()

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        snapshot = await other.attach(session, afterSeq=0)
        await wait_all_tasks_blocked()

        assert (snapshot.state, snapshot.pending_permissions) == (State.IDLE, [])
        assert other.questions == []
        answers = [p for p in other.of_session(session) if p.get("kind") == "answer"]
        assert [answer["outcome"] for answer in answers] == ["cancelled"]


async def test_a_crash_at_any_commit_leaves_one_verdict_for_every_turn_that_was_durable(
    daemon: Daemon, client: Client
) -> None:
    """Every prefix of the commits of a busy day is a disk that a crash may leave."""
    session = await client.new()
    client.prompt(session, "one")
    client.prompt(session, "two")
    performance = await daemon.puppet.next()
    await performance.do(Lever().call())
    await performance.say("text")
    performance.begin(Lever(asks=True).call())
    client.choose(await client.question())
    await wait_all_tasks_blocked()
    client.prompt(session, "three", onBusy="supersede")
    (await daemon.puppet.next()).begin(saying("more"))
    await client.configure(session, model="m")
    await client.kill(session)

    for cut in range(1, len(daemon.store.commits) + 1):
        store = MemoryStore()
        for commit in daemon.store.commits[:cut]:
            await store.commit(commit)
        before = seqs(await all_entries(store, session))
        await recover(store, now)
        await recover(store, now)

        entries = await all_entries(store, session)
        assert seqs(entries) == list(range(1, len(entries) + 1))
        assert seqs(entries)[: len(before)] == before
        admitted = [e.generation for e in entries if e.kind == Kind.PROMPT]
        ended = [e.generation for e in entries if e.kind == Kind.VERDICT]
        assert sorted(ended, key=lambda g: g or 0) == admitted, f"after commit {cut}"
        intents = _calls(entries, Kind.INTENT)
        assert intents <= _calls(entries, Kind.RESULT)
        assert _calls(entries, Kind.ASK) <= _calls(entries, Kind.ANSWER)


def _calls(entries: list[Entry], kind: Kind) -> set[str]:
    bodies: list[Json] = [msgspec.json.decode(e.body) for e in entries if e.kind == kind]
    return {body["toolCallId"] for body in bodies}


async def test_recovery_happens_once(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    await daemon.puppet.next()
    image = await daemon.image()

    async with open_daemon(image) as restarted:
        first = await restarted.log(session)
    async with open_daemon(image) as again:
        assert await again.log(session) == first


async def test_a_killed_session_stays_killed_and_its_cut_turns_get_their_verdict(
    daemon: Daemon, client: Client
) -> None:
    """The crash came between the record of the kill and the verdict of the turn."""
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).dig_in()
    await wait_all_tasks_blocked()
    client.start_kill(session)
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        [turn] = await other.turns(session)
        assert turn.verdict is not None
        assert turn.verdict.cause is Cause.DAEMON_RESTART
        assert not (await other.kill(session)).killed


async def test_recovery_on_a_full_disk_uses_the_reserve(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    await daemon.puppet.next()
    image = await daemon.image()
    image.fill(reserve=1)

    [stored] = await recover(image, now)

    assert stored.head.open_turns == ()
    assert stored.seq == await image.tip(session)
    empty = await daemon.image()
    empty.fill()
    with pytest.raises(StoreFull):
        await recover(empty, now)


async def test_a_session_of_a_newer_version_is_left_as_it_is(daemon: Daemon) -> None:
    store = FaultyStore(MemoryStore())
    newer = msgspec.structs.replace(a_head("s1", schema=99), open_turns=(1,))
    await store.inner.commit([Change("s1", (), newer, create=True)])

    async with open_daemon(store) as restarted:
        assert store.commits == []
        assert await (await restarted.connect()).listed() == ["s1"]


async def test_a_log_that_cannot_be_read_keeps_no_other_session_from_its_verdict(
    daemon: Daemon, client: Client
) -> None:
    sessions = [await client.new() for _ in range(3)]
    for session in sessions:
        client.prompt(session)
        await daemon.puppet.next()
    image = await daemon.image()
    image.unreadable_entries.add(sessions[0])
    image.fail_next(StoreConflict(sessions[0], "damaged by the test"))
    image.refused.add(sessions[1])

    async with open_daemon(image) as restarted:
        other = await restarted.connect()
        verdicts = [[t.verdict for t in await other.turns(session)] for session in sessions[1:]]

        assert sorted(await other.listed()) == sorted(sessions)
        assert [[v is not None for v in found] for found in verdicts] == [[False], [True]]
        assert (await restarted.log(sessions[0]))[-1].kind == Kind.VERDICT


async def test_a_medium_that_takes_no_verdict_stops_the_start(
    daemon: Daemon, client: Client
) -> None:
    client.prompt(await client.new())
    await daemon.puppet.next()
    image = await daemon.image()
    image.break_next(times=3)

    with pytest.raises(StoreBroken):
        await recover(image, now)


async def test_an_entry_of_an_unknown_shape_stops_no_recovery(daemon: Daemon) -> None:
    """A kind that a newer version writes in another way is passed over."""
    store = FaultyStore(MemoryStore())
    strange = [
        Entry(seq, 0.0, kind, b'{"new": "shape"}', generation)
        for seq, (kind, generation) in enumerate(
            [*((kind, 1) for kind in Kind if kind != Kind.VERDICT), (Kind.BEGIN, None)], start=1
        )
    ]
    head = msgspec.structs.replace(a_head("s1"), open_turns=(1,), generation=1)
    await store.inner.commit([Change("s1", tuple(strange), head, create=True)])

    async with open_daemon(store) as restarted:
        [*stored, last] = await restarted.log("s1")

        assert stored == strange
        assert last.kind == Kind.VERDICT


# ---- heads that disagree with their log


def an_admission(seq: int, generation: int) -> Entry:
    return Entry(seq, 0.0, Kind.PROMPT, raw({"by": "t", "position": 0, "text": "x"}), generation)


def a_verdict(seq: int, generation: int) -> Entry:
    return Entry(seq, 0.0, Kind.VERDICT, raw({"outcome": "completed"}), generation)


def a_kill(seq: int) -> Entry:
    return Entry(seq, 0.0, Kind.STATE, raw({"state": "killed", "by": "t"}))


@pytest.mark.parametrize(
    ("log", "says", "agreed"),
    [
        ([an_admission(1, 1), a_verdict(2, 1)], {"open_turns": (1,)}, {"verdicts": [1]}),
        (
            [an_admission(1, 1), an_admission(2, 2), a_verdict(3, 1)],
            {"open_turns": (1,), "generation": 1},
            {"verdicts": [1, 2], "generation": 2},
        ),
        ([an_admission(1, 1)], {"open_turns": (1, 7)}, {"verdicts": [1]}),
        ([an_admission(1, 9)], {"open_turns": (9,)}, {"verdicts": [9], "generation": 9}),
        (
            [an_admission(1, 1), a_kill(2)],
            {"open_turns": (1,)},
            {"verdicts": [1], "life": Life.KILLED},
        ),
    ],
    ids=["ended already", "another is open", "never admitted", "numbers ran on", "killed"],
)
async def test_where_a_head_disagrees_with_its_log_the_log_counts(
    log: list[Entry], says: Json, agreed: Json
) -> None:
    """Exactly one verdict for each admission, whatever the head names."""
    store = MemoryStore()
    head = msgspec.structs.replace(a_head("s1"), **({"generation": 1} | says))
    await store.commit([Change("s1", tuple(log), head, create=True)])

    [stored] = await recover(store, now)
    again = await recover(store, now)

    assert again == [stored]
    assert await store.load("s1") == stored
    entries = await all_entries(store, "s1")
    assert stored.seq == len(entries)
    assert [e.generation for e in entries if e.kind == Kind.VERDICT] == agreed["verdicts"]
    assert stored.head.open_turns == ()
    assert stored.head.generation == agreed.get("generation", 1)
    assert stored.head.life is agreed.get("life", Life.ACTIVE)


async def test_what_cannot_be_read_may_have_been_admitted() -> None:
    store = FaultyStore(MemoryStore())
    head = msgspec.structs.replace(a_head("s1"), open_turns=(1, 2), generation=2)
    await store.inner.commit([Change("s1", (), head, create=True)])
    store.unreadable_entries.add("s1")

    await recover(store, now)

    entries = await all_entries(store.inner, "s1")
    assert [e.generation for e in entries] == [1, 2]


async def test_of_a_log_with_gaps_the_heads_turns_count_except_those_seen_to_end() -> None:
    head = msgspec.structs.replace(a_head("s1"), open_turns=(1, 2), generation=2)
    account = Account(is_whole=False)
    account.take(a_verdict(8, 1))
    account.take(an_admission(9, 3))

    assert account.open_turns(head) == (2, 3)
    assert account.agreed(head).generation == 3
