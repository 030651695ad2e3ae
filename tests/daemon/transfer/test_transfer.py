"""A session goes into a file and comes out of it, in the same daemon or another one."""

import base64
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.identity import Principal
from moorage_daemon.retention import Retention
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Entry, Kind
from moorage_daemon.store.port import Change, StoreUnreadable
from moorage_daemon.transfer.checking import taken_over
from moorage_protocol.errors import (
    Busy,
    GrantRefused,
    InvalidParams,
    NotFound,
    NotPermitted,
    Overloaded,
    RpcError,
    StorageError,
)
from moorage_protocol.moorage import Cause, Outcome, Role, State
from tests.daemon.harness import Daemon, now, open_daemon, simulated
from tests.daemon.puppet import Lever
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.store.samples import a_head, all_entries
from tests.daemon.transfer.files import (
    begin,
    changed,
    exported,
    file_of,
    finish,
    imported,
    lines_of,
    parts_of,
    send,
)
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

DAY = 86400.0


async def busy_session(daemon: Daemon, client: Client, **wish: Any) -> str:
    """A session in which a few things happened."""
    session = await client.new(**wish)
    client.prompt(session, "a question")
    performance = await daemon.puppet.next()
    await performance.say("an ans")
    await performance.do(Lever().call("done"))
    await performance.say("wer")
    performance.finish()
    await client.until(lambda: 1 in client.verdicts(session))
    await client.configure(session, model="m", temperature=0.5)
    return session


def stored(entries: list[Entry]) -> list[Entry]:
    """What of entries goes into a file."""
    return [msgspec.structs.replace(entry, origin=None) for entry in entries]


# ---- there and back


async def test_a_session_comes_out_of_its_file_as_it_went_in(
    daemon: Daemon, client: Client
) -> None:
    session = await busy_session(daemon, client, labels={"a": "b"}, config={"systemPrompt": "p"})
    before = await daemon.log(session)

    file = await exported(client, session)
    result = await imported(client, file)

    assert result.session_id != session
    assert (result.blobs, result.notes) == (0, [])
    *entries, last = await daemon.log(result.session_id)
    assert entries == stored(before)
    assert result.entries == last.seq == len(before) + 1
    assert last.kind == Kind.IMPORTED
    assert msgspec.json.decode(last.body) == {
        "source": "moorage",
        "formerId": session,
        "by": client.tui,
    }
    head, copy = daemon.session(session).head, await daemon.store.inner.load(result.session_id)
    assert copy is not None
    assert copy.head == msgspec.structs.replace(head, id=result.session_id, imported=last.seq)


async def test_it_goes_on_there_with_all_that_was_said(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)
    file = await exported(client, session)

    async with open_daemon() as other:
        guest = await other.connect(Principal("guest", Role.OWNER))
        copy = (await imported(guest, file)).session_id
        assert await guest.listed() == [copy]
        await guest.load(copy)
        assert guest.text(copy) == "an answer"
        reply = guest.prompt(copy, "and now?")
        performance = await other.puppet.next()
        [earlier] = (await performance.stage.history(10_000)).exchanges
        performance.finish()

        assert (earlier.prompt, "an ans" in earlier.answer) == ("a question", True)
        assert (await reply.verdict()).generation == 2


async def test_the_file_is_lines_with_the_head_first_and_the_end_last(
    daemon: Daemon, client: Client
) -> None:
    session = await busy_session(daemon, client)

    file = await exported(client, session)

    first, *between, last = lines_of(file)
    assert file.endswith(b"}\n")
    assert (first["moorage"], first["version"], first["head"]["id"]) == ("session", 1, session)
    assert [line["entry"]["seq"] for line in between] == list(range(1, first["seq"] + 1))
    assert last["end"]["entries"] == first["seq"]
    assert file == file_of(lines_of(file)), "the checksum is what the description says"


