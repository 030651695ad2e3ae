"""Extensions, several clients, transports: lines 65 to 75 of what is asked of an agent."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_clients.bridge.relay import EXIT_PATIENCE
from moorage_daemon.agents.port import CallRefused, Stage
from moorage_daemon.connection.lending import PATIENCE as LENDING_PATIENCE
from moorage_daemon.connection.outbox import MAX_CONTROL_FRAMES
from moorage_daemon.tools.client import ClientFailed
from moorage_protocol.acp import Empty, StopReason
from moorage_protocol.moorage import Outcome
from tests.acp.program import alone, bridge, gone, started
from tests.acp.raw import RawClient
from tests.acp.shapes import objections, updates
from tests.acp.test_cancel import LENDING, Borrower
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, LeverArguments
from tests.daemon.transports.conftest import BEARER, Listener, listen_for
from tests.daemon.transports.raw import (
    BINARY,
    TEXT,
    RawClient as WebSocket,
    ask,
    dial,
    frame,
    handshake,
)
from tests.daemon.twin import Client, Json, prompt_params
from tests.e2e.daemons import DaemonProcess, running
from tests.e2e.wires import connect


simulated_clock = pytest.mark.trio(run=simulated)

NUMBERS = 150
STREAM = f"/stream {NUMBERS} 0.004"  # 0.6 seconds
WHOLE = "".join(f"chunk {number}\n" for number in range(1, NUMBERS + 1))


@pytest.fixture(scope="module")
def process() -> Iterator[DaemonProcess]:
    """A daemon as it is out of the box."""
    with TemporaryDirectory(prefix="moorage-") as path, running(Path(path) / "state") as daemon:
        yield daemon
        assert daemon.stop() == 0
        assert daemon.token not in daemon.log.read_text()


# ---- extensions


@pytest.mark.parametrize("plain", [True, False])
async def test_line_65_what_is_ours_stands_under_meta_and_nowhere_else(
    scripted: Daemon, tmp_path: Path, plain: bool
) -> None:
    """Every key of every message is one that the protocol's own types know."""
    client = await scripted.connect(plain=plain)
    session = await client.new(str(tmp_path))
    for words in ("hello", "/plan", "/write a.txt text", "/ask really?"):
        reply = client.prompt(session, words)
        if words.startswith(("/write", "/ask")):
            client.choose(await client.question(len(client.questions) + 1))
        await reply.result()
    await client.load(session)
    await client.call("session/set_mode", {"sessionId": session, "modeId": "read-only"}, Empty)

    ours = [m for m in client.messages if m.get("method", "").startswith("_moorage/")]
    client.messages = [message for message in client.messages if message not in ours]

    assert objections(client) == []
    assert (ours == []) is plain
    metas = [value for m in client.messages for value in found(m, "_meta")]
    assert {key for meta in metas for key in meta} <= {"moorage"}


def found(value: object, key: str) -> list[Json]:
    """All objects under a key, however deep; not inside of them."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [hit for each in items for hit in found(each, key)]
    if isinstance(value, dict):
        members = cast("Json", value)
        deep = [hit for name, each in members.items() if name != key for hit in found(each, key)]
        return [*([members[key]] if key in members else []), *deep]
    return []


@simulated_clock
async def test_line_66_own_methods_are_marked_advertised_and_served(
    daemon: Daemon, raw: RawClient
) -> None:
    """Two bare names are the product's own; the agent itself sends marked ones only."""
    other = RawClient(daemon.wire())
    daemon.clients.start_soon(other.run)
    able = (await other.initialize())["agentCapabilities"]["_meta"]["moorage"]
    knowing = await daemon.connect()
    session = await knowing.new()
    reply = knowing.prompt(session)
    performance = await daemon.puppet.next()
    await performance.do(Lever().call())
    performance.finish()
    await reply.result()
    await knowing.kill(session)
    await wait_all_tasks_blocked()

    bare = {method for method in able["methods"] if not method.startswith("_moorage/")}
    assert bare == {"session/kill", "session/configure", "session/cancel"}
    for method in able["methods"]:
        answer = await raw.first({"id": 1, "method": method, "params": {}})
        assert answer.get("error", {}).get("code") != -32601, method
    sent = {m["method"] for m in knowing.messages if "method" in m}
    assert sent == {"session/update", "_moorage/session/entry", "_moorage/session/detached"}
    unknown: list[Json] = [{"method": "_x/event"}, {"method": "_moorage/no/such", "params": {}}]
    assert await raw.answers(*unknown) == []


