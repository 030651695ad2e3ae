"""What the WebSocket library gets wrong for a daemon, each beside the library as it comes.

A test named `…_library…` is the control: when it fails, the library has changed and the way
around it can go.
"""

import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.trio.server import ServerConnection

from moorage_daemon.connection.transport import TransportClosed
from moorage_daemon.identity import Principal
from moorage_daemon.transports.websocket import CLOSE_TIMEOUT, WebSocketTransport
from moorage_daemon.transports.writing import STALL
from moorage_protocol.moorage import Cause, State
from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.puppet import Performance
from tests.daemon.transports.conftest import BEARER, TOKEN, Listener, Open, Serve, listen_for
from tests.daemon.transports.raw import (
    CLOSE,
    PATIENCE,
    TEXT,
    Frame,
    Json,
    Lines,
    RawClient,
    dial,
    frame,
    handshake,
)
from tests.daemon.transports.stock import open_stock, reader_tasks
from tests.daemon.twin import cancel_params, prompt_params


HUGE = 32 * 2**20  # bytes; more than the sockets of one connection hold
PIECE = "x" * (512 * 2**10)
LONG_STALL = 40.0  # seconds; beyond a ping and the patience for its answer


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def listener(daemon: Daemon) -> AsyncIterator[Listener]:
    async with listen_for(daemon) as listening:
        yield listening