async def test_a_file_of_any_length_comes_in_parts_that_fit_a_message(
    daemon: Daemon, client: Client
) -> None:
    """The twin refuses messages of 1 MiB; a long entry is cut between two parts."""
    session = await client.new()
    client.prompt(session, "x")
    performance = await daemon.puppet.next()
    client.prompt(session, "waits " * 400_000)
    for number in range(40):
        await performance.say(f"{number} " * 20_000)
    performance.finish()
    (await daemon.puppet.next()).finish()
    await client.until(lambda: 2 in client.verdicts(session))

    parts = [part async for part in parts_of(client, session)]
    copy = await imported(client, b"".join(parts), step=500_000)

    assert len(parts) > 6
    assert max(len(part) for part in parts) <= 2**19
    entries = await daemon.log(copy.session_id)
    assert entries[:-1] == stored(await daemon.log(session))


async def test_a_file_is_the_session_as_it_was_when_it_was_begun(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, "x")
    performance = await daemon.puppet.next()
    for _ in range(30):
        await performance.say("word " * 20_000)
    await wait_all_tasks_blocked()
    length = len(await daemon.log(session))

    parts: list[bytes] = []
    async for part in parts_of(client, session):
        parts.append(part)
        await performance.say("more")
        await wait_all_tasks_blocked()

    assert len(parts) > 3
    assert lines_of(b"".join(parts))[0]["seq"] == length
    assert (await imported(client, b"".join(parts))).entries > length


async def test_what_ran_when_it_was_exported_was_cut(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session, "runs")
    client.prompt(session, "waits")
    performance = await daemon.puppet.next()
    performance.begin(Lever(holds=True).call("cut"))
    await wait_all_tasks_blocked()

    copy = (await imported(client, await exported(client, session))).session_id

    turns = await client.turns(copy)
    verdicts = [turn.verdict for turn in turns if turn.verdict is not None]
    assert [(v.outcome, v.cause) for v in verdicts] == [
        (Outcome.CANCELLED, Cause.DAEMON_RESTART)
    ] * 2
    assert verdicts[0].tool_calls.unknown == 1
    assert (await client.attach(copy)).state is State.IDLE
    assert [turn.verdict for turn in await client.turns(session)] == [None, None]
    assert len(daemon.puppet.performances) == 1, "nothing runs again by itself"


async def test_entries_that_nobody_knows_come_back_byte_for_byte(daemon: Daemon) -> None:
    bodies = [b'{"b": 1.0,"a":[1e3, "\\u00e9"],"b":2}', b"{}", b'{"text": "\xc3\xa9"}']
    store = FaultyStore(MemoryStore())
    entries = tuple(
        Entry(seq, 1.5, "kind-of-tomorrow", body, None) for seq, body in enumerate(bodies, 1)
    )
    await store.inner.commit([Change("s1", entries, a_head("s1"), create=True)])

    async with open_daemon(store) as running:
        client = await running.connect()
        copy = (await imported(client, await exported(client, "s1"))).session_id

        found = await running.log(copy)
        assert [(e.kind, e.at, e.body) for e in found[:-1]] == [
            ("kind-of-tomorrow", 1.5, body) for body in bodies
        ]


async def test_a_log_whose_beginning_was_trimmed_begins_at_one_again(
    daemon: Daemon, client: Client
) -> None:
    file = await exported(client, await busy_session(daemon, client))

    def trim(lines: list[Json]) -> None:
        del lines[1:4]

    result = await imported(client, changed(file, trim))

    entries = await daemon.log(result.session_id)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert result.notes == ["entries up to 3 had been trimmed"]


async def test_a_killed_session_is_exported_and_stays_killed(
    daemon: Daemon, client: Client
) -> None:
    session = await busy_session(daemon, client)
    await client.kill(session)

    copy = (await imported(client, await exported(client, session))).session_id

    with pytest.raises(NotFound):
        await client.prompt(copy, "come back").result()
    assert (await client.turns(copy))[0].verdict is not None


# ---- whose it is, and what it may


