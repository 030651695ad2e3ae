"""What a client names or attaches beside its words: MCP servers, and `_meta` that is not ours."""

from typing import Any

import msgspec
import pytest

from moorage_protocol.acp import Empty
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import LoadResult, NewResult
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.twin import Client, Json, prompt_params


pytestmark = pytest.mark.trio(run=simulated)

SERVER: Json = {"name": "files", "command": "/bin/srv", "args": ["-x"], "env": []}
SECRET = "s3cret-of-a-server"
KEYED: Json = {**SERVER, "name": "keyed", "env": [{"name": "KEY", "value": SECRET}]}


async def new(client: Client, *servers: Json | None) -> str:
    params: Json = {"cwd": "/work", "mcpServers": [*servers] if None not in servers else None}
    return (await client.call("session/new", params, NewResult)).session_id


async def turn(daemon: Daemon, client: Client, session: str, **params: Any) -> None:
    """One whole turn."""
    given = prompt_params(session) | params
    reply = client.start("session/prompt", given, dict[str, Any])
    (await daemon.puppet.next()).finish()
    await reply.result()


def failures(client: Client, session: str) -> list[str]:
    """The titles of tool calls that were shown as failed."""
    updates = [p["update"] for p in client.of_session(session) if "update" in p]
    return [u["title"] for u in updates if u["sessionUpdate"] == "tool_call" and "failed" in str(u)]


async def test_servers_that_nobody_calls_are_told_of_once(daemon: Daemon, client: Client) -> None:
    session = await new(client, SERVER, KEYED)
    assert failures(client, session) == []

    await turn(daemon, client, session)
    await turn(daemon, client, session)

    assert failures(client, session) == ["MCP servers are not connected: files, keyed"]
    assert [server.name for server in daemon.session(session).servers] == ["files", "keyed"]


async def test_no_servers_are_nothing_to_tell_of(daemon: Daemon, client: Client) -> None:
    for session in (await new(client), await new(client, None)):
        await turn(daemon, client, session)
        assert failures(client, session) == []


async def test_a_session_keeps_what_was_named_first_while_it_is_in_memory(
    daemon: Daemon, client: Client
) -> None:
    session = await new(client, SERVER)
    params: Json = {"sessionId": session, "cwd": "/work", "mcpServers": [KEYED]}

    await client.call("session/load", params, LoadResult)
    assert [server.name for server in daemon.session(session).servers] == ["files"]
    await client.close(session)
    await client.call("session/resume", params, LoadResult)

    assert [server.name for server in daemon.session(session).servers] == ["keyed"]


async def test_keys_of_servers_are_never_written(daemon: Daemon, client: Client) -> None:
    session = await new(client, KEYED)
    await turn(daemon, client, session)

    stored = await daemon.store.load(session)
    written = [*(entry.body for entry in await daemon.log(session)), msgspec.json.encode(stored)]

    assert not any(SECRET.encode() in body for body in written)


@pytest.mark.parametrize(
    "server",
    [
        {"type": "http", "name": "n", "url": "http://x", "headers": []},
        {"type": "sse", "name": "n", "url": "http://x", "headers": []},
        {"type": "acp", "name": "n", "serverId": "x"},
        {"name": "n"},
        {"command": "c"},
        {"name": "n", "command": 5},
        {"name": "n", "command": "c", "args": [7]},
        {"name": "x" * 100_000, "command": "c"},
        7,
    ],
)
async def test_servers_of_another_kind_are_refused(
    daemon: Daemon, client: Client, server: Json
) -> None:
    with pytest.raises(InvalidParams):
        await new(client, SERVER, server)

    assert daemon.sessions.live == {}


async def test_too_many_servers_are_refused(client: Client) -> None:
    with pytest.raises(InvalidParams):
        await new(client, *[SERVER] * 65)


async def test_server_that_says_it_is_a_program_is_one(daemon: Daemon, client: Client) -> None:
    session = await new(client, {"type": "stdio", **SERVER})

    assert daemon.session(session).servers[0].command == "/bin/srv"


# ---- `_meta`

TRACE: Json = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


async def test_what_is_not_ours_reaches_the_agent_and_stays_on_record(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    meta: Json = {**TRACE, "x.dev": {"deep": [1, None]}, "moorage": {"promptId": "p"}}

    await turn(daemon, client, session, _meta=meta)

    given = daemon.puppet.performances[0].prompt.meta
    assert given is not None
    kept: Json = {key: value for key, value in meta.items() if key != "moorage"}
    assert msgspec.json.decode(given) == kept
    [entry] = await client.entries(session, kinds=["prompt"])
    assert (entry["_meta"], entry["promptId"]) == (kept, "p")


@pytest.mark.parametrize(
    "meta", [None, {}, {"moorage": {}}, 7, [1], {"big": "x" * 20_000}], ids=repr
)
async def test_what_is_nothing_or_too_much_is_left_out(
    daemon: Daemon, client: Client, meta: object
) -> None:
    session = await client.new()

    await turn(daemon, client, session, _meta=meta)

    assert daemon.puppet.performances[0].prompt.meta is None
    [entry] = await client.entries(session, kinds=["prompt"])
    assert "_meta" not in entry


async def test_prompt_that_waits_keeps_it_over_a_restart(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    await daemon.puppet.next()
    params = prompt_params(session) | {"_meta": TRACE}
    waiting = client.start("session/prompt", params, dict[str, Any])
    await client.until(lambda: str(client.messages).count("'kind': 'prompt'") == 2)

    async with open_daemon(await daemon.image()) as restarted:
        other = await restarted.connect()
        entries = await other.entries(session, kinds=["prompt"])

    assert [entry.get("_meta") for entry in entries] == [None, TRACE]
    assert not waiting.arrived.is_set()


async def test_what_is_ours_is_held_to_its_shape_there_as_ever(client: Client) -> None:
    session = await client.new()
    params = prompt_params(session) | {"_meta": {"moorage": {"onBusy": "refuze"}}}

    with pytest.raises(InvalidParams, match="onBusy"):
        await client.call("session/prompt", params, Empty)