TRACE: Json = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "x=y",
    "baggage": "a=b",
}


@simulated_clock
async def test_line_67_trace_context_is_passed_on_and_never_overwritten(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    params = prompt_params(session) | {"_meta": TRACE}
    reply = client.start("session/prompt", params, dict[str, Any])
    performance = await daemon.puppet.next()
    performance.finish()
    await reply.result()

    given = performance.prompt.meta
    assert given is not None
    assert all(f'"{value}"'.encode() in bytes(given) for value in TRACE.values())
    entries = await (await daemon.connect()).entries(session, kinds=["prompt"])
    assert [entry["_meta"] for entry in entries] == [TRACE]
    metas = [value for m in client.messages for value in found(m, "_meta")]
    assert not {key for meta in metas for key in meta} & set(TRACE)


@simulated_clock
async def test_line_68_foreign_metadata_survives_store_and_replay(daemon: Daemon) -> None:
    meta: Json = {"x.dev": {"deep": [1, {"a": None}]}, "y": "ü\u2028"}
    client = daemon.dial()
    await client.initialize(None, {"_meta": meta, "fs": {"_meta": meta}})
    session = await client.new()
    block: Json = {"type": "text", "text": "hi", "_meta": meta, "annotations": {"priority": 0.5}}
    params: Json = {"sessionId": session, "prompt": [block], "_meta": meta}
    reply = client.start("session/prompt", params, dict[str, Any])
    (await daemon.puppet.next()).finish()
    await reply.result()

    async with open_daemon(await daemon.image()) as restarted:
        later = await restarted.connect(plain=True)
        await later.load(session)
        entries = await (await restarted.connect()).entries(session, kinds=["prompt"])

    assert updates(later)[0]["params"]["update"]["content"] == block
    assert entries[0]["_meta"] == meta


@simulated_clock
async def test_line_69_a_client_that_never_answers_holds_nobody_up(daemon: Daemon) -> None:
    silent = await daemon.connect(plain=True, capabilities=LENDING)
    session = await silent.new()
    silent.prompt(session)
    performance = await daemon.puppet.next()
    ends: list[float] = []

    async def borrow(stage: Stage) -> None:
        for what in ("fs/read_text_file", "fs/write_text_file", "terminal"):
            try:
                await stage.call(Borrower(what), LeverArguments())
            except ClientFailed:
                ends.append(trio.current_time())

    started_at = trio.current_time()
    done = performance.begin(borrow)
    other = await daemon.connect(plain=True)
    theirs = await other.new()
    reply = other.prompt(theirs)
    (await daemon.puppet.next()).finish()
    assert (await reply.result()).stop_reason is StopReason.END_TURN
    assert trio.current_time() == started_at, "others go on at once"

    await done.wait()

    assert [end - started_at for end in ends] == [LENDING_PATIENCE * n for n in (1, 2, 3)]
    asked = [m["method"] for m in silent.messages if "id" in m and "method" in m]
    assert not [method for method in asked if method.startswith("_")]


# ---- several clients


@simulated_clock
async def test_line_70_clients_of_a_session_see_the_same_and_one_answer_counts(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect(plain=True)
    session = await client.new()
    await other.resume(session)
    lever = Lever(asks=True)
    reply = client.prompt(session)
    performance = await daemon.puppet.next()

    async def attempt(stage: Stage) -> None:
        with suppress(CallRefused):
            await lever.call()(stage)

    await performance.say("before ")
    done = performance.begin(attempt)
    mine, theirs = await client.question(), await other.question()
    other.choose(theirs, "reject")
    await client.until(lambda: client.retracted == [mine.id])
    client.choose(mine, "allow")
    await done.wait()
    await performance.say("after")
    performance.finish()
    await reply.result()
    await wait_all_tasks_blocked()

    assert lever.pulled == []
    assert other.retracted == []
    assert len(seen(client, session)) >= 5
    assert seen(client, session) == seen(other, session)[1:], "all but the asker's own words"
    assert "user_message_chunk" in str(seen(other, session)[0])


def seen(client: Client, session: str) -> list[Json]:
    """The updates of a session as they were sent, their numbers too."""
    marked = [m["params"] for m in updates(client) if "_meta" in m["params"]]
    return [params for params in marked if params["sessionId"] == session]


def port_of(daemon: DaemonProcess) -> int:
    port = urlsplit(daemon.websocket).port
    assert port is not None
    return port


def bearer(daemon: DaemonProcess) -> tuple[str, str]:
    return ("Authorization", f"Bearer {daemon.token}")


async def introduced(client: WebSocket, daemon: DaemonProcess) -> None:
    """Through the gate, as a client that knows nothing of moorage."""
    await client.send(handshake(port_of(daemon), [bearer(daemon)]))
    assert (await client.answer()).status == 101
    await client.call("initialize", {"protocolVersion": 1})


def chunk(message: Json) -> tuple[int, str] | None:
    """The number of an update and what the agent says in it."""
    params = message.get("params", {})
    update = params.get("update", {})
    if update.get("sessionUpdate") != "agent_message_chunk":
        return None
    return params["_meta"]["moorage"]["seq"], update["content"]["text"]


async def test_line_71_a_turn_outlives_its_websocket_and_is_seen_whole(
    process: DaemonProcess,
) -> None:
    async with dial(port_of(process)) as client:
        await introduced(client, process)
        new = await client.call("session/new", {"cwd": "/", "mcpServers": []})
        session = new["sessionId"]
        await client.say("session/prompt", prompt_params(session, STREAM), 99)
        while (said := chunk(await client.hear())) is None or "chunk 5\n" not in said[1]:
            pass

    async with dial(port_of(process)) as client:
        await introduced(client, process)
        params: Json = {"sessionId": session, "cwd": "/", "mcpServers": []}
        await client.say("session/load", params, 1)
        pieces: list[tuple[int, str]] = []
        is_loaded = False
        while "".join(text for _, text in pieces) != WHOLE:
            message = await client.hear()
            is_loaded = is_loaded or message.get("id") == 1
            said = chunk(message)
            pieces += [said] if said is not None else []

    assert is_loaded
    numbers = [number for number, _ in pieces]
    assert numbers == sorted(set(numbers)), "each once, in order"


async def test_line_72_a_turn_outlives_the_bridge_that_began_it(
    process: DaemonProcess, tmp_path: Path
) -> None:
    with started(bridge(process.state_dir), tmp_path / "errors") as program:
        session = program.hello()
        program.prompt(session, STREAM)
        program.first(lambda message: "chunk 5\\n" in str(message))
        program.signal(signal.SIGKILL)

    async with connect(process.unix, plain=True) as client:
        await client.load(session)
        await client.until(lambda: client.text(session) == WHOLE)

        numbers = client.seqs(session)
        assert numbers == sorted(set(numbers))


def test_line_72_a_daemon_of_ones_own_leaves_no_process_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pids")
    with started(alone(), tmp_path / "errors") as program:
        program.call("initialize", protocolVersion=1)
        session = program.call("session/new", cwd=str(tmp_path), mcpServers=[])["sessionId"]
        words = "/run trap '' TERM; setsid sleep 300 & echo $$ $! > pids; sleep 300; sleep 300"
        program.prompt(session, words)
        question = program.first(lambda m: m.get("method") == "session/request_permission")
        outcome = {"outcome": {"outcome": "selected", "optionId": "allow"}}
        program.send({"jsonrpc": "2.0", "id": question["id"], "result": outcome})
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        watched = [os.pidfd_open(pid) for pid in pids]

        program.signal(signal.SIGKILL)

        assert len(watched) == 2
        for descriptor in watched:
            gone(descriptor)


@pytest.mark.parametrize("kind", ["alone", "bridge"])
@pytest.mark.parametrize("busy", [False, True])
def test_line_73_the_end_of_input_ends_it_well(
    process: DaemonProcess, tmp_path: Path, kind: str, busy: bool
) -> None:
    command = alone() if kind == "alone" else bridge(process.state_dir)
    with started(command, tmp_path / "errors") as program:
        session = program.hello()
        if busy:
            program.prompt(session, "/stream 1000000 0.001")
            program.first(lambda message: "chunk 3" in str(message))

        assert program.leave() == 0
    assert program.errors.read_text() == ""
    assert EXIT_PATIENCE < 2, "the SDK's patience, in seconds"


# ---- WebSocket


@pytest.fixture
async def listener(daemon: Daemon) -> AsyncIterator[Listener]:
    async with listen_for(daemon) as listening:
        yield listening


async def test_line_74_each_message_is_a_text_frame_and_binary_is_ignored(
    listener: Listener,
) -> None:
    async with dial(listener.port) as client:
        await client.send(handshake(listener.port, [BEARER]))
        answer = await client.answer()
        await client.send(frame(b'{"jsonrpc":"2.0","id":1,"method":"x"}', BINARY))
        await client.say("initialize", {"protocolVersion": 1}, 2)
        await client.say("session/new", {"cwd": "/work"}, 3)
        frames = [await client.frame() for _ in range(3)]

    assert answer.status == 101
    assert answer.headers["acp-connection-id"]
    assert {(f.opcode, f.final) for f in frames if f is not None} == {(TEXT, True)}
    assert b'"id":1' not in b"".join(f.payload for f in frames if f is not None)


async def test_line_74_a_client_that_does_not_read_is_bounded_and_harms_nobody(
    daemon: Daemon, listener: Listener
) -> None:
    other = await daemon.connect()
    session = await other.new()
    async with listener.connect() as client:
        await client.introduce()
        with suppress(trio.BrokenResourceError):
            for number in range(100 * MAX_CONTROL_FRAMES):
                await client.say("session/resume", {"sessionId": session, "cwd": "/"}, number)
        await wait_all_tasks_blocked(0.01)
        assert (await other.status()).connections == 1
    reply = other.prompt(session)
    (await daemon.puppet.next()).finish()
    assert (await reply.verdict()).outcome is Outcome.COMPLETED


async def test_line_74_a_daemon_that_goes_says_so(daemon: Daemon) -> None:
    async with listen_for(daemon) as listening:
        connecting = listening.connect()
        client = await connecting.__aenter__()
        await client.introduce()

    assert await client.close_code() == 1001
    await connecting.__aexit__(None, None, None)


async def test_line_75_strangers_stay_outside_and_no_log_has_the_token(
    process: DaemonProcess,
) -> None:
    port = port_of(process)
    wrong = ("Authorization", "Bearer " + "A" * 43)
    strangers: list[tuple[int, list[tuple[str, str]]]] = [
        (401, []),
        (401, [wrong]),
        (401, [bearer(process), bearer(process)]),
        (403, [bearer(process), ("Origin", "https://evil.example")]),
        (403, [bearer(process), ("Origin", "null")]),
    ]

    for status, lines in strangers:
        assert (await ask(port, handshake(port, lines))).status == status
    async with dial(port) as client:
        await introduced(client, process)

    log = process.log.read_text()
    assert process.token not in log
    assert "A" * 43 not in log