async def test_it_belongs_to_whoever_brings_it(daemon: Daemon, client: Client) -> None:
    file = await exported(client, await busy_session(daemon, client))
    stranger = await daemon.connect(Principal("other", Role.OWNER))

    copy = (await imported(stranger, file)).session_id

    found = await daemon.store.inner.load(copy)
    assert found is not None
    assert (found.head.principal, found.head.owner) == ("other", stranger.tui)
    assert copy not in await client.listed()


async def test_what_a_file_says_was_allowed_is_not_allowed_here(
    daemon: Daemon, client: Client
) -> None:
    """Neither an answer "always", nor a mode, nor a policy that lets tools act."""
    lever = Lever(asks=True)
    session = await client.new(
        environment={"PATH": "/elsewhere"},
        config={
            "permissions": {"allow": ["Bash"], "deny": ["Fetch"], "default": "ask"},
            "confirmation": {"timeoutSeconds": 9, "onTimeout": "approve"},
        },
    )
    await client.call("session/set_mode", {"sessionId": session, "modeId": "ask"}, dict[str, Any])
    client.prompt(session)
    performance = await daemon.puppet.next()
    performance.begin(lever.call())
    client.choose(await client.question(), "always")
    performance.finish()
    await client.until(lambda: 1 in client.verdicts(session))
    allowing = {"allow": ["Bash"], "deny": ["Fetch"], "default": "allow"}
    await client.call(
        "_moorage/session/config/set",
        {"sessionId": session, "config": {"permissions": allowing}},
        dict[str, Any],
    )

    result = await imported(client, await exported(client, session))

    config = daemon.sessions.head(result.session_id)
    assert config is not None
    assert config.environment is None
    policy = msgspec.to_builtins(config.config)
    assert policy["permissions"] == {"deny": ("Fetch",)}
    assert policy["confirmation"] == {"timeoutSeconds": 9.0}
    assert result.notes == [
        "left behind: the environment lent to its tools",
        "left behind: permissions that allow",
        "left behind: a confirmation that approves",
    ]
    for number, again in enumerate((session, result.session_id)):
        client.prompt(again)
        performance = await daemon.puppet.next()
        performance.begin(lever.call())
        await wait_all_tasks_blocked()
        assert len(client.questions) == 1 + number, "there it is allowed, here it is asked"


async def test_copy_may_do_no_more_than_where_it_came_from(daemon: Daemon, client: Client) -> None:
    lever = Lever()
    session = await client.new(grant={"tools": []})

    copy = await imported(client, await exported(client, session))
    client.prompt(copy.session_id)
    performance = await daemon.puppet.next()
    performance.begin(lever.call())
    await wait_all_tasks_blocked()

    assert any("stands on a grant" in note for note in copy.notes)
    assert lever.pulled == []


async def test_copy_in_other_hands_does_not_use_the_grant_of_the_first(
    daemon: Daemon, client: Client
) -> None:
    file = await exported(client, await client.new(grant={"tools": None}))
    stranger = await daemon.connect(Principal("other", Role.OWNER))

    copy = (await imported(stranger, file)).session_id

    with pytest.raises(GrantRefused, match="session not found"):
        await stranger.prompt(copy).result()


async def test_no_file_is_a_grant(daemon: Daemon, client: Client) -> None:
    await client.new(grant={"tools": None})
    [holding] = daemon.app.desk.ledger.holdings.values()

    assert holding.head.record is not None
    assert taken_over(holding.head, []).record is None


async def test_who_only_watches_exports_and_does_not_import(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)
    observer = await daemon.connect(Principal("local", Role.OBSERVER))
    stranger = await daemon.connect(Principal("other", Role.OWNER))

    assert await exported(observer, session)
    with pytest.raises(NotPermitted):
        await begin(observer)
    with pytest.raises(NotFound):
        await exported(stranger, session)


# ---- the id


