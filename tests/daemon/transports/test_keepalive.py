"""Which clients are given up: the dead ones, and no others."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from moorage_daemon.transports.websocket import MAX_UNSENT, PING_EVERY, PING_PATIENCE
from moorage_protocol import jsonrpc
from moorage_protocol.moorage import State
from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.transports.conftest import Listener, listen_for
from tests.daemon.transports.raw import CLOSE, PING, PONG, Frame, RawClient, frame
from tests.daemon.twin import prompt_params


LONG = 100.0  # seconds


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def listener(daemon: Daemon) -> AsyncIterator[Listener]:
    async with listen_for(daemon) as listening:
        yield listening


async def connections(daemon: Daemon) -> int:
    """How many clients there are, beside the one that asks."""
    observer = await daemon.connect()
    count = (await observer.status()).connections
    observer.leave()
    await wait_all_tasks_blocked(0.01)
    return count - 1


async def answer_pings(client: RawClient) -> None:
    """Do what any WebSocket library does, and nothing else."""
    while (received := await client.frame(patience=LONG)) is not None:
        if received.opcode == PING:
            await client.send(frame(received.payload, PONG))


async def test_silent_client_is_asked_for_a_sign_of_life(
    sockets_clock: MockClock, listener: Listener
) -> None:
    async with listener.connect() as client:
        await client.introduce()
        start = trio.current_time()

        assert await client.frame(patience=PING_EVERY * 2) == Frame(PING, b"")

        assert PING_EVERY <= trio.current_time() - start <= 2 * PING_EVERY


async def test_client_that_gives_no_sign_of_life_is_given_up_in_time(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client:
        await client.introduce()
        asked = await client.frame(patience=PING_EVERY * 2)
        start = trio.current_time()

        await trio.sleep(PING_PATIENCE - 0.1)
        assert await connections(daemon) == 1
        await trio.sleep(PING_EVERY)

        assert asked == Frame(PING, b"")
        assert await connections(daemon) == 0
        assert trio.current_time() - start <= PING_PATIENCE + PING_EVERY


async def test_turn_of_a_client_that_is_given_up_goes_on(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client:
        await client.introduce()
        session = await client.new()
        await client.say("session/prompt", prompt_params(session), 50)
        turn = await daemon.puppet.next()

        await trio.sleep(LONG)

        assert await connections(daemon) == 0
        await turn.say("still here")
        observer = await daemon.connect()
        assert (await observer.attach(session)).state is State.RUNNING


async def test_client_that_only_answers_pings_stays(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client, trio.open_nursery() as nursery:
        await client.introduce()
        nursery.start_soon(answer_pings, client)

        await trio.sleep(LONG)

        assert await connections(daemon) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "sign",
    [
        frame(jsonrpc.encode_notification("nonsense", {})),
        frame(b"", PONG),
        frame(b"x", PING),
        frame(b"", 2),
    ],
    ids=["message", "unasked pong", "ping", "binary message"],
)
async def test_whatever_a_client_says_is_a_sign_of_life(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener, sign: bytes
) -> None:
    async with listener.connect() as client:
        await client.introduce()
        for _ in range(10):
            await client.send(sign)
            await trio.sleep(PING_EVERY - 0.5)

        assert await connections(daemon) == 1


async def test_client_in_the_middle_of_a_long_message_is_not_given_up(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    message = frame(jsonrpc.encode_request(7, "_moorage/status", {}) + b" " * 100)
    async with listener.connect() as client:
        await client.introduce()
        for at in range(0, 90, 9):
            await client.send(message[at : at + 9])
            await trio.sleep(PING_EVERY - 0.5)

        await client.send(message[90:])

        while (answer := await client.frame()) == Frame(PING, b""):
            pass
        assert answer is not None
        assert b'"id":7' in answer.payload


async def test_client_that_reads_slowly_is_not_given_up(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client:
        await client.introduce()
        session = await client.new()
        await client.say("session/prompt", prompt_params(session), 50)
        turn = await daemon.puppet.next()
        for _ in range(24):
            await turn.say("x" * 500_000)
        turn.finish()

        said, answered = 0, False
        while not answered:
            await trio.sleep(PING_PATIENCE + PING_EVERY)  # it answers no ping in all that time
            for _ in range(100):
                received = await client.frame()
                assert received is not None
                said += received.payload.count(b"x")
                answered = b'"id":50' in received.payload[:60]
                if answered:
                    break

        assert 24 * 500_000 <= said < 24 * 500_000 + 10_000


async def test_ping_is_not_sent_into_a_message(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client:
        await client.introduce()
        session = await client.new()
        await client.say("session/prompt", prompt_params(session), 50)
        turn = await daemon.puppet.next()
        for _ in range(20):
            await turn.say("x" * 500_000)
            await trio.sleep(PING_EVERY / 4)
        turn.finish()

        frames = [await client.frame()]
        while b'"id":50' not in (frames[-1] or Frame(CLOSE, b"")).payload[:60]:
            frames.append(await client.frame())

        assert all(received is not None and received.final for received in frames)


async def test_pongs_for_a_client_that_does_not_read_do_not_pile_up(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client:
        await client.introduce()
        session = await client.new()
        await client.say("session/prompt", prompt_params(session), 50)
        turn = await daemon.puppet.next()
        for _ in range(40):
            await turn.say("x" * 500_000)
        await wait_all_tasks_blocked(0.01)

        await client.send(frame(b"x" * 125, PING) * (MAX_UNSENT // 2))
        assert await connections(daemon) == 1
        # The writer may have taken the first ones along, and be stuck with them.
        with suppress(trio.BrokenResourceError):
            await client.send(frame(b"x" * 125, PING) * (2 * MAX_UNSENT))
        await wait_all_tasks_blocked(0.01)

        assert await connections(daemon) == 0
        assert not turn.is_over
