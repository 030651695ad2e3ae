"""A program that speaks the protocol on its standard input and output, byte for byte."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from moorage_protocol.rendezvous import is_alive, read_daemon
from tests.e2e.daemons import environment
from tests.e2e.editors import MOORAGE


PATIENCE = 60.0  # seconds that a test waits for anything on a busy machine

Json = dict[str, Any]


def alone(*flags: str) -> list[str]:
    """The command of a daemon of its own."""
    return [sys.executable, "-m", "moorage_daemon", "--stdio", *flags]


def bridge(state_dir: Path) -> list[str]:
    """The command of a bridge to the daemon there."""
    return [sys.executable, "-c", MOORAGE, "acp", "--state-dir", str(state_dir)]


@dataclass(eq=False)
class Program:
    """`lines` are those of standard output so far, whole, without their ends."""

    process: subprocess.Popen[bytes]
    errors: Path
    lines: list[bytes] = field(default_factory=list[bytes])
    rest: bytes = b""
    _asked: int = 0

    @property
    def messages(self) -> list[Json]:
        return [json.loads(line) for line in self.lines]

    def send(self, message: Json | bytes) -> None:
        assert self.process.stdin is not None
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def start(self, method: str, params: Json) -> int:
        """Send a request; gives its id."""
        self._asked += 1
        self.send({"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params})
        return self._asked

    def call(self, method: str, **params: Any) -> Json:
        """Send a request; gives its result."""
        return self.result(self.start(method, params))

    def result(self, request: int) -> Json:
        """The result of a request."""
        answer = self.first(
            lambda message: message.get("id") == request and "method" not in message
        )
        result: Json = answer["result"]
        return result

    def first(self, holds: Callable[[Json], bool]) -> Json:
        """The first message of a kind, as soon as it has come."""
        at = 0
        while True:
            for message in self.messages[at:]:
                if holds(message):
                    return message
            at = len(self.lines)
            assert self._read(), "the program is gone"

    def rest_of_it(self) -> None:
        """Read to the end of its output."""
        while self._read():
            pass

    def _read(self) -> bool:
        assert self.process.stdout is not None
        with DefaultSelector() as selector:
            selector.register(self.process.stdout, EVENT_READ)
            assert selector.select(PATIENCE), f"nothing came behind {self.lines[-3:]}"
        data = os.read(self.process.stdout.fileno(), 2**20)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.lines += lines
        return bool(data)

    def hello(self) -> str:
        """Say who is there and begin a session; gives its id."""
        self.call("initialize", protocolVersion=1)
        return str(self.call("session/new", cwd="/", mcpServers=[])["sessionId"])

    def prompt(self, session: str, words: str) -> int:
        """Begin a turn; gives the id of the request."""
        params = {"sessionId": session, "prompt": [{"type": "text", "text": words}]}
        return self.start("session/prompt", params)

    def leave(self) -> int:
        """Close its input and read all there is; gives the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.rest_of_it()
        return self.process.wait(PATIENCE)

    def signal(self, number: signal.Signals) -> int:
        """Signal it and read all there is; gives the exit code."""
        self.process.send_signal(number)
        self.rest_of_it()
        return self.process.wait(PATIENCE)


def gone(descriptor: int) -> None:
    """Wait for the process of a pidfd, no child of ours, to be gone."""
    with os.fdopen(descriptor) as process, DefaultSelector() as selector:
        selector.register(process, EVENT_READ)
        assert selector.select(PATIENCE), "it is still there"


@contextmanager
def ended_at_last(state_dir: Path) -> Generator[None]:
    """On leaving, the daemon is ended that somebody else has started there meanwhile."""
    try:
        yield
    finally:
        if is_alive(state_dir) and (found := read_daemon(state_dir)) is not None:
            descriptor = os.pidfd_open(found.pid)
            os.kill(found.pid, signal.SIGTERM)
            gone(descriptor)


@contextmanager
def started(command: Sequence[str], errors: Path, **variables: str) -> Generator[Program]:
    """Start a program; on leaving, whatever is left of it is killed."""
    with (
        errors.open("wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment() | variables,
        ) as process,
    ):
        try:
            yield Program(process, errors)
        finally:
            process.kill()
            if process.stdin is not None:
                process.stdin.close()
