"""From a frame to its answer: in the order of the wire, once, and saying nothing it should not."""

import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jsonrpcserver
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.connection.connection import LINGER
from moorage_daemon.connection.outbox import MAX_CONTROL_BYTES, MAX_CONTROL_FRAMES
from moorage_daemon.handlers.starting import MAX_OPEN_REQUESTS
from moorage_daemon.identity import Identity
from moorage_protocol import jsonrpc
from moorage_protocol.acp import Empty, StopReason
from moorage_protocol.errors import (
    InternalError,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    NotPermitted,
    Overloaded,
    RequestCancelled,
    RpcError,
)
from moorage_protocol.framing import Malformed, Oversize
from moorage_protocol.moorage import Cause, Outcome, PromptResult
from tests.daemon.harness import Daemon, simulated
from tests.daemon.twin import (
    IN_FLIGHT,
    PATIENCE,
    Client,
    Json,
    Reply,
    Wire,
    cancel_params,
    memory_pair,
    prompt_params,
)


pytestmark = pytest.mark.trio(run=simulated)

PAIRS = 1000
SECRET = "/home/somebody/.secret/key"

Anything = dict[str, Any]


@dataclass(eq=False)
class Raw:
    """A client that reads a message when it is told to, and not before."""

    wire: Wire
    _unread: deque[bytes] = field(default_factory=deque[bytes])

    def post(self, *frames: bytes) -> None:
        """Send frames that the daemon gets in one read."""
        self.wire.outgoing.send_nowait(frames)

    async def hear(self) -> Json | None:
        """The next message; None at the end."""
        while not self._unread:
            try:
                with trio.fail_after(PATIENCE):
                    self._unread.extend(await self.wire.incoming.receive())
            except trio.EndOfChannel:
                return None
        message: Json = json.loads(self._unread.popleft())
        return message

    async def call(self, request_id: jsonrpc.RequestId, method: str, params: object) -> Json:
        self.post(jsonrpc.encode_request(request_id, method, params))
        answer = await self.hear()
        assert answer is not None
        return answer


@pytest.fixture
async def raw(daemon: Daemon) -> Raw:
    """One that has said who it is."""
    transport, wire = memory_pair()

    async def serve() -> None:
        await daemon.app.serve(transport)
        await transport.aclose()

    daemon.clients.start_soon(serve)
    client = Raw(wire)
    await client.call(1, "initialize", {"protocolVersion": 1})
    return client


async def ask_without_reading(client: Raw, times: int, method: str, params: object) -> None:
    """Send requests one by one, and give the daemon time for each."""
    for number in range(times):
        try:
            client.post(jsonrpc.encode_request(10_000 + number, method, params))
        except trio.BrokenResourceError:
            return
        await wait_all_tasks_blocked()


# ---- why the library's own dispatcher is not used


async def test_dispatcher_of_the_library_gives_a_wrong_answer_under_trio() -> None:
    methods = {"ping": _ping}
    request = '{"jsonrpc": "2.0", "method": "ping", "id": 1}'

    answer = json.loads(
        await jsonrpcserver.async_dispatch(request, methods=methods)  # noqa: TID251 - shows why
    )

    assert answer["id"] is None
    assert answer["error"]["code"] == -32000  # to an editor: ask the user to log in


async def _ping() -> jsonrpcserver.Result:
    return jsonrpcserver.Success("pong")


# ---- order


