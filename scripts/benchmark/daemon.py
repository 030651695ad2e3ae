"""A daemon to measure, in a state directory of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.wire import Agent, WebSocket, unix_stream


@dataclass(frozen=True)
class Daemon:
    """A running daemon; `ready_seconds` is from its start to its ready line."""

    pid: int
    state: Path
    websocket: str
    unix: str
    ready_seconds: float

    def connect_unix(self, *, moorage: bool = False) -> tuple[Agent, socket.socket]:
        """A client on the unix socket."""
        stream, sock = unix_stream(self.unix)
        return Agent(stream, moorage=moorage), sock

    def connect_websocket(self, *, moorage: bool = False) -> tuple[Agent, socket.socket]:
        """A client on the WebSocket."""
        stream = WebSocket(self.websocket, (self.state / "token").read_text().strip())
        return Agent(stream, moorage=moorage), stream.socket

    def resident_kib(self) -> int:
        """Its resident memory, in KiB."""
        return memory_of(self.pid)


def memory_of(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def user_environment() -> dict[str, str]:
    """The environment, with what an interpreter compiles kept, as users have it."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


@contextmanager
def running_daemon(*flags: str, state: Path | None = None) -> Generator[Daemon]:
    """Start a daemon, with the usual settings but for `flags`, and stop it.

    Its state directory is removed again unless it is given.
    """
    folder = Path(tempfile.mkdtemp(prefix="moorage-bench-")) if state is None else state
    command = [sys.executable, "-m", "moorage_daemon", "--state-dir", str(folder), *flags]
    started = time.perf_counter()
    log = (folder / "bench.log").open("wb")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=user_environment())
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        took = time.perf_counter() - started
        yield Daemon(process.pid, folder, ready["websocket"], ready["unix"], took)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        log.close()
        if state is None:
            shutil.rmtree(folder)
