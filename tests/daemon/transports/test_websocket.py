"""Frames on an open WebSocket: which of them are messages, and which end the connection."""

import gc
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
import trio.testing
from websockets.http11 import Request

from moorage_protocol import jsonrpc
from moorage_protocol.framing import MAX_FRAME_BYTES
from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.transports.conftest import Listener, listen_for
from tests.daemon.transports.raw import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    frame,
)


INITIALIZE = jsonrpc.encode_request(1, "initialize", {"protocolVersion": 1})
STATUS = jsonrpc.encode_request(7, "_moorage/status", {})


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def listener(daemon: Daemon) -> AsyncIterator[Listener]:
    async with listen_for(daemon) as listening:
        yield listening


@pytest.fixture
async def client(listener: Listener) -> AsyncIterator[RawClient]:
    """A client that is through the gate and has not said anything."""
    async with listener.connect() as connected:
        yield connected


async def works(client: RawClient) -> bool:
    """Whether the connection answers."""
    await client.send(frame(STATUS))
    return "result" in await client.answer_to(7)


async def test_answer_is_one_whole_text_message(client: RawClient) -> None:
    await client.send(frame(INITIALIZE))

    answer = await client.frame()

    assert answer is not None
    assert (answer.opcode, answer.final, answer.reserved) == (TEXT, True, 0)
    assert json.loads(answer.payload)["result"]["protocolVersion"] == 1


async def test_the_request_with_its_token_is_kept_for_no_client(client: RawClient) -> None:
    await client.introduce()

    gc.collect()
    kept = [found for found in gc.get_objects() if isinstance(found, Request)]

    assert not [request for request in kept if "Authorization" in request.headers]
    assert await works(client)


async def test_message_in_fragments_is_one_message(client: RawClient) -> None:
    await client.send(
        frame(INITIALIZE[:5], final=False)
        + frame(b"x", PING)
        + frame(INITIALIZE[5:9], 0, final=False)
        + frame(INITIALIZE[9:], 0)
    )

    assert await client.frame() == Frame(PONG, b"x")
    assert (await client.answer_to(1))["result"]["protocolVersion"] == 1


async def test_binary_messages_are_ignored(client: RawClient) -> None:
    await client.introduce()

    await client.send(frame(STATUS, BINARY) + frame(b"\xff", BINARY) + frame(STATUS))

    assert (await client.answer_to(7))["id"] == 7
    await client.send(frame(b"x", PING))
    assert await client.frame() == Frame(PONG, b"x")  # there was one answer and no more


async def test_bad_json_is_answered_and_the_connection_lives(client: RawClient) -> None:
    await client.introduce()

    for bad in (b"", b"{", b"[]", b"\x00", b'{"jsonrpc":"2.0","id":1.5,"method":"m"}'):
        await client.send(frame(bad))
        answer = await client.hear()
        assert answer["id"] is None
        assert answer["error"]["code"] in (-32700, -32600)

    assert await works(client)


async def test_many_messages_in_one_packet_are_answered_in_their_order(client: RawClient) -> None:
    await client.introduce()
    requests = [jsonrpc.encode_request(number, "nonsense", {}) for number in range(100, 400)]

    await client.send(b"".join(map(frame, requests)))

    assert [(await client.hear())["id"] for _ in requests] == list(range(100, 400))


# ---- limits


async def test_message_of_exactly_the_limit_is_taken(client: RawClient) -> None:
    padded = INITIALIZE + b" " * (MAX_FRAME_BYTES - len(INITIALIZE))

    await client.send(frame(padded))

    assert (await client.answer_to(1))["result"]["protocolVersion"] == 1


@pytest.mark.parametrize(
    "data",
    [
        frame(b" " * (MAX_FRAME_BYTES + 1)),
        frame(b" " * MAX_FRAME_BYTES, final=False) + frame(b" ", 0),
        frame(b"x" * 2**20, final=False) + frame(b"x" * 2**20, 0, final=False) * 8,
    ],
    ids=["at once", "one byte in a second fragment", "without an end"],
)
async def test_oversize_message_closes_with_1009(client: RawClient, data: bytes) -> None:
    assert await closed_by(client, data) == 1009


async def closed_by(client: RawClient, data: bytes) -> int:
    """The code with which the server ends the connection over these bytes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_as_far_as_it_goes, client, data)
        code = await client.close_code()
        nursery.cancel_scope.cancel()
    return code


async def _send_as_far_as_it_goes(client: RawClient, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await client.send(data)


@pytest.mark.parametrize(
    "data",
    [
        frame(b'{"x":"\xff"}'),
        frame(b"\xed\xa0\x80"),
        frame(b"\xc0\xaf"),
        frame(b"\xf0\x9f\x98"),
        frame(b"\xf0\x9f", final=False) + frame(b"x", 0),
    ],
    ids=["byte", "surrogate", "overlong", "cut off", "cut off in a fragment"],
)
async def test_bad_utf8_closes_with_1007(client: RawClient, data: bytes) -> None:
    assert await closed_by(client, data) == 1007


async def test_character_may_be_split_between_fragments(client: RawClient) -> None:
    message = jsonrpc.encode_request(1, "nonsense😀", {})
    at = message.index("😀".encode()) + 2

    await client.send(frame(message[:at], final=False) + frame(message[at:], 0))

    assert (await client.hear())["id"] == 1


@pytest.mark.parametrize(
    "data",
    [
        frame(b"{}", masked=False),
        frame(b"{}", 3),
        frame(b"{}", 0),
        frame(b"{", final=False) + frame(b"}"),
        frame(b"x", PING, final=False),
        frame(b"x" * 126, PING),
        b"\xc1\x82\0\0\0\0{}",
    ],
    ids=[
        "unmasked", "unknown opcode", "continuation of nothing", "message inside a message",
        "ping in fragments", "long ping", "compressed without an agreement",
    ],
)  # fmt: skip
async def test_breach_of_the_protocol_closes_with_1002(client: RawClient, data: bytes) -> None:
    assert await closed_by(client, data) == 1002


# ---- what the WebSocket says for itself


async def test_pings_are_answered_while_nothing_else_is_to_be_written(client: RawClient) -> None:
    await client.introduce()

    for payload in (b"", b"one", b"x" * 125):
        await client.send(frame(payload, PING))
        assert await client.frame() == Frame(PONG, payload)


async def test_pings_are_answered_before_a_client_has_said_who_it_is(client: RawClient) -> None:
    await client.send(frame(b"x", PING))

    assert await client.frame() == Frame(PONG, b"x")


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9going", b"\x0f\xa0"])
async def test_closing_handshake_is_answered_at_once(client: RawClient, payload: bytes) -> None:
    await client.introduce()

    await client.send(frame(payload, CLOSE))

    assert await client.frames() == [Frame(CLOSE, payload)]


async def test_what_came_before_the_closing_handshake_is_still_done(
    daemon: Daemon, client: RawClient
) -> None:
    await client.introduce()
    new = jsonrpc.encode_request(5, "session/new", {"cwd": "/work"})

    await client.send(frame(new) + frame(b"\x03\xe8", CLOSE))

    assert await client.close_code() == 1000
    assert len(daemon.sessions.live) == 1


async def test_client_that_hangs_up_is_forgotten(listener: Listener) -> None:
    async with listener.connect() as staying:
        await staying.introduce()
        for _ in range(3):
            async with listener.connect() as leaving:
                await leaving.introduce()
        await trio.testing.wait_all_tasks_blocked(0.01)

        status = await staying.call("_moorage/status", {})

    assert status["connections"] == 1
