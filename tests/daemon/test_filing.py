"""Titles, status and the archive: what a list keeps of sessions, and what the first turn gives."""

from datetime import datetime
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import ModelCall, Stage
from moorage_daemon.identity import Principal
from moorage_protocol.acp import Empty, SessionStatus, SessionStatusResult, SetTitleResult
from moorage_protocol.errors import InvalidParams, NotFound, SessionState
from moorage_protocol.moorage import Cause, ListResult, LoadResult, Outcome, Role, TokenUsage
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)


async def exchange(daemon: Daemon, client: Client, session: str, text: str = "hello") -> None:
    """One whole turn."""
    reply = client.prompt(session, text)
    (await daemon.puppet.next()).finish()
    await reply.result()


def infos(client: Client, session: str) -> list[Json]:
    """What a client was told of a session by `session_info_update` entries, in order."""
    told = [p["update"] for p in client.of_session(session) if "update" in p and "_meta" in p]
    return [update for update in told if update["sessionUpdate"] == "session_info_update"]


async def counting(stage: Stage) -> None:
    """The act of telling what a turn took."""
    tokens = TokenUsage(input_tokens=30, output_tokens=12, reasoning_tokens=5)
    await stage.tell_usage(ModelCall("provider", "model", tokens, window=4096))


async def status(client: Client, session: str) -> SessionStatus:
    found = await client.call("session/status", {"sessionId": session}, SessionStatusResult)
    return found.status


async def set_title(client: Client, session: str, title: str) -> str:
    params = {"sessionId": session, "title": title}
    return (await client.call("session/set_title", params, SetTitleResult)).title


async def archive(client: Client, session: str, *, again: bool = True) -> None:
    method = "session/archive" if again else "session/unarchive"
    await client.call(method, {"sessionId": session}, Empty)


async def listed(client: Client, **params: Any) -> list[tuple[str, bool]]:
    result = await client.call("session/list", params, ListResult)
    return [(row.session_id, row.archived) for row in result.sessions]


# ---- what the first turn gives


async def test_the_title_is_told_at_the_end_of_the_first_turn_and_before_its_answer(
    daemon: Daemon, client: Client
) -> None:
    plain = await daemon.connect(plain=True)
    session = await client.new()
    await plain.resume(session)

    reply = client.prompt(session, "  what is\nthis about?  ")
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    assert infos(client, session) == infos(plain, session) == []
    performance.finish()
    await reply.result()
    await wait_all_tasks_blocked()

    for seer in (client, plain):
        [info] = infos(seer, session)
        assert info["title"] == "what is this about?"
        assert datetime.fromisoformat(info["updatedAt"]).tzinfo is not None
    place = next(i for i, m in enumerate(client.messages) if "session_info_update" in str(m))
    assert place < reply.place


async def test_the_title_is_told_once(daemon: Daemon, client: Client) -> None:
    session = await client.new()

    for text in ("first", "second"):
        await exchange(daemon, client, session, text)

    assert [info["title"] for info in infos(client, session)] == ["first"]