async def test_it_may_keep_its_id_where_that_is_free(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)
    file = await exported(client, session)

    with pytest.raises(InvalidParams, match="nothing is overwritten"):
        await imported(client, file, keepId=True)
    async with open_daemon() as other:
        guest = await other.connect()
        assert (await imported(guest, file, keepId=True)).session_id == session
        with pytest.raises(InvalidParams, match="nothing is overwritten"):
            await imported(guest, file, keepId=True)
        assert await guest.listed() == [session]


async def test_of_two_files_with_one_id_one_is_taken(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)
    file = await exported(client, session)
    await client.delete(session)
    half = len(file) // 2
    first, second = await begin(client, keepId=True), await begin(client, keepId=True)
    await send(client, first, file[:half])

    with pytest.raises(InvalidParams, match="nothing is overwritten"):
        await send(client, second, file)
    await send(client, first, file[half:], half)

    assert (await finish(client, first)).session_id == session
    await wait_all_tasks_blocked()
    assert await all_entries(daemon.store.inner, session)


async def test_a_damaged_session_of_that_id_is_not_overwritten_and_not_removed(
    daemon: Daemon, client: Client
) -> None:
    """It cannot be read, so nobody knows of it; the store does."""
    session = await busy_session(daemon, client)
    file = await exported(client, session)
    image = await daemon.image()
    async with open_daemon(image) as other:
        other.sessions.parked.pop(session)
        with pytest.raises(StorageError):
            await imported(await other.connect(), file, keepId=True)
        await wait_all_tasks_blocked()
        assert await all_entries(image.inner, session) == await daemon.log(session)


@pytest.mark.parametrize("session", ["../../etc/passwd", "", "A" * 26, "short"])
async def test_an_id_of_another_alphabet_is_not_kept(
    daemon: Daemon, client: Client, session: str
) -> None:
    file = await exported(client, await busy_session(daemon, client))

    def rename(lines: list[Json]) -> None:
        lines[0]["head"]["id"] = session

    with pytest.raises(InvalidParams, match="line 1: its id is none"):
        await imported(client, changed(file, rename), keepId=True)
    assert (await imported(client, changed(file, rename))).session_id


# ---- files that are wrong


def a_line(number: int, **fields: Any) -> Any:
    def change(lines: list[Json]) -> None:
        lines[number - 1]["entry"].update(fields)

    return change


def the_head(**fields: Any) -> Any:
    def change(lines: list[Json]) -> None:
        lines[0]["head"].update(fields)

    return change


def a_cost(*, tokens: int = 5, **fields: int) -> Json:
    usage = {"inputTokens": tokens, "outputTokens": 0}
    return {"provider": "p", "model": "m", "tokens": usage, **fields}


def a_result(**fields: int) -> Json:
    return {"toolCallId": "t", "status": "completed", **fields}


def a_prompt(text: str, **fields: Any) -> Json:
    return {"by": "x", "position": 1, "text": text, **fields}


def without(number: int) -> Any:
    def change(lines: list[Json]) -> None:
        del lines[number - 1]

    return change


def put(number: int, line: Json) -> Any:
    def change(lines: list[Json]) -> None:
        lines[number - 1] = line

    return change


