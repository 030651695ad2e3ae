"""An editor that a test drives: the other end of `driver.py`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from tests.e2e.daemons import DaemonProcess
from tests.e2e.npm import Sdk


MOORAGE = "import sys; from moorage_clients.cli import main; sys.exit(main())"
DRIVER = Path(__file__).with_name("driver.py")
NPM_DRIVER = Path(__file__).with_name("driver.mjs")
PATIENCE = 60.0  # seconds that a test waits for anything on a busy machine

Json = dict[str, Any]


class Refused(Exception):
    """The agent answered with an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error["data"]


@dataclass(eq=False)
class Editor:
    """`told` is all that the driver said, in its order."""

    process: subprocess.Popen[bytes]
    told: list[Json] = field(default_factory=list[Json])
    _count: int = 0
    _buffer: bytes = b""

    # ---- doing

    def start(self, do: str, **given: Any) -> int:
        """Begin something; `wait` for it under the number this gives."""
        self._count += 1
        self._send({"id": self._count, "do": do, "with": given})
        return self._count

    def wait(self, number: int) -> Any:
        """The result of what was begun; raises `Refused`."""
        line = self.first(lambda line: line.get("id") == number)
        if "error" in line:
            raise Refused(line["error"])
        return line["result"]

    def call(self, do: str, **given: Any) -> Any:
        return self.wait(self.start(do, **given))

    def request(self, method: str, params: object) -> Any:
        """Send a request that the SDK has no method for."""
        return self.call("request", method=method, params=params)

    def answer(self, call: str, option: str | None) -> None:
        """Answer a question with an option; None: it is cancelled."""
        self._send({"answer": call, "option": option})

    def leave(self) -> Json | None:
        """Go; gives how the agent's process ended, if there was one."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        while self._read():
            pass
        return next((line for line in self.told if "left" in line), None)

    def _send(self, order: Json) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    # ---- what happened

    def first(self, holds: Callable[[Json], bool]) -> Json:
        """The first thing that happened of a kind, as soon as it has."""
        at = 0
        while True:
            for line in self.told[at:]:
                if holds(line):
                    return line
            at = len(self.told)
            assert self._read(), "the editor is gone"

    def _read(self) -> bool:
        assert self.process.stdout is not None
        with DefaultSelector() as selector:
            selector.register(self.process.stdout, EVENT_READ)
            assert selector.select(PATIENCE), f"nothing happened behind {self.told[-3:]}"
        data = os.read(self.process.stdout.fileno(), 2**20)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self.told += map(json.loads, lines)
        return bool(data)

    def heard(self) -> list[Json]:
        """The messages the agent sent."""
        return [line["heard"] for line in self.told if "heard" in line]

    def shown(self, session: str) -> list[Json]:
        """The updates of a session that the SDK showed."""
        lines = [line["shown"] for line in self.told if "shown" in line]
        return [line["update"] for line in lines if line["sessionId"] == session]

    def text(self, session: str, kind: str = "agent_message_chunk") -> str:
        """What was said in a session."""
        return "".join(
            update["content"]["text"]
            for update in self.shown(session)
            if update["sessionUpdate"] == kind
        )

    def question(self, session: str) -> Json:
        """The first question about a session, as soon as the editor has been asked."""
        request = self.first(
            lambda line: (
                line.get("heard", {}).get("method") == "session/request_permission"
                and line["heard"]["params"]["sessionId"] == session
            )
        )
        params: Json = request["heard"]["params"]
        call = params["toolCall"]["toolCallId"]
        self.first(lambda line: line.get("asked") == call)
        return params

    def problems(self) -> list[Json]:
        """Everything the agent sent that the SDK has no model for, or does not take as it is."""
        return [
            line
            for line in self.told
            if {"said", "complaint"} & set(line)
            or ("heard" in line and (line["problem"] or not line["model"]))
        ]


def over_websocket(daemon: DaemonProcess) -> Json:
    """How an editor connects to a daemon's WebSocket."""
    return {"url": daemon.websocket, "token": daemon.token}


def over_bridge(state_dir: Path) -> Json:
    """How an editor connects through `moorage acp`."""
    return _by_command(["-c", MOORAGE, "acp", "--state-dir", str(state_dir)])


def over_stdio(state_dir: Path) -> Json:
    """How an editor starts a daemon of its own."""
    return _by_command(["-m", "moorage_daemon", "--stdio", "--state-dir", str(state_dir)])


def _by_command(arguments: list[str]) -> Json:
    path = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    return {"command": [sys.executable, *arguments], "env": path}


def open_editor(how: Json) -> AbstractContextManager[Editor]:
    """Start an editor of the Python SDK that connects to an agent; see `driver.py` for how."""
    return _opened([sys.executable, str(DRIVER), json.dumps(how)])


def open_npm_editor(sdk: Sdk, how: Json) -> AbstractContextManager[Editor]:
    """Start an editor of the JavaScript SDK; see `driver.mjs`."""
    return _opened([sdk.node, str(NPM_DRIVER), str(sdk.packages), json.dumps(how)])


@contextmanager
def _opened(command: list[str]) -> Generator[Editor]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        editor = Editor(process)
        try:
            editor.first(lambda line: "ready" in line)
            yield editor
        finally:
            process.kill()
