"""Getting acquainted: lines 14 to 20 of what the protocol asks of an agent."""

import json
from itertools import product
from pathlib import Path

import pytest
from trio.testing import wait_all_tasks_blocked

import moorage_daemon
from moorage_protocol.acp import Empty
from tests.acp.raw import RawClient
from tests.daemon.harness import Daemon, simulated
from tests.daemon.twin import Client, Json


simulated_clock = pytest.mark.trio(run=simulated)

BASELINE = {"session/update", "session/request_permission", "$/cancel_request"}
GATED = {  # updates that only some clients may be sent
    "notice",
    "compaction_update",
    "compaction_summary_chunk",
    "plan_update",
    "plan_removed",
    "subagent_update",
}


def unheard_of(daemon: Daemon) -> RawClient:
    """A client that has said nothing yet."""
    raw = RawClient(daemon.wire())
    daemon.clients.start_soon(raw.run)
    return raw


@pytest.mark.parametrize(("asked", "agreed"), [(1, 1), (2, 1), (99, 1), (65535, 1)])
@simulated_clock
async def test_line_14_the_version_asked_for_or_the_latest_there_is(
    daemon: Daemon, asked: int, agreed: int
) -> None:
    result = await unheard_of(daemon).initialize(protocolVersion=asked)

    assert result["protocolVersion"] == agreed


@simulated_clock
async def test_line_15_what_is_advertised_is_served_and_the_agent_has_a_name(
    daemon: Daemon,
) -> None:
    raw = unheard_of(daemon)
    result = await raw.initialize()

    able = result["agentCapabilities"]
    assert able["loadSession"] is True
    assert set(able["sessionCapabilities"]) == {
        "list",
        "delete",
        "resume",
        "title",
        "status",
        "archive",
    }
    assert able["promptCapabilities"] == {"embeddedContext": True}
    assert set(able) == {"loadSession", "promptCapabilities", "sessionCapabilities", "_meta"}
    assert set(result["agentInfo"]) == {"name", "title", "version"}
    for method in ("list", "delete", "resume", "set_title", "status", "archive", "unarchive"):
        answer = await raw.answer({"id": 1, "method": f"session/{method}", "params": {}})
        assert answer.get("error", {}).get("code") in (None, -32602), "known, and params checked"


CAPABILITIES: dict[str, Json] = {
    "none": {},
    "readTextFile": {"fs": {"readTextFile": True}},
    "writeTextFile": {"fs": {"writeTextFile": True}},
    "fs": {"fs": {"readTextFile": True, "writeTextFile": True}},
    "terminal": {"terminal": True},
    "all": {
        "fs": {"readTextFile": True, "writeTextFile": True},
        "terminal": True,
        "auth": {"terminal": True},
        "session": {"configOptions": {"boolean": {}}, "notices": {}, "compaction": {}},
        "elicitation": {"form": {}, "url": {}},
        "plan": {},
        "subagents": {},
    },
}
LENT: dict[str, set[str]] = {
    "none": set(),
    "readTextFile": {"fs/read_text_file"},
    "writeTextFile": {"fs/write_text_file"},
    "fs": {"fs/read_text_file", "fs/write_text_file"},
    "terminal": {"terminal/create", "terminal/output", "terminal/wait_for_exit",
                 "terminal/release"},
}  # fmt: skip
LENT["all"] = LENT["fs"] | LENT["terminal"]

ANSWERS: dict[str, Json] = {
    "session/request_permission": {"outcome": {"outcome": "selected", "optionId": "allow"}},
    "fs/read_text_file": {"content": "typed"},
    "fs/write_text_file": {},
    "terminal/create": {"terminalId": "t"},
    "terminal/output": {"output": "there", "truncated": False, "exitStatus": {"exitCode": 0}},
    "terminal/wait_for_exit": {"exitCode": 0},
    "terminal/kill": {},
    "terminal/release": {},
}


async def everything(daemon: Daemon, folder: Path, capabilities: Json) -> Client:
    """A client that goes through all that the scripted agent does."""
    client = await daemon.connect(plain=True, capabilities=capabilities)
    daemon.clients.start_soon(answering, client)
    (folder / "a.txt").write_text("saved")
    session = await client.new(str(folder))
    for words in ("hi", "/plan", "/read a.txt", "/write b.txt x", "/run true", "/terminal true"):
        reply = client.prompt(session, words)
        assert (await reply.result()).stop_reason == "end_turn"
    await client.call("session/set_mode", {"sessionId": session, "modeId": "read-only"}, Empty)
    return client


