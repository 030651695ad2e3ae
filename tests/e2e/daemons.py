"""A daemon as a process, and what is needed to talk to it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage_protocol.rendezvous import is_alive, read_daemon, read_token


PATIENCE = 60.0  # seconds for a process to start, or to end, on a busy machine


@dataclass(eq=False)
class DaemonProcess:
    """A running daemon; `ready` is its ready line, `log` where its standard error goes."""

    process: subprocess.Popen[str]
    state_dir: Path
    log: Path
    ready: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def unix(self) -> Path:
        return Path(self.ready["unix"])

    @property
    def websocket(self) -> str:
        return str(self.ready["websocket"])

    @property
    def token(self) -> str:
        return read_token(self.state_dir)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; gives the exit code."""
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """End it as a person does."""
        self.signal(signal.SIGTERM)
        return self.ended()


def command(state_dir: Path, *flags: str, program: str = "moorage_daemon") -> list[str]:
    return [sys.executable, "-m", program, "--state-dir", str(state_dir), *flags]


def environment() -> dict[str, str]:
    """Ours without what would configure a daemon."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MOORAGE_")}


@contextmanager
def running(
    state_dir: Path, *flags: str, program: str = "moorage_daemon"
) -> Generator[DaemonProcess]:
    """Start a daemon and wait for its ready line; `program` is one that does as it does.

    On leaving it is killed, and so is one that a client started after it on the same directory.
    """
    log = state_dir.with_suffix(".log")
    with (
        log.open("a") as errors,
        subprocess.Popen(
            command(state_dir, *flags, program=program),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(),
            text=True,
        ) as process,
    ):
        daemon = DaemonProcess(process, state_dir, log)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the daemon did not start: {log.read_text()}"
            daemon.ready = json.loads(line)
            yield daemon
        finally:
            process.kill()
            process.wait()  # before it is reaped its directory counts as held
            end_daemon(state_dir)


def end_daemon(state_dir: Path) -> None:
    """Kill whatever daemon holds that directory."""
    found = read_daemon(state_dir)
    if found is not None and is_alive(state_dir):
        with suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGKILL)