async def test_who_comes_without_the_history_is_told_the_title(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await exchange(daemon, client, session, "the title")
    other = await daemon.connect(plain=True)

    await other.resume(session)
    await other.until(lambda: "the title" in str(other.messages))

    [update] = [p["update"] for p in other.of_session(session) if "title" in p["update"]]
    assert update["sessionUpdate"] == "session_info_update"


async def test_usage_is_part_of_the_answer_of_every_client(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    plain = await daemon.connect(plain=True)
    for asker in (client, plain):
        reply = asker.prompt(session)
        performance = await daemon.puppet.next()
        await performance.do(counting)
        performance.finish()
        await reply.result()

        assert reply.message is not None
        assert reply.message["result"]["usage"] == {
            "totalTokens": 42,
            "inputTokens": 30,
            "outputTokens": 12,
            "thoughtTokens": 5,
        }
    updates = [p["update"] for p in plain.of_session(session) if "used" in p["update"]]
    assert [(u["sessionUpdate"], u["used"], u["size"]) for u in updates] == [
        ("usage_update", 42, 4096)
    ]


async def test_usage_that_nobody_counted_is_not_in_the_answer(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).finish()
    await reply.result()

    assert reply.message is not None
    assert "usage" not in reply.message["result"]


# ---- titles


async def test_a_title_is_stored_told_and_listed(daemon: Daemon, client: Client) -> None:
    session = await client.new()

    assert await set_title(client, session, "  my\n title ") == "my title"
    await exchange(daemon, client, session, "something else")

    assert [info["title"] for info in infos(client, session)] == ["my title", "my title"]
    rows = await client.call("session/list", {}, ListResult)
    assert [row.title for row in rows.sessions] == ["my title"]
    async with open_daemon(await daemon.image()) as restarted:
        assert (await (await restarted.connect()).call("session/list", {}, ListResult)).sessions[
            0
        ].title == "my title"


async def test_a_long_title_is_cut_and_a_blank_one_refused(client: Client) -> None:
    session = await client.new()

    assert await set_title(client, session, "x" * 1000) == "x" * 200
    for blank in ("", " \n\t"):
        with pytest.raises(InvalidParams):
            await set_title(client, session, blank)
    with pytest.raises(NotFound):
        await set_title(client, "a" * 26, "title")


# ---- status


async def test_status_says_whether_it_is_in_memory_and_changes_nothing(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    assert await status(client, session) is SessionStatus.OPEN
    await client.close(session)

    for _ in range(2):
        assert await status(client, session) is SessionStatus.SAVED

    assert session in daemon.sessions.parked
    other = await daemon.connect()
    await client.load(session)
    assert await status(other, session) is SessionStatus.OPEN
    assert other.of_session(session) == []
    assert [row.attached for row in (await client.live()).sessions] == [1]


async def test_status_of_what_is_not_there_says_again_what_was_asked_for(
    daemon: Daemon, client: Client
) -> None:
    killed, unknown, long = await client.new(), "a" * 26, "b" * 1000
    await client.kill(killed)
    stranger = await daemon.connect(Principal("somebody", Role.OWNER))
    foreign = await client.new()

    for asker, asked in ((client, killed), (client, unknown), (stranger, foreign)):
        reply = asker.start("session/status", {"sessionId": asked}, Empty)
        with pytest.raises(NotFound):
            await reply.result()
        assert reply.message is not None
        data = {"code": "not_found", "retryable": False, "sessionId": asked}
        assert reply.message["error"]["data"] == data
    reply = client.start("session/status", {"sessionId": long}, Empty)
    with pytest.raises(NotFound):
        await reply.result()
    assert reply.message is not None
    assert set(reply.message["error"]["data"]) == {"code", "retryable"}


# ---- the archive


async def test_an_archived_session_is_off_the_list_until_it_is_put_back(
    daemon: Daemon, client: Client
) -> None:
    kept, filed = await client.new(), await client.new()

    await archive(client, filed)

    assert await listed(client) == await listed(client, archived=None) == [(kept, False)]
    assert await listed(client, archived="only") == [(filed, True)]
    assert sorted(await listed(client, archived="include")) == sorted(
        [
            (kept, False),
            (filed, True),
        ]
    )
    with pytest.raises(InvalidParams):
        await listed(client, archived="maybe")
    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        assert await listed(other) == [(kept, False)]
        await archive(other, filed, again=False)
        assert len(await listed(other)) == 2


async def test_archiving_closes_first_and_is_idempotent(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    await daemon.puppet.next()

    await archive(client, session)

    verdict = await reply.verdict()
    assert (verdict.outcome, verdict.cause) == (Outcome.CANCELLED, Cause.SESSION_REMOVED)
    assert await status(client, session) is SessionStatus.SAVED
    await archive(client, session)
    await archive(client, session, again=False)
    await archive(client, session, again=False)
    entries = await client.entries(session, kinds=["archive"])
    assert [entry["archived"] for entry in entries] == [True, False]


async def test_an_archived_session_can_be_loaded_with_all_of_its_history(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await exchange(daemon, client, session, "remember this")
    await archive(client, session)

    other = await daemon.connect(plain=True)
    params: Json = {"sessionId": session, "cwd": "/work", "mcpServers": []}
    await other.call("session/load", params, LoadResult)

    assert "remember this" in str(other.messages)


async def test_what_is_not_there_cannot_be_archived(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    closing = client.start_close(session)
    archiving = client.start("session/archive", {"sessionId": session}, Empty)

    await closing.result()
    with pytest.raises(SessionState):  # it came while the session was being closed
        await archiving.result()
    for again in (True, False):
        with pytest.raises(NotFound):
            await archive(client, "a" * 26, again=again)


# ---- authentication


async def test_there_is_no_method_to_authenticate_by(client: Client) -> None:
    with pytest.raises(InvalidParams, match="no method is offered"):
        await client.call("authenticate", {"methodId": "any"}, Empty)
