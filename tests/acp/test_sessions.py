"""Sessions: lines 21 to 36 of what the protocol asks of an agent."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.settings import ClosePolicy
from moorage_protocol.acp import Empty, SessionStatus, SessionStatusResult, StopReason
from moorage_protocol.errors import InvalidParams, MethodNotFound, NotFound
from moorage_protocol.moorage import ListResult, LoadResult, NewResult
from tests.acp.raw import RawClient
from tests.acp.shapes import updates
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, saying
from tests.daemon.twin import Client, Json


simulated_clock = pytest.mark.trio(run=simulated)


async def turn(daemon: Daemon, client: Client, session: str, words: str = "hello") -> None:
    """One whole turn of the puppet, which thinks, calls a tool, and answers."""
    reply = client.prompt(session, words)
    performance = await daemon.puppet.next()
    await performance.do(lambda stage: stage.think("hm"))
    await performance.do(Lever().call())
    await performance.do(saying(f"you said {words}"))
    performance.finish()
    await reply.result()


def since(client: Client, start: int) -> list[Json]:
    """The updates that a client was sent behind its first so many messages."""
    return [m["params"]["update"] for m in client.messages[start:] if m in updates(client)]


@simulated_clock
async def test_line_21_the_baseline_is_all_that_a_client_needs(daemon: Daemon) -> None:
    """A client that says nothing of what it can, and uses nothing that was advertised."""
    client = await daemon.connect(plain=True)
    params: Json = {"cwd": "/work", "mcpServers": []}
    session = (await client.call("session/new", params, NewResult)).session_id

    reply = client.prompt(session, "hi")
    performance = await daemon.puppet.next()
    await performance.say("hello ")
    await client.until(lambda: client.text(session) == "hello ")
    client.notify("session/cancel", {"sessionId": session})

    assert (await reply.result()).stop_reason is StopReason.CANCELLED


@simulated_clock
async def test_line_22_an_id_is_never_given_twice(daemon: Daemon, client: Client) -> None:
    before = [await client.new() for _ in range(50)]
    await client.delete(before[0])

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect(plain=True)
        after = [await other.new() for _ in range(50)]

    assert len({*before, *after}) == 100


async def test_line_23_the_directory_of_the_request_is_used(
    scripted: Daemon, tmp_path: Path
) -> None:
    client = await scripted.connect(plain=True)
    session = await client.new(str(tmp_path))
    reply = client.prompt(session, "/run pwd > where.txt")
    client.choose(await client.question())
    await reply.result()
    (tmp_path / "sub").mkdir()
    await client.prompt(session, "/read sub/../where.txt").result()

    assert (tmp_path / "where.txt").read_text() == f"{tmp_path}\n"
    for cwd in ("relative", "", "./x", "~"):
        with pytest.raises(InvalidParams):
            await client.new(cwd)
    places = [
        at["path"] for m in updates(client) for at in m["params"]["update"].get("locations", [])
    ]
    assert places
    assert all(place.startswith("/") for place in places)
    [row] = (await client.call("session/list", {}, ListResult)).sessions
    assert row.cwd == str(tmp_path)


@simulated_clock
async def test_line_24_mcp_servers_that_are_programs_are_taken_and_others_refused(
    daemon: Daemon, client: Client
) -> None:
    """None is connected, as no agent calls their tools: the user is told so."""
    server: Json = {"name": "files", "command": "/bin/srv", "args": [], "env": []}
    params: Json = {"cwd": "/work", "mcpServers": [server]}
    session = (await client.call("session/new", params, NewResult)).session_id

    await turn(daemon, client, session)

    [call] = [u for u in since(client, 0) if u.get("toolCallId", "").startswith("servers")]
    assert (call["sessionUpdate"], call["status"]) == ("tool_call", "failed")
    assert "files" in call["title"]
    for kind in ("http", "sse"):
        remote: Json = {"type": kind, "name": "n", "url": "http://x", "headers": []}
        with pytest.raises(InvalidParams, match=kind):
            await client.call("session/new", params | {"mcpServers": [remote]}, NewResult)


@simulated_clock
async def test_line_25_load_replays_all_in_order_and_only_then_answers(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await turn(daemon, client, session, "one")
    await turn(daemon, client, session, "two")
    other = await daemon.connect(plain=True)

    reply = other.start_load(session)
    await reply.result()
    await wait_all_tasks_blocked()

    replayed = [m["params"]["update"] for m in other.messages[: reply.place] if "params" in m]
    assert [update["sessionUpdate"] for update in replayed] == [
        *("user_message_chunk", "agent_thought_chunk"),
        *("tool_call", "tool_call_update", "tool_call_update"),
        *("agent_message_chunk", "session_info_update"),
        *("user_message_chunk", "agent_thought_chunk"),
        *("tool_call", "tool_call_update", "tool_call_update", "agent_message_chunk"),
    ]
    texts = [u["content"]["text"] for u in replayed if isinstance(u.get("content"), dict)]
    assert texts == ["one", "hm", "you said one", "two", "hm", "you said two"]
    assert [u["status"] for u in replayed if "status" in u][-1] == "completed"
    assert isinstance(other.messages[reply.place]["result"], dict)
    live = since(client, 0)
    told = ("user_message_chunk", "available_commands_update")
    assert [u for u in live if u["sessionUpdate"] not in told] == [
        u for u in replayed if u["sessionUpdate"] not in told
    ]


@simulated_clock
async def test_line_26_resume_tells_nothing_of_the_past(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await turn(daemon, client, session)
    other = await daemon.connect(plain=True)

    await other.resume(session)
    await wait_all_tasks_blocked()

    kinds = [update["sessionUpdate"] for update in since(other, 0)]
    assert kinds == ["available_commands_update", "session_info_update"]
    assert "result" in other.messages[1], "the answer to it is the first of all"


@simulated_clock
async def test_line_27_no_update_precedes_the_answer_to_session_new(
    daemon: Daemon, client: Client
) -> None:
    """Not even with a prompt and a mode right behind it, from others too, on a slow disk."""
    other = await daemon.connect()
    daemon.store.hold()
    reply = client.start_new()
    await wait_all_tasks_blocked()
    [session] = daemon.sessions.live
    client.prompt(session, "eager")
    params = {"sessionId": session, "modeId": "read-only"}
    client.start("session/set_mode", params, Empty)
    await wait_all_tasks_blocked()
    daemon.store.release()
    (await daemon.puppet.next()).finish()
    await reply.result()
    await wait_all_tasks_blocked()

    named = [i for i, m in enumerate(client.messages) if session in str(m)]
    assert named[0] == reply.place
    assert len(named) > 3
    assert not any(session in str(m) for m in other.messages)


@simulated_clock
async def test_line_28_what_is_not_there_is_not_loaded(daemon: Daemon, client: Client) -> None:
    killed = await client.new()
    await (await daemon.connect()).kill(killed)
    before = await client.listed()

    for session in ("a" * 26, killed, "", "../x"):
        params: Json = {"sessionId": session, "cwd": "/work", "mcpServers": []}
        for method in ("session/load", "session/resume"):
            with pytest.raises(NotFound) as caught:
                await client.call(method, params, LoadResult)
            assert caught.value.code == -32002

    assert await client.listed() == before


@simulated_clock
async def test_line_29_the_list_is_filtered_and_paged(daemon: Daemon, client: Client) -> None:
    assert (await client.call("session/list", {}, dict[str, Any])) == {"sessions": []}
    made = {await client.new("/one") for _ in range(130)} | {await client.new("/one/two")}

    async def page(**params: Any) -> tuple[list[str], str | None]:
        found = await client.call("session/list", params, dict[str, Any])
        return [row["sessionId"] for row in found["sessions"]], found.get("nextCursor")

    first, cursor = await page(cwd="/one")
    second, end = await page(cwd="/one", cursor=cursor)
    assert (len(first), len(second), end) == (100, 30, None)
    assert len({*first, *second}) == 130
    [(inner, _)] = [await page(cwd="/one/two")]
    assert {*first, *second, *inner} == made
    assert await page(cwd="/") == ([], None)
    for bad in ("nonsense", "", "0", "ü"):
        if bad:
            with pytest.raises(InvalidParams):
                await page(cursor=bad)
    await client.load(inner[0])


@simulated_clock
async def test_line_30_listing_neither_loads_nor_changes_anything(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await turn(daemon, client, session)
    await (await daemon.connect()).close(session)
    [before] = (await client.call("session/list", {}, ListResult)).sessions
    log = await daemon.log(session)

    for params in ({}, {"cwd": "/work"}, {"archived": "include"}):
        [after] = (await client.call("session/list", params, ListResult)).sessions
        assert after == before

    assert session in daemon.sessions.parked
    assert await daemon.log(session) == log


@simulated_clock
async def test_line_31_deleting_is_final_and_asking_again_is_fine(client: Client) -> None:
    kept, gone = await client.new(), await client.new()

    for session in (gone, gone, "a" * 26, ""):
        await client.delete(session)

    assert await client.listed() == [kept]
    with pytest.raises(NotFound):
        await client.load(gone)


@simulated_clock
async def test_line_32_close_cancels_what_runs_and_the_session_comes_back_on_use() -> None:
    """Where the settings advertise it; see line 34 for where they do not."""
    async with open_daemon(close_policy=ClosePolicy.CLOSE) as daemon:
        client = await daemon.connect(plain=True)
        session = await client.new()
        reply = client.prompt(session)
        await daemon.puppet.next()

        await client.close(session)

        assert (await reply.result()).stop_reason is StopReason.CANCELLED
        assert reply.place < len(client.messages) - 1, "the prompt is answered first"
        params = {"sessionId": session}
        status = await client.call("session/status", params, SessionStatusResult)
        assert status.status is SessionStatus.SAVED
        await turn(daemon, client, session)
        await client.close(session)
        await client.load(session)
        await turn(daemon, client, session)


@simulated_clock
async def test_line_33_additional_directories_are_not_offered_and_not_taken(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    params: Json = {"cwd": "/work", "mcpServers": [], "additionalDirectories": ["/more"]}

    raw = RawClient(daemon.wire())
    daemon.clients.start_soon(raw.run)
    able = (await raw.initialize())["agentCapabilities"]["sessionCapabilities"]

    assert "additionalDirectories" not in able
    for method in ("session/new", "session/load", "session/resume"):
        with pytest.raises(InvalidParams, match="additionalDirectories"):
            await client.call(method, params | {"sessionId": session}, Empty)
    nothings: list[list[str] | None] = [[], None]
    for nothing in nothings:
        await client.call("session/new", params | {"additionalDirectories": nothing}, NewResult)


@pytest.mark.parametrize(
    "method",
    [
        "session/close",
        "session/fork",
        "logout",
        "auth/status",
        "providers/list",
        "providers/set",
        "providers/disable",
        "mcp/message",
        "session/set_model",
        "_session/steering",
    ],
)
@simulated_clock
async def test_line_34_what_is_not_advertised_is_not_there(client: Client, method: str) -> None:
    session = await client.new()

    with pytest.raises(MethodNotFound):
        await client.call(method, {"sessionId": session}, Empty)


@simulated_clock
async def test_line_35_the_first_exchange_gives_a_title_and_a_time(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()

    await turn(daemon, client, session, "what is\n this?")

    [info] = [u for u in since(client, 0) if u["sessionUpdate"] == "session_info_update"]
    assert info["title"] == "what is this?"
    assert datetime.fromisoformat(info["updatedAt"]).tzinfo is not None


@simulated_clock
async def test_line_36_status_changes_nothing_and_names_what_it_does_not_know(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await (await daemon.connect()).close(session)
    params = {"sessionId": session}

    for _ in range(3):
        status = await client.call("session/status", params, SessionStatusResult)
        assert status.status is SessionStatus.SAVED
    assert session in daemon.sessions.parked
    reply = client.start("session/status", {"sessionId": "nobody"}, Empty)
    with pytest.raises(NotFound):
        await reply.result()
    assert reply.message is not None
    error = reply.message["error"]
    assert (error["code"], error["data"]["sessionId"]) == (-32002, "nobody")
