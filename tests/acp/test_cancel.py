"""Cancelling: lines 46 to 57 of what the protocol asks of an agent."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.native import NativeAgent
from moorage_daemon.agents.port import Stage
from moorage_daemon.grants.calls import Call
from moorage_daemon.providers.openai import open_openai
from moorage_daemon.tools.port import Bench, Report
from moorage_protocol import jsonrpc
from moorage_protocol.acp import Empty, StopReason, ToolCallContent, ToolCallLocation, ToolKind
from moorage_protocol.errors import RequestCancelled
from tests.acp.raw import RawClient
from tests.acp.shapes import updates
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.providers.fake import FakeProvider, Visit, open_fake
from tests.daemon.puppet import Lever, LeverArguments, Performance
from tests.daemon.twin import PATIENCE, Client, Json, PromptReply, cancel_params


simulated_clock = pytest.mark.trio(run=simulated)

LENDING: Json = {"fs": {"readTextFile": True, "writeTextFile": True}, "terminal": True}
LONG = 1000.0  # seconds, far beyond what any test waits


class Borrower:
    """A tool that has the client read or write a file, or run a command, for ever."""

    name = "Borrower"
    kind = ToolKind.OTHER
    asks = False

    def __init__(self, what: str) -> None:
        self.what = what

    def title(self, arguments: LeverArguments) -> str:
        return f"borrow {self.what}"

    def locations(self, arguments: LeverArguments, cwd: str) -> list[ToolCallLocation]:
        return []

    def about(self, arguments: LeverArguments, cwd: str) -> Call:
        return Call(self.name)

    async def preview(self, arguments: LeverArguments, bench: Bench) -> Sequence[ToolCallContent]:
        return ()

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        assert bench.client is not None
        match self.what:
            case "fs/read_text_file":
                await bench.client.read_text("/work/a")
            case "fs/write_text_file":
                await bench.client.write_text("/work/a", "text")
            case _:
                terminal = bench.client.terminal("sh", ["-c", "sleep 9"], "/work")
                bench.running.add(terminal)
                try:
                    await terminal.start()
                    await terminal.ended(LONG)
                finally:
                    terminal.kill()
        return Report("Borrowed.")


@pytest.fixture
async def editor(daemon: Daemon) -> Client:
    """A client that lends all it has and never answers."""
    return await daemon.connect(plain=True, capabilities=LENDING)


def stopped(reply: PromptReply) -> bool:
    """Whether the answer is exactly that of a cancelled turn."""
    assert reply.message is not None
    return bool(reply.message["result"] == {"stopReason": "cancelled"})


# ---- where a turn may be


async def _before_the_first_token(daemon: Daemon, editor: Client, performance: Performance) -> None:
    await wait_all_tasks_blocked()


async def _streaming(daemon: Daemon, editor: Client, performance: Performance) -> None:
    await performance.say("half an ")


async def _tool_runs(daemon: Daemon, editor: Client, performance: Performance) -> None:
    lever = Lever(holds=True)
    performance.begin(lever.call())
    await wait_all_tasks_blocked()
    assert lever.pulled


async def _question_nobody_answers(
    daemon: Daemon, editor: Client, performance: Performance
) -> None:
    performance.begin(Lever(asks=True).call())
    await editor.question()


def _borrowing(method: str) -> Callable[[Daemon, Client, Performance], Awaitable[None]]:
    async def place(daemon: Daemon, editor: Client, performance: Performance) -> None:
        async def borrow(stage: Stage) -> None:
            await stage.call(Borrower(method), LeverArguments())

        performance.begin(borrow)
        if method == "terminal/wait_for_exit":
            editor.reply(await editor.request("terminal/create"), {"terminalId": "t"})
        await editor.request(method)

    place.__name__ = f"_{method}"
    return place


async def _prompt_waits(daemon: Daemon, editor: Client, performance: Performance) -> None:
    [session] = daemon.sessions.live
    editor.prompt(session, "and another")
    await wait_all_tasks_blocked()


PLACES = [
    _before_the_first_token,
    _streaming,
    _tool_runs,
    _question_nobody_answers,
    _borrowing("fs/read_text_file"),
    _borrowing("fs/write_text_file"),
    _borrowing("terminal/create"),
    _borrowing("terminal/wait_for_exit"),
    _prompt_waits,
]


@simulated_clock
async def test_line_46_a_cancel_in_mid_stream_ends_in_cancelled(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    await (await daemon.puppet.next()).say("half an ")

    client.notify("session/cancel", {"sessionId": session})
    await reply.result()

    assert stopped(reply)
    assert client.text(session) == "half an "


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__[1:])
@simulated_clock
async def test_line_47_and_wherever_else_a_turn_is(
    daemon: Daemon,
    editor: Client,
    place: Callable[[Daemon, Client, Performance], Awaitable[None]],
) -> None:
    session = await editor.new()
    reply = editor.prompt(session)
    await place(daemon, editor, await daemon.puppet.next())
    asked_at = trio.current_time()

    editor.notify("session/cancel", {"sessionId": session})
    await reply.result()

    assert stopped(reply)
    assert trio.current_time() == asked_at, "at once"


@asynccontextmanager
async def native(base_url: str) -> AsyncGenerator[Client]:
    """A client of a daemon whose model is at that address."""
    settings = FakeProvider().settings(base_url=base_url)
    async with open_openai("one", settings) as provider:
        agent = NativeAgent({"one": provider}, "one")
        async with open_daemon(agents=(agent,), default_agent="native") as daemon:
            yield await daemon.connect(plain=True)


async def test_line_47_also_while_its_model_cannot_be_connected_to() -> None:
    connected, closed = trio.Event(), trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        connected.set()
        while await stream.receive_some():
            pass
        closed.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        port = listener.socket.getsockname()[1]
        async with native(f"https://127.0.0.1:{port}") as client:
            session = await client.new()
            reply = client.prompt(session)
            await connected.wait()

            client.notify("session/cancel", {"sessionId": session})
            await reply.result()

            assert stopped(reply)
            with trio.fail_after(PATIENCE):
                await closed.wait()
        nursery.cancel_scope.cancel()


# ---- what is really gone


async def test_line_48_the_request_to_the_model_is_closed() -> None:
    async def hang(visit: Visit) -> None:
        await visit.head()
        await visit.until_closed()

    async with open_fake(hang) as fake, native(fake.base_url) as client:
        session = await client.new()
        reply = client.prompt(session)
        await fake.until(lambda: fake.playing == 1)

        client.notify("session/cancel", {"sessionId": session})
        await reply.result()

        await fake.until(lambda: fake.open == 0)


async def test_line_48_the_processes_of_a_tool_are_gone(scripted: Daemon, tmp_path: Path) -> None:
    """Also one that would not go, and one that went into a session of its own."""
    os.mkfifo(tmp_path / "pids")
    client = await scripted.connect(plain=True)
    session = await client.new(str(tmp_path))
    words = "/run trap '' TERM; setsid sleep 300 & echo $$ $! > pids; sleep 300; sleep 300"
    reply = client.prompt(session, words)
    client.choose(await client.question())
    pids = (await trio.to_thread.run_sync((tmp_path / "pids").read_text)).split()

    client.notify("session/cancel", {"sessionId": session})
    await reply.result()

    assert len(pids) == 2
    for pid in map(int, pids):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@simulated_clock
async def test_line_49_late_updates_come_before_the_answer_and_none_behind_it(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    await performance.do(Lever().call())
    performance.begin(Lever(holds=True).call())
    await wait_all_tasks_blocked()
    client.notify("session/cancel", {"sessionId": session})
    await reply.result()
    following = client.prompt(session)
    (await daemon.puppet.next()).finish()
    await following.result()

    places = [
        (m["params"]["_meta"]["moorage"].get("generation"), client.messages.index(m))
        for m in updates(client)
        if "_meta" in m["params"]
    ]
    first = [place for generation, place in places if generation == 1]
    assert max(first) < reply.place
    last = [m["params"]["update"] for m in updates(client) if "toolCallId" in str(m)][-1]
    assert last["status"] == "failed", "what was under way is not left open"


@simulated_clock
async def test_line_50_a_cancel_of_nothing_does_nothing_to_what_follows(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    for _ in range(3):
        client.notify("session/cancel", {"sessionId": session})
    reply = client.prompt(session)

    (await daemon.puppet.next()).finish()

    assert (await reply.result()).stop_reason is StopReason.END_TURN


@simulated_clock
async def test_line_50_a_cancel_that_races_the_end_gives_one_answer(
    daemon: Daemon, client: Client
) -> None:
    reasons: set[StopReason] = set()
    session = await client.new()
    for _ in range(40):
        reply = client.prompt(session)
        performance = await daemon.puppet.next()
        performance.finish()
        client.notify("session/cancel", {"sessionId": session})
        reasons.add((await reply.result()).stop_reason)

    assert reasons <= {StopReason.END_TURN, StopReason.CANCELLED}
    assert len([m for m in client.messages if "stopReason" in str(m)]) == 40


@simulated_clock
async def test_line_51_the_session_remembers_what_was_cancelled(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session, "remember the number 7")
    await (await daemon.puppet.next()).say("half an ")
    client.notify("session/cancel", {"sessionId": session})
    await reply.result()

    following = client.prompt(session, "which?")
    performance = await daemon.puppet.next()
    earlier = (await performance.stage.history(10_000)).exchanges
    performance.finish()

    assert (await following.result()).stop_reason is StopReason.END_TURN
    assert [(past.prompt, past.answer) for past in earlier] == [
        ("remember the number 7", "half an ")
    ]


@simulated_clock
async def test_line_52_a_late_answer_to_a_question_runs_nothing(
    daemon: Daemon, client: Client
) -> None:
    lever = Lever(asks=True)
    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).begin(lever.call())
    question = await client.question()
    client.notify("session/cancel", {"sessionId": session})
    await reply.result()

    client.choose(question)
    await wait_all_tasks_blocked()

    assert lever.pulled == []
    following = client.prompt(session)
    (await daemon.puppet.next()).finish()
    assert (await following.result()).stop_reason is StopReason.END_TURN


@pytest.mark.parametrize("form", ["cancelled", "-32800"])
@simulated_clock
async def test_line_53_a_question_that_is_answered_cancelled_cancels_the_turn(
    daemon: Daemon, client: Client, form: str
) -> None:
    lever = Lever(asks=True)
    session = await client.new()
    reply = client.prompt(session)
    (await daemon.puppet.next()).begin(lever.call())
    question = await client.question()

    if form == "cancelled":
        client.dismiss(question)
    else:
        client.post(jsonrpc.encode_error(question.id, RequestCancelled()))
    await reply.result()

    assert stopped(reply)
    assert lever.pulled == []


@pytest.mark.parametrize("place", PLACES[3:8], ids=lambda place: place.__name__[1:])
@simulated_clock
async def test_line_54_what_the_client_was_asked_for_is_taken_back(
    daemon: Daemon,
    editor: Client,
    place: Callable[[Daemon, Client, Performance], Awaitable[None]],
) -> None:
    session = await editor.new()
    reply = editor.prompt(session)
    await place(daemon, editor, await daemon.puppet.next())
    [asked] = [m["id"] for m in editor.messages if "id" in m and "method" in m][-1:]

    editor.notify("session/cancel", {"sessionId": session})
    await reply.result()
    await wait_all_tasks_blocked()

    assert editor.retracted == [asked]


@simulated_clock
async def test_line_55_a_cancel_request_of_a_prompt_is_heeded_and_of_nothing_ignored(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    for request in (4711, "nobody", None):
        client.notify("$/cancel_request", {"requestId": request})
    reply = client.prompt(session)
    await daemon.puppet.next()

    client.notify("$/cancel_request", {"requestId": reply.id})
    await reply.result()

    assert stopped(reply)
    client.notify("$/cancel_request", {"requestId": reply.id})
    following = client.prompt(session)
    (await daemon.puppet.next()).finish()
    assert (await following.result()).stop_reason is StopReason.END_TURN


@simulated_clock
async def test_line_56_a_prompt_right_behind_a_cancel_is_run(
    daemon: Daemon, client: Client
) -> None:
    """In one write, as clients send it that do not wait."""
    session = await client.new()
    reply = client.prompt(session, "first")
    await daemon.puppet.next()

    frame, following = client.prompt_frame(session, "second")
    client.post(jsonrpc.encode_notification("session/cancel", {"sessionId": session}), frame)
    await reply.result()
    performance = await daemon.puppet.next()
    performance.finish()

    assert stopped(reply)
    assert performance.prompt.text == "second"
    assert (await following.result()).stop_reason is StopReason.END_TURN


@simulated_clock
async def test_line_57_a_cancel_with_an_id_is_heeded_and_answered(
    daemon: Daemon, client: Client, raw: RawClient
) -> None:
    session = await client.new()
    reply = client.prompt(session)
    await daemon.puppet.next()

    request = {"id": "c", "method": "session/cancel", "params": cancel_params(session)}
    answer = await raw.answer(request)
    await reply.result()

    assert answer == {"jsonrpc": "2.0", "id": "c", "result": {}}
    assert stopped(reply)
    assert await client.call("session/cancel", cancel_params(session), Empty) == Empty()
