"""A daemon that has run out of descriptors: nobody new comes in, and nobody who is in notices."""

import os
import resource
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
import trio

from moorage_protocol import jsonrpc
from moorage_protocol.framing import join_lines
from tests.daemon.twin import PATIENCE
from tests.e2e.daemons import DaemonProcess, running
from tests.e2e.wires import connect


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit(2) and /proc")

INITIALIZE = join_lines([jsonrpc.encode_request(1, "initialize", {"protocolVersion": 1})])
MANY = 40  # more clients than what is left free could take


@pytest.fixture
def daemon() -> Iterator[DaemonProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="moorage-") as path,
        running(Path(path) / "state") as process,
    ):
        yield process


def descriptors_of(pid: int) -> list[int]:
    return sorted(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())


@contextmanager
def only(pid: int, free: int) -> Generator[None]:
    """Leave a process that many descriptors beyond those it has."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = descriptors_of(pid)
    limit = next(n for n in count() if n - sum(fd < n for fd in used) > free) - 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@dataclass
class Crowd:
    """Clients that come, say hello, and stay until they may leave."""

    address: Path
    answers: list[bool] = field(default_factory=list[bool])
    may_leave: trio.Event = field(default_factory=trio.Event)

    async def visit(self) -> None:
        async with await trio.open_unix_socket(str(self.address)) as stream:
            try:
                await stream.send_all(INITIALIZE)
                self.answers.append(b'"result"' in await stream.receive_some())
            except trio.BrokenResourceError:
                self.answers.append(False)
            await self.may_leave.wait()

    async def call(self, port: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port):
            await self.may_leave.wait()


async def until_logged(daemon: DaemonProcess, words: str) -> None:
    with trio.fail_after(PATIENCE):
        while words not in daemon.log.read_text():  # noqa: ASYNC110 - a process tells nobody
            await trio.sleep(0.01)


@pytest.mark.parametrize("free", range(5))
async def test_without_descriptors_nobody_new_comes_in_and_nobody_who_is_in_notices(
    daemon: DaemonProcess, free: int
) -> None:
    os.mkfifo(daemon.state_dir / "begun")
    crowd = Crowd(daemon.unix)
    async with connect(daemon.unix) as client, trio.open_nursery() as nursery:
        session, other = await client.new(), await client.new(keepSiblings=True)
        client.prompt(session, f"/run echo > {daemon.state_dir}/begun; sleep 300")
        question = await client.question()
        client.choose(question, question.options[0])
        await trio.to_thread.run_sync((daemon.state_dir / "begun").read_bytes)

        with only(daemon.process.pid, free):
            for _ in range(MANY):
                nursery.start_soon(crowd.visit)
                nursery.start_soon(crowd.call, int(daemon.websocket.rpartition(":")[2][:-4]))
            await until_logged(daemon, "cannot accept a client")

            assert (await client.prompt(other, "still there?").verdict()).outcome == "completed"
            killed = await client.kill(session)
            assert (killed.killed, killed.durable, killed.processes) == (True, True, 1)
            assert crowd.answers.count(True) <= free

        crowd.may_leave.set()
        await crowd.visit()
    assert crowd.answers[-1]
    assert len(crowd.answers) == MANY + 1
    log = daemon.log.read_text()
    assert log.count("cannot accept a client") <= 2  # once a listener
    assert log.count("accept returned") == 0  # as trio itself would say ten times a second
    assert "Traceback" not in log
    assert daemon.stop() == 0