async def answering(client: Client) -> None:
    """Answer all that the client is asked for, at once."""
    answered = 0
    while not client.gone:
        requests = [m for m in client.messages if "method" in m and "id" in m]
        for request in requests[answered:]:
            client.reply(request, ANSWERS[request["method"]])
        answered = len(requests)
        await client.news()


@pytest.mark.parametrize("able", CAPABILITIES)
async def test_line_16_what_a_client_did_not_say_it_can_is_not_asked_of_it(
    scripted: Daemon, tmp_path: Path, able: str
) -> None:
    client = await everything(scripted, tmp_path, CAPABILITIES[able])

    methods = {message["method"] for message in client.messages if "method" in message}
    assert methods - BASELINE == LENT[able]
    kinds = {m["params"]["update"]["sessionUpdate"] for m in client.messages if "update" in str(m)
             and "method" in m and m["method"] == "session/update"}  # fmt: skip
    assert not kinds & GATED
    assert '"boolean"' not in json.dumps(client.messages)


@pytest.mark.parametrize("fs", [*product((False, True), repeat=2)], ids=repr)
@pytest.mark.parametrize("terminal", [False, True])
async def test_line_17_any_combination_of_capabilities_works(
    scripted: Daemon, tmp_path: Path, fs: tuple[bool, bool], terminal: bool
) -> None:
    reads, writes = fs
    lends: Json = {"fs": {"readTextFile": reads, "writeTextFile": writes}, "terminal": terminal}

    client = await everything(scripted, tmp_path, lends)

    [session] = await client.listed()
    words = client.text(session)
    assert ("typed" in words, "saved" in words) == (reads, not reads)
    assert (tmp_path / "b.txt").exists() is not writes
    assert ("there" in words) is terminal


@simulated_clock
async def test_line_18_nothing_comes_before_initialize_and_nothing_initializes_twice(
    daemon: Daemon,
) -> None:
    raw = unheard_of(daemon)
    for method in ("session/new", "session/list", "no/such", "session/prompt"):
        answer = await raw.first({"id": 1, "method": method, "params": {"cwd": "/"}})
        assert answer["error"]["code"] == -32600
    await raw.initialize()

    assert await raw.code("initialize", {"protocolVersion": 1}) == -32600

    answer = await raw.answer({"id": 2, "method": "session/list", "params": {}})
    assert answer["result"] == {"sessions": []}


@pytest.mark.parametrize("able", [{}, {"auth": {"terminal": True}}, {"auth": {"terminal": False}}])
@simulated_clock
async def test_line_19_no_method_to_authenticate_is_offered_to_anybody(
    daemon: Daemon, able: Json
) -> None:
    raw = unheard_of(daemon)

    result = await raw.initialize(clientCapabilities=able)

    assert result["authMethods"] == []
    answer = await raw.answer({"id": 1, "method": "authenticate", "params": {"methodId": "x"}})
    assert answer["error"]["code"] == -32602
    assert "no method is offered" in answer["error"]["message"]
    assert await raw.code("logout", {}) == -32601


@simulated_clock
async def test_line_20_nothing_that_goes_wrong_is_called_a_lack_of_authentication(
    daemon: Daemon, client: Client, raw: RawClient
) -> None:
    session = await client.new()
    killer = await daemon.connect()
    killed = await killer.new()
    await killer.kill(killed)
    calls: list[tuple[str, Json]] = [
        ("session/prompt", {"sessionId": "a" * 26, "prompt": [{"type": "text", "text": "x"}]}),
        ("session/prompt", {"sessionId": killed, "prompt": [{"type": "text", "text": "x"}]}),
        ("session/prompt", {"sessionId": session, "prompt": []}),
        ("session/load", {"sessionId": killed, "cwd": "/"}),
        ("session/new", {"cwd": "/", "_meta": {"moorage": {"agent": "nobody"}}}),
        ("session/set_mode", {"sessionId": session, "modeId": "x"}),
        ("authenticate", {"methodId": "x"}),
        ("initialize", {"protocolVersion": 1}),
        ("no/such", {}),
    ]

    codes = {await raw.code(method, params) for method, params in calls}
    await wait_all_tasks_blocked()

    assert codes == {-32002, -32602, -32600, -32601}


def test_line_20_no_code_of_ours_raises_that_error() -> None:
    """The gate refuses strangers before there is a conversation."""
    sources = Path(str(moorage_daemon.__file__)).parent.rglob("*.py")

    assert not [path for path in sources if "AuthRequired" in path.read_text()]