async def stalled(client: RawClient, daemon: Daemon) -> tuple[str, Performance]:
    """Start a turn whose output fills every buffer on its way to a client that reads nothing."""
    await client.introduce()
    session = await client.new()
    await client.say("session/prompt", prompt_params(session), 50)
    turn = await daemon.puppet.next()
    for _ in range(HUGE // len(PIECE)):
        await turn.say(PIECE)
    await wait_all_tasks_blocked(0.01)
    return session, turn


# ---- a client that stops reading can still cancel


async def test_library_does_not_hear_a_client_that_stops_reading(sockets_clock: MockClock) -> None:
    heard = trio.Event()

    async def flood(channel: ServerConnection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, channel, b"x" * HUGE)
            await channel.recv()
            heard.set()

    async with open_stock(flood) as (port, _), dial(port) as client:
        await client.send(handshake(port, path="/"))
        await client.answer()
        await wait_all_tasks_blocked(0.01)

        await client.send(frame(b"cancel"))
        with trio.move_on_after(10) as patience:
            await heard.wait()

    assert patience.cancelled_caught


async def _send(channel: ServerConnection, data: bytes) -> None:
    with suppress(ConnectionClosed):
        await channel.send(data)


@pytest.mark.parametrize("stall", [0.0, LONG_STALL])
async def test_client_that_stops_reading_can_still_cancel(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener, stall: float
) -> None:
    async with listener.connect() as client:
        session, turn = await stalled(client, daemon)
        await trio.sleep(stall)

        await client.say("session/cancel", cancel_params(session))

        other = await daemon.connect()
        await other.attach(session, afterSeq=0)
        await other.until(lambda: bool(other.verdicts(session)))
        assert other.verdicts(session)[1]["cause"] == Cause.CLIENT_RPC
        assert turn.was_cancelled


async def test_client_that_reads_again_has_missed_nothing(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client:
        session, turn = await stalled(client, daemon)
        await trio.sleep(LONG_STALL)
        turn.finish()

        heard = [await client.hear()]
        while heard[-1].get("id") != 50:
            heard.append(await client.hear())

        told = [seq for message in heard if (seq := _seq(message)) is not None]
        assert told == [entry.seq for entry in await daemon.log(session) if entry.seq > 1]


def _seq(message: Json) -> int | None:
    """The number of the entry that a message tells."""
    params: Json = message.get("params", {})
    mark: Json = params.get("_meta", {}).get("moorage", {})
    return params.get("seq", mark.get("seq"))


# ---- nothing is sent behind a frame that was cut


async def test_library_sends_on_behind_a_frame_that_was_cut(sockets_clock: MockClock) -> None:
    sent = trio.Event()

    async def cut_and_go_on(channel: ServerConnection) -> None:
        with trio.move_on_after(1):
            await channel.send(b"x" * HUGE)
        await channel.send("behind")
        sent.set()
        await trio.sleep(2)

    async with open_stock(cut_and_go_on) as (port, _), dial(port) as client:
        await client.send(handshake(port, path="/"))
        await client.answer()
        await trio.sleep(2)
        received = await client.rest()

    assert sent.is_set()
    assert b"\x81\x06behind" in received  # in the middle of the message


def is_cut_frame(received: bytes) -> bool:
    """Whether this is the beginning of the huge message and nothing else."""
    head = b"\x81\x7f" + HUGE.to_bytes(8, "big")
    return received.startswith(head) and set(received[10:]) == {ord("x")} and len(received) < HUGE


async def cut_and_return(transport: WebSocketTransport, _: Principal) -> None:
    transport.on_due(lambda: None)
    with trio.move_on_after(1):
        await transport.send([b"x" * HUGE])


async def cut_and_raise(transport: WebSocketTransport, _: Principal) -> None:
    transport.on_due(lambda: None)
    with trio.fail_after(1):
        await transport.send([b"x" * HUGE])


@pytest.mark.parametrize("serve", [cut_and_return, cut_and_raise])
async def test_connection_ends_with_the_frame_that_was_cut(
    sockets_clock: MockClock, open_listener: Open, serve: Serve
) -> None:
    async with open_listener(serve) as listener, listener.connect() as client:
        await trio.sleep(2)

        assert is_cut_frame(await client.rest())


async def test_frame_that_the_end_of_the_daemon_cuts_is_the_last_one(
    sockets_clock: MockClock, open_listener: Open
) -> None:
    async def write(transport: WebSocketTransport, _: Principal) -> None:
        transport.on_due(lambda: None)
        await transport.send([b"x" * HUGE])

    async with AsyncExitStack() as stack:
        async with open_listener(write) as listener:
            client = await stack.enter_async_context(listener.connect())
            await wait_all_tasks_blocked(0.01)

        assert is_cut_frame(await client.rest())


async def test_write_that_moves_nothing_for_a_minute_ends_the_connection_and_no_turn(
    sockets_clock: MockClock, daemon: Daemon, listener: Listener
) -> None:
    async with listener.connect() as client:
        session, turn = await stalled(client, daemon)
        assert (await (await daemon.connect()).status()).connections == 2

        await trio.sleep(STALL + 1)

        other = await daemon.connect()
        assert (await other.status()).connections == 2  # the one before, and this one
        await turn.say("still here")
        assert (await other.live()).sessions[0].state is State.RUNNING
        assert session in daemon.sessions.live


async def reset(client: RawClient) -> None:
    linger = struct.pack("ii", 1, 0)  # on closing, send no more and say RST
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await client.drop()


async def half_close(client: RawClient) -> None:
    await client.stream.send_eof()
    await wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("go", [reset, half_close])
async def test_client_that_goes_while_it_is_written_to_breaks_nothing(
    daemon: Daemon,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
    go: Callable[[RawClient], Awaitable[None]],
) -> None:
    for _ in range(5):
        async with listener.connect() as client:
            _, turn = await stalled(client, daemon)
            await go(client)
        turn.finish()
        await wait_all_tasks_blocked(0.01)

    assert (await (await daemon.connect()).status()).connections == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# ---- frames behind a handshake that is refused, or whose connection ends


async def refuse(channel: ServerConnection, _request: object) -> Response:
    return channel.respond(401, "no\n")


async def return_at_once(_: ServerConnection) -> None:
    """A handler that is done while the client has frames waiting."""


@pytest.mark.parametrize("frames", [10, 40])
async def test_library_never_ends_readers_with_many_frames_behind_a_refusal(
    sockets_clock: MockClock, frames: int
) -> None:
    async with open_stock(return_at_once, process_request=refuse) as (port, server):
        async with dial(port) as client:
            await client.send(handshake(port) + frame(b"hello") * frames)
            await client.answer()
        await trio.sleep(10)
        left = reader_tasks()
        with trio.move_on_after(60) as patience:
            await server.aclose()

    is_many = frames > 16
    assert (left, patience.cancelled_caught) == (is_many, is_many)


async def serve_nothing(_: WebSocketTransport, __: Principal) -> None:
    """A connection that is over at once."""


@pytest.mark.parametrize("lines", [[], [BEARER]], ids=["refused", "over at once"])
@pytest.mark.parametrize("frames", [10, 16, 17, 40, 1000])
async def test_frames_behind_a_handshake_leave_no_reader_and_hold_up_no_end(
    sockets_clock: MockClock, open_listener: Open, lines: list[tuple[str, str]], frames: int
) -> None:
    async with open_listener(serve_nothing) as listener:
        for _ in range(5):
            async with dial(listener.port) as client:
                await client.send(handshake(listener.port, lines) + frame(b"hello") * frames)
                await client.answer()
        await trio.sleep(CLOSE_TIMEOUT + 1)

        assert reader_tasks() == 0
        before = trio.current_time()
    assert trio.current_time() - before < CLOSE_TIMEOUT


# ---- a connection that breaks


async def test_connection_that_breaks_is_one_connection_less_and_nothing_else(
    sockets_clock: MockClock, open_listener: Open, caplog: pytest.LogCaptureFixture
) -> None:
    breaks = trio.Event()

    async def serve(transport: WebSocketTransport, _: Principal) -> None:
        transport.on_due(lambda: None)
        [said] = await transport.receive()
        if said == b"break":
            breaks.set()
            raise RuntimeError("as planned")
        await breaks.wait()
        await transport.send([b"unharmed"])

    async with (
        open_listener(serve) as listener,
        listener.connect() as other,
        listener.connect() as client,
    ):
        await other.send(frame(b"wait"))
        await wait_all_tasks_blocked(0.01)

        await client.send(frame(b"break"))

        assert await client.close_code() == 1011
        assert (await other.frame()) == Frame(TEXT, b"unharmed")
        async with listener.connect() as later:
            await later.send(frame(b"wait"))
            assert (await later.frame()) == Frame(TEXT, b"unharmed")
    assert "as planned" in caplog.text


# ---- what is logged


async def handshake_and_refusals(port: int) -> None:
    for lines in ([BEARER], [("Cookie", TOKEN)], [BEARER, BEARER], [("Authorization", TOKEN)]):
        async with dial(port) as client:
            await client.send(handshake(port, lines))
            await client.answer()
    async with dial(port) as client:
        await client.send(f"GET /acp?{TOKEN} HTTP/1.1\r\n{TOKEN}\r\n\r\n".encode())
        await client.rest()


@pytest.fixture
def debug_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything at debug level, also the library's own loggers."""
    loggers = [logging.getLogger(name) for name in ("websockets", "websockets.server")]
    levels = [logger.level for logger in loggers]
    caplog.set_level(logging.DEBUG)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield caplog
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


async def test_library_logs_credentials(debug_log: pytest.LogCaptureFixture) -> None:
    async with open_stock(return_at_once) as (port, _):
        await handshake_and_refusals(port)

    assert TOKEN in debug_log.text


async def test_no_log_shows_a_credential(
    debug_log: pytest.LogCaptureFixture, open_listener: Open
) -> None:
    async with open_listener(serve_nothing) as listener:
        await handshake_and_refusals(listener.port)

    assert TOKEN not in debug_log.text


# ---- headers that come twice


def test_library_gives_a_header_that_comes_twice_only_to_those_who_ask_for_all() -> None:
    headers = Headers([("Host", "a"), ("Host", "b")])

    with pytest.raises(MultipleValuesError):
        headers.get("Host")
    assert headers.get_all("Host") == ["a", "b"]


# ---- the end of the listener


async def test_library_says_no_goodbye_when_it_is_cancelled(sockets_clock: MockClock) -> None:
    async def wait(_: ServerConnection) -> None:
        await trio.sleep_forever()

    async with AsyncExitStack() as stack:
        async with open_stock(wait) as (port, _):
            client = await stack.enter_async_context(dial(port))
            await client.send(handshake(port, path="/"))
            await client.answer()

        assert await client.close_code() == 1006


async def test_everybody_is_told_that_the_daemon_goes(
    sockets_clock: MockClock, daemon: Daemon
) -> None:
    async with AsyncExitStack() as stack:
        clients: list[RawClient] = []
        async with listen_for(daemon) as listener:
            for _ in range(3):
                client = await stack.enter_async_context(listener.connect())
                await client.introduce()
                clients.append(client)

        for client in clients:
            assert await client.close_code() == 1001


async def ignore_everything(_: WebSocketTransport, __: Principal) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(CLOSE_TIMEOUT + 0.5)


async def serve_for_ever(transport: WebSocketTransport, _: Principal) -> None:
    with suppress(TransportClosed):
        while True:
            await transport.receive()


@pytest.mark.parametrize("serve", [ignore_everything, serve_for_ever])
async def test_end_of_the_listener_is_bounded_whatever_clients_and_connections_do(
    sockets_clock: MockClock, open_listener: Open, serve: Serve
) -> None:
    async with AsyncExitStack() as stack:
        async with open_listener(serve) as listener:
            for _ in range(3):  # these never answer the closing handshake
                await stack.enter_async_context(listener.connect())
            silent = await stack.enter_async_context(dial(listener.port))
            await silent.send(b"GET /acp HTTP/1.1\r\n")
            await wait_all_tasks_blocked(0.01)
            before = trio.current_time()

        assert trio.current_time() - before <= CLOSE_TIMEOUT + 1.1
    assert reader_tasks() == 0


# ---- a client that leaves in the instant of its handshake is answered

GOODBYES = 150  # the library misses about one in three


def leave_at_once(port: int, path: str, lines: Lines = ()) -> list[bytes]:
    """Shake hands and say goodbye, in a thread, as another program does; gives what came of it."""
    answers: list[bytes] = []
    for _ in range(GOODBYES):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as stream:
            stream.sendall(handshake(port, lines, path=path))
            said = b""
            while b"\r\n\r\n" not in said:
                said += stream.recv(4096)
            stream.sendall(frame(b"", CLOSE))
            while piece := stream.recv(4096):
                said += piece
            answers.append(said.partition(b"\r\n\r\n")[2])
    return answers


async def test_library_leaves_goodbyes_in_the_instant_of_the_handshake_unanswered() -> None:
    async def wait(channel: ServerConnection) -> None:
        await channel.wait_closed()

    async with open_stock(wait) as (port, _):
        answers = await trio.to_thread.run_sync(leave_at_once, port, "/")

    assert b"" in answers


async def test_client_that_leaves_in_the_instant_of_its_handshake_is_answered(
    listener: Listener,
) -> None:
    answers = await trio.to_thread.run_sync(leave_at_once, listener.port, "/acp", [BEARER])

    assert set(answers) == {frame(b"", CLOSE, masked=False)}
