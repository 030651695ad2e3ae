"""The places there are for clients, and strangers who only wait."""

import errno
import logging
import resource
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from moorage_daemon.connection.transport import Transport, TransportClosed
from moorage_daemon.identity import Principal
from moorage_daemon.settings import WebsocketAddress
from moorage_daemon.transports.room import (
    KEPT_LOCAL,
    MAX_CLIENTS,
    MAX_STRANGERS,
    MIN_CLIENTS,
    RETRY,
    SAY_EVERY,
    Door,
    Room,
    fitting,
)
from moorage_daemon.transports.unix import bind, serve_unix
from moorage_daemon.transports.websocket import BODIES, open_websocket
from tests.daemon.transports.conftest import BEARER, gate_for
from tests.daemon.transports.raw import RawClient, ask, dial, handshake
from tests.daemon.transports.test_unix import Client, dial as dial_unix


@pytest.mark.parametrize(
    ("descriptors", "clients"),
    [
        (resource.RLIM_INFINITY, MAX_CLIENTS),
        (1_000_000, MAX_CLIENTS),
        (1024, 832),
        (256, 64),
        (64, MIN_CLIENTS),
    ],
)
def test_clients_leave_descriptors_for_everything_else(descriptors: int, clients: int) -> None:
    assert fitting(descriptors) == clients


async def serve(transport: Transport, _principal: Principal | None = None) -> None:
    """Greet, and wait for the end."""
    await transport.send([b'{"hello":"you"}'])
    while True:
        try:
            await transport.receive()
        except TransportClosed:
            return


@asynccontextmanager
async def listening(path: Path, room: Room) -> AsyncGenerator[int]:
    """Both listeners over one room; gives the port."""
    address = WebsocketAddress("127.0.0.1", 0)
    with bind(path) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_unix, listener, serve, set[int], room)
            async with open_websocket(address, gate_for, serve, room) as port:
                yield port
            nursery.cancel_scope.cancel()


async def greeted(stack: AsyncExitStack, path: Path) -> Client:
    client = await stack.enter_async_context(dial_unix(path))
    assert await client.hear() == {"hello": "you"}
    return client


async def test_client_beyond_the_limit_is_told_so_and_closed(tmp_path: Path) -> None:
    path, room = tmp_path / "sock", Room(2)
    async with listening(path, room), AsyncExitStack() as stack:
        await greeted(stack, path)
        second = await greeted(stack, path)

        async with dial_unix(path) as third:
            refusal = await third.hear()
            assert refusal is not None
            assert (refusal["id"], refusal["error"]["code"]) == (None, -31008)
            assert refusal["error"]["data"] == {"code": "overloaded", "retryable": True}
            assert await third.hear() is None

        await second.stream.aclose()
        await wait_all_tasks_blocked(0.01)
        await greeted(stack, path)


async def test_websocket_beyond_the_limit_gets_503_but_only_with_a_good_credential(
    tmp_path: Path,
) -> None:
    path, room = tmp_path / "sock", Room(KEPT_LOCAL + 1)
    async with listening(path, room) as port, AsyncExitStack() as stack:
        client = await stack.enter_async_context(dial(port))
        await client.send(handshake(port, [BEARER]))
        assert (await client.answer()).status == 101

        refused = await ask(port, handshake(port, [BEARER]))
        stranger = await ask(port, handshake(port))

        assert (refused.status, stranger.status) == (503, 401)
        assert refused.body.decode() == BODIES[HTTPStatus.SERVICE_UNAVAILABLE]
        for _ in range(KEPT_LOCAL):  # whoever runs the daemon gets in all the same
            await greeted(stack, path)


async def test_stranger_who_waits_longest_makes_room_for_the_next(tmp_path: Path) -> None:
    async with listening(tmp_path / "sock", Room(1000)) as port, AsyncExitStack() as stack:
        client = await stack.enter_async_context(dial(port))
        await client.send(handshake(port, [BEARER]))
        assert (await client.answer()).status == 101
        strangers: list[RawClient] = []
        for _ in range(MAX_STRANGERS * 2):
            strangers.append(await stack.enter_async_context(dial(port)))
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked(0.01)

        for dropped in strangers[:MAX_STRANGERS]:
            assert await dropped.rest() == b""
        for waiting in strangers[MAX_STRANGERS:]:
            await waiting.send(handshake(port, [BEARER]))
            assert (await waiting.answer()).status == 101
        assert (await client.frame()) is not None  # its greeting: nobody touched it


async def test_door_waits_for_a_descriptor_and_says_so_once_a_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    async def accept() -> str:
        tries.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if trio.current_time() < 1.5 * SAY_EVERY:
            raise OSError(errno.EMFILE, "Too many open files")
        return "a client"

    with caplog.at_level(logging.INFO):
        assert await Door().next(accept) == "a client"

    assert len(tries) <= 1.5 * SAY_EVERY / RETRY + 2
    assert [record.message for record in caplog.records] == [
        "cannot accept a client, trying on"
    ] * 2
    assert all(record.exc_info is None for record in caplog.records)


async def test_door_of_a_closed_listener_is_no_door(tmp_path: Path) -> None:
    listener = bind(tmp_path / "sock")
    listener.close()

    with pytest.raises(trio.ClosedResourceError):
        await Door().next(listener.accept)
