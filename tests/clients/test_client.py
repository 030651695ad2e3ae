"""The client library against a daemon that says exactly what a test has it say."""

import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_clients.client import Client, open_client
from moorage_clients.connection import OnPermission
from moorage_clients.errors import CannotConnect, ConnectionLost, OutOfOrder
from moorage_clients.feed import MOST_BYTES
from moorage_clients.identity import Identity, IdentityFile
from moorage_clients.messages import LogEntry, Message, Unknown, Update
from moorage_clients.turn import Turn
from moorage_protocol.acp import PermissionParams, ToolCall
from moorage_protocol.errors import Busy, NotFound, NotPermitted, RpcError, TurnFailed
from moorage_protocol.moorage import CancelOutcome, DetachReason, OverridesPatch, Scope
from tests.clients.fake_daemon import FakeDaemon, Visitor, open_fake_daemon


S = "aaaaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with open_fake_daemon(tmp_path / "state") as fake:
        yield fake


@asynccontextmanager
async def visiting(
    daemon: FakeDaemon, on_permission: OnPermission | None = None, *, returns: bool = False
) -> AsyncGenerator[tuple[Client, Visitor], None]:
    """A client that has shaken hands, and the daemon's end of its connection.

    What becomes of it when that is lost is tried in `test_client_returns.py`.
    """
    arrived: list[Visitor] = []

    async def greet() -> None:
        arrived.append(await daemon.accept())
        await arrived[0].greet()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet)
            async with open_client(
                daemon.address, on_permission=on_permission, returns=returns
            ) as client:
                yield client, arrived[0]


def update(seq: int | None, text: str, generation: int | None = 1) -> dict[str, Any]:
    mark: dict[str, Any] = {} if seq is None else {"_meta": {"moorage": {"seq": seq}}}
    if seq is not None and generation is not None:
        mark["_meta"]["moorage"]["generation"] = generation
    chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    return {"method": "session/update", "params": {"sessionId": S, "update": chunk, **mark}}


def entry(seq: int, kind: str, generation: int = 1, **fields: Any) -> dict[str, Any]:
    params = {"sessionId": S, "seq": seq, "kind": kind, "generation": generation, **fields}
    return {"method": "_moorage/session/entry", "params": params}


def snapshot(seq: int) -> dict[str, Any]:
    return {
        "sessionId": S, "seq": seq, "access": "controller", "state": "idle", "queue": [],
        "pendingPermissions": [], "attached": 1,
    }  # fmt: skip


async def take(source: AsyncIterator[Message], count: int) -> list[int | None]:
    """The numbers of the next messages."""
    return [(await anext(source)).seq for _ in range(count)]


async def collect(source: AsyncIterator[Message], into: list[int | None]) -> None:
    """Note the numbers of all messages up to the end or an error."""
    async for message in source:
        into.append(message.seq)  # noqa: PERF401 - what came before an error is what counts


async def attach(visitor: Visitor, head: int) -> None:
    await visitor.answer(await visitor.expect("_moorage/session/attach"), snapshot(head))


async def test_client_introduces_itself_as_one_of_moorages_own(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor):
        hello = visitor.seen[0]["params"]

        assert hello["protocolVersion"] == 1
        ours = hello["_meta"]["moorage"]
        assert ours == {"name": "moorage_clients", "instance": ours["instance"]}
        assert client.welcome.principal == "local"