BROKEN = [
    (put(1, {"moorage": "session", "version": 2, "head": {}, "seq": 0}), "line 1: version is 2"),
    (put(1, {"hello": 1}), "line 1: this is no session"),
    (put(1, {"moorage": "session", "version": 1, "head": {"id": "x"}, "seq": 9}), "line 1: head: "),
    (put(3, {"nothing": 1}), "line 3: it is neither"),
    (put(3, {"entry": {"seq": 2}}), "line 3: not what a line says"),
    (without(3), "line 3: entry.seq must be 2"),
    (a_line(3, seq=7), "line 3: entry.seq must be 2"),
    (a_line(3, at="now"), "line 3: not what a line says"),
    (a_line(3, at=1e300), "line 3: not what a line says"),
    (the_head(updated_at=1e300), "line 1: head: "),
    (the_head(created_at=-1.5), "line 1: head: "),
    (the_head(generation=10**30), "line 1: head: "),
    (the_head(generation=-1), "line 1: head: "),
    (the_head(title="x" * 600_000), "line 1: head: it has more than"),
    (the_head(title="x" * 201), "line 1: head: "),
    (the_head(config={"maxContextLength": -5}), "line 1: head: "),
    (the_head(config={"autoCompactThreshold": 0}), "line 1: head: "),
    (the_head(config={"systemPrompt": "x" * 20_000}), "line 1: head: "),
    (the_head(config={"confirmation": {"timeoutSeconds": -1}}), "line 1: head: "),
    (the_head(overrides={"temperature": 9}), "line 1: head: "),
    (the_head(overrides={"model": "x" * 201}), "line 1: head: "),
    (the_head(labels={"a": "x" * 300}), "line 1: head: "),
    (the_head(cwd="work"), "line 1: head.cwd must be an absolute path"),
    (the_head(cwd="/work\0"), "line 1: head.cwd must be an absolute path"),
    (the_head(cwd="/" + "x" * 4096), "line 1: head.cwd must be an absolute path"),
    (the_head(totals={"used": 2**53, "window": 2}), "line 1: head: "),
    (the_head(totals={"used": 5, "window": 0}), "line 1: head: "),
    (the_head(totals={"micros": -1}), "line 1: head: "),
    (
        the_head(totals={"tokens": {"inputTokens": 10**16, "outputTokens": 0}}),
        "line 1: head: ",
    ),
    (a_line(3, kind="cost", body=a_cost(tokens=2**60)), "line 3: entry.body: "),
    (a_line(3, kind="cost", body=a_cost(tokens=-1)), "line 3: entry.body: "),
    (a_line(3, kind="cost", body=a_cost(window=1)), "line 3: entry.body: "),
    (a_line(3, kind="cost", body=a_cost(micros=-1)), "line 3: entry.body: "),
    (a_line(3, kind="grant", body={}), "line 3: entry.kind is grant: that is of a grant"),
    (a_line(3, kind="charge", body={"calls": -9}), "line 3: entry.kind is charge: that"),
    (a_line(3, kind="end", body={}), "line 3: entry.kind is end: that is of a grant"),
    (a_line(3, body=[1]), "line 3: entry.body: "),
    (a_line(3, kind="verdict", body={"outcome": "lost"}), "line 3: entry.body: "),
    (a_line(3, generation=None), "line 3: entry.generation is missing"),
    (a_line(3, generation=-1), "line 3: not what a line says"),
    (a_line(3, kind="tomorrow", body={"seq": 1}), "line 3: entry.body has fields"),
    (a_line(3, kind="message", body={}), "line 3: entry.body.sessionUpdate is missing"),
    (
        a_line(3, kind="message", body={"sessionUpdate": "x" * 1_100_000}),
        "line 3: entry.body has more than",
    ),
    (a_line(2, body={"state": "reborn", "by": "x"}), "line 2: entry.body: "),
    (a_line(3, kind="tomorrow", body={"x": "x" * 1_100_000}), "line 3: entry.body has more than"),
    (a_line(3, kind="result", body=a_result(durationMs=-1)), "line 3: entry.body: "),
    (a_line(3, kind="result", body=a_result(outputBytes=10**30)), "line 3: entry.body: "),
    (a_line(3, kind="result", body=a_result(exitCode=2**40)), "line 3: entry.body: "),
    (a_line(3, kind="prompt", body=a_prompt("x" * 70_000)), "line 3: entry.body.text has more"),
    (
        a_line(3, kind="prompt", body=a_prompt("x", _meta={"x": "x" * 1_100_000})),
        "line 3: entry.body has more than",
    ),
    (
        a_line(3, kind="compaction", body={"upto": 1, "summary": "x" * 140_000}, generation=2),
        "line 3: entry.body: ",
    ),
]


