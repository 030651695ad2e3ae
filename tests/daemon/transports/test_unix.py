"""The unix socket: this user's own programs, and none that a tool started."""

import errno
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from moorage_daemon.connection.transport import Transport, TransportClosed
from moorage_daemon.transports.room import Room
from moorage_daemon.transports.unix import SocketTransport, bind, serve_unix
from moorage_protocol import jsonrpc
from moorage_protocol.framing import MAX_FRAME_BYTES, join_lines, join_with_headers
from moorage_protocol.moorage import Cause
from moorage_protocol.rendezvous import open_address
from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.twin import PATIENCE, Json, cancel_params, prompt_params


NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

INITIALIZE = jsonrpc.encode_request(1, "initialize", {"protocolVersion": 1})

# Connects, perhaps as somebody else, says initialize, and tells what became of it.
VISITOR = """
import os, socket, sys
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(10)
try:
    sock.connect(sys.argv[1])
    sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}\\n')
    print("answered" if sock.recv(10) else "turned away", flush=True)
except (BrokenPipeError, ConnectionResetError):
    print("turned away", flush=True)
except PermissionError:
    print("no permission", flush=True)
"""

# Stands where a tool's supervisor does: adopts whatever its command leaves behind.
SUPERVISOR = """
import ctypes, os, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
sys.stdin.readline()
subprocess.run(sys.argv[1:], check=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="moorage-", dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon() as running:
        yield running


@asynccontextmanager
async def listening(
    path: Path, daemon: Daemon, tools: set[int] | None = None
) -> AsyncGenerator[trio.socket.SocketType]:
    """The daemon's socket at `path`."""
    listener = bind(path)
    with listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                serve_unix, listener, daemon.app.serve, lambda: tools or set(), Room(100)
            )
            yield listener
            nursery.cancel_scope.cancel()


