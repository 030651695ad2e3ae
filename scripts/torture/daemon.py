"""A daemon to torture: a real process in a state directory of its own.

Its ready line comes through a pipe that can be stopped up beforehand (`gagged`). A daemon that
cannot say its line stands exactly before it, and its files show what it did until then.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from scripts.torture.wire import Address


START_BOUND = 30.0  # seconds; whoever takes longer does not start at all
END_BOUND = 5.0  # seconds for a killed process to be gone
LOOK_EVERY = 0.002  # seconds between looks for a file
PIPE = 4096  # bytes; the smallest pipe there is


class DaemonFailed(Exception):
    """The daemon did not start."""


@dataclass(eq=False)
class Daemon:
    """A daemon process. `ready_seconds` is from its start to its ready line."""

    state: Path
    process: trio.Process
    address: Address
    ready_seconds: float
    started: float = field(default_factory=trio.current_time)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    def memory(self) -> dict[str, int]:
        """Its resident memory in KiB: VmRSS, VmHWM, RssAnon."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        fields = (line.split() for line in text.splitlines())
        wanted = ("VmRSS:", "VmHWM:", "RssAnon:")
        return {words[0][:-1]: int(words[1]) for words in fields if words[0] in wanted}

    def forget_peak(self) -> None:
        """Let VmHWM begin anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@dataclass(eq=False)
class Starting:
    """A daemon between its start and its ready line."""

    state: Path
    process: trio.Process
    began: float
    _pipe: int

    async def until_published(self) -> None:
        """Wait until `daemon.json` names it: the last thing it does before the line."""
        with trio.fail_after(START_BOUND):
            while not self._is_published():
                if self.process.poll() is not None:
                    raise DaemonFailed(self._log())
                await trio.sleep(LOOK_EVERY)

    def _is_published(self) -> bool:
        try:
            found = json.loads((self.state / "daemon.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return bool(found["pid"] == self.process.pid)

    async def kill(self) -> None:
        """SIGKILL before it is ready, and wait for its end."""
        os.close(self._pipe)
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def ready(self, *, aside: float = 0.0) -> Daemon:
        """Wait for the ready line; `aside` are seconds that its start is not to blame for."""
        line = b""
        while not line.strip():
            line = (await self._read_line()).strip(b"\n")
        took = trio.current_time() - self.began - aside
        os.close(self._pipe)
        said = json.loads(line)
        token = (self.state / "token").read_text().strip()
        address = Address(said["unix"], said["websocket"] or "", token)
        return Daemon(self.state, self.process, address, took)

    async def _read_line(self) -> bytes:
        data = b""
        with trio.fail_after(START_BOUND):
            while not data.endswith(b"\n"):
                await trio.lowlevel.wait_readable(self._pipe)
                piece = os.read(self._pipe, PIPE)
                if not piece:
                    raise DaemonFailed(self._log())
                data += piece
        return data

    def _log(self) -> str:
        return log_path(self.state).read_text()[-2000:]


def log_path(state: Path) -> Path:
    """Where its log goes: beside the state directory, which may be full."""
    return state.with_name(f"{state.name}.log")


def complaints(state: Path) -> list[str]:
    """What its log holds that no daemon should ever say."""
    lines = log_path(state).read_text().splitlines()
    return [line for line in lines if " ERROR " in line or "Traceback" in line]


async def start_daemon(
    state: Path,
    settings: str = "",
    *,
    gagged: bool = False,
    program: Sequence[str] = ("moorage_daemon",),
) -> Starting:
    """Start a daemon on a state directory, with `settings` as its configuration file.

    `program` is the module that is the daemon, and what it is told before the daemon's options.
    """
    command = _prepare(state, settings, program)
    readable, writable = os.pipe()
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, PIPE)
    if gagged:
        os.write(writable, b"\n" * PIPE)
    os.set_blocking(readable, False)
    with log_path(state).open("ab") as log:
        began = trio.current_time()
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=writable, stderr=log
        )
    os.close(writable)
    return Starting(state, process, began, readable)


def _prepare(state: Path, settings: str, program: Sequence[str]) -> list[str]:
    state.mkdir(mode=0o700, exist_ok=True)
    config = state.with_name(f"{state.name}.toml")
    config.write_text(settings)
    command = [sys.executable, "-m", *program]
    return [*command, "--state-dir", str(state), "--config", str(config)]


@asynccontextmanager
async def running_daemon(state: Path, settings: str = "") -> AsyncGenerator[Daemon]:
    """A daemon that is killed in the end, if it is still there."""
    daemon = await (await start_daemon(state, settings)).ready()
    try:
        yield daemon
    finally:
        with trio.move_on_after(END_BOUND, shield=True):
            await daemon.kill()