@pytest.mark.parametrize(
    ("change", "problem"), BROKEN, ids=[f"{n}: {p}" for n, (_, p) in enumerate(BROKEN)]
)
async def test_a_broken_line_is_named_and_nothing_of_the_file_stays(
    daemon: Daemon, client: Client, change: Any, problem: str
) -> None:
    session = await busy_session(daemon, client)
    before = await daemon.store.inner.list()
    file = changed(await exported(client, session), change)

    with pytest.raises(InvalidParams) as caught:
        await imported(client, file)

    assert caught.value.message.startswith(f"Invalid params: {problem}")
    await wait_all_tasks_blocked()
    assert await daemon.store.inner.list() == before
    assert await client.listed() == [session]


WRONG: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda file: file[:-1], "the file ends in the middle of it"),
    "without end": (
        lambda file: file[: file.rindex(b'{"end"')],
        "the file is cut: its last line is missing",
    ),
    "more behind": (lambda file: file + b"{}\n", "nothing may follow the last line"),
    "changed": (lambda file: file.replace(b"a question", b"a QUESTION"), "bad checksum"),
    "empty": (lambda _: b"", "the file ends in the middle of it"),
    "blank line": (lambda file: b"\n" + file, "line 1: not what a line says"),
    "not text": (lambda file: b"\xff" + file, "line 1: not what a line says"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_file_that_is_not_what_was_written_is_refused(
    daemon: Daemon, client: Client, what: str
) -> None:
    session = await busy_session(daemon, client)
    before = await daemon.store.inner.list()
    spoil, problem = WRONG[what]
    file = spoil(await exported(client, session))

    with pytest.raises(InvalidParams, match=problem):
        await imported(client, file)

    await wait_all_tasks_blocked()
    assert await daemon.store.inner.list() == before


async def test_a_cursor_that_was_never_given_is_refused(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)

    for cursor in ("", "1", "1.1.1.1.zz", "9" * 40, f"5.9.1.0.{'0' * 63}"):
        params = {"sessionId": session, "cursor": cursor}
        with pytest.raises(InvalidParams):
            await client.call("_moorage/session/export", params, dict[str, Any])


# ---- how old it is


async def test_an_old_session_that_was_just_imported_is_kept_for_its_days() -> None:
    async with open_daemon(retention=Retention(days=30)) as daemon:
        client = await daemon.connect()
        file = await exported(client, await busy_session(daemon, client))
        longago = changed(file, the_head(created_at=5.0, updated_at=6.0))

        copy = (await imported(client, longago)).session_id
        await trio.sleep(29 * DAY)

        assert copy in await client.listed()
        head = daemon.sessions.head(copy)
        assert head is not None
        assert (head.created_at, head.updated_at > 6.0) == (5.0, True)
        await trio.sleep(2 * DAY)
        assert copy not in await client.listed()


async def test_a_session_of_the_future_grows_old_from_now_on() -> None:
    async with open_daemon(retention=Retention(days=30)) as daemon:
        client = await daemon.connect()
        file = await exported(client, await busy_session(daemon, client))
        ahead = changed(file, the_head(created_at=9e9, updated_at=9e9))

        copy = (await imported(client, ahead)).session_id

        head = daemon.sessions.head(copy)
        assert head is not None
        assert head.created_at <= head.updated_at < 9e9
        await trio.sleep(31 * DAY)
        assert copy not in await client.listed()


async def test_entries_of_the_future_are_of_the_moment_of_the_import(
    daemon: Daemon, client: Client
) -> None:
    session = await busy_session(daemon, client)

    def ahead(lines: list[Json]) -> None:
        for line in lines[2:4]:
            line["entry"]["at"] = 9e9

    result = await imported(client, changed(await exported(client, session), ahead))

    before, found = await daemon.log(session), await daemon.log(result.session_id)
    assert [e.at for e in found[1:3]] == [now(), now()]
    assert [e.at for e in found[3:-1]] == [e.at for e in before[3:]]
    assert result.notes == ["2 entries were of the future: they are of the moment of the import"]
    [turn] = await client.turns(result.session_id)
    assert turn.queued_at <= now()


# ---- parts, and clients that go


async def test_parts_come_in_their_order_and_one_at_a_time(daemon: Daemon, client: Client) -> None:
    file = await exported(client, await busy_session(daemon, client))
    import_id = await begin(client)

    with pytest.raises(InvalidParams, match="offset must be 0"):
        await send(client, import_id, file, 5)
    await send(client, import_id, file[:100])
    with pytest.raises(InvalidParams, match="offset must be 100"):
        await send(client, import_id, file[:100])
    daemon.store.hold()
    params: Json = {"importId": import_id, "offset": 100, "data": ""}
    data = base64.b64encode(file[100:]).decode()
    client.start("_moorage/import/part", params | {"data": data}, dict[str, Any])
    with pytest.raises(Busy):
        await send(client, import_id, b"", len(file))
    with pytest.raises(Busy):
        await finish(client, import_id)
    daemon.store.release()
    await wait_all_tasks_blocked()
    assert (await finish(client, import_id)).entries


async def test_a_client_that_goes_leaves_nothing_behind(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)
    file = await exported(client, session)
    guest = await daemon.connect()
    await send(guest, await begin(guest), file[: len(file) // 2])
    assert len(await daemon.store.inner.list()) == 2
    assert await client.listed() == [session], "nobody sees half a session"

    guest.wire.close()
    await wait_all_tasks_blocked()

    assert len(await daemon.store.inner.list()) == 1


async def test_a_crash_in_the_middle_leaves_nothing_behind(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)
    file = await exported(client, session)
    await send(client, await begin(client), file[: len(file) - 50])
    image = await daemon.image()
    assert len(await image.inner.list()) == 2

    async with open_daemon(image) as restarted:
        assert await (await restarted.connect()).listed() == [session]
        assert len(await image.inner.list()) == 1


async def test_an_import_is_of_the_connection_that_began_it(daemon: Daemon, client: Client) -> None:
    import_id = await begin(client)
    other = await daemon.connect()

    with pytest.raises(NotFound):
        await send(other, import_id, b"x")
    with pytest.raises(NotFound):
        await finish(other, import_id)


async def test_so_many_files_are_read_at_once_and_a_silent_one_makes_room(
    daemon: Daemon, client: Client
) -> None:
    first = await begin(client)
    for _ in range(7):
        await begin(client)
    with pytest.raises(Overloaded):
        await begin(client)
    await trio.sleep(61)

    await begin(client)

    with pytest.raises(NotFound):
        await finish(client, first)


async def test_on_a_full_disk_nothing_is_imported(daemon: Daemon, client: Client) -> None:
    session = await busy_session(daemon, client)
    file = await exported(client, session)
    import_id = await begin(client)
    daemon.store.fill()

    with pytest.raises(RpcError) as caught:
        await send(client, import_id, file)

    assert isinstance(caught.value, StorageError)
    with pytest.raises(StorageError):
        await begin(client)
    daemon.store.make_room()
    await wait_all_tasks_blocked()
    assert await client.listed() == [session]


async def test_a_part_of_the_log_that_cannot_be_read_ends_the_export(
    daemon: Daemon, client: Client
) -> None:
    session = await busy_session(daemon, client)
    daemon.store.unreadable_entries.add(session)

    with pytest.raises(RpcError) as caught:
        await exported(client, session)

    assert session not in caught.value.message
    assert StoreUnreadable.__name__ not in caught.value.message


async def test_exporting_what_was_imported_gives_the_same_entries(
    daemon: Daemon, client: Client
) -> None:
    session = await busy_session(daemon, client)
    once = await exported(client, session)

    copy = (await imported(client, once)).session_id
    twice = await exported(client, copy)

    entries = [line for line in lines_of(twice) if "entry" in line]
    assert entries[:-1] == [line for line in lines_of(once) if "entry" in line]
    assert entries[-1]["entry"]["kind"] == "imported"
    again = await exported(client, (await imported(client, twice)).session_id)
    assert [line for line in lines_of(again) if "entry" in line][:-1] == entries
