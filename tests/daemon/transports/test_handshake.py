"""Handshakes over real sockets: what strangers are told, and what clients get."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from moorage_daemon.connection.transport import TransportClosed
from moorage_daemon.identity import Principal
from moorage_daemon.settings import WebsocketAddress
from moorage_daemon.transports.room import Room
from moorage_daemon.transports.websocket import (
    BODIES,
    OPEN_TIMEOUT,
    WebSocketTransport,
    open_websocket,
)
from tests.daemon.transports.conftest import (
    BEARER,
    OWNER,
    PAGE,
    TOKEN,
    Listener,
    Open,
    gate_for,
)
from tests.daemon.transports.raw import RawClient, Unusual, ask, dial, frame, handshake
from tests.daemon.transports.stock import reader_tasks


@pytest.fixture
async def listener(open_listener: Open) -> AsyncIterator[Listener]:
    async def read_all(transport: WebSocketTransport, _principal: Principal) -> None:
        while True:
            try:
                await transport.receive()
            except TransportClosed:
                return

    async with open_listener(read_all) as listening:
        yield listening


PROTOCOL = "Sec-WebSocket-Protocol"


@pytest.mark.parametrize(
    ("status", "lines", "more"),
    [
        (421, [BEARER], {"host": "evil.example"}),
        (421, [BEARER], {"host": None}),
        (421, [BEARER, ("Host", "evil.example")], {}),
        (421, [("Origin", "https://evil.example")], {"host": "evil.example", "path": "/"}),
        (403, [BEARER, ("Origin", "https://evil.example")], {}),
        (403, [BEARER, ("Origin", "null")], {}),
        (403, [BEARER, ("Origin", PAGE), ("Origin", PAGE)], {}),
        (403, [("Origin", "https://evil.example")], {"path": "/"}),
        (404, [BEARER], {"path": "/"}),
        (404, [], {"path": f"/acp?token={TOKEN}"}),
        (401, [], {}),
        (401, [("Authorization", "Bearer wrong")], {}),
        (401, [("Authorization", f"Bearer {TOKEN[:-1]}")], {}),
        (401, [("Authorization", "Bearer \xff\xfe")], {}),
        (401, [("Cookie", f"token={TOKEN}")], {}),
        (401, [BEARER, BEARER], {}),
        (401, [BEARER, (PROTOCOL, f"moorage.v1, moorage.bearer.{TOKEN}")], {}),
        (401, [(PROTOCOL, f"moorage.v1, moorage.bearer.{TOKEN}")], {}),
        (401, [("Origin", PAGE)], {}),
        (401, [("Origin", PAGE), (PROTOCOL, "moorage.v1, moorage.bearer.wrong")], {}),
        (401, [], {"upgrade": False}),
    ],
)
async def test_stranger_is_told_a_status_and_nothing_else(
    listener: Listener, status: int, lines: list[tuple[str, str]], more: Unusual
) -> None:
    answer = await ask(listener.port, handshake(listener.port, lines, **more))

    assert answer.status == status
    assert answer.body.decode() == {int(known): body for known, body in BODIES.items()}[status]
    assert set(answer.headers) == {"date", "connection", "content-length", "content-type"}
    assert listener.served == []


async def test_client_is_let_in_with_its_principal(listener: Listener) -> None:
    answer = await ask(listener.port, handshake(listener.port, [BEARER]))

    assert answer.status == 101
    await wait_all_tasks_blocked()
    assert listener.served == [OWNER]


async def test_accepted_handshake_carries_a_connection_id_that_is_never_the_same(
    listener: Listener,
) -> None:
    answers = [await ask(listener.port, handshake(listener.port, [BEARER])) for _ in range(3)]

    ids = {answer.headers["acp-connection-id"] for answer in answers}
    assert len(ids) == 3
    assert all(len(name) >= 32 for name in ids)


async def test_answer_does_not_say_which_software_answers(listener: Listener) -> None:
    for lines in ([BEARER], []):
        answer = await ask(listener.port, handshake(listener.port, lines))
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("lines", "selected"),
    [
        ([BEARER], None),
        ([BEARER, (PROTOCOL, "chat")], None),
        ([BEARER, (PROTOCOL, "moorage.v1")], "moorage.v1"),
        ([BEARER, (PROTOCOL, "chat, moorage.v1, moorage.v2")], "moorage.v1"),
        (
            [("Origin", PAGE), (PROTOCOL, f"moorage.v1, moorage.bearer.{TOKEN}")],
            "moorage.v1",
        ),
        (
            [("Origin", PAGE), (PROTOCOL, f"moorage.bearer.{TOKEN}"), (PROTOCOL, "moorage.v1")],
            "moorage.v1",
        ),
        ([("Origin", PAGE), (PROTOCOL, f"moorage.bearer.{TOKEN}")], None),
    ],
)
async def test_subprotocol_is_ours_or_none_and_never_the_credential(
    listener: Listener, lines: list[tuple[str, str]], selected: str | None
) -> None:
    answer = await ask(listener.port, handshake(listener.port, lines))

    assert answer.status == 101
    assert answer.headers.get("sec-websocket-protocol") == selected
    assert not any(TOKEN in value for value in answer.headers.values())


async def test_no_compression_is_agreed_on_with_clients_that_offer_it(listener: Listener) -> None:
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")

    answer = await ask(listener.port, handshake(listener.port, [BEARER, offer]))

    assert answer.status == 101
    assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize("frames", [1, 16, 17, 200])
async def test_nothing_behind_a_refused_handshake_is_read(
    sockets_clock: MockClock, listener: Listener, frames: int
) -> None:
    async with dial(listener.port) as client:
        await client.send(handshake(listener.port) + frame(b'{"id":1}') * frames)

        assert (await client.answer()).status == 401
        assert await client.frames() == []
        assert listener.served == []


async def test_connection_that_was_refused_gets_no_second_try(listener: Listener) -> None:
    async with dial(listener.port) as client:
        await client.send(handshake(listener.port) + handshake(listener.port, [BEARER]))

        assert b" 101 " not in await client.rest()
        assert listener.served == []


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"\x16\x03\x01\x02\x00\x01\x00\n",
        b"GET /acp HTTP/2.0\r\n\r\n",
        b"GET /acp HTTP/1.1\r\nbroken\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n',
    ],
)
async def test_what_is_no_handshake_gets_no_answer(listener: Listener, said: bytes) -> None:
    async with dial(listener.port) as client:
        await client.send(said)

        assert await client.frames() == []
        assert listener.served == []


@pytest.mark.parametrize("more", [{"upgrade": False}, {"method": "POST"}, {"version": "8"}])
async def test_client_that_asks_for_no_websocket_is_not_served(
    listener: Listener, more: Unusual
) -> None:
    answer = await ask(listener.port, handshake(listener.port, [BEARER], **more))

    assert 400 <= answer.status < 500
    assert listener.served == []


# ---- strangers who take their time


@pytest.mark.parametrize("said", [b"", b"GET /acp HTTP/1.1\r\n", b"GET /acp"])
async def test_stranger_who_does_not_finish_is_dropped_in_time(
    sockets_clock: MockClock, listener: Listener, said: bytes
) -> None:
    async with dial(listener.port) as client:
        await client.send(said)
        await trio.sleep(OPEN_TIMEOUT - 0.5)
        assert reader_tasks() == 1

        await trio.sleep(1)

        assert await client.frames() == []
        assert reader_tasks() == 0


async def test_strangers_who_wait_keep_no_client_waiting(listener: Listener) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(200):
            await stack.enter_async_context(dial(listener.port))

        answer = await ask(listener.port, handshake(listener.port, [BEARER]))

        assert answer.status == 101


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_other_loopback_has_the_same_gate() -> None:
    served: list[Principal] = []

    async def serve(_transport: WebSocketTransport, principal: Principal) -> None:
        served.append(principal)

    async with open_websocket(WebsocketAddress("::1", 0), gate_for, serve, Room(9)) as port:
        for host, status in ((f"[::1]:{port}", 101), (f"[::2]:{port}", 421)):
            async with await trio.open_tcp_stream("::1", port) as stream:
                client = RawClient(stream)
                await client.send(handshake(port, [BEARER], host=host))
                assert (await client.answer()).status == status
    assert served == [OWNER]