async def test_requests_are_handled_in_the_order_they_came_in(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    replies: list[Reply[PromptResult]] = []
    frames: list[bytes] = []
    for _ in range(PAIRS):
        frame, reply = client.prompt_frame(session)
        replies.append(reply)
        frames += [frame, jsonrpc.encode_notification("session/cancel", cancel_params(session))]

    client.post(*frames)

    results = [await reply.result() for reply in replies]
    assert {result.stop_reason for result in results} == {StopReason.CANCELLED}
    began = {entry["generation"] for entry in client.of_kind("begin")}  # takes a moment to stop
    waited = [reply.place for number, reply in enumerate(replies, 1) if number not in began]
    assert len(waited) > PAIRS / 2
    assert waited == sorted(waited)
    assert set(client.verdicts(session)) == set(range(1, PAIRS + 1))
    assert all(performance.was_cancelled for performance in daemon.puppet.performances)


async def test_nothing_else_runs_between_two_frames_of_one_read(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect()
    session = await client.new()
    frames = [client.prompt_frame(session, str(number))[0] for number in range(10)]

    client.post(*frames)
    other.start_cancel(session, scope="all")
    await wait_all_tasks_blocked()

    live = daemon.session(session)
    assert live.head.generation == 10
    assert len(client.verdicts(session)) in (0, 10)  # the cancel came before all, or behind all


# ---- getting acquainted


async def test_anything_before_initialize_is_an_invalid_request(daemon: Daemon) -> None:
    client = daemon.dial()
    for method in ("session/new", "session/list", "_moorage/status", "nonsense"):
        with pytest.raises(InvalidRequest, match="first"):
            await client.call(method, {"cwd": "/work"}, Empty)

    await client.initialize({})

    assert await client.listed() == []


async def test_second_initialize_is_an_invalid_request_and_changes_nothing(client: Client) -> None:
    before = client.tui

    with pytest.raises(InvalidRequest, match="once"):
        await client.initialize({})

    session = await client.new()
    assert (await client.live()).sessions[0].owner == before
    assert session


async def test_wrong_claim_is_refused_and_may_be_put_right(daemon: Daemon, client: Client) -> None:
    other = daemon.dial()
    for claim in (
        {"tuiId": client.tui},
        {"tuiId": client.tui, "tuiSecret": "x"},
        {"tuiId": "a" * 26, "tuiSecret": client.secret},
        {"tuiId": "../x", "tuiSecret": client.secret},
        {"tuiId": client.tui, "tuiSecret": "\x00é"},
    ):
        with pytest.raises(NotPermitted):
            await other.initialize(claim)

    await other.initialize({"tuiId": client.tui, "tuiSecret": client.secret})

    assert (other.tui, other.secret) == (client.tui, None)


@pytest.mark.parametrize("version", [1, 2, 3, 65535])
async def test_newer_protocol_is_answered_with_the_one_there_is(
    daemon: Daemon, version: int
) -> None:
    client = daemon.dial()

    answer = await client.call("initialize", {"protocolVersion": version}, Anything)

    assert answer["protocolVersion"] == 1


async def test_client_that_did_not_advertise_moorage_is_told_nothing_of_it(daemon: Daemon) -> None:
    client = daemon.dial()

    answer = await client.call("initialize", {"protocolVersion": 1}, Anything)

    assert "_meta" not in answer
    assert "moorage" in answer["agentCapabilities"]["_meta"]  # but what is there is advertised


async def test_client_that_advertised_moorage_gets_an_identity_of_its_own(daemon: Daemon) -> None:
    one, two = await daemon.connect(), await daemon.connect()

    assert one.tui != two.tui
    assert one.secret
    assert one.secret != two.secret


# ---- methods and params


async def test_unknown_method_is_not_found(client: Client) -> None:
    for method in ("nonsense", "", "session/fly", "_moorage/nonsense", "$/cancel_request", "rpc.x"):
        with pytest.raises(MethodNotFound):
            await client.call(method, {}, Empty)


@pytest.mark.parametrize("params", [[], ["/work"], 5, "x", True])
async def test_params_by_position_are_invalid_params(client: Client, params: Any) -> None:
    for method in ("session/new", "session/list", "_moorage/status"):
        with pytest.raises(InvalidParams):
            await client.call(method, params, Empty)


async def test_unknown_params_are_ignored(client: Client) -> None:
    params: Json = {"cwd": "/work", "mcpServers": None, "hello": [{}], "_meta": {"zed.dev": 5}}

    assert await client.call("session/new", params, Anything)


async def test_params_of_our_own_methods_are_taken_exactly(client: Client) -> None:
    session = await client.new()
    for method, params in (
        ("session/configure", {"overrides": {"temperature": "hot"}}),
        ("_moorage/session/attach", {"afterSeq": "5"}),
        ("_moorage/session/entries", {"after": 0, "kinds": "prompt"}),
        ("session/kill", {"reason": 5}),
    ):
        with pytest.raises(InvalidParams):
            await client.call(method, {"sessionId": session, **params}, Empty)

    assert (await client.live()).sessions[0].killed is False


@pytest.mark.parametrize("request_id", [0, -1, "0", "", "a-b", None, 2**53, "é" * 128], ids=repr)
async def test_answer_has_the_id_of_its_request_in_type_and_value(
    raw: Raw, request_id: jsonrpc.RequestId
) -> None:
    for method in ("nonsense", "session/list", "_moorage/status"):
        answer = await raw.call(request_id, method, {})

        assert answer["id"] == request_id
        assert type(answer["id"]) is type(request_id)


async def test_requests_under_one_id_are_each_answered(raw: Raw) -> None:
    request = jsonrpc.encode_request(5, "_moorage/status", {})

    raw.post(request, request, request)

    heard = [await raw.hear() for _ in range(3)]
    assert [message["id"] for message in heard if message] == [5, 5, 5]


# ---- notifications


async def test_notifications_are_never_answered(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    calls: list[tuple[str, Any]] = [
        ("nonsense", {}),
        ("_nonsense", None),
        ("initialize", {"protocolVersion": 1}),
        ("initialize", 5),
        ("session/new", {"cwd": "relative"}),
        ("session/new", {"cwd": "/work"}),
        ("session/prompt", {"sessionId": session, "prompt": []}),
        ("session/prompt", prompt_params("a" * 26)),
        ("session/cancel", cancel_params("a" * 26)),
        ("session/cancel", cancel_params(session)),
        ("session/cancel", cancel_params(session, generation=99)),
        ("session/cancel", {}),
        ("session/load", {"sessionId": "a" * 26, "cwd": "/"}),
        ("_moorage/status", {}),
        ("_moorage/session/entries", {"sessionId": session, "after": -1}),
        ("$/cancel_request", {}),
        ("$/cancel_request", {"requestId": 12345}),
        ("$/cancel_request", {"requestId": None}),
        ("$/cancel_request", {"requestId": [1]}),
        ("$/cancel_request", 5),
    ]
    await wait_all_tasks_blocked()
    before = len(client.messages)

    client.post(*(jsonrpc.encode_notification(method, params) for method, params in calls))
    await wait_all_tasks_blocked()

    told = [message for message in client.messages[before:] if "method" not in message]
    assert told == []
    assert (await client.status()).connections == 1


async def test_notification_that_breaks_is_not_answered_either(
    daemon: Daemon, client: Client
) -> None:
    daemon.app.desk.connected = broken
    before = len(client.messages)

    client.notify("_moorage/tui/list", {})
    client.notify("_moorage/status", {})
    await wait_all_tasks_blocked()

    assert len(client.messages) == before


# ---- what breaks


def broken() -> list[Identity]:
    raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    "method", ["_moorage/status", "_moorage/store/health"], ids=["now", "later"]
)
async def test_handler_that_raises_tells_the_peer_where_to_look_and_nothing_else(
    daemon: Daemon, client: Client, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    working = daemon.app.desk.connected
    daemon.app.desk.connected = broken
    daemon.store.fail_next(RuntimeError(SECRET))

    reply = client.start(method, {}, Empty)
    with pytest.raises(InternalError, match="log reference") as caught:
        await reply.result()

    assert SECRET not in json.dumps(client.messages)
    assert reply.message is not None
    assert reply.message["error"]["data"] == {"code": "internal", "retryable": False}
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    reference = vars(record)["reference"]
    assert reference in caught.value.message
    assert SECRET in caplog.text

    daemon.app.desk.connected = working
    assert (await client.status()).connections == 1


@pytest.mark.parametrize("said", [Oversize(8), Malformed(), b"{", b"\xff", b"[]", b"5"])
async def test_unusable_frame_is_answered_and_the_connection_lives(
    client: Client, said: bytes | Oversize
) -> None:
    client.post(said)
    await client.until(lambda: client.messages[-1].get("id", 0) is None)

    assert client.messages[-1]["error"]["code"] in (-32700, -32600)
    assert (await client.status()).connections == 1


async def test_answers_to_nothing_are_dropped(client: Client) -> None:
    before = len(client.messages)

    client.post(
        jsonrpc.encode_result(None, {}),
        jsonrpc.encode_result("x", {}),
        jsonrpc.encode_result(7, {"outcome": {"outcome": "cancelled"}}),
        jsonrpc.encode_error(None, MethodNotFound()),
        jsonrpc.encode_error(7, RpcError("x")),
    )
    await wait_all_tasks_blocked()

    assert len(client.messages) == before
    assert (await client.status()).connections == 1


async def test_long_prompt_of_a_client_that_is_not_shown_it_is_answered(daemon: Daemon) -> None:
    client = await daemon.connect(plain=True)
    session = await client.new()

    prompt = client.prompt(session, "x" * 2_000_000)
    (await daemon.puppet.next()).finish()

    assert (await prompt.result()).stop_reason is StopReason.END_TURN


# ---- requests that take their time


async def hold(daemon: Daemon, client: Client) -> str:
    """A session with a turn that does not end; closing it takes as long as the grace."""
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).dig_in()
    return session


async def test_more_open_requests_than_the_limit_are_refused(
    daemon: Daemon, client: Client
) -> None:
    session = await hold(daemon, client)
    closing = [client.start_close(session) for _ in range(MAX_OPEN_REQUESTS)]

    with pytest.raises(Overloaded) as caught:
        await client.call("_moorage/store/health", {}, Empty)

    assert caught.value.retryable
    assert [reply for reply in closing if reply.arrived.is_set()] == []
    assert await client.listed() == [session]  # what takes no time is still answered
    for reply in closing:
        await reply.result()
    assert (await client.status()).connections == 1


async def test_limit_of_one_connection_is_not_that_of_another(
    daemon: Daemon, client: Client
) -> None:
    session = await hold(daemon, client)
    for _ in range(MAX_OPEN_REQUESTS):
        client.start_close(session)
    other = await daemon.connect()

    assert (await other.status()).connections == 2


async def test_request_that_is_given_up_is_answered_as_cancelled(
    daemon: Daemon, client: Client
) -> None:
    session = await hold(daemon, client)
    given_up, kept = client.start_close(session), client.start_close(session)
    await wait_all_tasks_blocked()

    client.notify("$/cancel_request", {"requestId": given_up.id})

    with pytest.raises(RequestCancelled):
        await given_up.result()
    assert not kept.arrived.is_set()
    await kept.result()


async def test_prompt_that_is_given_up_is_a_cancelled_turn(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    running, waiting = client.prompt(session), client.prompt(session)
    turn = await daemon.puppet.next()

    client.notify("$/cancel_request", {"requestId": waiting.id})
    client.notify("$/cancel_request", {"requestId": running.id})

    assert (await running.verdict()).cause is Cause.CLIENT_RPC
    assert (await waiting.verdict()).cause is Cause.CLIENT_RPC
    assert (await running.result()).stop_reason is StopReason.CANCELLED
    assert turn.was_cancelled
    assert len(daemon.puppet.performances) == 1


def another(number: int) -> int:
    return number + 1000


@pytest.mark.parametrize("disguise", [str, float, another])
async def test_giving_up_another_request_is_no_use(
    daemon: Daemon, client: Client, disguise: Callable[[int], object]
) -> None:
    session = await client.new()
    prompt = client.prompt(session)
    turn = await daemon.puppet.next()

    client.notify("$/cancel_request", {"requestId": disguise(prompt.id)})
    await wait_all_tasks_blocked()

    turn.finish()
    assert (await prompt.verdict()).outcome is Outcome.COMPLETED


async def test_giving_up_a_prompt_of_another_connection_is_no_use(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    prompt = client.prompt(session)
    turn = await daemon.puppet.next()
    other = await daemon.connect()

    for number in range(prompt.id + 1):
        other.notify("$/cancel_request", {"requestId": number})
    await wait_all_tasks_blocked()

    turn.finish()
    assert (await prompt.verdict()).outcome is Outcome.COMPLETED


async def test_request_of_a_client_that_left_goes_nowhere(daemon: Daemon, client: Client) -> None:
    session = await hold(daemon, client)
    other = await daemon.connect()
    for _ in range(MAX_OPEN_REQUESTS):
        client.start_close(session)
    await wait_all_tasks_blocked()

    client.leave()
    await trio.sleep(10)

    assert (await other.status()).connections == 1


async def test_client_that_has_no_more_to_say_gets_the_answers_that_wait_for_the_disk(
    daemon: Daemon, raw: Raw
) -> None:
    daemon.store.hold()
    raw.post(jsonrpc.encode_request(2, "session/new", {"cwd": "/work"}))
    raw.wire.outgoing.close()
    await wait_all_tasks_blocked()

    daemon.store.release()

    answer = await raw.hear()
    assert answer is not None
    assert answer["result"]["sessionId"]


async def test_client_that_has_no_more_to_say_is_not_waited_for_long(
    daemon: Daemon, raw: Raw
) -> None:
    other = await daemon.connect()
    daemon.store.hold()
    raw.post(jsonrpc.encode_request(2, "session/new", {"cwd": "/work"}))
    raw.wire.outgoing.close()

    await trio.sleep(LINGER * 2)

    assert (await other.status()).connections == 1


# ---- a client that does not take its answers


async def test_client_with_too_many_unread_answers_is_closed(daemon: Daemon, raw: Raw) -> None:
    await ask_without_reading(raw, MAX_CONTROL_FRAMES + IN_FLIGHT + 10, "nonsense", {})

    other = await daemon.connect()
    assert (await other.status()).connections == 1
    heard = 0
    while await raw.hear() is not None:
        heard += 1
    assert heard <= IN_FLIGHT + 1


async def test_client_with_fewer_unread_answers_gets_them_all(daemon: Daemon, raw: Raw) -> None:
    count = MAX_CONTROL_FRAMES - 10

    await ask_without_reading(raw, count, "nonsense", {})

    heard = [await raw.hear() for _ in range(count)]
    assert [message["id"] for message in heard if message] == list(range(10_000, 10_000 + count))


async def test_client_with_too_heavy_unread_answers_is_closed(
    daemon: Daemon, client: Client, raw: Raw
) -> None:
    session = await client.new()
    client.prompt(session)
    turn = await daemon.puppet.next()
    await turn.say("x" * (MAX_CONTROL_BYTES // 3))

    params = {"sessionId": session, "after": 0}
    await ask_without_reading(raw, IN_FLIGHT + 10, "_moorage/session/entries", params)

    assert (await client.status()).connections == 1


async def test_turn_goes_on_when_its_client_is_closed_for_not_reading(
    daemon: Daemon, raw: Raw
) -> None:
    session = (await raw.call(2, "session/new", {"cwd": "/work"}))["result"]["sessionId"]
    raw.post(jsonrpc.encode_request(3, "session/prompt", prompt_params(session)))
    turn = await daemon.puppet.next()
    await ask_without_reading(raw, MAX_CONTROL_FRAMES + IN_FLIGHT + 10, "nonsense", {})
    other = await daemon.connect()
    assert (await other.status()).connections == 1

    await turn.say("still here")
    turn.finish()

    await other.attach(session, afterSeq=0)
    await other.until(lambda: bool(other.verdicts(session)))
    assert other.verdicts(session)[1]["outcome"] == Outcome.COMPLETED
    assert other.text(session) == "still here"
