"""Framing and JSON-RPC: lines 1 to 13 of what the protocol asks of an agent."""

import json
import signal
from pathlib import Path

import pytest
import trio

from moorage_protocol.acp import Empty
from moorage_protocol.errors import NotFound
from moorage_protocol.rendezvous import is_alive
from tests.acp.program import alone, bridge, ended_at_last, started
from tests.acp.raw import RawClient
from tests.acp.shapes import objections, updates
from tests.daemon.harness import Daemon, simulated
from tests.daemon.twin import PATIENCE, Client, Json
from tests.e2e.daemons import running


simulated_clock = pytest.mark.trio(run=simulated)

STRANGE = 'a\nb\r\nc\u2028d\u2029\u0085e "quoted" \\ \U0001f600 \' \x00 {"jsonrpc":"2.0"}'


def test_line_01_each_message_on_stdio_is_one_line_of_json(tmp_path: Path) -> None:
    with started(alone(), tmp_path / "errors") as program:
        session = program.hello()
        program.result(program.prompt(session, STRANGE))

        assert program.leave() == 0

    assert program.rest == b"", "the last line has its end"
    assert all(isinstance(json.loads(line.decode()), dict) for line in program.lines)
    chunks = [m["params"]["update"] for m in program.messages if "params" in m]
    said = [c["content"]["text"] for c in chunks if c["sessionUpdate"] == "agent_message_chunk"]
    assert "".join(said) == STRANGE


@pytest.mark.parametrize("end", ["leave", signal.SIGTERM, signal.SIGKILL])
def test_line_02_nothing_else_is_on_stdout_whatever_ends_it(
    tmp_path: Path, end: str | signal.Signals
) -> None:
    with started(alone(), tmp_path / "errors", PYTHONWARNINGS="always") as program:
        session = program.hello()
        program.prompt(session, "/stream 1000000 0.001")
        program.first(lambda message: "chunk 3" in str(message))

        if isinstance(end, signal.Signals):
            program.signal(end)
        else:
            program.leave()

    assert all(message["jsonrpc"] == "2.0" for message in program.messages)
    assert program.rest == b"" or end is signal.SIGKILL


def test_line_02_a_start_that_fails_says_so_on_stderr_alone(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("no = such = thing")
    command = alone("--config", str(tmp_path / "config.toml"))
    with started(command, tmp_path / "errors") as program:
        program.rest_of_it()

        assert program.process.wait() != 0
    assert (program.lines, program.rest) == ([], b"")
    assert program.errors.read_text() != ""


def test_line_02_nor_is_anything_else_on_that_of_the_bridge(tmp_path: Path) -> None:
    """It starts another daemon when its own is killed."""
    with running(tmp_path / "s") as daemon, ended_at_last(tmp_path / "s"):
        with started(bridge(daemon.state_dir), tmp_path / "errors") as program:
            session = program.hello()
            program.prompt(session, "/stream 1000000 0.001")
            program.first(lambda message: "chunk 3" in str(message))
            daemon.signal(signal.SIGKILL)

            program.first(lambda message: message.get("id") == 3)
            program.leave()

    assert all(message["jsonrpc"] == "2.0" for message in program.messages)
    assert program.rest == b""
    assert not is_alive(tmp_path / "s"), "no daemon is left of it"


@pytest.mark.parametrize(
    "request_id",
    [0, "0", -1, 1, "", 2**53, "0c5c3b2e-7d3c-4b4e-9a51-6a9a3c0f2d11", "ü\n"],
    ids=repr,
)
@simulated_clock
async def test_line_03_an_answer_has_the_id_of_its_request_in_type_and_value(
    raw: RawClient, request_id: int | str
) -> None:
    answer = await raw.answer({"id": request_id, "method": "session/list", "params": {}})

    assert answer["id"] == request_id
    assert type(answer["id"]) is type(request_id)


@simulated_clock
async def test_line_04_notifications_are_never_answered(raw: RawClient, client: Client) -> None:
    session = await client.new()
    notifications: list[Json] = [
        {"method": "session/cancel", "params": {"sessionId": session}},
        {"method": "session/cancel", "params": {"sessionId": "nobody"}},
        {"method": "session/cancel"},
        {"method": "$/cancel_request", "params": {"requestId": 7}},
        {"method": "$/cancel_request", "params": {"requestId": {}}},
        {"method": "_x/event", "params": {}},
        {"method": "no/such/thing"},
        {"method": "session/new", "params": {"cwd": "relative"}},
    ]

    assert await raw.answers(*notifications) == []


@simulated_clock
async def test_line_05_an_unknown_method_is_answered_and_the_connection_lives(
    raw: RawClient,
) -> None:
    for method in ("no/such", "_x/hello", "session/fly", "", "rpc.discover"):
        answer = await raw.answer({"id": 5, "method": method, "params": {}})
        assert (answer["id"], answer["error"]["code"]) == (5, -32601)


@pytest.mark.parametrize("line", [b"{", b"nonsense", b'{"id":1,"method":', b"\xff\xfe", b"NaN"])
@simulated_clock
async def test_line_06_what_is_no_json_is_answered_and_the_next_line_is_heard(
    raw: RawClient, line: bytes
) -> None:
    answer, following = await raw.answers(line, {"id": 1, "method": "session/list"})

    assert (answer["id"], answer["error"]["code"]) == (None, -32700)
    assert following["id"] == 1


@simulated_clock
async def test_line_07_an_array_is_refused_once_and_none_of_it_is_done(
    raw: RawClient, daemon: Daemon
) -> None:
    entry = {"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {"cwd": "/"}}

    for frame in (json.dumps([entry, entry]).encode(), b"[]", b"5", b'"text"', b"null", b"true"):
        answer = await raw.answer(frame)
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)
    assert daemon.sessions.live == {}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("session/prompt", {"sessionId": 5, "prompt": []}),
        ("session/prompt", {"sessionId": "s"}),
        ("session/prompt", {"prompt": [{"type": "text", "text": "x"}]}),
        ("session/prompt", None),
        ("session/new", {"cwd": 5, "mcpServers": []}),
        ("session/new", {"mcpServers": []}),
        ("session/load", {"sessionId": "s", "mcpServers": []}),
        ("session/set_mode", {"sessionId": "s"}),
        ("session/set_config_option", {"sessionId": "s", "configId": "model", "value": 5}),
        ("session/cancel", {}),
        ("session/set_title", {"sessionId": "s", "title": None}),
        ("authenticate", {}),
    ],
)
@simulated_clock
async def test_line_08_a_required_param_of_a_wrong_type_is_invalid_params(
    raw: RawClient, method: str, params: object
) -> None:
    assert await raw.code(method, params) == -32602