class Client:
    """A client that speaks lines."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(join_lines(frames))

    async def hear(self) -> Json | None:
        """The next message; None at the end."""
        while b"\n" not in self._buffer:
            with trio.fail_after(PATIENCE):
                data = await self.stream.receive_some(2**16)
            if not data:
                return None
            self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        message: Json = json.loads(line)
        return message

    async def call(self, method: str, params: object, request_id: int = 1) -> Json:
        await self.send(jsonrpc.encode_request(request_id, method, params))
        while (message := await self.hear()) is not None:
            if message.get("id") == request_id and "method" not in message:
                return message
        raise AssertionError("closed")


@asynccontextmanager
async def dial(path: Path) -> AsyncGenerator[Client]:
    with open_address(path) as address:
        stream = await trio.open_unix_socket(address)
    async with stream:
        yield Client(stream)


@pytest.fixture
async def client(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Client]:
    """A client that has said nothing yet."""
    async with listening(tmp_path / "sock", daemon), dial(tmp_path / "sock") as connected:
        yield connected


# ---- who may come in


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
async def test_socket_is_for_its_user_alone_whatever_the_umask_is(
    tmp_path: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        listener = bind(tmp_path / "sock")
    finally:
        os.umask(before)

    with listener:
        assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o600


async def visit(path: Path, *user: int) -> str:
    """What a program of its own, perhaps of another user, says of its visit."""
    command = [sys.executable, "-I", "-S", "-c", VISITOR, str(path), *map(str, user)]
    with trio.fail_after(PATIENCE * 2):
        done = await trio.run_process(command, capture_stdout=True, cwd="/")
    return done.stdout.decode().strip()


async def test_program_of_this_user_is_served(daemon: Daemon, folder: Path) -> None:
    async with listening(folder / "sock", daemon):
        assert await visit(folder / "sock") == "answered"


@needs_root
async def test_another_user_has_no_permission(daemon: Daemon, folder: Path) -> None:
    async with listening(folder / "sock", daemon):
        assert await visit(folder / "sock", NOBODY) == "no permission"


@needs_root
async def test_another_user_who_got_past_the_modes_is_turned_away(
    daemon: Daemon, folder: Path
) -> None:
    async with listening(folder / "sock", daemon):
        (folder / "sock").chmod(0o666)

        assert await visit(folder / "sock", NOBODY) == "turned away"
        assert await visit(folder / "sock") == "answered"


DISGUISES = {
    "none": ["{visit}"],
    "a shell's child": ["sh", "-c", "{visit}; true"],
    "setsid": ["setsid", "sh", "-c", "{visit}; true"],
    "double fork": ["sh", "-c", "(setsid {visit} &) ; exit 0"],
    "double fork in the background": ["sh", "-c", "(sh -c 'sleep 0.05; {visit}' &) & exit 0"],
    "empty environment": ["env", "-i", "sh", "-c", "{visit}; true"],
}


async def supervise(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    """Run what a tool would run, once it is given a line."""
    await trio.run_process(
        [sys.executable, "-I", "-S", "-c", SUPERVISOR, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        task_status=task_status,
    )


@needs_proc
@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("is_tool", [True, False])
async def test_program_that_a_tool_started_is_turned_away(
    daemon: Daemon, folder: Path, disguise: str, is_tool: bool
) -> None:
    visitor = folder / "visit"
    visitor.write_text(f"#!/bin/sh\nexec {sys.executable} -I -S {folder}/visit.py {folder}/sock\n")
    (folder / "visit.py").write_text(VISITOR)
    visitor.chmod(0o755)
    command = [word.format(visit=visitor) for word in DISGUISES[disguise]]
    tools: set[int] = set()
    async with listening(folder / "sock", daemon, tools), trio.open_nursery() as nursery:
        supervisor = await nursery.start(supervise, command)
        if is_tool:
            tools.add(supervisor.pid)

        await supervisor.stdin.send_all(b"\n")

        with trio.fail_after(PATIENCE * 2):
            said = await supervisor.stdout.receive_some()
    assert said.decode().strip() == ("turned away" if is_tool else "answered")


async def test_path_longer_than_an_address_works(daemon: Daemon, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60) / ("z" * 60)
    deep.mkdir(parents=True)

    async with listening(deep / "sock", daemon), dial(deep / "sock") as client:
        answer = await client.call("initialize", {"protocolVersion": 1})

    assert answer["result"]["protocolVersion"] == 1


# ---- frames


async def test_bad_frames_are_answered_and_the_connection_lives(client: Client) -> None:
    await client.call("initialize", {"protocolVersion": 1})

    for bad, code in ((b"{", -32700), (b"\xff", -32700), (b"[]", -32600), (b"5", -32600)):
        await client.send(bad)
        answer = await client.hear()
        assert answer is not None
        assert (answer["id"], answer["error"]["code"]) == (None, code)

    assert "result" in await client.call("_moorage/status", {}, 2)


async def test_oversize_frame_is_answered_with_the_limit_and_skipped(client: Client) -> None:
    await client.send(INITIALIZE + b" " * MAX_FRAME_BYTES, INITIALIZE)

    refused, answer = await client.hear(), await client.hear()

    assert refused is not None
    assert (refused["id"], refused["error"]["code"]) == (None, -32600)
    assert str(MAX_FRAME_BYTES) in refused["error"]["message"]
    assert answer is not None
    assert answer["id"] == 1


async def test_frame_of_exactly_the_limit_is_taken(client: Client) -> None:
    await client.send(INITIALIZE + b" " * (MAX_FRAME_BYTES - len(INITIALIZE)))

    answer = await client.hear()

    assert answer is not None
    assert answer["result"]["protocolVersion"] == 1


async def test_client_that_begins_with_a_header_is_answered_with_headers(client: Client) -> None:
    requests = [INITIALIZE, jsonrpc.encode_request(2, "nonsense", {})]

    await client.stream.send_all(join_with_headers(requests))

    received = b""
    while received.count(b"Content-Length: ") < 2 or not received.endswith(b"}"):
        received += await client.stream.receive_some(2**16)
    length, _, rest = received.removeprefix(b"Content-Length: ").partition(b"\r\n\r\n")
    assert json.loads(rest[: int(length)])["id"] == 1
    assert rest[int(length) :].startswith(b"Content-Length: ")


async def test_request_that_was_cut_off_is_never_run(daemon: Daemon, client: Client) -> None:
    await client.call("initialize", {"protocolVersion": 1})

    await client.stream.send_all(jsonrpc.encode_request(2, "session/new", {"cwd": "/work"}))
    await client.stream.send_eof()

    assert await client.hear() is None
    assert len(daemon.sessions.live) == 0


async def test_client_that_has_no_more_to_say_still_gets_its_answers(client: Client) -> None:
    await client.send(INITIALIZE, jsonrpc.encode_request(2, "session/new", {"cwd": "/work"}))
    await client.stream.send_eof()

    heard: list[Json] = []
    while (message := await client.hear()) is not None:
        heard.append(message)

    assert [message["id"] for message in heard if "result" in message] == [1, 2]


# ---- clients that behave badly


async def stall(client: Client, daemon: Daemon) -> str:
    """Start a turn that fills every buffer on its way to the client."""
    hello: Json = {"protocolVersion": 1, "_meta": {"moorage": {}}}
    await client.call("initialize", hello)
    answer = await client.call("session/new", {"cwd": "/work"}, 2)
    session: str = answer["result"]["sessionId"]
    await client.send(jsonrpc.encode_request(3, "session/prompt", prompt_params(session)))
    turn = await daemon.puppet.next()
    for _ in range(4):
        await turn.say("x" * 500_000)
    await wait_all_tasks_blocked(0.01)
    return session


async def test_client_that_stops_reading_can_still_cancel(
    sockets_clock: MockClock, daemon: Daemon, client: Client
) -> None:
    session = await stall(client, daemon)
    await trio.sleep(30)

    await client.send(jsonrpc.encode_notification("session/cancel", cancel_params(session)))

    other = await daemon.connect()
    await other.attach(session, afterSeq=0)
    await other.until(lambda: bool(other.verdicts(session)))
    assert other.verdicts(session)[1]["cause"] == Cause.CLIENT_RPC


async def test_client_that_resets_the_connection_in_mid_write_breaks_nothing(
    daemon: Daemon, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path / "sock", daemon):
        for _ in range(5):
            async with dial(tmp_path / "sock") as client:
                await stall(client, daemon)
                linger = struct.pack("ii", 1, 0)
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await wait_all_tasks_blocked(0.01)

        async with dial(tmp_path / "sock") as client:
            assert "result" in await client.call("initialize", {"protocolVersion": 1})
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_connection_that_breaks_is_one_connection_less_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(transport: Transport) -> None:
        while True:
            try:
                [said] = await transport.receive()
            except TransportClosed:
                return
            if said == b"break":
                raise RuntimeError("as planned")
            await transport.send([b'{"was":"unharmed"}'])

    listener = bind(tmp_path / "sock")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_unix, listener, serve, set[int], Room(100))
        async with dial(tmp_path / "sock") as other, dial(tmp_path / "sock") as client:
            await client.send(b"break")
            assert await client.hear() is None

            await other.send(b"hello")
            assert await other.hear() == {"was": "unharmed"}
        async with dial(tmp_path / "sock") as later:
            await later.send(b"hello")
            assert await later.hear() == {"was": "unharmed"}
        listener.close()
    assert "as planned" in caplog.text


async def test_closed_listener_takes_nobody_and_serves_those_it_has(
    daemon: Daemon, tmp_path: Path
) -> None:
    async with listening(tmp_path / "sock", daemon) as listener, dial(tmp_path / "sock") as client:
        await client.call("initialize", {"protocolVersion": 1})

        listener.close()

        with pytest.raises(OSError, match="refused"):
            async with dial(tmp_path / "sock"):
                pass
        assert "result" in await client.call("_moorage/status", {}, 2)


class Exhausted:
    """A listener of a process without free descriptors, until `relief` is set."""

    def __init__(self, listener: trio.socket.SocketType) -> None:
        self._listener = listener
        self.tries = 0
        self.relief = trio.Event()

    async def accept(self) -> tuple[trio.socket.SocketType, object]:
        self.tries += 1
        if not self.relief.is_set():
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EMFILE, "Too many open files")
        return await self._listener.accept()


async def test_without_free_descriptors_clients_wait_and_nothing_spins(
    sockets_clock: MockClock, tmp_path: Path
) -> None:
    async def answer(transport: SocketTransport) -> None:
        await transport.send([b'{"at":"last"}'])

    listener = bind(tmp_path / "sock")
    exhausted = Exhausted(listener)
    async with trio.open_nursery() as nursery:
        socket_like = cast("trio.socket.SocketType", exhausted)
        nursery.start_soon(serve_unix, socket_like, answer, set[int], Room(100))
        async with dial(tmp_path / "sock") as client:
            await trio.sleep(1)
            assert exhausted.tries < 20

            exhausted.relief.set()

            assert await client.hear() == {"at": "last"}
        listener.close()