async def test_refusal_is_the_error_that_the_daemon_raised(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def refuse() -> None:
            await visitor.refuse(await visitor.receive(), -32002, "Resource not found", "not_found")

        nursery.start_soon(refuse)
        with pytest.raises(NotFound):
            await client.close(S)


async def test_error_in_the_block_comes_out_as_itself(daemon: FakeDaemon) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await (await daemon.accept()).greet()

            nursery.start_soon(serve)
            with pytest.raises(KeyError):
                async with open_client(daemon.address):
                    raise KeyError


async def test_answers_find_their_requests_in_any_order(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:
        outcomes: dict[int, CancelOutcome] = {}

        async def cancel(generation: int) -> None:
            result = await client.cancel(S, generation=generation, scope=Scope.ALL)
            outcomes[generation] = result.outcome

        nursery.start_soon(cancel, 1)
        first = await visitor.receive()
        nursery.start_soon(cancel, 2)
        second = await visitor.receive()
        await visitor.answer(second, {"outcome": "stale"})
        await visitor.answer(first, {"outcome": "fired"})

    assert outcomes == {1: CancelOutcome.FIRED, 2: CancelOutcome.STALE}
    assert second["params"]["_meta"]["moorage"] == {"generation": 2, "scope": "all"}


async def test_cancelled_wait_leaves_the_connection_usable(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def give_up() -> None:
                await visitor.receive()
                scope.cancel()

            nursery.start_soon(give_up)
            await client.kill(S)
        await visitor.answer(visitor.seen[-1], {"killed": True})

        async def serve() -> None:
            assert (await visitor.receive())["method"] == "session/configure"
            result: dict[str, Any] = {"overrides": {"model": "m"}, "applies": "now"}
            await visitor.answer(visitor.seen[-1], {**result, "configOptions": []})

        nursery.start_soon(serve)
        configured = await client.configure(S, OverridesPatch(model="m", temperature=None))

    assert configured.overrides.model == "m"
    assert visitor.seen[-1]["params"]["overrides"] == {"model": "m", "temperature": None}


async def test_list_is_read_to_its_last_page(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            first = {"sessions": [{"sessionId": "a", "cwd": "/"}], "nextCursor": "next"}
            await visitor.answer(await visitor.expect("session/list"), first)
            second = {"sessions": [{"sessionId": "b", "cwd": "/"}]}
            await visitor.answer(await visitor.expect("session/list"), second)

        nursery.start_soon(serve)
        found = await client.sessions("/")

    assert [row.session_id for row in found] == ["a", "b"]
    assert visitor.seen[-1]["params"] == {"cwd": "/", "cursor": "next"}


# ---- turns


async def prompted(visitor: Visitor, seq: int, generation: int) -> dict[str, Any]:
    """Take a prompt and tell of its admission."""
    request = await visitor.expect("session/prompt")
    prompt_id = request["params"]["_meta"]["moorage"]["promptId"]
    admission = {"promptId": prompt_id, "by": "tui-1", "position": generation - 1, "text": "?"}
    await visitor.send(**entry(seq, "prompt", generation, **admission))
    return request


async def texts(turn: Turn) -> list[str]:
    return [m.text async for m in turn if isinstance(m, Update) and m.text is not None]


async def test_turn_yields_its_updates_and_ends_in_its_result(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            request = await prompted(visitor, 5, 1)
            await visitor.send(**update(6, "a"))
            await visitor.send(**update(None, "snapshot"))
            await visitor.send(**update(7, "b"))
            verdict = {"moorage": {"generation": 1, "outcome": "completed"}}
            await visitor.answer(request, {"stopReason": "end_turn", "_meta": verdict})

        nursery.start_soon(serve)
        async with client.prompt(S, "hello") as turn:
            said = await texts(turn)

    assert said == ["a", "b"]
    assert (turn.generation, turn.position) == (1, 0)
    assert turn.result.stop_reason == "end_turn"
    assert visitor.seen[-1]["params"]["prompt"] == [{"type": "text", "text": "hello"}]


async def test_queued_turn_yields_nothing_of_the_turn_before_it(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            request = await prompted(visitor, 5, 2)
            await visitor.send(**update(6, "of the first", generation=1))
            await visitor.send(**entry(7, "verdict", 1, outcome="completed"))
            await visitor.send(**update(8, "of ours", generation=2))
            await visitor.answer(request, {"stopReason": "end_turn"})

        nursery.start_soon(serve)
        async with client.prompt(S, "hello") as turn:
            said = await texts(turn)

    assert said == ["of ours"]
    assert turn.position == 1


@pytest.mark.parametrize(
    ("code", "kind", "expected"), [(-31009, "tool", TurnFailed), (-31003, "busy", Busy)]
)
async def test_failed_prompt_raises_behind_its_updates(
    daemon: FakeDaemon, code: int, kind: str, expected: type[RpcError]
) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            request = await prompted(visitor, 1, 1)
            await visitor.send(**update(2, "so far"))
            await visitor.refuse(request, code, "no", kind)

        nursery.start_soon(serve)
        seen: list[int | None] = []
        async with client.prompt(S, "hello") as turn:
            with pytest.raises(expected) as caught:
                await collect(turn, seen)

    assert seen == [1, 2]
    assert caught.value.kind == kind


async def test_leaving_a_turn_detaches_and_does_not_cancel_it(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:
        nursery.start_soon(prompted, visitor, 1, 1)
        async with client.prompt(S, "hello") as turn:
            assert isinstance(await anext(turn), LogEntry)

        assert (await visitor.receive())["method"] == "_moorage/session/detach"


async def test_turn_asks_for_its_own_generation_to_be_cancelled(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            request = await prompted(visitor, 1, 3)
            await visitor.answer(await visitor.expect("session/cancel"), {"outcome": "fired"})
            verdict = {"generation": 3, "outcome": "cancelled", "cause": "client_rpc"}
            await visitor.answer(
                request, {"stopReason": "cancelled", "_meta": {"moorage": verdict}}
            )

        nursery.start_soon(serve)
        async with client.prompt(S, "hello") as turn:
            await anext(turn)
            assert (await turn.cancel()).outcome is CancelOutcome.FIRED
            result = await turn.finish()

    assert visitor.seen[-1]["params"]["_meta"]["moorage"] == {"generation": 3}
    assert result.stop_reason == "cancelled"


# ---- the log


async def test_attachment_yields_what_follows_the_snapshot(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            await attach(visitor, 9)
            for seq in range(4, 12):
                await visitor.send(**update(seq, str(seq)))

        nursery.start_soon(serve)
        async with client.attach(S, 3) as attachment:
            seen = await take(attachment, 8)

            assert attachment.snapshot.seq == 9
            assert seen == list(range(4, 12))
            assert attachment.seq == 11


@pytest.mark.parametrize("number", [6, 8], ids=["repetition", "gap"])
async def test_number_out_of_order_raises(daemon: FakeDaemon, number: int) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            await attach(visitor, 5)
            await visitor.send(**update(6, "a"))
            await visitor.send(**update(number, "b"))

        nursery.start_soon(serve)
        async with client.attach(S, 5) as attachment:
            assert (await anext(attachment)).seq == 6
            with pytest.raises(OutOfOrder) as caught:
                await anext(attachment)

    assert caught.value.expected == 7


async def test_killed_session_ends_the_attachment_and_says_why(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            await attach(visitor, 0)
            await visitor.send(**entry(1, "state", state="killed"))
            notice = {"sessionId": S, "seq": 1, "reason": "killed"}
            await visitor.send(method="_moorage/session/detached", params=notice)

        nursery.start_soon(serve)
        async with client.attach(S, 0) as attachment:
            seen = [message.seq async for message in attachment]

    assert seen == [1]
    assert attachment.detached is DetachReason.KILLED


async def test_reattach_loses_nothing_and_repeats_nothing(daemon: FakeDaemon) -> None:
    seen: list[int | None] = []
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve(visitor: Visitor, after: int, until: int) -> None:
            request = await visitor.expect("_moorage/session/attach")
            assert request["params"]["afterSeq"] == after
            await visitor.answer(request, snapshot(40))
            for seq in range(after + 1, until + 1):
                await visitor.send(**update(seq, "x"))

        nursery.start_soon(serve, visitor, 0, 20)
        async with client.attach(S, 0) as attachment:
            seen += await take(attachment, 10)
            await wait_all_tasks_blocked()
            await visitor.send_raw(b'{"jsonrpc":"2.0","method":"session/upd')
            await visitor.hang_up()
            with pytest.raises(ConnectionLost):
                await collect(attachment, seen)

            async def welcome_back() -> None:
                again = await daemon.accept()
                await again.greet()
                await serve(again, 20, 40)

            nursery.start_soon(welcome_back)
            await attachment.reattach()
            seen += await take(attachment, 20)

    assert seen == list(range(1, 41))


async def test_reattach_drops_what_was_not_handed_out_and_gets_it_again(
    daemon: FakeDaemon,
) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve(after: int) -> None:
            request = await visitor.expect("_moorage/session/attach")
            await visitor.answer(request, snapshot(9))
            for seq in range(after + 1, 10):
                await visitor.send(**update(seq, "x"))

        nursery.start_soon(serve, 0)
        async with client.attach(S, 0) as attachment:
            await anext(attachment)
            await wait_all_tasks_blocked()
            nursery.start_soon(serve, 1)
            await attachment.reattach()

            assert await take(attachment, 8) == list(range(2, 10))


async def test_lost_connection_fails_every_request_that_is_open(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def vanish() -> None:
            await visitor.receive()
            await visitor.hang_up()

        nursery.start_soon(vanish)
        with pytest.raises(ConnectionLost):
            await client.status()
        with pytest.raises(ConnectionLost):
            await client.status()


async def test_reader_that_stands_still_holds_the_daemon_back(daemon: FakeDaemon) -> None:
    text, flood = "x" * 60_000, 400
    sent = 0
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def stream() -> None:
            nonlocal sent
            await attach(visitor, 0)
            for seq in range(1, flood + 1):
                await visitor.send(**update(seq, text))
                sent += 1

        nursery.start_soon(stream)
        async with client.attach(S, 0) as attachment:
            await wait_all_tasks_blocked(0.01)
            held_back = sent
            seen = await take(attachment, flood)

    assert held_back * len(text) < MOST_BYTES + 2**20  # the feed and both socket buffers
    assert seen == list(range(1, flood + 1))


async def test_messages_of_a_session_that_nobody_follows_block_nobody(daemon: FakeDaemon) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            request = await visitor.expect("session/kill")
            for seq in range(1, 400):
                await visitor.send(**update(seq, "x" * 60_000))
            await visitor.answer(request, {"killed": True, "cause": "admin_kill"})

        nursery.start_soon(serve)

        assert (await client.kill(S)).killed


async def test_leaving_an_attachment_detaches_and_what_still_comes_is_for_nobody(
    daemon: FakeDaemon,
) -> None:
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:
        nursery.start_soon(attach, visitor, 0)
        async with client.attach(S, 0):
            pass
        detach = await visitor.expect("_moorage/session/detach")
        await visitor.send(**update(1, "on its way"))
        await visitor.answer(detach)

        async def serve() -> None:
            await attach(visitor, 50)
            await visitor.send(**update(51, "new"))

        nursery.start_soon(serve)
        async with client.attach(S) as attachment:
            assert (await anext(attachment)).seq == 51


async def test_unknown_update_is_kept_as_it_came(daemon: FakeDaemon) -> None:
    seen: list[Message] = []
    async with visiting(daemon) as (client, visitor), trio.open_nursery() as nursery:

        async def serve() -> None:
            await attach(visitor, 0)
            mark = {"_meta": {"moorage": {"seq": 1}}}
            strange = {"sessionUpdate": "of_tomorrow", "x": 1}
            await visitor.send(
                method="session/update", params={"sessionId": S, "update": strange, **mark}
            )
            mark = {"_meta": {"moorage": {"seq": 2}}}
            call = {"sessionUpdate": "tool_call", "toolCallId": "t", "title": "T", "kind": "odd"}
            await visitor.send(
                method="session/update", params={"sessionId": S, "update": call, **mark}
            )

        nursery.start_soon(serve)
        async with client.attach(S, 0) as attachment:
            seen += [await anext(attachment), await anext(attachment)]

    strange, call = seen
    assert isinstance(strange, Update)
    assert isinstance(strange.update, Unknown)
    assert b"of_tomorrow" in bytes(strange.update.raw)
    assert isinstance(call, Update)
    assert call.update == ToolCall(tool_call_id="t", title="T")


# ---- questions


QUESTION = {
    "sessionId": S,
    "toolCall": {"toolCallId": "t", "title": "rm"},
    "options": [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}],
}


async def test_question_is_answered_by_the_handler(daemon: FakeDaemon) -> None:
    async def choose(question: PermissionParams) -> str | None:
        return question.options[0].option_id

    async with visiting(daemon, choose) as (_, visitor):
        await visitor.send(id=7, method="session/request_permission", params=QUESTION)
        answer = await visitor.receive()

    assert answer["result"] == {"outcome": {"outcome": "selected", "optionId": "yes"}}


async def test_withdrawn_question_cancels_its_handler(daemon: FakeDaemon) -> None:
    asked, dismissed = trio.Event(), trio.Event()

    async def choose(question: PermissionParams) -> str | None:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            dismissed.set()

    async with visiting(daemon, choose) as (_, visitor):
        await visitor.send(id=7, method="session/request_permission", params=QUESTION)
        await asked.wait()
        await visitor.send(method="$/cancel_request", params={"requestId": 7})
        answer = await visitor.receive()

        assert answer["error"]["code"] == -32800
        assert dismissed.is_set()


async def test_client_without_a_handler_leaves_the_question_to_the_others(
    daemon: FakeDaemon,
) -> None:
    async with visiting(daemon) as (_, visitor):
        await visitor.send(id=7, method="session/request_permission", params=QUESTION)
        answer = await visitor.receive()

    assert answer["error"]["code"] == -32601


async def test_more_questions_than_can_be_put_are_turned_away(daemon: FakeDaemon) -> None:
    async def choose(question: PermissionParams) -> str | None:
        await trio.sleep_forever()

    async with visiting(daemon, choose) as (_, visitor):
        for number in range(65):
            await visitor.send(id=number, method="session/request_permission", params=QUESTION)
        answer = await visitor.receive()

    assert (answer["id"], answer["error"]["code"]) == (64, -31008)


# ---- finding a daemon, being somebody


async def test_no_daemon_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CannotConnect):
        async with open_client(state_dir=tmp_path):
            pass
    with pytest.raises(CannotConnect):
        async with open_client(f"unix:{tmp_path}/none.sock"):
            pass
    with pytest.raises(ValueError, match="unix:PATH"):
        async with open_client("http://localhost"):
            pass


async def test_daemon_that_hangs_up_at_once_is_no_connection(daemon: FakeDaemon) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def turn_away() -> None:
                await (await daemon.accept()).hang_up()

            nursery.start_soon(turn_away)
            with pytest.raises(CannotConnect, match="closed the connection"):
                async with open_client(state_dir=daemon.state_dir):
                    pass


async def test_terminal_is_the_same_one_the_next_time(daemon: FakeDaemon) -> None:
    kept = IdentityFile.in_state_dir(daemon.state_dir, "test")
    hellos: list[Any] = []

    async def serve() -> None:
        for secret in ({"tuiSecret": "hush"}, {}):
            request = await (await daemon.accept()).greet(**secret)
            hellos.append(request["params"]["_meta"]["moorage"])
            del hellos[-1]["instance"]

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            for _ in range(2):
                async with open_client(daemon.address, identity=kept):
                    pass

    assert hellos == [
        {"name": "moorage_clients"},
        {"name": "moorage_clients", "tuiId": "tui-1", "tuiSecret": "hush"},
    ]
    assert stat.S_IMODE(Path(kept.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(kept.path).parent.stat().st_mode) == 0o700


async def test_identity_that_the_daemon_does_not_know_is_replaced(daemon: FakeDaemon) -> None:
    kept = IdentityFile.in_state_dir(daemon.state_dir, "test")
    Path(kept.path).parent.mkdir()
    Path(kept.path).write_text('{"tui_id":"old","tui_secret":"old"}')

    async def serve() -> None:
        visitor = await daemon.accept()
        await visitor.refuse(await visitor.receive(), -31004, "Not permitted", "not_permitted")
        await visitor.greet(tuiId="new", tuiSecret="fresh")

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with open_client(daemon.address, identity=kept) as client:
                assert client.welcome.tui_id == "new"

    found = kept.read()
    assert found is not None
    assert found.tui_id == "new"


async def test_first_of_two_identities_stays(tmp_path: Path) -> None:
    kept = IdentityFile.in_state_dir(tmp_path, "test")
    kept.keep(Identity("first", "x"), None)

    kept.keep(Identity("second", "x"), None)

    assert kept.read() == Identity("first", "x")


async def test_refused_introduction_is_no_connection(daemon: FakeDaemon) -> None:
    async def serve() -> None:
        visitor = await daemon.accept()
        await visitor.refuse(await visitor.receive(), -31004, "Not permitted", "not_permitted")

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(CannotConnect) as caught:
                async with open_client(daemon.address):
                    pass

    assert isinstance(caught.value.__cause__, NotPermitted)