@simulated_clock
async def test_line_09_a_malformed_optional_field_counts_as_absent(daemon: Daemon) -> None:
    raw = RawClient(daemon.wire())
    daemon.clients.start_soon(raw.run)

    result = await raw.initialize(
        clientInfo="x", clientCapabilities={"fs": None, "terminal": "yes"}, _meta=7
    )
    new: Json = {"cwd": "/", "mcpServers": None, "additionalDirectories": None, "_meta": 7}
    answer = await raw.first({"id": 1, "method": "session/new", "params": new})

    assert result["protocolVersion"] == 1
    assert answer["result"]["sessionId"]
    listing: Json = {"cwd": 5, "cursor": None, "archived": None, "_meta": []}
    answer = await raw.answer({"id": 2, "method": "session/list", "params": listing})
    assert len(answer["result"]["sessions"]) == 1


@simulated_clock
async def test_line_10_params_may_be_null_and_unknown_ones_are_ignored(
    raw: RawClient, client: Client
) -> None:
    session = await client.new()

    wishes: list[Json | None] = [None, {}, {"_meta": {}, "reason": "bored"}]
    for params in wishes:
        answer = await raw.answer({"id": 1, "method": "session/list", "params": params})
        assert "result" in answer
    bored: Json = {"sessionId": session, "reason": "bored", "_meta": {}}
    assert (await raw.answer({"id": 2, "method": "session/cancel", "params": bored}))[
        "result"
    ] == {}


@simulated_clock
async def test_line_11_answers_to_nothing_are_dropped(raw: RawClient) -> None:
    error = {"code": -32601, "message": "unknown"}

    answers = await raw.answers(
        {"id": None, "error": error},
        {"id": 4711, "error": error},
        {"id": 4711, "result": {"outcome": {"outcome": "cancelled"}}},
        {"id": "never", "result": None},
    )

    assert answers == []


async def test_line_12_no_message_is_a_mebibyte_whatever_a_tool_writes(
    scripted: Daemon, tmp_path: Path
) -> None:
    """The client of these tests refuses longer ones."""
    client = await scripted.connect(plain=True)
    session = await client.new(str(tmp_path))
    reply = client.prompt(session, "/run head -c 50000000 /dev/zero | tr '\\0' '\\1'")
    client.choose(await client.question())

    assert (await reply.result()).stop_reason == "end_turn"

    longest = max(len(json.dumps(message)) for message in client.messages)
    assert 64 * 1024 < longest < 2**20
    assert "left out" in str(client.messages[-5:])


async def test_line_13_every_message_is_one_that_the_protocols_own_types_take_whole(
    scripted: Daemon, tmp_path: Path
) -> None:
    """Names in camelCase, words in snake_case, nothing else: as the Python SDK's models say."""
    (tmp_path / "a.txt").write_text("old")
    client = await scripted.connect(
        plain=True, capabilities={"fs": {"readTextFile": True}, "terminal": True}
    )
    session = await client.new(str(tmp_path))
    for words in ("hello", "/plan", "/fail", "/ask yes?", "/write a.txt b", "/terminal true"):
        reply = client.prompt(session, words)
        if words.startswith("/write"):
            client.reply(await client.request("fs/read_text_file"), {"content": "typed"})
        if words.startswith(("/ask", "/write")):
            client.choose(await client.question(len(client.questions) + 1))
        elif words.startswith("/terminal"):
            client.choose(await client.question(len(client.questions) + 1))
            client.reply(await client.request("terminal/create"), {"terminalId": "t"})
            client.reply(await client.request("terminal/wait_for_exit"), {"exitCode": 0})
            client.reply(
                await client.request("terminal/output"), {"output": "", "truncated": False}
            )
        with trio.fail_after(PATIENCE):
            await reply.arrived.wait()
    await client.call("session/set_mode", {"sessionId": session, "modeId": "auto-edit"}, Empty)
    await client.load(session)
    await client.resume(session)
    await client.listed()
    await client.delete(session)
    with pytest.raises(NotFound):
        await client.load(session)

    assert objections(client) == []
    kinds = {m["params"]["update"]["sessionUpdate"] for m in updates(client)}
    assert kinds >= {"tool_call", "plan", "session_info_update", "current_mode_update"}
