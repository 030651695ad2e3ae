"""A command under a supervisor: started at once, killed at once, never left behind.

Starting and killing are synchronous, so that a caller can decide and act with no checkpoint between
the two. Everything that waits happens inside `attended`: reading, the end, the clean-up.

    process = spawn(["make", "test"], cwd=workspace, env=tool_environment(os.environ))
    async with process.attended():
        verdict = await process.wait()

The command has ended when its main process has; whatever it started is then ended too. The end of
its output is no sign of anything: a grandchild may hold the pipe for ever.

Guaranteed on Linux: when `attended` is left, or the daemon is killed, no process of the command
is left, save one of another user (sudo), one that hangs in the kernel, and what was started by
somebody else's daemon on its behalf (docker, at). On macOS a child that called setsid escapes.
"""

import logging
import os
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import msgspec
import trio

from moorage_daemon.processes.orphans import end_orphans
from moorage_daemon.processes.output import Output


log = logging.getLogger(__name__)

MARGIN = 1.0  # seconds beyond the grace; the sweep of a fork storm needs about 0.1
INSIST = 3.0  # seconds for a sweep that was asked for again; the supervisor gives up after 2
CHUNK = 64 * 1024  # bytes; what a pipe holds
FLOOD = 1024 * 1024  # bytes; who writes more is read at `CHUNK` per `PACE` at most
PACE = 0.001  # seconds
REAP = 0.001  # seconds; between the supervisor's last word and its end lies less


class Exited(msgspec.Struct, frozen=True):
    """The command's main process returned."""

    code: int


class Signalled(msgspec.Struct, frozen=True):
    """A signal ended the command's main process: a kill, a crash."""

    number: int


class NotStarted(msgspec.Struct, frozen=True):
    """The command could not be run; `reason` is a phrase for people."""

    reason: str


class Lost(msgspec.Struct, frozen=True):
    """Nobody knows how the command ended, because its supervisor was killed; it has ended."""


Exit = Exited | Signalled | NotStarted | Lost


class Report(msgspec.Struct, frozen=True):
    """What a supervisor says in one line."""

    started: int | None = None
    failed: str | None = None
    errno: int = 0
    code: int | None = None
    signal: int | None = None
    left: int | None = None

    @property
    def is_final(self) -> bool:
        return self.failed is not None or self.left is not None


class Process:
    """A command that was started; `exit` is None until it has ended.

    Only inside `attended` does anything move: elsewhere its output piles up in the pipe and its
    end goes unnoticed.
    """

    def __init__(
        self,
        supervisor: subprocess.Popen[bytes],
        control: socket.socket,
        output: int,
        *,
        command: str,
        grace: float,
        mark: int | None,
    ) -> None:
        self.exit: Exit | None = None
        self.output = Output()
        self._supervisor = supervisor
        self._control = control
        self._pipe = trio.lowlevel.FdStream(output)
        self._command = command
        self._grace = grace
        self._mark = mark
        self._heard = b""
        self._news = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        control.setblocking(False)

    @property
    def pid(self) -> int:
        """The supervisor's process id: an ancestor of every process of the command."""
        return self._supervisor.pid

    def kill(self) -> None:
        """End every process of the command now. Synchronous; repeating it does nothing."""
        if self.exit is None:
            with suppress(OSError):  # not connected: the supervisor has ended by itself
                self._control.shutdown(socket.SHUT_WR)
            self._supervisor.send_signal(signal.SIGCONT)  # its tool may have stopped it

    def terminate(self) -> None:
        """Ask every process of the command to end, and end it after the grace. Synchronous."""
        if self.exit is None:
            with suppress(OSError):  # closed: it was killed, or has ended by itself
                self._control.send(b"t")

    async def wait(self) -> Exit:
        """Wait for the end of the command and of everything that it started."""
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    async def more(self, seen: int) -> None:
        """Wait until `output.total` exceeds `seen` or the command has ended."""
        await trio.lowlevel.checkpoint()
        while self.output.total <= seen and self.exit is None:
            await self._news.park()

    @asynccontextmanager
    async def attended(self) -> AsyncGenerator[None, None]:
        """See the command through, and end it when the block is left, by whatever way.

        A command that still runs then is asked to end (`terminate`), and after its grace made to.
        When the block is left the supervisor is reaped and `exit` is set; that takes milliseconds,
        and at most the grace and seven seconds when a process hangs in the kernel.
        """
        raised: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run)
                try:
                    yield
                except Exception as error:  # noqa: BLE001 - raised below, not wrapped in a group
                    raised = error
                nursery.cancel_scope.cancel(reason="the block was left")
        finally:
            await self._finish()
            if raised is not None:
                raise raised

    async def _run(self) -> None:
        """See the command through. Can be cancelled, and called again to go on."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_output)
            await self._listen()
            nursery.cancel_scope.cancel(reason="the command has ended")
        # closing its socket was the last but one thing it did
        while self._supervisor.poll() is None:  # noqa: ASYNC110
            await trio.sleep(REAP)
        reports = [msgspec.json.decode(line, type=Report) for line in self._heard.splitlines()]
        if not reports or not reports[-1].is_final:
            log.warning("a tool's supervisor was killed", extra={"supervisor": self.pid})
            await end_orphans(self._mark, reports[0].started if reports else None)
        self._drain()
        self._end(self._verdict(reports))

    async def _read_output(self) -> None:
        while chunk := await self._pipe.receive_some(CHUNK):
            self._take(chunk)
            if self.output.total > FLOOD:
                await trio.sleep(PACE)

    async def _listen(self) -> None:
        """Take the supervisor's reports until it is gone."""
        while True:
            await trio.lowlevel.wait_readable(self._control)
            try:
                heard = self._control.recv(4096)
            except BlockingIOError:
                continue
            except ConnectionResetError:  # it went without reading our last request
                return
            if not heard:
                return
            self._heard += heard

    def _take(self, chunk: bytes) -> None:
        self.output.add(chunk)
        self._news.unpark_all()

    def _drain(self) -> None:
        """Read what lies in the pipe; who still writes is not waited for."""
        for _ in range(FLOOD // CHUNK):
            try:
                chunk = os.read(self._pipe.fileno(), CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                return
            self._take(chunk)

    def _verdict(self, reports: list[Report]) -> Exit:
        last = reports[-1] if reports else Report()
        if last.left:
            log.warning("processes of a tool could not be killed", extra={"left": last.left})
        if last.failed is not None:
            return NotStarted(self._why_not_started(last.failed, last.errno))
        if last.code is not None:
            return Exited(last.code)
        return Lost() if last.signal is None else Signalled(last.signal)

    def _why_not_started(self, stage: str, errno: int) -> str:
        if stage == "stopped":
            return f"{self._command}: stopped before it started"
        what = "the working directory" if stage == "cwd" else self._command
        return f"{what}: {os.strerror(errno)}"

    def _end(self, how: Exit) -> None:
        self.exit = how
        self._control.close()
        self._pipe.close()
        self._ended.set()
        self._news.unpark_all()

    async def _finish(self) -> None:
        """End the command with growing emphasis. Takes a bounded time, also when cancelled."""
        for insist, patience in (
            (self.terminate, self._grace + MARGIN),
            (self.kill, INSIST),
            (self._supervisor.kill, INSIST),
        ):
            if self.exit is not None:
                return
            insist()
            with trio.move_on_after(patience, shield=True):
                await self._run()
        if self.exit is None:
            log.error("a tool's supervisor does not die", extra={"supervisor": self.pid})
            self._end(Lost())
